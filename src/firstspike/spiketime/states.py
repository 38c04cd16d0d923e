"""The states of linear neurons at given times, from their inputs and their own spikes.

All that happens to a neuron, and the points, stand in one order. From each to the next the state is a linear function
of the one before, and a sum over pairs, pairs of pairs and so on gives all of them.
"""

import math
from functools import partial
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from firstspike.neurons.base import ROLES, Component, receptors_of
from firstspike.spiketime.response import ReceptorTaus, at_rest, reaching, response
from firstspike.spiketime.values import values_of

_AT_ONCE = 1 << 20  # points and events of all neurons that are worked on at once
_LITTLE = 1e-300  # a response has its slope only after its input
States = list[Float64[Tensor, "samples out points"]]
"""The membrane and the components."""


def linear_states(
    at: Float64[Tensor, " points"],
    trains: Float[Tensor, "samples inputs copies"],
    weight: Float[Tensor, "out inputs"],
    neuron: Any,
    spikes: Float[Tensor, "samples out spikes"],
    delay: Float[Tensor, "out inputs"] | None,
    receptor: Tensor | None,
    most: int,
) -> States:
    """Membranes and components just after what happens at each of the times, which are in order if all share them.

    Neurons with more than ``most`` of their ``spikes`` stay at their reset from the next one on. ``receptor`` has a
    number for each input, None if signs tell.
    """
    size = len(weight) * (at.shape[-1] + trains[:1].numel() + spikes.shape[-1])
    if len(trains) > 1 and size * len(trains) > _AT_ONCE:
        many = at.split(max(1, _AT_ONCE // size)) if at.ndim > 1 else repeat(at)
        each = zip(*(x.split(max(1, _AT_ONCE // size)) for x in (trains, spikes)), strict=True)
        run, rest = _again(linear_states), (delay, receptor, most)
        runs = [run(z, x, weight, neuron, y, *rest) for z, (x, y) in zip(many, each, strict=False)]
        return [torch.cat(x) for x in zip(*runs, strict=True)]
    parts = [Component(x.kind, _by_row(x.tau), _by_row(x.jump)) for x in neuron.components or neuron._synapses]
    places, gains = receptors_of([part.kind for part in parts]), {}
    for number, place in enumerate(places):
        gains[place] = (reaching(weight, receptor, number) if len(places) > 1 else weight).double()
    arrivals = trains.unsqueeze(1) if delay is None else trains.unsqueeze(1) + delay.unsqueeze(-1)
    arrivals, order = arrivals.double().flatten(-2).sort(dim=-1)
    spikes = pad(spikes.double(), (0, 1), value=torch.inf).sort(dim=-1).values
    ends = spikes + torch.as_tensor(_by_row(neuron.refractory), dtype=torch.float64)
    ends = pad(ends[..., :most], (0, max(0, spikes.shape[-1] - most)), value=torch.inf)
    given = arrivals, order // trains.shape[-1], spikes, ends, most, parts, gains
    points, after = (at.clamp(min=0.0), -_LITTLE) if neuron.begins else (at, -math.inf)
    state, found = [spikes.new_zeros(*spikes.shape[:-1], 1)] * (len(parts) + 1), []
    blocks = points.split(max(1, _AT_ONCE // state[0].numel())) if at.ndim == 1 else (points,)
    for some in blocks:
        run = _block if len(blocks) == 1 else _again(_block)
        states = run(neuron, given, state, after, some)
        state, after = [x[..., -1:] for x in states], float(some.max())
        found.append(states)
    return [torch.where(at < points, 0.0, torch.cat(x, dim=-1)) for x in zip(*found, strict=True)]


def _again(run: Any) -> Any:
    """The same, computed a second time for gradients, as all parts together would have to be kept."""
    plain = not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
    return run if plain else partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)


def _by_row(value: Any) -> Any:
    return value.double().reshape(-1, 1) if isinstance(value, Tensor) else value


def _block(neuron: Any, given: tuple[Any, ...], state: States, after: float, points: Tensor) -> States:
    """The states at some points, from that just after an earlier time."""
    arrivals, sources, spikes, ends, most, parts, gains = given
    mem, bias, reset = map(_by_row, (neuron.tau_mem, neuron.bias, neuron.reset))
    lead, end = state[0].shape[:-1], float(points.max())
    before, until = (values_of((arrivals <= x).sum(dim=-1)) for x in (after, end))
    arrivals, sources = (x[..., int(before.min()) : int(until.max())] for x in (arrivals, sources))
    kinds = [x.expand(*lead, x.shape[-1]) for x in (arrivals, spikes, ends, points)]
    times = torch.cat(kinds, dim=-1)
    happens = (times > after) & (times <= end)
    times, order = times.clamp(after, end).sort(dim=-1, stable=True)
    gaps = times.diff(dim=-1, prepend=times[..., :1] if after == -math.inf else times.new_full((*lead, 1), after))
    since, drive, found = gaps + _LITTLE, at_rest(gaps, mem, bias), []
    counts = (torch.arange(spikes.shape[-1], device=spikes.device).expand_as(spikes) < most).double()
    rising: float | Tensor = 0.0
    for k, (kind, tau, jump) in enumerate(parts):
        adds = [torch.zeros_like(kinds[0]), counts * jump, *map(torch.zeros_like, kinds[2:])]
        if k in gains:
            adds[0] = gains[k].expand(*lead, -1).take_along_dim(sources.expand_as(kinds[0]), dim=-1)
        added = torch.where(happens, torch.cat(adds, dim=-1), 0.0).gather(-1, order) + rising
        now = _accumulated(torch.exp(-gaps / tau), added, state[k + 1])
        held, rising = torch.cat([state[k + 1], now[..., :-1]], dim=-1), 0.0
        sign, feeds, _ = ROLES[kind]
        if feeds:
            onto = parts[k + 1].tau
            drive = drive + sign * held * response(since, mem, ReceptorTaus(onto, tau))
            rising = held * response(since, onto, ReceptorTaus(tau, None))
        elif sign:
            drive = drive + sign * held * response(since, mem, ReceptorTaus(tau, None))
        found.append(now)
    decay = torch.exp(-gaps / mem)
    if reset is not None:
        last = torch.searchsorted(spikes.detach(), times.detach(), right=True) - 1
        still = (last >= 0) & (times <= ends.gather(-1, last.clamp(min=0)))
        decay, drive = torch.where(still, 0.0, decay), torch.where(still, reset, drive)
    place = order.argsort(dim=-1)[..., -points.shape[-1] :]
    return [x.gather(-1, place) for x in (_accumulated(decay, drive, state[0]), *found)]


def _accumulated(decay: Tensor, gain: Tensor, start: Tensor) -> Float64[Tensor, "samples out events"]:
    """``x[m] = decay[m] x[m - 1] + gain[m]`` along the last dimension, from the ``start`` on."""
    if not gain.shape[-1]:
        return gain
    first, count = gain[..., :1] + decay[..., :1] * start, gain.shape[-1] // 2
    (decays, gains), (others, later) = ((decay[..., k::2], gain[..., k::2]) for k in (0, 1))
    odd = _accumulated(others * decays[..., :count], later + others * gains[..., :count], start)
    even = torch.cat([first, gains[..., 1:] + decays[..., 1:] * odd[..., : gains.shape[-1] - 1]], dim=-1)
    both = torch.stack([even, pad(odd, (0, even.shape[-1] - count))], dim=-1)
    return both.flatten(-2)[..., : gain.shape[-1]]
