"""Spike trains, forward: events are sorted for each sample, then each tile of neurons scans them without an end.

The scan is that of ``scan``; where a lane spikes see ``train_parts``. A window's start and end are events that no
neuron has a weight for: the start holds the states that are given, the end those that are returned.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.crossing import NARROW, NOW_CURRENT, NOW_VOLTAGE, TILE
from firstspike.spiketime.cpu.pack import pack_tile
from firstspike.spiketime.cpu.rows import (
    BOUND,
    MEM,
    RISE,
    SYN,
    TANGENT,
    find_segments,
    forward_rows,
)
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.parallel import PHASE, SIGNATURE, TASKS, next_task, take
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch
from firstspike.spiketime.cpu.trains.parts import DROP, N_LANES, spikes_after_row, spikes_in_row
from firstspike.spiketime.cpu.vectors.simd import fma, keep, load, store, unowned, zeros


@jit
def scan_trains(
    zero, packed, source, arrival, ends, segments, rows, stops, every, c, state, lanes, most, trains, slopes, found,
    places,
):  # fmt: skip
    """Spikes of a tile's lanes ``every`` in one sample, from the states NOW, which become those at its last event.

    With ``stops``, nothing happens after the last event. Returns the lanes that would spike more than ``most`` times.
    """
    syn, rise, tangent, bound, mem = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND], rows[MEM]
    active, begin = every, 0
    for segment in range(segments):
        end = ends[segment]
        voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        for k in range(begin, end - 1):
            current = fma(load(zero, packed, np.intp(source[k]) * TILE), syn[k], current)
            if rise[k] == 0:
                continue  # the next input arrives at the same time
            candidates = (fma(current, tangent[k], voltage) >= bound[k]) & active
            if candidates:
                store(state, NOW_VOLTAGE * TILE, voltage)
                store(state, NOW_CURRENT * TILE, current)
                active = spikes_in_row(
                    zero, state, lanes, most, k, candidates, active, rows, arrival, c, trains, slopes, found, places
                )
                voltage = load(zero, state, NOW_VOLTAGE * TILE)
            voltage = fma(current, rise[k], voltage)
        k = end - 1
        current = fma(load(zero, packed, np.intp(source[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else arrival.dtype.type(math.inf)
            active = spikes_after_row(
                zero, state, lanes, most, k, active, arrival[k], until, c, trains, slopes, found, places
            )
        begin = end
    return every & ~active


@jit
def sort_events(times, order, arrival, source, copies, inputs, window, scratch):
    """Sort a sample's events, with those at the start and the end of the window; returns how many there are."""
    before, shift = window[0] > -math.inf, 1 if window[0] > -math.inf else 0
    n = sort_row(times, order[shift:], arrival[shift:], scratch)
    for k in range(shift, n + shift):
        source[k] = order[k] if copies == 1 else order[k] // copies
    n += shift
    if before:
        arrival[0], source[0], order[0] = window[0], inputs, -1
    if window[1] < math.inf:
        arrival[n], source[n], order[n] = window[1], inputs, -1
        n += 1
    return n


