"""Spike trains, window by window: the events of a sample, and the states of its neurons at the start and the end.

An event is a time and a source, the number of the input whose weights arrive. A window's start and end are events of a
source that no neuron has a weight for. In a recurrent layer the neurons' own spikes arrive again, all after the same
lag, which is at least as long as a window.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import PAD
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.crossing import NOW_CURRENT, NOW_VOLTAGE
from firstspike.spiketime.cpu.rows.intervals import DROP, LAST, NEXT, RELEASE
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.sort import first_from, sort_row
from firstspike.spiketime.cpu.vectors.simd import load, splat, store

STATES = 3  # of a neuron: membrane, current, and what is left of its refractory time
TRAINS = {
    "bounds": "real bounds_size",
    "reset": "real ensemble outputs",
    "held": "real ensemble batch both_states outputs",
}
"""Arrays that both kernels have, for a ``Layout``: starts and ends of windows, resets, states at the start and the end.
"""
KEPT = {
    "order": "int32 ensemble batch room",
    "source": "int32 ensemble batch room",
    "arrival": "real ensemble batch room",
    "starts": "int32 ensemble batch bounds_size",
    "count": "int32 ensemble batch windows",
    "found": "int32 ensemble batch tiles entries",
    "places": "int32 ensemble batch tiles entries",
    "moments": "real ensemble batch tiles entries",
    "slopes": "real ensemble batch tiles entries",
    "upto": "int32 ensemble batch tiles bounds_size",
    "full": "int64 ensemble batch tiles windows",
    "counts": "int32 ensemble batch outputs",
}
"""Those that the forward kernel leaves for the backward one.

Of each sample, they are its events, where each window's begin and how many there are; of a tile the entries, see
``intervals``, where each window's begin, and which neurons would spike too often in it, as bits; and numbers of spikes.
"""
_MARK = -1  # of an order: a window's start or end; inputs are >= 0, own spikes lie below


@jit
def own_event(entry):
    """The ``order`` of an own spike, or the spike of an ``order``: ``entry * tiles + tile``."""
    return -2 - entry


@jit
def stride_for(events):
    """Room that a window's events take: whole vectors, and one to spare."""
    return (events + 15) // 16 * 16 + PAD


@jit
def start_samples(g, e, slot, first, stop):
    """Sort the input spikes of the samples; the states at the start, in units of the threshold; no spikes yet."""
    for b in range(first, stop):
        at, held, carried = b - first, g.held[e, b], g.carried[slot, b - first]
        g.arrived[slot, at] = sort_row(
            g.times[e, b], -math.inf, math.inf, g.outside_order[slot, at], g.outside[slot, at], g.sort_keys[slot],
            g.sort_labels[slot],
        )  # fmt: skip
        g.at_event[slot, at], g.owns[slot, at], g.starts[e, b, 0], g.lacks[e, b] = 0, 0, 0, 0
        for tile in range(g.tiles):
            g.upto[e, b, tile, 0] = 0
        for j in range(carried.shape[1]):
            carried[0, j], carried[1, j], carried[2, j] = 0, 0, math.inf
        for j in range(g.outputs):
            for k in range(g.most):
                g.trains[e, b, j, k] = math.inf
            g.counts[e, b, j], g.overflows[e, b, j] = 0, 0
            if g.bounds[0] > -math.inf:
                threshold = g.threshold[e, j]
                carried[0, j], carried[1, j] = held[0, j] / threshold, held[1, j] / threshold
                if held[2, j] > 0:
                    carried[0, j], carried[2, j] = g.reset[e, j] / threshold, g.bounds[0] + held[2, j]


@jit
def end_samples(g, e, slot, first, stop):
    """The states at the end."""
    for b in range(first, stop):
        held, carried = g.held[e, b], g.carried[slot, b - first]
        for j in range(g.outputs):
            held[3, j], held[4, j] = carried[0, j] * g.threshold[e, j], carried[1, j] * g.threshold[e, j]
            release = carried[2, j]
            held[5, j] = max(release - g.bounds[g.windows], 0) if release < math.inf else 0


