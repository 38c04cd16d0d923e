"""The gradient of spike times in plain PyTorch, at given spikes, whoever computed them.

Spike k is the first spike of a neuron whose membrane starts at ``reset`` when the refractory time of the spike before
ends, at r. The rest of an input that arrived before counts as an input then:

    V(T_k) = reset exp(-(T_k - r)/tau_mem) + sum_i w_i c_i
    c_i = kappa(T_k - max(t_i, r)) exp(-max(r - t_i, 0)/tau_syn)

With ``P_k = dL/dV`` just before spike k, ``g_k = dL/dT_k`` and the slopes of the membrane before a spike and where it
is released, all gradients follow from the derivatives of V(T_k) at fixed spike times:

    P_k = (v+ P_{k+1} exp(-(T_{k+1} - T_k - refractory)/tau_mem) - g_k) / v-
    v- = I(T_k)/tau_syn - threshold/tau_mem,      v+ = I(T_k + refractory)/tau_syn - reset/tau_mem
    dL/dw_i = sum_k P_k c_i,      dL/dt_i = sum_k P_k w_i dc_i/dt_i,      dL/dthreshold = -sum_k P_k

This is the adjoint of Wunderlich and Pehle 2021 with the parts between spikes solved. Of first spikes the implicit
function theorem is left, ``P = -g / v-`` and ``c_i = kappa(T - t_i)`` (Göltz et al. 2021, eqs. 2 to 6, for ratios 1 and
2; Göltz et al. 2025 for delays). The state at the start is a separate input, and a loss by the state at the end a
spike that no threshold makes.

Shapes: E ensemble, B batch, I inputs, K times of each, N events, which are the I K times and the state, O outputs, S
spikes. o is 1 where all neurons see the same arrivals.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from firstspike.spiketime.contract import (
    QUANTITIES,
    Arguments,
    Gradients,
    Grads,
    Held,
    Needs,
    Result,
    each_tensor,
    zero_gradients,
)
from firstspike.spiketime.response import Tau, kappa, kappa_by_taus, kappa_slope
from firstspike.spiketime.units import unit_of_weights

_MEMORY = 1 << 28  # bytes
_COPIES = 20  # tensors of the size of a part that are alive at the same time, at most

_Each = Float[Tensor, "E B O 1"]
"""A number of each neuron in each sample."""


def arrivals(given: Arguments) -> Float[Tensor, "E B o N"]:
    """When inputs arrive, ``inf`` for those that do not within the window."""
    arrival, delay = given.times.unsqueeze(2), given.delay
    if given.max_spikes:
        delay = None if delay is None else delay.unsqueeze(-1)
    if delay is not None:
        arrival = arrival + delay.unsqueeze(1)
    arrival = arrival.flatten(3)
    if given.start == -math.inf and given.until == math.inf:
        return arrival
    return torch.where((arrival >= given.start) & (arrival < given.until), arrival, math.inf)


class _Events(NamedTuple):
    """Inputs of neurons, with weights and voltages in units of the neurons, and their constants, in float64."""

    arrival: Float64[Tensor, "E B o N"]
    """A state is one more input, at the start, whose weight is the current then."""
    weight: Float64[Tensor, "E b O N"]
    unit: Float64[Tensor, "E 1 O 1"]
    threshold: Float64[Tensor, "E 1 O 1"]
    reset: Float64[Tensor, "E 1 O 1"]
    tau_mem: Tau
    tau_syn: Tau


def _events(given: Arguments) -> _Events:
    unit = unit_of_weights(given.weight, given.threshold)
    weight, arrival = (given.weight / unit.unsqueeze(-1)).unsqueeze(1), arrivals(given)
    unit, threshold = unit[:, None, :, None], given.threshold[:, None, :, None]
    reset = given.reset[:, None, :, None] if given.max_spikes else unit
    taus = (tau[:, None, :, None] if isinstance(tau, Tensor) else tau for tau in given.constants)
    if given.max_spikes:
        weight = weight.repeat_interleave(given.times.shape[-1], -1)
    if given.state is not None:
        current = given.state.current.unsqueeze(-1) / unit
        arrival = torch.cat([arrival, arrival.new_full((*arrival.shape[:-1], 1), given.start)], dim=-1)
        weight = torch.cat([weight.expand(*current.shape[:-1], -1), current], dim=-1)
    events = _Events(arrival, weight, unit, threshold / unit, reset / unit, *taus)
    wide: _Events = each_tensor(Tensor.double, events)
    return wide


class _Membrane(NamedTuple):
    """A membrane at a time, and how each input that arrives before acts on it: c_i."""

    since: Float[Tensor, "E B O N"]
    """Time from the arrival or, if that is later, from the release; 0 for inputs that arrive too late."""
    response: Float[Tensor, "E B O N"]
    """Response to a current of 1 that starts then."""
    left: Float[Tensor, "E B O N"]
    """The rest of each input's current then."""
    by_weight: Float[Tensor, "E B O N"]
    """c_i, the product of both."""
    start: _Each
    """The rest of the membrane's voltage at the release."""


