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

from firstspike.spiketime.cpu.arrays import AHEAD, TILE, fetch_row, rates_of
from firstspike.spiketime.cpu.membrane import crossings, reaches, reaches_scaled, responses
from firstspike.spiketime.cpu.rows.entries import note, note_spike, sort_entries
from firstspike.spiketime.cpu.rows.intervals import scale_of
from firstspike.spiketime.cpu.rows.train_blocks import FEWEST, rows_of_block, scan_block, solve_within
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.rows import sixteen
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    lanes_of,
    load,
    lowest,
    lowest_bit,
    next_lane,
    select,
    splat,
)

_ALL = 0xFFFF


@jit
def scan_trains(tile, packed, sample, every, stops, block):
    """Spikes of a tile's lanes ``every`` in one window, from the states NOW, which become those at its last event.

    They are solved in blocks of rows, the first of ``block``. With ``stops``, nothing happens after the last event.
    """
    zero, state, entries, holds = tile.zero, tile.state, tile.entries, tile.holds
    arrival, rows, segments = sample.arrival, sample.rows, sample.segments
    syn, mem, never = rows.syn, rows.mem, arrival.dtype.type(math.inf)
    active, tested, begin = every, every, 0
    if holds:
        active &= ~(splat(zero, math.inf) > state.release)
        if tile.observed.shape[0] > 0:
            tested, due_at = np.uint64(0), earliest_due(tile)
            if due_at < arrival[0]:  # spikes before the first event cannot be the membrane's, but reset it
                active = spikes_between(tile, -1, active, every, due_at, arrival[0])
    for segment in range(segments):
        end = sample.ends[segment]
        k = end - 1
        while begin < k:
            low = entries.so_far.number
            by_rows, stop = holds or block < FEWEST, k if holds else min(begin + max(block, FEWEST), k)
            if not by_rows:
                active, by_rows = scan_block(tile, packed, sample, begin, stop, active)
                sort_entries(entries, low)
            if by_rows:
                active = scan_rows(tile, packed, sample, begin, stop, every, active, tested)
            block = rows_of_block(entries.so_far.number - low, stop - begin)
            begin = stop
        voltage, current = state.now_voltage, state.now_current
        current = fma(load(zero, packed, np.intp(sample.order[k]) * TILE), syn[k], current)
        state.now_voltage = voltage * (1 / mem[k])
        state.now_current = current * (1 / syn[k])
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else never
            active = spikes_between(tile, k, active, every, arrival[k], until)
        begin = end


@jit
def scan_rows(tile, packed, sample, begin, end, every, active, tested):
    """Spikes in rows of a segment, row by row. Returns who may spike afterwards."""
    zero, state, holds = tile.zero, tile.state, tile.holds
    source, arrival, rows = sample.order, sample.arrival, sample.rows
    syn, rise, bound, mem = rows.syn, rows.rise, rows.bound, rows.mem
    voltage, current = state.now_voltage, state.now_current
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
                state.now_voltage = voltage
                state.now_current = current
                active = spikes_in_row(tile, sample, k, candidates, active)
                voltage = state.now_voltage
                following = fma(current, rise[at], voltage)
                if holds:
                    due_at = earliest_due(tile)
        if holds and rise[at] > 0 and arrival[at + np.uintp(1)] >= due_at:
            due = lanes_due(tile, arrival[k + 1]) & every
            state.now_voltage = voltage * (1 / mem[k])
            state.now_current = current * (1 / syn[k])
            active = spikes_between(tile, k, active, due, arrival[k], arrival[k + 1])
            after = state.now_voltage * mem[k + 1] - current * rise[k]
            following = select(due & active, fma(current, rise[at], after), following)
            due_at = earliest_due(tile)
        voltage = following
    state.now_voltage = voltage
    state.now_current = current
    return active


