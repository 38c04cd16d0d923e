"""Spike trains, backward: the kernel. As in ``unwind``, tasks and the order of sums depend on the shapes alone."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import N_CONSTANTS, PER_SYN, X
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.pack import pack_tile, units_of_tile, unpack_tile
from firstspike.spiketime.cpu.rows import FAST, backward_rows, find_segments
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.parallel import PHASE, SIGNATURE, TASKS, next_task
from firstspike.spiketime.cpu.trains.adjoint import (
    DROP,
    END_C,
    END_Y,
    LEVEL,
    N_LANES,
    N_SPIKES,
    NEXT_KEPT,
    NEXT_T,
    NEXT_Y,
    NOW_C,
    NOW_E,
    TOTAL,
    UNIT,
    jumps,
    unwind_trains,
)
from firstspike.spiketime.cpu.vectors.simd import keep, unowned, zeros

SAMPLES = 16  # of one task, where samples are worked on by themselves


@jit
def unwind_tiles(
    zero, grad, of_end, trains, slopes, counts, overflows, found, places, totals, threshold, reset, unit, packed,
    source, arrival, count, start, ends, segments, rows, by_weight, by_times, by_threshold, by_start, window, c, bound,
    wants_weight, wants_times, asks_end, tiles, samples,
):  # fmt: skip
    """The tiles and samples of one task, each a pair (first, stop)."""
    outputs, most = threshold.size, found.shape[2] // TILE
    memory = (
        np.zeros((N_LANES, TILE), grad.dtype), np.empty(256, grad.dtype), np.zeros(most * TILE, np.int32),
        np.empty((2, N_SPIKES, most * TILE), grad.dtype), np.zeros((2, TILE), np.int32),
    )  # fmt: skip
    state, sums, rows_of = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])
    spikes, kept = unowned(memory[3])[0], unowned(memory[3])[1]
    offsets, lanes = unowned(memory[4])[0], unowned(memory[4])[1]
    begins, stops = window[0] > -math.inf, window[1] < math.inf
    if wants_times:
        by_times[samples[0] : samples[1]] = 0
    for tile in range(tiles[0], tiles[1]):
        begin = tile * TILE
        size = min(TILE, outputs - begin)
        if wants_weight:
            by_weight[tile] = 0
        lanes[:], offsets[:] = 0, 0
        state[LEVEL], state[UNIT], state[DROP], state[TOTAL] = 1, 1, 0, 0
        for lane in range(size):
            j = begin + lane
            offsets[lane] = lane * most
            state[UNIT, lane], state[LEVEL, lane] = unit[j], threshold[j] / unit[j]
            state[DROP, lane] = 1 - reset[j] / threshold[j]
        for b in range(samples[0], samples[1]):
            n, spiked = count[b], totals[b, tile]
            if n == 0 or (spiked == 0 and not asks_end):
                if begins:
                    by_start[:, b, begin : begin + size] = 0
                continue
            for entry in range(spiked):
                rows_of[places[b, tile, entry]] = found[b, tile, entry]
            state[END_Y], state[END_C] = 0, 0
            state[NEXT_T] = window[1] if stops else arrival[b, n - 1]
            for lane in range(size):
                j = begin + lane
                lanes[lane] = counts[b, j]
                if asks_end:
                    state[END_Y, lane] = 0 if overflows[b, j] else -of_end[0, b, j] * unit[j]
                    state[END_C, lane] = -of_end[1, b, j] * unit[j]
            state[NEXT_Y], state[NEXT_KEPT] = state[END_Y], state[END_Y]
            base = (b * outputs + begin) * most
            inputs = (1 if begins else 0, n - 2 if stops else n - 1)
            dropped = jumps(
                zero, state, offsets, lanes, most, base, grad, trains, slopes, rows_of, arrival[b], inputs, start[b],
                c, bound if wants_weight else math.inf, spikes, kept,
            )  # fmt: skip
            if dropped:
                unwind_trains(
                    zero, packed[tile], source[b], arrival[b], n, ends[b], segments[b], rows[b], state, found[b, tile],
                    places[b, tile], spiked, kept, c, sums, by_weight[tile], by_times[b], True, False, asks_end,
                )  # fmt: skip
            if not dropped or wants_times or begins:
                unwind_trains(
                    zero, packed[tile], source[b], arrival[b], n, ends[b], segments[b], rows[b], state, found[b, tile],
                    places[b, tile], spiked, spikes, c, sums, by_weight[tile], by_times[b],
                    wants_weight and not dropped, wants_times, asks_end,
                )  # fmt: skip
            for lane in range(size if begins else 0):
                j = begin + lane
                y = state[NOW_E, lane] + max(c[X], 0.0) * state[NOW_C, lane]
                by_start[0, b, j], by_start[1, b, j] = -y / unit[j], -state[NOW_C, lane] / unit[j]
        for lane in range(size):
            by_threshold[begin + lane] = state[TOTAL, lane]
    keep(memory)


@jit
def prepare_samples(arrival, count, ends, segments, start, rows, c, first, stop):
    """The rows of the samples from ``first`` to ``stop``."""
    for b in range(first, stop):
        segments[b] = 0
        if count[b]:
            segments[b] = find_segments(arrival[b], count[b], c, math.inf, start[b], ends[b])
            backward_rows(arrival[b], count[b], c, start[b], rows[b])


@jit
def gather_times(parts, order, count, rows, c, by_times, first, stop):
    """Sum the groups' gradients ``(groups, batch, stride)`` by the sorted events, and undo the sorting."""
    for b in range(first, stop):
        by_times[b] = 0
        for k in range(count[b]):
            if order[b, k] < 0:
                continue  # an end of the window
            total = parts[0, b, k]
            for part in range(1, parts.shape[0]):
                total += parts[part, b, k]
            by_times[b, order[b, k]] = total * rows[b, FAST, k] * c[PER_SYN]


