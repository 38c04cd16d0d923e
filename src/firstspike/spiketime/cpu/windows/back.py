"""Spike trains of 32 neurons of one sample, each with its own order of arrival or its own constants: backward.

All lanes go from their last input back to the first, between two inputs as often as any of them has a spike or a
release; with delays from one spike or release to the one before, between which inputs in any order are put. They carry
``y = dL/dV`` and ``C = dL/dI`` in units of the neurons, which over a time s become

    y -> y exp(-s/tau_mem),      C -> C exp(-s/tau_syn) + y kappa(s)

A spike with slopes v- before and v+ after it, and the loss g by its time, makes ``y -> (v+ y - g) / v-``. With a
refractory time, v+ is that at the release, and y is 0 from there back to the spike. An input of weight w adds C to the
gradient with respect to its weight and ``w (C - y)/tau_syn`` to that by its time. Where the membrane starts at the
reset, y adds to the gradient with respect to that. As y comes from one spike (or the end) alone, at ``T``, its
derivative with respect to log(tau_mem) at fixed spikes is ``y (T - t)/tau_mem``. Those of C are carried. The loss by
time constants is the sum of the derivatives of C times the weights, and of y times the membranes at the releases.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import BRIEF_END, HEIGHT, LANES, PER_MEM, UNIT, rates_in
from firstspike.spiketime.cpu.lanes.state import longest_wait
from firstspike.spiketime.cpu.membrane import responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.shuffles import sum_rows16, total16
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, lowest_bit, prefetch32, select, store
from firstspike.spiketime.cpu.windows.carry import (
    BY_MEM,
    BY_RESET,
    BY_SYN,
    BY_THRESHOLD,
    C_KEPT,
    DUE,
    N_ADJOINT,
    NOW,
    OF_MEM,
    OF_SYN,
    ORIGIN,
    Y_KEPT,
    Adjoint,
    C,
    Y,
    add_event,
    back_to,
    chosen,
    into_of,
    load_adjoint,
    store_adjoint,
)
from firstspike.spiketime.cpu.windows.events import BLOCK, arrivals, due_at
from firstspike.spiketime.cpu.windows.walk import kept_at

AHEAD = 4  # events whose numbers are on their way to the processor
# of 32 lanes, after what they carry: the derivative of y by log(tau_mem), and what the last release gives to its spike
OF_Y, PULL, PULL_KEPT = (N_ADJOINT + row * LANES for row in range(3))
# the neurons' unit, and in it threshold and reset; refractory time; release at the start; loss by the last one's time
SIZE, LEVEL, RESET, HOLD, FIRST, OF_LEFT = (N_ADJOINT + row * LANES for row in range(3, 9))
BEFORE = N_ADJOINT + 9 * LANES  # release before a spike
N_STATE = N_ADJOINT + 10 * LANES
LEFT, COUNT, RELEASES = (row * LANES for row in range(3))  # whole numbers: spikes that are left, all, what is DUE
SIZE_NOW, BEGINS = 3 * LANES, 3 * LANES + 1  # of the pieces of a block of windows; where those of each window begin
N_WHOLE = 3 * LANES + 1 + BLOCK


@jit
def next_due(g, at, lane, before):
    """The release or the spike of a lane that comes before ``before``, and whether it is a release."""
    state, j = g.state[kept_at(g, at)], g.whole[kept_at(g, at), LEFT + lane]
    spike = g.spikes[at.b, at.first + lane, j - 1] if j > 0 else state.dtype.type(-math.inf)
    release = spike + state[HOLD + lane] if j > 0 else state[FIRST + lane]
    if spike < release < before:
        return release, 1
    return spike, 0


@jit
def bounded(scale, suspects, g, at, window, delayed, spike, since, most):
    """``scale``, but 0 for ``suspects`` where a weight's gradient exceeds ``most`` by an input, or by its rest.

    The responses are those of a spike to inputs ``since``.
    """
    c = g.rates[at.group]
    r, unit, largest = rates_in(c), c[UNIT, 0], fill32(c, 0.0)
    for k in range(window.n):
        arrival, inside = fill32(c, window.times[k]), at.every
        if delayed:
            arrival, inside = arrivals(g, at, window, k)
        causal = (spike > arrival) & (arrival >= window.begin) & inside & suspects
        if causal:
            start = max(arrival, since)
            wait = select(causal, max(spike - start, 0.0) * unit, 0.0)
            age = select(causal, (arrival - start) * r.syn * unit, 0.0)
            largest = max(largest, select(causal, responses(wait, r)[2] * exp(age), 0.0))
    return select((abs(scale) * largest > most) & suspects, 0.0, scale)


@jit
def jump(g, at, hits):
    """Take the lanes ``hits`` back over their spikes or releases at NOW. Returns those that the bound may drop."""
    state, whole, c, totals = (
        g.state[kept_at(g, at)],
        g.whole[kept_at(g, at)],
        g.rates[at.group],
        g.totals[at.group, at.chunk],
    )
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
            slope, asked = g.slopes[at.b, at.first + lane, j] * level, state.dtype.type(0)
            if j < g.most:
                asked += g.grad[at.b, at.first + lane, j]
            # by its arrivals at other neurons
            asked += g.times_parts[at.part, at.b, g.events + j * g.outputs + at.first + lane]
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
def start_back(g, at, window):
    """The start of 32 neurons. OF_LEFT becomes the loss by the last spike, or the refractory time at the start."""
    state, whole, begin, end, asks_end = (
        g.state[kept_at(g, at)],
        g.whole[kept_at(g, at)],
        g.bounds[0],
        window.end,
        g.asks_end != 0,
    )
    totals, stuck = g.totals[at.group, at.chunk], np.uint64(g.full[at.b, window.number, at.first // LANES])
    for lane in range(LANES):
        state[SIZE + lane] = state[LEVEL + lane] = 1
        state[RESET + lane] = state[HOLD + lane] = state[Y + lane] = state[C + lane] = state[OF_LEFT + lane] = 0
        state[FIRST + lane], count, full, j = -math.inf, 0, False, at.first + lane
        if j < g.outputs:
            unit, full = g.unit[at.e, j], (stuck >> np.uint64(lane)) & np.uint64(1) != 0
            state[SIZE + lane], state[LEVEL + lane] = unit, g.level[at.e, j]
            state[RESET + lane], state[HOLD + lane] = g.reset[at.e, j] / unit, g.refractory[at.e, j]
            if begin > -math.inf and g.held[at.b, 2, j] > 0:
                state[FIRST + lane] = begin + g.held[at.b, 2, j]
            if asks_end:
                state[Y + lane], state[C + lane] = g.of_end[at.b, 0, j] * unit, g.of_end[at.b, 1, j] * unit
                state[OF_LEFT + lane] = g.of_end[at.b, 2, j]
            count = np.intp(g.counts[at.b, j])
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
        state[C_KEPT + lane] = state[C + lane]


@jit
def gradients_by_start(g, at):
    """Write the gradients of some neurons' state at the start, and add its part in those of time constants."""
    state, totals = g.state[kept_at(g, at)], g.totals[at.group, at.chunk]
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        unit, y, free = g.unit[at.e, j], state[Y + lane], not g.held[at.b, 2, j] > 0
        g.by_start[at.b, 0, j] = y / unit if free else 0
        g.by_start[at.b, 1, j] = state[C + lane] / unit
        g.by_start[at.b, 2, j] = -state[PULL + lane]
        if g.whole[kept_at(g, at), COUNT + lane] == 0:
            g.by_start[at.b, 2, j] += state[OF_LEFT + lane]
        if g.by_taus:
            v, i = g.held[at.b, 0, j] / unit, g.held[at.b, 1, j] / unit
            if free:
                totals[BY_MEM + lane] += v * state[OF_Y + lane]
            totals[BY_MEM + lane] += i * state[OF_MEM + lane]
            totals[BY_SYN + lane] += i * state[OF_SYN + lane]


