"""Forward: samples are sorted, then each tile of neurons scans each sample's inputs in order of arrival."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN, peak
from firstspike.spiketime.cpu.crossing import (
    CURRENT,
    ENOUGH,
    LIMIT,
    N_STATE,
    NOW_CURRENT,
    NOW_VOLTAGE,
    SINCE,
    TILE,
    UNTIL,
    VOLTAGE,
    WAIT,
    plain_interval,
    scaled_interval,
    solve,
)
from firstspike.spiketime.cpu.few import FEW, few_rows, scan_few, store_part16
from firstspike.spiketime.cpu.pack import pack_tile
from firstspike.spiketime.cpu.rows import (
    BOUND,
    LEVEL,
    MEM,
    RISE,
    SYN,
    TANGENT,
    find_segments,
    forward_rows,
    stride_of,
)
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.tasks import PHASE, SIGNATURE, TASKS, next_task, take
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch
from firstspike.spiketime.cpu.values import are_times, are_weights
from firstspike.spiketime.cpu.vectors.masks import any_of, bits_of, has_mask_registers, mask_of, update, where_below
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    keep,
    lanes_of,
    load,
    load16,
    lowest_bit,
    maximum,
    select,
    splat,
    store,
    store_whole16,
    unowned,
    zeros,
)

_SHORT = 0.045  # mean interval in units of the faster constant for the fast scan of many inputs
_LONG = 0.4  # interval that ends a segment there, likewise
_PATIENCE = 32  # rows for which a single lane is followed
_MASKED = has_mask_registers()
_WHOLE = np.uint64(0xFFFF)
_BLOCK = 32  # rows that are scanned at once where there are no mask registers
_MANY = 128  # rows from which on most blocks have no candidate
STOP = WAIT  # row of the state with the row of a lane's candidate; the search for crossings comes later
_STEEP = 8.0  # thresholds by which the membrane may rise in one interval of the fast scan


@jit
def scan_tile(zero, packed, order, arrival, ends, segments, rows, active, c, state, last):
    """Scan one sample with the neurons ``active``; returns those that stay silent."""
    syn, rise, tangent, bound = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND]
    mem, level = rows[MEM], rows[LEVEL]
    voltage = current = zero
    begin = 0
    for segment in range(segments):
        end = ends[segment]
        for row in range(begin, end - 1):
            k = np.uintp(row)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            if rise[k] == 0:
                continue  # the next input arrives at the same time
            candidates = (fma(current, tangent[k], voltage) >= bound[k]) & active
            if candidates:
                store(state, NOW_VOLTAGE * TILE, voltage)
                store(state, NOW_CURRENT * TILE, current)
                active = scaled_interval(
                    zero,
                    state,
                    last,
                    row,
                    active,
                    arrival,
                    c,
                    syn[k],
                    rise[k],
                    mem[k],
                    level[k],
                    mem[row + 1],
                    level[row + 1],
                )
                if not active:
                    return active
            voltage = fma(current, rise[k], voltage)
        k = end - 1
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
        active = plain_interval(zero, state, last, k, active, arrival, segment == segments - 1, c)
        if not active:
            return active
        voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        begin = end
    return active


@jit
def scan_fast(zero, packed, order, arrival, ends, segments, rows, active, c, state, places, last):
    """``scan_tile`` for many short intervals, without a branch for a neuron that fires.

    A lane stops at its first candidate. With short intervals this nearly always is the crossing or close to it.
    Returns the lanes that stay silent, and those that have to be scanned again.
    """
    syn, mem = rows[SYN], rows[MEM]
    voltage = current = zero
    stopped = np.uint64(0)
    begin = 0
    for segment in range(segments):
        end = ends[segment]
        before = active
        if _MASKED:
            voltage, current, active = advance(
                zero, packed, order, begin, end - 1, rows, 0, active, voltage, current, state
            )
        else:
            active = np.uint64(0)
            store(state, NOW_VOLTAGE * TILE, voltage)
            store(state, NOW_CURRENT * TILE, current)
            for first in range(0, lanes_of(zero), 16):
                some = (before >> np.uint64(first)) & _WHOLE
                if some:
                    active |= advance16(packed, order, begin, end - 1, rows, first, some, state) << np.uint64(first)
            voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        stopped |= before & ~active
        if not active:
            break
        k = end - 1
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
        active = plain_interval(zero, state, last, k, active, arrival, segment == segments - 1, c)
        if not active:
            break
        voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        begin = end
    again = np.uint64(0)
    if stopped:
        again = settle(zero, packed, order, arrival, ends, rows, stopped, c, state, places, last)
    return active, again


@jit
def advance(zero, packed, order, begin, end, rows, first, active, voltage, current, state):
    """Scan rows with the lanes ``active`` from lane ``first`` on, until each has a candidate; returns those without.

    What is known of the others goes to ``state``: their row's number, and a voltage of one row later, see ``settle``.
    """
    syn, rise, tangent, bound = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND]
    working, place = mask_of(zero, active), zero
    for row in range(begin, end):
        k = np.uintp(row)
        # what waits for the test of this row comes last
        driven = fma(load(zero, packed, np.intp(order[k]) * TILE + first), syn[k], current)
        current = update(working, driven, current)
        if rise[k] == 0:
            continue  # the next input arrives at the same time
        place = update(working, splat(zero, float(row)), place)
        still_working = where_below(working, fma(driven, tangent[k], voltage), splat(zero, bound[k]))
        voltage = update(working, fma(driven, rise[k], voltage), voltage)
        working = still_working
        if row & 3 == 0 and not any_of(working):
            break
    still = bits_of(working)
    found = active & ~still
    if found:
        for row, x in ((VOLTAGE, voltage), (CURRENT, current), (STOP, place)):
            store(state, row * TILE + first, select(found, x, load(zero, state, row * TILE + first)))
    return voltage, current, still


@jit
def advance16(packed, order, begin, end, rows, first, active, state):
    """``advance`` for 16 lanes without mask registers, where a masked update costs as much as three others.

    All lanes pass a block of rows; if one might have a candidate in it (the coarse test of ``rows``), once more with
    masks. Few rows are not worth the first pass. States are in ``state``.
    """
    syn, rise, mem, near = rows[SYN], rows[RISE], rows[MEM], rows.dtype.type(ENOUGH)
    voltage, current = load16(state, NOW_VOLTAGE * TILE + first), load16(state, NOW_CURRENT * TILE + first)
    few = end - begin < _MANY
    block = max(end - begin, 1) if few else _BLOCK
    for start in range(begin, end, block):
        stop, over = min(start + block, end), fill16(rows, -1.0)
        before, driven, k = voltage, current, np.uintp(end if few else start)
        while k < np.uintp(stop):
            driven = fma(load16(packed, np.intp(order[k]) * TILE + first), fill16(rows, syn[k]), driven)
            voltage = fma(driven, fill16(rows, rise[k]), voltage)
            over = maximum(over, voltage - mem[k] * near)
            k += np.uintp(1)
        found = active if few else active & (over >= 0.0)
        if found:
            passed, charged, still = advance(
                fill16(rows, 0.0), packed, order, start, stop, rows, first, found, before, current, state
            )
            active &= ~found | still
            if few:
                voltage, driven = passed, charged
            if not active:
                break
        current = driven
    store(state, NOW_VOLTAGE * TILE + first, voltage)
    store(state, NOW_CURRENT * TILE + first, current)
    return active


@jit
def settle(zero, packed, order, arrival, ends, rows, stopped, c, state, places, last):
    """Bring the states at which lanes stopped to scale 1; returns the lanes that have to be scanned again."""
    stride, early, again, steep = rows.shape[1], np.uint64(0), np.uint64(0), np.uint64(0)
    for first in range(0, lanes_of(zero), 16):
        bits = (stopped >> np.uint64(first)) & np.uint64(0xFFFF)
        if not bits:
            continue
        stop = select(bits, load16(state, STOP * TILE + first), fill16(state, 0.0))
        store_whole16(np.uint64(0xFFFF), places, first, stop)
        store_whole16(bits, last, first, stop)
        mem, mem_end = gather16(rows, MEM * stride, places, first), gather16(rows, MEM * stride + 1, places, first)
        syn, rise = gather16(rows, SYN * stride, places, first), gather16(rows, RISE * stride, places, first)
        since, until = gather16(arrival, 0, places, first), gather16(arrival, 1, places, first)
        voltage, current = load16(state, VOLTAGE * TILE + first), load16(state, CURRENT * TILE + first)
        # where one interval adds many thresholds, too few digits are left of the state before it
        lost = (current * rise > mem * _STEEP) & bits
        steep |= lost << np.uint64(first)
        early |= ((voltage < mem_end) & bits & ~lost) << np.uint64(first)
        store(state, VOLTAGE * TILE + first, select(bits, (voltage - current * rise) / mem, voltage))
        store(state, CURRENT * TILE + first, select(bits, current / syn, current))
        for row, x in ((LIMIT, until - since), (SINCE, since), (UNTIL, until)):
            store(state, row * TILE + first, select(bits, x, load16(state, row * TILE + first)))
    again |= steep
    while steep:
        last[lowest_bit(steep)] = -1
        steep &= steep - np.uint64(1)
    while early:
        lane = lowest_bit(early)
        early &= early - np.uint64(1)
        if not proceed(packed, order, arrival, ends, rows, lane, c, state, last):
            last[lane] = -1
            again |= np.uint64(1) << np.uint64(lane)
    return again


@jit
def proceed(packed, order, arrival, ends, rows, lane, c, state, last):
    """Scan on with a single lane that does not reach the threshold where it stopped; most do soon after."""
    k = np.intp(last[lane])
    voltage, current = state[VOLTAGE, lane] * rows[MEM, k], state[CURRENT, lane] * rows[SYN, k]
    end, segment = ends[0], 0
    while end <= k:
        segment += 1
        end = ends[segment]
    for _ in range(_PATIENCE):
        following = voltage + current * rows[RISE, k]
        limit = arrival[k + 1] - arrival[k]
        fires = following >= rows[MEM, k + 1]
        if not fires and voltage * rows[LEVEL, k] < current and current * ENOUGH < following * rows[LEVEL, k + 1]:
            time, height = peak(voltage / rows[MEM, k], current / rows[SYN, k], c)
            fires, limit = height >= 1 and time <= limit, min(time, limit)
        if fires:
            state[VOLTAGE, lane], state[CURRENT, lane] = voltage / rows[MEM, k], current / rows[SYN, k]
            state[LIMIT, lane], state[SINCE, lane], state[UNTIL, lane] = limit, arrival[k], arrival[k + 1]
            last[lane] = k
            return True
        k += 1
        if k >= end - 1:
            return False
        voltage = following
        current += packed[np.intp(order[k]) * TILE + lane] * rows[SYN, k]
    return False


@jit
def scan_samples(zero, times, packed, c, rows, ends, order, arrival, count, last, slope, spikes, first, stop):
    """Sort and scan the samples from ``first`` to ``stop`` of one network with all its tiles.

    ``rows`` and ``ends`` have room for as many samples.
    """
    inputs, outputs = times.shape[1], spikes.shape[1]
    samples = stop - first
    memory = (
        np.empty(stride_of(inputs), times.dtype), np.zeros(samples, np.int32), np.zeros((2, samples), np.bool_),
        np.zeros((N_STATE + 2, TILE), times.dtype), np.empty((2, TILE), np.int32), np.empty(FEW * 32, times.dtype),
    )  # fmt: skip
    sorting = sort_scratch(times, inputs)
    scratch = unowned_scratch(sorting)
    start, segments, fast, few = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])[0], unowned(memory[2])[1]
    state, lane_last, places = unowned(memory[3]), unowned(memory[4])[0], unowned(memory[4])[1]
    lane_spikes, lane_slopes, passed = state[N_STATE], state[N_STATE + 1], unowned(memory[5])
    for b in range(first, stop):
        n = sort_row(times[b], order[b], arrival[b], scratch)
        count[b] = n
        few[b - first] = n < FEW and c[PER_MEM] > 0
        if n and few[b - first]:
            few_rows(arrival[b], n, c, rows[b - first])
        elif n:
            span = arrival[b, n - 1] - arrival[b, 0]
            fast[b - first] = n >= FEW and span * max(c[PER_MEM], c[PER_SYN]) < n * _SHORT
            longest = _LONG / max(c[PER_MEM], c[PER_SYN]) if fast[b - first] else math.inf
            segments[b - first] = find_segments(arrival[b], n, c, longest, start, ends[b - first])
            forward_rows(arrival[b], n, c, fast[b - first], start, rows[b - first])

    for tile in range(packed.shape[0]):
        lanes = min(TILE, outputs - tile * TILE)
        every = ~np.uint64(0) >> np.uint64(64 - lanes)
        for b in range(first, stop):
            at = b - first
            for lane in range(TILE):
                lane_last[lane] = -1
            silent, left = every, every if count[b] else np.uint64(0)
            if few[at]:
                for begin in range(0, lanes if left else 0, 16):
                    some = (every >> np.uint64(begin)) & np.uint64(0xFFFF)
                    found = scan_few(
                        packed[tile],
                        order[b],
                        arrival[b],
                        count[b],
                        rows[at],
                        begin,
                        some,
                        c,
                        state,
                        lane_last,
                        passed,
                    )
                    silent &= ~(found << np.uint64(begin))
                left = np.uint64(0)
            elif fast[at]:
                silent, left = scan_fast(
                    zero, packed[tile], order[b], arrival[b], ends[at], segments[at], rows[at], every, c, state,
                    places, lane_last,
                )  # fmt: skip
            if left:
                silent = (silent & ~left) | scan_tile(
                    zero,
                    packed[tile],
                    order[b],
                    arrival[b],
                    ends[at],
                    segments[at],
                    rows[at],
                    left,
                    c,
                    state,
                    lane_last,
                )
            solve(zero, state, every & ~silent, c, lane_spikes, lane_slopes)
            for begin in range(0, lanes, 16):
                at, filled = tile * TILE + begin, every >> np.uint64(begin)
                store_part16(filled, spikes[b], at, load16(lane_spikes, begin))
                store_part16(filled, slope[b], at, load16(lane_slopes, begin))
            for lane in range(lanes):
                last[b, tile * TILE + lane] = lane_last[lane]
    keep(memory)
    keep(sorting)


FORWARD = Layout(
    "ensemble batch inputs outputs block threads taken refused tiles packed_size padded stride row_kinds constants",
    c="real constants",
    times="real ensemble batch inputs",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    order="int32 ensemble batch inputs",
    arrival="real ensemble batch padded",
    count="int32 ensemble batch",
    last="int32 ensemble batch outputs",
    slope="real ensemble batch outputs",
    spikes="real ensemble batch outputs",
    rows="real threads block row_kinds stride",
    ends="int32 threads block inputs",
)
_TAKEN = FORWARD.place("taken")
REFUSED = FORWARD.place("refused")
"""Place of the number that tells whether there are values, such as NaN, that ``check_values`` should look at."""


@kept_on_disk
def forward_kernel(dtype: str, lanes: int):
    """The kernel (see ``runtime.tasks``) for one dtype and number of lanes; compiled at the first call."""
    read = FORWARD.reader(dtype)

    @c_function(SIGNATURE, dtype, lanes, following="firstspike.spiketime.cpu.unwind.backward_kernel")
    def kernel(a):
        g = read(a)
        blocks = (g.batch + g.block - 1) // g.block
        slot = take(a, _TAKEN) if a[PHASE] == 1 else 0  # of the memory that threads have for themselves
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            if a[PHASE] == 0:
                e, tile = task // g.tiles, task % g.tiles
                if not are_weights(g.weight[e], g.threshold[e], tile * TILE):
                    a[REFUSED] = 1
                pack_tile(g.weight[e], g.threshold[e], tile * TILE, g.packed[e, tile])
            else:
                e, first = task // blocks, task % blocks * g.block
                stop = min(first + g.block, g.batch)
                if not are_times(g.times[e], first, stop):
                    a[REFUSED] = 1
                if not a[REFUSED]:
                    scan_samples(
                        zeros(g.c, lanes), g.times[e], g.packed[e], g.c, g.rows[slot], g.ends[slot], g.order[e],
                        g.arrival[e], g.count[e], g.last[e], g.slope[e], g.spikes[e], first, stop,
                    )  # fmt: skip

    return kernel.ctypes
