"""Kernels of sparse recurrent layers. Their neurons go through a window as those of ``windows`` do.

Synapses are sorted by their sources. A spike is handed to its targets: each neuron has a list, in its lane. Nothing is
kept of that, so memory grows with spikes and with synapses, not with arrivals.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes import kernels as lanes
from firstspike.spiketime.cpu.lanes.kernels import (
    block_of,
    fill_heights,
    gather_times,
    gather_totals,
    prepare_parameters,
    sort_trains,
)
from firstspike.spiketime.cpu.lanes.state import fill_rates
from firstspike.spiketime.cpu.lanes.windows import at_in, window_of
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, part_of, samples_of
from firstspike.spiketime.cpu.sparse.unwind import settle, unwind_group
from firstspike.spiketime.cpu.vectors.shuffles import sort_lanes
from firstspike.spiketime.cpu.vectors.simd import fill32, highest, load32, select, store
from firstspike.spiketime.cpu.windows.kernels import ARRAYS, SIZES, walk_window

PARTS = 64  # into which the sources are cut, for what is done with each synapse once

# a list has a ``length`` of rows, of which one ends it
_SYNAPSES = {
    "offsets": "int64 ends",
    "targets": "int32 synapses",
    "weight": "real synapses",
    "delay": "real delays_size",
    "scaled": "real synapses",  # weights, in units of the neurons
    "latest": "real inputs",  # the longest delay of each source
}
_LISTS = {
    "short": "int32 samples",  # whether a list had no room
    "lengths": "real threads lanes",
    "arrivals": "real threads keyed",
    "weights": "real threads keyed_planes",
    "turns": "real threads turned",
}
FORWARD = lanes.FORWARD.extended(
    f"{SIZES} ends synapses delays_size length lanes keyed keyed_planes turned", **ARRAYS, **_SYNAPSES, **_LISTS
)
BACKWARD = lanes.BACKWARD.extended(
    f"{SIZES} ends synapses delays_size table_size", **ARRAYS, **_SYNAPSES,
    by_weight="real synapses", by_delay="real delays_size",
    weight_parts="real chunks synapses",
    delay_parts="real chunks delays_size", picked=f"int32 threads {LANES}", picked_times=f"real threads {LANES}",
    table="real threads table_size",
)  # fmt: skip


@jit
def prepare_synapses(g, part, unit):
    """Fill in the weights of some sources' synapses in units of the neurons, and the longest delay of each source."""
    first, last = part_of(g.inputs, PARTS, part)
    for i in range(first, last):
        most = g.times.dtype.type(0)
        for s in range(g.offsets[i], g.offsets[i + 1]):
            g.scaled[s] = g.weight[s] / unit[g.targets[s]]
            if g.delayed > 0:
                most = max(most, g.delay[s])
        g.latest[i] = most


@jit
def deal(g, slot, e, window):
    """Give each neuron what arrives at it in a window; without delays, in order of arrival."""
    lengths, arrivals, weights = g.lengths[slot], g.arrivals[slot], g.weights[slot]
    lengths[:] = 0
    receptor = 0
    for event in range(window.n):
        i, arrival = np.intp(window.sources[event]), window.times[event]
        if g.planes > 1:
            receptor = np.intp(g.receptor[e, i])
        sent, fresh = arrival, g.delayed > 0 and event >= window.fresh
        if g.delayed > 0 and not fresh and not sent + g.latest[i] >= window.begin:
            continue
        for s in range(g.offsets[i], g.offsets[i + 1]):
            if g.delayed > 0:
                arrival = sent + g.delay[s]
                if fresh:
                    arrival = max(arrival, window.begin)
                if not (arrival >= window.begin and arrival < window.end):
                    continue
            j = np.uintp(g.targets[s])
            k, group, lane = np.uintp(lengths[j]), j // np.uintp(LANES), j % np.uintp(LANES)
            if k + np.uintp(1) >= np.uintp(g.length):
                g.short[0] = 1
                return
            lengths[j] += 1
            arrivals[(group * np.uintp(g.length) + k) * np.uintp(LANES) + lane] = arrival
            for plane in range(g.planes):
                place = (group * np.uintp(g.planes) + np.uintp(plane)) * np.uintp(g.length) + k
                weights[place * np.uintp(LANES) + lane] = g.scaled[s] if plane == receptor else 0


