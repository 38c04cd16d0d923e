"""Backwards through the record of a forward pass, 32 neurons at once, each with its own clock.

With ``a = dL/dx`` for the states x, the flow f, the excess g over the threshold and the reset R (``-`` before and ``+``
after an event; f is that of held neurons within a refractory time)::

    between events   da/dt = -(df/dx)^T a,    dL/dp += integral of a . df/dp
    arrival          dL/dw = a_r,             dL/dt = a . (f- - f+)
    spike            pull = a+ . (f+ - DR f-) + owed - dL/dT,    c = pull / (dg/dx . f-)
                     a- = DR^T a+ + c dg/dx,  dL/dp += c dg/dp + a+ . dR/dp
    release          owed += a . (f- - f+) of what was held,     dL/d(refractory time) -= owed

A neuron that is above its threshold as soon as it is released spikes there: c is 0, and the pull is owed to that time.
So it is for one that an arrival lifts over its threshold. See Wunderlich and Pehle 2021 for LIF neurons.
Where g is below 0 at an observed spike, the divisor is at least what the leak takes from a slope on the way up to 0, so
that gradients stay small where g hardly rises.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.series.expansion import (
    ROW,
    expand,
    expand_for,
    integral_to,
    output_of,
    slots_of,
    state_at,
)
from firstspike.spiketime.cpu.series.forward import (
    ARRIVAL,
    AT_ARRIVAL,
    AT_RELEASE,
    HOLDS,
    LOST,
    RELEASE,
    SPIKE,
    STEP,
    state_of,
)
from firstspike.spiketime.cpu.vectors.simd import load32, select, store

_EVERY = ~np.uint64(0)
# what a pass is for: all gradients, those by all but the weights, those by weights alone, within the bound; or the
# largest derivative with respect to a weight of the membrane at one spike of each lane
ALL, OTHERS, WEIGHTS, LARGEST = range(4)


@jit
def unwind(g, slot, chunk, mode, number):
    """Take adjoints from the end to the start."""
    a, left = g.a[slot], g.vectors[slot, 0]
    for lane in range(LANES):
        g.entry[slot, lane] = g.entries[slot, lane] - 1
        g.owed[slot, lane] = 0.0
        left[lane] = 0.0
        b, j = g.sample[slot, lane], g.neuron[slot, lane]
        ends, count = mode < LARGEST and g.asks_end != 0 and g.overflows[b, j] == 0, 0
        while count < g.most and g.spikes[b, j, count] < math.inf:
            count += 1
        g.count[slot, lane] = count
        for k in range(g.states):
            a[k * LANES + lane] = 0.0
        if mode == LARGEST:
            g.entry[slot, lane] = entry_of(g, slot, lane, number)
        if ends:
            a[lane] = g.of_voltage[b, j]
            for k in range(1, g.states):
                a[k * LANES + lane] = g.of_current[b, j, k - 1]
            if g.bounds[1] < g.free[slot, lane] < math.inf:
                g.owed[slot, lane] = -g.of_left[b, j]
                by_refractory(g, slot, chunk, lane, mode, g.of_left[b, j])
    while True:
        events = steps = np.uint64(0)
        for lane in range(LANES):
            place = g.entry[slot, lane]
            if place < 0:
                continue
            bit = np.uint64(1) << np.uint64(lane)
            if int(g.record[slot, lane, place, 0]) % HOLDS == STEP:
                steps |= bit
            else:
                events |= bit
        if events:
            pass_events(g, slot, chunk, mode, number, events)
        elif steps:
            pass_steps(g, slot, mode, steps)
        else:
            break
    if mode >= WEIGHTS:
        return
    for lane in range(LANES):
        if g.done[slot, lane] == 2:  # without a neuron
            continue
        b, j = g.sample[slot, lane], g.neuron[slot, lane]
        g.by_voltage[b, j] = a[lane]
        for k in range(1, g.states):
            g.by_current[b, j, k - 1] = a[k * LANES + lane]
        g.by_left[b, j] = -g.owed[slot, lane]


@jit
def entry_of(g, slot, lane, number):
    """The entry of a neuron's record that is about a spike; -1 if there is none."""
    place = g.entries[slot, lane] - 1
    while place >= 0:
        kind = int(g.record[slot, lane, place, 0]) % HOLDS
        if kind >= SPIKE and int(g.record[slot, lane, place, 1]) == number:
            break
        place -= 1
    return place


@jit
def by_refractory(g, slot, chunk, lane, mode, x):
    """Add to the gradient with respect to the refractory time, unless it is that of a spike before the start."""
    if mode < WEIGHTS and g.count[slot, lane] > 0:
        g.refractory_parts[chunk, g.neuron[slot, lane]] += x


