"""Where does a tile's membrane reach the threshold: the exact test of one interval, and the time of the crossing.

Everything here is in units of the threshold, which is 1.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numba
import numpy as np

from firstspike.spiketime.cpu.constants import (
    DELTA,
    FAR,
    HEIGHT,
    PER_MEM,
    PER_RISE,
    PER_SYN,
    RATIO,
    kappa,
    peak,
)
from firstspike.spiketime.cpu.mathfun import exp, expm1
from firstspike.spiketime.cpu.simd import (
    absolute,
    fill16,
    fma,
    load16,
    load64,
    lowest_bit,
    maximum,
    select,
    sqrt,
    store,
)

TILE = 64  # neurons that are scanned together, lanes of one vector
VOLTAGE, CURRENT, LIMIT = range(3)  # what is known of a neuron that fired: the state before, and the latest time
NOW_VOLTAGE, NOW_CURRENT = 3, 4  # the state that is to be tested
N_STATE = 5

_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ENOUGH = 1 - 1e-4
_MAX_STEPS = 60


@numba.njit(cache=True)
def scaled_interval(state, last, k, active, duration, c, syn, rise, mem, level, mem_end, level_end):
    """The test of a row inside a segment; see ``_test`` and ``rows``."""
    return _test(
        state, last, k, active, duration, c, 1.0, rise, mem_end, 1.0, level, level_end, 1 / mem, 1 / syn
    )


@numba.njit(cache=True)
def plain_interval(state, last, k, active, duration, c):
    """The test of an interval from states of scale 1, also of one that does not end; the states move to its end."""
    endless = math.isinf(duration)
    decay_mem = 0.0 if endless and c[PER_MEM] > 0 else math.exp(-duration * c[PER_MEM]) if not endless else 1.0
    decay_syn = 0.0 if endless else math.exp(-duration * c[PER_SYN])
    rise = kappa(duration, c)
    # without a leak an endless interval approaches its end and never gets there
    threshold = 1 + np.finfo(state.dtype).eps if endless and c[PER_MEM] == 0 else 1.0
    falling = -1.0 if duration > c[FAR] else decay_syn
    active = _test(
        state, last, k, active, duration, c, decay_mem, rise, threshold, falling, c[RATIO], c[RATIO], 1.0, 1.0
    )
    voltage, current = load64(state, NOW_VOLTAGE * TILE), load64(state, NOW_CURRENT * TILE)
    store(state, NOW_VOLTAGE * TILE, fma(voltage, decay_mem, current * rise))
    store(state, NOW_CURRENT * TILE, current * decay_syn)
    return active


@numba.njit(cache=True)
def _test(
    state, last, k, active, duration, c, decay, rise, threshold, decay_syn, level, level_end, unit_mem, unit_syn
):
    """Find the lanes that reach the threshold in the interval after row k, note their state, return those that do not.

    A lane does if it ends above the threshold, or if it rises first and falls at the end, and its peak is high enough.
    """
    voltage, current = load64(state, NOW_VOLTAGE * TILE), load64(state, NOW_CURRENT * TILE)
    end = fma(voltage, decay, current * rise)
    crosses = (end >= threshold) & active
    peaks = (current > voltage * level) & (current * decay_syn < end * level_end) & active & ~crosses
    high = current * (unit_syn * c[HEIGHT])
    peaks &= (high >= _ENOUGH) & (fma(voltage, unit_mem, high) >= _ENOUGH) | (high >= _ENOUGH)
    while peaks:
        lane = lowest_bit(peaks)
        peaks &= peaks - np.uint64(1)
        time, height = peak(
            state[NOW_VOLTAGE, lane] * unit_mem, state[NOW_CURRENT, lane] * unit_syn, c
        )
        if height >= 1:
            crosses |= np.uint64(1) << np.uint64(lane)
            state[LIMIT, lane] = min(time, duration)
    fired = crosses
    while crosses:
        lane = lowest_bit(crosses)
        crosses &= crosses - np.uint64(1)
        last[lane] = k
    return active & ~fired


@numba.njit(cache=True)
def solve(state, last, fired, arrival, n, c, spikes, slopes):
    """Spike times and slopes ``dV/dt`` of the tile's lanes: ``inf`` and 0 where they did not fire."""
    for first in range(0, TILE, 16):
        bits = (fired >> np.uint64(first)) & np.uint64(0xFFFF)
        if bits:
            _solve16(state, first, bits, c, spikes, slopes)
        for lane in range(first, first + 16):
            k = last[lane]
            if k < 0:
                spikes[lane], slopes[lane] = math.inf, 0
                continue
            spike = arrival[k] + spikes[lane]
            if not spike > arrival[k]:  # too soon after the input for the floats: the input stays causal
                spike = arrival[k] + max(abs(arrival[k]) * np.finfo(arrival.dtype).eps, np.finfo(arrival.dtype).tiny)
            spikes[lane] = min(spike, arrival[k + 1]) if k + 1 < n else spike


@numba.njit(cache=True)
def _solve16(state, first, bits, c, waits, slopes):
    """Root of ``V(s) = 1`` in 16 lanes: steps to the root of the parabola in s, between bounds.

    Each step costs one ``exp`` and one ``expm1``, as Newton's would, and triples the digits.
    """
    voltage, current = load16(state, VOLTAGE * TILE + first), load16(state, CURRENT * TILE + first)
    low, high = fill16(state, 0.0), load16(state, LIMIT * TILE + first)
    one = fill16(state, 1.0)
    slower, rate = min(c[PER_MEM], c[PER_SYN]), abs(c[DELTA])
    leaks_slower = c[PER_MEM] <= c[PER_SYN]
    tolerance = 1e-3 if state.itemsize == 4 else 1e-6
    s = low
    value, drive = voltage, current * c[PER_SYN]
    for _ in range(_MAX_STEPS):
        slope = drive - value * c[PER_MEM]
        curve = drive * -c[PER_SYN] - slope * c[PER_MEM]
        gap = one - value
        before = (gap > 0.0) & (slope > 0.0)
        low, high = select(before, s, low), select(before, high, s)
        step = gap * 2.0 / (slope + sqrt(maximum(slope * slope + curve * gap * 2.0, 0.0)))
        following = s + step
        inside = (following >= low) & (high >= following)
        following = select(inside, following, (low + high) * 0.5)
        moves = (absolute(following - s) > absolute(following) * tolerance) & bits
        s = following
        slow = exp(s * -slower)
        grown = expm1(s * -rate) * -1.0
        fast = slow - slow * grown
        response = slow * grown * abs(c[PER_RISE])
        if leaks_slower:
            value, drive = fma(voltage, slow, current * response), current * fast * c[PER_SYN]
        else:
            value, drive = fma(voltage, fast, current * response), current * slow * c[PER_SYN]
        if not moves:
            break
    store(waits, first, s)
    store(slopes, first, drive - c[PER_MEM])
