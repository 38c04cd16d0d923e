"""Kernels of neurons on their own: synaptic delays, time constants for each neuron, and their gradients.

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
    are_weights,
    every_lane,
    fill_rates,
    pack_tile,
    saved_of,
    sum_parts,
    unit_of_row,
    unpack_tile,
)
from firstspike.spiketime.cpu.lanes.adjoint import (
    BY_MEM,
    BY_RESET,
    BY_SYN,
    BY_THRESHOLD,
    fill_growth,
    unwind_delayed,
    unwind_sorted,
)
from firstspike.spiketime.cpu.lanes.scan import At, scan_once, scan_trains
from firstspike.spiketime.cpu.lanes.train_adjoint import N_STATE, N_WHOLE, unwind_apart, unwind_together
from firstspike.spiketime.cpu.lanes.windows import sort_due, window_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, part_of, samples_of
from firstspike.spiketime.cpu.sort import SORTING, are_times, sort_row
from firstspike.spiketime.cpu.vectors.simd import fill32, highest, load32, lowest, select

SAMPLES = 16  # of one task

# taus: how many time constants of each kind, 1 if all neurons share them. Samples and groups are counted through all
# networks
FORWARD = Layout(
    "ensemble batch samples inputs copies events outputs most groups all_groups group_inputs delay_inputs "
    "taus threads sorted sorting observes padded releases n_saved "
    "windows bounds_size budget room block tasks kept dues listed sendings",
    mem="real taus",
    syn="real taus",
    times="real samples events",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    delay="real ensemble outputs inputs",
    spikes="real samples outputs room",
    ints="int32 samples n_saved",  # of first spikes. With delays they have no order
    reals="real samples n_saved",
    bounds="real bounds_size",  # starts of the windows, and the end
    # of trains: the inputs in order of arrival, and the slopes at spikes and at releases
    reset="real ensemble outputs",
    refractory="real ensemble outputs",
    held=f"real samples {2 * STATES} outputs",  # at the start, then likewise at the end
    overflows="uint8 samples outputs",
    order="int32 samples padded",
    source="int32 samples padded",
    count="int32 samples 1",
    arrival="real samples padded",
    slopes="real samples outputs room",
    again="real samples outputs releases",
    counts="int32 samples outputs",
    full="int64 samples windows groups",  # lanes that have too many spikes in a window
    lacks="int32 samples",
    # of recurrent layers: longest delays of inputs and of own spikes, those that were sent, and up to each window
    reach="real 2",
    sent="int32 samples sendings",
    sent_at="int32 samples bounds_size",
    due_events="int32 threads dues",
    due_sources="int32 threads dues",
    due_rows="int32 threads dues",
    due_places="int32 threads dues",
    due_times="real threads dues",
    due_moments="real threads dues",
    filled=f"int32 threads {LANES}",
    tile="real threads 512",
    lists="real threads 2 listed",
    rates=f"real all_groups {N_RATES} {LANES}",
    packed="real all_groups group_inputs",
    delays="real all_groups delay_inputs",
    soonest="real all_groups inputs",  # shortest and longest delay of each input to a group
    latest="real all_groups inputs",
    keys="real threads sorted",
    values="real threads sorted",
    state=f"real kept {N_STATE}",  # backward, which is more than forward
    whole=f"int32 kept {N_WHOLE}",
    **SORTING,
)
BACKWARD = FORWARD.extended(
    "parts chunks stride lanes pieces_size by_taus asks_end grown",
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
    growth="real all_groups grown",
    weight_parts="real all_groups chunks group_inputs",
    delay_parts="real all_groups chunks delay_inputs",
    times_parts="real parts samples stride",
    totals=f"real all_groups chunks {4 * LANES}",  # from BY_THRESHOLD to BY_RESET
    pieces="real kept pieces_size",
    sums=f"real threads {17 * 16}",  # over lanes, and a row of sums
)


@inlined
def at_of(g, slot, e, b, place, chunk, part):
    """A group of a network in a sample."""
    every = every_lane(min(LANES, g.outputs - place * LANES))
    kept = slot * g.groups + place if g.windows > 1 else slot
    return At(slot, e, b, e * g.groups + place, place * LANES, every, chunk, part, kept)


@jit
def fill_units(g, e, first):
    """Fill in the units of a group's weights backward, see ``arrays``, and the thresholds in them."""
    g.unit[e, first : first + LANES] = g.level[e, first : first + LANES] = 1
    for j in range(first, min(first + LANES, g.outputs)):
        g.unit[e, j] = unit_of_row(g.weight[e], j, g.threshold[e, j])
        g.level[e, j] = g.threshold[e, j] / g.unit[e, j]


