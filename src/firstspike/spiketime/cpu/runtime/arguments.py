"""The arguments of a kernel, declared once: the host fills them in and the kernel reads them by the same names.

    ADD = Layout("batch outputs", spikes="real batch outputs", count="int32 batch")

declares two sizes and two arrays, each with its dtype (``real`` is that of the kernel) and its shape in terms of the
sizes. The host makes ``Call(kernel, phases, ADD.plan("float32", sizes, ["spikes"]), threads)``, which it keeps where
calls are short, and gives it the arrays; a kernel starts with ``g = read(a)``, where ``read = ADD.reader("float32")``,
and has ``g.batch`` and ``g.spikes[b]``. Arrays that the host does not give are working memory of the call.
"""

# mypy: disable-error-code="no-untyped-def"
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import from_dtype
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from firstspike.spiketime.cpu.runtime.tasks import FIRST, STARTED

if TYPE_CHECKING:
    from torch import Tensor

LINE = 64  # bytes of a cache line


class Layout:
    """Sizes, flags among them, and arrays: for each its dtype and the names of its sizes."""

    def __init__(self, sizes: str, **arrays: str) -> None:
        self.sizes = tuple(sizes.split())
        self._pick = itemgetter(*self.sizes)
        self.arrays = {
            name: (dtype, tuple(shape)) for name, (dtype, *shape) in ((k, v.split()) for k, v in arrays.items())
        }

    def place(self, size: str) -> int:
        """Where a kernel's numbers have that size."""
        return FIRST + self.sizes.index(size)

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

    def dtype_of(self, array: str, real: str) -> np.dtype[Any]:
        """Of an array, where ``real`` numbers are of that kind."""
        name = self.arrays[array][0]
        return np.dtype(real if name == "real" else name)

    def reader(self, real: str) -> Any:
        """The function by which a kernel has its sizes and arrays from its numbers, by name.

        Each thread calls it first, as it also counts the thread among those that have started.
        """
        record = namedtuple("record", (*self.sizes, *self.arrays))
        arrays = [
            types.Array(from_dtype(self.dtype_of(name, real)), len(shape), "C")
            for name, (_, shape) in self.arrays.items()
        ]
        whole = types.NamedTuple((*(types.intp for _ in self.sizes), *arrays), record)

        def number(builder, numbers, place):
            return builder.load(builder.gep(numbers, [ir.IntType(64)(FIRST + place)]))

        @intrinsic
        def read(typingctx, numbers):
            def codegen(context, builder, sig, args):
                started = builder.gep(args[0], [ir.IntType(64)(STARTED)])
                builder.atomic_rmw("add", started, ir.IntType(64)(1), "monotonic")
                sizes = {name: number(builder, args[0], place) for place, name in enumerate(self.sizes)}
                found = list(sizes.values())
                for place, (kind, (_, shape)) in enumerate(zip(arrays, self.arrays.values(), strict=True), len(sizes)):
                    array = context.make_array(kind)(context, builder)
                    step = ir.IntType(64)(kind.dtype.bitwidth // 8)
                    strides, size = [], step
                    for name in reversed(shape):
                        strides.insert(0, size)
                        size = builder.mul(size, sizes[name])
                    data = builder.inttoptr(number(builder, args[0], place), array.data.type)
                    populate_array(array, data, [sizes[name] for name in shape], strides, step, None)
                    found.append(array._getvalue())
                return context.make_tuple(builder, sig.return_type, found)

            return whole(numbers), codegen

        return read


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
