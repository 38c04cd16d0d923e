"""Spikes and releases of a tile of neurons, as the scan of a window finds them, and the state that they change."""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import TILE
from firstspike.spiketime.cpu.rows.intervals import STATE
from firstspike.spiketime.cpu.runtime.compiling import inlined
from firstspike.spiketime.cpu.vectors.rows import named_rows

# of a tile's state, after what first spikes have: how far below the threshold is the reset, relative; the time since
# the last input up to which a lane has come; where it spikes after that input, and the slope there; the time of its
# last spike or release in the window; when a refractory lane is released, inf for others; the refractory time; the next
# spike that was observed, or inf. Of a block of rows: the states before it, by how much a lane exceeds BOUND, and its
# number as a part of TILE, less 1
TRAIN_STATE = f"{STATE} drop elapsed after steep last release hold due start_voltage start_current over place"
so_far = named_rows("SoFar", "number lacks", 1, 1)
"""How many entries there are, and whether there was no room for one."""
_SORTED = 64  # entries up to which they are taken to be nearly in order


class Entries(NamedTuple):
    """Spikes and releases of a tile in a window, in the order of their rows.

    An entry has the row after which it is, the slope of the membrane there, its time, and its place: spike k of a lane
    is at ``k * TILE + lane``, the release after k spikes at ``(most + k) * TILE + lane``.
    """

    counts: Any  # spikes of each lane
    so_far: Any
    most: Any
    found: Any
    places: Any
    moments: Any
    slopes: Any


class Trains(NamedTuple):
    """``intervals.Tile`` in a window."""

    zero: Any
    state: Any
    c: Any
    entries: Any
    holds: Any  # whether neurons may be refractory, or their spikes be observed
    observed: Any  # (lanes, spikes), without lanes where spikes are those of the membrane
    places: Any  # of observed spikes those before the window; where spikes are the membrane's, the lanes of a block's
    solved: Any  # what is known of 16 spikes


@inlined
def note(entries, k, place, time, slope):
    """Append an entry."""
    total = np.uintp(entries.so_far.number)  # without a sign, an index needs no test for one below 0
    if total < np.uintp(entries.found.size):
        entries.found[total], entries.places[total] = k, place
        entries.moments[total], entries.slopes[total] = time, slope
        entries.so_far.number = total + 1
    else:
        entries.so_far.lacks = 1


@inlined
def note_spike(tile, k, lane, wait, slope, now, end):
    """Note the spike ``wait`` after ``now``, that of row k or later. Returns whether the lane may not spike again.

    Where a lane has more spikes than ``entries.most``, only its count says so.
    """
    entries, own = tile.entries, tile.state[lane]
    count = entries.counts[lane]
    entries.counts[lane] = count + 1
    if count >= entries.most:
        return True
    spike = min(now + wait, end)
    previous = max(now, own.last)
    if not spike > previous:
        spike = min(np.nextafter(previous, entries.moments.dtype.type(math.inf)), end) if previous < end else end
    own.last = spike
    if tile.holds:
        own.release = spike + own.hold
    note(entries, k, count * TILE + lane, spike, slope)
    return tile.holds


@inlined
def sort_entries(entries, low):
    """Sort the entries from ``low`` on by their rows, and those of a row by their places, by Shell's method."""
    found, places, moments, slopes = entries.found, entries.places, entries.moments, entries.slopes
    first, stop, gap = np.uintp(low), np.uintp(entries.so_far.number), np.uintp(1)
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
