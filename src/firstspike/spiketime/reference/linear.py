"""Linear neurons in plain PyTorch, in float64: one matrix for what happens between events, and autograd for gradients.

The state x of a neuron is its membrane, its ``components`` and the number 1. Between events ``dx/dt = A x``, so that
``x(t + s) = exp(A s) x(t)``; a spike is where ``g = G x`` rises to 0. Nothing else is known of the neuron here, while
kernels solve the same equations term by term.

Forward, neurons go from event to event. The first crossing in a piece of time follows from g and its derivatives at the
start and a bound of the third: they tell whether g stays below 0, rises or falls throughout, or is concave there, with
one maximum. Otherwise the piece is halved.

Backward, the events are gone through again at the given spikes, with a step of Newton's method at each, whose value is
0: it carries the derivative of the spike time. The rest is autograd's, and so the derivatives of exponentials.

Shapes: P (sample, neuron) pairs of all networks, N events, D numbers of a state, M components, S spikes.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.neurons.base import receptors_of
from firstspike.spiketime.contract import (
    Arguments,
    Gradients,
    Grads,
    Held,
    Needs,
    Result,
    backward_in_parts,
    forward_in_parts,
    of_several,
    zero_gradients,
)
from firstspike.spiketime.reference.adjoint import arrivals, samples_at_once

_STEPS = 200  # of a search in an interval, whose length at least halves in two
_SMALL, _TERMS = 0.3, 14  # norms of a matrix whose series has no more terms in double precision
_RELEASE, _SPIKE, _ARRIVAL = range(3)  # in the order in which they come if they are at the same time

State = Float64[Tensor, "P D"]
Matrix = Float64[Tensor, "P D D"]


class _Neurons(NamedTuple):
    """All pairs: what they are, and what arrives at them."""

    flow: Matrix
    """A."""
    held: Matrix
    """Likewise while they are refractory."""
    reads: State
    """G."""
    rest: State
    """At the start."""
    reset: Float64[Tensor, " P"]
    jumps: Float64[Tensor, "P M"]
    refractory: Float64[Tensor, " P"]
    left: Float64[Tensor, " P"]
    """Of the refractory time at the start."""
    time: Float64[Tensor, "P N"]
    """Of arrivals, ``inf`` for those outside of the window, and for one more."""
    weight: Float64[Tensor, "P N"]
    place: Int64[Tensor, "P N"]
    """Of what the arrivals add to."""


def _neurons(given: Arguments) -> _Neurons:
    """In float64, and differentiable."""
    given = _wide(given)
    assert isinstance(given.tau_syn, Tensor)
    assert given.jumps is not None
    ensemble, batch, _, outputs = given.sizes
    shape, size = (ensemble, batch, outputs), len(given.components) + 2

    def of_pairs(x: Tensor) -> Tensor:
        return x.unsqueeze(1).expand(*shape, *x.shape[2:]).flatten(0, 2)

    flow, none = flow_of(given), torch.zeros_like(given.threshold)
    reads = [none + 1, *(none - float(kind == "threshold") for kind in given.components), -given.threshold]
    held = torch.cat([torch.zeros_like(flow[..., :1, :]), flow[..., 1:, :]], -2) if given.resets else flow

    one = flow.new_ones(*shape, 1)
    left = flow.new_zeros(shape)
    rest = torch.cat([torch.zeros_like(one), one.new_zeros(*shape, size - 2), one], -1)
    reset = given.reset if given.max_spikes else none
    if given.state is not None:
        left, begins = given.state.left, (given.state.left > 0) & given.resets
        voltage = torch.where(begins, reset.unsqueeze(1), given.state.voltage)
        rest = torch.cat([voltage.unsqueeze(-1), given.state.current, one], -1)
    copies = given.times.shape[-1] if given.max_spikes else 1
    time = arrivals(given).expand(*shape, -1).flatten(0, 2)
    weight = of_pairs(given.weight.repeat_interleave(copies, -1))
    firsts = given.weight.new_tensor(receptors_of(given.components), dtype=torch.int64) + 1
    if given.receptor is None:
        place = firsts[(weight <= 0).long()]
    else:
        place = of_pairs(firsts[given.receptor].repeat_interleave(copies, -1).unsqueeze(1).expand(-1, outputs, -1))
    time, weight, place = (pad(x, (0, 1), value=y) for x, y in ((time, math.inf), (weight, 0.0), (place, 1)))
    refractory = of_pairs(given.refractory) if given.max_spikes else torch.zeros_like(left.flatten())
    return _Neurons(
        of_pairs(flow), of_pairs(held), of_pairs(torch.stack(reads, -1)), rest.flatten(0, 2), of_pairs(reset),
        of_pairs(given.jumps), refractory, left.flatten(), time, weight, place,
    )  # fmt: skip


def flow_of(given: Arguments) -> Float64[Tensor, "E O D D"]:
    """A, of neurons without spikes."""
    mem = given.tau_mem if isinstance(given.tau_mem, Tensor) else torch.full_like(given.threshold, given.tau_mem)
    assert isinstance(given.tau_syn, Tensor)
    leak, rates = 1 / mem, 1 / given.tau_syn
    none, size = torch.zeros_like(leak), len(given.components) + 2
    rows = [[none] * size for _ in range(size)]
    rows[0][0] = -leak
    rows[0][-1] = none if given.bias is None else given.bias * leak
    for k, kind in enumerate(given.components, 1):
        rate = rates[..., k - 1]
        rows[k][k] = -rate
        if kind == "rise":
            rows[k + 1][k] = rate
        elif kind != "threshold":
            rows[0][k] = rate if kind == "synapse" else -rate
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _wide(given: Arguments) -> Arguments:
    found = {name: x for name, x in given._asdict().items() if isinstance(x, Tensor) and x.is_floating_point()}
    wide: dict[str, Any] = {name: x.double() for name, x in found.items()}
    return given._replace(**wide)


def exponential(matrix: Matrix, time: Float64[Tensor, " P"]) -> Matrix:
    """exp(A s), by its series of a part of the time, and squares. That of torch has errors of 1e-11."""
    whole = matrix * time[:, None, None]
    norm = whole.detach().abs().sum(-1).amax(-1)
    squares = torch.frexp(norm / _SMALL).exponent.clamp(min=0)
    part = whole * torch.ldexp(torch.ones_like(norm), -squares)[:, None, None]
    found = one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for n in range(_TERMS, 0, -1):
        found = one + part @ found / n
    for step in range(int(squares.max()) if len(squares) else 0):
        found = torch.where((step < squares)[:, None, None], found @ found, found)
    return found


def moved(matrix: Matrix, x: State, time: Float64[Tensor, " P"]) -> State:
    """States after a time without events."""
    return (exponential(matrix, time) @ x.unsqueeze(-1)).squeeze(-1)


def _value(reads: State, x: State) -> Float64[Tensor, " P"]:
    return (reads * x).sum(-1)


def _samples(given: Arguments) -> int:
    _, _, inputs, _ = given.sizes
    events = inputs * (given.times.shape[-1] if given.max_spikes else 1) + 2 * given.max_spikes + 2
    return samples_at_once(given, 8 * events * (len(given.components) + 2) ** 2)


@of_several
@partial(forward_in_parts, samples=_samples)
@torch.no_grad()
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    (ensemble, batch, _, outputs), most = given.sizes, max(1, given.max_spikes)
    shape, neurons = (ensemble, batch, outputs), _neurons(given)
    if given.observed is None:
        spikes, overflows = _trains(neurons, given, most)
    else:
        spikes, overflows = given.observed.flatten(0, 2), torch.zeros_like(neurons.left, dtype=torch.bool)
    if not given.max_spikes:
        return Result(spikes.view(shape))
    state = None
    if given.until < math.inf:
        ends = _replayed(neurons, given, spikes.double(), overflows)[1:]
        state = Held(*(x.to(given.times.dtype).view(*shape, *x.shape[1:]) for x in ends))
    return Result(spikes.view(*shape, most), (), overflows.view(shape), state)


def _trains(neurons: _Neurons, given: Arguments, most: int) -> tuple[Float[Tensor, "P S"], Bool[Tensor, " P"]]:
    """Spike trains, and which neurons would spike more often than ``most`` times."""
    dtype, flow, reads = given.times.dtype, neurons.flow, neurons.reads
    time, order = neurons.time.sort(dim=-1, stable=True)
    x, pairs = neurons.rest.clone(), torch.arange(len(time), device=time.device)
    now = torch.where(time[:, 0].isinf(), 0.0, time[:, 0])
    free, place, count = torch.full_like(now, -math.inf), torch.zeros_like(pairs), torch.zeros_like(pairs)
    if given.start > -math.inf:
        now = torch.full_like(now, given.start)
        free = torch.where(neurons.left > 0, now + neurons.left, free)
    spikes = given.times.new_full((len(time), most), math.inf)
    overflows = torch.zeros_like(place, dtype=torch.bool)
    alive = torch.ones_like(overflows)
    while bool(alive.any()):
        arrival = time[pairs, place]
        end = arrival.clamp(max=given.until)
        held = now < free
        stop = torch.where(held, torch.minimum(free, end), end)
        wait = torch.full_like(now, math.inf)
        looks = (alive & ~held).nonzero().squeeze(-1)
        wait[looks] = _first_crossing(flow[looks], reads[looks], x[looks], (stop - now)[looks])
        fires = wait.isfinite()
        spike = (now + wait).to(dtype).double()
        later = torch.nextafter(now.to(dtype), stop.to(dtype)).double()
        spike = torch.where((wait > 0) | (now != free), torch.maximum(spike, later).minimum(stop), now)
        full = fires & (count == most)
        noted = fires & ~full
        spikes[pairs[noted], count[noted]] = spike[noted].to(dtype)
        overflows |= full
        count = count + noted
        until = torch.where(fires, spike, stop)
        alive &= until.isfinite()
        length = torch.where(alive, until - now, 0.0)
        x = torch.where(alive[:, None], moved(torch.where(held[:, None, None], neurons.held, flow), x, length), x)
        now = torch.where(alive, until, now)
        x = torch.where(fires[:, None], _reset(neurons, x, given.resets), x)
        released = (spike.to(dtype) + neurons.refractory.to(dtype)).double()
        free = torch.where(fires, torch.where(full, math.inf, released), free)
        arrives = alive & ~fires & (stop == arrival)
        some, which = pairs[arrives], order[pairs[arrives], place[arrives]]
        x[some, neurons.place[some, which]] += neurons.weight[some, which]
        place = place + arrives
        alive &= fires | arrives | (stop < end) | (held & (stop == free))
        if not given.max_spikes:
            alive &= count < most
    return spikes, overflows


def _reset(neurons: _Neurons, x: State, resets: bool) -> State:
    """States after a spike."""
    voltage = neurons.reset if resets else x[:, 0]
    return torch.cat([voltage[:, None], x[:, 1:-1] + neurons.jumps, x[:, -1:]], -1)


def _first_crossing(flow: Matrix, reads: State, x: State, length: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
    """Time until g first is >= 0, ``inf`` if it is not within the length."""
    found = torch.full_like(length, math.inf).masked_fill(_value(reads, x) >= 0, 0.0)
    begin, step = torch.zeros_like(length), 1 / flow.diagonal(dim1=1, dim2=2).abs().amax(1)
    once = reads.unsqueeze(1) @ flow
    derivatives = [once, once @ flow, once @ flow @ flow]
    looks = (found.isinf() & (length > 0)).nonzero().squeeze(-1)
    for _ in range(_STEPS * _STEPS):
        looks = looks[~(stays_below(flow[looks], reads[looks], x[looks]) & length[looks].isinf())]
        if not len(looks):
            break
        a, g, now = flow[looks], reads[looks], x[looks]
        g1, g2 = (_value(by[looks].squeeze(1), now) for by in derivatives[:2])
        d = torch.minimum(step[looks], length[looks] - begin[looks])
        change = (derivatives[2][looks].squeeze(1).abs() * largest(a, now, d)).sum(-1)
        following = moved(a, now, d)
        until = _value(g, following) >= 0
        at_end = (derivatives[0][looks].squeeze(1) * following).sum(-1)
        most, falls, rises, bends = course_of(_value(g, now), g1, g2, change, at_end, d)
        below = most < 0
        known = below | falls | rises | bends
        high = torch.where(rises & ~below & ~falls & until, d, -1.0)
        summit = (bends & ~below & ~falls & ~rises).nonzero().squeeze(-1)
        if len(summit):
            top = root_of(-(once[looks][summit].squeeze(1)), a[summit], now[summit], d[summit])
            reached = _value(g[summit], moved(a[summit], now[summit], top)) >= 0
            high[summit] = torch.where(reached, top, -1.0)
        crosses = (high >= 0).nonzero().squeeze(-1)
        if len(crosses):
            which = looks[crosses]
            found[which] = begin[which] + root_of(g[crosses], a[crosses], now[crosses], high[crosses])
        passed = known & (high < 0)
        begin[looks] = torch.where(passed, begin[looks] + d, begin[looks])
        x = x.index_copy(0, looks, torch.where(passed[:, None], following, now))
        step[looks] = torch.where(passed, 2 * d, d / 2)
        looks = looks[found[looks].isinf() & (begin[looks] < length[looks])]
    return found


class Course(NamedTuple):
    """What a value does in some time; where none of the last three holds, the time has to be cut."""

    most: Float64[Tensor, " P"]
    """An upper bound."""
    falls: Bool[Tensor, " P"]
    rises: Bool[Tensor, " P"]
    bends: Bool[Tensor, " P"]
    """Whether it is concave, and so has one maximum at most."""


def course_of(value: Tensor, slope: Tensor, bend: Tensor, change: Tensor, slope_at_end: Tensor, time: Tensor) -> Course:
    """From the value and two derivatives at the start, a bound of the third, and the first at the end."""
    most = value + slope.clamp(min=0) * time + bend.clamp(min=0) * time**2 / 2 + change * time**3 / 6
    bends = bend + change * time < 0
    falls = slope + bend.clamp(min=0) * time + change * time**2 / 2 <= 0
    rises = slope + bend.clamp(max=0) * time - change * time**2 / 2 >= 0
    return Course(most, falls, rises | (bends & (slope_at_end >= 0)), bends)


def largest(flow: Matrix, x: State, time: Float64[Tensor, " P"]) -> State:
    """Bounds of the magnitudes of all numbers of a state for a time that follows."""
    size, coupling = x.abs(), flow.abs() - torch.diag_embed(flow.diagonal(dim1=1, dim2=2).abs())
    inner = size.clone()
    inner[:, 1:-1] += (coupling[:, 1:-1, 1:-1] @ size[:, 1:-1, None]).squeeze(-1) * time[:, None]
    inner[:, 0] = size[:, 0] + (coupling[:, 0] * inner).sum(-1) * time
    return inner


def stays_below(flow: Matrix, reads: State, x: State) -> Bool[Tensor, " P"]:
    """Whether g stays below 0 for ever, by what all that is left of each component can do at most."""
    rates, leak = -flow.diagonal(dim1=1, dim2=2), -flow[:, :1, 0]
    alone = torch.where(leak > 0, flow[:, :1, -1] / leak, 0.0).squeeze(-1)
    drive = flow[:, 0, 1:-1] / torch.maximum(leak, rates[:, 1:-1])
    fed = (flow[:, 1:-1, 1:-1].tril(-1) > 0).to(x)
    lifts = (drive * x[:, 1:-1]).clamp(min=0) + ((drive.unsqueeze(1) @ fed).squeeze(1) * x[:, 1:-1]).clamp(min=0)
    lifts = lifts + (reads[:, 1:-1] * x[:, 1:-1]).clamp(min=0)
    return torch.maximum(x[:, 0], alone) + lifts.sum(-1) + reads[:, -1] < 0


def root_of(reads: State, flow: Matrix, x: State, high: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
    """Where a value that rises from below 0 at 0 to 0 or more at ``high`` is 0: Newton's method within brackets."""
    low, s, slope = torch.zeros_like(high), high / 2, (reads.unsqueeze(1) @ flow).squeeze(1)
    for _ in range(_STEPS):
        now = moved(flow, x, s)
        value = _value(reads, now)
        low, high = torch.where(value < 0, s, low), torch.where(value < 0, high, s)
        step = s - value / _value(slope, now)
        step = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        moves, s = (step - s).abs() > 2e-16 * s, step
        if not bool((moves & (high - low > 2e-16 * high)).any()):
            break
    return s


