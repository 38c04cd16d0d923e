"""Maxima of the membranes of neurons without threshold that all see the same spikes, with their exact gradient.

``peaks`` computes the same for single pairs of a sample and a neuron, each with inputs of its own. Here the spikes of a
sample are sorted once for all outputs, and decays from spike to spike are shared. The state just after spike k follows
from the one before, ``D`` earlier:

    V_k = V_{k-1} exp(-D/tau_mem) + Q_{k-1} kappa(D),          Q_k = Q_{k-1} exp(-D/tau_syn) + w_k

Spikes are divided into blocks of about the square root of their number. All blocks are scanned at once, each from rest;
then the state that enters a block is added, decayed to the time of each of its spikes. While a membrane rises it is
concave and stays below its tangent, so few intervals can have a maximum above the largest ``V_k``: only those are
evaluated.

The gradient is the adjoint of the scan: with ``(p_V, p_I)`` started at the last spike before the maximum at t*,

    p_I <- p_I exp(-D/tau_syn) + p_V kappa(D),   p_V <- p_V exp(-D/tau_mem),
    dV(t*)/dw_k = p_I,   dV(t*)/dt_k = w_k (p_I - p_V) / tau_syn

A maximum at the arrival of a spike that pulls the membrane down moves with it: its time has the slope just before.

Shapes: B samples, O outputs, E spikes of a sample; in blocks (O, spikes of a block, blocks times samples).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.neuron import LIF
from firstspike.spiketime.reference.peaks import Gradient, MemberByMember
from firstspike.spiketime.reference.response import Tau, kappa, leakless, peak
from firstspike.spiketime.values import check_finite_weight

_CHUNK = 1 << 20  # (spike, output) values at once


def maximum(
    trains: Float[Tensor, "batch inputs spikes"], weight: Float[Tensor, "outputs inputs"], neuron: LIF
) -> Float[Tensor, "batch outputs"]:
    """Maximum of the membrane of a neuron without threshold; at least 0, its value at rest.

    Differentiable by trains and weight; a membrane that never rises above rest has no gradient.

    Args:
        trains: spikes of each input in any order, ``inf`` for none.
        weight: of the synapses.
        neuron: time constants, each a number or a tensor ``()`` or ``(outputs,)``, as constants.
    """
    taus = [
        x.detach().expand(len(weight)).view(-1, 1, 1) if isinstance(x, Tensor) else x
        for x in (neuron.tau_mem, neuron.tau_syn)
    ]
    height: Tensor = _Maximum.apply(trains, weight, *taus)[0]
    return height


class _Events(NamedTuple):
    """Sorted spikes of some samples, filled up to whole blocks with copies of the last one that have no input."""

    time: Float[Tensor, "samples spikes"]
    source: Int64[Tensor, "samples spikes"]
    """Which input; where filled up the number of inputs."""
    place: Int64[Tensor, "samples spikes"]
    """In the flattened trains of a sample; meaningless where filled up."""
    size: int
    """Spikes of a block."""
    samples: slice


class _Maximum(MemberByMember):
    """``(trains, weight, tau_mem, tau_syn) -> (height, time, place, slope)`` of the maxima.

    ``place`` is the spike, in the flattened trains, at whose arrival the maximum is, or -1; ``slope`` that before it.
    """

    @staticmethod
    def forward(trains: Tensor, weight: Tensor, tau_mem: Tau, tau_syn: Tau) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_finite_weight(weight)  # -inf would be a membrane that never leaves its rest
        size = (len(trains), len(weight))
        height, time, slope = (trains.new_zeros(size) for _ in range(3))
        place = torch.full(size, -1, dtype=torch.int64, device=trains.device)
        for events in _events(trains, len(weight)):
            found = _highest(events, weight, tau_mem, tau_syn)
            for whole, part in zip((height, time, place, slope), found, strict=True):
                whole[events.samples] = part.mT
        return height, time, place, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        trains, weight, ctx.tau_mem, ctx.tau_syn = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(trains, weight, *output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 4
        return *_MaximumGradient.apply(grad, *ctx.saved_tensors, ctx.tau_mem, ctx.tau_syn), None, None


class _MaximumGradient(Gradient):
    """``(grad, trains, weight, height, time, place, slope, tau_mem, tau_syn) -> those by trains and weight``."""

    @staticmethod
    def forward(
        grad: Tensor,
        trains: Tensor,
        weight: Tensor,
        height: Tensor,
        time: Tensor,
        place: Tensor,
        slope: Tensor,
        tau_mem: Tau,
        tau_syn: Tau,
    ) -> tuple[Tensor, Tensor]:
        by_trains = trains.new_zeros(len(trains), trains.shape[1:].numel())
        by_weight = weight.new_zeros(len(weight), weight.shape[1] + 1)
        grad = torch.where(height > 0, grad, 0.0)
        for events in _events(trains, len(weight)):
            here = events.samples
            at, scale = time[here].mT, grad[here].mT
            of_weight, of_time = _adjoint(events, weight, at, scale, tau_mem, tau_syn)
            sources = events.source.reshape(1, -1).expand(len(weight), -1)
            by_weight.scatter_add_(1, sources, of_weight.reshape(len(weight), -1))
            filled = events.source == weight.shape[1]
            by_trains[here].scatter_add_(1, events.place, of_time.masked_fill(filled, 0.0))
            moving = torch.where(place[here] >= 0, grad[here] * slope[here], 0.0)
            by_trains[here].scatter_add_(1, place[here].clamp(min=0), moving)
        return by_trains.view_as(trains), by_weight[:, :-1].clone()


def _events(trains: Tensor, outputs: int) -> Iterator[_Events]:
    """Sorted spikes, of as many samples at once as memory is worth."""
    inputs, each = trains.shape[1:]
    flat = trains.reshape(len(trains), inputs * each)
    arrives = torch.isfinite(flat)
    counts = arrives.sum(dim=1)
    most = int(counts.max()) if counts.numel() else 0
    if not most or not outputs:
        return
    step = max(1, _CHUNK // (most * outputs))
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        count = counts[part]
        longest = max(1, int(count.max()))
        size = math.isqrt(longest - 1) + 1
        row, column = arrives[part].nonzero(as_tuple=True)
        nth = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        time = flat.new_full((len(count), -(-longest // size) * size), torch.inf)
        place = torch.zeros_like(time, dtype=torch.int64)
        time[row, nth], place[row, nth] = flat[part][row, column], column
        time, order = time.sort(dim=1, stable=True)
        place = place.gather(1, order)
        filled = torch.isinf(time)
        last = time.masked_fill(filled, -torch.inf).amax(1, keepdim=True)
        time = torch.where(filled, torch.where(torch.isinf(last), 0.0, last), time)
        yield _Events(time, torch.where(filled, inputs, place // each), place, size, part)


class _Blocks:
    """Spikes of some samples in blocks of equal size, and scans over all blocks at once.

    Columns are blocks times samples, all samples of a block side by side.
    """

    def __init__(self, events: _Events, tau_mem: Tau, tau_syn: Tau) -> None:
        self.samples, spikes = events.time.shape
        self.size, self.blocks = events.size, spikes // events.size
        self.tau_mem, self.tau_syn = tau_mem, tau_syn
        self.time, self.source = self.divided(events.time), self.divided(events.source)
        self.within = self._decays(self.time.diff(dim=0))

    def divided(self, x: Tensor) -> Tensor:
        """From (samples, spikes) to (size, columns)."""
        return x.view(self.samples, self.blocks, self.size).permute(2, 1, 0).reshape(self.size, -1)

    def joined(self, x: Tensor) -> Tensor:
        """From (outputs, size, columns) to (outputs, samples, spikes)."""
        return x.unflatten(-1, (self.blocks, self.samples)).permute(0, 3, 2, 1).flatten(2)

    def weights(self, weight: Tensor) -> Tensor:
        """The weight of each spike, 0 where filled up: (outputs, size, columns)."""
        known = torch.cat([weight, weight.new_zeros(len(weight), 1)], dim=1)
        return known.index_select(1, self.source.flatten()).unflatten(1, self.source.shape)

    def states(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Membrane and current just after each spike, (outputs, size, columns); ``weight`` becomes the current."""
        current, voltage = weight, torch.zeros_like(weight)
        for k in range(1, self.size):
            mem, syn, response = (x[..., k - 1, :] for x in self.within)
            _advance((voltage[:, k], current[:, k]), (voltage[:, k - 1], current[:, k - 1]), mem, syn, response)
        if self.blocks > 1:
            ends = self.time[-1].view(self.blocks, -1)
            of_ends = [x[:, -1].unflatten(-1, ends.shape).clone() for x in (voltage, current)]
            steps = self._decays(ends.diff(dim=0))
            for block in range(1, self.blocks):
                mem, syn, response = (x[..., block - 1, :] for x in steps)
                _advance([x[:, block] for x in of_ends], [x[:, block - 1] for x in of_ends], mem, syn, response)
            before = [x[:, :-1].flatten(1).unsqueeze(1) for x in of_ends]
            mem, syn, response = self._decays(self.time[:, self.samples :] - ends[:-1].flatten())
            now = [x[..., self.samples :] for x in (voltage, current)]
            _advance(now, before, mem, syn, response)
        return voltage, current

    def adjoints(self, of_voltage: Tensor, of_current: Tensor) -> None:
        """``p_V`` and ``p_I`` at each spike, in place of those that start there; the same shapes, backwards."""
        for k in reversed(range(self.size - 1)):
            mem, syn, response = (x[..., k, :] for x in self.within)
            now, later = ([x[:, at] for x in (of_current, of_voltage)] for at in (k, k + 1))
            _advance(now, later, syn, mem, response)
        if self.blocks > 1:
            heads = self.time[0].view(self.blocks, -1)
            of_heads = [x[:, 0].unflatten(-1, heads.shape).clone() for x in (of_current, of_voltage)]
            steps = self._decays(heads.diff(dim=0))
            for block in reversed(range(self.blocks - 1)):
                mem, syn, response = (x[..., block, :] for x in steps)
                _advance([x[:, block] for x in of_heads], [x[:, block + 1] for x in of_heads], syn, mem, response)
            later = [x[:, 1:].flatten(1).unsqueeze(1) for x in of_heads]
            mem, syn, response = self._decays(heads[1:].flatten() - self.time[:, : -self.samples])
            now = [x[..., : -self.samples] for x in (of_current, of_voltage)]
            _advance(now, later, syn, mem, response)

    def _decays(self, elapsed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mem, syn = self.tau_mem, self.tau_syn
        return torch.exp(-elapsed / mem), torch.exp(-elapsed / syn), kappa(elapsed, mem, syn)


def _advance(now: Sequence[Tensor], before: Sequence[Tensor], decay: Tensor, other: Tensor, response: Tensor) -> None:
    """Add what is left of two values to those now; the first one also gets a part of the second."""
    now[0].addcmul_(before[0], decay).addcmul_(before[1], response)
    now[1].addcmul_(before[1], other)


def _highest(
    events: _Events, weight: Tensor, tau_mem: Tau, tau_syn: Tau
) -> tuple[Float[Tensor, "outputs samples"], ...]:
    """Height, time and place of the maxima, and the slope before those at a place."""
    blocks = _Blocks(events, tau_mem, tau_syn)
    voltage, current = blocks.states(blocks.weights(weight))
    slope = current / tau_syn - voltage / tau_mem
    best, index = blocks.joined(voltage).max(dim=-1)
    time = events.time.expand(len(weight), -1, -1).gather(2, index.unsqueeze(-1)).squeeze(-1)
    place = events.place.expand(len(weight), -1, -1).gather(2, index.unsqueeze(-1)).squeeze(-1)
    best = best.clamp(min=0)

    # within intervals: only where the tangent is above the best so far
    duration = blocks.divided(events.time.diff(dim=1, append=events.time.new_full((blocks.samples, 1), torch.inf)))
    above = torch.addcmul(voltage, slope, duration) > best.repeat(1, blocks.blocks).unsqueeze(1)
    if leakless(tau_mem):  # the membrane rises for ever, if it does at the end
        above &= torch.isinf(duration)
    output, nth, column = above.logical_and_(slope > 0).nonzero(as_tuple=True)
    at = output, nth, column
    mem, syn = (x.flatten()[output] if isinstance(x, Tensor) else x for x in (tau_mem, tau_syn))
    if leakless(tau_mem):
        summit, height = torch.full_like(voltage[at], 40.0) * syn, voltage[at] + current[at]
    else:
        summit, height = peak(voltage[at], current[at], mem, syn)
    inside = (summit <= duration[nth, column]) & torch.isfinite(summit)
    pair = output * blocks.samples + column % blocks.samples
    highest = best.flatten().scatter_reduce(0, pair[inside], height[inside], "amax")
    wins = inside & (height > best.flatten()[pair]) & (height == highest[pair])
    time.view(-1)[pair[wins]] = blocks.time[nth, column][wins] + summit[wins]
    place.view(-1)[pair[wins]] = -1
    highest = highest.view_as(best)

    before, since = _before(events, time)
    left = blocks.joined(current).gather(2, before.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    taus = [x.squeeze(-1) if isinstance(x, Tensor) else x for x in (tau_mem, tau_syn)]
    falls = left * torch.exp(-since / taus[1]) / taus[1] - highest / taus[0]
    return highest, time, torch.where(highest > 0, place, -1), torch.where(before >= 0, falls, 0.0)


def _before(events: _Events, time: Float[Tensor, "outputs samples"]) -> tuple[Tensor, Tensor]:
    """The last spike of each sample before a time, or -1, and how long before."""
    before = torch.searchsorted(events.time, time.mT.contiguous()).mT - 1
    known = events.time.expand(len(time), -1, -1).gather(2, before.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return before, (time - known).clamp(min=0)


def _adjoint(
    events: _Events, weight: Tensor, time: Tensor, scale: Tensor, tau_mem: Tau, tau_syn: Tau
) -> tuple[Float[Tensor, "outputs samples spikes"], Float[Tensor, "samples spikes"]]:
    """Gradients by the weight and the time of each spike, for ``scale`` (outputs, samples) times the maxima."""
    blocks = _Blocks(events, tau_mem, tau_syn)
    before, since = _before(events, time)
    scale = torch.where(before >= 0, scale, 0.0)
    before = before.clamp(min=0)
    taus = [x.squeeze(-1) if isinstance(x, Tensor) else x for x in (tau_mem, tau_syn)]
    weights = blocks.weights(weight)
    of_voltage, of_current = torch.zeros_like(weights), torch.zeros_like(weights)
    outputs, samples = (torch.arange(n, device=time.device) for n in time.shape)
    at = outputs[:, None], before % blocks.size, before // blocks.size * blocks.samples + samples
    of_voltage[at] = scale * torch.exp(-since / taus[0])
    of_current[at] = scale * kappa(since, *taus)
    blocks.adjoints(of_voltage, of_current)
    of_time = ((of_current - of_voltage) * weights / tau_syn).sum(dim=0, keepdim=True)
    return blocks.joined(of_current), blocks.joined(of_time)[0]
