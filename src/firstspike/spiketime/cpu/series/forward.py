"""Neurons from equations go from event to event, 32 at once, each with its own clock.

A step goes to the next event of a neuron: an arrival, the end of a refractory time, a spike that was observed, or the
end. It is shorter where its Taylor series does not reach that far, where the neuron spikes, or, with observed spikes,
where it takes off at its threshold or above: it is held there until the next of them. What happens at an event is
worked out for one neuron after the other; the series, which take most of the time, for all.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.series.expansion import ROW, expand, expand_for, output_of, state_at, upper_bound
from firstspike.spiketime.cpu.series.zeros import first_zero, taylor_shift, values
from firstspike.spiketime.cpu.sort import sort_row
from firstspike.spiketime.cpu.vectors.simd import load32, lowest_bit, store
from firstspike.spiketime.statuses import FINE, NO_ROOM, NOT_FINITE, RESET_ABOVE, STUCK_STEP, WAITED

# what an entry of a record is about. HOLDS is added where the neuron is held
STEP, ARRIVAL, RELEASE, SPIKE, AT_RELEASE, AT_ARRIVAL, LOST = range(7)
HOLDS = 8
_NOTHING, _SPIKED, _RELEASED, _ARRIVED = range(4)  # the last event, if it was at this very time
_IGNORED, _BELOW, _ABOVE, _UNKNOWN = range(4)  # where a neuron comes from: from below it may spike, or take off
_MOST_STEPS = 1 << 17  # of a neuron that are not due to events
_SMALLEST = 1e-15  # a step, relative to the time


@inlined
def arrivals_of(g, slot, lane):
    """Sorted arrivals of a neuron, from which inputs they are, and how many."""
    place = g.listed[slot, lane]
    return g.arrival[slot, place], g.order[slot, place], g.inside[slot, place]


@jit
def list_arrivals(g, slot, lane):
    """Put the arrivals of a neuron in order. Without delays they may be those of the lane before."""
    b, j, column = g.sample[slot, lane], g.neuron[slot, lane], g.column[slot]
    if lane > 0 and b == g.sample[slot, lane - 1] and (g.delayed == 0 or j == g.neuron[slot, lane - 1]):
        g.listed[slot, lane] = g.listed[slot, lane - 1]
        return
    for k in range(g.events):
        column[k] = g.times[b, k] + (g.delay[b // g.batch, j, k // g.copies] if g.delayed != 0 else 0.0)
    g.listed[slot, lane], order, arrival = lane, g.order[slot, lane], g.arrival[slot, lane]
    g.inside[slot, lane] = sort_row(
        column, g.bounds[0], g.bounds[1], order, arrival, g.sort_keys[slot], g.sort_labels[slot]
    )


@inlined
def state_of(g, e, j, source):
    """The number of the state that an input adds to."""
    if g.signed != 0:
        return g.places[0 if g.weight[e, j, source // g.copies] > 0 else 1]
    return g.places[g.receptor[e, source // g.copies]]


@jit
def note(g, slot, lane, kind, value):
    """Add an entry to the record of a lane: its kind, a number, and the states before it."""
    place = g.entries[slot, lane]
    g.entries[slot, lane] = place + 1
    if g.records == 0:
        return
    if place >= g.room:
        g.status[slot, lane] = NO_ROOM
        return
    row = g.record[slot, lane, place]
    row[0], row[1] = kind, value
    for k in range(g.states):
        row[2 + k] = g.x[slot, k * LANES + lane]


@jit
def begin(g, slot, first, lanes):
    """Put neurons into the lanes, at the start, with their arrivals."""
    for lane in range(LANES):
        pair = first + min(lane, lanes - 1)
        b, j = pair // g.outputs, pair % g.outputs
        g.sample[slot, lane], g.neuron[slot, lane] = b, j
        x = g.x[slot]
        x[lane] = g.voltage[b, j]
        for k in range(1, g.states):
            x[k * LANES + lane] = g.current[b, j, k - 1]
        for k in range(g.slots):
            g.own_slots[slot, k * LANES + lane] = g.slot_values[b // g.batch, j, k]
        g.now[slot, lane], left = g.bounds[0], g.left[b, j]
        g.free[slot, lane] = g.bounds[0] + left if left > 0 else -math.inf
        g.place[slot, lane], g.count[slot, lane], g.last[slot, lane] = 0, 0, _NOTHING
        g.entries[slot, lane], g.status[slot, lane] = 0, FINE
        waits = g.keeps + g.probes == 0 and (g.records == 0 or g.found[b, j, 1] == WAITED)
        comes = _BELOW if g.keeps == 0 else _UNKNOWN
        g.comes[slot, lane] = comes if g.observes == 0 or waits else _IGNORED
        g.done[slot, lane] = 0 if lane < lanes else 2  # 2: without a neuron
        list_arrivals(g, slot, lane)


@jit
def go_on(g, slot, lane):
    """Work out all events of one neuron at its present time; returns the time to the next, 0 if there is none."""
    b, j, until = g.sample[slot, lane], g.neuron[slot, lane], g.bounds[1]
    e = b // g.batch
    now, place = g.now[slot, lane], g.place[slot, lane]
    arrival, order, arrivals = arrivals_of(g, slot, lane)
    while True:
        free, count = g.free[slot, lane], g.count[slot, lane]
        if free <= now and free > -math.inf:
            note(g, slot, lane, RELEASE, 0.0)
            g.free[slot, lane], g.last[slot, lane] = -math.inf, _RELEASED
            continue
        due = g.spikes[b, j, count] if g.observes != 0 and count < g.most else math.inf
        source = order[place] if place < arrivals else 0
        arrives, lifts = place < arrivals and arrival[place] <= now, g.last[slot, lane] == _ARRIVED
        after = place
        while not lifts and after < arrivals and arrival[after] <= now:
            lifts = g.direct[state_of(g, e, j, order[after])] != 0
            after += 1
        if due <= now and not (arrives and lifts):
            spike(g, slot, lane, now)
            continue
        knows = g.comes[slot, lane] != _UNKNOWN or free > now
        if arrives and not (knows if lifts else g.observes != 0 or g.last[slot, lane] != _RELEASED):
            g.last[slot, lane], g.target[slot, lane] = _NOTHING, now  # it may spike as it is released
            return 0.0
        if arrives:
            note(g, slot, lane, ARRIVAL + (HOLDS if free > now else 0), source)
            g.x[slot, state_of(g, e, j, source) * LANES + lane] += g.weight[e, j, source // g.copies]
            place += 1
            g.place[slot, lane] = place
            if lifts:
                g.last[slot, lane] = _ARRIVED
            continue
        break
    if now >= until or (g.observes != 0 and g.overflows[b, j] != 0 and g.count[slot, lane] == g.most):
        g.done[slot, lane] = 1
        return 0.0
    target = min(until, due)
    if place < arrivals:
        target = min(target, arrival[place])
    if free > now:
        target = min(target, free)
    g.target[slot, lane] = target
    return target - now


@jit
def spike(g, slot, lane, time):
    """Note a spike of one neuron, and reset it."""
    b, j, count = g.sample[slot, lane], g.neuron[slot, lane], g.count[slot, lane]
    holds = time < g.free[slot, lane] < math.inf
    kind = LOST if holds else SPIKE
    if not holds and g.last[slot, lane] == _RELEASED:
        kind = AT_RELEASE
    elif not holds and g.last[slot, lane] == _ARRIVED:
        kind = AT_ARRIVAL
    if g.observes == 0:
        if g.last[slot, lane] == _SPIKED:
            g.status[slot, lane] = RESET_ABOVE
            g.done[slot, lane] = 1
            return
        if count >= g.most:
            g.overflows[b, j] = 1
        else:
            g.spikes[b, j, count] = time
    note(g, slot, lane, kind, count)
    g.count[slot, lane], g.last[slot, lane] = count + 1, _SPIKED
    if g.probes != 0:
        g.done[slot, lane] = count + 1 >= g.most
        return
    s = g.work[slot]
    for k in range(g.states):
        store(s, k * ROW, load32(g.x[slot], k * LANES))
    expand(g.reset, s, g.own_slots[slot], 0, ~np.uint64(0))
    for k in range(g.states):
        g.x[slot, k * LANES + lane] = s[output_of(g.reset, k) * ROW + lane]
    refractory = g.refractory[b // g.batch, j]
    g.free[slot, lane] = time + refractory if refractory > 0 and time + refractory > time else -math.inf
    if g.observes == 0 and g.keeps != 0:
        g.comes[slot, lane] = _UNKNOWN if g.free[slot, lane] > time else _ABOVE
    if g.observes == 0 and count >= g.most:
        g.free[slot, lane] = math.inf
    elif g.once != 0 and count + 1 >= g.most:
        g.done[slot, lane] = g.overflows[b, j] = 1  # so that nothing comes back from a state after it


@jit
def integrate(g, slot):
    """Take the neurons in the lanes to the end."""
    s, x, wait, at = g.work[slot], g.x[slot], g.vectors[slot, 0], g.vectors[slot, 1]
    slots, level = g.own_slots[slot], output_of(g.flow, g.states)
    while True:
        busy = free = looks = np.uint64(0)
        for lane in range(LANES):
            wait[lane] = 0.0
            if g.done[slot, lane] == 0:
                wait[lane] = go_on(g, slot, lane)
            bit = np.uint64(1) << np.uint64(lane)
            busy |= bit if g.done[slot, lane] == 0 else np.uint64(0)
            free |= bit if not g.free[slot, lane] > g.now[slot, lane] else np.uint64(0)
            looks |= bit if g.comes[slot, lane] != _IGNORED else np.uint64(0)
        if not busy:
            return
        g.turns[slot] += 1
        for k in range(g.states):
            store(s, k * ROW, load32(x, k * LANES))
        whole = load32(wait, 0)
        order, time = expand_for(g.flow, s, slots, g.held, free, whole, busy, 0, g.tops[slot])
        expand(g.flow, s, slots, order, free)
        store(at, 0, time)
        fired = np.uint64(0)
        if g.peaked > 0:
            for lane in range(LANES):
                if (busy & free) & (np.uint64(1) << np.uint64(lane)):
                    note_peak(g, slot, lane, level, order, at[lane])
        looks &= busy & free
        if looks and g.keeps == 0:
            looks &= ~(upper_bound(s, level, order, time) < 0.0)  # also where that is no number
        while looks:
            lane = lowest_bit(looks)
            bit = np.uint64(1) << np.uint64(lane)
            looks &= ~bit
            found = crossing(g, slot, lane, level, order, at[lane])
            if not found < 0:
                at[lane] = found
                fired |= bit
        time = load32(at, 0)
        for k in range(g.states):
            store(x, k * LANES, state_at(s, k, order, time))
        for lane in range(LANES):
            bit = np.uint64(1) << np.uint64(lane)
            if busy & bit:
                advance(g, slot, lane, wait[lane], at[lane], bool(fired & bit))


@jit
def excess_within(g, slot, lane, level, order, time):
    """Fill in the polynomial of the excess of one neuron, in units of a step's time."""
    s, b, power = g.work[slot], g.polynomial[slot, 0], 1.0
    for n in range(order + 1):
        b[n] = s[level * ROW + n * LANES + lane] * power
        power *= time


