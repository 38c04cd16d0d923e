"""The way back of sparse layers through one window: the adjoint of each neuron in pieces, looked up by its synapses.

Most neurons have one piece in a window, whose end stands in a table with a row for each number of the adjoint, so that
16 synapses of a source read and add at once. All others are worked on 32 at a time, like the neurons of a group, with
the piece of its target in each lane.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    LANES,
    every_lane,
    named_rates,
)
from firstspike.spiketime.cpu.lanes.adjoint import BY_MEM, BY_PARTS, DUE, EACH, NOW, PARTS, Q, Y
from firstspike.spiketime.cpu.lanes.flow import add_taus, back, constants, reached, reload, save
from firstspike.spiketime.cpu.lanes.shared import rates_at
from firstspike.spiketime.cpu.lanes.state import SYNAPSE, At, longest_wait
from firstspike.spiketime.cpu.lanes.unwind import fill_pieces
from firstspike.spiketime.cpu.membrane import responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sparse.lists import arriving
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fill32,
    fma,
    gather16,
    load16,
    load32,
    next_lane,
    select,
    store,
    store_some,
)
from firstspike.spiketime.cpu.windows.unwind import enter, leave_window


@jit
def unwind_group(g, at):
    """Fill in the pieces of 32 neurons in a window, and the table of those that have only one.

    Of a sample that ``lasts``, pieces do so until a spike or a release, and groups without these are left alone.
    """
    c, pieces, rows, first, size = constants(g, at), g.pieces[at.kept], g.state[at.kept], at.first, g.groups * LANES
    table, number, lasts = g.table[at.kept // g.groups], at.window.number, g.lasts[at.b] != 0
    if lasts and 0 < number < g.windows - 1 and g.full[at.b, number, first // LANES] == 0:
        asks = ((load32(rows, DUE) > at.begin) | ~(abs(load32(table, first)) < math.inf)) & at.every
        if not asks:
            return
    enter(g, at)
    x, end = fill_pieces(g, at, c, 0)
    since = load32(pieces, NOW)
    several = (load32(pieces, DUE) > at.begin) | ((since > at.begin) & (at.end > since))
    if lasts and number > 0:
        save(g, at, x, rows, 0)
        store(pieces, end - PARTS - g.count * EACH + DUE, fill32(pieces, -math.inf))
    else:
        leave_window(g, at, c, x)
    store(table, first, select(several, fill32(table, math.nan), load32(pieces, Y)))
    store(table, (1 + g.count) * size + first, since)
    for k in range(g.count):
        store(table, (1 + k) * size + first, load32(pieces, PARTS + k * EACH + Q))


@jit
def settle(g, slot, owner, b, chunk, window, r, ranges, taus):
    """Add the gradients of synapses through which something arrives in a window, of one of some ranges of sources."""
    group, kept, picked, times = g.groups + slot, g.groups * g.owners + slot, g.picked[slot], g.picked_times[slot]
    at = At(slot, 0, b, group, 0, every_lane(LANES), chunk, owner, kept, window.begin, window.end, window)
    g.rates[group] = g.rates[0]  # those that all neurons share
    for event in range(window.n):
        i, sent, size, total = np.intp(window.sources[event]), window.times[event], 0, g.times.dtype.type(0)
        if i % ranges != r:
            continue
        s, end = arriving(g, slot, window, event)
        if g.taus == 1 and not taus and has_table(g, i):
            total, s, size = settle_whole(g, at, i, sent, s, end)
        for place in range(s, end):
            picked[size], times[size] = place, arrival_of(g, at, place, sent)
            size += 1
            if size == LANES:
                total += settle_some(g, at, i, size, taus)
                size = 0
        if size > 0:
            total += settle_some(g, at, i, size, taus)
        g.times_parts[0, b, window.events[event]] += total


@inlined
def arrival_of(g, at, s, sent):
    """When a spike arrives through a synapse."""
    return max(sent + g.lag[s], at.begin) if g.delayed > 0 else sent


@inlined
def component_of(g, i):
    """The component that a source reaches, or one of the two."""
    return np.intp(g.places[g.receptor[0, i] if g.planes > 1 else 0])


@jit
def has_table(g, i):
    """Whether what a source reaches feeds nothing but the membrane."""
    other = g.places[1] if g.signed != 0 else g.places[0]
    return g.kinds[component_of(g, i)] == SYNAPSE and g.kinds[other] == SYNAPSE


@jit
def settle_whole(g, at, i, sent, s, last):
    """Add the gradients of a source's synapses from ``s`` to ``last`` from the table, 16 at once.

    Returns the gradient with respect to its time, the first synapse that is left, and how many of the others are picked
    for ``settle_some``.
    """
    table, picked, times, stride = g.table[at.part], g.picked[at.slot], g.picked_times[at.slot], g.groups * LANES
    parts, lags, sums = g.weight_parts[at.chunk], g.delay_parts[at.chunk], g.sums[at.slot]
    k, unit, longest = component_of(g, i), named_rates(g.rates[0, 0])[0].unit, longest_wait(table)
    r, none, size = rates_at(g.rates[0, k], 0), fill16(table, 0.0), 0
    other = np.intp(g.places[1]) if g.signed != 0 else k
    o, result, acc = rates_at(g.rates[0, other], 0), table.dtype.type(0), none
    wait = min((none + at.end - sent) * unit, longest)
    mem, own, rise = responses(wait, r)
    _, other_own, other_rise = responses(wait, o)
    apart = g.delayed > 0 or g.lasts[at.b] != 0
    while s < last and s + 16 <= g.synapses:
        inside = every_lane(min(last - s, 16))
        if apart:
            arrival, until = none + sent, none + at.end
            if g.delayed > 0:
                arrival = max(load16(g.lag, s) + arrival, none + at.begin)
            if g.lasts[at.b] != 0:
                until = gather16(table, (1 + g.count) * stride, g.head, s)
            wait = select(inside, max(min((until - arrival) * unit, longest), 0.0), 0.0)
            mem, own, rise = responses(wait, r)
        y, w = gather16(table, 0, g.head, s), load16(g.scaled, s)
        q = gather16(table, (1 + k) * stride, g.head, s)
        several = ~(abs(y) < math.inf) & inside
        some = inside & ~several
        while several:
            lane, several = next_lane(several)
            picked[size], times[size] = s + lane, arrival_of(g, at, s + lane, sent)
            size += 1
            if size == LANES:
                result += settle_some(g, at, i, size, False)
                size = 0
        y = select(some, y, 0.0)
        by, speed = fma(q, own, y * rise), none + r.syn
        if g.signed != 0:
            if apart:
                _, other_own, other_rise = responses(wait, o)
            positive = w > 0.0
            q = gather16(table, (1 + other) * stride, g.head, s)
            by, speed = select(positive, by, fma(q, other_own, y * other_rise)), select(positive, speed, none + o.syn)
        by = select(some, by, 0.0)
        each = select(some, (by - y * mem) * w * speed, 0.0)
        store_some(inside, parts, s, load16(parts, s) + by)  # those behind are another source's, of another thread
        if g.delayed > 0:
            store_some(inside, lags, s, load16(lags, s) + each * unit)
        acc = acc + each
        s += 16
    store(sums, 0, acc)
    for lane in range(16):
        result += sums[lane] * unit
    return result, min(s, last), size


@jit
def copy_rates(g, group, lane, source, column):
    """Give a lane the rates of a neuron, in the unit of time of the first group."""
    scale = named_rates(g.rates[source, 0])[0].unit / named_rates(g.rates[0, 0])[0].unit
    for k in range(g.count):
        to, r = named_rates(g.rates[group, k])[lane], named_rates(g.rates[source, k])[column]
        to.mem, to.syn, to.delta = r.mem * scale, r.syn * scale, r.delta * scale
        to.per_rise, to.ratio, to.x, to.top, to.height = r.per_rise, r.ratio, r.x, r.top, r.height


@jit
def settle_some(g, at, i, size, taus):
    """Add the gradients of the synapses of a source that are picked; returns that by its time."""
    rows, picked, times, sums = g.state[at.kept], g.picked[at.slot], g.picked_times[at.slot], g.sums[at.slot]
    each, own = PARTS + g.count * EACH, g.taus > 1
    if size < LANES:
        for row in range(0, each, LANES):
            rows[row : row + LANES] = 0
        rows[NOW : NOW + LANES] = -math.inf
        times[size:] = 0
        sums[size:LANES] = 0
    for lane in range(size):
        j = np.uintp(g.head[picked[lane]])
        group, column = j // np.uintp(LANES), j % np.uintp(LANES)
        pieces, place = g.pieces[at.part * g.groups + np.intp(group)], column
        while pieces[place + np.uintp(DUE)] > times[lane]:
            place += np.uintp(each)
        for row in range(0, each, LANES):
            rows[row + lane] = pieces[place + np.uintp(row)]
        sums[lane] = g.scaled[picked[lane]]
        if own:
            copy_rates(g, at.group, lane, np.intp(group), np.intp(column))
    arrival = load32(times, 0)
    inside = load32(rows, NOW) > arrival
    w, c = select(inside, load32(sums, 0), 0.0), constants(g, at)
    x = back(g, at, c, reload(g, at), arrival, False, False, taus)
    if taus:
        g.totals[at.group, at.chunk] = 0
        add_taus(g, at, x, 0, i, w)
        totals = g.totals[at.group, at.chunk]
        for lane in range(size):
            j = np.intp(g.head[picked[lane]])
            to, column = g.totals[j // LANES, at.chunk], j % LANES
            to[BY_MEM + column] += totals[BY_MEM + lane]
            for row in range(BY_PARTS, g.total_rows, LANES):
                to[row + column] += totals[row + lane]
    part, fed, rate = reached(g, at, c, x, i, w)
    by_time = (part.q - fed) * w * (rate * named_rates(g.rates[0, 0])[0].unit)
    store(sums, 0, select(inside, part.q, 0.0))
    store(sums, LANES, by_time)
    total = sums.dtype.type(0)
    for lane in range(size):
        g.weight_parts[at.chunk, picked[lane]] += sums[lane]
        total += sums[LANES + lane]
        if g.delayed > 0:
            g.delay_parts[at.chunk, picked[lane]] += sums[LANES + lane]
    return total
