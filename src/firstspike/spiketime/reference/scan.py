"""From input to input: the state of a membrane just after each, and the first time at which it reaches the threshold.

The state just after input k, membrane ``V_k`` and current ``Q_k``, gives everything until the next input:

    V(t_k + s) = V_k exp(-s/tau_mem) + Q_k kappa(s),          I(t_k + s) = Q_k exp(-s/tau_syn)

States add once they are brought to the same time, so that inputs need not be taken one after the other: groups of a
few are scanned side by side, the ends of the groups in the same way, and the state in which each group begins is added
to what happens in it. Nothing overflows at any time scale.

Inputs are in the first dimension of all tensors here. Times broadcast: neurons without delays of their own share them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from firstspike.spiketime.reference.response import Tau, kappa, leakless, membrane, peak
from firstspike.spiketime.reference.solutions import time_to_threshold

_LATE = 40.0  # time constants
_GROUP = 8  # inputs that are scanned one after the other, at most


class Crossing(NamedTuple):
    """What membranes do until their first spike."""

    fires: Bool[Tensor, "..."]
    spike: Float[Tensor, "..."]
    """``inf`` for those that do not fire."""
    nth: Int64[Tensor, "..."]
    """The last input before the spike, of those that fire."""
    time: Float[Tensor, "..."]
    """When that arrives."""
    current: Float[Tensor, "..."]
    """Just after it."""


def in_order(
    arrival: Float[Tensor, "... N"], weight: Float[Tensor, "... N"], most: int | None = None
) -> tuple[Float[Tensor, "N ..."], Float[Tensor, "N ..."], Int64[Tensor, "N ..."]]:
    """Inputs sorted by time: when they arrive, with which weight, and which they are; the first ``most`` of them."""
    time, order = (x[..., :most].movedim(-1, 0).contiguous() for x in arrival.sort(dim=-1, stable=True))
    shape = torch.broadcast_shapes(arrival.shape, weight.shape)[:-1]
    weight = weight.movedim(-1, 0).contiguous().expand(-1, *shape).gather(0, order.expand(-1, *shape))
    return time, weight, order


def settled(
    time: Float[Tensor, "N ..."], weight: Float[Tensor, "N ..."]
) -> tuple[Float[Tensor, "N ..."], Float[Tensor, "N ..."]]:
    """Sorted inputs, of which those that never arrive become such of weight 0 at the time of the last that does."""
    arrives = torch.isfinite(time)
    last = torch.where(arrives, time, -math.inf).amax(0, keepdim=True)
    last = torch.where(torch.isfinite(last), last, 0.0)
    return torch.where(arrives, time, last), torch.where(arrives, weight, 0.0)


def accumulate(
    time: Float[Tensor, "N ..."],
    voltage: Float[Tensor, "N ..."],
    current: Float[Tensor, "N ..."],
    tau_mem: Tau,
    tau_syn: Tau,
) -> None:
    """Add what is left of all earlier inputs to what each input changes, in place: states just after each."""
    inputs, taus = len(time), (tau_mem, tau_syn)
    if inputs <= _GROUP:
        _one_after_the_other(0, time, voltage, current, *taus)
        return
    group = min(_GROUP, math.isqrt(inputs - 1) + 1)
    whole = inputs // group * group
    times, voltages, currents = (x[:whole].unflatten(0, (-1, group)) for x in (time, voltage, current))
    _one_after_the_other(1, times, voltages, currents, *taus)
    last = times[:, -1], voltages[:, -1].clone(), currents[:, -1].clone()
    accumulate(*last, *taus)
    begin, *before = (x[:-1].unsqueeze(1) for x in last)
    _add((voltages[1:], currents[1:]), before, _left_after(times[1:] - begin, *taus))
    if whole < inputs:
        accumulate(time[whole - 1 :], voltage[whole - 1 :], current[whole - 1 :], *taus)


def _one_after_the_other(dim: int, time: Tensor, voltage: Tensor, current: Tensor, *taus: Tau) -> None:
    left = zip(*(x.unbind(dim) for x in _left_after(time.diff(dim=dim), *taus)), strict=True)
    states = list(zip(voltage.unbind(dim), current.unbind(dim), strict=True))
    for before, now, of_before in zip(states, states[1:], left, strict=False):
        _add(now, before, of_before)


def _left_after(elapsed: Tensor, tau_mem: Tau, tau_syn: Tau) -> tuple[Tensor, Tensor, Tensor]:
    """What is left of a membrane and of a current, and the membrane that a current of 1 has caused."""
    return torch.exp(-elapsed / tau_mem), torch.exp(-elapsed / tau_syn), kappa(elapsed, tau_mem, tau_syn)


def _add(now: Sequence[Tensor], before: Sequence[Tensor], left: Sequence[Tensor]) -> None:
    """Add what is left of a membrane and a current to those now."""
    (voltage, current), (mem, syn, response) = before, left
    now[0].addcmul_(voltage, mem).addcmul_(current, response)
    now[1].addcmul_(current, syn)


def first_crossing(
    time: Float[Tensor, "N ..."],
    voltage: Float[Tensor, "N ..."],
    current: Float[Tensor, "N ..."],
    end: Float[Tensor, "..."],
    after: Float[Tensor, "..."],
    threshold: Float[Tensor, "..."],
    tau_mem: Tau,
    tau_syn: Tau,
) -> Crossing:
    """When membranes first reach the threshold, from the states just after each input.

    It is found by the signs of V and dV/dt at both ends of each interval; the crossing itself is solved in the first
    one alone, in the closed form of the ratio of time constants (``solutions``).

    Args:
        time: of the inputs, sorted.
        voltage: membrane just after each.
        current: just after each.
        end: of the last interval.
        after: membrane then.
        threshold: of each neuron.
        tau_mem: number, or one for each neuron.
        tau_syn: likewise.
    """
    following = torch.cat([time[1:], end.expand(time[:1].shape)])
    crosses = torch.cat([voltage[1:], after.expand(voltage[:1].shape)]) >= threshold
    if leakless(tau_mem):  # V rises towards V + I and never gets there, even if rounded so
        crosses &= voltage + current > threshold
    else:
        inside, _, height = peaks_within(following - time, voltage, current, tau_mem, tau_syn)
        crosses |= inside & (height >= threshold)
    crosses[0] |= voltage[0] >= threshold
    place = torch.arange(len(crosses), dtype=torch.int32, device=time.device)  # whose minimum is faster than of int64
    nth = torch.where(crosses, place.view(-1, *(1,) * (crosses.ndim - 1)), len(crosses)).amin(dim=0).long()
    fires, first = nth < len(crosses), nth.clamp(max=len(crosses) - 1).unsqueeze(0)
    time, following, voltage, current = (
        x.expand(crosses.shape).gather(0, first).squeeze(0) for x in (time, following, voltage, current)
    )
    length = following - time
    wait = time_to_threshold(voltage, current, threshold, length, tau_mem, tau_syn)
    # a membrane that does not rise can only be rounded up to the threshold, at the interval's end
    wait = torch.where(current / tau_syn > voltage / tau_mem, wait.clamp(min=0), length)
    wait = torch.where(voltage >= threshold, 0.0, torch.minimum(wait, length))
    # too soon after the input for the floats: the input stays causal
    spike = torch.minimum(torch.maximum(time + wait, torch.nextafter(time, following)), following)
    return Crossing(fires, torch.where(fires, spike, math.inf), nth, time, current)


def peaks_within(
    length: Float[Tensor, "..."],
    voltage: Float[Tensor, "..."],
    current: Float[Tensor, "..."],
    tau_mem: Tau,
    tau_syn: Tau,
) -> tuple[Bool[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Which membranes have a maximum within a time after their states, how long after, and how high it is.

    Without leak, where V rises towards V + I for ever, it is a late time.
    """
    if leakless(tau_mem):
        return (current > 0) & length.isinf(), torch.full_like(voltage, _LATE) * tau_syn, voltage + current
    since, height = peak(voltage, current, tau_mem, tau_syn)
    rises = current / tau_syn > voltage / tau_mem
    return rises & (since <= length), since, height


def later(
    s: Float[Tensor, "..."], voltage: Float[Tensor, "..."], current: Float[Tensor, "..."], tau_mem: Tau, tau_syn: Tau
) -> Float[Tensor, "..."]:
    """Membrane at a time, which may be infinite, after a state."""
    never = s.isinf()
    for_ever = voltage + current if leakless(tau_mem) else 0.0
    return torch.where(never, for_ever, membrane(s.masked_fill(never, 0.0), voltage, current, tau_mem, tau_syn))
