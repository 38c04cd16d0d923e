"""Back through a sample: from input to input, or with delays from piece to piece."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, named_rates
from firstspike.spiketime.cpu.lanes.adjoint import (
    DUE,
    EACH,
    NOW,
    PARTS,
    add_event,
    add_input,
    add_sums,
    event_at,
    into_of,
)
from firstspike.spiketime.cpu.lanes.back import back_over, leave, start_back, start_once
from firstspike.spiketime.cpu.lanes.first import settle_first, walk_first
from firstspike.spiketime.cpu.lanes.flow import (
    add_taus,
    back,
    back_at,
    constants,
    now_of,
    pass_back,
    piece_at,
    reached,
    reload,
    save,
)
from firstspike.spiketime.cpu.lanes.shared import back_quiet, join_first
from firstspike.spiketime.cpu.lanes.state import unit_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, highest, load32, select, store


@jit
def unwind_once(g, at, keys, values, source, n):
    """Add the gradients of the first spikes of 32 neurons with the same order of arrival."""
    if not start_once(g, at):
        return
    if g.quick == 0 or g.bounded != 0 or g.by_taus != 0 or g.biased != 0:
        leave(g, at, constants(g, at), walk_back(g, at, keys, source, n))
        return
    top, since = join_first(g, at, keys, n)
    if top >= 0:
        c = constants(g, at)
        back(g, at, c, reload(g, at), since, False, False, False)
        back_quiet(g, at, c, top, -math.inf, keys, source, True, g.count > 1)


@jit
def unwind_first(g, at, keys, values, source, n):
    """``unwind_once`` of closed neurons."""
    if start_once(g, at):
        walk_first(g, at, keys, source, n)


@jit
def unwind_trains(g, at, keys, values, source, n):
    """Add the gradients of 32 neurons with the same order of arrival."""
    start_back(g, at)
    leave(g, at, constants(g, at), walk_back(g, at, keys, source, n))


@jit
def walk_back(g, at, keys, source, n):
    """From input to input, and between two of them from event to event. Returns the adjoint at the start."""
    rows, first, into = g.state[at.kept], g.rates[at.group, 0], into_of(g, at)
    bounds, taus = g.bounded != 0, g.by_taus != 0
    c, x, begin, unit, every = constants(g, at), reload(g, at), at.begin, named_rates(first)[0].unit, at.every
    since, number = load32(rows, NOW), 0
    latest, due, k = highest(since), highest(load32(rows, DUE)), n
    sums, events = g.sums[at.slot], g.columns[at.slot]
    while k > -1:
        k -= 1
        arrival = keys[k] if k >= 0 else begin
        if not latest >= arrival:
            continue
        if k < 0 and begin == -math.inf and not due > arrival:
            break  # spikes before the first input are observed ones
        is_brief = (min(keys[k + 1], at.end) - arrival) * unit < named_rates(first)[0].brief_end
        while due > arrival:
            before = load32(rows, DUE)
            hits = before > arrival
            x = back(g, at, c, x, select(hits, before, now_of(g, at, x)), is_brief, bounds, taus)
            x = back_over(g, at, x, hits)
            due = highest(load32(rows, DUE))
        x = back(g, at, c, x, fill32(rows, arrival), is_brief, bounds, taus)
        if k < 0:
            break
        if g.quick != 0 and not (bounds or taus):
            k = 1 + pass_back(g, at, c, k, due, keys, source)
            continue
        i = np.intp(source[k])
        w = select(since > arrival, load32(into.weight, i * LANES), 0.0)
        if taus:
            add_taus(g, at, x, 0, i, w)
        part, fed, rate = reached(g, at, c, x, i, w)
        row = add_input(into, i, part, fed, rate * unit, w, every, False)
        number = add_event(sums, events, into.by_times, number, event_at(g, at, k), row)
    add_sums(sums, events, into.by_times, number)
    return x


@inlined
def settle(g, at, c, size, bounds, taus):
    """Add the gradients of all inputs, from the pieces. The flags are constants where neither is true."""
    into, sums, delay, events = into_of(g, at), g.sums[at.slot], g.delays[at.group], g.columns[at.slot]
    begin, end, unit, scratch = g.bounds[0], g.bounds[1], unit_of(g, at), g.scratch_place
    since, last = load32(g.pieces[at.kept], NOW), piece_at(g, at, 0)
    number = i = copy = 0
    for event in range(g.events):
        time = g.times[at.b, np.uintp(event)]
        if time < end:
            place = np.uintp(i) * np.uintp(LANES)
            arrival = load32(delay, place) + time
            inside = (arrival >= begin) & (end > arrival) & (since > arrival) & at.every
            if inside:
                w = select(inside, load32(into.weight, place), 0.0)
                x, fed, rate = back_at(g, at, c, last, 0, size, arrival, inside, i, w, bounds, taus)
                if taus:
                    add_taus(g, at, x, scratch, i, w)
                number = add_event(
                    sums, events, into.by_times, number, event, add_input(into, i, x, fed, rate * unit, w, inside, True)
                )
        copy += 1
        if copy == g.copies:
            i, copy = i + 1, 0
    add_sums(sums, events, into.by_times, number)


@jit
def unwind_once_apart(g, at, keys, values, source, n):
    """Add the gradients of the first spikes of 32 neurons with delays, whose inputs may come in any order."""
    if start_once(g, at):
        save(g, at, reload(g, at), g.pieces[at.kept], 0)
        settle_all(g, at, constants(g, at), PARTS + g.count * EACH)
        leave(g, at, constants(g, at), reload(g, at))


@jit
def unwind_first_apart(g, at, keys, values, source, n):
    """``unwind_once_apart`` of closed neurons."""
    if start_once(g, at):
        settle_first(g, at)


@jit
def settle_all(g, at, c, size):
    """``settle`` without what is not asked for."""
    if g.bounded != 0 or g.by_taus != 0:
        settle(g, at, c, size, g.bounded != 0, g.by_taus != 0)
    else:
        settle(g, at, c, size, False, False)


@jit
def fill_pieces(g, at, c, size):
    """Fill in pieces back to the begin. Returns the adjoint after that, and where they end.

    A piece lies between two of a lane's spikes or releases, where it follows from exponentials.
    """
    rows, pieces, each = g.state[at.kept], g.pieces[at.kept], PARTS + g.count * EACH
    begin, bounds, taus, x = at.begin, g.bounded != 0, g.by_taus != 0, reload(g, at)
    while True:
        before = load32(rows, DUE)
        hits = before > begin
        save(g, at, x, pieces, size)
        store(pieces, size + DUE, select(hits, before, -math.inf if hits else begin))
        size += each
        if not hits:
            return x, size
        x = back(g, at, c, x, select(hits, before, now_of(g, at, x)), False, bounds, taus)
        x = back_over(g, at, x, hits)


@jit
def unwind_trains_apart(g, at, keys, values, source, n):
    """Unwind neurons with delays, whose inputs may come in any order: the adjoint at each is found from pieces."""
    c = constants(g, at)
    start_back(g, at)
    x, size = fill_pieces(g, at, c, 0)
    settle_all(g, at, c, size)
    leave(g, at, c, x)
