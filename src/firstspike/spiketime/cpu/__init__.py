"""Numba kernels for the CPU: both passes from tensors. The contract is ``contract``'s.

Where LIF neurons share the order of arrival and the time constants, ``rows`` computes. Other neurons, and gradients
with respect to time constants, are in ``lanes``, recurrent layers of these in ``windows``, neurons from equations in
``series``. Kernels are compiled by the first call, and kept on disk.
"""

from functools import partial

from torch import Tensor

from firstspike.neurons import Neuron
from firstspike.spiketime import reference
from firstspike.spiketime.contract import (
    CONSTANTS,
    Arguments,
    Gradients,
    Grads,
    Needs,
    Result,
    backward_in_parts,
    refuses_closed_form,
    zero_gradients,
)
from firstspike.spiketime.cpu.arrays import PAD, saved_for
from firstspike.spiketime.cpu.lanes import host as lanes
from firstspike.spiketime.cpu.lanes.sizes import PARTS
from firstspike.spiketime.cpu.rows.host import MAX_GROUPS, backward_rows, backward_trains, forward_rows, forward_trains
from firstspike.spiketime.cpu.rows.intervals import N_BACKWARD
from firstspike.spiketime.cpu.series import host as series
from firstspike.spiketime.cpu.sparse import host as sparse
from firstspike.spiketime.cpu.windows import host as windows
from firstspike.spiketime.values import check_values

_MEMORY = 1 << 26  # bytes of a backward pass beside its results
_TRAIN_MEMORY = 1 << 27  # the same of spike trains
_ROWS = 12  # numbers for each input of a sample, at most: rows, and parts of the gradient with respect to its time


def _shares(given: Arguments) -> bool:
    """Whether LIF neurons share their order of arrival and their time constants."""
    return given.closed and given.delay is None and not isinstance(given.tau_mem, Tensor)


def _holds(given: Arguments) -> bool:
    """Whether membranes do something between two inputs that does not follow from themselves."""
    started = given.left is not None and bool((given.left > 0).any())
    return started or given.observed is not None or bool((given.refractory > 0).any())


def supports(neuron: Neuron, recurrent: bool) -> str | None:
    """The reason why such neurons are not supported, or None."""
    if neuron.equations is not None:
        return "its recurrent kernels take no neurons from equations" if recurrent else None
    return None if neuron.components else refuses_closed_form(neuron)


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    if given.rows is not None:
        return sparse.forward(given)
    if given.equations or not (given.closed or given.recurrence):
        return (series if given.equations else lanes).forward(given)
    shares, empty = _shares(given), 0 in given.times.shape or 0 in given.weight.shape
    if not given.max_spikes and empty:
        check_values(given)
    if empty:  # also without spikes of the neurons, whose delays come after those of the inputs
        return reference.forward(given if given.recurrence is None else given._replace(delay=None))
    if not shares and given.recurrence is None:
        return lanes.forward(given)
    if not shares:
        return windows.forward(given)
    return forward_trains(given, _holds(given)) if given.max_spikes else forward_rows(given)


def saves(given: Arguments) -> tuple[Tensor, ...]:
    """Tensors like those that ``forward`` saves of first spikes, also on other devices."""
    return saved_for(given.times, given.weight.shape[-2])


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    if given.rows is not None:
        return sparse.backward(grads, result, given, max_weight_grad, needs)
    if given.equations or not (given.closed or given.recurrence):
        return (series if given.equations else lanes).backward(grads, result, given, max_weight_grad, needs)
    run = _of_trains if given.max_spikes else _of_first_spikes
    return run(grads, result, given, max_weight_grad, needs)


def _samples(given: Arguments) -> int:
    ensemble = len(given.times) if given.times.ndim == 3 else 1
    return _MEMORY // (_ROWS * (given.times.shape[-1] + PAD) * given.times.element_size() * max(1, ensemble))


@partial(backward_in_parts, samples=_samples)
def _of_first_spikes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    if 0 in given.times.shape or 0 in given.weight.shape:
        return zero_gradients(given, needs)
    shares = _shares(given) and needs.isdisjoint(CONSTANTS)
    return (backward_rows if shares else lanes.backward)(grads, result, given, max_weight_grad, needs)


def _of_trains(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    if not result.saved:
        if given.recurrence is None:
            return reference.backward(grads, result, given, max_weight_grad, needs)
        return zero_gradients(given, needs)  # no samples, or no spikes: also none of the neurons' own
    if _shares(given) and needs.isdisjoint(CONSTANTS):
        run, numbers = backward_trains, (N_BACKWARD + 1 + MAX_GROUPS) * (result.saved[0].shape[-1] + 2 * PAD)
    elif given.recurrence is None:
        if _shares(given):  # what its kernels save is not what the others need
            result = result._replace(saved=lanes.forward(given._replace(observed=result.spikes)).saved)
        run, numbers = lanes.backward, PARTS * given.times[0, 0].numel()
    else:
        if _shares(given):
            if not bool(result.overflows.any()):  # dropped spikes act on other neurons
                given = given._replace(observed=result.spikes)
            result = result._replace(saved=windows.forward(given).saved)
        run, numbers = windows.backward, given.times[0, 0].numel() + result.saved[windows.SENT].shape[-1]
    samples = _TRAIN_MEMORY // (len(given.weight) * numbers * given.times.element_size())
    return backward_in_parts(run, lambda _: samples)(grads, result, given, max_weight_grad, needs)
