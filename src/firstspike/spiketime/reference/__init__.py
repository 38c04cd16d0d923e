"""The operator in plain PyTorch, on any device, and the mathematics of the membrane.

``response`` has the membrane after an input and its maximum, ``solutions`` the time at which it reaches the threshold,
``first_spikes`` and ``trains`` the operator, which every other backend is tested against. ``peaks`` and ``maxima`` are
about neurons that stay silent, or have no threshold.
"""

from firstspike.spiketime.reference.first_spikes import backward, forward

__all__ = ["backward", "forward"]
