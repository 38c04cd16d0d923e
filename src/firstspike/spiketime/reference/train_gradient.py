"""The gradient of ``reference``, whose docstring has the formulas: spike after spike, from the last to the first."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result
from firstspike.spiketime.reference.response import Tau, kappa, kappa_by_taus, kappa_slope
from firstspike.spiketime.units import unit_of_weights

_AT_ONCE = 1 << 21  # (pair, input spike) values at once


class _Pairs(NamedTuple):
    """Some (sample, neuron) pairs with weights and voltages in units of the neurons; ``(P,)`` or ``(P, N)`` each."""

    arrival: Float[Tensor, "P N"]
    """A state is one more input, at the start, whose weight is the current then."""
    weight: Float[Tensor, "P N"]
    unit: Float[Tensor, "P 1"]
    threshold: Float[Tensor, "P 1"]
    reset: Float[Tensor, "P 1"]
    refractory: Float[Tensor, "P 1"]
    tau_mem: Tau
    tau_syn: Tau

    def at(self, index: Int64[Tensor, " p"]) -> "_Pairs":
        """Some of them."""
        *tensors, mem, syn = self
        taus = (x[index] if isinstance(x, Tensor) else x for x in (mem, syn))
        return _Pairs(*(x[index] for x in tensors if isinstance(x, Tensor)), *taus)

    def current(self, time: Float[Tensor, "P 1"]) -> Float[Tensor, "P 1"]:
        """Current just before a time."""
        return (self.weight * self.decay(time)).sum(-1, keepdim=True)

    def decay(self, time: Float[Tensor, "P 1"]) -> Float[Tensor, "P N"]:
        """What is left of each input's current just before a time."""
        before = self.arrival < time
        elapsed = torch.where(before, time - self.arrival, 0.0)
        return torch.where(before, torch.exp(-elapsed / self.tau_syn), 0.0)


class _Membrane(NamedTuple):
    """Derivatives of the membrane at a time by what happened since it was released, at fixed spike times."""

    by_weight: Float[Tensor, "P N"]
    by_time: Float[Tensor, "P N"]
    by_mem: Float[Tensor, "P 1"]
    by_syn: Float[Tensor, "P 1"]
    by_start: Float[Tensor, "P 1"]
    """By the membrane at the release; 0 where the neuron never was released."""


def _membrane(pairs: _Pairs, time: Tensor, release: Tensor, start: Tensor, taus: bool) -> _Membrane:
    """The membrane at ``time`` of neurons that began with the membrane ``start`` at ``release``, -inf for always."""
    arrival, weight, *_, tau_mem, tau_syn = pairs
    released = release > -math.inf
    since = torch.where(released, (time - release).clamp(min=0), 0.0)
    after = (arrival < time) & (arrival >= release)
    elapsed = torch.where(after, time - arrival, 0.0)
    left = torch.where(released, pairs.decay(torch.where(released, release, -math.inf)), 0.0)
    left = torch.where(arrival < time, left, 0.0)
    whole = kappa(since, tau_mem, tau_syn)
    by_weight = torch.where(after, kappa(elapsed, tau_mem, tau_syn), whole * left)
    by_time = torch.where(after, -kappa_slope(elapsed, tau_mem, tau_syn), whole * left / tau_syn) * weight
    by_start = torch.where(released, torch.exp(-since / tau_mem), 0.0)
    by_mem = by_syn = torch.zeros_like(since)
    if taus:
        age = torch.where(left > 0, release - arrival, 0.0) / tau_syn
        current = (left * weight).sum(-1, keepdim=True)
        each_mem, each_syn = (torch.where(after, x, 0.0) * weight for x in kappa_by_taus(elapsed, tau_mem, tau_syn))
        whole_mem, whole_syn = kappa_by_taus(since, tau_mem, tau_syn)
        by_mem = start * by_start * (since / tau_mem / tau_mem) + whole_mem * current + each_mem.sum(-1, keepdim=True)
        aged = whole * (left * weight * (age / tau_syn)).sum(-1, keepdim=True)
        by_syn = whole_syn * current + aged + each_syn.sum(-1, keepdim=True)
    return _Membrane(by_weight, by_time, by_mem, by_syn, by_start)


