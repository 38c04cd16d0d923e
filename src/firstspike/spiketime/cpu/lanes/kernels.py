"""Kernels of neurons on their own: synaptic delays, time constants for each neuron, and gradients by time constants.

A group is 32 neurons of one network, whose lanes go through one sample together. Whether neurons have delays, and one
spike or several, is known when a kernel is compiled.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    LANES,
    N_RATES,
    PER_MEM,
    PER_SYN,
    STATES,
    UNIT,
    every_lane,
    fill_rates,
    pack_tile,
    saved_of,
    sum_parts,
    unit_of_row,
    unpack_tile,
)
from firstspike.spiketime.cpu.lanes.adjoint import BY_MEM, BY_RESET, BY_SYN, BY_THRESHOLD, unwind_delayed, unwind_sorted
from firstspike.spiketime.cpu.lanes.scan import At, scan_once, scan_trains, sort_arrivals
from firstspike.spiketime.cpu.lanes.train_adjoint import N_STATE, N_WHOLE, unwind_trains
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel
from firstspike.spiketime.cpu.sort import SORTING, sort_row

SAMPLES = 16  # of one task

# taus: how many time constants of each kind, 1 if all neurons share them; samples and groups are counted through all
# networks
FORWARD = Layout(
    "ensemble batch samples inputs copies events outputs most groups all_groups group_inputs delay_inputs "
    "taus threads sorted sorting n_arrived observes holds padded releases n_saved",
    mem="real taus",
    syn="real taus",
    times="real samples events",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    delay="real ensemble outputs inputs",
    spikes="real samples outputs most",
    ints="int32 samples n_saved",  # of first spikes; with delays they have no order
    reals="real samples n_saved",
    bounds="real 2",  # start and end
    # of trains: the inputs in order of arrival, and the slopes at spikes and at releases
    reset="real ensemble outputs",
    refractory="real ensemble outputs",
    held=f"real samples {2 * STATES} outputs",  # at the start, then likewise at the end
    overflows="uint8 samples outputs",
    order="int32 samples padded",
    source="int32 samples padded",
    count="int32 samples 1",
    arrival="real samples padded",
    slopes="real samples outputs most",
    again="real samples outputs releases",
    rates=f"real all_groups {N_RATES} {LANES}",
    packed="real all_groups group_inputs",
    delays="real all_groups delay_inputs",
    keys="real threads sorted",
    values="real threads sorted",
    arrived="int32 threads n_arrived",
    state=f"real threads {N_STATE}",  # backward, which is more than forward
    whole=f"int32 threads {N_WHOLE}",
    **SORTING,
)
BACKWARD = FORWARD.extended(
    "parts chunks stride lanes rows by_taus asks_end",
    bound="real 1",
    grad="real samples outputs most",
    of_end=f"real samples {STATES} outputs",
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble outputs inputs",
    by_times="real samples events",
    by_threshold="real ensemble outputs",
    by_tau_mem="real ensemble outputs",
    by_tau_syn="real ensemble outputs",
    by_reset="real ensemble outputs",
    by_start=f"real samples {STATES} outputs",
    unit="real ensemble lanes",
    level="real ensemble lanes",  # thresholds in these units
    weight_parts="real all_groups chunks group_inputs",
    delay_parts="real all_groups chunks delay_inputs",
    times_parts="real parts samples stride",
    totals=f"real all_groups chunks {4 * LANES}",  # from BY_THRESHOLD to BY_RESET
    by_arrival="real threads rows",
    sums=f"real threads {17 * 16}",  # over lanes, and a row of sums
)


@jit
def fill_units(g, e, first):
    """Fill in the units of a group's weights backward, see ``arrays``, and the thresholds in them."""
    g.unit[e, first : first + LANES] = g.level[e, first : first + LANES] = 1
    for j in range(first, min(first + LANES, g.outputs)):
        g.unit[e, j] = unit_of_row(g.weight[e], j, g.threshold[e, j])
        g.level[e, j] = g.threshold[e, j] / g.unit[e, j]


