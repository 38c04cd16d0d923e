"""Forward: samples are sorted, then each tile of neurons scans each sample's inputs in order of arrival."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN
from firstspike.spiketime.cpu.pack import TILE, pack_tile
from firstspike.spiketime.cpu.rows.coefficients import (
    BOUND,
    LEVEL,
    MEM,
    RISE,
    SYN,
    TANGENT,
    find_segments,
    forward_rows,
    pad_row,
    stride_of,
)
from firstspike.spiketime.cpu.rows.crossing import (
    N_STATE,
    NOW_CURRENT,
    NOW_VOLTAGE,
    plain_interval,
    scaled_interval,
    solve,
)
from firstspike.spiketime.cpu.rows.fast import scan_fast
from firstspike.spiketime.cpu.rows.few import FEW, few_rows, scan_few, store_part16
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import kernel
from firstspike.spiketime.cpu.saved import SAVED
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch
from firstspike.spiketime.cpu.values import are_times, are_weights
from firstspike.spiketime.cpu.vectors.simd import (
    fma,
    keep,
    load,
    load16,
    store,
    unowned,
    zeros,
)

_SHORT = 0.045  # mean interval in units of the faster constant for the fast scan of many inputs
_LONG = 0.4  # interval that ends a segment there, likewise


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
                    zero, state, last, row, active, arrival, c, syn[k], rise[k], mem[k], level[k], mem[row + 1],
                    level[row + 1],
                )  # fmt: skip
                if not active:
                    return active
            voltage = fma(current, rise[k], voltage)
        k = end - 1
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        active, voltage, current = plain_interval(
            zero, state, last, k, active, arrival, segment == segments - 1, c, voltage * (1 / mem[k]),
            current * (1 / syn[k]),
        )  # fmt: skip
        if not active:
            return active
        begin = end
    return active


@jit
def scan_samples(zero, g, e, slot, first, stop):
    """Sort and scan the samples from ``first`` to ``stop`` of network ``e`` with all its tiles."""
    c, times, packed, rows, ends, inputs, outputs = (
        g.c,
        g.times[e],
        g.packed[e],
        g.rows[slot],
        g.ends[slot],
        g.inputs,
        g.outputs,
    )
    order, arrival, count, last, slope, spikes = (
        g.order[e],
        g.arrival[e],
        g.count[e],
        g.last[e],
        g.slope[e],
        g.spikes[e],
    )
    samples = stop - first
    memory = (
        np.empty(stride_of(inputs), times.dtype), np.zeros(samples, np.int32), np.zeros((2, samples), np.bool_),
        np.zeros((N_STATE + 2, TILE), times.dtype), np.empty((2, TILE), np.int32), np.empty((FEW, 2, 16), times.dtype),
    )  # fmt: skip
    sorting = sort_scratch(times, inputs)
    scratch = unowned_scratch(sorting)
    start, segments, fast, few = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])[0], unowned(memory[2])[1]
    state, lane_last, places, passed = (
        unowned(memory[3]), unowned(memory[4])[0], unowned(memory[4])[1], unowned(memory[5])
    )  # fmt: skip
    lane_spikes, lane_slopes = state[N_STATE], state[N_STATE + 1]
    for b in range(first, stop):
        n = sort_row(times[b], order[b], arrival[b], scratch)
        count[b, 0] = n
        if n:
            pad_row(arrival[b], n)
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
            silent, left = every, every if count[b, 0] else np.uint64(0)
            if few[at]:
                for begin in range(0, lanes if left else 0, 16):
                    some = (every >> np.uint64(begin)) & np.uint64(0xFFFF)
                    found = scan_few(
                        packed[tile], order[b], arrival[b], count[b, 0], rows[at], begin, some, c, state, lane_last,
                        passed,
                    )  # fmt: skip
                    silent &= ~(found << np.uint64(begin))
                left = np.uint64(0)
            elif fast[at]:
                silent, left = scan_fast(
                    zero, packed[tile], order[b], arrival[b], ends[at], segments[at], rows[at], every, c, state,
                    places, lane_last,
                )  # fmt: skip
            if left:
                silent = (silent & ~left) | scan_tile(
                    zero, packed[tile], order[b], arrival[b], ends[at], segments[at], rows[at], left, c, state,
                    lane_last,
                )  # fmt: skip
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
    "ensemble batch inputs outputs ints reals block threads tiles packed_size stride row_kinds constants",
    c="real constants",
    times="real ensemble batch inputs",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    **SAVED,
    spikes="real ensemble batch outputs",
    rows="real threads block row_kinds stride",
    ends="int32 threads block inputs",
)


@jit
def pack_task(g, slot, task):
    """Check and pack the weights of a tile."""
    e, tile = task // g.tiles, task % g.tiles
    if not are_weights(g.weight[e], g.threshold[e], tile * TILE):
        g.refused = 1
    pack_tile(g.weight[e], g.threshold[e], tile * TILE, g.packed[e, tile])


@kernel(FORWARD, following="firstspike.spiketime.cpu.rows.backward.backward_kernel")
def forward_kernel(dtype: str, lanes: int):
    """For one dtype and number of lanes."""

    @jit
    def scan_task(g, slot, task):
        blocks = (g.batch + g.block - 1) // g.block
        e, first = task // blocks, task % blocks * g.block
        stop = min(first + g.block, g.batch)
        if not are_times(g.times[e], first, stop):
            g.refused = 1
        if not g.refused:
            scan_samples(zeros(g.c, lanes), g, e, slot, first, stop)

    return pack_task, scan_task
