"""Values that CPU kernels share with the rest of the package, available before they load with the first call.

Kernels are compiled without torch, so it is not loaded here before it is used.
"""

import os
import threading
from collections.abc import Callable
from functools import lru_cache

LARGEST_32, LARGEST_64 = 1e30, 1e200
"""Limit of weights, in thresholds, and of ``tau_mem / tau_syn``, in float32 and float64."""

listeners: list[Callable[[], None]] = []
"""Called whenever a kernel is compiled, before."""

_SMALL = 1 << 18  # work below which starting threads costs more than it saves
_UNIT = 4  # synapses times samples that are one unit of work
_ALONE = 32  # inputs that take as long as the rest of a neuron
_LANES = 16  # neurons that take as long as one

_forked = threading.Event()
_local = threading.local()


def work_of(samples: int, inputs: int, outputs: int) -> int:
    """How much there is to do for a layer's samples."""
    return samples * (inputs + _ALONE) * max(outputs, _LANES) // _UNIT


def is_small(work: int) -> bool:
    """Whether that is too little to part."""
    return work < _SMALL


def threads_for(work: int) -> int:
    """Threads worth starting: one for little work and in a forked process, else ``use_threads``' or torch's number."""
    _watch_forks()
    if work < _SMALL or _forked.is_set():
        return 1
    import torch

    return getattr(_local, "threads", None) or torch.get_num_threads()


def use_threads(number: int | None) -> None:
    """How many threads the kernels take that this thread calls; by default, or after ``None``, torch's number."""
    _local.threads = number


@lru_cache(maxsize=1)
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_work_alone)


def _work_alone() -> None:
    import torch

    _forked.set()
    torch.set_num_threads(1)
