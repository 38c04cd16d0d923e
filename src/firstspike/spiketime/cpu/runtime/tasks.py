"""Tasks of kernels that do not use ``kernels.kernel`` yet."""

# mypy: disable-error-code="no-untyped-def"

from firstspike.spiketime.cpu.runtime.arguments import COUNTER, PHASE, STARTED, TASKS, Layout
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import SIGNATURE, arguments_of, count_on

__all__ = ["PHASE", "SIGNATURE", "TASKS", "next_task", "reader"]


@jit
def next_task(numbers):
    """Take the next task's number, each one once over all threads."""
    return count_on(numbers, COUNTER)


def reader(layout: Layout, real: str):
    """The function by which a kernel has its sizes and arrays from its numbers, by name."""
    arguments = arguments_of(layout, real)

    @jit
    def read(numbers):
        count_on(numbers, STARTED)
        return arguments(numbers)

    return read