class _Sums(NamedTuple):
    """Gradients of some pairs, which grow while spikes are taken one after the other."""

    weight: Float[Tensor, "P N"]
    time: Float[Tensor, "P N"]
    threshold: Float[Tensor, "P 1"]
    mem: Float[Tensor, "P 1"]
    syn: Float[Tensor, "P 1"]
    last: Float[Tensor, "P 1"]
    """By the weight of the last input, which is the current of a state, with what ``weight`` leaves out."""

    def add(self, at: Int64[Tensor, " p"], kept: Tensor, scale: Tensor, of: _Membrane) -> None:
        """A loss by the membrane at a time: ``kept`` for the weights, ``scale`` for all else."""
        by_last = scale * of.by_weight[:, -1:]
        parts = (kept * of.by_weight, scale * of.by_time, None, scale * of.by_mem, scale * of.by_syn, by_last)
        for total, part in zip(self, parts, strict=True):
            if part is not None:
                total.index_add_(0, at, part)


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given trains. See ``backend`` for the contract."""
    ensemble, batch, inputs, copies = given.times.shape
    outputs, events = given.weight.shape[1], inputs * copies
    by_times = given.times.new_zeros(ensemble * batch, events)
    by_weight, by_delay = (given.times.new_zeros(ensemble * outputs, inputs) for _ in range(2))
    of_neurons = given.times.new_zeros(3, ensemble * outputs)
    by_state = None if given.state is None else Held(*(torch.zeros_like(x) for x in given.state))
    unit = unit_of_weights(given.weight, given.threshold)
    works = result.spikes.isfinite().any(-1) if grads.state is None else torch.ones_like(result.overflows)
    for index in works.nonzero().split(max(1, _AT_ONCE // max(1, events + 1))):
        e, b, o = index.unbind(1)
        sums, held = _gradients(e, b, o, unit, grads, result, given, max_weight_grad, needs)
        neurons, per_unit = e * outputs + o, 1 / unit[e, o].unsqueeze(-1)
        each = sums.time[:, :events]
        by_times.index_add_(0, e * batch + b, each)
        by_delay.index_add_(0, neurons, each.unflatten(-1, (inputs, copies)).sum(-1))
        by_weight.index_add_(0, neurons, (sums.weight[:, :events] * per_unit).unflatten(-1, (inputs, copies)).sum(-1))
        of_neurons.index_add_(
            1, neurons, torch.stack([(sums.threshold * per_unit)[:, 0], sums.mem[:, 0], sums.syn[:, 0]])
        )
        if by_state is not None:
            for total, x in zip(by_state, held, strict=True):
                total[e, b, o] = x
    by_threshold, by_mem, by_syn = of_neurons.unflatten(1, (ensemble, outputs))
    found = (
        by_times.reshape(given.times.shape),
        by_weight.reshape(given.weight.shape),
        by_threshold,
        by_delay.reshape(given.weight.shape),
        by_mem,
        by_syn,
    )
    times, weight, threshold, delay, mem, syn = (x if need else None for x, need in zip(found, needs[:6], strict=True))
    return Gradients(times, weight, threshold, delay, mem, syn, by_state)


def _pairs(e: Tensor, b: Tensor, o: Tensor, unit: Tensor, given: Arguments) -> _Pairs:
    arrival, own = given.times[e, b], unit[e, o].unsqueeze(-1)
    if given.delay is not None:
        arrival = arrival + given.delay[e, o].unsqueeze(-1)
    weight = (given.weight[e, o] / own).unsqueeze(-1).expand(arrival.shape).flatten(1)
    arrival = arrival.flatten(1)
    arrival = torch.where((arrival >= given.start) & (arrival < given.until), arrival, math.inf)
    if given.state is not None:
        arrival = torch.cat([arrival, torch.full_like(own, given.start)], dim=1)
        weight = torch.cat([weight, given.state.current[e, b, o].unsqueeze(-1) / own], dim=1)
    threshold, reset, refractory = (x[e, o].unsqueeze(-1) for x in (given.threshold, given.reset, given.refractory))
    taus = (tau[e, o].unsqueeze(-1) if isinstance(tau, Tensor) else tau for tau in given.constants)
    return _Pairs(arrival, weight, own, threshold / own, reset / own, refractory, *taus)


def _gradients(
    e: Tensor,
    b: Tensor,
    o: Tensor,
    unit: Tensor,
    grads: Grads,
    result: Result,
    given: Arguments,
    bound: float | None,
    needs: Needs,
) -> tuple[_Sums, tuple[Tensor, Tensor, Tensor]]:
    """Gradients of some pairs, and those by their states at the start."""
    pairs, taus = _pairs(e, b, o, unit, given), needs.tau_mem or needs.tau_syn
    trains, asked = result.spikes[e, b, o], grads.spikes[e, b, o]
    count = (trains < math.inf).sum(-1)
    none = torch.zeros_like(pairs.unit)
    sums = _Sums(*(torch.zeros_like(pairs.weight) for _ in range(2)), *(torch.zeros_like(none) for _ in range(4)))

    first, begin = _beginning(e, b, o, pairs, given)
    release = torch.cat([first, trains + pairs.refractory], dim=1)  # place k: before spike k

    every = torch.arange(len(trains), device=trains.device)
    kept, scale = none.clone(), none.clone()  # dL/dV where the membrane is released, without and with what is bounded
    by_left = none.clone()
    if grads.state is not None:
        of_v, of_i, of_left = (x[e, b, o].unsqueeze(-1) for x in grads.state)
        last, until = release.gather(1, count.unsqueeze(-1)), torch.full_like(none, given.until)
        over = result.overflows[e, b, o].unsqueeze(-1)
        of_v = torch.where(over | (last > until), 0.0, of_v * pairs.unit)
        start = torch.where(count.unsqueeze(-1) > 0, pairs.reset, begin)
        found = _membrane(pairs, until, last, start, taus)
        sums.add(every, of_v, of_v, found)
        decay, of_i = pairs.decay(until), of_i * pairs.unit
        sums.weight.add_(of_i * decay)
        sums.last.add_(of_i * decay[:, -1:])
        sums.time.add_(of_i * decay * pairs.weight / pairs.tau_syn)
        age = torch.where(decay > 0, until - pairs.arrival, 0.0) / pairs.tau_syn / pairs.tau_syn
        sums.syn.add_((of_i * decay * pairs.weight * age).sum(-1, keepdim=True))
        kept = scale = of_v * found.by_start
        of_left, spiked = torch.where((last > until) & ~over, of_left, 0.0), count.unsqueeze(-1) > 0
        asked = asked.scatter_add(1, (count - 1).clamp(min=0).unsqueeze(-1), torch.where(spiked, of_left, 0.0))
        by_left = torch.where(spiked, 0.0, of_left)

    for k in reversed(range(int(count.max()) if len(count) else 0)):
        at = (count > k).nonzero().squeeze(-1)
        own, time, before = pairs.at(at), trains[at, k, None], release[at, k, None]
        current = own.current(time)
        rise = current / own.tau_syn - own.threshold / own.tau_mem
        then = own.current(release[at, k + 1, None]) if bool((own.refractory > 0).any()) else current
        again = then / own.tau_syn - own.reset / own.tau_mem
        possible = (rise > 0) & (time > before)
        rise = torch.where(possible, rise, 1.0)
        start = own.reset if k else begin[at]
        found = _membrane(own, time, before, start, taus)
        kept_here, scale_here = (
            torch.where(possible, (again * x[at] - asked[at, k, None]) / rise, 0.0) for x in (kept, scale)
        )
        if bound is not None:
            inputs = found.by_weight[:, :-1] if given.state is not None else found.by_weight
            largest = (inputs.abs().amax(-1, keepdim=True) * kept_here / own.unit).abs()
            kept_here = torch.where(largest > bound, 0.0, kept_here)
        sums.add(at, kept_here, scale_here, found)
        sums.threshold.index_add_(0, at, -scale_here)
        kept, scale = (x.index_copy(0, at, y * found.by_start) for x, y in ((kept, kept_here), (scale, scale_here)))
    if given.state is None:
        return sums, (none, none, none)
    held = first > given.start
    again = pairs.current(first) / pairs.tau_syn - pairs.reset / pairs.tau_mem
    by_left = by_left - torch.where(held, again * scale, 0.0)
    by_voltage = torch.where(held, 0.0, scale / pairs.unit)
    return sums, (by_voltage[:, 0], (sums.last / pairs.unit)[:, 0], by_left[:, 0])


def state_after(trains: Float[Tensor, "E B O S"], given: Arguments) -> Held:
    """The state at ``until`` of neurons that spiked at these times, and were reset there."""
    held = Held(*(torch.zeros_like(trains[..., 0]) for _ in range(3)))
    unit = unit_of_weights(given.weight, given.threshold)
    size = max(1, _AT_ONCE // max(1, given.times[0, 0].numel() + 1)) if held.voltage.numel() else 1
    for index in torch.ones_like(held.voltage).nonzero().split(size):
        e, b, o = index.unbind(1)
        pairs, times = _pairs(e, b, o, unit, given), trains[e, b, o]
        count = (times < math.inf).sum(-1, keepdim=True)
        first, begin = _beginning(e, b, o, pairs, given)
        release = torch.cat([first, times + pairs.refractory], dim=1).gather(1, count)
        until = torch.full_like(release, given.until)
        start = torch.where(count > 0, pairs.reset, begin)
        found = _membrane(pairs, until, release, start, False)
        voltage = start * found.by_start + (found.by_weight * pairs.weight).sum(-1, keepdim=True)
        voltage = torch.where(release > until, pairs.reset, voltage)
        state = voltage * pairs.unit, pairs.current(until) * pairs.unit, (release - until).clamp(min=0)
        for whole, x in zip(held, state, strict=True):
            whole[e, b, o] = x[:, 0]
    return held


def _beginning(e: Tensor, b: Tensor, o: Tensor, pairs: _Pairs, given: Arguments) -> tuple[Tensor, Tensor]:
    """When the membrane is free before the first spike, -inf for always, and what it is then."""
    none = torch.zeros_like(pairs.unit)
    if given.state is None:
        return torch.full_like(none, -math.inf), none
    left = given.state.refractory[e, b, o].unsqueeze(-1)
    voltage = given.state.voltage[e, b, o].unsqueeze(-1) / pairs.unit
    return given.start + left, torch.where(left > 0, pairs.reset, voltage)
