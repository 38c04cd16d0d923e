"""Neurons that see their inputs in an order of their own (synaptic delays), or have their own time constants: forward.

The lanes of a vector are 32 neurons of one sample. With synaptic delays each lane has its own order of arrival: a
sorting network sorts all lanes at once. Then all take the same steps from one input to the next, each over its own
time and with its own coefficients: where the order and so the times are the same for all and brief, by short power
series, otherwise by exponentials.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.lanes.rates import LANES, SHORT, UNIT, rates_in
from firstspike.spiketime.cpu.lanes.sort import sort_lanes
from firstspike.spiketime.cpu.membrane import ENOUGH, MAX_STEPS, brief, nearer, reaches, responses
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    absolute,
    all_of,
    fill32,
    fma,
    load32,
    maximum,
    minimum,
    next_up,
    power_of_two,
    select,
    split_power,
    store,
)


@jit
def longest_wait(c):
    """A time after which nothing is left, and whose exponentials are numbers."""
    return 1e30 if c.itemsize == 4 else 1e250


@jit
def crossings(voltage, current, limit, fired, c):
    """Times from the states of the lanes ``fired`` to their first crossings of the threshold, up to ``limit``."""
    r, tolerance = rates_in(c), 2e-3 if c.itemsize == 4 else 1e-5
    unit, size = fill32(c, 1.0), maximum(absolute(voltage), absolute(current * r.syn))
    if (size > (2.0**40 if c.itemsize == 4 else 2.0**400)) & fired:  # so that no square overflows
        exponent, _ = split_power(maximum(size, 1.0))
        unit = power_of_two(exponent * -1.0)
        voltage, current = voltage * unit, current * unit
    s, low, high, value, now = fill32(c, 0.0), fill32(c, 0.0), limit, voltage, current
    going = fired  # a lane stops by itself, so that its last digits do not depend on its neighbours
    for _ in range(MAX_STEPS):
        following, low, high, moved = nearer(s, low, high, unit - value, value, now * r.syn, r)
        s = select(going, following, s)
        going &= moved > absolute(following) * tolerance
        if not going:
            break
        mem, syn, rise = responses(s, r)
        value = select(going, fma(voltage, mem, current * rise), value)
        now = select(going, current * syn, now)
    return s


@jit
def scan(keys, values, order, n, c, every, found):
    """Spike times of 32 neurons, dV/dt there in units of the threshold, and the place of the last causal input.

    Args:
        keys: times of arrival. With an order that all share ``(n + 1,)``, otherwise ``(n + 1) * LANES`` of the lanes;
            the last is inf.
        values: weights in units of the threshold, for each input or in the order of arrival.
        order: of the inputs, or None where each lane has its own.
        n: how many arrive.
        c: rates.
        every: lanes that have a neuron.
        found: to be filled with all three, ``(3 * LANES,)``; ``inf``, 0 and -1 where the neuron is silent.
    """
    r, never, unit, longest = rates_in(c), fill32(c, math.inf), c[UNIT], longest_wait(c)
    voltage = current = fill32(c, 0.0)
    voltage_then, current_then, limit, last = voltage, current, never, fill32(c, -1.0)
    active, fired, is_brief, leaks = every, np.uint64(0), False, all_of(r.mem > 0.0, voltage)
    now = load32(keys, 0) if order is None else fill32(c, keys[0])
    for k in range(n):
        if order is None:
            current = current + load32(values, k * LANES)
            following = load32(keys, (k + 1) * LANES)
            wait = (following - now) * unit
            later = (wait > 0.0) & active
        else:
            current = current + load32(values, np.intp(order[k]) * LANES)
            duration = (keys[k + 1] - keys[k]) * unit
            if duration == 0:
                continue  # the next input arrives at the same time
            following, wait = fill32(c, keys[k + 1]), fill32(c, duration)
            is_brief, later = duration < c[SHORT], active
        mem, syn, rise = brief(wait, r) if is_brief else responses(minimum(wait, longest), r)
        end, current_end = fma(voltage, mem, current * rise), current * syn
        # while V rises it is concave, and stays below its tangent
        steep = fma(voltage, r.mem * -1.0, current * r.syn)
        candidates = (fma(steep, wait, voltage) >= ENOUGH) & later
        if candidates:
            fires = (end >= 1.0) & candidates
            if candidates & ~fires or not leaks:
                fires, latest = reaches(voltage, current, wait, end, current_end, candidates, rates_in(c))
                limit = select(fires, latest, limit)
            if fires:
                voltage_then, current_then = select(fires, voltage, voltage_then), select(fires, current, current_then)
                last = select(fires, fill32(c, float(k)), last)
                fired |= fires
                active &= ~fires
        if order is None:
            active &= following < math.inf
        if not active:
            break
        voltage, current, now = end, current_end, following
    spike, slope = never, fill32(c, 0.0)
    if fired:
        store(found, 2 * LANES, last)
        for lane in range(LANES):
            k = max(np.intp(found[2 * LANES + lane]), 0)
            if order is None:
                found[lane], found[LANES + lane] = keys[k * LANES + lane], keys[(k + 1) * LANES + lane]
            else:
                found[lane], found[LANES + lane] = keys[k], keys[k + 1]
        since, until = load32(found, 0), load32(found, LANES)
        limit = minimum(limit, (until - since) * unit)
        spike = since + crossings(voltage_then, current_then, limit, fired, c) * (1 / unit)
        # where the floats are coarse: after the inputs that cause it
        spike = minimum(select(spike > since, spike, next_up(since)), until)
        drive = current_then * exp((since - spike) * unit * r.syn) * r.syn
        slope = select(fired, (drive - r.mem) * unit, slope)
    store(found, 0, select(fired, spike, never))
    store(found, LANES, slope)
    store(found, 2 * LANES, last)


@jit
def copy_out(source, place, target, first):
    """Copy 32 lanes, without those that have no neuron."""
    for lane in range(min(LANES, target.size - first)):
        target[first + lane] = source[place + lane]


@jit
def scan_sorted(g, slot, e, b, group, every):
    """Scan one sample with a group of neurons that share the order of arrival."""
    found, first = g.state[slot], group * LANES
    scan(g.arrival[e, b], g.packed[e, group], g.order[e, b], g.count[e, b, 0], g.rates[e, group], every, found)
    copy_out(found, 0, g.spikes[e, b, :, 0], first)
    copy_out(found, LANES, g.slope[e, b, : g.outputs], first)
    copy_out(found, 2 * LANES, g.last[e, b, : g.outputs], first)


@jit
def scan_delayed(g, slot, e, b, group, every):
    """The same with synaptic delays."""
    times, delay, weight = g.times[e, b], g.delays[e, group], g.packed[e, group]
    keys, values, found, n = g.keys[slot], g.values[slot], g.state[slot], 0
    for i in range(times.size):
        if times[i] < math.inf:
            store(keys, n * LANES, load32(delay, i * LANES) + times[i])
            store(values, n * LANES, load32(weight, i * LANES))
            n += 1
    sort_lanes(keys, values, n, LANES)
    scan(keys, values, None, n, g.rates[e, group], every, found)
    copy_out(found, 0, g.spikes[e, b, :, 0], group * LANES)
    copy_out(found, LANES, g.slope[e, b, : g.outputs], group * LANES)
