"""Linear neurons, backward: derivatives of the loss with respect to the state, from the last input to the first.

With P = dL/dV and Q = dL/dy of each component, a row of ``flow`` brings both from the end of an interval to its start.
At a spike with the slope v- of V - threshold, the loss that depends on when it is, g = dL/dT, gives

    P = (X + P+ v+ + sum_k Q_k (change of dy_k/dt) - g) / v-

where v+ is the slope after a reset, X what a release from the refractory time owes to this spike, P+ and Q what comes
from later. See Wunderlich and Pehle 2021 for neurons of one component. Lanes with events go through an interval alone.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes.scan import arrival_at
from firstspike.spiketime.cpu.linear.alone_adjoint import (
    ALL,
    ASKED,
    BY_LEAK,
    BY_PARTS,
    BY_RESET,
    BY_THRESHOLD,
    DUE,
    LARGEST,
    MOST,
    OTHERS,
    OWED,
    SLOPE,
    UP,
    WEIGHTS,
    back_alone,
    free_after,
    last_event,
    last_spike,
    total,
)
from firstspike.spiketime.cpu.linear.flow import CURRENT, FEEDS, FIRST, LEFT, MOVES, OWN, PER, RISE, SLOPES, THRESHOLD
from firstspike.spiketime.cpu.linear.lanes import part_of, response_lanes
from firstspike.spiketime.cpu.linear.quiet import add_times, back_quiet
from firstspike.spiketime.cpu.linear.scan import size_of, time_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    clear,
    fill32,
    fma,
    highest,
    load32,
    load_some32,
    lowest,
    lowest_bit,
    select,
    store,
)


@jit
def finish(g, at, mode, number):
    """P and Q at the end, and the last event of each lane."""
    adjoint, count, most = g.adjoint[at.slot], g.kinds.size, g.most
    tail = 2 * (1 + count) * LANES
    for place in range((2 * (1 + count) + 6) * LANES):
        adjoint[place] = 0
    end = np.float64(g.bounds[1])
    for lane in range(LANES):
        adjoint[tail + DUE * LANES + lane] = -math.inf
    for lane in range(size_of(g, at)):
        j, spiked = at.first + lane, 0
        while spiked < most and g.spikes[at.b, j, spiked] < math.inf:
            spiked += 1
        if mode == LARGEST:
            spiked = min(spiked, number + 1)
        g.counts[at.slot, lane] = spiked
        full = g.overflows[at.b, j] != 0
        free = free_after(g, at, j, spiked)
        held = free > end or full
        owed = 0.0
        if g.asks_end != 0 and mode < LARGEST:
            p = g.of_voltage[at.b, j]
            if held and g.resets != 0:
                if mode != WEIGHTS:
                    total(g, at, BY_RESET, lane, p)
                p = g.spikes.dtype.type(0.0)
            adjoint[lane] = p
            for k in range(count - g.biased):
                adjoint[(1 + k) * LANES + lane] = g.of_current[at.b, j, k]
            if held and not full:
                owed = -np.float64(g.of_left[at.b, j])
        adjoint[tail + OWED * LANES + lane] = owed
        due = last_event(g, at, j, spiked, -math.inf if full else end)
        if due == -math.inf and held and mode < LARGEST and g.starts != 0:
            g.by_left[at.b, j] = -owed
        adjoint[tail + DUE * LANES + lane] = due


@inlined
def flow_lanes(g, at, drives, base, s):
    """Bring P and Q of all lanes back by their own times, in place; not of components that rise."""
    adjoint, count, leak = g.adjoint[at.slot], g.kinds.size, part_of(drives, 2 * g.kinds.size)
    p, left = load32(adjoint, base), exp(s * leak * -1.0)
    for k in range(count):
        place, rate = base + (1 + k) * LANES, part_of(drives, count + k)
        own = exp(s * rate * -1.0)
        moves = response_lanes(s, leak, rate, left, own) * part_of(drives, k)
        store(adjoint, place, fma(load32(adjoint, place), own, p * moves))
    store(adjoint, base, p * left)


@jit
def last_events(g, at, lanes, mode, number):
    """Look up the last events of these lanes, in rows after those of P and Q, and step back; bits of several kinds.

    These are spikes, those among them that no hold follows, and releases before the first spike.
    """
    adjoint, tail = g.adjoint[at.slot], 2 * (1 + g.kinds.size) * LANES
    spikes, frees, firsts = np.uint64(0), np.uint64(0), np.uint64(0)
    while lanes:
        lane = lowest_bit(lanes)
        bit = np.uint64(1) << np.uint64(lane)
        lanes &= ~bit
        j, spiked, due = at.first + lane, g.counts[at.slot, lane], np.float64(adjoint[tail + DUE * LANES + lane])
        slope, asked, up, most = 0.0, 0.0, np.float64(g.ups[at.b, j, spiked]), 0.0
        following = last_spike(g, at, j, spiked)
        if due > following:
            firsts |= bit if spiked == 0 else np.uint64(0)
        else:
            spikes |= bit
            if free_after(g, at, j, spiked) == -math.inf:
                frees |= bit
            else:
                up = 0.0
            spiked -= 1
            slope, asked = np.float64(g.slopes[at.b, j, spiked]), np.float64(g.grad[at.b, j, spiked])
            if mode == LARGEST:
                most = 1.0 if spiked == number else 0.0
            elif mode == WEIGHTS:
                most = np.float64(g.largest[at.slot, spiked * LANES + lane])
            g.counts[at.slot, lane] = spiked
            following = last_event(g, at, j, spiked, due)
        adjoint[tail + DUE * LANES + lane] = following
        adjoint[tail + SLOPE * LANES + lane] = slope
        adjoint[tail + ASKED * LANES + lane] = asked
        adjoint[tail + UP * LANES + lane] = up
        adjoint[tail + MOST * LANES + lane] = most
    return spikes, frees, firsts


@inlined
def add_total(g, at, row, lanes, x):
    """Add to the sums of a gradient with respect to a parameter of the neurons."""
    sums, place = g.totals[at.group, at.chunk], row * LANES
    store(sums, place, load32(sums, place) + select(lanes, x, 0.0))


@jit
def back_lanes(g, at, drives, lanes, base, start, now, mode, number):
    """``back_alone`` of many lanes at once, from ``now`` back to ``start``; of neurons with a reset, without a rise."""
    adjoint, count, tail = g.adjoint[at.slot], g.kinds.size, 2 * (1 + g.kinds.size) * LANES
    none, sums = fill32(g.tiny, 0.0), mode in (ALL, OTHERS)
    while True:
        due = load32(adjoint, tail + DUE * LANES)
        until = max(due, start)
        flow_lanes(g, at, drives, base, select(lanes, min(now - until, 1e30), none))  # there may be no end
        now, events = until, (due > start) & lanes
        if not events:
            break
        spikes, frees, firsts = last_events(g, at, events, mode, number)
        p, owed = load32(adjoint, base), load32(adjoint, tail + OWED * LANES)
        slope, up = load32(adjoint, tail + SLOPE * LANES), load32(adjoint, tail + UP * LANES)
        if sums:
            add_total(g, at, BY_RESET, (events & ~spikes) | frees, p)
        owed = select(events, fma(p, up, owed), owed)
        pull = owed - load32(adjoint, tail + ASKED * LANES)
        for k in range(count):
            if g.kinds[k] in (CURRENT, THRESHOLD):
                q, jump = load32(adjoint, base + (1 + k) * LANES), load32(g.jump_rows[at.slot], k * LANES)
                pull = pull - q * jump * part_of(drives, count + k)
                if sums:
                    add_total(g, at, BY_PARTS + count + k, spikes, q)
        change, most = select((slope > 0.0) & spikes, pull / slope, none), load32(adjoint, tail + MOST * LANES)
        if mode == LARGEST:
            change = select((slope > 0.0) & spikes, most, none)
        elif mode == WEIGHTS:
            change = select(abs(change) * most > g.bound[0], none, change)
        for k in range(count):
            if g.kinds[k] == THRESHOLD:
                place = base + (1 + k) * LANES
                store(adjoint, place, load32(adjoint, place) - change)
        if sums:
            add_total(g, at, BY_THRESHOLD, spikes, change * -1.0)
        store(adjoint, base, select(events, change, p))
        owed = select(spikes, select(none > slope, pull, none), owed)
        store(adjoint, tail + OWED * LANES, owed)
        while sums and firsts:
            lane = lowest_bit(firsts)
            firsts &= firsts - np.uint64(1)
            g.by_left[at.b, at.first + lane] = -adjoint[tail + OWED * LANES + lane]


@inlined
def step_back(g, at, row, here, there):
    """Bring P and Q of all lanes to the start of a row's interval, from the rows ``here`` to ``there``."""
    adjoint = g.adjoint[at.slot]
    p = load32(adjoint, here)
    store(adjoint, there, p * part_of(row, LEFT))
    for k in range(g.kinds.size):
        place = FIRST + k * PER
        q = load32(adjoint, here + (1 + k) * LANES)
        before = fma(q, part_of(row, place + OWN), p * part_of(row, place + MOVES))
        if g.kinds[k] == RISE:
            before = fma(load32(adjoint, here + (2 + k) * LANES), part_of(row, place + FEEDS), before)
        store(adjoint, there + (1 + k) * LANES, before)


