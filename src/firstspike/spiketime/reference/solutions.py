"""When does V reach the threshold? The first interval in which it does, and the time in it.

That time follows from a state ``(voltage, current)`` below the threshold that is known to reach it:

* ``tau_mem = 2 tau_syn`` and ``tau_mem = tau_syn / 2``: V is a quadratic in ``exp(-s/tau_slow)``, where ``tau_slow``
  is the larger constant; the earlier root (Göltz et al. 2021, eq. 5).
* ``tau_mem = inf``: ``V(s) = V + I (1 - exp(-s/tau_syn))``.
* else Newton's method: V rises from the state to its peak and is concave there, so that a step from the left never
  passes the crossing. For ``tau_mem = tau_syn`` it finds the same root as Lambert's W (Göltz et al. 2021, eq. 3).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from firstspike.spiketime.maxima.scan import peaks_within
from firstspike.spiketime.response import Tau, Values, leakless, membrane, peak

_MAX_STEPS = 60  # about 6 are needed. Many only next to a tangent, where a step halves the distance


class Crossing(NamedTuple):
    """The course of membranes until their first spike."""

    fires: Bool[Tensor, "..."]
    spike: Values
    """``inf`` for those that do not fire."""
    nth: Int64[Tensor, "..."]
    """The last input before the spike, of those that fire."""
    time: Values
    """When that arrives."""
    current: Values
    """Just after it."""


def first_crossing(
    time: Values,
    voltage: Values,
    current: Values,
    end: Values,
    after: Values,
    threshold: Values,
    tau_mem: Tau,
    tau_syn: Tau,
) -> Crossing:
    """When membranes first reach the threshold, from the states just after each input.

    It is found by the signs of V and dV/dt at both ends of each interval. The crossing itself is solved in the first
    one alone. The last interval has an ``end``, and the membrane is ``after`` then.
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


def later(s: Values, voltage: Values, current: Values, tau_mem: Tau, tau_syn: Tau) -> Values:
    """Membrane at a time, which may be infinite, after a state."""
    never = s.isinf()
    for_ever = voltage + current if leakless(tau_mem) else 0.0
    return torch.where(never, for_ever, membrane(s.masked_fill(never, 0.0), voltage, current, tau_mem, tau_syn))


def time_to_threshold(
    voltage: Values, current: Values, threshold: Values, length: Values, tau_mem: Tau, tau_syn: Tau
) -> Values:
    """Time from the state to its first crossing of the threshold, not limited to the interval's ``length``.

    States that do not reach the threshold give any value, also NaN.
    """
    gap = threshold - voltage  # a short wait keeps its digits
    if leakless(tau_mem):  # where rounding may push it below the asymptote
        return -tau_syn * torch.log1p((-gap / current).clamp(min=-1))
    if not isinstance(tau_mem, Tensor) and not isinstance(tau_syn, Tensor):
        if tau_mem == 2 * tau_syn:
            return -tau_mem * torch.log1p(-_earlier_root(2 * current, 2 * current - voltage, gap))
        if tau_syn == 2 * tau_mem:
            return -tau_syn * torch.log1p(-_earlier_root(current - voltage, current - 2 * voltage, gap))
    summit, height = peak(voltage, current, tau_mem, tau_syn)
    # where the peak is inside, the parabola at the peak is a better start than the interval's begin
    curvature = current * torch.exp(-summit / tau_syn) / tau_syn**2
    from_peak = summit - torch.sqrt((2 * (height - threshold) / curvature).clamp(min=0))
    s = torch.where((from_peak > 0) & (summit <= length), from_peak, torch.zeros_like(from_peak))
    tolerance = 2 * torch.finfo(s.dtype).eps
    moves = torch.ones_like(s, dtype=torch.bool)  # each element stops by itself, whatever the others do
    for _ in range(_MAX_STEPS):
        value = membrane(s, voltage, current, tau_mem, tau_syn)
        slope = current * torch.exp(-s / tau_syn) / tau_syn - value / tau_mem
        step = torch.where(slope > 0, (threshold - value) / slope, torch.zeros_like(s))
        following = torch.minimum(s + step, summit).clamp(min=0)
        moves = moves & (following - s > tolerance * following)  # at the crossing rounding would step back
        if not bool(moves.any()):
            break
        s = torch.where(moves, following, s)
    return s


def _earlier_root(a: Values, b: Values, c: Values) -> Values:
    """The smaller root of ``a x^2 - b x + c = 0`` for ``b > 0``, without cancellation. A tangent's rounding is cut.

    Quotients instead of squares, which may overflow or vanish.
    """
    a, c = a / b, c / b
    return 2 * c / (1 + torch.sqrt((1 - 4 * a * c).clamp(min=0)))
