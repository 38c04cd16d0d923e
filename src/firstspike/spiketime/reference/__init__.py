"""The operator in plain PyTorch, on any device, and the mathematics of the membrane.

``response`` has the membrane after an input and its maximum, ``solutions`` the time at which it reaches the threshold.
``event_loop`` and ``adjoint`` are the passes of the operator, which every other backend is tested against; ``peaks`` is
about neurons that stay silent, or have no threshold.
"""

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import refuses_closed_form
from firstspike.spiketime.reference.adjoint import backward as backward
from firstspike.spiketime.reference.event_loop import forward as forward


def supports(neuron: Neuron, recurrent: bool) -> str | None:
    """See ``contract.Backend``."""
    return "it computes recurrent neurons window by window" if recurrent else refuses_closed_form(neuron)