@jit
def note_peak(g, slot, lane, level, order, time):
    """Note the largest excess in a step, if it is the largest so far: value, time, and at an input slope and event."""
    excess_within(g, slot, lane, level, order, time)
    b, work, n = g.polynomial[slot, 0], g.polynomial[slot], order + 1
    row, now, place = g.highest[g.sample[slot, lane], g.neuron[slot, lane]], g.now[slot, lane], g.place[slot, lane]
    arrival, order_of, arrivals = arrivals_of(g, slot, lane)
    u, arrived = highest_in(b, n, work[1], work[2], work[3]), g.last[slot, lane] == _ARRIVED
    value, slope, _ = values(b, n, u)
    if not value > row[0] or (u == 0 and not arrived and now > g.bounds[0]):
        return
    ends = u == 1 and not time < g.target[slot, lane] - now
    row[0], row[1], row[2], row[3] = value, g.target[slot, lane] if ends else now + u * time, slope / time, -1.0
    if u == 0 and arrived:
        row[3] = order_of[place - 1]
    elif ends and place < arrivals and arrival[place] == row[1]:
        row[3] = order_of[place]


@jit
def highest_in(b, n, c, d, e):
    """Where the polynomial ``b`` is highest in [0, 1], from zero to zero of its slope."""
    best, at, u, sign = b[0], 0.0, 0.0, 0.0
    for k in range(n - 1):
        c[k] = (k + 1) * b[k + 1]
        if sign == 0 and c[k] != 0:
            sign = 1.0 if c[k] > 0 else -1.0
    while u < 1 and sign != 0:
        found = next_rise(c, n - 1, -sign, u, d, e)
        u = min(max(found, u + 1e-9), 1.0) if found >= 0 else 1.0
        value, _, _ = values(b, n, u)
        if value > best:
            best, at = value, u
        sign = -sign
    return at


