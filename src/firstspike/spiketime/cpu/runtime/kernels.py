"""Kernels: C functions of one pointer to whole numbers, which the host fills in as a ``Layout`` says.

``docs/kernels.md`` shows one. First of the numbers come the phase to begin with, the one to end before, how many
threads have started and ended, and whether the kernel refuses its arguments; for each phase a counter from which each
thread takes its next task, and the number of tasks; then the sizes, and arrays as addresses.

A thread takes tasks until it takes a number that no task has. Where an exception ends it, Numba only prints that. The
host sees that fewer threads have ended than started.
"""

# mypy: disable-error-code="no-untyped-def"
import ctypes
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import from_dtype
from numba.core import types
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import register_model
from numba.np.arrayobj import populate_array

from firstspike.spiketime.cpu.runtime.compiling import LINE, Kernel, c_function, emitted, jit

if TYPE_CHECKING:
    from torch import Tensor

PHASES = 3  # at most
PHASE, END, STARTED, ENDED, REFUSED, COUNTER = range(6)
TASKS = COUNTER + PHASES
FIRST = TASKS + PHASES  # place of the kernel's own numbers, after those that the module tells of
SIGNATURE = types.void(types.CPointer(types.int64))
_WORD = ir.IntType(64)


class Layout:
    """Sizes, flags among them, and arrays: for each its dtype, and its shape in terms of the sizes and of numbers.

    The dtype ``real`` is that of the kernel.
    """

    def __init__(self, sizes: str, **arrays: str) -> None:
        self.sizes, self._declared = tuple(sizes.split()), arrays
        self.arrays = {name: (dtype, shape) for name, (dtype, *shape) in ((k, v.split()) for k, v in arrays.items())}
        numbers = enumerate((*self.sizes, *arrays), FIRST)
        self.places = {"refused": REFUSED, **{name: place for place, name in numbers}}

    def extended(self, sizes: str = "", **arrays: str) -> "Layout":
        """This layout with more sizes and arrays, or with other ones of the same names."""
        return Layout(" ".join((*self.sizes, sizes)), **self._declared | arrays)

    def plan(self, real: str, sizes: Mapping[str, int], given: Iterable[str]) -> "Plan":
        """The plan of calls with these sizes and arrays of these names. Other arrays lie in scratch memory."""
        return _plan(self, real, tuple(sizes[name] for name in self.sizes), tuple(given))

    def tensors(self, names: Iterable[str], like: "Tensor", sizes: Mapping[str, int]) -> "dict[str, Tensor]":
        """The arrays of these names, uninitialised. ``like`` is a tensor of ``real`` numbers."""
        import torch  # which compiling does not need

        def tensor(dtype: str, shape: list[str]) -> "Tensor":
            kind = like.dtype if dtype == "real" else getattr(torch, dtype)
            return like.new_empty([_length(size, sizes) for size in shape], dtype=kind)

        return {name: tensor(*self.arrays[name]) for name in names}

    def dtype_of(self, array: str, real: str) -> np.dtype[Any]:
        """The dtype of an array, if ``real`` numbers are of that kind."""
        name = self.arrays[array][0]
        return np.dtype(real if name == "real" else name)


def _length(size: str, sizes: Mapping[str, int]) -> int:
    return int(size) if size.isdigit() else sizes[size]


class Plan(NamedTuple):
    """The numbers of calls with the same sizes."""

    sizes: tuple[int, ...]
    taken: Mapping[str, int]  # bytes of each array: of those that the calls give, then of those in scratch memory
    starts: tuple[int, ...]  # where the latter lie there
    scratch: int  # bytes of it
    order: tuple[int, ...]  # places among these of all arrays, as the layout has them

    def numbers(self, arrays: "Sequence[Tensor | None]", memory: int) -> list[int]:
        """A kernel's numbers, from the given arrays (contiguous, or nothing where none is used) and scratch memory."""
        assert len(arrays) + len(self.starts) == len(self.taken), f"got {len(arrays)} arrays for {tuple(self.taken)}"
        given = [0 if x is None else x.data_ptr() for x in arrays]
        return self.numbers_at(given + _places(memory, self.starts))

    def numbers_at(self, places: Sequence[int]) -> list[int]:
        """A kernel's numbers, from the addresses of the arrays in ``taken``."""
        return [*self.sizes, *map(places.__getitem__, self.order)]


@lru_cache(maxsize=256)
def _places(memory: int, starts: tuple[int, ...]) -> list[int]:
    """Addresses in scratch memory, which most often is the same as before."""
    return [memory + start for start in starts]


