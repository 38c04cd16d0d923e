"""Kernels of sparse recurrent layers. Their neurons go through a window as those of ``windows`` do.

Synapses are sorted by their sources, and those of a source by their delays, so that what arrives in a window is one
piece of its row. A spike is handed to its targets: each neuron has a list, in its lane. Nothing is kept of that, so
memory grows with spikes and with synapses, not with arrivals.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes import kernels as lanes
from firstspike.spiketime.cpu.lanes.kernels import (
    block_of,
    fill_heights,
    gather_times,
    gather_totals,
    prepare_parameters,
    sort_trains,
)
from firstspike.spiketime.cpu.lanes.state import fill_rates
from firstspike.spiketime.cpu.lanes.windows import at_in, window_of
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, part_of, samples_of
from firstspike.spiketime.cpu.sort import sort_row
from firstspike.spiketime.cpu.sparse.lists import deal, list_of, pieces_of
from firstspike.spiketime.cpu.sparse.sums import add_window, is_quiet, pass_window
from firstspike.spiketime.cpu.sparse.unwind import settle, unwind_group
from firstspike.spiketime.cpu.windows.kernels import ARRAYS, SIZES, walk_window

PARTS = 64  # into which the sources are cut, for what is done with each synapse once
LEVELS = 5  # how often the groups may be halved so that their lists have twice the room

_SIZES = "lasting seers seen_size ends synapses delays_size"
_SYNAPSES = {
    "offsets": "int64 ends",
    "targets": "int32 synapses",
    "weight": "real synapses",
    "delay": "real delays_size",
    # in the order of delays: where synapses stand in the given ones, their targets, delays, and weights in units of the
    # neurons. Without delays, targets are the given ones
    "place": "int32 delays_size",
    "head": "int32 synapses",
    "lag": "real delays_size",
    "scaled": "real synapses",
    "seen": "int32 seers seen_size",  # of the row of each event, up to where it has arrived, or backward from where on
    "turn": "int64 3",  # the windows of a call: from one up to another; backward, whether their gradients are added
}
# what arrives at each neuron in a window, in rows of 32; ``room`` is the number of rows of a group if all share alike
_LISTS = {
    "short": "int32 samples",  # whether that was not enough
    "levels": "int32 samples ranges",
    "lengths": "real threads lanes",
    "arrivals": "real threads keyed",
    "weights": "real threads keyed",
    "receptors_of": "real threads keyed_receptors",
    "turns": "real threads turned",
    # of windows in which little arrives, see ``sums``: sums, what is left of weights, and groups that wait for lists
    "added": "real threads added_size",
    "fading": "real threads fading_size",
    "waits": "int32 threads groups",
    "picked": f"int32 threads {LANES}",
    "picked_kinds": f"int32 threads {LANES}",
    "picked_times": f"real threads {LANES}",
}
FORWARD = lanes.FORWARD.extended(
    f"{SIZES} {_SIZES} room lanes keyed keyed_receptors turned adds added_size fading_size",
    **ARRAYS,
    **_SYNAPSES,
    **_LISTS,
)
BACKWARD = lanes.BACKWARD.extended(
    f"{SIZES} {_SIZES} owners table_size", **ARRAYS, **_SYNAPSES,
    by_weight="real synapses", by_delay="real delays_size",
    weight_parts="real chunks synapses",
    delay_parts="real chunks delays_size", picked=f"int32 threads {LANES}", picked_times=f"real threads {LANES}",
    table="real owners table_size", lasts="int32 samples",
)  # fmt: skip


@jit
def sort_synapses(g, slot, part):
    """Sort the synapses of some sources by their delays."""
    first, last = part_of(g.inputs, PARTS, part)
    for i in range(first, last if g.delayed > 0 else first):
        row = slice(g.offsets[i], g.offsets[i + 1])
        place, delay, sorts = g.place[row], g.delay[row], False
        for k in range(len(delay)):
            sorts |= k > 0 and delay[k] < delay[k - 1]
            place[k] = k
        if sorts:
            sort_row(delay, -math.inf, math.inf, place, g.lag[row], g.sort_keys[slot], g.sort_labels[slot])
        for k in range(len(place)):
            place[k] += row.start


@jit
def prepare_synapses(g, part, unit):
    """Fill in the synapses of some sources in the order of their delays, in units of the neurons."""
    first, last = part_of(g.inputs, PARTS, part)
    for s in range(g.offsets[first], g.offsets[last]):
        place = s
        if g.delayed > 0:
            place = np.intp(g.place[s])
            g.head[s], g.lag[s] = g.targets[place], g.delay[place]
        g.scaled[s] = g.weight[place] / unit[g.head[s]]


@jit
def walk_groups(g, slot, b, r, w, delayed):
    """Take a range of neurons through a window, or some after the others if lists need more room.

    The groups are halved that many times. This level stays, and falls again when lists are short.
    """
    (first, stop), most, owner = part_of(g.groups, g.ranges, r), 0, b if g.lasting != 0 else slot
    window = pieces_of(g, slot, owner * g.ranges + r, window_of(g, slot, b, w, delayed), False)
    g.sent_at[b, r, w + 1] = g.sent_at[b, r, w]
    quiet = g.adds != 0 and 0 < w < g.windows - 1 and is_quiet(g, slot, window)
    if quiet:
        add_window(g, slot, window, first, stop)
        rest = False
        for place in range(first, stop):
            at = at_in(g, slot, owner, 0, b, place, r, window)
            waits = not pass_window(g, at)
            g.waits[slot, place], rest = waits, rest or waits
        if not rest:
            return
    while first < stop:
        level = np.intp(g.levels[b, r])
        rows, last = (g.room << level) + 1, min(first + max(g.groups >> level, 1), stop)
        longest = deal(g, slot, window, first, last, rows, quiet)
        if longest < 0:
            g.levels[b, r] += 1
            if level == LEVELS or g.groups >> (level + 1) == 0:
                g.short[b] = 1  # all is done again with more room
                return
            continue
        for place in range(first, last):
            if not quiet or g.waits[slot, place] != 0:
                at = at_in(g, slot, owner, 0, b, place, r, window)
                walk_window(g, at, *list_of(g, at, first, rows))
        first, most = last, max(most, longest)
    if g.levels[b, r] > 0 and most < (g.room << np.intp(g.levels[b, r])) >> 2:
        g.levels[b, r] -= 1


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str, flow: str, delayed: bool, several: bool, windows: str):
    """Forward, with a delay for each synapse or without."""

    @jit
    def prepare(g, slot, task):
        if task < g.groups:
            fill_rates(g, 0, task * LANES, LANES, g.rates[task])
            prepare_parameters(g, task, g.threshold[0])
        elif task < g.groups + PARTS:
            sort_synapses(g, slot, task - g.groups)
            prepare_synapses(g, task - g.groups, g.threshold[0])
        else:
            for b in block_of(g, task - g.groups - PARTS):
                sort_trains(g, slot, b)

    @jit
    def scan(g, slot, task):
        if g.lasting != 0:
            begin, stop, r = task // g.ranges, task // g.ranges + 1, task % g.ranges
        else:
            (_, begin, stop), r = samples_of(task, g.batch, g.block), 0
        for b in range(begin, stop):
            for w in range(g.turn[0], g.turn[1]):
                walk_groups(g, slot, b, r, w, delayed)
                if g.short[b]:
                    return

    return prepare, scan


@jit
def back_through(g, slot, owner, b, chunk, w, r, delayed):
    """Take a range of neurons back through a window, then add the gradients of what arrives in it.

    Where several ranges share a window, a call does one of the two, and each range adds those of every so many sources.
    Gradients by time constants have one sum, for which a single range adds all.
    """
    window, (first, last) = window_of(g, slot, b, w, delayed), part_of(g.groups, g.ranges, r)
    if g.ranges == 1 or g.turn[2] == 0:
        for place in range(first, last):
            unwind_group(g, at_in(g, slot, owner, 0, b, place, chunk, window))
    ranges = 1 if g.by_taus != 0 else g.ranges
    if r < ranges and (g.ranges == 1 or g.turn[2] != 0):
        window = pieces_of(g, slot, owner * g.ranges + r, window, True)
        settle(g, slot, owner, b, chunk, window, r, ranges, g.by_taus != 0)


@kernel(BACKWARD)
def backward_kernel(dtype: str, flow: str, delayed: bool, several: bool, windows: str):
    """Backward of both. All neurons of a sample go back together."""

    @jit
    def prepare(g, slot, task):
        if task < g.groups:
            fill_rates(g, 0, task * LANES, LANES, g.rates[task])
            fill_heights(g, task)
            prepare_parameters(g, task, g.unit[0])
        elif task < g.groups + PARTS:
            prepare_synapses(g, task - g.groups, g.unit[0])
        else:
            for b in range(*part_of(g.batch, g.chunks, task - g.groups - PARTS)):
                g.times_parts[0, b] = 0
            g.weight_parts[task - g.groups - PARTS] = 0
            g.totals[:, task - g.groups - PARTS] = 0
            if g.delayed > 0:
                g.delay_parts[task - g.groups - PARTS] = 0

    @jit
    def unwind(g, slot, task):
        if g.lasting != 0:
            begin, stop, r = task // g.ranges, task // g.ranges + 1, task % g.ranges
        else:
            (begin, stop), r = part_of(g.batch, g.chunks, task), 0
        for b in range(begin, stop):
            owner, chunk = (b, b) if g.lasting != 0 else (slot, task)
            for w in range(g.turn[1] - 1, g.turn[0] - 1, -1):
                back_through(g, slot, owner, b, chunk, w, r, delayed)

    @jit
    def gather(g, slot, task):
        if task < g.groups:
            gather_totals(g, task)
            return
        if task >= g.groups + PARTS:
            gather_times(g, task - g.groups - PARTS)
            return
        sources = part_of(g.inputs, PARTS, task - g.groups)
        first, last = g.offsets[sources[0]], g.offsets[sources[1]]
        for chunk in range(1, g.chunks):
            for s in range(first, last):
                g.weight_parts[0, s] += g.weight_parts[chunk, s]
                if g.delayed > 0:
                    g.delay_parts[0, s] += g.delay_parts[chunk, s]
        for s in range(first, last):
            to = g.place[s] if g.delayed > 0 else s
            g.by_weight[to] = g.weight_parts[0, s] / g.unit[0, g.head[s]]
            if g.delayed > 0:
                g.by_delay[to] = g.delay_parts[0, s]

    return prepare, unwind, gather
