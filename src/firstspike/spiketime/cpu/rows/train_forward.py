"""Spike trains, forward: events are sorted for each sample, then each tile of neurons scans them without an end.

The scan is that of ``forward``; where a lane spikes see ``spikes`` and ``intervals``. A window's start holds the states
that are given, its end those that are returned. Without recurrence there is one window.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.pack import TILE, pack_tile
from firstspike.spiketime.cpu.rows.coefficients import (
    BOUND,
    MEM,
    RISE,
    SYN,
    TANGENT,
    find_segments,
    forward_rows,
    pad_row,
)
from firstspike.spiketime.cpu.rows.crossing import ENOUGH, NOW_CURRENT, NOW_VOLTAGE
from firstspike.spiketime.cpu.rows.events import stride_for, window_events
from firstspike.spiketime.cpu.rows.intervals import (
    DROP,
    HOLD,
    LAST,
    N_LANES,
    NEXT,
    RELEASE,
    SEEN,
    earliest_due,
    lanes_due,
    released_in_row,
    spikes_between,
)
from firstspike.spiketime.cpu.rows.spikes import spikes_in_row
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import count_on
from firstspike.spiketime.cpu.runtime.tasks import PHASE, SIGNATURE, TASKS, next_task, reader
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.simd import fma, keep, load, select, splat, store, unowned, zeros

STATES = 3  # of a neuron: membrane, current, and what is left of its refractory time


@jit
def scan_trains(
    zero, packed, source, arrival, ends, segments, rows, stops, every, holds, c, state, lanes, most, observed, found,
    places, moments, slopes,
):  # fmt: skip
    """Spikes of a tile's lanes ``every`` in one window, from the states NOW, which become those at its last event.

    With ``stops``, nothing happens after the last event. With ``holds``, neurons may be refractory, or their spikes be
    ``observed``.
    """
    syn, rise, tangent, bound, mem = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND], rows[MEM]
    near = arrival.dtype.type(ENOUGH)
    active, tested, begin, due_at = every, every, 0, arrival.dtype.type(math.inf)
    if holds:
        active &= ~refractory_lanes(state)
        if observed.shape[0] > 0:
            tested = np.uint64(0)
            active = before_inputs(zero, state, lanes, most, active, every, arrival[0], c, observed, found, places,
                                   moments, slopes)  # fmt: skip
        due_at = earliest_due(zero, state)
    for segment in range(segments):
        end = ends[segment]
        voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        for k in range(begin, end - 1):
            at = np.uintp(k)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(source[at]) * TILE), syn[at], current)
            following = fma(current, rise[at], voltage)
            # the coarse test of ``rows``; rise is 0 where the next input arrives at the same time
            if any_reaches(following, mem[at] * near) and rise[at] > 0:
                candidates = (fma(current, tangent[at], voltage) >= bound[at]) & active & tested
                if candidates:
                    store(state, NOW_VOLTAGE * TILE, voltage)
                    store(state, NOW_CURRENT * TILE, current)
                    active = spikes_in_row(
                        zero, state, lanes, most, k, candidates, active, holds, rows, arrival, c, found, places,
                        moments, slopes,
                    )  # fmt: skip
                    voltage = load(zero, state, NOW_VOLTAGE * TILE)
                    following = fma(current, rise[at], voltage)
                    if holds:
                        due_at = earliest_due(zero, state)
            if holds and rise[at] > 0 and arrival[at + np.uintp(1)] >= due_at:
                store(state, NOW_VOLTAGE * TILE, voltage)
                store(state, NOW_CURRENT * TILE, current)
                due = lanes_due(zero, state, arrival[k + 1]) & every
                active, due = released_in_row(
                    state, lanes, most, k, active, due, arrival[k], arrival[k + 1], syn[k], rise[k], mem[k + 1], c,
                    found, places, moments, slopes,
                )  # fmt: skip
                voltage = load(zero, state, NOW_VOLTAGE * TILE)
                following = fma(current, rise[at], voltage)
                if due:
                    store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
                    store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
                    active = spikes_between(
                        zero, state, lanes, most, k, active, due, True, arrival[k], arrival[k + 1], c, observed, found,
                        places, moments, slopes,
                    )  # fmt: skip
                    after = load(zero, state, NOW_VOLTAGE * TILE) * mem[k + 1] - current * rise[k]
                    following = select(due & active, fma(current, rise[at], after), following)
                due_at = earliest_due(zero, state)
            voltage = following
        k = end - 1
        current = fma(load(zero, packed, np.intp(source[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else arrival.dtype.type(math.inf)
            active = spikes_between(
                zero, state, lanes, most, k, active, every, holds, arrival[k], until, c, observed, found, places,
                moments, slopes,
            )  # fmt: skip
            if holds:
                due_at = earliest_due(zero, state)
        begin = end


@jit
def refractory_lanes(state):
    """Lanes that are refractory."""
    held = np.uint64(0)
    for lane in range(TILE):
        held |= np.uint64(state[RELEASE, lane] < math.inf) << np.uint64(lane)
    return held


@jit
def before_inputs(zero, state, lanes, most, active, every, first, c, observed, found, places, moments, slopes):
    """Observed spikes before the first event: they cannot be the membrane's, but reset it."""
    start = earliest_due(zero, state)
    if start >= first:
        return active
    return spikes_between(
        zero, state, lanes, most, -1, active, every, True, start, first, c, observed, found, places, moments, slopes
    )