@lru_cache(maxsize=256)
def _plan(layout: Layout, real: str, values: tuple[int, ...], given: tuple[str, ...]) -> Plan:
    sizes, starts, size = dict(zip(layout.sizes, values, strict=True)), [], 0
    rest = [name for name in layout.arrays if name not in given]
    taken = {
        name: layout.dtype_of(name, real).itemsize * prod(_length(x, sizes) for x in layout.arrays[name][1])
        for name in (*given, *rest)
    }
    for name in rest:
        starts.append(size)
        size += -(-taken[name] // LINE) * LINE
    return Plan(values, taken, tuple(starts), size, tuple(map([*taken].index, layout.arrays)))


class ArgumentsType(types.Type):
    """Numba's type of a kernel's arguments: their layout, the type of its ``real`` numbers, and the rest of its kind.

    Numba names functions by their types, and functions from disk are linked by these names. So the name is the same
    in each process, and another for each kind of a kernel.
    """

    def __init__(self, layout: Layout, real: str, kind: tuple[Any, ...]) -> None:
        self.layout, self.real, self.kind = layout, real, kind
        digest = hashlib.sha256(repr((layout.sizes, layout.arrays, real, kind)).encode()).hexdigest()
        super().__init__(name=f"ArgumentsType({digest[:12]})")


@register_model(ArgumentsType)
class _ArgumentsModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: ArgumentsType) -> None:
        super().__init__(dmm, fe_type, _WORD.as_pointer())


@infer_getattr
class _ArgumentsAttribute(AttributeTemplate):
    key = ArgumentsType

    def generic_resolve(self, value, attr):  # type: ignore[override]
        if attr in value.layout.arrays:
            _, shape = value.layout.arrays[attr]
            return types.Array(from_dtype(value.layout.dtype_of(attr, value.real)), len(shape), "C")
        return types.intp if attr in value.layout.places else None


def _address(builder, numbers, place):
    return builder.gep(numbers, [_WORD(place)])


@lower_getattr_generic(ArgumentsType)
def _argument(context, builder, kind, numbers, name):
    layout = kind.layout

    def number(name):
        found = builder.load(_address(builder, numbers, layout.places[name]))
        if name != "refused":  # the others never change while a kernel runs, whatever it writes
            found.set_metadata("invariant.load", builder.module.add_metadata([]))
        return found

    if name not in layout.arrays:
        return number(name)
    kind = context.typing_context.resolve_getattr(kind, name)
    array, step = context.make_array(kind)(context, builder), _WORD(kind.dtype.bitwidth // 8)
    shape = [_WORD(int(size)) if size.isdigit() else number(size) for size in layout.arrays[name][1]]
    strides, size = [], step
    for length in reversed(shape):
        strides.insert(0, size)
        size = builder.mul(size, length)
    populate_array(array, builder.inttoptr(number(name), array.data.type), shape, strides, step, None)
    return array._getvalue()


@lower_setattr_generic(ArgumentsType)
def _set_argument(context, builder, sig, args, name):
    assert name == "refused", f"kernels read {name}"
    builder.store(context.cast(builder, args[1], sig.args[1], types.intp), _address(builder, args[0], REFUSED))


@emitted(lambda numbers, place: types.intp(numbers, types.intp))
def count_on(context, builder, sig, numbers, place):
    """Count on at that place. Each thread gets another number."""
    return builder.atomic_rmw("add", builder.gep(numbers, [place]), _WORD(1), "monotonic")


@jit
def samples_of(task, batch, most):
    """The network and the samples of a task, where each task has up to so many samples of one network."""
    blocks = (batch + most - 1) // most
    first = task % blocks * most
    return task // blocks, first, min(first + most, batch)


@jit
def part_of(size, parts, number):
    """The first of a part's things, and the one after its last."""
    return number * size // parts, (number + 1) * size // parts


def _as_it_is(context, builder, sig, numbers):
    return numbers


@jit
def _nothing(g, slot, task):
    pass


def kernel(
    layout: Layout | Callable[..., Layout], following: str = ""
) -> Callable[[Callable[..., tuple[Any, ...]]], Callable[..., Kernel]]:
    """Make a kernel of up to three phases, see the module, of a function that returns them.

    It is compiled for each kind that the function is called with, of which the first is the type of ``real`` numbers,
    and kept on disk. The rest of the kind may choose the layout. ``following`` is the kernel that is needed next for
    the same kind, see ``c_function``.
    """

    def decorated(phases_for: Callable[..., tuple[Any, ...]]) -> Callable[..., Kernel]:
        def make(real: str, *kind: Any) -> Kernel:
            chosen = layout if isinstance(layout, Layout) else layout(*kind)
            arguments = emitted(lambda numbers: ArgumentsType(chosen, real, kind)(numbers))(_as_it_is)
            first, second, third = (*phases_for(real, *kind), _nothing, _nothing)[:3]

            def function(numbers):
                slot, g = count_on(numbers, STARTED), arguments(numbers)
                for phase in range(numbers[PHASE], numbers[END]):
                    while True:
                        task = count_on(numbers, COUNTER + phase)
                        if task >= numbers[TASKS + phase]:
                            break
                        if phase == 0:
                            first(g, slot, task)
                        elif phase == 1:
                            second(g, slot, task)
                        else:
                            third(g, slot, task)
                count_on(numbers, ENDED)

            function.__module__ = phases_for.__module__
            function.__qualname__ = f"{phases_for.__qualname__}.{'_'.join(map(str, (real, *kind)))}"
            found = c_function(SIGNATURE, real, *kind, following=following)(function).ctypes
            found.argtypes = (ctypes.c_void_p,)  # an address is quicker to pass than an array
            return found

        return lru_cache(maxsize=8)(make)

    return decorated