def _membrane(events: _Events, time: _Each, release: _Each) -> _Membrane:
    """The membrane at times (``-inf``: never) of neurons that were released before (``-inf``: always free)."""
    arrival, mem, syn = events.arrival, events.tau_mem, events.tau_syn
    since = (time - torch.maximum(arrival, release)).clamp(min=0)
    left = torch.exp((arrival - release).clamp(max=0) / syn)
    start = torch.where(release.isfinite() & time.isfinite(), torch.exp((release - time).clamp(max=0) / mem), 0.0)
    response = kappa(since, mem, syn)
    return _Membrane(since, response, left, response * left, start)


def _current_left(events: _Events, time: _Each) -> tuple[Float[Tensor, "E B O N"], Float[Tensor, "E B O N"]]:
    """The rest of each input's current just before a time, and its age, in units of tau_syn."""
    age = (time - events.arrival).clamp(min=0) / events.tau_syn
    return torch.where(age > 0, torch.exp(-age), 0.0), age


class _Sums:
    """Gradients, which grow from spike to spike."""

    def __init__(self, given: Arguments, events: _Events, needs: Needs) -> None:
        self.given, self.events, self.needs = given, events, needs
        self.total: dict[str, Tensor] = {}

    def add(self, name: str, x: Tensor) -> None:
        """One more part of a gradient."""
        self.total[name] = self.total[name] + x if name in self.total else x

    def by_membrane(self, at: _Membrane, time: _Each, release: _Each, scale: _Each, kept: _Each) -> None:
        """A loss by the membrane at a time, ``kept`` for the weights and ``scale`` for all else."""
        arrival, mem, syn = self.events.arrival, self.events.tau_mem, self.events.tau_syn
        since = at.since / syn  # derivatives with respect to times and time constants are with time in units of tau_syn
        by_time = by_mem = by_syn = None
        if not self.needs.isdisjoint(("times", "delay")):
            by_time = -kappa_slope(since, mem / syn, 1.0, at.response)
            by_time = torch.where(arrival < release, at.by_weight, by_time)
        if not self.needs.isdisjoint(("tau_mem", "tau_syn")):
            by_mem, by_syn = kappa_by_taus(since, mem / syn, 1.0)
            by_mem, by_syn = by_mem * at.left, by_syn * at.left
            by_syn += at.by_weight * ((release - arrival).clamp(min=0) / syn)
        self.by_inputs(arrival < time, (at.by_weight, by_time, by_mem, by_syn), scale, kept)

    def by_current(self, time: _Each, scale: _Each) -> None:
        """A loss by the current just before a time."""
        left, age = _current_left(self.events, time)
        self.by_inputs(age > 0, (left, left, None, left * age), scale, scale)

    def by_inputs(
        self,
        causal: Bool[Tensor, "E B o N"],
        by: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
        scale: _Each,
        kept: _Each,
    ) -> None:
        """Gradients of a loss through causal inputs: with respect to weights, times and both time constants."""
        (by_weight, by_time, *by_taus), needs = by, self.needs
        if "weight" in needs:
            self.add("weight", torch.where(causal, by_weight * kept * (1 / self.events.unit), 0.0).sum(dim=1))
        if self.given.state is not None:
            by_current = by_weight[..., -1:] * scale / self.events.unit
            self.add("current", torch.where(causal[..., -1:], by_current, 0.0))
        scale = scale / self.events.tau_syn
        if by_time is not None:
            by_time = torch.where(causal, by_time * self.events.weight * scale, 0.0)
            if "times" in needs:
                self.add("times", by_time.sum(dim=2))
            if "delay" in needs:
                self.add("delay", by_time.sum(dim=1))
        for name, x in zip(("tau_mem", "tau_syn"), by_taus, strict=True):
            if x is not None:
                self.add(name, (torch.where(causal, x, 0.0) * self.events.weight * scale).sum(dim=(1, 3)))

    def gradients(self) -> Gradients:
        """The requested gradients, in the shapes of the arguments."""
        inputs, copies = self.given.sizes[2], self.given.times.shape[-1] if self.given.max_spikes else 1
        for name in ("times", "weight", "delay"):
            if name in self.total:
                each = self.total[name][..., : inputs * copies].unflatten(-1, (inputs, copies))
                self.total[name] = each.reshape(self.given.times.shape) if name == "times" else each.sum(-1)
        found = zero_gradients(self.given, self.needs) | {
            name: x.squeeze(-1) if QUANTITIES[name].shape == "EBO" else x for name, x in self.total.items()
        }
        return {name: x.to(self.given.times.dtype) for name, x in found.items()}


