"""Spikes of many linear neurons in the same interval, in the lanes of vectors: what ``search`` does, for all at once.

In a short interval everything is a power series of few terms. Lanes whose coefficients do not tell whether they spike,
and those that are released from a refractory time within the interval, are left to go alone.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.flow import RISE, THRESHOLD
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, lowest_bit, next_up, select, sqrt, store

# rows of lanes after three states, each the membrane and the components, and the times up to which the third is known:
# where to look for spikes, when the next event is that is known, constants of the neurons, spikes to be noted, jumps
LIMIT, BUSY, THETA, RESET, HOLD, TIME, SLOPE, UP, FREE, JUMPS = range(10)

LONGEST = 1.0  # interval, in units of the fastest time constant, whose series is short
_STEPS = 40


@chosen_by_type
def part_of(row, place):
    """A number that all lanes share, or that of each."""
    if isinstance(row, types.Array) and row.ndim == 1:
        return lambda row, place: row[place]
    return lambda row, place: load32(row, place * LANES)


@jit
def terms_for(x, tiny):
    """How many terms of the exponential series of a number up to ``LONGEST`` matter."""
    n, term = 2, x
    while term > 0.1 * tiny:
        term *= x / n
        n += 1
    return max(n, 4)


@jit
def expand(g, at, drives, base, wait, terms):
    """Fill in the series of all lanes: rows of V - threshold(t), of each component and of V, for each power."""
    state, out, count = g.state[at.slot], g.series[at.slot], g.kinds.size
    width = 2 + count
    v, none = load32(state, base), fill32(state, 0.0)
    lift = none
    for k in range(count):
        y = load32(state, base + (1 + k) * LANES)
        store(out, (1 + k) * LANES, y)
        if g.kinds[k] == THRESHOLD:
            lift = lift + y
    store(out, 0, v - lift)
    store(out, (1 + count) * LANES, v)
    leak = part_of(drives, 2 * count)
    for n in range(1, terms):
        step, change, fed, lift = wait * (1 / n), v * leak * -1.0, none, none
        before = (n - 1) * width * LANES
        after = before + width * LANES
        for k in range(count):
            term = load32(out, before + (1 + k) * LANES)
            decays = term * part_of(drives, count + k)
            change = fma(term, part_of(drives, k), change)
            following = (fed - decays) * step
            fed = none
            if g.kinds[k] == RISE:
                fed = decays
            elif g.kinds[k] == THRESHOLD:
                lift = lift + following
            store(out, after + (1 + k) * LANES, following)
        v = change * step
        store(out, after, v - lift)
        store(out, after + (1 + count) * LANES, v)


@jit
def row_at(g, at, column, terms, u):
    """A column of the series at a time in units of the interval."""
    out, width = g.series[at.slot], 2 + g.kinds.size
    total = load32(out, ((terms - 1) * width + column) * LANES)
    for n in range(terms - 2, -1, -1):
        total = fma(total, u, load32(out, (n * width + column) * LANES))
    return total


@jit
def excess_at(g, at, theta, terms, u):
    """V - threshold and two derivatives, likewise."""
    out, width = g.series[at.slot], (2 + g.kinds.size) * LANES
    p = load32(out, (terms - 1) * width)
    q = r = fill32(out, 0.0)
    for n in range(terms - 2, -1, -1):
        r = fma(r, u, q)
        q = fma(q, u, p)
        p = fma(p, u, load32(out, n * width))
    return p - theta, q, r + r


@jit
def crossing_lanes(g, at, theta, terms, lanes):
    """Which lanes reach the threshold within the interval, and when in units of it; and which do not tell."""
    out, width, none = g.series[at.slot], (2 + g.kinds.size) * LANES, fill32(g.tiny, 0.0)
    start, x = load32(out, 0) - theta, load32(out, width)
    top, end, slope, steepest, least, bend = start + max(x, 0.0), start + x, x, x, x, none
    for n in range(2, terms):
        x = load32(out, n * width)
        up, many = max(x, 0.0), float(n)
        top, end = top + up, end + x
        slope, steepest, least = fma(x, many, slope), fma(up, many, steepest), fma(min(x, 0.0), many, least)
        bend = fma(x, 2.0, bend) if n == 2 else fma(up, many * (many - 1.0), bend)
    possible = (top >= 0.0) & (steepest > 0.0) & lanes
    concave = (none > bend) & possible
    rises = ((least >= 0.0) & possible) | ((slope >= 0.0) & concave)
    unclear = (possible & ~rises & ~concave) | ((start >= 0.0) & lanes)
    fires, peaks = rises & (end >= 0.0) & ~unclear, concave & ~rises & ~unclear
    x, high = load32(out, width), fill32(g.tiny, 1.0)
    first = select(x > start * -1.0, start * -1.0 / x, 0.5)
    if peaks:
        low, u = none, fill32(g.tiny, 0.5)
        above = high
        for _ in range(_STEPS):
            _, q, r = excess_at(g, at, theta, terms, u)
            low, above = select(q > 0.0, u, low), select(q > 0.0, above, u)
            following = u - q / r
            inside = (none > r) & (following >= low) & (above >= following)
            following = select(inside, following, (low + above) * 0.5)
            moving = (abs(following - u) > u * 1e-3) & peaks
            u = following
            if not moving:
                break
        _, q, r = excess_at(g, at, theta, terms, u)
        u = select((none > r) & peaks, max(min(u - q / r, 1.0), 0.0), u)
        p, _, r = excess_at(g, at, theta, terms, u)
        reach = (p >= 0.0) & peaks
        fires |= reach
        high = select(reach, u, high)
        first = select(reach, max(u - sqrt(max(p * -2.0 / r, 0.0)), 0.0), first)
    if not fires:
        return fires, high, unclear
    low, u, tiny = none, min(first, high), g.tiny[0]
    for _ in range(_STEPS):
        p, q, r = excess_at(g, at, theta, terms, u)
        low, high = select(none > p, u, low), select(none > p, high, u)
        under = q + sqrt(max(q * q - p * r * 2.0, 0.0))
        following = u - (p + p) / under
        inside = (under > 0.0) & (following >= low) & (high >= following)
        following = select(inside, following, (low + high) * 0.5)
        moved = abs(following - u)
        u = following
        # the error of a step is about the cube of its length
        moving = (moved * moved * moved > u * tiny) & (moved > u * tiny) & (high - low > high * tiny) & fires
        if not moving:
            break
    return fires, u, unclear


@jit
def spent_lanes(g, at, lanes):
    """Those lanes that have no room for another spike."""
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
def fire_lanes(g, at, drives, lanes, here, middle, there, now, stop, terms):
    """Take lanes through a short interval, from the rows ``here`` to ``there``, with all that spike in it at once.

    Returns bits: the lanes that are held at the end, those that would spike more often than they may, and those that
    have to go alone from the rows ``middle``, from the times in the row after these.
    """
    state, out, count = g.state[at.slot], g.series[at.slot], g.kinds.size
    rows, held, stuck, alone, none = 1 + count, np.uint64(0), np.uint64(0), np.uint64(0), fill32(g.tiny, 0.0)
    constants = 3 * rows * LANES + LANES
    theta, reset = load32(state, constants + THETA * LANES), load32(state, constants + RESET * LANES)
    hold = load32(state, constants + HOLD * LANES)
    for place in range(0, rows * LANES, LANES):
        store(state, middle + place, load32(state, here + place))
    first = True
    while lanes:
        wait = stop - now
        store(state, middle + rows * LANES, now)
        expand(g, at, drives, middle, wait, terms)
        fires, u, unclear = crossing_lanes(g, at, theta, terms, lanes & ~held)
        unclear &= lanes & ~held
        alone |= unclear
        quiet = lanes & ~fires & ~unclear
        if quiet and not first:
            for column in range(1, 2 + count):
                total, to = none, there + (column if column <= count else 0) * LANES
                for n in range(terms - 1, -1, -1):
                    total = total + load32(out, (n * (2 + count) + column) * LANES)
                if column > count:
                    total = select(held, reset, total)
                store(state, to, select(quiet, total, load32(state, to)))
        first = False
        if not fires:
            break
        spike = now + wait * u
        spike = min(select(spike > now, spike, next_up(now)), stop)
        u = (spike - now) / wait
        slope = excess_at(g, at, theta, terms, u)[1] / wait
        up, full = reset * part_of(drives, 2 * count) * -1.0, spent_lanes(g, at, fires)
        for k in range(count):
            place, jump = middle + (1 + k) * LANES, load32(state, constants + (JUMPS + k) * LANES)
            y = row_at(g, at, 1 + k, terms, u) + select(full, none, jump)
            up = fma(y, part_of(drives, k), up)
            store(state, place, select(fires, y, load32(state, place)))
        store(state, middle, select(fires, reset, load32(state, middle)))
        free = spike + hold
        store(state, constants + TIME * LANES, spike)
        store(state, constants + SLOPE * LANES, max(slope, 0.0))
        store(state, constants + UP * LANES, up)
        store(state, constants + FREE * LANES, free)
        note_lanes(g, at, fires, constants)
        now = select(fires, spike, now)
        stuck |= full
        store(state, middle + rows * LANES, now)
        holds = ((free > spike) & fires) | full
        early = (stop > free) & holds & ~full
        alone |= early
        held |= holds & ~early
        lanes = fires & ~early
        if g.once != 0:
            break
    return held, stuck, alone
