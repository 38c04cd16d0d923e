"""When does a neuron of one or two currents reach its threshold? The membrane in closed form, without pieces.

With ``D(s) = sum a_k y_k exp(-a_k s)`` for the rates a_k of the currents and the leak b, ``V' = D - b V``, and

    (V' exp(b s))' = F exp(b s),      F = D' = -sum a_k^2 y_k exp(-a_k s)

changes its sign once at most. Where F > 0 from some time on, V goes to 0 from below, or falls first: it stays below a
threshold that it is below then. Where F < 0, V is concave while it rises, and falls once it has fallen. So if F > 0 at
first, and F < 0 from a time s_0 on, V falls and rises up to there, and otherwise s_0 is 0. From s_0 on, a tangent leads
to a time before the first crossing, or to where V falls, and then there is none.
"""

# mypy: disable-error-code="no-untyped-def"
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, rates_in
from firstspike.spiketime.cpu.lanes.state import BUFFERS, longest_wait
from firstspike.spiketime.cpu.membrane import ENOUGH, limits_of, responses, terms_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.mathfun import SMALL, exp, expm1, log, small_expm1
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, select, sqrt, store

_STEPS = 30
_FAR = 40.0


class Pair(NamedTuple):
    """What is left of V and of both currents after a time, and what they add to V."""

    left: Any
    own: Any
    gain: Any
    other: Any
    second: Any


@inlined
def pair_responses(s, r, t, is_brief):
    """``membrane.responses`` with two currents, and their rates, at once."""
    if is_brief:
        return brief_pair(s, r, t)
    x = s * (r.mem * -1.0)
    a, b = s * select(r.syn >= r.mem, r.delta * -1.0, r.delta), s * select(t.syn >= t.mem, t.delta * -1.0, t.delta)
    if any_reaches(max(a, b), _FAR):  # the membrane is gone long before a current
        left, own, gain = responses(s, r)
        _, other, second = responses(s, t)
        return Pair(left, own, gain, other, second)
    if any_reaches(max(max(abs(x), abs(a)), abs(b)), SMALL):
        left, grown, more = exp(x), expm1(a), expm1(b)
    else:
        left, grown, more = small_expm1(x) + 1.0, small_expm1(a), small_expm1(b)
    gain = left * grown * select(r.syn >= r.mem, r.per_rise * -1.0, r.per_rise)
    second = left * more * select(t.syn >= t.mem, t.per_rise * -1.0, t.per_rise)
    return Pair(left, fma(left, grown, left), gain, fma(left, more, left), second)


@inlined
def brief_pair(s, r, t):
    """``membrane.brief`` with two currents: its two series begin alike."""
    x, z, u, terms = s * r.mem, s * r.syn, s * t.syn, terms_of(s)
    grown = fma(x, terms[0], terms[1])
    mean, other = fma(z, terms[0], grown), fma(u, terms[0], grown)
    for term in terms[2:]:
        grown = fma(grown, x, term)
        mean, other = fma(mean, z, grown), fma(other, u, grown)
    left = fma(grown * -1.0, x, 1.0)
    return Pair(left, fma(mean * -1.0, z - x, left), mean * z, fma(other * -1.0, u - x, left), other * u)


@inlined
def course(v, y, z, s, r, t):
    """V, its slope, and -F after a time."""
    left, own, gain, other, second = pair_responses(s, r, t, False)
    value = fma(v, left, fma(y, gain, z * second))
    first, last = y * own * r.syn, z * other * t.syn
    return value, first + last - value * r.mem, fma(first, r.syn, last * t.syn)