def samples_at_once(given: Arguments, each: int) -> int:
    """How many fit into the memory, with that many numbers, of 8 bytes at most, for each neuron in a sample."""
    ensemble, _, _, outputs = given.sizes
    return _MEMORY // (max(1, each * ensemble * outputs) * 8)


def samples(given: Arguments) -> int:
    """How many samples to work on at once."""
    events = given.sizes[2]
    return samples_at_once(given, _COPIES * (events * given.times.shape[-1] + 1 if given.max_spikes else events))


def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    events, until = _events(given), given.until
    if not events.arrival.shape[-1]:
        return zero_gradients(given, needs)
    grads = each_tensor(Tensor.double, grads)
    spikes, asked = (x if given.max_spikes else x.unsqueeze(-1) for x in (result.spikes, grads.spikes))
    refractory = given.refractory[:, None, :, None] if given.max_spikes else 0.0
    sums, count = _Sums(given, events, needs), spikes.isfinite().sum(-1, keepdim=True)
    none = torch.zeros_like(asked[..., :1])
    most = int(count.max()) if given.max_spikes and count.numel() else 1
    first, begin = _beginning(given, events)
    by_left = by_end = none
    if grads.state is not None:
        ends, last = grads.state, torch.full_like(spikes[..., :1], until)
        of_voltage, asked, by_left = loss_by_ends(ends, result.overflows, spikes, asked, first, given.refractory, until)
        by_end = of_voltage * events.unit
        if "reset" in needs:  # neurons that are held at the end
            sums.add("reset", (grads.state.voltage.unsqueeze(-1) - of_voltage).sum(dim=1).squeeze(-1))
        sums.by_current(last.double(), ends.current.unsqueeze(-1) * events.unit)
        spikes, asked, most = torch.cat([spikes, last + math.inf], -1), torch.cat([asked, none], -1), most + 1

    # the gradient of the membrane at the release, without and with bounded parts, and the slope there
    scale, kept, slope = none, none, none
    for k in reversed(range(most)):
        time = torch.where(k < count, spikes[..., k : k + 1], -math.inf)
        if grads.state is not None:
            time = torch.where(count.eq(k), until, time)
        release = first if k == 0 else torch.where(k <= count, spikes[..., k - 1 : k] + refractory, -math.inf)
        time, release = time.double(), release.double()
        drive = (_current_left(events, time)[0] * events.weight).sum(-1, keepdim=True) / events.tau_syn
        rise = drive - events.threshold / events.tau_mem
        fires = (k < count) & (rise > 0) & (time > release)
        rise, other = torch.where(fires, rise, 1.0), torch.where(count.eq(k), by_end, 0.0)
        pulls = (torch.where(fires, (slope * x - asked[..., k : k + 1]) / rise, other) for x in (scale, kept))
        scale, kept = pulls if max_weight_grad is not None else (next(pulls),) * 2
        membrane = _membrane(events, time, release)
        if max_weight_grad is not None:
            inputs = membrane.by_weight[..., : -1 if given.state is not None else None]
            largest = inputs.amax(-1, keepdim=True) * (kept / events.unit).abs() if inputs.shape[-1] else none
            kept = torch.where((k < count) & (largest > max_weight_grad), 0.0, kept)
        sums.by_membrane(membrane, time, release, scale, kept)
        if "threshold" in needs:
            sums.add("threshold", -torch.where(fires, scale / events.unit, 0.0).sum(dim=1).squeeze(-1))
        start = begin if k == 0 else events.reset
        if "tau_mem" in needs:
            aged = torch.where(membrane.start > 0, (time - release) / events.tau_mem, 0.0)
            sums.add("tau_mem", (scale * start * membrane.start * aged / events.tau_mem).sum(dim=(1, 3)))
        left = torch.where(events.arrival < release, membrane.left, 0.0)
        slope = (left * events.weight).sum(-1, keepdim=True) / events.tau_syn - events.reset / events.tau_mem
        scale, kept = scale * membrane.start, kept * membrane.start
        if "reset" in needs:
            started = torch.where(first > given.start, scale, 0.0) if k == 0 else scale
            sums.add("reset", (started / events.unit).sum(dim=1).squeeze(-1))
    if given.state is not None:
        held = first > given.start
        sums.add("left", by_left - torch.where(held, slope * scale, 0.0))
        sums.add("voltage", torch.where(held, 0.0, scale / events.unit))
    return sums.gradients()


