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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, each_tensor, zero_gradients
from firstspike.spiketime.statuses import FINE, RESET_ABOVE

_RELEASE, _SPIKE, _ARRIVAL = range(3)
_MEMORY = 1 << 28  # bytes
_FORWARD, _BACKWARD = 18, 60  # tensors of the size of a part's events that are alive at the same time, at most

State = Float64[Tensor, "P D"]
Values = Float64[Tensor, " P"]
Some = Bool[Tensor, " P"]


class Neurons(ABC):
    """Some pairs with their parameters and inputs, differentiable."""

    rest: State
    """The state at the start."""
    parts: int
    """Number of variables of a state after the membrane that others see."""
    unit: Values | float = 1.0
    """Unit of the voltages and variables of a state."""
    fixes_twins: bool = False
    """Whether a spike observed no later than a spike or release before it is fixed, as of LIF neurons."""
    goes_on: ClassVar[bool]
    """Whether the spike that there is no room for changes the state at the end, which then has no gradient."""

    def __init__(
        self,
        given: Arguments,
        pairs: Int64[Tensor, " P"],
        dtype: torch.dtype,
        places: Sequence[int],
        direct: Sequence[bool],
    ) -> None:
        _, batch, inputs, outputs = given.sizes
        rest, self.neuron = pairs // max(1, outputs), pairs % max(1, outputs)
        self.network, self.sample = rest // max(1, batch), rest % max(1, batch)
        parameters, refractory = given.parameters, given.refractory if given.max_spikes else None
        refractory = refractory if parameters is None else parameters[..., -1]
        none = torch.zeros(len(pairs), dtype=given.weight.dtype, device=given.weight.device)
        self.refractory = none if refractory is None else self.of_neurons(refractory)
        self.left = self.now = none if given.left is None else self.of_pairs(given.left)
        """The rest of the refractory time at the start; and where spikes are given, the time of the last event."""
        self.waiting = self.left < 0
        """Pairs that are held until the next of these spikes."""
        self.status = torch.full_like(self.left, FINE, dtype=torch.int64)
        """Their error codes, from ``statuses``."""
        copies = given.times.shape[-1] if given.max_spikes else 1
        time = given.times[self.network, self.sample].view(len(pairs), inputs, copies)
        if given.delay is not None:
            time = time + self.of_neurons(given.delay).unsqueeze(-1)
            time = time + (_rounded(time, dtype) - time).detach().nan_to_num(nan=0.0)  # as all times are
        time = torch.where((time >= given.start) & (time < given.until), time, math.inf).flatten(1)
        weight = self.of_neurons(given.weight)
        firsts = given.weight.new_tensor(places, dtype=torch.int64)
        place = firsts[(weight <= 0).long() if given.receptor is None else given.receptor[self.network]]
        weight, place = (x.repeat_interleave(copies, -1) for x in (weight, place))
        self.time: Float64[Tensor, "P N"] = pad(time, (0, 1), value=math.inf)
        """Times of arrivals, ``inf`` for those outside of the window, and for one more."""
        self.weight: Float64[Tensor, "P N"] = pad(weight, (0, 1))
        self.place: Int64[Tensor, "P N"] = pad(place, (0, 1))
        """Index of the variable that each arrival adds to."""
        self.lifts: Bool[Tensor, "P N"] = torch.zeros_like(self.place, dtype=torch.bool)
        """Arrivals at times at which some lift g itself."""
        if any(direct):
            lifting = torch.tensor(direct, device=place.device)[self.place]
            alone = torch.where(lifting, self.time.detach(), math.inf).sort(-1).values
            nearest = torch.searchsorted(alone, self.time.detach()).clamp(max=alone.shape[-1] - 1)
            self.lifts = (alone.gather(-1, nearest) == self.time) & self.time.isfinite()

    def of_neurons(self, x: Float64[Tensor, "E O ..."]) -> Float64[Tensor, "P ..."]:
        """Numbers of neurons, for each pair."""
        return x[self.network, self.neuron]

    def of_pairs(self, x: Float64[Tensor, "E B O ..."]) -> Float64[Tensor, "P ..."]:
        """Numbers of neurons in each sample, for each pair."""
        return x[self.network, self.sample, self.neuron]

    def ends(self, x: State, left: Values) -> tuple[Values, State, Values]:
        """The state at the end, as others see it."""
        return x[:, 0] * self.unit, (x[:, 1 : 1 + self.parts].T * self.unit).T, left

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


