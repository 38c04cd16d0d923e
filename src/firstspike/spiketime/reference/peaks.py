"""How much the membranes of silent neurons lack, with its exact gradient: what a silent neuron can learn from.

The membrane of a neuron that does not spike has its maximum where its slope is 0, or at an arrival that ends its rise.
With the time t* of the maximum

    lack = threshold - V(t*),        dV(t*)/dw_i = kappa(t* - t_i),        dV(t*)/dt_i = -w_i kappa'(t* - t_i)

At a smooth maximum dV/dt is 0, so that t* itself need not be differentiated. A maximum at the arrival of input j, which
pulls the membrane down, moves along with it: there, dV(t*)/dt_j is the slope just before. A membrane that is followed
up to a fixed time only may have its maximum there, where t* does not move.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from firstspike.neuron import LIF
from firstspike.spiketime.reference.first_spikes import states
from firstspike.spiketime.reference.response import Tau, kappa, kappa_slope, leakless, membrane, peak

_CHUNK = 1 << 21  # (pair, input) values at once


class _Pairs(NamedTuple):
    """Some (sample, neuron) pairs: their indices, arrivals (pairs, inputs), weights, and time constants."""

    sample: Int64[Tensor, " pairs"]
    neuron: Int64[Tensor, " pairs"]
    arrival: Float[Tensor, "pairs inputs"]
    weight: Float[Tensor, "pairs inputs"]
    tau_mem: Tau
    tau_syn: Tau
    until: float
    """Nothing arrives then or later, and nothing counts."""


def lacking(
    times: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    silent: Bool[Tensor, "batch outputs"],
    delay: Float[Tensor, "outputs inputs"] | None = None,
    until: float = math.inf,
) -> Float[Tensor, "batch outputs"]:
    """How far below the threshold the membrane of a silent neuron stays; 0 for all others.

    Differentiable by times, weight and delay; the neuron's parameters count as constants. A membrane that never rises
    above rest lacks the whole threshold and has no gradient.

    Args:
        times: arrivals, ``inf`` for none.
        weight: of the synapses.
        neuron: time constants and threshold, each a number or a tensor ``()`` or ``(outputs,)``.
        silent: the pairs that did not spike.
        delay: of the synapses.
        until: later times play no part.
    """
    taus = _constants(neuron, len(weight))
    threshold = torch.as_tensor(neuron.threshold, dtype=weight.dtype, device=weight.device).detach()
    height: Tensor = _Height.apply(times, weight, delay, silent, *taus, until)[0]
    return torch.where(silent, (threshold - height).clamp(min=0), 0.0)


def _constants(neuron: LIF, outputs: int) -> list[Tau]:
    """Time constants without gradient, of tensors one for each output."""
    return [x.detach().expand(outputs) if isinstance(x, Tensor) else x for x in (neuron.tau_mem, neuron.tau_syn)]


def highest(
    times: Float[Tensor, " inputs"], weight: Float[Tensor, " inputs"], tau_mem: float, tau_syn: float
) -> tuple[float, float]:
    """Height and time of the maximum of one membrane; without leak, which never ends to rise, a late time."""
    one = torch.zeros(1, dtype=torch.int64, device=times.device)
    height, time, _ = _maximum(_Pairs(one, one, times[None], weight[None], tau_mem, tau_syn, math.inf))
    return float(height), float(time)


class MemberByMember(torch.autograd.Function):
    """A function of tensors that ``torch.func.vmap`` maps member after member, as its work depends on their values."""

    @classmethod
    def vmap(
        cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
        """See ``torch.autograd.Function``."""
        members = [
            cls.apply(*(x if dim is None else x.select(dim, k) for x, dim in zip(inputs, in_dims, strict=True)))
            for k in range(info.batch_size)
        ]
        found = tuple(None if x[0] is None else torch.stack(x) for x in zip(*members, strict=True))
        return found, tuple(None if x is None else 0 for x in found)


class Gradient(MemberByMember):
    """What a backward pass computes, as a function that can be mapped itself."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raise a NotImplementedError."""
        raise NotImplementedError("the maximum has first derivatives only, no Hessian")


