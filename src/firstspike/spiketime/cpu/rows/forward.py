"""Forward: samples are sorted, then each tile of neurons scans each sample's inputs in order of arrival.

A kernel is for first spikes, or for spike trains: their scan goes on where a lane spikes, window after window. A
window's start holds the states that are given, its end those that are returned. Without recurrence there is one.

The events of a window have a time and a source, the number of the input whose weights arrive. Its start and end are
events of a source that no neuron has a weight for. In a recurrent layer the neurons' own spikes arrive again, all after
the same lag, which is at least as long as a window.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import TILE, are_weights, constants, every_lane, pack_row, padded, saved_of
from firstspike.spiketime.cpu.rows.entries import TRAIN_STATE, Entries, Trains, so_far
from firstspike.spiketime.cpu.rows.intervals import STATE, Sample, Tile, find_segments, forward_rows, scan_rows, solve
from firstspike.spiketime.cpu.rows.layouts import FORWARD, TRAIN_FORWARD
from firstspike.spiketime.cpu.rows.scan import scan_tile
from firstspike.spiketime.cpu.rows.train_blocks import BLOCK, rows_of_block
from firstspike.spiketime.cpu.rows.train_scan import scan_trains
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, samples_of
from firstspike.spiketime.cpu.sort import are_times, first_from, sort_row
from firstspike.spiketime.cpu.vectors.rows import like, named_rows
from firstspike.spiketime.cpu.vectors.simd import clear, fill16, filled, splat, store, store_some

_SHORT = 0.045  # mean interval in units of the faster constant for the fast scan of many inputs
_LONG = 0.4  # interval that ends a segment there, likewise
_state_in = named_rows("Tile", STATE, TILE, TILE)
_train_state_in = named_rows("Trains", TRAIN_STATE, TILE, TILE)
carried_in = named_rows("CarriedOn", "voltage current release")
"""States of a sample's neurons between two windows, and when they are released."""
_MARK = -1  # of an order: a window's start or end. Inputs are >= 0, own spikes lie below


@jit
def sort_sample(g, e, slot, b):
    """Sort the inputs of a sample. Returns how many arrive."""
    last, _, order, arrival = saved_of(g, e, b)
    n = sort_row(g.times[e, b], -math.inf, math.inf, order, arrival, g.sort_keys[slot], g.sort_labels[slot])
    last[g.outputs] = n
    if n:
        store(arrival, n, fill16(arrival, arrival[n - 1]))  # as far as vectors may reach
    return n


@inlined
def prepare_sample(g, e, slot, b, at):
    """Sort a sample's inputs; returns the values that all neurons share."""
    c, arrival, rows = constants(g), saved_of(g, e, b).arrival, scan_rows(g.rows[slot, at])
    n = sort_sample(g, e, slot, b)
    if n:
        fast = (arrival[n - 1] - arrival[0]) * max(c.mem, c.syn) < n * _SHORT
        longest = _LONG / max(c.mem, c.syn) if fast else math.inf
        g.segments[slot, at] = find_segments(arrival, n, c, longest, g.start[slot], g.ends[slot, at])
        forward_rows(arrival, n, c, fast, g.start[slot], rows)
        g.fast[slot, at] = fast


@inlined
def scan_sample(zero, g, e, slot, b, at, tile):
    """First spikes of a tile in a sample."""
    lanes, last = min(TILE, g.outputs - tile * TILE), g.lane_last[slot]
    state = like(zero, _state_in(g.state[slot], 0), 0)
    saved = saved_of(g, e, b)
    every, packed, n = every_lane(lanes), g.packed[e, tile], saved.last[g.outputs]
    ends, segments, rows = g.ends[slot, at], g.segments[slot, at], scan_rows(g.rows[slot, at])
    sample = Sample(saved.order, saved.arrival, n, ends, segments, rows)
    neurons = Tile(zero, state, constants(g), g.places[slot], last, g.passed[slot])
    for lane in range(TILE):
        last[lane] = -1
    silent, left = every, every if n else np.uint64(0)
    if left and g.fast[slot, at]:
        silent, left = scan_tile(neurons, packed, sample, every, True)
    if left:
        found, _ = scan_tile(neurons, packed, sample, left, False)
        silent = (silent & ~left) | found
    spike, slope = solve(neurons, every & ~silent)
    store_some(every, g.spikes[e, b], tile * TILE, spike)
    store_some(every, saved.slope, tile * TILE, slope)
    for lane in range(lanes):
        saved.last[tile * TILE + lane] = last[lane]


