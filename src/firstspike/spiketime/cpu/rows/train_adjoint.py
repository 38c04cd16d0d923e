"""Spike trains: the adjoint of one tile of neurons in one sample, from its last spike back to the first event.

Between spikes it is that of ``adjoint``, with ``C = -dL/dI``, ``y = -dL/dV`` and

    E = y - x C where tau_mem is the slower constant, x = 1 - tau_syn/tau_mem;      E = y otherwise

in the scale of ``adjoint``, so that E' is constant and C' grows by ``E' BACK``. A spike changes y, and so E, alone:

    y(T-) = (v+ y(T+) + dL/dT) / v-            v- and v+: slopes of the membrane before and after

All y follow from the spikes, before the events are walked: from one spike to the one before y only decays. So a spike
is one addition to E', and one to C' for the part of the interval that lies after it. A refractory neuron has y = 0; so
has its spike two changes, at its own time to ``y(T-) = (v+ y(release) + dL/dT) / v-`` and at the release to 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import DELTA, HEIGHT, PER_MEM, PER_RISE, PER_SYN, SPAN, X
from firstspike.spiketime.cpu.membrane import kappa, rates_of, responses
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.adjoint import add_row, largest
from firstspike.spiketime.cpu.rows.coefficients import BACK, FAST, SLOW, rise
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    lanes_of,
    load,
    load16,
    maximum,
    minimum,
    select,
    splat,
    store,
)

LEVEL, DROP = 0, 1  # of a tile's lanes: threshold in the neuron's unit, and how far below it is the reset, relative
UNIT = 2
END_Y, END_C = 3, 4  # y and C at the end of the window
NOW_C, NOW_E, NOW = 5, 6, 7  # in an interval of any length: C, E and their time
NEXT_Y, NEXT_T = 8, 9  # of the spike after, or of the end
TOTAL = 10  # of all y at spikes, which are the derivatives by the threshold
PULL = 11  # of a refractory neuron: what its release gives to the spike before, v+ y(release)
N_LANES = 12
JUMP, INTO_E, INTO_C, TIME, SLOPE, ASKED = range(6)  # of a spike: the change of y, that of E' and, with a minus, of C',
N_SPIKES = 6  # its time, the slope of the membrane, and the gradient by it


@jit
def gather_entries(entries, begin, own, grad, seen, spikes, rows_of):
    """Spread a window's spikes and releases over ``spikes``; ``seen`` are spikes up to the window, and then before."""
    counts, budget = entries.lanes, entries.most
    for lane in range(TILE):
        counts[lane] = 0
    for number in range(entries.found.size - 1, -1, -1):
        entry = np.uintp(number)  # without a sign, an index needs no test for one below 0
        place = np.uintp(entries.places[entry])
        rows_of[place] = max(entries.found[entry], 0)
        spikes[TIME, place], spikes[SLOPE, place] = entries.moments[entry], entries.slopes[entry]
        if place < np.uintp(budget * TILE):
            lane = place & np.uintp(TILE - 1)
            j = np.uintp(begin) + lane
            counts[lane] += 1
            seen[j] -= 1
            k = np.uintp(seen[j])
            asked = grad[j, k] if k < np.uintp(grad.shape[1]) else 0
            spikes[ASKED, place] = asked + (own[entry] if own.size > 0 else 0)


