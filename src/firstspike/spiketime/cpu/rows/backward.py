"""Backward: the kernels. Their tasks and the order of all sums depend on the shapes alone, never on the threads.

Windows of spike trains are unwound from the last to the first. The effect of a neuron's own spikes when they arrive
again is known when their window is unwound.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    N_CONSTANTS,
    PER_SYN,
    TILE,
    every_lane,
    pack_row,
    padded,
    saved_of,
    sum_parts,
    unit_of_row,
    unpack_tile,
)
from firstspike.spiketime.cpu.rows import adjoint
from firstspike.spiketime.cpu.rows.adjoint import Into, unwind_tile
from firstspike.spiketime.cpu.rows.forward import own_event, sort_sample
from firstspike.spiketime.cpu.rows.intervals import FAST, Sample, backward_rows, find_segments
from firstspike.spiketime.cpu.rows.joins import (
    join_lanes,
    observe_tile,
    settle_flat,
)
from firstspike.spiketime.cpu.rows.layouts import BACKWARD, TRAIN_BACKWARD
from firstspike.spiketime.cpu.rows.train_jumps import fetch_entries, rows_of_window, unwind_window
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, part_of, samples_of
from firstspike.spiketime.cpu.vectors.simd import clear, filled, load, load16, prefetch32, store

SAMPLES = 16  # of one task, where samples are worked on by themselves


@jit
def prepare_samples(g, e, slot, first, stop):
    """The rows of the samples, in ``used`` those up to the last causal input if it is known."""
    c, grad, start, segments = g.c, g.grad[e], g.start[slot], g.segments[e]
    for b in range(first, stop):
        if g.observes:  # no forward pass did it
            sort_sample(g, e, slot, b)
        saved, n, rows = saved_of(g, e, b), 0, g.rows[e, b]
        count, arrival = np.intp(saved.last[g.outputs]), saved.arrival
        for j in range(g.outputs):
            if grad[b, j] != 0:
                n = max(n, count if g.observes else saved.last[j] + 1)
        g.used[e, b], segments[b] = n, 0
        if n:
            segments[b] = find_segments(arrival, n, c, math.inf, start, g.ends[e, b])
            backward_rows(arrival, n, c, start, rows)


@inlined
def unwind_sample(zero, g, e, slot, chunk, group, tile, b):
    """First spikes of a tile in a sample."""
    n, begin, state, packed = g.used[e, b], tile * TILE, g.state[slot], g.packed[e, tile]
    if n == 0:
        return
    size, never = min(TILE, g.outputs - begin), g.c.dtype.type(math.inf)
    joins, wants_weight, wants_times = g.joins[slot], g.weight_chunks > 0, g.time_groups > 0
    by_weight = g.weight_parts[e, chunk, tile] if wants_weight else g.sums[slot]  # which nothing is added to
    by_times = g.times_parts[e, group, b] if wants_times else g.sums[slot]
    every, bound = every_lane(size), g.c[N_CONSTANTS] if wants_weight else never
    saved = saved_of(g, e, b)
    sample = Sample(saved.order, saved.arrival, n, g.ends[e, b], g.segments[e, b], g.rows[e, b])
    if g.observes:
        observe_tile(zero, g, e, slot, b, begin, size, packed, sample)
    for first in range(0, size, 16):
        bits = (every >> np.uint64(first)) & np.uint64(0xFFFF)
        settle_flat(g, e, b, begin, first, bits, packed, sample, state)
    top, dropped = join_lanes(zero, g, e, slot, b, begin, every, sample, bound)
    if top < 0:
        return
    if dropped:  # for the weights alone
        into = Into(g.sums[slot], by_weight, by_times, True, False)
        unwind_tile(zero, packed, sample, state, joins, None, None, top, False, g.c, into)
        join_lanes(zero, g, e, slot, b, begin, every, sample, never)
    total = load(zero, state, adjoint.TOTAL) + load(zero, state, adjoint.SCALE)
    store(state, adjoint.TOTAL, total)
    if not dropped or wants_times:
        into = Into(g.sums[slot], by_weight, by_times, wants_weight and not dropped, wants_times)
        unwind_tile(zero, packed, sample, state, joins, None, None, top, False, g.c, into)
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
        state[adjoint.UNIT + lane] = state[adjoint.LEVEL + lane] = 1
        state[adjoint.TOTAL + lane] = state[adjoint.RESETS + lane] = 0
    for lane in range(min(TILE, g.outputs - tile * TILE)):
        j = tile * TILE + lane
        state[adjoint.UNIT + lane], state[adjoint.LEVEL + lane] = g.unit[e, j], g.threshold[e, j] / g.unit[e, j]
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
        store(total, at + k, load16(total, at + k) * load16(rows, FAST * rows.shape[1] + k) * c[PER_SYN])
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
                g.segments[e, b, w] = find_segments(arrival, n, g.c, math.inf, start, g.ends[e, b, here])
                backward_rows(arrival, n, g.c, start, rows_of_window(g.rows[e, b], n, at))


@jit
def start_trains(g, e, slot, chunk, group):
    """Likewise trains, of which no spike is known yet; the adjoint at the end."""
    (first, stop), tiles = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group)
    spikes, neurons = g.all_spikes[slot], range(tiles[0] * TILE, min(tiles[1] * TILE, g.outputs))
    for j in neurons:
        g.reset_parts[e, chunk, j] = 0
    clear(spikes)
    for place in range(g.slots):
        spikes[adjoint.TIME, place] = math.inf
    for b in range(first, stop):
        for k in range(g.starts[e, b, g.windows] if g.time_groups > 0 else 0):
            g.times_parts[e, group, b, k] = 0
        carried = g.carried[e, b]
        for j in range(tiles[0] * TILE, tiles[1] * TILE):  # also lanes without a neuron
            carried[0, j], carried[1, j], carried[2, j] = 0, 0, 0
        for j in neurons if g.asks_end else range(0):
            unit = g.unit[e, j]
            carried[1, j] = -g.of_current[e, b, j] * unit
            if g.end_left[e, b, j] > 0:
                carried[2, j] = g.of_left[e, b, j] * unit / g.threshold[e, j]
                g.reset_parts[e, chunk, j] -= g.of_voltage[e, b, j] * unit
            else:
                carried[0, j] = -g.of_voltage[e, b, j] * unit


@jit
def send_back(g, e, chunk, group, w):
    """Gradients with respect to the inputs of a window: own spikes, and the states at the start of the first."""
    (first, stop), tiles = part_of(g.batch, g.chunks, chunk), part_of(g.tiles, g.groups, group)
    for b in range(first, stop if w > 0 else first):
        n, at, asked = g.count[e, b, w], g.starts[e, b, w], g.asked[e, b]
        by_times, order = g.times_parts[e, group, b, at:], g.order[e, b, at:]
        fast = rows_of_window(g.rows[e, b], n, at)[FAST]
        for row in range(n):
            k = np.uintp(row)
            # without a branch that is hard to foresee, others are added where there are no entries
            entry = np.uintp(min(np.uint32(own_event(order[k])), np.uint32(g.asked_size - 16 + (row & 15))))
            asked[entry] += by_times[k] * fast[k] * g.c[PER_SYN]
    for b in range(first, stop if w == 0 and g.bounds[0] > -math.inf else first):
        carried = g.carried[e, b]
        for j in range(tiles[0] * TILE, min(tiles[1] * TILE, g.outputs)):
            unit = g.unit[e, j]
            g.by_voltage[e, b, j] = 0 if g.left[e, b, j] > 0 else -carried[0, j] / unit
            g.by_current[e, b, j] = -carried[1, j] / unit
            g.by_left[e, b, j] = carried[2, j] * g.threshold[e, j] / unit


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
                        state[adjoint.DROP + j - tile * TILE] = 1 - g.reset[e, j] / g.threshold[e, j]
                for b in range(first, stop):
                    if several:
                        if b + 1 < stop:
                            fetch_entries(g, e, b + 1, w * g.tiles + tile)
                        unwind_window(zero, g, e, slot, chunk, group, tile, b, w)
                    else:
                        unwind_sample(zero, g, e, slot, chunk, group, tile, b)
                for lane in range(min(TILE, g.outputs - tile * TILE)):
                    g.threshold_parts[e, chunk, tile * TILE + lane] += state[adjoint.TOTAL + lane]
                    if several:
                        g.reset_parts[e, chunk, tile * TILE + lane] += state[adjoint.RESETS + lane]
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
                    n, at, order, rows = g.used[e, b], 0, saved_of(g, e, b).order, g.rows[e, b]
                gather_times(g.times_parts[e, :, b], at, n, order, rows, g.c, by_times)

    return prepare, unwind, gather
