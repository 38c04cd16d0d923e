"""What is noted at spikes and releases, and whether there is room for it."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.lanes import windows
from firstspike.spiketime.cpu.lanes.state import DUE, FIXED, HOLD, RELEASE, SLOPE, TIME, UP, recurs
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, jit
from firstspike.spiketime.cpu.vectors.simd import lowest_bit


@chosen_by_type
def has_room(g, at, lane):
    """Whether a lane may spike once more."""
    return windows.has_room.py_func if recurs(g) else lambda g, at, lane: g.counts[at.kept, lane] < g.most


@chosen_by_type
def send(g, at, lane, count):
    """Tell others of a spike, in recurrent layers."""
    return windows.send.py_func if recurs(g) else lambda g, at, lane, count: None


@jit
def spent(g, at, lanes):
    """Those of the lanes that have no room for one more spike."""
    found = np.uint64(0)
    while lanes:
        lane = lowest_bit(lanes)
        lanes &= lanes - np.uint64(1)
        found |= np.uint64(not has_room(g, at, lane)) << np.uint64(lane)
    return found


@chosen_by_type
def fixes_twins(g):
    """Whether a spike observed no later than a spike or release before it is fixed, as of closed neurons."""
    closed = g.kind[0] == "closed"
    return lambda g: closed


@jit
def note_spikes(g, at, fires, observes):
    """Note the spikes TIME of the lanes ``fires``, with what is known of them."""
    rows, counts = g.state[at.kept], g.counts[at.kept]
    while fires:
        lane = lowest_bit(fires)
        fires &= fires - np.uint64(1)
        count, j, time = counts[lane], at.first + lane, rows[TIME + lane]
        g.slopes[at.b, j, count], g.ups[at.b, j, count + 1] = rows[SLOPE + lane], rows[UP + lane]
        if observes and fixes_twins(g):
            before = max(rows[RELEASE + lane], g.spikes[at.b, j, count - 1] if count > 0 else rows[RELEASE + lane])
            if not time > before:
                g.slopes[at.b, j, count] = FIXED
        counts[lane] = count + 1
        free = time + rows[HOLD + lane]
        rows[RELEASE + lane] = free if free > time else -math.inf
        if observes:
            rows[DUE + lane] = g.spikes[at.b, j, count + 1] if count + 1 < g.most else math.inf
        else:
            g.spikes[at.b, j, count] = time
        send(g, at, lane, count)


@jit
def note_releases(g, at, freed):
    """Note the slopes UP of the lanes ``freed`` where they are released, by the number of their spikes before."""
    while freed:
        lane = lowest_bit(freed)
        freed &= freed - np.uint64(1)
        g.ups[at.b, at.first + lane, g.counts[at.kept, lane]] = g.state[at.kept, UP + lane]
