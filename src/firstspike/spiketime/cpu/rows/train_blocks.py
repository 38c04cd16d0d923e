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
from firstspike.spiketime.cpu.rows.entries import note_spike
from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, inlined
from firstspike.spiketime.cpu.vectors.masks import bits_of, mask_of, store_where, update, where_below
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.rows import arrays, named_rows, sixteen
from firstspike.spiketime.cpu.vectors.simd import count_of, fma, is_single, load, next_lane, select, splat

BLOCK = 64  # rows at most
FEWEST = 32  # rows that are worth it; where spikes are denser, they are solved row by row
_MANY = 64  # spikes of a tile in a block that are too many, as lanes have several
_WHOLE = np.uint64(0xFFFF)
# of 16 spikes: the state before and the numbers of the interval, then what is found
_SOLVED = "voltage current wait rise mem end bound syn level level_end drop after slope reset"
N_SOLVED = 16 * len(_SOLVED.split())
_solved_in = named_rows("Solved", _SOLVED, 16, 16)


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
    voltage, current = state.now_voltage, state.now_current
    if HAS_MASKS:
        voltage, current, over = pass_rows(state, packed, sample, range(begin, end), 0, active, voltage, current)
    else:
        state.start_voltage, state.start_current = voltage, current
        syn, rise, bound, over = rows.syn, rows.rise, rows.bound, splat(zero, -math.inf)
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
    state.now_voltage, state.now_current = voltage, current
    if not found:
        return active, False
    state.over = over
    for first in range(0, 0 if HAS_MASKS else TILE, 16):
        bits, some = (found >> np.uint64(first)) & _WHOLE, sixteen(state, first)
        if bits:
            v, i = some.start_voltage, some.start_current
            pass_rows(some, packed, sample, range(begin, end), first, bits, v, i)
    stopped, left = state.stop, found
    while left:
        lane, left = next_lane(left)
        row = state[lane].stop
        tile.places[count_of((splat(zero, row) > stopped) & found)] = np.int32(row) * TILE + lane
    for first in range(0, n, 16):
        active = solve_lanes(tile, packed, sample, begin, end, tile.places[first : min(first + 16, n)], active)
    return active, False


@inlined
def pass_rows(state, packed, sample, block, first, active, voltage, current):
    """The lanes of the ``state``, from ``first`` on, pass a block of rows as if none of them spiked.

    Returns the states at the end, and by how much they exceeded BOUND. The states before the first candidates of the
    lanes ``active``, and their rows as a part of TILE, are written.
    """
    order, rows, place, written = sample.order, sample.rows, state.place, arrays(state)
    zero = splat(place, 0.0)
    syn, rise, bound = rows.syn, rows.rise, rows.bound
    working, over = mask_of(zero, active), splat(zero, -math.inf)
    before = charged = zero
    for row in block:
        k = np.uintp(row)
        current = fma(load(zero, packed, np.intp(order[k]) * TILE + first), syn[k], current)
        if HAS_MASKS:
            store_where(working, written.current, 0, current)  # by the ports for stores, which are idle otherwise
        else:
            charged = update(working, current, charged)
        place, before = update(working, place + 1.0, place), update(working, voltage, before)
        voltage = fma(current, rise[k], voltage)
        over = max(over, voltage - bound[k])
        working = where_below(working, over, zero)
    found = active & ~bits_of(working)
    if found:
        state.voltage, state.stop = before, place
        if not HAS_MASKS:
            state.current = charged
    return voltage, current, over


