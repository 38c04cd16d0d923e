"""Neurons with up to two components, from input to input as long as nothing happens: their state stays in registers."""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.alone_adjoint import OTHERS, WEIGHTS
from firstspike.spiketime.cpu.linear.flow import FIRST, HOW_LONG, LEFT, MOVES, OWN, PER, THRESHOLD
from firstspike.spiketime.cpu.linear.lanes import JUMPS, THETA, constants_of, part_of
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.shuffles import fold16, sum_rows16
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load16, load32, select, store


@jit
def kept_rows(g):
    """Where the states of ``keep_lanes`` begin, and after them the ends of their intervals."""
    return constants_of(g) + (JUMPS + g.kinds.size) * LANES


@inlined
def keep_row(state, row, lanes, x):
    """Keep the numbers of these lanes."""
    store(state, row, select(lanes, x, load32(state, row)))


@jit
def keep_lanes(g, at, lanes, here, now, stop):
    """Keep states of lanes that surely spike in an interval."""
    state, kept, rows = g.state[at.slot], kept_rows(g), 1 + g.kinds.size
    for place in range(0, rows * LANES, LANES):
        keep_row(state, kept + place, lanes, load32(state, here + place))
    keep_row(state, kept + rows * LANES, lanes, now)
    keep_row(state, kept + (rows + 1) * LANES, lanes, stop)
    g.counts[at.slot, LANES] |= np.int64(lanes)


@jit
def run_quiet(g, at, i, n, keys, rows, drives, weights, source, base, limit, active, brief):
    """Take inputs from ``i`` on, as long as no lane may spike; first spikes that are sure, in an interval that is
    ``brief``, are kept for later.

    Returns the input after which a lane may spike, or n, which has been added to the state, and which lanes are active.
    """
    state, second, both, kept = g.state[at.slot], base + 2 * LANES, g.count == 2, kept_rows(g)
    falls, none = both and g.kinds[1] == THRESHOLD, fill32(g.tiny, 0.0)
    v, y, z = load32(state, base), load32(state, base + LANES), none
    theta, drive, other = load32(state, constants_of(g) + THETA * LANES), part_of(drives, 0), part_of(drives, 0)
    if both:
        z, other = load32(state, second), part_of(drives, 1)
    end, once = g.bounds[1], g.once != 0
    while True:
        k = np.uintp(i)  # without a sign, an index needs no test for one below 0
        j = np.uintp(source[k])
        w = load32(weights, np.intp(j) * LANES)
        if g.signed != 0:
            positive = max(w, 0.0)
            y, z = y + positive, z + (w - positive)
        elif g.places[np.uintp(g.receptor[at.e, j])] == 0:
            y = y + w
        else:
            z = z + w
        if i + 1 == n:
            break
        now, stop = keys[k], min(keys[k + np.uintp(1)], end)
        if stop > now:
            row = rows[k + np.uintp(1)]
            left, moved = v * row[LEFT], y * row[FIRST + OWN]
            a, b = y * drive, moved * drive
            following, push = fma(y, row[FIRST + MOVES], left), max(a, b)
            rest, lift = none, none
            if both:
                rest = z * row[FIRST + PER + OWN]
                following = fma(z, row[FIRST + PER + MOVES], following)
                push = push + max(z * other, rest * other)
                lift = min(z, rest) if falls else none
            may = (max(v, fma(push, row[HOW_LONG], left)) - lift >= limit) & active
            if may:
                sure = (following >= theta) & may
                if not once or sure != may or stop - now > brief:
                    break
                keep_row(state, kept, may, v)
                keep_row(state, kept + LANES, may, y)
                if both:
                    keep_row(state, kept + 2 * LANES, may, z)
                times = kept + (1 + g.count) * LANES
                keep_row(state, times, may, fill32(g.tiny, now))
                keep_row(state, times + LANES, may, fill32(g.tiny, stop))
                g.counts[at.slot, LANES] |= np.int64(may)
                active &= ~may
                if not active:
                    break
            v, y, z = following, moved, rest
        i += 1
    store(state, base, v)
    store(state, base + LANES, y)
    if both:
        store(state, second, z)
    return i, active


@inlined
def add_times(g, at, i, x):
    """Add an input's gradient by its time, of each lane, to those of up to 16 inputs; and these to the others."""
    sums, by_times = g.sums[at.slot], g.times_parts[at.part, at.b]
    store(sums, (i & 15) * 16, fold16(x))
    if i & 15 == 0:
        store(by_times, i, load16(by_times, i) + sum_rows16(sums, 0))


@inlined
def walk_back(g, at, i, since, joins, keys, rows, drives, weights, source, base, mode, two, signed):
    """``back_quiet`` of neurons with one component or ``two``."""
    adjoint, count, joining = g.adjoint[at.slot], g.kinds.size, joins.size > 0
    by_weight, reached, none = g.weight_parts[at.group, at.chunk], g.reached[at.e], fill32(g.tiny, 0.0)
    p, q, r = load32(adjoint, base), load32(adjoint, base + LANES), none
    rates, others = fill32(g.tiny, drives[count]), fill32(g.tiny, drives[2 * count - 1])
    if two:
        r = load32(adjoint, base + 2 * LANES)
    if joining:
        p, q, r = none, none, none
    weighs, times = mode != OTHERS, mode != WEIGHTS and g.by_time != 0
    while True:
        k = np.uintp(i)  # without a sign, an index needs no test for one below 0
        if keys[k + np.uintp(1)] > keys[k]:
            row = rows[k + np.uintp(1)]
            q = fma(q, row[FIRST + OWN], p * row[FIRST + MOVES])
            if two:
                r = fma(r, row[FIRST + PER + OWN], p * row[FIRST + PER + MOVES])
            p = p * row[LEFT]
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
            first = w > 0.0 if signed else np.uint64(reached[j])
            by = select(first, q, r)
        if weighs:
            store(by_weight, place, load32(by_weight, place) + by)
        if times:
            add_times(g, at, i, (by - p) * w * select(first, rates, others))
        i -= 1
        if i < 0 or since > keys[np.uintp(i)]:
            break
    if not joining:
        store(adjoint, base, p)
        store(adjoint, base + LANES, q)
        if two:
            store(adjoint, base + 2 * LANES, r)
    return i


@jit
def back_quiet(g, at, i, since, joins, keys, rows, drives, weights, source, base, mode):
    """Take P and Q in the rows from ``base`` on back from input ``i`` to the first that is not before ``since``.

    Adds to the gradients, and returns the input before. Where there are bits of ``joins``, P and Q of these lanes are
    those of the rows; before they are 0.
    """
    given = i, since, joins, keys, rows, drives, weights, source, base, mode
    if g.kinds.size == 1:
        return walk_back(g, at, *given, False, False)
    if g.signed != 0:
        return walk_back(g, at, *given, True, True)
    return walk_back(g, at, *given, True, False)
