"""Spike trains of 32 neurons of one sample, each with its own order of arrival or its own constants: backward.

All lanes go from their last input back to the first, between two inputs as often as any of them has a spike or a
release. They carry ``y = dL/dV`` and ``C = dL/dI`` in units of the neurons, which over a time s become

    y -> y exp(-s/tau_mem),      C -> C exp(-s/tau_syn) + y kappa(s)

A spike with slopes v- before and v+ after it, and the loss g by its time, makes ``y -> (v+ y - g) / v-``; with a
refractory time, v+ is that at the release, and y is 0 from there back to the spike. An input of weight w adds C to the
gradient by its weight and ``w (C - y)/tau_syn`` to that by its time. As y comes from one spike (or the end) alone, at
``T``, its derivative by log(tau_mem) at fixed spikes is ``y (T - t)/tau_mem``; those of C are carried. The loss by time
constants is the sum of the derivatives of C times the weights, and of y times the membranes at the releases.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.lanes.adjoint import add_row
from firstspike.spiketime.cpu.lanes.rates import HEIGHT, LANES, PER_MEM, PER_SYN, SHORT, UNIT, rates_in
from firstspike.spiketime.cpu.lanes.scan import longest_wait
from firstspike.spiketime.cpu.membrane import brief, brief_derivatives, derivatives, responses
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, lowest_bit, maximum, minimum, select, store

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
BY_THRESHOLD, BY_MEM, BY_SYN = (row * LANES for row in range(3))


@jit
def next_due(lane, state, whole, trains, before):
    """The release or the spike of a lane that comes before ``before``, and whether it is a release."""
    j = whole[LEFT + lane]
    spike = trains[lane, j - 1] if j > 0 else state.dtype.type(-math.inf)
    release = spike + state[HOLD + lane] if j > 0 else state[FIRST + lane]
    if spike < release < before:
        return release, 1
    return spike, 0


@jit
def jump(hits, state, whole, trains, slopes, again, grad, c, bound, taus, totals):
    """Take the lanes ``hits`` back over their spikes or releases at NOW; returns those that the bound may drop."""
    unit, suspects = c[UNIT], np.uint64(0)
    while hits:
        lane = lowest_bit(hits)
        bit = np.uint64(1) << np.uint64(lane)
        hits &= ~bit
        now, j, level, reset = state[DUE + lane], whole[LEFT + lane], state[LEVEL + lane], state[RESET + lane]
        y, kept, a = state[Y + lane], state[Y_KEPT + lane], c[PER_MEM + lane]
        released = whole[RELEASES + lane] != 0
        if not released:
            j -= 1
            whole[LEFT + lane] = j
        if taus and (released or not now + state[HOLD + lane] > now):
            totals[BY_MEM + lane] += reset * y * (state[ORIGIN + lane] - now) * a * unit
        if released:
            slope = again[lane, j] * level
            state[PULL + lane], state[PULL_KEPT + lane] = slope * y, slope * kept
            state[Y + lane] = state[Y_KEPT + lane] = 0
        else:
            slope, asked = slopes[lane, j] * level, grad[lane, j]
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
            if abs(kept) * c[HEIGHT + lane] > bound * state[SIZE + lane]:
                suspects |= bit
                state[BEFORE + lane] = state[FIRST + lane]
                if j > 0:
                    state[BEFORE + lane] = trains[lane, j - 1] + state[HOLD + lane]
        state[DUE + lane], whole[RELEASES + lane] = next_due(lane, state, whole, trains, now)
    return suspects


@jit
def drop(suspects, keys, source, n, c, bound, state):
    """Fix for the weights the spikes ORIGIN of those lanes whose derivative by a weight exceeds the bound."""
    r, unit, none = rates_in(c), c[UNIT], fill32(c, 0.0)
    spike, before, most = load32(state, ORIGIN), load32(state, BEFORE), none
    for k in range(n):
        arrival = load32(keys, k * LANES) if source is None else fill32(c, keys[k])
        causal = (spike > arrival) & suspects
        if causal:
            start = maximum(arrival, before)
            wait = select(causal, maximum(spike - start, 0.0) * unit, none)
            age = select(causal, (arrival - start) * r.syn * unit, none)
            most = maximum(most, select(causal, responses(wait, r)[2] * exp(age), none))
    kept = load32(state, Y_KEPT)
    size = most * maximum(kept, kept * -1.0)
    dropped = (size > load32(state, SIZE) * bound) & suspects
    store(state, Y_KEPT, select(dropped, none, kept))


@jit
def start_back(state, whole, trains, counts, asks_end, over, end):
    """What 32 lanes begin with; Y, C and OF_LEFT hold the loss by the state at the end.

    OF_LEFT becomes that by the last spike, or, where there is none, by the refractory time left at the start.
    """
    for lane in range(LANES):
        count = counts[lane]
        whole[COUNT + lane] = whole[LEFT + lane] = count
        last = trains[lane, count - 1] + state[HOLD + lane] if count > 0 else state[FIRST + lane]
        if not asks_end:
            state[Y + lane] = state[C + lane] = state[OF_LEFT + lane] = 0
            state[NOW + lane] = trains[lane, count - 1] if count > 0 else -math.inf
            state[DUE + lane], whole[RELEASES + lane] = state[NOW + lane], 0
        else:
            full = (over >> np.uint64(lane)) & np.uint64(1) != 0
            if full or last > end:
                state[Y + lane] = 0
            if full or not last > end:
                state[OF_LEFT + lane] = 0
            state[NOW + lane] = end
            following = np.nextafter(state.dtype.type(end), state.dtype.type(math.inf))
            state[DUE + lane], whole[RELEASES + lane] = next_due(lane, state, whole, trains, following)
        state[ORIGIN + lane], state[Y_KEPT + lane] = state[NOW + lane], state[Y + lane]
        state[PULL + lane] = state[PULL_KEPT + lane] = state[OF_MEM + lane] = state[OF_SYN + lane] = 0


@jit
def unwind_trains(
    keys, values, source, n, weight, copies, events, c, begin, bound, taus, state, whole, trains, slopes,
    again, grad, by_weight, by_arrival, totals,
):  # fmt: skip
    """Take 32 lanes back from where they are to the first input, or to ``begin`` if it is finite.

    Args:
        keys: as in ``train_scan.scan_trains``.
        values: rows of ``by_arrival`` where each lane has its own order.
        source: as in ``train_scan.scan_trains``.
        n: how many arrive.
        weight: of the lanes and inputs, in the neurons' units.
        copies: times of each input.
        events: for each row its input and number among the ``copies``.
        c: rates.
        begin: time of the state at the start.
        bound: on weight gradients.
        taus: whether the gradients by time constants are asked for.
        state: what ``start_back`` gives; Y, C, OF_MEM, OF_SYN, OF_Y and PULL become those at ``begin``.
        whole: the same.
        trains: spikes of each lane.
        slopes: at the spikes.
        again: at the releases.
        grad: by the spikes.
        by_weight: of the lanes, to subtract from.
        by_arrival: ``C - y`` at the arrivals, of rows and lanes; zeros before.
        totals: by threshold and the logarithms of the time constants, to add to.
    """
    r, unit, longest = rates_in(c), c[UNIT], longest_wait(c)
    y, current, now, due = load32(state, Y), load32(state, C), load32(state, NOW), load32(state, DUE)
    y_kept, current_kept, origin = y, current, load32(state, ORIGIN)
    of_mem = of_syn = fill32(c, 0.0)
    bounded, is_brief = bound < math.inf, False
    for k in range(n - 1, -2, -1):
        if k < 0:
            arrival = fill32(c, begin)
        elif source is None:
            arrival = load32(keys, k * LANES)
        else:
            arrival = fill32(c, keys[k])
        if not now >= arrival or (k < 0 and begin == -math.inf and not due > arrival):
            continue  # spikes before the first input are observed ones
        if source is not None:
            is_brief = (keys[k + 1] - (keys[k] if k >= 0 else begin)) * unit < c[SHORT]
        while True:
            hits = due > arrival
            target = select(hits, due, arrival)
            wait = minimum(maximum(now - target, 0.0) * unit, longest)
            mem, syn, rise = brief(wait, r) if is_brief else responses(wait, r)
            if taus:
                rise_by_mem, rise_by_syn = brief_derivatives(wait, r) if is_brief else derivatives(wait, r)
                age = select(now > target, (origin - now) * r.mem * unit, 0.0)
                of_mem = fma(of_mem, syn, y * fma(age, rise, rise_by_mem))
                of_syn = fma(of_syn, syn, fma(current * r.syn * wait, syn, y * rise_by_syn))
            current, y = fma(current, syn, y * rise), y * mem
            if bounded:
                current_kept, y_kept = fma(current_kept, syn, y_kept * rise), y_kept * mem
            else:
                current_kept, y_kept = current, y
            now = minimum(now, target)
            if not hits:
                break
            store(state, Y, y)
            store(state, Y_KEPT, y_kept)
            suspects = jump(hits, state, whole, trains, slopes, again, grad, c, bound, taus, totals)
            if suspects:
                drop(suspects, keys, source, n, c, bound, state)
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


@jit
def add_arrivals(by_arrival, n, events, copies, weight, c, sums, line, by_delay, by_times):
    """Add the gradients by the arrivals to those by delays (None without) and, over the lanes, to those by times."""
    rate = load32(c, PER_SYN) * c[UNIT]
    for start in range(0, n, 16):
        for row in range(start, min(start + 16, n)):
            place = events[row] // copies * LANES
            each = load32(by_arrival, row * LANES) * load32(weight, place) * rate
            if by_delay is not None:
                store(by_delay, place, load32(by_delay, place) - each)
            add_row(each, row - start, min(16, n - start), sums, line)
        for row in range(start, min(start + 16, n)):
            by_times[events[row]] += line[row - start]
            line[row - start] = 0