@jit
def put(g, slot, s, events):
    """Rows of the states before an event, in lanes that have one."""
    for lane in range(LANES):
        if events & (np.uint64(1) << np.uint64(lane)):
            row = g.record[slot, lane, g.entry[slot, lane]]
            for k in range(g.states):
                s[k * ROW + lane] = row[2 + k]


@jit
def values_into(code, s, slots, into):
    """The outputs of a program for the inputs in ``s``; of the flow, without a refractory time."""
    expand(code, s, slots, 0, _EVERY)
    for k in range(code[2]):
        store(into, k * LANES, load32(s, output_of(code, k) * ROW))


@jit
def pass_events(g, slot, chunk, mode, number, events):
    """One event of each of these neurons."""
    s, before, after, a = g.work[slot], g.flows[slot, 0], g.flows[slot, 1], g.a[slot]
    timed, others, spiked = g.by_time != 0 and mode < WEIGHTS, np.uint64(0), np.uint64(0)
    for lane in range(LANES):
        bit = np.uint64(1) << np.uint64(lane)
        if events & bit and int(g.record[slot, lane, g.entry[slot, lane], 0]) % HOLDS != ARRIVAL:
            others |= bit
    if timed or others:
        put(g, slot, s, events)
        values_into(g.flow, s, g.own_slots[slot], before)
    for lane in range(LANES):
        bit = np.uint64(1) << np.uint64(lane)
        if not events & bit or not (timed or others & bit):
            continue
        row = g.record[slot, lane, g.entry[slot, lane]]
        kind = int(row[0]) % HOLDS
        if kind == ARRIVAL:
            b, j = g.sample[slot, lane], g.neuron[slot, lane]
            source = int(row[1])
            s[state_of(g, b // g.batch, j, source) * ROW + lane] += g.weight[b // g.batch, j, source // g.copies]
        elif kind == RELEASE:
            change = 0.0
            for k in range(g.states):
                change += a[k * LANES + lane] * before[k * LANES + lane] if g.held[k] != 0 else 0.0
            g.owed[slot, lane] += change
            by_refractory(g, slot, chunk, lane, mode, -g.owed[slot, lane])
        else:
            spiked |= bit
    arrivals = events & ~others
    if arrivals and timed:
        values_into(g.flow, s, g.own_slots[slot], after)
    for lane in range(LANES):
        if arrivals & (np.uint64(1) << np.uint64(lane)):
            row = g.record[slot, lane, g.entry[slot, lane]]
            pass_arrival(g, slot, chunk, lane, mode, number, int(row[1]), row[0] >= HOLDS)
    if spiked:
        pass_spikes(g, slot, chunk, mode, number, spiked)
    for lane in range(LANES):
        if events & (np.uint64(1) << np.uint64(lane)):
            g.entry[slot, lane] -= 1


@jit
def pass_arrival(g, slot, chunk, lane, mode, number, source, holds):
    """The gradients with respect to one input spike."""
    b, j, a, before, after = g.sample[slot, lane], g.neuron[slot, lane], g.a[slot], g.flows[slot, 0], g.flows[slot, 1]
    by = a[state_of(g, b // g.batch, j, source) * LANES + lane]
    i, change = source // g.copies, 0.0
    if not holds:
        change, g.owed[slot, lane] = -g.owed[slot, lane], 0.0
    if mode == LARGEST:
        g.largest[slot, number, lane] = max(g.largest[slot, number, lane], abs(by))
        return
    if mode != OTHERS:
        g.weight_parts[chunk, j, i] += by
    if mode == WEIGHTS or g.by_time == 0:
        return
    for k in range(g.states):
        if not holds or g.held[k] == 0:
            change += a[k * LANES + lane] * (before[k * LANES + lane] - after[k * LANES + lane])
    g.by_times[b, source] += change
    if g.delayed != 0:
        g.delay_parts[chunk, j, i] += change


@jit
def pass_spikes(g, slot, chunk, mode, number, spiked):
    """One spike of each of these neurons, whose flow before it is known."""
    s, slots, a = g.work[slot], g.own_slots[slot], g.a[slot]
    before, after, change = g.flows[slot, 0], g.flows[slot, 1], g.flows[slot, 2]
    slope, leaks = g.flows[slot, 3], g.flows[slot, 4]
    put(g, slot, s, spiked)
    values_into(g.excess_adjoint, s, slots, slope)
    count, begin = slots_of(g.excess_adjoint)
    for q in range(count):
        store(g.slot_rows[slot], q * LANES, load32(s, g.excess_adjoint[begin + 2 * q + 1] * ROW))
    for k in range(g.states):
        store(s, (g.states + k) * ROW, load32(slope, k * LANES))
    values_into(g.plain_adjoint, s, slots, leaks)
    values_into(g.reset, s, slots, change)
    for k in range(g.states):
        store(s, k * ROW, load32(change, k * LANES))
    values_into(g.flow, s, slots, after)
    put(g, slot, s, spiked)
    for k in range(g.states):
        store(s, (g.states + k) * ROW, load32(a, k * LANES))
    values_into(g.reset_adjoint, s, slots, change)
    sums = mode < WEIGHTS
    resets, first = slots_of(g.reset_adjoint)
    for lane in range(LANES):
        if not spiked & (np.uint64(1) << np.uint64(lane)):
            continue
        row = g.record[slot, lane, g.entry[slot, lane]]
        kind, spike, b, j = int(row[0]) % HOLDS, int(row[1]), g.sample[slot, lane], g.neuron[slot, lane]
        asked = g.grad[b, j, spike] if mode < LARGEST else 0.0
        pull, rate, leak, size = g.owed[slot, lane] - asked, 0.0, 0.0, 0.0
        holds = g.refractory[b // g.batch, j] > 0
        for k in range(g.states):
            at = k * LANES + lane
            pull -= change[at] * before[at]
            if not holds or g.held[k] == 0:
                pull += a[at] * after[at]
            rate += slope[at] * before[at]
            leak += slope[at] * leaks[g.states * LANES + at]
            size += slope[at] * slope[at]
        c, owed, over = 0.0, 0.0, before[g.states * LANES + lane]
        if g.probes != 0:
            c, owed = asked, g.owed[slot, lane]
            for k in range(g.states):
                change[k * LANES + lane] = a[k * LANES + lane]
        elif AT_RELEASE <= kind <= AT_ARRIVAL and over >= 0:
            owed = pull
        elif kind != LOST and rate > 0:
            c = pull / (max(rate, -over * leak / size) if over < 0 else rate)
            if mode == WEIGHTS and abs(c) * g.largest[slot, spike, lane] > g.bound[0]:
                c = 0.0
        if mode == LARGEST:
            c, owed = (1.0 if spike == number and kind != LOST and rate > 0 else 0.0), 0.0
        g.owed[slot, lane] = owed
        g.count[slot, lane] = spike  # how many came before
        if sums:
            for q in range(count):
                place = g.excess_adjoint[begin + 2 * q]
                g.slot_parts[chunk, j, place] += c * g.slot_rows[slot, q * LANES + lane]
            for q in range(resets if g.probes == 0 else 0):
                place = g.reset_adjoint[first + 2 * q]
                g.slot_parts[chunk, j, place] += s[g.reset_adjoint[first + 2 * q + 1] * ROW + lane]
        for k in range(g.states):
            at = k * LANES + lane
            a[at] = change[at] + c * slope[at]


@jit
def pass_steps(g, slot, mode, steps):
    """A step of each of these neurons, or as much of it as a Taylor series reaches."""
    s, slots, a, left, size = g.work[slot], g.own_slots[slot], g.a[slot], g.vectors[slot, 0], g.states
    code = g.adjoint if g.by_slots != 0 and mode < WEIGHTS else g.plain_adjoint
    free = np.uint64(0)
    for lane in range(LANES):
        bit = np.uint64(1) << np.uint64(lane)
        if not steps & bit:
            left[lane] = 0.0
            free |= bit
            continue
        row = g.record[slot, lane, g.entry[slot, lane]]
        if row[0] < HOLDS:
            free |= bit
        if left[lane] == 0:
            left[lane] = row[1]
            for k in range(size):
                s[k * ROW + lane] = row[2 + k]
                g.x[slot, k * LANES + lane] = row[2 + k]
    for k in range(size):
        store(s, k * ROW, load32(g.x[slot], k * LANES))
        store(s, (size + k) * ROW, load32(a, k * LANES))
    whole = load32(left, 0)
    order, time = expand_for(code, s, slots, g.held, free, whole, steps, size, g.tops[slot])
    time = select(steps, time, 0.0)
    back = time * -1.0
    count, begin = slots_of(code)
    if count > 0:
        expand(code, s, slots, order, free)
        for q in range(count):
            place = code[begin + 2 * q]
            part = integral_to(s, code[begin + 2 * q + 1], order, back)
            total = load32(g.own_parts[slot], place * LANES)
            store(g.own_parts[slot], place * LANES, select(steps, total - part, total))
    for k in range(size):
        store(a, k * LANES, state_at(s, size + k, order, back))
        store(g.x[slot], k * LANES, state_at(s, k, order, back))
    rest = whole - time
    store(left, 0, rest)
    store(g.vectors[slot, 1], 0, time)
    for lane in range(LANES):
        if steps & (np.uint64(1) << np.uint64(lane)):
            if not left[lane] > 1e-15 * g.record[slot, lane, g.entry[slot, lane], 1]:
                left[lane] = 0.0
                g.entry[slot, lane] -= 1
            elif not (math.isfinite(left[lane]) and g.vectors[slot, 1, lane] > 0):  # coefficients that overflow
                g.entry[slot, lane] = -1
                for k in range(size):
                    a[k * LANES + lane] = math.nan
