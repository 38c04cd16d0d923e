"""Linear neurons, forward: 32 neurons of one sample in the lanes of vectors, from input to input.

In each interval all lanes take the same step. A bound shows which cannot reach the threshold. The others, those that
are released from a refractory time, and with observed spikes those that have one, are gone through alone, event by
event, in float64.

Neurons that share their inputs' order and their time constants share the numbers of a row (``flow``), too. Others have
lanes of them. The functions find which by the dimensions of the arrays, and whether there is a ``source``.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes.scan import arrival_at
from firstspike.spiketime.cpu.linear.alone import go_alone
from firstspike.spiketime.cpu.linear.flow import (
    CURRENT,
    FEEDS,
    FIRST,
    HOW_LONG,
    LEFT,
    MOVES,
    OWN,
    PER,
    RISE,
    SYNAPSE,
    THRESHOLD,
    fill_row,
)
from firstspike.spiketime.cpu.linear.lanes import (
    BUSY,
    HOLD,
    JUMPS,
    LIMIT,
    LONGEST,
    NOW,
    RESET,
    STOP,
    THETA,
    constants_of,
    fire_lanes,
    part_of,
    spent_lanes,
)
from firstspike.spiketime.cpu.linear.quiet import keep_lanes, run_quiet
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, highest, load32, lowest_bit, select, store

_PIECES = 200  # of a long interval, more of which go alone


@inlined
def size_of(g, at):
    """How many neurons a group has."""
    return min(LANES, g.outputs - at.first)


@inlined
def time_of(keys, source, i, lane):
    """When an input arrives at a lane."""
    return np.float64(keys[i * LANES + lane] if source is None else keys[i])


@inlined
def add_input(g, at, i, base, weights, source):
    """Add the weights of an input to the components that it reaches, in the rows from ``base`` on."""
    state = g.state[at.slot]
    if source is None:
        if g.signed != 0 or g.receptors > 1:
            for lane in range(size_of(g, at)):
                w = weights[i * LANES + lane]
                reached = np.intp(w <= 0) if g.signed != 0 else g.receptor[at.e, g.inputs_of[at.slot, i, lane]]
                state[base + (1 + g.places[reached]) * LANES + lane] += w
            return
        where, w = base + (1 + g.places[0]) * LANES, load32(weights, i * LANES)
    else:
        w = load32(weights, np.intp(source[i]) * LANES)
        if g.signed != 0:
            positive, other = max(w, 0.0), base + (1 + g.places[1]) * LANES
            store(state, other, load32(state, other) + (w - positive))
            w, where = positive, base + (1 + g.places[0]) * LANES
        else:
            where = base + (1 + g.places[g.receptor[at.e, source[i]]]) * LANES
    store(state, where, load32(state, where) + w)


@jit
def start_lanes(g, at):
    """The states of a group at the start. Returns which lanes are held."""
    state, count, tail, held = g.state[at.slot], g.kinds.size, constants_of(g), np.uint64(0)
    for place in range(state.size):
        state[place] = 0
    for lane in range(LANES):
        for row in (LIMIT, BUSY, THETA):
            state[tail + row * LANES + lane] = math.inf
        g.counts[at.slot, LANES] = 0
        g.counts[at.slot, lane], g.free[at.slot, lane] = 0, -math.inf
    for lane in range(size_of(g, at)):
        j = at.first + lane
        state[tail + THETA * LANES + lane] = g.threshold[at.e, j]
        state[tail + LIMIT * LANES + lane] = g.threshold[at.e, j] * (1 - 64 * g.tiny[0])
        state[tail + RESET * LANES + lane] = g.reset[at.e, j]
        state[tail + HOLD * LANES + lane] = g.refractory[at.e, j]
        for k in range(count - g.biased):
            state[tail + (JUMPS + k) * LANES + lane] = g.jumps[at.e, j, k]
        if g.biased != 0:
            state[count * LANES + lane] = g.bias[at.e, j]
        if g.starts != 0:
            state[lane] = g.voltage[at.b, j]
            for k in range(count - g.biased):
                state[(1 + k) * LANES + lane] = g.current[at.b, j, k]
            if g.left[at.b, j] > 0:
                g.free[at.slot, lane] = np.float64(g.bounds[0]) + np.float64(g.left[at.b, j])
                state[tail + BUSY * LANES + lane] = g.free[at.slot, lane]
                held |= np.uint64(1) << np.uint64(lane)
                if g.resets != 0:
                    state[lane] = g.reset[at.e, j]
        if g.observes != 0:
            state[tail + BUSY * LANES + lane] = min(state[tail + BUSY * LANES + lane], g.spikes[at.b, j, 0])
    return held


@inlined
def step(g, at, row, drives, here, there):
    """Let the time of a row pass for all lanes, from the rows ``here`` to ``there``, without spikes.

    Returns bounds: of the membrane without the varying part of the threshold, of the components' part of dV/dt, and
    of their part of the threshold.
    """
    state, kinds = g.state[at.slot], g.kinds
    v = load32(state, here)
    moved = v * part_of(row, LEFT)
    after, none = moved, fill32(state, 0.0)
    push, lift, fed = none, none, none
    for k in range(kinds.size):
        place, kind = FIRST + k * PER, kinds[k]
        y = load32(state, here + (1 + k) * LANES)
        own = part_of(row, place + OWN)
        kept = y * own
        store(state, there + (1 + k) * LANES, kept + fed)
        after = fma(y, part_of(row, place + MOVES), after)
        if kind == SYNAPSE:
            push = fma(max(y, kept), part_of(drives, k), push)
            fed = none
        elif kind == RISE:
            fed = y * part_of(row, place + FEEDS)
            push = push + max(y, 0.0) * (1.0 - own) * part_of(drives, k + 1)
        elif kind == THRESHOLD:
            lift = lift - min(y, kept)
        elif kind == CURRENT:
            push = fma(min(y, kept), part_of(drives, k), push)
        else:
            push = fma(y, part_of(drives, k), push)
    store(state, there, after)
    # as far as rounding goes, V is between its start and where it would come to rest
    return max(v, fma(push, part_of(row, HOW_LONG), moved)) + lift + abs(v) * (32 * g.tiny[0]), push, lift


@inlined
def advance(g, at, row, drives, here, there, now, stop, brief, held, stuck, active):
    """Take all lanes through an interval. Returns which are held then, which are stuck, and which still may spike.

    ``brief`` intervals are those in which lanes may spike at once.
    """
    bound, push, low = step(g, at, row, drives, here, there)
    return events(g, at, bound, push, low, drives, here, there, now, stop, brief, held, stuck, active)


@jit
def events(g, at, bound, push, low, drives, here, there, now, stop, brief, held, stuck, active):
    """The events of lanes in the interval of a ``step``."""
    state, tail = g.state[at.slot], constants_of(g)
    waits, alone, some = (stop > now) & active, np.uint64(0), np.uint64(0)
    if g.observes == 0:
        some = (bound >= load32(state, tail + LIMIT * LANES)) & waits & ~held
    if held or g.observes != 0:
        busy = load32(state, tail + BUSY * LANES)
        if held and g.resets != 0:
            store(state, there, select(held, load32(state, here), load32(state, there)))
        alone = (stop >= busy) & (busy < math.inf) & waits & ~stuck
        some &= ~alone
    if some and brief and g.once != 0:  # those that are above the threshold at the end are looked at together, later
        sure = (load32(state, there) >= load32(state, tail + THETA * LANES)) & some
        if sure:
            keep_lanes(g, at, sure, here, now, stop)
            active &= ~sure
            some &= ~sure
    if some and brief:
        holds, full, rest = fire_lanes(g, at, drives, some, here, there, now, stop, push, low)
        held, stuck, alone = held | holds, stuck | full, alone | rest
        if g.once != 0:
            active &= ~spent_lanes(g, at, some & ~rest)
    else:
        alone |= some
    if alone:
        store(state, tail + NOW * LANES, now)
        store(state, tail + STOP * LANES, stop)
    while alone:
        lane = lowest_bit(alone)
        bit = np.uint64(1) << np.uint64(lane)
        alone &= ~bit
        begin, end = np.float64(state[tail + NOW * LANES + lane]), np.float64(state[tail + STOP * LANES + lane])
        holds, full = go_alone(g, at, lane, here, there, begin, end, (held & bit) != 0)
        held = held | bit if holds else held & ~bit
        if full:
            stuck |= bit
        if g.once != 0 and g.counts[at.slot, lane] >= g.most:
            active &= ~bit
    return held, stuck, active


@jit
def finish_kept(g, at, drives, there):
    """Find the spikes of the lanes that were kept."""
    state, kept, rows = g.state[at.slot], constants_of(g) + (JUMPS + g.kinds.size) * LANES, 1 + g.kinds.size
    lanes = np.uint64(g.counts[at.slot, LANES])
    if not lanes:
        return
    now, stop = load32(state, kept + rows * LANES), load32(state, kept + (rows + 1) * LANES)
    none = fill32(state, 0.0)
    _, _, alone = fire_lanes(g, at, drives, lanes, kept, there, now, stop, none, fill32(state, -math.inf))
    while alone:
        lane = lowest_bit(alone)
        alone &= alone - np.uint64(1)
        place = kept + rows * LANES + lane
        go_alone(g, at, lane, kept, there, np.float64(state[place]), np.float64(state[place + LANES]), False)


@jit
def pass_long(g, at, row, drives, here, there, start, wait, now, stop, fastest, held, stuck, active):
    """Take all lanes through a long interval in brief pieces, or without an end until no lane can spike any more.

    Returns the rows of the state then, those of the other state, and bits as ``advance``.
    """
    state, piece, for_ever = g.state[at.slot], g.piece[at.slot], wait == math.inf
    pieces = _PIECES if for_ever else math.ceil(fastest * wait / LONGEST)
    length = LONGEST / fastest if for_ever else wait / pieces
    fill_row(piece, 1, length, g.kinds, g.leak[at.e, 0], g.rates[at.e, 0])
    for number in range(1, pieces + 1):
        if for_ever:
            bound = step(g, at, row, drives, here, there)[0]
            may_spike = (bound >= load32(state, constants_of(g) + LIMIT * LANES)) & active & ~stuck
            if not may_spike | (held & ~stuck) or number == pieces:
                held, stuck, active = advance(g, at, row, drives, here, there, now, stop, False, held, stuck, active)
                return there, here, held, stuck, active
        following = fill32(state, start + length * number) if number < pieces else stop
        held, stuck, active = advance(g, at, piece, drives, here, there, now, following, True, held, stuck, active)
        here, there, now = there, here, following
    return here, there, held, stuck, active


@jit
def scan(g, at, keys, rows, drives, weights, source, n):
    """Fill in the spikes of a group, their slopes, those at releases, and the states at the end.

    ``keys`` are the times of the n inputs that arrive, then ``inf``. With an order that all lanes share, ``weights``
    has those of each input, and ``source`` tells the input. Without (None) both are in the order of each lane. Where
    lanes share them, long intervals are cut into brief ones.
    """
    state, rows_each = g.state[at.slot], (1 + g.kinds.size) * LANES
    here, there = 0, rows_each
    held, stuck, active = start_lanes(g, at), np.uint64(0), at.every
    end, fastest, may = g.bounds[1], fastest_rate(g, at, source is None), g.resets != 0 and g.observes == 0
    simple = source is not None and g.observes == 0 and g.count <= 2
    for k in range(g.count):
        simple &= g.kinds[k] != RISE and (g.kinds[k] != THRESHOLD or k == 1)
    i = -2 if g.bounds[0] > -math.inf else -1
    while i + 1 < n:
        i += 1
        if active & ~stuck == 0 and end == math.inf:
            break
        if i >= 0 and simple and not held:
            if source is not None:  # which is known when this is compiled
                i, active = run_quiet(g, at, i, n, keys, rows, drives, weights, source, here, active, LONGEST / fastest)
        elif i >= 0:
            add_input(g, at, i, here, weights, source)
        wait = longest_wait(g, at, keys, source, i)
        if source is not None and wait == 0:
            continue
        now = arrival_at(keys, source, i) if i >= 0 else fill32(state, g.bounds[0])
        stop = min(arrival_at(keys, source, i + 1), fill32(state, end))
        if g.taped > 0:
            for place in range(0, rows_each, LANES):
                store(g.tape[at.slot, i + 1], place, load32(state, here + place))
        brief = may and fastest * wait <= LONGEST
        if source is not None and may and not brief and (wait == math.inf or fastest * wait < LONGEST * _PIECES):
            start = np.float64(keys[i] if i >= 0 else g.bounds[0])
            here, there, held, stuck, active = pass_long(
                g, at, rows[i + 1], drives, here, there, start, wait, now, stop, fastest, held, stuck, active
            )
        else:
            held, stuck, active = advance(
                g, at, rows[i + 1], drives, here, there, now, stop, brief, held, stuck, active
            )
            here, there = there, here
    if g.once != 0:
        finish_kept(g, at, drives, there)
    if g.taped == 0:
        end_lanes(g, at, here, stuck)


@jit
def fastest_rate(g, at, own):
    """The fastest rate of a group's neurons."""
    found = 0.0
    for j in range(at.first if own else 0, at.first + size_of(g, at) if own else 1):
        found = max(found, g.leak[at.e, j])
        for k in range(g.kinds.size):
            found = max(found, g.rates[at.e, j, k])
    return found