@jit
def add_rates(g, at, row, here, tape, besides):
    """Add the gradients with respect to the rates of an interval, but for the lanes ``besides``. ``row`` has slopes."""
    adjoint, sums, none = g.adjoint[at.slot], g.totals[at.group, at.chunk], fill32(g.tape[at.slot, 0], 0.0)
    p = select(besides, none, load32(adjoint, here))
    by_leak = p * load32(tape, 0) * part_of(row, 0)
    for k in range(g.kinds.size):
        place, q = 1 + k * SLOPES, select(besides, none, load32(adjoint, here + (1 + k) * LANES))
        y, to = load32(tape, (1 + k) * LANES), (BY_PARTS + k) * LANES
        by_leak = fma(p * y, part_of(row, place + 1), by_leak)
        by = y * fma(q, part_of(row, place), p * part_of(row, place + 2))
        if g.kinds[k] == RISE:
            after = select(besides, none, load32(adjoint, here + (2 + k) * LANES)) * y
            by = fma(after, part_of(row, place + 4), by)
            other = fma(p * y, part_of(row, place + 3), after * part_of(row, place + 5))
            store(sums, to + LANES, load32(sums, to + LANES) + other)
        store(sums, to, load32(sums, to) + by)
    store(sums, BY_LEAK * LANES, load32(sums, BY_LEAK * LANES) + by_leak)


