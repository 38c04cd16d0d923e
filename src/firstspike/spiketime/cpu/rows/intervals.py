"""Intervals between two inputs: numbers that all neurons of a sample share, and where a membrane crosses the threshold.

The numbers are one set for each input ("row") in order of arrival. The exact test of an interval, and the time of the
crossing, are in units of the threshold, which is 1.

With the time ``x = t - t_0`` since the first input of its *segment*, scaled states need no decay from row to row:

    U = exp(x/tau_mem),   S = exp(x/tau_syn),        V' = V U,   Q' = Q S
    Q'_k = Q'_{k-1} + w_k S_k,        V'_{k+1} = V'_k + Q'_k RISE_k        (D: time to the next input)
    RISE_k = (1 - exp(-D DELTA)) / (DELTA tau_syn) * U_k / S_k

A segment ends before ``exp`` gets too large, and with the last input; there states are taken back to scale 1.

While V rises it is concave, so that in the interval it stays below ``V + D dV/dt = V (1 - D/tau_mem) + Q D/tau_syn``.
Scaled: no lane with ``V' + Q' TANGENT < BOUND`` reaches the threshold, which is 1 here. Where ``D`` is long this is a
poor test, and BOUND lets everything pass. A coarser test is for free: in an interval V' only rises or only falls, and
the threshold, which is U in this scale, does not fall. So no lane that began below it and ends with
``V'_{k+1} < U_k`` reached it.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.constants import DELTA, DOUBLE, KIND, PAD, PER_MEM, PER_RISE, PER_SYN, RATIO, SPAN
from firstspike.spiketime.cpu.membrane import (
    ENOUGH,
    MAX_STEPS,
    Scale,
    kappa,
    nearer,
    rates_of,
    reaches_scaled,
    responses,
)
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp, expm1, log1p
from firstspike.spiketime.cpu.vectors.simd import (
    absolute,
    fill16,
    fma,
    highest,
    lanes_of,
    load,
    load16,
    maximum,
    minimum,
    next_up,
    power_of_two,
    select,
    splat,
    split_power,
    sqrt,
    store,
    store_whole16,
)

SYN, RISE, TANGENT, BOUND, MEM, LEVEL = range(6)  # S, RISE, TANGENT, BOUND, U, (tau_syn/tau_mem) S/U
N_FORWARD = 6
FAST, BACK, LEAK, SLOW = range(4)  # of the backward scan: those of the faster and the slower of U and S, and more
N_BACKWARD = 4
# of a tile's state:
VOLTAGE, CURRENT, LIMIT = range(3)  # what is known of a neuron that fired: the state before, and the latest time
NOW_VOLTAGE, NOW_CURRENT = 3, 4  # the state that is to be tested
WAIT, LOW, HIGH, VALUE, DRIVE = 5, 6, 7, 8, 9  # where the search for the crossing is
UNIT = 10  # threshold of a state that is normalised
SINCE, UNTIL = 11, 12  # times of a neuron's last causal input and of the next
N_STATE = 13

_LATEST = 0.75  # u, see ``solve_quadratics``
_BARELY = 8  # the margin against rounding, in units of the last place, where a candidate that does not fire costs more


class Sample(NamedTuple):
    """What all neurons share of a sample's inputs, in order of arrival."""

    order: Any
    """The number of each input, or that of an event's weights."""
    arrival: Any
    n: Any
    """How many there are."""
    ends: Any
    segments: Any
    """Number of segments, and their ends, see the module."""
    rows: Any


@jit
def pad_row(arrival, n):
    """Repeat the last of n > 0 times, as far as vectors may reach; forward passes do this once for all others."""
    store(arrival, n, fill16(arrival, arrival[n - 1]))


@jit
def find_segments(arrival, n, c, longest, start, ends):
    """Fill ``start[k]`` with t_0 of each row and ``ends`` with the end of each segment; returns how many there are.

    A segment also ends before an interval that is longer than ``longest``.
    """
    segments, first = 0, arrival[0]
    span = arrival[n - 1] - first
    if span > c[SPAN] or (span > longest and _longest_wait(arrival, n) > longest):
        for k in range(n):
            if arrival[k] - first > c[SPAN] or (k > 0 and arrival[k] - arrival[k - 1] > longest):
                ends[segments] = k
                segments += 1
                first = arrival[k]
            start[k] = first
        for k in range(n, n + PAD):
            start[k] = first
    else:
        for k in range(n + PAD):
            start[k] = first
    ends[segments] = n
    return segments + 1


