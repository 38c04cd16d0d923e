"""The flow of linear neurons backward: the adjoint of the membrane and of each component, see ``adjoint``."""

# mypy: disable-error-code="no-untyped-def"

from firstspike.spiketime.cpu.arrays import LANES, Rates, named_rates, rates_in
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
from firstspike.spiketime.cpu.lanes.linear import leak_of
from firstspike.spiketime.cpu.lanes.shared import pass_back_shared
from firstspike.spiketime.cpu.lanes.state import RISE, SYNAPSE, THRESHOLD, longest_wait, unit_of
from firstspike.spiketime.cpu.membrane import derivatives, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import fma, load32, select, store


@inlined
def settled(g, at, spike, slope, lanes):
    return slope


@inlined
def reload(g, at):
    return 0


@inlined
def now_of(g, at, x):
    return load32(g.state[at.kept], x + NOW)


@inlined
def save(g, at, x, rows, place):
    state = g.state[at.kept]
    for row in range(0, PARTS + g.count * EACH, LANES):
        store(rows, place + row, load32(state, x + row))


@inlined
def back(g, at, c, x, target, is_brief, bounds, taus):
    state = g.state[at.kept]
    at_end = load_adjoint(state, x, 0)
    wait = since(at_end, target, unit_of(g, at), longest_wait(state))
    before = at_end
    for k in range(g.count):
        here, kind = load_adjoint(state, x, k), g.kinds[k]
        here = Adjoint(here.now, at_end.y, at_end.y_kept, at_end.of_y, here.q, here.q_kept, here.of_mem, here.of_own)
        if kind == SYNAPSE:
            here = before = back_to(here, wait, target, is_brief, rates_in(c[k]), bounds, taus)
        elif kind == RISE:
            here = back_rise(g, at, c, x, k, here, wait, taus)
        elif kind == THRESHOLD:
            here = back_part(here, wait, named_rates(c[k]).syn)
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
    state, r, leak, following = g.state[at.kept], rates_in(c[k]), leak_of(g, c), x + PARTS + (k + 1) * EACH
    synapse, own_rate = r.mem, r.syn
    if taus:
        _, own, feeds, by_synapse, by_own = derivatives(wait, r)
    else:
        _, own, feeds = responses(wait, r)
    q, kept = load32(state, following + Q), load32(state, following + Q_KEPT)
    both, third = synapse * own_rate, convolved3(wait, leak, synapse, own_rate)
    moves = both * third
    of_mem, of_own = here.of_mem, here.of_own
    if taus:
        next_mem, next_own = load32(state, following + OF_MEM), load32(state, following + OF_OWN)
        by_leak = here.y * leak * both * convolved4(wait, leak, leak, synapse, own_rate)
        of_mem = fma(of_mem, own, fma(next_mem, feeds, fma(here.of_y, moves, by_leak)))
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
    state = g.state[at.kept]
    here = load_adjoint(state, x, k)
    fed = load32(state, x + PARTS + (k + 1) * EACH + Q) if g.kinds[k] == RISE else here.y
    return here, fed, named_rates(c[k]).syn


@inlined
def reached(g, at, c, x, i, w):
    if g.signed == 0:
        return part_of(g, at, c, x, g.places[g.receptor[at.e, i]])
    positive = w > 0.0
    here, fed, rate = part_of(g, at, c, x, g.places[0])
    other, other_fed, other_rate = part_of(g, at, c, x, g.places[1])
    return chosen(positive, here, other), select(positive, fed, other_fed), select(positive, rate, other_rate)


@inlined
def piece_at(g, at, first):
    return first


@inlined
def back_at(g, at, c, last, first, size, target, inside, i, w, bounds, taus):
    pieces, state, each, scratch = g.pieces[at.kept], g.state[at.kept], PARTS + g.count * EACH, g.scratch_place
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
    x = back_to(x, since(x, target, unit_of(g, at), longest_wait(state)), target, False, r, False, False)
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
    totals, state, last = g.totals[at.group, at.chunk], g.state[at.kept], 2 if g.signed != 0 else 1
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
