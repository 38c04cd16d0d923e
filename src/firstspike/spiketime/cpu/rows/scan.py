"""The scans of a tile of neurons through a sample's inputs in order of arrival: to first spikes, and without an end.

The scans of few inputs, and of many with short intervals, are in ``few`` and ``fast``.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.membrane import ENOUGH
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.coefficients import BOUND, MEM, RISE, SYN, TANGENT
from firstspike.spiketime.cpu.rows.crossing import NOW_CURRENT, NOW_VOLTAGE, plain_interval, scaled_interval
from firstspike.spiketime.cpu.rows.intervals import RELEASE, earliest_due, lanes_due, released_in_row, spikes_between
from firstspike.spiketime.cpu.rows.spikes import spikes_in_row
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.masks import any_reaches
from firstspike.spiketime.cpu.vectors.simd import fma, load, select, store


@jit
def scan_tile(zero, packed, sample, active, c, state, last):
    """Scan one sample with the neurons ``active``; returns those that stay silent."""
    order, arrival, rows = sample.order, sample.arrival, sample.rows
    syn, rise, tangent, bound = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND]
    mem = rows[MEM]
    voltage = current = zero
    begin = 0
    for segment in range(sample.segments):
        end = sample.ends[segment]
        for row in range(begin, end - 1):
            k = np.uintp(row)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            if rise[k] == 0:
                continue  # the next input arrives at the same time
            candidates = (fma(current, tangent[k], voltage) >= bound[k]) & active
            if candidates:
                store(state, NOW_VOLTAGE * TILE, voltage)
                store(state, NOW_CURRENT * TILE, current)
                active = scaled_interval(zero, state, last, row, active, sample, c)
                if not active:
                    return active
            voltage = fma(current, rise[k], voltage)
        k = end - 1
        current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
        active, voltage, current = plain_interval(
            zero, state, last, k, active, arrival, segment == sample.segments - 1, c, voltage * (1 / mem[k]),
            current * (1 / syn[k]),
        )  # fmt: skip
        if not active:
            return active
        begin = end
    return active


@jit
def scan_trains(zero, packed, sample, stops, every, holds, c, state, entries, observed):
    """Spikes of a tile's lanes ``every`` in one window, from the states NOW, which become those at its last event.

    With ``stops``, nothing happens after the last event. With ``holds``, neurons may be refractory, or their spikes be
    ``observed``.
    """
    source, arrival, rows, segments = sample.order, sample.arrival, sample.rows, sample.segments
    syn, rise, tangent, bound, mem = rows[SYN], rows[RISE], rows[TANGENT], rows[BOUND], rows[MEM]
    near = arrival.dtype.type(ENOUGH)
    active, tested, begin, due_at = every, every, 0, arrival.dtype.type(math.inf)
    if holds:
        active &= ~_refractory_lanes(state)
        if observed.shape[0] > 0:
            tested = np.uint64(0)
            active = _before_inputs(zero, state, entries, active, every, arrival[0], c, observed)
        due_at = earliest_due(zero, state)
    for segment in range(segments):
        end = sample.ends[segment]
        voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
        for k in range(begin, end - 1):
            at = np.uintp(k)  # without a sign, an index needs no test for one below 0
            current = fma(load(zero, packed, np.intp(source[at]) * TILE), syn[at], current)
            following = fma(current, rise[at], voltage)
            # the coarse test of ``coefficients``; rise is 0 where the next input arrives at the same time
            if any_reaches(following, mem[at] * near) and rise[at] > 0:
                candidates = (fma(current, tangent[at], voltage) >= bound[at]) & active & tested
                if candidates:
                    store(state, NOW_VOLTAGE * TILE, voltage)
                    store(state, NOW_CURRENT * TILE, current)
                    active = spikes_in_row(zero, state, entries, k, candidates, active, holds, rows, arrival, c)
                    voltage = load(zero, state, NOW_VOLTAGE * TILE)
                    following = fma(current, rise[at], voltage)
                    if holds:
                        due_at = earliest_due(zero, state)
            if holds and rise[at] > 0 and arrival[at + np.uintp(1)] >= due_at:
                store(state, NOW_VOLTAGE * TILE, voltage)
                store(state, NOW_CURRENT * TILE, current)
                due = lanes_due(zero, state, arrival[k + 1]) & every
                active, due = released_in_row(
                    state, entries, k, active, due, arrival[k], arrival[k + 1], syn[k], rise[k], mem[k + 1], c
                )
                voltage = load(zero, state, NOW_VOLTAGE * TILE)
                following = fma(current, rise[at], voltage)
                if due:
                    store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
                    store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
                    active = spikes_between(
                        zero, state, entries, k, active, due, True, arrival[k], arrival[k + 1], c, observed
                    )
                    after = load(zero, state, NOW_VOLTAGE * TILE) * mem[k + 1] - current * rise[k]
                    following = select(due & active, fma(current, rise[at], after), following)
                due_at = earliest_due(zero, state)
            voltage = following
        k = end - 1
        current = fma(load(zero, packed, np.intp(source[k]) * TILE), syn[k], current)
        store(state, NOW_VOLTAGE * TILE, voltage * (1 / mem[k]))
        store(state, NOW_CURRENT * TILE, current * (1 / syn[k]))
        if segment < segments - 1 or not stops:
            until = arrival[end] if segment < segments - 1 else arrival.dtype.type(math.inf)
            active = spikes_between(zero, state, entries, k, active, every, holds, arrival[k], until, c, observed)
            if holds:
                due_at = earliest_due(zero, state)
        begin = end


@jit
def _refractory_lanes(state):
    """Lanes that are refractory."""
    held = np.uint64(0)
    for lane in range(TILE):
        held |= np.uint64(state[RELEASE, lane] < math.inf) << np.uint64(lane)
    return held


@jit
def _before_inputs(zero, state, entries, active, every, first, c, observed):
    """Observed spikes before the first event: they cannot be the membrane's, but reset it."""
    start = earliest_due(zero, state)
    if start >= first:
        return active
    return spikes_between(zero, state, entries, -1, active, every, True, start, first, c, observed)
