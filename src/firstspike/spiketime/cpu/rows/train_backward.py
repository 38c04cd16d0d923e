"""Spike trains, backward: the kernel. As in ``unwind``, tasks and the order of sums depend on the shapes alone.

Windows are unwound from the last to the first. What a neuron's own spikes do when they arrive again is known when the
window is unwound in which they were.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import N_CONSTANTS, PER_SYN, X
from firstspike.spiketime.cpu.pack import TILE, pack_tile, units_of_tile, unpack_tile
from firstspike.spiketime.cpu.rows.coefficients import FAST, N_BACKWARD, backward_rows, find_segments
from firstspike.spiketime.cpu.rows.events import own_event, stride_for
from firstspike.spiketime.cpu.rows.train_adjoint import (
    ASKED,
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
    PULL,
    PULL_KEPT,
    SLOPE,
    TIME,
    TOTAL,
    UNIT,
    jumps,
    unwind_trains,
)
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.tasks import PHASE, SIGNATURE, TASKS, next_task, reader
from firstspike.spiketime.cpu.vectors.simd import fma, keep, load, select, splat, store, unowned, zeros

SAMPLES = 16  # of one task, where samples are worked on by themselves
CARRIED = 3  # numbers of a neuron between two windows: y, C and PULL


@jit
def rows_of_window(rows, n, at):
    """The rows of a window whose events begin at ``at``."""
    stride = stride_for(n)
    return rows[N_BACKWARD * at : N_BACKWARD * (at + stride)].reshape(N_BACKWARD, stride)


@jit
def end_of_sample(of_end, held, unit, threshold, asks, carried, first, stop):
    """The adjoint at the end, of the neurons from ``first`` to ``stop``; lanes without a neuron have none."""
    for j in range(first, stop):
        carried[0, j], carried[1, j], carried[2, j] = 0, 0, 0
        if asks and j < unit.size:
            carried[1, j] = -of_end[1, j] * unit[j]
            if held[5, j] > 0:
                carried[2, j] = of_end[2, j] * unit[j] / threshold[j]
            else:
                carried[0, j] = -of_end[0, j] * unit[j]


@jit
def gather_entries(low, high, budget, begin, found, places, moments, slopes, own, grad, seen, counts, spikes, rows_of):
    """Spread a window's spikes and releases over ``spikes``; ``seen`` are spikes up to the window, and then before."""
    for lane in range(TILE):
        counts[lane] = 0
    for number in range(high - 1, low - 1, -1):
        entry = np.uintp(number)  # without a sign, an index needs no test for one below 0
        place = np.uintp(places[entry])
        rows_of[place] = max(found[entry], 0)
        spikes[TIME, place], spikes[SLOPE, place] = moments[entry], slopes[entry]
        if place < np.uintp(budget * TILE):
            lane = place & np.uintp(TILE - 1)
            j = np.uintp(begin) + lane
            counts[lane] += 1
            seen[j] -= 1
            k = np.uintp(seen[j])
            asked = grad[j, k] if k < np.uintp(grad.shape[1]) else 0
            spikes[ASKED, place] = asked + (own[entry] if own.size > 0 else 0)