def _beginning(given: Arguments, events: _Events) -> tuple[_Each, _Each]:
    """When the membrane is free before the first spike, ``-inf`` for always, and its value then."""
    if given.state is None:
        return torch.full_like(events.reset, -math.inf), torch.zeros_like(events.reset)
    left = given.state.left.unsqueeze(-1)
    voltage = given.state.voltage.unsqueeze(-1) / events.unit
    return given.start + left, torch.where(left > 0, events.reset, voltage)


def loss_by_ends(
    ends: Held,
    overflows: Bool[Tensor, "E B O"],
    spikes: Float[Tensor, "E B O S"],
    asked: Float[Tensor, "E B O S"],
    first: _Each,
    refractory: Float[Tensor, "E O"],
    until: float,
) -> tuple[_Each, Float[Tensor, "E B O S"], _Each]:
    """The gradients of a loss at the final state, split into voltages, spikes and ``first``.

    The rest of the last refractory time moves along with the last spike, and holds the voltage.
    """
    release = last_release(spikes, first, refractory)
    held, over, some = release > until, overflows.unsqueeze(-1), spikes[..., :1].isfinite()
    by_left = torch.where(held & ~over, ends.left.unsqueeze(-1), 0.0)
    last = (spikes.isfinite().sum(-1, keepdim=True) - 1).clamp(min=0)
    asked = asked.scatter_add(-1, last, torch.where(some, by_left, 0.0))
    return torch.where(over | held, 0.0, ends.voltage.unsqueeze(-1)), asked, torch.where(some, 0.0, by_left)


def last_release(spikes: Float[Tensor, "E B O S"], first: _Each, refractory: Float[Tensor, "E O"]) -> _Each:
    """When neurons are free after their last spike, or from ``first`` on."""
    count = spikes.isfinite().sum(-1, keepdim=True)
    last = spikes.gather(-1, (count - 1).clamp(min=0)) + refractory[:, None, :, None]
    return torch.where(count > 0, last, first)


def state_after(spikes: Float[Tensor, "E B O S"], given: Arguments) -> Held:
    """The state at ``until`` of neurons that spiked at these times, and were reset there."""
    events, until = _events(given), torch.full_like(spikes[..., :1], given.until)
    count = spikes.isfinite().sum(-1, keepdim=True)
    first, begin = _beginning(given, events)
    release = last_release(spikes, first, given.refractory)
    membrane = _membrane(events, until.double(), release.double())
    voltage = torch.where(count > 0, events.reset, begin) * membrane.start
    voltage = voltage + (membrane.by_weight * events.weight).sum(-1, keepdim=True)
    voltage = torch.where(release > until, events.reset, voltage)
    current = (_current_left(events, until.double())[0] * events.weight).sum(-1, keepdim=True)
    state = voltage * events.unit, current * events.unit, (release - until).clamp(min=0)
    return Held(*(x.squeeze(-1).to(given.times.dtype) for x in state))
