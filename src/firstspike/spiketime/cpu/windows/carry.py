"""The adjoint that 32 lanes carry backward between the events of spike trains, and the gradients of events."""

# mypy: disable-error-code="no-untyped-def"
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, PER_SYN, UNIT
from firstspike.spiketime.cpu.membrane import brief, brief_derivatives, derivatives, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined
from firstspike.spiketime.cpu.vectors.shuffles import fold16
from firstspike.spiketime.cpu.vectors.simd import fma, load32, select, store

# of 32 lanes: y and C at the end, later at the start, and y and C for the weights, without what the bound drops
Y, C, Y_KEPT, C_KEPT = (row * LANES for row in range(4))
# derivatives of C by the logarithms of the time constants; where lanes are, and the spike that y comes from
OF_MEM, OF_SYN, NOW, ORIGIN = (row * LANES for row in range(4, 8))
DUE = 8 * LANES  # the next spike or release back
N_ADJOINT = 9 * LANES
BY_THRESHOLD, BY_MEM, BY_SYN, BY_RESET = range(0, 4 * LANES, LANES)  # sums of a group's gradients, see ``kernels``


class Adjoint(NamedTuple):
    """The adjoint of 32 lanes, in rows as of the state."""

    now: Any
    y: Any
    current: Any
    y_kept: Any
    current_kept: Any
    of_mem: Any
    of_syn: Any
    origin: Any


@inlined
def load_adjoint(rows, at):
    """Load the adjoint from rows like those of the state."""
    return Adjoint(
        load32(rows, at + NOW), load32(rows, at + Y), load32(rows, at + C), load32(rows, at + Y_KEPT),
        load32(rows, at + C_KEPT), load32(rows, at + OF_MEM), load32(rows, at + OF_SYN), load32(rows, at + ORIGIN),
    )  # fmt: skip


@inlined
def store_adjoint(rows, at, x):
    """Into rows like those of the state."""
    store(rows, at + NOW, x.now)
    store(rows, at + Y, x.y)
    store(rows, at + C, x.current)
    store(rows, at + Y_KEPT, x.y_kept)
    store(rows, at + C_KEPT, x.current_kept)
    store(rows, at + OF_MEM, x.of_mem)
    store(rows, at + OF_SYN, x.of_syn)
    store(rows, at + ORIGIN, x.origin)


@inlined
def chosen(bits, x, y):
    """One adjoint or the other."""
    return Adjoint(
        select(bits, x.now, y.now), select(bits, x.y, y.y), select(bits, x.current, y.current),
        select(bits, x.y_kept, y.y_kept), select(bits, x.current_kept, y.current_kept),
        select(bits, x.of_mem, y.of_mem), select(bits, x.of_syn, y.of_syn), select(bits, x.origin, y.origin),
    )  # fmt: skip


@inlined
def back_to(x, target, is_brief, r, unit, longest, bounds, taus):
    """The adjoint at the time ``target``, where that is earlier."""
    wait = min(select(x.now > target, (x.now - target) * unit, 0.0), longest)
    mem, syn, rise = brief(wait, r) if is_brief else responses(wait, r)
    of_mem, of_syn = x.of_mem, x.of_syn
    if taus:
        rise_by_mem, rise_by_syn = brief_derivatives(wait, r) if is_brief else derivatives(wait, r)
        age = select(x.now > target, (x.origin - x.now) * r.mem * unit, 0.0)
        of_mem = fma(of_mem, syn, x.y * fma(age, rise, rise_by_mem))
        of_syn = fma(of_syn, syn, fma(x.current * r.syn * wait, syn, x.y * rise_by_syn))
    current, y = fma(x.current, syn, x.y * rise), x.y * mem
    current_kept, y_kept = current, y
    if bounds:
        current_kept, y_kept = fma(x.current_kept, syn, x.y_kept * rise), x.y_kept * mem
    return Adjoint(min(x.now, target), y, current, y_kept, current_kept, of_mem, of_syn, x.origin)


class Into(NamedTuple):
    """Where the gradients of a group in a sample are added."""

    weight: Any
    by_weight: Any
    by_delay: Any
    by_times: Any
    totals: Any
    rate: Any  # 1/tau_syn


@inlined
def into_of(g, at):
    """The sums of a group's gradients, loaded once for all events."""
    c = g.rates[at.group]
    parts = g.weight_parts[at.group, at.chunk], g.delay_parts[at.group, at.chunk], g.times_parts[at.part, at.b]
    rate = load32(c, PER_SYN * LANES) * c[UNIT, 0]
    return Into(g.packed[at.group], *parts, g.totals[at.group, at.chunk], rate)


@inlined
def add_event(into, window, k, x, inside, delayed, taus):
    """Add an event's gradients with respect to weights and delays, from the adjoint where it arrives.

    Returns 16 partial sums of the gradient with respect to its time.
    """
    place = np.uintp(window.sources[k]) * np.uintp(LANES)  # without a sign, an index needs no test for one below 0
    w, kept = load32(into.weight, place), x.current_kept
    each = (x.current - x.y) * w * into.rate
    if delayed:
        each, kept, w = select(inside, each, 0.0), select(inside, kept, 0.0), select(inside, w, 0.0)
        store(into.by_delay, place, load32(into.by_delay, place) - each)
    store(into.by_weight, place, load32(into.by_weight, place) - kept)
    if taus:
        store(into.totals, BY_MEM, fma(w, x.of_mem, load32(into.totals, BY_MEM)))
        store(into.totals, BY_SYN, fma(w, x.of_syn, load32(into.totals, BY_SYN)))
    return fold16(each)
