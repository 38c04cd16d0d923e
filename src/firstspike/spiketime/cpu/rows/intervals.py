"""Spike trains: what the forward scan does from one time to another with states that have no scale.

Here are intervals that are long or endless, and those in which the membrane of a lane does something other than cross
the threshold by itself: it is released after a refractory time, or it has a spike that was observed.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN
from firstspike.spiketime.cpu.membrane import kappa, rates_of, reaches, responses
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.crossing import (
    CURRENT,
    DRIVE,
    LIMIT,
    N_STATE,
    NOW_CURRENT,
    NOW_VOLTAGE,
    UNIT,
    VOLTAGE,
    WAIT,
    find_roots,
)
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
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

# rows of a tile's state after those of ``crossing``
DROP, SINCE, AT, STEEP = N_STATE, N_STATE + 1, N_STATE + 2, N_STATE + 3
LAST = N_STATE + 4  # time of a lane's last spike or release in the window
RELEASE = N_STATE + 5  # when a refractory lane is released, inf for others
HOLD = N_STATE + 6  # refractory time
NEXT = N_STATE + 7  # its next spike, where spikes are observed; otherwise inf
N_LANES = N_STATE + 8
SEEN = TILE + 2  # where ``lanes`` has the numbers of observed spikes before the window

_ALL = 0xFFFF
_NEAR = 1 - 1e-4  # of the threshold


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


@jit
def place_of_release(entries, lane):
    """Its place is by the number of spikes before it in the window."""
    return (entries.most + min(entries.lanes[lane], entries.most)) * TILE + lane


@inlined
def record(state, entries, k, first, fired, now, end):
    """Note spikes at ``now`` + AT of 16 lanes after row k; returns those that may not spike again.

    Where a lane has more than ``entries.most``, only its count says so.
    """
    full = np.uint64(0)
    while fired:
        lane = lowest_bit(fired)
        bit = np.uint64(1) << np.uint64(lane)
        fired &= ~bit
        lane += first
        count = entries.lanes[lane]
        entries.lanes[lane] = count + 1
        if count >= entries.most:
            full |= bit
            continue
        spike = min(now + state[AT, lane], end)
        previous = max(now, state[LAST, lane])
        if not spike > previous:
            spike = min(np.nextafter(previous, state.dtype.type(math.inf)), end) if previous < end else end
        state[LAST, lane] = spike
        note(entries, k, count * TILE + lane, spike, state[STEEP, lane])
    return full


@jit
def lanes_due(zero, state, end):
    """Lanes that are released or have an observed spike up to ``end``."""
    return splat(zero, end) >= minimum(load(zero, state, RELEASE * TILE), load(zero, state, NEXT * TILE))


@jit
def earliest_due(zero, state):
    """When the next lane is due, inf for never."""
    least = fill16(state, math.inf)
    for first in range(0, lanes_of(zero), 16):
        least = minimum(least, minimum(load16(state, RELEASE * TILE + first), load16(state, NEXT * TILE + first)))
    return lowest(least)


@jit
def released_in_row(
    state, entries, k, active, due, now, end, syn, rise, mem_end, c
):  # fmt: skip
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
        current = state[NOW_CURRENT, lane] / syn * math.exp(-max(release - now, 0) * b)
        slope = current * b - reset * a
        if state[NEXT, lane] <= end or release < now or reset + rest * slope >= _NEAR:
            left_out |= bit
            continue
        note(entries, k, place_of_release(entries, lane), release, slope)
        after = reset * math.exp(-rest * a) + current * kappa(rest, c)
        state[NOW_VOLTAGE, lane] = after * mem_end - state[NOW_CURRENT, lane] * rise
        state[RELEASE, lane], state[LAST, lane] = math.inf, release
        active |= bit
    return active, left_out


@jit
def do_what_is_due(zero, state, entries, k, active, due, now, end, c, observed):
    """Release lanes, and take observed spikes, up to ``end``; returns which lanes are active and which were released.

    ``observed (lanes, spikes)`` has the trains of lanes with a NEXT spike.
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
                note(entries, k, place_of_release(entries, lane), time, current * b - reset * a)
                state[NOW_VOLTAGE, lane], state[RELEASE, lane] = reset, math.inf
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
def spikes_between(
    zero, state, entries, k, active, touched, holds, now, end, c, observed
):  # fmt: skip
    """Spikes of the lanes ``touched`` after row k, from ``now`` to ``end``, which may be ``inf``; states have scale 1.

    Returns who may spike afterwards; states become those at a finite ``end``, of groups with a touched lane. With
    ``holds``, spikes make lanes refractory. ``observed`` has no lanes where spikes are those of the membrane.
    """
    endless, a, pending, r = math.isinf(end), c[PER_MEM], active & touched, rates_of(c)
    for first in range(0, lanes_of(zero), 16):
        store(state, SINCE * TILE + first, fill16(state, 0.0))
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
            reset = fill16(state, 1.0) - load16(state, DROP * TILE + first)
            store(state, SINCE * TILE + first, since)
            store(state, AT * TILE + first, since)
            store(state, STEEP * TILE + first, drive - a)
            store(state, NOW_VOLTAGE * TILE + first, select(bits, reset, load16(state, NOW_VOLTAGE * TILE + first)))
            current = drive * (1 / c[PER_SYN])
            store(state, NOW_CURRENT * TILE + first, select(bits, current, load16(state, NOW_CURRENT * TILE + first)))
            full = record(state, entries, k, first, bits, now, end)
            active &= ~(full << np.uint64(first))
            if holds:
                release = load16(state, LAST * TILE + first) + load16(state, HOLD * TILE + first)
                place = RELEASE * TILE + first
                store(state, place, select(bits & ~full, release, load16(state, place)))
                active &= ~(bits << np.uint64(first))
            else:
                pending |= (bits & ~full) << np.uint64(first)
    if not endless:
        for first in range(0, lanes_of(zero), 16):
            if not (touched >> np.uint64(first)) & np.uint64(_ALL):
                continue
            v, i = load16(state, NOW_VOLTAGE * TILE + first), load16(state, NOW_CURRENT * TILE + first)
            left = fill16(state, end - now) - load16(state, SINCE * TILE + first)
            mem, syn, response = responses(maximum(left, 0.0), r)
            store(state, NOW_VOLTAGE * TILE + first, fma(v, mem, i * response))
            store(state, NOW_CURRENT * TILE + first, i * syn)
    return active