@inlined
def spikes_in_row(tile, sample, k, candidates, active):
    """Spikes of the lanes ``candidates`` between input k and the next, with scaled states. Returns who may go on.

    The states become those from which the membrane after the last spike follows.
    """
    state, arrival, rows, c = tile.state, sample.arrival, sample.rows, tile.c
    mem, rise, bound = rows[k].mem, rows[k].rise, rows[k].bound
    r, scale = rates_of(c), scale_of(rows, k)
    now, wait = arrival[k], fill16(rows, arrival[k + 1] - arrival[k])
    while candidates:
        first = lowest_bit(candidates) & ~15
        some = sixteen(state, first)
        bits = (candidates >> np.uint64(first)) & np.uint64(_ALL)
        candidates &= ~(np.uint64(_ALL) << np.uint64(first))
        voltage = some.now_voltage
        current = some.now_current
        while bits:
            end = fma(current, rise, voltage)
            fired, limit = reaches_scaled(voltage, current, wait, end, current, bits, r, scale)
            if not fired:
                break
            v, i = voltage * scale.mem, current * scale.syn
            s, drive = solve_within(v, i, wait, limit, fired, r)
            spent = exp(min(s, 60.0 / r.faster) * r.mem)
            some.after = s
            some.steep = drive - r.mem
            voltage = select(fired, voltage - some.drop * (spent * mem), voltage)
            gone = record(tile, k, first, fired, now, arrival[k + 1])
            active &= ~(gone << np.uint64(first))
            if gone:  # the scan need not look at them again
                voltage = select(gone, fill16(state, -math.inf), voltage)
            bits = fired & ~gone & (fma(current, rise, voltage) >= bound)
        some.now_voltage = voltage
    return active


@inlined
def record(tile, k, first, fired, now, end):
    """Note spikes at ``now`` + AT of 16 lanes after row k. Returns those that may not spike again for now."""
    gone = np.uint64(0)
    while fired:
        part, fired = next_lane(fired)
        own = tile.state[first + part]
        if note_spike(tile, k, first + part, own.after, own.steep, now, end):
            gone |= np.uint64(1) << np.uint64(part)
    return gone


@inlined
def lanes_due(tile, end):
    """Lanes that are released or have an observed spike up to ``end``."""
    return splat(tile.zero, end) >= min(tile.state.release, tile.state.due)


@inlined
def earliest_due(tile):
    """When the next lane is due, inf for never."""
    return lowest(min(tile.state.release, tile.state.due))


@inlined
def do_what_is_due(tile, k, active, due, now, end):
    """Release lanes, and take observed spikes, up to ``end``. Returns the active lanes, and the released ones."""
    state, entries, observed = tile.state, tile.entries, tile.observed
    released, a, b = np.uint64(0), tile.c.mem, tile.c.syn
    while due:
        lane, due = next_lane(due)
        bit, own = np.uint64(1) << np.uint64(lane), state[lane]
        while True:
            release, spike = own.release, own.due
            time = min(release, spike)
            if time > end or math.isinf(time):
                break
            wait = max(time - now - own.elapsed, 0)
            current = own.now_current * math.exp(-wait * b)
            own.now_current = current
            own.elapsed += wait
            if release <= spike:
                reset = 1 - own.drop
                place = (entries.most + min(entries.counts[lane], entries.most)) * TILE + lane
                note(entries, k, place, time, current * b - reset * a)
                own.now_voltage, own.release = reset, math.inf
                active |= bit
                released |= bit
            else:
                count, slope = entries.counts[lane], current * b - a
                if not (active & bit) or spike <= max(own.last, now):
                    slope = 0  # it is refractory, or there was no input yet
                note(entries, k, count * TILE + lane, time, slope)
                entries.counts[lane] = count + 1
                following = tile.places[lane] + count + 1
                own.due = observed[lane, following] if following < observed.shape[1] else math.inf
                own.release = spike + own.hold
                active &= ~bit
                released &= ~bit
            own.last = time
    return active, released


@jit
def spikes_between(tile, k, active, touched, now, end):
    """Spikes of the lanes ``touched`` after row k, from ``now`` to ``end``, which may be ``inf``. States have scale 1.

    Returns who may spike afterwards. States become those at a finite ``end``, of groups with a touched lane.
    """
    zero, state, c = tile.zero, tile.state, tile.c
    endless, a, pending, r = math.isinf(end), c.mem, active & touched, rates_of(c)
    state.elapsed = zero
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
            bits, some = (pending >> np.uint64(first)) & np.uint64(_ALL), sixteen(state, first)
            if not bits:
                continue
            v, i = some.now_voltage, some.now_current
            since = some.elapsed
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
            reset = fill16(state, 1.0) - some.drop
            some.elapsed = since
            some.after = since
            some.steep = drive - a
            some.now_voltage = select(bits, reset, v)
            some.now_current = select(bits, drive * (1 / c.syn), i)
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
        some = sixteen(state, first)
        v, i = some.now_voltage, some.now_current
        left = fill16(state, end - now) - some.elapsed
        mem, syn, response = responses(max(left, 0.0), r)
        some.now_voltage = fma(v, mem, i * response)
        some.now_current = i * syn
    return active
