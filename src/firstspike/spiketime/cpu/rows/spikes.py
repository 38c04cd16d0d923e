"""Spike trains: what the forward scan does where neurons spike, between two inputs of a sample.

Lanes are neurons, and everything is in units of their thresholds. A reset from the threshold to ``1 - DROP`` subtracts
DROP from the membrane at the spike, which decays from then on like the membrane itself. In the scaled states of
``coefficients`` it is a constant, DROP times ``exp(x/tau_mem)`` at the spike: it may be subtracted at the last input
already, and what comes next in the interval is found from there.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN
from firstspike.spiketime.cpu.membrane import SHORT, STRAIGHT, rates_of, reaches_scaled, responses, soon
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.coefficients import BOUND, MEM, RISE, TANGENT
from firstspike.spiketime.cpu.rows.crossing import (
    CURRENT,
    DRIVE,
    LIMIT,
    NOW_CURRENT,
    NOW_VOLTAGE,
    UNIT,
    VOLTAGE,
    WAIT,
    find_roots,
    scale_of,
)
from firstspike.spiketime.cpu.rows.intervals import AT, DROP, HOLD, LAST, RELEASE, STEEP, record
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill16, fma, load16, lowest_bit, maximum, minimum, select, store

_ALL = 0xFFFF


@inlined
def spikes_in_row(zero, state, entries, k, candidates, active, holds, rows, arrival, c):
    """Spikes of the lanes ``candidates`` between input k and the next, with scaled states; returns who may go on.

    The states in ``state`` become those from which the membrane after the last spike follows. With ``holds``, lanes
    that spike become refractory.
    """
    r, scale, mem, rise, tangent, bound = (
        rates_of(c), scale_of(rows, k), rows[MEM, k], rows[RISE, k], rows[TANGENT, k], rows[BOUND, k]
    )  # fmt: skip
    now, wait = arrival[k], fill16(rows, arrival[k + 1] - arrival[k])
    short = (arrival[k + 1] - now) * r.faster <= SHORT
    while candidates:
        first = lowest_bit(candidates) & ~15
        bits = (candidates >> np.uint64(first)) & np.uint64(_ALL)
        candidates &= ~(np.uint64(_ALL) << np.uint64(first))
        voltage = load16(state, NOW_VOLTAGE * TILE + first)
        current = load16(state, NOW_CURRENT * TILE + first)
        while bits:
            end = fma(current, rise, voltage)
            fired, limit = reaches_scaled(voltage, current, wait, end, current, bits, r, scale)
            if not fired:
                break
            v, i, slow, spent = voltage * scale.mem, current * scale.syn, fired, fill16(state, 1.0)
            if short:
                s, spent, slope, curved = soon(v, i, r)
                slow &= ~((curved < STRAIGHT) & (s >= 0.0) & (limit >= maximum(s, wait)))
                store(state, AT * TILE + first, s)
                store(state, STEEP * TILE + first, slope)
            if slow:
                s, grown, slope = solve_long(zero, state, first, slow, v, i, limit, c)
                store(state, AT * TILE + first, select(slow, s, load16(state, AT * TILE + first)))
                store(state, STEEP * TILE + first, select(slow, slope, load16(state, STEEP * TILE + first)))
                spent = select(slow, grown, spent)
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
    mem, _, _ = responses(minimum(s, 60.0 / max(c[PER_MEM], c[PER_SYN])), rates_of(c))
    return s, 1.0 / mem, drive - c[PER_MEM]
