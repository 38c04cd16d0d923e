"""The bound ``max_weight_grad``: which spikes are fixed for the weights, by the largest response to an input."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, named_rates, rates_in
from firstspike.spiketime.cpu.lanes import windows
from firstspike.spiketime.cpu.lanes.adjoint import BEFORE, EACH, FACTOR, LEFT, PARTS, Q_KEPT, SIZE, SPIKE, Y_KEPT
from firstspike.spiketime.cpu.lanes.convolved import convolved3
from firstspike.spiketime.cpu.lanes.state import RISE, THRESHOLD, recurs, unit_of
from firstspike.spiketime.cpu.membrane import responses
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, lowest_bit, select, store


@inlined
def response_to(g, at, k, spike, arrival, begin):
    """The effect of an input of weight 1 to a component on membranes that start at ``begin``, at later spikes."""
    c, unit, none = g.rates[at.group], unit_of(g, at), fill32(g.state, 0.0)
    causal = spike > arrival
    wait = select(causal, (spike - max(arrival, begin)) * unit, none)
    age, r = select(causal & (begin > arrival), (begin - arrival) * unit, none), rates_in(c[k])
    _, own, feeds = responses(age, r)
    if g.kinds[k] != RISE:
        return select(causal, responses(wait, r)[2] * own, none)
    s = rates_in(c[k + 1])
    third = convolved3(wait, s.mem, s.syn, r.syn) * (s.syn * r.syn)
    return select(causal, third * own + responses(wait, s)[2] * feeds, none)


@chosen_by_type
def count_of(g, at):
    """The number of inputs, of recurrent layers of those of the window."""
    return (lambda g, at: at.window.n) if recurs(g) else lambda g, at: g.events


@chosen_by_type
def input_at(g, at, event):
    """The column of an input, when it arrives at each lane, and those at which it does between begin and end."""
    return windows.input_at.py_func if recurs(g) else _given_at.py_func


@jit
def _given_at(g, at, event):
    i, time = event // g.copies, g.times[at.b, event]
    arrival = load32(g.delays[at.group], i * LANES) + time if g.delayed > 0 else fill32(g.times, time)
    return i, arrival, (arrival >= at.begin) & (at.end > arrival)


@jit
def fill_largest(g, at, number):
    """Fill in how large the response to an input is at most, at the spikes of all lanes of that number.

    Where nothing has been reset since, the response to an input only grows up to a time, and falls from then on: so the
    last inputs before that and the first ones after it decide, and the last one before the reset.
    """
    largest, c, rows = fill32(g.state, 0.0), g.rates[at.group], g.state[at.kept]
    packed, never, always = g.packed[at.group], fill32(g.state, math.inf), fill32(g.state, -math.inf)
    spikes, begins = PARTS + g.count * EACH + SPIKE, PARTS + g.count * EACH + BEFORE
    store(rows, spikes, always)
    store(rows, begins, always)
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        if g.spikes[at.b, j, number] < math.inf:
            rows[spikes + lane] = g.spikes[at.b, j, number]
        if g.resets != 0 and g.n_saved == 0:
            hold = g.refractory[at.e, j]
            if number > 0:
                rows[begins + lane] = g.spikes[at.b, j, number - 1] + hold
            elif g.starts != 0 and g.left[at.b, j] > 0:
                rows[begins + lane] = g.bounds[0] + g.left[at.b, j]
    spike, begin = load32(rows, spikes), load32(rows, begins)
    for receptor in range(g.receptors):
        k = np.intp(g.places[receptor])
        summit = spike - named_rates(c[k]).top / (named_rates(c[k]).syn * named_rates(c[0])[0].unit)
        old, rising, falling = always, always, never
        for event in range(count_of(g, at)):
            i, arrival, some = input_at(g, at, event)
            some &= spike > arrival
            if some and (g.planes == 1 or g.receptor[at.e, i] == receptor):
                if g.signed != 0:
                    positive = load32(packed, i * LANES) > 0.0
                    some &= positive if receptor == 0 else ~positive
                if some and g.kinds[k] == RISE:
                    largest = select(some, max(largest, response_to(g, at, k, spike, arrival, begin)), largest)
                elif some:
                    late = some & (arrival >= begin)
                    old = select(some & ~late, max(old, arrival), old)
                    rising = select(late & (summit >= arrival), max(rising, arrival), rising)
                    falling = select(late & (arrival > summit), min(falling, arrival), falling)
        for arrival in (old, rising, falling):
            some = (arrival > always) & (never > arrival)
            if some:
                largest = max(largest, response_to(g, at, k, spike, select(some, arrival, spike), begin))
    store(g.largest[at.kept], number * LANES, largest)


@chosen_by_type
def remains(g, at):
    """Whether the largest responses of one number hold for all lanes: not where these are in another window."""
    last = not recurs(g)
    return lambda g, at: last


@jit
def drop_bounded(g, at, suspects):
    """Take away for the weights what changed at the spikes of lanes whose gradient exceeds the bound by some weight."""
    rows, others, whole = g.state[at.kept], PARTS + g.count * EACH, g.whole[at.kept]
    while suspects:
        lane = lowest_bit(suspects)
        suspects &= suspects - np.uint64(1)
        number = np.intp(whole[LEFT + lane])
        if g.filled[at.kept, number] == 0:
            fill_largest(g, at, number)
            g.filled[at.kept, number] = remains(g, at)
        factor = rows[others + FACTOR + lane]
        if abs(factor) * g.largest[at.kept, number * LANES + lane] > rows[others + SIZE + lane] * g.bound[0]:
            rows[Y_KEPT + lane] -= factor
            for k in range(g.count):
                if g.kinds[k] == THRESHOLD:
                    rows[PARTS + k * EACH + Q_KEPT + lane] += factor
