"""Backward of spike trains in a window: the part of each spike and release in the adjoint, before the walk back."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import N_CONSTANTS, PER_MEM, SPAN, TILE, X, padded, rates_of
from firstspike.spiketime.cpu.membrane import rise
from firstspike.spiketime.cpu.rows import adjoint
from firstspike.spiketime.cpu.rows.adjoint import Into, unwind_tile
from firstspike.spiketime.cpu.rows.entries import Entries
from firstspike.spiketime.cpu.rows.intervals import N_BACKWARD, Sample
from firstspike.spiketime.cpu.rows.joins import exceeds
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    lanes_of,
    load,
    load16,
    load_whole16,
    lowest,
    prefetch32,
    select,
    splat,
    store,
)


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
    counts, spiked = entries.lanes, np.uintp(entries.most * TILE)
    for entry in range(entries.found.size, entries.found.size + 16):
        rows_of[entry] = places_of[entry] = 0
    for lane in range(TILE):
        counts[lane] = 0
    for number in range(entries.found.size - 1, -1, -1):
        entry = np.uintp(number)  # without a sign, an index needs no test for one below 0
        place = np.uintp(entries.places[entry])
        rows_of[entry], places_of[entry] = max(entries.found[entry], 0), place
        spikes[adjoint.TIME, place], spikes[adjoint.SLOPE, place] = entries.moments[entry], entries.slopes[entry]
        spikes[adjoint.ASKED, place] = asked[entry]
        if place < spiked:
            counts[place & np.uintp(TILE - 1)] += 1


@jit
def jumps(zero, state, entries, holds, arrival, inputs, c, bound, spikes):
    """Fill in how a tile's spikes in one window change y, without those that the bound drops. Returns whether any is.

    ``spikes`` have the places of ``Entries``. The time of a release that there is not is ``inf``. ``inputs`` are the
    first and the last place in ``arrival`` that are none of the window's marks.
    """
    counts, most = entries.lanes, entries.most
    dropped = False
    none, row = fill16(state, 0.0), spikes.shape[1]
    for first in range(0, lanes_of(zero), 16):
        number = load_whole16(state, counts, first)
        last = np.intp(-lowest(number * -1.0))
        drop = load16(state, adjoint.DROP + first) * c[PER_MEM]
        for k in range(last - 1, -1, -1):
            place, there = k * TILE + first, number > float(k)
            time, slope = load16(spikes, adjoint.TIME * row + place), load16(spikes, adjoint.SLOPE * row + place)
            asked = load16(spikes, adjoint.ASKED * row + place) / load16(state, adjoint.LEVEL + first)
            possible = (slope > 0.0) & there
            slope = select(possible, slope, fill16(state, 1.0))
            following = load16(state, adjoint.NEXT_T + first)
            if holds:
                release_of(state, first, most + k + 1, there, c, spikes)
                after, change = none, (load16(state, adjoint.PULL + first) + asked) / slope
            else:
                after = load16(state, adjoint.NEXT_Y + first) * exp((time - following) * c[PER_MEM])
                store(state, adjoint.RESETS + first, load16(state, adjoint.RESETS + first) + select(there, after, none))
                change = fma(after, drop, asked) / slope  # not y - after, of which a small slope leaves no digit
            change = select(possible, change, after * -1.0)
            y = after + change
            if bound < math.inf:
                store(state, adjoint.NOW_C + first, y)
                for lane in range(first, first + 16):
                    before = arrival[inputs[0]]
                    if holds and spikes[adjoint.TIME, (most + k) * TILE + lane] < math.inf:
                        before = spikes[adjoint.TIME, (most + k) * TILE + lane]
                    elif k > 0:
                        before = spikes[adjoint.TIME, (k - 1) * TILE + lane]
                    factor, allowed = abs(state[adjoint.NOW_C + lane]), bound * state[adjoint.UNIT + lane]
                    if exceeds(factor, allowed, spikes[adjoint.TIME, k * TILE + lane], before, arrival, inputs, c):
                        state[adjoint.NOW_C + lane], dropped = 0, True
                kept = load16(state, adjoint.NOW_C + first)
                change, y = select((kept > y) | (kept < y), after * -1.0, change), kept
            store(spikes, adjoint.JUMP * row + place, change)
            store(state, adjoint.TOTAL + first, load16(state, adjoint.TOTAL + first) + select(there, y, none))
            store(state, adjoint.NEXT_Y + first, select(there, y, load16(state, adjoint.NEXT_Y + first)))
            store(state, adjoint.NEXT_T + first, select(there, time, following))
            if holds:
                store(state, adjoint.PULL + first, select(there, none, load16(state, adjoint.PULL + first)))
        if holds:
            release_of(state, first, most, np.uint64(0xFFFF), c, spikes)
    return dropped


@jit
def release_of(state, first, slot, there, c, spikes):
    """The releases of 16 lanes: y before them is 0, and PULL becomes their part for the spikes before."""
    place, row, none = slot * TILE + first, spikes.shape[1], fill16(state, 0.0)
    time, again = load16(spikes, adjoint.TIME * row + place), load16(spikes, adjoint.SLOPE * row + place)
    released = (fill16(state, math.inf) > time) & there
    if not released:
        return
    time = select(released, time, none)
    y = load16(state, adjoint.NEXT_Y + first)
    later = y * exp(min(time - load16(state, adjoint.NEXT_T + first), 0.0) * c[PER_MEM])
    store(state, adjoint.RESETS + first, load16(state, adjoint.RESETS + first) + select(released, later, none))
    store(spikes, adjoint.JUMP * row + place, later * -1.0)
    store(state, adjoint.PULL + first, select(released, later * again, load16(state, adjoint.PULL + first)))
    store(state, adjoint.NEXT_Y + first, select(released, none, y))


@jit
def scale_jumps(spikes, n, rows_of, places_of, start, arrival, c):
    """How the changes at n spikes and releases enter the scaled E' and C' of their intervals, in the entries' order."""
    r, row = rates_of(c), spikes.shape[1]
    for entry in range(0, n, 16):
        begin, latest = gather16(start, 0, rows_of, entry), gather16(arrival, 0, rows_of, entry)
        time = gather16(spikes, adjoint.TIME * row, places_of, entry)
        into_e = gather16(spikes, adjoint.JUMP * row, places_of, entry) * exp((begin - time) * r.faster)
        since = rise(max(time - latest, 0.0), r.delta, r.per_rise)
        store(spikes, adjoint.INTO_E * row + entry, into_e)
        store(spikes, adjoint.INTO_C * row + entry, into_e * since * exp(min(time - begin, c[SPAN] * 2) * r.delta))


