"""The forward pass from tensors to the kernel."""

import math
from functools import partial
from typing import NamedTuple

import torch
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from firstspike.spiketime import reference
from firstspike.spiketime.contract import Arguments, Held, Result, of_several
from firstspike.spiketime.parts import forward_in_parts
from firstspike.spiketime.reference.response import leakless
from firstspike.spiketime.triton.problem import Events, Problem, events_of
from firstspike.spiketime.triton.scan import forward_kernel

_STEPS = 60  # of Newton's method; about 6 are needed, and many only next to a tangent
_MEMORY = 1 << 28  # bytes in which the inputs of neurons with synaptic delays are sorted
_COPIES = 12  # numbers for each synapse and sample meanwhile: arrivals, weights, 64-bit places, those of torch.sort


class Scanned(NamedTuple):
    """What the forward kernel gives, see there."""

    spikes: Float[Tensor, "E B O S"]
    currents: Float[Tensor, "E B O S"]
    held: Float[Tensor, "3 E B O"]
    released: Float[Tensor, "E B O S+1"]


@of_several
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    if is_left_out(given):
        return reference.forward(given)
    if not given.max_spikes and given.delay is not None:
        return _forward_delayed(given)
    problem, events = Problem(given), events_of(given)
    found = scanned(problem, events, problem.weight, given.observed)
    if not given.max_spikes:
        return Result(found.spikes.squeeze(-1), (*events, found.currents.squeeze(-1)))
    overflows, state = found.held[2].isposinf(), None
    if given.until < math.inf:
        voltage, current = (x * problem.unit.unsqueeze(1) for x in found.held[:2])
        left = torch.where(overflows, 0.0, (found.held[2] - given.until).clamp(min=0))
        state = Held(voltage, current, left)
    return Result(found.spikes, (*events, found.currents, found.released), overflows, state)


def saves(given: Arguments) -> tuple[Tensor, ...]:
    """Tensors like those that ``forward`` saves of first spikes."""
    currents = given.times.new_empty((*given.times.shape[:-1], given.weight.shape[-2]))
    return (*events_of(given), currents) if given.delay is None else (currents,)


def is_left_out(given: Arguments) -> bool:
    """What ``reference`` does: trains of neurons with delays, and problems of size 0."""
    return 0 in (*given.times.shape, given.weight.shape[1]) or (given.max_spikes > 0 and given.delay is not None)


@partial(
    forward_in_parts, samples=lambda given: _MEMORY // (_COPIES * given.weight.numel() * given.times.element_size())
)
def _forward_delayed(given: Arguments) -> Result:
    """First spikes of neurons that each have an order of arrival of their own."""
    assert given.delay is not None
    problem = Problem(given)
    arrival, order = (given.times[:, :, None] + given.delay[:, None]).sort(dim=-1)
    weight = (given.weight / problem.unit.unsqueeze(-1))[:, None].expand(arrival.shape).gather(-1, order)
    count = arrival.isfinite().sum(dim=-1).int()
    found = scanned(problem, Events(problem.padded(arrival), count, count), problem.padded(weight))
    return Result(found.spikes.squeeze(-1), (found.currents.squeeze(-1),))


def scanned(problem: Problem, events: Events, weight: Tensor, observed: Tensor | None = None) -> Scanned:
    """What the forward kernel finds, or finds at observed spikes."""
    given, most = problem.given, max(1, problem.given.max_spikes)
    delayed = given.delay is not None
    arrival, count = (x.contiguous() for x in (events.arrival, events.number))
    spikes = problem.new(most).fill_(math.inf) if observed is None else observed.contiguous()
    currents = torch.zeros_like(spikes)
    held, released = spikes.new_empty(0), spikes.new_empty(0)
    if problem.again:
        rest = torch.zeros_like(spikes[..., 0])
        state = [rest, rest, torch.full_like(rest, -math.inf)]
        if given.state is not None:
            voltage, current, left = given.state
            unit = problem.unit.unsqueeze(1)
            state = [voltage / unit, current / unit, given.start + left]
        held, released = torch.stack(state), problem.new(most + 1).zero_()
    real = given.times.dtype
    forward_kernel[(problem.ensemble * problem.batch, problem.tiles)](
        *(arrival, problem.order(events), count, problem.coefficients(arrival), weight),
        *(problem.rates, problem.theta, spikes, currents, held, released, *resets(problem)),
        *(problem.batch, weight.shape[-2], arrival.shape[2], problem.outputs, weight.shape[-1]),
        SPIKES=most,
        AGAIN=problem.again,
        OBSERVED=observed is not None,
        FINITE=problem.again and given.until < math.inf,
        LEAKY=not leakless(given.constants.tau_mem),
        DELAYED=delayed,
        STEPS=_STEPS,
        EPS=2 * torch.finfo(real).eps,
        WHOLE=tl.int32 if real == torch.float32 else tl.int64,
        **problem.options,
    )
    return Scanned(spikes, currents, held, released)


def resets(problem: Problem) -> tuple[Tensor, Tensor]:
    """Refractory times, and resets in units, of neurons that spike again."""
    given = problem.given
    if not problem.again:
        return problem.theta, problem.theta
    return given.refractory.contiguous(), (given.reset / problem.unit).contiguous()
