"""Backward: the kernels. Their tasks and the order of all sums depend on the shapes alone, never on the threads.

Windows of spike trains are unwound from the last to the first. What a neuron's own spikes do when they arrive again is
known when the window is unwound in which they were.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    N_CONSTANTS,
    PER_SYN,
    SAVED,
    STATES,
    TILE,
    X,
    every_lane,
    pack_row,
    unit_of_row,
    unpack_tile,
)
from firstspike.spiketime.cpu.rows import adjoint
from firstspike.spiketime.cpu.rows.adjoint import (
    Into,
    gather_entries,
    join_lanes,
    jumps,
    observe_tile,
    settle_flat,
    unwind_tile,
)
from firstspike.spiketime.cpu.rows.few import FEW, few_rows_back, sum_few, unwind_few
from firstspike.spiketime.cpu.rows.forward import KEPT, TRAINS, own_event, sort_sample, stride_for
from firstspike.spiketime.cpu.rows.intervals import FAST, N_BACKWARD, Sample, backward_rows, find_segments
from firstspike.spiketime.cpu.rows.train_scan import Entries
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, samples_of
from firstspike.spiketime.cpu.sort import SORTING
from firstspike.spiketime.cpu.vectors.simd import clear, filled, fma, load, load16, select, splat, store

SAMPLES = 16  # of one task, where samples are worked on by themselves

_SHARED = Layout(
    "ensemble batch inputs outputs events groups time_groups chunks weight_chunks threads wants_weight wants_times "
    "wants_threshold tiles packed_size room windows",
    c=f"real {N_CONSTANTS + 1}",
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
    state=f"real threads {adjoint.N_LANES} {TILE}",
    sums="real threads 256",
)
BACKWARD = _SHARED.extended(
    "sorting ints reals observes",
    grad="real ensemble batch outputs",
    spikes="real ensemble batch outputs",
    times="real ensemble batch events",
    **SAVED,
    rows=f"real ensemble batch {N_BACKWARD} room",
    segments="int32 ensemble batch",
    used="int32 ensemble batch",
    start="real threads room",
    joins="uint64 threads room",
    places=f"int32 threads {TILE}",
    few_sums=f"real threads {FEW * 16}",
    **SORTING,
)
TRAIN_BACKWARD = _SHARED.extended(
    "most budget asks_end holds all_rows entries own_entries bounds_size carried_lanes slots",
    **TRAINS,
    **KEPT,
    grad="real ensemble batch outputs most",
    of_end=f"real ensemble batch {STATES} outputs",
    rows="real ensemble batch all_rows",
    start="real ensemble batch room",
    segments="int32 ensemble batch windows",
    own="real ensemble batch tiles own_entries",
    carried="real ensemble batch 3 carried_lanes",  # between two windows: y, C and PULL
    seen="int32 ensemble batch outputs",
    by_start=f"real ensemble batch {STATES} outputs",
    lanes=f"int32 threads {TILE}",
    rows_of="int32 threads slots",
    all_spikes=f"real threads {adjoint.N_SPIKES} slots",
)


@jit
def prepare_samples(g, e, slot, first, stop):
    """The rows of the samples, in ``used`` those up to the last causal input if it is known; few have no segments."""
    c, grad, last, start, segments = g.c, g.grad[e], g.last[e], g.start[slot], g.segments[e]
    for b in range(first, stop):
        if g.observes:  # no forward pass did it
            sort_sample(g, e, slot, b)
        count, n, arrival, rows = np.intp(g.count[e, b, 0]), 0, g.arrival[e, b], g.rows[e, b]
        for j in range(g.outputs):
            if grad[b, j] != 0:
                n = max(n, count if g.observes else last[b, j] + 1)
        g.used[e, b], segments[b] = n, 0
        if n > 0 and count < FEW and not g.observes:
            few_rows_back(arrival, n, c, rows)
        elif n:
            segments[b] = find_segments(arrival, n, c, math.inf, start, g.ends[e, b])
            backward_rows(arrival, n, c, start, rows)


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


@inlined
def unwind_sample(zero, g, e, slot, chunk, group, tile, b):
    """First spikes of a tile in a sample."""
    n, begin, state, packed = g.used[e, b], tile * TILE, g.state[slot], g.packed[e, tile]
    if n == 0:
        return
    size, few, never = min(TILE, g.outputs - begin), g.segments[e, b] == 0, g.c.dtype.type(math.inf)
    joins, by_weight, by_times = g.joins[slot], g.weight_parts[e, chunk, tile], g.times_parts[e, group, b]
    wants_weight, wants_times = g.wants_weight != 0, g.wants_times != 0
    every, bound = every_lane(size), g.c[N_CONSTANTS] if wants_weight else never
    sample = Sample(g.order[e, b], g.arrival[e, b], n, g.ends[e, b], g.segments[e, b], g.rows[e, b])
    if g.observes:
        observe_tile(zero, g, e, slot, b, begin, size, packed, sample)
    for first in range(0, size, 16):
        bits = (every >> np.uint64(first)) & np.uint64(0xFFFF)
        settle_flat(g, e, b, begin, first, bits, packed, sample, state)
        if few:
            into = Into(g.few_sums[slot], by_weight, by_times, wants_weight, wants_times)
            unwind_few(g, e, slot, b, begin, first, bits, packed, sample, bound, into)
    if few:
        if wants_times:
            sum_few(g.few_sums[slot], n, by_times)
        return
    top, dropped = join_lanes(zero, g, e, slot, b, begin, every, sample, bound)
    if top < 0:
        return
    if dropped:  # for the weights alone
        into = Into(g.sums[slot], by_weight, by_times, True, False)
        unwind_tile(zero, packed, sample, state, joins, None, None, top, False, g.c, into)
        join_lanes(zero, g, e, slot, b, begin, every, sample, never)
    total = load(zero, state, adjoint.TOTAL * TILE) + load(zero, state, adjoint.SCALE * TILE)
    store(state, adjoint.TOTAL * TILE, total)
    if not dropped or wants_times:
        into = Into(g.sums[slot], by_weight, by_times, wants_weight and not dropped, wants_times)
        unwind_tile(zero, packed, sample, state, joins, None, None, top, False, g.c, into)
    for k in range(top + 1):
        joins[k] = 0


@jit
def unwind_window(zero, g, e, slot, chunk, group, tile, b, w):
    """Spike trains of a tile in a window of a sample."""
    n, at, low, high = g.count[e, b, w], g.starts[e, b, w], g.upto[e, b, tile, w], g.upto[e, b, tile, w + 1]
    c, begin, carried, packed = g.c, tile * TILE, g.carried[e, b], g.packed[e, tile]
    asks = g.asks_end != 0 or w < g.windows - 1
    if n == 0 or (low == high and not asks):
        return
    begins, stops, here = g.bounds[w] > -math.inf, g.bounds[w + 1] < math.inf, slice(at, at + stride_for(n))
    state, spikes, rows_of, arrival = g.state[slot], g.all_spikes[slot], g.rows_of[slot], g.arrival[e, b, here]
    entries = Entries(
        g.lanes[slot], g.budget, g.found[e, b, tile, low:high], g.places[e, b, tile, low:high],
        g.moments[e, b, tile, low:high], g.slopes[e, b, tile, low:high],
    )  # fmt: skip
    own = g.own[e, b, tile, low:high] if g.own_entries > 0 else g.own[e, b, tile, :0]
    gather_entries(entries, begin, own, g.grad[e, b], g.seen[e, b], spikes, rows_of)
    sample = Sample(
        g.source[e, b, here], arrival, n, g.ends[e, b, here], g.segments[e, b, w], rows_of_window(g.rows[e, b], n, at)
    )
    inputs, until = (1 if begins else 0, n - 2 if stops else n - 1), g.bounds[w + 1] if stops else arrival[n - 1]
    wants_weight, wants_times, holds = g.wants_weight != 0, g.wants_times != 0, g.holds != 0
    never = c.dtype.type(math.inf)
    by_weight, by_times = g.weight_parts[e, chunk, tile], g.times_parts[e, group, b, here]
    bound, start, top = c[N_CONSTANTS] if wants_weight else never, g.start[e, b, here], n - 1
    if not asks:
        top = np.intp(entries.found[high - low - 1])
    total, full = load(zero, state, adjoint.TOTAL * TILE), np.uint64(g.full[e, b, tile, w])
    start_window(zero, state, carried, begin, full, until)
    dropped = jumps(zero, state, entries, holds, rows_of, arrival, inputs, start, c, bound, spikes)
    if dropped:  # for the weights alone
        into = Into(g.sums[slot], by_weight, by_times, True, False)
        unwind_tile(zero, packed, sample, state, None, entries, spikes, top, asks, c, into)
        store(state, adjoint.TOTAL * TILE, total)
        start_window(zero, state, carried, begin, full, until)
        jumps(zero, state, entries, holds, rows_of, arrival, inputs, start, c, never, spikes)
    if not dropped or wants_times or begins:
        into = Into(g.sums[slot], by_weight, by_times, wants_weight and not dropped, wants_times)
        unwind_tile(zero, packed, sample, state, None, entries, spikes, top, asks, c, into)
    for entry in range(high - low):
        place = np.uintp(entries.places[np.uintp(entry)])
        rows_of[place], spikes[adjoint.TIME, place] = 0, math.inf
    if begins:
        response, decay = load(zero, state, adjoint.NOW_C * TILE), load(zero, state, adjoint.NOW_E * TILE)
        store(carried, begin, fma(response, max(c[X], 0.0), decay))
        store(carried, carried.shape[1] + begin, response)
        store(carried, 2 * carried.shape[1] + begin, load(zero, state, adjoint.PULL * TILE))


@jit
def start_window(zero, state, carried, begin, full, until):
    """The adjoint of a tile at the end of a window; lanes ``full`` would spike too often there."""
    width = carried.shape[1]
    y = select(full, zero, load(zero, carried, begin))
    store(state, adjoint.END_Y * TILE, y)
    store(state, adjoint.NEXT_Y * TILE, y)
    store(state, adjoint.END_C * TILE, load(zero, carried, width + begin))
    store(state, adjoint.PULL * TILE, load(zero, carried, 2 * width + begin))
    store(state, adjoint.NEXT_T * TILE, splat(zero, until))


@jit
def start_samples(g, e, slot, chunk, group):
    """Nothing is summed yet: first spikes."""
    first, stop = part_of(g.batch, g.chunks, chunk)
    clear(g.few_sums[slot])
    for k in range(g.room):
        g.joins[slot, k] = 0
    for b in range(first, stop if g.wants_times else first):
        for k in range(g.room if g.used[e, b] else 0):
            g.times_parts[e, group, b, k] = 0


@jit
def start_trains(g, e, slot, chunk, group):
    """Likewise trains, of which no spike is known yet; the adjoint at the end."""
    (first, stop), tiles = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group)
    spikes = g.all_spikes[slot]
    clear(spikes)
    for place in range(g.slots):
        g.rows_of[slot, place], spikes[adjoint.TIME, place] = 0, math.inf
    for b in range(first, stop):
        for k in range(g.starts[e, b, g.windows] if g.wants_times else 0):
            g.times_parts[e, group, b, k] = 0
        end_of_sample(g, e, b, (tiles[0] * TILE, min(tiles[1] * TILE, g.outputs)), tiles[1] * TILE)


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
def send_back(g, e, chunk, group, w):
    """Gradients by what came into a window: the arrivals of own spikes, and the states at the start of the first."""
    (first, stop), tiles = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group)
    for b in range(first, stop if w > 0 and g.own_entries > 0 else first):
        n, at, by_times = g.count[e, b, w], g.starts[e, b, w], g.times_parts[e, group, b]
        rows = rows_of_window(g.rows[e, b], n, at)
        for k in range(n):
            entry = own_event(g.order[e, b, at + k])
            if entry >= 0:
                g.own[e, b, entry % g.tiles, entry // g.tiles] = by_times[at + k] * rows[FAST, k] * g.c[PER_SYN]
    for b in range(first, stop if w == 0 and g.bounds[0] > -math.inf else first):
        carried, by_start = g.carried[e, b], g.by_start[e, b]
        for j in range(tiles[0] * TILE, min(tiles[1] * TILE, g.outputs)):
            unit = g.unit[e, j]
            by_start[0, j] = 0 if g.held[e, b, 2, j] > 0 else -carried[0, j] / unit
            by_start[1, j] = -carried[1, j] / unit
            by_start[2, j] = carried[2, j] * g.threshold[e, j] / unit


@jit
def start_tile(g, e, chunk, tile, w, state):
    """Units and thresholds of a tile's lanes, 1 for those without a neuron; before its first window, no sums."""
    for lane in range(TILE):
        state[adjoint.UNIT, lane] = state[adjoint.LEVEL, lane] = 1
        state[adjoint.TOTAL, lane] = 0
    for lane in range(min(TILE, g.outputs - tile * TILE)):
        j = tile * TILE + lane
        state[adjoint.UNIT, lane], state[adjoint.LEVEL, lane] = g.unit[e, j], g.threshold[e, j] / g.unit[e, j]
        if w == g.windows - 1:
            g.threshold_parts[e, chunk, j] = 0
    for i in range(g.packed_size if g.wants_weight and w == g.windows - 1 else 0):
        g.weight_parts[e, chunk, tile, i] = 0


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