def _replayed(
    neurons: _Neurons,
    given: Arguments,
    spikes: Float[Tensor, "P S"],
    overflows: Bool[Tensor, " P"],
    bound: float | None = None,
) -> tuple[Float64[Tensor, "P S"], Float64[Tensor, " P"], Float64[Tensor, "P M"], Float64[Tensor, " P"]]:
    """The spikes, and the state at the end (voltages, components, times that are left), all differentiable.

    With a ``bound``, spikes whose gradient by some weight exceeds it count as fixed in the backward pass.
    """
    times, kinds, source = _events(neurons, given, spikes, overflows)
    out, pairs = spikes.double(), torch.arange(len(spikes), device=spikes.device)
    x, held, count = neurons.rest, neurons.left > 0, torch.zeros_like(pairs)
    now = times[:, 0].nan_to_num(posinf=0.0) if given.start == -math.inf else torch.full_like(neurons.left, given.start)
    free = now + neurons.left  # when the latest refractory time ends
    passed: list[tuple[Tensor, ...]] = []
    for time, kind, which in zip(times.unbind(1), kinds.unbind(1), source.unbind(1), strict=True):
        there = time.isfinite()
        if not bool(there.any()):
            break
        there = there & ((kind != _RELEASE) | (time == free))  # others were overtaken by a spike that was observed
        arrives, fires, freed = (there & (kind == k) for k in (_ARRIVAL, _SPIKE, _RELEASE))
        again = fires & ~held & (time == free)  # as soon as it is released
        time = torch.where(freed | again, free, torch.where(arrives, neurons.time[pairs, which], time))
        move = _propagator(neurons, held, torch.where(there, time - now, 0.0))
        x = (move @ x.unsqueeze(-1)).squeeze(-1)
        now = torch.where(there, time, now)

        value, change = _value(neurons.reads, x), (neurons.flow @ x.unsqueeze(-1)).squeeze(-1).detach()
        # as if it were at the threshold, which observed spikes are not
        slope = (_value(neurons.reads, change) - neurons.flow[:, 0, 0] * value).detach()
        forced = again & (value >= 0)
        crosses = fires & ~held & ~forced & (slope > 0)
        if bound is not None:
            if value.requires_grad:
                value.register_hook(partial(_within, bound, _largest_kick(neurons, given, move, passed)))
            passed.append((move.detach(), fires, arrives, neurons.place[pairs, which]))
        moves = torch.where(crosses, (value.detach() - value) / torch.where(crosses, slope, 1.0), 0.0)  # 0
        now = torch.where(forced, free, now + moves)
        x = torch.where(crosses[:, None], x + change * moves[:, None], x)

        some = fires.nonzero().squeeze(-1)
        out = out.index_put((some, count[some]), now[some])
        count = count + fires
        x = torch.where(fires[:, None], _reset(neurons, x, given.resets), x)
        later = now + neurons.refractory
        released = (now.to(spikes.dtype) + neurons.refractory.to(spikes.dtype)).double()  # as it was noted
        free = torch.where(fires, later + (released - later).detach(), free)
        held = (held | (fires & (neurons.refractory > 0)) | (fires & overflows & (count == out.shape[1]))) & ~freed
        kick = torch.where(arrives, neurons.weight[pairs, which], 0.0)
        x = x.scatter_add(1, neurons.place[pairs, which].unsqueeze(1), kick.unsqueeze(1))
    if given.until < math.inf:
        x = (_propagator(neurons, held, given.until - now) @ x.unsqueeze(-1)).squeeze(-1)
    return out, x[:, 0], x[:, 1:-1], torch.where(held & ~overflows, free - given.until, 0.0)


