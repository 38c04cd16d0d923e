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
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import PER_MEM, PER_SYN, TILE, rates_of
from firstspike.spiketime.cpu.membrane import (
    SHORT,
    crossings,
    reaches,
    reaches_scaled,
    responses,
    soon,
)
from firstspike.spiketime.cpu.rows.intervals import (
    BOUND,
    MEM,
    N_STATE,
    NOW_CURRENT,
    NOW_VOLTAGE,
    RISE,
    SYN,
    scale_of,
)
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
    select,
    splat,
    store,
)

# rows of a tile's state after those of ``intervals``
DROP, SINCE, AT, STEEP = range(N_STATE, N_STATE + 4 * TILE, TILE)
# time of a lane's last spike or release in the window, when a refractory lane is released, inf for others; refractory
# time; its next spike, where spikes are observed, otherwise inf
LAST, RELEASE, HOLD, NEXT = range(N_STATE + 4 * TILE, N_STATE + 8 * TILE, TILE)
N_LANES = N_STATE + 8 * TILE
SEEN = TILE + 2  # where ``lanes`` has the numbers of observed spikes before the window

_ALL = 0xFFFF


class Entries(NamedTuple):
    """Spikes and releases of a tile in a window, in the order in which the scan finds them.

    ``lanes`` has the number of spikes of each lane, then the number of entries, then whether there was no room for one.
    An entry has the row after which it is, the slope of the membrane there, its time, and its place: spike k of a lane
    is at ``k * TILE + lane``, the release after k spikes at ``(most + k) * TILE + lane``.
    """

    lanes: Any
    most: Any
    found: Any
    places: Any
    moments: Any
    slopes: Any


