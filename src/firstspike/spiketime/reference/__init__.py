"""The operator in plain PyTorch, on any device, and the mathematics of the membrane.

``response`` has the membrane after an input and its maximum, ``solutions`` the time at which it reaches the threshold.
``event_loop`` and ``adjoint`` are the passes of the operator, which every other backend is tested against. ``peaks`` is
about neurons that stay silent, or have no threshold. ``linear``, ``linear_response`` and ``linear_peaks`` are the same
for linear neurons, ``series`` has the passes for neurons from equations. Both go from event to event by ``loop``.
"""

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import Arguments, Gradients, Grads, Needs, Result, refuses_closed_form
from firstspike.spiketime.reference import adjoint, event_loop, linear, series


def supports(neuron: Neuron, recurrent: bool) -> str | None:
    """The reason why such neurons are not supported, or None."""
    if recurrent:
        return "it computes recurrent neurons window by window"
    return None if neuron.components or neuron.equations is not None else refuses_closed_form(neuron)


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    return (event_loop if given.closed else linear if given.components else series).forward(given)


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    run = adjoint if given.closed else linear if given.components else series
    return run.backward(grads, result, given, max_weight_grad, needs)
