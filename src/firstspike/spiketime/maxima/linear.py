"""The largest value that the membrane of a linear neuron reaches that does not spike, as ``peaks`` has it for LIF.

The state goes from arrival to arrival, as in ``linear``, and intervals in which the membrane might exceed what it has
at their ends are searched: by the same bounds a piece stays below the largest value so far, rises or falls throughout,
or is concave with one maximum. Otherwise it is halved. The derivative is that of the membrane at the time that is
found, a sum of responses.

Without spikes there is neither adaptation nor a threshold that moves. Shapes: P (sample, neuron) pairs, N spikes, D
numbers of a state.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from firstspike.neurons import Neuron
from firstspike.neurons.base import receptors_of
from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.maxima.members import Height, maxima
from firstspike.spiketime.parameters import Receptor as Reached
from firstspike.spiketime.parameters import parameters_of
from firstspike.spiketime.reference.linear import Matrix, exponential, flow_of, largest, moved, root_of, stays_below
from firstspike.spiketime.reference.loop import State
from firstspike.spiketime.reference.search import course_of
from firstspike.spiketime.response import Receptor, at_rest, reaching, response

_CHUNK = 1 << 22  # numbers at once
_LONG = 80.0  # time constants, after which nothing is left of a spike
_STEPS = 10_000  # of a search, whose pieces double and halve
_ROUNDING = 1e-15  # of all weights: a smaller difference is not above the known maximum


def height(
    trains: Float[Tensor, "batch inputs spikes"],
    weight: Float[Tensor, "outputs inputs"],
    delay: Float[Tensor, "outputs inputs"] | None,
    silent: Bool[Tensor, "batch outputs"] | None,
    neuron: Neuron,
    until: float,
    reached: Reached,
) -> Float[Tensor, "batch outputs"]:
    """Maximum of the membrane, at least 0; of the ``silent`` pairs alone where they are given.

    Differentiable by trains, weight and delay. With a bias and without end, the membrane comes to rest at the bias.
    """
    (mem, _), given, kind = parameters_of(neuron, weight.detach(), reached)
    tau_mem = given["tau_mem"] if given["tau_mem"] is not None else torch.full_like(given["threshold"], mem or math.inf)
    tensors = (tau_mem, given["tau_syn"], given["bias"], given["receptor"])
    constants = (None if x is None else x.detach() for x in tensors)
    options = kind["components"], kind.get("start", -math.inf), until
    found: Tensor = Height.apply(*_LINEAR, trains, weight, delay, silent, *constants, *options)[0]
    return found


class _Constants(NamedTuple):
    tau_mem: Float[Tensor, " O"]
    tau_syn: Float[Tensor, "O M"]
    bias: Float[Tensor, " O"] | None
    receptor: Int64[Tensor, " I"] | None
    components: str
    start: float
    until: float

    @property
    def kinds(self) -> tuple[Any, ...]:
        return tuple(self.components.split())


class _Membranes(NamedTuple):
    """Some pairs, and their inputs, in order."""

    sample: Int64[Tensor, " P"]
    neuron: Int64[Tensor, " P"]
    time: Float64[Tensor, "P N"]
    weight: Float64[Tensor, "P N"]
    spike: Int64[Tensor, "P N"]
    """Index of the input spike in the sample's flattened trains."""
    receptor: Int64[Tensor, "P N"]