@jit
def unwind_tiles(
    zero, grad, of_end, counts, held, found, places, moments, slopes, upto, full, threshold, reset, unit, packed,
    order, source, arrival, starts, count, start, ends, segments, rows, own, carried, seen, by_weight, by_times,
    by_threshold, by_start, bounds, c, bound, budget, holds, wants_weight, wants_times, asks_end, tiles, samples,
):  # fmt: skip
    """The tiles and samples of one task, each a pair (first, stop)."""
    outputs, windows, slots = threshold.size, bounds.size - 1, budget * TILE
    width = carried.shape[2]
    if holds:
        slots = (2 * budget + 1) * TILE
    memory = (
        np.zeros((N_LANES, TILE), grad.dtype), np.empty(256, grad.dtype), np.zeros(slots, np.int32),
        np.empty((2, N_SPIKES, slots), grad.dtype), np.zeros(TILE, np.int32),
    )  # fmt: skip
    state, sums, rows_of = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])
    spikes, kept, lanes = unowned(memory[3])[0], unowned(memory[3])[1], unowned(memory[4])
    spikes[TIME] = math.inf
    neurons = tiles[0] * TILE, min(tiles[1] * TILE, outputs)
    for b in range(samples[0], samples[1]):
        for k in range(starts[b, windows] if wants_times else 0):
            by_times[b, k] = 0
        for j in range(neurons[0], neurons[1]):
            seen[b, j] = counts[b, j]
        end_of_sample(of_end[b], held[b], unit, threshold, asks_end, carried[b], tiles[0] * TILE, tiles[1] * TILE)
    for j in range(neurons[0], neurons[1]):
        by_threshold[j] = 0
    for tile in range(tiles[0], tiles[1]):
        if wants_weight:
            by_weight[tile] = 0
    for w in range(windows - 1, -1, -1):
        begins, stops, asks = bounds[w] > -math.inf, bounds[w + 1] < math.inf, asks_end or w < windows - 1
        for tile in range(tiles[0], tiles[1]):
            begin = tile * TILE
            size = min(TILE, outputs - begin)
            state[LEVEL], state[UNIT], state[DROP], state[TOTAL] = 1, 1, 0, 0
            for lane in range(size):
                j = begin + lane
                state[UNIT, lane], state[LEVEL, lane] = unit[j], threshold[j] / unit[j]
                state[DROP, lane] = 1 - reset[j] / threshold[j]
            for b in range(samples[0], samples[1]):
                n, low, high, at = count[b, w], upto[b, tile, w], upto[b, tile, w + 1], starts[b, w]
                if n == 0 or (low == high and not asks):
                    continue
                here = slice(at, at + stride_for(n))
                gather_entries(
                    low, high, budget, begin, found[b, tile], places[b, tile], moments[b, tile],
                    slopes[b, tile], own[b, tile], grad[b], seen[b], lanes, spikes, rows_of,
                )  # fmt: skip
                y = select(np.uint64(full[b, tile, w]), zero, load(zero, carried[b], begin))
                store(state, END_Y * TILE, y)
                store(state, NEXT_Y * TILE, y)
                store(state, NEXT_KEPT * TILE, y)
                store(state, END_C * TILE, load(zero, carried[b], width + begin))
                store(state, PULL * TILE, load(zero, carried[b], 2 * width + begin))
                store(state, PULL_KEPT * TILE, load(zero, carried[b], 2 * width + begin))
                store(state, NEXT_T * TILE, splat(zero, bounds[w + 1] if stops else arrival[b, at + n - 1]))
                inputs = (1 if begins else 0, n - 2 if stops else n - 1)
                dropped = jumps(
                    zero, state, lanes, budget, holds, rows_of, arrival[b, here], inputs, start[b, here], c,
                    bound if wants_weight else math.inf, spikes, kept,
                )  # fmt: skip
                window = rows_of_window(rows[b], n, at)
                if dropped:
                    unwind_trains(
                        zero, packed[tile], source[b, here], arrival[b, here], n, ends[b, here], segments[b, w],
                        window, state, found[b, tile, low:high], places[b, tile, low:high], high - low, kept, c, sums,
                        by_weight[tile], by_times[b, here], True, False, asks,
                    )  # fmt: skip
                if not dropped or wants_times or begins:
                    unwind_trains(
                        zero, packed[tile], source[b, here], arrival[b, here], n, ends[b, here], segments[b, w],
                        window, state, found[b, tile, low:high], places[b, tile, low:high], high - low, spikes, c,
                        sums, by_weight[tile], by_times[b, here], wants_weight and not dropped, wants_times, asks,
                    )  # fmt: skip
                for entry in range(low, high):
                    place = np.uintp(places[b, tile, np.uintp(entry)])
                    rows_of[place], spikes[TIME, place] = 0, math.inf
                if begins:
                    response = load(zero, state, NOW_C * TILE)
                    store(carried[b], begin, fma(response, max(c[X], 0.0), load(zero, state, NOW_E * TILE)))
                    store(carried[b], width + begin, response)
                    store(carried[b], 2 * width + begin, load(zero, state, PULL * TILE))
            for lane in range(size):
                by_threshold[begin + lane] += state[TOTAL, lane]
        if own.shape[2] > 0:
            for b in range(samples[0], samples[1] if w > 0 else samples[0]):
                arrivals_of_own(order[b], starts[b, w], count[b, w], rows_of_window(rows[b], count[b, w], starts[b, w]),
                                by_times[b], c, own[b])  # fmt: skip
    for b in range(samples[0], samples[1] if bounds[0] > -math.inf else samples[0]):
        for j in range(neurons[0], neurons[1]):
            by_start[b, 0, j] = 0 if held[b, 2, j] > 0 else -carried[b, 0, j] / unit[j]
            by_start[b, 1, j] = -carried[b, 1, j] / unit[j]
            by_start[b, 2, j] = carried[b, 2, j] * threshold[j] / unit[j]
    keep(memory)


