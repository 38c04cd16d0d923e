"""The membrane between two inputs: every formula, for time constants that neurons share and for those of each.

``Rates`` has what follows from the two time constants: numbers where all neurons share them, otherwise a vector with a
lane for each neuron. States are vectors: the membrane V and the current I, in units of the threshold, which is 1. Over
a time s without input

    V -> V exp(-s/tau_mem) + I kappa(s),      I -> I exp(-s/tau_syn),      dV/dt = I/tau_syn - V/tau_mem

The response is ``kappa(s) = (exp(-s/slower) - exp(-s/faster)) / (DELTA tau_syn)``, ``DELTA = |1/tau_syn - 1/tau_mem|``.
Next to equal constants DELTA is kept off 0, so that ``expm1(s DELTA) / DELTA`` is right without a case of its own.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

from numba.core import types

from firstspike.spiketime.cpu.constants import (
    DELTA,
    DOUBLE,
    EQUAL,
    HEIGHT,
    KIND,
    LANES,
    PER_MEM,
    PER_RISE,
    PER_SYN,
    RATIO,
    TOP,
    X,
)
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import (
    SMALL,
    exp,
    exp_and_expm1,
    expm1,
    log1p,
    polynomial,
    small_expm1,
)
from firstspike.spiketime.cpu.vectors.simd import absolute, all_of, fma, load32, maximum, minimum, select, sqrt, those

ENOUGH = 1 - 1e-4  # what is left of a number after any rounding
SHORT = 0.05  # longest time for ``soon``, in units of the faster constant
STRAIGHT = 0.015  # half the change of the slope on the way to the threshold for which ``soon`` is exact
MAX_STEPS = 60  # of a search with ``nearer``
_LATE = -0.95
_FAR = 40.0  # a leaky neuron that rises falls again before that many slower time constants


class Rates(NamedTuple):
    """What follows from the time constants of a neuron, or of many in the lanes of vectors."""

    mem: Any
    """1/tau_mem."""
    syn: Any
    """1/tau_syn."""
    slower: Any
    """The smaller of both."""
    faster: Any
    delta: Any
    """DELTA."""
    per_rise: Any
    """1/(DELTA tau_syn)."""
    ratio: Any
    """tau_syn/tau_mem."""
    x: Any
    """1 - ratio."""
    top: Any
    """Time of kappa's maximum in units of tau_syn: -log(1 - x)/x."""
    height: Any
    """Value of kappa there."""
    kind: Any
    """Which short cuts the constants of all lanes allow, see ``constants``."""


@inlined
def rates_of(c):
    """Those that all neurons share, from ``constants_array``."""
    a, b = c[PER_MEM], c[PER_SYN]
    return Rates(
        a, b, min(a, b), max(a, b), abs(c[DELTA]), abs(c[PER_RISE]), c[RATIO], c[X], c[TOP], c[HEIGHT], c[KIND]
    )


@inlined
def rates_in(c):
    """Those of neurons on their own, from ``fill_rates``."""
    a, b = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES)
    return Rates(
        a, b, minimum(a, b), maximum(a, b), load32(c, DELTA * LANES), load32(c, PER_RISE * LANES),
        load32(c, RATIO * LANES), load32(c, X * LANES), load32(c, TOP * LANES), load32(c, HEIGHT * LANES), c[KIND, 0],
    )  # fmt: skip


@inlined
def decays(s, r):
    """``exp(-s/slower)``, ``exp(-s/faster)``, and ``expm1(-s DELTA)``, which has no meaning for equal constants."""
    x, y = s * (r.slower * -1.0), s * (r.delta * -1.0)
    small = all_of(minimum(x, y) >= -SMALL, x)  # where a part of each exponential gives the same digits
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
def responses(s, r):
    """``exp(-s/tau_mem)``, ``exp(-s/tau_syn)`` and ``kappa(s)`` of a vector of finite times ``s >= 0``."""
    slow, fast, grown = decays(s, r)
    rise = slow * s * r.syn if r.kind == EQUAL else slow * grown * (r.per_rise * -1.0)
    leaks_slower = r.syn >= r.mem
    return select(leaks_slower, slow, fast), select(leaks_slower, fast, slow), rise


