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

_GROUP = 8  # inputs that are scanned one after the other, at most


class Left(NamedTuple):
    """What is left of a state some time later."""

    mem: Tensor
    """Membrane of a membrane."""
    syn: Tensor
    """Current of a current."""
    response: Tensor
    """Membrane of a current."""


class Crossing(NamedTuple):
    """What membranes do until their first spike, or else until the end."""

    fires: Bool[Tensor, "..."]
    spike: Float[Tensor, "..."]
    """``inf`` for those that do not fire."""
    nth: Int64[Tensor, "..."]
    """The last input before the spike."""
    begin: Float[Tensor, "..."]
    """Its time."""
    current: Float[Tensor, "..."]
    """Just after it."""


def left_after(elapsed: Float[Tensor, "..."], tau_mem: Tau, tau_syn: Tau) -> Left:
    """After a finite time."""
    return Left(torch.exp(-elapsed / tau_mem), torch.exp(-elapsed / tau_syn), kappa(elapsed, tau_mem, tau_syn))


def accumulate(
    time: Float[Tensor, "N ..."],
    voltage: Float[Tensor, "N ..."],
    current: Float[Tensor, "N ..."],
    tau_mem: Tau,
    tau_syn: Tau,
) -> None:
    """Add what is left of all earlier inputs to what each input changes, in place: states just after each."""
    inputs = len(time)
    group = min(_GROUP, math.isqrt(max(1, inputs) - 1) + 1)
    if inputs <= _GROUP // 2:
        left = left_after(time.diff(dim=0), tau_mem, tau_syn)
        for k in range(1, inputs):
            _add((voltage[k], current[k]), (voltage[k - 1], current[k - 1]), Left(*(x[k - 1] for x in left)))
        return
    whole = inputs // group * group
    times, voltages, currents = (x[:whole].unflatten(0, (-1, group)) for x in (time, voltage, current))
    left = left_after(times.diff(dim=1), tau_mem, tau_syn)
    for k in range(1, group):
        of_group = Left(*(x[:, k - 1] for x in left))
        _add((voltages[:, k], currents[:, k]), (voltages[:, k - 1], currents[:, k - 1]), of_group)
    last = times[:, -1], voltages[:, -1].clone(), currents[:, -1].clone()
    accumulate(*last, tau_mem, tau_syn)
    begin, *before = (x[:-1].unsqueeze(1) for x in last)
    _add((voltages[1:], currents[1:]), before, left_after(times[1:] - begin, tau_mem, tau_syn))
    if whole < inputs:
        accumulate(*(x[whole - 1 :] for x in (time, voltage, current)), tau_mem, tau_syn)


def _add(now: Sequence[Tensor], before: Sequence[Tensor], left: Left) -> None:
    now[0].addcmul_(before[0], left.mem).addcmul_(before[1], left.response)
    now[1].addcmul_(before[1], left.syn)


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
    """Inputs that never arrive become such of weight 0 at the time of the last that does."""
    arrives = torch.isfinite(time)
    if not len(time):
        return time, weight
    last = torch.where(arrives, time, -math.inf).amax(0, keepdim=True)
    last = torch.where(torch.isfinite(last), last, 0.0)
    return torch.where(arrives, time, last), torch.where(arrives, weight, 0.0)