@jit
def enter(g, at, window):
    """The adjoint at the end of a window, where lanes that had too many spikes in it were held at the reset."""
    state, totals, c = g.state[kept_at(g, at)], g.totals[at.group, at.chunk], g.rates[at.group]
    if window.number == g.windows - 1:
        start_back(g, at, window)
        return
    stuck = np.uint64(g.full[at.b, window.number, at.first // LANES])
    if not stuck:
        return
    x, r, unit = load_adjoint(state, 0), rates_in(c), c[UNIT, 0]
    target = select(stuck, fill32(c, window.end), x.now)
    store_adjoint(state, 0, back_to(x, target, False, r, unit, longest_wait(c), g.bound[0] < math.inf, g.by_taus != 0))
    y = select(stuck, load32(state, Y), 0.0)
    store(totals, BY_RESET, load32(totals, BY_RESET) + y)
    aged = (load32(state, ORIGIN) - load32(state, NOW)) * r.mem * unit
    aged = select((y > 0.0) | (y < 0.0), aged * y * load32(state, RESET), 0.0)
    store(totals, BY_MEM, load32(totals, BY_MEM) + aged)
    store(state, Y, load32(state, Y) - y)
    store(state, Y_KEPT, select(stuck, 0.0, load32(state, Y_KEPT)))


@jit
def back_over(g, at, window, delayed, x, hits):
    """The adjoint before the spikes and releases of the lanes ``hits``, which are at DUE."""
    state = g.state[kept_at(g, at)]
    store(state, Y, x.y)
    store(state, Y_KEPT, x.y_kept)
    suspects = jump(g, at, hits)
    if suspects:
        spike, since, most = load32(state, ORIGIN), load32(state, BEFORE), load32(state, SIZE) * g.bound[0]
        kept = bounded(load32(state, Y_KEPT), suspects, g, at, window, delayed, spike, since, most)
        store(state, Y_KEPT, kept)
    y, kept, origin = load32(state, Y), load32(state, Y_KEPT), load32(state, ORIGIN)
    return Adjoint(x.now, y, x.current, kept, x.current_kept, x.of_mem, x.of_syn, origin)


@jit
def leave(g, at, window, x):
    """Keep the adjoint at the beginning of a window, and write the state's gradients if it is the first one.

    The bound drops spikes of a window.
    """
    state, c = g.state[kept_at(g, at)], g.rates[at.group]
    store_adjoint(state, 0, Adjoint(x.now, x.y, x.current, x.y, x.current, x.of_mem, x.of_syn, x.origin))
    store(state, PULL_KEPT, load32(state, PULL))
    if window.number == 0 and window.begin > -math.inf:
        age = (x.origin - x.now) * load32(c, PER_MEM * LANES) * c[UNIT, 0]
        store(state, OF_Y, select(x.now > -math.inf, age * x.y, 0.0))
        gradients_by_start(g, at)


@jit
def unwind_together(g, at, window):
    """Add the gradients of 32 neurons for a window, from its end or their last spikes to the first event or its begin.

    All have the same order of arrival.
    """
    state, c, times, n = g.state[kept_at(g, at)], g.rates[at.group], window.times, window.n
    enter(g, at, window)
    begin, bounds, taus, into = window.begin, g.bound[0] < math.inf, g.by_taus != 0, into_of(g, at)
    r, unit, longest, x = rates_in(c), c[UNIT, 0], longest_wait(c), load_adjoint(state, 0)
    for k in range(n - 1, -2, -1):
        arrival = times[k] if k >= 0 else begin
        if not x.now >= arrival or (k < 0 and begin == -math.inf and not load32(state, DUE) > arrival):
            continue  # spikes before the first input are observed ones
        is_brief = (min(times[k + 1], window.end) - arrival) * unit < c[BRIEF_END, 0]
        while True:
            before = load32(state, DUE)
            hits = before > arrival
            x = back_to(x, select(hits, before, arrival), is_brief, r, unit, longest, bounds, taus)
            if not hits:
                break
            x = back_over(g, at, window, False, x, hits)
        if k >= 0:
            into.by_times[np.uintp(window.events[k])] += total16(add_event(into, window, k, x, at.every, False, taus))
    leave(g, at, window, x)


@inlined
def fetch_ahead(window, k, first, second):
    """Have the processor read what two arrays have for a later event."""
    place = np.uintp(window.sources[np.uintp(min(k, window.n))]) * np.uintp(LANES)
    prefetch32(first, place)
    prefetch32(second, place)


@inlined
def settle(g, at, window, stop, bounds, taus):
    """Add the gradients of a window's events, from the pieces of it and of the next ones before ``stop``.

    The flags are constants where neither is true, which leaves less to carry.
    """
    c, pieces, sums, delay = g.rates[at.group], g.pieces[kept_at(g, at)], g.sums[at.slot], g.delays[at.group]
    into, size = into_of(g, at), np.intp(g.whole[kept_at(g, at), SIZE_NOW])
    whole, latest, r, unit, longest = (
        g.whole[kept_at(g, at)],
        g.latest[at.group],
        rates_in(c),
        c[UNIT, 0],
        longest_wait(c),
    )
    for number in range(window.n):
        k = np.uintp(number)
        fetch_ahead(window, number + 2 * AHEAD, delay, into.weight)
        fetch_ahead(window, number + AHEAD, into.by_weight, into.by_delay)
        arrival, inside = arrivals(g, at, window, number)
        last, v = latest[np.uintp(window.sources[k])] + window.times[k], window.number
        while v < stop - 1 and g.bounds[np.uintp(v + 1)] <= last:
            v += 1
        first = np.intp(whole[np.uintp(BEGINS + v % BLOCK)])
        later = load_adjoint(pieces, first)
        for piece in range(first + N_ADJOINT, size, N_ADJOINT):
            earlier = load32(pieces, piece - N_ADJOINT + DUE) > arrival
            if earlier & inside:
                later = chosen(earlier, load_adjoint(pieces, piece), later)
        here = back_to(later, arrival, False, r, unit, longest, bounds, taus)
        store(sums, (number & 15) * 16, add_event(into, window, number, here, inside, True, taus))
        if number & 15 == 15 or number == window.n - 1:
            store(sums, 256, sum_rows16(sums, 0))
            for row in range((number & 15) + 1):
                into.by_times[np.uintp(window.events[np.uintp(number & ~15) + np.uintp(row)])] += sums[256 + row]


@jit
def unwind_apart(g, at, window):
    """Unwind neurons with delays, whose events may come in any order: the adjoint at each is found from pieces.

    A piece lies between two of a lane's spikes, releases or windows, where it follows from exponentials. Those of a
    block of windows are kept, and an event's gradients found where it first arrives at a lane, or in the first window
    of the block if that is later.
    """
    state, whole, c, pieces = (
        g.state[kept_at(g, at)],
        g.whole[kept_at(g, at)],
        g.rates[at.group],
        g.pieces[kept_at(g, at)],
    )
    w = window.number
    stop = min(w // BLOCK * BLOCK + BLOCK, g.windows)  # where the block ends
    size = np.intp(whole[SIZE_NOW]) if w < stop - 1 else 0
    enter(g, at, window)
    begin, bounds, taus = window.begin, g.bound[0] < math.inf, g.by_taus != 0
    r, unit, longest, x = rates_in(c), c[UNIT, 0], longest_wait(c), load_adjoint(state, 0)
    whole[BEGINS + w % BLOCK] = size
    while True:
        before = load32(state, DUE)
        hits = before > begin
        store_adjoint(pieces, size, x)
        store(pieces, size + DUE, select(hits, before, -math.inf if hits else begin))
        size += N_ADJOINT
        if not hits:
            break
        x = back_to(x, select(hits, before, x.now), False, r, unit, longest, bounds, taus)
        x = back_over(g, at, window, True, x, hits)
    whole[SIZE_NOW] = size
    window = due_at(g, at, window, g.bounds[stop], w % BLOCK == 0)
    if bounds or taus:
        settle(g, at, window, stop, bounds, taus)
    else:
        settle(g, at, window, stop, False, False)
    if begin > -math.inf:
        x = back_to(x, fill32(c, begin), False, r, unit, longest, bounds, taus)
    leave(g, at, window, x)
