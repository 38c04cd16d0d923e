"""Kernels of neurons on their own. A group is 32 neurons of one network, whose lanes go through one sample together.

The flow of the neurons, whether they have delays, and one spike or several, is known when a kernel is compiled.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    LANES,
    N_RATES,
    are_weights,
    every_lane,
    named_rates,
    pack_tile,
    saved_of,
    states,
    sum_parts,
    unit_of_row,
    unpack_tile,
)
from firstspike.spiketime.cpu.lanes.first import fill_growth
from firstspike.spiketime.cpu.lanes.lists import listed, no_list, sorted_once, sorted_trains
from firstspike.spiketime.cpu.lanes.shared import fill_intervals
from firstspike.spiketime.cpu.lanes.state import RISE, at_of, fill_rates
from firstspike.spiketime.cpu.lanes.unwind import (
    unwind_first,
    unwind_first_apart,
    unwind_once,
    unwind_once_apart,
    unwind_trains,
    unwind_trains_apart,
)
from firstspike.spiketime.cpu.lanes.walk import walk_once, walk_trains
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, part_of, samples_of
from firstspike.spiketime.cpu.sort import SORTING, are_times, sort_row
from firstspike.spiketime.cpu.vectors.simd import fill32, load32

SAMPLES = 16  # of one task

NEURONS = Layout(
    "ensemble batch samples inputs copies events outputs most variables receptors delayed signed observes ends sorting "
    "threads",
    times="real samples events",
    weight="real ensemble outputs inputs",
    delay="real ensemble delayed inputs",
    refractory="real ensemble outputs",
    receptor="int32 ensemble inputs",
    places="int32 receptors",
    bounds="real 2",
    spikes="real samples outputs most",
    overflows="uint8 samples outputs",
    **states(""),
    **states("end_"),
    **SORTING,
)
"""What kernels here and those of neurons from equations are given and give."""

GRADIENTS = {
    "bound": "real 1",
    "grad": "real samples outputs most",
    "by_times": "real samples events",
    **states("of_"),
    **states("by_"),
}
"""The arrays that backward passes have as well."""

# taus: how many neurons have time constants of their own, 1 if all share them. Samples and groups are counted through
# all networks
FORWARD = NEURONS.extended(
    "kept tables groups all_groups group_inputs delay_inputs taus count planes reached_inputs sorted sorted_keys "
    "sorted_values padded releases n_saved holds starts biased resets jumping state_rows series_rows "
    "alike pairs quick intervals intervals_size rated",
    mem="real taus",
    syn="real taus count",
    kinds="int32 count",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    bias="real ensemble outputs",
    jumps="real ensemble outputs variables",
    ints="int32 samples n_saved",  # of first spikes. With delays they have no order
    reals="real samples n_saved",
    # of trains: the inputs in order of arrival, the slopes at spikes and where membranes go on, numbers of spikes
    order="int32 samples padded",
    source="int32 samples padded",
    numbered="int32 samples 1",
    arrival="real samples padded",
    slopes="real samples outputs most",
    ups="real samples outputs releases",
    numbers="int32 samples outputs",
    rates=f"real all_groups count {N_RATES} {LANES}",
    own_rates=f"real threads rated {N_RATES} {LANES}",  # of neurons alike, and what these share of each interval
    rows="real tables intervals_size",
    waits="real threads intervals",
    packed="real all_groups group_inputs",
    delays="real all_groups delay_inputs",
    fixed=f"real all_groups {3 * LANES}",  # resets, refractory times, bias
    jump_rows="real all_groups jumping",
    reached="real ensemble reached_inputs",
    keys="real threads sorted_keys",
    values="real threads sorted_values",
    columns="int32 threads 16",
    counts=f"int32 kept {LANES}",
    state="real kept state_rows",
    series="real threads series_rows",
)


@jit
def fill_units(g, e, first):
    """Fill in the units of a group's weights backward, see ``arrays``, and the thresholds in them."""
    g.unit[e, first : first + LANES] = g.level[e, first : first + LANES] = 1
    for j in range(first, min(first + LANES, g.outputs)):
        g.unit[e, j] = unit_of_row(g.weight[e], j, g.threshold[e, j])
        g.level[e, j] = g.threshold[e, j] / g.unit[e, j]


