"""Spike trains with synaptic delays, with time constants of each neuron, and gradients by time constants: the kernels.

A task is some samples of 32 neurons. What it needs beside its arguments grows with the inputs of one sample.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.lanes import train_adjoint, train_scan
from firstspike.spiketime.cpu.lanes.kernels import SAMPLES, lanes_with
from firstspike.spiketime.cpu.lanes.rates import LANES, PER_MEM, PER_SYN, UNIT, fill_rates
from firstspike.spiketime.cpu.lanes.train_adjoint import BY_MEM, BY_SYN, add_arrivals, start_back, unwind_trains
from firstspike.spiketime.cpu.lanes.train_lanes import (
    end_lanes,
    gradients_by_start,
    lane_memory,
    neurons_of,
    start_lanes,
)
from firstspike.spiketime.cpu.lanes.train_scan import delayed_events, scan_trains
from firstspike.spiketime.cpu.pack import pack_tile, unit_of_row, unpack_tile
from firstspike.spiketime.cpu.runtime.arguments import Layout
from firstspike.spiketime.cpu.runtime.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.tasks import PHASE, SIGNATURE, TASKS, next_task, reader
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch
from firstspike.spiketime.cpu.vectors.simd import keep, unowned


@jit
def sort_samples(times, copies, begin, end, order, source, arrival, count, first, stop):
    """Sort the inputs in ``[begin, end)`` of the samples from ``first`` to ``stop``."""
    memory, inside = sort_scratch(times, arrival.shape[1]), np.empty(times.shape[1], times.dtype)
    scratch = unowned_scratch(memory)
    for b in range(first, stop):
        for event in range(times.shape[1]):
            inside[event] = times[b, event] if begin <= times[b, event] < end else math.inf
        count[b] = sort_row(inside, order[b], arrival[b], scratch)
        arrival[b, count[b]] = math.inf
        for k in range(count[b]):
            source[b, k] = order[b, k] // copies
    keep(memory)
    keep(inside)


# ``taus`` is how many time constants of each kind there are, 1 if all neurons share them
_GIVEN = {
    "mem": "real taus",
    "syn": "real taus",
    "bounds": "real two",
    "times": "real ensemble batch events",
    "weight": "real ensemble outputs inputs",
    "delay": "real ensemble outputs inputs",
    "threshold": "real ensemble outputs",
    "reset": "real ensemble outputs",
    "refractory": "real ensemble outputs",
    "held": "real ensemble batch states outputs",
    "trains": "real ensemble batch outputs most",
    "slopes": "real ensemble batch outputs most",
    "again": "real ensemble batch outputs releases",
    "order": "int32 ensemble batch padded",
    "source": "int32 ensemble batch padded",
    "arrival": "real ensemble batch padded",
    "count": "int32 ensemble batch",
    "rates": "real ensemble groups n_rates",
    "packed": "real ensemble groups group_inputs",
    "delays": "real ensemble groups group_inputs",
}
_SIZES = (
    "ensemble batch inputs copies events outputs most releases states two groups group_inputs padded n_rates taus "
    "largest observes holds"
)
TRAIN_FORWARD = Layout(_SIZES, **_GIVEN, overflows="uint8 ensemble batch outputs")
TRAIN_BACKWARD = Layout(
    _SIZES + " parts chunks lanes n_totals everything by_taus asks_end three",
    **_GIVEN,
    bound="real two",
    overflows="uint8 ensemble batch outputs",
    grad="real ensemble batch outputs most",
    of_end="real ensemble batch three outputs",
    unit="real ensemble lanes",
    level="real ensemble lanes",  # thresholds in these units
    weight_parts="real ensemble groups chunks group_inputs",
    delay_parts="real ensemble groups chunks group_inputs",
    times_parts="real ensemble parts batch events",
    totals="real ensemble groups chunks n_totals",
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble outputs inputs",
    by_times="real ensemble batch events",
    by_threshold="real ensemble outputs",
    by_mem="real ensemble outputs",
    by_syn="real ensemble outputs",
    by_start="real ensemble batch three outputs",
)


@kept_on_disk
def train_forward_kernel(dtype: str, delayed: bool):
    """Forward, with synaptic delays or without; compiled at the first call."""
    read = reader(TRAIN_FORWARD, dtype)

    @jit
    def scan_sorted(
        times, copies, delay, weight, c, every, begin, end, holds, observes, most, order, source, arrival, count, keys,
        values, events, state, counts, trains, slopes, again,
    ):  # fmt: skip
        return scan_trains(
            arrival, weight, source, count[0], c, every, begin, end, holds, observes, most, state, counts, trains,
            slopes, again,
        )  # fmt: skip

    @jit
    def scan_unsorted(
        times, copies, delay, weight, c, every, begin, end, holds, observes, most, order, source, arrival, count, keys,
        values, events, state, counts, trains, slopes, again,
    ):  # fmt: skip
        _, here = delayed_events(times, copies, delay, weight, begin, end, every, keys, values, events)
        return scan_trains(
            keys, values, None, here, c, every, begin, end, holds, observes, most, state, counts, trains, slopes, again
        )

    scan_sample = scan_unsorted if delayed else scan_sorted

    @c_function(SIGNATURE, dtype, delayed, following=f"{__name__}.train_backward_kernel")
    def kernel(a):
        g = read(a)
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        begin, end = g.bounds[0], g.bounds[1]
        ones = np.ones(g.groups * LANES, g.times.dtype)
        memory = lane_memory(g.times, g.largest if delayed else 1, False)
        keys, values, events = unowned(memory[0]), unowned(memory[1]), unowned(memory[3])
        more = np.empty(train_scan.N_STATE, g.times.dtype), np.empty(LANES, np.int32)
        state, counts = unowned(more[0]), unowned(more[1])
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            if a[PHASE] == 1:
                e, first, group = task // (g.groups * blocks), task // g.groups % blocks * SAMPLES, task % g.groups
                every, own = lanes_with(g.outputs, group), slice(group * LANES, min((group + 1) * LANES, g.outputs))
                for b in range(first, min(first + SAMPLES, g.batch)):
                    start_lanes(
                        g.held[e, b, :, own], g.threshold[e, own], g.reset[e, own], g.refractory[e, own],
                        g.trains[e, b, own], begin, g.observes != 0, state, counts,
                    )  # fmt: skip
                    stuck = scan_sample(
                        g.times[e, b], g.copies, g.delays[e, group], g.packed[e, group], g.rates[e, group], every,
                        begin, end, g.holds != 0, g.observes != 0, g.most, g.order[e, b], g.source[e, b],
                        g.arrival[e, b], g.count[e, b:], keys, values, events, state, counts, g.trains[e, b, own],
                        g.slopes[e, b, own], g.again[e, b, own],
                    )  # fmt: skip
                    end_lanes(state, stuck, g.threshold[e, own], g.held[e, b, :, own], g.overflows[e, b, own])
            elif task < g.ensemble * g.groups:
                e, group = task // g.groups, task % g.groups
                fill_rates(g.mem, g.syn, e * g.outputs, group * LANES, g.outputs, g.rates[e, group])
                pack_tile(g.weight[e], g.threshold[e], group * LANES, g.packed[e, group])
                if delayed:
                    pack_tile(g.delay[e], ones, group * LANES, g.delays[e, group])
            else:
                task -= g.ensemble * g.groups
                e, first = task // blocks, task % blocks * SAMPLES
                sort_samples(
                    g.times[e], g.copies, begin, end, g.order[e], g.source[e], g.arrival[e], g.count[e], first,
                    min(first + SAMPLES, g.batch),
                )  # fmt: skip
        keep(memory)
        keep(more)

    return kernel.ctypes


@kept_on_disk
def train_backward_kernel(dtype: str, delayed: bool):
    """Backward of both."""
    read = reader(TRAIN_BACKWARD, dtype)

    @jit
    def unwind_sorted(
        times, copies, delay, weight, c, every, begin, end, bound, everything, taus, order, source, arrival, count,
        keys, values, events, state, whole, trains, slopes, again, grad, by_weight, by_delay, by_times, by_arrival,
        sums, line, totals,
    ):  # fmt: skip
        for row in range(count[0] * LANES):
            by_arrival[row] = 0
        unwind_trains(
            arrival, values, source, count[0], weight, copies, order, c, begin, bound, taus, state, whole, trains,
            slopes, again, grad, by_weight, by_arrival, totals,
        )  # fmt: skip
        if everything:
            add_arrivals(by_arrival, count[0], order, copies, weight, c, sums, line, None, by_times)

    @jit
    def unwind_unsorted(
        times, copies, delay, weight, c, every, begin, end, bound, everything, taus, order, source, arrival, count,
        keys, values, events, state, whole, trains, slopes, again, grad, by_weight, by_delay, by_times, by_arrival,
        sums, line, totals,
    ):  # fmt: skip
        n, here = delayed_events(times, copies, delay, None, begin, end, every, keys, values, events)
        for row in range(n * LANES):
            by_arrival[row] = 0
        unwind_trains(
            keys, values, None, here, weight, copies, events, c, begin, bound, taus, state, whole, trains, slopes,
            again, grad, by_weight, by_arrival, totals,
        )  # fmt: skip
        if everything:
            add_arrivals(by_arrival, n, events, copies, weight, c, sums, line, by_delay, by_times)

    unwind_sample = unwind_unsorted if delayed else unwind_sorted

    @c_function(SIGNATURE, dtype, delayed)
    def kernel(a):
        g = read(a)
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        everything, taus, asks_end = g.everything != 0, g.by_taus != 0, g.asks_end != 0
        begin, end = g.bounds[0], g.bounds[1]
        ones = np.ones(g.groups * LANES, g.times.dtype)
        memory = lane_memory(g.times, g.largest, True)
        keys, values, by_arrival, events = (
            unowned(memory[0]), unowned(memory[1]), unowned(memory[2]), unowned(memory[3])
        )  # fmt: skip
        more = (
            np.zeros(train_adjoint.N_STATE, g.times.dtype), np.zeros(train_adjoint.N_WHOLE, np.int32),
            np.zeros(LANES, np.int32), np.empty(256, g.times.dtype), np.zeros(16, g.times.dtype),
        )  # fmt: skip
        state, whole, counts = unowned(more[0]), unowned(more[1]), unowned(more[2])
        sums, line = unowned(more[3]), unowned(more[4])
        while True:
            task = next_task(a)
            if task >= a[TASKS]:
                break
            if a[PHASE] == 1:
                e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
                first, stop = chunk * g.batch // g.chunks, (chunk + 1) * g.batch // g.chunks
                for b in range(first, stop if everything else first):
                    g.times_parts[e, part, b] = 0
                for group in range(part * g.groups // g.parts, (part + 1) * g.groups // g.parts):
                    every, at = lanes_with(g.outputs, group), group * LANES
                    own, c, totals = slice(at, min(at + LANES, g.outputs)), g.rates[e, group], g.totals[e, group, chunk]
                    g.weight_parts[e, group, chunk] = 0
                    if everything and delayed:
                        g.delay_parts[e, group, chunk] = 0
                    totals[:] = 0
                    for b in range(first, stop):
                        over = np.uint64(0)
                        for lane in range(LANES):
                            counts[lane] = 0
                        for lane in range(min(LANES, g.outputs - at)):
                            over |= np.uint64(g.overflows[e, b, at + lane]) << np.uint64(lane)
                            for time in g.trains[e, b, at + lane]:
                                counts[lane] += time < math.inf
                        neurons_of(
                            state, g.unit[e, at:], g.level[e, at:], g.reset[e, own], g.refractory[e, own],
                            g.held[e, b, :, own], begin, g.of_end[e, b, :, own], asks_end,
                        )  # fmt: skip
                        start_back(state, whole, g.trains[e, b, own], counts, asks_end, over, end)
                        unwind_sample(
                            g.times[e, b], g.copies, g.delays[e, group], g.packed[e, group], c, every, begin, end,
                            g.bound[0], everything, taus, g.order[e, b], g.source[e, b], g.arrival[e, b],
                            g.count[e, b:], keys, values, events, state, whole, g.trains[e, b, own],
                            g.slopes[e, b, own], g.again[e, b, own], g.grad[e, b, own], g.weight_parts[e, group, chunk],
                            g.delay_parts[e, group, chunk], g.times_parts[e, part, b], by_arrival, sums, line, totals,
                        )  # fmt: skip
                        if begin > -math.inf:
                            gradients_by_start(
                                state, counts, g.unit[e, own], g.held[e, b, :, own], g.by_start[e, b, :, own], taus,
                                totals,
                            )  # fmt: skip
            elif task < g.ensemble * g.groups:
                e, group = task // g.groups, task % g.groups
                first = group * LANES
                if a[PHASE] == 0:
                    fill_rates(g.mem, g.syn, e * g.outputs, first, g.outputs, g.rates[e, group])
                    for lane in range(first, first + LANES):
                        g.unit[e, lane] = g.level[e, lane] = 1
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
                total, c = g.totals[e, group], g.rates[e, group]
                for chunk in range(1, g.chunks):
                    for lane in range(3 * LANES):
                        total[0, lane] += total[chunk, lane]
                for lane in range(min(LANES, g.outputs - first)):
                    g.by_threshold[e, first + lane] = total[0, lane] / g.unit[e, first + lane]
                    g.by_mem[e, first + lane] = total[0, BY_MEM + lane] * c[PER_MEM + lane] * c[UNIT]
                    g.by_syn[e, first + lane] = total[0, BY_SYN + lane] * c[PER_SYN + lane] * c[UNIT]
            elif everything:
                task -= g.ensemble * g.groups
                e, first = task // blocks, task % blocks * SAMPLES
                for b in range(first, min(first + SAMPLES, g.batch)):
                    for k in range(g.events):
                        total_here = g.times_parts[e, 0, b, k]
                        for part in range(1, g.parts):
                            total_here += g.times_parts[e, part, b, k]
                        g.by_times[e, b, k] = total_here
        keep(memory)
        keep(more)

    return kernel.ctypes
