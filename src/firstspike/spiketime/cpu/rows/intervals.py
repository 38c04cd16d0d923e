"""Intervals between two inputs: numbers that all neurons of a sample share, and where a membrane crosses the threshold.

The numbers are one set for each input ("row") in order of arrival. The exact test of an interval, and the time of the
crossing, are in units of the threshold, which is 1.

With the time ``x = t - t_0`` since the first input of its *segment*, scaled states need no decay from row to row:

    U = exp(x/tau_mem),   S = exp(x/tau_syn),        V' = V U,   Q' = Q S
    Q'_k = Q'_{k-1} + w_k S_k,        V'_{k+1} = V'_k + Q'_k RISE_k        (D: time to the next input)
    RISE_k = (1 - exp(-D DELTA)) / (DELTA tau_syn) * U_k / S_k

A segment ends before ``exp`` gets too large, and with the last input. There states are taken back to scale 1.

A lane that reaches the threshold, which is 1 here, ends the interval above it or falls from a peak, where ``dV/dt = 0``
and ``d^2V/dt^2 = -V / (tau_mem tau_syn)``. From there on the curvature only decreases, so in a time D it loses at most
``D^2 / (2 tau_mem tau_syn)`` of its height, and as the membrane leaks at most ``1 - exp(-D/tau_mem)``. Scaled: no lane
with ``V'_{k+1} < BOUND_k``, which is U_{k+1} less this, reached the threshold.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.arrays import DELTA, PAD, PER_MEM, PER_RISE, PER_SYN, RATIO, SPAN, TILE, rates_of
from firstspike.spiketime.cpu.membrane import ENOUGH, Scale, crossings, kappa, reaches_scaled, rise
from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    lanes_of,
    load,
    load16,
    next_up,
    select,
    splat,
    store,
    store_some,
    store_whole16,
)

SYN, RISE, BOUND, MEM, LEVEL = range(5)  # S, RISE, BOUND, U, (tau_syn/tau_mem) S/U
N_FORWARD = 5
FAST, BACK, LEAK, SLOW = range(4)  # of the backward scan: those of the faster and the slower of U and S, and more
N_BACKWARD = 4
# of a tile's state:
# what is known of a neuron that fired: the state before, the latest time, its last causal input's time, the next one's
VOLTAGE, CURRENT, LIMIT, SINCE, UNTIL = range(0, 5 * TILE, TILE)
NOW_VOLTAGE, NOW_CURRENT = 5 * TILE, 6 * TILE  # the state that is to be tested
BLOCK = 0 if HAS_MASKS else 16  # rows that are passed at once where there are no mask registers
PASSED, CHARGED = 7 * TILE, (7 + BLOCK) * TILE  # the states after each of them
N_STATE = (7 + 2 * BLOCK) * TILE

_BARELY = 8  # the margin against rounding, in units of the last place, where a candidate that does not fire costs more


class Sample(NamedTuple):
    """A sample's inputs in order of arrival, as all neurons share them."""

    order: Any  # the number of each input, or that of an event's weights
    arrival: Any
    n: Any  # how many there are
    ends: Any  # of segments, see the module
    segments: Any  # how many there are
    rows: Any


@jit
def find_segments(arrival, n, c, longest, start, ends):
    """Fill ``start[k]`` with t_0 of each row and ``ends`` with the end of each segment. Returns how many there are.

    A segment also ends before an interval that is longer than ``longest``.
    """
    segments, first, before = 0, arrival[0], arrival[0]
    for k in range(n):
        t = arrival[k]
        if t - first > c[SPAN] or t - before > longest:
            ends[segments] = k
            segments += 1
            first = t
        start[k], before = first, t
    for k in range(n, n + PAD):
        start[k] = first
    ends[segments] = n
    return segments + 1


@jit
def forward_rows(arrival, n, c, fast, start, rows):
    """Fill the arrays of the forward scan. Those of a segment's last row are not used."""
    stride = rows.shape[1]
    margin = 1 - _BARELY * np.finfo(rows.dtype).eps if fast else ENOUGH
    one = fill16(rows, 1.0)
    for k in range(0, n, 16):
        t = load16(arrival, k)
        wait = load16(arrival, k + 1) - t
        elapsed = t - load16(start, k)
        mem, syn = exp(elapsed * c[PER_MEM]), exp(elapsed * c[PER_SYN])
        ratio = mem / syn
        leak = wait * c[PER_MEM]
        grown = fma(leak, fma(leak, fill16(rows, 0.5), one), one)  # at most exp(leak), next to it where D is short
        store(rows, SYN * stride + k, syn)
        store(rows, MEM * stride + k, mem)
        store(rows, RISE * stride + k, rise(wait, c[DELTA], c[PER_RISE]) * ratio)
        store(rows, LEVEL * stride + k, fill16(rows, c[RATIO]) / ratio)
        lost = leak * wait * (0.5 * c[PER_SYN])
        store(rows, BOUND * stride + k, mem * margin * max(grown * (one - lost), one))