@jit
def window_events(g, e, slot, b, at, w):
    """Write the events of a sample in window ``w``: those of the inputs, sorted, and own spikes; returns their number.

    The first ``owns`` of ``own`` are times at which own spikes arrive, in any order, and ``own_id`` says which spikes
    they are; those that are used are removed. Returns -1 if there is too little room for the events.
    """
    begin, end, first = g.bounds[w], g.bounds[w + 1], g.starts[e, b, w]
    own, own_id, own_sorted, own_order = g.own[slot, at], g.own_id[slot, at], g.own_sorted[slot], g.own_order[slot]
    outside, outside_order = g.outside[slot, at], g.outside_order[slot, at]
    order, source, arrival = g.order[e, b], g.source[e, b], g.arrival[e, b]
    due, left = 0, 0
    for i in range(g.owns[slot, at]):
        t, which = own[i], own_id[i]
        if t < end:
            own_sorted[0, due], own_order[1, due] = max(t, begin), which
            due += 1
        else:
            own[left], own_id[left] = t, which
            left += 1
    g.owns[slot, at] = left
    if due:
        sort_row(
            own_sorted[0, :due], -math.inf, math.inf, own_order[0], own_sorted[1], g.sort_keys[slot],
            g.sort_labels[slot],
        )  # fmt: skip
    here = first_from(outside, g.at_event[slot, at], g.arrived[slot, at], begin)
    stop, i, k = first_from(outside, here, g.arrived[slot, at], end), 0, first
    room = min(g.stride, g.room - first)
    if stride_for(stop - here + due + (begin > -math.inf) + (end < math.inf)) > room:
        return -1
    if begin > -math.inf:
        arrival[k], source[k], order[k] = begin, g.inputs, _MARK
        k += 1
    while True:
        theirs = here < stop
        if not theirs and i >= due:
            break
        if theirs and (i >= due or outside[here] <= own_sorted[1, i]):
            arrival[k], order[k], source[k] = outside[here], outside_order[here], outside_order[here] // g.copies
            here += 1
        else:
            entry = own_order[1, own_order[0, i]]
            tile = entry % g.tiles
            lane = g.places[e, b, tile, entry // g.tiles] & (TILE - 1)
            arrival[k], order[k] = own_sorted[1, i], own_event(entry)
            source[k] = g.inputs - g.outputs + tile * TILE + lane
            i += 1
        k += 1
    if end < math.inf:
        arrival[k], source[k], order[k] = end, g.inputs, _MARK
        k += 1
    g.at_event[slot, at], g.count[e, b, w], g.starts[e, b, w + 1] = here, k - first, first + stride_for(k - first)
    return k - first


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
def end_tile(zero, state, entries, holds, carried, begin, size):
    """Keep the states at a window's end; neurons that spike too often or are refractory have the reset membrane."""
    width, held = carried.shape[1], holds
    store(carried, begin, load(zero, state, NOW_VOLTAGE * TILE))
    store(carried, width + begin, load(zero, state, NOW_CURRENT * TILE))
    store(carried, 2 * width + begin, load(zero, state, RELEASE * TILE))
    for lane in range(size):
        held |= entries.lanes[lane] > entries.most
    for lane in range(size if held else 0):
        if entries.lanes[lane] > entries.most or state[RELEASE, lane] < math.inf:
            carried[0, begin + lane] = 1 - state[DROP, lane]


@jit
def keep_spikes(entries, begin, size, low, trains, counts, overflows):
    """Write a window's spikes, the entries from ``low`` on, into the trains of a tile.

    Returns the lanes that would spike more than ``entries.most`` times, as bits.
    """
    lanes, budget = entries.lanes, entries.most
    for entry in range(low, lanes[TILE]):
        place = entries.places[entry]
        k, j = place // TILE, begin + (place & (TILE - 1))
        if k >= budget:
            continue  # a release
        k += counts[j]
        if k < trains.shape[1]:
            trains[j, k] = entries.moments[entry]
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
def send_own(g, e, slot, b, at, tile, low, high):
    """Let the spikes among a tile's entries from ``low`` to ``high`` arrive again; whether there is room for them."""
    for entry in range(low, high):
        if g.places[e, b, tile, entry] < g.budget * TILE:
            number = g.owns[slot, at]
            if number == g.waiting:
                return False
            g.own[slot, at, number] = g.moments[e, b, tile, entry] + g.lag[0]
            g.own_id[slot, at, number] = entry * g.tiles + tile
            g.owns[slot, at] = number + 1
    return True
