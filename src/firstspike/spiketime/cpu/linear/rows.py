"""Inputs of a sample in the order in which they arrive, and the numbers of each interval, see ``flow``."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.flow import (
    BIAS,
    FEEDS,
    FIRST,
    HOW_LONG,
    LEFT,
    MOVES,
    OWN,
    PER,
    drive_of,
    fill_row,
    fill_slopes,
)
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.sort import sort_row
from firstspike.spiketime.cpu.vectors.mathfun import exp, exp_and_expm1, expm1
from firstspike.spiketime.cpu.vectors.simd import load16, select, store


@jit
def interval(g, keys, i):
    """The length of an interval; -1 is the one from the start to the first input."""
    begin, end = np.float64(g.bounds[0]), np.float64(g.bounds[1])
    now = begin if i < 0 else min(np.float64(keys[i]), end)
    stop = min(np.float64(keys[i + 1]), end)
    return 0.0 if now == -math.inf or not stop > now else stop - now


@jit
def fill_drives(g, e, j, drives, lane, step):
    """Fill in what each component gives the membrane, then how fast it decays, and the leak."""
    for k in range(g.count):
        rate = g.rates[e, j, k]
        drives[k * step + lane] = drive_of(g.kinds[k], g.leak[e, j], rate)
        drives[(g.count + k) * step + lane] = rate
    drives[2 * g.count * step + lane] = g.leak[e, j]


@jit
def prepare_own(g, at):
    """Sort what arrives at each neuron of a group in a sample, and fill in the numbers of its intervals; the most."""
    keys, shifted, times = g.own_keys[at.slot], g.shifted[at.slot], g.times[at.b]
    to, source, packed, most = g.sorted_to[at.slot], g.sorted_from[at.slot], g.packed[at.group], 0
    rows, weights = g.own_rows[at.slot].reshape(-1), g.own_weights[at.slot]
    for k in range(keys.shape[0]):
        for lane in range(LANES):
            keys[k, lane], g.inputs_of[at.slot, k, lane], g.events_of[at.slot, k, lane] = math.inf, 0, 0
    for place in range(weights.size):
        weights[place] = 0
    for lane in range(at.size):
        j = at.first + lane
        for event in range(times.size):
            shifted[event] = times[event] + (g.delay[at.e, j, event // g.copies] if g.delayed > 0 else 0)
        n = sort_row(
            shifted[: times.size], g.bounds[0], g.bounds[1], source, to, g.sort_keys[at.slot], g.sort_labels[at.slot]
        )
        while n > 0 and to[n - 1] == math.inf:
            n -= 1
        most = max(most, n)
        for k in range(n):
            i = source[k] // g.copies
            keys[k, lane], g.events_of[at.slot, k, lane], g.inputs_of[at.slot, k, lane] = to[k], source[k], i
            weights[k * LANES + lane] = packed[i * LANES + lane]
    for lane in range(LANES):
        j = at.first + min(lane, at.size - 1)
        leak, rates = g.leak[at.e, j], g.rates[at.e, j]
        fill_drives(g, at.e, j, g.own_drives[at.slot].reshape(-1), lane, LANES)
        for i in range(-1, most):
            wait = interval(g, keys[:, lane], i)
            start = (i + 1) * g.parts_of_row * LANES + lane
            fill_row(rows[start:], LANES, wait, g.kinds, leak, rates)
    return most


@jit
def fill_own_slopes(g, at, n):
    """Fill in the derivatives of these numbers."""
    slopes = g.own_slopes[at.slot].reshape(-1)
    for lane in range(LANES):
        j = at.first + min(lane, at.size - 1)
        for i in range(-1, n):
            wait, start = interval(g, g.own_keys[at.slot][:, lane], i), (i + 1) * g.parts_of_slopes * LANES + lane
            fill_slopes(slopes[start:], LANES, wait, g.kinds, g.leak[at.e, j], g.rates[at.e, j])


@jit
def prepare_shared(g, b, slot):
    """Sort what arrives in a sample, and fill in the numbers of its intervals."""
    order, arrival = g.order[b], g.arrival[b]
    n = sort_row(g.times[b], g.bounds[0], g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot])
    while n > 0 and arrival[n - 1] == math.inf:
        n -= 1
    arrival[n], g.inside[b, 0] = math.inf, n
    for k in range(n):
        g.source[b, k] = order[k] // g.copies
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
        spread(g, b, first, place + OWN, exp(s * rate * -1.0), out)
        spread(g, b, first, place + FEEDS, s * 0.0, out)
        drive = drive_of(kind, g.leak[e, 0], g.rates[e, 0, k])
        gap = s * (g.times.dtype.type(g.rates[e, 0, k] - g.leak[e, 0]) * -1.0)
        moves = left * s * select(abs(gap) > 0.0, expm1(gap) / gap, 1.0) * g.times.dtype.type(drive)
        spread(g, b, first, place + MOVES, gone * -1.0 if kind == BIAS else moves, out)


@jit
def spread(g, b, first, place, x, out):
    """Write a number of 16 rows."""
    store(out, 0, x)
    for lane in range(16):
        g.rows[b, first + lane, place] = out[lane]
