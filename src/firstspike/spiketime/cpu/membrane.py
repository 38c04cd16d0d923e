"""The membrane between two inputs: every formula, for time constants that neurons share and for those of each.

``Rates`` has values derived from the two time constants: numbers where all neurons share them, otherwise a vector with
a lane for each neuron. States are vectors: the membrane V and the current I, in units of the threshold, which is 1.
Over a time s without input

    V -> V exp(-s/tau_mem) + I kappa(s),      I -> I exp(-s/tau_syn),      dV/dt = I/tau_syn - V/tau_mem

The response is ``kappa(s) = (exp(-s/slower) - exp(-s/faster)) / (DELTA tau_syn)``, ``DELTA = |1/tau_syn - 1/tau_mem|``.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.arrays import DOUBLE, EQUAL
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import SMALL, exp, exp_and_expm1, expm1, log1p, polynomial, small_expm1
from firstspike.spiketime.cpu.vectors.simd import fma, power_of_two, select, splat, split_power, sqrt

ENOUGH = 1 - 1e-4  # what is left of a number after any rounding
SHORT = 0.05  # longest time for ``soon``, in units of the faster constant
_STRAIGHT = 0.015  # half the change of the slope on the way to the threshold for which ``soon`` is exact
MAX_STEPS = 60  # of a search with ``nearer``
_LATEST = 0.75  # u, see ``_of_quadratics``
_LATE = -0.95
_FAR = 40.0  # a leaky neuron that rises falls again before that many slower time constants


@inlined
def decays(s, r):
    """``exp(-s/slower)``, ``exp(-s/faster)``, and ``expm1(-s DELTA)``, which has no meaning for equal constants."""
    x, y = s * (r.slower * -1.0), s * (r.delta * -1.0)
    small = not (min(x, y) < -SMALL)  # where a part of each exponential gives the same digits
    if small:
        grown = small_expm1(x)
        slow = grown + 1.0
    else:
        slow, grown = exp_and_expm1(x)
    if r.kind == EQUAL:
        return slow, slow, grown
    if r.kind == DOUBLE:
        return slow, slow * slow, grown
    grown = small_expm1(y) if small else expm1(y)
    fast, late = fma(slow, grown, slow), grown < _LATE
    if late:  # no digits are left of the difference
        fast = select(late, exp(s * (r.faster * -1.0)), fast)
    return slow, fast, grown


@inlined
def fades(s, r):
    """``exp(-s/slower)``, ``exp(-s/faster)`` and ``kappa(s)`` of a vector of finite times ``s >= 0``."""
    slow, fast, grown = decays(s, r)
    return slow, fast, slow * s * r.syn if r.kind == EQUAL else slow * grown * (r.per_rise * -1.0)


@inlined
def responses(s, r):
    """The factors by time constant: ``exp(-s/tau_mem)``, ``exp(-s/tau_syn)`` and ``kappa(s)``."""
    slow, fast, rise = fades(s, r)
    leaks_slower = r.syn >= r.mem
    return select(leaks_slower, slow, fast), select(leaks_slower, fast, slow), rise


@inlined
def rise(wait, delta, per_rise):
    """``(1 - exp(-wait delta)) / (delta tau_syn)``, the response but for a factor that scaled states do not have."""
    return expm1(wait * -delta) * -per_rise


@jit
def kappa(s, c):
    """``kappa(s)`` of a number, also of ``inf``, from ``constants_array``."""
    if math.isinf(s):
        return c.mem * 0 if c.mem > 0 else c.syn * 0 + 1
    return math.exp(-s * min(c.mem, c.syn)) * rise(s, abs(c.delta), abs(c.per_rise))


@inlined
def peak(voltage, current, r):
    """Time and height of the maximum after rising states with positive currents, as in ``response.peak``."""
    ratio = voltage / current
    early = select(abs(r.x) < 1e-12, ratio, log1p(max(ratio * r.x, -1.0)) * (1.0 / r.x))
    early = min(early, r.top)  # rounding may let a state fall that barely rises
    return (early - r.top) * (-1.0 / r.syn), current * (exp(early) * r.height)


@jit
def exact_slope(times, order, weight, delay, width, c, spike, units):
    """dV/dt in double precision at a spike next to the peak, where it is the small difference of drive and leak.

    ``times`` have an ``order`` of arrival, or None if they stand as they are. Weights and, unless they are None, delays
    begin with those of the neuron, and are ``width`` apart. ``c`` has its constants. ``units`` are how many of their
    units are one of the times, and the threshold.
    """
    mem, syn = np.float64(c.mem) + np.float64(c.rest_mem), np.float64(c.syn) + np.float64(c.rest_syn)
    drive, (unit, level) = 0.0, units
    for k in range(times.size):
        i = k if order is None else np.intp(order[k])
        arrival = times[k] if delay is None else delay[i * width] + times[k]
        if arrival < spike:
            elapsed = (np.float64(spike) - np.float64(arrival)) * np.float64(unit)
            drive += np.float64(weight[i * width]) * math.exp(-elapsed * syn)
    return drive * syn - level * mem


class Scale(NamedTuple):
    """Scales of states that need no decay, as ``rows.intervals`` explains."""

    mem: Any  # what brings V to scale 1
    syn: Any  # the same of I
    threshold: Any  # at the end
    ratio: Any  # tau_syn/tau_mem where V and I have their scales
    ratio_end: Any  # the same at the end


@inlined
def reaches(voltage, current, wait, end, current_end, candidates, r):
    """The candidates that reach the threshold within ``wait``, which may be ``inf``, and the latest time for it.

    A lane does if it ends above the threshold, or if it rises first and falls at the end, and its peak is high enough.
    """
    plain = Scale(1.0, 1.0, 1.0, r.ratio, r.ratio)
    return reaches_scaled(voltage, current, wait, end, current_end, candidates, r, plain)


@inlined
def reaches_scaled(voltage, current, wait, end, current_end, candidates, r, scale):
    """``reaches`` for scaled states, also those at the end."""
    leaks, limit = (max(splat(voltage, 0.0), r.mem) > 0.0) & candidates, wait
    crosses = (end >= scale.threshold) & candidates
    # rounding may reach what a membrane without leak only approaches
    crosses &= leaks | (fma(voltage, scale.mem, current * scale.syn) > 1.0)
    # where V follows the current closely, rounding decides whether it falls at the end: the time of the peak tells
    falls = (current_end * ENOUGH < end * scale.ratio_end) | (wait * r.slower > _FAR)
    peaks = (current > voltage * scale.ratio) & falls & leaks & ~crosses
    high = current * (r.height * scale.syn)
    peaks &= (fma(voltage, scale.mem, high) >= ENOUGH) | (high >= ENOUGH)
    if peaks:
        time, height = peak(voltage * scale.mem, current * scale.syn, r)
        peaks &= (height >= 1.0) & (wait >= time)
        limit = select(peaks, min(time, wait), limit)
    endless = crosses & ~(wait < math.inf)
    if endless:  # no leak: the wait, rounded up
        left = min((1.0 - voltage) / current, 1 - 1e-16)
        limit = select(endless, min(log1p(left * -1.0) * (-1 - 1e-6), _FAR) / r.syn, limit)
    return crosses | peaks, limit


@inlined
def nearer(s, low, high, gap, voltage, drive, r):
    """A step of the search for the threshold: the next time, the bounds, and how far from the root the former may be.

    It goes to the root of the parabola at ``s``, costs as much as Newton's, and triples the digits. ``gap`` is the
    membrane's distance from the threshold at ``s``, ``drive`` the current's part of its slope.
    """
    slope = drive - voltage * r.mem
    curve = drive * (r.syn * -1.0) - slope * r.mem
    before = (gap > 0.0) & (slope > 0.0)
    low, high = select(before, s, low), select(before, high, s)
    following = s + gap * 2.0 / (slope + sqrt(max(slope * slope + curve * gap * 2.0, 0.0)))
    following = select(high >= following, following, high)
    inside = following >= low
    following = select(inside, following, (low + high) * 0.5)
    # a halving says nothing of how near the root is, but the bounds do
    return following, low, high, select(inside, abs(following - s), high - low)


@chosen_by_type
def limits_of(x):
    """The largest number whose square is far from overflow, and a quarter of a unit in the last place of 1."""
    limits = (2.0**40, 2.0**-25) if x.dtype == types.float32 else (2.0**400, 2.0**-54)
    return lambda x: limits


@jit
def crossings(voltage, current, limit, fired, r):
    """First roots of ``V(s) = 1``, up to ``limit``, of the lanes ``fired``, and ``dV/ds + 1/tau_mem`` there.

    Where one time constant is twice the other, in closed form, unless the root is late. A lane stops by itself, so that
    its last digits do not depend on its neighbours.
    """
    most, tolerance = limits_of(voltage)
    unit, size = splat(voltage, 1.0), max(abs(voltage), abs(current * r.syn))
    if (size > most) & fired:
        exponent, _ = split_power(max(size, 1.0))
        unit = power_of_two(exponent * -1.0)
        voltage, current = voltage * unit, current * unit
    s, high, value, drive, going = splat(voltage, 0.0), limit, voltage, current * r.syn, fired
    low = s
    if r.kind == DOUBLE:
        s, drive, going = _of_quadratics(value, drive, unit - value, limit, fired, r)
    for _ in range(MAX_STEPS):
        if not going:
            break
        following, low, high, moved = nearer(s, low, high, unit - value, value, drive, r)
        # what a step leaves is about its third power, in units of the faster time constant
        part = moved * r.faster
        moves = (part * part * part > min(following * r.faster, 1.0) * tolerance) & going
        # after the last step, which is short, three terms of the exponential
        part = (following - s) * (r.syn * -1.0)
        drive = select(going, fma(drive * part, fma(part, 0.5, 1.0), drive), drive)
        s, going = select(going, following, s), moves
        if going:
            mem, syn, response = responses(s, r)
            value = select(going, fma(voltage, mem, current * response), value)
            drive = select(going, current * syn * r.syn, drive)
    return s, drive / unit


@inlined
def _of_quadratics(value, drive, gap, limit, fired, r):
    """``crossings`` where one time constant is twice the other, and the lanes that are left for the search.

    There V is a quadratic in ``u = 1 - exp(-s/tau)``, with tau the longer one: ``V(u) = V + b u - a u^2``. Of late
    roots, u next to 1, ``s`` loses digits. Quotients instead of squares, which may overflow or vanish.
    """
    force, leaks_slower = drive * (1 / r.slower), r.syn >= r.mem
    a = select(leaks_slower, force, force - value)
    b = select(leaks_slower, force - value, force - value * 2.0)
    a, begin = a / b, gap / b
    u = begin * 2.0 / (sqrt(max(1.0 - a * begin * 4.0, 0.0)) + 1.0)
    early = (b > 0.0) & (u >= 0.0) & (u < _LATEST) & fired
    wait, decay = log1p(u * -1.0) * (-1 / r.slower), 1.0 - u
    decay = select(leaks_slower, decay * decay, decay)
    return select(early, min(wait, limit), 0.0), select(early, drive * decay, drive), fired & ~early


@inlined
def soon(voltage, current, limit, r):
    """``crossings`` of states that reach the threshold soon, for float32, and the lanes for which they are exact.

    Times are the inverse of the series of V.
    """
    drive, mem, syn = current * r.syn, r.mem * -1.0, r.syn * -1.0
    first = fma(voltage, mem, drive)
    second = fma(first, mem, drive * syn)
    third = fma(second, mem, drive * (syn * syn))
    fourth = fma(third, mem, drive * (syn * syn * syn))
    inverse = 1.0 / first
    u = (1.0 - voltage) * inverse
    c2, c3, c4 = second * inverse * 0.5, third * inverse * (1 / 6), fourth * inverse * (1 / 24)
    square = c2 * c2
    cubic = c2 * fma(c3, 5.0, square * -5.0) - c4
    s = u * fma(fma(fma(cubic, u, fma(square, 2.0, c3 * -1.0)), u, c2 * -1.0), u, 1.0)
    slope = fma(fma(fma(fourth, s * (1 / 3), third), s * 0.5, second), s, first)
    return s, slope + r.mem, (abs(c2 * u) < _STRAIGHT) & (s >= 0.0) & (limit >= s)


# (exp(x) - 1 - x) / x**2 for |x| < 1/2, where the rest is less than half a unit in the last place
_first = polynomial(*([1 / math.factorial(n + 2) for n in range(terms)] for terms in (8, 14)))


@inlined
def derivatives(s, r):
    """``responses``, then derivatives of ``kappa(s)`` by the logarithms of tau_mem and tau_syn, for ``s >= 0``.

    With ``y = s DELTA`` the response and its derivatives consist of

        G_0 = (1 - exp(-y)) / y,     G_1 = (y - 1 + exp(-y)) / y^2 = (1 - G_0) / y,     G_2 = G_0 - G_1
    """
    slow, fast, grown = decays(s, r)
    rise = slow * s * r.syn if r.kind == EQUAL else slow * grown * (r.per_rise * -1.0)
    y, grown = s * r.delta, grown * -1.0
    series, large = _first(y * -1.0), max(y, 0.5)
    small = y < 0.5
    zeroth = select(small, fma(y * -1.0, series, 1.0), grown / large)
    first = select(small, series, (zeroth * -1.0 + 1.0) / large)
    common = s * r.syn * slow
    of_slower, of_faster = s * r.slower, s * r.faster
    # G_2 loses digits as a difference where y is large, and its product with y^2 must not overflow
    steep, second = (grown - y * (grown * -1.0 + 1.0)) / large, zeroth - first
    by_slower = common * first * of_slower
    by_faster = common * select(y >= 1.0, steep * (of_faster / large), second * of_faster)
    leaks_slower = r.syn >= r.mem
    mem, syn = select(leaks_slower, slow, fast), select(leaks_slower, fast, slow)
    by_mem, by_syn = select(leaks_slower, by_slower, by_faster), select(leaks_slower, by_faster, by_slower)
    return mem, syn, rise, by_mem, by_syn - common * zeroth


# of (1 - exp(-x))/x, the highest power's first: for brief times the rest is less than half a unit in the last place
_BRIEF_32, _BRIEF_64 = (tuple((-1) ** n / math.factorial(n + 1) for n in range(top, -1, -1)) for top in (3, 7))


@chosen_by_type
def terms_of(x):
    """The terms for a vector."""
    terms = _BRIEF_32 if x.dtype == types.float32 else _BRIEF_64
    return lambda x: terms


@inlined
def brief(s, r):
    """``responses`` for times up to BRIEF, by power series.

    With ``x = s/tau_mem`` and ``z = s/tau_syn``, Horner's scheme for ``exp(-x)`` has on its way the terms of that for
    ``(exp(-x) - exp(-z)) / (z - x)``.
    """
    x, z, terms = s * r.mem, s * r.syn, terms_of(s)
    grown = fma(x, terms[0], terms[1])
    mean = fma(z, terms[0], grown)
    for term in terms[2:]:
        grown = fma(grown, x, term)
        mean = fma(mean, z, grown)
    mem = fma(grown * -1.0, x, 1.0)
    return mem, fma(mean * -1.0, z - x, mem), mean * z


@inlined
def brief_derivatives(s, r):
    """``derivatives`` for times up to BRIEF."""
    mem, syn, rise = brief(s, r)
    by_mem = mem * _first(s * (r.mem - r.syn)) * (s * r.syn) * (s * r.mem)
    return mem, syn, rise, by_mem, s * fma(rise, r.mem, syn * (r.syn * -1.0)) - by_mem