@jit
def own_event(entry):
    """The ``order`` of an own spike, the number of its entry, or the spike of an ``order``."""
    return -2 - entry


@jit
def start_samples(g, e, slot, first, stop):
    """Sort the input spikes of the samples; the states at the start, in units of the threshold."""
    keys, labels = g.sort_keys[slot], g.sort_labels[slot]
    for b in range(first, stop):
        at, carried = b - first, carried_in(g.carried[slot, b - first])
        outside_order, outside = g.outside_order[slot, at], g.outside[slot, at]
        g.arrived[slot, at] = sort_row(g.times[e, b], -math.inf, math.inf, outside_order, outside, keys, labels)
        g.at_event[slot, at], g.owns[slot, at], g.starts[e, b, 0], g.upto[e, b, 0], g.lacks[e, b] = 0, 0, 0, 0, 0
        for j in range(g.carried_lanes):
            own = carried[j]
            own.voltage, own.current, own.release = 0, 0, math.inf
        for j in range(g.outputs):
            g.counts[slot, at, j], g.overflows[e, b, j] = 0, 0
            if g.bounds[0] > -math.inf:
                own, threshold = carried[j], g.threshold[e, j]
                own.voltage, own.current = g.voltage[e, b, j] / threshold, g.current[e, b, j] / threshold
                if g.left[e, b, j] > 0:
                    own.voltage, own.release = g.reset[e, j] / threshold, g.bounds[0] + g.left[e, b, j]


@jit
def end_samples(g, e, slot, first, stop):
    """The states at the end."""
    for b in range(first, stop):
        carried = carried_in(g.carried[slot, b - first])
        for j in range(g.outputs):
            own, threshold = carried[j], g.threshold[e, j]
            g.end_voltage[e, b, j], g.end_current[e, b, j] = own.voltage * threshold, own.current * threshold
            g.end_left[e, b, j] = max(own.release - g.bounds[g.windows], 0) if own.release < math.inf else 0


@jit
def prepare_window(g, e, slot, b, at, w):
    """Write the events of a sample in window ``w``, inputs and own spikes, and the values that all neurons share.

    Returns whether there is room for the events.
    """
    begin, end, first = g.bounds[w], g.bounds[w + 1], g.starts[e, b, w]
    own, own_id, own_neuron = g.own[slot, at], g.own_id[slot, at], g.own_neuron[slot, at]
    own_sorted, own_order = g.own_sorted[slot], g.own_order[slot]
    outside, outside_order, owns = g.outside[slot, at], g.outside_order[slot, at], g.owns[slot, at]
    order, source, arrival = g.order[e, b], g.source[e, b], g.arrival[e, b]
    due = sort_row(own[:owns], -math.inf, end, own_order, own_sorted, g.sort_keys[slot], g.sort_labels[slot])
    here = first_from(outside, g.at_event[slot, at], g.arrived[slot, at], begin)
    stop, i, k = first_from(outside, here, g.arrived[slot, at], end), 0, first
    room = min(g.stride, g.room - first)
    if padded(stop - here + due + (begin > -math.inf) + (end < math.inf)) > room:
        return False
    if begin > -math.inf:
        arrival[k], source[k], order[k] = begin, g.inputs, _MARK
        k += 1
    while here < stop or i < due:
        # without a sign, an index needs no test for one below 0
        place, outer, inner = np.uintp(k), np.uintp(here), np.uintp(i)
        t = max(own_sorted[inner], begin) if i < due else end
        if here < stop and (i >= due or outside[outer] <= t):
            event = outside_order[outer]
            arrival[place], order[place] = outside[outer], event
            source[place] = event if g.copies == 1 else event // g.copies
            here += 1
        else:
            number = np.uintp(own_order[inner])
            arrival[place], order[place] = t, own_event(own_id[number])
            source[place] = g.inputs - g.outputs + own_neuron[number]
            i += 1
        k += 1
    if end < math.inf:
        arrival[k], source[k], order[k] = end, g.inputs, _MARK
        k += 1
    left = 0
    for i in range(owns):
        own[left], own_id[left], own_neuron[left] = own[i], own_id[i], own_neuron[i]
        left += not own[i] < end
    n = k - first
    g.owns[slot, at], g.at_event[slot, at] = left, here
    g.count[e, b, w], g.starts[e, b, w + 1] = n, first + padded(n)
    if n:
        arrival = arrival[first:]
        store(arrival, n, fill16(arrival, arrival[n - 1]))
        g.segments[slot, at] = find_segments(arrival, n, constants(g), math.inf, g.start[slot], g.ends[slot, at])
        forward_rows(arrival, n, constants(g), True, g.start[slot], scan_rows(g.rows[slot, at]))
    return True


