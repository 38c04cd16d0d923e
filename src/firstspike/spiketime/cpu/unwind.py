"""Backward: the kernel. Its tasks and the order of all its sums depend on the shapes alone, never on the threads."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba import carray

from firstspike.spiketime.cpu.adjoint import (
    KEPT,
    N_LANES,
    SCALE,
    observe_tile,
    prepare,
    start_lanes,
    unwind_tile,
)
from firstspike.spiketime.cpu.cache import c_function, jit, kept_on_disk
from firstspike.spiketime.cpu.constants import N_CONSTANTS, PER_SYN
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.pack import pack_tile, tiles_of, units_of_tile, unpack_tile
from firstspike.spiketime.cpu.parallel import SIGNATURE, next_task, pointer
from firstspike.spiketime.cpu.rows import FAST, N_BACKWARD, PAD, backward_rows, find_segments, stride_of
from firstspike.spiketime.cpu.simd import keep, load_some16, store, unowned, zeros
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch

SAMPLES = 16  # of one task, where samples are worked on by themselves


@jit
def prepare_samples(times, order, arrival, count, ends, segments, rows, c, sorts, first, stop):
    """Sorting, where no forward pass did it, and the rows of the samples from ``first`` to ``stop``."""
    sorting, memory = sort_scratch(times, times.shape[1]), np.empty(stride_of(times.shape[1]), times.dtype)
    scratch, start = unowned_scratch(sorting), unowned(memory)
    for b in range(first, stop):
        if sorts:
            count[b] = sort_row(times[b], order[b], arrival[b], scratch)
        segments[b] = 0
        if count[b]:
            segments[b] = find_segments(arrival[b], count[b], c, math.inf, start, ends[b])
            backward_rows(arrival[b], count[b], c, start, rows[b])
    keep(sorting)
    keep(memory)


@jit
def unwind_tiles(
    zero,
    grad,
    spikes,
    threshold,
    unit,
    packed,
    order,
    arrival,
    count,
    ends,
    segments,
    rows,
    last,
    slope,
    by_weight,
    by_times,
    by_threshold,
    c,
    bound,
    observes,
    wants_weight,
    wants_times,
    tiles,
    samples,
):
    """The tiles and samples of one task, each a pair (first, stop)."""
    outputs = spikes.shape[1]
    memory = (
        np.zeros((N_LANES, TILE), grad.dtype), np.empty(256, grad.dtype), np.zeros(rows.shape[2], np.uint64),
        np.zeros((6, TILE), grad.dtype), np.empty((2, TILE), np.int32),
    )  # fmt: skip
    lanes, sums, joins = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])
    given, whole = unowned(memory[3]), unowned(memory[4])
    total, lane_grad, lane_spikes, lane_slope = given[0], given[1], given[2], given[3]
    lane_unit, lane_level, lane_last, places = given[4], given[5], whole[0], whole[1]
    if wants_times:
        for b in range(samples[0], samples[1]):
            for k in range(by_times.shape[1]):
                by_times[b, k] = 0
    for tile in range(tiles[0], tiles[1]):
        begin = tile * TILE
        end = min(begin + TILE, outputs)
        every = ~np.uint64(0) >> np.uint64(TILE - (end - begin))
        if wants_weight:
            for i in range(by_weight.shape[1]):
                by_weight[tile, i] = 0
        for lane in range(TILE):
            total[lane], lane_last[lane] = 0, -1  # the last tile may have lanes without a neuron
        for lane in range(end - begin):
            lane_unit[lane], lane_level[lane] = unit[begin + lane], threshold[begin + lane] / unit[begin + lane]
        for b in range(samples[0], samples[1]):
            n = count[b]
            if n == 0:
                continue
            at, weights = slice(begin, end), packed[tile]
            if observes:
                observe_tile(
                    zero, weights, order[b], arrival[b], n, ends[b], segments[b], rows[b], spikes[b, at], lane_level, c,
                    last[b, at], slope[b, at], joins,
                )  # fmt: skip
            for lane in range(0, end - begin, 16):
                filled = every >> np.uint64(lane)
                store(lane_grad, lane, load_some16(filled, grad[b], begin + lane))
                store(lane_spikes, lane, load_some16(filled, spikes[b], begin + lane))
                store(lane_slope, lane, load_some16(filled, slope[b], begin + lane))
            for lane in range(end - begin):
                lane_last[lane] = last[b, begin + lane]
            top, dropped = prepare(
                zero, lanes, places, joins, lane_grad, lane_spikes, lane_slope, lane_last, arrival[b], rows[b],
                lane_unit, lane_level, c, bound,
            )  # fmt: skip
            if top < 0:
                continue
            for lane in range(TILE):
                total[lane] += lanes[SCALE, lane]
            start_lanes(zero, lanes, SCALE, c)
            both = not dropped or not wants_weight
            if dropped and wants_weight and wants_times:
                unwind_tile(
                    zero, weights, order[b], arrival[b], ends[b], segments[b], rows[b], lanes, joins, top, c,
                    sums, by_weight[tile], by_times[b], False, True,
                )  # fmt: skip
            if dropped and wants_weight:
                start_lanes(zero, lanes, KEPT, c)
            unwind_tile(
                zero, weights, order[b], arrival[b], ends[b], segments[b], rows[b], lanes, joins, top, c,
                sums, by_weight[tile], by_times[b], wants_weight, wants_times and both,
            )  # fmt: skip
            for k in range(top + 1):
                joins[k] = 0
        for j in range(begin, end):
            by_threshold[j] = total[j - begin]
    keep(memory)


@jit
def gather_times(parts, order, count, rows, c, by_times, first, stop):
    """Sum the groups' gradients ``(groups, batch, stride)`` by the sorted times, and undo the sorting."""
    for b in range(first, stop):
        for i in range(by_times.shape[1]):
            by_times[b, i] = 0
        for k in range(count[b]):
            total = parts[0, b, k]
            for part in range(1, parts.shape[0]):
                total += parts[part, b, k]
            by_times[b, order[b, k]] = total * rows[b, FAST, k] * c[PER_SYN]


