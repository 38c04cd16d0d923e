"""Neurons with up to two components, from input to input as long as nothing happens: their state stays in registers."""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, LANES, fetch_row
from firstspike.spiketime.cpu.linear.alone_adjoint import OTHERS, WEIGHTS
from firstspike.spiketime.cpu.linear.flow import CURRENT, FIRST, HOW_LONG, LEFT, MOVES, OWN, PER, THRESHOLD
from firstspike.spiketime.cpu.linear.lanes import JUMPS, LIMIT, THETA, constants_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.shuffles import SHORT, fold_short, sum_short16
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load16, load32, select, store

# the second component: none, that of a receptor or of negative weights, or one that is not for inputs
_NONE, _RECEPTOR, _SIGNED, _CURRENT, _THRESHOLD = range(5)


@jit
def keep_lanes(g, at, lanes, here, now, stop):
    """Keep states of lanes that surely spike in an interval."""
    state, kept, rows = g.state[at.slot], constants_of(g) + (JUMPS + g.kinds.size) * LANES, 1 + g.kinds.size
    for place in range(0, rows * LANES, LANES):
        store(state, kept + place, select(lanes, load32(state, here + place), load32(state, kept + place)))
    place = kept + rows * LANES
    store(state, place, select(lanes, now, load32(state, place)))
    store(state, place + LANES, select(lanes, stop, load32(state, place + LANES)))
    g.counts[at.slot, LANES] |= np.int64(lanes)


@inlined
def run(g, at, i, n, keys, rows, drives, weights, source, base, active, brief, second):
    """``run_quiet`` with the kind of the ``second`` component."""
    state, tail, none, reached = g.state[at.slot], constants_of(g), fill32(g.tiny, 0.0), g.reached[at.e]
    v, y, z = load32(state, base), load32(state, base + LANES), load32(state, base + g.count * LANES)
    limit, theta = load32(state, tail + LIMIT * LANES), load32(state, tail + THETA * LANES)
    drive, other, end, once = drives[0], drives[g.count - 1], g.bounds[1], g.once != 0
    while True:
        k = np.uintp(i)  # without a sign, an index needs no test for one below 0
        j = np.uintp(source[k])
        fetch_row(weights, source, min(i + AHEAD, n - 1))
        w = load32(weights, np.intp(j) * LANES)
        if second == _SIGNED:
            positive = max(w, 0.0)
            y, z = y + positive, z + (w - positive)
        elif second == _RECEPTOR:
            y, z = fma(w, reached[j], y), fma(w, 1 - reached[j], z)
        else:
            y = y + w
        if i + 1 == n:
            break
        now, stop = keys[k], min(keys[k + np.uintp(1)], end)
        if stop > now:
            row = rows[k + np.uintp(1)]
            moved, rest, left, long = y * row[FIRST + OWN], none, row[LEFT], row[HOW_LONG]
            gain, push = y * row[FIRST + MOVES], max(y, moved) * (drive * long)
            if second != _NONE:
                rest = z * row[FIRST + PER + OWN]
            if second in (_RECEPTOR, _SIGNED, _CURRENT):
                most = min(z, rest) if second == _CURRENT else max(z, rest)
                gain, push = fma(z, row[FIRST + PER + MOVES], gain), fma(most, other * long, push)
            # what V waits for comes last
            following, bound = fma(v, left, gain), max(v, fma(v, left, push))
            if second == _THRESHOLD:
                bound = bound - min(z, rest)
            may = (bound >= limit) & active
            if may:
                sure = (following >= theta) & may
                if not once or sure != may or stop - now > brief:
                    break
                store(state, base, v)
                store(state, base + LANES, y)
                if second != _NONE:
                    store(state, base + 2 * LANES, z)
                keep_lanes(g, at, may, base, fill32(g.tiny, now), fill32(g.tiny, stop))
                active &= ~may
                if not active:
                    break
            v, y, z = following, moved, rest
        i += 1
    store(state, base, v)
    store(state, base + LANES, y)
    if second != _NONE:
        store(state, base + 2 * LANES, z)
    return i, active


