"""The operator in plain PyTorch, on any device.

``event_loop`` and ``adjoint`` are the passes of the operator, which every other backend is tested against, and
``solutions`` has the time at which the membrane reaches the threshold. ``linear`` is about linear neurons, ``series``
about neurons from equations. Passes of both, from event to event, are in ``loop``.
"""

from functools import partial

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import (
    Arguments,
    Gradients,
    Grads,
    Needs,
    Result,
    backward_in_parts,
    forward_in_parts,
    of_several,
    refuses_closed_form,
)
from firstspike.spiketime.reference import adjoint, event_loop, linear, loop, series
from firstspike.spiketime.statuses import check_statuses


def supports(neuron: Neuron, recurrent: bool) -> str | None:
    """The reason why such neurons are not supported, or None."""
    if recurrent:
        return "it computes recurrent neurons window by window"
    return None if neuron.components or neuron.equations is not None else refuses_closed_form(neuron)


@of_several
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    if given.closed:
        return forward_in_parts(event_loop.forward, event_loop.samples)(given)
    make, samples = linear.KIND if given.components else series.KIND
    result = forward_in_parts(partial(loop.forward, make), samples)(given)
    if given.equations:
        check_statuses(result.saved[0], given.equations)
    return result._replace(saved=())


@of_several
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    if given.closed:
        run = backward_in_parts(adjoint.backward, adjoint.samples)
    else:
        make, samples = linear.KIND if given.components else series.KIND
        run = backward_in_parts(partial(loop.backward, make), samples)
    return run(grads, result, given, max_weight_grad, needs)
