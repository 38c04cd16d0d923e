"""Backward: the kernels. Their tasks and the order of all sums depend on the shapes alone, never on the threads.

Windows of spike trains are unwound from the last to the first. The effect of a neuron's own spikes when they arrive
again is known when their window is unwound.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    TILE,
    constants,
    pack_row,
    padded,
    saved_of,
    sum_parts,
    unit_of_row,
    unpack_tile,
)
from firstspike.spiketime.cpu.rows.adjoint import Into, Place, Tile, into_of, spikes_in, state_in, unwind_tile
from firstspike.spiketime.cpu.rows.forward import own_event, sort_sample
from firstspike.spiketime.cpu.rows.intervals import Sample, backward_rows, find_segments, walk_rows
from firstspike.spiketime.cpu.rows.joins import join_lanes, observe_tile, settle_flat
from firstspike.spiketime.cpu.rows.layouts import BACKWARD, TRAIN_BACKWARD
from firstspike.spiketime.cpu.rows.train_jumps import carried_in, fetch_entries, rows_of_window, unwind_window
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, part_of, samples_of
from firstspike.spiketime.cpu.vectors.rows import like
from firstspike.spiketime.cpu.vectors.simd import clear, filled, load16, prefetch32, store

SAMPLES = 16  # of one task, where samples are worked on by themselves


@jit
def prepare_samples(g, e, slot, first, stop):
    """The rows of the samples, in ``used`` those up to the last causal input if it is known."""
    c, grad, start, segments = constants(g), g.grad[e], g.start[slot], g.segments[e]
    for b in range(first, stop):
        if g.observes:  # no forward pass did it
            sort_sample(g, e, slot, b)
        saved, n, rows = saved_of(g, e, b), 0, walk_rows(g.rows[e, b])
        count, arrival = np.intp(saved.last[g.outputs]), saved.arrival
        for j in range(g.outputs):
            if grad[b, j] != 0:
                n = max(n, count if g.observes else saved.last[j] + 1)
        g.used[e, b], segments[b] = n, 0
        if n:
            segments[b] = find_segments(arrival, n, c, math.inf, start, g.ends[e, b])
            backward_rows(arrival, n, c, start, rows)


@inlined
def unwind_sample(zero, g, at):
    """First spikes of a tile in a sample."""
    e, b, slot = at.e, at.b, at.slot
    n, packed, joins = g.used[e, b], g.packed[e, at.tile], g.joins[slot]
    if n == 0:
        return
    saved, never, into = saved_of(g, e, b), g.c.dtype.type(math.inf), into_of(g, at, 0)
    neurons = Tile(zero, like(zero, state_in(g.state[slot], 0), 0), constants(g))
    sample = Sample(saved.order, saved.arrival, n, g.ends[e, b], g.segments[e, b], walk_rows(g.rows[e, b]))
    if g.observes:
        observe_tile(neurons, g, at, packed, sample)
    settle_flat(neurons, g, at, packed, sample)
    top, dropped = join_lanes(neurons, g, at, sample, neurons.c.bound if into.wants_weight else never)
    if top < 0:
        return
    if dropped:
        weights = Into(into.sums, into.by_weight, into.by_times, True, False)
        unwind_tile(neurons, packed, sample, joins, None, top, False, weights)
        join_lanes(neurons, g, at, sample, never)
    neurons.state.total += neurons.state.scale
    if not dropped or into.wants_times:
        rest = Into(into.sums, into.by_weight, into.by_times, into.wants_weight and not dropped, into.wants_times)
        unwind_tile(neurons, packed, sample, joins, None, top, False, rest)
    for k in range(top + 1):
        joins[k] = 0


@jit
def start_samples(g, e, slot, chunk, group):
    """Nothing is summed yet: first spikes."""
    first, stop = part_of(g.batch, g.chunks, chunk)
    for k in range(g.room):
        g.joins[slot, k] = 0
    for b in range(first, stop if g.time_groups > 0 else first):
        for k in range(g.room if g.used[e, b] else 0):
            g.times_parts[e, group, b, k] = 0


@jit
def start_tile(g, e, chunk, tile, w, state):
    """Units and thresholds of a tile's lanes, 1 for those without a neuron; before its first window, no sums."""
    for lane in range(TILE):
        own = state[lane]
        own.unit = own.level = 1
        own.total = own.resets = 0
    for lane in range(min(TILE, g.outputs - tile * TILE)):
        j, own = tile * TILE + lane, state[lane]
        own.unit, own.level = g.unit[e, j], g.threshold[e, j] / g.unit[e, j]
        if w == g.windows - 1:
            g.threshold_parts[e, chunk, j] = 0
    for i in range(g.packed_size if g.weight_chunks > 0 and w == g.windows - 1 else 0):
        g.weight_parts[e, chunk, tile, i] = 0


