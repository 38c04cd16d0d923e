"""One linear neuron in one interval, backward: see ``adjoint`` for the equations, and ``alone`` for the way forward."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.alone import FORCED
from firstspike.spiketime.cpu.linear.flow import (
    BIAS,
    FEEDS,
    FIRST,
    LEFT,
    MOVES,
    OWN,
    PER,
    RISE,
    SLOPES,
    THRESHOLD,
    drive_of,
    fill_row,
    fill_slopes,
    pass_time,
)
from firstspike.spiketime.cpu.runtime.compiling import jit

# what a pass is for: all gradients, those by all but the weights, those by weights alone, within the bound; or the
# largest derivative with respect to a weight of the membrane at one spike of each lane
ALL, OTHERS, WEIGHTS, LARGEST = range(4)
# rows of lanes after those of P and Q: when the last event is, what it owes, and what is known of it
DUE, OWED, SLOPE, ASKED, UP, MOST = range(6)
# rows of lanes of sums of gradients: those by each component's rate come last, then those by their jumps, by the bias
BY_THRESHOLD, BY_RESET, BY_LEAK, BY_PARTS = range(4)


@jit
def free_after(g, at, j, spiked):
    """When a neuron is released after so many spikes; -inf if it is not held then."""
    if spiked == 0:
        if g.starts != 0 and g.left[at.b, j] > 0:
            return np.float64(g.bounds[0]) + np.float64(g.left[at.b, j])
        return -math.inf
    time = g.spikes[at.b, j, spiked - 1]
    free = g.spikes.dtype.type(time + g.refractory[at.e, j])
    return np.float64(free) if free > time else -math.inf


@jit
def last_spike(g, at, j, spiked):
    """The time of a neuron's last spike, if it has spiked that many times; -inf without any."""
    return np.float64(g.spikes[at.b, j, spiked - 1]) if spiked > 0 else -math.inf


@jit
def last_event(g, at, j, spiked, until):
    """The release after that many spikes if it is not later than ``until``, otherwise the last spike."""
    free = free_after(g, at, j, spiked)
    return free if -math.inf < free <= until else last_spike(g, at, j, spiked)


@jit
def total(g, at, row, lane, x):
    """Add to the sum of a gradient with respect to a parameter of the neurons."""
    g.totals[at.group, at.chunk, row * LANES + lane] += x


@jit
def back_alone(g, at, lane, base, start, now, mode, number):
    """Bring P and Q of one neuron from ``now`` back to ``start``, event by event, in the rows from ``base`` on."""
    adjoint, kinds, work, j = g.adjoint[at.slot], g.kinds, g.work[at.slot], at.first + lane
    count, tail = kinds.size, 2 * (1 + kinds.size) * LANES
    leak, rates, q, row = g.leak[at.e, j], g.rates[at.e, j], work[3], work[0]
    p, owed = np.float64(adjoint[base + lane]), np.float64(adjoint[tail + OWED * LANES + lane])
    due, spiked = np.float64(adjoint[tail + DUE * LANES + lane]), g.counts[at.slot, lane]
    for k in range(count):
        q[k] = adjoint[base + (1 + k) * LANES + lane]
    sums = mode != WEIGHTS and mode != LARGEST
    segment = 0
    if g.by_taus != 0 and sums:
        segment = note_segments(g, at, lane, start, now)
    while True:
        until = max(due, start)
        p = back_in_time(g, at, lane, p, q, now - until, row, segment if sums else -1)
        segment -= 1
        now = until
        if due <= start:
            break
        last = last_spike(g, at, j, spiked)
        if due > last:  # a release
            if g.resets != 0:
                if sums:
                    total(g, at, BY_RESET, lane, p)
                owed += p * g.ups[at.b, j, spiked]
                p = 0.0
            if spiked == 0 and sums:
                g.by_left[at.b, j] = -owed
            due = last
            continue
        spiked -= 1
        slope, asked = np.float64(g.slopes[at.b, j, spiked]), 0.0
        if mode < LARGEST:
            asked = np.float64(g.grad[at.b, j, spiked])
        pull = owed - asked
        for k in range(count):
            if kinds[k] != BIAS:
                jump = g.jumps[at.e, j, k]
                if g.resets == 0:
                    pull += p * drive_of(kinds[k], leak, rates[k]) * jump
                pull -= q[k] * rates[k] * jump
                if kinds[k] == RISE:
                    pull += q[k + 1] * rates[k] * jump
                if sums:
                    total(g, at, BY_PARTS + count + k, lane, q[k])
        if g.resets != 0:
            if free_after(g, at, j, spiked + 1) == -math.inf:
                pull += p * g.ups[at.b, j, spiked + 1]
                if sums:
                    total(g, at, BY_RESET, lane, p)
            p = 0.0
        owed, change = 0.0, 0.0
        if mode == LARGEST:
            change = 1.0 if spiked == number and slope > 0 else 0.0
        elif slope > 0:
            change = pull / slope
            if mode == WEIGHTS and abs(change) * g.largest[at.slot, spiked * LANES + lane] > g.bound[0]:
                change = 0.0
        elif slope == FORCED:
            owed = pull
        p += change
        for k in range(count):
            if kinds[k] == THRESHOLD:
                q[k] -= change
        if sums:
            total(g, at, BY_THRESHOLD, lane, -change)
        due = last_event(g, at, j, spiked, now)
    adjoint[base + lane] = p
    for k in range(count):
        adjoint[base + (1 + k) * LANES + lane] = q[k]
    adjoint[tail + DUE * LANES + lane], adjoint[tail + OWED * LANES + lane] = due, owed
    g.counts[at.slot, lane] = spiked


