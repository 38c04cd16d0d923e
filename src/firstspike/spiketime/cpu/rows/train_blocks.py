"""Spike trains without refractory times: the spikes of a block of rows, solved together.

In the scaled states of ``intervals`` a reset subtracts a constant from the membrane, for all rows to come. So all lanes
pass the rows of a block as if none of them spiked. Then those that have reached the threshold go back to that row, 16
at a time: their spikes are solved in vectors, and each lane with another one in the block goes on to it by itself.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, TILE, fetch_row, rates_of
from firstspike.spiketime.cpu.membrane import SHORT, Scale, crossings, reaches_scaled, soon
from firstspike.spiketime.cpu.rows.entries import DROP, HITS, OVER, PLACE, SPIKES, START, note_spike
from firstspike.spiketime.cpu.rows.intervals import (
    BOUND,
    CURRENT,
    LEVEL,
    MEM,
    NOW_CURRENT,
    NOW_VOLTAGE,
    RISE,
    SINCE,
    SYN,
    VOLTAGE,
)
from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, inlined
from firstspike.spiketime.cpu.vectors.masks import bits_of, mask_of, store_where, update, where_below
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import count_of, fill16, fma, load, load16, next_lane, select, splat, store

BLOCK = 64  # rows at most
FEWEST = 32  # rows that are worth it; where spikes are denser, they are solved row by row
_MANY = 64  # spikes of a tile in a block that are too many, as lanes have several
_WHOLE = np.uint64(0xFFFF)
_ROW = SINCE  # row of the state with the row of a lane's first candidate in the block, plus lane / TILE
# of 16 spikes: the state before and the numbers of the interval, then what is found
_V, _I, _WAIT, _RISE, _MEM, _END, _BOUND, _SYN, _LEVEL, _LEVEL_END, _DROP, _AT, _SLOPE, _RESET = range(0, 14 * 16, 16)


@inlined
def rows_of_block(spikes, rows):
    """The number of rows of the next block, a power of 2, if the rows before it had this many ``spikes``."""
    block = BLOCK
    while block >= FEWEST and spikes * block > _MANY * rows:
        block >>= 1
    return block


@inlined
def scan_block(tile, packed, sample, begin, end, active):
    """Spikes of the lanes ``active`` in rows of a segment, from the states NOW on, which become those at its end.

    Returns the lanes that may spike afterwards, and whether the block is left to the scan by rows, as too many spike.
    """
    zero, state, order, rows = tile.zero, tile.state, sample.order, sample.rows
    voltage, current = load(zero, state, NOW_VOLTAGE), load(zero, state, NOW_CURRENT)
    if HAS_MASKS:
        voltage, current, over = pass_rows(zero, packed, order, begin, end, rows, 0, active, voltage, current, state)
    else:
        store(state, START, voltage)
        store(state, START + TILE, current)
        syn, rise, bound, over = rows[SYN], rows[RISE], rows[BOUND], splat(zero, -math.inf)
        for row in range(begin, end):
            k = np.uintp(row)  # without a sign, an index needs no test for one below 0
            fetch_row(packed, order, min(row + AHEAD, end - 1))
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            voltage = fma(current, rise[k], voltage)
            over = max(over, voltage - bound[k])
    found = (over >= 0.0) & active
    n = count_of(found)
    if n > end - begin:
        return active, True
    store(state, NOW_VOLTAGE, voltage)
    store(state, NOW_CURRENT, current)
    if not found:
        return active, False
    store(state, OVER, over)
    for first in range(0, 0 if HAS_MASKS else TILE, 16):
        bits = (found >> np.uint64(first)) & _WHOLE
        if bits:
            v, i = load16(state, START + first), load16(state, START + TILE + first)
            pass_rows(fill16(rows, 0.0), packed, order, begin, end, rows, first, bits, v, i, state)
    stopped, left = load(zero, state, _ROW), found
    while left:
        lane, left = next_lane(left)
        row = state[_ROW + lane]
        place = HITS + count_of((splat(zero, row) > stopped) & found)
        tile.entries.lanes[place] = np.int32(row) * TILE + lane
    for first in range(0, n, 16):
        active = solve_lanes(tile, packed, sample, begin, end, HITS + first, min(16, n - first), active)
    return active, False


@inlined
def pass_rows(zero, packed, order, begin, end, rows, first, active, voltage, current, state):
    """The lanes from ``first`` on pass rows as if none of them spiked.

    Returns the states at the end, and by how much they exceeded BOUND. The states before the first candidates of the
    lanes ``active``, and their rows, are written.
    """
    syn, rise, bound = rows[SYN], rows[RISE], rows[BOUND]
    working, place, over = mask_of(zero, active), load(zero, state, PLACE + first), splat(zero, -math.inf)
    before = charged = zero
    for row in range(begin, end):
        k = np.uintp(row)
        current = fma(load(zero, packed, np.intp(order[k]) * TILE + first), syn[k], current)
        if HAS_MASKS:
            store_where(working, state, CURRENT + first, current)  # by the ports for stores, which are idle otherwise
        else:
            charged = update(working, current, charged)
        place, before = update(working, place + 1.0, place), update(working, voltage, before)
        voltage = fma(current, rise[k], voltage)
        over = max(over, voltage - bound[k])
        working = where_below(working, over, zero)
    found = active & ~bits_of(working)
    if found:
        store(state, VOLTAGE + first, before)
        store(state, _ROW + first, place)
        if not HAS_MASKS:
            store(state, CURRENT + first, charged)
    return voltage, current, over


@inlined
def solve_lanes(tile, packed, sample, begin, end, first, size, active):
    """Note the spikes of up to 16 lanes. Returns who may go on.

    ``entries.lanes`` has them from ``first`` on, with their rows in the block: ``row * TILE + lane``.
    For most, the spikes in their first interval are the last in the block: with those resets subtracted, no excess of
    BOUND is left.
    """
    arrival, rows, state, lanes = sample.arrival, sample.rows, tile.state, tile.entries.lanes
    rise, bound, syn, mem, level = rows[RISE], rows[BOUND], rows[SYN], rows[MEM], rows[LEVEL]
    going, walked = (np.uint64(1) << np.uint64(size)) - np.uint64(1), np.uint64(0)
    for i in range(size):
        lane, at = lanes[first + i] & (TILE - 1), SPIKES + i
        state[at + _V], state[at + _I] = state[VOLTAGE + lane], state[CURRENT + lane]
        state[at + _DROP] = state[DROP + lane]
    while going:
        left = going
        while left:
            i, left = next_lane(left)
            at, k = SPIKES + i, np.uintp(begin + lanes[first + i] // TILE)
            following = k + np.uintp(1)
            state[at + _RISE], state[at + _SYN], state[at + _WAIT] = rise[k], syn[k], arrival[following] - arrival[k]
            state[at + _MEM], state[at + _END], state[at + _BOUND] = mem[k], mem[following], bound[k]
            state[at + _LEVEL], state[at + _LEVEL_END] = level[k], level[following]
        gone = solve_spikes(tile, arrival, begin, first, going)
        going &= ~gone
        left = gone
        while left:
            i, left = next_lane(left)
            lane = lanes[first + i] & (TILE - 1)
            active &= ~(np.uint64(1) << np.uint64(lane))
            state[NOW_VOLTAGE + lane] = -math.inf
        left = going
        while left:
            i, left = next_lane(left)
            bit, lane, at = np.uint64(1) << np.uint64(i), lanes[first + i] & (TILE - 1), SPIKES + i
            if not walked & bit and state[OVER + lane] < state[at + _RESET]:
                state[NOW_VOLTAGE + lane] -= state[at + _RESET]
                going &= ~bit
            elif not walk(tile, packed, sample, first + i, begin, end, at):
                going &= ~bit
            walked |= bit
    return active


@inlined
def walk(tile, packed, sample, number, begin, end, at):
    """Go on with a lane to its next candidate. Returns whether there is one."""
    order, rows, state, lanes = sample.order, sample.rows, tile.state, tile.entries.lanes
    syn, rise, bound = rows[SYN], rows[RISE], rows[BOUND]
    k, lane = np.uintp(begin + lanes[number] // TILE), lanes[number] & (TILE - 1)
    voltage, current = state[at + _V], state[at + _I]
    while True:
        voltage += current * rise[k]
        k += np.uintp(1)
        if k >= np.uintp(end):
            state[NOW_VOLTAGE + lane] = voltage
            return False
        current += packed[np.intp(order[k]) * TILE + lane] * syn[k]
        if voltage + current * rise[k] >= bound[k] and rise[k] > 0:
            state[at + _V], state[at + _I], lanes[number] = voltage, current, (np.intp(k) - begin) * TILE + lane
            return True


@inlined
def solve_spikes(tile, arrival, begin, first, bits):
    """Note the spikes of 16 lanes, each in an interval, and sum their resets. Returns who may not spike again."""
    state, lanes, r, at, gone = tile.state, tile.entries.lanes, rates_of(tile.c), SPIKES, np.uint64(0)
    voltage, current, wait = load16(state, at + _V), load16(state, at + _I), load16(state, at + _WAIT)
    mem, syn, rise = load16(state, at + _MEM), load16(state, at + _SYN), load16(state, at + _RISE)
    levels, bound = (load16(state, at + _LEVEL), load16(state, at + _LEVEL_END)), load16(state, at + _BOUND)
    scale = Scale(1.0 / mem, 1.0 / syn, load16(state, at + _END), levels[0], levels[1])
    total, drop = fill16(state, 0.0), load16(state, at + _DROP) * mem
    bits &= rise > 0.0
    while bits:
        end = fma(current, rise, voltage)
        fired, limit = reaches_scaled(voltage, current, wait, end, current, bits, r, scale)
        if not fired:
            break
        s, drive = solve_within(voltage * scale.mem, current * scale.syn, wait, limit, fired, state.itemsize == 4, r)
        reset = select(fired, drop * exp(min(s, 60.0 / r.faster) * r.mem), fill16(state, 0.0))
        voltage, total = voltage - reset, total + reset
        store(state, at + _AT, s)
        store(state, at + _SLOPE, drive - r.mem)
        left = fired
        while left:
            i, left = next_lane(left)
            lane, k = lanes[first + i] & (TILE - 1), np.uintp(begin + lanes[first + i] // TILE)
            time, slope = state[at + _AT + i], state[at + _SLOPE + i]
            if note_spike(state, tile.entries, k, lane, time, slope, False, arrival[k], arrival[k + np.uintp(1)]):
                gone |= np.uint64(1) << np.uint64(i)
        bits = fired & ~gone & (fma(current, rise, voltage) >= bound)
    store(state, at + _V, voltage)
    store(state, at + _RESET, total)
    return gone


@inlined
def solve_within(voltage, current, wait, limit, fired, single, r):
    """``crossings`` of 16 lanes in intervals of length ``wait``, in ``single`` precision or not."""
    s, drive, slow = limit, limit, fired
    if single:
        s, drive, exact = soon(voltage, current, limit, r)
        slow = fired & ((wait * r.faster > SHORT) | ~(exact & (limit >= wait)))
    if slow:
        found, found_drive = crossings(voltage, current, limit, slow, r)
        s, drive = select(slow, found, s), select(slow, found_drive, drive)
    return s, drive
