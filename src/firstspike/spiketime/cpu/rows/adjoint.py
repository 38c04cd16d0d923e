"""Backward: the adjoint of the scan, from each neuron's spikes back through their causal inputs.

At input k, with ``s = T - t_k``, the faster and the slower time constant, ``F = exp(x/fast)`` and ``L = exp(x/slow)``,
where x is that of ``intervals``, a lane carries

    C' = scale kappa(s) / L_k,     E' = scale exp(-s/fast) / F_k              scale = dL/dT / V'(T)
    C'_k = C'_{k+1} + E' BACK_k                                               E' is constant

and gives ``dL/dw_k = -L_k C'`` and ``dL/dt_k = F_k/tau_syn w_k (E' + LEAK_k C')``, whose terms only cancel where kappa
has its maximum. With first spikes, lanes join at their last causal input, with values computed there; before that they
are 0. Weights, threshold and slopes are in the neuron's unit, see ``arrays``.

With spike trains, ``C = -dL/dI``, ``y = -dL/dV`` and

    E = y - x C where tau_mem is the slower constant, x = 1 - tau_syn/tau_mem;      E = y otherwise

A spike changes y, and so E, alone:

    y(T-) = (v+ y(T+) + dL/dT) / v-            v- and v+: slopes of the membrane before and after

All y follow from the spikes, before the events are walked: from one spike to the one before y only decays. So a spike
is one addition to E', and one to C' for the part of the interval that lies after it. A refractory neuron has y = 0; so
has its spike two changes, at its own time to ``y(T-) = (v+ y(release) + dL/dT) / v-`` and at the release to 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    FLAT,
    HEIGHT,
    PER_MEM,
    PER_SYN,
    REST_MEM,
    REST_SYN,
    SPAN,
    SUMMIT,
    TILE,
    X,
    rates_of,
)
from firstspike.spiketime.cpu.membrane import exact_slope, fades, kappa
from firstspike.spiketime.cpu.rows.intervals import BACK, FAST, LEAK, SLOW, rise
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.lanes import fold16, sum_rows16
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    lanes_of,
    load,
    load16,
    load_some16,
    load_whole16,
    lowest_bit,
    select,
    splat,
    store,
    store_whole16,
)

UNIT, LEVEL = 0, 1  # of a tile's lanes: the neuron's unit, and the threshold in it
TOTAL = 2  # of all scales, or of all y at spikes, the derivative by the threshold
SCALE, RESPONSE, DECAY = 3, 4, 5  # first spikes: the scale; C' and E' with which each joins
DROP = 3  # trains: how far below the threshold is the reset, relative
END_Y, END_C = 4, 5  # y and C at the end of the window
NOW_C, NOW_E, NOW = 6, 7, 8  # in an interval of any length: C, E and their time
NEXT_Y, NEXT_T = 9, 10  # of the spike after, or of the end
PULL = 11  # of a refractory neuron: what its release gives to the spike before, v+ y(release)
N_LANES = 12
JUMP, INTO_E, INTO_C, TIME, SLOPE, ASKED = range(6)  # of a spike: the change of y, that of E' and, with a minus, of C',
N_SPIKES = 6  # its time, the slope of the membrane, and the gradient by it


_WHOLE = np.uint64(0xFFFF)


class Into(NamedTuple):
    """What one walk back adds to; ``sums`` has the 16 rows that ``by_times``, in order of arrival, takes at once."""

    sums: Any
    by_weight: Any
    by_times: Any
    wants_weight: Any
    wants_times: Any


@inlined
def settle_flat(g, e, b, begin, first, bits, packed, sample, lanes):
    """Compute the slopes of 16 lanes, ``bits`` of them from ``first`` on, afresh where the spike is next to the peak.

    The tile's first neuron is ``begin``. At the spike time as it was rounded, the slope keeps its digits.
    """
    c, steep = g.c, load_some16(bits, g.slope[e, b], begin + first)
    mem, syn = np.float64(c[PER_MEM]) + np.float64(c[REST_MEM]), np.float64(c[PER_SYN]) + np.float64(c[REST_SYN])
    flat = (steep * steep < c[PER_MEM] * c[PER_SYN] * FLAT) & (abs(steep) > 0.0) & bits
    while flat:
        lane = first + lowest_bit(flat)
        flat &= flat - np.uint64(1)
        level, spike = lanes[LEVEL, lane], g.spikes[e, b, begin + lane]
        n = g.last[e, b, begin + lane] + 1
        slope = exact_slope(sample.arrival, sample.order, n, packed, None, lane, TILE, (mem, syn, 1.0), level, spike)
        g.slope[e, b, begin + lane] = slope / level


@jit
def observe_tile(zero, g, e, slot, b, begin, size, packed, sample):
    """Last causal input and slope, in units of the threshold, of a tile's lanes at spike times from elsewhere."""
    order, arrival, ends, rows, top = sample.order, sample.arrival, sample.ends, sample.rows, -1
    spikes, last, slope = g.spikes[e, b, begin:], g.last[e, b, begin:], g.slope[e, b, begin:]
    c, joins, lanes = g.c, g.joins[slot], g.state[slot]
    for lane in range(size):
        k = first_from(arrival, 0, sample.n, spikes[lane]) - 1 if spikes[lane] < math.inf else -1
        last[lane], slope[lane] = k, 0
        if k >= 0:
            joins[k] |= np.uint64(1) << np.uint64(lane)
            top = max(top, k)
    current, state = zero, lanes[SCALE]  # free until ``join_lanes``
    syn = rows[FAST] if c[PER_MEM] <= c[PER_SYN] else rows[SLOW]
    start = 0
    for segment in range(sample.segments):
        if start > top:
            break
        if start > 0:
            current = current * (math.exp((arrival[start - 1] - arrival[start]) * c[PER_SYN]) / syn[start - 1])
        for row in range(start, min(ends[segment], top + 1)):
            k = np.uintp(row)
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            leaving = joins[k]
            if leaving:
                joins[k] = 0
                store(state, 0, current)
                while leaving:
                    lane = lowest_bit(leaving)
                    leaving &= leaving - np.uint64(1)
                    now = state[lane] / syn[k] * math.exp((arrival[k] - spikes[lane]) * c[PER_SYN])
                    slope[lane] = (now * c[PER_SYN] - lanes[LEVEL, lane] * c[PER_MEM]) / lanes[LEVEL, lane]
        start = ends[segment]


