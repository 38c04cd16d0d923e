"""Spike trains of 32 neurons of one sample, each with its own order of arrival or its own constants: forward.

All lanes go from input to input together, each to its own next one, with the steps of ``lanes.scan``. Between
two inputs they go as often as any of them spikes or is released from its refractory time.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.lanes.rates import LANES, SHORT, UNIT, rates_in
from firstspike.spiketime.cpu.lanes.scan import crossings, longest_wait
from firstspike.spiketime.cpu.lanes.sort import sort_lanes
from firstspike.spiketime.cpu.membrane import ENOUGH, STRAIGHT, brief, reaches, responses, soon
from firstspike.spiketime.cpu.membrane import SHORT as SOON
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fill32,
    fma,
    load32,
    lowest_bit,
    maximum,
    minimum,
    next_up,
    select,
    store,
)

# of 32 lanes: the state (membrane, current, and the end of the refractory time, later what is left of it), constants,
# the next spike that was observed, and of spikes that are to be noted their time and the slope of the membrane
VOLTAGE, CURRENT, RELEASE, RESET, HOLD, DUE, TIME, SLOPE = (row * LANES for row in range(8))
N_STATE = 8 * LANES


@jit
def delayed_events(times, copies, delay, weight, begin, end, every, keys, values, events):
    """The inputs that reach some of 32 lanes in ``[begin, end)``, sorted for each lane.

    Returns how many there are, and how many reach the lane that most reach.

    Args:
        times: of the inputs, ``copies`` each.
        copies: how many.
        delay: of the lanes.
        weight: of the lanes; None for numbers in place of weights: row r is input time ``events[r]``.
        begin: of the window.
        end: of the window.
        every: lanes that have a neuron.
        keys: to be filled with the times of arrival, ``inf`` after a lane's last.
        values: to be filled with the weights or the rows; those of keys ``inf`` have no meaning.
        events: to be filled.
    """
    n, never = 0, fill32(keys, math.inf)
    for event in range(times.size):
        if times[event] < end:
            i = event // copies
            arrival = load32(delay, i * LANES) + times[event]
            inside = (arrival >= begin) & (end > arrival) & every
            if inside:
                store(keys, n * LANES, select(inside, arrival, never))
                if weight is None:
                    store(values, n * LANES, fill32(keys, float(n)))
                    events[n] = event
                else:
                    store(values, n * LANES, load32(weight, i * LANES))
                n += 1
    sort_lanes(keys, values, n, LANES)
    most = n
    while most > 0 and not never > load32(keys, (most - 1) * LANES):
        most -= 1
    return n, most


@jit
def spikes_of(voltage, current, now, stop, wait, end, current_end, candidates, c):
    """The candidates that spike up to ``stop``, after the time ``wait``, and when; ``end`` is the membrane there.

    A spike is later than ``now``, by one unit in the last place if it would round to that.
    """
    r = rates_in(c)
    fires, limit = reaches(voltage, current, wait, end, current_end, candidates, r)
    at_once = (voltage >= 1.0) & candidates
    slow, s = fires & ~at_once, fill32(c, 0.0)
    quick = slow & (end >= 1.0) & (wait * r.faster < SOON)
    if quick:
        found, _, _, curved = soon(voltage, current, r)
        quick &= (curved < STRAIGHT) & (found >= 0.0) & (wait >= found)
        s = select(quick, found, s)
        slow &= ~quick
    if slow:
        s = select(slow, crossings(voltage, current, limit, slow, c), s)
    spike = now + s * (1 / c[UNIT])
    return fires | at_once, minimum(select(spike > now, spike, next_up(now)), stop)


@jit
def note_spikes(fires, observes, most, state, counts, trains, slopes):
    """Note the spikes TIME of the lanes ``fires``; returns those that have more than ``most``."""
    full = np.uint64(0)
    while fires:
        lane = lowest_bit(fires)
        bit = np.uint64(1) << np.uint64(lane)
        fires &= ~bit
        count = counts[lane]
        if count >= most:
            full |= bit
            continue
        time = state[TIME + lane]
        slopes[lane, count] = state[SLOPE + lane]
        counts[lane] = count + 1
        state[RELEASE + lane] = time + state[HOLD + lane]
        if observes:
            state[DUE + lane] = trains[lane, count + 1] if count + 1 < trains.shape[1] else math.inf
        else:
            trains[lane, count] = time
    return full


@jit
def note_releases(freed, state, counts, again):
    """Note the slopes SLOPE of the lanes ``freed`` where they are released, by the number of their spikes before."""
    while freed:
        lane = lowest_bit(freed)
        freed &= freed - np.uint64(1)
        again[lane, counts[lane]] = state[SLOPE + lane]


@jit
def scan_trains(
    keys, values, source, n, c, every, begin, end, holds, observes, most, state, counts, trains, slopes, again
):  # fmt: skip
    """Fill in the spikes of 32 neurons, and what follows from them; returns the lanes that have more than ``most``.

    Args:
        keys: times of arrival. With an order that all share ``(n + 1,)``, otherwise ``(n + 1) * LANES`` of the lanes;
            the last is ``inf``.
        values: weights in units of the threshold, of each input or in the order of arrival.
        source: inputs in the order of arrival, or None where each lane has its own order.
        n: how many arrive.
        c: rates.
        every: lanes that have a neuron.
        begin: time of the state; ``-inf`` for neurons at rest until their first input.
        end: when to stop.
        holds: whether there are refractory times.
        observes: whether ``trains`` are given, to be passed through.
        most: most spikes.
        state: at the start; becomes that at the end.
        counts: spikes of each lane so far.
        trains: spikes of each lane.
        slopes: of the membrane at the spikes, 0 for one that was observed while the neuron was refractory.
        again: slopes of the membrane at releases; entry k is the release after k spikes.
    """
    r, never, unit, longest, last = rates_in(c), fill32(c, math.inf), c[UNIT], longest_wait(c), fill32(c, end)
    voltage, current, reset = load32(state, VOLTAGE), load32(state, CURRENT), load32(state, RESET)
    release, due, stuck, now = load32(state, RELEASE), load32(state, DUE), np.uint64(0), fill32(c, begin)
    if begin == -math.inf:
        first = load32(keys, 0) if source is None else fill32(c, keys[0])
        now = minimum(minimum(first, last), due)
    is_brief = False
    for k in range(-1, n):
        if source is None:
            if k >= 0:
                arrives = never > load32(keys, k * LANES)
                current = current + select(arrives, load32(values, k * LANES), 0.0)
            following = minimum(load32(keys, (k + 1) * LANES), last)
        else:
            if k >= 0:
                current = current + load32(values, np.intp(source[k]) * LANES)
            until = min(keys[k + 1], end)
            following = fill32(c, until)
            is_brief = (until - (keys[k] if k >= 0 else begin)) * unit < c[SHORT]
        pending = (following > now) & every
        if observes:
            pending |= (following >= due) & (never > due) & every
        while pending:
            stop, held, waiting = following, stuck, np.uint64(0)
            if holds:
                waiting = release > now
                held |= waiting
                stop = select(waiting, minimum(stop, release), stop)
            if observes:
                stop = minimum(stop, due)
            wait = (stop - now) * unit
            mem, syn, rise = brief(wait, r) if is_brief else responses(minimum(wait, longest), r)
            after, current_after = fma(voltage, mem, current * rise), current * syn
            fires, spike = np.uint64(0), stop
            if observes:
                fires = (stop >= due) & (never > due) & pending
            else:
                # while V rises it is concave, and stays below its tangent
                steep = fma(voltage, r.mem * -1.0, current * r.syn)
                high = (fma(steep, wait, voltage) >= ENOUGH) | (voltage >= 1.0)
                candidates = high & pending & ~held
                if candidates:
                    fires, spike = spikes_of(voltage, current, now, stop, wait, after, current_after, candidates, c)
                    spike = select(fires, spike, stop)
                    if fires:
                        current_after = select(fires, current * exp((now - spike) * r.syn * unit), current_after)
            if holds:
                freed = waiting & ~stuck & pending & ~fires & (stop >= release)
                if freed:
                    store(state, SLOPE, (current_after * r.syn - r.mem * reset) * unit)
                    note_releases(freed, state, counts, again)
            if fires:
                slope = (current_after * r.syn - r.mem) * unit
                if observes:
                    slope = select(spike > release, slope, 0.0)
                store(state, TIME, spike)
                store(state, SLOPE, slope)
                store(state, RELEASE, release)
                stuck |= note_spikes(fires, observes, most, state, counts, trains, slopes)
                release, due = load32(state, RELEASE), load32(state, DUE)
            voltage = select(pending, select(fires | held, reset, after), voltage)
            current = select(pending, current_after, current)
            now = select(pending, spike, now)
            pending &= following > now
            if observes:
                pending |= (following >= due) & (never > due) & every
    store(state, VOLTAGE, voltage)
    store(state, CURRENT, current)
    store(state, RELEASE, select(stuck, 0.0, maximum(release - end, 0.0)))
    return stuck
