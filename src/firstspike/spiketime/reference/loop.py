"""Spike trains of any neuron, from event to event, in plain PyTorch and float64, with autograd for gradients.

A kind of neuron is a class that knows how its state moves between events, when its excess g over the threshold first
rises to 0, and the change by a spike: ``linear`` has matrix exponentials for that, ``series`` Taylor series.

Backward, the events are gone through again at the given spikes, with a step of Newton's method at each, whose value is
0: it carries the derivative of the spike time. A spike at a release moves with that instead, and one at an arrival that
lifts g itself with the arrival. The rest is autograd's.

Shapes: P (sample, neuron) pairs of all networks, N events, D numbers of a state, S spikes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.contract import (
    Arguments,
    Gradients,
    Grads,
    Held,
    Needs,
    Result,
    Samples,
    each_tensor,
    zero_gradients,
)
from firstspike.spiketime.reference.adjoint import arrivals
from firstspike.spiketime.statuses import FINE, RESET_ABOVE

_RELEASE, _SPIKE, _ARRIVAL = range(3)

State = Float64[Tensor, "P D"]
Values = Float64[Tensor, " P"]
Some = Bool[Tensor, " P"]


class Neurons(ABC):
    """All pairs with their parameters and inputs, differentiable."""

    rest: State
    """The state at the start."""
    parts: int
    """Number of variables of a state after the membrane that others see."""
    goes_on: ClassVar[bool]
    """Whether the spike that there is no room for changes the state at the end, which then has no gradient."""

    def __init__(
        self, given: Arguments, refractory: Float[Tensor, "E O"], places: Sequence[int], direct: Sequence[bool]
    ) -> None:
        ensemble, batch, _, outputs = given.sizes
        self.shape = ensemble, batch, outputs
        self.refractory = self.of_pairs(refractory)
        left = given.weight.new_zeros(self.shape) if given.state is None else given.state.left
        self.left = self.now = left.flatten()
        """The rest of the refractory time at the start; and where spikes are given, the time of the last event."""
        self.waiting = self.left < 0
        """Pairs that are held until the next of these spikes."""
        self.status = torch.full_like(self.left, FINE, dtype=torch.int64)
        """Their error codes, from ``statuses``."""
        copies = given.times.shape[-1] if given.max_spikes else 1
        time = arrivals(given).expand(*self.shape, -1).flatten(0, 2)
        weight = self.of_pairs(given.weight.repeat_interleave(copies, -1))
        firsts = given.weight.new_tensor(places, dtype=torch.int64)
        if given.receptor is None:
            place = firsts[(weight <= 0).long()]
        else:
            reached = firsts[given.receptor].repeat_interleave(copies, -1).unsqueeze(1)
            place = self.of_pairs(reached.expand(ensemble, outputs, -1))
        self.time: Float64[Tensor, "P N"] = pad(time, (0, 1), value=math.inf)
        """Times of arrivals, ``inf`` for those outside of the window, and for one more."""
        self.weight: Float64[Tensor, "P N"] = pad(weight, (0, 1))
        self.place: Int64[Tensor, "P N"] = pad(place, (0, 1))
        """Index of the variable that each arrival adds to."""
        lifting = torch.tensor(direct, device=place.device)[self.place]
        alone = torch.where(lifting, self.time.detach(), math.inf).sort(-1).values
        nearest = torch.searchsorted(alone, self.time.detach()).clamp(max=alone.shape[-1] - 1)
        self.lifts: Bool[Tensor, "P N"] = (alone.gather(-1, nearest) == self.time) & self.time.isfinite()
        """Arrivals at times at which some lift g itself."""

    def of_pairs(self, x: Tensor) -> Tensor:
        """Values of neurons, repeated for all pairs."""
        return x.unsqueeze(1).expand(*self.shape, *x.shape[2:]).flatten(0, 2)

    @abstractmethod
    def moved(self, x: State, time: Values, held: Some) -> State:
        """States after a time without events, differentiable. ``held`` are within a refractory time."""

    @abstractmethod
    def first_crossing(self, x: State, length: Values, looks: Int64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        """Time until g of these pairs first is >= 0, ``inf`` if it is not within the length."""

    @abstractmethod
    def excess(self, x: State) -> Values:
        """g, differentiable."""

    @abstractmethod
    def rates(self, x: State) -> tuple[State, Values]:
        """Derivatives of the states and of g with respect to time, as if g were 0 also at observed spikes."""

    @abstractmethod
    def reset(self, x: State) -> State:
        """States after a spike, differentiable."""


Make = Callable[[Arguments], Neurons]
Kind = tuple[Make, Samples]
"""A kind of neurons, and how many samples of them to work on at once."""


def wide(given: Arguments) -> Arguments:
    """The arguments in float64."""
    found: Arguments = each_tensor(lambda x: x.double() if x.is_floating_point() else x, given)
    return found


@torch.no_grad()
def forward(make: Make, given: Arguments) -> Result:
    """Spike times, and, as what is saved, the neurons' ``statuses``."""
    most, neurons = max(1, given.max_spikes), make(wide(given))
    shape, ends = neurons.shape, None
    if given.observed is None:
        spikes, overflows, *ends = _trains(neurons, given, most)
    else:
        spikes, overflows = given.observed.flatten(0, 2), torch.zeros_like(neurons.left, dtype=torch.bool)
    if not given.max_spikes:
        return Result(spikes.view(shape), (neurons.status.view(shape),))
    state = None
    if given.until < math.inf:
        if ends is None or not neurons.goes_on:
            ends = list(_replayed(neurons, given, spikes.double(), overflows)[1:])
        state = Held(*(x.to(given.times.dtype).view(*shape, *x.shape[1:]) for x in ends))
    return Result(spikes.view(*shape, most), (neurons.status.view(shape),), overflows.view(shape), state)


