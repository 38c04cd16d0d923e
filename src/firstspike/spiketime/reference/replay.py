"""The events at given spikes once more, with the derivatives of the states and of the spikes.

Each event keeps its time, and the state after it says what it would be if the event came later: an input that comes
later by dt leaves ``f(x) - f(x + kick)`` times dt behind, where f are the rates, and a spike or a release likewise. So
each derivative consists of its own terms, and is no difference of others. These dt have the value 0 and carry
derivatives: of an arrival that of the input; of a spike a step of Newton's method, or that of the release or the
arrival at which it comes at once. The rest is autograd's.

Shapes: P (sample, neuron) pairs, N events, D numbers of a state, S spikes.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.reference.neurons import Neurons, Some, State, Values, rounded

_RELEASE, _SPIKE, _ARRIVAL = range(3)


class _Passed(NamedTuple):
    """An event, and derivatives of the state after it with respect to the one before, at fixed times."""

    move: Float64[Tensor, "P D D"]
    """The move to the event, without its effect."""
    arrives: Some
    place: Int64[Tensor, " P"]
    fires: Some
    nth: Int64[Tensor, " P"]
    level: State | None
    """The derivative of g at a spike, where there is one."""
    reset: Float64[Tensor, "P D D"] | None


def replayed(
    neurons: Neurons, given: Arguments, spikes: Float[Tensor, "P S"], overflows: Some, bound: float | None = None
) -> tuple[Float64[Tensor, "P S"], Values, State, Values]:
    """The spikes, and the state at the end (voltages, other states, times that are left), all differentiable.

    With a ``bound``, spikes whose gradient with respect to some weight exceeds it count as fixed in the backward pass.
    """
    times, kinds, source = _events(neurons, given, spikes, overflows)
    arrivals, weight, places, lifts = (
        x.gather(1, source) for x in (neurons.time, neurons.weight, neurons.place, neurons.lifts)
    )
    kicks, dtype = torch.where(kinds == _ARRIVAL, weight, 0.0), spikes.dtype
    out, pairs, steepest = spikes.double(), torch.arange(len(spikes), device=spikes.device), torch.zeros_like(spikes)
    x, held, count = neurons.rest, neurons.left > 0, torch.zeros_like(pairs)
    begin = min(0.0, given.until)
    now = times[:, 0].nan_to_num(posinf=begin) if given.start == -math.inf else torch.full_like(out[:, 0], given.start)
    free = now + neurons.left  # when the latest refractory time ends, as it was noted
    free = free + (rounded(free, dtype) - free).detach()
    lifted, stays = torch.full_like(now, -math.inf), torch.zeros_like(held)
    latest = torch.where(held, free, lifted).detach()  # spike or release
    passed: list[_Passed] = []
    columns = (x.unbind(1) for x in (times, kinds, arrivals, kicks, places, lifts))
    for time, kind, arrival, kick, place, lifting in zip(*columns, strict=True):
        there = time.isfinite()
        if not bool(there.any()):
            break
        # other releases were overtaken by a spike that was observed
        there = there & ((kind != _RELEASE) | (held & (time == free))) & ~stays
        arrives, fires, freed = (there & (kind == k) for k in (_ARRIVAL, _SPIKE, _RELEASE))
        jumps = fires & ~held & (time == lifted)
        again = fires & ~held & ~jumps & (time == free)  # as soon as it is released
        before = x if bound is None or x.requires_grad else x.detach().requires_grad_()
        x = neurons.moved(before, torch.where(there, time - now, 0.0), held)
        move = None if bound is None else _jacobian(x, before)
        now, level, after = torch.where(there, time, now), None, None
        own = torch.where(arrives, arrival, torch.where(jumps, lifted, free))
        later = torch.where(arrives | freed | jumps | again, own - own.detach(), 0.0)
        if bool(fires.any()):
            value, slope = neurons.excess(x), neurons.slope(x.detach())
            forced = (again | jumps) & (value >= 0)
            fixed = (now <= latest) if neurons.fixes_twins else torch.zeros_like(fires)
            crosses = fires & ~held & ~forced & ~fixed & (slope > 0)
            if bound is not None:
                level = _by(value, x)
                value.register_hook(partial(_within, bound, steepest, pairs, count))
            step = (value.detach() - value) / torch.where(crosses, slope, 1.0)  # both are 0
            later = torch.where(crosses, step, torch.where(fires & ~forced, 0.0, later))
            spike, some = now + later, fires.nonzero().squeeze(-1)
            out = out.index_put((some, count[some]), spike[some])
            neurons.waiting = neurons.waiting & ~fires
            release = spike + neurons.refractory
            noted = rounded(now + neurons.refractory, dtype).detach()
            holds = fires & (noted > now)
            free = torch.where(fires, torch.where(holds, release + (noted - release).detach(), -math.inf), free)
            latest = torch.where(fires, torch.maximum(now, noted), latest)
            full = fires & overflows & (count == out.shape[1] - 1)
            held, stays = held & ~fires | holds | full, stays | full & neurons.goes_on
            reset = neurons.reset(x)
            after = None if bound is None else _jacobian(reset, x)
            change = neurons.turned(x.detach(), reset.detach(), held)
            x = torch.where(fires.unsqueeze(1), reset, x) - _times(later, fires, change)
        if bool(freed.any()):
            held = held & ~freed
            x = x - _times(later, freed, neurons.freed(x.detach()))
        if bool(arrives.any()):
            kicks = torch.zeros_like(x).scatter(1, place.unsqueeze(1), torch.where(arrives, kick, 0.0).unsqueeze(1))
            x = x + kicks - _times(later, arrives, neurons.kicked(x.detach(), kicks.detach(), held))
            lifted = torch.where(arrives & lifting, own, lifted)
        if move is not None:
            passed.append(_Passed(move, arrives, place, fires, count, level, after))
        count = count + fires
    if given.until < math.inf:
        x = neurons.moved(x, torch.where(stays, 0.0, given.until - now), held)
    steepest += _largest_kicks(passed, out.shape) / torch.as_tensor(neurons.unit).unsqueeze(-1) if passed else 0.0
    left = torch.where(held & ~overflows, free - given.until, 0.0)
    return out, *neurons.ends(x, left)


def _events(
    neurons: Neurons, given: Arguments, spikes: Float[Tensor, "P S"], overflows: Some
) -> tuple[Float64[Tensor, "P N"], Int64[Tensor, "P N"], Int64[Tensor, "P N"]]:
    """When releases, spikes and arrivals happen, in order, which of the three it is, and which arrival.

    At one time: the release, arrivals that lift g, spikes, other arrivals. Without an end, none after the last spike.
    """
    released = rounded(spikes.double() + neurons.refractory.detach().unsqueeze(-1), spikes.dtype)
    released = released.masked_fill(released <= spikes, math.inf)
    released[:, -1].masked_fill_(overflows, math.inf)
    first = torch.where(neurons.left > 0, rounded(given.start + neurons.left, spikes.dtype), math.inf).unsqueeze(-1)
    lifting, others = (torch.where(neurons.lifts == lifts, neurons.time, math.inf) for lifts in (True, False))
    groups = (
        (_RELEASE, torch.cat([first, released], -1)),
        (_ARRIVAL, lifting),
        (_SPIKE, spikes.double()),
        (_ARRIVAL, others),
    )
    times = torch.cat([x for _, x in groups], -1).detach()
    kinds, source = (
        torch.cat([of(kind, x.shape[1]) for kind, x in groups]).to(times.device).expand(times.shape)
        for of in (lambda kind, number: torch.full((number,), kind), lambda _, number: torch.arange(number))
    )
    last = given.until if given.until < math.inf else spikes.nan_to_num(posinf=-math.inf).amax(-1, keepdim=True)
    late = (times > last) | ((times >= given.until) & (kinds == _ARRIVAL))
    times, order = times.masked_fill(late, math.inf).sort(dim=-1, stable=True)
    return times, kinds.gather(-1, order), source.gather(-1, order).clamp(max=neurons.time.shape[1] - 1)


def _times(later: Values, some: Some, change: State) -> State:
    return later.unsqueeze(1) * torch.where(some.unsqueeze(1), change.detach(), 0.0)


def _by(values: Tensor, x: State) -> State:
    """Derivatives of values with respect to the state of their pair."""
    (found,) = torch.autograd.grad(values.sum(), x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def _jacobian(after: State, before: State) -> Float64[Tensor, "P D D"]:
    return torch.stack([_by(x, before) for x in after.unbind(1)], 1)


def _largest_kicks(passed: list[_Passed], shape: torch.Size) -> Float64[Tensor, "P S"]:
    """The largest derivative of g at each spike with respect to the weight of one input spike, at fixed spike times."""
    rows = passed[0].move.new_zeros(*shape, passed[0].move.shape[-1])
    most = rows[..., 0]
    for event in reversed(passed):
        if event.level is not None and event.reset is not None:
            rows = torch.where(event.fires[:, None, None], rows @ event.reset, rows)
            some = event.fires.nonzero().squeeze(-1)
            rows[some, event.nth[some]] = event.level[some]
        kicks = rows.gather(2, event.place[:, None, None].expand(*shape, 1)).squeeze(2).abs()
        most = torch.maximum(most, torch.where(event.arrives[:, None], kicks, 0.0))
        rows = rows @ event.move
    return most


def _within(bound: float, steepest: State, pairs: Tensor, nth: Tensor, by: Values) -> Values:
    most = steepest[pairs, nth.clamp(max=steepest.shape[1] - 1)]
    return torch.where(by.abs() * most > bound, 0.0, by)
