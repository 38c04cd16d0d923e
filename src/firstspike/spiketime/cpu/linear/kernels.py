"""Kernels of linear neurons. A group is 32 neurons of one network, whose lanes go through one sample together.

Whether neurons have an order of arrival or time constants of their own is known when a kernel is compiled.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, pack_tile, sum_parts, unpack_tile
from firstspike.spiketime.cpu.linear.adjoint import ALL, LARGEST, OTHERS, WEIGHTS, unwind
from firstspike.spiketime.cpu.linear.flow import drive_of, fill_row, fill_slopes
from firstspike.spiketime.cpu.linear.scan import WORK, At, scan
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel
from firstspike.spiketime.cpu.sort import SORTING, sort_row

SAMPLES = 8  # of one task

FORWARD = Layout(
    "ensemble batch samples inputs copies events outputs most releases groups all_groups group_inputs threads sorting "
    "parts_of_row count synapses components padded intervals own_intervals receptors signed biased resets starts ends "
    "observes once records taped state_rows work_rows width lanes delayed tape_rows drives_each series_rows",
    times="real samples events",
    weight="real ensemble outputs inputs",
    delay="real ensemble delayed inputs",
    threshold="real ensemble outputs",
    reset="real ensemble outputs",
    refractory="real ensemble outputs",
    bias="real ensemble outputs",
    jumps="real ensemble outputs components",
    receptor="int32 ensemble inputs",
    leak="float64 ensemble outputs",
    rates="float64 ensemble outputs count",
    kinds="int32 count",
    places="int32 receptors",
    bounds="real 2",
    tiny="real 1",
    voltage="real samples outputs",
    current="real samples outputs components",
    left="real samples outputs",
    spikes="real samples outputs most",
    slopes="real samples outputs most",
    ups="real samples outputs releases",
    overflows="uint8 samples outputs",
    end_voltage="real samples outputs",
    end_current="real samples outputs components",
    end_left="real samples outputs",
    # what inputs were sorted to, where neurons share the order, and the numbers of each interval
    order="int32 samples padded",
    source="int32 samples padded",
    inside="int32 samples 1",
    arrival="real samples padded",
    rows="real samples intervals parts_of_row",
    drives="real ensemble drives_each",
    # the same of each lane, for what a thread works on
    own_keys=f"real threads own_intervals {LANES}",
    own_rows=f"real threads own_intervals parts_of_row {LANES}",
    own_drives=f"real threads drives_each {LANES}",
    own_weights="real threads lanes",
    inputs_of=f"int32 threads own_intervals {LANES}",
    events_of=f"int32 threads own_intervals {LANES}",
    shifted="real threads padded",
    sorted_to="real threads padded",
    sorted_from="int32 threads padded",
    packed="real all_groups group_inputs",
    state="real threads state_rows",
    work=f"float64 threads {WORK + 1} width",
    counts=f"int32 threads {LANES}",
    free=f"float64 threads {LANES}",
    piece="real threads parts_of_row",
    series="real threads series_rows",
    tape="real threads taped tape_rows",
    **SORTING,
)
BACKWARD = FORWARD.extended(
    "parts chunks stride by_taus by_time asks_end bounded parts_of_slopes sloped own_sloped total_rows largest_rows "
    "segments_each noted jumping rises",
    bound="real 1",
    grad="real samples outputs most",
    of_voltage="real samples outputs",
    of_current="real samples outputs components",
    of_left="real samples outputs",
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble delayed inputs",
    by_times="real samples events",
    by_voltage="real samples outputs",
    by_current="real samples outputs components",
    by_left="real samples outputs",
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
    sums=f"real threads {2 * LANES}",
    place="int32 threads 2",
)


@jit
def interval(g, keys, i):
    """The length of an interval; -1 is the one from the start to the first input."""
    begin, end = np.float64(g.bounds[0]), np.float64(g.bounds[1])
    now = begin if i < 0 else min(np.float64(keys[i]), end)
    stop = min(np.float64(keys[i + 1]), end)
    return 0.0 if now == -math.inf or not stop > now else stop - now


@jit
def fill_drives(g, e, j, drives, lane, step):
    """Fill in what each component gives the membrane, then how fast it decays, and the leak."""
    for k in range(g.count):
        rate = g.rates[e, j, k]
        drives[k * step + lane] = drive_of(g.kinds[k], g.leak[e, j], rate)
        drives[(g.count + k) * step + lane] = rate
    drives[2 * g.count * step + lane] = g.leak[e, j]


@jit
def prepare_own(g, at):
    """Sort what arrives at each neuron of a group in a sample, and fill in the numbers of its intervals; the most."""
    keys, shifted, times = g.own_keys[at.slot], g.shifted[at.slot], g.times[at.b]
    to, source, packed, most = g.sorted_to[at.slot], g.sorted_from[at.slot], g.packed[at.group], 0
    rows, weights = g.own_rows[at.slot].reshape(-1), g.own_weights[at.slot]
    for k in range(keys.shape[0]):
        for lane in range(LANES):
            keys[k, lane], g.inputs_of[at.slot, k, lane], g.events_of[at.slot, k, lane] = math.inf, 0, 0
    for place in range(weights.size):
        weights[place] = 0
    for lane in range(at.size):
        j = at.first + lane
        for event in range(times.size):
            shifted[event] = times[event] + (g.delay[at.e, j, event // g.copies] if g.delayed > 0 else 0)
        n = sort_row(
            shifted[: times.size], g.bounds[0], g.bounds[1], source, to, g.sort_keys[at.slot], g.sort_labels[at.slot]
        )
        while n > 0 and to[n - 1] == math.inf:
            n -= 1
        most = max(most, n)
        for k in range(n):
            i = source[k] // g.copies
            keys[k, lane], g.events_of[at.slot, k, lane], g.inputs_of[at.slot, k, lane] = to[k], source[k], i
            weights[k * LANES + lane] = packed[i * LANES + lane]
    for lane in range(LANES):
        j = at.first + min(lane, at.size - 1)
        leak, rates = g.leak[at.e, j], g.rates[at.e, j]
        fill_drives(g, at.e, j, g.own_drives[at.slot].reshape(-1), lane, LANES)
        for i in range(-1, most):
            wait = interval(g, keys[:, lane], i)
            start = (i + 1) * g.parts_of_row * LANES + lane
            fill_row(rows[start:], LANES, wait, g.kinds, leak, rates)
    return most


@jit
def fill_own_slopes(g, at, n):
    """Fill in the derivatives of these numbers."""
    slopes = g.own_slopes[at.slot].reshape(-1)
    for lane in range(LANES):
        j = at.first + min(lane, at.size - 1)
        for i in range(-1, n):
            wait, start = interval(g, g.own_keys[at.slot][:, lane], i), (i + 1) * g.parts_of_slopes * LANES + lane
            fill_slopes(slopes[start:], LANES, wait, g.kinds, g.leak[at.e, j], g.rates[at.e, j])


@jit
def prepare_shared(g, b, slot):
    """Sort what arrives in a sample, and fill in the numbers of its intervals."""
    order, arrival = g.order[b], g.arrival[b]
    n = sort_row(g.times[b], g.bounds[0], g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot])
    while n > 0 and arrival[n - 1] == math.inf:
        n -= 1
    arrival[n], g.inside[b, 0] = math.inf, n
    for k in range(n):
        g.source[b, k] = order[k] // g.copies
    e = b // g.batch
    for i in range(-1, n):
        fill_row(g.rows[b, i + 1], 1, interval(g, arrival, i), g.kinds, g.leak[e, 0], g.rates[e, 0])


def scanned(own):
    """The function that scans a group in a sample, whose inputs are sorted; of neurons with their own, the n first."""

    @jit
    def run(g, at, n):
        slot, b, e = at.slot, at.b, at.e
        if own:
            drives = g.own_drives[slot]
            scan(g, at, g.own_keys[slot], g.own_rows[slot], drives, g.own_weights[slot], None, n)
        else:
            drives = g.drives[e]
            scan(g, at, g.arrival[b], g.rows[b], drives, g.packed[at.group], g.source[b], g.inside[b, 0])

    return run


def prepared(own, backward):
    """The phase that packs the weights of groups, and prepares samples."""

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            e, first = task // g.groups, task % g.groups * LANES
            pack_tile(g.weight[e], np.ones(g.groups * LANES, g.times.dtype), first, g.packed[task])
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
    scan_group = scanned(own)

    @jit
    def run(g, slot, task):
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        e, begin, place = task // (g.groups * blocks), task // g.groups % blocks * SAMPLES, task % g.groups
        group, size = e * g.groups + place, min(LANES, g.outputs - place * LANES)
        if not own:
            fill_drives(g, e, 0, g.drives[e], 0, 1)
        for b in range(e * g.batch + begin, e * g.batch + min(begin + SAMPLES, g.batch)):
            at = At(slot, e, b, group, place * LANES, size, 0, 0)
            scan_group(g, at, prepare_own(g, at) if own else 0)

    return prepared(own, False), run


@kernel(BACKWARD)
def backward_kernel(dtype: str, own: bool):
    """Backward of both."""
    scan_group = scanned(own)

    @jit
    def unwound(g, at, mode, number):
        slot, b, e = at.slot, at.b, at.e
        if own:
            n = g.place[slot, 1]
            unwind(
                g, at, g.own_keys[slot], g.own_rows[slot], g.own_slopes[slot], g.own_drives[slot],
                g.own_weights[slot], None, g.order[0], n, mode, number,
            )  # fmt: skip
        else:
            unwind(
                g, at, g.arrival[b], g.rows[b], g.slopes_of[b], g.drives[e], g.packed[at.group],
                g.source[b], g.order[b], g.inside[b, 0], mode, number,
            )  # fmt: skip

    @jit
    def run(g, slot, task):
        e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[part, begin:end] = 0
        if not own:
            fill_drives(g, e, 0, g.drives[e], 0, 1)
        for place in range(part * g.groups // g.parts, (part + 1) * g.groups // g.parts):
            group, size = e * g.groups + place, min(LANES, g.outputs - place * LANES)
            g.weight_parts[group, chunk] = 0
            g.delay_parts[group, chunk] = 0
            g.totals[group, chunk] = 0
            for b in range(begin, end):
                at = At(slot, e, b, group, place * LANES, size, chunk, part)
                if own:
                    g.place[slot, 1] = prepare_own(g, at)
                if g.by_taus != 0:
                    if own:
                        fill_own_slopes(g, at, g.place[slot, 1])
                    scan_group(g, at, g.place[slot, 1])
                if g.bounded == 0:
                    unwound(g, at, ALL, 0)
                    continue
                g.largest[slot] = 0
                for number in range(g.most):
                    unwound(g, at, LARGEST, number)
                unwound(g, at, OTHERS, 0)
                unwound(g, at, WEIGHTS, 0)

    @jit
    def gather(g, slot, task):
        if task >= g.all_groups:
            begin = (task - g.all_groups) * SAMPLES
            for b in range(begin, min(begin + SAMPLES, g.samples)):
                for i in range(g.events):
                    x = g.times_parts[0, b, i]
                    for part in range(1, g.parts):
                        x += g.times_parts[part, b, i]
                    g.by_times[b, i] = x
            return
        e, first, ones = task // g.groups, task % g.groups * LANES, np.full(g.groups * LANES, -1, g.times.dtype)
        unpack_tile(g.weight_parts[task], ones, first, g.by_weight[e])
        if g.delayed > 0:
            unpack_tile(g.delay_parts[task], ones, first, g.by_delay[e])
        total = g.totals[task]
        sum_parts(total, 0, total.shape[1])
        for place in range(g.total_rows):
            g.summed[task, place] = total[0, place]

    return prepared(own, True), run, gather
