"""Kernels (see ``runtime.kernels``) of synaptic delays, of time constants for each neuron, and of those that learn."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from firstspike.spiketime.cpu.lanes.adjoint import start, sum_up, unwind
from firstspike.spiketime.cpu.lanes.rates import LANES, fill_rates
from firstspike.spiketime.cpu.lanes.scan import scan, scan_delayed
from firstspike.spiketime.cpu.lanes.sort import rows_for
from firstspike.spiketime.cpu.pack import pack_tile, unit_of_row, unpack_tile
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.tasks import PHASE, SIGNATURE, TASKS, next_task, reader
from firstspike.spiketime.cpu.saved import SAVED
from firstspike.spiketime.cpu.sort import first_from, sort_samples
from firstspike.spiketime.cpu.vectors.simd import keep, load32, unowned

SAMPLES = 16  # of one task


@jit
def lanes_with(outputs, group):
    """The lanes of a group that have a neuron."""
    return np.uint64(0xFFFFFFFF) >> np.uint64(max(0, (group + 1) * LANES - outputs))


@jit
def copy_in(source, first, target, place):
    """Copy a row's numbers of a group of neurons to 32 lanes."""
    for lane in range(min(LANES, source.size - first)):
        target[place + lane] = source[first + lane]


@jit
def copy_out(source, place, target, first):
    """Copy 32 lanes, without those that have no neuron."""
    for lane in range(min(LANES, target.size - first)):
        target[first + lane] = source[place + lane]


@jit
def delayed_sample(
    b, lanes, lane_last, observes, times, weight, delay, c, unit, level, bound, everything, taus, order, arrival, count,
    joins, sums, by_weight, by_delay, by_times, totals,
):  # fmt: skip
    """Add the gradients of 32 neurons with synaptic delays for sample ``b``."""
    asks, spike, scale, kept = start(
        load32(lanes, 0), load32(lanes, LANES), load32(lanes, 2 * LANES), observes, times[b], weight, delay, c, unit,
        level, bound, sums, totals,
    )  # fmt: skip
    if asks:
        sum_up(
            spike, scale, kept, times[b], weight, delay, c, everything, taus, sums, by_weight, by_delay, by_times[b],
            totals,
        )  # fmt: skip


@jit
def sorted_sample(
    b, lanes, lane_last, observes, times, weight, delay, c, unit, level, bound, everything, taus, order, arrival, count,
    joins, sums, by_weight, by_delay, by_times, totals,
):  # fmt: skip
    """The same without delays; the gradient by the times is in the order of arrival."""
    asks, spike, scale, kept = start(
        load32(lanes, 0), load32(lanes, LANES), load32(lanes, 2 * LANES), observes, times[b], weight, None, c, unit,
        level, bound, sums, totals,
    )  # fmt: skip
    if observes:
        for lane in range(LANES):
            lane_last[lane] = first_from(arrival[b], 0, count[b], lanes[1, lane]) - 1
    if asks:
        unwind(
            asks, spike, scale, kept, lane_last, order[b], arrival[b], weight, c, everything, taus, joins, sums,
            by_weight, by_times[b], totals,
        )  # fmt: skip


# ``taus`` is how many time constants of each kind there are, 1 if all neurons share them
_GIVEN = {
    "mem": "real taus",
    "syn": "real taus",
    "times": "real ensemble batch inputs",
    "weight": "real ensemble outputs inputs",
    "threshold": "real ensemble outputs",
    "delay": "real ensemble outputs inputs",
    "spikes": "real ensemble batch outputs",
    **SAVED,  # with delays only the slopes, one for each neuron
    "rates": "real ensemble groups n_rates",
    "packed": "real ensemble groups group_inputs",
    "delays": "real ensemble groups group_inputs",
}
_SIZES = "ensemble batch inputs outputs ints reals groups group_inputs n_rates taus"
FORWARD = Layout(_SIZES, **_GIVEN)
BACKWARD = Layout(
    _SIZES + " parts chunks stride lanes n_totals one everything by_taus observes",
    **_GIVEN,
    bound="real one",
    grad="real ensemble batch outputs",
    unit="real ensemble lanes",
    level="real ensemble lanes",  # thresholds in these units
    weight_parts="real ensemble groups chunks group_inputs",
    delay_parts="real ensemble groups chunks group_inputs",
    times_parts="real ensemble parts batch stride",
    totals="real ensemble groups chunks n_totals",
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble outputs inputs",
    by_times="real ensemble batch inputs",
    by_threshold="real ensemble outputs",
    by_mem="real ensemble outputs",
    by_syn="real ensemble outputs",
)