Make = Callable[[Arguments, Int64[Tensor, " P"], torch.dtype], Neurons]
"""Some pairs of the ``prepared`` arguments, whose times are numbers of the dtype."""


def prepared(given: Arguments) -> Arguments:
    """The arguments in float64, those of a LIF neuron as of a linear one that has one synapse."""
    found: Arguments = each_tensor(lambda x: x.double() if x.is_floating_point() else x, given)
    if not given.closed:
        return found
    syn, (ensemble, _, inputs, _) = found.tau_syn, given.sizes
    syn = syn if isinstance(syn, Tensor) else torch.full_like(found.threshold, syn)
    return found._replace(
        components=("synapse",),
        tau_syn=syn.unsqueeze(-1),
        jumps=torch.zeros_like(syn).unsqueeze(-1),
        receptor=torch.zeros(ensemble, inputs, dtype=torch.int64, device=syn.device),
        current=None if found.current is None else found.current.unsqueeze(-1),
    )


def _in_parts(given: Arguments, make: Make, numbers: int) -> Iterator[Int64[Tensor, " P"]]:
    """Indices of all pairs, in parts, for each of which there is memory for so many tensors of each event."""
    ensemble, batch, inputs, outputs = given.sizes
    events = inputs * (given.times.shape[-1] if given.max_spikes else 1) + 2 * max(1, given.max_spikes) + 2
    number = torch.arange(ensemble * batch * outputs, device=given.times.device)
    yield from number.split(max(1, _MEMORY // (8 * numbers * events)))


@torch.no_grad()
def forward(make: Make, given: Arguments) -> Result:
    """Spike times, and, as what is saved, the neurons' ``statuses``."""
    most, wide, dtype = max(1, given.max_spikes), prepared(given), given.times.dtype
    ensemble, batch, _, outputs = given.sizes
    found: list[Sequence[Tensor]] = []
    for pairs in _in_parts(given, make, _FORWARD):
        neurons, ends = make(wide, pairs, dtype), None
        if given.observed is None:
            spikes, overflows, *ends = _trains(neurons, wide, dtype, most)
        else:
            spikes = neurons.of_pairs(given.observed)
            overflows = torch.zeros_like(spikes[:, 0], dtype=torch.bool)
        if given.until < math.inf and given.max_spikes and (ends is None or (overflows.any() and not neurons.goes_on)):
            ends = list(_replayed(neurons, wide, spikes, overflows)[1:])
        found.append([spikes, neurons.status, overflows, *(x.to(dtype) for x in ends or ())])
    whole = (torch.cat(x).unflatten(0, (ensemble, batch, outputs)) for x in zip(*found, strict=True))
    spikes, status, overflows, *ends = whole
    if not given.max_spikes:
        return Result(spikes.squeeze(-1), (status,))
    if given.until == math.inf:
        return Result(spikes, (status,), overflows)
    voltage, others, left = ends
    return Result(spikes, (status,), overflows, Held(voltage, others.squeeze(-1) if given.closed else others, left))


def _trains(
    neurons: Neurons, given: Arguments, dtype: torch.dtype, most: int
) -> tuple[Float[Tensor, "P S"], Some, Values, State, Values]:
    """Spike trains, which neurons would spike more often than ``most`` times, and the state at the end.

    A spike is a number of the dtype, and all that comes later follows from that number.
    """
    time, order = neurons.time.sort(dim=-1, stable=True)
    lifts, weight, places = (x.gather(-1, order) for x in (neurons.lifts, neurons.weight, neurons.place))
    x, pairs = neurons.rest.clone(), torch.arange(len(time), device=time.device)
    free, place, count = torch.full_like(time[:, 0], -math.inf), torch.zeros_like(pairs), torch.zeros_like(pairs)
    now = spiked = lifted = free
    never = -free.to(dtype)
    if given.start > -math.inf:
        now = torch.full_like(now, given.start)
        free = torch.where(neurons.left > 0, _rounded(now + neurons.left, dtype), free)
    else:
        now = torch.where(time[:, 0].isinf(), min(0.0, given.until), time[:, 0])
    spikes = time.new_full((len(time), most), math.inf, dtype=dtype)
    overflows = torch.zeros_like(place, dtype=torch.bool)
    alive = torch.ones_like(overflows)
    while bool(alive.any()):
        arrival, lifting = time[pairs, place], lifts[pairs, place]
        end = arrival.clamp(max=given.until)
        held = now < free
        stop = torch.where(held, torch.minimum(free, end), end)
        wait = torch.full_like(now, math.inf)
        looks = (alive & ~held & ~(lifting & (arrival == now))).nonzero().squeeze(-1)
        # a spike that rounds to the end counts
        ahead = torch.where(stop == given.until, torch.nextafter(stop.to(dtype), never).double(), stop)
        wait[looks] = neurons.first_crossing(x[looks], (ahead - now)[looks], looks)
        wait = torch.where(_rounded(now + wait, dtype) > given.until, math.inf, wait)
        fires = wait.isfinite()
        later = torch.nextafter(now.to(dtype), stop.to(dtype)).double()
        at_once = (wait == 0) & ((now == free) | (now == lifted))
        spike = torch.where(at_once, now, torch.maximum(_rounded(now + wait, dtype), later).minimum(stop))
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
        released = _rounded(spike + neurons.refractory, dtype)
        free = torch.where(fires, torch.where(full, math.inf, released), free)
        arrives = alive & ~fires & (stop == arrival) & (lifting | ~(held & (stop == free)))
        some, which = pairs[arrives], place[arrives]
        x[some, places[some, which]] += weight[some, which]
        place = place + arrives
        lifted = torch.where(arrives & lifting, now, lifted)
        spiked = torch.where(fires, spike, torch.where(arrives & lifting, -math.inf, spiked))
        alive &= fires | arrives | (stop < end) | (held & (stop == free))
        alive &= (neurons.status == FINE) & ((count < most) | (given.max_spikes > 0))
    left = torch.where(overflows, 0.0, (free - given.until).clamp(min=0))
    return spikes, overflows, *neurons.ends(x, left)


def _rounded(time: Values, dtype: torch.dtype) -> Values:
    return time.to(dtype).double()


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


def _replayed(
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
    free = free + (_rounded(free, dtype) - free).detach()
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
        time = torch.where(arrives, arrival, time)
        time = torch.where(jumps, lifted, torch.where(freed | again, free, time))
        before, neurons.now = x if bound is None or x.requires_grad else x.detach().requires_grad_(), now
        x = neurons.moved(before, torch.where(there, time - now, 0.0), held)
        move = None if bound is None else _jacobian(x, before)
        now, level, after = torch.where(there, time, now), None, None
        if bool(fires.any()):
            value, (change, slope) = neurons.excess(x), neurons.rates(x.detach())
            forced = (again | jumps) & (value >= 0)
            fixed = (now <= latest) if neurons.fixes_twins else torch.zeros_like(fires)
            crosses = fires & ~held & ~forced & ~fixed & (slope > 0)
            if bound is not None:
                level = _by(value, x)
                value.register_hook(partial(_within, bound, steepest, pairs, count))
            stop = (value.detach() - value) / torch.where(crosses, slope, 1.0)  # both are 0
            moves = torch.where(crosses, stop, torch.where(fires & ~forced, time.detach() - time, 0.0))
            now = now + moves
            at = x + change * moves[:, None]
            some = fires.nonzero().squeeze(-1)
            out = out.index_put((some, count[some]), now[some])
            neurons.waiting = neurons.waiting & ~fires
            after = neurons.reset(at)
            x = torch.where(fires[:, None], after, at)
            later = now + neurons.refractory
            released = _rounded(_rounded(now, dtype) + neurons.refractory, dtype).detach()
            holds = fires & (released > now)
            free = torch.where(fires, torch.where(holds, later + (released - later).detach(), -math.inf), free)
            latest = torch.where(fires, torch.maximum(now.detach(), released), latest)
            full = fires & overflows & (count == out.shape[1] - 1)
            held, stays = held & ~fires | holds | full, stays | full & neurons.goes_on
            after = None if bound is None else _jacobian(after, at)
        held = held & ~freed
        kick = torch.where(arrives, kick, 0.0)
        x = x.scatter_add(1, place.unsqueeze(1), kick.unsqueeze(1))
        lifted = torch.where(arrives & lifting, now, lifted)
        if move is not None:
            passed.append(_Passed(move, arrives, place, fires, count, level, after))
        count = count + fires
    if given.until < math.inf:
        neurons.now = now
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
    released = _rounded(spikes.double() + neurons.refractory.detach().unsqueeze(-1), spikes.dtype)
    released = released.masked_fill(released <= spikes, math.inf)
    released[:, -1].masked_fill_(overflows, math.inf)
    first = torch.where(neurons.left > 0, _rounded(given.start + neurons.left, spikes.dtype), math.inf).unsqueeze(-1)
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


def backward(
    make: Make, grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    found = {name: x.double() for name, x in zero_gradients(given, needs).items()}
    weights = Needs() if max_weight_grad is None else needs & {"weight"}
    for pairs in _in_parts(given, make, _BACKWARD):
        for names, bound in ((needs - weights, None), (weights, max_weight_grad)):
            asked = [name for name in found if name in names]
            for name, x in _pulled_back(make, grads, result, given, pairs, bound, asked).items() if asked else ():
                found[name] += x
    return {name: x.to(given.times.dtype) for name, x in found.items()}


@contextmanager
def _recording() -> Iterator[None]:
    """Autograd, also in an operator that a compiled program calls: PyTorch switches it off there."""
    autograd = torch._C.DispatchKey.AutogradFunctionality
    with torch.enable_grad(), torch._C._SetExcludeDispatchKeyGuard(autograd, False):
        yield


@_recording()
def _pulled_back(
    make: Make,
    grads: Grads,
    result: Result,
    given: Arguments,
    pairs: Int64[Tensor, " P"],
    bound: float | None,
    names: list[str],
) -> Gradients:
    leaves = {name: getattr(given, name) for name in names}
    likes = {name: x if isinstance(x, Tensor) else torch.full_like(given.threshold, x) for name, x in leaves.items()}
    leaves = {name: x.detach().double().requires_grad_() for name, x in likes.items()}
    wide = prepared(given._replace(**leaves))
    neurons = make(wide, pairs, given.times.dtype)
    neurons.fixes_twins, wide = given.closed, wide if grads.state else wide._replace(until=math.inf)
    spikes, asked = (neurons.of_pairs(x) for x in (result.spikes, grads.spikes.double()))
    over = torch.zeros_like(pairs, dtype=torch.bool) if result.overflows is None else neurons.of_pairs(result.overflows)
    several = spikes.ndim > 1
    out = _replayed(neurons, wide, spikes if several else spikes.unsqueeze(-1), over, bound)
    by: list[Tensor] = [asked if several else asked.unsqueeze(-1)]
    for x, whole in zip(out[1:], grads.state or (), strict=False):
        part = neurons.of_pairs(whole.double()).view_as(x)
        by.append(torch.where(over.view(-1, *(1,) * (x.ndim - 1)), 0.0, part) if neurons.goes_on else part)
    through = [(x, y) for x, y in zip(out, by, strict=False) if x.requires_grad]
    if not through:
        return {}
    found = torch.autograd.grad(
        [x for x, _ in through], list(leaves.values()), [y for _, y in through], allow_unused=True
    )
    return {name: x for name, x in zip(leaves, found, strict=True) if x is not None}