@inlined
def step_pair(g, at, c, x, to, wait, is_brief):
    """``linear.step_to`` of neurons of one or two currents."""
    state, each = g.state[at.kept], (1 + g.count) * LANES
    here, there = BUFFERS + x * each, BUFFERS + to * each
    r, t, two = rates_in(c[0]), rates_in(c[g.count - 1]), g.count > 1
    v, y, none = load32(state, here), load32(state, here + LANES), fill32(state, 0.0)
    left, own, gain, other, second = pair_responses(wait, r, t, is_brief)
    kept, after = y * own, fma(y, gain, v * left)
    push = max(y, kept) * r.syn
    store(state, there + LANES, kept)
    if two:
        z = load32(state, here + 2 * LANES)
        rest = z * other
        store(state, there + 2 * LANES, rest)
        after, push = fma(z, second, after), fma(max(z, rest), t.syn, push)
    store(state, there, after)
    long = wait
    if not is_brief:
        slow = wait * r.mem > 0.25
        long = select(slow, (left * -1.0 + 1.0) / select(slow, r.mem, 1.0), wait)
    return to, fma(abs(v), 1 - ENOUGH, max(v, fma(push, long, v * left))), fma(max(push, 0.0), long, none)


@jit
def search_pair(g, at, c, x, wait, lanes):
    """Which of the lanes reach the threshold within ``wait``, when, and how fast V does; and which do not tell."""
    state, here = g.state[at.kept], BUFFERS + x * (1 + g.count) * LANES
    r, t, none = rates_in(c[0]), rates_in(c[g.count - 1]), fill32(state, 0.0)
    v, y, z = load32(state, here), load32(state, here + LANES), none
    if g.count > 1:
        z = load32(state, here + 2 * LANES)
    else:
        t = r
    fastest, (_, tolerance) = max(max(r.syn, t.syn), r.mem), limits_of(v)
    first, last = y * r.syn, z * t.syn
    force, other = first * r.syn, last * t.syn
    value, slope = v, first + last - v * r.mem
    fall = force + other
    slow, fast = select(t.syn > r.syn, force, other), select(t.syn > r.syn, other, force)
    turns = (fall < 0.0) & (slow > 0.0) & lanes
    lanes &= turns | (fall > 0.0)
    low, high, s, found = none, min(wait, longest_wait(state)), none, np.uint64(0)
    if turns:
        apart = log(select(turns, fast / slow * -1.0, 1.0)) / select(turns, abs(r.syn - t.syn), 1.0)
        s = select(turns, min(apart, high), none)
        there, rising, bent = course(v, y, z, s, r, t)
        value, slope, fall = select(turns, there, value), select(turns, rising, slope), select(turns, bent, fall)
        lanes &= ~(turns & (value < 1.0) & (s >= high))
    # a lane has come by a safe step as long as tangents led it, and by none other once one went too far
    known, safe, careful, back, when, steep = np.uint64(0), lanes, np.uint64(0), none, none, none
    for _ in range(_STEPS):
        over = (value >= 1.0) & lanes
        known |= over
        falls = (~(slope > 0.0) | ((fall < 0.0) & ~turns)) & lanes & ~known  # or goes to 0 from below
        lanes &= ~(falls & safe)
        rises = lanes & ~(over | falls)
        low, high = select(rises, s, low), select(over | falls, min(high, s), high)
        gap, curve = value * -1.0 + 1.0, fma(slope, r.mem, fall) * -1.0
        back = select(rises, s + gap / slope, back)
        following = s + gap * 2.0 / (slope + sqrt(max(fma(curve, gap * 2.0, slope * slope), 0.0)))
        careful |= falls
        takes = (following >= low) & (high >= following) & (slope > 0.0) & (known | (rises & ~careful))
        following = select(takes, following, select(known, (low + high) * 0.5, back))
        safe = lanes & ~(known | takes)
        lanes &= ~(safe & (following > high))
        part = abs(following - s) * fastest
        # the error of a parabola is about the cube of the step, of a tangent about the square
        near = (tolerance * min(following * fastest, 1.0) >= part * part * select(takes, part, 1.0)) & (takes | safe)
        near &= ~falls
        near = (near | (known & (high * 4.0 * tolerance >= high - low))) & lanes
        if near:
            found |= near
            when, steep = select(near, following, when), select(near, fma(curve, following - s, slope), steep)
            lanes &= ~near
        if not lanes:
            break
        s = following
        value, slope, fall = course(v, y, z, s, r, t)
    return found, when, steep, lanes