@jit
def _longest_wait(arrival, n):
    most = fill16(arrival, 0.0)
    for k in range(0, n, 16):
        most = maximum(most, load16(arrival, k + 1) - load16(arrival, k))
    return highest(most)


@inlined
def rise(wait, delta, per_rise):
    """``(1 - exp(-wait delta)) / (delta tau_syn)``, the response but for a factor that scaled states do not have."""
    return expm1(wait * -delta) * -per_rise


@jit
def forward_rows(arrival, n, c, fast, start, rows):
    """Fill the arrays of the forward scan. Those of a segment's last row are not used."""
    stride = rows.shape[1]
    margin = 1 - _BARELY * np.finfo(rows.dtype).eps if fast else ENOUGH
    one, zero, everything = fill16(rows, 1.0), fill16(rows, 0.0), fill16(rows, -math.inf)
    for k in range(0, n, 16):
        t = load16(arrival, k)
        wait = load16(arrival, k + 1) - t
        elapsed = t - load16(start, k)
        mem, syn = exp(elapsed * c[PER_MEM]), exp(elapsed * c[PER_SYN])
        ratio = mem / syn
        left = one - wait * c[PER_MEM]
        short = left > 0.5
        left = one / maximum(left, 0.5)
        store(rows, SYN * stride + k, syn)
        store(rows, MEM * stride + k, mem)
        store(rows, RISE * stride + k, rise(wait, c[DELTA], c[PER_RISE]) * ratio)
        store(rows, LEVEL * stride + k, fill16(rows, c[RATIO]) / ratio)
        store(rows, TANGENT * stride + k, select(short, wait * c[PER_SYN] * left * ratio, zero))
        store(rows, BOUND * stride + k, select(short, mem * left * margin, everything))


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
        ahead = minimum(following - base, c[SPAN] * 2)
        store(rows, FAST * stride + k, fast)
        store(rows, SLOW * stride + k, slow)
        store(rows, BACK * stride + k, rise(wait, rate, per_rise) * exp(ahead * rate))
        store(rows, LEAK * stride + k, (slow / fast) * -min(c[RATIO], 1.0))


@inlined
def scale_of(rows, k):
    """The scale of states in the interval after row k."""
    return Scale(1 / rows[MEM, k], 1 / rows[SYN, k], rows[MEM, k + 1], rows[LEVEL, k], rows[LEVEL, k + 1])


@jit
def scaled_interval(zero, state, last, k, active, sample, c):
    """The test of a row inside a segment; returns the lanes that do not fire."""
    arrival, rows = sample.arrival, sample.rows
    voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
    end = fma(voltage, 1.0, current * rows[RISE, k])
    return _test(
        zero, state, last, k, active, arrival[k], arrival[k + 1], end, current, rates_of(c), scale_of(rows, k)
    )  # fmt: skip


@jit
def plain_interval(zero, state, last, k, active, arrival, endless, c, voltage, current):
    """The test of an interval from states of scale 1, also of one that does not end.

    Returns the lanes that do not fire, and the states at its end.
    """
    store(state, NOW_VOLTAGE * TILE, voltage)
    store(state, NOW_CURRENT * TILE, current)
    until = arrival.dtype.type(math.inf) if endless else arrival[k + 1]
    duration = until - arrival[k]
    decay_mem = 0.0 if endless and c[PER_MEM] > 0 else math.exp(-duration * c[PER_MEM]) if not endless else 1.0
    decay_syn = 0.0 if endless else math.exp(-duration * c[PER_SYN])
    end, left = fma(voltage, decay_mem, current * kappa(duration, c)), current * decay_syn
    plain = Scale(1.0, 1.0, 1.0, c[RATIO], c[RATIO])
    return _test(zero, state, last, k, active, arrival[k], until, end, left, rates_of(c), plain), end, left


