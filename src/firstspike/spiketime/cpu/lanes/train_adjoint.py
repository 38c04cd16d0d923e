"""Spike trains of 32 neurons of one sample, each with its own order of arrival or its own constants: backward.

All lanes go from their last input back to the first, between two inputs as often as any of them has a spike or a
release. They carry ``y = dL/dV`` and ``C = dL/dI`` in units of the neurons, which over a time s become

    y -> y exp(-s/tau_mem),      C -> C exp(-s/tau_syn) + y kappa(s)

A spike with slopes v- before and v+ after it, and the loss g by its time, makes ``y -> (v+ y - g) / v-``; with a
refractory time, v+ is that at the release, and y is 0 from there back to the spike. An input of weight w adds C to the
gradient by its weight and ``w (C - y)/tau_syn`` to that by its time. Where the membrane starts at the reset, y adds to
the gradient by that. As y comes from one spike (or the end) alone, at
``T``, its derivative by log(tau_mem) at fixed spikes is ``y (T - t)/tau_mem``; those of C are carried. The loss by time
constants is the sum of the derivatives of C times the weights, and of y times the membranes at the releases.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import BRIEF_END, HEIGHT, LANES, PER_MEM, PER_SYN, UNIT, rates_in
from firstspike.spiketime.cpu.lanes.adjoint import BY_MEM, BY_RESET, BY_SYN, BY_THRESHOLD, add_row, bounded
from firstspike.spiketime.cpu.lanes.scan import arrival_at, longest_wait
from firstspike.spiketime.cpu.membrane import brief, brief_derivatives, derivatives, responses
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.simd import fill16, fill32, fma, load32, lowest_bit, select, store

# of 32 lanes: y and C at the end, later at the start, and y and C for the weights, without what the bound drops
Y, C, Y_KEPT, C_KEPT = (row * LANES for row in range(4))
# derivatives of C by the logarithms of the time constants, and of y by that of tau_mem
OF_MEM, OF_SYN, OF_Y = (row * LANES for row in range(4, 7))
# where lanes are, the next spike or release back, the spike that y comes from, what the last release gives to its spike
NOW, DUE, ORIGIN, PULL, PULL_KEPT = (row * LANES for row in range(7, 12))
# the neurons' unit, and in it threshold and reset; refractory time; release at the start; loss by the last one's time
SIZE, LEVEL, RESET, HOLD, FIRST, OF_LEFT = (row * LANES for row in range(12, 18))
BEFORE = 18 * LANES  # release before a spike
N_STATE = 19 * LANES
LEFT, COUNT, RELEASES = (row * LANES for row in range(3))  # whole numbers: spikes that are left, all, what is DUE
N_WHOLE = 3 * LANES


@jit
def next_due(g, at, lane, before):
    """The release or the spike of a lane that comes before ``before``, and whether it is a release."""
    state, j = g.state[at.slot], g.whole[at.slot, LEFT + lane]
    spike = g.spikes[at.b, at.first + lane, j - 1] if j > 0 else state.dtype.type(-math.inf)
    release = spike + state[HOLD + lane] if j > 0 else state[FIRST + lane]
    if spike < release < before:
        return release, 1
    return spike, 0


@jit
def jump(g, at, hits):
    """Take the lanes ``hits`` back over their spikes or releases at NOW; returns those that the bound may drop."""
    state, whole, c, totals = g.state[at.slot], g.whole[at.slot], g.rates[at.group], g.totals[at.group, at.chunk]
    unit, suspects = c[UNIT, 0], np.uint64(0)
    while hits:
        lane = lowest_bit(hits)
        bit = np.uint64(1) << np.uint64(lane)
        hits &= ~bit
        now, j, level, reset = state[DUE + lane], whole[LEFT + lane], state[LEVEL + lane], state[RESET + lane]
        y, kept, a = state[Y + lane], state[Y_KEPT + lane], c[PER_MEM, lane]
        released = whole[RELEASES + lane] != 0
        if not released:
            j -= 1
            whole[LEFT + lane] = j
        if released or not now + state[HOLD + lane] > now:  # what follows starts at the reset
            totals[BY_RESET + lane] += y
            if g.by_taus:
                totals[BY_MEM + lane] += reset * y * (state[ORIGIN + lane] - now) * a * unit
        if released:
            slope = g.again[at.b, at.first + lane, j] * level
            state[PULL + lane], state[PULL_KEPT + lane] = slope * y, slope * kept
            state[Y + lane] = state[Y_KEPT + lane] = 0
        else:
            slope, asked = g.slopes[at.b, at.first + lane, j] * level, g.grad[at.b, at.first + lane, j]
            if j == whole[COUNT + lane] - 1:
                asked += state[OF_LEFT + lane]
            if now + state[HOLD + lane] > now:
                pull, pull_kept = state[PULL + lane], state[PULL_KEPT + lane]
            else:
                rise = slope + (level - reset) * a * unit
                pull, pull_kept = rise * y, rise * kept
            y = kept = state.dtype.type(0)
            if slope > 0:
                y, kept = (pull - asked) / slope, (pull_kept - asked) / slope
            state[Y + lane], state[Y_KEPT + lane], state[ORIGIN + lane] = y, kept, now
            state[PULL + lane] = state[PULL_KEPT + lane] = 0
            totals[BY_THRESHOLD + lane] -= y
            if abs(kept) * c[HEIGHT, lane] > g.bound[0] * state[SIZE + lane]:
                suspects |= bit
                state[BEFORE + lane] = state[FIRST + lane]
                if j > 0:
                    state[BEFORE + lane] = g.spikes[at.b, at.first + lane, j - 1] + state[HOLD + lane]
        state[DUE + lane], whole[RELEASES + lane] = next_due(g, at, lane, now)
    return suspects


@jit
def start_back(g, at):
    """What 32 neurons begin with; OF_LEFT becomes the loss by the last spike, or the refractory time at the start."""
    state, whole, begin, end, asks_end = g.state[at.slot], g.whole[at.slot], g.bounds[0], g.bounds[1], g.asks_end != 0
    totals = g.totals[at.group, at.chunk]
    for lane in range(LANES):
        state[SIZE + lane] = state[LEVEL + lane] = 1
        state[RESET + lane] = state[HOLD + lane] = state[Y + lane] = state[C + lane] = state[OF_LEFT + lane] = 0
        state[FIRST + lane], count, full, j = -math.inf, 0, False, at.first + lane
        if j < g.outputs:
            unit, full = g.unit[at.e, j], g.overflows[at.b, j] != 0
            state[SIZE + lane], state[LEVEL + lane] = unit, g.level[at.e, j]
            state[RESET + lane], state[HOLD + lane] = g.reset[at.e, j] / unit, g.refractory[at.e, j]
            if begin > -math.inf and g.held[at.b, 2, j] > 0:
                state[FIRST + lane] = begin + g.held[at.b, 2, j]
            if asks_end:
                state[Y + lane], state[C + lane] = g.of_end[at.b, 0, j] * unit, g.of_end[at.b, 1, j] * unit
                state[OF_LEFT + lane] = g.of_end[at.b, 2, j]
            while count < g.most and g.spikes[at.b, j, count] < math.inf:
                count += 1
        whole[COUNT + lane] = whole[LEFT + lane] = count
        spike = g.spikes[at.b, j, count - 1] if count > 0 else state.dtype.type(-math.inf)
        last = spike + state[HOLD + lane] if count > 0 else state[FIRST + lane]
        if not asks_end:
            state[NOW + lane], state[DUE + lane], whole[RELEASES + lane] = spike, spike, 0
        else:
            if full or last > end:
                totals[BY_RESET + lane] += state[Y + lane]
                state[Y + lane] = 0
            if full or not last > end:
                state[OF_LEFT + lane] = 0
            state[NOW + lane] = end
            following = np.nextafter(state.dtype.type(end), state.dtype.type(math.inf))
            state[DUE + lane], whole[RELEASES + lane] = next_due(g, at, lane, following)
        state[ORIGIN + lane], state[Y_KEPT + lane] = state[NOW + lane], state[Y + lane]
        state[PULL + lane] = state[PULL_KEPT + lane] = state[OF_MEM + lane] = state[OF_SYN + lane] = 0


@jit
def gradients_by_start(g, at):
    """Write the gradients by the state of some neurons at the start, and add what it means for time constants."""
    state, totals = g.state[at.slot], g.totals[at.group, at.chunk]
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        unit, y, free = g.unit[at.e, j], state[Y + lane], not g.held[at.b, 2, j] > 0
        g.by_start[at.b, 0, j] = y / unit if free else 0
        g.by_start[at.b, 1, j] = state[C + lane] / unit
        g.by_start[at.b, 2, j] = -state[PULL + lane]
        if g.whole[at.slot, COUNT + lane] == 0:
            g.by_start[at.b, 2, j] += state[OF_LEFT + lane]
        if g.by_taus:
            v, i = g.held[at.b, 0, j] / unit, g.held[at.b, 1, j] / unit
            if free:
                totals[BY_MEM + lane] += v * state[OF_Y + lane]
            totals[BY_MEM + lane] += i * state[OF_MEM + lane]
            totals[BY_SYN + lane] += i * state[OF_SYN + lane]


@jit
def unwind_trains(g, at, delay, keys, source, n, rows, events):
    """Add the gradients of 32 neurons for a sample, from the end or their last spikes to the first input or the start.

    ``keys``, ``source`` and ``n`` are as in ``scan.scan_once``; where each lane has its own order, ``g.values`` tells
    the row of each. ``events`` has for each of the ``rows`` the input time.
    """
    state, by_arrival, c, copies = g.state[at.slot], g.by_arrival[at.slot], g.rates[at.group], g.copies
    weight, by_weight = g.packed[at.group], g.weight_parts[at.group, at.chunk]
    totals, values = g.totals[at.group, at.chunk], g.values[at.slot]
    begin, bounds, taus = g.bounds[0], g.bound[0] < math.inf, g.by_taus != 0
    start_back(g, at)
    for row in range(rows * LANES):
        by_arrival[row] = 0
    r, unit, longest = rates_in(c), c[UNIT, 0], longest_wait(c)
    y, current, now, due = load32(state, Y), load32(state, C), load32(state, NOW), load32(state, DUE)
    y_kept, current_kept, origin = y, current, load32(state, ORIGIN)
    of_mem = of_syn = fill32(c, 0.0)
    is_brief = False
    for k in range(n - 1, -2, -1):
        arrival = fill32(c, begin) if k < 0 else arrival_at(keys, source, k)
        if not now >= arrival or (k < 0 and begin == -math.inf and not due > arrival):
            continue  # spikes before the first input are observed ones
        if source is not None:
            is_brief = (keys[k + 1] - (keys[k] if k >= 0 else begin)) * unit < c[BRIEF_END, 0]
        while True:
            hits = due > arrival
            target = select(hits, due, arrival)
            wait = min(max(now - target, 0.0) * unit, longest)
            mem, syn, rise = brief(wait, r) if is_brief else responses(wait, r)
            if taus:
                rise_by_mem, rise_by_syn = brief_derivatives(wait, r) if is_brief else derivatives(wait, r)
                age = select(now > target, (origin - now) * r.mem * unit, 0.0)
                of_mem = fma(of_mem, syn, y * fma(age, rise, rise_by_mem))
                of_syn = fma(of_syn, syn, fma(current * r.syn * wait, syn, y * rise_by_syn))
            current, y = fma(current, syn, y * rise), y * mem
            if bounds:
                current_kept, y_kept = fma(current_kept, syn, y_kept * rise), y_kept * mem
            else:
                current_kept, y_kept = current, y
            now = min(now, target)
            if not hits:
                break
            store(state, Y, y)
            store(state, Y_KEPT, y_kept)
            suspects = jump(g, at, hits)
            if suspects:
                spike, since, most = load32(state, ORIGIN), load32(state, BEFORE), load32(state, SIZE) * g.bound[0]
                kept = bounded(load32(state, Y_KEPT), suspects, g, at, delay, spike, since, most)
                store(state, Y_KEPT, kept)
            y, y_kept = load32(state, Y), load32(state, Y_KEPT)
            due, origin = load32(state, DUE), load32(state, ORIGIN)
        if k < 0:
            continue
        if source is None:
            store(state, C, current)
            store(state, Y, current - y)
            store(state, C_KEPT, current_kept)
            store(state, OF_MEM, of_mem)
            store(state, OF_SYN, of_syn)
            for lane in range(LANES):
                if keys[k * LANES + lane] < math.inf:
                    row = np.intp(values[k * LANES + lane])
                    place = events[row] // copies * LANES + lane
                    by_arrival[row * LANES + lane] = state[Y + lane]
                    by_weight[place] -= state[C_KEPT + lane]
                    if taus:
                        totals[BY_MEM + lane] += weight[place] * state[OF_MEM + lane]
                        totals[BY_SYN + lane] += weight[place] * state[OF_SYN + lane]
        else:
            place = np.intp(source[k]) * LANES
            store(by_arrival, k * LANES, current - y)
            store(by_weight, place, load32(by_weight, place) - current_kept)
            if taus:
                w = load32(weight, place)
                store(totals, BY_MEM, fma(w, of_mem, load32(totals, BY_MEM)))
                store(totals, BY_SYN, fma(w, of_syn, load32(totals, BY_SYN)))
    store(state, Y, y)
    store(state, C, current)
    store(state, OF_MEM, of_mem)
    store(state, OF_SYN, of_syn)
    store(state, OF_Y, select(now > -math.inf, (origin - now) * r.mem * unit * y, 0.0))
    if begin > -math.inf:
        gradients_by_start(g, at)
    add_arrivals(g, at, rows, events, delay)


@jit
def add_arrivals(g, at, n, events, delay):
    """Add the gradients by the arrivals to those by delays, if there are any, and by times, over the lanes."""
    weight, c, by_arrival, sums = g.packed[at.group], g.rates[at.group], g.by_arrival[at.slot], g.sums[at.slot]
    by_times, line, rate = g.times_parts[at.part, at.b], sums[256:], load32(c, PER_SYN * LANES) * c[UNIT, 0]
    store(line, 0, fill16(sums, 0.0))
    for start in range(0, n, 16):
        for row in range(start, min(start + 16, n)):
            place = events[row] // g.copies * LANES
            each = load32(by_arrival, row * LANES) * load32(weight, place) * rate
            if delay is not None:
                store(g.delay_parts[at.group, at.chunk], place, load32(g.delay_parts[at.group, at.chunk], place) - each)
            add_row(each, row - start, min(16, n - start), sums, line)
        for row in range(start, min(start + 16, n)):
            by_times[events[row]] += line[row - start]
            line[row - start] = 0
