"""Neurons that see their own spikes again, forward through a window: 32 of one sample, as in ``lanes.walk``."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import BRIEF_END, LANES, UNIT, rates_in
from firstspike.spiketime.cpu.lanes.state import longest_wait
from firstspike.spiketime.cpu.lanes.walk import arrival_at
from firstspike.spiketime.cpu.membrane import ENOUGH, brief, crossings, reaches, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, lowest_bit, next_up, select, store

# of 32 lanes: the state (membrane, current, and the end of the refractory time, later what is left of it), constants,
# the next spike that was observed, and of spikes that are to be noted their time and the slope of the membrane
VOLTAGE, CURRENT, RELEASE, RESET, HOLD, DUE, TIME, SLOPE = (row * LANES for row in range(8))
N_STATE = 8 * LANES


@inlined
def kept_at(g, at):
    """Where these neurons have what is kept of them from window to window."""
    return at.slot * g.groups + at.first // LANES


@jit
def spikes_of(voltage, current, now, stop, wait, end, current_end, candidates, c):
    """The candidates that spike up to ``stop``, after the time ``wait``, and when. ``end`` is the membrane there.

    A spike is later than ``now``, by one unit in the last place if it would round to that.
    """
    r = rates_in(c)
    fires, limit = reaches(voltage, current, wait, end, current_end, candidates, r)
    at_once = (voltage >= 1.0) & candidates
    slow, s = fires & ~at_once, fill32(c, 0.0)
    if slow:
        s = select(slow, crossings(voltage, current, limit, slow, r)[0], s)
    spike = now + s * (1 / c[UNIT, 0])
    return fires | at_once, min(select(spike > now, spike, next_up(now)), stop)


@jit
def start_lanes(g, at):
    """The states of 32 neurons at the start; no spikes yet."""
    state, counts, begin = g.state[kept_at(g, at)], g.whole[kept_at(g, at)], g.bounds[0]
    for lane in range(LANES):
        state[VOLTAGE + lane] = state[CURRENT + lane] = state[RESET + lane] = state[HOLD + lane] = 0
        state[RELEASE + lane], state[DUE + lane], counts[lane] = -math.inf, math.inf, 0
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        threshold = g.threshold[at.e, j]
        state[RESET + lane], state[HOLD + lane] = g.reset[at.e, j] / threshold, g.refractory[at.e, j]
        if begin > -math.inf:
            state[VOLTAGE + lane] = g.held[at.b, 0, j] / threshold
            state[CURRENT + lane] = g.held[at.b, 1, j] / threshold
            if g.held[at.b, 2, j] > 0:
                state[VOLTAGE + lane], state[RELEASE + lane] = state[RESET + lane], begin + g.held[at.b, 2, j]
        if g.observes:
            state[DUE + lane] = g.spikes[at.b, j, 0]


@jit
def end_lanes(g, at, window, stuck):
    """Keep the results of a window, in which ``stuck`` lanes have too many spikes; the states at the end."""
    state, counts = g.state[kept_at(g, at)], g.whole[kept_at(g, at)]
    g.full[at.b, window.number, at.first // LANES] = stuck
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        g.counts[at.b, j] = counts[lane]
        over = (stuck >> np.uint64(lane)) & np.uint64(1) or counts[lane] > g.most
        g.overflows[at.b, j] |= np.uint8(1) if over else np.uint8(0)
        if window.number == g.windows - 1:
            g.held[at.b, 3, j] = state[VOLTAGE + lane] * g.threshold[at.e, j]
            g.held[at.b, 4, j] = state[CURRENT + lane] * g.threshold[at.e, j]
            g.held[at.b, 5, j] = max(state[RELEASE + lane] - window.end, 0)


@jit
def note_spikes(g, at, window, fires):
    """Note the spikes TIME of the lanes ``fires``. Returns those that have more in a window than they may."""
    state, counts, full = g.state[kept_at(g, at)], g.whole[kept_at(g, at)], np.uint64(0)
    while fires:
        lane = lowest_bit(fires)
        bit = np.uint64(1) << np.uint64(lane)
        fires &= ~bit
        count, j = counts[lane], at.first + lane
        if count == counts[LANES + lane] + g.budget or count == g.room:
            full |= bit
            if count < counts[LANES + lane] + g.budget:
                g.lacks[at.b] = 1
            continue
        time = state[TIME + lane]
        g.slopes[at.b, j, count] = state[SLOPE + lane]
        counts[lane] = count + 1
        state[RELEASE + lane] = time + state[HOLD + lane]
        if g.observes:
            state[DUE + lane] = g.spikes[at.b, j, count + 1] if count + 1 < g.room else math.inf
        else:
            g.spikes[at.b, j, count] = time
        if window.number < g.windows - 1:
            entry = g.sent_at[at.b, window.number + 1]
            g.sent[at.b, entry] = g.events + count * g.outputs + j
            g.sent_at[at.b, window.number + 1] = entry + 1
    return full


@jit
def note_releases(g, at, freed):
    """Note the slopes SLOPE of the lanes ``freed`` where they are released, by the number of their spikes before."""
    while freed:
        lane = lowest_bit(freed)
        freed &= freed - np.uint64(1)
        g.again[at.b, at.first + lane, g.whole[kept_at(g, at), lane]] = g.state[kept_at(g, at), SLOPE + lane]


@jit
def walk(g, at, window, keys, values, source, n):
    """Fill in the spikes of the 32 neurons of a group in a window, their slopes there and at releases, and the states.

    Inputs are in order, see ``lanes.lists``. Observed spikes are passed through. The slope at one while the neuron was
    refractory is 0. Entry k of ``again`` is the release after k spikes.
    """
    state, counts, c, every = g.state[kept_at(g, at)], g.whole[kept_at(g, at)], g.rates[at.group], at.every
    if window.number == 0:
        start_lanes(g, at)
    for lane in range(LANES):
        counts[LANES + lane] = counts[lane]
    holds, observes, begin, end = g.releases != 0, g.observes != 0, window.begin, window.end
    r, never, unit, longest, last = rates_in(c), fill32(c, math.inf), c[UNIT, 0], longest_wait(c), fill32(c, end)
    voltage, current, reset = load32(state, VOLTAGE), load32(state, CURRENT), load32(state, RESET)
    release, due, stuck, now = load32(state, RELEASE), load32(state, DUE), np.uint64(0), fill32(c, begin)
    if begin == -math.inf:
        now = min(min(arrival_at(keys, source, 0), last), due)
    is_brief, simple = False, not (holds or observes) and end < math.inf
    for k in range(-1, n):
        if source is None:
            if k >= 0:
                arrives = never > load32(keys, k * LANES)
                current = current + select(arrives, load32(values, k * LANES), 0.0)
            following = min(load32(keys, (k + 1) * LANES), last)
            is_brief = not any_reaches((following - now) * unit, c[BRIEF_END, 0])
        else:
            if k >= 0:
                current = current + load32(values, np.intp(source[k]) * LANES)
            until = min(keys[k + 1], end)
            following = fill32(c, until)
            is_brief = (until - (keys[k] if k >= 0 else begin)) * unit < c[BRIEF_END, 0]
        if simple and not stuck:
            wait = (following - now) * unit
            mem, syn, rise = brief(wait, r) if is_brief else responses(wait, r)
            # while V rises it is concave, and stays below its tangent
            tangent = fma(fma(voltage, r.mem * -1.0, current * r.syn), wait, voltage)
            if not any_reaches(max(tangent, voltage), ENOUGH):  # most often; masks as numbers would cost more than this
                voltage, current, now = fma(voltage, mem, current * rise), current * syn, following
                continue
        pending = (following > now) & every
        if observes:
            pending |= (following >= due) & (never > due) & every
        while pending:
            stop, held, waiting = following, stuck, np.uint64(0)
            if holds:
                waiting = release > now
                held |= waiting
                stop = select(waiting, min(stop, release), stop)
            if observes:
                stop = min(stop, due)
            wait = (stop - now) * unit
            mem, syn, rise = brief(wait, r) if is_brief else responses(min(wait, longest), r)
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
                    note_releases(g, at, freed)
            if fires:
                slope = (current_after * r.syn - r.mem) * unit
                if observes:
                    slope = select(spike > release, slope, 0.0)
                store(state, TIME, spike)
                store(state, SLOPE, slope)
                store(state, RELEASE, release)
                stuck |= note_spikes(g, at, window, fires)
                release, due = load32(state, RELEASE), load32(state, DUE)
            voltage = select(pending, select(fires | held, reset, after), voltage)
            current = select(pending, current_after, current)
            now = select(pending, spike, now)
            pending &= following > now
            if observes:
                pending |= (following >= due) & (never > due) & every
    store(state, VOLTAGE, voltage)
    store(state, CURRENT, current)
    store(state, RELEASE, select(stuck, never * -1.0, release))
    end_lanes(g, at, window, stuck)
