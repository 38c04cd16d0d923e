"""The largest value that the membrane of a linear neuron reaches that does not spike, as ``peaks`` has it for LIF.

Intervals between arrivals in which the membrane might exceed what it has at their ends are cut where it stops rising or
falling, see ``flow``. The derivative is that of the membrane at the time that is found, a sum of responses.

Without spikes there is neither adaptation nor a threshold that moves. Shapes: P (sample, neuron) pairs, N spikes.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from firstspike.neurons import Neuron
from firstspike.neurons.base import ROLES, receptors_of
from firstspike.spiketime.flow import Columns, Flow
from firstspike.spiketime.maxima.members import Height, maxima
from firstspike.spiketime.parameters import Receptor, parameters_of
from firstspike.spiketime.response import ReceptorTaus, at_rest, reaching, response

_CHUNK = 1 << 22  # numbers at once
_LONG = 80.0  # time constants, after which nothing is left of a spike
_ROUNDING = 1e-15  # of all weights


def height(
    trains: Float[Tensor, "batch inputs spikes"],
    weight: Float[Tensor, "outputs inputs"],
    delay: Float[Tensor, "outputs inputs"] | None,
    silent: Bool[Tensor, "batch outputs"] | None,
    neuron: Neuron,
    until: float,
    reached: Receptor,
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
    each = (inputs * copies + 1) * 8 * (len(constants.kinds) + 2)
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
    bias = torch.zeros_like(constants.tau_mem) if constants.bias is None else constants.bias
    flow = Flow(constants.kinds, constants.tau_mem.double(), list(constants.tau_syn.double().unbind(-1)), bias.double())
    flow = flow.each((some.neuron, None))
    begin, states = _states(some, flow, constants)
    latest = torch.where(begin.isfinite(), begin, -math.inf).amax(1, keepdim=True)
    end = torch.full_like(latest, constants.until)
    if constants.until == math.inf:
        taus = torch.cat([flow.mem, *flow.syn], 1)
        end = latest + _LONG * torch.where(taus.isinf(), 0.0, taus).amax(1, keepdim=True)
    ends = torch.cat([begin[:, 1:], end], 1)
    ends = torch.where(ends.isinf(), end, ends)
    last = flow.moved([x[:, -1:] for x in states], (end - latest).clamp(min=0))[0]
    spike = torch.cat(
        [some.spike.new_full((len(begin), 1), -1), some.spike, some.spike.new_full((len(begin), 1), -1)], 1
    )
    best, which = torch.cat([torch.where(begin.isfinite(), states[0], 0.0), last], 1).max(1, keepdim=True)
    time, place = (x.gather(1, which).squeeze(1) for x in (torch.cat([begin, end], 1), spike))
    best = best.clamp(min=0)
    # a smaller difference than by rounding is not above the known maximum
    level = best + _ROUNDING * (some.weight.abs().sum(1, keepdim=True) + flow.bias.abs())
    inside = (ends > begin) & begin.isfinite()
    length = torch.where(inside, ends - begin, 0.0)
    pair, nth = (inside & flow.may_cross(states, states[0] - level, length)).nonzero(as_tuple=True)
    flow, now = flow.each(pair), [x[pair, nth, None] for x in states]
    borders = flow.each((..., 0)).pieces([x.squeeze(1) for x in now], length[pair, nth])[:, 1:-1]
    height, which = flow.moved(now, borders)[0].max(1)
    best, level = best.squeeze(1), level.squeeze(1)
    top = best.scatter_reduce(0, pair, torch.where(height > level[pair], height, 0.0), "amax")
    wins = (height == top[pair]) & (height > level[pair])
    time[pair[wins]], place[pair[wins]] = (begin[pair, nth] + borders.gather(1, which[:, None]).squeeze(1))[wins], -1
    return top, time, torch.where(top > 0, place, -1)


def _states(some: _Membranes, flow: Flow, constants: _Constants) -> tuple[Float64[Tensor, "P N+1"], Columns]:
    """The start and all arrivals, and the states just after them. Those that never arrive change nothing.

    States add once they are brought to the same time: all take up the one of the arrival before, then those 2, 4, 8,
    ... arrivals earlier.
    """
    first = some.time[:, :1] if some.time.shape[1] else some.time.new_zeros(len(some.time), 1)
    first = first.nan_to_num(posinf=0.0) if constants.start == -math.inf else torch.full_like(first, constants.start)
    begin = torch.cat([first, some.time], 1)
    there = begin.isfinite()
    at = torch.where(there, begin, torch.where(there, begin, -math.inf).amax(1, keepdim=True))
    kicks = torch.where(some.time.isfinite(), some.weight, 0.0)
    states = [torch.zeros_like(begin) for _ in range(len(constants.kinds) + 2)]
    states[-1][:, 0] = 1.0
    for number, place in enumerate(receptors_of(constants.kinds)):
        states[place + 1][:, 1:] = torch.where(some.receptor == number, kicks, 0.0)
    reach = 1
    while reach < begin.shape[1]:
        before = flow.moved([x[:, :-reach] for x in states], at[:, reach:] - at[:, :-reach])
        states = [torch.cat([x[:, :reach], x[:, reach:] + y], 1) for x, y in zip(states, before, strict=True)]
        reach *= 2
    return begin, states


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
        rises = ROLES[constants.kinds[first]].feeds
        of_one = ReceptorTaus(syn[:, first + rises, None], syn[:, first, None] if rises else None)
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