@inlined
def reach(g, at, drives, base, place):
    """P and Q for an input that reaches a component: dL/dw, and dL/dt for a weight of 1."""
    adjoint, k = g.adjoint[at.slot], np.intp(place)
    q, p = load32(adjoint, base + (1 + k) * LANES), load32(adjoint, base)
    moved = q * part_of(drives, g.kinds.size + k) - p * part_of(drives, k)
    if g.kinds[k] == RISE:
        moved = moved - load32(adjoint, base + (2 + k) * LANES) * part_of(drives, g.kinds.size + k)
    return q, moved


@inlined
def input_gradients(g, at, i, base, drives, weights, source, mode, number):
    """Add to the gradients with respect to the weights, times and delays of an input."""
    by_weight, by_delay = g.weight_parts[at.group, at.chunk], g.delay_parts[at.group, at.chunk]
    if source is None:
        w = load32(weights, i * LANES)
        q, moved = reach(g, at, drives, base, g.places[0])
        for receptor in range(1, g.receptors):
            chosen = np.uint64(0)
            for lane in range(size_of(g, at)):
                if g.signed != 0:
                    own = weights[i * LANES + lane] <= 0
                else:
                    own = g.receptor[at.e, g.inputs_of[at.slot, i, lane]] == receptor
                chosen |= np.uint64(own) << np.uint64(lane)
            other, other_moved = reach(g, at, drives, base, g.places[receptor])
            q, moved = select(chosen, other, q), select(chosen, other_moved, moved)
        moved = moved * w
        store(g.sums[at.slot], 0, q)
        store(g.sums[at.slot], LANES, moved)
        for lane in range(size_of(g, at)):
            if g.keys[at.slot, i * LANES + lane] == math.inf:
                continue
            j, event = np.intp(g.inputs_of[at.slot, i, lane]), np.intp(g.events_of[at.slot, i, lane])
            x = g.sums[at.slot, lane]
            if mode == LARGEST:
                most = g.largest[at.slot]
                most[number * LANES + lane] = max(most[number * LANES + lane], abs(x))
                continue
            if mode != OTHERS:
                by_weight[j * LANES + lane] += x
            if mode != WEIGHTS:
                by_delay[j * LANES + lane] += g.sums[at.slot, LANES + lane]
                g.times_parts[at.part, at.b, event] += g.sums[at.slot, LANES + lane]
        return
    j = np.intp(source[i])
    w, place = load32(weights, j * LANES), g.places[0]
    if g.signed == 0:
        place = g.places[g.receptor[at.e, j]]
    q, moved = reach(g, at, drives, base, place)
    if g.signed != 0:
        negative = ~(w > 0.0) & at.every
        other, other_moved = reach(g, at, drives, base, g.places[1])
        q, moved = select(negative, other, q), select(negative, other_moved, moved)
    if mode == LARGEST:
        most = g.largest[at.slot]
        store(most, number * LANES, max(load32(most, number * LANES), abs(q)))
        return
    if mode != OTHERS:
        store(by_weight, j * LANES, load32(by_weight, j * LANES) + q)
    if mode != WEIGHTS and g.by_time != 0:
        add_times(g, at, i, moved * w)


