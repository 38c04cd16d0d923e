"""The states of linear neurons at given times, from their inputs and their own spikes.

All that happens to a neuron, and the points, stand in one order. From each to the next the state is a linear function
of the one before, and a sum over pairs, pairs of pairs and so on gives all of them.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from firstspike.neurons.base import Component
from firstspike.spiketime.response import Receptor, at_rest, reaching, response
from firstspike.spiketime.values import values_of

_AT_ONCE = 1 << 20  # points and events that are worked on at once
_LITTLE = 1e-300  # a response has its slope only after its input
States = list[Float64[Tensor, "*batch out points"]]
"""The membrane and the components."""


class _Rows(NamedTuple):
    """What is known of neurons: constants are numbers or ``(out, 1)``, all times in order and ``inf`` for none."""

    components: Sequence[Component]
    tau_mem: Any
    bias: Any
    reset: Any
    arrivals: Float64[Tensor, "*batch #out inputs"]
    sources: Tensor
    """The input of each arrival."""
    weights: Sequence[Float64[Tensor, "out inputs"] | None]
    """What inputs add to each component."""
    spikes: Float64[Tensor, "*batch out spikes"]
    ends: Float64[Tensor, "*batch out spikes"]
    """When the membrane goes on after each spike."""
    counts: Float64[Tensor, " spikes"]
    """1 for each spike, 0 for those that there is no room for."""


def linear_states(
    at: Float64[Tensor, " points"],
    trains: Float[Tensor, "*batch inputs copies"],
    weight: Float[Tensor, "out inputs"],
    neuron: Any,
    spikes: Float[Tensor, "*batch out spikes"],
    delay: Float[Tensor, "out inputs"] | None,
    receptor: Tensor | None,
    most: int,
) -> States:
    """Membranes and components just after what happens at each of the times, which are in order.

    After ``most`` of their ``spikes``, neurons stay at their reset from the next one on. ``receptor`` has the number
    for each input, None if signs tell.
    """
    tau_mem, bias, reset, refractory = map(_of_rows, (neuron.tau_mem, neuron.bias, neuron.reset, neuron.refractory))
    known = neuron.components or (Component("synapse", neuron.tau_syn),)
    components = [Component(part.kind, _of_rows(part.tau), _of_rows(part.jump)) for part in known]
    arrivals = trains.unsqueeze(-3) if delay is None else trains.unsqueeze(-3) + delay.unsqueeze(-1)
    arrivals = arrivals.double().flatten(-2)
    if neuron.begins:
        arrivals = torch.where(arrivals < 0, torch.inf, arrivals)
    arrivals, order = arrivals.sort(dim=-1)
    weights: list[Tensor | None] = [None] * len(components)
    for number, place in enumerate(neuron.receptors if neuron.components else (0,)):
        several = neuron.components and len(neuron.receptors) > 1
        weights[place] = reaching(weight.double(), receptor, number) if several else weight.double()
    spikes = pad(spikes.double(), (0, 1), value=torch.inf).sort(dim=-1).values
    ends = spikes + (refractory.detach() if isinstance(refractory, Tensor) else refractory)
    ends = pad(ends[..., :most], (0, spikes.shape[-1] - min(most, ends.shape[-1])), value=torch.inf)
    counts = (torch.arange(spikes.shape[-1], device=spikes.device) < most).double()
    rows = _Rows(components, tau_mem, bias, reset, arrivals, order // trains.shape[-1], weights, spikes, ends, counts)
    state = [spikes.new_zeros(*spikes.shape[:-1], 1) for _ in range(len(components) + 1)]
    points, after, found = at, -math.inf, []
    if neuron.begins:
        points, after = at.clamp(min=0.0), -_LITTLE
    blocks = points.split(max(1, _AT_ONCE // max(1, state[0].numel())))
    # what gradients need of a block is computed a second time, where all blocks together would take too much
    again = len(blocks) > 1 and torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
    run = partial(checkpoint, _block, use_reentrant=False, preserve_rng_state=False) if again else _block
    for some in blocks:
        inside = _between(rows, after, float(some[-1])) if len(blocks) > 1 else rows
        states = run(inside, state, after, some)
        state, after = [x[..., -1:] for x in states], float(some[-1])
        found.append(states)
    return [torch.where(at < points, 0.0, torch.cat(x, dim=-1)) for x in zip(*found, strict=True)]


def _of_rows(value: Any) -> Any:
    return value.double().reshape(-1, 1) if isinstance(value, Tensor) else value


def _between(rows: _Rows, after: float, end: float) -> _Rows:
    """With no other arrivals than those after a time and until another."""
    first, last = (values_of((rows.arrivals <= x).sum(dim=-1)) for x in (after, end))
    if not first.numel():
        return rows
    some = slice(int(first.min()), int(last.max()))
    return rows._replace(arrivals=rows.arrivals[..., some], sources=rows.sources[..., some])


def _block(rows: _Rows, state: States, after: float, points: Float64[Tensor, " points"]) -> States:
    """The states at some points, from that just after an earlier time."""
    lead, end = state[0].shape[:-1], float(points[-1])
    kinds = [x.expand(*lead, x.shape[-1]) for x in (rows.arrivals, rows.spikes, rows.ends, points)]
    times = torch.cat(kinds, dim=-1)
    happen = (times > after) & (times <= end)
    times, order = times.clamp(after, end).sort(dim=-1, stable=True)
    gaps = times.diff(dim=-1, prepend=times[..., :1] if after == -math.inf else times.new_full((*lead, 1), after))
    since, mem = gaps + _LITTLE, rows.tau_mem
    drive, found = at_rest(gaps, mem, rows.bias), []
    rising: float | Tensor = 0.0
    for k, (kind, tau, jump) in enumerate(rows.components):
        gains = [torch.zeros_like(x) for x in kinds]
        gains[1] = jump * rows.counts.expand_as(kinds[1])
        if (own := rows.weights[k]) is not None:
            gains[0] = own.expand(*lead, -1).take_along_dim(rows.sources.expand_as(kinds[0]), dim=-1)
        gained = torch.where(happen, torch.cat(gains, dim=-1), 0.0).gather(-1, order) + rising
        now = _accumulated(torch.exp(-gaps / tau), gained, state[k + 1])
        before, rising = torch.cat([state[k + 1], now[..., :-1]], dim=-1), 0.0
        if kind == "rise":
            onto = rows.components[k + 1].tau
            drive = drive + before * response(since, mem, Receptor(onto, tau))
            rising = before * response(since, onto, Receptor(tau, None))
        elif kind != "threshold":
            drive = drive + (1 if kind == "synapse" else -1) * before * response(since, mem, Receptor(tau, None))
        found.append(now)
    decay = torch.exp(-gaps / mem)
    if rows.reset is not None:
        last = torch.searchsorted(rows.spikes.detach(), times.detach(), right=True) - 1
        held = (last >= 0) & (times <= rows.ends.gather(-1, last.clamp(min=0)))
        decay, drive = torch.where(held, 0.0, decay), torch.where(held, rows.reset, drive)
    found.insert(0, _accumulated(decay, drive, state[0]))
    place = order.argsort(dim=-1)[..., -len(points) :]
    return [x.gather(-1, place) for x in found]


def _accumulated(decay: Tensor, gain: Tensor, start: Tensor) -> Float64[Tensor, "*batch out events"]:
    """``x[m] = decay[m] x[m - 1] + gain[m]`` along the last dimension, from the ``start`` on."""
    if gain.shape[-1] == 0:
        return gain
    first = gain[..., :1] + decay[..., :1] * start
    count = gain.shape[-1] // 2
    even, odd = ((decay[..., k::2], gain[..., k::2]) for k in (0, 1))
    pairs = odd[0] * even[0][..., :count], odd[1] + odd[0] * even[1][..., :count]
    later = _accumulated(*pairs, start)
    others = torch.cat([first, even[1][..., 1:] + even[0][..., 1:] * later[..., : even[1].shape[-1] - 1]], dim=-1)
    both = torch.stack([others, pad(later, (0, others.shape[-1] - count))], dim=-1).flatten(-2)
    return both[..., : gain.shape[-1]]
