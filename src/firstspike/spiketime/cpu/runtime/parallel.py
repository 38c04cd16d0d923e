"""Tasks on torch's own threads, and the raw memory that they work on.

Kernels run on torch's own pool of threads, by ``GOMP_parallel``, which the OpenMP runtimes that torch is built with
(GNU's, Intel's, LLVM's) offer on Linux. With a second pool, such as numba's, the idle threads of one would spin on the
cores that the other needs. Elsewhere Python threads do the work. In a process forked from one that used these kernels,
the pool has no threads, and a call would wait for them for ever: there they work in one thread, and so does torch.
"""

import ctypes
import threading
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

import torch

from firstspike.spiketime.cpu.runtime.compiling import LINE
from firstspike.spiketime.cpu.runtime.kernels import COUNTER, END, ENDED, PHASE, PHASES, STARTED, Layout, Plan


@lru_cache(maxsize=1)
def _openmp() -> Callable[..., None] | None:
    try:
        found = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # looked up in what torch depends on
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    found.restype = None
    return found


@lru_cache(maxsize=1)
def _python_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="firstspike")


@cache
def name_of(dtype: torch.dtype) -> str:
    """``"float32"`` or ``"float64"``, the kernels' names of the type of ``real`` numbers."""
    return str(dtype).removeprefix("torch.")


_START = [0] * (COUNTER + PHASES)
_local = threading.local()
_KEPT = 1 << 29  # bytes that a thread keeps from call to call


def scratch(size: int) -> int:
    """Address of that many bytes of uninitialised memory, for this thread's next ``run``.

    Fresh memory would cost more than some of the kernels, as the system clears it page by page. So a thread keeps some.
    """
    if getattr(_local, "kept", None) is None or _local.size < size:
        _keep_freed_memory()
        _local.kept = None  # freed before more is taken
        _local.kept = torch.empty(size + LINE, dtype=torch.uint8, device="cpu")
        _local.size, _local.start = size, -(-_local.kept.data_ptr() // LINE) * LINE
    return cast(int, _local.start)


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Have glibc keep up to 64 MB of memory that is freed, by freeing the largest block that raises its limits.

    Otherwise it gives the memory of results back to the system, which clears it anew for those of the next call: up to
    a seventh of the time of spike trains. The block itself is never used, and so takes no memory.
    """
    torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8, device="cpu")


def run(kernel: Callable[[Any], None], phases: Sequence[int], numbers: Sequence[int], threads: int) -> Any:
    """Run each phase's tasks, one phase after the other. ``phases`` are numbers of tasks.

    Returns:
        The kernel's numbers as it left them, see ``kernels``.

    Raises:
        RuntimeError: in a thread an exception ended the kernel.
    """
    # ctypes would take twice as long to fill an array of its own
    memory = array("q", (*_START, *phases, *_START[len(phases) : PHASES], *numbers))
    address = memory.buffer_info()[0]
    together = len(phases) if threads == 1 else 1  # phases in one call of the kernel
    for phase in range(0, len(phases), together):
        memory[PHASE], memory[END], memory[STARTED], memory[ENDED] = phase, phase + together, 0, 0
        team = min(threads, phases[phase])
        if team <= 1:
            kernel(address)
        elif (openmp := _openmp()) is not None:
            openmp(ctypes.cast(cast(Any, kernel), ctypes.c_void_p), address, team, 0)
        else:
            others = [_python_threads().submit(kernel, address) for _ in range(team - 1)]
            kernel(address)
            for other in others:
                other.result()
        if memory[ENDED] != memory[STARTED]:
            raise RuntimeError(
                "a kernel on the CPU failed, and there is no result; standard error shows the exception that ended it, "
                "as one that is ignored. With enough memory that is a fault of firstspike: please report it"
            )
    return memory


class Call(NamedTuple):
    """The values of a call that depend on its sizes alone, kept for the next call with these sizes.

    All kernels are called by it, and so tests can put memory of their own in place of the arrays.
    """

    kernel: Any
    phases: tuple[int, ...]
    plan: Plan
    threads: int

    def __call__(self, *arrays: torch.Tensor | None) -> Any:
        """``run`` with the arrays that the plan is given."""
        numbers = self.plan.numbers(arrays, scratch(self.plan.scratch))
        left = run(self.kernel, self.phases, numbers, self.threads)
        if self.plan.scratch > _KEPT:
            _local.kept = None
        return left


def call(
    kernel: Any,
    layout: Layout,
    phases: tuple[int, ...],
    sizes: Mapping[str, int],
    arrays: Mapping[str, torch.Tensor | None],
) -> Any:
    """Call a kernel with arrays by their names, None for those that it does not use. ``sizes`` tell the threads.

    Returns the result of ``run``.
    """
    plan, given = _planned(layout, sizes, arrays)
    return Call(kernel, phases, plan, sizes["threads"])(*given)


def _planned(
    layout: Layout, sizes: Mapping[str, int], arrays: Mapping[str, torch.Tensor | None]
) -> tuple[Plan, list[torch.Tensor | None]]:
    plan = layout.plan(name_of(arrays["weight"].dtype), sizes, arrays)  # type: ignore[union-attr]
    return plan, [x if x is None else x.contiguous() for x in arrays.values()]


def call_in_turns(
    kernel: Any,
    layout: Layout,
    turns: Iterable[tuple[int, ...]],
    sizes: Mapping[str, int],
    arrays: Mapping[str, torch.Tensor | None],
) -> None:
    """Call a kernel once for each of ``turns``, the numbers of tasks of its phases, on the same memory.

    What one call leaves in scratch memory, the next one finds. Between two calls Python looks at signals.
    """
    plan, given = _planned(layout, sizes, arrays)
    numbers = plan.numbers(given, scratch(plan.scratch))
    memory, size, start = _local.kept, _local.size, _local.start
    _local.kept = None  # for what a handler of signals may call
    for phases in turns:
        run(kernel, phases, numbers, sizes["threads"])
    if plan.scratch <= _KEPT:
        _local.kept, _local.size, _local.start = memory, size, start