@jit
def fill_fixed(g, e, first, unit, fixed):
    """Fill in resets, refractory times and the bias of a group."""
    for lane in range(LANES):
        j, there = min(first + lane, g.outputs - 1), first + lane < g.outputs
        if g.n_saved == 0:
            fixed[lane] = g.reset[e, j] / unit[j] if there else 0
            fixed[LANES + lane] = g.refractory[e, j] if there else 0
        fixed[2 * LANES + lane] = g.bias[e, j] / unit[j] if there and g.biased != 0 else 0


@jit
def fill_heights(g, group):
    """Fill in how high the response to an input of weight 1 may be."""
    for lane in range(LANES):
        most = g.rates.dtype.type(0)
        for number in range(g.receptors):
            k = np.intp(g.places[number])
            most = max(most, named_rates(g.rates[group, k + (g.kinds[k] == RISE)])[lane].height)
        g.heights[group, lane] = most


BACKWARD = FORWARD.extended(
    "parts chunks stride lanes pieces_size by_taus bounded bounded_spikes largest_rows grown joining asks_end "
    "rising scratch_place total_rows",
    **GRADIENTS,
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble delayed inputs",
    unit="real ensemble lanes",
    level="real ensemble lanes",  # thresholds in these units
    growth="real all_groups grown",
    joins="uint64 threads joining",
    heights=f"real all_groups {LANES}",
    weight_parts="real all_groups chunks group_inputs",
    delay_parts="real all_groups chunks delay_inputs",
    times_parts="real parts samples stride",
    totals="real all_groups chunks total_rows",
    summed="real all_groups total_rows",
    pieces="real kept pieces_size",
    # how large the response to an input is at most, at spikes of each number, as far as it is known
    largest="real kept largest_rows",
    filled="uint8 kept bounded_spikes",
    sums=f"real threads {17 * 16}",  # over lanes, and a row of sums
    whole=f"int32 kept {2 * LANES}",
)


@jit
def prepare_group(g, task, unit):
    """Pack the weights, delays and parameters of a group of neurons, in these units."""
    e, first = task // g.groups, task % g.groups * LANES
    pack_tile(g.weight[e], unit, first, g.packed[task])
    if g.delayed > 0:
        pack_tile(g.delay[e], np.ones(g.groups * LANES, g.times.dtype), first, g.delays[task])
    prepare_parameters(g, task, unit)


@jit
def prepare_parameters(g, task, unit):
    """Pack the parameters of a group of neurons, in these units."""
    e, first = task // g.groups, task % g.groups * LANES
    fill_fixed(g, e, first, unit, g.fixed[task])
    if first == 0:
        for i in range(g.reached_inputs):
            g.reached[e, i] = g.receptor[e, i]
    for k in range(g.jumping // LANES):
        for lane in range(min(LANES, g.outputs - first)):
            jump = g.jumps[e, first + lane, k] if k < g.variables else 0
            g.jump_rows[task, k * LANES + lane] = jump / unit[first + lane]


@jit
def are_delays(g, task):
    """Whether the delays of a group are what they may be."""
    wrong, never = np.uint64(0), fill32(g.times, math.inf)
    for i in range(g.inputs if g.delayed > 0 else 0):
        delay = load32(g.delays[task], i * LANES)
        wrong |= ~((delay >= 0.0) & (never > delay))
    return wrong & every_lane(min(LANES, g.outputs - task % g.groups * LANES)) == 0


@jit
def sort_once(g, slot, b):
    """Sort the inputs of first spikes of a sample, unless some are no times."""
    last, _, order, arrival = saved_of(g, b)
    if not are_times(g.times, b, b + 1):
        g.refused = 1
    n = sort_row(g.times[b], g.bounds[0], g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot])
    arrival[n], last[g.outputs] = math.inf, n


