"""The way back of sparse layers through one window: the adjoint of each neuron in pieces, looked up by its synapses.

Synapses of one source are worked on 32 at a time, like a group of neurons, with the state of each lane's target.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    DELTA,
    HEIGHT,
    LANES,
    PER_MEM,
    PER_RISE,
    PER_SYN,
    RATIO,
    TOP,
    UNIT,
    X,
    every_lane,
)
from firstspike.spiketime.cpu.lanes.adjoint import BY_MEM, BY_PARTS, DUE, EACH, NOW, PARTS
from firstspike.spiketime.cpu.lanes.flow import add_taus, back, constants, reached, reload
from firstspike.spiketime.cpu.lanes.state import At
from firstspike.spiketime.cpu.lanes.unwind import fill_pieces
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.simd import load32, select, store
from firstspike.spiketime.cpu.windows.unwind import enter, leave_window


@jit
def unwind_group(g, at):
    """Fill in the pieces of 32 neurons in a window."""
    c = constants(g, at)
    enter(g, at)
    x, _ = fill_pieces(g, at, c, 0)
    leave_window(g, at, c, x)


@jit
def settle(g, slot, b, chunk, window, taus):
    """Add the gradients of all synapses through which something arrives in a window."""
    group, kept, picked, times = g.groups + slot, g.groups * g.threads + slot, g.picked[slot], g.picked_times[slot]
    at = At(slot, 0, b, group, 0, every_lane(LANES), chunk, 0, kept, window.begin, window.end, window)
    g.rates[group] = g.rates[0]  # those that all neurons share
    for event in range(window.n):
        i, sent, size = np.intp(window.sources[event]), window.times[event], 0
        fresh, total = g.delayed > 0 and event >= window.fresh, g.times.dtype.type(0)
        for s in range(g.offsets[i], g.offsets[i + 1]):
            arrival = sent
            if g.delayed > 0:
                arrival += g.lag[s]
                if fresh:
                    arrival = max(arrival, window.begin)
                if not (arrival >= window.begin and arrival < window.end):
                    continue
            picked[size], times[size] = s, arrival
            size += 1
            if size == LANES:
                total += settle_some(g, at, i, size, taus)
                size = 0
        if size > 0:
            total += settle_some(g, at, i, size, taus)
        g.times_parts[0, b, window.events[event]] += total


@jit
def copy_rates(g, group, lane, source, column):
    """Give a lane the rates of a neuron, in the unit of time of the first group."""
    scale = g.rates[source, 0, UNIT, 0] / g.rates[0, 0, UNIT, 0]
    for k in range(g.count):
        for rate in (PER_MEM, PER_SYN, DELTA):
            g.rates[group, k, rate, lane] = g.rates[source, k, rate, column] * scale
        for rate in (PER_RISE, RATIO, X, TOP, HEIGHT):
            g.rates[group, k, rate, lane] = g.rates[source, k, rate, column]


@jit
def settle_some(g, at, i, size, taus):
    """Add the gradients of some synapses of a source; returns that by its time."""
    rows, picked, times, sums = g.state[at.kept], g.picked[at.slot], g.picked_times[at.slot], g.sums[at.slot]
    each, own = PARTS + g.count * EACH, g.taus > 1
    if size < LANES:
        for row in range(0, each, LANES):
            rows[row : row + LANES] = 0
        rows[NOW : NOW + LANES] = -math.inf
        times[size:] = 0
    for lane in range(size):
        j = np.uintp(g.targets[picked[lane]])
        group, column = j // np.uintp(LANES), j % np.uintp(LANES)
        pieces, place = g.pieces[at.slot * g.groups + np.intp(group)], column
        while pieces[place + np.uintp(DUE)] > times[lane]:
            place += np.uintp(each)
        for row in range(0, each, LANES):
            rows[row + lane] = pieces[place + np.uintp(row)]
        sums[lane] = g.scaled[picked[lane]]
        if own:
            copy_rates(g, at.group, lane, np.intp(group), np.intp(column))
    if size < LANES:
        sums[size:LANES] = 0
    arrival = load32(times, 0)
    inside = load32(rows, NOW) > arrival
    w, c = select(inside, load32(sums, 0), 0.0), constants(g, at)
    x = back(g, at, c, reload(g, at), arrival, False, False, taus)
    if taus:
        g.totals[at.group, at.chunk] = 0
        add_taus(g, at, x, 0, i, w)
        totals = g.totals[at.group, at.chunk]
        for lane in range(size):
            j = np.intp(g.targets[picked[lane]])
            to, column = g.totals[j // LANES, at.chunk], j % LANES
            to[BY_MEM + column] += totals[BY_MEM + lane]
            for row in range(BY_PARTS, g.total_rows, LANES):
                to[row + column] += totals[row + lane]
    part, fed, rate = reached(g, at, c, x, i, w)
    by_time = (part.q - fed) * w * (rate * g.rates[0, 0, UNIT, 0])
    store(sums, 0, select(inside, part.q, 0.0))
    store(sums, LANES, by_time)
    total = sums.dtype.type(0)
    for lane in range(size):
        g.strength_parts[at.chunk, picked[lane]] += sums[lane]
        total += sums[LANES + lane]
        if g.delayed > 0:
            g.lag_parts[at.chunk, picked[lane]] += sums[LANES + lane]
    return total