def _events(
    neurons: _Neurons, given: Arguments, spikes: Float[Tensor, "P S"], overflows: Bool[Tensor, " P"]
) -> tuple[Float64[Tensor, "P N"], Int64[Tensor, "P N"], Int64[Tensor, "P N"]]:
    """When releases, spikes and arrivals happen, in order, which of the three it is, and which arrival."""
    holds = (neurons.refractory > 0).unsqueeze(-1)
    released = (spikes + neurons.refractory.to(spikes).unsqueeze(-1)).masked_fill(~holds, math.inf)
    released[:, -1].masked_fill_(overflows, math.inf)
    first = torch.where(neurons.left > 0, given.start + neurons.left, math.inf).unsqueeze(-1)
    groups = torch.cat([first, released.double()], -1), spikes.double(), neurons.time
    times = torch.cat(groups, -1).detach()
    kinds = torch.cat([torch.full_like(x, kind, dtype=torch.long) for kind, x in enumerate(groups)], -1)
    late = (times >= given.until) & ((kinds == _ARRIVAL) | (times > given.until))
    times, order = times.masked_fill(late, math.inf).sort(dim=-1, stable=True)
    source = (order - groups[0].shape[1] - groups[1].shape[1]).clamp(min=0)
    return times, kinds.gather(-1, order), source


