"""Linear neurons, forward: 32 neurons of one sample in the lanes of vectors, from input to input.

In each interval all lanes take the same step. A bound shows which cannot reach the threshold; the others, those that
are released from a refractory time, and with observed spikes those that have one, are gone through alone, event by
event, in float64.

Neurons that share their inputs' order and their time constants share the numbers of a row (``flow``), too; others have
lanes of them. The functions find which by the dimensions of the arrays, and whether there is a ``source``.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.flow import (
    BIAS,
    CURRENT,
    FEEDS,
    FIRST,
    HOW_LONG,
    LEFT,
    MOVES,
    OWN,
    PER,
    RISE,
    SYNAPSE,
    THRESHOLD,
    drive_of,
    pass_time,
)
from firstspike.spiketime.cpu.linear.search import crossing
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, lowest_bit, select, store

FORCED, FIXED = -1.0, 0.0  # in place of slopes: a spike at a release; one that nothing moves
# rows of float64 for one neuron: its components, and where the search works
WORK = 4
# rows of lanes: the membrane and the components, twice, and what follows
TAIL = 2
_LIMIT, _BUSY = range(TAIL)


class At(NamedTuple):
    """What a thread works on: a group of neurons in a sample. Groups and samples are counted through all networks."""

    slot: Any  # number of the thread
    e: Any  # network
    b: Any  # sample
    group: Any
    first: Any  # the group's first neuron
    size: Any  # how many it has
    chunk: Any  # backward: those samples, and those groups, whose gradients are summed together
    part: Any


@chosen_by_type
def part_of(row, place):
    """A number that all lanes share, or that of each."""
    if isinstance(row, types.Array) and row.ndim == 1:
        return lambda row, place: row[place]
    return lambda row, place: load32(row, place * LANES)


@chosen_by_type
def time_of(keys, i, lane):
    """When an input arrives at a lane."""
    if keys.ndim == 1:
        return lambda keys, i, lane: np.float64(keys[i])
    return lambda keys, i, lane: np.float64(keys[i, lane])


@jit
def add_input(g, at, i, base, weights, source):
    """Add the weights of an input to the components that it reaches, in the rows from ``base`` on."""
    state = g.state[at.slot]
    if source is None:
        if g.signed != 0 or g.receptors > 1:
            for lane in range(at.size):
                w = weights[i * LANES + lane]
                reached = np.intp(w <= 0) if g.signed != 0 else g.receptor[at.e, g.inputs_of[at.slot, i, lane]]
                state[base + (1 + g.places[reached]) * LANES + lane] += w
            return
        where, w = base + (1 + g.places[0]) * LANES, load32(weights, i * LANES)
    else:
        w = load32(weights, np.intp(source[i]) * LANES)
        if g.signed != 0:
            positive, other = max(w, 0.0), base + (1 + g.places[1]) * LANES
            store(state, other, load32(state, other) + (w - positive))
            w, where = positive, base + (1 + g.places[0]) * LANES
        else:
            where = base + (1 + g.places[g.receptor[at.e, source[i]]]) * LANES
    store(state, where, load32(state, where) + w)


@jit
def start_lanes(g, at):
    """The states of a group at the start; returns which lanes are held."""
    state, count, begin = g.state[at.slot], g.kinds.size, g.bounds[0]
    rows = 1 + count
    held = np.uint64(0)
    for place in range((2 * rows + TAIL) * LANES):
        state[place] = 0
    tail = 2 * rows * LANES
    for lane in range(LANES):
        state[tail + _LIMIT * LANES + lane], state[tail + _BUSY * LANES + lane] = math.inf, math.inf
        g.counts[at.slot, lane], g.free[at.slot, lane] = 0, -math.inf
    for lane in range(at.size):
        j = at.first + lane
        state[tail + _LIMIT * LANES + lane] = g.threshold[at.e, j] * (1 - 64 * g.tiny[0])
        if g.biased != 0:
            state[count * LANES + lane] = g.bias[at.e, j]
        if g.starts != 0:
            state[lane] = g.voltage[at.b, j]
            for k in range(count - g.biased):
                state[(1 + k) * LANES + lane] = g.current[at.b, j, k]
            if g.left[at.b, j] > 0:
                g.free[at.slot, lane] = np.float64(begin) + np.float64(g.left[at.b, j])
                state[tail + _BUSY * LANES + lane] = g.free[at.slot, lane]
                held |= np.uint64(1) << np.uint64(lane)
                if g.resets != 0:
                    state[lane] = g.reset[at.e, j]
        if g.observes != 0:
            due = g.spikes[at.b, j, 0]
            state[tail + _BUSY * LANES + lane] = min(state[tail + _BUSY * LANES + lane], due)
    return held


@jit
def go_alone(g, at, lane, here, there, now, stop, holds):
    """Take one neuron through an interval, event by event, from the rows ``here`` to ``there``.

    Returns whether it is held then, and whether it would spike more often than it may.
    """
    state, work, kinds, j = g.state[at.slot], g.work[at.slot], g.kinds, at.first + lane
    count = kinds.size
    rates, leak, theta = g.rates[at.e, j], g.leak[at.e, j], np.float64(g.threshold[at.e, j])
    y, copy, tail = work[3], work[4], 2 * (1 + count) * LANES
    v, free, spiked, stuck = np.float64(state[here + lane]), g.free[at.slot, lane], g.counts[at.slot, lane], False
    for k in range(count):
        y[k] = state[here + (1 + k) * LANES + lane]
    while True:
        due = g.spikes[at.b, j, spiked] if g.observes != 0 and spiked < g.most else math.inf
        pending = g.observes != 0 and due <= stop and due < math.inf
        if holds and not (pending and due < free):
            if free > stop:
                break
            v = pass_time(v, y, free - now, g.resets != 0, kinds, leak, rates)
            now, holds = free, False
            if g.records == 0:
                g.ups[at.b, j, spiked] = rate_of(v, y, kinds, leak, rates)
        waits = -1.0
        if g.observes != 0:
            if pending:
                waits = np.float64(due) - now
        elif excess(v, y, theta, kinds) >= 0 and now == free:
            waits = 0.0
        elif stop > now:
            for k in range(count):
                copy[k] = y[k]
            waits = crossing(v, copy, theta, stop - now, kinds, leak, rates, work)
        if waits < 0:
            break
        time = g.spikes.dtype.type(now + waits)
        if g.observes == 0 and waits > 0:
            least = np.nextafter(g.spikes.dtype.type(now), g.spikes.dtype.type(math.inf))
            time = min(max(time, least), g.spikes.dtype.type(stop))
        elif g.observes == 0:
            time = g.spikes.dtype.type(now)
        v = pass_time(v, y, time - now, holds and g.resets != 0, kinds, leak, rates)
        slope = rate_of(v, y, kinds, leak, rates)
        for k in range(count):
            if kinds[k] == THRESHOLD:
                slope += y[k] * rates[k]
        if spiked >= g.most:
            free = math.inf
            v = np.float64(g.reset[at.e, j]) if g.resets != 0 else v
            now, holds, stuck = np.float64(time), True, True
            break
        again = now == free and time == g.spikes.dtype.type(free)
        if holds or slope <= 0:
            slope = FIXED
        if again and not holds and excess(v, y, theta, kinds) >= 0:
            slope = FORCED
        if g.records == 0:
            g.slopes[at.b, j, spiked] = slope
        if g.observes == 0:
            g.spikes[at.b, j, spiked] = time
        spiked += 1
        now = np.float64(time)
        for k in range(count):
            y[k] += 0.0 if kinds[k] == BIAS else g.jumps[at.e, j, k]
        if g.resets != 0:
            v = np.float64(g.reset[at.e, j])
        free = np.float64(g.spikes.dtype.type(time + g.refractory[at.e, j]))
        holds = free > now
        if not holds:
            free = -math.inf
            if g.records == 0:
                g.ups[at.b, j, spiked] = rate_of(v, y, kinds, leak, rates)
        if g.once != 0 and spiked >= g.most:
            break
    v = pass_time(v, y, stop - now, holds and g.resets != 0, kinds, leak, rates)
    state[there + lane] = v
    for k in range(count):
        state[there + (1 + k) * LANES + lane] = y[k]
    g.free[at.slot, lane], g.counts[at.slot, lane] = free, spiked
    busy = free if holds else math.inf
    if g.observes != 0 and spiked < g.most:
        busy = min(busy, np.float64(g.spikes[at.b, j, spiked]))
    state[tail + _BUSY * LANES + lane] = busy
    return holds, stuck


@jit
def rate_of(v, y, kinds, leak, rates):
    """dV/dt."""
    rate = -leak * v
    for k in range(kinds.size):
        rate += drive_of(kinds[k], leak, rates[k]) * y[k]
    return rate


@jit
def excess(v, y, theta, kinds):
    """g, the membrane above the threshold."""
    over = v - theta
    for k in range(kinds.size):
        over -= y[k] if kinds[k] == THRESHOLD else 0.0
    return over


@jit
def step(g, at, row, drives, here, there):
    """Let the time of a row pass for all lanes, from the rows ``here`` to ``there``; returns a bound of V - threshold.

    That is without the constant part of the threshold, and for lanes that have no event.
    """
    state, kinds = g.state[at.slot], g.kinds
    v = load32(state, here)
    moved = v * part_of(row, LEFT)
    after, none = moved, fill32(state, 0.0)
    push, lift, fed = none, none, none
    for k in range(kinds.size):
        place, kind = FIRST + k * PER, kinds[k]
        y = load32(state, here + (1 + k) * LANES)
        own = part_of(row, place + OWN)
        kept = y * own
        store(state, there + (1 + k) * LANES, kept + fed)
        after = fma(y, part_of(row, place + MOVES), after)
        if kind == SYNAPSE:
            push = fma(max(y, kept), part_of(drives, k), push)
            fed = none
        elif kind == RISE:
            fed = y * part_of(row, place + FEEDS)
            push = push + max(y, 0.0) * (1.0 - own) * part_of(drives, k + 1)
        elif kind == THRESHOLD:
            lift = lift - min(y, kept)
        elif kind == CURRENT:
            push = fma(min(y, kept), part_of(drives, k), push)
        else:
            push = fma(y, part_of(drives, k), push)
    store(state, there, after)
    # as far as rounding goes, V is between its start and where it would come to rest
    return max(v, fma(push, part_of(row, HOW_LONG), moved)) + lift + abs(v) * (32 * g.tiny[0])


@jit
def scan(g, at, keys, rows, drives, weights, source, n):
    """Fill in the spikes of a group, their slopes, those at releases, and the states at the end.

    ``keys`` are the times of the n inputs that arrive, then ``inf``. With an order that all lanes share, ``weights``
    has those of each input, and ``source`` tells the input; without (None) both are in the order of each lane.
    """
    state, rows_each = g.state[at.slot], (1 + g.kinds.size) * LANES
    here, there, tail = 0, rows_each, 2 * rows_each
    held, stuck, active = start_lanes(g, at), np.uint64(0), ~np.uint64(0) >> np.uint64(64 - at.size)
    begin, end = np.float64(g.bounds[0]), np.float64(g.bounds[1])
    limit = load32(state, tail + _LIMIT * LANES)
    busy = load32(state, tail + _BUSY * LANES)
    any_busy = held != 0 or g.observes != 0
    for i in range(-1, n):
        if i >= 0:
            add_input(g, at, i, here, weights, source)
        elif begin == -math.inf:
            continue
        if source is not None and not min(time_of(keys, i + 1, 0), end) > (time_of(keys, i, 0) if i >= 0 else begin):
            continue
        if g.records != 0:
            for place in range(0, rows_each, LANES):
                store(g.tape[at.slot, i + 1], place, load32(state, here + place))
        bound = step(g, at, rows[i + 1], drives, here, there)
        alone = np.uint64(0)
        if g.observes == 0:
            alone = (bound >= limit) & active & ~held
        if any_busy:
            if held and g.resets != 0:
                store(state, there, select(held, load32(state, here), load32(state, there)))
            if source is None:
                alone |= due_lanes(g, at, keys, i, active)
            else:
                alone |= (fill32(state, min(keys[i + 1], g.bounds[1])) >= busy) & (busy < math.inf) & active
            alone &= ~stuck
        while alone:
            lane = lowest_bit(alone)
            bit = np.uint64(1) << np.uint64(lane)
            alone &= ~bit
            now = time_of(keys, i, lane) if i >= 0 else begin
            stop = min(time_of(keys, i + 1, lane), end)
            if not stop > now:
                continue
            holds, full = go_alone(g, at, lane, here, there, now, stop, (held & bit) != 0)
            held = held | bit if holds else held & ~bit
            if full:
                stuck |= bit
            if g.once != 0 and g.counts[at.slot, lane] >= g.most:
                active &= ~bit
            busy = load32(state, tail + _BUSY * LANES)
            any_busy = held != 0 or g.observes != 0
        here, there = there, here
        if active & ~stuck == 0 and end == math.inf:
            break
    if g.records == 0:
        end_lanes(g, at, here, stuck)


@jit
def due_lanes(g, at, keys, i, active):
    """Lanes with an event up to the next input, each in its own order."""
    found, end = np.uint64(0), np.float64(g.bounds[1])
    for lane in range(at.size):
        busy = g.state[at.slot, (2 * (1 + g.kinds.size) + _BUSY) * LANES + lane]
        if busy <= min(time_of(keys, i + 1, lane), end) and busy < math.inf:
            found |= np.uint64(1) << np.uint64(lane)
    return found & active


@jit
def end_lanes(g, at, here, stuck):
    """Write the states at the end, and who would spike more often."""
    state, end = g.state[at.slot], np.float64(g.bounds[1])
    for lane in range(at.size):
        j, full = at.first + lane, (stuck >> np.uint64(lane)) & np.uint64(1) != 0
        g.overflows[at.b, j] = full
        if g.ends != 0:
            g.end_voltage[at.b, j] = state[here + lane]
            for k in range(g.kinds.size - g.biased):
                g.end_current[at.b, j, k] = state[here + (1 + k) * LANES + lane]
            g.end_left[at.b, j] = 0.0 if full else max(g.free[at.slot, lane] - end, 0.0)
