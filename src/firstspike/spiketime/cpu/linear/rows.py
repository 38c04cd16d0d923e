"""Inputs of a sample in the order in which they arrive, and the numbers of each interval, see ``flow``."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.flow import FIRST, HOW_LONG, LEFT, MOVES, OWN, PER, drive_of, fill_row, fill_slopes
from firstspike.spiketime.cpu.linear.lanes import response_lanes
from firstspike.spiketime.cpu.linear.scan import size_of
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.sort import sort_row
from firstspike.spiketime.cpu.vectors.mathfun import exp, exp_and_expm1
from firstspike.spiketime.cpu.vectors.shuffles import sort_lanes
from firstspike.spiketime.cpu.vectors.simd import fill32, load16, load32, select, store


@jit
def interval(g, keys, i):
    """The length of an interval. -1 is the one from the start to the first input."""
    begin, end = np.float64(g.bounds[0]), np.float64(g.bounds[1])
    now = begin if i < 0 else min(np.float64(keys[i]), end)
    stop = min(np.float64(keys[i + 1]), end)
    return 0.0 if now == -math.inf or not stop > now else stop - now


@jit
def fill_drives(g, e, j, drives, lane, step):
    """Fill in each component's drive of the membrane, then its rate of decay, and the leak."""
    for k in range(g.count):
        rate = g.rates[e, j, k]
        drives[k * step + lane] = drive_of(g.kinds[k], g.leak[e, j], rate)
        drives[(g.count + k) * step + lane] = rate
    drives[2 * g.count * step + lane] = g.leak[e, j]