def _propagator(neurons: _Neurons, held: Bool[Tensor, " P"], time: Float64[Tensor, " P"]) -> Matrix:
    return exponential(torch.where(held[:, None, None], neurons.held, neurons.flow), time)


def _largest_kick(
    neurons: _Neurons, given: Arguments, move: Matrix, passed: list[tuple[Tensor, ...]]
) -> Float64[Tensor, " P"]:
    """By how much g at a spike grows at most with the weight of one input spike before, at fixed spike times."""
    by, most = neurons.reads.detach().unsqueeze(1) @ move.detach(), torch.zeros_like(neurons.left)
    for before, fires, arrives, place in reversed(passed):
        kick = by.squeeze(1).gather(1, place.unsqueeze(1)).squeeze(1).abs()
        most = torch.maximum(most, torch.where(arrives, kick, 0.0))
        if given.resets:
            by = torch.cat([by[..., :1].masked_fill(fires[:, None, None], 0.0), by[..., 1:]], -1)
        by = by @ before
    return most


def _within(bound: float, most: Float64[Tensor, " P"], by: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
    return torch.where(by.abs() * most > bound, 0.0, by)


@of_several
@partial(backward_in_parts, samples=_samples)
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    found = zero_gradients(given, needs)
    if 0 in given.sizes[:2] or not given.sizes[3]:
        return found
    first, rest = (needs, Needs()) if max_weight_grad is None else (needs - {"weight"}, needs & {"weight"})
    for names, bound in ((first, None), (rest, max_weight_grad)):
        if names & found.keys():
            found |= _pulled_back(grads, result, given, bound, [name for name in found if name in names])
    return found


@torch.enable_grad()
def _pulled_back(grads: Grads, result: Result, given: Arguments, bound: float | None, names: list[str]) -> Gradients:
    leaves = {name: getattr(given, name) for name in names}
    likes = {name: x if isinstance(x, Tensor) else torch.full_like(given.threshold, x) for name, x in leaves.items()}
    leaves = {name: x.detach().double().requires_grad_() for name, x in likes.items()}
    neurons = _neurons(given._replace(**leaves))
    spikes = result.spikes if given.max_spikes else result.spikes.unsqueeze(-1)
    over = torch.zeros_like(spikes[..., 0], dtype=torch.bool) if result.overflows is None else result.overflows
    out = _replayed(neurons, given, spikes.flatten(0, 2), over.flatten(), bound)
    asked = [grads.spikes if given.max_spikes else grads.spikes.unsqueeze(-1), *(grads.state or ())]
    pairs = [(x, by.flatten(0, 2).double()) for x, by in zip(out, asked, strict=False) if x.requires_grad]
    if not pairs:
        return {}
    by = torch.autograd.grad([x for x, _ in pairs], list(leaves.values()), [y for _, y in pairs], allow_unused=True)
    return {name: x.to(given.times.dtype) for name, x in zip(leaves, by, strict=True) if x is not None}