@kernel(lambda lanes, several: TRAIN_BACKWARD if several else BACKWARD)
def backward_kernel(dtype: str, lanes: int, several: bool):
    """Backward, for one dtype and number of lanes, of first spikes or trains."""
    fill = filled(lanes)

    @jit
    def prepare(g, slot, task):
        tiles = g.ensemble * g.tiles
        if task < tiles:
            e, tile = task // g.tiles, task % g.tiles
            for j in range(tile * TILE, min((tile + 1) * TILE, g.outputs)):
                g.unit[e, j] = unit_of_row(g.weight[e], j, g.threshold[e, j])
            pack_row(g.weight[e], g.unit[e], tile * TILE, g.packed[e, tile])
            return
        e, first, stop = samples_of(task - tiles, g.batch, SAMPLES)
        if several:
            prepare_windows(g, e, slot, first, stop)
        else:
            prepare_samples(g, e, slot, first, stop)

    @jit
    def unwind(g, slot, task):
        e, chunk, group = task // (g.groups * g.chunks), task // g.groups % g.chunks, task % g.groups
        (first, stop), tiles = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group)
        zero, state = fill(g.c, 0.0), g.state[slot]
        clear(state)
        if several:
            start_trains(g, e, slot, chunk, group)
        else:
            start_samples(g, e, slot, chunk, group)
        for w in range(g.windows - 1, -1, -1):
            for tile in range(tiles[0], tiles[1]):
                start_tile(g, e, chunk, tile, w, state)
                if several:
                    for j in range(tile * TILE, min((tile + 1) * TILE, g.outputs)):
                        state[adjoint.DROP, j - tile * TILE] = 1 - g.reset[e, j] / g.threshold[e, j]
                for b in range(first, stop):
                    if several:
                        unwind_window(zero, g, e, slot, chunk, group, tile, b, w)
                    else:
                        unwind_sample(zero, g, e, slot, chunk, group, tile, b)
                for lane in range(min(TILE, g.outputs - tile * TILE)):
                    g.threshold_parts[e, chunk, tile * TILE + lane] += state[adjoint.TOTAL, lane]
            if several:
                send_back(g, e, chunk, group, w)

    @jit
    def gather(g, slot, task):
        tiles = g.ensemble * g.tiles
        if task < tiles:
            finish_tile(g, task // g.tiles, task % g.tiles)
            return
        e, first, stop = samples_of(task - tiles, g.batch, SAMPLES)
        for b in range(first, stop):
            by_times = g.by_times[e, b]
            for i in range(g.events):
                by_times[i] = 0
            for w in range(g.windows):
                if several:
                    n, at = g.count[e, b, w], g.starts[e, b, w]
                    rows = rows_of_window(g.rows[e, b], n, at)
                else:
                    n, at, rows = g.used[e, b], 0, g.rows[e, b]
                gather_times(g.times_parts[e], b, at, n, g.order[e, b, at:], rows, g.c, by_times)

    return prepare, unwind, gather
