"""Kernels of recurrent layers, whose neurons are on their own within a window of time. See ``lanes`` for groups."""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, every_lane
from firstspike.spiketime.cpu.lanes import kernels as lanes
from firstspike.spiketime.cpu.lanes.kernels import (
    block_of,
    clear_group,
    gather,
    prepare_group,
    prepare_units,
    sort_trains,
)
from firstspike.spiketime.cpu.lanes.shared import fill_between
from firstspike.spiketime.cpu.lanes.state import BUFFERS, end_rows, fill_rates, start_rows
from firstspike.spiketime.cpu.lanes.walk import walk
from firstspike.spiketime.cpu.lanes.windows import at_in, sort_due, window_of
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, samples_of
from firstspike.spiketime.cpu.vectors.simd import fill32, highest, load32, lowest, select, store
from firstspike.spiketime.cpu.windows.unwind import N_BLOCK, unwind_apart, unwind_together

SIZES = "asked windows bounds_size budget block dues sendings ranges"
ARRAYS = {
    "bounds_of": "real bounds_size",  # starts of the windows, and the end
    "full": "int64 samples windows groups",  # lanes that have no room for a spike in a window
    "lacks": "int32 samples",
    # longest delays of inputs and of own spikes, those that were sent, and how many up to each window by ranges of
    # groups
    "reach": "real 2",
    "sent": "int32 samples sendings",
    "sent_at": "int32 samples ranges bounds_size",
    "due_events": "int32 threads dues",
    "due_sources": "int32 threads dues",
    "due_rows": "int32 threads dues",
    "due_places": "int32 threads dues",
    "due_times": "real threads dues",
    "due_moments": "real threads dues",
    "before": f"int32 kept {LANES}",  # spikes before a window
}
"""What the kernels need beside that of neurons on their own. These have room for ``most`` spikes, ``asked`` or more."""

_DENSE = {
    "lengths": f"int32 threads {LANES}",
    "tile": "real threads 512",
    "lists": "real threads 2 listed",
    "soonest": "real all_groups inputs",  # shortest and longest delay of each input to a group
    "latest": "real all_groups inputs",
    "blocks_of": f"int32 kept {N_BLOCK}",
}

FORWARD = lanes.FORWARD.extended(f"{SIZES} listed", **ARRAYS, **_DENSE)
BACKWARD = lanes.BACKWARD.extended(f"{SIZES} listed", **ARRAYS, **_DENSE)


@jit
def fill_reach(g, task):
    """Fill in the shortest and the longest delays to a group."""
    every, never = every_lane(min(LANES, g.outputs - task % g.groups * LANES)), fill32(g.times, np.inf)
    for i in range(g.inputs if g.delayed > 0 else 0):
        delay = load32(g.delays[task], i * LANES)
        g.soonest[task, i] = lowest(select(every, delay, never))
        g.latest[task, i] = highest(select(every, delay, never * -1.0))


@jit
def window_in(g, slot, b, w, delayed):
    """A window of a sample, with what neurons alike share of its intervals."""
    window = window_of(g, slot, b, w, delayed)
    if g.alike != 0:
        fill_between(g, slot, b, g.rows[slot], window.n, window.times, window.begin, window.end)
    return window


@jit
def walk_window(g, at, keys, values, source, n):
    """Take the neurons of a group through a window."""
    rows, counts = g.state[at.kept], g.counts[at.kept]
    if at.window.number == 0:
        start_rows(g, at, g.observes != 0)
    for lane in range(LANES):
        g.before[at.kept, lane] = counts[lane]
    place, stuck = walk(g, at, keys, values, source, n)
    for row in range(0, (1 + g.count) * LANES if place > BUFFERS else 0, LANES):
        store(rows, BUFFERS + row, load32(rows, place + row))
    g.full[at.b, at.window.number, at.first // LANES] = stuck
    last = at.window.number + 1 == g.windows
    if stuck or last:
        end_rows(g, at, BUFFERS, stuck)
    for lane in range(min(LANES, g.outputs - at.first) if last else 0):
        if counts[lane] > g.asked:
            g.overflows[at.b, at.first + lane] = 1


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, flow: str, delayed: bool, several: bool, windows: str):
    """Forward, with synaptic delays or without."""

    @jit
    def prepare(g, slot, task):
        if task < g.all_groups:
            fill_rates(g, task // g.groups, task % g.groups * LANES, LANES, g.rates[task])
            prepare_group(g, task, g.threshold[task // g.groups])
            fill_reach(g, task)
            return
        for b in block_of(g, task - g.all_groups):
            sort_trains(g, slot, b)

    @jit
    def scan(g, slot, task):
        e, begin, stop = samples_of(task, g.batch, g.block)
        for b in range(e * g.batch + begin, e * g.batch + stop):
            for w in range(g.windows):
                window = window_in(g, slot, b, w, delayed)
                g.sent_at[b, 0, w + 1] = g.sent_at[b, 0, w]
                for place in range(g.groups):
                    at = at_in(g, slot, slot, e, b, place, 0, window)
                    if delayed:
                        walk_window(g, at, *sort_due(g, at))
                    else:
                        walk_window(g, at, window.times, g.packed[at.group], window.sources, window.n)

    return prepare, scan


@kernel(BACKWARD)
def backward_kernel(dtype: str, flow: str, delayed: bool, several: bool, windows: str):
    """Backward of both. All neurons of a sample go back together."""
    unwind_window = unwind_apart if delayed else unwind_together

    @jit
    def prepare(g, slot, task):
        prepare_units(g, task)
        fill_reach(g, task)

    @jit
    def unwind(g, slot, task):
        e, chunk = task // g.chunks, task % g.chunks
        begin, end = e * g.batch + chunk * g.batch // g.chunks, e * g.batch + (chunk + 1) * g.batch // g.chunks
        g.times_parts[0, begin:end] = 0
        for group in range(e * g.groups, (e + 1) * g.groups):
            clear_group(g, group, chunk)
        for b in range(begin, end):
            for w in range(g.windows - 1, -1, -1):
                window = window_in(g, slot, b, w, delayed)
                for place in range(g.groups):
                    unwind_window(g, at_in(g, slot, slot, e, b, place, chunk, window))

    return prepare, unwind, gather
