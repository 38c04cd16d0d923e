"""What arrives in a window: each spike is handed to its targets, of which each has a list in its lane."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes.windows import Window
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.shuffles import sort_lanes
from firstspike.spiketime.cpu.vectors.simd import fill32, highest, load32, select, store


@jit
def pieces_of(g, slot, seer, window, back):
    """The events of a window, with the synapses through which they arrive in it: a piece of their rows.

    With delays, events without any are left out. Windows follow one another, or ``back``, and what was seen of a row in
    the one before tells where the piece begins, or ends.
    """
    if g.delayed == 0:
        return window
    seen, lag, n, begin, end = g.seen[seer], g.lag, 0, window.begin, window.end
    if window.number == (g.windows - 1 if back else 0):
        seen[:] = -1
    for event in range(window.n):
        i, sent, name = np.intp(window.sources[event]), window.times[event], window.events[event]
        first, last, known = g.offsets[i], g.offsets[i + 1], np.intp(seen[name])
        if back:
            last = known if known >= 0 else _first_after(lag, first, last, sent, end)
            if event < window.fresh:
                first = _last_before(lag, first, last, sent, begin)
            seen[name] = first
        else:
            if known >= 0:
                first = known
            elif event < window.fresh:
                first = _first_after(lag, first, last, sent, begin)
            last = _first_after(lag, first, last, sent, end)
            seen[name] = last
        if first < last:
            g.due_places[slot, n], g.due_rows[slot, n] = first, last
            window.events[n], window.sources[n], window.times[n] = name, i, sent
            n += 1
    return Window(window.number, begin, end, n, n, window.events, window.sources, window.times)


@jit
def arriving(g, slot, window, event):
    """The synapses through which an event arrives in a window: the first of them, and the one after the last."""
    if g.delayed > 0:
        return np.intp(g.due_places[slot, event]), np.intp(g.due_rows[slot, event])
    i = np.intp(window.sources[event])
    return g.offsets[i], g.offsets[i + 1]


@jit
def _first_after(lag, first, last, sent, time):
    """The first synapse, from one up to another, through which a spike arrives at a time or later: soon, as a rule."""
    step = 1
    while first < last and sent + lag[min(first + step, last) - 1] < time:
        first, step = min(first + step, last), 2 * step
    return _searched(lag, first, min(first + step, last), sent, time)


@jit
def _last_before(lag, first, last, sent, time):
    """``_first_after``, from the last synapse on."""
    step = 1
    while first < last and not sent + lag[max(last - step, first)] < time:
        last, step = max(last - step, first), 2 * step
    return _searched(lag, max(last - step, first), last, sent, time)


@jit
def _searched(lag, first, last, sent, time):
    while first < last:
        middle = (first + last) >> 1
        if sent + lag[np.uintp(middle)] < time:
            first = middle + 1
        else:
            last = middle
    return first


@inlined
def of_groups(g, begin, end, first, last):
    """Those of a source's synapses that lead to some groups, if there are no delays: targets are in order then."""
    if g.delayed == 0 and (first > 0 or last < g.groups):
        return first_from(g.head, begin, end, first * LANES), first_from(g.head, begin, end, last * LANES)
    return begin, end


@jit
def deal(g, slot, window, first, last, rows, quiet):
    """Give the neurons of some groups what arrives at them in a window; without delays, in order of arrival.

    In a ``quiet`` window, only groups that wait are given any. Returns the length of the longest list, or -1 if one has
    no room in its ``rows``.
    """
    lengths, arrivals, weights, most = g.lengths[slot], g.arrivals[slot], g.weights[slot], np.uintp(0)
    lengths[first * LANES : last * LANES] = 0
    start, stop, some, waits = np.uintp(first * LANES), np.uintp(last * LANES), first > 0 or last < g.groups, g.waits
    receptor, kinds, limit = g.times.dtype.type(0), g.receptors_of[slot], np.uintp(rows - 1)
    for event in range(window.n):
        sent = arrival = window.times[event]
        if g.planes > 1:
            receptor = g.times.dtype.type(g.receptor[0, np.intp(window.sources[event])])
        begin, end = of_groups(g, *arriving(g, slot, window, event), first, last)
        for s in range(np.uintp(begin), np.uintp(end)):
            j = np.uintp(g.head[s])
            if some and g.delayed > 0 and not (j >= start and j < stop):
                continue
            if quiet and waits[slot, j // np.uintp(LANES)] == 0:
                continue
            if g.delayed > 0:
                arrival = max(sent + g.lag[s], window.begin)
            k, group, lane = np.uintp(lengths[j]), (j - start) // np.uintp(LANES), j % np.uintp(LANES)
            if k == limit:
                return -1
            lengths[j] += 1
            most = max(most, k)
            place = (group * np.uintp(rows) + k) * np.uintp(LANES) + lane
            arrivals[place], weights[place] = arrival, g.scaled[s]
            if g.planes > 1:
                kinds[place] = receptor
    return np.intp(most)


@jit
def list_of(g, at, first, rows):
    """What arrives at each lane of a group, as ``lanes.lists`` describes, from lists of groups from ``first`` on."""
    place = at.first // LANES - first
    here = slice(place * rows * LANES, (place + 1) * rows * LANES)
    keys, weights = g.arrivals[at.slot, here], g.weights[at.slot, here]
    lengths, never, none = load32(g.lengths[at.slot], at.first), fill32(keys, math.inf), fill32(keys, 0.0)
    n = np.intp(highest(lengths))
    for row in range(0, n * LANES, LANES):
        there = lengths > float(row // LANES)
        store(keys, row, select(there, load32(keys, row), never))
        store(weights, row, select(there, load32(weights, row), none))
    store(keys, n * LANES, never)
    sorts = g.delayed > 0 and n > 1
    if g.planes == 1:
        if sorts:
            sort_lanes(keys, weights, n)
        return keys, weights, None, n
    kinds, values, turns = g.receptors_of[at.slot, here], g.values[at.slot], g.turns[at.slot]
    if sorts:
        for row in range(n):
            store(turns, row * LANES, fill32(keys, row))
        sort_lanes(keys, turns, n)
    for plane in range(g.planes):
        to = plane * g.sorted * LANES
        for row in range(0, n * LANES, LANES):
            if sorts:
                for lane in range(LANES):
                    since = np.intp(turns[row + lane]) * LANES + lane
                    values[to + row + lane] = weights[since] if kinds[since] == plane else 0
            else:
                store(values, to + row, select(load32(kinds, row) == float(plane), load32(weights, row), none))
    return keys, values, None, n