@jit
def jumps(zero, state, entries, holds, rows_of, arrival, inputs, start, c, bound, spikes):
    """Fill in what the spikes of a tile in one window do, without those that the bound drops; returns whether any is.

    Spike k of a lane is at ``k * TILE + lane`` of ``spikes``; with ``holds``, the release after k spikes at
    ``(most + k) * TILE + lane``, its time ``inf`` where there is none. ``inputs`` are the first and the last place in
    ``arrival`` that are none of the window's marks.
    """
    counts, most = entries.lanes, entries.most
    dropped = False
    none, row = fill16(state, 0.0), spikes.shape[1]
    for first in range(0, lanes_of(zero), 16):
        last = 0
        for lane in range(first, first + 16):
            last = max(last, counts[lane])
        drop = load16(state, DROP * TILE + first) * c[PER_MEM]
        for k in range(last - 1, -1, -1):
            place, there = k * TILE + first, np.uint64(0)
            for lane in range(16):
                there |= np.uint64(counts[first + lane] > k) << np.uint64(lane)
            time, slope = load16(spikes, TIME * row + place), load16(spikes, SLOPE * row + place)
            asked = load16(spikes, ASKED * row + place) / load16(state, LEVEL * TILE + first)
            possible = (slope > 0.0) & there
            slope = select(possible, slope, fill16(state, 1.0))
            following = load16(state, NEXT_T * TILE + first)
            if holds:
                release_of(state, first, most + k + 1, there, rows_of, arrival, start, c, spikes)
                after, y = none, (load16(state, PULL * TILE + first) + asked) / slope
            else:
                after = load16(state, NEXT_Y * TILE + first) * exp((time - following) * c[PER_MEM])
                y = fma(after, slope + drop, asked) / slope
            y = select(possible, y, none)
            if bound < math.inf:
                store(state, NOW_C * TILE + first, y)
                for lane in range(first, first + 16):
                    factor, allowed = abs(state[NOW_C, lane]), bound * state[UNIT, lane]
                    if counts[lane] > k and factor * c[HEIGHT] > allowed:
                        before = arrival[inputs[0]]
                        if holds and spikes[TIME, (most + k) * TILE + lane] < math.inf:
                            before = spikes[TIME, (most + k) * TILE + lane]
                        elif k > 0:
                            before = spikes[TIME, (k - 1) * TILE + lane]
                        if factor * largest(spikes[TIME, k * TILE + lane], before, arrival, inputs, c) > allowed:
                            state[NOW_C, lane], dropped = 0, True
                y = load16(state, NOW_C * TILE + first)
            put(spikes, place, y - after, time, start, arrival, rows_of, c)
            store(state, TOTAL * TILE + first, load16(state, TOTAL * TILE + first) + select(there, y, none))
            store(state, NEXT_Y * TILE + first, select(there, y, load16(state, NEXT_Y * TILE + first)))
            store(state, NEXT_T * TILE + first, select(there, time, following))
            if holds:
                store(state, PULL * TILE + first, select(there, none, load16(state, PULL * TILE + first)))
        if holds:
            release_of(state, first, most, np.uint64(0xFFFF), rows_of, arrival, start, c, spikes)
    return dropped


@jit
def release_of(state, first, slot, there, rows_of, arrival, start, c, spikes):
    """What the releases of 16 lanes do: y before them is 0, and PULL becomes what they give to the spikes before."""
    place, row, none = slot * TILE + first, spikes.shape[1], fill16(state, 0.0)
    time, again = load16(spikes, TIME * row + place), load16(spikes, SLOPE * row + place)
    released = (fill16(state, math.inf) > time) & there
    if not released:
        return
    time = select(released, time, none)
    y = load16(state, NEXT_Y * TILE + first)
    later = y * exp(minimum(time - load16(state, NEXT_T * TILE + first), 0.0) * c[PER_MEM])
    put(spikes, place, later * -1.0, time, start, arrival, rows_of, c)
    store(state, PULL * TILE + first, select(released, later * again, load16(state, PULL * TILE + first)))
    store(state, NEXT_Y * TILE + first, select(released, none, y))


@jit
def put(spikes, place, jump, time, start, arrival, rows_of, c):
    """Note what 16 spikes or releases do, and how the change enters the scaled E' and C' of the interval."""
    faster, rate, row = max(c[PER_MEM], c[PER_SYN]), abs(c[DELTA]), spikes.shape[1]
    begin, ahead = gather16(start, 0, rows_of, place), gather16(arrival, 1, rows_of, place)
    into_e = exp((begin - time) * faster)
    rest = rise(maximum(ahead - time, 0.0), rate, abs(c[PER_RISE]))
    into_c = into_e * rest * exp(minimum(ahead - begin, c[SPAN] * 2) * rate)
    store(spikes, JUMP * row + place, jump)
    store(spikes, INTO_E * row + place, jump * into_e)
    store(spikes, INTO_C * row + place, jump * into_c)


