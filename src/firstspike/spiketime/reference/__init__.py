"""The operator in plain PyTorch, on any device, and the mathematics of the membrane.

``response`` has the membrane after an input and its maximum, ``solutions`` the time at which it reaches the threshold,
``first_spikes`` and ``trains`` the operator, which every other backend is tested against. ``peaks`` and ``maxima`` are
about neurons that stay silent, or have no threshold.
"""

from typing import Any

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Result
from firstspike.spiketime.reference import first_spikes, train_gradient, trains

__all__ = ["backward", "forward"]


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    return (trains if given.max_spikes else first_spikes).forward(given)


def backward(grads: Grads, result: Result, given: Arguments, *rest: Any) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    return (train_gradient if given.max_spikes else first_spikes).backward(grads, result, given, *rest)
