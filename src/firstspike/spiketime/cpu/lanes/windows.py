"""Spike trains window after window: the possible inputs of a window, and their order.

Without recurrence there is one window. In a recurrent layer the spikes of one window are inputs of the next ones, by
the last columns of the weights: events count input spikes, then spike k of neuron j as ``events + k outputs + j``.
Synaptic delays are at least as long as a window, or all neurons see their spikes again after the same lag.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, PAD
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from, sort_row
from firstspike.spiketime.cpu.vectors.shuffles import sort_lanes
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, lowest_bit, select, store


class Window(NamedTuple):
    """Events that may arrive in a window of a sample, in order if neurons have no delays."""

    number: Any
    begin: Any
    end: Any
    n: Any
    fresh: Any  # from which on they are spikes of the window before, which arrive in this one at the earliest
    events: Any
    sources: Any  # columns of the weights
    times: Any


@jit
def window_of(g, slot, b, w, delayed):
    """The events of a window. Those of the neurons themselves were sent in windows before."""
    begin, end, n, owns = g.bounds[w], g.bounds[w + 1], 0, g.inputs - g.outputs
    events, sources, times = g.due_events[slot], g.due_sources[slot], g.due_times[slot]
    order, arrival, count, reach = g.order[b], g.arrival[b], np.intp(g.count[b, 0]), g.reach
    if g.windows == 1:
        if not delayed:
            return Window(w, begin, end, count, count, order, g.source[b], arrival)
        for event in range(g.events):
            if g.times[b, event] < end:
                events[n], sources[n], times[n] = event, event // g.copies, g.times[b, event]
                n += 1
        return Window(w, begin, end, n, n, events, sources, times)
    k = first_from(arrival, 0, count, begin - reach[0])
    while k > 0 and arrival[k - 1] + reach[0] >= begin:
        k -= 1
    while k < count and arrival[k] < end:
        events[n], sources[n], times[n] = order[k], order[k] // g.copies, arrival[k]
        n, k = n + 1, k + 1
    since, fresh = w, n
    while since > 0 and g.bounds[since] + reach[1] >= begin:
        since -= 1
    for v in range(since, w):
        fresh = n
        for entry in range(g.sent_at[b, v], g.sent_at[b, v + 1]):
            if n == g.dues - PAD:  # all is done again with more room
                g.lacks[b] = 1
                break
            event = g.sent[b, entry]
            j, k = (event - g.events) % g.outputs, (event - g.events) // g.outputs
            events[n], sources[n], times[n] = event, owns + j, g.spikes[b, j, k]
            if not delayed:
                times[n] = max(times[n] + reach[1], begin) if v == w - 1 else times[n] + reach[1]
            n += 1
    if delayed:
        return Window(w, begin, end, n, fresh, events, sources, times)
    places, rows, moments = g.due_places[slot], g.due_rows[slot], g.due_moments[slot]
    n = sort_row(times[:n], begin, end, places, moments, g.sort_keys[slot], g.sort_labels[slot])
    moments[n] = math.inf
    for k in range(n):
        places[k], rows[k] = events[places[k]], sources[places[k]]
    return Window(w, begin, end, n, n, places, rows, moments)


@inlined
def arrivals(g, at, window, k):
    """When event ``k`` arrives at each lane, and those at which it does in the window."""
    arrival = load32(g.delays[at.group], np.uintp(window.sources[k]) * np.uintp(LANES)) + window.times[k]
    if k >= window.fresh:
        arrival = max(arrival, window.begin)
    return arrival, (arrival >= window.begin) & (window.end > arrival) & at.every


@jit
def sort_due(g, at, window, weight):
    """Sort the inputs of each of 32 lanes: times into ``keys``, and weights into ``values``. Returns how many rows.

    What arrives at all lanes fills rows. In a recurrent layer the rest does not: each lane has its own, one after the
    other.
    """
    keys, values, counts, line = g.keys[at.slot], g.values[at.slot], g.filled[at.slot], g.line[at.slot]
    n, never, full, back = 0, fill32(keys, math.inf), -1, g.windows > 1 and g.reach[0] > 0
    for number in range(window.n):
        k = window.n - 1 - number if back else number  # inputs or own spikes may all have the same delay: these first
        arrival, inside = arrivals(g, at, window, k)
        if not inside:
            continue
        place = window.sources[k] * LANES
        if g.windows == 1 or (full < 0 and inside == at.every):
            store(keys, n * LANES, select(inside, arrival, never))
            store(values, n * LANES, load32(weight, place))
            n += 1
            continue
        if full < 0:
            full = n
            for lane in range(LANES):
                counts[lane] = n
        store(line, 0, arrival)
        while inside:
            lane = np.uintp(lowest_bit(inside))  # without a sign, an index needs no test for one below 0
            inside &= inside - np.uint64(1)
            row = counts[lane]
            counts[lane] = row + 1
            if row == n:
                store(keys, n * LANES, never)
                n += 1
            to = np.uintp(row * LANES) + lane
            keys[to], values[to] = line[lane], weight[np.uintp(place) + lane]
    sort_lanes(keys, values, n, LANES)
    return n
