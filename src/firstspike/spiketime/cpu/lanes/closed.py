"""The flow of a neuron with one current that jumps: while its membrane rises it is concave, see ``membrane``."""

# mypy: disable-error-code="no-untyped-def"
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import FLAT, LANES, named_rates, rates_in
from firstspike.spiketime.cpu.lanes.adjoint import (
    BY_MEM,
    BY_PARTS,
    DUE,
    EACH,
    PARTS,
    back_to,
    chosen,
    load_adjoint,
    since,
    store_adjoint,
)
from firstspike.spiketime.cpu.lanes.state import BUFFERS, RESET, UP, longest_wait, unit_of
from firstspike.spiketime.cpu.membrane import brief, crossings, exact_slope, reaches, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, load32, lowest_bit, select, store


class State(NamedTuple):
    """The membrane and the current."""

    voltage: Any
    current: Any


@inlined
def constants(g, at):
    return rates_in(g.rates[at.group, 0])


@inlined
def at_rest(g, at, number):
    return State(fill32(g.state, 0.0), fill32(g.state, 0.0))


@inlined
def loaded(g, at, number):
    rows, place = g.state[at.kept], BUFFERS + number * 2 * LANES
    return State(load32(rows, place), load32(rows, place + LANES))


@inlined
def stored(g, at, x):
    store(g.state[at.kept], BUFFERS, x.voltage)
    store(g.state[at.kept], BUFFERS + LANES, x.current)
    return 0


@inlined
def receive(g, at, x, receptor, w):
    return State(x.voltage, x.current + w)


@inlined
def step(g, at, c, x, wait, is_brief):
    mem, syn, rise = brief(wait, c) if is_brief else responses(wait, c)
    # while V rises it is concave, and stays below its tangent
    tangent = fma(fma(x.voltage, c.mem * -1.0, x.current * c.syn), wait, x.voltage)
    drive = x.current * c.syn * wait
    return State(fma(x.voltage, mem, x.current * rise), x.current * syn), max(tangent, x.voltage), max(drive, 0.0)


@inlined
def step_after(g, at, c, x, k, wait, is_brief):
    return step(g, at, c, x, wait, is_brief)


@inlined
def pass_quiet(g, at, c, x, k, n, keys, values, source, active):
    return k, receive(g, at, x, 0, load32(values, np.intp(source[k]) * LANES))


@inlined
def add_up(g, at, x, sums, place, size):
    return State(x.voltage + load32(sums, place), x.current + load32(sums, place + 2 * size))


@inlined
def above(g, at, x):
    return x.voltage >= 1.0


@inlined
def decide(g, at, c, x, after, wait, candidates):
    fires, limit = (after.voltage >= 1.0) & candidates, wait
    leaks = (max(x.voltage * 0.0, c.mem) > 0.0) != 0
    if candidates & ~fires or not leaks:
        fires, limit = reaches(x.voltage, x.current, wait, after.voltage, after.current, candidates, c)
    return fires, np.uint64(0), limit


@inlined
def solve(g, at, c, x, limit, lanes):
    s, drive = crossings(x.voltage, x.current, limit, lanes, c)
    return lanes, s, drive - c.mem


@inlined
def leap(g, at, c, x, after, s, wait, slope, lanes, holds):
    reset = load32(g.state[at.kept], RESET)
    store(g.state[at.kept], UP, fma(reset * -1.0 + 1.0, c.mem, slope))
    voltage = after.voltage - (reset * -1.0 + 1.0) * exp((s - wait) * c.mem)
    return State(select(lanes, select(holds, reset, voltage), after.voltage), after.current)


@inlined
def to_spike(g, at, c, x, s, is_brief):
    return State(x.voltage, x.current * exp(s * c.syn * -1.0))


@inlined
def slope_of(g, at, c, x):
    return x.current * c.syn - c.mem


@inlined
def up_of(g, at, c, x):
    return x.current * c.syn - c.mem * load32(g.state[at.kept], RESET)


@inlined
def held(g, at, x, lanes):
    return State(select(lanes, load32(g.state[at.kept], RESET), x.voltage), x.current)


@inlined
def jumped(g, at, x, lanes):
    return x


@inlined
def merge(g, at, lanes, x, y):
    return State(select(lanes, x.voltage, y.voltage), select(lanes, x.current, y.current))


@inlined
def settled(g, at, spike, slope, lanes):
    c, unit, sums = g.rates[at.group, 0], unit_of(g, at), g.sums[at.slot]
    steep = slope * (1 / unit)
    r = named_rates(c)
    flat = (steep * steep < r.mem * r.syn * FLAT) & (abs(steep) > 0.0) & lanes
    if flat:
        store(sums, 0, slope)
        while flat:
            lane = lowest_bit(flat)
            flat &= flat - np.uint64(1)
            sums[lane] = slope_in_full(g, at, lane)
        slope = load32(sums, 0)
    return slope


@jit
def slope_in_full(g, at, lane):
    """The slope of a lane at its spike, in double precision."""
    j, c = at.first + lane, named_rates(g.rates[at.group, 0])[lane]
    times, weight, spike, level = g.times[at.b], g.packed[at.group, lane:], g.spikes[at.b, j, 0], g.level[at.e, j]
    unit = unit_of(g, at)
    units = unit, level
    if g.delayed > 0:
        delay = g.delays[at.group, lane:]
        return exact_slope(times, None, weight, delay, LANES, c, spike, units) * unit / level
    return exact_slope(times, None, weight, None, LANES, c, spike, units) * unit / level


@inlined
def reload(g, at):
    return load_adjoint(g.state[at.kept], 0, 0)


@inlined
def now_of(g, at, x):
    return x.now


@inlined
def save(g, at, x, rows, place):
    store_adjoint(rows, place, 0, x)


@inlined
def back(g, at, c, x, target, is_brief, bounds, taus):
    wait = since(x, target, unit_of(g, at), longest_wait(g.state))
    return back_to(x, wait, target, is_brief, c, bounds, taus)


@inlined
def reached(g, at, c, x, i, w):
    return x, x.y, c.syn


@inlined
def piece_at(g, at, first):
    return load_adjoint(g.pieces[at.kept], first, 0)


@inlined
def back_at(g, at, c, last, first, size, target, inside, i, w, bounds, taus):
    pieces, x = g.pieces[at.kept], last
    for piece in range(first + PARTS + EACH, size, PARTS + EACH):
        earlier = load32(pieces, piece - PARTS - EACH + DUE) > target
        if earlier & inside:
            x = chosen(earlier, load_adjoint(pieces, piece, 0), x)
    x = back(g, at, c, x, target, False, bounds, taus)
    return x, x.y, c.syn


@inlined
def add_taus(g, at, x, place, i, w):
    totals = g.totals[at.group, at.chunk]
    store(totals, BY_MEM, fma(w, x.of_mem, load32(totals, BY_MEM)))
    store(totals, BY_PARTS, fma(w, x.of_own, load32(totals, BY_PARTS)))


@inlined
def pass_back(g, at, c, k, due, keys, source):
    return k
