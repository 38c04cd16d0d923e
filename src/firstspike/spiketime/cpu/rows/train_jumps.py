"""Backward of spike trains in a window: the part of each spike and release in the adjoint, before the walk back."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import TILE, constants, padded, rates_of
from firstspike.spiketime.cpu.membrane import rise
from firstspike.spiketime.cpu.rows.adjoint import Events, Into, Tile, into_of, spikes_in, state_in, unwind_tile
from firstspike.spiketime.cpu.rows.entries import Entries, so_far
from firstspike.spiketime.cpu.rows.intervals import N_BACKWARD, Sample, walk_rows
from firstspike.spiketime.cpu.rows.joins import exceeds
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.rows import like, named_rows, sixteen
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    lanes_of,
    load_whole16,
    lowest,
    prefetch32,
    select,
    splat,
)

carried_in = named_rows("Carried", "y c pull")
"""The adjoint of a sample's neurons between two windows."""


@inlined
def fetch_entries(g, e, b, part):
    """Have the processor read the entries of a sample for a tile in a window, which come next."""
    for entry in range(g.upto[e, b, part], g.upto[e, b, part + 1], 32):
        prefetch32(g.found[e, b], entry)
        prefetch32(g.places[e, b], entry)
        prefetch32(g.moments[e, b], entry)
        prefetch32(g.slopes[e, b], entry)
        prefetch32(g.asked[e, b], entry)


@jit
def gather_entries(entries, asked, spikes, rows_of, places_of):
    """Spread a window's spikes and releases, and the gradients with respect to them, over ``spikes``.

    Their rows and places go to ``rows_of`` and ``places_of``, with 0 for those that vectors reach beyond.
    """
    counts, spiked = entries.counts, np.uintp(entries.most * TILE)
    for entry in range(entries.found.size, entries.found.size + 16):
        rows_of[entry] = places_of[entry] = 0
    for lane in range(TILE):
        counts[lane] = 0
    for number in range(entries.found.size - 1, -1, -1):
        entry = np.uintp(number)  # without a sign, an index needs no test for one below 0
        place = np.uintp(entries.places[entry])
        rows_of[entry], places_of[entry] = max(entries.found[entry], 0), place
        it = spikes[place]
        it.time, it.slope, it.asked = entries.moments[entry], entries.slopes[entry], asked[entry]
        if place < spiked:
            counts[place & np.uintp(TILE - 1)] += 1


@jit
def jumps(tile, entries, spikes, holds, arrival, inputs, bound):
    """Fill in how a tile's spikes in one window change y, without those that the bound drops. Returns whether any is.

    ``spikes`` have the places of ``Entries``. The time of a release that there is not is ``inf``. ``inputs`` are the
    first and the last place in ``arrival`` that are none of the window's marks.
    """
    state, c, most, dropped, none = tile.state, tile.c, entries.most, False, fill16(tile.zero, 0.0)
    for first in range(0, lanes_of(tile.zero), 16):
        some, number = sixteen(state, first), load_whole16(arrival, entries.counts, first)
        last = np.intp(-lowest(number * -1.0))
        drop = some.drop * c.mem
        for k in range(last - 1, -1, -1):
            they, there = sixteen(spikes, k * TILE + first), number > float(k)
            time, slope, asked = they.time, they.slope, they.asked / some.level
            possible = (slope > 0.0) & there
            slope = select(possible, slope, 1.0)
            following = some.next_t
            if holds:
                release_of(some, sixteen(spikes, (most + k + 1) * TILE + first), there, c)
                after, change = none, (some.pull + asked) / slope
            else:
                after = some.next_y * exp((time - following) * c.mem)
                some.resets += select(there, after, none)
                change = fma(after, drop, asked) / slope  # not y - after, of which a small slope leaves no digit
            change = select(possible, change, after * -1.0)
            y = after + change
            if bound < math.inf:
                some.now_c = y
                for lane in range(first, first + 16):
                    own, before = state[lane], arrival[inputs[0]]
                    if holds and spikes[(most + k) * TILE + lane].time < math.inf:
                        before = spikes[(most + k) * TILE + lane].time
                    elif k > 0:
                        before = spikes[(k - 1) * TILE + lane].time
                    spike = spikes[k * TILE + lane].time
                    if exceeds(abs(own.now_c), bound * own.unit, spike, before, arrival, inputs, c):
                        own.now_c, dropped = 0, True
                kept = some.now_c
                change, y = select((kept > y) | (kept < y), after * -1.0, change), kept
            they.jump = change
            some.total += select(there, y, none)
            some.next_y, some.next_t = select(there, y, some.next_y), select(there, time, following)
            if holds:
                some.pull = select(there, none, some.pull)
        if holds:
            release_of(some, sixteen(spikes, most * TILE + first), np.uint64(0xFFFF), c)
    return dropped


