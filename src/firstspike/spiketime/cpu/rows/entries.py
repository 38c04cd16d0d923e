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
N_LANES = N_STATE + 8 * TILE
SEEN = TILE + 2  # where ``lanes`` has the numbers of observed spikes before the window


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
