"""Spike trains: the scan of a tile of neurons through the events of a window, and its steps at spikes.

Lanes are neurons, and everything is in units of their thresholds. A reset from the threshold to ``1 - DROP`` subtracts
DROP from the membrane at the spike, which decays from then on like the membrane itself. In the scaled states of
``intervals`` it is a constant, DROP times ``exp(x/tau_mem)`` at the spike: it may be subtracted at the last input
already, and the next event in the interval is found from there.

States have no scale in intervals that are long or endless, and in those in which the membrane of a lane does something
other than cross the threshold by itself: it is released after a refractory time, or it has a spike that was observed.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, PER_MEM, PER_SYN, TILE, fetch_row, rates_of
from firstspike.spiketime.cpu.membrane import crossings, reaches, reaches_scaled, responses
from firstspike.spiketime.cpu.rows.entries import (
    AT,
    DROP,
    HOLD,
    LAST,
    NEXT,
    RELEASE,
    SEEN,
    SINCE,
    STEEP,
    note,
    note_spike,
    sort_entries,
)
from firstspike.spiketime.cpu.rows.intervals import BOUND, MEM, NOW_CURRENT, NOW_VOLTAGE, RISE, SYN, scale_of
from firstspike.spiketime.cpu.rows.train_blocks import FEWEST, rows_of_block, scan_block, solve_within
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    lanes_of,
    load,
    load16,
    lowest,
    lowest_bit,
    next_lane,
    select,
    splat,
    store,
)

_ALL = 0xFFFF


@jit
def scan_trains(tile, packed, sample, every, stops, block):
    """Spikes of a tile's lanes ``every`` in one window, from the states NOW, which become those at its last event.

    They are solved in blocks of rows, the first of ``block``. With ``stops``, nothing happens after the last event.
    """
    zero, state, entries, holds = tile.zero, tile.state, tile.entries, tile.holds
    arrival, rows, segments = sample.arrival, sample.rows, sample.segments
    syn, mem, never = rows[SYN], rows[MEM], arrival.dtype.type(math.inf)
    active, tested, begin = every, every, 0
    if holds:
        active &= ~(splat(zero, math.inf) > load(zero, state, RELEASE))
        if tile.observed.shape[0] > 0:
            tested, due_at = np.uint64(0), earliest_due(tile)
            if due_at < arrival[0]:  # spikes before the first event cannot be the membrane's, but reset it
                active = spikes_between(tile, -1, active, every, due_at, arrival[0])
    for segment in range(segments):
        end = sample.ends[segment]
        k = end - 1
        while begin < k:
            low = entries.lanes[TILE]
            by_rows, stop = holds or block < FEWEST, k if holds else min(begin + max(block, FEWEST), k)
            if not by_rows:
                active, by_rows = scan_block(tile, packed, sample, begin, stop, active)
                sort_entries(entries, low)
            if by_rows:
                active = scan_rows(tile, packed, sample, begin, stop, every, active, tested)
            block = rows_of_block(entries.lanes[TILE] - low, stop - begin)
            begin = stop
        voltage, current = load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT)
        current = fma(load(zero, packed, np.intp(sample.order[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT, current * (1 / syn[k]))
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else never
            active = spikes_between(tile, k, active, every, arrival[k], until)
        begin = end


@jit
def scan_rows(tile, packed, sample, begin, end, every, active, tested):
    """Spikes in rows of a segment, row by row. Returns who may spike afterwards."""
    zero, state, holds = tile.zero, tile.state, tile.holds
    source, arrival, rows = sample.order, sample.arrival, sample.rows
    syn, rise, bound, mem = rows[SYN], rows[RISE], rows[BOUND], rows[MEM]
    voltage, current = load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT)
    due_at = earliest_due(tile) if holds else arrival.dtype.type(math.inf)
    for k in range(begin, end):
        at = np.uintp(k)  # without a sign, an index needs no test for one below 0
        fetch_row(packed, source, min(k + AHEAD, end))
        current = fma(load(zero, packed, np.intp(source[at]) * TILE), syn[at], current)
        following = fma(current, rise[at], voltage)
        # rise is 0 where the next input arrives at the same time
        if any_reaches(following, bound[at]) and rise[at] > 0:
            candidates = (following >= bound[at]) & active & tested
            if candidates:
                store(state, NOW_VOLTAGE, voltage)
                store(state, NOW_CURRENT, current)
                active = spikes_in_row(tile, sample, k, candidates, active)
                voltage = load(zero, state, NOW_VOLTAGE)
                following = fma(current, rise[at], voltage)
                if holds:
                    due_at = earliest_due(tile)
        if holds and rise[at] > 0 and arrival[at + np.uintp(1)] >= due_at:
            due = lanes_due(tile, arrival[k + 1]) & every
            store(state, NOW_VOLTAGE, voltage * (1 / mem[k]))
            store(state, NOW_CURRENT, current * (1 / syn[k]))
            active = spikes_between(tile, k, active, due, arrival[k], arrival[k + 1])
            after = load(zero, state, NOW_VOLTAGE) * mem[k + 1] - current * rise[k]
            following = select(due & active, fma(current, rise[at], after), following)
            due_at = earliest_due(tile)
        voltage = following
    store(state, NOW_VOLTAGE, voltage)
    store(state, NOW_CURRENT, current)
    return active


@inlined
def spikes_in_row(tile, sample, k, candidates, active):
    """Spikes of the lanes ``candidates`` between input k and the next, with scaled states. Returns who may go on.

    The states become those from which the membrane after the last spike follows.
    """
    state, arrival, rows, c = tile.state, sample.arrival, sample.rows, tile.c
    mem, rise, bound = rows[MEM, k], rows[RISE, k], rows[BOUND, k]
    r, scale = rates_of(c), scale_of(rows, k)
    now, wait = arrival[k], fill16(rows, arrival[k + 1] - arrival[k])
    while candidates:
        first = lowest_bit(candidates) & ~15
        bits = (candidates >> np.uint64(first)) & np.uint64(_ALL)
        candidates &= ~(np.uint64(_ALL) << np.uint64(first))
        voltage = load16(state, NOW_VOLTAGE + first)
        current = load16(state, NOW_CURRENT + first)
        while bits:
            end = fma(current, rise, voltage)
            fired, limit = reaches_scaled(voltage, current, wait, end, current, bits, r, scale)
            if not fired:
                break
            v, i = voltage * scale.mem, current * scale.syn
            s, drive = solve_within(v, i, wait, limit, fired, state.itemsize == 4, r)
            spent = exp(min(s, 60.0 / r.faster) * r.mem)
            store(state, AT + first, s)
            store(state, STEEP + first, drive - r.mem)
            voltage = select(fired, voltage - load16(state, DROP + first) * (spent * mem), voltage)
            gone = record(tile, k, first, fired, now, arrival[k + 1])
            active &= ~(gone << np.uint64(first))
            if gone:  # the scan need not look at them again
                voltage = select(gone, fill16(state, -math.inf), voltage)
            bits = fired & ~gone & (fma(current, rise, voltage) >= bound)
        store(state, NOW_VOLTAGE + first, voltage)
    return active


@inlined
def record(tile, k, first, fired, now, end):
    """Note spikes at ``now`` + AT of 16 lanes after row k. Returns those that may not spike again for now."""
    gone, state = np.uint64(0), tile.state
    while fired:
        part, fired = next_lane(fired)
        lane = first + part
        if note_spike(state, tile.entries, k, lane, state[AT + lane], state[STEEP + lane], tile.holds, now, end):
            gone |= np.uint64(1) << np.uint64(part)
    return gone


@inlined
def lanes_due(tile, end):
    """Lanes that are released or have an observed spike up to ``end``."""
    return splat(tile.zero, end) >= min(load(tile.zero, tile.state, RELEASE), load(tile.zero, tile.state, NEXT))


@inlined
def earliest_due(tile):
    """When the next lane is due, inf for never."""
    return lowest(min(load(tile.zero, tile.state, RELEASE), load(tile.zero, tile.state, NEXT)))


@inlined
def do_what_is_due(tile, k, active, due, now, end):
    """Release lanes, and take observed spikes, up to ``end``. Returns the active lanes, and the released ones."""
    state, entries, observed = tile.state, tile.entries, tile.observed
    released, a, b = np.uint64(0), tile.c[PER_MEM], tile.c[PER_SYN]
    while due:
        lane, due = next_lane(due)
        bit = np.uint64(1) << np.uint64(lane)
        while True:
            release, spike = state[RELEASE + lane], state[NEXT + lane]
            time = min(release, spike)
            if time > end or math.isinf(time):
                break
            wait = max(time - now - state[SINCE + lane], 0)
            current = state[NOW_CURRENT + lane] * math.exp(-wait * b)
            state[NOW_CURRENT + lane] = current
            state[SINCE + lane] += wait
            if release <= spike:
                reset = 1 - state[DROP + lane]
                place = (entries.most + min(entries.lanes[lane], entries.most)) * TILE + lane
                note(entries, k, place, time, current * b - reset * a)
                state[NOW_VOLTAGE + lane], state[RELEASE + lane] = reset, math.inf
                active |= bit
                released |= bit
            else:
                count, slope = entries.lanes[lane], current * b - a
                if not (active & bit) or spike <= max(state[LAST + lane], now):
                    slope = 0  # it is refractory, or there was no input yet
                note(entries, k, count * TILE + lane, time, slope)
                entries.lanes[lane] = count + 1
                following = entries.lanes[SEEN + lane] + count + 1
                state[NEXT + lane] = observed[lane, following] if following < observed.shape[1] else math.inf
                state[RELEASE + lane] = spike + state[HOLD + lane]
                active &= ~bit
                released &= ~bit
            state[LAST + lane] = time
    return active, released


@jit
def spikes_between(tile, k, active, touched, now, end):
    """Spikes of the lanes ``touched`` after row k, from ``now`` to ``end``, which may be ``inf``. States have scale 1.

    Returns who may spike afterwards. States become those at a finite ``end``, of groups with a touched lane.
    """
    zero, state, c = tile.zero, tile.state, tile.c
    endless, a, pending, r = math.isinf(end), c[PER_MEM], active & touched, rates_of(c)
    store(state, SINCE, zero)
    while True:
        if tile.holds:
            active, released = do_what_is_due(tile, k, active, lanes_due(tile, end) & touched, now, end)
            pending = (pending | released) & active
            if tile.observed.shape[0] > 0:
                break
        if not pending:
            break
        fired = following = np.uint64(0)
        for first in range(0, lanes_of(zero), 16):
            bits = (pending >> np.uint64(first)) & np.uint64(_ALL)
            if not bits:
                continue
            v, i = load16(state, NOW_VOLTAGE + first), load16(state, NOW_CURRENT + first)
            since = load16(state, SINCE + first)
            left = fill16(state, end - now) - since
            if endless:
                after, faded = (v + i) * (1.0 if a == 0 else 0.0), fill16(state, 0.0)
            else:
                left = max(left, 0.0)
                mem, syn, response = responses(left, r)
                after, faded = fma(v, mem, i * response), i * syn
            bits, limit = reaches(v, i, left, after, faded, bits, r)
            if not bits:
                continue
            wait, drive = crossings(v, i, limit, bits, r)
            since = select(bits, since + wait, since)
            reset = fill16(state, 1.0) - load16(state, DROP + first)
            store(state, SINCE + first, since)
            store(state, AT + first, since)
            store(state, STEEP + first, drive - a)
            store(state, NOW_VOLTAGE + first, select(bits, reset, v))
            store(state, NOW_CURRENT + first, select(bits, drive * (1 / c[PER_SYN]), i))
            gone = record(tile, k, first, bits, now, end)
            active &= ~(gone << np.uint64(first))
            fired |= bits << np.uint64(first)
            following |= (bits & ~gone) << np.uint64(first)
        if not fired:
            break
        pending = following
    for first in range(0, 0 if endless else lanes_of(zero), 16):
        if not (touched >> np.uint64(first)) & np.uint64(_ALL):
            continue
        v, i = load16(state, NOW_VOLTAGE + first), load16(state, NOW_CURRENT + first)
        left = fill16(state, end - now) - load16(state, SINCE + first)
        mem, syn, response = responses(max(left, 0.0), r)
        store(state, NOW_VOLTAGE + first, fma(v, mem, i * response))
        store(state, NOW_CURRENT + first, i * syn)
    return active