@jit
def start_tile(zero, state, carried, begin):
    """States of a tile at a window's start."""
    width, never = carried.shape[1], splat(zero, math.inf)
    store(state, NOW_VOLTAGE * TILE, load(zero, carried, begin))
    store(state, NOW_CURRENT * TILE, load(zero, carried, width + begin))
    store(state, RELEASE * TILE, load(zero, carried, 2 * width + begin))
    store(state, NEXT * TILE, never)
    store(state, LAST * TILE, never * -1.0)


@jit
def end_tile(zero, state, lanes, most, holds, carried, begin, size):
    """Keep the states at a window's end; neurons that spike too often or are refractory have the reset membrane."""
    width, held = carried.shape[1], holds
    store(carried, begin, load(zero, state, NOW_VOLTAGE * TILE))
    store(carried, width + begin, load(zero, state, NOW_CURRENT * TILE))
    store(carried, 2 * width + begin, load(zero, state, RELEASE * TILE))
    for lane in range(size):
        held |= lanes[lane] > most
    for lane in range(size if held else 0):
        if lanes[lane] > most or state[RELEASE, lane] < math.inf:
            carried[0, begin + lane] = 1 - state[DROP, lane]


@jit
def start_samples(held, threshold, reset, begin, carried, trains, counts, overflows, first, stop):
    """The states at the start, in units of the threshold; no spikes yet."""
    for b in range(first, stop):
        at = b - first
        for j in range(carried.shape[2]):
            carried[at, 0, j], carried[at, 1, j], carried[at, 2, j] = 0, 0, math.inf
        for j in range(trains.shape[1]):
            trains[b, j] = math.inf
            counts[b, j], overflows[b, j] = 0, 0
            if begin > -math.inf:
                carried[at, 0, j], carried[at, 1, j] = held[b, 0, j] / threshold[j], held[b, 1, j] / threshold[j]
                if held[b, 2, j] > 0:
                    carried[at, 0, j], carried[at, 2, j] = reset[j] / threshold[j], begin + held[b, 2, j]


@jit
def keep_spikes(lanes, most, budget, begin, size, low, high, places, moments, trains, counts, overflows):
    """Write a window's spikes, the entries from ``low`` to ``high``, into the trains of a tile.

    Returns the lanes that would spike more than ``budget`` times, as bits.
    """
    for entry in range(low, high):
        place = places[entry]
        k, j = place // TILE, begin + (place & (TILE - 1))
        if k >= budget:
            continue  # a release
        k += counts[j]
        if k < most:
            trains[j, k] = moments[entry]
        else:
            overflows[j] = 1
    full = np.int64(0)
    for lane in range(size):
        counts[begin + lane] += min(lanes[lane], budget)
        over = lanes[lane] > budget
        overflows[begin + lane] |= np.uint8(over)
        full |= np.int64(over) << np.int64(lane)
    return full


