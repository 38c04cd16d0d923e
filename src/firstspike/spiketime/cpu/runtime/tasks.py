"""Tasks as a kernel sees them.

A kernel is a C function of one pointer to whole numbers: a counter from which each thread takes its next task, the
number of tasks, the phase, how many threads have started, then what the kernel needs, arrays as addresses.

A thread takes tasks until it takes a number that no task has. Where an exception ends it, Numba only prints that; the
host sees that fewer threads got so far than have started.
"""

# mypy: disable-error-code="no-untyped-def"
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

FIRST = 4  # place of the kernel's own numbers
COUNTER, TASKS, PHASE, STARTED = range(FIRST)
SIGNATURE = types.void(types.CPointer(types.int64))


@intrinsic
def take(typingctx, numbers, place):
    """Take the next of the whole numbers that are counted at that place, each one once over all threads."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), ir.IntType(64)(1), "monotonic")

    return types.intp(numbers, types.intp), codegen


@intrinsic
def next_task(typingctx, numbers):
    """Take the next task's number, each one once over all threads."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", args[0], ir.IntType(64)(1), "monotonic")

    return types.intp(numbers), codegen
