"""First spikes: the scans of a tile of neurons through a sample's inputs in order of arrival.

Many inputs with short intervals are scanned without a branch for each neuron that fires: each lane stops at its first
row in which it may reach the threshold. ``settle`` then makes the exact tests of all.
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, TILE, fetch_row, rates_of
from firstspike.spiketime.cpu.membrane import ENOUGH, peak
from firstspike.spiketime.cpu.rows.intervals import BLOCK, not_fired, note, plain_interval, scale_of
from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, jit
from firstspike.spiketime.cpu.vectors.masks import any_of, bits_of, mask_of, store_where, update, where_below
from firstspike.spiketime.cpu.vectors.rows import arrays, sixteen
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    lanes_of,
    load,
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
_STEEP = 8.0  # thresholds by which the membrane may rise in one interval


@jit
def scan_tile(tile, packed, sample, active, fast):
    """Scan one sample with the neurons ``active``. Returns those that stay silent, and those to be scanned again.

    With ``fast``, a lane stops at its first candidate, which nearly always is the crossing or close to it.
    """
    zero, order, arrival, rows = tile.zero, sample.order, sample.arrival, sample.rows
    syn, rise, bound, mem = rows.syn, rows.rise, rows.bound, rows.mem
    voltage = current = zero
    stopped, begin = np.uint64(0), 0
    for segment in range(sample.segments):
        end = sample.ends[segment]
        before = active
        if fast:
            advances = advance if HAS_MASKS else advance_in_blocks
            voltage, current, active = advances(tile, packed, sample, begin, end - 1, active, voltage, current)
        for row in range(end - 1 if fast else begin, end - 1):
            k = np.uintp(row)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            if rise[k] == 0:
                continue  # the next input arrives at the same time
            following = fma(current, rise[k], voltage)
            candidates = (following >= bound[k]) & active
            if candidates:
                begins, ends, since, until = (voltage, current), (following, current), arrival[row], arrival[row + 1]
                active = not_fired(tile, row, active, since, until, begins, ends, scale_of(rows, row))
                if not active:
                    break
            voltage = following
        if fast:
            stopped |= before & ~active
        if not active:
            break
        k = end - 1
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        endless, voltage, current = segment == sample.segments - 1, voltage * (1 / mem[k]), current * (1 / syn[k])
        active, voltage, current = plain_interval(tile, k, active, arrival, endless, voltage, current)
        if not active:
            break
        begin = end
    again = settle(tile, packed, sample, stopped) if stopped else np.uint64(0)
    return active, again


@jit
def advance(tile, packed, sample, begin, end, active, voltage, current):
    """Scan rows with the lanes ``active`` until each has a candidate. Returns those without.

    The numbers of the others go to the tile's state: their row, and a voltage of one row later, see ``settle``.
    """
    zero, order, rows, state = tile.zero, sample.order, sample.rows, arrays(tile.state)
    syn, rise, bound = rows.syn, rows.rise, rows.bound
    working, place = mask_of(zero, active), splat(zero, float(begin - 1))
    for row in range(begin, end):
        k = np.uintp(row)
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        store_where(working, state.current, 0, current)  # by the ports for stores, which are idle otherwise
        place = update(working, place + 1.0, place)
        voltage = update(working, fma(current, rise[k], voltage), voltage)
        working = where_below(working, voltage, splat(zero, bound[k]))
        if row & 3 == 0 and not any_of(working):
            break
    still = bits_of(working)
    found = active & ~still
    if found:
        store_some(found, state.voltage, 0, voltage)
        store_some(found, state.stop, 0, place)
    return voltage, current, still


@jit
def advance_in_blocks(tile, packed, sample, begin, end, active, voltage, current):
    """``advance`` without mask registers, where a masked update costs as much as three others.

    All lanes pass a block of rows, and once more if there is a candidate in it. Few rows are not worth the first pass.
    """
    zero, order, rows, state, few = tile.zero, sample.order, sample.rows, tile.state, end - begin < _MANY
    syn, rise, bound = rows.syn, rows.rise, rows.bound
    state.now_voltage = voltage
    state.now_current = current
    for start in range(begin, end, BLOCK):
        stop, over, k = min(start + BLOCK, end), splat(zero, -1.0), np.uintp(end if few else start)
        voltage, current = state.now_voltage, state.now_current
        while k < np.uintp(stop):
            fetch_row(packed, order, min(k + np.uintp(AHEAD), np.uintp(end)))
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            voltage = fma(current, rise[k], voltage)
            over = max(over, voltage - bound[k])
            k += np.uintp(1)
        found = active if few else active & (over >= 0.0)
        if found:
            voltage, current, still = pass_again(tile, packed, sample, start, stop, found)
            active &= still | ~found
            if not active:
                break
        state.now_voltage = voltage
        state.now_current = current
    return state.now_voltage, state.now_current, active


@jit
def pass_again(tile, packed, sample, begin, end, found):
    """Pass a block of rows from the state NOW on, and note the first candidates of the lanes ``found``.

    Returns the state at the end, and the lanes without one.
    """
    zero, order, rows, state, passed = tile.zero, sample.order, sample.rows, tile.state, tile.passed
    syn, rise, bound = rows.syn, rows.rise, rows.bound
    voltage, current = state.now_voltage, state.now_current
    working, place = mask_of(zero, found), splat(zero, 0.0)
    for row in range(begin, end):
        k, at = np.uintp(row), (row - begin) * TILE
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        voltage = fma(current, rise[k], voltage)
        store(passed[0], at, voltage)
        store(passed[1], at, current)
        working = where_below(working, voltage, splat(zero, bound[k]))
        place = update(working, place + 1.0, place)
    state.now_voltage = place  # until the caller writes the state at the end there
    still = bits_of(working)
    left = found & ~still
    while left:
        lane, left = next_lane(left)
        row = np.intp(state[lane].now_voltage)
        at = row * TILE + lane
        state[lane].voltage, state[lane].current = passed[0, at], passed[1, at]
        state[lane].stop = begin + row
    return voltage, current, still


@jit
def settle(tile, packed, sample, stopped):
    """Bring the states at which lanes stopped to scale 1. Returns the lanes that have to be scanned again."""
    arrival, rows, state, places, last = sample.arrival, sample.rows, tile.state, tile.places, tile.last
    early, again = np.uint64(0), np.uint64(0)
    for first in range(0, lanes_of(tile.zero), 16):
        some, bits = sixteen(state, first), (stopped >> np.uint64(first)) & _WHOLE
        if not bits:
            continue
        stop = select(bits, some.stop, fill16(state, 0.0))
        store_whole16(_WHOLE, places, first, stop)
        mem, mem_end = gather16(rows.mem, 0, places, first), gather16(rows.mem, 1, places, first)
        syn, rise = gather16(rows.syn, 0, places, first), gather16(rows.rise, 0, places, first)
        since, until = gather16(arrival, 0, places, first), gather16(arrival, 1, places, first)
        voltage, current = some.voltage, some.current
        # where one interval adds many thresholds, too few digits are left of the state before it
        lost = (current * rise > mem * _STEEP) & bits
        store_whole16(bits & ~lost, last, first, stop)
        again |= lost << np.uint64(first)
        early |= ((voltage < mem_end) & bits & ~lost) << np.uint64(first)
        note(state, first, bits, ((voltage - current * rise) / mem, current / syn, until - since, since, until))
    while early:
        lane, early = next_lane(early)
        if not proceed(tile, packed, sample, lane):
            last[lane] = -1
            again |= np.uint64(1) << np.uint64(lane)
    return again


@jit
def proceed(tile, packed, sample, lane):
    """Scan on with a single lane that does not reach the threshold where it stopped. Most do soon after."""
    order, arrival, ends, rows, c, last = sample.order, sample.arrival, sample.ends, sample.rows, tile.c, tile.last
    own = tile.state[lane]
    k = np.intp(last[lane])
    voltage, current = own.voltage * rows[k].mem, own.current * rows[k].syn
    end, segment = ends[0], 0
    while end <= k:
        segment += 1
        end = ends[segment]
    for _ in range(_PATIENCE):
        following = voltage + current * rows[k].rise
        limit = arrival[k + 1] - arrival[k]
        fires = following >= rows[k + 1].mem
        if not fires and voltage * rows[k].level < current and current * ENOUGH < following * rows[k + 1].level:
            v, i = fill16(rows, voltage / rows[k].mem), fill16(rows, current / rows[k].syn)
            times, heights = peak(v, i, rates_of(c))
            time = lowest(times)
            fires, limit = lowest(heights) >= 1 and time <= limit, min(time, limit)
        if fires:
            own.voltage, own.current = voltage / rows[k].mem, current / rows[k].syn
            own.limit, own.since, own.until = limit, arrival[k], arrival[k + 1]
            last[lane] = k
            return True
        k += 1
        if k >= end - 1:
            return False
        voltage = following
        current += packed[np.intp(order[k]) * TILE + lane] * rows[k].syn
    return False