@jit
def join_lanes(zero, g, e, slot, b, begin, every, sample, bound):
    """Where and with which values the lanes ``every`` join; returns the last row, and whether the bound drops any.

    The tile's first neuron is ``begin``. Lanes that the bound drops join without a scale.
    """
    arrival, rows, c, stride, top, dropped = sample.arrival, sample.rows, g.c, sample.rows.shape[1], -1, False
    lanes, places, joins = g.state[slot], g.places[slot], g.joins[slot]
    none, never = fill16(lanes, 0.0), arrival.dtype.type(math.inf)
    for first in range(0, lanes_of(zero), 16):
        bits, at = every >> np.uint64(first) & _WHOLE, begin + first
        if not bits:
            break
        _, asked, scale = joining(g, e, slot, b, begin, first, bits)
        wait = load_some16(bits, g.spikes[e, b], at) - gather16(arrival, 0, places, first)
        left = asked
        while left:
            lane = first + lowest_bit(left)
            left &= left - np.uint64(1)
            row = np.intp(places[lane])
            joins[row] |= np.uint64(1) << np.uint64(lane)
            top = max(top, row)
        suspects = (abs(scale) * c[HEIGHT] > load16(lanes, UNIT * TILE + first) * bound) & asked
        while suspects:
            lane = first + lowest_bit(suspects)
            suspects &= suspects - np.uint64(1)
            factor, allowed, inputs = abs(lanes[SCALE, lane]), bound * lanes[UNIT, lane], (0, np.intp(places[lane]))
            if exceeds(factor, allowed, g.spikes[e, b, begin + lane], -never, arrival, inputs, c):
                lanes[SCALE, lane], dropped = 0, True
        scale = load16(lanes, SCALE * TILE + first)
        _, decay, response = fades(select(asked, wait, none), rates_of(c))
        unit_slow = 1.0 / gather16(rows, SLOW * stride, places, first)
        unit_fast = 1.0 / gather16(rows, FAST * stride, places, first)
        store(lanes, RESPONSE * TILE + first, response * scale * select(asked, unit_slow, none))
        store(lanes, DECAY * TILE + first, decay * scale * select(asked, unit_fast, none))
    return top, dropped