@jit
def list_of(g, at):
    """What arrives at each lane of a group, as ``lanes.lists`` describes."""
    size = g.length * LANES
    keys = g.arrivals[at.slot, at.first // LANES * size : (at.first // LANES + 1) * size]
    weights = g.weights[at.slot, at.first // LANES * size * g.planes : (at.first // LANES + 1) * size * g.planes]
    lengths, never, none = load32(g.lengths[at.slot], at.first), fill32(keys, math.inf), fill32(keys, 0.0)
    n = np.intp(highest(lengths))
    for row in range(n):
        there = lengths > float(row)
        store(keys, row * LANES, select(there, load32(keys, row * LANES), never))
        for plane in range(g.planes):
            place = (plane * g.length + row) * LANES
            store(weights, place, select(there, load32(weights, place), none))
    store(keys, n * LANES, never)
    if g.delayed == 0 or n < 2:
        return keys, weights, None, n
    if g.planes == 1:
        sort_lanes(keys, weights, n)
        return keys, weights, None, n
    turns, values = g.turns[at.slot], g.values[at.slot]
    for row in range(n):
        store(turns, row * LANES, fill32(keys, row))
    sort_lanes(keys, turns, n)
    for plane in range(g.planes):
        for place in range(n * LANES):
            row = plane * g.length + np.intp(turns[place])
            values[plane * g.length * LANES + place] = weights[row * LANES + place % LANES]
    return keys, values, None, n


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, flow: str, delayed: bool, several: bool, windows: str):
    """Forward, with a delay for each synapse or without."""

    @jit
    def prepare(g, slot, task):
        if task < g.groups:
            fill_rates(g, 0, task * LANES, LANES, g.rates[task])
            prepare_parameters(g, task, g.threshold[0])
        elif task < g.groups + PARTS:
            prepare_synapses(g, task - g.groups, g.threshold[0])
        else:
            for b in block_of(g, task - g.groups - PARTS):
                sort_trains(g, slot, b)

    @jit
    def scan(g, slot, task):
        e, begin, stop = samples_of(task, g.batch, g.block)
        for b in range(begin, stop):
            for w in range(g.windows):
                window = window_of(g, slot, b, w, delayed)
                deal(g, slot, e, window)
                if g.short[0]:
                    return  # all is done again with more room
                g.sent_at[b, w + 1] = g.sent_at[b, w]
                for place in range(g.groups):
                    at = at_in(g, slot, e, b, place, 0, window)
                    walk_window(g, at, *list_of(g, at))

    return prepare, scan


@kernel(BACKWARD)
def backward_kernel(dtype: str, flow: str, delayed: bool, several: bool, windows: str):
    """Backward of both. All neurons of a sample go back together."""

    @jit
    def prepare(g, slot, task):
        if task < g.groups:
            fill_rates(g, 0, task * LANES, LANES, g.rates[task])
            fill_heights(g, task)
            prepare_parameters(g, task, g.unit[0])
        elif task < g.groups + PARTS:
            prepare_synapses(g, task - g.groups, g.unit[0])
        else:
            g.weight_parts[task - g.groups - PARTS] = 0
            g.totals[:, task - g.groups - PARTS] = 0
            if g.delayed > 0:
                g.delay_parts[task - g.groups - PARTS] = 0

    @jit
    def unwind(g, slot, task):
        begin, end = part_of(g.batch, g.chunks, task)
        g.times_parts[0, begin:end] = 0
        for b in range(begin, end):
            for w in range(g.windows - 1, -1, -1):
                window = window_of(g, slot, b, w, delayed)
                for place in range(g.groups):
                    unwind_group(g, at_in(g, slot, 0, b, place, task, window))
                settle(g, slot, b, task, window, g.by_taus != 0)

    @jit
    def gather(g, slot, task):
        if task < g.groups:
            gather_totals(g, task)
            return
        if task >= g.groups + PARTS:
            gather_times(g, task - g.groups - PARTS)
            return
        sources = part_of(g.inputs, PARTS, task - g.groups)
        first, last = g.offsets[sources[0]], g.offsets[sources[1]]
        for chunk in range(1, g.chunks):
            for s in range(first, last):
                g.weight_parts[0, s] += g.weight_parts[chunk, s]
                if g.delayed > 0:
                    g.delay_parts[0, s] += g.delay_parts[chunk, s]
        for s in range(first, last):
            g.by_weight[s] = g.weight_parts[0, s] / g.unit[0, g.targets[s]]
            if g.delayed > 0:
                g.by_delay[s] = g.delay_parts[0, s]

    return prepare, unwind, gather