def prepared(delayed, several, backward):
    """The phase that packs what groups of neurons have for themselves, and sorts blocks of samples."""

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            e, first = task // g.groups, task % g.groups * LANES
            fill_rates(g.mem, g.syn, e * g.outputs, first, g.outputs, g.rates[task])
            if backward:
                fill_units(g, e, first)
                pack_tile(g.weight[e], g.unit[e], first, g.packed[task])
            else:
                pack_tile(g.weight[e], g.threshold[e], first, g.packed[task])
            if delayed:
                pack_tile(g.delay[e], np.ones(g.groups * LANES, g.times.dtype), first, g.delays[task])
            return
        keys, labels, begin = g.sort_keys[slot], g.sort_labels[slot], (task - g.all_groups) * SAMPLES
        for b in range(begin, min(begin + SAMPLES, g.samples)):  # the inputs that arrive between start and end
            if several:
                order, arrival = g.order[b], g.arrival[b]
            else:
                last, _, order, arrival = saved_of(g, b)
            n = sort_row(g.times[b], g.bounds[0], g.bounds[1], order, arrival, keys, labels)
            arrival[n] = math.inf
            if several:
                g.count[b, 0] = n
                for k in range(n):
                    g.source[b, k] = order[k] // g.copies
            else:
                last[g.outputs] = n

    return prepare


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, delayed: bool, several: bool):
    """Forward, with synaptic delays or without, for one spike or several."""
    scan_sample = scan_trains if several else scan_once

    @jit
    def scan(g, slot, task):
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        e, begin, place = task // (g.groups * blocks), task // g.groups % blocks * SAMPLES, task % g.groups
        group, every = e * g.groups + place, every_lane(min(LANES, g.outputs - place * LANES))
        packed = g.packed[group]
        for b in range(e * g.batch + begin, e * g.batch + min(begin + SAMPLES, g.batch)):
            at = At(slot, e, b, group, place * LANES, every, 0, 0)
            if delayed:
                _, n = sort_arrivals(g, at, packed)
                scan_sample(g, at, g.keys[slot], g.values[slot], None, n)
            elif several:
                scan_sample(g, at, g.arrival[b], packed, g.source[b], g.count[b, 0])
            else:
                saved = saved_of(g, b)
                scan_sample(g, at, saved.arrival, packed, saved.order, saved.last[g.outputs])

    return prepared(delayed, several, False), scan


@kernel(BACKWARD)
def backward_kernel(dtype: str, delayed: bool, several: bool):
    """Backward of all four."""
    unwind_sample = unwind_delayed if delayed else unwind_sorted
    in_order = not (delayed or several)  # whether gradients by times come in the order of arrival

    @jit
    def unwind(g, slot, task):
        e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[part, begin:end] = 0
        for place in range(part * g.groups // g.parts, (part + 1) * g.groups // g.parts):
            group, every = e * g.groups + place, every_lane(min(LANES, g.outputs - place * LANES))
            g.weight_parts[group, chunk] = 0
            g.delay_parts[group, chunk] = 0
            g.totals[group, chunk] = 0
            for b in range(begin, end):
                at = At(slot, e, b, group, place * LANES, every, chunk, part)
                if not several:
                    unwind_sample(g, at)
                elif delayed:
                    n, most = sort_arrivals(g, at, None)
                    unwind_trains(g, at, g.delays[group], g.keys[slot], None, most, n, g.arrived[slot])
                else:
                    unwind_trains(g, at, None, g.arrival[b], g.source[b], g.count[b, 0], g.count[b, 0], g.order[b])

    @jit
    def gather(g, slot, task):
        if task >= g.all_groups:
            begin = (task - g.all_groups) * SAMPLES
            for b in range(begin, min(begin + SAMPLES, g.samples)):
                saved, by_times = saved_of(g, b), g.by_times[b]
                n = saved.last[g.outputs] if in_order else g.events
                for i in range(g.events):
                    by_times[i] = 0
                sum_parts(g.times_parts[:, b], 0, n)
                for k in range(n):
                    by_times[saved.order[k] if in_order else k] = g.times_parts[0, b, k]
            return
        e, first, total, c = task // g.groups, task % g.groups * LANES, g.totals[task], g.rates[task]
        unpack_tile(g.weight_parts[task], g.unit[e], first, g.by_weight[e])
        if delayed:
            unpack_tile(g.delay_parts[task], np.ones(g.groups * LANES, g.times.dtype), first, g.by_delay[e])
        sum_parts(total, 0, total.shape[1])
        for lane in range(min(LANES, g.outputs - first)):
            g.by_threshold[e, first + lane] = total[0, BY_THRESHOLD + lane] / g.unit[e, first + lane]
            g.by_tau_mem[e, first + lane] = total[0, BY_MEM + lane] * c[PER_MEM, lane] * c[UNIT, 0]
            g.by_tau_syn[e, first + lane] = total[0, BY_SYN + lane] * c[PER_SYN, lane] * c[UNIT, 0]
            if several:
                g.by_reset[e, first + lane] = total[0, BY_RESET + lane] / g.unit[e, first + lane]

    return prepared(delayed, several, True), unwind, gather
