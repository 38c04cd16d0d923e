"""The flow of a neuron of several exponentials: currents, of receptors or of adaptation, and parts of the threshold.

States are buffers of rows: the membrane V, then the components y. Of the component k, ``g.rates`` has a pair of
constants, see ``state.fill_rates``, with which ``membrane.responses`` gives what is left of both after a time, and what
the current adds to V. V crosses where ``V - sum y`` over the parts of the threshold reaches 1.

First crossings are looked for in pieces of time. Those in which a bound keeps V below are left out. In short ones
everything is a power series of few terms, whose coefficients tell whether V rises, or is concave and has one maximum.
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.arrays import BRIEF, BRIEF_END, LANES, PER_MEM, PER_SYN, UNIT, Rates, rates_in
from firstspike.spiketime.cpu.lanes.adjoint import (
    BY_MEM,
    BY_PARTS,
    DUE,
    EACH,
    NOW,
    OF_MEM,
    OF_NEXT,
    OF_OWN,
    OF_Y,
    PARTS,
    Q_KEPT,
    Y_KEPT,
    Adjoint,
    Q,
    Y,
    back_to,
    chosen,
    load_adjoint,
    since,
)
from firstspike.spiketime.cpu.lanes.convolved import convolved3, convolved4
from firstspike.spiketime.cpu.lanes.pair import search_pair, step_pair
from firstspike.spiketime.cpu.lanes.shared import pass_back_shared, quiet, step_shared
from firstspike.spiketime.cpu.lanes.state import (
    AT_SPIKE,
    BIAS,
    BUFFERS,
    RESET,
    RISE,
    SEARCH,
    SYNAPSE,
    THRESHOLD,
    UP,
    longest_wait,
)
from firstspike.spiketime.cpu.membrane import ENOUGH, brief, derivatives, responses
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, select, sqrt, store

_STEPS = 40
TERMS = 20  # of a series, at most


@inlined
def buffer_of(g, x):
    """Where a buffer begins."""
    return BUFFERS + x * (1 + g.count) * LANES


@inlined
def leak_of(g, c):
    """The rate of the membrane. The pair of a rise is another one, and its synapse follows."""
    return load32(c[1 if g.kinds[0] == RISE else 0], PER_MEM * LANES)


@inlined
def drive_of(g, c, k):
    """The change of V by a component, per unit of it and of time."""
    kind = g.kinds[k]
    if kind == BIAS:
        return leak_of(g, c)
    return load32(c[k], PER_SYN * LANES) * (1.0 if kind == SYNAPSE else 0.0)


@inlined
def constants(g, at):
    return g.rates[at.group]


@inlined
def at_rest(g, at, number):
    state, here = g.state[at.slot], buffer_of(g, number)
    for row in range(0, (1 + g.count) * LANES, LANES):
        store(state, here + row, fill32(state, 0.0))
    if g.biased != 0:
        store(state, here + g.count * LANES, load32(g.fixed[at.group], 2 * LANES))
    return number


@inlined
def loaded(g, at, number):
    return number


@inlined
def stored(g, at, x):
    return x


@jit
def add_to(g, at, x, k, w):
    """Add to a component."""
    state, place = g.state[at.slot], buffer_of(g, x) + (1 + k) * LANES
    store(state, place, load32(state, place) + w)


@inlined
def receive(g, at, x, receptor, w):
    if g.signed != 0:
        positive = max(w, 0.0)
        add_to(g, at, x, g.places[1], w - positive)
        add_to(g, at, x, g.places[0], positive)
    else:
        add_to(g, at, x, g.places[receptor], w)
    return x


@inlined
def step(g, at, c, x, wait, is_brief):
    return step_to(g, at, c, x, x ^ 1, wait, is_brief)


@inlined
def step_to(g, at, c, x, to, wait, is_brief):
    """``step`` to a buffer."""
    if g.pairs != 0:
        return step_pair(g, at, c, x, to, wait, is_brief)
    state, here, there = g.state[at.slot], buffer_of(g, x), buffer_of(g, to)
    v, none = load32(state, here), fill32(state, 0.0)
    left = gain = push = lift = fed = none
    for k in range(g.count):
        kind, y, row = g.kinds[k], load32(state, here + (1 + k) * LANES), there + (1 + k) * LANES
        if kind == BIAS:
            store(state, row, y)
            push = fma(y, leak_of(g, c), push)
            gain = fma(y, left * -1.0 + 1.0, gain)
            continue
        r = rates_in(c[k])
        mem, own, moves = brief(wait, r) if is_brief else responses(wait, r)
        kept = y * own
        store(state, row, kept + fed)
        fed = none
        if kind == RISE:
            fed = y * moves
            third = convolved3(wait, leak_of(g, c), r.mem, r.syn) * (r.mem * r.syn)
            gain = fma(y, third, gain)
            push = push + max(y, 0.0) * (own * -1.0 + 1.0) * r.mem
            continue
        left = mem
        if kind == SYNAPSE:
            gain, push = fma(y, moves, gain), fma(max(y, kept), r.syn, push)
        else:
            lift = lift - min(y, kept)
    store(state, there, fma(v, left, gain))
    leak, long = leak_of(g, c), wait
    if not is_brief:
        slow = wait * leak > 0.25
        long = select(slow, (left * -1.0 + 1.0) / select(slow, leak, 1.0), wait)
    # as far as rounding goes, V is between its start and where it would come to rest
    height = fma(abs(v), 1 - ENOUGH, max(v, fma(push, long, v * left)) + lift)
    return to, height, fma(max(push, 0.0), long, max(lift, 0.0))


@inlined
def step_after(g, at, c, x, k, wait, is_brief):
    if g.alike != 0:
        return step_shared(g, at, c, x, k)
    return step(g, at, c, x, wait, is_brief)


@inlined
def pass_quiet(g, at, c, x, k, n, keys, values, source, active):
    if g.quick != 0:
        return quiet(g, at, c, x, k, n, keys, values, source, active), x
    i = np.intp(source[k])
    return k, receive(g, at, x, g.receptor[at.e, i] if g.planes > 1 else 0, load32(values, i * LANES))


@inlined
def excess(g, at, x):
    """V above the threshold, in units of what that is at rest."""
    state, here = g.state[at.slot], buffer_of(g, x)
    over = load32(state, here) - 1.0
    for k in range(g.count):
        if g.kinds[k] == THRESHOLD:
            over = over - load32(state, here + (1 + k) * LANES)
    return over


@inlined
def above(g, at, x):
    return excess(g, at, x) >= 0.0


@jit
def bend_of(g, at, c, x, wait):
    """A bound of the second derivative of V - threshold for a time from a state on."""
    state, here, leak = g.state[at.slot], buffer_of(g, x), leak_of(g, c)
    fed = drive = bend = fill32(state, 0.0)
    for k in range(g.count):
        kind, y, rate = g.kinds[k], abs(load32(state, here + (1 + k) * LANES)), load32(c[k], PER_SYN * LANES)
        if kind == RISE:
            fed, bend = y, fma(y * rate, load32(c[k], PER_MEM * LANES), bend)
        elif kind == THRESHOLD:
            bend = fma(y * rate, rate, bend)
        elif kind == BIAS:
            drive = fma(y, leak, drive)
        else:
            most = (y + fed) * rate
            drive, bend, fed = drive + most, fma(most, rate, bend), fill32(state, 0.0)
    return fma(leak, fma(leak, fma(drive, wait, abs(load32(state, here))), drive), bend)


@inlined
def decide(g, at, c, x, after, wait, candidates):
    end = excess(g, at, after)
    sure = (end >= 0.0) & candidates
    perhaps = candidates & ~sure
    if perhaps and not sure:  # next to the straight line from start to end
        bulge = bend_of(g, at, c, x, wait) * (wait * wait * 0.125)
        perhaps &= max(excess(g, at, x), end) + bulge >= ENOUGH - 1.0
    return sure, perhaps, wait


@inlined
def solve(g, at, c, x, limit, lanes):
    if g.pairs == 0:
        return search(g, at, c, x, limit, lanes)
    found, when, slope, left = search_pair(g, at, c, x, limit, lanes)
    if left:
        more, later, steep = search(g, at, c, x, limit, left)
        found, when, slope = found | more, select(left, later, when), select(left, steep, slope)
    return found, when, slope


@inlined
def leap(g, at, c, x, after, s, wait, slope, lanes, holds):
    state, here, there = g.state[at.slot], buffer_of(g, x), buffer_of(g, after)
    reset, leak, rest = load32(state, RESET), leak_of(g, c), wait - s
    left, none = exp(rest * leak * -1.0), fill32(state, 0.0)
    above, change, moves, more = reset * -1.0 + 1.0, none, none, none  # V - reset, how fast the threshold falls, jumps
    for k in range(g.count if g.jumping > 0 else 0):
        kind, place = g.kinds[k], (1 + k) * LANES
        jump = load32(g.jump_rows[at.group], k * LANES)
        if kind == THRESHOLD:
            rate = load32(c[k], PER_SYN * LANES)
            own, part = exp(rest * rate * -1.0), exp(s * rate * -1.0) * load32(state, here + place)
            above, change = above + part, fma(part, rate, change)
        else:
            r = rates_in(c[k])
            _, own, gain = responses(rest, r)
            moves, more = fma(jump, gain, moves), fma(jump, r.syn, more)
        y = load32(state, there + place)
        store(state, there + place, select(lanes, fma(jump, own, y), y))
    v = load32(state, there)
    store(state, there, select(lanes, select(holds, reset, v - above * left + moves), v))
    store(state, UP, slope - change + above * leak + more)
    return after


@inlined
def to_spike(g, at, c, x, s, is_brief):
    return step_to(g, at, c, x, AT_SPIKE, s, is_brief)[0]


@inlined
def slope_of(g, at, c, x):
    state, here, leak = g.state[at.slot], buffer_of(g, x), leak_of(g, c)
    slope = leak * -1.0
    for k in range(g.count):
        y = load32(state, here + (1 + k) * LANES)
        if g.kinds[k] == THRESHOLD:
            slope = fma(y, load32(c[k], PER_SYN * LANES) - leak, slope)
        elif g.kinds[k] != RISE:
            slope = fma(y, drive_of(g, c, k), slope)
    return slope


@inlined
def up_of(g, at, c, x):
    state, here = g.state[at.slot], buffer_of(g, x)
    up = load32(state, here) * leak_of(g, c) * -1.0
    for k in range(g.count):
        if g.kinds[k] != RISE and g.kinds[k] != THRESHOLD:
            up = fma(load32(state, here + (1 + k) * LANES), drive_of(g, c, k), up)
    return up


@inlined
def held(g, at, x, lanes):
    if g.resets != 0:
        state, here = g.state[at.slot], buffer_of(g, x)
        store(state, here, select(lanes, load32(state, RESET), load32(state, here)))
    return x


@inlined
def jumped(g, at, x, lanes):
    for k in range(g.count if g.jumping > 0 else 0):
        add_to(g, at, x, k, select(lanes, load32(g.jump_rows[at.group], k * LANES), fill32(g.state, 0.0)))
    return x


@inlined
def merge(g, at, lanes, x, y):
    state, here, there = g.state[at.slot], buffer_of(g, x), buffer_of(g, y)
    for place in range(0, (1 + g.count) * LANES, LANES):
        store(state, there + place, select(lanes, load32(state, here + place), load32(state, there + place)))
    return y


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
    state, here, leak = g.state[at.slot], buffer_of(g, x), leak_of(g, c)
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
            drive = fma(most, leak if kind == BIAS else load32(c[k], PER_SYN * LANES), drive)
    rest = select(leak > 0.0, drive / select(leak > 0.0, leak, 1.0), charge + max(v, 0.0))
    return fma(abs(v), 1 - ENOUGH, min(max(v, rest), max(v, 0.0) + charge) + lift) < ENOUGH


@jit
def fastest_of(g, at, c, x):
    """The fastest rate that shows: of V, of components that are not 0, and of those that these feed."""
    state, here, fastest = g.state[at.slot], buffer_of(g, x), leak_of(g, c)
    least = _precision(state)[2]
    nothing = fma(abs(load32(state, here)), least, least)
    for k in range(g.count):
        if g.kinds[k] != BIAS:
            shows = abs(load32(state, here + (1 + k) * LANES)) > nothing
            rate = load32(c[k], PER_SYN * LANES)
            rate = max(rate, load32(c[k], PER_MEM * LANES)) if g.kinds[k] == RISE else rate
            fastest = select(shows, max(fastest, rate), fastest)
    return fastest


@jit
def search(g, at, c, x, wait, lanes):
    """Which of the lanes reach the threshold within ``wait``, and when. ``inf`` has no end."""
    none, longest = fill32(g.state, 0.0), 1.0
    terms = terms_for(select(lanes, wait, none) * (BRIEF / c[0, BRIEF_END, 0]))
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
    state, out, here, rest = g.state[at.slot], g.series[at.slot], buffer_of(g, x), TERMS * LANES
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
            gone = y * load32(c[k], PER_SYN * LANES)
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
def settled(g, at, spike, slope, lanes):
    return slope


@inlined
def reload(g, at):
    return 0


@inlined
def now_of(g, at, x):
    return load32(g.state[at.slot], x + NOW)


@inlined
def save(g, at, x, rows, place):
    state = g.state[at.slot]
    for row in range(0, PARTS + g.count * EACH, LANES):
        store(rows, place + row, load32(state, x + row))


@inlined
def back(g, at, c, x, target, is_brief, bounds, taus):
    state, last = g.state[at.slot], g.count - 1
    at_end = load_adjoint(state, x, 0)
    wait = since(at_end, target, g.rates[at.group, 0, UNIT, 0], longest_wait(state))
    before = at_end
    for k in range(g.count):
        here, kind = load_adjoint(state, x, k), g.kinds[k]
        here = Adjoint(here.now, at_end.y, at_end.y_kept, at_end.of_y, here.q, here.q_kept, here.of_mem, here.of_own)
        if kind == SYNAPSE:
            here = before = back_to(here, wait, target, is_brief, rates_in(c[k]), bounds, taus)
        elif kind == RISE:
            here = back_rise(g, at, c, x, k, here, wait, taus)
        elif kind == THRESHOLD:
            here = back_part(here, wait, load32(c[k], PER_SYN * LANES))
        else:
            here = back_bias(here, wait, leak_of(g, c))
        part = x + PARTS + k * EACH
        store(state, part + Q, here.q)
        store(state, part + Q_KEPT, here.q_kept)
        store(state, part + OF_MEM, here.of_mem)
        store(state, part + OF_OWN, here.of_own)
    store(state, x + NOW, before.now)
    store(state, x + Y, before.y)
    store(state, x + Y_KEPT, before.y_kept)
    store(state, x + OF_Y, before.of_y)
    return x


@inlined
def back_part(x, wait, rate):
    """``back_to`` of a part of the threshold."""
    own = exp(wait * rate * -1.0)
    of_own = (x.of_own + x.q * rate * wait) * own
    return Adjoint(x.now, x.y, x.y_kept, x.of_y, x.q * own, x.q_kept * own, x.of_mem, of_own)


@inlined
def back_bias(x, wait, leak):
    """``back_to`` of the bias, of which nothing decays."""
    left = exp(wait * leak * -1.0)
    gone = left * -1.0 + 1.0
    of_mem = x.of_mem + x.of_y * gone - x.y * left * wait * leak
    return Adjoint(x.now, x.y, x.y_kept, x.of_y, fma(x.y, gone, x.q), fma(x.y_kept, gone, x.q_kept), of_mem, x.of_own)


@jit
def back_rise(g, at, c, x, k, here, wait, taus):
    """``back_to`` of a current that feeds the next one. That is still at the end of the time."""
    state, r, leak, following = g.state[at.slot], rates_in(c[k]), leak_of(g, c), x + PARTS + (k + 1) * EACH
    synapse, own_rate = r.mem, r.syn
    _, own, feeds = responses(wait, r)
    q, kept = load32(state, following + Q), load32(state, following + Q_KEPT)
    both, third = synapse * own_rate, convolved3(wait, leak, synapse, own_rate)
    moves = both * third
    of_mem, of_own = here.of_mem, here.of_own
    if taus:
        next_mem, next_own = load32(state, following + OF_MEM), load32(state, following + OF_OWN)
        by_synapse, by_own = derivatives(wait, r)
        of_mem = fma(
            of_mem,
            own,
            fma(
                next_mem,
                feeds,
                fma(here.of_y, moves, here.y * leak * both * convolved4(wait, leak, leak, synapse, own_rate)),
            ),
        )
        by_third = both * own_rate * convolved4(wait, leak, synapse, own_rate, own_rate) - moves
        of_own = fma(of_own, own, fma(here.q * own_rate * wait, own, fma(q, by_own, here.y * by_third)))
        by_third = both * synapse * convolved4(wait, leak, synapse, synapse, own_rate) - moves
        place = x + PARTS + k * EACH + OF_NEXT
        store(state, place, fma(load32(state, place), own, fma(next_own, feeds, fma(q, by_synapse, here.y * by_third))))
    q_before = fma(here.q, own, fma(q, feeds, here.y * moves))
    kept_before = fma(here.q_kept, own, fma(kept, feeds, here.y_kept * moves))
    return Adjoint(here.now, here.y, here.y_kept, here.of_y, q_before, kept_before, of_mem, of_own)


@inlined
def part_of(g, at, c, x, k):
    """The adjoint of a component, that of what it feeds, and its rate."""
    state = g.state[at.slot]
    here = load_adjoint(state, x, k)
    fed = load32(state, x + PARTS + (k + 1) * EACH + Q) if g.kinds[k] == RISE else here.y
    return here, fed, load32(c[k], PER_SYN * LANES)


@inlined
def reached(g, at, c, x, i, w):
    if g.signed == 0:
        return part_of(g, at, c, x, g.places[g.receptor[at.e, i]])
    positive = w > 0.0
    here, fed, rate = part_of(g, at, c, x, g.places[0])
    other, other_fed, other_rate = part_of(g, at, c, x, g.places[1])
    return chosen(positive, here, other), select(positive, fed, other_fed), select(positive, rate, other_rate)


@inlined
def last_piece(g, at):
    return 0


@inlined
def back_at(g, at, c, last, size, target, inside, i, w, bounds, taus):
    pieces, state, each, scratch = g.pieces[at.slot], g.state[at.slot], PARTS + g.count * EACH, g.scratch_place
    first = last
    if bounds or taus or g.rising != 0:
        for row in range(0, each, LANES):
            x = load32(pieces, first + row)
            for piece in range(first + each, size, each):
                x = select(load32(pieces, piece - each + DUE) > target, load32(pieces, piece + row), x)
            store(state, scratch + row, x)
        return reached(g, at, c, back(g, at, c, scratch, target, False, bounds, taus), i, w)
    k, positive = g.places[0] if g.signed != 0 else g.places[g.receptor[at.e, i]], w > 0.0
    x, r = load_adjoint(pieces, first, k), rates_in(c[k])
    if g.signed != 0:
        x = chosen(positive, x, load_adjoint(pieces, first, g.places[1]))
        r = chosen_rates(positive, r, rates_in(c[g.places[1]]))
    for piece in range(first + each, size, each):
        earlier = load32(pieces, piece - each + DUE) > target
        if earlier & inside:
            other = load_adjoint(pieces, piece, k)
            if g.signed != 0:
                other = chosen(positive, other, load_adjoint(pieces, piece, g.places[1]))
            x = chosen(earlier, other, x)
    x = back_to(x, since(x, target, g.rates[at.group, 0, UNIT, 0], longest_wait(state)), target, False, r, False, False)
    return x, x.y, r.syn


@inlined
def chosen_rates(bits, r, s):
    """The rates of one component or the other, as far as ``responses`` needs them."""
    return Rates(
        r.mem, select(bits, r.syn, s.syn), select(bits, r.slower, s.slower), select(bits, r.faster, s.faster),
        select(bits, r.delta, s.delta), select(bits, r.per_rise, s.per_rise), r.ratio, r.x, r.top, r.height,
        r.kind if r.kind == s.kind else r.kind - r.kind,
    )  # fmt: skip


@inlined
def add_taus(g, at, x, place, i, w):
    totals, state, last = g.totals[at.group, at.chunk], g.state[at.slot], 2 if g.signed != 0 else 1
    for number in range(last):
        k, mine = g.places[number if g.signed != 0 else g.receptor[at.e, i]], w
        if g.signed != 0:
            mine = max(w, 0.0) if number == 0 else min(w, 0.0)
        part, to = place + PARTS + k * EACH, BY_PARTS + 2 * k * LANES
        store(totals, BY_MEM, fma(mine, load32(state, part + OF_MEM), load32(totals, BY_MEM)))
        store(totals, to, fma(mine, load32(state, part + OF_OWN), load32(totals, to)))
        if g.kinds[k] == RISE:
            to += 2 * LANES
            store(totals, to, fma(mine, load32(state, part + OF_NEXT), load32(totals, to)))


@inlined
def pass_back(g, at, c, k, due, keys, source):
    return pass_back_shared(g, at, c, k, due, keys, source)