@jit
def unwind_trains(zero, packed, sample, state, entries, spikes, c, into, asks_end):
    """Walk back from the last spike, or with ``asks_end`` from the end of the window, to the first event.

    Gradients are added to the tile's. E and C at the first event become NOW_E and NOW_C.
    """
    n, ends, rows, sums = sample.n, sample.ends, sample.rows, into.sums
    found, places = entries.found, entries.places
    slow, fast, back = rows[SLOW], rows[FAST], rows[BACK]
    response = decay = zero
    p = found.size - 1
    k = np.intp(n - 1) if asks_end else np.intp(found[p])
    for i in range(((k & 15) + 1) * 16, sums.size):
        sums[i] = 0
    segment = sample.segments - 1
    while segment > 0 and ends[segment - 1] > k:
        segment -= 1
    if asks_end:
        response = load(zero, state, END_C * TILE) * (1 / slow[k])
        decay = end_of(zero, state, c) * (1 / fast[k])
    while segment >= 0:
        begin, last = ends[segment - 1] if segment > 0 else 0, ends[segment] - 1
        if k == last:
            if k < n - 1 or (p >= 0 and found[p] == k):
                p = before_row(zero, state, k, sample, response, decay, entries, p, spikes, c)
                response = load(zero, state, NOW_C * TILE) * (1 / slow[k])
                decay = load(zero, state, NOW_E * TILE) * (1 / fast[k])
            add_row(zero, packed, sample, k, response, decay, into)
            k -= 1
        following = np.intp(found[p]) if p >= 0 else -1
        while k >= begin:
            row = np.uintp(k)  # without a sign, an index needs no test for one below 0
            while following == k:
                place = np.uintp(places[np.uintp(p)])
                bit = np.uint64(1) << (place & np.uintp(TILE - 1))
                decay = select(bit, decay + spikes[INTO_E, place], decay)
                response = select(bit, response - spikes[INTO_C, place], response)
                p -= 1
                following = np.intp(found[np.uintp(p)]) if p >= 0 else -1
            response = fma(decay, back[row], response)
            add_row(zero, packed, sample, k, response, decay, into)
            k -= 1
        segment -= 1
    store(state, NOW_C * TILE, response)
    store(state, NOW_E * TILE, decay)


@jit
def end_of(zero, state, c):
    """E at the end of the window."""
    return load(zero, state, END_Y * TILE) - load(zero, state, END_C * TILE) * max(c[X], 0.0)


@jit
def before_row(zero, state, k, sample, response, decay, entries, p, spikes, c):
    """C and E just after input k, the last of a segment, from those at the next input, which is far away or missing.

    All have scale 1. Returns what is left of the spikes.
    """
    arrival, n, found, places = sample.arrival, sample.n, entries.found, entries.places
    store(state, NOW_C * TILE, response)
    store(state, NOW_E * TILE, decay)
    slower, faster = min(c[PER_MEM], c[PER_SYN]), max(c[PER_MEM], c[PER_SYN])
    store(state, NOW * TILE, splat(zero, arrival[k + 1] if k < n - 1 else arrival[k]))
    while p >= 0 and found[p] == k:
        place = np.intp(places[p])
        lane, time = place & (TILE - 1), spikes[TIME, place]
        wait = max(state[NOW, lane] - time, 0)  # without a next input both are 0 here
        state[NOW_C, lane] = state[NOW_C, lane] * math.exp(-wait * slower) + state[NOW_E, lane] * kappa(wait, c)
        state[NOW_E, lane] = state[NOW_E, lane] * math.exp(-wait * faster) + spikes[JUMP, place]
        state[NOW, lane] = time
        p -= 1
    r = rates_of(c)
    for first in range(0, lanes_of(zero), 16):
        wait = maximum(load16(state, NOW * TILE + first) - arrival[k], 0.0)
        mem, syn, rise = responses(wait, r)
        gone = mem if c[PER_MEM] <= c[PER_SYN] else syn
        quick = syn if c[PER_MEM] <= c[PER_SYN] else mem
        there, faded = load16(state, NOW_C * TILE + first), load16(state, NOW_E * TILE + first)
        store(state, NOW_C * TILE + first, fma(there, gone, faded * rise))
        store(state, NOW_E * TILE + first, faded * quick)
    return p
