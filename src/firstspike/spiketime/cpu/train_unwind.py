"""Spike trains, backward: the kernel. As in ``unwind``, tasks and the order of sums depend on the shapes alone."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba import carray

from firstspike.spiketime.cpu.cache import c_function, jit, kept_on_disk
from firstspike.spiketime.cpu.constants import N_CONSTANTS, PER_SYN, X
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.pack import pack_tile, tiles_of, units_of_tile, unpack_tile
from firstspike.spiketime.cpu.parallel import SIGNATURE, next_task, pointer
from firstspike.spiketime.cpu.rows import FAST, N_BACKWARD, PAD, backward_rows, find_segments, stride_of
from firstspike.spiketime.cpu.simd import keep, unowned, zeros
from firstspike.spiketime.cpu.train_adjoint import (
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


@kept_on_disk
def train_backward_kernel(dtype: str, narrow: bool):
    """The kernel (see ``parallel``) for one dtype, and for at most 16 neurons or more; compiled at the first call."""
    real, size = np.dtype(dtype).type, NARROW if narrow else TILE

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, copies, outputs, most = a[3], a[4], a[5], a[6], a[7], a[8]
        groups, chunks, wants_weight, wants_times = a[9], a[10], a[11] != 0, a[12] != 0
        asks_end, events, tiles = a[13] != 0, inputs * copies, tiles_of(outputs)
        stride, blocks = stride_of(events + 2), (batch + SAMPLES - 1) // SAMPLES
        c = carray(pointer(a[14], real), (N_CONSTANTS + 1,))
        window = carray(pointer(a[15], real), (2,))
        grad = carray(pointer(a[16], real), (ensemble, batch * outputs * most))
        of_end = carray(pointer(a[17], real), (ensemble, 2, batch, outputs))
        trains = carray(pointer(a[18], real), (ensemble, batch * outputs * most))
        overflows = carray(pointer(a[19], np.uint8), (ensemble, batch, outputs))
        weight = carray(pointer(a[20], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[21], real), (ensemble, outputs))
        reset = carray(pointer(a[22], real), (ensemble, outputs))
        order = carray(pointer(a[23], np.int32), (ensemble, batch, events + 2))
        source = carray(pointer(a[24], np.int32), (ensemble, batch, events + 2))
        arrival = carray(pointer(a[25], real), (ensemble, batch, events + 2 + PAD))
        count = carray(pointer(a[26], np.int32), (ensemble, batch))
        slopes = carray(pointer(a[27], real), (ensemble, batch * outputs * most))
        counts = carray(pointer(a[28], np.int32), (ensemble, batch, outputs))
        found = carray(pointer(a[29], np.int32), (ensemble, batch, tiles, most * TILE))
        places = carray(pointer(a[30], np.int32), (ensemble, batch, tiles, most * TILE))
        totals = carray(pointer(a[31], np.int32), (ensemble, batch, tiles))
        packed = carray(pointer(a[32], real), (ensemble, tiles, (inputs + 1) * TILE))
        rows = carray(pointer(a[33], real), (ensemble, batch, N_BACKWARD, stride))
        start = carray(pointer(a[34], real), (ensemble, batch, stride))
        ends = carray(pointer(a[35], np.int32), (ensemble, batch, events + 2))
        segments = carray(pointer(a[36], np.int32), (ensemble, batch))
        unit = carray(pointer(a[37], real), (ensemble, outputs))
        weight_parts = carray(pointer(a[38], real), (ensemble, chunks, tiles, (inputs + 1) * TILE))
        times_parts = carray(pointer(a[39], real), (ensemble, groups, batch, stride))
        threshold_parts = carray(pointer(a[40], real), (ensemble, chunks, outputs))
        by_weight = carray(pointer(a[41], real), (ensemble, outputs, inputs))
        by_times = carray(pointer(a[42], real), (ensemble, batch, events))
        by_threshold = carray(pointer(a[43], real), (ensemble, outputs))
        by_start = carray(pointer(a[44], real), (ensemble, 2, batch, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            if a[2] == 0 and task < ensemble * tiles:
                e, tile = task // tiles, task % tiles
                units_of_tile(weight[e], threshold[e], tile * TILE, unit[e])
                pack_tile(weight[e], unit[e], tile * TILE, packed[e, tile, : inputs * TILE])
                packed[e, tile, inputs * TILE :] = 0
            elif a[2] == 0:
                task -= ensemble * tiles
                e, first = task // blocks, task % blocks * SAMPLES
                prepare_samples(
                    arrival[e], count[e], ends[e], segments[e], start[e], rows[e], c, first,
                    min(first + SAMPLES, batch),
                )  # fmt: skip
            elif a[2] == 1:
                e, chunk, group = task // (groups * chunks), task // groups % chunks, task % groups
                unwind_tiles(
                    zeros(c, size),
                    grad[e], of_end[e], trains[e], slopes[e], counts[e], overflows[e], found[e], places[e], totals[e],
                    threshold[e], reset[e], unit[e], packed[e], source[e], arrival[e], count[e], start[e], ends[e],
                    segments[e], rows[e], weight_parts[e, chunk], times_parts[e, group], threshold_parts[e, chunk],
                    by_start[e], window, c, c[N_CONSTANTS], wants_weight, wants_times, asks_end,
                    (group * tiles // groups, (group + 1) * tiles // groups),
                    (chunk * batch // chunks, (chunk + 1) * batch // chunks),
                )  # fmt: skip
            elif task < ensemble * tiles:
                e, tile = task // tiles, task % tiles
                begin = tile * TILE
                if wants_weight:
                    unpack_tile(weight_parts[e, :, tile, : inputs * TILE], unit[e], begin, by_weight[e])
                for j in range(begin, min(begin + TILE, outputs)):
                    total = threshold_parts[e, 0, j]
                    for chunk in range(1, chunks):
                        total += threshold_parts[e, chunk, j]
                    by_threshold[e, j] = total / unit[e, j]
            elif wants_times:
                task -= ensemble * tiles
                e, first = task // blocks, task % blocks * SAMPLES
                gather_times(
                    times_parts[e], order[e], count[e], rows[e], c, by_times[e], first, min(first + SAMPLES, batch)
                )

    return kernel.ctypes
