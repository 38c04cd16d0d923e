"""When do linear neurons reach their threshold? The first crossing is looked for in pieces of time.

Those in which a bound keeps V below are left out. In short ones everything is a power series of few terms, whose
coefficients tell whether V rises, or is concave and has one maximum.
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.arrays import BRIEF, LANES, named_rates
from firstspike.spiketime.cpu.lanes.linear import buffer_of, leak_of, merge, step
from firstspike.spiketime.cpu.lanes.pair import search_pair
from firstspike.spiketime.cpu.lanes.state import BIAS, RISE, SEARCH, SYNAPSE, THRESHOLD, longest_wait
from firstspike.spiketime.cpu.membrane import ENOUGH
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, select, sqrt, store

_STEPS = 40
TERMS = 20  # of a series, at most


@chosen_by_type
def _precision(x):
    """Terms of a series for pieces up to some lengths, in units of the fastest time constant, and what is too small."""
    single = x.dtype == types.float32
    found = ((4, 6, 8, 12, 0), (0.01, 0.06, 0.25, 1.0), 1e-10)
    if not single:
        found = ((8, 10, 14, 20, 0), (0.014, 0.06, 0.25, 1.0), 1e-19)
    return lambda x: found


@inlined
def terms_for(pieces):
    """How many terms of a series matter in pieces of these lengths, 0 if they are too long for any."""
    many, lengths, _ = _precision(pieces)
    found = many[0]
    for number in range(4):
        if any_reaches(pieces, lengths[number]):
            found = many[number + 1]
    return found


@jit
def hopeless(g, at, c, x):
    """Lanes that stay below the threshold if nothing arrives."""
    state, here, leak = g.state[at.kept], buffer_of(g, x), leak_of(g, c)
    v, none = load32(state, here), fill32(state, 0.0)
    drive = charge = fed = lift = none
    for k in range(g.count):
        kind, y = g.kinds[k], load32(state, here + (1 + k) * LANES)
        if kind == THRESHOLD:
            lift = lift - min(y, 0.0)
        elif kind == RISE:
            fed = max(y, 0.0)
        else:
            most = max(y, 0.0) + fed
            charge, fed = charge + most, none
            drive = fma(most, leak if kind == BIAS else named_rates(c[k]).syn, drive)
    rest = select(leak > 0.0, drive / select(leak > 0.0, leak, 1.0), charge + max(v, 0.0))
    return fma(abs(v), 1 - ENOUGH, min(max(v, rest), max(v, 0.0) + charge) + lift) < ENOUGH


@jit
def fastest_of(g, at, c, x):
    """The fastest rate that shows: of V, of components that are not 0, and of those that these feed."""
    state, here, fastest = g.state[at.kept], buffer_of(g, x), leak_of(g, c)
    least = _precision(state)[2]
    nothing = fma(abs(load32(state, here)), least, least)
    for k in range(g.count):
        if g.kinds[k] != BIAS:
            shows = abs(load32(state, here + (1 + k) * LANES)) > nothing
            r = named_rates(c[k])
            rate = max(r.syn, r.mem) if g.kinds[k] == RISE else r.syn
            fastest = select(shows, max(fastest, rate), fastest)
    return fastest


@jit
def search(g, at, c, x, wait, lanes):
    """Which of the lanes reach the threshold within ``wait``, and when. ``inf`` has no end."""
    none, longest = fill32(g.state, 0.0), 1.0
    terms = terms_for(select(lanes, wait, none) * (BRIEF / named_rates(c[0])[0].brief_end))
    if terms > 0:  # most often
        expand(g, at, c, x, wait, terms)
        found, u, steep, unclear = crossing(g, at, lanes, terms)
        if not unclear:
            return found, wait * u, steep / wait
    x = merge(g, at, at.every, x, SEARCH)
    begin, length, when, slope, found, endless = none, wait, wait, none, np.uint64(0), longest_wait(g.state)
    while True:
        lanes &= ~hopeless(g, at, c, x)
        if not lanes:
            return found, min(when, wait), slope
        fastest, rest = fastest_of(g, at, c, x), wait - begin
        length = min(length, rest)
        far = (length * fastest > longest) & lanes
        tests, cuts, passed = lanes & ~far, np.uint64(0), np.uint64(0)
        if tests:
            terms = terms_for(select(tests, length * fastest * 0.999, none))
            expand(g, at, c, x, length, terms)
            fires, u, steep, cuts = crossing(g, at, tests, terms)
            slope = select(fires, steep / length, slope)
            cuts &= length * fastest > 1e-6
            when, found = select(fires, fma(length, u, begin), when), found | fires
            lanes &= ~fires
            passed = tests & ~fires & ~cuts
        if far | passed:
            after, height, _ = step(g, at, c, x, min(length, endless), False)
            high = (height >= ENOUGH) & far
            passed, cuts = passed | (far & ~high), cuts | high
            x = merge(g, at, ~passed, x, after)
            begin = select(passed, begin + length, begin)
            lanes &= ~(passed & ((length >= rest) | (length >= endless)))
        length = select(cuts, min(length * 0.25, longest / fastest), length * 4.0)


@jit
def expand(g, at, c, x, wait, terms):
    """Fill in the series of V - threshold of all lanes, as a function of time in units of ``wait``."""
    state, out, here, rest = g.state[at.kept], g.series[at.slot], buffer_of(g, x), TERMS * LANES
    v, none, leak = load32(state, here), fill32(state, 0.0), leak_of(g, c)
    for row in range(0, g.count * LANES, LANES):
        store(out, rest + row, load32(state, here + LANES + row))
    power = none + 1.0
    for n in range(terms):
        push = lift = fed = none
        for k in range(g.count):  # derivatives of the component, and what they add to those of V, or of the threshold
            kind, y, place = g.kinds[k], load32(out, rest + k * LANES), rest + k * LANES
            if kind == BIAS:
                push = fma(y, leak, push)
                store(out, place, none)
                continue
            gone = y * named_rates(c[k]).syn
            store(out, place, fed - gone)
            fed = none
            if kind == SYNAPSE:
                push = push + gone
            elif kind == RISE:
                fed = gone
            else:
                lift = lift + y
        store(out, n * LANES, v - lift * power)
        v = (push * power - v * leak) * (wait * (1 / (n + 1)))
        power = power * wait * (1 / (n + 1))


@inlined
def excess_at(g, at, u, terms):
    """V - threshold and two derivatives."""
    out = g.series[at.slot]
    p = load32(out, (terms - 1) * LANES)
    q = r = fill32(out, 0.0)
    for n in range(terms - 2, -1, -1):
        r = fma(r, u, q)
        q = fma(q, u, p)
        p = fma(p, u, load32(out, n * LANES))
    return p - 1.0, q, r + r


@jit
def crossing(g, at, lanes, terms):
    """Which lanes reach the threshold within the piece, and when in units of it; and which do not tell."""
    out, none = g.series[at.slot], fill32(g.state, 0.0)
    tiny = 2.0**-23 if g.state.itemsize == 4 else 2.0**-52
    start, x = load32(out, 0) - 1.0, load32(out, LANES)
    top, end, slope, steepest, least, bend, first = start + max(x, 0.0), start + x, x, x, x, none, x
    for n in range(2, terms):
        x = load32(out, n * LANES)
        up, many = max(x, 0.0), float(n)
        top, end = top + up, end + x
        slope, steepest, least = fma(x, many, slope), fma(up, many, steepest), fma(min(x, 0.0), many, least)
        bend = fma(x, 2.0, bend) if n == 2 else fma(up, many * (many - 1.0), bend)
    possible = (top >= 0.0) & (steepest > 0.0) & lanes & ~(start >= 0.0)
    concave = (none > bend) & possible
    rises = ((least >= 0.0) & possible) | ((slope >= 0.0) & concave)
    unclear = possible & ~rises & ~concave
    at_once = (start >= 0.0) & lanes
    fires, peaks = rises & (end >= 0.0), concave & ~rises
    low, high = none, none + 1.0
    if peaks:
        u, over = none + 0.5, high
        for _ in range(_STEPS):
            _, q, r = excess_at(g, at, u, terms)
            low, over = select(q > 0.0, u, low), select(q > 0.0, over, u)
            following = u - q / r
            inside = (none > r) & (following >= low) & (over >= following)
            following = select(inside, following, (low + over) * 0.5)
            moving = (abs(following - u) > 1e-5) & peaks
            u = following
            if not moving:
                break
        p, _, _ = excess_at(g, at, u, terms)
        reach = (p >= 0.0) & peaks
        fires |= reach
        low, high = none, select(reach, u, high)
    if not fires:
        return at_once, none, none, unclear
    # a parabola through the start, then steps of third order
    under = first + sqrt(max(first * first - start * load32(out, 2 * LANES) * 4.0, 0.0))
    u = start * -2.0 / under
    u = select((u > 0.0) & (high >= u), u, high * 0.5)
    for _ in range(_STEPS):
        p, q, r = excess_at(g, at, u, terms)
        low, high = select(none > p, u, low), select(none > p, high, u)
        part, bent = p / q, r / q
        following = u - fma(part * part * 0.5, bent, part)
        inside = (q > 0.0) & (following >= low) & (high >= following)
        following = select(inside, following, (low + high) * 0.5)
        moved = abs(following - u)
        u = following
        # the error of a step is about its cube, near a maximum times the square of how much the slope changes
        error = moved * moved * moved * max(bent * bent, 1.0)
        moving = (error > u * tiny) & (moved > u * tiny) & (high - low > high * tiny) & fires
        if not moving:
            break
    return fires | at_once, select(at_once, none, u), max(excess_at(g, at, u, terms)[1], 0.0), unclear


@inlined
def solve(g, at, c, x, limit, lanes):
    if g.pairs == 0:
        return search(g, at, c, x, limit, lanes)
    found, when, slope, left = search_pair(g, at, c, x, limit, lanes)
    if left:
        more, later, steep = search(g, at, c, x, limit, left)
        found, when, slope = found | more, select(left, later, when), select(left, steep, slope)
    return found, when, slope