def _membranes(
    trains: Tensor, weight: Tensor, delay: Tensor | None, silent: Tensor | None, *given: Any
) -> Iterator[_Membranes]:
    """The membranes of all pairs, or of silent ones, in parts that fit in memory."""
    (batch, inputs, copies), constants = trains.shape, _Constants(*given)
    if not inputs * copies and constants.bias is None:
        return
    pairs = weight.new_ones(batch, len(weight), dtype=torch.bool) if silent is None else silent
    each = (inputs * copies + 1) * (len(constants.kinds) + 2) ** 2
    for sample, neuron in (some.unbind(1) for some in pairs.nonzero().split(max(1, _CHUNK // each))):
        arrival = trains.double().flatten(1)[sample]
        if delay is not None:
            arrival = arrival + delay.double()[neuron].repeat_interleave(copies, -1)
        there = (arrival >= constants.start) & (arrival < constants.until)
        time, order = torch.where(there, arrival, math.inf).sort(dim=-1, stable=True)
        strength = weight.double()[neuron].repeat_interleave(copies, -1).gather(1, order)
        if constants.receptor is None:
            reached = (strength <= 0).long()
        else:
            reached = constants.receptor.repeat_interleave(copies, -1)[order]
        yield _Membranes(sample, neuron, time, strength, order, reached)


def _highest(some: _Membranes, *given: Any) -> tuple[Float64[Tensor, " P"], Float64[Tensor, " P"], Int64[Tensor, " P"]]:
    """Height and time of the maximum, and the spike at whose arrival it is, or -1; height 0 where nothing rises."""
    constants = _Constants(*given)
    mem, syn = constants.tau_mem.double(), constants.tau_syn.double()
    bias = None if constants.bias is None else constants.bias.double()
    none = torch.zeros_like(mem)
    widened = Arguments(some.time, none, None, mem, syn, none, bias=bias, components=constants.kinds)
    flow = flow_of(widened)[some.neuron]
    begin, states = _states(some, flow, constants)
    latest = torch.where(begin.isfinite(), begin, -math.inf).amax(1)
    end = torch.full_like(latest, constants.until)
    if constants.until == math.inf:
        rates = -flow.diagonal(dim1=1, dim2=2)[:, :-1]
        end = latest + _LONG * (1 / torch.where(rates > 0, rates, math.inf).amin(1))
    ends = torch.cat([begin[:, 1:], end[:, None]], 1)
    ends = torch.where(ends.isinf(), end[:, None], ends)
    last = moved(flow, states[:, -1], (end - latest).clamp(min=0))
    spike = torch.cat([some.spike.new_full((len(begin), 1), -1), some.spike], 1)
    best, which = torch.where(begin.isfinite(), states[..., 0], 0.0).max(1)
    time, place = (x.gather(1, which[:, None]).squeeze(1) for x in (begin, spike))
    above = last[:, 0] > best
    best = torch.where(above, last[:, 0], best).clamp(min=0)
    time, place = torch.where(above, end, time), torch.where(above, -1, place)
    pair, nth = ((ends > begin) & begin.isfinite()).nonzero(as_tuple=True)
    scale = some.weight.abs().sum(1) + (0.0 if bias is None else bias[some.neuron].abs())
    pieces = states[pair, nth], begin[pair, nth], ends[pair, nth]
    top, at = _search(flow, pair, *pieces, best, _ROUNDING * scale)
    return top, torch.where(at.isfinite(), at, time), torch.where(at.isfinite() | (top <= 0), -1, place)


def _states(
    some: _Membranes, flow: Matrix, constants: _Constants
) -> tuple[Float64[Tensor, "P N+1"], Float64[Tensor, "P N+1 D"]]:
    """The start and all arrivals, and the states just after them. Those that never arrive change nothing."""
    first = some.time[:, :1] if some.time.shape[1] else some.time.new_zeros(len(some.time), 1)
    first = first.nan_to_num(posinf=0.0) if constants.start == -math.inf else torch.full_like(first, constants.start)
    begin = torch.cat([first, some.time], 1)
    gaps = torch.where(begin[:, 1:].isfinite(), begin[:, 1:] - begin[:, :-1], 0.0)
    size, events = flow.shape[-1], gaps.shape[1]
    moves = exponential(flow.repeat_interleave(events, 0), gaps.flatten()).view(len(flow), events, size, size)
    x = torch.zeros_like(flow[:, 0])
    x[:, -1] = 1.0
    firsts = torch.tensor(receptors_of(constants.kinds), device=x.device) + 1
    states, kicks = [x], torch.where(some.time.isfinite(), some.weight, 0.0)
    for n in range(events):
        x = (moves[:, n] @ x.unsqueeze(-1)).squeeze(-1)
        x = x.scatter_add(1, firsts[some.receptor[:, n : n + 1]], kicks[:, n : n + 1])
        states.append(x)
    return begin, torch.stack(states, 1)


def _search(
    flow: Matrix,
    pair: Int64[Tensor, " L"],
    x: State,
    begin: Float64[Tensor, " L"],
    end: Float64[Tensor, " L"],
    best: Float64[Tensor, " P"],
    rounding: Float64[Tensor, " P"],
) -> tuple[Float64[Tensor, " P"], Float64[Tensor, " P"]]:
    """Maxima within L intervals that are above the best of their pair, and when; time ``inf`` where there is none."""
    when = torch.full_like(best, math.inf)
    once = flow[:, 0]
    twice = (once.unsqueeze(1) @ flow).squeeze(1)
    thrice = (twice.unsqueeze(1) @ flow).squeeze(1).abs()
    step = (1 / flow.diagonal(dim1=1, dim2=2).abs().amax(1))[pair]
    for _ in range(_STEPS):
        reads = torch.zeros_like(x)
        reads[:, 0], reads[:, -1] = 1.0, -(best + rounding)[pair]
        looks = (begin < end) & ~stays_below(flow[pair], reads, x)
        pair, x, begin, end, step = pair[looks], x[looks], begin[looks], end[looks], step[looks]
        if not len(pair):
            break
        a, d = flow[pair], torch.minimum(step, end - begin)
        g1, g2 = (once[pair] * x).sum(-1), (twice[pair] * x).sum(-1)
        change = (thrice[pair] * largest(a, x, d)).sum(-1)
        following = moved(a, x, d)
        most, falls, rises, bends = course_of(x[:, 0], g1, g2, change, (once[pair] * following).sum(-1), d)
        below, falls = most <= (best + rounding)[pair], falls | (bends & (g1 <= 0))
        summit = (bends & ~below & ~falls & ~rises).nonzero().squeeze(-1)
        top, at = torch.full_like(d, -math.inf), begin + d
        inner = rises & (at < end)  # the ends of intervals are known
        top[inner] = following[inner, 0]
        if len(summit):
            since = root_of(-once[pair[summit]], a[summit], x[summit], d[summit])
            top[summit], at[summit] = moved(a[summit], x[summit], since)[:, 0], begin[summit] + since
        higher = best.scatter_reduce(0, pair, top, "amax")
        wins = (top == higher[pair]) & (top > best[pair])
        when[pair[wins]], best = at[wins], higher
        passed = below | falls | rises | bends
        x, begin = torch.where(passed[:, None], following, x), torch.where(passed, begin + d, begin)
        step = torch.where(passed, 2 * d, d / 2)
    return best, when


def _value_at(
    some: _Membranes, time: Float64[Tensor, " P"], place: Int64[Tensor, " P"], constants: _Constants
) -> Float64[Tensor, " P"]:
    """Membranes at times, which move along with the arrivals that are named."""
    mem, syn = (x.double()[some.neuron] for x in (constants.tau_mem, constants.tau_syn))
    bias = None if constants.bias is None else constants.bias.double()[some.neuron]
    arrival = torch.where(some.time.isfinite(), some.time, 0.0)
    along = (torch.where(some.spike == place[:, None], arrival, 0.0)).sum(1)
    time = torch.where(place >= 0, along, time)
    since = torch.where(some.time < time.detach()[:, None], time[:, None] - arrival, 0.0)
    value = torch.zeros_like(time) if bias is None else at_rest(time - constants.start, mem, bias)
    for number, first in enumerate(receptors_of(constants.kinds)):
        rises = constants.kinds[first] == "rise"
        of_one = Receptor(syn[:, first + rises, None], syn[:, first, None] if rises else None)
        weights = reaching(some.weight, some.receptor, number)
        value = value + torch.where(since > 0, response(since, mem[:, None], of_one), 0.0).mul(weights).sum(1)
    return value


@torch.enable_grad()
def _gradients(
    grad: Tensor, height: Tensor, time: Tensor, place: Tensor, *given: Any
) -> tuple[Tensor, Tensor, Tensor | None]:
    (*tensors, silent), constants = given[:4], _Constants(*given[4:])
    inputs: list[Any] = [None if x is None else x.detach().requires_grad_() for x in tensors]
    leaves, scale = [x for x in inputs if x is not None], torch.where(height > 0, grad, 0.0).double()
    total = [torch.zeros_like(x) for x in leaves]
    for some in _membranes(*inputs, silent, *constants):
        at = some.sample, some.neuron
        value = (_value_at(some, time[at], place[at], constants) * scale[at]).sum()
        total = [x + y for x, y in zip(total, torch.autograd.grad(value, leaves), strict=True)]
    return total[0], total[1], total[2] if len(total) > 2 else None


_LINEAR = partial(maxima, _membranes, _highest, torch.float64), _gradients