@jit
def join_first(g, at, keys, drives, base, n, mode):
    """First spikes: fill in P and Q of lanes at their last causal inputs, and ``joins`` by input; the last of these."""
    adjoint, joins, sums = g.adjoint[at.slot], g.joins[at.slot], g.totals[at.group, at.chunk]
    first, none, top = at.b * g.outputs + at.first, fill32(g.tiny, 0.0), -1
    spike, slope = load_some32(at.every, g.spikes, first), load_some32(at.every, g.slopes, first)
    left = (slope > 0.0) & ~(spike == math.inf) & at.every
    change = select(left, load_some32(at.every, g.grad, first) * -1.0 / slope, none)
    if mode == WEIGHTS:
        change = select(abs(change) * load32(g.largest[at.slot], 0) > g.bound[0], none, change)
    else:
        store(sums, BY_THRESHOLD * LANES, load32(sums, BY_THRESHOLD * LANES) - change)
    left &= ~(change == 0.0)
    since, k = spike, first_from(keys, 0, n, lowest(select(left, spike, math.inf)))
    if k > 0:
        since = fill32(g.tiny, keys[k - 1])
    while left:
        later = (spike > keys[k]) & left  # keys[n] is inf
        if k > 0:
            joins[k - 1], top = left & ~later, k - 1
        since, left = select(later, fill32(g.tiny, keys[k]), since), later
        k += 1
    store(adjoint, base, change)
    for k in range(g.kinds.size):
        store(adjoint, base + (1 + k) * LANES, none)
    flow_lanes(g, at, drives, base, spike - since)
    return top