def prepared(delayed, several, backward):
    """The phase that packs the parameters of groups of neurons, and sorts blocks of samples."""

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            e, first = task // g.groups, task % g.groups * LANES
            fill_rates(g.mem, g.syn, e * g.outputs, first, g.outputs, g.rates[task])
            if not (several or backward or are_weights(g.weight[e], g.threshold[e], first, LANES)):
                g.refused = 1
            if backward:
                fill_units(g, e, first)
                pack_tile(g.weight[e], g.unit[e], first, g.packed[task])
            else:
                pack_tile(g.weight[e], g.threshold[e], first, g.packed[task])
            if delayed:
                pack_tile(g.delay[e], np.ones(g.groups * LANES, g.times.dtype), first, g.delays[task])
                if backward and g.grown != 0:
                    fill_growth(g.rates[task], g.delays[task], g.growth[task])
                every, never = every_lane(min(LANES, g.outputs - first)), fill32(g.times, math.inf)
                for i in range(g.inputs):
                    delay = load32(g.delays[task], i * LANES)
                    g.soonest[task, i] = lowest(select(every, delay, never))
                    g.latest[task, i] = highest(select(every, delay, never * -1.0))
                    inside = (delay >= 0.0) & (never > delay) & every
                    if not (several or backward) and inside != every:
                        g.refused = 1
            return
        keys, labels, begin = g.sort_keys[slot], g.sort_labels[slot], (task - g.all_groups) * SAMPLES
        for b in range(begin, min(begin + SAMPLES, g.samples)):  # the inputs that arrive between start and end
            if several:
                order, arrival = g.order[b], g.arrival[b]
            else:
                last, _, order, arrival = saved_of(g, b)
            if not (several or backward or are_times(g.times, b, b + 1)):
                g.refused = 1
            begin_here = -math.inf if delayed else g.bounds[0]
            n = sort_row(g.times[b], begin_here, g.bounds[g.windows], order, arrival, keys, labels)
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
    """Forward, with synaptic delays or without, for one spike or several. Of first spikes it refuses some values."""

    @jit
    def scan(g, slot, task):
        if g.refused:
            return
        e, begin, stop = samples_of(task // g.tasks, g.batch, g.block)
        groups = part_of(g.groups, g.tasks, task % g.tasks)
        for b in range(e * g.batch + begin, e * g.batch + stop):
            for w in range(g.windows):
                if several or delayed:
                    window = window_of(g, slot, b, w, delayed)
                if several and g.windows > 1:
                    g.sent_at[b, w + 1] = g.sent_at[b, w]
                for place in range(groups[0], groups[1]):
                    at, packed = at_of(g, slot, e, b, place, 0, 0), g.packed[e * g.groups + place]
                    if delayed:
                        n = sort_due(g, at, window, packed)
                        if several:
                            scan_trains(g, at, window, g.keys[slot], g.values[slot], None, n)
                        else:
                            scan_once(g, at, g.keys[slot], g.values[slot], None, n)
                    elif several:
                        scan_trains(g, at, window, window.times, packed, window.sources, window.n)
                    else:
                        saved = saved_of(g, b)
                        scan_once(g, at, saved.arrival, packed, saved.order, saved.last[g.outputs])

    return prepared(delayed, several, False), scan


@kernel(BACKWARD)
def backward_kernel(dtype: str, delayed: bool, several: bool):
    """Backward of all four."""
    of_trains, of_first = (unwind_apart, unwind_delayed) if delayed else (unwind_together, unwind_sorted)
    unwind_sample = of_trains if several else of_first
    in_order = not (delayed or several)  # whether gradients with respect to times come in the order of arrival

    @jit
    def unwind(g, slot, task):
        e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[part, begin:end] = 0
        groups = part_of(g.groups, g.parts, part)
        for group in range(e * g.groups + groups[0], e * g.groups + groups[1]):
            g.weight_parts[group, chunk] = 0
            g.delay_parts[group, chunk] = 0
            g.totals[group, chunk] = 0
        step = groups[1] - groups[0] if g.windows > 1 else 1
        for first in range(groups[0], groups[1], step):
            for b in range(begin, end):
                for w in range(g.windows - 1, -1, -1):
                    if several:
                        window = window_of(g, slot, b, w, delayed)
                    for place in range(first, first + step):
                        at = at_of(g, slot, e, b, place, chunk, part)
                        if several:
                            unwind_sample(g, at, window)
                        else:
                            unwind_sample(g, at)

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
