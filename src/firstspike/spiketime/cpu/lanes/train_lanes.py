"""Spike trains of 32 neurons of one sample: from the arrays of a call to lanes and back, and the memory of a task."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.lanes import train_adjoint, train_scan
from firstspike.spiketime.cpu.lanes.rates import LANES
from firstspike.spiketime.cpu.lanes.sort import rows_for
from firstspike.spiketime.cpu.lanes.train_adjoint import (
    BY_MEM,
    BY_SYN,
    FIRST,
    HOLD,
    LEVEL,
    OF_LEFT,
    OF_MEM,
    OF_SYN,
    PULL,
    RESET,
    SIZE,
    C,
    Y,
)
from firstspike.spiketime.cpu.lanes.train_scan import CURRENT, DUE, RELEASE, VOLTAGE
from firstspike.spiketime.cpu.runtime.compiling import jit


@jit
def start_lanes(held, threshold, reset, refractory, trains, begin, observes, state, counts):
    """The states of some neurons at the start, in the lanes of ``state``; no spikes yet."""
    for lane in range(LANES):
        state[VOLTAGE + lane] = state[CURRENT + lane] = state[train_scan.RESET + lane] = state[
            train_scan.HOLD + lane
        ] = 0
        state[RELEASE + lane], state[DUE + lane] = -math.inf, math.inf
        counts[lane] = 0
    for lane in range(min(LANES, threshold.size)):
        state[train_scan.RESET + lane], state[train_scan.HOLD + lane] = reset[lane] / threshold[lane], refractory[lane]
        if begin > -math.inf:
            state[VOLTAGE + lane] = held[0, lane] / threshold[lane]
            state[CURRENT + lane] = held[1, lane] / threshold[lane]
            if held[2, lane] > 0:
                state[VOLTAGE + lane], state[RELEASE + lane] = state[train_scan.RESET + lane], begin + held[2, lane]
        if observes and trains.shape[1] > 0:
            state[DUE + lane] = trains[lane, 0]


@jit
def end_lanes(state, stuck, threshold, held, overflows):
    """Write the states at the end."""
    for lane in range(threshold.size):
        held[3, lane] = state[VOLTAGE + lane] * threshold[lane]
        held[4, lane] = state[CURRENT + lane] * threshold[lane]
        held[5, lane] = state[RELEASE + lane]
        overflows[lane] = (stuck >> np.uint64(lane)) & np.uint64(1)


@jit
def neurons_of(state, unit, level, reset, refractory, held, begin, of_end, asks_end):
    """Fill in what the adjoint needs to know of some neurons of a sample."""
    for lane in range(LANES):
        state[SIZE + lane] = state[LEVEL + lane] = 1
        state[RESET + lane] = state[HOLD + lane] = state[Y + lane] = state[C + lane] = state[OF_LEFT + lane] = 0
        state[FIRST + lane] = -math.inf
    for lane in range(min(LANES, reset.size)):
        state[SIZE + lane], state[LEVEL + lane] = unit[lane], level[lane]
        state[RESET + lane], state[HOLD + lane] = reset[lane] / unit[lane], refractory[lane]
        if begin > -math.inf and held[2, lane] > 0:
            state[FIRST + lane] = begin + held[2, lane]
        if asks_end:
            state[Y + lane], state[C + lane] = of_end[0, lane] * unit[lane], of_end[1, lane] * unit[lane]
            state[OF_LEFT + lane] = of_end[2, lane]


@jit
def gradients_by_start(state, counts, unit, held, by_start, taus, totals):
    """Write the gradients by the state of some neurons at the start, and add what it means for time constants."""
    for lane in range(unit.size):
        y, current = state[Y + lane], state[C + lane]
        free = not held[2, lane] > 0
        by_start[0, lane] = y / unit[lane] if free else 0
        by_start[1, lane] = current / unit[lane]
        by_start[2, lane] = -state[PULL + lane]
        if counts[lane] == 0:
            by_start[2, lane] += state[OF_LEFT + lane]
        if taus:
            v, i = held[0, lane] / unit[lane], held[1, lane] / unit[lane]
            if free:
                totals[BY_MEM + lane] += v * state[train_adjoint.OF_Y + lane]
            totals[BY_MEM + lane] += i * state[OF_MEM + lane]
            totals[BY_SYN + lane] += i * state[OF_SYN + lane]


@jit
def lane_memory(real, largest, rows):
    """Working memory of a task: keys, values and, with ``rows``, gradients by the arrivals, and numbers of events."""
    size = rows_for(largest) * LANES
    return (
        np.empty(size, real.dtype), np.empty(size, real.dtype), np.empty(size if rows else 1, real.dtype),
        np.empty(largest + 1, np.int32),
    )  # fmt: skip
