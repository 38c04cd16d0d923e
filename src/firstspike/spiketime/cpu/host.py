"""Both passes from tensors: which kernels do what.

Where all neurons share the order of arrival and the time constants, ``rows`` does the work. The rest, and gradients by
time constants, are in ``lanes``.
"""

import math
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor

from firstspike.spiketime import reference
from firstspike.spiketime.contract import Arguments, Backward, Gradients, Grads, Held, Needs, Result, each_tensor
from firstspike.spiketime.cpu.lanes.host import PARTS, backward_lanes, forward_lanes
from firstspike.spiketime.cpu.rows.coefficients import N_BACKWARD
from firstspike.spiketime.cpu.rows.host import MAX_GROUPS, backward_rows, backward_trains, forward_rows, forward_trains
from firstspike.spiketime.cpu.saved import PAD, saved_for
from firstspike.spiketime.parts import Size, backward_in_parts, zero_gradients
from firstspike.spiketime.values import check_values

_MEMORY = 1 << 26  # bytes of a backward pass beside its results
_TRAIN_MEMORY = 1 << 27  # the same of spike trains
_ROWS = 12  # numbers for each input of a sample, at most: rows, and parts of the gradient by its time


def _shares(given: Arguments) -> bool:
    """Whether neurons share their order of arrival and their time constants."""
    return given.delay is None and not isinstance(given.constants.tau_mem, Tensor)


def _holds(given: Arguments) -> bool:
    """Whether membranes do something between two inputs that does not follow from themselves."""
    started = given.state is not None and bool((given.state.refractory > 0).any())
    return started or given.observed is not None or bool((given.refractory > 0).any())


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    empty, shares = 0 in given.times.shape or 0 in given.weight.shape, _shares(given)
    if given.max_spikes:
        if empty:
            return reference.forward(given)
        return forward_trains(given, _holds(given)) if shares else forward_lanes(given, _holds(given))
    if shares and not empty:
        return forward_rows(given)
    check_values(*given[:4])
    if empty:
        return Result(given.times.new_full((*given.times.shape[:-1], given.weight.shape[-2]), math.inf))
    return forward_lanes(given)


def saves(given: Arguments) -> tuple[Tensor, ...]:
    """Tensors like those that ``forward`` saves of first spikes, also on other devices."""
    outputs = given.weight.shape[-2]
    if given.delay is not None:
        return (given.times.new_empty((*given.times.shape[:-1], outputs)),)
    return saved_for(given.times, outputs)


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    run = _of_trains if given.max_spikes else _of_first_spikes
    return run(grads, result, given, max_weight_grad, needs)


def _part(given: Arguments) -> Size:
    _, batch, inputs, outputs = given.sizes
    samples = max(1, _MEMORY // (_ROWS * (inputs + PAD) * given.times.element_size()))
    return Size(samples // max(1, batch), samples, outputs)


@partial(backward_in_parts, size=_part)
def _of_first_spikes(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    if 0 in given.sizes:
        return zero_gradients(given, needs)
    shares = _shares(given) and not needs.tau_mem and not needs.tau_syn
    return (backward_rows if shares else backward_lanes)(grads, result, given, max_weight_grad, needs)


def _of_trains(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    if not result.saved:
        if given.windows is None:
            return reference.backward(grads, result, given, max_weight_grad, needs)
        # no samples, or no spikes: also none of the neurons' own
        state = given.state and Held(*map(torch.zeros_like, given.state))
        return zero_gradients(given, needs)._replace(state=state)
    if _shares(given) and not (needs.tau_mem or needs.tau_syn):
        numbers = (N_BACKWARD + 1 + MAX_GROUPS) * (result.saved[0].shape[-1] + 2 * PAD)
        return _in_parts(backward_trains, numbers, grads, result, given, max_weight_grad, needs)
    if _shares(given):  # what its kernels save is not what the others need
        again = forward_lanes(given._replace(observed=result.spikes), _holds(given))
        result = result._replace(saved=again.saved)
    numbers = PARTS * given.times[0, 0].numel()
    return _in_parts(backward_lanes, numbers, grads, result, given, max_weight_grad, needs)


def _in_parts(
    whole: Backward,
    numbers: int,
    grads: Grads,
    result: Result,
    given: Arguments,
    max_weight_grad: float | None,
    needs: Needs,
) -> Gradients:
    """``whole``, in parts of the batch where all samples together, ``numbers`` numbers each, need much memory."""
    ensemble, batch = given.times.shape[:2]
    samples = max(1, _TRAIN_MEMORY // (ensemble * numbers * given.times.element_size()))
    if batch <= samples:
        return whole(grads, result, given, max_weight_grad, needs)
    parts = []
    for begin in range(0, batch, samples):
        some = itemgetter((slice(None), slice(begin, begin + samples)))
        own = given._replace(times=some(given.times), state=each_tensor(some, given.state))
        parts.append(whole(*each_tensor(some, (grads, result)), own, max_weight_grad, needs))

    def joined(name: str) -> Tensor | None:
        tensors = [x for x in (getattr(part, name) for part in parts) if x is not None]
        if not tensors:
            return None
        return torch.cat(tensors, 1) if name == "times" else torch.stack(tensors).sum(0)

    states = [part.state for part in parts if part.state is not None]
    state = Held(*(torch.cat(x, 1) for x in zip(*states, strict=True))) if states else None
    times, weight, threshold, delay, mem, syn = (joined(name) for name in Gradients._fields[:6])
    return Gradients(times, weight, threshold, delay, mem, syn, state)
