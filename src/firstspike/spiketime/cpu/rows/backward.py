"""Backward: the kernels. Their tasks and the order of all sums depend on the shapes alone, never on the threads.

Windows of spike trains are unwound from the last to the first. What a neuron's own spikes do when they arrive again is
known when the window is unwound in which they were.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import N_CONSTANTS, PER_SYN, SAVED, X
from firstspike.spiketime.cpu.pack import TILE, pack_row, units_of_tile, unpack_tile
from firstspike.spiketime.cpu.rows import adjoint, train_adjoint
from firstspike.spiketime.cpu.rows.adjoint import Found, Into, observe_tile, prepare, settle_flat, unwind_tile
from firstspike.spiketime.cpu.rows.coefficients import FAST, N_BACKWARD, Sample, backward_rows, find_segments
from firstspike.spiketime.cpu.rows.few import FEW, few_rows_back, sum_few, unwind_few
from firstspike.spiketime.cpu.rows.intervals import Entries
from firstspike.spiketime.cpu.rows.train_adjoint import gather_entries, jumps, unwind_trains
from firstspike.spiketime.cpu.rows.windows import KEPT, TRAINS, own_event, stride_for
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, samples_of
from firstspike.spiketime.cpu.sort import SORTING, SORTING_SIZES, sort_samples
from firstspike.spiketime.cpu.vectors.simd import clear, fma, load, load16, load_part16, select, splat, store, zeros

SAMPLES = 16  # of one task, where samples are worked on by themselves
CARRIED = 3  # numbers of a neuron between two windows: y, C and PULL
_WHOLE = np.uint64(0xFFFF)

_SHARED = Layout(
    "ensemble batch inputs outputs events groups time_groups chunks weight_chunks threads wants_weight wants_times "
    "wants_threshold tiles packed_size room constants tile state_rows summed",
    c="real constants",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    unit="real ensemble outputs",
    ends="int32 ensemble batch room",
    weight_parts="real ensemble weight_chunks tiles packed_size",
    times_parts="real ensemble time_groups batch room",
    threshold_parts="real ensemble chunks outputs",
    by_weight="real ensemble outputs inputs",
    by_times="real ensemble batch events",
    by_threshold="real ensemble outputs",
    state="real threads state_rows tile",
    sums="real threads summed",
)
BACKWARD = _SHARED.extended(
    f"{SORTING_SIZES} ints reals observes row_kinds few_summed",
    grad="real ensemble batch outputs",
    spikes="real ensemble batch outputs",
    times="real ensemble batch events",
    **SAVED,
    rows="real ensemble batch row_kinds room",
    segments="int32 ensemble batch",
    used="int32 ensemble batch",
    start="real threads room",
    joins="uint64 threads room",
    lane_last="int32 threads tile",
    places="int32 threads tile",
    few_sums="real threads few_summed",
    **SORTING,
)
TRAIN_BACKWARD = _SHARED.extended(
    "most budget windows asks_end holds all_rows entries own_entries bounds_size states both_states carried_kinds "
    "carried_lanes slots spike_kinds",
    **TRAINS,
    **KEPT,
    grad="real ensemble batch outputs most",
    of_end="real ensemble batch states outputs",
    rows="real ensemble batch all_rows",
    start="real ensemble batch room",
    segments="int32 ensemble batch windows",
    own="real ensemble batch tiles own_entries",
    carried="real ensemble batch carried_kinds carried_lanes",
    seen="int32 ensemble batch outputs",
    by_start="real ensemble batch states outputs",
    lanes="int32 threads tile",
    rows_of="int32 threads slots",
    all_spikes="real threads spike_kinds slots",
)


@jit
def prepare_samples(g, e, slot, first, stop):
    """The rows of the samples from ``first`` to ``stop``.

    ``used`` tells how many inputs are worked on: none without a gradient, and those after the last causal one are left
    out if the forward pass told which it is. A sample without segments has few inputs.
    """
    c, observes, grad, last, arrival, count = g.c, g.observes != 0, g.grad[e], g.last[e], g.arrival[e], g.count[e]
    used, segments, ends, rows, start = g.used[e], g.segments[e], g.ends[e], g.rows[e], g.start[slot]
    if observes:  # no forward pass did it
        sort_samples(g, e, slot, first, stop)
    for b in range(first, stop):
        n = 0
        if _has_gradient(grad[b]):
            if observes:
                n = np.intp(count[b, 0])
            else:
                for j in range(grad.shape[1]):
                    n = max(n, last[b, j] + 1)
        used[b], segments[b] = n, 0
        if n > 0 and count[b, 0] < FEW and not observes:
            few_rows_back(arrival[b], n, c, rows[b])
        elif n:
            segments[b] = find_segments(arrival[b], n, c, math.inf, start, ends[b])
            backward_rows(arrival[b], n, c, start, rows[b])


@jit
def _has_gradient(grad):
    j = 0
    while j + 16 <= grad.size and (load16(grad, j) == 0.0) == _WHOLE:
        j += 16
    while j < grad.size and grad[j] == 0:
        j += 1
    return j < grad.size


@jit
def prepare_windows(g, e, slot, first, stop):
    """The rows of all windows of the samples."""
    for b in range(first, stop):
        for tile in range(g.tiles if g.own_entries > 0 else 0):
            for entry in range(g.upto[e, b, tile, g.windows]):
                g.own[e, b, tile, entry] = 0
        for w in range(g.windows):
            n, at = g.count[e, b, w], g.starts[e, b, w]
            here = slice(at, at + stride_for(n))
            g.segments[e, b, w] = 0
            if n:
                arrival, start = g.arrival[e, b, here], g.start[e, b, here]
                g.segments[e, b, w] = find_segments(arrival, n, g.c, math.inf, start, g.ends[e, b, here])
                backward_rows(arrival, n, g.c, start, rows_of_window(g.rows[e, b], n, at))


@jit
def rows_of_window(rows, n, at):
    """The rows of a window whose events begin at ``at``."""
    stride = stride_for(n)
    return rows[N_BACKWARD * at : N_BACKWARD * (at + stride)].reshape(N_BACKWARD, stride)


@jit
def part_of(size, parts, number):
    """The first of a part's things, and the one after its last."""
    return number * size // parts, (number + 1) * size // parts