@jit
def next_rise(b, n, sign, start, c, d):
    """Where a polynomial times a sign, at most 0 from ``start`` on, next rises to 0 in [0, 1]; -1 if nowhere."""
    taylor_shift(b, n, start, 1 - start, c)
    for k in range(n):
        c[k] *= sign
    c[0] = min(c[0], -1e-300)
    found = first_zero(c, n, d)
    return start + found * (1 - start) if found >= 0 else -1.0


@jit
def crossing(g, slot, lane, level, order, time):
    """When a neuron spikes in a step, or takes off (rises faster and faster); -1 if never, NaN if nobody knows."""
    excess_within(g, slot, lane, level, order, time)
    b, c, d, n = g.polynomial[slot, 0], g.polynomial[slot, 1], g.polynomial[slot, 2], order + 1
    total = 0.0
    for k in range(n):
        total += b[k]
    if not math.isfinite(total):
        return math.nan
    if g.comes[slot, lane] == _UNKNOWN or (g.comes[slot, lane] == _ABOVE and g.last[slot, lane] == _ARRIVED):
        g.comes[slot, lane] = _ABOVE if b[0] >= 0 else _BELOW
    if g.comes[slot, lane] == _ABOVE:
        found = next_rise(b, n, -1.0, 0.0, c, d)
        if found >= 0:
            g.comes[slot, lane] = _BELOW
            found = next_rise(b, n, 1.0, found, c, d)
    elif b[0] > 0 or (b[0] == 0 and b[1] > 0):
        found = 0.0
    else:
        found = first_zero(b, n, c)
    if found >= 0 and g.observes != 0:
        _, slope, bend = values(b, n, found)
        found = found if slope > 0 and bend > 0 else -1.0
    return found * time if found >= 0 else -1.0


