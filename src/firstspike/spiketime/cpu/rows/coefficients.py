"""Numbers that all neurons of a sample share, one set for each input ("row") in order of arrival.

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

from firstspike.spiketime.cpu.constants import DELTA, PAD, PER_MEM, PER_RISE, PER_SYN, RATIO, SPAN
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp, expm1
from firstspike.spiketime.cpu.vectors.simd import fill16, highest, load16, maximum, minimum, select, store

SYN, RISE, TANGENT, BOUND, MEM, LEVEL = range(6)  # S, RISE, TANGENT, BOUND, U, (tau_syn/tau_mem) S/U
N_FORWARD = 6
FAST, BACK, LEAK, SLOW = range(4)  # of the backward scan: those of the faster and the slower of U and S, and more
N_BACKWARD = 4


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


_MARGIN = 1 - 1e-4  # against rounding
_BARELY = 8  # the same in units of the last place, where a candidate that does not fire costs more


@jit
def stride_of(inputs):
    """Length of a row array: whole vectors, and one to spare."""
    return (inputs + 15) // 16 * 16 + PAD


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
    margin = 1 - _BARELY * np.finfo(rows.dtype).eps if fast else _MARGIN
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
