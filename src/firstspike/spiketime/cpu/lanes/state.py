"""Of 32 neurons that are worked on together: their task, the rows of what is known of them, and units.

Forward, everything is in units of the neurons' thresholds, and of the group's own unit of time in which no rate exceeds
1. Backward, the unit of a neuron is a power of two, see ``arrays``.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    ANY,
    BRIEF,
    DOUBLE,
    EQUAL,
    LANES,
    every_lane,
    named_rates,
)
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, store

# a component in kernels: what is of the neuron's own has the opposite sign, so that all add to the membrane
SYNAPSE, RISE, THRESHOLD, BIAS = range(4)

# rows of 32 lanes: the end of the refractory time, the next spike that was observed, spikes that are to be noted (time,
# slope of V - threshold, dV/dt behind them), and constants. Then buffers of states, each V and the components
RELEASE, DUE, TIME, SLOPE, UP, RESET, HOLD = (row * LANES for row in range(7))
BUFFERS = 7 * LANES
# two pairs to step between, for the walk and for the search; for states at spikes, and for what is kept for the end
NOW, SEARCH, AT_SPIKE, KEPT = 0, 2, 4, 5
N_BUFFERS = 6
FORCED, FIXED = -1.0, 0.0  # in place of slopes: a spike at a release; one that nothing moves


class At(NamedTuple):
    """The task of a thread: a group of neurons in a sample. Groups and samples are counted through all networks."""

    slot: Any  # number of the thread
    e: Any  # network
    b: Any  # sample
    group: Any
    first: Any  # the group's first neuron
    every: Any  # lanes that have a neuron
    chunk: Any  # backward: those samples, and those groups, whose gradients are summed together
    part: Any
    kept: Any  # where what is kept of the group stands
    begin: Any  # the time that it is taken through
    end: Any
    window: Any  # of recurrent layers, see ``windows``; otherwise None


def recurs(g: Any) -> bool:
    """Whether a kernel, of whose arguments this is the type, is of recurrent layers."""
    return len(g.kind) > 3


@inlined
def at_of(g, slot, e, b, place, chunk, part):
    """A group of a network in a sample."""
    every = every_lane(min(LANES, g.outputs - place * LANES))
    group = e * g.groups + place
    return At(slot, e, b, group, place * LANES, every, chunk, part, slot, g.bounds[0], g.bounds[1], None)


@jit
def fill_rates(g, e, first, lanes, c):
    """Fill ``c (count, N_RATES, LANES)`` for the neurons from ``first`` on, with the pair of constants of a component.

    That is the leak and the component, but of a rise the synapse that it feeds and itself. ``unit`` is how many units
    of time of the group are 1, a power of two above all rates. Intervals up to ``brief_end`` are ``brief``. Lanes
    without a neuron are like the last one. Time constants that stand alone are those of all neurons.
    """
    tiny, fastest, last, start = 1e-10 if c.itemsize == 4 else 1e-20, 0.0, g.taus - 1, e * g.outputs + first
    for lane in range(lanes):
        j = min(start + lane, start - first + g.outputs - 1, last)
        fastest = max(fastest, 1 / np.float64(g.mem[j]))
        for k in range(g.count):
            fastest = max(fastest, 1 / np.float64(g.syn[j, k]))
    unit = math.ldexp(1.0, math.frexp(fastest)[1])
    for k in range(g.count):
        equal = double = True
        for lane in range(lanes):
            j = min(start + lane, start - first + g.outputs - 1, last)
            syn = np.float64(g.syn[j, k])
            mem = np.float64(g.syn[j, k + 1]) if g.kinds[k] == RISE else np.float64(g.mem[j])
            ratio = 1.0 if g.kinds[k] == BIAS else syn / mem
            a, b, x = 1 / mem / unit, 1 / syn / unit, 1 - ratio
            wide = abs(x) if abs(x) > tiny else tiny
            top = math.inf if ratio == 0 else 1.0 if x == 0 else -math.log(ratio) / x
            r = named_rates(c[k])[lane]
            r.mem, r.syn, r.delta, r.per_rise = a, b, wide * b, 1 / wide
            r.rest_mem, r.rest_syn = a - np.float64(r.mem), b - np.float64(r.syn)
            r.ratio, r.x, r.top, r.height = ratio, x, top, 1.0 if ratio == 0 else math.exp(-top * ratio)
            equal &= abs(x) <= tiny
            double &= r.delta == min(r.mem, r.syn)
        # only of a whole layer's, so that the digits of a neuron do not depend on its neighbours
        r = named_rates(c[k])[0]
        r.kind = ANY if g.taus > 1 else EQUAL if equal else DOUBLE if double else ANY
        r.unit, r.brief_end = unit, BRIEF / (fastest / unit)


@inlined
def unit_of(g, at):
    """How many units of time of a group are 1."""
    return named_rates(g.rates[at.group, 0])[0].unit


@jit
def longest_wait(c):
    """A time after which nothing is left, and whose exponentials are numbers."""
    return 1e30 if c.itemsize == 4 else 1e250


@jit
def start_rows(g, at, observes):
    """Fill in what is known of 32 neurons at the start, and their state in the first buffer."""
    rows, fixed, begin = g.state[at.kept], g.fixed[at.group], g.bounds[0]
    none, never = fill32(rows, 0.0), fill32(rows, math.inf)
    store(rows, RELEASE, never * -1.0)
    store(rows, DUE, never)
    store(rows, RESET, load32(fixed, 0))
    store(rows, HOLD, load32(fixed, LANES))
    for row in range(0, (1 + g.count) * LANES, LANES):
        store(rows, BUFFERS + row, none)
    if g.biased != 0:
        store(rows, BUFFERS + g.count * LANES, load32(fixed, 2 * LANES))
    g.counts[at.kept] = 0
    if g.starts == 0 and not observes:
        return
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        threshold = g.threshold[at.e, j]
        if g.starts != 0:
            rows[BUFFERS + lane] = g.voltage[at.b, j] / threshold
            for k in range(g.variables):
                rows[BUFFERS + (1 + k) * LANES + lane] = g.current[at.b, j, k] / threshold
            if g.left[at.b, j] > 0:
                rows[RELEASE + lane] = begin + g.left[at.b, j]
                if g.resets != 0:
                    rows[BUFFERS + lane] = rows[RESET + lane]
        if observes:
            rows[DUE + lane] = g.spikes[at.b, j, 0]


@jit
def end_rows(g, at, buffer, stuck):
    """Write the states at the end, which begin at ``buffer``, and who would spike more often."""
    rows, end = g.state[at.kept], g.bounds[1]
    for lane in range(min(LANES, g.outputs - at.first)):
        j, full = at.first + lane, (stuck >> np.uint64(lane)) & np.uint64(1) != 0
        threshold = g.threshold[at.e, j]
        g.numbers[at.b, j], g.overflows[at.b, j] = g.counts[at.kept, lane], g.overflows[at.b, j] | full
        if g.ends != 0 and not at.end < end:
            g.end_voltage[at.b, j] = rows[buffer + lane] * threshold
            for k in range(g.variables):
                g.end_current[at.b, j, k] = rows[buffer + (1 + k) * LANES + lane] * threshold
            g.end_left[at.b, j] = 0 if full else max(rows[RELEASE + lane] - end, 0)