@inlined
def longest_wait(g, at, keys, source, i):
    """The longest wait for the next input in the lanes of a group."""
    if source is not None:
        return max(np.float64(min(keys[i + 1], g.bounds[1])) - np.float64(keys[i] if i >= 0 else g.bounds[0]), 0.0)
    now = load32(keys, i * LANES) if i >= 0 else fill32(g.tiny, g.bounds[0])
    stop = min(load32(keys, (i + 1) * LANES), fill32(g.tiny, g.bounds[1]))
    return np.float64(highest(select((stop > now) & at.every, stop - now, 0.0)))


@jit
def end_lanes(g, at, here, stuck):
    """Write the states at the end, and who would spike more often."""
    state, end = g.state[at.slot], np.float64(g.bounds[1])
    for lane in range(size_of(g, at)):
        j, full = at.first + lane, (stuck >> np.uint64(lane)) & np.uint64(1) != 0
        g.overflows[at.b, j] = full
        if g.ends != 0:
            g.end_voltage[at.b, j] = state[here + lane]
            for k in range(g.kinds.size - g.biased):
                g.end_current[at.b, j, k] = state[here + (1 + k) * LANES + lane]
            g.end_left[at.b, j] = 0.0 if full else max(g.free[at.slot, lane] - end, 0.0)
