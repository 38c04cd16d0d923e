"""Recurrent layers window after window: what may arrive in one, its order, and what neurons send.

The spikes of one window are inputs of the next ones, by the last columns of the weights: events count input spikes,
then spike k of neuron j as ``events + k outputs + j``. Synaptic delays are at least as long as a window, or all neurons
see their spikes again after the same lag.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, PAD
from firstspike.spiketime.cpu.lanes.lists import spread
from firstspike.spiketime.cpu.lanes.state import At, at_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from, sort_row
from firstspike.spiketime.cpu.vectors.shuffles import columns16, pack16, sort_lanes, transpose16
from firstspike.spiketime.cpu.vectors.simd import fill16, fill32, gather16, load16, load32, lowest_bit, select, store

BLOCK = 8  # windows within which the gradients of an event are found at once


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
    begin, end, n, owns = g.bounds_of[w], g.bounds_of[w + 1], 0, g.inputs - g.outputs
    events, sources, times = g.due_events[slot], g.due_sources[slot], g.due_times[slot]
    order, arrival, count, reach = g.order[b], g.arrival[b], np.intp(g.numbered[b, 0]), g.reach
    k = first_from(arrival, 0, count, begin - reach[0])
    while k > 0 and arrival[k - 1] + reach[0] >= begin:
        k -= 1
    while k < count and arrival[k] < end:
        events[n], sources[n], times[n] = order[k], order[k] // g.copies, arrival[k]
        n, k = n + 1, k + 1
    since, fresh = w, n
    while since > 0 and g.bounds_of[since] + reach[1] >= begin:
        since -= 1
    for v in range(since, w):
        fresh = n
        for r in range(g.ranges):
            start = sent_by(g, r)
            for entry in range(start + g.sent_at[b, r, v], start + g.sent_at[b, r, v + 1]):
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
        for k in range(n, n + 16):
            sources[k], times[k] = 0, math.inf
        return Window(w, begin, end, n, fresh, events, sources, times)
    places, rows, moments = g.due_places[slot], g.due_rows[slot], g.due_moments[slot]
    n = sort_row(times[:n], begin, end, places, moments, g.sort_keys[slot], g.sort_labels[slot])
    moments[n] = math.inf
    for k in range(n):
        places[k], rows[k] = events[places[k]], sources[places[k]]
    return Window(w, begin, end, n, n, places, rows, moments)


@inlined
def sent_by(g, r):
    """Where the spikes of a range of groups begin in those of a sample that were sent."""
    return r * g.groups // g.ranges * LANES * g.most


@inlined
def at_in(g, slot, owner, e, b, place, chunk, window):
    """A group of a network in a window of a sample. What is kept of it from window to window has an ``owner``.

    Forward, ``chunk`` is the range of groups that it belongs to.
    """
    at = at_of(g, slot, e, b, place, chunk, 0)
    kept = owner * g.groups + place
    return At(slot, e, b, at.group, at.first, at.every, chunk, 0, kept, window.begin, window.end, window)


@jit
def has_room(g, at, lane):
    """Whether a lane may spike once more in the window."""
    count = g.counts[at.kept, lane]
    if count < g.before[at.kept, lane] + g.budget and count == g.most:
        g.lacks[at.b] = 1  # all is done again with more room
    return count < min(g.before[at.kept, lane] + g.budget, g.most)


@jit
def send(g, at, lane, count):
    """Tell later windows of a spike."""
    number = at.window.number + 1
    if number < g.windows:
        entry = g.sent_at[at.b, at.chunk, number]
        g.sent[at.b, sent_by(g, at.chunk) + entry] = g.events + count * g.outputs + at.first + lane
        g.sent_at[at.b, at.chunk, number] = entry + 1


@jit
def loss_by(g, at, lane, number):
    """The loss by the time of a spike, also by its arrivals at other neurons."""
    j = at.first + lane
    return g.grad[at.b, j, number] + g.times_parts[0, at.b, g.events + number * g.outputs + j]


@jit
def is_stuck(g, at, lane):
    """Whether a lane had no room for a spike in the window."""
    return (np.uint64(g.full[at.b, at.window.number, at.first // LANES]) >> np.uint64(lane)) & np.uint64(1) != 0


@jit
def input_at(g, at, event):
    """The column of an event, when it arrives at each lane, and those at which it does in the window."""
    i = np.intp(at.window.sources[event])
    if g.delayed > 0:
        return i, *arrivals(g, at, at.window, event)
    return i, fill32(g.times, at.window.times[event]), at.every


@inlined
def arrivals(g, at, window, k):
    """When event ``k`` arrives at each lane, and those at which it does in the window."""
    place = np.uintp(k)  # without a sign, an index needs no test for one below 0
    arrival = load32(g.delays[at.group], np.uintp(window.sources[place]) * np.uintp(LANES)) + window.times[place]
    if k >= window.fresh:
        arrival = max(arrival, window.begin)
    return arrival, (arrival >= window.begin) & (window.end > arrival) & at.every


@jit
def due_at(g, at, window, end, begun):
    """The events of a window that may arrive in it at one of 32 lanes, and 16 that never do, as a window up to ``end``.

    Unless ``begun``, those alone that arrive nowhere before. Delays and weights of others are not even read.
    """
    events, sources, times = g.due_places[at.slot], g.due_rows[at.slot], g.due_moments[at.slot]
    soonest, latest, n, fresh = g.soonest[at.group], g.latest[at.group], 0, 0
    for begin in range(0, window.n, 16):
        moments = load16(window.times, begin)
        first = gather16(soonest, 0, window.sources, begin) + moments
        last = gather16(latest, 0, window.sources, begin) + moments
        begins = last >= window.begin if begun else first >= window.begin
        fresh_here = ~np.uint64(0) << np.uint64(min(max(window.fresh - begin, 0), 16))
        taken = (begins | fresh_here) & (window.end > first)
        while taken:
            k, place = np.uintp(begin + lowest_bit(taken)), np.uintp(n)
            taken &= taken - np.uint64(1)
            events[place], sources[place], times[place] = window.events[k], window.sources[k], window.times[k]
            n += 1
            fresh += k < np.uintp(window.fresh)
    for k in range(n, n + 16):
        sources[k], times[k] = 0, math.inf
    return Window(window.number, window.begin, end, n, fresh, events, sources, times)


@jit
def sort_due(g, at):
    """Sort the inputs of each of 32 lanes, as ``lists`` describes."""
    n = _hand_over(g, at, due_at(g, at, at.window, at.end, True), g.packed[at.group])
    sort_lanes(g.keys[at.slot], g.values[at.slot], n)
    if g.planes > 1:
        spread(g, at, n)
    return g.keys[at.slot], g.values[at.slot], None, n


@jit
def _hand_over(g, at, window, weight):
    """Give each lane what arrives at it, one after the other, from 16 events at once; returns how many rows.

    The first events may arrive at all lanes, such as inputs without delays: whole rows.
    """
    tile, places, delay, keys, values = g.tile[at.slot], g.lengths[at.slot], g.delays[at.group], g.keys, g.values
    times, weights, never, rows, common = g.lists[at.slot, 0], g.lists[at.slot, 1], fill16(g.tile, math.inf), 0, 0
    several, none = g.planes > 1, fill16(g.tile, -1.0 if g.planes > 1 else 0.0)  # of several, columns are sorted
    while common < window.n:
        source, time = np.uintp(window.sources[common]), window.times[common]
        if not (g.soonest[at.group, source] + time >= window.begin and g.latest[at.group, source] + time < window.end):
            break
        arrival = select(at.every, load32(delay, source * np.uintp(LANES)) + time, math.inf)
        w = fill32(keys, source) if several else load32(weight, source * np.uintp(LANES))
        store(keys[at.slot], common * LANES, arrival)
        store(values[at.slot], common * LANES, select(at.every, w, -1.0 if several else 0.0))
        common += 1
    size = (window.n + 31) // 32 * 32 + 16  # of a lane's list; an odd number of cache lines
    for lane in range(LANES):
        places[lane] = lane * size
    for k in range(common, window.n, 16):
        fresh = ~np.uint64(0) << np.uint64(min(max(window.fresh - k, 0), 16))
        moments, floor = load16(window.times, k), select(fresh, fill16(tile, window.begin), never * -1.0)
        for half in range(0, LANES, 16):
            columns16(delay, window.sources, k, LANES, half, tile, 0)
            if several:
                for i in range(16):
                    tile[256 + i] = window.sources[k + i]
            else:
                columns16(weight, window.sources, k, LANES, half, tile, 256)
            for lane in range(16):
                own = load16(tile, 256 if several else 256 + 16 * lane)
                arrival, to = max(load16(tile, 16 * lane) + moments, floor), np.intp(places[half + lane])
                inside = (arrival >= window.begin) & (window.end > arrival)
                pack16(inside, times, to, arrival)
                places[half + lane] = pack16(inside, weights, to, own)
    for lane in range(LANES):
        if at.every >> np.uint64(lane) == 0:
            places[lane] = lane * size
        rows = max(rows, places[lane] - lane * size)
    for lane in range(LANES):
        for place in range(places[lane], lane * size + rows, 16):
            store(times, place, never)
            store(weights, place, none)
    for row in range(0, rows, 16):
        for half in range(0, LANES, 16):
            to = (common + row) * LANES + half
            transpose16(times, half * size + row, size, keys[at.slot], to, LANES)
            transpose16(weights, half * size + row, size, values[at.slot], to, LANES)
    return common + rows