@jit
def _test(zero, state, last, k, active, since, until, end, current_end, r, scale):
    """Note the states of the lanes that reach the threshold in the interval after row k; returns those that do not."""
    voltage, current = load(zero, state, NOW_VOLTAGE * TILE), load(zero, state, NOW_CURRENT * TILE)
    fired, limit = reaches_scaled(voltage, current, splat(zero, until - since), end, current_end, active, r, scale)
    if fired:
        store(state, VOLTAGE * TILE, select(fired, voltage * scale.mem, load(zero, state, VOLTAGE * TILE)))
        store(state, CURRENT * TILE, select(fired, current * scale.syn, load(zero, state, CURRENT * TILE)))
        store(state, LIMIT * TILE, select(fired, limit, load(zero, state, LIMIT * TILE)))
        store(state, SINCE * TILE, select(fired, splat(zero, since), load(zero, state, SINCE * TILE)))
        store(state, UNTIL * TILE, select(fired, splat(zero, until), load(zero, state, UNTIL * TILE)))
        for first in range(0, lanes_of(zero), 16):
            store_whole16((fired >> np.uint64(first)) & np.uint64(0xFFFF), last, first, fill16(state, float(k)))
    return active & ~fired


@jit
def solve(zero, state, fired, c, spikes, slopes):
    """Spike times and slopes ``dV/dt`` of a tile's lanes: ``inf`` and 0 where they did not fire."""
    never, flat = fill16(state, math.inf), fill16(state, 0.0)
    # later than this many time constants, rounding of the spike time shows in the slope
    late = (1e-5 if state.itemsize == 4 else 1e-10) / (np.finfo(state.dtype).eps * max(c[PER_MEM], c[PER_SYN]))
    scaled = find_roots(zero, state, fired, c)
    for first in range(0, lanes_of(zero), 16):
        bits = (fired >> np.uint64(first)) & np.uint64(0xFFFF)
        if not bits:
            store(spikes, first, never)
            store(slopes, first, flat)
            continue
        start, drive = load16(state, SINCE * TILE + first), load16(state, DRIVE * TILE + first)
        spike = start + load16(state, WAIT * TILE + first)
        if scaled:
            drive = drive / load16(state, UNIT * TILE + first)
        store(spikes, first, select(bits, minimum(spike, load16(state, UNTIL * TILE + first)), never))
        store(slopes, first, select(bits, drive - c[PER_MEM], flat))
        if ((absolute(spike) > late) | ~(spike > start)) & bits:
            settle_rounded(state, first, bits, c, spikes, slopes)


@jit
def settle_rounded(state, first, bits, c, spikes, slopes):
    """Spikes of 16 lanes where the floats are coarse: after the inputs that cause them, with the slopes there."""
    start, spike = load16(state, SINCE * TILE + first), load16(spikes, first)
    early = bits & ~(spike > start)
    store(spikes, first, select(early, minimum(next_up(start), load16(state, UNTIL * TILE + first)), spike))
    decay = exp((start - load16(spikes, first)) * c[PER_SYN])
    drive = load16(state, CURRENT * TILE + first) / load16(state, UNIT * TILE + first) * decay * c[PER_SYN]
    store(slopes, first, select(bits, drive - c[PER_MEM], load16(slopes, first)))


@jit
def start_search(zero, state, fired, c):
    """Where the search begins; whether states had to be scaled so that no square overflows, where UNIT is their 1."""
    scaled, limit = False, 2.0**40 if state.itemsize == 4 else 2.0**400
    for first in range(0, lanes_of(zero), 16):
        bits = (fired >> np.uint64(first)) & np.uint64(0xFFFF)
        if not bits:
            continue
        voltage, current = load16(state, VOLTAGE * TILE + first), load16(state, CURRENT * TILE + first)
        unit, size = fill16(state, 1.0), maximum(absolute(voltage), absolute(current * c[PER_SYN]))
        if (size > limit) & bits:
            scaled, (exponent, _) = True, split_power(maximum(size, 1.0))
            unit = power_of_two(exponent * -1.0)
            voltage, current = voltage * unit, current * unit
            store(state, VOLTAGE * TILE + first, voltage)
            store(state, CURRENT * TILE + first, current)
        store(state, UNIT * TILE + first, unit)
        store(state, WAIT * TILE + first, fill16(state, 0.0))
        store(state, LOW * TILE + first, fill16(state, 0.0))
        store(state, HIGH * TILE + first, load16(state, LIMIT * TILE + first))
        store(state, VALUE * TILE + first, voltage)
        store(state, DRIVE * TILE + first, current * c[PER_SYN])
    return scaled


