"""The arguments of a kernel, declared once: the host fills them in and the kernel reads them by the same names.

    ADD = Layout("batch outputs", spikes="real batch outputs", count="int32 batch")

declares two sizes and two arrays, each with its dtype (``real`` is that of the kernel) and its shape in terms of the
sizes. The host makes ``Call(kernel, phases, ADD.plan("float32", sizes, ["spikes"]), threads)``, which it keeps where
calls are short, and gives it the arrays. A kernel of that layout, see ``kernels``, reads ``g.batch`` and
``g.spikes[b]``. Arrays that the host does not give are working memory of the call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

LINE = 64  # bytes of a cache line
FIRST = 5  # place of the kernel's own numbers, after those that ``kernels`` tells of
COUNTER, TASKS, PHASE, STARTED, REFUSED = range(FIRST)


class Layout:
    """Sizes, flags among them, and arrays: for each its dtype and the names of its sizes."""

    def __init__(self, sizes: str, **arrays: str) -> None:
        self.sizes = tuple(sizes.split())
        self._pick = itemgetter(*self.sizes)
        self.arrays = {
            name: (dtype, tuple(shape)) for name, (dtype, *shape) in ((k, v.split()) for k, v in arrays.items())
        }
        self.places = {name: FIRST + place for place, name in enumerate((*self.sizes, *self.arrays))}

    def extended(self, sizes: str = "", **arrays: str) -> "Layout":
        """This layout with more sizes and arrays."""
        own = {name: " ".join((dtype, *shape)) for name, (dtype, shape) in self.arrays.items()}
        return Layout(" ".join((*self.sizes, sizes)), **own, **arrays)

    def plan(
        self,
        real: str,
        sizes: Mapping[str, int],
        given: Iterable[str],
        unused: Iterable[str] = (),
        within: Mapping[str, tuple[str, int]] = MappingProxyType({}),
    ) -> "Plan":
        """For calls with these sizes that give the arrays of these names, and do not use others.

        Arrays ``within`` a given one start at that offset, counted in elements. The rest lies in scratch memory.
        """
        return _plan(self, real, self._pick(sizes), tuple(given), tuple(unused), tuple(within.items()))

    def tensors(self, names: Iterable[str], like: "Tensor", sizes: Mapping[str, int]) -> "dict[str, Tensor]":
        """Those arrays, uninitialised; ``like`` is a tensor of ``real`` numbers."""
        import torch  # which compiling does not need

        shapes = {name: [sizes[size] for size in self.arrays[name][1]] for name in names}
        dtypes = {name: self.arrays[name][0] for name in shapes}
        return {
            name: like.new_empty(shape, dtype=like.dtype if dtypes[name] == "real" else getattr(torch, dtypes[name]))
            for name, shape in shapes.items()
        }

    def dtype_of(self, array: str, real: str) -> np.dtype[Any]:
        """Of an array, where ``real`` numbers are of that kind."""
        name = self.arrays[array][0]
        return np.dtype(real if name == "real" else name)


class Plan(NamedTuple):
    """The numbers of calls with the same sizes."""

    sizes: tuple[int, ...]
    given: int
    """How many arrays the calls give."""
    taken: Mapping[str, int]
    """Bytes of each array: of the given ones, then of those in scratch memory."""
    starts: tuple[int, ...]
    """Where the latter lie there."""
    scratch: int
    """Bytes of it."""
    within: tuple[tuple[int, int], ...]
    """Of the others, in which given one they lie, and at which byte."""
    pick: Callable[[Sequence[int]], tuple[int, ...]]
    """The layout's order of all arrays, from those three kinds, then the address of those not used."""

    def numbers(self, arrays: "Sequence[Tensor | None]") -> list[int]:
        """A kernel's numbers, from the arrays that are given: contiguous tensors, or nothing where none is used."""
        from firstspike.spiketime.cpu.runtime.parallel import scratch  # loads torch, which compiling does not need

        assert len(arrays) == self.given, f"expected {self.given} arrays, got {len(arrays)}"
        memory = scratch(self.scratch)
        given = [0 if x is None else x.data_ptr() for x in arrays]
        return self.numbers_at([*given, *(memory + start for start in self.starts)])

    def numbers_at(self, places: Sequence[int]) -> list[int]:
        """A kernel's numbers, from the addresses of the arrays in ``taken``."""
        return [*self.sizes, *self.pick([*places, *(places[array] + start for array, start in self.within), 0])]


@lru_cache(maxsize=256)
def _plan(
    layout: Layout,
    real: str,
    values: tuple[int, ...],
    given: tuple[str, ...],
    unused: tuple[str, ...],
    within: tuple[tuple[str, tuple[str, int]], ...],
) -> Plan:
    sizes, starts, size = dict(zip(layout.sizes, values, strict=True)), [], 0
    inside = {
        name: (given.index(array), start * layout.dtype_of(name, real).itemsize) for name, (array, start) in within
    }
    rest = [name for name in layout.arrays if name not in given and name not in unused and name not in inside]
    taken = {
        name: layout.dtype_of(name, real).itemsize * prod(sizes[x] for x in layout.arrays[name][1])
        for name in (*given, *rest)
    }
    for name in rest:
        starts.append(size)
        size += -(-taken[name] // LINE) * LINE
    places = {name: place for place, name in enumerate((*taken, *inside))}
    pick = itemgetter(*(places.get(name, len(places)) for name in layout.arrays))
    return Plan(values, len(given), taken, tuple(starts), size, tuple(inside.values()), pick)