@jit
def run_quiet(g, at, i, n, keys, rows, drives, weights, source, base, active, brief):
    """Take inputs from ``i`` on, as long as no lane may spike.

    First spikes that are sure, in an interval that is ``brief``, are kept for later. Returns the input after which a
    lane may spike, or the last one, which has been added to the state, and which lanes are active.
    """
    given = i, n, keys, rows, drives, weights, source, base, active, brief
    if g.count == 1:
        return run(g, at, *given, _NONE)
    if g.kinds[1] == CURRENT:
        return run(g, at, *given, _CURRENT)
    if g.kinds[1] == THRESHOLD:
        return run(g, at, *given, _THRESHOLD)
    if g.signed != 0:
        return run(g, at, *given, _SIGNED)
    return run(g, at, *given, _RECEPTOR)


@inlined
def add_times(g, at, i, x):
    """Add an input's time gradient, of each lane, to those of up to 16 inputs, and these to the others."""
    sums, by_times = g.sums[at.slot], g.times_parts[at.part, at.b]
    store(sums, (i & 15) * SHORT, fold_short(x))
    if i & 15 == 0:
        store(by_times, i, load16(by_times, i) + sum_short16(sums, 0))


@inlined
def walk_back(g, at, i, since, joins, keys, rows, drives, weights, source, base, mode, two, signed):
    """``back_quiet`` of neurons with one component or ``two``."""
    adjoint, count, joining = g.adjoint[at.slot], g.kinds.size, joins.size > 0
    by_weight, reached, none = g.weight_parts[at.group, at.chunk], g.reached[at.e], fill32(g.tiny, 0.0)
    p, q, r = load32(adjoint, base), load32(adjoint, base + LANES), load32(adjoint, base + count * LANES)
    rates, others = fill32(g.tiny, drives[count]), fill32(g.tiny, drives[2 * count - 1])
    if joining:
        p, q, r = none, none, none
    weighs, times = mode != OTHERS, mode != WEIGHTS and g.by_time != 0
    while True:
        k = np.uintp(i)  # without a sign, an index needs no test for one below 0
        if joining:
            bits = joins[k]
            if bits:
                joins[k] = 0
                p, q = select(bits, load32(adjoint, base), p), select(bits, load32(adjoint, base + LANES), q)
                if two:
                    r = select(bits, load32(adjoint, base + 2 * LANES), r)
        j = np.uintp(source[k])
        place = np.intp(j) * LANES
        w, by, first = load32(weights, place), q, at.every
        if two:
            first = w > 0.0 if signed else fill32(g.tiny, reached[j]) > 0.0
            by = select(first, q, r)
        ahead = max(i - AHEAD, 0)
        fetch_row(weights, source, ahead)
        if weighs:
            fetch_row(by_weight, source, ahead)
            store(by_weight, place, load32(by_weight, place) + by)
        if times:
            add_times(g, at, i, (by - p) * w * select(first, rates, others))
        i -= 1
        if i < 0 or since > keys[np.uintp(i)]:
            break
        if keys[k] > keys[np.uintp(i)]:
            row = rows[k]
            q = fma(q, row[FIRST + OWN], p * row[FIRST + MOVES])
            if two:
                r = fma(r, row[FIRST + PER + OWN], p * row[FIRST + PER + MOVES])
            p = p * row[LEFT]
    if not joining:
        store(adjoint, base, p)
        store(adjoint, base + LANES, q)
        if two:
            store(adjoint, base + 2 * LANES, r)
    return i


@jit
def back_quiet(g, at, i, since, joins, keys, rows, drives, weights, source, base, mode):
    """Take P and Q in the rows from ``base`` on, of input ``i``, back to the first input from ``since`` on.

    Adds to the gradients, and returns the input before. Where there are bits of ``joins``, P and Q of these lanes are
    those of the rows. Before that they are 0.
    """
    given = i, since, joins, keys, rows, drives, weights, source, base, mode
    if g.kinds.size == 1:
        return walk_back(g, at, *given, False, False)
    if g.signed != 0:
        return walk_back(g, at, *given, True, True)
    return walk_back(g, at, *given, True, False)