@jit
def unwind_window(zero, g, e, slot, chunk, group, tile, b, w):
    """Spike trains of a tile in a window of a sample."""
    n, at, part = g.count[e, b, w], g.starts[e, b, w], w * g.tiles + tile
    low, high = g.upto[e, b, part], g.upto[e, b, part + 1]
    c, begin, carried, packed = g.c, tile * TILE, g.carried[e, b], g.packed[e, tile]
    asks = g.asks_end != 0 or w < g.windows - 1
    if n == 0 or (low == high and not asks):
        return
    begins, stops, here = g.bounds[w] > -math.inf, g.bounds[w + 1] < math.inf, slice(at, at + padded(n))
    state, spikes, arrival = g.state[slot], g.all_spikes[slot], g.arrival[e, b, here]
    rows_of, places_of = g.rows_of[slot], g.places_of[slot]
    entries = Entries(
        g.lanes[slot], g.budget, g.found[e, b, low:high], g.places[e, b, low:high],
        g.moments[e, b, low:high], g.slopes[e, b, low:high],
    )  # fmt: skip
    gather_entries(entries, g.asked[e, b, low:high], spikes, rows_of, places_of)
    sample = Sample(
        g.source[e, b, here], arrival, n, g.ends[e, b, here], g.segments[e, b, w], rows_of_window(g.rows[e, b], n, at)
    )
    inputs, until = (1 if begins else 0, n - 2 if stops else n - 1), g.bounds[w + 1] if stops else arrival[n - 1]
    wants_weight, wants_times, holds = g.weight_chunks > 0, g.time_groups > 0, g.holds != 0
    never = c.dtype.type(math.inf)
    by_weight = g.weight_parts[e, chunk, tile] if wants_weight else g.sums[slot]  # which nothing is added to
    by_times = g.times_parts[e, group, b, here] if wants_times else g.sums[slot]
    bound, start, top = c[N_CONSTANTS] if wants_weight else never, g.start[e, b, here], n - 1
    if not asks:
        top = np.intp(entries.found[high - low - 1])
    total, resets = load(zero, state, adjoint.TOTAL), load(zero, state, adjoint.RESETS)
    full = np.uint64(g.full[e, b, tile, w])
    start_window(zero, state, carried, begin, full, until)
    dropped = jumps(zero, state, entries, holds, arrival, inputs, c, bound, spikes)
    scale_jumps(spikes, high - low, rows_of, places_of, start, arrival, c)
    if dropped:  # for the weights alone
        into = Into(g.sums[slot], by_weight, by_times, True, False)
        unwind_tile(zero, packed, sample, state, None, entries, spikes, top, asks, c, into)
        store(state, adjoint.TOTAL, total)
        store(state, adjoint.RESETS, resets)
        start_window(zero, state, carried, begin, full, until)
        jumps(zero, state, entries, holds, arrival, inputs, c, never, spikes)
        scale_jumps(spikes, high - low, rows_of, places_of, start, arrival, c)
    if not dropped or wants_times or begins:
        into = Into(g.sums[slot], by_weight, by_times, wants_weight and not dropped, wants_times)
        unwind_tile(zero, packed, sample, state, None, entries, spikes, top, asks, c, into)
    for entry in range(high - low):
        spikes[adjoint.TIME, np.uintp(entries.places[np.uintp(entry)])] = math.inf
    if begins:
        response, decay = load(zero, state, adjoint.NOW_C), load(zero, state, adjoint.NOW_E)
        store(carried, begin, fma(response, max(c[X], 0.0), decay))
        store(carried, carried.shape[1] + begin, response)
        store(carried, 2 * carried.shape[1] + begin, load(zero, state, adjoint.PULL))


@jit
def start_window(zero, state, carried, begin, full, until):
    """The adjoint of a tile at the end of a window. Lanes ``full`` would spike too often there."""
    width = carried.shape[1]
    y = load(zero, carried, begin)
    store(state, adjoint.RESETS, load(zero, state, adjoint.RESETS) + select(full, y, zero))
    y = select(full, zero, y)
    store(state, adjoint.END_Y, y)
    store(state, adjoint.NEXT_Y, y)
    store(state, adjoint.END_C, load(zero, carried, width + begin))
    store(state, adjoint.PULL, load(zero, carried, 2 * width + begin))
    store(state, adjoint.NEXT_T, splat(zero, until))


@jit
def rows_of_window(rows, n, at):
    """The rows of a window whose events begin at ``at``."""
    stride = padded(n)
    return rows.reshape(rows.size)[N_BACKWARD * at : N_BACKWARD * (at + stride)].reshape(N_BACKWARD, stride)