@jit
def gather_times(parts, at, n, order, rows, c, by_times):
    """Sum the groups' gradients ``parts (groups, room)`` by n sorted events from ``at`` on, and undo the sorting."""
    total = parts[0]
    sum_parts(parts, at, n)
    for k in range(0, n, 16):
        store(total, at + k, load16(total, at + k) * load16(rows.fast, k) * c.syn)
    for k in range(n):
        if order[k] >= 0:  # not an end of the window, or an own spike
            by_times[np.uintp(order[k])] = total[np.uintp(at + k)]


@jit
def sum_chunks(parts, unit, tile, negative, by):
    """Sum the chunks' gradients with respect to the thresholds or resets of a tile."""
    for j in range(tile * TILE, min((tile + 1) * TILE, by.size)):
        total = parts[0, j]
        for chunk in range(1, parts.shape[0]):
            total += parts[chunk, j]
        by[j] = (-total if negative else total) / unit[j]


@jit
def ask(grad, upto, tiles, places, spiked, seen, asked):
    """The gradient with respect to each entry that is a spike, whose place is below ``spiked``."""
    for j in range(seen.size):
        seen[j] = 0
    for part in range(upto.size - 1):
        begin, stop = np.uintp(part % tiles * TILE), np.uintp(upto[part + 1])
        entry = np.uintp(upto[part])  # without a sign, an index needs no test for one below 0
        ahead = (part + 1) % tiles * TILE  # the neurons of the next tile
        for j in range(ahead, min(ahead + TILE, seen.size) if stop - entry > TILE else 0):
            prefetch32(grad, np.uintp(j) * np.uintp(grad.shape[1]) + np.uintp(seen[j]))
        while entry < stop:
            place = np.uintp(places[entry])
            if place < np.uintp(spiked):
                j = begin + (place & np.uintp(TILE - 1))
                k = np.uintp(seen[j])
                seen[j] = k + np.uintp(1)
                asked[entry] = grad[j, k] if k < np.uintp(grad.shape[1]) else asked.dtype.type(0)
            entry += np.uintp(1)


@jit
def prepare_windows(g, e, slot, first, stop):
    """The rows of all windows of the samples, and the gradients with respect to their spikes."""
    for b in range(first, stop):
        ask(g.grad[e, b], g.upto[e, b], g.tiles, g.places[e, b], g.budget * TILE, g.seen[e, b], g.asked[e, b])
        for w in range(g.windows):
            n, at = g.count[e, b, w], g.starts[e, b, w]
            here = slice(at, at + padded(n))
            g.segments[e, b, w] = 0
            if n:
                arrival, start = g.arrival[e, b, here], g.start[e, b, here]
                g.segments[e, b, w] = find_segments(arrival, n, constants(g), math.inf, start, g.ends[e, b, here])
                backward_rows(arrival, n, constants(g), start, rows_of_window(g.rows[e, b], n, at))


@jit
def start_trains(g, e, slot, chunk, group):
    """Likewise trains, of which no spike is known yet; the adjoint at the end."""
    (first, stop), tiles = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group)
    spikes, neurons = spikes_in(g.all_spikes[slot]), range(tiles[0] * TILE, min(tiles[1] * TILE, g.outputs))
    for j in neurons:
        g.reset_parts[e, chunk, j] = 0
    clear(g.all_spikes[slot])
    for place in range(g.slots):
        spikes[place].time = math.inf
    for b in range(first, stop):
        for k in range(g.starts[e, b, g.windows] if g.time_groups > 0 else 0):
            g.times_parts[e, group, b, k] = 0
        carried = carried_in(g.carried[e, b])
        for j in range(tiles[0] * TILE, tiles[1] * TILE):  # also lanes without a neuron
            own = carried[j]
            own.y = own.c = own.pull = 0
        for j in neurons if g.asks_end else range(0):
            own, unit = carried[j], g.unit[e, j]
            own.c = -g.of_current[e, b, j] * unit
            if g.end_left[e, b, j] > 0:
                own.pull = g.of_left[e, b, j] * unit / g.threshold[e, j]
                g.reset_parts[e, chunk, j] -= g.of_voltage[e, b, j] * unit
            else:
                own.y = -g.of_voltage[e, b, j] * unit


