"""Spike trains window after window: what may arrive in one, and in which order.

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


@inlined
def window_of(g, slot, at, b, w, delayed):
    """A window that ``prepare_window`` has prepared."""
    begin, end, n = g.bounds[w], g.bounds[w + 1], np.intp(g.due_count[slot, at, 0])
    if delayed:
        events, sources, times = g.due_events[slot, at], g.due_sources[slot, at], g.due_times[slot, at]
    elif g.windows == 1:
        events, sources, times = g.order[b], g.source[b], g.arrival[b]
    else:
        events, sources, times = g.due_places[slot, at], g.due_rows[slot, at], g.due_moments[slot, at]
    return Window(w, begin, end, n, np.intp(g.due_count[slot, at, 1]), events, sources, times)


@jit
def prepare_window(g, slot, at, b, w, delayed):
    """Note the events of a window; those of the neurons themselves were sent in windows before."""
    begin, end, n, owns, fresh = g.bounds[w], g.bounds[w + 1], 0, g.inputs - g.outputs, 0
    events, sources, times = g.due_events[slot, at], g.due_sources[slot, at], g.due_times[slot, at]
    if g.windows == 1:
        for event in range(g.events if delayed else 0):
            if g.times[b, event] < end:
                events[n], sources[n], times[n] = event, event // g.copies, g.times[b, event]
                n += 1
        fresh = n = n if delayed else np.intp(g.count[b, 0])
    else:
        order, arrival, count, reach = g.order[b], g.arrival[b], g.count[b, 0], g.reach
        k = first_from(arrival, 0, count, begin - reach[0])
        while k > 0 and arrival[k - 1] + reach[0] >= begin:
            k -= 1
        while k < count and arrival[k] < end:
            events[n], sources[n], times[n] = order[k], order[k] // g.copies, arrival[k]
            n, k = n + 1, k + 1
        since = w
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
                n += 1
        if w == 0:
            fresh = n
        if not delayed:
            n = sort_window(g, slot, at, n, fresh, begin, end)
    g.due_count[slot, at, 0], g.due_count[slot, at, 1] = n, fresh


@jit
def sort_window(g, slot, at, n, fresh, begin, end):
    """Sort the n events of a window, own spikes later by the lag; returns how many there are."""
    events, sources, times = g.due_events[slot, at], g.due_sources[slot, at], g.due_times[slot, at]
    places, moments = g.due_places[slot, at], g.due_moments[slot, at]
    for k in range(n):
        if events[k] >= g.events:
            times[k] = times[k] + g.reach[1]
            if k >= fresh:
                times[k] = max(times[k], begin)
    n = sort_row(times[:n], begin, end, places, moments, g.sort_keys[slot], g.sort_labels[slot])
    moments[n] = math.inf
    for k in range(n):
        places[k], g.due_rows[slot, at, k] = events[places[k]], sources[places[k]]
    return n


@inlined
def arrivals(g, at, window, k):
    """When event ``k`` arrives at each lane, and those at which it does in the window."""
    arrival = load32(g.delays[at.group], np.uintp(window.sources[k]) * np.uintp(LANES)) + window.times[k]
    if k >= window.fresh:
        arrival = max(arrival, window.begin)
    return arrival, (arrival >= window.begin) & (window.end > arrival) & at.every


@jit
def sort_due(g, at, window, weight):
    """Sort what arrives at each of 32 lanes: times into ``keys``, and weights into ``values``; returns how many rows.

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
