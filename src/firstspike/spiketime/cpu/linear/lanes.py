"""Spikes of many linear neurons in the same interval, in the lanes of vectors: ``search`` for all at once.

In a short interval everything is a power series of few terms. Lanes whose coefficients do not tell whether they spike,
and those that are released from a refractory time within the interval, are left to go alone.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.flow import CURRENT, RISE, THRESHOLD
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp, expm1
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, highest, load32, lowest_bit, next_up, select, sqrt, store

# rows of lanes after two states, each the membrane and the components: where to look for spikes, when the next event is
# that is known, constants of the neurons, spikes to be noted, the interval, jumps
LIMIT, BUSY, THETA, RESET, HOLD, TIME, SLOPE, UP, FREE, NOW, STOP, JUMPS = range(12)

LONGEST = 0.25  # interval, in units of the fastest time constant, whose series is short
_STEPS = 40


@jit
def constants_of(g):
    """Where the rows of constants begin."""
    return 2 * (1 + g.kinds.size) * LANES


@chosen_by_type
def part_of(row, place):
    """A number that all lanes share, or that of each."""
    if isinstance(row, types.Array) and row.ndim == 1:
        return lambda row, place: row[place]
    return lambda row, place: load32(row, place * LANES)


@inlined
def response_lanes(s, leak, rate, left, own):
    """K(leak, rate), see ``flow``, for vectors of times, with the rests of the membrane and of the component."""
    x = s * abs(leak - rate)
    return max(left, own) * s * select(x > 0.0, expm1(x * -1.0) / x * -1.0, 1.0)


@chosen_by_type
def terms_of(array):
    """How many terms of a series matter in an interval up to ``LONGEST``; and up to another length, and that."""
    terms = (8, 4, 0.01) if array.dtype == types.float32 else (14, 8, 0.014)
    return lambda array: terms


@inlined
def are_short(g, drives, waits, most):
    """Whether all intervals are, in units of the fastest time constant."""
    fastest = waits * part_of(drives, 2 * g.kinds.size)
    for k in range(g.kinds.size):
        fastest = max(fastest, waits * part_of(drives, g.kinds.size + k))
    return highest(fastest) <= most


@inlined
def expand(g, at, drives, base, wait, terms):
    """Fill in the series of V - threshold(t) of all lanes, as a function of time in units of ``wait``."""
    state, out = g.state[at.slot], g.series[at.slot]
    count, none, lifts = g.kinds.size, fill32(g.tiny, 0.0), terms * LANES
    v, fed, flow = load32(state, base), none, none
    for n in range(terms):
        store(out, n * LANES, none)
        store(out, lifts + n * LANES, none)
    for k in range(count):
        y, rate, kind = load32(state, base + (1 + k) * LANES), part_of(drives, count + k), g.kinds[k]
        if kind == RISE:
            fed, flow = y, fill32(g.tiny, 1.0) * rate
            continue
        # derivatives of the component, and what they add to those of V, or of the threshold
        drive, to = part_of(drives, k), 0
        if kind == THRESHOLD:
            drive, to = drive + 1.0, lifts
        for n in range(terms):
            place = to + n * LANES
            store(out, place, fma(y, drive, load32(out, place)))
            passed = fed * flow
            y = passed - y * rate
            fed = passed * -1.0
        fed = none
    power, leak = fill32(g.tiny, 1.0), part_of(drives, 2 * count)
    for n in range(terms):
        push, lift = load32(out, n * LANES), load32(out, lifts + n * LANES)
        store(out, n * LANES, v - lift * power)
        v = (push * power - v * leak) * (wait * (1 / (n + 1)))
        power = power * wait * (1 / (n + 1))


@inlined
def excess_at(g, at, theta, u, terms):
    """V - threshold and two derivatives."""
    out = g.series[at.slot]
    p = load32(out, (terms - 1) * LANES)
    q = r = fill32(g.tiny, 0.0)
    for n in range(terms - 2, -1, -1):
        r = fma(r, u, q)
        q = fma(q, u, p)
        p = fma(p, u, load32(out, n * LANES))
    return p - theta, q, r + r


@inlined
def crossing_lanes(g, at, theta, lanes, terms):
    """Which lanes reach the threshold within the interval, and when in units of it; and which do not tell."""
    out, none = g.series[at.slot], fill32(g.tiny, 0.0)
    start, x = load32(out, 0) - theta, load32(out, LANES)
    top, end, slope, steepest, least, bend, first = start + max(x, 0.0), start + x, x, x, x, none, x
    for n in range(2, terms):
        x = load32(out, n * LANES)
        up, many = max(x, 0.0), float(n)
        top, end = top + up, end + x
        slope, steepest, least = fma(x, many, slope), fma(up, many, steepest), fma(min(x, 0.0), many, least)
        bend = fma(x, 2.0, bend) if n == 2 else fma(up, many * (many - 1.0), bend)
    possible = (top >= 0.0) & (steepest > 0.0) & lanes
    concave = (none > bend) & possible
    rises = ((least >= 0.0) & possible) | ((slope >= 0.0) & concave)
    unclear = (possible & ~rises & ~concave) | ((start >= 0.0) & lanes)
    fires, peaks = rises & (end >= 0.0) & ~unclear, concave & ~rises & ~unclear
    low, high = none, fill32(g.tiny, 1.0)
    if peaks:
        u, above = fill32(g.tiny, 0.5), high
        for _ in range(_STEPS):
            _, q, r = excess_at(g, at, theta, u, terms)
            low, above = select(q > 0.0, u, low), select(q > 0.0, above, u)
            following = u - q / r
            inside = (none > r) & (following >= low) & (above >= following)
            following = select(inside, following, (low + above) * 0.5)
            moving = (abs(following - u) > 1e-5) & peaks
            u = following
            if not moving:
                break
        p, _, _ = excess_at(g, at, theta, u, terms)
        reach = (p >= 0.0) & peaks
        fires |= reach
        low, high = none, select(reach, u, high)
    if not fires:
        return fires, high, unclear
    # a parabola through the start, then steps of third order
    under = first + sqrt(max(first * first - start * load32(out, 2 * LANES) * 4.0, 0.0))
    u, tiny = start * -2.0 / under, g.tiny[0]
    u = select((u > 0.0) & (high >= u), u, high * 0.5)
    for _ in range(_STEPS):
        p, q, r = excess_at(g, at, theta, u, terms)
        low, high = select(none > p, u, low), select(none > p, high, u)
        step, bent = p / q, r / q
        following = u - fma(step * step * 0.5, bent, step)
        inside = (q > 0.0) & (following >= low) & (high >= following)
        following = select(inside, following, (low + high) * 0.5)
        moved = abs(following - u)
        u = following
        # the error of a step is about its cube, near a maximum times the square of how much the slope changes
        error = moved * moved * moved * max(bent * bent, 1.0)
        moving = (error > u * tiny) & (moved > u * tiny) & (high - low > high * tiny) & fires
        if not moving:
            break
    return fires, u, unclear


@inlined
def solve_lanes(g, at, drives, base, now, stop, theta, lanes, terms):
    """Which lanes reach the threshold within the interval, and which do not tell; when, and how steeply."""
    wait = stop - now
    expand(g, at, drives, base, wait, terms)
    fires, u, alone = crossing_lanes(g, at, theta, lanes, terms)
    spike = now + wait * u
    spike = min(select(spike > now, spike, next_up(now)), stop)
    _, slope, _ = excess_at(g, at, theta, (spike - now) / wait, terms)
    return fires, alone, spike, max(slope / wait, 0.0)


@jit
def spent_lanes(g, at, lanes):
    """Lanes that have no room for another spike."""
    found, rest = np.uint64(0), lanes
    while rest:
        lane = lowest_bit(rest)
        rest &= rest - np.uint64(1)
        found |= np.uint64(g.counts[at.slot, lane] >= g.most) << np.uint64(lane)
    return found


@jit
def note_lanes(g, at, lanes, constants):
    """Note the spikes of these lanes, as far as there is room, and until when they are held."""
    state = g.state[at.slot]
    while lanes:
        lane = lowest_bit(lanes)
        lanes &= lanes - np.uint64(1)
        number, j, busy = g.counts[at.slot, lane], at.first + lane, math.inf
        time, free = state[constants + TIME * LANES + lane], state[constants + FREE * LANES + lane]
        if number >= g.most:
            g.free[at.slot, lane] = math.inf
        else:
            g.spikes[at.b, j, number], g.slopes[at.b, j, number] = time, state[constants + SLOPE * LANES + lane]
            g.counts[at.slot, lane] = number + 1
            if free > time:
                busy = free
                g.free[at.slot, lane] = free
            else:
                g.free[at.slot, lane] = -math.inf
                g.ups[at.b, j, number + 1] = state[constants + UP * LANES + lane]
        state[constants + BUSY * LANES + lane] = busy


@jit
def fire_lanes(g, at, drives, lanes, here, there, now, stop, push, low):
    """Let all lanes spike that do once in a short interval, from the rows ``here``. ``there`` is how it would end.

    ``push`` and ``low`` bound the components' parts of dV/dt and of the threshold. Returns bits: the
    lanes that are held at the end, those that would spike more often than they may, and those that have to go alone.
    """
    state, count = g.state[at.slot], g.kinds.size
    none, constants = fill32(g.tiny, 0.0), constants_of(g)
    theta, reset = load32(state, constants + THETA * LANES), load32(state, constants + RESET * LANES)
    hold, leak = load32(state, constants + HOLD * LANES), part_of(drives, 2 * count)
    many, few, short = terms_of(g.tiny)
    if are_short(g, drives, select(lanes, stop - now, none), short):
        fires, alone, spike, slope = solve_lanes(g, at, drives, here, now, stop, theta, lanes, few)
    else:
        fires, alone, spike, slope = solve_lanes(g, at, drives, here, now, stop, theta, lanes, many)
    if not fires:
        return np.uint64(0), np.uint64(0), alone
    free, rest, full = spike + hold, stop - spike, spent_lanes(g, at, fires)
    since, left = (spike - now) * -1.0, exp(rest * leak * -1.0)
    above, change, moves, more = theta - reset, none, none, none  # V - reset, by how fast the threshold falls, by jumps
    for k in range(count):
        kind, rate, drive = g.kinds[k], part_of(drives, count + k), part_of(drives, k)
        if kind == THRESHOLD:
            part = exp(since * rate) * load32(state, here + (1 + k) * LANES)
            above, change = above + part, fma(part, rate, change)
        if kind == CURRENT:
            jump = load32(state, constants + (JUMPS + k) * LANES)
            moves = fma(jump * drive, response_lanes(rest, leak, rate, left, exp(rest * rate * -1.0)), moves)
            more = fma(jump, drive, more)
    push = max(push + max(more, 0.0), 0.0)
    again = max(reset, fma(reset, left, push * rest)) + low >= load32(state, constants + LIMIT * LANES)
    holds = free > spike
    apart = ((again & ~holds) | ((stop > free) & holds)) & fires & ~full
    alone |= apart
    fires &= ~apart
    holds = (holds & fires) | (full & fires)
    for k in range(count):
        kind, place = g.kinds[k], there + (1 + k) * LANES
        if kind in (THRESHOLD, CURRENT):
            jump = load32(state, constants + (JUMPS + k) * LANES) * exp(rest * part_of(drives, count + k) * -1.0)
            y = load32(state, place)
            store(state, place, select(fires & ~full, y + jump, y))
    after = select(holds, reset, load32(state, there) - above * left + moves)
    store(state, there, select(fires, after, load32(state, there)))
    store(state, constants + TIME * LANES, spike)
    store(state, constants + SLOPE * LANES, slope)
    store(state, constants + UP * LANES, slope - change + above * leak + more)
    store(state, constants + FREE * LANES, free)
    note_lanes(g, at, fires, constants)
    return holds, full & fires, alone