@jit
def unwind_samples(zero, g, e, slot, chunk, group):
    """The tiles of a group, with the samples of a chunk."""
    c, bound, observes, used, segments, rows = (
        g.c,
        g.c[N_CONSTANTS],
        g.observes != 0,
        g.used[e],
        g.segments[e],
        g.rows[e],
    )
    order, arrival, ends, threshold, unit, packed = (
        g.order[e], g.arrival[e], g.ends[e], g.threshold[e], g.unit[e], g.packed[e]
    )  # fmt: skip
    grad, spikes, slope, last, by_times = g.grad[e], g.spikes[e], g.slope[e], g.last[e], g.times_parts[e, group]
    state, sums, joins, few_sums = g.state[slot], g.sums[slot], g.joins[slot], g.few_sums[slot]
    places, lane_last, wants_weight, wants_times = (
        g.places[slot], g.lane_last[slot], g.wants_weight != 0, g.wants_times != 0
    )  # fmt: skip
    first, stop = part_of(g.batch, g.chunks, chunk)
    clear(state)
    clear(few_sums)
    for k in range(joins.size):
        joins[k] = 0
    if wants_times:
        for b in range(first, stop):
            for k in range(by_times.shape[1] if used[b] else 0):
                by_times[b, k] = 0
    tiles = part_of(g.tiles, g.groups, group)
    for tile in range(tiles[0], tiles[1]):
        begin = tile * TILE
        size = min(TILE, g.outputs - begin)
        every = ~np.uint64(0) >> np.uint64(64 - size)
        weights, by_weight = packed[tile], g.weight_parts[e, chunk, tile]
        if wants_weight:
            for i in range(by_weight.size):
                by_weight[i] = 0
        for lane in range(TILE):
            state[adjoint.TOTAL, lane], lane_last[lane] = 0, -1  # the last tile may have lanes without a neuron
        for lane in range(size):
            state[adjoint.UNIT, lane] = unit[begin + lane]
            state[adjoint.LEVEL, lane] = threshold[begin + lane] / unit[begin + lane]
        for b in range(first, stop):
            n = used[b]
            if n == 0:
                continue
            sample = Sample(order[b], arrival[b], n, ends[b], segments[b], rows[b])
            found = Found(grad[b], spikes[b], slope[b], last[b])
            if segments[b] == 0:
                for lane in range(0, size, 16):
                    filled = (every >> np.uint64(lane)) & _WHOLE
                    settle_flat(filled, found, begin, lane, weights, sample, state, c)
                    unwind_few(
                        weights, sample, begin, lane, filled, found, places, state, c, bound, few_sums, by_weight,
                        wants_weight, wants_times,
                    )  # fmt: skip
                if wants_times:
                    sum_few(few_sums, n, by_times[b])
                continue
            if observes:
                observe_tile(zero, weights, sample, found, begin, size, state, joins, c)
            for lane in range(0, size, 16):
                filled, at = (every >> np.uint64(lane)) & _WHOLE, begin + lane
                settle_flat(filled, found, begin, lane, weights, sample, state, c)
                store(state, adjoint.GRAD * TILE + lane, load_part16(filled, grad[b], at))
                store(state, adjoint.SPIKE * TILE + lane, load_part16(filled, spikes[b], at))
                store(state, adjoint.SLOPE * TILE + lane, load_part16(filled, slope[b], at))
            for lane in range(size):
                lane_last[lane] = last[b, begin + lane]
            top, dropped = prepare(zero, state, places, joins, lane_last, sample, c, bound)
            if top < 0:
                continue
            for lane in range(TILE):
                state[adjoint.TOTAL, lane] += state[adjoint.SCALE, lane]
            # what the bound drops is dropped for the weights alone
            parted = dropped and wants_weight
            if parted and wants_times:
                into = Into(sums, by_weight, by_times[b], False, True)
                unwind_tile(zero, weights, sample, state, adjoint.SCALE, joins, top, c, into)
            into = Into(sums, by_weight, by_times[b], wants_weight, wants_times and not parted)
            unwind_tile(zero, weights, sample, state, adjoint.KEPT if parted else adjoint.SCALE, joins, top, c, into)
            for k in range(top + 1):
                joins[k] = 0
        for lane in range(size):
            g.threshold_parts[e, chunk, begin + lane] = state[adjoint.TOTAL, lane]


