"""Backward: the adjoint of the scan, from each neuron's spikes back through their causal inputs.

At input k, with ``s = T - t_k``, the faster and the slower time constant, ``F = exp(x/fast)`` and ``L = exp(x/slow)``,
where x is that of ``intervals``, a lane carries

    C' = scale kappa(s) / L_k,     E' = scale exp(-s/fast) / F_k              scale = dL/dT / V'(T)
    C'_k = C'_{k+1} + E' BACK_k                                               E' is constant

and gives ``dL/dw_k = -L_k C'`` and ``dL/dt_k = F_k/tau_syn w_k (E' + LEAK_k C')``, whose terms only cancel where kappa
has its maximum. With first spikes, lanes join at their last causal input, with values computed there. Before that they
are 0. Weights, threshold and slopes are in the neuron's unit, see ``arrays``.

With spike trains, ``C = -dL/dI``, ``y = -dL/dV`` and

    E = y - x C where tau_mem is the slower constant, x = 1 - tau_syn/tau_mem;      E = y otherwise

A spike changes y, and so E, alone:

    y(T-) = (v+ y(T+) + dL/dT) / v-            v- and v+: slopes of the membrane before and after

All y follow from the spikes, before the events are walked: from one spike to the one before y only decays. So a spike
is one addition to E', and one to C' for the part of the interval that lies after it. A refractory neuron has y = 0. So
has its spike two changes, at its own time to ``y(T-) = (v+ y(release) + dL/dT) / v-`` and at the release to 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, TILE, fetch_row, rates_of
from firstspike.spiketime.cpu.membrane import fades, kappa
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.rows import named_rows
from firstspike.spiketime.cpu.vectors.shuffles import SHORT, dot_short, sum_short16
from firstspike.spiketime.cpu.vectors.simd import fma, load, load16, select, splat, store

# of a tile's lanes: the neuron's unit, and the threshold in it; the sum of all scales, or of all y at spikes, which is
# the derivative with respect to the threshold; C and E where a walk ends, or in an interval of any length. First
# spikes: the scale, and C' and E' with which each joins. Trains: how far below the threshold is the reset, relative; y
# and C at the end of the window; y and time of the spike after, or of the end; of a refractory neuron, what its release
# gives to the spike before, v+ y(release); and the sum of y where the membrane starts at the reset
_STATE = "unit level total now_c now_e scale response decay drop end_y end_c next_y next_t pull resets"
N_LANES = TILE * len(_STATE.split())
state_in = named_rows("Adjoint", _STATE, TILE, TILE)
# of a spike: the change of y, that of E' and, with a minus, of C', its time, the slope of the membrane, and the
# gradient with respect to it; the second and third in the order of ``Entries``, the others by their places
_SPIKES = "jump into_e into_c time slope asked"
N_SPIKES = len(_SPIKES.split())
spikes_in = named_rows("Spikes", _SPIKES)


class Tile(NamedTuple):
    """A tile of neurons on the way back."""

    zero: Any
    state: Any
    c: Any


class Events(NamedTuple):
    """The spikes and releases of a tile in a window: their rows and places, in order, and what is known of them."""

    found: Any
    places: Any
    spikes: Any


class Place(NamedTuple):
    """The task of a thread: a tile of neurons in a sample, and the parts that its gradients are added to."""

    e: Any  # network
    slot: Any  # number of the thread
    b: Any  # sample
    tile: Any
    chunk: Any  # of samples
    group: Any  # of tiles


class Into(NamedTuple):
    """The sums of one walk back. ``sums`` has the 16 rows that ``by_times``, in order of arrival, takes at once."""

    sums: Any
    by_weight: Any
    by_times: Any
    wants_weight: Any
    wants_times: Any


@inlined
def into_of(g, at, first):
    """The sums of all gradients of a tile in a sample, whose events begin at ``first``."""
    wants_weight, wants_times, sums = g.weight_chunks > 0, g.time_groups > 0, g.sums[at.slot]
    by_weight = g.weight_parts[at.e, at.chunk, at.tile] if wants_weight else sums  # which nothing is added to
    by_times = g.times_parts[at.e, at.group, at.b, first:] if wants_times else sums
    return Into(sums, by_weight, by_times, wants_weight, wants_times)


@jit
def unwind_tile(tile, packed, sample, joins, events, k, asks_end, into):
    """Walk back from row k to the first, adding to the tile's gradients.

    First spikes have no ``events``, trains no ``joins``. Trains begin with the last of their spikes, or with
    ``asks_end`` at the end of the window.
    """
    n, arrival, ends, rows, sums = sample.n, sample.arrival, sample.ends, sample.rows, into.sums
    zero, state, r = tile.zero, tile.state, rates_of(tile.c)
    slow, fast, back = rows.slow, rows.fast, rows.back
    response, decay, top = zero, zero, k
    for i in range(((k & 15) + 1) * SHORT, 16 * SHORT):
        sums[i] = 0
    segment = sample.segments - 1
    while segment > 0 and ends[segment - 1] > k:
        segment -= 1
    if events is not None:
        found, places, p = events.found, events.places, events.found.size - 1
        if asks_end:
            response, decay = state.end_c, state.end_y
            decay = (decay - response * max(r.x, 0.0)) * (1 / fast[k])
            response = response * (1 / slow[k])
    while segment >= 0:
        begin, last = ends[segment - 1] if segment > 0 else 0, ends[segment] - 1
        if k == last:
            if events is not None and (k < n - 1 or (p >= 0 and found[p] == k)):
                p = before_row(tile, sample, events, k, p, response, decay)
                response = state.now_c * (1 / slow[k])
                decay = state.now_e * (1 / fast[k])
            if joins is not None:
                if k < top:
                    duration = arrival[k + 1] - arrival[k]
                    response = fma(response, math.exp(-duration * r.slower), decay * kappa(duration, tile.c)) * (
                        1 / slow[k]
                    )
                    decay = decay * (math.exp(-duration * r.faster) / fast[k])
                response, decay = joined(state, joins[k], response, decay)
            add_row(zero, packed, sample, k, response, decay, into)
            k -= 1
        following = -1
        if events is not None:
            following = np.intp(found[p]) if p >= 0 else -1
        while k >= begin:
            row = np.uintp(k)  # without a sign, an index needs no test for one below 0
            response = fma(decay, back[row], response)
            if events is not None:
                while following == k:
                    place = np.uintp(places[np.uintp(p)])
                    bit = np.uint64(1) << (place & np.uintp(TILE - 1))
                    it = events.spikes[np.uintp(p)]
                    decay = select(bit, decay + it.into_e, decay)
                    response = select(bit, response + it.into_c, response)
                    p -= 1
                    following = np.intp(found[np.uintp(p)]) if p >= 0 else -1
            if joins is not None:
                response, decay = joined(state, joins[row], response, decay)
            add_row(zero, packed, sample, k, response, decay, into)
            k -= 1
        segment -= 1
    state.now_c = response
    state.now_e = decay


@inlined
def joined(state, bits, response, decay):
    """C' and E' with those of the lanes that join."""
    if bits:
        response = select(bits, state.response, response)
        decay = select(bits, state.decay, decay)
    return response, decay


@inlined
def add_row(zero, packed, sample, k, response, decay, into):
    """Add the part of input k to the gradients."""
    row, order, rows, sums = np.uintp(k), sample.order, sample.rows, into.sums
    first, ahead = np.intp(order[row]) * TILE, max(k - AHEAD, 0)
    if into.wants_weight:
        fetch_row(into.by_weight, order, ahead)
        store(into.by_weight, first, fma(response, rows[row].slow, load(zero, into.by_weight, first)))
    if into.wants_times:
        fetch_row(packed, order, ahead)
        at = k & 15
        store(sums, at * SHORT, dot_short(load(zero, packed, first), fma(response, rows[row].leak, decay)))
        if at == 0:
            store(into.by_times, k, load16(into.by_times, k) + sum_short16(sums, 0))


@jit
def before_row(tile, sample, events, k, p, response, decay):
    """C and E just after input k, the last of a segment, from those at the next input, which is far away or missing.

    All have scale 1. Returns the rest of the spikes.
    """
    zero, state, r, arrival = tile.zero, tile.state, rates_of(tile.c), sample.arrival
    found, places = events.found, events.places
    now = splat(zero, arrival[k + 1] if k < sample.n - 1 else arrival[k])
    while p >= 0 and found[p] == k:
        number, bits = places[p] // TILE, np.uint64(0)  # lanes with spikes of the same number
        while p >= 0 and found[p] == k and places[p] // TILE == number:
            bits |= np.uint64(1) << np.uint64(places[p] & (TILE - 1))
            p -= 1
        time = select(bits, load(zero, events.spikes.time, number * TILE), now)
        slow, fast, rise = fades(max(now - time, 0.0), r)  # without a next input both are 0 here
        jump = select(bits, load(zero, events.spikes.jump, number * TILE), zero)
        now, response, decay = time, fma(response, slow, decay * rise), fma(decay, fast, jump)
    slow, fast, rise = fades(max(now - arrival[k], 0.0), r)
    state.now_c, state.now_e = fma(response, slow, decay * rise), decay * fast
    return p