@jit
def advance(g, slot, lane, wait, at, fires):
    """The time of one neuron after a step, and its spike."""
    now = g.now[slot, lane]
    finite = True
    for k in range(g.states):
        finite &= math.isfinite(g.x[slot, k * LANES + lane])
    if not finite:
        g.status[slot, lane] = NOT_FINITE
        g.done[slot, lane] = 1
        return
    if at > 0:
        note(g, slot, lane, STEP + (HOLDS if g.free[slot, lane] > now else 0), at)
    reached, most = not fires and not at < wait, _MOST_STEPS + 4 * (g.events + g.most)
    time = now + at
    if reached:
        time = g.target[slot, lane]
    elif fires and at > 0:
        time = min(max(time, np.nextafter(now, math.inf)), g.target[slot, lane])
    elif not fires and (not at > _SMALLEST * max(abs(now), 1e-6 * wait) or g.entries[slot, lane] > most):
        g.status[slot, lane] = STUCK_STEP
        g.done[slot, lane] = 1
    if time > now:
        g.last[slot, lane] = _NOTHING
    g.now[slot, lane] = time
    if fires and g.observes != 0:
        g.free[slot, lane], g.status[slot, lane] = math.inf, max(g.status[slot, lane], WAITED)
    elif fires:
        spike(g, slot, lane, time)