def _trains(neurons: Neurons, given: Arguments, most: int) -> tuple[Float[Tensor, "P S"], Some, Values, State, Values]:
    """Spike trains, which neurons would spike more often than ``most`` times, and the state at the end."""
    dtype = given.times.dtype
    time, order = neurons.time.sort(dim=-1, stable=True)
    lifts = neurons.lifts.gather(-1, order)
    x, pairs = neurons.rest.clone(), torch.arange(len(time), device=time.device)
    now = torch.where(time[:, 0].isinf(), 0.0, time[:, 0])
    free, place, count = torch.full_like(now, -math.inf), torch.zeros_like(pairs), torch.zeros_like(pairs)
    spiked = lifted = free
    if given.start > -math.inf:
        now = torch.full_like(now, given.start)
        free = torch.where(neurons.left > 0, now + neurons.left, free)
    spikes = given.times.new_full((len(time), most), math.inf)
    overflows = torch.zeros_like(place, dtype=torch.bool)
    alive = torch.ones_like(overflows)
    while bool(alive.any()):
        arrival, lifting = time[pairs, place], lifts[pairs, place]
        end = arrival.clamp(max=given.until)
        held = now < free
        stop = torch.where(held, torch.minimum(free, end), end)
        wait = torch.full_like(now, math.inf)
        looks = (alive & ~held & ~(lifting & (arrival == now))).nonzero().squeeze(-1)
        wait[looks] = neurons.first_crossing(x[looks], (stop - now)[looks], looks)
        fires = wait.isfinite()
        spike = (now + wait).to(dtype).double()
        later = torch.nextafter(now.to(dtype), stop.to(dtype)).double()
        at_once = (wait == 0) & ((now == free) | (now == lifted))
        spike = torch.where(at_once, now, torch.maximum(spike, later).minimum(stop))
        neurons.status[fires & (spike == spiked)] = RESET_ABOVE
        full = fires & (count == most)
        noted = fires & ~full
        spikes[pairs[noted], count[noted]] = spike[noted].to(dtype)
        overflows |= full
        count = count + noted
        until = torch.where(fires, spike, stop)
        alive &= until.isfinite()
        length = torch.where(alive, until - now, 0.0)
        x = torch.where(alive[:, None], neurons.moved(x, length, held), x)
        now = torch.where(alive, until, now)
        x = torch.where(fires[:, None], neurons.reset(x), x)
        released = (spike.to(dtype) + neurons.refractory.to(dtype)).double()
        free = torch.where(fires, torch.where(full, math.inf, released), free)
        arrives = alive & ~fires & (stop == arrival) & (lifting | ~(held & (stop == free)))
        some, which = pairs[arrives], order[pairs[arrives], place[arrives]]
        x[some, neurons.place[some, which]] += neurons.weight[some, which]
        place = place + arrives
        lifted = torch.where(arrives & lifting, now, lifted)
        spiked = torch.where(fires, spike, torch.where(arrives & lifting, -math.inf, spiked))
        alive &= fires | arrives | (stop < end) | (held & (stop == free))
        alive &= neurons.status == FINE
        if not given.max_spikes:
            alive &= count < most
    left = torch.where(overflows, 0.0, (free - given.until).clamp(min=0))
    return spikes, overflows, x[:, 0], x[:, 1 : 1 + neurons.parts], left