@jit
def kappa(s, c):
    """``kappa(s)`` of a number, also of ``inf``, from ``constants_array``."""
    if math.isinf(s):
        return c[PER_MEM] * 0 if c[PER_MEM] > 0 else c[PER_SYN] * 0 + 1
    slow = min(c[PER_MEM], c[PER_SYN])
    return math.exp(-s * slow) * -math.expm1(-s * abs(c[DELTA])) * abs(c[PER_RISE])


@inlined
def peak(voltage, current, r):
    """Time and height of the maximum after rising states with positive currents, as in ``response.peak``."""
    ratio = voltage / current
    early = select(absolute(r.x) < 1e-12, ratio, log1p(maximum(ratio * r.x, -1.0)) * (1.0 / r.x))
    early = minimum(early, r.top)  # rounding may let a state fall that barely rises
    return (early - r.top) * (-1.0 / r.syn), current * (exp(early) * r.height)


class Scale(NamedTuple):
    """Of states that are scaled to need no decay, as numbers: see ``rows.intervals``."""

    mem: Any
    """What brings V to scale 1."""
    syn: Any
    """The same of I."""
    threshold: Any
    """At the end."""
    ratio: Any
    """tau_syn/tau_mem where V and I have their scales."""
    ratio_end: Any
    """The same at the end."""


@inlined
def reaches(voltage, current, wait, end, current_end, candidates, r):
    """The candidates that reach the threshold within ``wait``, which may be ``inf``, and the latest time for it.

    A lane does if it ends above the threshold, or if it rises first and falls at the end, and its peak is high enough.
    """
    plain = Scale(1.0, 1.0, 1.0, r.ratio, r.ratio)
    return reaches_scaled(voltage, current, wait, end, current_end, candidates, r, plain)


@inlined
def reaches_scaled(voltage, current, wait, end, current_end, candidates, r, scale):
    """The same with states, and the states at the end, that are scaled."""
    leaks, limit = those(r.mem > 0.0, candidates), wait
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
        limit = select(peaks, minimum(time, wait), limit)
    endless = crosses & ~(wait < math.inf)
    if endless:  # no leak: the wait, rounded up
        left = minimum((1.0 - voltage) / current, 1 - 1e-16)
        limit = select(endless, minimum(log1p(left * -1.0) * (-1 - 1e-6), _FAR) / r.syn, limit)
    return crosses | peaks, limit


@inlined
def nearer(s, low, high, gap, voltage, drive, r):
    """A step of the search for the threshold: to the root of the parabola at ``s``, between bounds.

    Each costs as much as Newton's and triples the digits. ``gap`` is what the membrane at ``s`` lacks, ``drive`` what
    the current adds to its slope.

    Returns:
        The next time; the bounds; how far from the root the next time may be.
    """
    slope = drive - voltage * r.mem
    curve = drive * (r.syn * -1.0) - slope * r.mem
    before = (gap > 0.0) & (slope > 0.0)
    low, high = select(before, s, low), select(before, high, s)
    following = s + gap * 2.0 / (slope + sqrt(maximum(slope * slope + curve * gap * 2.0, 0.0)))
    following = select(high >= following, following, high)
    inside = following >= low
    following = select(inside, following, (low + high) * 0.5)
    # a halving says nothing of how near the root is, but the bounds do
    return following, low, high, select(inside, absolute(following - s), high - low)


@inlined
def _begin_soon(voltage, current, r):
    """For ``soon``: a first guess, how curved, the first four derivatives of V, and what the current adds to the last.

    The guess is the inverse of V's series.
    """
    minus_a, minus_b = r.mem * -1.0, r.syn * -1.0
    drive = current * r.syn
    d1 = fma(voltage, minus_a, drive)
    drive = drive * minus_b
    d2 = fma(d1, minus_a, drive)
    drive = drive * minus_b
    d3 = fma(d2, minus_a, drive)
    drive = drive * minus_b
    d4 = fma(d3, minus_a, drive)
    inverse = 1.0 / d1
    u = (1.0 - voltage) * inverse
    c2, c3, c4 = d2 * inverse * 0.5, d3 * inverse * (1 / 6), d4 * inverse * (1 / 24)
    square = c2 * c2
    third = fma(square, 2.0, c3 * -1.0)
    fourth = c2 * fma(c3, 5.0, square * -5.0) - c4
    s = u * fma(fma(fma(fourth, u, third), u, c2 * -1.0), u, 1.0)
    return s, absolute(c2 * u), d1, d2, d3, d4, drive


