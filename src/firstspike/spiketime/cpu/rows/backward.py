"""Backward: the kernel. Its tasks and the order of all its sums depend on the shapes alone, never on the threads."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import N_CONSTANTS, PER_SYN
from firstspike.spiketime.cpu.pack import TILE, pack_tile, units_of_tile, unpack_tile
from firstspike.spiketime.cpu.rows.adjoint import (
    KEPT,
    N_LANES,
    SCALE,
    observe_tile,
    prepare,
    settle_flat,
    start_lanes,
    unwind_tile,
)
from firstspike.spiketime.cpu.rows.coefficients import FAST, backward_rows, find_segments
from firstspike.spiketime.cpu.rows.few import FEW, few_rows_back, load_part16, sum_few, unwind_few
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.tasks import PHASE, SIGNATURE, TASKS, next_task, reader
from firstspike.spiketime.cpu.saved import SAVED
from firstspike.spiketime.cpu.sort import sort_samples
from firstspike.spiketime.cpu.vectors.simd import keep, load16, store, unowned, zeros

_WHOLE = np.uint64(0xFFFF)
SAMPLES = 16  # of one task, where samples are worked on by themselves


@jit
def prepare_samples(grad, last, arrival, count, used, ends, segments, rows, c, observes, first, stop):
    """The rows of the samples from ``first`` to ``stop``.

    ``used`` tells how many inputs are worked on: none without a gradient, and those after the last causal one are left
    out if the forward pass told which it is. A sample without segments has few inputs.
    """
    memory = np.empty(rows.shape[2], rows.dtype)
    start = unowned(memory)
    for b in range(first, stop):
        n = 0
        if _has_gradient(grad[b]):
            if observes:
                n = np.intp(count[b])
            else:
                for j in range(grad.shape[1]):
                    n = max(n, last[b, j] + 1)
        used[b], segments[b] = n, 0
        if n > 0 and count[b] < FEW and not observes:
            few_rows_back(arrival[b], n, c, rows[b])
        elif n:
            segments[b] = find_segments(arrival[b], n, c, math.inf, start, ends[b])
            backward_rows(arrival[b], n, c, start, rows[b])
    keep(memory)


@jit
def _has_gradient(grad):
    j = 0
    while j + 16 <= grad.size and (load16(grad, j) == 0.0) == _WHOLE:
        j += 16
    while j < grad.size and grad[j] == 0:
        j += 1
    return j < grad.size


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
    used,
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
        np.zeros((6, TILE), grad.dtype), np.empty((2, TILE), np.int32), np.zeros(FEW * 16, grad.dtype),
    )  # fmt: skip
    lanes, sums, joins = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])
    given, whole, few_sums = unowned(memory[3]), unowned(memory[4]), unowned(memory[5])
    total, lane_grad, lane_spikes, lane_slope = given[0], given[1], given[2], given[3]
    lane_unit, lane_level, lane_last, places = given[4], given[5], whole[0], whole[1]
    if wants_times:
        for b in range(samples[0], samples[1]):
            for k in range(by_times.shape[1] if used[b] else 0):
                by_times[b, k] = 0
    for tile in range(tiles[0], tiles[1]):
        begin = tile * TILE
        end = min(begin + TILE, outputs)
        every = ~np.uint64(0) >> np.uint64(64 - (end - begin))
        if wants_weight:
            for i in range(by_weight.shape[1]):
                by_weight[tile, i] = 0
        for lane in range(TILE):
            total[lane], lane_last[lane] = 0, -1  # the last tile may have lanes without a neuron
        for lane in range(end - begin):
            lane_unit[lane], lane_level[lane] = unit[begin + lane], threshold[begin + lane] / unit[begin + lane]
        for b in range(samples[0], samples[1]):
            n = used[b]
            if n == 0:
                continue
            at, weights = slice(begin, end), packed[tile]
            if segments[b] == 0:
                for lane in range(0, end - begin, 16):
                    filled = (every >> np.uint64(lane)) & _WHOLE
                    settle_flat(
                        filled, slope[b], begin + lane, spikes[b], last[b], weights, lane, order[b], arrival[b],
                        lane_level, c,
                    )  # fmt: skip
                    unwind_few(
                        weights, order[b], arrival[b], n, rows[b], begin, lane, filled, grad[b], spikes[b], slope[b],
                        last[b], places, lane_unit, lane_level, c, bound, total, few_sums, by_weight[tile],
                        wants_weight, wants_times,
                    )  # fmt: skip
                if wants_times:
                    sum_few(few_sums, n, by_times[b])
                continue
            if observes:
                observe_tile(
                    zero, weights, order[b], arrival[b], n, ends[b], segments[b], rows[b], spikes[b, at], lane_level, c,
                    last[b, at], slope[b, at], joins,
                )  # fmt: skip
            for lane in range(0, end - begin, 16):
                filled = (every >> np.uint64(lane)) & _WHOLE
                settle_flat(
                    filled, slope[b], begin + lane, spikes[b], last[b], weights, lane, order[b], arrival[b], lane_level,
                    c,
                )  # fmt: skip
                store(lane_grad, lane, load_part16(filled, grad[b], begin + lane))
                store(lane_spikes, lane, load_part16(filled, spikes[b], begin + lane))
                store(lane_slope, lane, load_part16(filled, slope[b], begin + lane))
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
def gather_times(parts, order, used, rows, c, by_times, first, stop):
    """Sum the groups' gradients ``(groups, batch, stride)`` by the sorted times, and undo the sorting."""
    batch, stride = parts.shape[1], parts.shape[2]
    for b in range(first, stop):
        n = used[b]
        for k in range(0, n, 16):
            total = load16(parts, b * stride + k)
            for part in range(1, parts.shape[0]):
                total = total + load16(parts, (part * batch + b) * stride + k)
            store(parts, b * stride + k, total * load16(rows, (b * rows.shape[1] + FAST) * stride + k) * c[PER_SYN])
        for i in range(by_times.shape[1] if n < by_times.shape[1] else 0):
            by_times[b, i] = 0
        for k in range(n):
            by_times[b, np.uintp(order[b, k])] = parts[0, b, k]


