"""Spike trains: the scan of a tile of neurons through the events of a window, and what it does where neurons spike.

Lanes are neurons, and everything is in units of their thresholds. A reset from the threshold to ``1 - DROP`` subtracts
DROP from the membrane at the spike, which decays from then on like the membrane itself. In the scaled states of
``intervals`` it is a constant, DROP times ``exp(x/tau_mem)`` at the spike: it may be subtracted at the last input
already, and what comes next in the interval is found from there.

States have no scale in intervals that are long or endless, and in those in which the membrane of a lane does something
other than cross the threshold by itself: it is released after a refractory time, or it has a spike that was observed.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN
from firstspike.spiketime.cpu.membrane import (
    ENOUGH,
    SHORT,
    STRAIGHT,
    kappa,
    rates_of,
    reaches,
    reaches_scaled,
    responses,
    soon,
)
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.intervals import (
    BOUND,
    CURRENT,
    DRIVE,
    LIMIT,
    MEM,
    N_STATE,
    NOW_CURRENT,
    NOW_VOLTAGE,
    RISE,
    SYN,
    TANGENT,
    UNIT,
    VOLTAGE,
    WAIT,
    find_roots,
    scale_of,
)
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    lanes_of,
    load,
    load16,
    lowest,
    lowest_bit,
    maximum,
    minimum,
    select,
    splat,
    store,
)

# rows of a tile's state after those of ``intervals``
DROP, SINCE, AT, STEEP = N_STATE, N_STATE + 1, N_STATE + 2, N_STATE + 3
LAST = N_STATE + 4  # time of a lane's last spike or release in the window
RELEASE = N_STATE + 5  # when a refractory lane is released, inf for others
HOLD = N_STATE + 6  # refractory time
NEXT = N_STATE + 7  # its next spike, where spikes are observed; otherwise inf
N_LANES = N_STATE + 8
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
    syn, rise, tangent, bound, mem = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND], rows[MEM]
    near, never = arrival.dtype.type(ENOUGH), arrival.dtype.type(math.inf)
    active, tested, begin, due_at = every, every, 0, never
    if holds:
        active &= ~(splat(zero, math.inf) > load(zero, state, RELEASE * TILE))
        due_at = earliest_due(zero, state)
        if observed.shape[0] > 0:
            tested = np.uint64(0)
            if due_at < arrival[0]:  # spikes before the first event cannot be the membrane's, but reset it
                active = spikes_between(zero, state, entries, -1, active, every, True, due_at, arrival[0], c, observed)
                due_at = earliest_due(zero, state)
    for segment in range(segments):
        end = sample.ends[segment]
        voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        for k in range(begin, end - 1):
            at = np.uintp(k)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(source[at]) * TILE), syn[at], current)
            following = fma(current, rise[at], voltage)
            # the coarse test of ``intervals``; rise is 0 where the next input arrives at the same time
            if any_reaches(following, mem[at] * near) and rise[at] > 0:
                candidates = (fma(current, tangent[at], voltage) >= bound[at]) & active & tested
                if candidates:
                    store(state, NOW_VOLTAGE * TILE, voltage)
                    store(state, NOW_CURRENT * TILE, current)
                    active = spikes_in_row(zero, state, entries, k, candidates, active, holds, rows, arrival, c)
                    voltage = load(zero, state, NOW_VOLTAGE * TILE)
                    following = fma(current, rise[at], voltage)
                    if holds:
                        due_at = earliest_due(zero, state)
            if holds and rise[at] > 0 and arrival[at + np.uintp(1)] >= due_at:
                store(state, NOW_VOLTAGE * TILE, voltage)
                store(state, NOW_CURRENT * TILE, current)
                due = lanes_due(zero, state, arrival[k + 1]) & every
                active, due = released_in_row(state, entries, k, active, due, arrival[k], arrival[k + 1], rows, c)
                voltage = load(zero, state, NOW_VOLTAGE * TILE)
                following = fma(current, rise[at], voltage)
                if due:
                    store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
                    store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
                    active = spikes_between(
                        zero, state, entries, k, active, due, True, arrival[k], arrival[k + 1], c, observed
                    )
                    after = load(zero, state, NOW_VOLTAGE * TILE) * mem[k + 1] - current * rise[k]
                    following = select(due & active, fma(current, rise[at], after), following)
                due_at = earliest_due(zero, state)
            voltage = following
        k = end - 1
        current = fma(load(zero, packed, np.intp(source[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else never
            active = spikes_between(zero, state, entries, k, active, every, holds, arrival[k], until, c, observed)
            if holds:
                due_at = earliest_due(zero, state)
        begin = end


@inlined
def spikes_in_row(zero, state, entries, k, candidates, active, holds, rows, arrival, c):
    """Spikes of the lanes ``candidates`` between input k and the next, with scaled states; returns who may go on.

    The states in ``state`` become those from which the membrane after the last spike follows. With ``holds``, lanes
    that spike become refractory.
    """
    r, scale, mem, rise, tangent, bound = (
        rates_of(c), scale_of(rows, k), rows[MEM, k], rows[RISE, k], rows[TANGENT, k], rows[BOUND, k]
    )  # fmt: skip
    now, wait = arrival[k], fill16(rows, arrival[k + 1] - arrival[k])
    short = (arrival[k + 1] - now) * r.faster <= SHORT
    while candidates:
        first = lowest_bit(candidates) & ~15
        bits = (candidates >> np.uint64(first)) & np.uint64(_ALL)
        candidates &= ~(np.uint64(_ALL) << np.uint64(first))
        voltage = load16(state, NOW_VOLTAGE * TILE + first)
        current = load16(state, NOW_CURRENT * TILE + first)
        while bits:
            end = fma(current, rise, voltage)
            fired, limit = reaches_scaled(voltage, current, wait, end, current, bits, r, scale)
            if not fired:
                break
            v, i, slow, spent = voltage * scale.mem, current * scale.syn, fired, fill16(state, 1.0)
            if short:
                s, spent, slope, curved = soon(v, i, r)
                slow &= ~((curved < STRAIGHT) & (s >= 0.0) & (limit >= maximum(s, wait)))
                store(state, AT * TILE + first, s)
                store(state, STEEP * TILE + first, slope)
            if slow:
                s, grown, slope = solve_long(zero, state, first, slow, v, i, limit, c)
                store(state, AT * TILE + first, select(slow, s, load16(state, AT * TILE + first)))
                store(state, STEEP * TILE + first, select(slow, slope, load16(state, STEEP * TILE + first)))
                spent = select(slow, grown, spent)
            voltage = select(fired, voltage - load16(state, DROP * TILE + first) * (spent * mem), voltage)
            gone = record(state, entries, k, first, fired, holds, now, arrival[k + 1])
            active &= ~(gone << np.uint64(first))
            if gone:  # the scan need not look at them again
                voltage = select(gone, fill16(state, -math.inf), voltage)
            bits = fired & ~gone & (fma(current, tangent, voltage) >= bound)
        store(state, NOW_VOLTAGE * TILE + first, voltage)
    return active


@jit
def solve_long(zero, state, first, fired, v, i, limit, c):
    """Time to the threshold, ``exp(time/tau_mem)`` and the slope there of 16 lanes, in an interval of any length."""
    store(state, VOLTAGE * TILE + first, v)
    store(state, CURRENT * TILE + first, i)
    store(state, LIMIT * TILE + first, limit)
    find_roots(zero, state, fired << np.uint64(first), c)
    s = load16(state, WAIT * TILE + first)
    drive = load16(state, DRIVE * TILE + first) / load16(state, UNIT * TILE + first)
    mem, _, _ = responses(minimum(s, 60.0 / max(c[PER_MEM], c[PER_SYN])), rates_of(c))
    return s, 1.0 / mem, drive - c[PER_MEM]


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
def note_release(state, entries, k, lane, time, slope):
    """Append the release of a lane; its place is by the number of spikes before it in the window."""
    note(entries, k, (entries.most + min(entries.lanes[lane], entries.most)) * TILE + lane, time, slope)
    state[RELEASE, lane] = math.inf


@inlined
def record(state, entries, k, first, fired, holds, now, end):
    """Note spikes at ``now`` + AT of 16 lanes after row k; returns those that may not spike again for now.

    They are all with ``holds``, which become refractory. Where a lane has more spikes than ``entries.most``, only its
    count says so.
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
        spike = min(now + state[AT, lane], end)
        previous = max(now, state[LAST, lane])
        if not spike > previous:
            spike = min(np.nextafter(previous, state.dtype.type(math.inf)), end) if previous < end else end
        state[LAST, lane] = spike
        if holds:
            state[RELEASE, lane] = spike + state[HOLD, lane]
        note(entries, k, count * TILE + lane, spike, state[STEEP, lane])
    return gone