@jit
def back_in_time(g, at, lane, p, q, s, row, segment):
    """Bring P and Q of one neuron back by a time without events, in place. Returns P. While it is held, P is 0."""
    if s <= 0:
        return p
    kinds, j, count = g.kinds, at.first + lane, g.kinds.size
    leak, rates, slopes = g.leak[at.e, j], g.rates[at.e, j], g.work[at.slot, 1]
    if g.by_taus != 0 and segment >= 0:
        state = g.segments[at.slot, segment]
        fill_slopes(slopes, 1, s, kinds, leak, rates)
        by_leak = p * state[0] * slopes[0]
        for k in range(count):
            place, y, after = 1 + k * SLOPES, state[1 + k], 0.0
            by_leak += p * y * slopes[place + 1]
            by = q[k] * y * slopes[place] + p * y * slopes[place + 2]
            if kinds[k] == RISE:
                after = q[k + 1] * y
                by += after * slopes[place + 4]
                total(g, at, BY_PARTS + k + 1, lane, p * y * slopes[place + 3] + after * slopes[place + 5])
            total(g, at, BY_PARTS + k, lane, by)
        total(g, at, BY_LEAK, lane, by_leak)
    fill_row(row, 1, s, kinds, leak, rates)
    for k in range(count):
        place = FIRST + k * PER
        following = q[k + 1] * row[place + FEEDS] if kinds[k] == RISE else 0.0
        q[k] = q[k] * row[place + OWN] + p * row[place + MOVES] + following
    return p * row[LEFT]


@jit
def note_segments(g, at, lane, start, stop):
    """Note the states at the start of an interval and after each event in it. Returns the number of the last one.

    Segments of a neuron that is held have no membrane that acts, as P is 0 there.
    """
    kinds, j, found = g.kinds, at.first + lane, g.segments[at.slot]
    count, leak, rates = kinds.size, g.leak[at.e, j], g.rates[at.e, j]
    tape, number, now = g.tape[at.slot, g.place[at.slot]], 0, start
    for k in range(1 + count):
        found[0, k] = tape[k * LANES + lane]
    spiked = 0
    while spiked < g.most and np.float64(g.spikes[at.b, j, spiked]) <= start:
        spiked += 1
    free = free_after(g, at, j, spiked)
    holds = free > start
    while True:
        due = np.float64(g.spikes[at.b, j, spiked]) if spiked < g.most else math.inf
        if due == math.inf and g.overflows[at.b, j] != 0:
            break  # it is held for ever
        until = free if holds and free <= due else due
        if until > stop or until == math.inf:
            break
        y, v = found[number + 1, 1:], found[number, 0]
        for k in range(count):
            y[k] = found[number, 1 + k]
        v = pass_time(v, y, until - now, holds and g.resets != 0, kinds, leak, rates)
        now = until
        if holds and free <= due:
            holds = False
        else:
            spiked += 1
            free = free_after(g, at, j, spiked)
            holds = free > now
            v = np.float64(g.reset[at.e, j]) if g.resets != 0 else v
            for k in range(count):
                y[k] += 0.0 if kinds[k] == BIAS else g.jumps[at.e, j, k]
        number += 1
        found[number, 0] = v
    return number
