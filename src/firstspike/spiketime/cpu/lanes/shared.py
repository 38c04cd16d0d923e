"""Linear neurons that share time constants and the order of arrival: numbers of each interval that are theirs, too.

Of the interval that follows an input they are what is left of the membrane, the time in which that is pushed, and for
each component what is left of it, what it adds to the membrane, and to the next component. There is one before the
first input.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    AHEAD,
    LANES,
    Rates,
    fetch_row,
    named_rates,
    saved_of,
)
from firstspike.spiketime.cpu.lanes.adjoint import EACH, NOW, PARTS, Q, Y, add_event, add_sums, event_at, into_of
from firstspike.spiketime.cpu.lanes.convolved import convolved3
from firstspike.spiketime.cpu.lanes.state import (
    BIAS,
    BUFFERS,
    RISE,
    SYNAPSE,
    THRESHOLD,
    fill_rates,
    longest_wait,
    recurs,
)
from firstspike.spiketime.cpu.membrane import ENOUGH, responses
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.shuffles import fold16
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load16, load32, lowest, select, store

LEFT, LONG, FIRST = range(3)
OWN, MOVES, FEEDS, EACH_ROW = range(4)


@inlined
def rates_at(c, lane):
    """The rates of one lane, as numbers."""
    r, kind = named_rates(c)[lane], named_rates(c)[0].kind
    a, b = r.mem, r.syn
    return Rates(a, b, min(a, b), max(a, b), r.delta, r.per_rise, r.ratio, r.x, r.top, r.height, kind)


@chosen_by_type
def arrived(g, b):
    """How many inputs of a sample there are in order, and when they arrive."""
    if g.kind[2]:
        return lambda g, b: (np.intp(g.numbered[b, 0]), g.arrival[b])
    return lambda g, b: (np.intp(saved_of(g, b).last[g.outputs]), saved_of(g, b).arrival)


@chosen_by_type
def table_of(g, at):
    """Where the numbers of the intervals of a sample stand, or of the window that a thread is in."""
    return (lambda g, at: at.slot) if recurs(g) else lambda g, at: at.b


@jit
def fill_intervals(g, slot, b):
    """Fill in the numbers of the intervals of a sample."""
    fill_between(g, slot, b, g.rows[b], *arrived(g, b), g.bounds[0], g.bounds[1])


@jit
def fill_between(g, slot, b, rows, n, arrival, begin, end):
    """Fill in the numbers of the intervals between begin and end."""
    c, waits = g.own_rates[slot], g.waits[slot]
    fill_rates(g, b // g.batch, 0, 1, c)
    unit, longest = named_rates(c[0])[0].unit, longest_wait(c)
    for k in range(-1, n):
        now = begin if k < 0 else arrival[k]
        wait = min(arrival[k + 1], end) - now if now > -math.inf else c.dtype.type(0)
        waits[k + 1] = min(wait * unit, longest)
    for k in range(n + 1, (n + 16) // 16 * 16):
        waits[k] = 0
    leak = named_rates(c[1 if g.kinds[0] == RISE else 0])[0].mem
    for first in range(0, n + 1, 16):
        s = load16(waits, first)
        left = s
        for k in range(g.count):
            kind, r, place = g.kinds[k], rates_at(c[k], 0), FIRST + k * EACH_ROW
            if kind == BIAS:
                store(rows, (place + OWN) * g.intervals + first, left * 0.0 + 1.0)
                store(rows, (place + MOVES) * g.intervals + first, left * -1.0 + 1.0)
                continue
            mem, own, moves = responses(s, r)
            store(rows, (place + OWN) * g.intervals + first, own)
            if kind == RISE:
                store(rows, (place + FEEDS) * g.intervals + first, moves)
                third = convolved3(s, s * 0.0 + leak, s * 0.0 + r.mem, s * 0.0 + r.syn)
                store(rows, (place + MOVES) * g.intervals + first, third * (r.mem * r.syn))
                continue
            left = mem
            store(rows, (place + MOVES) * g.intervals + first, moves)
        store(rows, (LEFT) * g.intervals + first, left)
        slow = s * leak > 0.25
        store(rows, (LONG) * g.intervals + first, select(slow, (left * -1.0 + 1.0) / (leak if leak > 0 else 1.0), s))


@inlined
def step_shared(g, at, c, x, k):
    """``linear.step`` through the interval after input ``k``."""
    state, here, there = (
        g.state[at.kept],
        BUFFERS + x * (1 + g.count) * LANES,
        BUFFERS + (x ^ 1) * (1 + g.count) * LANES,
    )
    rows, stride = g.rows[table_of(g, at)], g.intervals
    base = np.uintp(k + 1)
    v, none = load32(state, here), fill32(state, 0.0)
    moved = v * rows[base]
    after, push, lift, fed = moved, none, none, none
    for number in range(g.count):
        kind, y, to = g.kinds[number], load32(state, here + (1 + number) * LANES), there + (1 + number) * LANES
        place = base + np.uintp((FIRST + number * EACH_ROW) * stride)
        own = rows[place]
        kept = y * own
        store(state, to, kept + fed)
        fed = none
        if kind == THRESHOLD:
            lift = lift - min(y, kept)
            continue
        after = fma(y, rows[place + np.uintp(stride)], after)
        rate = named_rates(c[number])[0].syn
        if kind == SYNAPSE:
            push = fma(max(y, kept), rate, push)
        elif kind == RISE:
            fed = y * rows[place + np.uintp(2 * stride)]
            push = fma(max(y, 0.0), (1 - own) * named_rates(c[number])[0].mem, push)
        else:
            push = fma(y, named_rates(c[number])[0].mem, push)
    store(state, there, after)
    long = rows[base + np.uintp(stride)]
    height = fma(abs(v), 1 - ENOUGH, max(v, fma(push, long, moved)) + lift)
    return x ^ 1, height, fma(max(push, 0.0), long, max(lift, 0.0))


@inlined
def quiet(g, at, c, x, k, n, keys, weights, source, active):
    """Take neurons of one or two components through inputs from ``k`` on, with their state in registers.

    Returns the input after which an active lane may spike, or the last one. It has been added to the state.
    """
    state, here, rows, stride, end = (
        g.state[at.kept],
        BUFFERS + x * (1 + g.count) * LANES,
        g.rows[table_of(g, at)],
        g.intervals,
        at.end,
    )
    v, y, z = load32(state, here), load32(state, here + LANES), load32(state, here + g.count * LANES)
    first, two, signed = named_rates(c[0])[0].syn, g.count > 1, g.signed != 0
    last = named_rates(c[g.count - 1])[0]
    other = last.mem if g.biased != 0 else last.syn
    parted, threshold, none = g.planes > 1, two and g.kinds[g.count - 1] == THRESHOLD, fill32(state, 0.0)
    rises, following = g.kinds[0] == RISE, named_rates(c[0])[0].mem
    while True:
        j = np.intp(source[np.uintp(k)])
        fetch_row(weights, source, min(k + AHEAD, n - 1))
        w = load32(weights, j * LANES)
        if signed:
            positive = max(w, 0.0)
            y, z = y + positive, z + (w - positive)
        elif parted:
            share = g.reached[at.e, j]
            y, z = fma(w, 1 - share, y), fma(w, share, z)
        else:
            y = y + w
        stop = min(keys[np.uintp(k + 1)], end)
        if k + 1 == n or not stop > keys[np.uintp(k)]:
            if k + 1 == n:
                break
            k += 1
            continue
        base = np.uintp(k + 1)
        place = base + np.uintp(FIRST * stride)
        kept, long = y * rows[place], rows[base + np.uintp(stride)]
        moved = fma(y, rows[place + np.uintp(stride)], v * rows[base])
        push, lift, rest, fed = max(y, kept) * first, none, none, none
        if rises:
            push, fed = max(y, 0.0) * ((1 - rows[place]) * following), y * rows[place + np.uintp(2 * stride)]
        if two:
            place += np.uintp(EACH_ROW * stride)
            rest = z * rows[place]
            if threshold:
                lift = min(z, rest) * -1.0
            else:
                moved = fma(z, rows[place + np.uintp(stride)], moved)
                push = fma(max(z, rest), other, push)
            rest = rest + fed
        height = fma(abs(v), 1 - ENOUGH, max(v, fma(push, long, v * rows[base])) + lift)
        if (height >= ENOUGH) & active:
            break
        v, y, z, k = moved, kept, rest, k + 1
    store(state, here, v)
    store(state, here + LANES, y)
    if two:
        store(state, here + 2 * LANES, z)
    return k


@jit
def join_first(g, at, keys, n):
    """Fill in, as bits, at which inputs lanes join the way back from first spikes; returns the last one, and times."""
    joins, rows, top = g.joins[at.slot], g.state[at.kept], -1
    spike = load32(rows, NOW)
    left = (spike > -math.inf) & at.every
    since, k = spike, first_from(keys, 0, n, lowest(select(left, spike, math.inf)))
    if k > 0:
        since = fill32(rows, keys[k - 1])
    while left:
        later = (spike > keys[k]) & left  # keys[n] is inf
        if k > 0:
            joins[k - 1], top = left & ~later, k - 1
        since, left = select(later, fill32(rows, keys[k]), since), later
        k += 1
    return top, since


@inlined
def back_quiet(g, at, c, k, due, keys, source, joining, two):
    """Take the adjoint of neurons of one or ``two`` components, at input ``k``, back as long as no event is DUE.

    Adds the gradients of inputs. Returns the input before. Where there are bits of ``joins``, the adjoint of these
    lanes is that of the rows, and before that it is 0.
    """
    rows, numbers, stride, joins, into = (
        g.state[at.kept],
        g.rows[table_of(g, at)],
        g.intervals,
        g.joins[at.slot],
        into_of(g, at),
    )
    first, last, none = PARTS + Q, PARTS + (g.count - 1) * EACH + Q, fill32(g.state, 0.0)
    p, q, r, unit = load32(rows, Y), load32(rows, first), load32(rows, last), named_rates(c[0])[0].unit
    rate, other, signed, parted = (
        named_rates(c[0])[0].syn * unit,
        named_rates(c[g.count - 1])[0].syn * unit,
        g.signed != 0,
        g.planes > 1,
    )
    sums, events, number, currents = g.sums[at.slot], g.columns[at.slot], 0, two and g.kinds[g.count - 1] != THRESHOLD
    rises = two and g.kinds[0] == RISE
    if joining:
        p = q = r = none
    while True:
        if joining:
            bits = joins[np.uintp(k)]
            if bits:
                joins[np.uintp(k)] = 0
                p, q = select(bits, load32(rows, Y), p), select(bits, load32(rows, first), q)
                if two:
                    r = select(bits, load32(rows, last), r)
        i = np.intp(source[np.uintp(k)])
        place, ahead = i * LANES, max(k - AHEAD, 0)
        fetch_row(into.weight, source, ahead)
        fetch_row(into.by_weight, source, ahead)
        w, by, speed = load32(into.weight, place), q, none + rate
        if two and signed:
            positive = w > 0.0
            by, speed = select(positive, q, r), select(positive, speed, none + other)
        elif two and parted and g.reached[at.e, i] > 0:
            by, speed = r, none + other
        store(into.by_weight, place, load32(into.by_weight, place) - by)
        each = (by - r if rises else by - p) * w * speed
        number = add_event(sums, events, into.by_times, number, event_at(g, at, k), fold16(each))
        k -= 1
        if k < 0 or due > keys[np.uintp(k)]:
            break
        if keys[np.uintp(k + 1)] > keys[np.uintp(k)]:
            base = np.uintp(k + 1)
            spot = base + np.uintp(FIRST * stride)
            q = fma(q, numbers[spot], p * numbers[spot + np.uintp(stride)])
            if rises:
                q = fma(r, numbers[spot + np.uintp(2 * stride)], q)
            if two:
                spot += np.uintp(EACH_ROW * stride)
                r = r * numbers[spot]
                if currents:
                    r = fma(p, numbers[spot + np.uintp(stride)], r)
            p = p * numbers[base]
    add_sums(sums, events, into.by_times, number)
    store(rows, Y, p)
    store(rows, first, q)
    if two:
        store(rows, last, r)
    return k


@jit
def pass_back_shared(g, at, c, k, due, keys, source):
    """``back_quiet`` of trains."""
    rows = g.state[at.kept]
    if g.count > 1:
        k = back_quiet(g, at, c, k, due, keys, source, False, True)
    else:
        k = back_quiet(g, at, c, k, due, keys, source, False, False)
    store(rows, NOW, min(load32(rows, NOW), fill32(rows, keys[k + 1])))
    return k