@kept_on_disk
def backward_kernel(dtype: str, narrow: bool):
    """The kernel (see ``parallel``) for one dtype, and for at most 16 neurons or more; compiled at the first call."""
    real, lanes = np.dtype(dtype).type, NARROW if narrow else TILE

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs = a[3], a[4], a[5], a[6]
        groups, chunks, wants_weight, wants_times = a[7], a[8], a[9] != 0, a[10] != 0
        wants_threshold, observes = a[11] != 0, a[12] != 0
        tiles, stride = tiles_of(outputs), stride_of(inputs)
        blocks = (batch + SAMPLES - 1) // SAMPLES
        c = carray(pointer(a[13], real), (N_CONSTANTS + 1,))
        grad = carray(pointer(a[14], real), (ensemble, batch, outputs))
        spikes = carray(pointer(a[15], real), (ensemble, batch, outputs))
        times = carray(pointer(a[16], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[17], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[18], real), (ensemble, outputs))
        packed = carray(pointer(a[19], real), (ensemble, tiles, inputs * TILE))
        order = carray(pointer(a[20], np.int32), (ensemble, batch, inputs))
        arrival = carray(pointer(a[21], real), (ensemble, batch, inputs + PAD))
        count = carray(pointer(a[22], np.int32), (ensemble, batch))
        last = carray(pointer(a[23], np.int32), (ensemble, batch, outputs))
        slope = carray(pointer(a[24], real), (ensemble, batch, outputs))
        rows = carray(pointer(a[25], real), (ensemble, batch, N_BACKWARD, stride))
        ends = carray(pointer(a[26], np.int32), (ensemble, batch, inputs))
        segments = carray(pointer(a[27], np.int32), (ensemble, batch))
        weight_parts = carray(pointer(a[28], real), (ensemble, chunks, tiles, inputs * TILE))
        times_parts = carray(pointer(a[29], real), (ensemble, groups, batch, stride))
        threshold_parts = carray(pointer(a[30], real), (ensemble, chunks, outputs))
        by_weight = carray(pointer(a[31], real), (ensemble, outputs, inputs))
        by_times = carray(pointer(a[32], real), (ensemble, batch, inputs))
        by_threshold = carray(pointer(a[33], real), (ensemble, outputs))
        unit = carray(pointer(a[34], real), (ensemble, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            if a[2] == 0 and task < ensemble * tiles:
                e, tile = task // tiles, task % tiles
                units_of_tile(weight[e], threshold[e], tile * TILE, unit[e])
                pack_tile(weight[e], unit[e], tile * TILE, packed[e, tile])
            elif a[2] == 0:
                task -= ensemble * tiles
                e, first = task // blocks, task % blocks * SAMPLES
                prepare_samples(
                    times[e], order[e], arrival[e], count[e], ends[e], segments[e], rows[e], c, observes,
                    first, min(first + SAMPLES, batch),
                )  # fmt: skip
            elif a[2] == 1:
                e, chunk, group = task // (groups * chunks), task // groups % chunks, task % groups
                unwind_tiles(
                    zeros(c, lanes),
                    grad[e], spikes[e], threshold[e], unit[e], packed[e], order[e], arrival[e], count[e], ends[e],
                    segments[e], rows[e], last[e], slope[e], weight_parts[e, chunk], times_parts[e, group],
                    threshold_parts[e, chunk], c, c[N_CONSTANTS], observes, wants_weight, wants_times,
                    (group * tiles // groups, (group + 1) * tiles // groups),
                    (chunk * batch // chunks, (chunk + 1) * batch // chunks),
                )  # fmt: skip
            elif task < ensemble * tiles:
                e, tile = task // tiles, task % tiles
                begin = tile * TILE
                if wants_weight:
                    unpack_tile(weight_parts[e, :, tile], unit[e], begin, by_weight[e])
                if wants_threshold:
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