class _Passed(NamedTuple):
    """An event, and derivatives of the state after it with respect to the one before, at fixed times."""

    move: Float64[Tensor, "P D D"]
    """The move to the event, without its effect."""
    reset: Float64[Tensor, "P D D"] | None
    fires: Some
    arrives: Some
    place: Int64[Tensor, " P"]


def _replayed(
    neurons: Neurons, given: Arguments, spikes: Float[Tensor, "P S"], overflows: Some, bound: float | None = None
) -> tuple[Float64[Tensor, "P S"], Values, State, Values]:
    """The spikes, and the state at the end (voltages, other states, times that are left), all differentiable.

    With a ``bound``, spikes whose gradient with respect to some weight exceeds it count as fixed in the backward pass.
    """
    times, kinds, source = _events(neurons, given, spikes, overflows)
    out, pairs = spikes.double(), torch.arange(len(spikes), device=spikes.device)
    x, held, count = neurons.rest, neurons.left > 0, torch.zeros_like(pairs)
    now = times[:, 0].nan_to_num(posinf=0.0) if given.start == -math.inf else torch.full_like(neurons.left, given.start)
    free = now + neurons.left  # when the latest refractory time ends
    lifted, stays = torch.full_like(now, -math.inf), torch.zeros_like(held)
    passed: list[_Passed] = []
    for time, kind, which in zip(times.unbind(1), kinds.unbind(1), source.unbind(1), strict=True):
        there = time.isfinite()
        if not bool(there.any()):
            break
        # other releases were overtaken by a spike that was observed
        there = there & ((kind != _RELEASE) | (held & (time == free))) & ~stays
        arrives, fires, freed = (there & (kind == k) for k in (_ARRIVAL, _SPIKE, _RELEASE))
        jumps = fires & ~held & (time == lifted)
        again = fires & ~held & ~jumps & (time == free)  # as soon as it is released
        time = torch.where(arrives, neurons.time[pairs, which], time)
        time = torch.where(jumps, lifted, torch.where(freed | again, free, time))
        before, neurons.now = x if bound is None or x.requires_grad else x.detach().requires_grad_(), now
        x = neurons.moved(before, torch.where(there, time - now, 0.0), held)
        move = None if bound is None else _jacobian(x, before)
        now, after = torch.where(there, time, now), None
        if bool(fires.any()):
            value, (change, slope) = neurons.excess(x), neurons.rates(x.detach())
            forced = (again | jumps) & (value >= 0)
            crosses = fires & ~held & ~forced & (slope > 0)
            if bound is not None and move is not None:
                value.register_hook(partial(_within, bound, _largest_kick(_by(value, x), passed, move)))
            stop = (value.detach() - value) / torch.where(crosses, slope, 1.0)  # both are 0
            moves = torch.where(crosses, stop, torch.where(fires & ~forced, time.detach() - time, 0.0))
            now = now + moves
            x = at = x + change * moves[:, None]
            some = fires.nonzero().squeeze(-1)
            out = out.index_put((some, count[some]), now[some])
            neurons.waiting = neurons.waiting & ~fires
            count = count + fires
            after = neurons.reset(at)
            x = torch.where(fires[:, None], after, at)
            # as it was noted
            released = (now.to(spikes.dtype) + neurons.refractory.to(spikes.dtype)).double().detach()
            holds, later = fires & (released > now), now + neurons.refractory
            free = torch.where(fires, torch.where(holds, later + (released - later).detach(), -math.inf), free)
            full = fires & overflows & (count == out.shape[1])
            held, stays = held & ~fires | holds | full, stays | full & neurons.goes_on
            after = None if bound is None else _jacobian(after, at)
        held = held & ~freed
        kick = torch.where(arrives, neurons.weight[pairs, which], 0.0)
        x = x.scatter_add(1, neurons.place[pairs, which].unsqueeze(1), kick.unsqueeze(1))
        lifted = torch.where(arrives & neurons.lifts[pairs, which], now, lifted)
        if move is not None:
            passed.append(_Passed(move, after, fires, arrives, neurons.place[pairs, which]))
    if given.until < math.inf:
        neurons.now = now
        x = neurons.moved(x, torch.where(stays, 0.0, given.until - now), held)
    left = torch.where(held & ~overflows, free - given.until, 0.0)
    return out, x[:, 0], x[:, 1 : 1 + neurons.parts], left