class _Height(MemberByMember):
    """``(times, weight, delay, silent, tau_mem, tau_syn, until) -> (height, time, place)`` of the maximum, 0 elsewhere.

    ``place`` is the input at whose arrival the maximum is, or -1.
    """

    @staticmethod
    def forward(
        times: Tensor,
        weight: Tensor,
        delay: Tensor | None,
        silent: Tensor,
        tau_mem: Tau,
        tau_syn: Tau,
        until: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        height, time = (times.new_zeros(silent.shape) for _ in range(2))
        place = torch.full_like(silent, -1, dtype=torch.int64)
        for pairs in _pairs(times, weight, delay, silent, tau_mem, tau_syn, until):
            at = pairs.sample, pairs.neuron
            height[at], time[at], place[at] = _maximum(pairs)
        return height, time, place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        times, weight, delay, silent, *ctx.options = inputs
        _, time, place = output
        ctx.mark_non_differentiable(time, place)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(times, weight, delay, silent, time, place)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        return *_HeightGradient.apply(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None


class _HeightGradient(Gradient):
    """``(grad, times, weight, delay, silent, time, place, tau_mem, tau_syn, until) -> those by the first three``."""

    @staticmethod
    def forward(
        grad: Tensor,
        times: Tensor,
        weight: Tensor,
        delay: Tensor | None,
        silent: Tensor,
        time: Tensor,
        place: Tensor,
        *options: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        by_times, by_weight = torch.zeros_like(times), torch.zeros_like(weight)
        by_delay = None if delay is None else torch.zeros_like(delay)
        for pairs in _pairs(times, weight, delay, silent, *options):
            at = pairs.sample, pairs.neuron
            scale, peaks, ends = (x[at].unsqueeze(-1) for x in (grad, time, place))
            since = peaks - pairs.arrival
            causal, since = since > 0, since.clamp(min=0)
            each = torch.where(causal, scale * kappa(since, pairs.tau_mem, pairs.tau_syn), 0.0)
            by_weight.index_add_(0, pairs.neuron, each)
            slopes = scale * pairs.weight * kappa_slope(since, pairs.tau_mem, pairs.tau_syn)
            each = torch.where(causal, -slopes, 0.0)
            before = -each.sum(dim=1, keepdim=True) * (ends >= 0)
            each.scatter_add_(1, ends.clamp(min=0), before)
            by_times.index_add_(0, pairs.sample, each)
            if by_delay is not None:
                by_delay.index_add_(0, pairs.neuron, each)
        return by_times, by_weight, by_delay


def _pairs(
    times: Tensor, weight: Tensor, delay: Tensor | None, silent: Tensor, tau_mem: Tau, tau_syn: Tau, until: float
) -> Iterator[_Pairs]:
    """The silent pairs, as many at once as memory is worth."""
    found = silent.nonzero()
    for part in found.split(max(1, _CHUNK // max(1, times.shape[1]))) if len(found) and times.shape[1] else ():
        sample, neuron = part.unbind(1)
        arrival = times[sample] if delay is None else times[sample] + delay[neuron]
        arrival = torch.where(arrival < until, arrival, torch.inf)
        mem, syn = (x[neuron].unsqueeze(-1) if isinstance(x, Tensor) else x for x in (tau_mem, tau_syn))
        yield _Pairs(sample, neuron, arrival, weight[neuron], mem, syn, until)


def _maximum(pairs: _Pairs) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
    """Height and time of the maximum, and the input at whose arrival it is, or -1; height 0 where nothing rises."""
    tau_mem, tau_syn = pairs.tau_mem, pairs.tau_syn
    arrival, order = pairs.arrival.sort(dim=1)
    arrives = torch.isfinite(arrival)
    last = torch.where(arrives, arrival, -torch.inf).amax(1, keepdim=True)
    last = torch.where(torch.isfinite(last), last, 0.0)
    arrival = torch.where(arrives, arrival, last)
    weight = torch.where(arrives, pairs.weight.gather(1, order), 0.0)
    voltage, current = states(arrival, weight, tau_mem, tau_syn)
    duration = torch.diff(arrival, append=torch.full_like(last, pairs.until))
    if leakless(tau_mem):  # the membrane rises for ever, if it does at the end
        summit = torch.full_like(voltage, 40.0) * tau_syn
        height = voltage + current
        inside = (current > 0) & torch.isinf(duration)
    else:
        summit, height = peak(voltage, current, tau_mem, tau_syn)
        inside = (current / tau_syn > voltage / tau_mem) & (summit <= duration) & torch.isfinite(summit)
    # what never arrives stands, with weight 0, at the last arrival: no maximum is its own
    values = torch.where(inside, height, torch.where(arrives, voltage, -torch.inf))
    best, index = values.max(dim=1, keepdim=True)
    time = arrival.gather(1, index) + torch.where(inside, summit, 0.0).gather(1, index)
    place = torch.where(inside.gather(1, index), -1, order.gather(1, index))
    if pairs.until < torch.inf:
        end = membrane(pairs.until - last, voltage[:, -1:], current[:, -1:], tau_mem, tau_syn)
        time, place = torch.where(end > best, pairs.until, time), torch.where(end > best, -1, place)
        best = torch.maximum(end, best)
    rises = best > 0  # else the maximum is at rest, before anything arrives
    time = torch.where(rises, time, arrival[:, :1])
    place = torch.where(rises, place, -1)
    return best.clamp(min=0).squeeze(1), time.squeeze(1), place.squeeze(1)
