"""Kernels of linear neurons. A group is 32 neurons of one network, whose lanes go through one sample together.

Whether neurons have their own order of arrival or time constants is known when a kernel is compiled.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, every_lane, pack_tile, sum_parts, unpack_tile
from firstspike.spiketime.cpu.lanes.scan import At
from firstspike.spiketime.cpu.linear.adjoint import unwind
from firstspike.spiketime.cpu.linear.alone import WORK
from firstspike.spiketime.cpu.linear.alone_adjoint import ALL, LARGEST, OTHERS, WEIGHTS
from firstspike.spiketime.cpu.linear.flow import fill_slopes
from firstspike.spiketime.cpu.linear.rows import fill_drives, fill_own_slopes, interval, prepare_own, prepare_shared
from firstspike.spiketime.cpu.linear.scan import scan
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, samples_of
from firstspike.spiketime.cpu.sort import SORTING

SAMPLES = 8  # of one task

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
    voltage="real samples outputs",
    current="real samples outputs variables",
    left="real samples outputs",
    spikes="real samples outputs most",
    overflows="uint8 samples outputs",
    end_voltage="real samples outputs",
    end_current="real samples outputs variables",
    end_left="real samples outputs",
    **SORTING,
)
"""What kernels here and those of neurons from equations are given and give."""
GRADIENTS = {
    "bound": "real 1",
    "grad": "real samples outputs most",
    "of_voltage": "real samples outputs",
    "of_current": "real samples outputs variables",
    "of_left": "real samples outputs",
    "by_times": "real samples events",
    "by_voltage": "real samples outputs",
    "by_current": "real samples outputs variables",
    "by_left": "real samples outputs",
}
"""The arrays that backward passes have as well."""

FORWARD = NEURONS.extended(
    "releases groups all_groups group_inputs parts_of_row count padded intervals own_intervals biased resets starts "
    "once taped state_rows width lanes tape_rows drives_each series_rows rising delay_inputs",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    bias="real ensemble outputs",
    jumps="real ensemble outputs variables",
    reached="real ensemble inputs",
    leak="float64 ensemble outputs",
    rates="float64 ensemble outputs count",
    kinds="int32 count",
    tiny="real 1",
    slopes="real samples outputs most",
    ups="real samples outputs releases",
    # what inputs were sorted to, where neurons share the order, and the numbers of each interval
    order="int32 samples padded",
    source="int32 samples padded",
    inside="int32 samples 1",
    arrival="real samples padded",
    rows="real samples intervals parts_of_row",
    drives="real ensemble drives_each",
    # the same of each lane, for what a thread works on
    own_rows=f"real threads own_intervals parts_of_row {LANES}",
    own_drives=f"real threads drives_each {LANES}",
    own_weights="real threads lanes",
    waits="real threads padded",
    column="real threads 16",
    inputs_of=f"int32 threads own_intervals {LANES}",
    events_of=f"int32 threads own_intervals {LANES}",
    # of inputs in the order of each lane, see ``rows.sort_arrivals``
    keys="real threads lanes",
    values="real threads lanes",
    arrived="int32 threads padded",
    delays="real all_groups delay_inputs",
    sorted_to="real threads padded",
    packed="real all_groups group_inputs",
    state="real threads state_rows",
    work=f"float64 threads {WORK + 1} width",
    counts=f"int64 threads {LANES + 1}",
    free=f"float64 threads {LANES}",
    piece="real threads parts_of_row",
    series="real threads series_rows",
    tape="real threads taped tape_rows",
)
BACKWARD = FORWARD.extended(
    "parts chunks stride by_taus by_time asks_end bounded parts_of_slopes sloped own_sloped total_rows largest_rows "
    "segments_each noted jumping firsts",
    **GRADIENTS,
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble delayed inputs",
    slopes_of="real samples sloped parts_of_slopes",
    own_slopes=f"real threads own_sloped parts_of_slopes {LANES}",
    adjoint="real threads state_rows",
    jump_rows="real threads jumping",
    weight_parts="real all_groups chunks group_inputs",
    delay_parts="real all_groups chunks group_inputs",
    times_parts="real parts samples stride",
    totals="real all_groups chunks total_rows",
    summed="real all_groups total_rows",
    largest="real threads largest_rows",
    segments="float64 threads segments_each noted",
    sums="real threads 256",
    place="int32 threads",
    joins="uint64 threads padded",
)


@jit
def shared_inputs(g, at):
    """What all neurons share for ``scan``, and their weights: of a sample whose inputs are sorted."""
    n = g.inside[at.b, 0]
    return g.arrival[at.b], g.rows[at.b], g.drives[at.e], g.packed[at.group], g.source[at.b], n


@jit
def own_inputs(g, at):
    """What ``scan`` is given of neurons with an order or constants of their own."""
    n = prepare_own(g, at)
    return g.keys[at.slot], g.own_rows[at.slot], g.own_drives[at.slot], g.own_weights[at.slot], None, n


def prepared(own, backward):
    """The phase that packs the weights of groups, and prepares samples."""

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            e, first = task // g.groups, task % g.groups * LANES
            ones = np.ones(g.groups * LANES, g.times.dtype)
            pack_tile(g.weight[e], ones, first, g.packed[task])
            if g.delayed > 0:
                pack_tile(g.delay[e], ones, first, g.delays[task])
            if not own and first == 0:
                fill_drives(g, e, 0, g.drives[e], 0, 1)
                for i in range(0 if g.signed else g.inputs):
                    g.reached[e, i] = g.places[g.receptor[e, i]] == 0
            return
        begin = (task - g.all_groups) * SAMPLES
        for b in range(begin, min(begin + SAMPLES, g.samples)):
            if backward:
                e = b // g.batch
                for i in range(-1, g.inside[b, 0]):
                    wait = interval(g, g.arrival[b], i)
                    fill_slopes(g.slopes_of[b, i + 1], 1, wait, g.kinds, g.leak[e, 0], g.rates[e, 0])
            else:
                prepare_shared(g, b, slot)

    return prepare


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, own: bool):
    """Forward, of neurons that share order and time constants, or have their own."""
    inputs_of = own_inputs if own else shared_inputs

    @jit
    def run(g, slot, task):
        (e, begin, end), place = samples_of(task // g.groups, g.batch, SAMPLES), task % g.groups
        group, every = e * g.groups + place, every_lane(min(LANES, g.outputs - place * LANES))
        for b in range(e * g.batch + begin, e * g.batch + end):
            at = At(slot, e, b, group, place * LANES, every, 0, 0, slot)
            scan(g, at, *inputs_of(g, at))

    return prepared(own, False), run


@kernel(BACKWARD)
def backward_kernel(dtype: str, own: bool):
    """Backward of both."""
    inputs_of = own_inputs if own else shared_inputs

    @jit
    def run(g, slot, task):
        e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[part, begin:end] = 0
        for i in range(g.padded):
            g.joins[slot, i] = 0
        for place in range(part * g.groups // g.parts, (part + 1) * g.groups // g.parts):
            group, every = e * g.groups + place, every_lane(min(LANES, g.outputs - place * LANES))
            g.weight_parts[group, chunk] = 0
            g.delay_parts[group, chunk] = 0
            g.totals[group, chunk] = 0
            for b in range(begin, end):
                at = At(slot, e, b, group, place * LANES, every, chunk, part, slot)
                slopes, inputs = g.own_slopes[slot] if own else g.slopes_of[b], inputs_of(g, at)
                if g.by_taus != 0:
                    if own:
                        fill_own_slopes(g, at, inputs[-1])
                    scan(g, at, *inputs)
                if g.bounded == 0:
                    unwind(g, at, ALL, 0, slopes, *inputs)
                    continue
                g.largest[slot] = 0
                for number in range(g.most):
                    unwind(g, at, LARGEST, number, slopes, *inputs)
                unwind(g, at, OTHERS, 0, slopes, *inputs)
                unwind(g, at, WEIGHTS, 0, slopes, *inputs)

    @jit
    def gather(g, slot, task):
        if task >= g.all_groups:
            begin = (task - g.all_groups) * SAMPLES
            for b in range(begin, min(begin + SAMPLES, g.samples)):
                parts, by_times = g.times_parts[:, b], g.by_times[b]
                sum_parts(parts, 0, g.stride)
                for i in range(g.events):
                    by_times[i] = parts[0, i] if own else 0
                for i in range(0 if own else g.inside[b, 0]):
                    by_times[np.uintp(g.order[b, i])] = parts[0, i]
            return
        e, first, ones = task // g.groups, task % g.groups * LANES, np.full(g.groups * LANES, -1, g.times.dtype)
        unpack_tile(g.weight_parts[task], ones, first, g.by_weight[e])
        if g.delayed > 0:
            unpack_tile(g.delay_parts[task], ones, first, g.by_delay[e])
        sum_parts(g.totals[task], 0, g.total_rows)
        for place in range(g.total_rows):
            g.summed[task, place] = g.totals[task, 0, place]

    return prepared(own, True), run, gather
