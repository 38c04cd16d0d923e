"""Kernels of recurrent layers, whose neurons are on their own within a window of time. See ``lanes`` for groups."""

# mypy: disable-error-code="no-untyped-def"
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
    sum_parts,
    unpack_tile,
)
from firstspike.spiketime.cpu.lanes.kernels import fill_units
from firstspike.spiketime.cpu.lanes.state import at_of
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import Layout, kernel, samples_of
from firstspike.spiketime.cpu.sort import SORTING, sort_row
from firstspike.spiketime.cpu.vectors.simd import fill32, highest, load32, lowest, select
from firstspike.spiketime.cpu.windows.back import N_STATE, N_WHOLE, unwind_apart, unwind_together
from firstspike.spiketime.cpu.windows.carry import BY_MEM, BY_RESET, BY_SYN, BY_THRESHOLD
from firstspike.spiketime.cpu.windows.events import sort_due, window_of
from firstspike.spiketime.cpu.windows.walk import walk

SAMPLES = 16  # of one task

# taus: how many time constants of each kind, 1 if all neurons share them. Samples and groups are counted through all
# networks
FORWARD = Layout(
    "ensemble batch samples inputs copies events outputs most groups all_groups group_inputs delay_inputs "
    "taus threads sorted sorting observes padded releases "
    "windows bounds_size budget room block kept dues listed sendings",
    mem="real taus",
    syn="real taus",
    times="real samples events",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    delay="real ensemble outputs inputs",
    spikes="real samples outputs room",
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
    # longest delays of inputs and of own spikes, those that were sent, and up to each window
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
    "chunks stride lanes pieces_size by_taus asks_end",
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
    times_parts="real 1 samples stride",
    totals=f"real all_groups chunks {4 * LANES}",  # from BY_THRESHOLD to BY_RESET
    pieces="real kept pieces_size",
    sums=f"real threads {17 * 16}",  # over lanes, and a row of sums
)


def prepared(delayed, backward):
    """The phase that packs the parameters of groups of neurons, and sorts blocks of samples."""

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
                every, never = every_lane(min(LANES, g.outputs - first)), fill32(g.times, np.inf)
                for i in range(g.inputs):
                    delay = load32(g.delays[task], i * LANES)
                    g.soonest[task, i] = lowest(select(every, delay, never))
                    g.latest[task, i] = highest(select(every, delay, never * -1.0))
            return
        keys, labels, begin = g.sort_keys[slot], g.sort_labels[slot], (task - g.all_groups) * SAMPLES
        for b in range(begin, min(begin + SAMPLES, g.samples)):  # the inputs that arrive between start and end
            order, arrival = g.order[b], g.arrival[b]
            n = sort_row(
                g.times[b], -np.inf if delayed else g.bounds[0], g.bounds[g.windows], order, arrival, keys, labels
            )
            arrival[n], g.count[b, 0] = np.inf, n
            for k in range(n):
                g.source[b, k] = order[k] // g.copies

    return prepare


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, delayed: bool):
    """Forward, with synaptic delays or without."""

    @jit
    def scan(g, slot, task):
        e, begin, stop = samples_of(task, g.batch, g.block)
        for b in range(e * g.batch + begin, e * g.batch + stop):
            for w in range(g.windows):
                window = window_of(g, slot, b, w, delayed)
                g.sent_at[b, w + 1] = g.sent_at[b, w]
                for place in range(g.groups):
                    at, packed = at_of(g, slot, e, b, place, 0, 0), g.packed[e * g.groups + place]
                    if delayed:
                        walk(g, at, window, g.keys[slot], g.values[slot], None, sort_due(g, at, window, packed))
                    else:
                        walk(g, at, window, window.times, packed, window.sources, window.n)

    return prepared(delayed, False), scan


@kernel(BACKWARD)
def backward_kernel(dtype: str, delayed: bool):
    """Backward of both. All neurons of a sample go back together."""
    unwind_window = unwind_apart if delayed else unwind_together

    @jit
    def unwind(g, slot, task):
        e, chunk = task // g.chunks, task % g.chunks
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[0, begin:end] = 0
        for group in range(e * g.groups, (e + 1) * g.groups):
            g.weight_parts[group, chunk] = 0
            g.delay_parts[group, chunk] = 0
            g.totals[group, chunk] = 0
        for b in range(begin, end):
            for w in range(g.windows - 1, -1, -1):
                window = window_of(g, slot, b, w, delayed)
                for place in range(g.groups):
                    unwind_window(g, at_of(g, slot, e, b, place, chunk, 0), window)

    @jit
    def gather(g, slot, task):
        if task >= g.all_groups:
            begin = (task - g.all_groups) * SAMPLES
            for b in range(begin, min(begin + SAMPLES, g.samples)):
                for i in range(g.events):
                    g.by_times[b, i] = g.times_parts[0, b, i]
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
            g.by_reset[e, first + lane] = total[0, BY_RESET + lane] / g.unit[e, first + lane]

    return prepared(delayed, True), unwind, gather