@kept_on_disk
def forward_kernel(dtype: str, delayed: bool):
    """Forward, with synaptic delays or without; compiled at the first call."""
    read = reader(FORWARD, dtype)

    @jit
    def scan_sorted(b, times, delay, weight, c, every, keys, values, order, arrival, count, lanes):
        scan(arrival[b], weight, order[b], count[b], c, every, lanes)

    @jit
    def scan_unsorted(b, times, delay, weight, c, every, keys, values, order, arrival, count, lanes):
        scan_delayed(times[b], delay, weight, c, every, keys, values, lanes)

    scan_sample = scan_unsorted if delayed else scan_sorted

    @c_function(SIGNATURE, dtype, delayed, following=f"{__name__}.backward_kernel")
    def kernel(a):
        g = read(a)
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        ones = np.ones(g.groups * LANES, g.times.dtype)
        memory = np.empty((2, rows_for(g.inputs) * LANES), g.times.dtype), np.empty(3 * LANES, g.times.dtype)
        keys, values, lanes = unowned(memory[0])[0], unowned(memory[0])[1], unowned(memory[1])
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            if a[PHASE] == 1:
                e, first, group = task // (g.groups * blocks), task // g.groups % blocks * SAMPLES, task % g.groups
                every = lanes_with(g.outputs, group)
                for b in range(first, min(first + SAMPLES, g.batch)):
                    scan_sample(
                        b, g.times[e], g.delays[e, group], g.packed[e, group], g.rates[e, group], every, keys, values,
                        g.order[e], g.arrival[e], g.count[e, :, 0], lanes,
                    )  # fmt: skip
                    copy_out(lanes, 0, g.spikes[e, b], group * LANES)
                    copy_out(lanes, LANES, g.slope[e, b, : g.outputs], group * LANES)
                    if not delayed:
                        copy_out(lanes, 2 * LANES, g.last[e, b, : g.outputs], group * LANES)
            elif task < g.ensemble * g.groups:
                e, group = task // g.groups, task % g.groups
                first = group * LANES
                fill_rates(g.mem, g.syn, e * g.outputs, first, g.outputs, g.rates[e, group])
                pack_tile(g.weight[e], g.threshold[e], first, g.packed[e, group])
                if delayed:
                    pack_tile(g.delay[e], ones, first, g.delays[e, group])
            else:
                task -= g.ensemble * g.groups
                e, first = task // blocks, task % blocks * SAMPLES
                sort_samples(
                    g.times[e], g.order[e], g.arrival[e], g.count[e, :, 0], first, min(first + SAMPLES, g.batch)
                )
        keep(memory)

    return kernel.ctypes