@inlined
def solve_lanes(tile, packed, sample, begin, end, places, active):
    """Note the spikes of up to 16 lanes. Returns who may go on.

    ``places`` are these lanes, with their rows in the block: ``row * TILE + lane``. For most, the spikes in their first
    interval are the last in the block: with those resets subtracted, no excess of BOUND is left.
    """
    arrival, rows, state, solved = sample.arrival, sample.rows, tile.state, _solved_in(tile.solved, 0)
    going, walked = (np.uint64(1) << np.uint64(places.size)) - np.uint64(1), np.uint64(0)
    for i in range(places.size):
        own, it = state[places[i] & (TILE - 1)], solved[i]
        it.voltage, it.current, it.drop = own.voltage, own.current, own.drop
    while going:
        left = going
        while left:
            i, left = next_lane(left)
            k, it = np.uintp(begin + places[i] // TILE), solved[i]
            here, there = rows[k], rows[k + np.uintp(1)]
            it.rise, it.syn, it.wait = here.rise, here.syn, arrival[k + np.uintp(1)] - arrival[k]
            it.mem, it.end, it.bound = here.mem, there.mem, here.bound
            it.level, it.level_end = here.level, there.level
        gone = solve_spikes(tile, arrival, begin, places, going)
        going &= ~gone
        left = gone
        while left:
            i, left = next_lane(left)
            lane = places[i] & (TILE - 1)
            active &= ~(np.uint64(1) << np.uint64(lane))
            state[lane].now_voltage = -math.inf
        left = going
        while left:
            i, left = next_lane(left)
            bit, own = np.uint64(1) << np.uint64(i), state[places[i] & (TILE - 1)]
            if not walked & bit and own.over < solved[i].reset:
                own.now_voltage -= solved[i].reset
                going &= ~bit
            elif not walk(tile, packed, sample, begin, end, places, i):
                going &= ~bit
            walked |= bit
    return active


@inlined
def walk(tile, packed, sample, begin, end, places, i):
    """Go on with a lane to its next candidate. Returns whether there is one."""
    order, rows, it = sample.order, sample.rows, _solved_in(tile.solved, 0)[i]
    syn, rise, bound = rows.syn, rows.rise, rows.bound
    k, lane = np.uintp(begin + places[i] // TILE), places[i] & (TILE - 1)
    voltage, current = it.voltage, it.current
    while True:
        voltage += current * rise[k]
        k += np.uintp(1)
        if k >= np.uintp(end):
            tile.state[lane].now_voltage = voltage
            return False
        current += packed[np.intp(order[k]) * TILE + lane] * syn[k]
        if voltage + current * rise[k] >= bound[k] and rise[k] > 0:
            it.voltage, it.current, places[i] = voltage, current, (np.intp(k) - begin) * TILE + lane
            return True


@inlined
def solve_spikes(tile, arrival, begin, places, bits):
    """Note the spikes of 16 lanes, each in an interval, and sum their resets. Returns who may not spike again."""
    solved, r, gone = _solved_in(tile.solved, 0), rates_of(tile.c), np.uint64(0)
    voltage, current, wait, rise, mem = solved.voltage, solved.current, solved.wait, solved.rise, solved.mem
    scale = Scale(1.0 / mem, 1.0 / solved.syn, solved.end, solved.level, solved.level_end)
    total, drop, bound = splat(voltage, 0.0), solved.drop * mem, solved.bound
    bits &= rise > 0.0
    while bits:
        end = fma(current, rise, voltage)
        fired, limit = reaches_scaled(voltage, current, wait, end, current, bits, r, scale)
        if not fired:
            break
        s, drive = solve_within(voltage * scale.mem, current * scale.syn, wait, limit, fired, r)
        reset = select(fired, drop * exp(min(s, 60.0 / r.faster) * r.mem), 0.0)
        voltage, total = voltage - reset, total + reset
        solved.after, solved.slope = s, drive - r.mem
        left = fired
        while left:
            i, left = next_lane(left)
            lane, k, it = places[i] & (TILE - 1), np.uintp(begin + places[i] // TILE), solved[i]
            if note_spike(tile, k, lane, it.after, it.slope, arrival[k], arrival[k + np.uintp(1)]):
                gone |= np.uint64(1) << np.uint64(i)
        bits = fired & ~gone & (fma(current, rise, voltage) >= bound)
    solved.voltage, solved.reset = voltage, total
    return gone


@inlined
def solve_within(voltage, current, wait, limit, fired, r):
    """``crossings`` of 16 lanes in intervals of length ``wait``."""
    s, drive, slow = limit, limit, fired
    if is_single(voltage):
        s, drive, exact = soon(voltage, current, limit, r)
        slow = fired & ((wait * r.faster > SHORT) | ~(exact & (limit >= wait)))
    if slow:
        found, found_drive = crossings(voltage, current, limit, slow, r)
        s, drive = select(slow, found, s), select(slow, found_drive, drive)
    return s, drive