@jit
def scan_samples(
    zero, times, copies, threshold, reset, held, packed, c, window, most, rows, ends, order, source, arrival, count,
    trains, slopes, counts, overflows, found, places, totals, first, stop,
):  # fmt: skip
    """Sort and scan the samples from ``first`` to ``stop`` of one network with all its tiles.

    ``rows`` and ``ends`` have room for as many samples. ``held`` has membranes and currents, at the start and then at
    the end.
    """
    events, outputs, inputs = times.shape[1], trains.shape[1], packed.shape[1] // TILE - 1
    stride, samples = rows.shape[2], stop - first
    memory = (
        np.empty(stride, times.dtype), np.zeros(samples, np.int32), np.zeros((N_LANES, TILE), times.dtype),
        np.empty((2, most, TILE), times.dtype), np.empty(TILE + 1, np.int32),
    )  # fmt: skip
    sorting = sort_scratch(times, events)
    scratch = unowned_scratch(sorting)
    start, segments, state = unowned(memory[0]), unowned(memory[1]), unowned(memory[2])
    lane_trains, lane_slopes, lanes = unowned(memory[3])[0], unowned(memory[3])[1], unowned(memory[4])
    begins, stops = window[0] > -math.inf, window[1] < math.inf
    for b in range(first, stop):
        count[b] = sort_events(times[b], order[b], arrival[b], source[b], copies, inputs, window, scratch)
        if count[b]:
            segments[b - first] = find_segments(arrival[b], count[b], c, math.inf, start, ends[b - first])
            forward_rows(arrival[b], count[b], c, True, start, rows[b - first])

    for tile in range(packed.shape[0]):
        begin = tile * TILE
        size = min(TILE, outputs - begin)
        every = ~np.uint64(0) >> np.uint64(TILE - size)
        for lane in range(size):
            state[DROP, lane] = 1 - reset[begin + lane] / threshold[begin + lane]
        for b in range(first, stop):
            lanes[:] = 0
            over = np.uint64(0)
            if count[b]:
                at = b - first
                state[NOW_VOLTAGE], state[NOW_CURRENT] = 0, 0
                for lane in range(size if begins else 0):
                    state[NOW_VOLTAGE, lane] = held[0, b, begin + lane] / threshold[begin + lane]
                    state[NOW_CURRENT, lane] = held[1, b, begin + lane] / threshold[begin + lane]
                over = scan_trains(
                    zero, packed[tile], source[b], arrival[b], ends[at], segments[at], rows[at], stops, every, c,
                    state, lanes, most, lane_trains, lane_slopes, found[b, tile], places[b, tile],
                )  # fmt: skip
            totals[b, tile] = lanes[TILE]
            for lane in range(size):
                j, spikes = begin + lane, min(lanes[lane], most)
                counts[b, j] = spikes
                for k in range(spikes):
                    trains[b, j, k], slopes[b, j, k] = lane_trains[k, lane], lane_slopes[k, lane]
                trains[b, j, spikes:] = math.inf
                overflows[b, j] = np.uint8((over >> np.uint64(lane)) & np.uint64(1))
                if stops:
                    voltage = reset[j] if overflows[b, j] else state[NOW_VOLTAGE, lane] * threshold[j]
                    held[2, b, j], held[3, b, j] = voltage, state[NOW_CURRENT, lane] * threshold[j]
    keep(memory)
    keep(sorting)


TRAIN_FORWARD = Layout(
    "ensemble batch inputs copies outputs most block threads taken tiles packed_size events marks padded stride "
    "row_kinds constants places_size ends_of_window states",
    c="real constants",
    window="real ends_of_window",
    times="real ensemble batch events",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    held="real ensemble states batch outputs",
    packed="real ensemble tiles packed_size",
    order="int32 ensemble batch marks",
    source="int32 ensemble batch marks",
    arrival="real ensemble batch padded",
    count="int32 ensemble batch",
    trains="real ensemble batch outputs most",
    slopes="real ensemble batch outputs most",
    counts="int32 ensemble batch outputs",
    overflows="uint8 ensemble batch outputs",
    found="int32 ensemble batch tiles places_size",
    places="int32 ensemble batch tiles places_size",
    totals="int32 ensemble batch tiles",
    rows="real threads block row_kinds stride",
    ends="int32 threads block marks",
)
_TAKEN = TRAIN_FORWARD.place("taken")


@kept_on_disk
def train_forward_kernel(dtype: str, narrow: bool):
    """The kernel (see ``runtime.parallel``) for one dtype, and for few neurons or more; compiled at the first call."""
    lanes, read = NARROW if narrow else TILE, TRAIN_FORWARD.reader(dtype)

    @c_function(SIGNATURE, dtype, narrow)
    def kernel(a):
        g = read(a)
        blocks, weights = (g.batch + g.block - 1) // g.block, g.inputs * TILE
        slot = take(a, _TAKEN) if a[PHASE] == 1 else 0  # of the memory that threads have for themselves
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            if a[PHASE] == 0:
                e, tile = task // g.tiles, task % g.tiles
                pack_tile(g.weight[e], g.threshold[e], tile * TILE, g.packed[e, tile, :weights])
                g.packed[e, tile, weights:] = 0
            else:
                e, first = task // blocks, task % blocks * g.block
                stop = min(first + g.block, g.batch)
                scan_samples(
                    zeros(g.c, lanes), g.times[e], g.copies, g.threshold[e], g.reset[e], g.held[e], g.packed[e], g.c,
                    g.window, g.most, g.rows[slot], g.ends[slot], g.order[e], g.source[e], g.arrival[e], g.count[e],
                    g.trains[e], g.slopes[e], g.counts[e], g.overflows[e], g.found[e], g.places[e], g.totals[e],
                    first, stop,
                )  # fmt: skip

    return kernel.ctypes
