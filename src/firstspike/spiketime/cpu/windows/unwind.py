"""The way back through one window, for all neurons of a sample: gradients of their spikes follow from later windows."""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes.adjoint import (
    EACH,
    PARTS,
    Q_KEPT,
    Y_KEPT,
    Q,
    Y,
    add_event,
    add_input,
    add_sums,
    into_of,
)
from firstspike.spiketime.cpu.lanes.back import OWED, OWED_KEPT, goes_on, leave, start_back
from firstspike.spiketime.cpu.lanes.flow import add_taus, back, back_at, constants, piece_at, save
from firstspike.spiketime.cpu.lanes.state import unit_of
from firstspike.spiketime.cpu.lanes.unwind import fill_pieces, walk_back
from firstspike.spiketime.cpu.lanes.windows import BLOCK, arrivals, due_at, is_stuck
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, prefetch32, select, store

AHEAD = 4  # events whose numbers are on their way to the processor
SIZE, BEGINS = 0, 1  # of the pieces of a block of windows; where those of each window begin
N_BLOCK = 1 + BLOCK


@jit
def enter(g, at):
    """The adjoint at the end of a window, where lanes that had no room for their spikes were at the reset."""
    if at.window.number == g.windows - 1:
        start_back(g, at)
    elif g.full[at.b, at.window.number, at.first // LANES] != 0 and g.resets != 0:
        for lane in range(LANES):
            if is_stuck(g, at, lane):
                goes_on(g, at, lane)


@jit
def leave_window(g, at, c, x):
    """Keep the adjoint at the start of a window; at the start of the sample, write the gradients of the state.

    What the bound drops, it drops for the weights of the window's events.
    """
    if at.window.number == 0:
        leave(g, at, c, x)
        return
    rows, others = g.state[at.kept], PARTS + g.count * EACH
    save(g, at, back(g, at, c, x, fill32(g.state, at.begin), False, False, g.by_taus != 0), rows, 0)
    store(rows, Y_KEPT, load32(rows, Y))
    store(rows, others + OWED_KEPT, load32(rows, others + OWED))
    for k in range(g.count):
        store(rows, PARTS + k * EACH + Q_KEPT, load32(rows, PARTS + k * EACH + Q))


@jit
def unwind_together(g, at):
    """Add the gradients of 32 neurons with the same order of arrival."""
    enter(g, at)
    window = at.window
    leave_window(g, at, constants(g, at), walk_back(g, at, window.times, window.sources, window.n))


@jit
def unwind_apart(g, at):
    """Add the gradients of neurons with delays, whose events may come in any order, from pieces.

    Those of a block of windows are kept, and an event's gradients found where it first arrives at a lane, or in the
    first window of the block if that is later.
    """
    block, w, c = g.blocks_of[at.kept], at.window.number, constants(g, at)
    stop = min(w // BLOCK * BLOCK + BLOCK, g.windows)  # where the block ends
    size = np.intp(block[SIZE]) if w < stop - 1 else 0
    enter(g, at)
    block[BEGINS + w % BLOCK] = size
    x, size = fill_pieces(g, at, c, size)
    block[SIZE] = size
    window = due_at(g, at, at.window, g.bounds_of[stop], w % BLOCK == 0)
    if g.bounded != 0 or g.by_taus != 0:
        settle(g, at, c, window, stop, size, g.bounded != 0, g.by_taus != 0)
    else:
        settle(g, at, c, window, stop, size, False, False)
    leave_window(g, at, c, x)


@inlined
def fetch_ahead(window, k, first, second):
    """Have the processor read what two arrays have for a later event."""
    place = np.uintp(window.sources[np.uintp(min(k, window.n))]) * np.uintp(LANES)
    prefetch32(first, place)
    prefetch32(second, place)


@inlined
def settle(g, at, c, window, stop, size, bounds, taus):
    """Add the gradients of events, from the pieces of a window and of the next ones before ``stop``.

    The flags are constants where neither is true, which leaves less to carry.
    """
    into, sums, delay, events = into_of(g, at), g.sums[at.slot], g.delays[at.group], g.columns[at.slot]
    block, latest, unit, number = g.blocks_of[at.kept], g.latest[at.group], unit_of(g, at), 0
    for event in range(window.n):
        i = np.intp(window.sources[np.uintp(event)])
        fetch_ahead(window, event + 2 * AHEAD, delay, into.weight)
        fetch_ahead(window, event + AHEAD, into.by_weight, into.by_delay)
        arrival, inside = arrivals(g, at, window, event)
        last, v = latest[np.uintp(i)] + window.times[np.uintp(event)], window.number
        while v < stop - 1 and g.bounds_of[np.uintp(v + 1)] <= last:
            v += 1
        first = np.intp(block[np.uintp(BEGINS + v % BLOCK)])
        w = select(inside, load32(into.weight, i * LANES), 0.0)
        x, fed, rate = back_at(g, at, c, piece_at(g, at, first), first, size, arrival, inside, i, w, bounds, taus)
        if taus:
            add_taus(g, at, x, g.scratch_place, i, w)
        number = add_event(
            sums,
            events,
            into.by_times,
            number,
            window.events[np.uintp(event)],
            add_input(into, i, x, fed, rate * unit, w, inside, True),
        )
    add_sums(sums, events, into.by_times, number)
