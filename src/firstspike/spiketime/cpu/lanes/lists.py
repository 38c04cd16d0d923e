"""The inputs of 32 neurons in order of arrival, as ``walk`` takes them: ``keys, values, source, n``.

Where all lanes have the same, keys are the n times, then ``inf``, values a row of weights for each column of the
weights, and the source of an input is its column. With delays each lane has a list of its own: keys and values are rows
of 32, in the order of each lane, without a source. Values of several receptors have a part for each, and 0 elsewhere.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, saved_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.shuffles import sort_lanes
from firstspike.spiketime.cpu.vectors.simd import fill16, fill32, gather16, load16, load32, select, store, store_whole16


@inlined
def sorted_once(g, at):
    """The inputs of first spikes, in the order of all neurons."""
    saved = saved_of(g, at.b)
    return saved.arrival, g.packed[at.group], saved.order, np.intp(saved.last[g.outputs])


@inlined
def sorted_trains(g, at):
    """The inputs of trains, in the order of all neurons."""
    return g.arrival[at.b], g.packed[at.group], g.source[at.b], np.intp(g.numbered[at.b, 0])


@inlined
def no_list(g, at):
    """In place of inputs whose order does not matter."""
    return g.times[at.b], g.packed[at.group], None, 0


@jit
def listed(g, at):
    """The inputs that reach some of the lanes between start and end, sorted for each lane."""
    keys, values, packed, delay = g.keys[at.slot], g.values[at.slot], g.packed[at.group], g.delays[at.group]
    times, begin, end, never, n = g.times[at.b], g.bounds[0], g.bounds[1], fill32(g.keys, math.inf), 0
    several, endless = g.planes > 1, begin == -math.inf and end == math.inf
    i = copy = 0
    for event in range(g.events):
        time, row = times[np.uintp(event)], np.uintp(i) * np.uintp(LANES)
        g.refused |= not time > -math.inf
        if time < end:
            arrival, inside, w = load32(delay, row) + time, at.every, load32(packed, row)
            if not endless:
                inside = (arrival >= begin) & (end > arrival) & at.every
                arrival, w = select(inside, arrival, never), select(inside, w, 0.0)
            if inside:
                store(keys, n * LANES, arrival)
                store(values, n * LANES, select(inside, fill32(keys, i), -1.0) if several else w)
                n += 1
        copy += 1
        if copy == g.copies:
            i, copy = i + 1, 0
    sort_lanes(keys, values, n)
    if several:
        spread(g, at, n)
    return keys, values, None, n


@jit
def spread(g, at, n):
    """Put weights in the place of the columns that were sorted, into the parts of their receptors."""
    values, packed, reached, places = g.values[at.slot], g.packed[at.group], g.reached[at.e], g.columns[at.slot]
    every, none = np.uint64(0xFFFF), fill16(g.values, 0.0)
    for place in range(0, n * LANES, 16):
        column = load16(values, place)
        arrives = column >= 0.0
        store_whole16(every, places, 0, max(column, 0.0))
        receptor = select(arrives, gather16(reached, 0, places, 0), fill16(values, -1.0))
        for lane in range(16):
            places[lane] = places[lane] * LANES + place % LANES + lane
        w = gather16(packed, 0, places, 0)
        for number in range(g.planes):
            store(values, number * g.sorted * LANES + place, select(receptor == float(number), w, none))
