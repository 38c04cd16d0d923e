"""The arguments of a kernel, declared once: the host fills them in and the kernel reads them by the same names.

    ADD = Layout("batch outputs", spikes="real batch outputs", count="int32 batch")

declares two sizes and two arrays, each with its dtype (``real`` is that of the kernel) and its shape in terms of the
sizes. The host calls ``run(kernel, phases, ADD.fill("float32", sizes, arrays), threads)``; a kernel starts with
``g = read(a)``, where ``read = ADD.reader("float32")``, and has ``g.batch`` and ``g.spikes[b]``. Arrays that the host
does not give are working memory of the call. Where calls are short, the host keeps an ``ADD.plan`` of its sizes.
"""

# mypy: disable-error-code="no-untyped-def"
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import from_dtype
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from firstspike.spiketime.cpu.runtime.tasks import FIRST

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

    def fill(self, real: str, sizes: Mapping[str, int], arrays: "Mapping[str, Tensor | int]") -> list[int]:
        """A kernel's numbers. Arrays are contiguous tensors or addresses; those left out lie in scratch memory."""
        return self.plan(real, sizes, tuple(arrays)).numbers(tuple(arrays.values()))

    def plan(self, real: str, sizes: Mapping[str, int], given: Sequence[str], unused: Sequence[str] = ()) -> "Plan":
        """What ``fill`` does, for calls with these sizes that give the arrays of these names, and do not use others."""
        return _plan(self, real, self._pick(sizes), tuple(given), tuple(unused))

    def dtype_of(self, array: str, real: str) -> np.dtype[Any]:
        """Of an array, where ``real`` numbers are of that kind."""
        name = self.arrays[array][0]
        return np.dtype(real if name == "real" else name)

    def reader(self, real: str) -> Any:
        """The function by which a kernel has its sizes and arrays from its numbers, by name."""
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
    starts: tuple[int, ...]
    """Where the others lie in scratch memory."""
    scratch: int
    """Bytes of it."""
    pick: Callable[[Sequence[int]], tuple[int, ...]]
    """The layout's order of all arrays, from the given ones, then the others, then the address of those not used."""

    def numbers(self, arrays: "Sequence[Tensor | int]") -> list[int]:
        """A kernel's numbers, from the arrays that are given, tensors or addresses."""
        from firstspike.spiketime.cpu.runtime.parallel import scratch  # loads torch, which compiling does not need

        assert len(arrays) == self.given, f"expected {self.given} arrays, got {len(arrays)}"
        memory = scratch(self.scratch)
        places = [x if isinstance(x, int) else x.data_ptr() for x in arrays]
        return [*self.sizes, *self.pick([*places, *(memory + start for start in self.starts), 0])]


@lru_cache(maxsize=256)
def _plan(layout: Layout, real: str, values: tuple[int, ...], given: tuple[str, ...], unused: tuple[str, ...]) -> Plan:
    sizes, starts, size = dict(zip(layout.sizes, values, strict=True)), [], 0
    rest = [name for name in layout.arrays if name not in given and name not in unused]
    for name in rest:
        starts.append(size)
        taken = layout.dtype_of(name, real).itemsize * prod(sizes[x] for x in layout.arrays[name][1])
        size += -(-taken // LINE) * LINE
    places = {name: place for place, name in enumerate((*given, *rest))}
    pick = itemgetter(*(places.get(name, len(places)) for name in layout.arrays))
    return Plan(values, len(given), tuple(starts), size, pick)