@jit
def scan_window(zero, g, e, slot, b, at, tile, w):
    """Spike trains of a tile in a window of a sample. Returns whether there is room for them."""
    begin, n, first, part, holds = tile * TILE, g.count[e, b, w], g.starts[e, b, w], w * g.tiles + tile, g.holds != 0
    low, counts, spikes = g.upto[e, b, part], g.counts[slot, at, begin:], g.lanes[slot]
    size, number = min(TILE, g.outputs - begin), so_far(g.totals[slot], 0)
    state = like(zero, _train_state_in(g.state[slot], 0), 0)
    carried = like(zero, carried_in(g.carried[slot, at]), begin)
    for lane in range(TILE):
        spikes[lane] = 0
    number.number, number.lacks = low, 0
    state.now_voltage, state.now_current, state.release = carried.voltage, carried.current, carried.release
    state.due, state.last = splat(zero, math.inf), splat(zero, -math.inf)
    observed = g.observed[e, b, begin:begin] if g.seen == 0 else g.observed[e, b, begin:]
    for lane in range(size if g.seen > 0 else 0):
        g.hits[slot, lane] = done = counts[lane]
        state[lane].due = observed[lane, done] if done < g.seen else math.inf
    entries = Entries(spikes, number, g.budget, g.found[e, b], g.places[e, b], g.moments[e, b], g.slopes[e, b])
    if n:
        rows, segments = scan_rows(g.rows[slot, at]), g.segments[slot, at]
        sample = Sample(g.source[e, b, first:], g.arrival[e, b, first:], n, g.ends[slot, at], segments, rows)
        stops, every = g.bounds[w + 1] < math.inf, every_lane(size)
        block = rows_of_block(low - g.upto[e, b, part - g.tiles], g.count[e, b, w - 1]) if w > 0 else BLOCK
        neurons = Trains(zero, state, constants(g), entries, holds, observed, g.hits[slot], g.solved[slot])
        scan_trains(neurons, g.packed[e, tile], sample, every, stops, block)
    carried.voltage, carried.current, carried.release = state.now_voltage, state.now_current, state.release
    g.upto[e, b, part + 1], full = number.number, np.int64(0)
    has_room = keep_spikes(g, e, slot, b, at, tile, w, entries) and number.lacks == 0
    often, most = np.int32(0), np.int32(g.budget)
    for place in range(size):
        lane = np.uintp(place)
        counts[lane] += min(spikes[lane], most)
        often = max(often, spikes[lane])
    for lane in range(size if holds or often > g.budget else 0):
        over = spikes[lane] > g.budget
        g.overflows[e, b, begin + lane] |= np.uint8(over)
        full |= np.int64(over) << np.int64(lane)
        if over or state[lane].release < math.inf:  # it has the reset membrane at the end
            carried[lane].voltage = 1 - state[lane].drop
    g.full[e, b, tile, w] = full
    return has_room


