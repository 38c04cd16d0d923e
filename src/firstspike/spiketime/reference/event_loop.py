"""Spike times in plain PyTorch: any device, float32 and float64, one line for one formula.

The state just after input k, membrane ``V_k`` and current ``Q_k``, gives everything until the next input:

    V(t_k + s) = V_k exp(-s/tau_mem) + Q_k kappa(s),          I(t_k + s) = Q_k exp(-s/tau_syn)

States add once they are brought to the same time, so that inputs need not be taken one after the other: all states take
up the one of the input before, then those 2, 4, 8, ... inputs earlier. Nothing overflows at any time scale. In these
scans inputs are in the first dimension of all tensors. Times broadcast: neurons without their own delays share them.

First spikes follow from the states just after each input. For spike trains this is repeated: every neuron
looks at its next few inputs and advances to its next spike or, if there is none, to the last of these inputs. The state
at a spike, or where the refractory time after it ends, is the first input of the next piece. Inputs that arrive in
between act with their rest then. Weights and thresholds of a neuron are in its own unit, so nothing overflows.

Memory is bounded. Kernels need less memory, are faster, and are tested against this package.

Shapes: E ensemble, B batch, I inputs, K times of each, N = I K, O outputs, S spikes; P (sample, neuron) pairs.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Held, Result
from firstspike.spiketime.maxima.scan import accumulate, in_order, settled
from firstspike.spiketime.reference.adjoint import arrivals, samples_at_once, state_after
from firstspike.spiketime.reference.solutions import first_crossing, later
from firstspike.spiketime.response import Tau
from firstspike.spiketime.units import unit_of_weights

_COPIES = 16  # tensors of the size of a part that are alive at the same time, at most
_AHEAD = 16  # inputs that neurons look at together, at least


def samples(given: Arguments) -> int:
    """How many samples to work on at once."""
    events = given.sizes[2]
    if not given.max_spikes:
        return samples_at_once(given, _COPIES * events)
    events *= given.times.shape[-1]
    return samples_at_once(given, _COPIES * (_ahead(given, events) + 2) + 4 * events)


def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    if not given.max_spikes:
        return Result(_first_spikes(given))
    if given.observed is not None:
        none = torch.zeros_like(given.observed[..., 0], dtype=torch.bool)
        return Result(given.observed, (), none, state_after(given.observed, given) if given.until < math.inf else None)
    return _trains(given)


def _first_spikes(given: Arguments) -> Float[Tensor, "E B O"]:
    ensemble, batch, inputs, outputs = given.sizes
    if not inputs:
        return given.times.new_full((ensemble, batch, outputs), math.inf)
    unit = unit_of_weights(given.weight, given.threshold)
    time, current = settled(*in_order(arrivals(given), (given.weight / unit.unsqueeze(-1)).unsqueeze(1))[:2])
    voltage = torch.zeros_like(current)
    taus = [tau.unsqueeze(1) if isinstance(tau, Tensor) else tau for tau in given.constants]
    accumulate(time, voltage, current, *taus)
    never = time.new_full((), math.inf)
    after = later(never, voltage[-1], current[-1], *taus)
    return first_crossing(time, voltage, current, never, after, (given.threshold / unit).unsqueeze(1), *taus).spike


class _Neurons(NamedTuple):
    """Pairs that still may spike, with voltages in units of the neurons."""

    pair: Int64[Tensor, " P"]
    time: Float[Tensor, " P"]
    """Time up to which a neuron is solved. Earlier inputs count as arriving then."""
    voltage: Float[Tensor, " P"]
    current: Float[Tensor, " P"]
    free: Float[Tensor, " P"]
    """When the refractory time ends, or ended."""
    place: Int64[Tensor, " P"]
    """Index of its next input."""
    spiked: Int64[Tensor, " P"]
    """Number of spikes so far."""


def _ahead(given: Arguments, events: int) -> int:
    return max(1, min(events, max(_AHEAD, events // given.max_spikes)))


def _trains(given: Arguments) -> Result:
    (ensemble, batch, _, copies), outputs, until = given.times.shape, given.weight.shape[1], given.until
    shape, unit = (ensemble, batch, outputs), unit_of_weights(given.weight, given.threshold)
    arrival, order = arrivals(given).sort(dim=-1, stable=True)
    events, ahead = arrival.shape[-1], _ahead(given, arrival.shape[-1])
    arrival = torch.cat([arrival, arrival.new_full((*arrival.shape[:-1], 1), math.inf)], dim=-1)
    source = torch.cat([order // max(1, copies), order.new_zeros(*order.shape[:-1], 1)], dim=-1)
    weight = torch.cat([given.weight / unit.unsqueeze(-1), unit.new_zeros(ensemble, outputs, 1)], dim=-1).flatten(0, 1)

    def of_pairs(x: Tensor) -> Tensor:
        return x.unsqueeze(1).expand(shape).flatten()

    number = torch.arange(math.prod(shape), device=arrival.device)
    neuron = of_pairs(torch.arange(ensemble * outputs, device=arrival.device).view(ensemble, outputs))
    row = number if given.delay is not None else number // max(1, outputs)
    arrival, source = arrival.flatten(0, 2), source.flatten(0, 2)
    threshold, reset, refractory = map(of_pairs, (given.threshold / unit, given.reset / unit, given.refractory))
    taus = [of_pairs(tau) if isinstance(tau, Tensor) else tau for tau in given.constants]

    trains = arrival.new_full((len(number), given.max_spikes), math.inf)
    overflows = torch.zeros_like(number, dtype=torch.bool)
    ends = Held(*(torch.zeros_like(reset) for _ in range(3)))
    now = _start(given, unit, arrival[row, 0], reset, taus[1])
    steps = torch.arange(ahead + 1, device=arrival.device).unsqueeze(-1)
    while len(now.pair):
        here, (mem, syn) = now.pair, (tau[now.pair] if isinstance(tau, Tensor) else tau for tau in taus)
        columns = (now.place + steps).clamp(max=events)
        arrives = arrival[row[here], columns]
        early = (now.time - arrives[:-1]).clamp(min=0)
        current = weight[neuron[here], source[row[here], columns[:-1]]] * torch.exp(-early / syn)
        time, end = torch.maximum(arrives[:-1], now.time), torch.maximum(arrives[-1], now.time).clamp(max=until)
        time, current = settled(torch.cat([now.time[None], time]), torch.cat([now.current[None], current]))
        voltage = torch.zeros_like(current)
        voltage[0] = now.voltage
        accumulate(time, voltage, current, mem, syn)
        after = later(end - time[-1], voltage[-1], current[-1], mem, syn)
        found = first_crossing(time, voltage, current, end, after, threshold[here], mem, syn)

        full = found.fires & (now.spiked == given.max_spikes)
        spikes = found.fires & ~full
        trains[here[spikes], now.spiked[spikes]] = found.spike[spikes]
        overflows[here[full]] = True
        free = torch.where(full, math.inf, found.spike + refractory[here]).where(found.fires, now.free)
        begin = torch.where(found.fires, found.time, time[-1])
        known = torch.where(found.fires, free, end).clamp(max=until)
        now = _Neurons(
            here,
            known,
            torch.where(found.fires, reset[here], after),
            torch.where(found.fires, found.current, current[-1]) * torch.exp((begin - known) / syn),
            free,
            now.place + torch.where(found.fires, found.nth, ahead),
            now.spiked + spikes,
        )
        done = known.isinf() | (arrives[-1].isinf() & ~found.fires)
        ends.voltage[here[done]], ends.current[here[done]], ends.left[here[done]] = (x[done] for x in now[2:5])
        now = _Neurons(*(x[~done] for x in now))

    state = None
    if until < math.inf:
        left = torch.where(overflows, 0.0, (ends.left - until).clamp(min=0)).view(shape)
        voltage, current = (x.view(shape) * unit.unsqueeze(1) for x in ends[:2])
        state = Held(voltage, current, left)
    return Result(trains.view(*shape, given.max_spikes), (), overflows.view(shape), state)


def _start(given: Arguments, unit: Tensor, first: Tensor, reset: Tensor, tau_syn: Tau) -> _Neurons:
    """The start of all pairs: at rest at their first input, or in the given state."""
    pair = torch.arange(len(first), device=first.device)
    none, rest = torch.zeros_like(pair), torch.zeros_like(first)
    if given.state is None:
        never = torch.full_like(first, -math.inf)
        return _Neurons(pair, first.masked_fill(first.isinf(), 0.0), rest, rest, never, none, none)
    voltage, current = ((x / unit.unsqueeze(1)).flatten() for x in given.state[:2])
    left = given.state.left.flatten()
    free = given.start + left
    known = free.clamp(max=given.until)
    current = current * torch.exp((given.start - known) / tau_syn)
    return _Neurons(pair, known, torch.where(left > 0, reset, voltage), current, free, none, none)