@jit
def lanes_due(zero, state, end):
    """Lanes that are released or have an observed spike up to ``end``."""
    return splat(zero, end) >= minimum(load(zero, state, RELEASE * TILE), load(zero, state, NEXT * TILE))


@jit
def earliest_due(zero, state):
    """When the next lane is due, inf for never."""
    return lowest(minimum(load(zero, state, RELEASE * TILE), load(zero, state, NEXT * TILE)))


@jit
def released_in_row(state, entries, k, active, due, now, end, rows, c):
    """Release the lanes ``due``, with scaled states, up to ``end``; returns which are active, and those left out.

    Left out are lanes that might spike before ``end``, or have an observed spike there.
    """
    a, b, left_out = c[PER_MEM], c[PER_SYN], np.uint64(0)
    while due:
        lane = lowest_bit(due)
        bit = np.uint64(1) << np.uint64(lane)
        due &= ~bit
        release, reset = state[RELEASE, lane], 1 - state[DROP, lane]
        rest = end - release
        current = state[NOW_CURRENT, lane] / rows[SYN, k] * math.exp(-max(release - now, 0) * b)
        slope = current * b - reset * a
        if state[NEXT, lane] <= end or release < now or reset + rest * slope >= ENOUGH:
            left_out |= bit
            continue
        note_release(state, entries, k, lane, release, slope)
        after = reset * math.exp(-rest * a) + current * kappa(rest, c)
        state[NOW_VOLTAGE, lane] = after * rows[MEM, k + 1] - state[NOW_CURRENT, lane] * rows[RISE, k]
        state[LAST, lane] = release
        active |= bit
    return active, left_out