@jit
def scan_samples(
    zero, times, copies, sources, threshold, reset, refractory, observed, held, packed, c, bounds, lag, budget, holds,
    rows, ends, outside, outside_order, own, own_id, own_sorted, own_order, carried, order, source, arrival, starts,
    count, trains, counts, overflows, found, places, moments, slopes, upto, full, lacks, first, stop,
):  # fmt: skip
    """Sort and scan the samples from ``first`` to ``stop`` of one network with all its tiles, window after window.

    ``held`` has states at the start and then at the end. All from ``rows`` to ``carried`` is working memory for as many
    samples. Where there is too little room for entries, events or own spikes on their way, ``lacks`` says so, and
    nothing else that is written has a meaning.
    """
    outputs, most, windows, tiles = trains.shape[1], trains.shape[2], bounds.size - 1, packed.shape[0]
    stride, samples = rows.shape[2], stop - first
    memory = (
        np.empty(stride, times.dtype), np.zeros((4, samples), np.int32), np.zeros((N_LANES, TILE), times.dtype),
        np.zeros(2 * TILE + 2, np.int32),
    )  # fmt: skip
    sorting = sort_scratch(times, max(outside.shape[1], own.shape[1]))
    scratch = unowned_scratch(sorting)
    start, numbers, state, lanes = (
        unowned(memory[0]), unowned(memory[1]), unowned(memory[2]), unowned(memory[3])
    )  # fmt: skip
    segments, at_event, events, owns = numbers[0], numbers[1], numbers[2], numbers[3]
    start_samples(held, threshold, reset, bounds[0], carried, trains, counts, overflows, first, stop)
    for b in range(first, stop):
        at = b - first
        events[at] = sort_row(times[b], outside_order[at], outside[at], scratch)
        starts[b, 0], lacks[b], upto[b, :, 0] = 0, 0, 0
    for w in range(windows):
        for b in range(first, stop):
            at, begin = b - first, starts[b, w]
            n, at_event[at], owns[at] = window_events(
                bounds[w], bounds[w + 1], sources, outputs, copies, outside[at], outside_order[at], at_event[at],
                events[at], own[at], own_sorted, own_order, own_id[at], owns[at], places[b], order[b], source[b],
                arrival[b], begin, min(stride, arrival.shape[1] - begin), scratch,
            )  # fmt: skip
            if n < 0:
                lacks[b] = 1
                return  # all is done again with more room
            count[b, w], starts[b, w + 1] = n, begin + stride_for(n)
            if n:
                here = arrival[b, begin:]
                pad_row(here, n)
                segments[at] = find_segments(here, n, c, math.inf, start, ends[at])
                forward_rows(here, n, c, True, start, rows[at])
        for tile in range(tiles):
            begin = tile * TILE
            size = min(TILE, outputs - begin)
            every = ~np.uint64(0) >> np.uint64(64 - size)
            for lane in range(size):
                state[DROP, lane] = 1 - reset[begin + lane] / threshold[begin + lane]
                state[HOLD, lane] = refractory[begin + lane]
            for b in range(first, stop):
                at, low = b - first, upto[b, tile, w]
                for lane in range(TILE):
                    lanes[lane] = 0
                lanes[TILE] = low
                start_tile(zero, state, carried[at], begin)
                seen = observed[b, begin:begin] if observed.shape[2] == 0 else observed[b, begin:]
                for lane in range(size if seen.shape[0] > 0 else 0):
                    lanes[SEEN + lane] = done = counts[b, begin + lane]
                    state[NEXT, lane] = seen[lane, done] if done < seen.shape[1] else math.inf
                if count[b, w]:
                    here = starts[b, w]
                    scan_trains(
                        zero, packed[tile], source[b, here:], arrival[b, here:], ends[at], segments[at], rows[at],
                        bounds[w + 1] < math.inf, every, holds, c, state, lanes, budget, seen, found[b, tile],
                        places[b, tile], moments[b, tile], slopes[b, tile],
                    )  # fmt: skip
                end_tile(zero, state, lanes, budget, holds, carried[at], begin, size)
                high = lanes[TILE]
                upto[b, tile, w + 1] = high
                full[b, tile, w] = keep_spikes(
                    lanes, most, budget, begin, size, low, high, places[b, tile], moments[b, tile], trains[b],
                    counts[b], overflows[b],
                )  # fmt: skip
                for entry in range(low, high if w < windows - 1 else low):
                    if places[b, tile, entry] < budget * TILE:
                        if owns[at] == own.shape[1]:
                            lacks[b] = 1
                            break
                        own[at, owns[at]] = moments[b, tile, entry] + lag
                        own_id[at, owns[at]] = entry * tiles + tile
                        owns[at] += 1
                lacks[b] |= lanes[TILE + 1]
                if lacks[b]:
                    return
    for b in range(first, stop):
        at = b - first
        for j in range(outputs):
            held[b, 3, j], held[b, 4, j] = carried[at, 0, j] * threshold[j], carried[at, 1, j] * threshold[j]
            release = carried[at, 2, j]
            held[b, 5, j] = max(release - bounds[windows], 0) if release < math.inf else 0
    keep(memory)
    keep(sorting)