@kept_on_disk
def backward_kernel(dtype: str, delayed: bool):
    """Backward of both."""
    read = reader(BACKWARD, dtype)
    sample_gradients = delayed_sample if delayed else sorted_sample

    @c_function(SIGNATURE, dtype, delayed)
    def kernel(a):
        g = read(a)
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        everything, by_taus, observes = g.everything != 0, g.by_taus != 0, g.observes != 0
        ones = np.ones(g.groups * LANES, g.times.dtype)
        memory = (
            np.empty(256, g.times.dtype), np.zeros((3, LANES), g.times.dtype), np.zeros(LANES, np.int32),
            np.zeros(g.inputs, np.uint64),
        )  # fmt: skip
        sums, lanes, lane_last, joins = unowned(memory[0]), unowned(memory[1]), unowned(memory[2]), unowned(memory[3])
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            if a[PHASE] == 1:
                e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
                first, stop = chunk * g.batch // g.chunks, (chunk + 1) * g.batch // g.chunks
                if everything:
                    g.times_parts[e, part, first:stop] = 0
                for group in range(part * g.groups // g.parts, (part + 1) * g.groups // g.parts):
                    at = group * LANES
                    if everything:
                        g.weight_parts[e, group, chunk] = 0
                    if everything and delayed:
                        g.delay_parts[e, group, chunk] = 0
                    g.totals[e, group, chunk] = 0
                    lanes[:] = 0
                    for b in range(first, stop):
                        copy_in(g.grad[e, b], at, lanes[0], 0)
                        copy_in(g.spikes[e, b], at, lanes[1], 0)
                        if not observes:
                            copy_in(g.slope[e, b, : g.outputs], at, lanes[2], 0)
                            if not delayed:
                                copy_in(g.last[e, b, : g.outputs], at, lane_last, 0)
                        sample_gradients(
                            b, lanes, lane_last, observes, g.times[e], g.packed[e, group], g.delays[e, group],
                            g.rates[e, group], load32(g.unit[e], at), load32(g.level[e], at), g.bound[0],
                            everything, by_taus, g.order[e], g.arrival[e], g.count[e, :, 0], joins, sums,
                            g.weight_parts[e, group, chunk], g.delay_parts[e, group, chunk], g.times_parts[e, part],
                            g.totals[e, group, chunk],
                        )  # fmt: skip
            elif task < g.ensemble * g.groups:
                e, group = task // g.groups, task % g.groups
                first = group * LANES
                if a[PHASE] == 0:
                    fill_rates(g.mem, g.syn, e * g.outputs, first, g.outputs, g.rates[e, group])
                    g.unit[e, first : first + LANES] = g.level[e, first : first + LANES] = 1
                    for j in range(first, min(first + LANES, g.outputs)):
                        g.unit[e, j] = unit_of_row(g.weight[e], j, g.threshold[e, j])
                        g.level[e, j] = g.threshold[e, j] / g.unit[e, j]
                    pack_tile(g.weight[e], g.unit[e], first, g.packed[e, group])
                    if delayed:
                        pack_tile(g.delay[e], ones, first, g.delays[e, group])
                    continue
                if everything:
                    unpack_tile(g.weight_parts[e, group], g.unit[e], first, g.by_weight[e])
                if everything and delayed:
                    unpack_tile(g.delay_parts[e, group], ones, first, g.by_delay[e])
                total = g.totals[e, group]
                for chunk in range(1, g.chunks):
                    for lane in range(3 * LANES):
                        total[0, lane] += total[chunk, lane]
                for lane in range(min(LANES, g.outputs - first)):
                    g.by_threshold[e, first + lane] = total[0, lane] / g.unit[e, first + lane]
                    g.by_mem[e, first + lane] = total[0, LANES + lane]
                    g.by_syn[e, first + lane] = total[0, 2 * LANES + lane]
            else:
                task -= g.ensemble * g.groups
                e, first = task // blocks, task % blocks * SAMPLES
                stop = min(first + SAMPLES, g.batch)
                if a[PHASE] == 0:
                    sort_samples(g.times[e], g.order[e], g.arrival[e], g.count[e, :, 0], first, stop)
                    continue
                g.by_times[e, first:stop] = 0
                for b in range(first, stop):
                    for k in range(g.inputs if delayed else g.count[e, b, 0]):
                        total_here = g.times_parts[e, 0, b, k]
                        for part in range(1, g.parts):
                            total_here += g.times_parts[e, part, b, k]
                        g.by_times[e, b, k if delayed else g.order[e, b, k]] = total_here
        keep(memory)

    return kernel.ctypes