@jit
def do_what_is_due(zero, state, entries, k, active, due, now, end, c, observed):
    """Release lanes, and take observed spikes, up to ``end``; returns which lanes are active and which were released.

    ``observed`` has the trains of lanes with a NEXT spike.
    """
    released, a, b = np.uint64(0), c[PER_MEM], c[PER_SYN]
    while due:
        lane = lowest_bit(due)
        bit = np.uint64(1) << np.uint64(lane)
        due &= ~bit
        while True:
            release, spike = state[RELEASE, lane], state[NEXT, lane]
            time = min(release, spike)
            if time > end or math.isinf(time):
                break
            wait = max(time - now - state[SINCE, lane], 0)
            current = state[NOW_CURRENT, lane] * math.exp(-wait * b)
            state[NOW_CURRENT, lane] = current
            state[SINCE, lane] += wait
            if release <= spike:
                reset = 1 - state[DROP, lane]
                note_release(state, entries, k, lane, time, current * b - reset * a)
                state[NOW_VOLTAGE, lane] = reset
                active |= bit
                released |= bit
            else:
                count, slope = entries.lanes[lane], current * b - a
                if not (active & bit) or spike <= max(state[LAST, lane], now):
                    slope = 0  # it is refractory, or there was no input yet
                note(entries, k, count * TILE + lane, time, slope)
                entries.lanes[lane] = count + 1
                following = entries.lanes[SEEN + lane] + count + 1
                state[NEXT, lane] = observed[lane, following] if following < observed.shape[1] else math.inf
                state[RELEASE, lane] = spike + state[HOLD, lane]
                active &= ~bit
                released &= ~bit
            state[LAST, lane] = time
    return active, released


