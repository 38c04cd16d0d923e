"""From input to input: 32 neurons of one sample take the same steps, each over its own time.

Between two inputs of trains they go as often as any of them spikes, or is released from its refractory time.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, named_rates, saved_of
from firstspike.spiketime.cpu.lanes.flow import (
    above,
    at_rest,
    constants,
    decide,
    held,
    jumped,
    leap,
    loaded,
    merge,
    pass_quiet,
    receive,
    slope_of,
    solve,
    step,
    step_after,
    stored,
    to_spike,
    up_of,
)
from firstspike.spiketime.cpu.lanes.notes import note_releases, note_spikes, spent
from firstspike.spiketime.cpu.lanes.state import (
    BUFFERS,
    DUE,
    FIXED,
    FORCED,
    HOLD,
    KEPT,
    NOW,
    RELEASE,
    RESET,
    SLOPE,
    THRESHOLD,
    TIME,
    UP,
    end_rows,
    longest_wait,
    start_rows,
    unit_of,
)
from firstspike.spiketime.cpu.membrane import ENOUGH
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, next_up, select, store, store_some


@inlined
def arrival_at(keys, source, k):
    """When input ``k`` arrives at each lane, see ``lists``."""
    return load32(keys, k * LANES) if source is None else fill32(keys, keys[k])


@inlined
def take(g, at, x, keys, values, source, k):
    """The state after input ``k``."""
    if source is None:
        for receptor in range(g.planes):
            x = receive(g, at, x, receptor, load32(values, (receptor * g.sorted + k) * LANES))
        return x
    i = np.intp(source[k])
    return receive(g, at, x, g.receptor[at.e, i] if g.planes > 1 else 0, load32(values, i * LANES))


@jit
def walk_once(g, at, keys, values, source, n):
    """Fill in the first spikes of the 32 neurons of a group, and the slopes of their membranes there."""
    c, first = constants(g, at), g.rates[at.group, 0]
    x, kept, unit, longest = at_rest(g, at, NOW), at_rest(g, at, KEPT), named_rates(first)[0].unit, longest_wait(first)
    never = fill32(first, math.inf)
    limit, active, fired, sure, is_brief = never, at.every, np.uint64(0), np.uint64(0), False
    begins = g.bounds[0] > -math.inf
    now = since = until = fill32(first, g.bounds[0]) if begins else arrival_at(keys, source, 0)
    k = -2 if begins else -1
    while k + 1 < n:
        k += 1
        if k >= 0 and source is not None:
            k, x = pass_quiet(g, at, c, x, k, n, keys, values, source, active)
            now = fill32(first, keys[k])
        elif k >= 0:
            x = take(g, at, x, keys, values, source, k)
        if source is None:
            following = load32(keys, (k + 1) * LANES)
            wait, later = (following - now) * unit, (following > now) & active
            after, height, _ = step(g, at, c, x, min(wait, longest), is_brief)
        else:
            start, stop = keys[k] if k >= 0 else g.bounds[0], keys[k + 1]
            if not stop > start:
                continue  # the next input arrives at the same time
            duration, following, later = (stop - start) * unit, fill32(first, stop), active
            wait, is_brief = fill32(first, duration), duration < named_rates(first)[0].brief_end
            after, height, _ = step_after(g, at, c, x, k, min(wait, longest), is_brief)
        candidates = (height >= ENOUGH) & later
        if candidates:
            fires, perhaps, latest = decide(g, at, c, x, after, wait, candidates)
            sure |= fires
            if perhaps:  # is known only when they are solved, those in an interval without an end with all others
                finite = perhaps & (never > wait)
                if finite:
                    perhaps &= ~finite | solve(g, at, c, x, wait, finite)[0]
                fires |= perhaps
            if fires:
                kept, limit = merge(g, at, fires, x, kept), select(fires, latest, limit)
                since, until = select(fires, now, since), select(fires, following, until)
                fired |= fires
                active &= ~fires
        if source is None:
            active &= following < math.inf
        if not active:
            break
        x, now = after, following
    spike, slope = never, fill32(first, 0.0)
    if fired:
        limit = min(limit, (until - since) * unit)
        found, s, _ = solve(g, at, c, kept, limit, fired)
        fired &= found | sure
        spike = since + select(found, s, limit) * (1 / unit)
        # where the floats are coarse: after the inputs that cause it
        spike = min(select(spike > since, spike, next_up(since)), until)
        slope = slope_of(g, at, c, to_spike(g, at, c, kept, (spike - since) * unit, False)) * unit
        slope = select(fired, slope, 0.0)
    store_some(at.every, g.spikes.reshape(g.spikes.size), at.b * g.outputs + at.first, select(fired, spike, never))
    store_some(at.every, saved_of(g, at.b).slope, at.first, slope)


@jit
def excitable(g, at):
    """Lanes whose membranes may be higher after a spike than without it: for what is not reset, and for some jumps."""
    if g.resets == 0:
        return at.every
    found = np.uint64(0)
    for k in range(g.count if g.jumping > 0 else 0):
        jump = load32(g.jump_rows[at.group], k * LANES)
        found |= (jump < 0.0) if g.kinds[k] == THRESHOLD else (jump > 0.0)
    return found


@jit
def spike_once(g, at, c, x, after, candidates, rise, now, following, wait, apart):
    """Let candidates spike that surely do so once before ``after``. Returns those that may do more, and ``after``."""
    rows, unit = g.state[at.kept], unit_of(g, at)
    left = above(g, at, x) & candidates
    sure, perhaps, latest = decide(g, at, c, x, after, wait, candidates & ~left)
    if not sure | perhaps:
        return left, after
    fires, s, slope = solve(g, at, c, x, latest, sure | perhaps)
    spike = now + s * (1 / unit)
    spike = min(select(spike > now, spike, next_up(now)), following)
    free = spike + load32(rows, HOLD)
    holds, again = free > spike, max(load32(rows, RESET), 0.0) + rise >= ENOUGH
    left |= (sure & ~fires) | (fires & (apart | (again & ~holds) | (holds & (following >= free))))
    left |= spent(g, at, fires)
    fires &= ~left
    if fires:
        store(rows, TIME, spike)
        store(rows, SLOPE, select(slope > 0.0, slope * unit, FIXED))
        after = leap(g, at, c, x, after, (spike - now) * unit, wait, slope, fires, holds)
        store(rows, UP, load32(rows, UP) * unit)
        note_spikes(g, at, fires, False)
    return left, after


@jit
def walk_trains(g, at, keys, values, source, n):
    """Fill in all that is asked for of the 32 neurons of a group."""
    start_rows(g, at, g.observes != 0)
    end_rows(g, at, *walk(g, at, keys, values, source, n))


@jit
def walk(g, at, keys, values, source, n):
    """Fill in the spikes of the 32 neurons of a group, and their slopes there and at releases.

    Observed spikes are passed through. Entry k of ``ups`` is dV/dt after k spikes, where membranes go on. Returns the
    buffer of the states at the end, and lanes that had no room for their spikes.
    """
    rows, first, every, apart = g.state[at.kept], g.rates[at.group, 0], at.every, excitable(g, at)
    holds, observes, begin, end = g.holds != 0, g.observes != 0, at.begin, at.end
    c, x, unit, longest = constants(g, at), loaded(g, at, NOW), named_rates(first)[0].unit, longest_wait(first)
    never, last, stuck, now = fill32(first, math.inf), fill32(first, end), np.uint64(0), fill32(first, begin)
    if begin == -math.inf:
        now = min(min(arrival_at(keys, source, 0), last), load32(rows, DUE))
    is_brief, k = False, -2
    while k + 1 < n:
        k += 1
        if (
            source is not None
            and k >= 0
            and not (observes or stuck)
            and not (holds and (load32(rows, RELEASE) > now) & every)
        ):
            k, x = pass_quiet(g, at, c, x, k, n, keys, values, source, every)
            now = fill32(first, min(keys[k], end))
        elif k >= 0:
            x = take(g, at, x, keys, values, source, k)
        following = min(arrival_at(keys, source, k + 1), last)
        if source is None:
            is_brief = not any_reaches((following - now) * unit, named_rates(first)[0].brief_end)
        else:
            until = min(keys[k + 1], end)
            is_brief = (until - (keys[k] if k >= 0 else begin)) * unit < named_rates(first)[0].brief_end
        pending = every & (following > now)
        if not observes:
            wait = min((following - now) * unit, longest)
            if source is None:
                after, height, rise = step(g, at, c, x, wait, is_brief)
            else:
                after, height, rise = step_after(g, at, c, x, k, wait, is_brief)
            if holds or stuck:
                release, rests = load32(rows, RELEASE), stuck
                if holds:
                    rests |= (release > now) & every
                if rests:
                    after = held(g, at, after, rests)
                pending = rests & ~stuck & (following >= release)
                candidates = (height >= ENOUGH) & every & ~rests
            else:
                pending = candidates = np.uint64(0)
                if any_reaches(height, ENOUGH):  # masks as numbers would cost more than this
                    candidates = (height >= ENOUGH) & every
            candidates &= following > now
            if candidates:
                left, after = spike_once(g, at, c, x, after, candidates, rise, now, following, wait, apart)
                pending |= left
            if not pending:  # most often
                x, now = after, following
                continue
            x, now = merge(g, at, ~pending, after, x), select(pending, now, following)
        x, now, stuck = events_between(g, at, c, x, now, following, pending, stuck, is_brief)
    store(rows, RELEASE, select(stuck, never * -1.0, load32(rows, RELEASE)))
    return BUFFERS + stored(g, at, x) * (1 + g.count) * LANES, stuck


@jit
def events_between(g, at, c, x, now, following, pending, stuck, is_brief):
    """Take lanes to the next input, from event to event. Returns their state, where they are, and which are stuck.

    These have no room for their spikes, and are held for ever.
    """
    rows, first, holds, observes = g.state[at.kept], g.rates[at.group, 0], g.holds != 0, g.observes != 0
    unit, longest, never, every = named_rates(first)[0].unit, longest_wait(first), fill32(first, math.inf), at.every
    release, due = load32(rows, RELEASE), load32(rows, DUE)
    if observes:
        pending |= (following >= due) & (never > due) & every
    while pending:
        stop, rests, waiting = following, stuck, np.uint64(0)
        if holds:
            waiting = release > now
            rests |= waiting
            stop = select(waiting, min(stop, release), stop)
        if observes:
            stop = min(stop, due)
        wait = min((stop - now) * unit, longest)
        after, height, _ = step(g, at, c, x, wait, is_brief)
        fires, forced, spike = np.uint64(0), np.uint64(0), stop
        if observes:
            fires = (stop >= due) & (never > due) & pending & ~(waiting & (stop >= release))
        else:
            candidates = (height >= ENOUGH) & pending & ~rests
            at_once = above(g, at, x) & candidates
            forced = at_once & (now == release)
            sure, perhaps, latest = decide(g, at, c, x, after, wait, candidates & ~at_once)
            s = wait * 0.0
            if sure | perhaps:
                found, s, _ = solve(g, at, c, x, latest, sure | perhaps)
                fires, s = sure | found, select(found, s, select(sure, latest, s))
            fires |= at_once
            spike = now + select(at_once, 0.0, s) * (1 / unit)
            spike = min(select(spike > now, spike, next_up(now)), stop)
            spike = select(fires, select(forced, now, spike), stop)
            if fires:
                after = merge(g, at, fires, to_spike(g, at, c, x, (spike - now) * unit, is_brief), after)
        after = held(g, at, after, rests)
        if holds:
            freed = waiting & ~stuck & pending & ~fires & (stop >= release)
            if freed:
                store(rows, UP, up_of(g, at, c, held(g, at, after, freed)) * unit)
                note_releases(g, at, freed)
        if fires:
            if observes:
                forced = above(g, at, after) & fires & (spike == release) & ~rests
            slope = slope_of(g, at, c, after) * unit
            slope = select((slope > 0.0) & ~rests, slope, FIXED)
            store(rows, TIME, spike)
            store(rows, SLOPE, select(forced, FORCED, slope))
            full = spent(g, at, fires)
            after = jumped(g, at, held(g, at, after, fires), fires & ~full)
            store(rows, UP, up_of(g, at, c, after) * unit)
            note_spikes(g, at, fires & ~full, observes)
            stuck |= full
            release, due = load32(rows, RELEASE), load32(rows, DUE)
        x = merge(g, at, pending, after, x)
        now = select(pending, spike, now)
        pending &= following > now
        if observes:
            pending |= (following >= due) & (never > due) & every
        elif holds:
            pending |= (now == release) & above(g, at, x) & ~stuck & every
    return x, now, stuck