TRAIN_FORWARD = Layout(
    "ensemble batch inputs copies sources outputs most seen budget windows block threads taken tiles packed_size "
    "events room stride waiting row_kinds constants entries bounds_size states both_states holds two carried_lanes",
    c="real constants",
    bounds="real bounds_size",
    lags="real two",
    times="real ensemble batch events",
    weight="real ensemble outputs sources",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    refractory="real ensemble outputs",
    observed="real ensemble batch outputs seen",
    held="real ensemble batch both_states outputs",
    packed="real ensemble tiles packed_size",
    order="int32 ensemble batch room",
    source="int32 ensemble batch room",
    arrival="real ensemble batch room",
    starts="int32 ensemble batch bounds_size",
    count="int32 ensemble batch windows",
    trains="real ensemble batch outputs most",
    counts="int32 ensemble batch outputs",
    overflows="uint8 ensemble batch outputs",
    found="int32 ensemble batch tiles entries",
    places="int32 ensemble batch tiles entries",
    moments="real ensemble batch tiles entries",
    slopes="real ensemble batch tiles entries",
    upto="int32 ensemble batch tiles bounds_size",
    full="int64 ensemble batch tiles windows",
    lacks="int32 ensemble batch",
    rows="real threads block row_kinds stride",
    ends="int32 threads block stride",
    outside="real threads block events",
    outside_order="int32 threads block events",
    own="real threads block waiting",
    own_id="int32 threads block waiting",
    own_sorted="real threads two waiting",
    own_order="int32 threads two waiting",
    carried="real threads block states carried_lanes",
)
_TAKEN = TRAIN_FORWARD.places["taken"]


@kept_on_disk
def train_forward_kernel(dtype: str, lanes: int):
    """The kernel (see ``runtime.tasks``) for one dtype and number of lanes; compiled at the first call."""
    read = reader(TRAIN_FORWARD, dtype)

    @c_function(SIGNATURE, dtype, lanes, following="firstspike.spiketime.cpu.rows.train_backward.train_backward_kernel")
    def kernel(a):
        g = read(a)
        blocks, weights = (g.batch + g.block - 1) // g.block, g.sources * TILE
        slot = count_on(a, _TAKEN) if a[PHASE] == 1 else 0  # of the memory that threads have for themselves
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
                    zeros(g.c, lanes), g.times[e], g.copies, g.sources, g.threshold[e], g.reset[e], g.refractory[e],
                    g.observed[e], g.held[e], g.packed[e], g.c, g.bounds, g.lags[0], g.budget, g.holds != 0,
                    g.rows[slot], g.ends[slot], g.outside[slot], g.outside_order[slot], g.own[slot], g.own_id[slot],
                    g.own_sorted[slot], g.own_order[slot], g.carried[slot], g.order[e], g.source[e], g.arrival[e],
                    g.starts[e], g.count[e], g.trains[e], g.counts[e], g.overflows[e], g.found[e], g.places[e],
                    g.moments[e], g.slopes[e], g.upto[e], g.full[e], g.lacks[e], first, stop,
                )  # fmt: skip

    return kernel.ctypes