@chosen_by_type
def soon(voltage, current, r):
    """Time to the threshold, ``exp(time/tau_mem)`` and the slope there, from states that reach it soon; how curved."""

    def single(voltage, current, r):
        s, curved, d1, d2, d3, d4, _ = _begin_soon(voltage, current, r)
        slope = fma(fma(fma(d4, s * (1 / 3), d3), s * 0.5, d2), s, d1)
        x = s * r.mem
        growth = fma(fma(fma(fma(x, 0.25, 1.0), x * (1 / 3), 1.0), x * 0.5, 1.0), x, 1.0)
        return s, growth, slope, curved

    def double(voltage, current, r):
        s, curved, d1, d2, d3, d4, drive = _begin_soon(voltage, current, r)
        minus_a, minus_b = r.mem * -1.0, r.syn * -1.0
        drive = drive * minus_b
        d5 = fma(d4, minus_a, drive)
        drive = drive * minus_b
        d6 = fma(d5, minus_a, drive)
        drive = drive * minus_b
        d7 = fma(d6, minus_a, drive)
        drive = drive * minus_b
        d8 = fma(d7, minus_a, drive)
        drive = drive * minus_b
        d9 = fma(d8, minus_a, drive)
        for _ in range(2):
            p = fma(fma(fma(fma(d9, s * (1 / 9), d8), s * (1 / 8), d7), s * (1 / 7), d6), s * (1 / 6), d5)
            p = fma(fma(fma(fma(p, s * (1 / 5), d4), s * 0.25, d3), s * (1 / 3), d2), s * 0.5, d1)
            q = fma(fma(fma(fma(d9, s * (1 / 8), d8), s * (1 / 7), d7), s * (1 / 6), d6), s * (1 / 5), d5)
            slope = fma(fma(fma(fma(q, s * 0.25, d4), s * (1 / 3), d3), s * 0.5, d2), s, d1)
            s = s + (1.0 - voltage - p * s) / slope
        x = s * r.mem
        g = fma(fma(fma(fma(x, 1 / 9, 1.0), x * (1 / 8), 1.0), x * (1 / 7), 1.0), x * (1 / 6), 1.0)
        g = fma(fma(fma(fma(fma(g, x * (1 / 5), 1.0), x * 0.25, 1.0), x * (1 / 3), 1.0), x * 0.5, 1.0), x, 1.0)
        return s, g, slope, curved

    return single if voltage.dtype == types.float32 else double


# (exp(x) - 1 - x) / x**2 for |x| < 1/2, where the rest is less than half a unit in the last place
_first = polynomial(*([1 / math.factorial(n + 2) for n in range(terms)] for terms in (8, 14)))


@inlined
def derivatives(s, r):
    """Derivatives of ``kappa(s)`` by the logarithms of tau_mem and tau_syn, for ``s >= 0``.

    With ``y = s DELTA`` the response and its derivatives consist of

        G_0 = (1 - exp(-y)) / y,     G_1 = (y - 1 + exp(-y)) / y^2 = (1 - G_0) / y,     G_2 = G_0 - G_1
    """
    slow, _, grown = decays(s, r)
    y, grown = s * r.delta, grown * -1.0
    series, large = _first(y * -1.0), maximum(y, 0.5)
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
    return select(leaks_slower, by_slower, by_faster), select(leaks_slower, by_faster, by_slower) - common * zeroth


# of (1 - exp(-x))/x, the highest power's first: for brief times the rest is less than half a unit in the last place
_BRIEF_32, _BRIEF_64 = (tuple((-1) ** n / math.factorial(n + 1) for n in range(top, -1, -1)) for top in (3, 7))


@chosen_by_type
def _terms(x):
    """The terms for a vector."""
    terms = _BRIEF_32 if x.dtype == types.float32 else _BRIEF_64
    return lambda x: terms


@inlined
def brief(s, r):
    """``responses`` for times up to BRIEF, by power series.

    With ``x = s/tau_mem`` and ``z = s/tau_syn``, Horner's scheme for ``exp(-x)`` has on its way the terms of that for
    ``(exp(-x) - exp(-z)) / (z - x)``.
    """
    x, z, terms = s * r.mem, s * r.syn, _terms(s)
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
    return by_mem, s * fma(rise, r.mem, syn * (r.syn * -1.0)) - by_mem