def first_crossing(
    time: Float[Tensor, "N ..."],
    voltage: Float[Tensor, "N ..."],
    current: Float[Tensor, "N ..."],
    end: float | Float[Tensor, "..."],
    threshold: Float[Tensor, "..."],
    tau_mem: Tau,
    tau_syn: Tau,
) -> Crossing:
    """When membranes first reach the threshold, from the states just after each input.

    It is found by the signs of V and dV/dt at both ends of each interval; the crossing itself is solved in the first
    one alone, in the closed form of the ratio of time constants (``solutions``).
    """
    following = torch.cat([time[1:], torch.as_tensor(end, dtype=time.dtype, device=time.device).expand_as(time[:1])])
    after = torch.cat([voltage[1:], _later(following[-1:] - time[-1:], voltage[-1:], current[-1:], tau_mem, tau_syn)])
    crosses = _crosses(voltage, current, after, following - time, threshold, tau_mem, tau_syn)
    fires = crosses.any(dim=0)
    first = crosses.to(torch.uint8).argmax(dim=0, keepdim=True)  # of equal values argmax takes the first
    begin, end, voltage, current = (
        x.expand_as(crosses).gather(0, first).squeeze(0) for x in (time, following, voltage, current)
    )
    wait = time_to_threshold(voltage, current, threshold, end - begin, tau_mem, tau_syn)
    # a membrane that does not rise can only be rounded up to the threshold, at the interval's end
    wait = torch.where(current / tau_syn > voltage / tau_mem, wait.clamp(min=0), end - begin)
    wait = torch.where(voltage >= threshold, 0.0, torch.minimum(wait, end - begin))
    # too soon after the input for the floats: the input stays causal
    spike = torch.minimum(torch.maximum(begin + wait, torch.nextafter(begin, end)), end)
    return Crossing(fires, torch.where(fires, spike, math.inf), first.squeeze(0), begin, current)


def _later(s: Tensor, voltage: Tensor, current: Tensor, tau_mem: Tau, tau_syn: Tau) -> Tensor:
    """Membrane after a time that may be infinite."""
    never = s.isinf()
    for_ever = voltage + current if leakless(tau_mem) else 0.0
    return torch.where(never, for_ever, membrane(s.masked_fill(never, 0.0), voltage, current, tau_mem, tau_syn))


def _crosses(
    voltage: Tensor, current: Tensor, after: Tensor, length: Tensor, threshold: Tensor, tau_mem: Tau, tau_syn: Tau
) -> Bool[Tensor, "..."]:
    """Whether membranes reach the threshold in intervals at whose end they are ``after``."""
    crosses = (after >= threshold) | (voltage >= threshold)
    if leakless(tau_mem):  # V rises towards V + I and never gets there, even if rounded so
        return crosses & ((voltage + current > threshold) | (voltage >= threshold))
    peaks = peaks_within(length, voltage, current, tau_mem, tau_syn, threshold)
    crosses[peaks.at] |= peaks.height >= threshold.expand(crosses.shape)[peaks.at]
    return crosses


class Peaks(NamedTuple):
    """Maxima between inputs."""

    at: tuple[Int64[Tensor, " peaks"], ...]
    """After which inputs."""
    since: Float[Tensor, " peaks"]
    height: Float[Tensor, " peaks"]


def peaks_within(
    length: Float[Tensor, "N ..."],
    voltage: Float[Tensor, "N ..."],
    current: Float[Tensor, "N ..."],
    tau_mem: Tau,
    tau_syn: Tau,
    least: Float[Tensor, "..."],
) -> Peaks:
    """Maxima of membranes in a time after their states, those that reach ``least`` among them.

    A membrane that rises is concave and stays below its tangent, so that only few need be evaluated. Without leak,
    where it never ends to rise, the maximum is a late time after the last input.
    """
    slope = current / tau_syn - voltage / tau_mem
    may = (slope > 0) & (torch.addcmul(voltage, slope, length, value=2) >= least)  # twice: whatever is rounded
    if leakless(tau_mem):
        may &= length.isinf()
    at = may.nonzero(as_tuple=True)
    length, voltage, current, mem, syn = (
        x.expand(may.shape)[at] if isinstance(x, Tensor) else x for x in (length, voltage, current, tau_mem, tau_syn)
    )
    if leakless(tau_mem):
        return Peaks(at, torch.full_like(voltage, 40.0) * syn, voltage + current)
    since, height = peak(voltage, current, mem, syn)
    inside = (since <= length) & torch.isfinite(since)
    return Peaks(tuple(x[inside] for x in at), since[inside], height[inside])