@jit
def unwind_windows(zero, g, e, slot, chunk, group):
    """The tiles of a group, with the samples of a chunk, from the last window to the first."""
    c, bound, bounds, windows, budget = g.c, g.c[N_CONSTANTS], g.bounds, g.windows, g.budget
    holds, wants_weight, wants_times = g.holds != 0, g.wants_weight != 0, g.wants_times != 0
    upto, starts, count, carried, own = g.upto[e], g.starts[e], g.count[e], g.carried[e], g.own[e]
    state, lanes, rows_of, sums = g.state[slot], g.lanes[slot], g.rows_of[slot], g.sums[slot]
    spikes = g.all_spikes[slot]
    samples, tiles, width = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group), g.carried_lanes
    neurons = tiles[0] * TILE, min(tiles[1] * TILE, g.outputs)
    clear(state)
    clear(spikes)
    for place in range(rows_of.size):
        rows_of[place], spikes[train_adjoint.TIME, place] = 0, math.inf
    for b in range(samples[0], samples[1]):
        for k in range(starts[b, windows] if wants_times else 0):
            g.times_parts[e, group, b, k] = 0
        end_of_sample(g, e, b, neurons, tiles[1] * TILE)
    for j in range(neurons[0], neurons[1]):
        g.threshold_parts[e, chunk, j] = 0
    for tile in range(tiles[0], tiles[1] if wants_weight else tiles[0]):
        by_weight = g.weight_parts[e, chunk, tile]
        for i in range(by_weight.size):
            by_weight[i] = 0
    for w in range(windows - 1, -1, -1):
        begins, stops, asks = bounds[w] > -math.inf, bounds[w + 1] < math.inf, g.asks_end != 0 or w < windows - 1
        for tile in range(tiles[0], tiles[1]):
            begin = tile * TILE
            size = min(TILE, g.outputs - begin)
            packed, by_weight = g.packed[e, tile], g.weight_parts[e, chunk, tile]
            for lane in range(TILE):
                state[train_adjoint.LEVEL, lane] = state[train_adjoint.UNIT, lane] = 1
                state[train_adjoint.DROP, lane] = state[train_adjoint.TOTAL, lane] = 0
            for lane in range(size):
                unit, threshold = g.unit[e, begin + lane], g.threshold[e, begin + lane]
                state[train_adjoint.UNIT, lane], state[train_adjoint.LEVEL, lane] = unit, threshold / unit
                state[train_adjoint.DROP, lane] = 1 - g.reset[e, begin + lane] / threshold
            for b in range(samples[0], samples[1]):
                n, low, high, at = count[b, w], upto[b, tile, w], upto[b, tile, w + 1], starts[b, w]
                if n == 0 or (low == high and not asks):
                    continue
                here = slice(at, at + stride_for(n))
                entries = Entries(
                    lanes, budget, g.found[e, b, tile, low:high], g.places[e, b, tile, low:high],
                    g.moments[e, b, tile, low:high], g.slopes[e, b, tile, low:high],
                )  # fmt: skip
                own_here = own[b, tile, low:high] if g.own_entries > 0 else own[b, tile, :0]
                gather_entries(entries, begin, own_here, g.grad[e, b], g.seen[e, b], spikes, rows_of)
                arrival = g.arrival[e, b, here]
                until = bounds[w + 1] if stops else arrival[n - 1]
                y = select(np.uint64(g.full[e, b, tile, w]), zero, load(zero, carried[b], begin))
                response = load(zero, carried[b], width + begin)
                pull = load(zero, carried[b], 2 * width + begin)
                sample = Sample(
                    g.source[e, b, here], arrival, n, g.ends[e, b, here], g.segments[e, b, w],
                    rows_of_window(g.rows[e, b], n, at),
                )  # fmt: skip
                inputs, start = (1 if begins else 0, n - 2 if stops else n - 1), g.start[e, b, here]
                by_times, total = g.times_parts[e, group, b, here], load(zero, state, train_adjoint.TOTAL * TILE)
                allowed = bound if wants_weight else math.inf
                start_window(zero, state, y, response, pull, until)
                dropped = jumps(zero, state, entries, holds, rows_of, arrival, inputs, start, c, allowed, spikes)
                if dropped:  # for the weights alone
                    into = Into(sums, by_weight, by_times, True, False)
                    unwind_trains(zero, packed, sample, state, entries, spikes, c, into, asks)
                    start_window(zero, state, y, response, pull, until)
                    store(state, train_adjoint.TOTAL * TILE, total)
                    jumps(zero, state, entries, holds, rows_of, arrival, inputs, start, c, math.inf, spikes)
                if not dropped or wants_times or begins:
                    into = Into(sums, by_weight, by_times, wants_weight and not dropped, wants_times)
                    unwind_trains(zero, packed, sample, state, entries, spikes, c, into, asks)
                for entry in range(high - low):
                    place = np.uintp(entries.places[np.uintp(entry)])
                    rows_of[place], spikes[train_adjoint.TIME, place] = 0, math.inf
                if begins:
                    response = load(zero, state, train_adjoint.NOW_C * TILE)
                    decay = load(zero, state, train_adjoint.NOW_E * TILE)
                    store(carried[b], begin, fma(response, max(c[X], 0.0), decay))
                    store(carried[b], width + begin, response)
                    store(carried[b], 2 * width + begin, load(zero, state, train_adjoint.PULL * TILE))
            for lane in range(size):
                g.threshold_parts[e, chunk, begin + lane] += state[train_adjoint.TOTAL, lane]
        for b in range(samples[0], samples[1] if w > 0 and g.own_entries > 0 else samples[0]):
            arrivals_of_own(g, e, b, w, g.times_parts[e, group, b])
    for b in range(samples[0], samples[1] if bounds[0] > -math.inf else samples[0]):
        for j in range(neurons[0], neurons[1]):
            unit = g.unit[e, j]
            g.by_start[e, b, 0, j] = 0 if g.held[e, b, 2, j] > 0 else -carried[b, 0, j] / unit
            g.by_start[e, b, 1, j] = -carried[b, 1, j] / unit
            g.by_start[e, b, 2, j] = carried[b, 2, j] * g.threshold[e, j] / unit