@inlined
def joining(g, e, slot, b, begin, first, bits):
    """How 16 lanes of a tile, ``bits`` of them from ``first`` on, join; the tile's first neuron is ``begin``.

    Returns the places of their last causal inputs (-1 for none), the lanes with a gradient, and the scales.
    """
    last, places, lanes, at = g.last[e, b], g.places[slot], g.state[slot], begin + first
    for lane in range(0 if bits == _WHOLE else 16):
        places[first + lane] = last[at + lane] if bits >> np.uint64(lane) & np.uint64(1) else -1
    k = load_whole16(lanes, last, at) if bits == _WHOLE else load_whole16(lanes, places, first)
    store_whole16(_WHOLE, places, first, max(k, 0.0))
    steep = load_some16(bits, g.slope[e, b], at) * load16(lanes, LEVEL * TILE + first)
    spiked = (k >= 0.0) & (steep > 0.0)
    scale = select(spiked, load_some16(bits, g.grad[e, b], at) / steep, 0.0)
    store(lanes, SCALE * TILE + first, scale)
    return k, spiked & ((scale > 0.0) | (scale < 0.0) | ~(scale >= scale)), scale


@jit
def exceeds(factor, allowed, spike, since, arrival, inputs, c):
    """Whether ``factor`` times the largest response to an input between ``since`` and a spike is more than that."""
    if not factor * c[HEIGHT] > allowed:
        return False
    first, last = inputs
    end = first_from(arrival, first, last + 1, spike)  # the first input that comes too late
    begin = first_from(arrival, first, last + 1, since)
    best = arrival.dtype.type(0)
    if begin > first:
        best = math.exp((arrival[begin - 1] - since) * c[PER_SYN]) * kappa(spike - since, c)
    if begin < end:  # next to the maximum of kappa, on one side or the other
        near = first_from(arrival, begin, end, spike - c[SUMMIT])
        if near > begin:
            best = max(best, kappa(spike - arrival[near - 1], c))
        if near < end:
            best = max(best, kappa(spike - arrival[near], c))
    return factor * best > allowed


@jit
def unwind_tile(zero, packed, sample, state, joins, entries, spikes, k, asks_end, c, into):
    """Walk back from row k to the first, adding to the tile's gradients.

    First spikes have no ``entries`` and no ``spikes``, trains no ``joins``. Trains begin with the last of their spikes,
    or with ``asks_end`` at the end of the window.
    """
    n, arrival, ends, rows, sums = sample.n, sample.arrival, sample.ends, sample.rows, into.sums
    slow, fast, back, r = rows[SLOW], rows[FAST], rows[BACK], rates_of(c)
    response, decay, top = zero, zero, k
    for i in range(((k & 15) + 1) * 16, sums.size):
        sums[i] = 0
    segment = sample.segments - 1
    while segment > 0 and ends[segment - 1] > k:
        segment -= 1
    if entries is not None:
        found, places, p = entries.found, entries.places, entries.found.size - 1
        if asks_end:
            response, decay = load(zero, state, END_C * TILE), load(zero, state, END_Y * TILE)
            decay = (decay - response * max(c[X], 0.0)) * (1 / fast[k])
            response = response * (1 / slow[k])
    while segment >= 0:
        begin, last = ends[segment - 1] if segment > 0 else 0, ends[segment] - 1
        if k == last:
            if entries is not None and (k < n - 1 or (p >= 0 and found[p] == k)):
                p = before_row(zero, state, k, sample, response, decay, entries, p, spikes, c)
                response = load(zero, state, NOW_C * TILE) * (1 / slow[k])
                decay = load(zero, state, NOW_E * TILE) * (1 / fast[k])
            if joins is not None:
                if k < top:
                    duration = arrival[k + 1] - arrival[k]
                    response = fma(response, math.exp(-duration * r.slower), decay * kappa(duration, c)) * (1 / slow[k])
                    decay = decay * (math.exp(-duration * r.faster) / fast[k])
                response, decay = joined(zero, state, joins[k], response, decay)
            add_row(zero, packed, sample, k, response, decay, into)
            k -= 1
        following = -1
        if entries is not None:
            following = np.intp(found[p]) if p >= 0 else -1
        while k >= begin:
            row = np.uintp(k)  # without a sign, an index needs no test for one below 0
            if entries is not None:
                while following == k:
                    place = np.uintp(places[np.uintp(p)])
                    bit = np.uint64(1) << (place & np.uintp(TILE - 1))
                    decay = select(bit, decay + spikes[INTO_E, place], decay)
                    response = select(bit, response - spikes[INTO_C, place], response)
                    p -= 1
                    following = np.intp(found[np.uintp(p)]) if p >= 0 else -1
            response = fma(decay, back[row], response)
            if joins is not None:
                response, decay = joined(zero, state, joins[row], response, decay)
            add_row(zero, packed, sample, k, response, decay, into)
            k -= 1
        segment -= 1
    store(state, NOW_C * TILE, response)
    store(state, NOW_E * TILE, decay)