TRAIN_BACKWARD = Layout(
    "ensemble batch inputs copies outputs most groups chunks wants_weight wants_times asks_end tiles packed_size "
    "events marks padded stride row_kinds constants places_size ends_of_window states all_spikes",
    c="real constants",
    window="real ends_of_window",
    grad="real ensemble all_spikes",
    of_end="real ensemble states batch outputs",
    trains="real ensemble all_spikes",
    overflows="uint8 ensemble batch outputs",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    order="int32 ensemble batch marks",
    source="int32 ensemble batch marks",
    arrival="real ensemble batch padded",
    count="int32 ensemble batch",
    slopes="real ensemble all_spikes",
    counts="int32 ensemble batch outputs",
    found="int32 ensemble batch tiles places_size",
    places="int32 ensemble batch tiles places_size",
    totals="int32 ensemble batch tiles",
    packed="real ensemble tiles packed_size",
    rows="real ensemble batch row_kinds stride",
    start="real ensemble batch stride",
    ends="int32 ensemble batch marks",
    segments="int32 ensemble batch",
    unit="real ensemble outputs",
    weight_parts="real ensemble chunks tiles packed_size",
    times_parts="real ensemble groups batch stride",
    threshold_parts="real ensemble chunks outputs",
    by_weight="real ensemble outputs inputs",
    by_times="real ensemble batch events",
    by_threshold="real ensemble outputs",
    by_start="real ensemble states batch outputs",
)


@kept_on_disk
def train_backward_kernel(dtype: str, narrow: bool):
    """The kernel (see ``runtime.parallel``) for one dtype, and for few neurons or more; compiled at the first call."""
    lanes, read = NARROW if narrow else TILE, TRAIN_BACKWARD.reader(dtype)

    @c_function(SIGNATURE, dtype, narrow)
    def kernel(a):
        g = read(a)
        blocks, weights = (g.batch + SAMPLES - 1) // SAMPLES, g.inputs * TILE
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            e, tile = task // g.tiles, task % g.tiles
            if a[PHASE] == 1:
                e, chunk, group = task // (g.groups * g.chunks), task // g.groups % g.chunks, task % g.groups
                unwind_tiles(
                    zeros(g.c, lanes), g.grad[e], g.of_end[e], g.trains[e], g.slopes[e], g.counts[e], g.overflows[e],
                    g.found[e], g.places[e], g.totals[e], g.threshold[e], g.reset[e], g.unit[e], g.packed[e],
                    g.source[e], g.arrival[e], g.count[e], g.start[e], g.ends[e], g.segments[e], g.rows[e],
                    g.weight_parts[e, chunk], g.times_parts[e, group], g.threshold_parts[e, chunk], g.by_start[e],
                    g.window, g.c, g.c[N_CONSTANTS], g.wants_weight != 0, g.wants_times != 0, g.asks_end != 0,
                    (group * g.tiles // g.groups, (group + 1) * g.tiles // g.groups),
                    (chunk * g.batch // g.chunks, (chunk + 1) * g.batch // g.chunks),
                )  # fmt: skip
            elif a[PHASE] == 0 and e < g.ensemble:
                units_of_tile(g.weight[e], g.threshold[e], tile * TILE, g.unit[e])
                pack_tile(g.weight[e], g.unit[e], tile * TILE, g.packed[e, tile, :weights])
                g.packed[e, tile, weights:] = 0
            elif e < g.ensemble:
                begin = tile * TILE
                if g.wants_weight != 0:
                    unpack_tile(g.weight_parts[e, :, tile, :weights], g.unit[e], begin, g.by_weight[e])
                for j in range(begin, min(begin + TILE, g.outputs)):
                    total = g.threshold_parts[e, 0, j]
                    for chunk in range(1, g.chunks):
                        total += g.threshold_parts[e, chunk, j]
                    g.by_threshold[e, j] = total / g.unit[e, j]
            else:
                task -= g.ensemble * g.tiles
                e, first = task // blocks, task % blocks * SAMPLES
                stop = min(first + SAMPLES, g.batch)
                if a[PHASE] == 0:
                    prepare_samples(
                        g.arrival[e], g.count[e], g.ends[e], g.segments[e], g.start[e], g.rows[e], g.c, first, stop
                    )
                else:
                    gather_times(g.times_parts[e], g.order[e], g.count[e], g.rows[e], g.c, g.by_times[e], first, stop)

    return kernel.ctypes