@jit
def spikes_between(zero, state, entries, k, active, touched, holds, now, end, c, observed):
    """Spikes of the lanes ``touched`` after row k, from ``now`` to ``end``, which may be ``inf``; states have scale 1.

    Returns who may spike afterwards; states become those at a finite ``end``, of groups with a touched lane.
    """
    endless, a, pending, r = math.isinf(end), c[PER_MEM], active & touched, rates_of(c)
    store(state, SINCE * TILE, zero)
    while True:
        if holds:
            due = lanes_due(zero, state, end) & touched
            active, released = do_what_is_due(zero, state, entries, k, active, due, now, end, c, observed)
            pending = (pending | released) & active
            if observed.shape[0] > 0:
                break
        if not pending:
            break
        fired = np.uint64(0)
        for first in range(0, lanes_of(zero), 16):
            bits = (pending >> np.uint64(first)) & np.uint64(_ALL)
            if not bits:
                continue
            v, i = load16(state, NOW_VOLTAGE * TILE + first), load16(state, NOW_CURRENT * TILE + first)
            left = fill16(state, end - now) - load16(state, SINCE * TILE + first)
            if endless:
                after, faded = (v + i) * (1.0 if a == 0 else 0.0), fill16(state, 0.0)
            else:
                left = maximum(left, 0.0)
                mem, syn, response = responses(left, r)
                after, faded = fma(v, mem, i * response), i * syn
            tops, limit = reaches(v, i, left, after, faded, bits, r)
            store(state, VOLTAGE * TILE + first, v)
            store(state, CURRENT * TILE + first, i)
            store(state, LIMIT * TILE + first, limit)
            fired |= tops << np.uint64(first)
        if not fired:
            break
        find_roots(zero, state, fired, c)
        pending = np.uint64(0)
        for first in range(0, lanes_of(zero), 16):
            bits = (fired >> np.uint64(first)) & np.uint64(_ALL)
            if not bits:
                continue
            drive = load16(state, DRIVE * TILE + first) / load16(state, UNIT * TILE + first)
            since = load16(state, SINCE * TILE + first)
            since = select(bits, since + load16(state, WAIT * TILE + first), since)
            reset, current = fill16(state, 1.0) - load16(state, DROP * TILE + first), drive * (1 / c[PER_SYN])
            store(state, SINCE * TILE + first, since)
            store(state, AT * TILE + first, since)
            store(state, STEEP * TILE + first, drive - a)
            store(state, NOW_VOLTAGE * TILE + first, select(bits, reset, load16(state, NOW_VOLTAGE * TILE + first)))
            store(state, NOW_CURRENT * TILE + first, select(bits, current, load16(state, NOW_CURRENT * TILE + first)))
            gone = record(state, entries, k, first, bits, holds, now, end)
            active &= ~(gone << np.uint64(first))
            pending |= (bits & ~gone) << np.uint64(first)
    for first in range(0, 0 if endless else lanes_of(zero), 16):
        if not (touched >> np.uint64(first)) & np.uint64(_ALL):
            continue
        v, i = load16(state, NOW_VOLTAGE * TILE + first), load16(state, NOW_CURRENT * TILE + first)
        left = fill16(state, end - now) - load16(state, SINCE * TILE + first)
        mem, syn, response = responses(maximum(left, 0.0), r)
        store(state, NOW_VOLTAGE * TILE + first, fma(v, mem, i * response))
        store(state, NOW_CURRENT * TILE + first, i * syn)
    return active
