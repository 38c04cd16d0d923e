"""The adjoint that 32 lanes carry backward between events, and the gradients of inputs.

With ``y = dL/dV`` and ``q = dL/dI`` of a current I, in units of the neurons, over a time s

    y -> y exp(-s/tau_mem),      q -> q exp(-s/tau_syn) + y kappa(s)

An input of weight w adds q to the gradient with respect to its weight, and ``w (q - y)/tau_syn`` to that by its time.
Derivatives of y and q by the logarithms of the time constants are carried as well, at fixed spikes: the loss by these
is the sum of those of q times all weights that arrive, and of those of y times all membranes that something starts at.
"""

# mypy: disable-error-code="no-untyped-def"
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, saved_of
from firstspike.spiketime.cpu.lanes.state import recurs
from firstspike.spiketime.cpu.membrane import brief, brief_derivatives, derivatives, responses
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.shuffles import fold16, sum_rows16
from firstspike.spiketime.cpu.vectors.simd import fma, load32, select, store

# rows of 32 lanes that are carried: where lanes are, and their next event back; y, y for the weights without what the
# bound drops, and its derivative by log(tau_mem)
NOW, DUE, Y, Y_KEPT, OF_Y = (row * LANES for row in range(5))
# then of each component: q likewise, and its derivatives by log(tau_mem), by the logarithms of its own time constant,
# and, of a rise, by that of its synapse
Q, Q_KEPT, OF_MEM, OF_OWN, OF_NEXT = (row * LANES for row in range(5))
PARTS, EACH = 5 * LANES, 5 * LANES
# sums of a group's gradients, see ``kernels``; then each component's by the logarithm of its time constant and its jump
BY_THRESHOLD, BY_RESET, BY_MEM, BY_BIAS, BY_HOLD, BY_PARTS = (row * LANES for row in range(6))

# rows of 32 lanes after those of the adjoint: what releases owe to spikes, and that for the weights; units, thresholds
# and resets in them, refractory times, releases at the start, the factor of a spike that the bound may
# drop, and for ``fill_largest`` spikes and when membranes start before them
OWED, OWED_KEPT, SIZE, LEVEL, RESET, HOLD, FIRST, FACTOR, SPIKE, BEFORE = (row * LANES for row in range(10))
N_OTHERS = 10 * LANES
LEFT, RELEASES = 0, LANES  # whole numbers: spikes that are left, whether what is DUE is a release


class Adjoint(NamedTuple):
    """The adjoint of 32 lanes, of one component."""

    now: Any
    y: Any
    y_kept: Any
    of_y: Any
    q: Any
    q_kept: Any
    of_mem: Any
    of_own: Any


@inlined
def load_adjoint(rows, at, k):
    """Load the adjoint of a component."""
    part = at + PARTS + k * EACH
    return Adjoint(
        load32(rows, at + NOW), load32(rows, at + Y), load32(rows, at + Y_KEPT), load32(rows, at + OF_Y),
        load32(rows, part + Q), load32(rows, part + Q_KEPT), load32(rows, part + OF_MEM), load32(rows, part + OF_OWN),
    )  # fmt: skip


@inlined
def store_adjoint(rows, at, k, x):
    """Store the adjoint of a component."""
    part = at + PARTS + k * EACH
    store(rows, at + NOW, x.now)
    store(rows, at + Y, x.y)
    store(rows, at + Y_KEPT, x.y_kept)
    store(rows, at + OF_Y, x.of_y)
    store(rows, part + Q, x.q)
    store(rows, part + Q_KEPT, x.q_kept)
    store(rows, part + OF_MEM, x.of_mem)
    store(rows, part + OF_OWN, x.of_own)


@inlined
def chosen(bits, x, z):
    """One adjoint or the other."""
    return Adjoint(
        select(bits, x.now, z.now), select(bits, x.y, z.y), select(bits, x.y_kept, z.y_kept),
        select(bits, x.of_y, z.of_y), select(bits, x.q, z.q), select(bits, x.q_kept, z.q_kept),
        select(bits, x.of_mem, z.of_mem), select(bits, x.of_own, z.of_own),
    )  # fmt: skip


@inlined
def since(x, target, unit, longest):
    """The time from ``target`` to where the lanes are, in the unit of the group; 0 if that is earlier."""
    return min(select(x.now > target, (x.now - target) * unit, 0.0), longest)


@inlined
def back_to(x, wait, target, is_brief, r, bounds, taus):
    """The adjoint a time ``wait`` before, at ``target`` where that is earlier."""
    of_y, of_mem, of_own = x.of_y, x.of_mem, x.of_own
    if not taus:
        mem, own, rise = brief(wait, r) if is_brief else responses(wait, r)
    else:
        mem, own, rise, by_mem, by_own = brief_derivatives(wait, r) if is_brief else derivatives(wait, r)
        of_mem = fma(of_mem, own, fma(of_y, rise, x.y * by_mem))
        of_own = fma(of_own, own, fma(x.q * r.syn * wait, own, x.y * by_own))
        of_y = fma(x.y * r.mem, wait, of_y) * mem
    q, y = fma(x.q, own, x.y * rise), x.y * mem
    q_kept, y_kept = q, y
    if bounds:
        q_kept, y_kept = fma(x.q_kept, own, x.y_kept * rise), x.y_kept * mem
    return Adjoint(min(x.now, target), y, y_kept, of_y, q, q_kept, of_mem, of_own)


class Into(NamedTuple):
    """Where the gradients of a group in a sample are added."""

    weight: Any
    by_weight: Any
    by_delay: Any
    by_times: Any
    totals: Any


@inlined
def into_of(g, at):
    """The sums of a group's gradients, loaded once for all events."""
    parts = g.weight_parts[at.group, at.chunk], g.delay_parts[at.group, at.chunk], g.times_parts[at.part, at.b]
    return Into(g.packed[at.group], *parts, g.totals[at.group, at.chunk])


@inlined
def add_input(into, i, x, fed, rate, w, inside, delayed):
    """Add the gradients with respect to an input's weight and delay, from the adjoint where it arrives.

    ``fed`` is the adjoint of what the reached component feeds. Lanes that are not ``inside`` have no weight. Returns 16
    partial sums of that by the input's time.
    """
    place = np.uintp(i) * np.uintp(LANES)  # without a sign, an index needs no test for one below 0
    each, kept = (x.q - fed) * w * rate, x.q_kept
    if delayed:
        kept = select(inside, kept, 0.0)
        store(into.by_delay, place, load32(into.by_delay, place) - each)
    store(into.by_weight, place, load32(into.by_weight, place) - kept)
    return fold16(each)


@jit
def add_sums(sums, events, by_times, number):
    """Add the sums of up to 16 events."""
    store(sums, 256, sum_rows16(sums, 0))
    for row in range(number):
        by_times[np.uintp(events[row])] += sums[256 + row]


@inlined
def add_event(sums, events, by_times, number, event, row):
    """Note the 16 partial sums of an event, and add those of 16 events at once. Returns how many are left to add."""
    store(sums, number * 16, row)
    events[number] = event
    if number < 15:
        return number + 1
    add_sums(sums, events, by_times, 16)
    return 0


@chosen_by_type
def event_at(g, at, k):
    """The number of the input that is ``k``th in the order of all neurons."""
    if recurs(g):
        return lambda g, at, k: at.window.events[k]
    if g.kind[2]:
        return lambda g, at, k: g.order[at.b, k]
    return lambda g, at, k: saved_of(g, at.b).order[k]
