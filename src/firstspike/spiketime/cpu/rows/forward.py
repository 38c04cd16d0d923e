"""Forward: samples are sorted, then each tile of neurons scans each sample's inputs in order of arrival.

A kernel is for first spikes, or for spike trains: their scan goes on where a lane spikes, window after window. A
window's start holds the states that are given, its end those that are returned; without recurrence there is one.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN, SAVED
from firstspike.spiketime.cpu.pack import TILE, are_weights, pack_row
from firstspike.spiketime.cpu.rows.coefficients import Sample, find_segments, forward_rows, pad_row
from firstspike.spiketime.cpu.rows.crossing import N_STATE, solve
from firstspike.spiketime.cpu.rows.fast import scan_fast
from firstspike.spiketime.cpu.rows.few import FEW, few_rows, scan_few
from firstspike.spiketime.cpu.rows.intervals import DROP, HOLD, NEXT, SEEN, Entries
from firstspike.spiketime.cpu.rows.scan import scan_tile, scan_trains
from firstspike.spiketime.cpu.rows.windows import (
    KEPT,
    TRAINS,
    end_samples,
    end_tile,
    keep_spikes,
    send_own,
    start_samples,
    start_tile,
    window_events,
)
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, samples_of
from firstspike.spiketime.cpu.sort import SORTING, SORTING_SIZES, are_times, sort_row
from firstspike.spiketime.cpu.vectors.simd import clear, load16, store_part16, zeros

_SHORT = 0.045  # mean interval in units of the faster constant for the fast scan of many inputs
_LONG = 0.4  # interval that ends a segment there, likewise

_SHARED = Layout(
    f"ensemble batch inputs outputs block threads tiles packed_size stride row_kinds constants tile state_rows "
    f"{SORTING_SIZES}",
    c="real constants",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    rows="real threads block row_kinds stride",
    ends="int32 threads block stride",
    start="real threads stride",
    segments="int32 threads block",
    state="real threads state_rows tile",
    **SORTING,
)
FORWARD = _SHARED.extended(
    "ints reals passed_size",
    times="real ensemble batch inputs",
    **SAVED,
    spikes="real ensemble batch outputs",
    few="int32 threads block",
    fast="int32 threads block",
    lane_last="int32 threads tile",
    places="int32 threads tile",
    passed="real threads passed_size",
)
TRAIN_FORWARD = _SHARED.extended(
    "copies most seen budget windows events room waiting entries bounds_size states both_states holds one two "
    "carried_lanes counted",
    **TRAINS,
    **KEPT,
    lag="real one",
    times="real ensemble batch events",
    refractory="real ensemble outputs",
    observed="real ensemble batch outputs seen",
    trains="real ensemble batch outputs most",
    overflows="uint8 ensemble batch outputs",
    lacks="int32 ensemble batch",
    outside="real threads block events",
    outside_order="int32 threads block events",
    own="real threads block waiting",
    own_id="int32 threads block waiting",
    own_sorted="real threads two waiting",
    own_order="int32 threads two waiting",
    carried="real threads block states carried_lanes",
    at_event="int32 threads block",
    arrived="int32 threads block",
    owns="int32 threads block",
    lanes="int32 threads counted",
)


@jit
def scan_samples(zero, g, e, slot, first, stop):
    """First spikes of the samples from ``first`` to ``stop`` of network ``e``."""
    c, times, packed, rows, ends, start = g.c, g.times[e], g.packed[e], g.rows[slot], g.ends[slot], g.start[slot]
    order, arrival, count, last = g.order[e], g.arrival[e], g.count[e], g.last[e]
    slope, spikes, segments, few, fast = g.slope[e], g.spikes[e], g.segments[slot], g.few[slot], g.fast[slot]
    state, lane_last, places, passed = g.state[slot], g.lane_last[slot], g.places[slot], g.passed[slot]
    lane_spikes, lane_slopes = state[N_STATE], state[N_STATE + 1]
    keys, labels = g.sort_keys[slot], g.sort_labels[slot]
    clear(state)
    for b in range(first, stop):
        at = b - first
        n = sort_row(times[b], -math.inf, math.inf, order[b], arrival[b], keys, labels)
        count[b, 0] = n
        if n:
            pad_row(arrival[b], n)
        few[at], fast[at] = n < FEW and c[PER_MEM] > 0, 0
        if n and few[at]:
            few_rows(arrival[b], n, c, rows[at])
        elif n:
            span = arrival[b, n - 1] - arrival[b, 0]
            fast[at] = n >= FEW and span * max(c[PER_MEM], c[PER_SYN]) < n * _SHORT
            longest = _LONG / max(c[PER_MEM], c[PER_SYN]) if fast[at] else math.inf
            segments[at] = find_segments(arrival[b], n, c, longest, start, ends[at])
            forward_rows(arrival[b], n, c, fast[at], start, rows[at])
    for tile in range(g.tiles):
        lanes = min(TILE, g.outputs - tile * TILE)
        every = ~np.uint64(0) >> np.uint64(64 - lanes)
        for b in range(first, stop):
            at = b - first
            sample = Sample(order[b], arrival[b], count[b, 0], ends[at], segments[at], rows[at])
            for lane in range(TILE):
                lane_last[lane] = -1
            silent, left = every, every if sample.n else np.uint64(0)
            if few[at]:
                for begin in range(0, lanes if left else 0, 16):
                    some = (every >> np.uint64(begin)) & np.uint64(0xFFFF)
                    found = scan_few(packed[tile], sample, begin, some, c, state, lane_last, passed)
                    silent &= ~(found << np.uint64(begin))
                left = np.uint64(0)
            elif fast[at]:
                silent, left = scan_fast(zero, packed[tile], sample, every, c, state, places, lane_last)
            if left:
                silent = (silent & ~left) | scan_tile(zero, packed[tile], sample, left, c, state, lane_last)
            solve(zero, state, every & ~silent, c, lane_spikes, lane_slopes)
            for begin in range(0, lanes, 16):
                at, filled = tile * TILE + begin, every >> np.uint64(begin)
                store_part16(filled, spikes[b], at, load16(lane_spikes, begin))
                store_part16(filled, slope[b], at, load16(lane_slopes, begin))
            for lane in range(lanes):
                last[b, tile * TILE + lane] = lane_last[lane]


@jit
def scan_windows(zero, g, e, slot, first, stop):
    """Spike trains of the samples from ``first`` to ``stop`` of network ``e``.

    Where there is too little room for entries, events or own spikes on their way, ``lacks`` says so, and nothing else
    that is written has a meaning.
    """
    c, bounds, budget, windows, holds = g.c, g.bounds, g.budget, g.windows, g.holds != 0
    rows, ends, start, segments = g.rows[slot], g.ends[slot], g.start[slot], g.segments[slot]
    starts, count, arrival, lacks, upto = g.starts[e], g.count[e], g.arrival[e], g.lacks[e], g.upto[e]
    state, lanes, carried, packed, source = g.state[slot], g.lanes[slot], g.carried[slot], g.packed[e], g.source[e]
    counts, observed, trains, overflows = g.counts[e], g.observed[e], g.trains[e], g.overflows[e]
    found, places, moments, slopes = g.found[e], g.places[e], g.moments[e], g.slopes[e]
    clear(state)
    start_samples(g, e, slot, first, stop)
    for w in range(windows):
        for b in range(first, stop):
            at = b - first
            n = window_events(g, e, slot, b, at, w)
            if n < 0:
                lacks[b] = 1
                return  # all is done again with more room
            if n:
                here = arrival[b, starts[b, w] :]
                pad_row(here, n)
                segments[at] = find_segments(here, n, c, math.inf, start, ends[at])
                forward_rows(here, n, c, True, start, rows[at])
        for tile in range(g.tiles):
            begin = tile * TILE
            size = min(TILE, g.outputs - begin)
            every = ~np.uint64(0) >> np.uint64(64 - size)
            for lane in range(size):
                state[DROP, lane] = 1 - g.reset[e, begin + lane] / g.threshold[e, begin + lane]
                state[HOLD, lane] = g.refractory[e, begin + lane]
            for b in range(first, stop):
                at, low, here = b - first, upto[b, tile, w], starts[b, w]
                for lane in range(TILE):
                    lanes[lane] = 0
                lanes[TILE], lanes[TILE + 1] = low, 0
                start_tile(zero, state, carried[at], begin)
                seen = observed[b, begin:begin] if observed.shape[2] == 0 else observed[b, begin:]
                for lane in range(size if seen.shape[0] > 0 else 0):
                    lanes[SEEN + lane] = done = counts[b, begin + lane]
                    state[NEXT, lane] = seen[lane, done] if done < seen.shape[1] else math.inf
                entries = Entries(lanes, budget, found[b, tile], places[b, tile], moments[b, tile], slopes[b, tile])
                if count[b, w]:
                    sample = Sample(source[b, here:], arrival[b, here:], count[b, w], ends[at], segments[at], rows[at])
                    stops = bounds[w + 1] < math.inf
                    scan_trains(zero, packed[tile], sample, stops, every, holds, c, state, entries, seen)
                end_tile(zero, state, entries, holds, carried[at], begin, size)
                upto[b, tile, w + 1] = lanes[TILE]
                g.full[e, b, tile, w] = keep_spikes(entries, begin, size, low, trains[b], counts[b], overflows[b])
                lacks[b] = lanes[TILE + 1]
                if w < windows - 1 and not send_own(g, e, slot, b, at, tile, low, lanes[TILE]):
                    lacks[b] = 1
                if lacks[b]:
                    return
    end_samples(g, e, slot, first, stop)


@jit
def pack_weights(g, slot, task):
    """Pack the weights of a tile."""
    e, tile = task // g.tiles, task % g.tiles
    pack_row(g.weight[e], g.threshold[e], tile * TILE, g.packed[e, tile])


@jit
def check_weights(g, slot, task):
    """Pack the weights of a tile, and refuse some values."""
    e, tile = task // g.tiles, task % g.tiles
    if not are_weights(g.weight[e], g.threshold[e], tile * TILE):
        g.refused = 1
    pack_weights(g, slot, task)


@kernel(FORWARD, following="firstspike.spiketime.cpu.rows.backward.backward_kernel")
def forward_kernel(dtype: str, lanes: int):
    """First spikes, for one dtype and number of lanes."""

    @jit
    def scan(g, slot, task):
        e, first, stop = samples_of(task, g.batch, g.block)
        if not are_times(g.times[e], first, stop):
            g.refused = 1
        if not g.refused:
            scan_samples(zeros(g.c, lanes), g, e, slot, first, stop)

    return check_weights, scan


@kernel(TRAIN_FORWARD, following="firstspike.spiketime.cpu.rows.backward.train_backward_kernel")
def train_forward_kernel(dtype: str, lanes: int):
    """Spike trains, likewise."""

    @jit
    def scan(g, slot, task):
        e, first, stop = samples_of(task, g.batch, g.block)
        scan_windows(zeros(g.c, lanes), g, e, slot, first, stop)

    return pack_weights, scan