@jit
def release_of(some, they, there, c):
    """The releases of 16 lanes: y before them is 0, and PULL becomes their part for the spikes before."""
    time, again, none = they.time, they.slope, fill16(some, 0.0)
    released = (fill16(some, math.inf) > time) & there
    if not released:
        return
    time = select(released, time, none)
    y = some.next_y
    later = y * exp(min(time - some.next_t, 0.0) * c.mem)
    some.resets += select(released, later, none)
    they.jump = later * -1.0
    some.pull = select(released, later * again, some.pull)
    some.next_y = select(released, none, y)


@jit
def scale_jumps(spikes, n, rows_of, places_of, start, arrival, c):
    """How the changes at n spikes and releases enter the scaled E' and C' of their intervals, in the entries' order."""
    r = rates_of(c)
    for entry in range(0, n, 16):
        begin, latest = gather16(start, 0, rows_of, entry), gather16(arrival, 0, rows_of, entry)
        time, they = gather16(spikes.time, 0, places_of, entry), sixteen(spikes, entry)
        into_e = gather16(spikes.jump, 0, places_of, entry) * exp((begin - time) * r.faster)
        since = rise(max(time - latest, 0.0), r.delta, r.per_rise)
        they.into_e = into_e
        they.into_c = into_e * since * exp(min(time - begin, c.span * 2) * r.delta)


@jit
def unwind_window(zero, g, at, w):
    """Spike trains of a tile in a window of a sample."""
    e, b, tile, slot = at.e, at.b, at.tile, at.slot
    n, first, part = g.count[e, b, w], g.starts[e, b, w], w * g.tiles + tile
    low, high = g.upto[e, b, part], g.upto[e, b, part + 1]
    asks = g.asks_end != 0 or w < g.windows - 1
    if n == 0 or (low == high and not asks):
        return
    begins, stops, here = g.bounds[w] > -math.inf, g.bounds[w + 1] < math.inf, slice(first, first + padded(n))
    spikes, arrival = spikes_in(g.all_spikes[slot]), g.arrival[e, b, here]
    state, c = like(zero, state_in(g.state[slot], 0), 0), constants(g)
    carried, neurons = like(zero, carried_in(g.carried[e, b]), tile * TILE), Tile(zero, state, c)
    entries = Entries(
        g.lanes[slot], so_far(g.totals[slot], 0), g.budget, g.found[e, b, low:high], g.places[e, b, low:high],
        g.moments[e, b, low:high], g.slopes[e, b, low:high],
    )  # fmt: skip
    gather_entries(entries, g.asked[e, b, low:high], spikes, g.rows_of[slot], g.places_of[slot])
    rows, segments = rows_of_window(g.rows[e, b], n, first), g.segments[e, b, w]
    sample = Sample(g.source[e, b, here], arrival, n, g.ends[e, b, here], segments, rows)
    inputs, until = (1 if begins else 0, n - 2 if stops else n - 1), g.bounds[w + 1] if stops else arrival[n - 1]
    holds, into, never, start = g.holds != 0, into_of(g, at, first), arrival.dtype.type(math.inf), g.start[e, b, here]
    bound, top = c.bound if into.wants_weight else never, n - 1
    if not asks:
        top = np.intp(entries.found[high - low - 1])
    total, resets = state.total, state.resets
    full, events = np.uint64(g.full[e, b, tile, w]), Events(entries.found, entries.places, spikes)
    start_window(zero, state, carried, full, until)
    dropped = jumps(neurons, entries, spikes, holds, arrival, inputs, bound)
    scale_jumps(spikes, high - low, g.rows_of[slot], g.places_of[slot], start, arrival, c)
    if dropped:  # for the weights alone
        weights = Into(into.sums, into.by_weight, into.by_times, True, False)
        unwind_tile(neurons, g.packed[e, tile], sample, None, events, top, asks, weights)
        state.total, state.resets = total, resets
        start_window(zero, state, carried, full, until)
        jumps(neurons, entries, spikes, holds, arrival, inputs, never)
        scale_jumps(spikes, high - low, g.rows_of[slot], g.places_of[slot], start, arrival, c)
    if not dropped or into.wants_times or begins:
        rest = Into(into.sums, into.by_weight, into.by_times, into.wants_weight and not dropped, into.wants_times)
        unwind_tile(neurons, g.packed[e, tile], sample, None, events, top, asks, rest)
    for entry in range(high - low):
        spikes[np.uintp(entries.places[np.uintp(entry)])].time = math.inf
    if begins:
        carried.y = fma(state.now_c, max(c.x, 0.0), state.now_e)
        carried.c, carried.pull = state.now_c, state.pull


@jit
def start_window(zero, state, carried, full, until):
    """The adjoint of a tile at the end of a window. Lanes ``full`` would spike too often there."""
    y = carried.y
    state.resets += select(full, y, zero)
    state.end_y = state.next_y = select(full, zero, y)
    state.end_c, state.pull, state.next_t = carried.c, carried.pull, splat(zero, until)


@jit
def rows_of_window(rows, n, at):
    """The rows of a window whose events begin at ``at``."""
    stride = padded(n)
    here = rows.reshape(rows.size)[N_BACKWARD * at : N_BACKWARD * (at + stride)]
    return walk_rows(here.reshape(N_BACKWARD, stride))