@jit
def start_resets(g, e, tile, state):
    """How far below the thresholds of a tile its resets are."""
    for j in range(tile * TILE, min((tile + 1) * TILE, g.outputs)):
        state[j - tile * TILE].drop = 1 - g.reset[e, j] / g.threshold[e, j]


@jit
def send_back(g, e, chunk, group, w):
    """Gradients with respect to the inputs of a window: own spikes, and the states at the start of the first."""
    (first, stop), tiles, rate = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group), constants(g).syn
    for b in range(first, stop if w > 0 else first):
        n, at, asked = g.count[e, b, w], g.starts[e, b, w], g.asked[e, b]
        by_times, order = g.times_parts[e, group, b, at:], g.order[e, b, at:]
        fast = rows_of_window(g.rows[e, b], n, at).fast
        for row in range(n):
            k = np.uintp(row)
            # without a branch that is hard to foresee, others are added where there are no entries
            entry = np.uintp(min(np.uint32(own_event(order[k])), np.uint32(g.asked_size - 16 + (row & 15))))
            asked[entry] += by_times[k] * fast[k] * rate
    for b in range(first, stop if w == 0 and g.bounds[0] > -math.inf else first):
        carried = carried_in(g.carried[e, b])
        for j in range(tiles[0] * TILE, min(tiles[1] * TILE, g.outputs)):
            unit, own = g.unit[e, j], carried[j]
            g.by_voltage[e, b, j] = 0 if g.left[e, b, j] > 0 else -own.y / unit
            g.by_current[e, b, j] = -own.c / unit
            g.by_left[e, b, j] = own.pull * g.threshold[e, j] / unit


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
        zero, state = fill(g.c, 0.0), state_in(g.state[slot], 0)
        clear(g.state[slot])
        if several:
            start_trains(g, e, slot, chunk, group)
        else:
            start_samples(g, e, slot, chunk, group)
        for w in range(g.windows - 1, -1, -1):
            for tile in range(tiles[0], tiles[1]):
                start_tile(g, e, chunk, tile, w, state)
                if several:
                    start_resets(g, e, tile, state)
                for b in range(first, stop):
                    at = Place(e, slot, b, tile, chunk, group)
                    if several:
                        if b + 1 < stop:
                            fetch_entries(g, e, b + 1, w * g.tiles + tile)
                        unwind_window(zero, g, at, w)
                    else:
                        unwind_sample(zero, g, at)
                for lane in range(min(TILE, g.outputs - tile * TILE)):
                    g.threshold_parts[e, chunk, tile * TILE + lane] += state[lane].total
                    if several:
                        g.reset_parts[e, chunk, tile * TILE + lane] += state[lane].resets
            if several:
                send_back(g, e, chunk, group, w)

    @jit
    def gather(g, slot, task):
        tiles = g.ensemble * g.tiles
        if task < tiles:
            e, tile = task // g.tiles, task % g.tiles
            if g.weight_chunks > 0:
                unpack_tile(g.weight_parts[e, :, tile, : g.inputs * TILE], g.unit[e], tile * TILE, g.by_weight[e])
            sum_chunks(g.threshold_parts[e], g.unit[e], tile, False, g.by_threshold[e])
            if several:
                sum_chunks(g.reset_parts[e], g.unit[e], tile, True, g.by_reset[e])
            return
        e, first, stop = samples_of(task - tiles, g.batch, SAMPLES)
        for b in range(first, stop):
            by_times = g.by_times[e, b]
            for i in range(g.events):
                by_times[i] = 0
            for w in range(g.windows):
                if several:
                    n, at = g.count[e, b, w], g.starts[e, b, w]
                    order, rows = g.order[e, b, at:], rows_of_window(g.rows[e, b], n, at)
                else:
                    n, at, order, rows = g.used[e, b], 0, saved_of(g, e, b).order, walk_rows(g.rows[e, b])
                gather_times(g.times_parts[e, :, b], at, n, order, rows, constants(g), by_times)

    return prepare, unwind, gather