@jit
def sort_arrivals(g, at):
    """Sort the inputs that reach some of 32 lanes between start and end, for each lane: their times are the keys.

    The values are numbers of rows: row r is input time ``g.arrived[at.slot, r]``. Returns how many reach the lane that
    most reach.
    """
    times, delay, begin, end = g.times[at.b], g.delays[at.group], g.bounds[0], g.bounds[1]
    keys, values, arrived, copies = g.keys[at.slot], g.values[at.slot], g.arrived[at.slot], g.copies
    n, never = 0, fill32(keys, math.inf)
    for event in range(times.size):
        if times[event] < end:
            arrival = load32(delay, event // copies * LANES) + times[event]
            inside = (arrival >= begin) & (end > arrival) & at.every
            if inside:
                store(keys, n * LANES, select(inside, arrival, never))
                store(values, n * LANES, fill32(keys, float(n)))
                arrived[n] = event
                n += 1
    sort_lanes(keys, values, n)
    while n > 0 and not never > load32(keys, (n - 1) * LANES):
        n -= 1
    return n


@jit
def prepare_own(g, at):
    """Sort the inputs of each neuron of a group in a sample, and fill in the numbers of its intervals; the most."""
    keys, values, arrived = g.keys[at.slot].reshape(-1, LANES), g.values[at.slot], g.arrived[at.slot]
    begin, end, never = g.bounds[0], g.bounds[1], fill32(g.tiny, math.inf)
    if g.delayed > 0:
        n = sort_arrivals(g, at)
    else:
        to = g.sorted_to[at.slot]
        n = sort_row(g.times[at.b], begin, end, arrived, to, g.sort_keys[at.slot], g.sort_labels[at.slot])
        for k in range(n):
            store(keys, k * LANES, select(at.every, fill32(g.tiny, to[k]), never))
            store(values, k * LANES, fill32(g.tiny, k))
        store(keys, n * LANES, never)
    weights, packed = g.own_weights[at.slot], g.packed[at.group]
    for k in range(n):
        for lane in range(LANES):
            event = arrived[np.intp(values[k * LANES + lane])]
            i, arrives = event // g.copies, keys[k, lane] < math.inf
            g.events_of[at.slot, k, lane], g.inputs_of[at.slot, k, lane] = event, i
            weights[k * LANES + lane] = packed[i * LANES + lane] if arrives else 0
    for lane in range(LANES):
        fill_drives(g, at.e, at.first + min(lane, size_of(g, at) - 1), g.own_drives[at.slot].reshape(-1), lane, LANES)
    for i in range(-1 if begin > -math.inf else 0, n):
        now = fill32(g.tiny, begin) if i < 0 else min(load32(keys, i * LANES), fill32(g.tiny, end))
        stop = min(load32(keys, (i + 1) * LANES), fill32(g.tiny, end))
        waits = select(stop > now, stop - now, 0.0)
        if g.rising != 0:
            store(weights, n * LANES, waits)
            fill_rising_lanes(g, at, g.own_rows[at.slot, i + 1].reshape(-1), weights[n * LANES :])
        else:
            fill_row_lanes(g, g.own_rows[at.slot, i + 1], g.own_drives[at.slot], min(waits, 1e30))
    return n


@jit
def fill_row_lanes(g, row, drives, s):
    """``fill_row`` for an interval of each lane, of neurons without a rise."""
    leak = load32(drives, 2 * g.count * LANES)
    left, gone = exp_and_expm1(s * leak * -1.0)
    store(row, LEFT * LANES, left)
    store(row, HOW_LONG * LANES, select(leak > 0.0, gone * -1.0 / leak, s))
    for k in range(g.count):
        place, rate = (FIRST + k * PER) * LANES, load32(drives, (g.count + k) * LANES)
        own = exp(s * rate * -1.0)
        store(row, place + OWN * LANES, own)
        store(row, place + MOVES * LANES, response_lanes(s, leak, rate, left, own) * load32(drives, k * LANES))


@jit
def fill_rising_lanes(g, at, row, waits):
    """``fill_row`` for an interval of each lane."""
    for lane in range(LANES):
        j = at.first + min(lane, size_of(g, at) - 1)
        fill_row(row[lane:], LANES, np.float64(waits[lane]), g.kinds, g.leak[at.e, j], g.rates[at.e, j])


@jit
def fill_own_slopes(g, at, n):
    """Fill in the derivatives of these numbers."""
    slopes = g.own_slopes[at.slot].reshape(-1)
    for lane in range(LANES):
        j = at.first + min(lane, size_of(g, at) - 1)
        for i in range(-1, n):
            wait = interval(g, g.keys[at.slot].reshape(-1, LANES)[:, lane], i)
            start = (i + 1) * g.parts_of_slopes * LANES + lane
            fill_slopes(slopes[start:], LANES, wait, g.kinds, g.leak[at.e, j], g.rates[at.e, j])


@jit
def prepare_shared(g, b, slot):
    """Sort the inputs of a sample, and fill in the numbers of its intervals."""
    order, arrival = g.order[b], g.arrival[b]
    n = sort_row(g.times[b], g.bounds[0], g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot])
    arrival[n], g.inside[b, 0] = math.inf, n
    for k in range(n):
        g.source[b, k] = order[k] if g.copies == 1 else order[k] // g.copies
    e, waits = b // g.batch, g.waits[slot]
    for i in range(-1, n):
        waits[i + 1] = interval(g, arrival, i)
    whole = 0 if g.rising != 0 else (n + 1) // 16 * 16
    for first in range(0, whole, 16):
        fill_rows(g, b, e, first, slot)
    for i in range(whole, n + 1):
        fill_row(g.rows[b, i], 1, np.float64(waits[i]), g.kinds, g.leak[e, 0], g.rates[e, 0])
    if whole > n:  # the last one may have no end
        fill_row(g.rows[b, n], 1, interval(g, arrival, n - 1), g.kinds, g.leak[e, 0], g.rates[e, 0])


@jit
def fill_rows(g, b, e, first, slot):
    """``fill_row`` for 16 intervals at once, of neurons without a rise."""
    s, leak, out = load16(g.waits[slot], first), g.times.dtype.type(g.leak[e, 0]), g.column[slot]
    s = min(s, 1e30)
    left, gone = exp_and_expm1(s * leak * -1.0)
    spread(g, b, first, LEFT, left, out)
    spread(g, b, first, HOW_LONG, gone * -1.0 / leak if leak > 0 else s, out)
    for k in range(g.count):
        place, kind, rate = FIRST + k * PER, g.kinds[k], g.times.dtype.type(g.rates[e, 0, k])
        own = exp(s * rate * -1.0)
        spread(g, b, first, place + OWN, own, out)
        drive = g.times.dtype.type(drive_of(kind, g.leak[e, 0], g.rates[e, 0, k]))
        spread(g, b, first, place + MOVES, response_lanes(s, leak, rate, left, own) * drive, out)


@jit
def spread(g, b, first, place, x, out):
    """Write a number of 16 rows."""
    store(out, 0, x)
    for lane in range(16):
        g.rows[b, first + lane, place] = out[lane]
