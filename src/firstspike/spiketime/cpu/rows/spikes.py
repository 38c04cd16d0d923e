"""Spike trains: what the forward scan does where neurons spike, between two inputs of a sample.

Lanes are neurons, and everything is in units of their thresholds. A reset from the threshold to ``1 - DROP`` subtracts
DROP from the membrane at the spike, which decays from then on like the membrane itself. In the scaled states of
``rows`` it is a constant, DROP times ``exp(x/tau_mem)`` at the spike: it may be subtracted at the last input already,
and what comes next in the interval is found from there.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.coefficients import BOUND, LEVEL, MEM, RISE, SYN, TANGENT
from firstspike.spiketime.cpu.rows.crossing import (
    CURRENT,
    DRIVE,
    ENOUGH,
    LIMIT,
    NOW_CURRENT,
    NOW_VOLTAGE,
    UNIT,
    VOLTAGE,
    WAIT,
    find_roots,
    peaks_of,
    responses,
)
from firstspike.spiketime.cpu.rows.intervals import AT, DROP, HOLD, LAST, RELEASE, STEEP, record
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.simd import (
    absolute,
    fill16,
    fma,
    load16,
    lowest_bit,
    minimum,
    select,
    store,
)

SHORT = 0.05  # longest interval for series, in units of the faster constant
STRAIGHT = 0.015  # half the change of the slope on the way to the threshold for which the inverse series is exact
_ALL = 0xFFFF


def solve_short(v, drive, minus_a, minus_b):
    """Time to the threshold, ``exp(time/tau_mem)`` and the slope there, from states that reach it soon; how curved.

    Args:
        v: membrane.
        drive: the part of its slope that the current causes.
        minus_a: ``-1/tau_mem``, a number or one for each lane.
        minus_b: ``-1/tau_syn``, likewise.
    """
    raise NotImplementedError


@chosen_by_type(solve_short)
def _overload_solve_short(v, drive, minus_a, minus_b):
    if v.dtype == types.float32:

        def solve(v, drive, minus_a, minus_b):
            d1 = fma(v, minus_a, drive)
            drive = drive * minus_b
            d2 = fma(d1, minus_a, drive)
            drive = drive * minus_b
            d3 = fma(d2, minus_a, drive)
            drive = drive * minus_b
            d4 = fma(d3, minus_a, drive)
            inverse = 1.0 / d1
            u = (1.0 - v) * inverse
            c2, c3, c4 = d2 * inverse * 0.5, d3 * inverse * (1 / 6), d4 * inverse * (1 / 24)
            square = c2 * c2
            third = fma(square, 2.0, c3 * -1.0)
            fourth = c2 * fma(c3, 5.0, square * -5.0) - c4
            s = u * fma(fma(fma(fourth, u, third), u, c2 * -1.0), u, 1.0)
            slope = fma(fma(fma(d4, s * (1 / 3), d3), s * 0.5, d2), s, d1)
            x = s * (minus_a * -1.0)
            growth = fma(fma(fma(fma(x, 0.25, 1.0), x * (1 / 3), 1.0), x * 0.5, 1.0), x, 1.0)
            return s, growth, slope, absolute(c2 * u)

    else:

        def solve(v, drive, minus_a, minus_b):
            d1 = fma(v, minus_a, drive)
            drive = drive * minus_b
            d2 = fma(d1, minus_a, drive)
            drive = drive * minus_b
            d3 = fma(d2, minus_a, drive)
            drive = drive * minus_b
            d4 = fma(d3, minus_a, drive)
            drive = drive * minus_b
            d5 = fma(d4, minus_a, drive)
            drive = drive * minus_b
            d6 = fma(d5, minus_a, drive)
            drive = drive * minus_b
            d7 = fma(d6, minus_a, drive)
            drive = drive * minus_b
            d8 = fma(d7, minus_a, drive)
            drive = drive * minus_b
            d9 = fma(d8, minus_a, drive)
            inverse = 1.0 / d1
            gap = 1.0 - v
            u = gap * inverse
            c2, c3, c4 = d2 * inverse * 0.5, d3 * inverse * (1 / 6), d4 * inverse * (1 / 24)
            square = c2 * c2
            third = fma(square, 2.0, c3 * -1.0)
            fourth = c2 * fma(c3, 5.0, square * -5.0) - c4
            s = u * fma(fma(fma(fourth, u, third), u, c2 * -1.0), u, 1.0)
            for _ in range(2):
                p = fma(fma(fma(fma(d9, s * (1 / 9), d8), s * (1 / 8), d7), s * (1 / 7), d6), s * (1 / 6), d5)
                p = fma(fma(fma(fma(p, s * (1 / 5), d4), s * 0.25, d3), s * (1 / 3), d2), s * 0.5, d1)
                q = fma(fma(fma(fma(d9, s * (1 / 8), d8), s * (1 / 7), d7), s * (1 / 6), d6), s * (1 / 5), d5)
                slope = fma(fma(fma(fma(q, s * 0.25, d4), s * (1 / 3), d3), s * 0.5, d2), s, d1)
                s = s + (gap - p * s) / slope
            x = s * (minus_a * -1.0)
            g = fma(fma(fma(fma(x, 1 / 9, 1.0), x * (1 / 8), 1.0), x * (1 / 7), 1.0), x * (1 / 6), 1.0)
            g = fma(fma(fma(fma(fma(g, x * (1 / 5), 1.0), x * 0.25, 1.0), x * (1 / 3), 1.0), x * 0.5, 1.0), x, 1.0)
            return s, g, slope, absolute(c2 * u)

    return solve


@inlined
def spikes_in_row(
    zero, state, entries, k, candidates, active, holds, rows, arrival, c
):  # fmt: skip
    """Spikes of the lanes ``candidates`` between input k and the next, with scaled states; returns who may go on.

    The states in ``state`` become those from which the membrane after the last spike follows. With ``holds``, lanes
    that spike become refractory.
    """
    mem, syn, rise = rows[MEM, k], rows[SYN, k], rows[RISE, k]
    mem_end, level, level_end = rows[MEM, k + 1], rows[LEVEL, k], rows[LEVEL, k + 1]
    tangent, bound = rows[TANGENT, k], rows[BOUND, k]
    now, duration = arrival[k], arrival[k + 1] - arrival[k]
    a, b = c[PER_MEM], c[PER_SYN]
    short = duration * max(a, b) <= SHORT
    while candidates:
        first = lowest_bit(candidates) & ~15
        bits = (candidates >> np.uint64(first)) & np.uint64(_ALL)
        candidates &= ~(np.uint64(_ALL) << np.uint64(first))
        voltage = load16(state, NOW_VOLTAGE * TILE + first)
        current = load16(state, NOW_CURRENT * TILE + first)
        while bits:
            end = fma(current, rise, voltage)
            crosses = (end >= mem_end) & bits
            if crosses and a == 0:  # rounding may reach what the membrane only approaches
                crosses &= fma(voltage, 1 / mem, current * (1 / syn)) > 1.0
            peaks = (current > voltage * level) & (current * ENOUGH < end * level_end) & bits & ~crosses
            if not (crosses | peaks):
                break
            v, i = voltage * (1 / mem), current * (1 / syn)
            fired, slow = crosses, crosses
            if crosses and short:
                s, growth, slope, curved = solve_short(v, i * b, -a, -b)
                fast = crosses & (curved < STRAIGHT) & (s >= 0.0) & (duration >= s)
                slow = crosses & ~fast
                store(state, AT * TILE + first, s)
                store(state, STEEP * TILE + first, slope)
                spent = growth
            else:
                spent = fill16(state, 1.0)
            if slow | peaks:
                tops = slow
                if peaks:
                    time, height = peaks_of(v, i, c)
                    peaks &= (height >= 1.0) & (duration >= time)
                    tops = slow | peaks
                    fired |= peaks
                    limit = select(peaks, minimum(time, duration), fill16(state, duration))
                else:
                    limit = fill16(state, duration)
                if tops:
                    s, grown, slope = solve_long(zero, state, first, tops, v, i, limit, c)
                    store(state, AT * TILE + first, select(tops, s, load16(state, AT * TILE + first)))
                    store(state, STEEP * TILE + first, select(tops, slope, load16(state, STEEP * TILE + first)))
                    spent = select(tops, grown, spent)
            if not fired:
                break
            voltage = select(fired, voltage - load16(state, DROP * TILE + first) * (spent * mem), voltage)
            full = record(state, entries, k, first, fired, now, arrival[k + 1])
            gone = fired if holds else full
            active &= ~(gone << np.uint64(first))
            if gone:  # the scan need not look at them again
                voltage = select(gone, fill16(state, -math.inf), voltage)
            if holds:
                release = load16(state, LAST * TILE + first) + load16(state, HOLD * TILE + first)
                place = RELEASE * TILE + first
                store(state, place, select(fired & ~full, release, load16(state, place)))
                break
            bits = fired & ~full & (fma(current, tangent, voltage) >= bound)
        store(state, NOW_VOLTAGE * TILE + first, voltage)
    return active


@jit
def solve_long(zero, state, first, fired, v, i, limit, c):
    """Time to the threshold, ``exp(time/tau_mem)`` and the slope there of 16 lanes, in an interval of any length."""
    store(state, VOLTAGE * TILE + first, v)
    store(state, CURRENT * TILE + first, i)
    store(state, LIMIT * TILE + first, limit)
    find_roots(zero, state, fired << np.uint64(first), c)
    s = load16(state, WAIT * TILE + first)
    drive = load16(state, DRIVE * TILE + first) / load16(state, UNIT * TILE + first)
    mem, _, _ = responses(minimum(s, 60.0 / max(c[PER_MEM], c[PER_SYN])), c)
    return s, 1.0 / mem, drive - c[PER_MEM]