BACKWARD = Layout(
    "ensemble batch inputs outputs ints reals groups chunks wants_weight wants_times wants_threshold observes tiles "
    "packed_size stride row_kinds constants",
    c="real constants",
    grad="real ensemble batch outputs",
    spikes="real ensemble batch outputs",
    times="real ensemble batch inputs",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    unit="real ensemble outputs",
    **SAVED,
    rows="real ensemble batch row_kinds stride",
    ends="int32 ensemble batch inputs",
    segments="int32 ensemble batch",
    used="int32 ensemble batch",
    weight_parts="real ensemble chunks tiles packed_size",
    times_parts="real ensemble groups batch stride",
    threshold_parts="real ensemble chunks outputs",
    by_weight="real ensemble outputs inputs",
    by_times="real ensemble batch inputs",
    by_threshold="real ensemble outputs",
)


@kept_on_disk
def backward_kernel(dtype: str, lanes: int):
    """The kernel (see ``runtime.tasks``) for one dtype and number of lanes; compiled at the first call."""
    read = reader(BACKWARD, dtype)

    @c_function(SIGNATURE, dtype, lanes)
    def kernel(a):
        g = read(a)
        blocks, observes = (g.batch + SAMPLES - 1) // SAMPLES, g.observes != 0
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            e, tile = task // g.tiles, task % g.tiles
            if a[PHASE] == 1:
                e, chunk, group = task // (g.groups * g.chunks), task // g.groups % g.chunks, task % g.groups
                unwind_tiles(
                    zeros(g.c, lanes), g.grad[e], g.spikes[e], g.threshold[e], g.unit[e], g.packed[e], g.order[e],
                    g.arrival[e], g.used[e], g.ends[e], g.segments[e], g.rows[e], g.last[e], g.slope[e],
                    g.weight_parts[e, chunk], g.times_parts[e, group], g.threshold_parts[e, chunk], g.c,
                    g.c[N_CONSTANTS], observes, g.wants_weight != 0, g.wants_times != 0,
                    (group * g.tiles // g.groups, (group + 1) * g.tiles // g.groups),
                    (chunk * g.batch // g.chunks, (chunk + 1) * g.batch // g.chunks),
                )  # fmt: skip
            elif a[PHASE] == 0 and e < g.ensemble:
                units_of_tile(g.weight[e], g.threshold[e], tile * TILE, g.unit[e])
                pack_tile(g.weight[e], g.unit[e], tile * TILE, g.packed[e, tile])
            elif e < g.ensemble:
                begin = tile * TILE
                if g.wants_weight != 0:
                    unpack_tile(g.weight_parts[e, :, tile], g.unit[e], begin, g.by_weight[e])
                if g.wants_threshold != 0:
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
                    if observes:  # no forward pass did it
                        sort_samples(g.times[e], g.order[e], g.arrival[e], g.count[e, :, 0], first, stop)
                    prepare_samples(
                        g.grad[e], g.last[e], g.arrival[e], g.count[e, :, 0], g.used[e], g.ends[e], g.segments[e],
                        g.rows[e], g.c, observes, first, stop,
                    )  # fmt: skip
                else:
                    gather_times(
                        g.times_parts[e], g.order[e], g.used[e], g.rows[e], g.c, g.by_times[e], first, stop,
                    )  # fmt: skip

    return kernel.ctypes
