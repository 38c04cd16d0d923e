"""Numba kernels for the CPU; the contract is ``contract``'s. Importing compiles nothing, the first call does.

Compiled kernels are kept on disk, see ``cache``.
"""

from typing import Any

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Result
from firstspike.spiketime.cpu import host
from firstspike.spiketime.cpu.host import saves
from firstspike.spiketime.cpu.trains import host as trains_host

__all__ = ["backward", "forward", "saves"]


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    return (trains_host if given.max_spikes else host).forward(given)


def backward(grads: Grads, result: Result, given: Arguments, *rest: Any) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    return (trains_host if given.max_spikes else host).backward(grads, result, given, *rest)
