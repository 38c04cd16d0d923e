"""The flow of a neuron of several exponentials: currents, of receptors or of adaptation, and parts of the threshold.

States are buffers of rows: the membrane V, then the components y. Of the component k, ``g.rates`` has a pair of
constants, see ``state.fill_rates``, with which ``membrane.responses`` gives what is left of both after a time, and what
the current adds to V. V crosses where ``V - sum y`` over the parts of the threshold reaches 1.
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, named_rates, rates_in
from firstspike.spiketime.cpu.lanes.convolved import convolved3
from firstspike.spiketime.cpu.lanes.pair import step_pair
from firstspike.spiketime.cpu.lanes.shared import quiet, step_shared
from firstspike.spiketime.cpu.lanes.state import AT_SPIKE, BIAS, BUFFERS, RESET, RISE, SYNAPSE, THRESHOLD, UP
from firstspike.spiketime.cpu.membrane import ENOUGH, brief, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, select, sqrt, store


@inlined
def buffer_of(g, x):
    """Where a buffer begins."""
    return BUFFERS + x * (1 + g.count) * LANES


@inlined
def leak_of(g, c):
    """The rate of the membrane. The pair of a rise is another one, and its synapse follows."""
    return named_rates(c[1 if g.kinds[0] == RISE else 0]).mem


@inlined
def drive_of(g, c, k):
    """The change of V by a component, per unit of it and of time."""
    kind = g.kinds[k]
    if kind == BIAS:
        return leak_of(g, c)
    return named_rates(c[k]).syn * (1.0 if kind == SYNAPSE else 0.0)


@inlined
def constants(g, at):
    return g.rates[at.group]


@inlined
def at_rest(g, at, number):
    state, here = g.state[at.kept], buffer_of(g, number)
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
    state, place = g.state[at.kept], buffer_of(g, x) + (1 + k) * LANES
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
    state, here, there = g.state[at.kept], buffer_of(g, x), buffer_of(g, to)
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
def add_up(g, at, x, sums, place, size):
    state, here = g.state[at.kept], buffer_of(g, x)
    store(state, here, load32(state, here) + load32(sums, place))
    for k in range(g.receptors):
        add_to(g, at, x, g.places[k], load32(sums, place + (2 + k) * size))
    return x


@inlined
def excess(g, at, x):
    """V above the threshold, in units of what that is at rest."""
    state, here = g.state[at.kept], buffer_of(g, x)
    over = load32(state, here) - 1.0
    for k in range(g.count):
        if g.kinds[k] == THRESHOLD:
            over = over - load32(state, here + (1 + k) * LANES)
    return over


@inlined
def above(g, at, x):
    return excess(g, at, x) >= 0.0


@inlined
def ascent_of(g, at, c, x):
    """How fast V and the threshold approach."""
    state, here, ascent = g.state[at.kept], buffer_of(g, x), up_of(g, at, c, x)
    for k in range(g.count):
        if g.kinds[k] == THRESHOLD:
            ascent = fma(load32(state, here + (1 + k) * LANES), named_rates(c[k]).syn, ascent)
    return ascent


@jit
def bends_of(g, at, c, x, wait):
    """Bounds of the second and the fourth derivative of V - threshold for a time from a state on, and of what moves V.

    Each derivative of a component is at most what its rate and what feeds it make of the one before.
    """
    state, here, leak = g.state[at.kept], buffer_of(g, x), leak_of(g, c)
    fed = feeds = first = second = third = fourth = bend = fill32(state, 0.0)  # of what drives V, and of the threshold
    for k in range(g.count):
        kind, y, rate = g.kinds[k], abs(load32(state, here + (1 + k) * LANES)), named_rates(c[k]).syn
        if kind == RISE:
            fed, feeds = y, rate
        elif kind == THRESHOLD:
            square = rate * rate
            bend, fourth = fma(y, square, bend), fma(y, square * square, fourth)
        elif kind == BIAS:
            first = fma(y, leak, first)
        else:
            first = first + (y + fed) * rate
            part = (y + fed) * rate + fed * feeds
            second, fed = fma(part, rate, second), fed * feeds * feeds
            part = fma(part, rate, fed)
            third = fma(part, rate, third)
            fourth = fma(fma(part, rate, fed * feeds), rate, fourth)
            fed = feeds = fill32(state, 0.0)
    v = abs(load32(state, here))
    most, moves = fma(leak, fma(leak, fma(first, wait, v), first), second), fma(leak, v, first)
    return bend + most, fma(leak, fma(leak, most, third), fourth), moves


@inlined
def decide(g, at, c, x, after, wait, candidates):
    start, end = excess(g, at, x), excess(g, at, after)
    sure = (end >= 0.0) & candidates
    perhaps = candidates & ~sure
    if perhaps and not sure:  # next to the straight line from start to end
        bend, fourth, moves = bends_of(g, at, c, x, wait)
        square = wait * wait
        perhaps &= max(start, end) + bend * square * 0.125 >= ENOUGH - 1.0
        if perhaps:  # next to the cubic with the same slopes there: start + first u + second u^2 + third u^3
            first, last, change = ascent_of(g, at, c, x) * wait, ascent_of(g, at, c, after) * wait, end - start
            second, third = change * 3.0 - first * 2.0 - last, first + last - change * 2.0
            root = sqrt(max(fma(second, second, first * third * -3.0), 0.0))
            u = max(min(first / (root - second), 1.0), 0.0)
            top = max(max(start, end), fma(fma(fma(third, u, second), u, first), u, start))
            rest = fma(fourth * square, square * (1 / 384), moves * wait * 1e-6)  # also of rounding
            perhaps &= ~(top + rest < ENOUGH - 1.0)
    return sure, perhaps, wait


@inlined
def leap(g, at, c, x, after, s, wait, slope, lanes, holds):
    state, here, there = g.state[at.kept], buffer_of(g, x), buffer_of(g, after)
    reset, leak, rest = load32(state, RESET), leak_of(g, c), wait - s
    left, none = exp(rest * leak * -1.0), fill32(state, 0.0)
    above, change, moves, more = reset * -1.0 + 1.0, none, none, none  # V - reset, how fast the threshold falls, jumps
    for k in range(g.count if g.jumping > 0 else 0):
        kind, place = g.kinds[k], (1 + k) * LANES
        jump = load32(g.jump_rows[at.group], k * LANES)
        if kind == THRESHOLD:
            rate = named_rates(c[k]).syn
            own, part = exp(rest * rate * -1.0), exp(s * rate * -1.0) * load32(state, here + place)
            above, change = above + part, fma(part, rate, change)
        else:
            r = rates_in(c[k])
            _, own, gain = responses(rest, r)
            if kind == RISE:
                following = there + place + LANES
                store(state, following, load32(state, following) + select(lanes, jump * gain, none))
                gain = convolved3(rest, leak, r.mem, r.syn) * (r.mem * r.syn)
            else:
                more = fma(jump, r.syn, more)
            moves = fma(jump, gain, moves)
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
    state, here, leak = g.state[at.kept], buffer_of(g, x), leak_of(g, c)
    slope = leak * -1.0
    for k in range(g.count):
        y = load32(state, here + (1 + k) * LANES)
        if g.kinds[k] == THRESHOLD:
            slope = fma(y, named_rates(c[k]).syn - leak, slope)
        elif g.kinds[k] != RISE:
            slope = fma(y, drive_of(g, c, k), slope)
    return slope


@inlined
def up_of(g, at, c, x):
    state, here = g.state[at.kept], buffer_of(g, x)
    up = load32(state, here) * leak_of(g, c) * -1.0
    for k in range(g.count):
        if g.kinds[k] != RISE and g.kinds[k] != THRESHOLD:
            up = fma(load32(state, here + (1 + k) * LANES), drive_of(g, c, k), up)
    return up


@inlined
def held(g, at, x, lanes):
    if g.resets != 0:
        state, here = g.state[at.kept], buffer_of(g, x)
        store(state, here, select(lanes, load32(state, RESET), load32(state, here)))
    return x


@inlined
def jumped(g, at, x, lanes):
    for k in range(g.count if g.jumping > 0 else 0):
        add_to(g, at, x, k, select(lanes, load32(g.jump_rows[at.group], k * LANES), fill32(g.state, 0.0)))
    return x


@inlined
def merge(g, at, lanes, x, y):
    state, here, there = g.state[at.kept], buffer_of(g, x), buffer_of(g, y)
    for place in range(0, (1 + g.count) * LANES, LANES):
        store(state, there + place, select(lanes, load32(state, here + place), load32(state, there + place)))
    return y
