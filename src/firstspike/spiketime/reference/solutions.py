"""When does V reach the threshold? The first interval in which it does, and the time in it.

That time is in closed form for some ratios of time constants, and from a root finder for the rest. All start from a
state ``(voltage, current)`` below the threshold that is known to reach it. Written with ``gap = threshold - voltage``,
so that a short wait keeps its digits:

* ``tau_mem = tau_syn = tau``: ``V(s) = (V + I s/tau) exp(-s/tau)``, solved by Lambert's W
  (Göltz et al. 2021, eq. 3, for a single state).
* ``tau_mem = 2 tau_syn`` and ``tau_mem = tau_syn / 2``: V is a quadratic in ``exp(-s/tau_slow)``, where ``tau_slow``
  is the larger constant; the earlier root (Göltz et al. 2021, eq. 5).
* ``tau_mem = inf``: ``V(s) = V + I (1 - exp(-s/tau_syn))``.
* else, and where neurons differ in their constants, Newton's method: V rises from the state to its peak and is concave
  there, so that a step from the left never passes the crossing.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from firstspike.spiketime.reference.response import Tau, leakless, membrane, peak

_Values = Float[Tensor, "E B O"]
_LATE = 40.0  # time constants
_MAX_NEWTON_STEPS = 60  # about 6 are needed; many only next to a tangent, where a step halves the distance

# 1/e as a sum of two doubles: z + 1/e keeps its leading digits next to the branch point z = -1/e.
_INV_E_HI = 0.36787944117144233
_INV_E_LO = -1.2428753672788363e-17
_E = 2.718281828459045

# W_0 = sum_k c_k p^k with p = sqrt(2 (e z + 1)); Corless et al. 1996, eq. 4.22.
_BRANCH_SERIES = (
    -1.0,
    1.0,
    -1 / 3,
    11 / 72,
    -43 / 540,
    769 / 17280,
    -221 / 8505,
    680863 / 43545600,
    -1963 / 204120,
    226287557 / 37623398400,
    -5776369 / 1515591000,
)
_LAMBERT_SERIES_BELOW = 0.05  # the first term left out is then below 1e-16
_LAMBERT_TOLERANCE = 1e-15
_MAX_LAMBERT_STEPS = 8


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


def time_to_threshold(
    voltage: _Values,
    current: _Values,
    threshold: Float[Tensor, "E 1 O"],
    length: _Values,
    tau_mem: Tau,
    tau_syn: Tau,
) -> _Values:
    """Time from the state to its first crossing of the threshold, not limited to the interval's ``length``.

    States that do not reach the threshold give any value, also NaN.
    """
    gap = threshold - voltage
    if leakless(tau_mem):
        return -tau_syn * torch.log1p((-gap / current).clamp(min=-1))  # rounding may push it below the asymptote
    if isinstance(tau_mem, Tensor) or isinstance(tau_syn, Tensor):
        return _newton(voltage, current, threshold, length, tau_mem, tau_syn)
    ratio = tau_mem / tau_syn
    if ratio == 1:
        return _equal(voltage, current, threshold, tau_syn)
    if ratio == 2:
        return -tau_mem * torch.log1p(-_earlier_root(2 * current, 2 * current - voltage, gap))
    if ratio == 0.5:
        return -tau_syn * torch.log1p(-_earlier_root(current - voltage, current - 2 * voltage, gap))
    return _newton(voltage, current, threshold, length, tau_mem, tau_syn)


def _equal(voltage: _Values, current: _Values, threshold: Tensor, tau: float) -> _Values:
    dtype, current = current.dtype, current.double()
    r = voltage / current
    # rounding may push a tangent's argument below the branch point
    z = (-(threshold / current) * torch.exp(-r)).clamp(min=-math.exp(-1))
    return (tau * (-r - lambert_w0(z))).to(dtype)


def _earlier_root(a: _Values, b: _Values, c: _Values) -> _Values:
    """The smaller root of ``a x^2 - b x + c = 0`` for ``b > 0``, without cancellation; a tangent's rounding is cut.

    Quotients instead of squares, which may overflow or vanish.
    """
    a, c = a / b, c / b
    return 2 * c / (1 + torch.sqrt((1 - 4 * a * c).clamp(min=0)))


def _newton(
    voltage: _Values, current: _Values, threshold: Tensor, length: _Values, tau_mem: Tau, tau_syn: Tau
) -> _Values:
    summit, height = peak(voltage, current, tau_mem, tau_syn)
    # where the peak is inside, the parabola at the peak is a better start than the interval's begin
    curvature = current * torch.exp(-summit / tau_syn) / tau_syn**2
    from_peak = summit - torch.sqrt((2 * (height - threshold) / curvature).clamp(min=0))
    s = torch.where((from_peak > 0) & (summit <= length), from_peak, torch.zeros_like(from_peak))
    tolerance = 2 * torch.finfo(s.dtype).eps
    moves = torch.ones_like(s, dtype=torch.bool)  # each element stops by itself, whatever the others do
    for _ in range(_MAX_NEWTON_STEPS):
        value = membrane(s, voltage, current, tau_mem, tau_syn)
        slope = current * torch.exp(-s / tau_syn) / tau_syn - value / tau_mem
        step = torch.where(slope > 0, (threshold - value) / slope, torch.zeros_like(s))
        following = torch.minimum(s + step, summit).clamp(min=0)
        moves = moves & (following - s > tolerance * following)  # at the crossing rounding would step back
        if not bool(moves.any()):
            break
        s = torch.where(moves, following, s)
    return s


def lambert_w0(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The solution w >= -1 of ``w exp(w) = z``.

    Computed in float64 and returned in the type of ``z``; relative error below 2e-15 for every ``z >= -1/e``; NaN
    below. Not differentiable by autograd: the operator has its own derivative.

    Source: Corless, Gonnet, Hare, Jeffrey, Knuth 1996; iteration of Fritsch, Shafer, Crowley 1973.
    """
    with torch.no_grad():
        dtype, z = z.dtype, z.double()
        p_squared = 2 * _E * ((z + _INV_E_HI) + _INV_E_LO)
        p = p_squared.clamp(min=0).sqrt()
        near_branch = torch.zeros_like(p)
        for coefficient in reversed(_BRANCH_SERIES):
            near_branch = near_branch * p + coefficient

        series_start = -1 + p * (1 - p * (1 / 3 - p * (11 / 72)))
        log = torch.log1p(z.clamp(min=-0.25))
        log_start = log * (1 - torch.log1p(log) / (2 + log))
        w = torch.where(z < -0.25, series_start, log_start)
        usable = (p > _LAMBERT_SERIES_BELOW) & (w != 0) & torch.isfinite(z)
        for _ in range(_MAX_LAMBERT_STEPS):
            # residual of w + log w = log z, free of cancellation for large z
            safe = torch.where(usable, w, torch.ones_like(w))
            residual = torch.log((z / safe).clamp(min=torch.finfo(torch.float64).tiny)) - safe
            q = 2 * (1 + safe) * (1 + safe + residual * (2 / 3))
            relative = residual / (1 + safe) * (q - residual) / (q - 2 * residual)
            relative = torch.where(usable, relative, torch.zeros_like(relative))
            w = torch.where(usable, safe * (1 + relative), w)
            usable = usable & (relative.abs() > _LAMBERT_TOLERANCE)
            if not bool(usable.any()):
                break
        w = torch.where(p <= _LAMBERT_SERIES_BELOW, near_branch, w)
        w = torch.where((w == 0) | (z == torch.inf), z, w)  # 0 also next to it, where w underflows: w = z - z^2
        return torch.where(z >= -_INV_E_HI, w, torch.full_like(w, torch.nan)).to(dtype)