@inlined
def joined(zero, state, bits, response, decay):
    """C' and E' with those of the lanes that join."""
    if bits:
        response = select(bits, load(zero, state, RESPONSE * TILE), response)
        decay = select(bits, load(zero, state, DECAY * TILE), decay)
    return response, decay


@inlined
def add_row(zero, packed, sample, k, response, decay, into):
    """Add what input k has to the gradients."""
    row, rows, sums = np.uintp(k), sample.rows, into.sums
    first = np.intp(sample.order[row]) * TILE
    if into.wants_weight:
        store(into.by_weight, first, fma(response, rows[SLOW, row], load(zero, into.by_weight, first)))
    if into.wants_times:
        at = k & 15
        store(sums, at * 16, fold16(load(zero, packed, first) * fma(response, rows[LEAK, row], decay)))
        if at == 0:
            store(into.by_times, k, load16(into.by_times, k) + sum_rows16(sums, 0))


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

    ``spikes`` have the places of ``Entries``; the time of a release that there is not is ``inf``. ``inputs`` are the
    first and the last place in ``arrival`` that are none of the window's marks.
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
                    before = arrival[inputs[0]]
                    if holds and spikes[TIME, (most + k) * TILE + lane] < math.inf:
                        before = spikes[TIME, (most + k) * TILE + lane]
                    elif k > 0:
                        before = spikes[TIME, (k - 1) * TILE + lane]
                    factor, allowed = abs(state[NOW_C, lane]), bound * state[UNIT, lane]
                    if exceeds(factor, allowed, spikes[TIME, k * TILE + lane], before, arrival, inputs, c):
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
    later = y * exp(min(time - load16(state, NEXT_T * TILE + first), 0.0) * c[PER_MEM])
    put(spikes, place, later * -1.0, time, start, arrival, rows_of, c)
    store(state, PULL * TILE + first, select(released, later * again, load16(state, PULL * TILE + first)))
    store(state, NEXT_Y * TILE + first, select(released, none, y))


@jit
def put(spikes, place, jump, time, start, arrival, rows_of, c):
    """Note what 16 spikes or releases do, and how the change enters the scaled E' and C' of the interval."""
    r, row = rates_of(c), spikes.shape[1]
    begin, ahead = gather16(start, 0, rows_of, place), gather16(arrival, 1, rows_of, place)
    into_e = exp((begin - time) * r.faster)
    rest = rise(max(ahead - time, 0.0), r.delta, r.per_rise)
    into_c = into_e * rest * exp(min(ahead - begin, c[SPAN] * 2) * r.delta)
    store(spikes, JUMP * row + place, jump)
    store(spikes, INTO_E * row + place, jump * into_e)
    store(spikes, INTO_C * row + place, jump * into_c)


@jit
def before_row(zero, state, k, sample, response, decay, entries, p, spikes, c):
    """C and E just after input k, the last of a segment, from those at the next input, which is far away or missing.

    All have scale 1. Returns what is left of the spikes.
    """
    arrival, n, found, places, r = sample.arrival, sample.n, entries.found, entries.places, rates_of(c)
    store(state, NOW_C * TILE, response)
    store(state, NOW_E * TILE, decay)
    store(state, NOW * TILE, splat(zero, arrival[k + 1] if k < n - 1 else arrival[k]))
    while p >= 0 and found[p] == k:
        place = np.intp(places[p])
        lane, time = place & (TILE - 1), spikes[TIME, place]
        wait = max(state[NOW, lane] - time, 0)  # without a next input both are 0 here
        state[NOW_C, lane] = state[NOW_C, lane] * math.exp(-wait * r.slower) + state[NOW_E, lane] * kappa(wait, c)
        state[NOW_E, lane] = state[NOW_E, lane] * math.exp(-wait * r.faster) + spikes[JUMP, place]
        state[NOW, lane] = time
        p -= 1
    slow, fast, rise = fades(max(load(zero, state, NOW * TILE) - arrival[k], 0.0), r)
    response, decay = load(zero, state, NOW_C * TILE), load(zero, state, NOW_E * TILE)
    store(state, NOW_C * TILE, fma(response, slow, decay * rise))
    store(state, NOW_E * TILE, decay * fast)
    return p