@jit
def arrivals_of_own(order, at, n, rows, by_times, c, own):
    """Gradients by the arrivals of own spikes in a window, as ``own (tiles, entries)``."""
    for k in range(n):
        entry = own_event(order[at + k])
        if entry >= 0:
            own[entry % own.shape[0], entry // own.shape[0]] = by_times[at + k] * rows[FAST, k] * c[PER_SYN]


@jit
def prepare_samples(arrival, starts, count, upto, ends, segments, start, rows, own, c, first, stop):
    """The rows of the samples from ``first`` to ``stop``."""
    for b in range(first, stop):
        for tile in range(own.shape[1] if own.shape[2] > 0 else 0):
            for entry in range(upto[b, tile, count.shape[1]]):
                own[b, tile, entry] = 0
        for w in range(count.shape[1]):
            n, at = count[b, w], starts[b, w]
            here = slice(at, at + stride_for(n))
            segments[b, w] = 0
            if n:
                segments[b, w] = find_segments(arrival[b, here], n, c, math.inf, start[b, here], ends[b, here])
                backward_rows(arrival[b, here], n, c, start[b, here], rows_of_window(rows[b], n, at))


@jit
def gather_times(parts, order, starts, count, rows, c, by_times, first, stop):
    """Sum the groups' gradients ``(groups, batch, room)`` by the sorted events, and undo the sorting."""
    for b in range(first, stop):
        by_times[b] = 0
        for w in range(count.shape[1]):
            n, at = count[b, w], starts[b, w]
            window = rows_of_window(rows[b], n, at)
            for k in range(n):
                if order[b, at + k] < 0:
                    continue  # an end of the window, or an own spike
                total = parts[0, b, at + k]
                for part in range(1, parts.shape[0]):
                    total += parts[part, b, at + k]
                by_times[b, order[b, at + k]] = total * window[FAST, k] * c[PER_SYN]


TRAIN_BACKWARD = Layout(
    "ensemble batch inputs copies sources outputs most budget windows groups chunks wants_weight wants_times asks_end "
    "holds tiles packed_size events room all_rows constants entries own_entries bounds_size states both_states "
    "carried_kinds carried_lanes",
    c="real constants",
    bounds="real bounds_size",
    grad="real ensemble batch outputs most",
    of_end="real ensemble batch states outputs",
    weight="real ensemble outputs sources",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    held="real ensemble batch both_states outputs",
    order="int32 ensemble batch room",
    source="int32 ensemble batch room",
    arrival="real ensemble batch room",
    starts="int32 ensemble batch bounds_size",
    count="int32 ensemble batch windows",
    counts="int32 ensemble batch outputs",
    found="int32 ensemble batch tiles entries",
    places="int32 ensemble batch tiles entries",
    moments="real ensemble batch tiles entries",
    slopes="real ensemble batch tiles entries",
    upto="int32 ensemble batch tiles bounds_size",
    full="int64 ensemble batch tiles windows",
    packed="real ensemble tiles packed_size",
    rows="real ensemble batch all_rows",
    start="real ensemble batch room",
    ends="int32 ensemble batch room",
    segments="int32 ensemble batch windows",
    own="real ensemble batch tiles own_entries",
    carried="real ensemble batch carried_kinds carried_lanes",
    seen="int32 ensemble batch outputs",
    unit="real ensemble outputs",
    weight_parts="real ensemble chunks tiles packed_size",
    times_parts="real ensemble groups batch room",
    threshold_parts="real ensemble chunks outputs",
    by_weight="real ensemble outputs sources",
    by_times="real ensemble batch events",
    by_threshold="real ensemble outputs",
    by_start="real ensemble batch states outputs",
)


@kept_on_disk
def train_backward_kernel(dtype: str, lanes: int):
    """The kernel (see ``runtime.tasks``) for one dtype and number of lanes; compiled at the first call."""
    read = reader(TRAIN_BACKWARD, dtype)

    @c_function(SIGNATURE, dtype, lanes)
    def kernel(a):
        g = read(a)
        blocks, weights = (g.batch + SAMPLES - 1) // SAMPLES, g.sources * TILE
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            e, tile = task // g.tiles, task % g.tiles
            if a[PHASE] == 1:
                e, chunk, group = task // (g.groups * g.chunks), task // g.groups % g.chunks, task % g.groups
                unwind_tiles(
                    zeros(g.c, lanes), g.grad[e], g.of_end[e], g.counts[e], g.held[e], g.found[e],
                    g.places[e], g.moments[e], g.slopes[e], g.upto[e], g.full[e], g.threshold[e], g.reset[e], g.unit[e],
                    g.packed[e], g.order[e], g.source[e], g.arrival[e], g.starts[e], g.count[e], g.start[e], g.ends[e],
                    g.segments[e], g.rows[e], g.own[e], g.carried[e], g.seen[e], g.weight_parts[e, chunk],
                    g.times_parts[e, group], g.threshold_parts[e, chunk], g.by_start[e], g.bounds, g.c,
                    g.c[N_CONSTANTS], g.budget, g.holds != 0, g.wants_weight != 0, g.wants_times != 0,
                    g.asks_end != 0, (group * g.tiles // g.groups, (group + 1) * g.tiles // g.groups),
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
                        g.arrival[e], g.starts[e], g.count[e], g.upto[e], g.ends[e], g.segments[e], g.start[e],
                        g.rows[e], g.own[e], g.c, first, stop,
                    )  # fmt: skip
                else:
                    gather_times(
                        g.times_parts[e], g.order[e], g.starts[e], g.count[e], g.rows[e], g.c, g.by_times[e], first,
                        stop,
                    )  # fmt: skip

    return kernel.ctypes
