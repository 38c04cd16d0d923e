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

from firstspike.spiketime.cpu.arrays import PAD, rates_of
from firstspike.spiketime.cpu.membrane import ENOUGH, Scale, crossings, kappa, reaches_scaled, rise
from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.rows import arrays, named_rows, sixteen
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    is_single,
    lanes_of,
    load16,
    next_up,
    select,
    splat,
    store_some,
    store_whole16,
)

# S, RISE, BOUND, U, (tau_syn/tau_mem) S/U
_FORWARD = "syn rise bound mem level"
scan_rows = named_rows("Scan", _FORWARD)
# of the backward scan: those of the faster and the slower of U and S, and more
_BACKWARD = "fast back leak slow"
walk_rows = named_rows("Walk", _BACKWARD)
N_FORWARD, N_BACKWARD = len(_FORWARD.split()), len(_BACKWARD.split())
# of a tile's state: what is known of a neuron that fired, the state before, the latest time, its last causal input's
# time, the next one's; the state that is to be tested; the row with a lane's candidate
STATE = "voltage current limit since until now_voltage now_current stop"
BLOCK = 0 if HAS_MASKS else 16  # rows that are passed at once where there are no mask registers

_BARELY = 8  # the margin against rounding, in units of the last place, where a candidate that does not fire costs more


class Tile(NamedTuple):
    """A tile of neurons in a sample, but for their inputs, which functions that need none would copy."""

    zero: Any
    state: Any
    c: Any
    places: Any  # room for whole numbers of the lanes
    last: Any  # the row of each lane's last causal input
    passed: Any  # states after each of a block of rows, see ``scan.pass_again``


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
        if t - first > c.span or t - before > longest:
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
    margin = 1 - _BARELY * np.finfo(arrival.dtype).eps if fast else ENOUGH
    one = fill16(rows, 1.0)
    for k in range(0, n, 16):
        t, here = load16(arrival, k), sixteen(rows, k)
        wait = load16(arrival, k + 1) - t
        elapsed = t - load16(start, k)
        mem, syn = exp(elapsed * c.mem), exp(elapsed * c.syn)
        ratio = mem / syn
        leak = wait * c.mem
        grown = fma(leak, fma(leak, fill16(rows, 0.5), one), one)  # at most exp(leak), next to it where D is short
        here.syn = syn
        here.mem = mem
        here.rise = rise(wait, c.delta, c.per_rise) * ratio
        here.level = fill16(rows, c.ratio) / ratio
        lost = leak * wait * (0.5 * c.syn)
        here.bound = mem * margin * max(grown * (one - lost), one)


@jit
def backward_rows(arrival, n, c, start, rows):
    """Fill the arrays of the backward scan, which see ``adjoint``."""
    slower, faster = min(c.mem, c.syn), max(c.mem, c.syn)
    rate, per_rise = abs(c.delta), abs(c.per_rise)
    for k in range(0, n, 16):
        t, following, here = load16(arrival, k), load16(arrival, k + 1), sixteen(rows, k)
        wait = following - t
        base = load16(start, k)
        elapsed = t - base
        slow, fast = exp(elapsed * slower), exp(elapsed * faster)
        ahead = min(following - base, c.span * 2)
        here.fast = fast
        here.slow = slow
        here.back = rise(wait, rate, per_rise) * exp(ahead * rate)
        here.leak = (slow / fast) * -min(c.ratio, 1.0)


@inlined
def scale_of(rows, k):
    """The scale of states in the interval after row k."""
    here, following = rows[k], rows[k + 1]
    return Scale(1 / here.mem, 1 / here.syn, following.mem, here.level, following.level)


@jit
def plain_interval(tile, k, active, arrival, endless, voltage, current):
    """The test of an interval from states of scale 1, also of one that does not end.

    Returns the lanes that do not fire, and the states at its end.
    """
    c, since, until = tile.c, arrival[k], arrival.dtype.type(math.inf) if endless else arrival[k + 1]
    duration = until - since
    decay_mem = 0.0 if endless and c.mem > 0 else math.exp(-duration * c.mem) if not endless else 1.0
    decay_syn = 0.0 if endless else math.exp(-duration * c.syn)
    end, left = fma(voltage, decay_mem, current * kappa(duration, c)), current * decay_syn
    plain = Scale(1.0, 1.0, 1.0, c.ratio, c.ratio)
    return not_fired(tile, k, active, since, until, (voltage, current), (end, left), plain), end, left


@jit
def not_fired(tile, k, active, since, until, begins, ends, scale):
    """Lanes that do not reach the threshold after row k, at ``since``, up to ``until``. The others' numbers are noted.

    Membrane and current are those at the beginning and at the end.
    """
    (voltage, current), (end, current_end), zero = begins, ends, tile.zero
    wait, r = splat(zero, until - since), rates_of(tile.c)
    fired, limit = reaches_scaled(voltage, current, wait, end, current_end, active, r, scale)
    if fired:
        known = voltage * scale.mem, current * scale.syn, limit, splat(zero, since), splat(zero, until)
        note(tile.state, 0, fired, known)
        for first in range(0, lanes_of(zero), 16):
            bits = (fired >> np.uint64(first)) & np.uint64(0xFFFF)
            store_whole16(bits, tile.last, first, fill16(tile.state, float(k)))
    return active & ~fired


@inlined
def note(state, first, fired, known):
    """Write the known numbers of the lanes that fired, from ``first`` on."""
    rows, (voltage, current, limit, since, until) = arrays(state), known
    store_some(fired, rows.voltage, first, voltage)
    store_some(fired, rows.current, first, current)
    store_some(fired, rows.limit, first, limit)
    store_some(fired, rows.since, first, since)
    store_some(fired, rows.until, first, until)


@jit
def solve(tile, fired):
    """Spike times and slopes ``dV/dt`` of a tile's lanes: ``inf`` and 0 where they did not fire."""
    zero, state, c = tile.zero, tile.state, tile.c
    # later than this many time constants, rounding of the spike time shows in the slope
    late = (1e-5 * 2.0**23 if is_single(zero) else 1e-10 * 2.0**52) / max(c.mem, c.syn)
    spike, slope = splat(zero, math.inf), zero
    if fired:
        start, until = state.since, state.until
        voltage, current = state.voltage, state.current
        wait, drive = crossings(voltage, current, state.limit, fired, rates_of(c))
        time = start + wait
        coarse = ((abs(time) > late) | ~(time > start)) & fired
        time = min(time, until)
        if coarse:  # spikes after the inputs that cause them, with the slopes there
            time = select(coarse & ~(time > start), min(next_up(start), until), time)
            drive = select(coarse, current * exp((start - time) * c.syn) * c.syn, drive)
        spike, slope = select(fired, time, spike), select(fired, drive - c.mem, slope)
    return spike, slope
