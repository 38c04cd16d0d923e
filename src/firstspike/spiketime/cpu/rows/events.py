"""Spike trains: the events of a sample, window by window.

An event is a time and a source, the number of the input whose weights arrive. A window's start and end are events of a
source that no neuron has a weight for. In a recurrent layer the neurons' own spikes arrive again, all after the same
lag, which is at least as long as a window.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.saved import PAD
from firstspike.spiketime.cpu.sort import first_from, sort_row

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
def window_events(
    begin, end, sources, outputs, copies, outside, outside_order, at, n, own, own_sorted, own_order, own_id, owns,
    places, order, source, arrival, first, room, scratch,
):  # fmt: skip
    """Write the events in ``[begin, end)`` from ``first`` on: those of the inputs, sorted, and own spikes.

    The first ``owns`` of ``own`` are times at which own spikes arrive, in any order, and ``own_id`` says which spikes
    they are; those that are used are removed. Returns how many events there are, the next of the inputs, and how many
    own spikes are left; -1 events where there is no ``room`` for them.
    """
    tiles, due, left = places.shape[0], 0, 0
    for i in range(owns):
        t, which = own[i], own_id[i]
        if t < end:
            own_sorted[0, due], own_order[1, due] = max(t, begin), which
            due += 1
        else:
            own[left], own_id[left] = t, which
            left += 1
    if due:
        sort_row(own_sorted[0, :due], own_order[0], own_sorted[1], scratch)
    at = first_from(outside, at, n, begin)
    stop, i, k = first_from(outside, at, n, end), 0, first
    if stride_for(stop - at + due + (begin > -math.inf) + (end < math.inf)) > room:
        return -1, at, left
    if begin > -math.inf:
        arrival[k], source[k], order[k] = begin, sources, _MARK
        k += 1
    while True:
        theirs = at < stop
        if not theirs and i >= due:
            break
        if theirs and (i >= due or outside[at] <= own_sorted[1, i]):
            arrival[k], order[k], source[k] = outside[at], outside_order[at], outside_order[at] // copies
            at += 1
        else:
            entry = own_order[1, own_order[0, i]]
            tile = entry % tiles
            lane = places[tile, entry // tiles] & (TILE - 1)
            arrival[k], order[k] = own_sorted[1, i], own_event(entry)
            source[k] = sources - outputs + tile * TILE + lane
            i += 1
        k += 1
    if end < math.inf:
        arrival[k], source[k], order[k] = end, sources, _MARK
        k += 1
    return k - first, at, left
