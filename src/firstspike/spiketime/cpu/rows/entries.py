"""Spikes and releases of a tile of neurons, as the scan of a window finds them, and the state that they change."""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import TILE
from firstspike.spiketime.cpu.rows.intervals import N_STATE
from firstspike.spiketime.cpu.runtime.compiling import inlined

# rows of a tile's state after those of ``intervals``
DROP, SINCE, AT, STEEP = range(N_STATE, N_STATE + 4 * TILE, TILE)
# time of a lane's last spike or release in the window, when a refractory lane is released, inf for others; refractory
# time; its next spike, where spikes are observed, otherwise inf
LAST, RELEASE, HOLD, NEXT = range(N_STATE + 4 * TILE, N_STATE + 8 * TILE, TILE)
# of a block of rows: the states before it, by how much a lane exceeds BOUND, and its number as a part of TILE, less 1
START, OVER, PLACE = N_STATE + 8 * TILE, N_STATE + 10 * TILE, N_STATE + 11 * TILE
SPIKES = N_STATE + 12 * TILE  # what is known of 16 spikes, 14 numbers of each
N_LANES = SPIKES + 14 * 16
# what ``lanes`` has after the numbers of ``Entries``: those of observed spikes before the window; or, where spikes are
# the membrane's, the lanes of a block's spikes
SEEN = HITS = TILE + 2
_SORTED = 64  # entries up to which they are taken to be nearly in order


class Entries(NamedTuple):
    """Spikes and releases of a tile in a window, in the order of their rows.

    ``lanes`` has the number of spikes of each lane, then the number of entries, then whether there was no room for one.
    An entry has the row after which it is, the slope of the membrane there, its time, and its place: spike k of a lane
    is at ``k * TILE + lane``, the release after k spikes at ``(most + k) * TILE + lane``.
    """

    lanes: Any
    most: Any
    found: Any
    places: Any
    moments: Any
    slopes: Any


class Tile(NamedTuple):
    """A tile of neurons in a window, but for their inputs, which functions that need none would copy."""

    zero: Any
    state: Any
    entries: Any
    holds: Any  # whether neurons may be refractory, or their spikes be observed
    observed: Any  # (lanes, spikes), without lanes where spikes are those of the membrane
    c: Any


@inlined
def note(entries, k, place, time, slope):
    """Append an entry."""
    total = np.uintp(entries.lanes[TILE])  # without a sign, an index needs no test for one below 0
    if total < np.uintp(entries.found.size):
        entries.found[total], entries.places[total] = k, place
        entries.moments[total], entries.slopes[total] = time, slope
        entries.lanes[TILE] += 1
    else:
        entries.lanes[TILE + 1] = 1


@inlined
def note_spike(state, entries, k, lane, wait, slope, holds, now, end):
    """Note the spike ``wait`` after ``now``, that of row k or later. Returns whether the lane may not spike again.

    Where a lane has more spikes than ``entries.most``, only its count says so.
    """
    count = entries.lanes[lane]
    entries.lanes[lane] = count + 1
    if count >= entries.most:
        return True
    spike = min(now + wait, end)
    previous = max(now, state[LAST + lane])
    if not spike > previous:
        spike = min(np.nextafter(previous, state.dtype.type(math.inf)), end) if previous < end else end
    state[LAST + lane] = spike
    if holds:
        state[RELEASE + lane] = spike + state[HOLD + lane]
    note(entries, k, count * TILE + lane, spike, slope)
    return holds


@inlined
def sort_entries(entries, low):
    """Sort the entries from ``low`` on by their rows, and those of a row by their places, by Shell's method."""
    found, places, moments, slopes = entries.found, entries.places, entries.moments, entries.slopes
    first, stop, gap = np.uintp(low), np.uintp(entries.lanes[TILE]), np.uintp(1)
    while gap * np.uintp(_SORTED) < stop - first:
        gap = gap * np.uintp(3) + np.uintp(1)
    while gap > 0:
        number = first + gap
        while number < stop:
            row, place, at = found[number], places[number], number
            before = at - gap
            if found[before] > row or (found[before] == row and places[before] > place):
                moment, slope = moments[at], slopes[at]
                while found[before] > row or (found[before] == row and places[before] > place):
                    found[at], places[at] = found[before], places[before]
                    moments[at], slopes[at] = moments[before], slopes[before]
                    at = before
                    if at < first + gap:
                        break
                    before = at - gap
                found[at], places[at], moments[at], slopes[at] = row, place, moment, slope
            number += np.uintp(1)
        gap //= np.uintp(3)
