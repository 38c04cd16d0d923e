"""Kernels (see ``parallel``) of synaptic delays, of time constants for each neuron, and of those that learn."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba import carray

from firstspike.spiketime.cpu.cache import c_function, jit, kept_on_disk
from firstspike.spiketime.cpu.pack import pack_tile, unit_of_row, unpack_tile
from firstspike.spiketime.cpu.parallel import SIGNATURE, next_task, pointer
from firstspike.spiketime.cpu.per_neuron import LANES, N_RATES, lane_rates, scan, scan_delayed
from firstspike.spiketime.cpu.per_neuron_backward import start, sum_up, unwind
from firstspike.spiketime.cpu.rows import PAD
from firstspike.spiketime.cpu.simd import keep, load32, unowned
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch
from firstspike.spiketime.cpu.sort_lanes import rows_for

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
def sort_samples(times, order, arrival, count, first, stop):
    """Sort the inputs of the samples from ``first`` to ``stop``."""
    sorting = sort_scratch(times, times.shape[1])
    scratch = unowned_scratch(sorting)
    for b in range(first, stop):
        count[b] = sort_row(times[b], order[b], arrival[b], scratch)
        arrival[b, count[b]] = math.inf
    keep(sorting)


@jit
def delayed_sample(
    b, lanes, lane_last, observes, times, weight, delay, c, unit, level, bound, everything, taus, order, arrival, count,
    joins, sums, by_weight, by_delay, by_times, totals,
):  # fmt: skip
    """Add the gradients of 32 neurons with synaptic delays for sample ``b``."""
    asks, spike, scale, kept = start(
        load32(lanes, 0), load32(lanes, LANES), load32(lanes, 2 * LANES), observes, times[b], weight, delay, c, unit,
        level, bound, totals,
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
        level, bound, totals,
    )  # fmt: skip
    if observes:
        for lane in range(LANES):
            lane_last[lane] = np.searchsorted(arrival[b, : count[b]], lanes[1, lane]) - 1
    if asks:
        unwind(
            asks, spike, scale, kept, lane_last, order[b], arrival[b], weight, c, everything, taus, joins, sums,
            by_weight, by_times[b], totals,
        )  # fmt: skip


@kept_on_disk
def forward_kernel(dtype: str, delayed: bool):
    """Forward, with synaptic delays or without; compiled at the first call."""
    real = np.dtype(dtype).type

    @jit
    def scan_sorted(b, times, delay, weight, c, every, keys, values, order, arrival, count, lanes):
        scan(arrival[b], weight, order[b], count[b], c, every, lanes)

    @jit
    def scan_unsorted(b, times, delay, weight, c, every, keys, values, order, arrival, count, lanes):
        scan_delayed(times[b], delay, weight, c, every, keys, values, lanes)

    scan_sample = scan_unsorted if delayed else scan_sorted

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs, shared = a[3], a[4], a[5], a[6], a[7] != 0
        groups, blocks = (outputs + LANES - 1) // LANES, (batch + SAMPLES - 1) // SAMPLES
        taus = 1 if shared else ensemble * outputs
        mem, syn = carray(pointer(a[8], real), (taus,)), carray(pointer(a[9], real), (taus,))
        times = carray(pointer(a[10], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[11], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[12], real), (ensemble, outputs))
        delay = carray(pointer(a[13], real), (ensemble, outputs, inputs))
        spikes = carray(pointer(a[14], real), (ensemble, batch, outputs))
        slopes = carray(pointer(a[15], real), (ensemble, batch, outputs))
        order = carray(pointer(a[16], np.int32), (ensemble, batch, inputs))
        arrival = carray(pointer(a[17], real), (ensemble, batch, inputs + PAD))
        count = carray(pointer(a[18], np.int32), (ensemble, batch))
        last = carray(pointer(a[19], np.int32), (ensemble, batch, outputs))
        rates = carray(pointer(a[20], real), (ensemble, groups, N_RATES))
        packed = carray(pointer(a[21], real), (ensemble, groups, inputs * LANES))
        delays = carray(pointer(a[22], real), (ensemble, groups, inputs * LANES))
        ones = np.ones(groups * LANES, times.dtype)
        memory = np.empty((2, rows_for(inputs) * LANES), times.dtype), np.empty(3 * LANES, times.dtype)
        keys, values, lanes = unowned(memory[0])[0], unowned(memory[0])[1], unowned(memory[1])
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            if a[2] == 1:
                e, first, group = task // (groups * blocks), task // groups % blocks * SAMPLES, task % groups
                every = lanes_with(outputs, group)
                for b in range(first, min(first + SAMPLES, batch)):
                    scan_sample(
                        b, times[e], delays[e, group], packed[e, group], rates[e, group], every, keys, values, order[e],
                        arrival[e], count[e], lanes,
                    )  # fmt: skip
                    copy_out(lanes, 0, spikes[e, b], group * LANES)
                    copy_out(lanes, LANES, slopes[e, b], group * LANES)
                    if not delayed:
                        copy_out(lanes, 2 * LANES, last[e, b], group * LANES)
            elif task < ensemble * groups:
                e, group = task // groups, task % groups
                first = group * LANES
                lane_rates(mem, syn, 0 if shared else e * outputs + first, 0 if shared else 1, rates[e, group])
                pack_tile(weight[e], threshold[e], first, packed[e, group])
                if delayed:
                    pack_tile(delay[e], ones, first, delays[e, group])
            else:
                task -= ensemble * groups
                e, first = task // blocks, task % blocks * SAMPLES
                sort_samples(times[e], order[e], arrival[e], count[e], first, min(first + SAMPLES, batch))
        keep(memory)

    return kernel.ctypes


@kept_on_disk
def backward_kernel(dtype: str, delayed: bool):
    """Backward of both."""
    real = np.dtype(dtype).type

    sample_gradients = delayed_sample if delayed else sorted_sample

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs, shared = a[3], a[4], a[5], a[6], a[7] != 0
        parts, chunks, everything, by_taus, observes = a[8], a[9], a[10] != 0, a[11] != 0, a[12] != 0
        groups, blocks = (outputs + LANES - 1) // LANES, (batch + SAMPLES - 1) // SAMPLES
        stride, size = (inputs + 15) // 16 * 16, inputs * LANES
        taus = 1 if shared else ensemble * outputs
        mem, syn = carray(pointer(a[13], real), (taus,)), carray(pointer(a[14], real), (taus,))
        bound = carray(pointer(a[15], real), (1,))
        grad = carray(pointer(a[16], real), (ensemble, batch, outputs))
        spikes = carray(pointer(a[17], real), (ensemble, batch, outputs))
        slopes = carray(pointer(a[18], real), (ensemble, batch, outputs))
        last = carray(pointer(a[19], np.int32), (ensemble, batch, outputs))
        order = carray(pointer(a[20], np.int32), (ensemble, batch, inputs))
        arrival = carray(pointer(a[21], real), (ensemble, batch, inputs + PAD))
        count = carray(pointer(a[22], np.int32), (ensemble, batch))
        times = carray(pointer(a[23], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[24], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[25], real), (ensemble, outputs))
        delay = carray(pointer(a[26], real), (ensemble, outputs, inputs))
        rates = carray(pointer(a[27], real), (ensemble, groups, N_RATES))
        packed = carray(pointer(a[28], real), (ensemble, groups, size))
        delays = carray(pointer(a[29], real), (ensemble, groups, size))
        levels = carray(pointer(a[30], real), (ensemble, 2, groups * LANES))  # units, and thresholds in them
        weight_parts = carray(pointer(a[31], real), (ensemble, groups, chunks, size))
        delay_parts = carray(pointer(a[32], real), (ensemble, groups, chunks, size))
        times_parts = carray(pointer(a[33], real), (ensemble, parts, batch, stride))
        totals = carray(pointer(a[34], real), (ensemble, groups, chunks, 3 * LANES))
        by_weight = carray(pointer(a[35], real), (ensemble, outputs, inputs))
        by_delay = carray(pointer(a[36], real), (ensemble, outputs, inputs))
        by_times = carray(pointer(a[37], real), (ensemble, batch, inputs))
        by_threshold = carray(pointer(a[38], real), (ensemble, outputs))
        by_mem = carray(pointer(a[39], real), (ensemble, outputs))
        by_syn = carray(pointer(a[40], real), (ensemble, outputs))
        ones = np.ones(groups * LANES, times.dtype)
        memory = (
            np.empty(256, times.dtype), np.zeros((3, LANES), times.dtype), np.zeros(LANES, np.int32),
            np.zeros(inputs, np.uint64),
        )  # fmt: skip
        sums, lanes, lane_last, joins = unowned(memory[0]), unowned(memory[1]), unowned(memory[2]), unowned(memory[3])
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            if a[2] == 1:
                e, chunk, part = task // (parts * chunks), task // parts % chunks, task % parts
                first, stop = chunk * batch // chunks, (chunk + 1) * batch // chunks
                if everything:
                    times_parts[e, part, first:stop] = 0
                for group in range(part * groups // parts, (part + 1) * groups // parts):
                    at = group * LANES
                    if everything:
                        weight_parts[e, group, chunk] = 0
                    if everything and delayed:
                        delay_parts[e, group, chunk] = 0
                    totals[e, group, chunk] = 0
                    lanes[:] = 0
                    for b in range(first, stop):
                        copy_in(grad[e, b], at, lanes[0], 0)
                        copy_in(spikes[e, b], at, lanes[1], 0)
                        if not observes:
                            copy_in(slopes[e, b], at, lanes[2], 0)
                            if not delayed:
                                copy_in(last[e, b], at, lane_last, 0)
                        sample_gradients(
                            b, lanes, lane_last, observes, times[e], packed[e, group], delays[e, group],
                            rates[e, group], load32(levels[e, 0], at), load32(levels[e, 1], at), bound[0], everything,
                            by_taus, order[e], arrival[e], count[e], joins, sums, weight_parts[e, group, chunk],
                            delay_parts[e, group, chunk], times_parts[e, part], totals[e, group, chunk],
                        )  # fmt: skip
            elif task < ensemble * groups:
                e, group = task // groups, task % groups
                first = group * LANES
                if a[2] == 0:
                    lane_rates(mem, syn, 0 if shared else e * outputs + first, 0 if shared else 1, rates[e, group])
                    levels[e, :, first : first + LANES] = 1
                    for j in range(first, min(first + LANES, outputs)):
                        levels[e, 0, j] = unit_of_row(weight[e], j, threshold[e, j])
                        levels[e, 1, j] = threshold[e, j] / levels[e, 0, j]
                    pack_tile(weight[e], levels[e, 0], first, packed[e, group])
                    if delayed:
                        pack_tile(delay[e], ones, first, delays[e, group])
                    continue
                if everything:
                    unpack_tile(weight_parts[e, group], levels[e, 0], first, by_weight[e])
                if everything and delayed:
                    unpack_tile(delay_parts[e, group], ones, first, by_delay[e])
                total = totals[e, group]
                for chunk in range(1, chunks):
                    for lane in range(3 * LANES):
                        total[0, lane] += total[chunk, lane]
                for lane in range(min(LANES, outputs - first)):
                    by_threshold[e, first + lane] = total[0, lane] / levels[e, 0, first + lane]
                    by_mem[e, first + lane] = total[0, LANES + lane]
                    by_syn[e, first + lane] = total[0, 2 * LANES + lane]
            else:
                task -= ensemble * groups
                e, first = task // blocks, task % blocks * SAMPLES
                stop = min(first + SAMPLES, batch)
                if a[2] == 0:
                    sort_samples(times[e], order[e], arrival[e], count[e], first, stop)
                    continue
                by_times[e, first:stop] = 0
                for b in range(first, stop):
                    for k in range(inputs if delayed else count[e, b]):
                        total_here = times_parts[e, 0, b, k]
                        for part in range(1, parts):
                            total_here += times_parts[e, part, b, k]
                        by_times[e, b, k if delayed else order[e, b, k]] = total_here
        keep(memory)

    return kernel.ctypes
