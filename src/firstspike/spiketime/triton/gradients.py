"""The backward pass from tensors to the kernels."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.spiketime import reference
from firstspike.spiketime.contract import CONSTANTS, Arguments, Gradients, Grads, Held, Needs, Result, of_several
from firstspike.spiketime.response import kappa
from firstspike.spiketime.triton.adjoint import gradient_kernel, jump_kernel, terms_kernel
from firstspike.spiketime.triton.spikes import Events, Problem, events_of, is_left_out, resets, scanned

_MEMORY = 1 << 27  # bytes for weight gradients of chunks of the samples, and for time gradients of tiles
_FEWEST, _MOST = 8, 64  # chunks of the samples, with a program for each tile, beside each other


@of_several
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    if is_left_out(given) or (given.max_spikes and not needs.isdisjoint(CONSTANTS)):
        return reference.backward(grads, result, given, max_weight_grad, needs)
    problem = Problem(given)
    if given.delay is not None:
        none = given.times.new_empty(0, dtype=torch.int32)
        events = Events(given.times.contiguous(), none, none)
    else:
        events = Events(*result.saved[:3]) if result.saved else events_of(given)
        events = events._replace(arrival=events.arrival.contiguous())
    bound = None if max_weight_grad is None else max_weight_grad * problem.unit
    find = _of_trains if given.max_spikes else _of_first_spikes
    jumps = find(problem, events, grads, result, bound, needs)
    found = _sums(problem, events, jumps, needs)
    found["threshold"] = jumps.by_threshold.sum(dim=1) / problem.unit
    found |= zip(("tau_mem", "tau_syn"), jumps.by_taus, strict=False)
    if given.max_spikes:
        found["reset"] = jumps.by_reset.sum(dim=1) / problem.unit
    if given.state is not None:
        unit = problem.unit.unsqueeze(1)
        found |= {"voltage": jumps.by_voltage / unit, "current": found["current"] / unit, "left": jumps.by_left}
    return found


class _Jumps(NamedTuple):
    """The start of the walk back, see ``gradient_kernel``, and the gradients that need none."""

    at: Float[Tensor, "E B O J"]
    scale: Float[Tensor, "E B O J"]
    kept: Float[Tensor, "E B O J"]
    by_threshold: Float[Tensor, "E B O"]
    by_taus: tuple[Tensor, ...] = ()
    last: Tensor | None = None
    """This and all fields below are for trains."""
    final: Tensor | None = None
    by_voltage: Tensor = None  # type: ignore[assignment]
    by_left: Tensor = None  # type: ignore[assignment]
    by_reset: Tensor = None  # type: ignore[assignment]


def _of_first_spikes(
    problem: Problem, events: Events, grads: Grads, result: Result, limit: Tensor | None, needs: Needs
) -> _Jumps:
    taus = not needs.isdisjoint(CONSTANTS)
    delayed, weight = problem.given.delay is not None, problem.weight
    spikes, largest = result.spikes, None
    by_taus: tuple[Tensor, ...] = ()
    at = torch.where(spikes.isfinite(), spikes, -math.inf).contiguous()
    if taus or (delayed and (not result.saved or limit is not None)):
        current, largest = torch.empty_like(at), torch.empty_like(at)
        by_taus = tuple(at.new_empty(at.shape if taus else 0) for _ in range(2))
        terms_kernel[(problem.ensemble * problem.batch, problem.tiles)](
            *(events.arrival, problem.order(events), events.number, weight, _delay(problem), problem.rates, at),
            *(current, largest, *by_taus),
            *(problem.batch, weight.shape[1], events.arrival.shape[2], problem.outputs, weight.shape[2]),
            DELAYED=delayed,
            TAUS=taus,
            **problem.options,
        )
    elif result.saved:
        current = result.saved[-1]
    else:
        current = scanned(problem, events, problem.weight, spikes.unsqueeze(-1)).currents.squeeze(-1)
    mem, syn, _ = problem.rates.unsqueeze(2).unbind(dim=1)
    slope = current * syn - problem.theta.unsqueeze(1) * mem
    scale = kept = torch.where(slope > 0, -grads.spikes / torch.where(slope > 0, slope, 1.0), 0.0)
    if limit is not None:
        if largest is None:
            largest = _largest(problem, events, at.unsqueeze(-1), torch.full_like(at, -math.inf)).squeeze(-1)
        kept = torch.where(largest * scale.abs() > limit.unsqueeze(1), 0.0, scale)
    at = torch.where(scale != 0, at, -math.inf)
    sums = tuple((scale * x).sum(dim=1) for x in by_taus) if taus else ()
    columns = [x.unsqueeze(-1).contiguous() for x in ((at, scale) if kept is scale else (at, scale, kept))]
    return _Jumps(columns[0], columns[1], columns[-1], -scale, sums)


def _of_trains(
    problem: Problem, events: Events, grads: Grads, result: Result, limit: Tensor | None, needs: Needs
) -> _Jumps:
    given, most, spikes = problem.given, problem.given.max_spikes, result.spikes.contiguous()
    currents, released = result.saved[3:] or scanned(problem, events, problem.weight, spikes)[1::2]
    count, asked = spikes.isfinite().sum(dim=-1), grads.spikes
    nothing = torch.zeros_like(spikes[..., 0])
    refractory, reset = resets(problem)
    since = nothing - math.inf if given.left is None else given.start + given.left
    of_end = final = by_left = of_reset = nothing
    if grads.state is not None:
        # the rest of the last refractory time moves along with the last spike, and holds the voltage
        unit, over = problem.unit.unsqueeze(1), result.overflows
        some, last = count > 0, (count - 1).clamp(min=0).unsqueeze(-1)
        free = torch.where(some, spikes.gather(-1, last).squeeze(-1) + given.refractory.unsqueeze(1), since)
        stays, voltage = (free > given.until) | over, grads.state.voltage * unit
        left = torch.where(stays & ~over, grads.state.left, 0.0)
        asked = asked.scatter_add(-1, last, torch.where(some, left, 0.0).unsqueeze(-1))
        by_left = torch.where(some, 0.0, left)
        of_end, of_reset = torch.where(stays, 0.0, voltage), torch.where(stays, voltage, 0.0)
        final = (grads.state.current * unit).contiguous()
    at, scale = (problem.new(2 * most + 2) for _ in range(2))
    kept = scale if limit is None else torch.empty_like(scale)
    last, by_threshold, by_start = torch.empty_like(count, dtype=torch.int32), problem.new(), problem.new(2)
    by_reset = problem.new()
    largest = nothing if limit is None else _largest(problem, events, spikes, since)
    # numbers would be in float32 in the kernel
    window = torch.cat([spikes.new_full((1,), x) for x in (given.start, given.until)])
    jump_kernel[(problem.ensemble * problem.batch, problem.tiles)](
        *(spikes, currents, released, count.int(), problem.rates, problem.theta, reset, refractory),
        *(asked.contiguous(), of_end, largest, nothing if limit is None else limit.contiguous(), since.contiguous()),
        *(at, scale, kept, last, by_threshold, by_reset, by_start, window, problem.batch, problem.outputs),
        SPIKES=most,
        START=given.state is not None,
        ENDS=grads.state is not None,
        BOUND=limit is not None,
        **problem.options,
    )
    by_voltage, by_left = by_start[..., 0], by_start[..., 1] + by_left
    return _Jumps(at, scale, kept, by_threshold, (), last, final, by_voltage, by_left, by_reset + of_reset)


def _largest(
    problem: Problem, events: Events, spikes: Float[Tensor, "E B O S"], since: Float[Tensor, "E B O"]
) -> Float[Tensor, "E B O S"]:
    """The largest response of the membrane at each spike to an input before it.

    ``kappa`` has one maximum, so that it is one of the two inputs around the time from which it is at its maximum at
    the spike, or the latest input before the membrane was released, of which a part is left then.
    """
    arrival, constants = events.arrival, problem.constants
    mem, syn, top = (x[:, None, :, None] for x in problem.rates.unbind(dim=1))
    taus = [tau[:, None, :, None] if isinstance(tau, Tensor) else tau for tau in constants]
    first = int(problem.given.state is not None)  # the rest of a state's current is no input
    time = torch.where(spikes.isfinite(), spikes, -math.inf)

    def place(x: Tensor) -> Tensor:
        return torch.searchsorted(arrival, x.flatten(2).contiguous()).view(x.shape)

    def of(x: Tensor) -> Tensor:
        return arrival.gather(-1, x.clamp(0, arrival.shape[-1] - 1).flatten(2)).view(x.shape)

    refractory, _ = resets(problem)
    release = torch.cat([since.unsqueeze(-1), spikes[..., :-1] + refractory[:, None, :, None]], dim=-1)
    low, high = place(release).clamp(min=first), place(time) - 1
    around = place(time - torch.where(mem > 0, top / syn, math.inf))
    found = torch.zeros_like(time)
    for nearest in (around - 1, around):
        nearest = torch.minimum(torch.maximum(nearest, low), high)
        fits = (nearest >= low) & time.isfinite()
        response = kappa(torch.where(fits, time - of(nearest), 0.0), *taus)
        found = torch.where(fits, torch.maximum(found, response), found)
    before = place(release) - 1
    fits = (before >= first) & time.isfinite() & release.isfinite() & (release < time)
    left = torch.exp(torch.where(fits, of(before) - release, 0.0) * syn)
    response = kappa(torch.where(fits, time - release, 0.0), *taus) * left
    return torch.where(fits, torch.maximum(found, response), found)


def chunks_of(batch: int, size: int) -> int:
    """Into how many chunks samples are divided, where gradients with respect to weights take that many bytes."""
    return min(batch, max(_FEWEST, min(_MOST, _MEMORY // size)))


def _delay(problem: Problem) -> Tensor:
    return problem.theta if problem.given.delay is None else problem.padded(problem.given.delay)


def _sums(problem: Problem, events: Events, jumps: _Jumps, needs: Needs) -> Gradients:
    """The needed gradients of times, weights, delays and the current at the start, in units of the neurons."""
    given, delayed, weight = problem.given, problem.given.delay is not None, problem.weight
    ensemble, batch, tiles = problem.ensemble, problem.batch, problem.tiles
    arrival, count, number = events.arrival, events.number, events.arrival.shape[2]
    chunks = chunks_of(batch, weight.nbytes)
    by_weight, by_delay = (
        given.times.new_zeros((ensemble, chunks, *weight.shape[1:]) if x in needs else 0) for x in ("weight", "delay")
    )
    by_times, by_current = given.times.new_zeros((ensemble, batch, number)), problem.new()
    order, delay, coefficients = problem.order(events), _delay(problem), problem.coefficients(arrival, backward=True)
    at_once = max(1, _MEMORY // by_times.nbytes)
    starts = not needs.isdisjoint(Held._fields)
    needed = starts or not needs.isdisjoint(("times", "weight", "delay"))
    for first in range(0, tiles if needed else 0, at_once):
        some = min(at_once, tiles - first)
        parts = given.times.new_zeros((some, *by_times.shape) if "times" in needs else 0)
        gradient_kernel[(ensemble * chunks, some)](
            *(arrival, order, count, coefficients, weight, delay, problem.rates, jumps.at, jumps.scale, jumps.kept),
            *(jumps.at if x is None else x for x in (jumps.last, jumps.final)),
            *(by_weight, parts, by_delay, by_current, batch, weight.shape[1], number, problem.outputs, weight.shape[2]),
            *(chunks, first),
            JUMPS=jumps.at.shape[-1],
            AGAIN=problem.again,
            START=starts,
            ENDS=jumps.final is not None,
            BOUND=jumps.kept is not jumps.scale,
            WEIGHT="weight" in needs,
            TIMES="times" in needs,
            DELAY="delay" in needs,
            DELAYED=delayed,
            **problem.options,
        )
        if "times" in needs:
            by_times += parts.sum(dim=0)
    if "times" in needs and not delayed:
        by_times = torch.empty_like(by_times).scatter_(-1, events.place.long(), by_times)
    own = (slice(None), slice(problem.inputs), slice(problem.outputs))
    found = {"times": by_times[..., : given.times[0, 0].numel()].reshape(given.times.shape), "current": by_current}
    if "weight" in needs:
        found["weight"] = by_weight.sum(dim=1)[own].transpose(1, 2) / problem.unit.unsqueeze(-1)
    if "delay" in needs:
        found["delay"] = by_delay.sum(dim=1)[own].transpose(1, 2)
    return found