@jit
def solve_quadratics(zero, state, fired, c):
    """Roots where one time constant is twice the other; returns the lanes that are left for the search.

    There V is a quadratic in ``u = 1 - exp(-s/tau)``, with tau the longer one: ``V(u) = V + b u - a u^2``. Of late
    roots, u next to 1, ``s`` loses digits. Quotients instead of squares, which may overflow or vanish.
    """
    slow, left = min(c[PER_MEM], c[PER_SYN]), np.uint64(0)
    for first in range(0, lanes_of(zero), 16):
        bits = (fired >> np.uint64(first)) & np.uint64(0xFFFF)
        if not bits:
            continue
        value, drive = load16(state, VALUE * TILE + first), load16(state, DRIVE * TILE + first)
        gap, high = load16(state, UNIT * TILE + first) - value, load16(state, HIGH * TILE + first)
        force = drive * (1 / slow)
        a, b = (force, force - value) if c[PER_MEM] <= c[PER_SYN] else (force - value, force - value * 2.0)
        a, begin = a / b, gap / b
        u = begin * 2.0 / (sqrt(maximum(1.0 - a * begin * 4.0, 0.0)) + 1.0)
        early = (b > 0.0) & (u >= 0.0) & (u < _LATEST) & bits
        wait, decay = log1p(u * -1.0) * (-1 / slow), 1.0 - u
        store(state, WAIT * TILE + first, select(early, minimum(wait, high), fill16(state, 0.0)))
        if c[PER_MEM] <= c[PER_SYN]:
            decay = decay * decay
        store(state, DRIVE * TILE + first, select(early, drive * decay, drive))
        left |= (bits & ~early) << np.uint64(first)
    return left


@jit
def find_roots(zero, state, fired, c):
    """First roots of ``V(s) = 1``, as WAIT, and ``dV/ds + 1/tau_mem`` there times UNIT, as DRIVE.

    Where one time constant is twice the other, in closed form, unless the root is late. Else steps to the root of the
    parabola in s, between bounds. Each triples the digits; all but the last cost one ``exp`` and one ``expm1``, as
    Newton's would. The vectors of a tile take theirs in turn, as within one each operation waits for the last. Returns
    whether there is a UNIT other than 1.
    """
    r, tolerance = rates_of(c), np.finfo(state.dtype).eps / 4
    scaled = start_search(zero, state, fired, c)
    # a lane stops by itself, so that its last digits do not depend on its neighbours
    going = solve_quadratics(zero, state, fired, c) if c[KIND] == DOUBLE else fired
    for _ in range(MAX_STEPS):
        if not going:
            break
        moving = np.uint64(0)
        for first in range(0, lanes_of(zero), 16):
            bits = (going >> np.uint64(first)) & np.uint64(0xFFFF)
            if not bits:
                continue
            s, low = load16(state, WAIT * TILE + first), load16(state, LOW * TILE + first)
            high = load16(state, HIGH * TILE + first)
            value, drive = load16(state, VALUE * TILE + first), load16(state, DRIVE * TILE + first)
            gap = load16(state, UNIT * TILE + first) - value
            following, low, high, moved = nearer(s, low, high, gap, value, drive, r)
            # what a step leaves is about its third power, in units of the faster time constant
            part = moved * r.faster
            moves = (part * part * part > minimum(following * r.faster, 1.0) * tolerance) & bits
            moving |= moves << np.uint64(first)
            # after the last step, which is short, three terms of the exponential
            part = (following - s) * -r.syn
            drive = select(bits, fma(drive * part, fma(part, 0.5, 1.0), drive), drive)
            store(state, WAIT * TILE + first, select(bits, following, s))
            if moves:
                mem, syn, response = responses(following, r)
                voltage, current = load16(state, VOLTAGE * TILE + first), load16(state, CURRENT * TILE + first)
                value = select(moves, fma(voltage, mem, current * response), value)
                drive = select(moves, current * syn * r.syn, drive)
                store(state, LOW * TILE + first, low)
                store(state, HIGH * TILE + first, high)
                store(state, VALUE * TILE + first, value)
            store(state, DRIVE * TILE + first, drive)
        going = moving
    return scaled
