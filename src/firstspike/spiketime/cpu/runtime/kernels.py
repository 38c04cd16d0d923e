"""Kernels: C functions of one pointer to whole numbers, which the host fills in as a ``Layout`` says.

First come a counter from which each thread takes its next task, the number of tasks, the phase, how many threads have
started, and whether the kernel refuses its arguments; then what the kernel needs, arrays as addresses.

    @kernel(ADD)
    def add_kernel(dtype):
        return (add,)

makes a kernel of one phase, ``add(g, slot, task)``, which is called for each of the phase's tasks. ``g.batch`` and
``g.spikes[b]`` are a size and an array of the layout ``ADD``; whoever is given ``g`` is given the pointer alone.
``slot`` numbers the threads of a phase, each of which has memory of its own where an array has ``threads`` rows.

A thread takes tasks until it takes a number that no task has. Where an exception ends it, Numba only prints that; the
host sees that fewer threads got so far than have started.
"""

# mypy: disable-error-code="no-untyped-def"
import hashlib
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import from_dtype
from numba.core import types
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import populate_array

from firstspike.spiketime.cpu.runtime.arguments import COUNTER, PHASE, REFUSED, STARTED, TASKS, Layout
from firstspike.spiketime.cpu.runtime.cache import Kernel, c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit

SIGNATURE = types.void(types.CPointer(types.int64))
_WORD = ir.IntType(64)


class Arguments(types.Type):
    """Numba's type of a kernel's arguments: their layout, what its ``real`` numbers are, and the rest of its kind.

    Numba names functions by their types, and what is loaded from disk is linked by these names. So the name is the same
    in each process, and another for each kind of a kernel.
    """

    def __init__(self, layout: Layout, real: str, kind: tuple[Any, ...]) -> None:
        self.layout, self.real = layout, real
        digest = hashlib.sha256(repr((layout.sizes, layout.arrays, real, kind)).encode()).hexdigest()
        super().__init__(name=f"Arguments({digest[:12]})")


@register_model(Arguments)
class _ArgumentsModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: Arguments) -> None:
        super().__init__(dmm, fe_type, _WORD.as_pointer())


def _place_of(layout: Layout, name: str) -> int | None:
    return REFUSED if name == "refused" else layout.places.get(name)


@infer_getattr
class _ArgumentsAttribute(AttributeTemplate):
    key = Arguments

    def generic_resolve(self, value, attr):  # type: ignore[override]
        if attr in value.layout.arrays:
            _, shape = value.layout.arrays[attr]
            return types.Array(from_dtype(value.layout.dtype_of(attr, value.real)), len(shape), "C")
        return None if _place_of(value.layout, attr) is None else types.intp


def _address(builder, numbers, place):
    return builder.gep(numbers, [_WORD(place)])


@lower_getattr_generic(Arguments)
def _argument(context, builder, kind, numbers, name):
    layout = kind.layout

    def number(name):
        found = builder.load(_address(builder, numbers, _place_of(layout, name)))
        if name != "refused":  # the others never change while a kernel runs, whatever it writes
            found.set_metadata("invariant.load", builder.module.add_metadata([]))
        return found

    if name not in layout.arrays:
        return number(name)
    kind = context.typing_context.resolve_getattr(kind, name)
    array, step = context.make_array(kind)(context, builder), _WORD(kind.dtype.bitwidth // 8)
    shape = [number(size) for size in layout.arrays[name][1]]
    strides, size = [], step
    for length in reversed(shape):
        strides.insert(0, size)
        size = builder.mul(size, length)
    populate_array(array, builder.inttoptr(number(name), array.data.type), shape, strides, step, None)
    return array._getvalue()


@lower_setattr_generic(Arguments)
def _set_argument(context, builder, sig, args, name):
    assert name == "refused", f"kernels read {name}"
    builder.store(context.cast(builder, args[1], sig.args[1], types.intp), _address(builder, args[0], REFUSED))


@intrinsic
def count_on(typingctx, numbers, place):
    """Count on at that place; each thread gets another number."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), _WORD(1), "monotonic")

    return types.intp(numbers, types.intp), codegen


def arguments_of(layout: Layout, real: str, kind: tuple[Any, ...]) -> Any:
    """The function by which a kernel has its arguments from its numbers."""

    @intrinsic
    def arguments(typingctx, numbers):
        return Arguments(layout, real, kind)(numbers), lambda context, builder, sig, args: args[0]

    return arguments


@jit
def samples_of(task, batch, most):
    """The network and the samples of a task, where each task has up to so many samples of one network."""
    blocks = (batch + most - 1) // most
    first = task % blocks * most
    return task // blocks, first, min(first + most, batch)


@jit
def _nothing(g, slot, task):
    pass


def kernel(
    layout: Layout | Callable[..., Layout], following: str = ""
) -> Callable[[Callable[..., tuple[Any, ...]]], Callable[..., Kernel]]:
    """Make a kernel of up to three phases, see the module, of a function that returns them.

    It is compiled for each kind that the function is called with, of which the first is what ``real`` numbers are, and
    kept on disk. The rest of the kind may choose the layout. ``following`` is the kernel that is needed next for the
    same kind, see ``c_function``.
    """

    def decorated(phases_for: Callable[..., tuple[Any, ...]]) -> Callable[..., Kernel]:
        def make(real: str, *kind: Any) -> Kernel:
            arguments = arguments_of(layout if isinstance(layout, Layout) else layout(*kind), real, kind)
            first, second, third = (*phases_for(real, *kind), _nothing, _nothing)[:3]

            def function(numbers):
                slot, g, phase = count_on(numbers, STARTED), arguments(numbers), numbers[PHASE]
                while True:
                    task = count_on(numbers, COUNTER)
                    if task >= numbers[TASKS]:
                        break
                    if phase == 0:
                        first(g, slot, task)
                    elif phase == 1:
                        second(g, slot, task)
                    else:
                        third(g, slot, task)

            function.__module__ = phases_for.__module__
            function.__qualname__ = f"{phases_for.__qualname__}.{'_'.join(map(str, (real, *kind)))}"
            return c_function(SIGNATURE, real, *kind, following=following)(function).ctypes

        return kept_on_disk(make)

    return decorated