@jit
def unwind(g, at, mode, number, slopes, keys, rows, drives, weights, source, n):
    """Add the gradients of a group's neurons in a sample, see ``scan`` for the arguments."""
    adjoint, each = g.adjoint[at.slot], (1 + g.kinds.size) * LANES
    here, there, tail = 0, each, 2 * each
    begin, end = np.float64(g.bounds[0]), np.float64(g.bounds[1])
    sums = g.by_taus != 0 and mode != WEIGHTS and mode != LARGEST
    plain = not sums and g.resets != 0 and g.rising == 0
    if plain:
        for lane in range(size_of(g, at)):
            for k in range(g.kinds.size - g.biased):
                g.jump_rows[at.slot, k * LANES + lane] = g.jumps[at.e, at.first + lane, k]
    quiet, i = g.asks_end == 0, n
    fast = not sums and g.rising == 0 and g.kinds.size <= 2 and mode != LARGEST
    if source is not None:
        clear(g.sums[at.slot])
        if fast and g.firsts != 0:
            top, always = join_first(g, at, keys, drives, here, n, mode), g.tiny.dtype.type(-math.inf)
            if top >= 0:
                back_quiet(g, at, top, always, g.joins[at.slot], keys, rows, drives, weights, source, here, mode)
            return
    finish(g, at, mode, number)
    while i > -1:
        i -= 1
        if i < 0 and begin == -math.inf:
            break
        since = arrival_at(keys, source, i) if i >= 0 else fill32(adjoint, g.bounds[0])
        alone = (load32(adjoint, tail + DUE * LANES) > since) & at.every
        quiet = quiet and not alone
        if quiet:  # nothing that comes later has a gradient
            continue
        waits = source is None or min(keys[i + 1], end) > (keys[i] if i >= 0 else begin)
        if waits:
            g.place[at.slot] = i + 1
            if sums:
                add_rates(g, at, slopes[i + 1], here, g.tape[at.slot, i + 1], alone)
            step_back(g, at, rows[i + 1], here, there)
            if alone and plain:
                for place in range(0, each, LANES):
                    before = select(alone, load32(adjoint, here + place), load32(adjoint, there + place))
                    store(adjoint, there + place, before)
                stop = min(arrival_at(keys, source, i + 1), fill32(adjoint, g.bounds[1]))
                back_lanes(g, at, drives, alone, there, since, stop, mode, number)
                alone = np.uint64(0)
            while alone:
                lane = lowest_bit(alone)
                alone &= alone - np.uint64(1)
                for k in range(1 + g.kinds.size):
                    adjoint[there + k * LANES + lane] = adjoint[here + k * LANES + lane]
                start = time_of(keys, source, i, lane) if i >= 0 else begin
                back_alone(g, at, lane, there, start, min(time_of(keys, source, i + 1, lane), end), mode, number)
            here, there = there, here
        if source is not None and fast and i >= 0:
            latest, none = highest(load32(adjoint, tail + DUE * LANES)), g.joins[at.slot, :0]
            i = 1 + back_quiet(g, at, i, latest, none, keys, rows, drives, weights, source, here, mode)
        elif i >= 0:
            input_gradients(g, at, i, here, drives, weights, source, mode, number)
    if mode == LARGEST:
        return
    for lane in range(size_of(g, at)):
        j = at.first + lane
        if g.biased != 0 and mode != WEIGHTS:
            total(g, at, BY_PARTS + 2 * g.kinds.size, lane, adjoint[here + g.kinds.size * LANES + lane])
        if g.starts != 0 and mode != WEIGHTS:
            g.by_voltage[at.b, j] = adjoint[here + lane]
            for k in range(g.kinds.size - g.biased):
                g.by_current[at.b, j, k] = adjoint[here + (1 + k) * LANES + lane]