def _events(
    neurons: Neurons, given: Arguments, spikes: Float[Tensor, "P S"], overflows: Some
) -> tuple[Float64[Tensor, "P N"], Int64[Tensor, "P N"], Int64[Tensor, "P N"]]:
    """When releases, spikes and arrivals happen, in order, which of the three it is, and which arrival.

    At one time the release comes first, then arrivals that lift g, spikes, and other arrivals.
    """
    released = spikes + neurons.refractory.to(spikes).unsqueeze(-1)
    released = released.masked_fill(released <= spikes, math.inf)
    released[:, -1].masked_fill_(overflows, math.inf)
    first = torch.where(neurons.left > 0, given.start + neurons.left, math.inf).unsqueeze(-1)
    lifting, others = (torch.where(neurons.lifts == lifts, neurons.time, math.inf) for lifts in (True, False))
    groups = (
        (_RELEASE, torch.cat([first, released.double()], -1)),
        (_ARRIVAL, lifting),
        (_SPIKE, spikes.double()),
        (_ARRIVAL, others),
    )
    times = torch.cat([x for _, x in groups], -1).detach()
    kinds, source = (
        torch.cat([of(kind, x.shape[1]) for kind, x in groups]).to(times.device).expand(times.shape)
        for of in (lambda kind, number: torch.full((number,), kind), lambda _, number: torch.arange(number))
    )
    late = (times >= given.until) & ((kinds == _ARRIVAL) | (times > given.until))
    times, order = times.masked_fill(late, math.inf).sort(dim=-1, stable=True)
    return times, kinds.gather(-1, order), source.gather(-1, order).clamp(max=neurons.time.shape[1] - 1)


def _by(values: Tensor, x: State) -> State:
    """Derivatives of values with respect to the state of their pair."""
    (found,) = torch.autograd.grad(values.sum(), x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def _jacobian(after: State, before: State) -> Float64[Tensor, "P D D"]:
    return torch.stack([_by(x, before) for x in after.unbind(1)], 1)


def _largest_kick(by: State, passed: list[_Passed], move: Float64[Tensor, "P D D"]) -> Values:
    """The largest derivative of g at a spike with respect to the weight of one input spike, at fixed spike times.

    ``by`` are its derivatives with respect to the state then, ``move`` leads there from the event before.
    """
    most, row = torch.zeros_like(by[:, 0]), by.unsqueeze(1) @ move
    for event in reversed(passed):
        kick = row.squeeze(1).gather(1, event.place.unsqueeze(1)).squeeze(1).abs()
        most = torch.maximum(most, torch.where(event.arrives, kick, 0.0))
        if event.reset is not None:
            row = torch.where(event.fires[:, None, None], row @ event.reset, row)
        row = row @ event.move
    return most


def _within(bound: float, most: Values, by: Values) -> Values:
    return torch.where(by.abs() * most > bound, 0.0, by)


def backward(
    make: Make, grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    found = zero_gradients(given, needs)
    if 0 in given.sizes[:2] or not given.sizes[3]:
        return found
    first, rest = (needs, Needs()) if max_weight_grad is None else (needs - {"weight"}, needs & {"weight"})
    for names, bound in ((first, None), (rest, max_weight_grad)):
        if names & found.keys():
            found |= _pulled_back(make, grads, result, given, bound, [name for name in found if name in names])
    return found


@torch.enable_grad()
def _pulled_back(
    make: Make, grads: Grads, result: Result, given: Arguments, bound: float | None, names: list[str]
) -> Gradients:
    leaves = {name: getattr(given, name) for name in names}
    likes = {name: x if isinstance(x, Tensor) else torch.full_like(given.threshold, x) for name, x in leaves.items()}
    leaves = {name: x.detach().double().requires_grad_() for name, x in likes.items()}
    neurons = make(wide(given._replace(**leaves)))
    spikes = result.spikes if given.max_spikes else result.spikes.unsqueeze(-1)
    over = torch.zeros_like(spikes[..., 0], dtype=torch.bool) if result.overflows is None else result.overflows
    out = _replayed(neurons, given, spikes.flatten(0, 2), over.flatten(), bound)
    asked = [grads.spikes if given.max_spikes else grads.spikes.unsqueeze(-1), *(grads.state or ())]
    pairs = [(x, by.flatten(0, 2).double()) for x, by in zip(out, asked, strict=False) if x.requires_grad]
    if neurons.goes_on:
        over = over.flatten()
        pairs[1:] = [(x, torch.where(over.view(-1, *(1,) * (by.ndim - 1)), 0.0, by)) for x, by in pairs[1:]]
    if not pairs:
        return {}
    by = torch.autograd.grad([x for x, _ in pairs], list(leaves.values()), [y for _, y in pairs], allow_unused=True)
    return {name: x.to(given.times.dtype) for name, x in zip(leaves, by, strict=True) if x is not None}
