"""First spikes: the scans of a tile of neurons through a sample's inputs in order of arrival.

Many inputs with short intervals are scanned without a branch for each neuron that fires: each lane stops at its first
row in which it may reach the threshold. ``settle`` then makes the exact tests of all.
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, TILE, fetch_row, rates_of
from firstspike.spiketime.cpu.membrane import ENOUGH, peak
from firstspike.spiketime.cpu.rows.intervals import (
    BLOCK,
    BOUND,
    CHARGED,
    CURRENT,
    LEVEL,
    LIMIT,
    MEM,
    NOW_CURRENT,
    NOW_VOLTAGE,
    PASSED,
    RISE,
    SINCE,
    SYN,
    UNTIL,
    VOLTAGE,
    not_fired,
    note,
    plain_interval,
    scale_of,
)
from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, jit
from firstspike.spiketime.cpu.vectors.masks import any_of, bits_of, mask_of, store_where, update, where_below
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    lanes_of,
    load,
    load16,
    lowest,
    next_lane,
    select,
    splat,
    store,
    store_some,
    store_whole16,
)

_PATIENCE = 32  # rows for which a single lane is followed
_WHOLE = np.uint64(0xFFFF)
_MANY = 48  # rows from which on most blocks have no candidate
_STOP = SINCE  # row of the state with the row of a lane's candidate, until ``settle`` knows the time
_STEEP = 8.0  # thresholds by which the membrane may rise in one interval


@jit
def scan_tile(zero, packed, sample, active, fast, c, state, places, last):
    """Scan one sample with the neurons ``active``. Returns those that stay silent, and those to be scanned again.

    With ``fast``, a lane stops at its first candidate, which nearly always is the crossing or close to it.
    """
    order, arrival, rows = sample.order, sample.arrival, sample.rows
    syn, rise, bound, mem = rows[SYN], rows[RISE], rows[BOUND], rows[MEM]
    voltage = current = zero
    stopped, begin = np.uint64(0), 0
    for segment in range(sample.segments):
        end = sample.ends[segment]
        before = active
        if fast:
            advances = advance if HAS_MASKS else advance_in_blocks
            voltage, current, active = advances(
                zero, packed, order, begin, end - 1, rows, active, voltage, current, state
            )
        for row in range(end - 1 if fast else begin, end - 1):
            k = np.uintp(row)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            if rise[k] == 0:
                continue  # the next input arrives at the same time
            following = fma(current, rise[k], voltage)
            candidates = (following >= bound[k]) & active
            if candidates:
                begins, ends, scale = (voltage, current), (following, current), scale_of(rows, row)
                active = not_fired(zero, state, last, row, active, arrival, arrival[row + 1], begins, ends, c, scale)
                if not active:
                    break
            voltage = following
        if fast:
            stopped |= before & ~active
        if not active:
            break
        k = end - 1
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        active, voltage, current = plain_interval(
            zero, state, last, k, active, arrival, segment == sample.segments - 1, c, voltage * (1 / mem[k]),
            current * (1 / syn[k]),
        )  # fmt: skip
        if not active:
            break
        begin = end
    again = settle(zero, packed, sample, stopped, c, state, places, last) if stopped else np.uint64(0)
    return active, again


@jit
def advance(zero, packed, order, begin, end, rows, active, voltage, current, state):
    """Scan rows with the lanes ``active`` until each has a candidate. Returns those without.

    The numbers of the others go to ``state``: their row's number, and a voltage of one row later, see ``settle``.
    """
    syn, rise, bound = rows[SYN], rows[RISE], rows[BOUND]
    working, place = mask_of(zero, active), splat(zero, float(begin - 1))
    for row in range(begin, end):
        k = np.uintp(row)
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        store_where(working, state, CURRENT, current)  # by the ports for stores, which are idle otherwise
        place = update(working, place + 1.0, place)
        voltage = update(working, fma(current, rise[k], voltage), voltage)
        working = where_below(working, voltage, splat(zero, bound[k]))
        if row & 3 == 0 and not any_of(working):
            break
    still = bits_of(working)
    found = active & ~still
    if found:
        store_some(found, state, VOLTAGE, voltage)
        store_some(found, state, _STOP, place)
    return voltage, current, still


@jit
def advance_in_blocks(zero, packed, order, begin, end, rows, active, voltage, current, state):
    """``advance`` without mask registers, where a masked update costs as much as three others.

    All lanes pass a block of rows, and once more if there is a candidate in it. Few rows are not worth the first pass.
    """
    syn, rise, bound, few = rows[SYN], rows[RISE], rows[BOUND], end - begin < _MANY
    store(state, NOW_VOLTAGE, voltage)
    store(state, NOW_CURRENT, current)
    for start in range(begin, end, BLOCK):
        stop, over, k = min(start + BLOCK, end), splat(zero, -1.0), np.uintp(end if few else start)
        voltage, current = load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT)
        while k < np.uintp(stop):
            fetch_row(packed, order, min(k + np.uintp(AHEAD), np.uintp(end)))
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            voltage = fma(current, rise[k], voltage)
            over = max(over, voltage - bound[k])
            k += np.uintp(1)
        found = active if few else active & (over >= 0.0)
        if found:
            voltage, current, still = pass_again(zero, packed, order, start, stop, rows, found, state)
            active &= still | ~found
            if not active:
                break
        store(state, NOW_VOLTAGE, voltage)
        store(state, NOW_CURRENT, current)
    return load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT), active


@jit
def pass_again(zero, packed, order, begin, end, rows, found, state):
    """Pass a block of rows from the state NOW on, and note the first candidates of the lanes ``found``.

    Returns the state at the end, and the lanes without one.
    """
    syn, rise, bound = rows[SYN], rows[RISE], rows[BOUND]
    voltage, current = load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT)
    working, place = mask_of(zero, found), splat(zero, 0.0)
    for row in range(begin, end):
        k, at = np.uintp(row), (row - begin) * TILE
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        voltage = fma(current, rise[k], voltage)
        store(state, PASSED + at, voltage)
        store(state, CHARGED + at, current)
        working = where_below(working, voltage, splat(zero, bound[k]))
        place = update(working, place + 1.0, place)
    store(state, NOW_VOLTAGE, place)  # until the caller writes the state at the end there
    still = bits_of(working)
    left = found & ~still
    while left:
        lane, left = next_lane(left)
        row = np.intp(state[NOW_VOLTAGE + lane])
        at = row * TILE + lane
        state[VOLTAGE + lane], state[CURRENT + lane] = state[PASSED + at], state[CHARGED + at]
        state[_STOP + lane] = begin + row
    return voltage, current, still


@jit
def settle(zero, packed, sample, stopped, c, state, places, last):
    """Bring the states at which lanes stopped to scale 1. Returns the lanes that have to be scanned again."""
    arrival, rows = sample.arrival, sample.rows
    stride, early, again = rows.shape[1], np.uint64(0), np.uint64(0)
    for first in range(0, lanes_of(zero), 16):
        bits = (stopped >> np.uint64(first)) & _WHOLE
        if not bits:
            continue
        stop = select(bits, load16(state, _STOP + first), fill16(state, 0.0))
        store_whole16(_WHOLE, places, first, stop)
        mem, mem_end = gather16(rows, MEM * stride, places, first), gather16(rows, MEM * stride + 1, places, first)
        syn, rise = gather16(rows, SYN * stride, places, first), gather16(rows, RISE * stride, places, first)
        since, until = gather16(arrival, 0, places, first), gather16(arrival, 1, places, first)
        voltage, current = load16(state, VOLTAGE + first), load16(state, CURRENT + first)
        # where one interval adds many thresholds, too few digits are left of the state before it
        lost = (current * rise > mem * _STEEP) & bits
        store_whole16(bits & ~lost, last, first, stop)
        again |= lost << np.uint64(first)
        early |= ((voltage < mem_end) & bits & ~lost) << np.uint64(first)
        note(state, first, bits, ((voltage - current * rise) / mem, current / syn, until - since, since, until))
    while early:
        lane, early = next_lane(early)
        if not proceed(packed, sample, lane, c, state, last):
            last[lane] = -1
            again |= np.uint64(1) << np.uint64(lane)
    return again


@jit
def proceed(packed, sample, lane, c, state, last):
    """Scan on with a single lane that does not reach the threshold where it stopped. Most do soon after."""
    order, arrival, ends, rows = sample.order, sample.arrival, sample.ends, sample.rows
    k = np.intp(last[lane])
    voltage, current = state[VOLTAGE + lane] * rows[MEM, k], state[CURRENT + lane] * rows[SYN, k]
    end, segment = ends[0], 0
    while end <= k:
        segment += 1
        end = ends[segment]
    for _ in range(_PATIENCE):
        following = voltage + current * rows[RISE, k]
        limit = arrival[k + 1] - arrival[k]
        fires = following >= rows[MEM, k + 1]
        if not fires and voltage * rows[LEVEL, k] < current and current * ENOUGH < following * rows[LEVEL, k + 1]:
            v, i = fill16(rows, voltage / rows[MEM, k]), fill16(rows, current / rows[SYN, k])
            times, heights = peak(v, i, rates_of(c))
            time = lowest(times)
            fires, limit = lowest(heights) >= 1 and time <= limit, min(time, limit)
        if fires:
            state[VOLTAGE + lane], state[CURRENT + lane] = voltage / rows[MEM, k], current / rows[SYN, k]
            state[LIMIT + lane], state[SINCE + lane], state[UNTIL + lane] = limit, arrival[k], arrival[k + 1]
            last[lane] = k
            return True
        k += 1
        if k >= end - 1:
            return False
        voltage = following
        current += packed[np.intp(order[k]) * TILE + lane] * rows[SYN, k]
    return False