@jit
def sort_trains(g, slot, b):
    """Sort the inputs of a sample that arrive between start and end."""
    order, arrival, begin = g.order[b], g.arrival[b], -math.inf if g.delayed > 0 else g.bounds[0]
    n = sort_row(g.times[b], begin, g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot])
    arrival[n], g.numbered[b, 0] = math.inf, n
    for k in range(n):
        g.source[b, k] = order[k] // g.copies


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, flow: str, delayed: bool, several: bool):
    """Forward, with synaptic delays or without, for one spike or several. Of first spikes it refuses some values."""
    run, in_order = (walk_trains, sorted_trains) if several else (walk_once, sorted_once)
    inputs_of = listed if delayed else in_order
    sort = sort_trains if several else sort_once

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            e, first = task // g.groups, task % g.groups * LANES
            fill_rates(g, e, first, LANES, g.rates[task])
            prepare_group(g, task, g.threshold[e])
            if not (several or (are_weights(g.weight[e], g.threshold[e], first, LANES) and are_delays(g, task))):
                g.refused = 1
            return
        for b in block_of(g, task - g.all_groups):
            sort(g, slot, b)
            if g.alike != 0:
                fill_intervals(g, slot, b)

    @jit
    def scan(g, slot, task):
        if g.refused:
            return
        (e, begin, stop), place = samples_of(task // g.groups, g.batch, SAMPLES), task % g.groups
        for b in range(e * g.batch + begin, e * g.batch + stop):
            at = at_of(g, slot, e, b, place, 0, 0)
            run(g, at, *inputs_of(g, at))

    return prepare, scan


@inlined
def block_of(g, number):
    """The samples of a block."""
    return range(number * SAMPLES, min((number + 1) * SAMPLES, g.samples))


@jit
def prepare_units(g, task):
    """Pack the parameters of a group of neurons for the way back."""
    e, first = task // g.groups, task % g.groups * LANES
    fill_rates(g, e, first, LANES, g.rates[task])
    fill_units(g, e, first)
    fill_heights(g, task)
    prepare_group(g, task, g.unit[e])


@jit
def clear_group(g, group, chunk):
    """Let the sums of a group's gradients begin."""
    g.weight_parts[group, chunk] = 0
    g.delay_parts[group, chunk] = 0
    g.totals[group, chunk] = 0


@jit
def gather(g, slot, task):
    """Write the gradients of a group of neurons, or of a block of samples."""
    if task >= g.all_groups:
        gather_times(g, task - g.all_groups)
        return
    e, first = task // g.groups, task % g.groups * LANES
    unpack_tile(g.weight_parts[task], g.unit[e], first, g.by_weight[e])
    if g.delayed > 0:
        unpack_tile(g.delay_parts[task], np.ones(g.groups * LANES, g.times.dtype), first, g.by_delay[e])
    gather_totals(g, task)


@jit
def gather_times(g, block):
    """Write the gradients with respect to the times of a block of samples."""
    for b in block_of(g, block):
        sum_parts(g.times_parts[:, b], 0, g.events)
        for i in range(g.events):
            g.by_times[b, i] = g.times_parts[0, b, i]


@jit
def gather_totals(g, task):
    """Write the sums over samples of a group of neurons."""
    sum_parts(g.totals[task], 0, g.total_rows)
    for place in range(g.total_rows):
        g.summed[task, place] = g.totals[task, 0, place]


@kernel(BACKWARD)
def backward_kernel(dtype: str, flow: str, delayed: bool, several: bool):
    """Backward of all of them."""
    of_first = (unwind_first, unwind_first_apart) if flow == "closed" else (unwind_once, unwind_once_apart)
    unwind_sample = ((unwind_trains, unwind_trains_apart) if several else of_first)[delayed]
    inputs_of = no_list if delayed else sorted_trains if several else sorted_once

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            prepare_units(g, task)
            if g.grown != 0:
                fill_growth(g.rates[task, 0], g.delays[task], g.growth[task])
            return
        for b in block_of(g, task - g.all_groups):
            if g.alike != 0:
                fill_intervals(g, slot, b)

    @jit
    def unwind(g, slot, task):
        e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[part, begin:end] = 0
        for i in range(g.joining):
            g.joins[slot, i] = 0
        groups = part_of(g.groups, g.parts, part)
        for place in range(groups[0], groups[1]):
            clear_group(g, e * g.groups + place, chunk)
            for b in range(begin, end):
                at = at_of(g, slot, e, b, place, chunk, part)
                unwind_sample(g, at, *inputs_of(g, at))

    return prepare, unwind, gather
