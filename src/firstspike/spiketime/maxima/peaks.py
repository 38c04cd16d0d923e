"""The largest value that a membrane reaches, with its exact gradient, for silent neurons and readouts.

A membrane has its maximum where its slope is 0, or at an arrival that ends its rise. With the time t* of the maximum

    dV(t*)/dw_i = kappa(t* - t_i),        dV(t*)/dt_i = -w_i kappa'(t* - t_i)

At a smooth maximum dV/dt is 0, so that t* itself need not be differentiated. A maximum at the arrival of input j, which
pulls the membrane down, moves along with it: there, dV(t*)/dt_j is the slope just before. A membrane that is followed
up to a fixed time only may have its maximum there, where t* does not move.

Shapes: B samples, I inputs with K spikes each, N spikes of a sample, O outputs. Of some (sample, neuron) pairs alone,
each has its own inputs, ``(N, P)``; of all neurons of some samples, they share the times, ``(N, B, O)`` and ``(N, B,
1)``. States are those just after an input.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from firstspike.neurons import LIF
from firstspike.spiketime.maxima import linear
from firstspike.spiketime.maxima.members import Height, maxima
from firstspike.spiketime.parameters import Receptor
from firstspike.spiketime.response import Tau, Values, kappa, kappa_slope, leakless, membrane, peak

_CHUNK = 1 << 20  # (spike, membrane) values at once
_LATE = 40.0  # time constants


def lacking(
    times: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    silent: Bool[Tensor, "batch outputs"],
    delay: Float[Tensor, "outputs inputs"] | None = None,
    until: float = math.inf,
    receptor: Receptor = None,
) -> Float[Tensor, "batch outputs"]:
    """How far below the threshold the membrane of a silent neuron stays; 0 for all others.

    Differentiable by times, weight and delay. The neuron's parameters count as constants. A membrane that never rises
    above rest lacks the whole threshold and has no gradient. ``silent`` are the pairs that did not spike. Times from
    ``until`` on play no part. Of neurons from equations it is relative to how far below the threshold they start.
    """
    if neuron.equations is not None:
        from firstspike.spiketime.cpu.series import peaks as series_peaks  # loads numba

        return series_peaks.lacking(times, weight, neuron, silent, delay, until, receptor)
    threshold = torch.as_tensor(neuron.threshold, dtype=weight.dtype, device=weight.device).detach()
    height = _height(times.unsqueeze(-1), weight, delay, silent, neuron, until, receptor)
    return torch.where(silent, (threshold - height).clamp(min=0), 0.0)


def maximum(
    trains: Float[Tensor, "batch inputs spikes"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    receptor: Receptor = None,
) -> Float[Tensor, "batch outputs"]:
    """Maximum of the membrane of a neuron without threshold; at least 0, its value at rest, and at least the bias.

    Differentiable by trains and weight. A membrane that never rises above rest has no gradient.
    """
    return _height(trains, weight, None, None, neuron, math.inf, receptor)


def _height(
    trains: Tensor,
    weight: Tensor,
    delay: Tensor | None,
    silent: Tensor | None,
    neuron: LIF,
    until: float,
    receptor: Receptor,
) -> Float[Tensor, "batch outputs"]:
    if neuron.components:
        return linear.height(trains, weight, delay, silent, neuron, until, receptor)
    taus: tuple[Any, Any] = neuron.tau_mem, neuron.tau_syn
    constants = (x.detach().expand(len(weight)) if isinstance(x, Tensor) else x for x in taus)
    found: Tensor = Height.apply(*_LIF, trains, weight, delay, silent, *constants, until)[0]
    return found


def highest(
    times: Float[Tensor, " inputs"], weight: Float[Tensor, " inputs"], tau_mem: float, tau_syn: float
) -> tuple[float, float]:
    """Height and time of the maximum of one membrane; without leak, which never ends to rise, a late time."""
    height, time, _ = Height.apply(*_LIF, times[None, :, None], weight[None], None, None, tau_mem, tau_syn, math.inf)
    return float(height), float(time)


class _Membranes(NamedTuple):
    """Some membranes, pairs of a sample and a neuron, with their sorted inputs, which are in the first dimension."""

    sample: Int64[Tensor, "..."]
    neuron: Int64[Tensor, "..."]
    time: Float[Tensor, "N ..."]
    weight: Float[Tensor, "N ..."]
    spike: Int64[Tensor, "N ..."]
    """Index of the input spike in the sample's flattened trains."""
    input: Int64[Tensor, "N ..."]
    arriving: Int64[Tensor, "..."]
    """How many arrive."""
    tau_mem: Tau
    tau_syn: Tau