@jit
def end_of_sample(g, e, b, neurons, stop):
    """The adjoint at the end, of ``neurons``; lanes without a neuron, up to ``stop``, have none."""
    carried, of_end, held = g.carried[e, b], g.of_end[e, b], g.held[e, b]
    for j in range(neurons[0], stop):
        carried[0, j], carried[1, j], carried[2, j] = 0, 0, 0
    for j in range(neurons[0], neurons[1]):
        g.seen[e, b, j] = g.counts[e, b, j]
        if g.asks_end:
            unit = g.unit[e, j]
            carried[1, j] = -of_end[1, j] * unit
            if held[5, j] > 0:
                carried[2, j] = of_end[2, j] * unit / g.threshold[e, j]
            else:
                carried[0, j] = -of_end[0, j] * unit


@jit
def start_window(zero, state, y, response, pull, until):
    """The adjoint of a tile at the end of a window."""
    for row in (train_adjoint.END_Y, train_adjoint.NEXT_Y):
        store(state, row * TILE, y)
    store(state, train_adjoint.PULL * TILE, pull)
    store(state, train_adjoint.END_C * TILE, response)
    store(state, train_adjoint.NEXT_T * TILE, splat(zero, until))


@jit
def arrivals_of_own(g, e, b, w, by_times):
    """Gradients by the arrivals of own spikes in a window."""
    n, at = g.count[e, b, w], g.starts[e, b, w]
    rows = rows_of_window(g.rows[e, b], n, at)
    for k in range(n):
        entry = own_event(g.order[e, b, at + k])
        if entry >= 0:
            g.own[e, b, entry % g.tiles, entry // g.tiles] = by_times[at + k] * rows[FAST, k] * g.c[PER_SYN]


@jit
def gather_samples(g, e, slot, first, stop):
    """Gradients by the times of the samples."""
    for b in range(first, stop):
        n, by_times = g.used[e, b], g.by_times[e, b]
        for i in range(g.events if n < g.events else 0):
            by_times[i] = 0
        gather_times(g.times_parts[e], b, 0, n, g.order[e, b], g.rows[e, b], g.c, by_times)


@jit
def gather_windows(g, e, slot, first, stop):
    """Gradients by the input spikes of the samples."""
    for b in range(first, stop):
        by_times = g.by_times[e, b]
        for i in range(g.events):
            by_times[i] = 0
        for w in range(g.windows):
            n, at = g.count[e, b, w], g.starts[e, b, w]
            rows = rows_of_window(g.rows[e, b], n, at)
            gather_times(g.times_parts[e], b, at, n, g.order[e, b, at:], rows, g.c, by_times)


@jit
def gather_times(parts, b, at, n, order, rows, c, by_times):
    """Sum the groups' gradients ``(groups, batch, room)`` by n sorted events from ``at`` on, and undo the sorting."""
    batch, room = parts.shape[1], parts.shape[2]
    for k in range(0, n, 16):
        place = b * room + at + k
        total = load16(parts, place)
        for part in range(1, parts.shape[0]):
            total = total + load16(parts, part * batch * room + place)
        store(parts, place, total * load16(rows, FAST * rows.shape[1] + k) * c[PER_SYN])
    for k in range(n):
        if order[k] >= 0:  # not an end of the window, or an own spike
            by_times[np.uintp(order[k])] = parts[0, b, at + k]


def phases(zero_of, prepare_some, unwind_some, gather_some):
    """Of both kernels."""

    @jit
    def prepare_all(g, slot, task):
        tiles = g.ensemble * g.tiles
        if task < tiles:
            e, tile = task // g.tiles, task % g.tiles
            units_of_tile(g.weight[e], g.threshold[e], tile * TILE, g.unit[e])
            pack_row(g.weight[e], g.unit[e], tile * TILE, g.packed[e, tile])
        else:
            e, first, stop = samples_of(task - tiles, g.batch, SAMPLES)
            prepare_some(g, e, slot, first, stop)

    @jit
    def unwind_all(g, slot, task):
        e, chunk, group = task // (g.groups * g.chunks), task // g.groups % g.chunks, task % g.groups
        unwind_some(zero_of(g), g, e, slot, chunk, group)

    @jit
    def gather_all(g, slot, task):
        tiles = g.ensemble * g.tiles
        if task < tiles:
            finish_tile(g, task // g.tiles, task % g.tiles)
        else:
            e, first, stop = samples_of(task - tiles, g.batch, SAMPLES)
            gather_some(g, e, slot, first, stop)

    return prepare_all, unwind_all, gather_all


@jit
def finish_tile(g, e, tile):
    """Sum the chunks' gradients by weights and thresholds."""
    begin, size = tile * TILE, g.inputs * TILE
    if g.wants_weight:
        unpack_tile(g.weight_parts[e, :, tile, :size], g.unit[e], begin, g.by_weight[e])
    for j in range(begin, min(begin + TILE, g.outputs) if g.wants_threshold else begin):
        total = g.threshold_parts[e, 0, j]
        for chunk in range(1, g.chunks):
            total += g.threshold_parts[e, chunk, j]
        g.by_threshold[e, j] = total / g.unit[e, j]


@kernel(BACKWARD)
def backward_kernel(dtype: str, lanes: int):
    """First spikes, for one dtype and number of lanes."""
    return phases(jit(lambda g: zeros(g.c, lanes)), prepare_samples, unwind_samples, gather_samples)


@kernel(TRAIN_BACKWARD)
def train_backward_kernel(dtype: str, lanes: int):
    """Spike trains, likewise."""
    return phases(jit(lambda g: zeros(g.c, lanes)), prepare_windows, unwind_windows, gather_windows)
