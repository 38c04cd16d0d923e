"""Kernels of neurons on their own: synaptic delays, time constants for each neuron, and gradients by time constants.

A group is 32 neurons of one network, whose lanes go through one sample together. Whether neurons have delays, and one
spike or several, is known when a kernel is compiled: it calls one of four functions for each group and sample.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import (
    LANES,
    PER_MEM,
    PER_SYN,
    SAVED,
    UNIT,
    fill_rates,
)
from firstspike.spiketime.cpu.lanes.adjoint import BY_MEM, BY_SYN, BY_THRESHOLD, unwind_delayed, unwind_sorted
from firstspike.spiketime.cpu.lanes.scan import scan_delayed, scan_sorted, scan_trains_delayed, scan_trains_sorted
from firstspike.spiketime.cpu.lanes.train_adjoint import unwind_trains_delayed, unwind_trains_sorted
from firstspike.spiketime.cpu.pack import pack_tile, unit_of_row, unpack_tile
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, samples_of
from firstspike.spiketime.cpu.sort import SORTING, SORTING_SIZES, sort_row, sort_samples
from firstspike.spiketime.cpu.vectors.simd import load16, store

SAMPLES = 16  # of one task

# what calls of both kernels may give; taus: how many time constants of each kind, 1 if all neurons share them
_GIVEN = {
    "mem": "real taus",
    "syn": "real taus",
    "times": "real ensemble batch events",
    "weight": "real ensemble outputs inputs",
    "threshold": "real ensemble outputs",
    "delay": "real ensemble outputs inputs",
    "spikes": "real ensemble batch outputs most",
    **SAVED,  # of first spikes with delays only the slopes, one for each neuron; of trains only what was sorted
    "bounds": "real two",  # start and end
    # of trains: the inputs in order of arrival, and the slopes at spikes and at releases
    "reset": "real ensemble outputs",
    "refractory": "real ensemble outputs",
    "held": "real ensemble batch states outputs",  # at the start, then likewise at the end
    "overflows": "uint8 ensemble batch outputs",
    "source": "int32 ensemble batch ints",
    "slopes": "real ensemble batch outputs most",
    "again": "real ensemble batch outputs releases",
}
_OF_GROUPS = {
    "rates": "real ensemble groups n_rates width",
    "packed": "real ensemble groups group_inputs",
    "delays": "real ensemble groups delay_inputs",
}
_OF_THREADS = {
    "keys": "real threads sorted",
    "values": "real threads sorted",
    "arrived": "int32 threads n_arrived",
    "state": "real threads n_state",
    "whole": "int32 threads n_whole",
    **SORTING,
}
_SIZES = (
    "ensemble batch inputs copies events outputs most groups group_inputs delay_inputs n_rates width taus threads "
    f"sorted {SORTING_SIZES} n_arrived n_state n_whole observes holds ints reals releases states two"
)
FORWARD = Layout(_SIZES, **_GIVEN, **_OF_GROUPS, **_OF_THREADS)
BACKWARD = FORWARD.extended(
    "parts chunks stride lanes n_totals one part_inputs part_delays part_batch rows n_sums everything by_taus asks_end "
    "three",
    bound="real one",
    grad="real ensemble batch outputs most",
    of_end="real ensemble batch three outputs",
    by_weight="real ensemble outputs inputs",
    by_delay="real ensemble outputs inputs",
    by_times="real ensemble batch events",
    by_threshold="real ensemble outputs",
    by_mem="real ensemble outputs",
    by_syn="real ensemble outputs",
    by_start="real ensemble batch three outputs",
    unit="real ensemble lanes",
    level="real ensemble lanes",  # thresholds in these units
    weight_parts="real ensemble groups chunks part_inputs",
    delay_parts="real ensemble groups chunks part_delays",
    times_parts="real ensemble parts part_batch stride",
    totals="real ensemble groups chunks n_totals",
    by_arrival="real threads rows",
    sums="real threads n_sums",
    joins="uint64 threads events",
)
SCRATCH = frozenset(
    (
        *_OF_GROUPS, *_OF_THREADS, "unit", "level", "weight_parts", "delay_parts", "times_parts", "totals",
        "by_arrival", "sums", "joins",
    )
)  # fmt: skip
"""Arrays that are working memory of a call. It does not use others that it is not given."""


@jit
def lanes_with(outputs, group):
    """The lanes of a group that have a neuron."""
    return np.uint64(0xFFFFFFFF) >> np.uint64(max(0, (group + 1) * LANES - outputs))


@jit
def sort_windows(g, e, slot, first, stop):
    """Sort the inputs of the samples from ``first`` to ``stop`` that arrive between start and end."""
    for b in range(first, stop):
        order, arrival = g.order[e, b], g.arrival[e, b]
        n = sort_row(g.times[e, b], g.bounds[0], g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot])
        g.count[e, b, 0], arrival[n] = n, math.inf
        for k in range(n):
            g.source[e, b, k] = order[k] // g.copies


@jit
def in_thresholds(g, e, first):
    """The units of weights forward."""
    return g.threshold[e]


@jit
def in_powers_of_two(g, e, first):
    """The units of weights backward, see ``pack``, which this fills in for a group, and the thresholds in them."""
    g.unit[e, first : first + LANES] = g.level[e, first : first + LANES] = 1
    for j in range(first, min(first + LANES, g.outputs)):
        g.unit[e, j] = unit_of_row(g.weight[e], j, g.threshold[e, j])
        g.level[e, j] = g.threshold[e, j] / g.unit[e, j]
    return g.unit[e]


def prepared(delayed, several, units):
    """The phase that sorts blocks of samples, and packs what groups of neurons have for themselves."""
    sort = sort_windows if several else sort_samples

    @jit
    def prepare(g, slot, task):
        if task >= g.ensemble * g.groups:
            e, first, stop = samples_of(task - g.ensemble * g.groups, g.batch, SAMPLES)
            sort(g, e, slot, first, stop)
            return
        e, group = task // g.groups, task % g.groups
        fill_rates(g.mem, g.syn, e * g.outputs, group * LANES, g.outputs, g.rates[e, group])
        pack_tile(g.weight[e], units(g, e, group * LANES), group * LANES, g.packed[e, group])
        if delayed:
            ones = np.ones(g.groups * LANES, g.times.dtype)
            pack_tile(g.delay[e], ones, group * LANES, g.delays[e, group])

    return prepare


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, delayed: bool, several: bool):
    """Forward, with synaptic delays or without, for one spike or several."""
    if several:
        scan_sample = scan_trains_delayed if delayed else scan_trains_sorted
    else:
        scan_sample = scan_delayed if delayed else scan_sorted

    @jit
    def scan(g, slot, task):
        blocks = (g.batch + SAMPLES - 1) // SAMPLES
        e, first, group = task // (g.groups * blocks), task // g.groups % blocks * SAMPLES, task % g.groups
        every = lanes_with(g.outputs, group)
        for b in range(first, min(first + SAMPLES, g.batch)):
            scan_sample(g, slot, e, b, group, every)

    return prepared(delayed, several, in_thresholds), scan


@kernel(BACKWARD)
def backward_kernel(dtype: str, delayed: bool, several: bool):
    """Backward of all four."""
    if several:
        unwind_sample = unwind_trains_delayed if delayed else unwind_trains_sorted
    else:
        unwind_sample = unwind_delayed if delayed else unwind_sorted
    in_order = not (delayed or several)  # whether gradients by times come in the order of arrival

    @jit
    def unwind(g, slot, task):
        e, chunk, part = task // (g.parts * g.chunks), task // g.parts % g.chunks, task % g.parts
        first, stop = chunk * g.batch // g.chunks, (chunk + 1) * g.batch // g.chunks
        if g.everything:
            g.times_parts[e, part, first:stop] = 0
        for i in range(g.events):
            g.joins[slot, i] = 0
        for group in range(part * g.groups // g.parts, (part + 1) * g.groups // g.parts):
            g.weight_parts[e, group, chunk] = 0
            g.delay_parts[e, group, chunk] = 0
            g.totals[e, group, chunk] = 0
            every = lanes_with(g.outputs, group)
            for b in range(first, stop):
                unwind_sample(g, slot, e, b, group, chunk, part, every)

    @jit
    def gather(g, slot, task):
        if task >= g.ensemble * g.groups:
            e, first, stop = samples_of(task - g.ensemble * g.groups, g.batch, SAMPLES)
            g.by_times[e, first:stop] = 0
            for b in range(first, stop):
                n, total = g.count[e, b, 0] if in_order else g.events, g.times_parts[e, 0, b]
                for k in range(0, n, 16):
                    some = load16(total, k)
                    for part in range(1, g.parts):
                        some = some + load16(g.times_parts[e, part, b], k)
                    store(total, k, some)
                for k in range(n):
                    g.by_times[e, b, g.order[e, b, k] if in_order else k] = total[k]
            return
        e, group = task // g.groups, task % g.groups
        first, total, c = group * LANES, g.totals[e, group], g.rates[e, group]
        if g.everything:
            unpack_tile(g.weight_parts[e, group], g.unit[e], first, g.by_weight[e])
            if delayed:
                ones = np.ones(g.groups * LANES, g.times.dtype)
                unpack_tile(g.delay_parts[e, group], ones, first, g.by_delay[e])
        for chunk in range(1, g.chunks):
            for lane in range(g.n_totals):
                total[0, lane] += total[chunk, lane]
        for lane in range(min(LANES, g.outputs - first)):
            g.by_threshold[e, first + lane] = total[0, BY_THRESHOLD + lane] / g.unit[e, first + lane]
            g.by_mem[e, first + lane] = total[0, BY_MEM + lane] * c[PER_MEM, lane] * c[UNIT, 0]
            g.by_syn[e, first + lane] = total[0, BY_SYN + lane] * c[PER_SYN, lane] * c[UNIT, 0]

    return prepared(delayed, several, in_powers_of_two), unwind, gather