@jit
def backward_rows(arrival, n, c, start, rows):
    """Fill the arrays of the backward scan, which see ``adjoint``."""
    stride = rows.shape[1]
    slower, faster = min(c[PER_MEM], c[PER_SYN]), max(c[PER_MEM], c[PER_SYN])
    rate, per_rise = abs(c[DELTA]), abs(c[PER_RISE])
    for k in range(0, n, 16):
        t, following = load16(arrival, k), load16(arrival, k + 1)
        wait = following - t
        base = load16(start, k)
        elapsed = t - base
        slow, fast = exp(elapsed * slower), exp(elapsed * faster)
        ahead = min(following - base, c[SPAN] * 2)
        store(rows, FAST * stride + k, fast)
        store(rows, SLOW * stride + k, slow)
        store(rows, BACK * stride + k, rise(wait, rate, per_rise) * exp(ahead * rate))
        store(rows, LEAK * stride + k, (slow / fast) * -min(c[RATIO], 1.0))


@inlined
def scale_of(rows, k):
    """The scale of states in the interval after row k."""
    return Scale(1 / rows[MEM, k], 1 / rows[SYN, k], rows[MEM, k + 1], rows[LEVEL, k], rows[LEVEL, k + 1])


@jit
def plain_interval(zero, state, last, k, active, arrival, endless, c, voltage, current):
    """The test of an interval from states of scale 1, also of one that does not end.

    Returns the lanes that do not fire, and the states at its end.
    """
    until = arrival.dtype.type(math.inf) if endless else arrival[k + 1]
    duration = until - arrival[k]
    decay_mem = 0.0 if endless and c[PER_MEM] > 0 else math.exp(-duration * c[PER_MEM]) if not endless else 1.0
    decay_syn = 0.0 if endless else math.exp(-duration * c[PER_SYN])
    end, left = fma(voltage, decay_mem, current * kappa(duration, c)), current * decay_syn
    plain = Scale(1.0, 1.0, 1.0, c[RATIO], c[RATIO])
    return not_fired(zero, state, last, k, active, arrival, until, (voltage, current), (end, left), c, plain), end, left


@jit
def not_fired(zero, state, last, k, active, arrival, until, begins, ends, c, scale):
    """Lanes that do not reach the threshold after row k, up to ``until``. The known numbers of the others are noted.

    Membrane and current are those at the beginning and at the end.
    """
    (voltage, current), (end, current_end), since = begins, ends, arrival[k]
    wait, r = splat(zero, until - since), rates_of(c)
    fired, limit = reaches_scaled(voltage, current, wait, end, current_end, active, r, scale)
    if fired:
        note(state, 0, fired, (voltage * scale.mem, current * scale.syn, limit, splat(zero, since), splat(zero, until)))
        for first in range(0, lanes_of(zero), 16):
            store_whole16((fired >> np.uint64(first)) & np.uint64(0xFFFF), last, first, fill16(state, float(k)))
    return active & ~fired


@inlined
def note(state, first, fired, known):
    """Write the known numbers of the lanes that fired, from ``first`` on: VOLTAGE, CURRENT, LIMIT, SINCE and UNTIL."""
    for row, x in zip((VOLTAGE, CURRENT, LIMIT, SINCE, UNTIL), known):  # noqa: B905
        store_some(fired, state, row + first, x)


@jit
def solve(zero, state, fired, c):
    """Spike times and slopes ``dV/dt`` of a tile's lanes: ``inf`` and 0 where they did not fire."""
    # later than this many time constants, rounding of the spike time shows in the slope
    late = (1e-5 if state.itemsize == 4 else 1e-10) / (np.finfo(state.dtype).eps * max(c[PER_MEM], c[PER_SYN]))
    spike, slope = splat(zero, math.inf), zero
    if fired:
        start, until = load(zero, state, SINCE), load(zero, state, UNTIL)
        voltage, current = load(zero, state, VOLTAGE), load(zero, state, CURRENT)
        wait, drive = crossings(voltage, current, load(zero, state, LIMIT), fired, rates_of(c))
        time = start + wait
        coarse = ((abs(time) > late) | ~(time > start)) & fired
        time = min(time, until)
        if coarse:  # spikes after the inputs that cause them, with the slopes there
            time = select(coarse & ~(time > start), min(next_up(start), until), time)
            drive = select(coarse, current * exp((start - time) * c[PER_SYN]) * c[PER_SYN], drive)
        spike, slope = select(fired, time, spike), select(fired, drive - c[PER_MEM], slope)
    return spike, slope