def _membranes(
    trains: Tensor,
    weight: Tensor,
    delay: Tensor | None,
    silent: Tensor | None,
    tau_mem: Tau,
    tau_syn: Tau,
    until: float,
) -> Iterator[_Membranes]:
    """The membranes of all pairs, or of silent ones, in parts that fit in memory."""
    batch, inputs, copies = trains.shape
    spikes, outputs = inputs * copies, len(weight)
    index: Iterator[tuple[Tensor, Tensor]]
    if not spikes:
        return
    if silent is None:
        samples = torch.arange(batch, device=trains.device).unsqueeze(-1)
        neurons = torch.arange(outputs, device=trains.device).unsqueeze(0)
        index = ((some, neurons) for some in samples.split(max(1, _CHUNK // (spikes * max(1, outputs)))))
    else:
        index = (some.unbind(1) for some in silent.nonzero().split(max(1, _CHUNK // spikes)))
    for sample, neuron in index:
        if not sample.numel() or not neuron.numel():
            return
        arrival = trains.flatten(1)[sample]
        if delay is not None:
            arrival = arrival + delay[neuron].repeat_interleave(copies, -1)
        arrival = torch.where(arrival < until, arrival, math.inf)
        count = arrival.isfinite().sum(-1)
        ordered = _in_order(arrival, weight[neuron].repeat_interleave(copies, -1), max(1, int(count.max())))
        taus = (x[neuron] if isinstance(x, Tensor) else x for x in (tau_mem, tau_syn))
        yield _Membranes(sample, neuron, *ordered, ordered[2] // copies, count, *taus)


def _highest(
    some: _Membranes, _mem: Tau, _syn: Tau, until: float
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Int64[Tensor, "..."]]:
    """Height and time of the maximum, and the spike at whose arrival it is, or -1; height 0 where nothing rises."""
    taus = some.tau_mem, some.tau_syn
    arrival, current = _settled(some.time, some.weight)
    voltage = torch.zeros_like(current)
    accumulate(arrival, voltage, current, *taus)
    best, index = voltage.max(dim=0, keepdim=True)
    # inputs that never arrive stand, with the same membrane, at the last arrival
    index = torch.minimum(index, (some.arriving - 1).clamp(min=0))
    time, place = (x.expand(voltage.shape).gather(0, index).squeeze(0) for x in (arrival, some.spike))
    best = best.squeeze(0).clamp(min=0)
    if until < math.inf:
        end = membrane(until - arrival[-1], voltage[-1], current[-1], *taus)
        time, place = torch.where(end > best, until, time), torch.where(end > best, -1, place)
        best = torch.maximum(end, best)
    # while a membrane rises it is concave and stays below its tangent: only few intervals can have a higher maximum
    length = arrival.diff(dim=0, append=torch.full_like(arrival[:1], until))
    slope = current / taus[1] - voltage / taus[0]
    at = ((slope > 0) & (torch.addcmul(voltage, slope, length) > best)).nonzero(as_tuple=True)
    begin, *states = (x.expand(voltage.shape)[at] for x in (arrival, length, voltage, current))
    inside, since, height = _peaks_within(
        *states, *(x.expand(voltage.shape)[at] if isinstance(x, Tensor) else x for x in taus)
    )
    row = torch.arange(best.numel(), device=best.device).view_as(best)[at[1:]]
    top = best.flatten().scatter_reduce(0, row[inside], height[inside], "amax").view_as(best)
    wins = inside & (height > best[at[1:]]) & (height == top[at[1:]])
    rows = tuple(x[wins] for x in at[1:])
    time[rows], place[rows] = (begin + since)[wins], -1
    return top, time, torch.where(top > 0, place, -1)


def _gradients(
    grad: Tensor, height: Tensor, time: Tensor, place: Tensor, *given: Any
) -> tuple[Tensor, Tensor, Tensor | None]:
    (trains, weight, delay, *_), grad = given, torch.where(height > 0, grad, 0.0)
    by_trains, by_weight = trains.new_zeros(trains.flatten(1).shape), weight.new_zeros(weight.shape)
    by_delay = None if delay is None else torch.zeros_like(by_weight)
    for some in _membranes(*given):
        taus = some.tau_mem, some.tau_syn
        scale, peaks, ends = (x[some.sample, some.neuron] for x in (grad, time, place))
        since = (peaks - some.time).clamp(min=0)
        response = kappa(since, *taus)
        slope = kappa_slope(since, *taus, response)
        of_time = torch.where(since > 0, slope, 0.0).mul_(some.weight).mul_(-scale)
        # a maximum at an arrival moves along with it, on the slope just before
        before = torch.where(ends >= 0, -of_time.sum(dim=0), 0.0)
        of_time += torch.where(some.spike == ends, before, 0.0)
        by_weight.index_put_((some.neuron, some.input), response * scale, accumulate=True)
        by_spike = of_time.sum_to_size(some.spike.shape)  # of all neurons that share it
        by_trains.index_put_((some.sample, some.spike), by_spike, accumulate=True)
        if by_delay is not None:
            by_delay.index_put_((some.neuron, some.input), of_time, accumulate=True)
    return by_trains.view_as(trains), by_weight, by_delay


def _in_order(arrival: Values, weight: Values, most: int) -> tuple[Values, Values, Int64[Tensor, "N ..."]]:
    """Inputs sorted by time: when they arrive, with which weight, and which they are; the first ``most`` of them."""
    time, order = (x[..., :most].movedim(-1, 0).contiguous() for x in arrival.sort(dim=-1, stable=True))
    shape = torch.broadcast_shapes(arrival.shape, weight.shape)[:-1]
    weight = weight.movedim(-1, 0).contiguous().expand(-1, *shape).gather(0, order.expand(-1, *shape))
    return time, weight, order


def _settled(time: Values, weight: Values) -> tuple[Values, Values]:
    """Sorted inputs, of which those that never arrive become such of weight 0 at the time of the last that does."""
    arrives = torch.isfinite(time)
    last = torch.where(arrives, time, -math.inf).amax(0, keepdim=True)
    last = torch.where(torch.isfinite(last), last, 0.0)
    return torch.where(arrives, time, last), torch.where(arrives, weight, 0.0)


def accumulate(time: Values, voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau) -> None:
    """Add the rest of all earlier inputs to the change by each input, in place: states just after each.

    States add once they are brought to the same time: all take up the one of the input before, then those 2, 4, 8, ...
    inputs earlier. Nothing overflows at any time scale.
    """
    reach = 1  # of how many inputs, up to its own, each state knows
    while reach < len(time):
        elapsed = time[reach:] - time[:-reach]
        before, drive = voltage[:-reach] * torch.exp(-elapsed / tau_mem), current[:-reach]
        before.addcmul_(drive, kappa(elapsed, tau_mem, tau_syn))
        drive = drive * torch.exp(-elapsed / tau_syn)
        voltage[reach:] += before
        current[reach:] += drive
        reach *= 2


def _peaks_within(
    length: Values, voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau
) -> tuple[Bool[Tensor, "..."], Values, Values]:
    """Which membranes have a maximum within a time after their states, how long after, and how high it is.

    Without leak, where V rises towards V + I for ever, it is a late time.
    """
    if leakless(tau_mem):
        return (current > 0) & length.isinf(), torch.full_like(voltage, _LATE) * tau_syn, voltage + current
    since, height = peak(voltage, current, tau_mem, tau_syn)
    rises = current / tau_syn > voltage / tau_mem
    return rises & (since <= length), since, height


_LIF = partial(maxima, _membranes, _highest, None), _gradients