@jit
def keep_spikes(g, e, slot, b, at, tile, w, entries):
    """Write the spikes of a tile in a window, and let them arrive again if there is room."""
    trains, counts, most, begin = g.trains[e, b], g.counts[slot, at], np.uintp(g.most), np.uintp(tile * TILE)
    own, own_id, own_neuron, owns = g.own[slot, at], g.own_id[slot, at], g.own_neuron[slot, at], g.owns[slot, at]
    if w == 0:  # here, so that they are in the cache
        numbers = trains.reshape(trains.size)
        for place in range(tile * TILE * g.most, min(tile * TILE + TILE, g.outputs) * g.most):
            numbers[np.uintp(place)] = math.inf
    for number in range(g.upto[e, b, w * g.tiles + tile], entries.so_far.number):
        entry = np.uintp(number)
        place, moment = np.uintp(entries.places[entry]), entries.moments[entry]
        k, j = place // np.uintp(TILE), begin + (place & np.uintp(TILE - 1))
        if k >= np.uintp(g.budget):
            continue  # a release
        k += np.uintp(counts[j])
        if k < most:
            trains[j, k] = moment
        else:
            g.overflows[e, b, j] = 1
        if w < g.windows - 1:
            if owns == g.waiting:
                return False
            own[owns], own_id[owns], own_neuron[owns] = moment + g.lag[0], number, j
            owns += 1
    g.owns[slot, at] = owns
    return True


@jit
def scan_windows(zero, g, e, slot, first, stop):
    """Spike trains of samples. Where there is too little room, ``lacks`` says so and nothing else has a meaning."""
    state = _train_state_in(g.state[slot], 0)
    start_samples(g, e, slot, first, stop)
    for w in range(g.windows):
        for b in range(first, stop):
            if not prepare_window(g, e, slot, b, b - first, w):
                g.lacks[e, b] = 1
                return  # all is done again with more room
        for tile in range(g.tiles):
            for lane in range(min(TILE, g.outputs - tile * TILE)):
                j, own = tile * TILE + lane, state[lane]
                own.place = lane / TILE - 1
                own.drop, own.hold = 1 - g.reset[e, j] / g.threshold[e, j], g.refractory[e, j]
            for b in range(first, stop):
                if not scan_window(zero, g, e, slot, b, b - first, tile, w):
                    g.lacks[e, b] = 1
                    return
    end_samples(g, e, slot, first, stop)


@kernel(
    lambda lanes, several: TRAIN_FORWARD if several else FORWARD,
    following="firstspike.spiketime.cpu.rows.backward.backward_kernel",
)
def forward_kernel(dtype: str, lanes: int, several: bool):
    """Forward, for one dtype and number of lanes, of first spikes or trains. Of first spikes it refuses some values."""
    fill = filled(lanes)

    @jit
    def pack(g, slot, task):
        e, tile = task // g.tiles, task % g.tiles
        if not several and not are_weights(g.weight[e], g.threshold[e], tile * TILE, TILE):
            g.refused = 1
        pack_row(g.weight[e], g.threshold[e], tile * TILE, g.packed[e, tile])

    @jit
    def scan(g, slot, task):
        e, first, stop = samples_of(task, g.batch, g.block)
        zero = fill(g.c, 0.0)
        clear(g.state[slot])
        if several:
            scan_windows(zero, g, e, slot, first, stop)
            return
        if not are_times(g.times[e], first, stop):
            g.refused = 1
        if g.refused:
            return
        for b in range(first, stop):
            prepare_sample(g, e, slot, b, b - first)
        for tile in range(g.tiles):
            for b in range(first, stop):
                scan_sample(zero, g, e, slot, b, b - first, tile)

    return pack, scan
