"""The operator in plain PyTorch, on any device, in float64: what it computes, to be read from top to bottom.

``loop`` goes from event to event, and has the gradient. How neurons get there is in ``linear``, LIF among them, and in
``series``, for neurons from equations. Every other backend is tested against this one.
"""

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import Arguments, Gradients, Grads, Needs, Result, of_several, refuses_closed_form
from firstspike.spiketime.reference import loop
from firstspike.spiketime.reference.linear import LINEAR
from firstspike.spiketime.reference.series import SERIES
from firstspike.spiketime.statuses import check_statuses


def supports(neuron: Neuron, recurrent: bool) -> str | None:
    """The reason why such neurons are not supported, or None."""
    if recurrent:
        return "it computes recurrent neurons window by window"
    return None if neuron.components or neuron.equations is not None else refuses_closed_form(neuron)


@of_several
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    result = loop.forward(SERIES if given.equations else LINEAR, given)
    if given.equations:
        check_statuses(result.saved[0], given.equations)
    return result._replace(saved=())


@of_several
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    return loop.backward(SERIES if given.equations else LINEAR, grads, result, given, max_weight_grad, needs)