@jit
def scan_trains(zero, packed, sample, stops, every, holds, c, state, entries, observed):
    """Spikes of a tile's lanes ``every`` in one window, from the states NOW, which become those at its last event.

    With ``stops``, nothing happens after the last event. With ``holds``, neurons may be refractory, or their spikes be
    ``observed (lanes, spikes)``, which has no lanes where spikes are those of the membrane.
    """
    source, arrival, rows, segments = sample.order, sample.arrival, sample.rows, sample.segments
    syn, rise, bound, mem = rows[SYN], rows[RISE], rows[BOUND], rows[MEM]
    never = arrival.dtype.type(math.inf)
    active, tested, begin, due_at = every, every, 0, never
    if holds:
        active &= ~(splat(zero, math.inf) > load(zero, state, RELEASE))
        due_at = earliest_due(zero, state)
        if observed.shape[0] > 0:
            tested = np.uint64(0)
            if due_at < arrival[0]:  # spikes before the first event cannot be the membrane's, but reset it
                active = spikes_between(zero, state, entries, -1, active, every, True, due_at, arrival[0], c, observed)
                due_at = earliest_due(zero, state)
    for segment in range(segments):
        end = sample.ends[segment]
        voltage, current = load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT)
        for k in range(begin, end - 1):
            at = np.uintp(k)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(source[at]) * TILE), syn[at], current)
            following = fma(current, rise[at], voltage)
            # rise is 0 where the next input arrives at the same time
            if any_reaches(following, bound[at]) and rise[at] > 0:
                candidates = (following >= bound[at]) & active & tested
                if candidates:
                    store(state, NOW_VOLTAGE, voltage)
                    store(state, NOW_CURRENT, current)
                    active = spikes_in_row(zero, state, entries, k, candidates, active, holds, rows, arrival, c)
                    voltage = load(zero, state, NOW_VOLTAGE)
                    following = fma(current, rise[at], voltage)
                    if holds:
                        due_at = earliest_due(zero, state)
            if holds and rise[at] > 0 and arrival[at + np.uintp(1)] >= due_at:
                due = lanes_due(zero, state, arrival[k + 1]) & every
                store(state, NOW_VOLTAGE, voltage * (1 / mem[k]))
                store(state, NOW_CURRENT, current * (1 / syn[k]))
                active = spikes_between(
                    zero, state, entries, k, active, due, True, arrival[k], arrival[k + 1], c, observed
                )
                after = load(zero, state, NOW_VOLTAGE) * mem[k + 1] - current * rise[k]
                following = select(due & active, fma(current, rise[at], after), following)
                due_at = earliest_due(zero, state)
            voltage = following
        k = end - 1
        current = fma(load(zero, packed, np.intp(source[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT, current * (1 / syn[k]))
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else never
            active = spikes_between(zero, state, entries, k, active, every, holds, arrival[k], until, c, observed)
            if holds:
                due_at = earliest_due(zero, state)
        begin = end


@inlined
def spikes_in_row(zero, state, entries, k, candidates, active, holds, rows, arrival, c):
    """Spikes of the lanes ``candidates`` between input k and the next, with scaled states. Returns who may go on.

    The states become those from which the membrane after the last spike follows.
    """
    mem, rise, bound = rows[MEM, k], rows[RISE, k], rows[BOUND, k]
    r, scale = rates_of(c), scale_of(rows, k)
    now, wait = arrival[k], fill16(rows, arrival[k + 1] - arrival[k])
    short = state.itemsize == 4 and (arrival[k + 1] - now) * r.faster <= SHORT
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
            v, i, s, drive, slow = voltage * scale.mem, current * scale.syn, limit, limit, fired
            if short:
                s, drive, exact = soon(v, i, limit, r)
                slow = fired & ~(exact & (limit >= wait))
            if slow:
                found, found_drive = crossings(v, i, limit, slow, r)
                s, drive = select(slow, found, s), select(slow, found_drive, drive)
            spent = exp(min(s, 60.0 / r.faster) * r.mem)
            store(state, AT + first, s)
            store(state, STEEP + first, drive - r.mem)
            voltage = select(fired, voltage - load16(state, DROP + first) * (spent * mem), voltage)
            gone = record(state, entries, k, first, fired, holds, now, arrival[k + 1])
            active &= ~(gone << np.uint64(first))
            if gone:  # the scan need not look at them again
                voltage = select(gone, fill16(state, -math.inf), voltage)
            bits = fired & ~gone & (fma(current, rise, voltage) >= bound)
        store(state, NOW_VOLTAGE + first, voltage)
    return active


@inlined
def note(entries, k, place, time, slope):
    """Append an entry."""
    total = np.uintp(entries.lanes[TILE])  # without a sign, an index needs no test for one below 0
    if total < np.uintp(entries.found.size):
        entries.found[total], entries.places[total] = k, place
        entries.moments[total], entries.slopes[total] = time, slope
        entries.lanes[TILE] += 1
    else:
        entries.lanes[TILE + 1] = 1


@inlined
def record(state, entries, k, first, fired, holds, now, end):
    """Note spikes at ``now`` + AT of 16 lanes after row k. Returns those that may not spike again for now.

    Where a lane has more spikes than ``entries.most``, only its count says so.
    """
    gone = fired if holds else np.uint64(0)
    while fired:
        lane = lowest_bit(fired)
        bit = np.uint64(1) << np.uint64(lane)
        fired &= ~bit
        lane += first
        count = entries.lanes[lane]
        entries.lanes[lane] = count + 1
        if count >= entries.most:
            gone |= bit
            continue
        spike = min(now + state[AT + lane], end)
        previous = max(now, state[LAST + lane])
        if not spike > previous:
            spike = min(np.nextafter(previous, state.dtype.type(math.inf)), end) if previous < end else end
        state[LAST + lane] = spike
        if holds:
            state[RELEASE + lane] = spike + state[HOLD + lane]
        note(entries, k, count * TILE + lane, spike, state[STEEP + lane])
    return gone


@jit
def lanes_due(zero, state, end):
    """Lanes that are released or have an observed spike up to ``end``."""
    return splat(zero, end) >= min(load(zero, state, RELEASE), load(zero, state, NEXT))


@jit
def earliest_due(zero, state):
    """When the next lane is due, inf for never."""
    return lowest(min(load(zero, state, RELEASE), load(zero, state, NEXT)))


@jit
def do_what_is_due(zero, state, entries, k, active, due, now, end, c, observed):
    """Release lanes, and take observed spikes, up to ``end``. Returns which lanes are active and which were released.

    ``observed`` has the trains of lanes with a NEXT spike.
    """
    released, a, b = np.uint64(0), c[PER_MEM], c[PER_SYN]
    while due:
        lane = lowest_bit(due)
        bit = np.uint64(1) << np.uint64(lane)
        due &= ~bit
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
def spikes_between(zero, state, entries, k, active, touched, holds, now, end, c, observed):
    """Spikes of the lanes ``touched`` after row k, from ``now`` to ``end``, which may be ``inf``. States have scale 1.

    Returns who may spike afterwards. States become those at a finite ``end``, of groups with a touched lane.
    """
    endless, a, pending, r = math.isinf(end), c[PER_MEM], active & touched, rates_of(c)
    store(state, SINCE, zero)
    while True:
        if holds:
            due = lanes_due(zero, state, end) & touched
            active, released = do_what_is_due(zero, state, entries, k, active, due, now, end, c, observed)
            pending = (pending | released) & active
            if observed.shape[0] > 0:
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
            gone = record(state, entries, k, first, bits, holds, now, end)
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
