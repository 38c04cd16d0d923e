"""Backward by time constants that all neurons share: the scan of the inputs, with derivatives of the state.

Beside the membrane V and the current Q, a neuron has M = dV/dm, S = dV/ds and R = dQ/ds, where m and s are the
logarithms of tau_mem and tau_syn. With numbers that all neurons of a sample share, one interval of length D takes them
to

    V <- e_m V + k Q,     Q <- e_s Q,     R <- e_s R + Q de_s/ds
    M <- e_m M + V de_m/dm + Q dk/dm,     S <- e_m S + k R + Q dk/ds

where ``e_m = exp(-D/tau_mem)``, ``e_s = exp(-D/tau_syn)`` and ``k = kappa(D)``; the next input adds its weight to Q.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.mathfun import exp, expm1
from firstspike.spiketime.cpu.per_neuron_backward import _series
from firstspike.spiketime.cpu.simd import fill64, fma, load16, load64, maximum, select, store
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch

LANES = 64
MEM, SYN, RISE, MEM_BY, SYN_BY, RISE_BY_MEM, RISE_BY_SYN = range(7)  # the numbers of an interval
N_ROWS = 7
_LATE = 0.95


@jit
def responses(s, a, b):
    """``kappa``, ``exp(-s/tau_syn)`` and the same of the faster constant, and derivatives of kappa, for ``s >= 0``.

    They are those by the logarithms of tau_mem and tau_syn.
    """
    y = s * abs(b - a)
    slow, grown = exp(s * -min(a, b)), expm1(y * -1.0) * -1.0
    series, large = _series(y * -1.0), maximum(y, 0.5)
    small = y < 0.5
    zeroth = select(small, fma(y * -1.0, series, 1.0), grown / large)
    first = select(small, series, (zeroth * -1.0 + 1.0) / large)
    fast = slow - slow * grown
    late = grown > _LATE
    if late:  # no digits are left of the difference
        fast = select(late, exp(s * -max(a, b)), fast)
    response = s * slow * zeroth * b
    common, of_mem, of_syn = s * b * slow, s * a, s * b
    # G_2 loses digits as a difference where y is large, and its product with y^2 must not overflow
    steep, second = (grown - y * (grown * -1.0 + 1.0)) / large, zeroth - first
    if a <= b:
        by_mem = common * first * of_mem
        by_syn = common * select(y >= 1.0, steep * (of_syn / large), second * of_syn) - response
        return response, fast, fast, by_mem, by_syn
    by_mem = common * select(y >= 1.0, steep * (of_mem / large), second * of_mem)
    by_syn = common * first * of_syn - response
    return response, slow, fast, by_mem, by_syn


@jit
def interval_rows(waits, n, a, b, rows):
    """The numbers of ``n`` intervals, of lengths ``waits`` filled up to whole vectors."""
    for k in range(0, n, 16):
        s = load16(waits, k)
        rise, syn, _, rise_by_mem, rise_by_syn = responses(s, a, b)
        mem = exp(s * -a)
        store(rows[MEM], k, mem)
        store(rows[SYN], k, syn)
        store(rows[RISE], k, rise)
        store(rows[MEM_BY], k, s * mem * a)
        store(rows[SYN_BY], k, s * syn * b)
        store(rows[RISE_BY_MEM], k, rise_by_mem)
        store(rows[RISE_BY_SYN], k, rise_by_syn)


@jit
def scan_derivatives(packed, order, arrival, n, rows, spikes, state):
    """States of 64 neurons just after their last causal inputs: V, Q, M, S, R, then the time from there to the spike.

    Returns the neurons that spike after the first input.
    """
    voltage = current = by_mem = by_syn = current_by = fill64(packed, 0.0)
    spike = load64(spikes, 0)
    active = (spike < fill64(packed, packed.dtype.type(math.inf))) & (spike > fill64(packed, arrival[0]))
    fires = active
    for k in range(n):
        if not active:
            break
        current = current + load64(packed, np.intp(order[k]) * LANES)
        following = arrival[k + 1] if k + 1 < n else packed.dtype.type(math.inf)
        if following == arrival[k]:
            continue  # arrives at the same time
        ends = (fill64(packed, following) >= spike) & active
        if ends:
            store(state, 0, select(ends, voltage, load64(state, 0)))
            store(state, LANES, select(ends, current, load64(state, LANES)))
            store(state, 2 * LANES, select(ends, by_mem, load64(state, 2 * LANES)))
            store(state, 3 * LANES, select(ends, by_syn, load64(state, 3 * LANES)))
            store(state, 4 * LANES, select(ends, current_by, load64(state, 4 * LANES)))
            store(state, 5 * LANES, select(ends, spike - arrival[k], load64(state, 5 * LANES)))
            active &= ~ends
        mem, syn, rise = rows[MEM, k], rows[SYN, k], rows[RISE, k]
        by_mem = fma(by_mem, mem, fma(voltage, rows[MEM_BY, k], current * rows[RISE_BY_MEM, k]))
        by_syn = fma(by_syn, mem, fma(current_by, rise, current * rows[RISE_BY_SYN, k]))
        voltage = fma(voltage, mem, current * rise)
        current_by = fma(current_by, syn, current * rows[SYN_BY, k])
        current = current * syn
    return fires


@jit
def add_gradients(state, fires, grad, threshold, a, b, by_mem, by_syn):
    """Take the states of neurons to their spikes, and add what follows to their gradients."""
    for first in range(0, grad.size, 16):
        s = load16(state, 5 * LANES + first)
        rise, syn, _, rise_by_mem, rise_by_syn = responses(s, a, b)
        mem = exp(s * -a)
        voltage, current, of_mem = load16(state, first), load16(state, LANES + first), load16(state, 2 * LANES + first)
        of_syn, current_by = load16(state, 3 * LANES + first), load16(state, 4 * LANES + first)
        of_mem = fma(of_mem, mem, fma(voltage, s * mem * a, current * rise_by_mem))
        of_syn = fma(of_syn, mem, fma(current_by, rise, current * rise_by_syn))
        store(state, LANES + first, current * syn)
        store(state, 2 * LANES + first, of_mem)
        store(state, 3 * LANES + first, of_syn)
    for lane in range(grad.size):
        slope = state[LANES + lane] * b - threshold[lane] * a
        if (fires >> np.uint64(lane)) & np.uint64(1) and slope > 0 and grad[lane] != 0:
            scale = grad[lane] / slope
            by_mem[lane] -= scale * a * state[2 * LANES + lane]
            by_syn[lane] -= scale * b * state[3 * LANES + lane]


@jit
def tau_gradients(times, packed, threshold, grad, spikes, a, b, by_mem, by_syn):
    """Gradients by the time constants, for each neuron, summed over the samples of one network."""
    inputs, outputs = times.shape[1], spikes.shape[1]
    order, arrival = np.empty(inputs, np.int32), np.empty(inputs, times.dtype)
    scratch = sort_scratch(times, inputs)
    stride = (inputs + 15) // 16 * 16
    rows, waits = np.empty((N_ROWS, stride), times.dtype), np.zeros(stride, times.dtype)
    lanes, state = np.empty(LANES, times.dtype), np.zeros(6 * LANES, times.dtype)
    by_mem[:], by_syn[:] = 0, 0
    for row in range(times.shape[0]):
        n = sort_row(times[row], order, arrival, scratch)
        if n == 0:
            continue
        for k in range(stride):
            waits[k] = arrival[k + 1] - arrival[k] if k + 1 < n else 0
        interval_rows(waits, n, a, b, rows)
        for tile in range(packed.shape[0]):
            first, stop = tile * LANES, min(tile * LANES + LANES, outputs)
            lanes[:] = math.inf
            lanes[: stop - first] = spikes[row, first:stop]
            fires = scan_derivatives(packed[tile], order, arrival, n, rows, lanes, state)
            if fires:
                add_gradients(
                    state, fires, grad[row, first:stop], threshold[first:stop], a, b, by_mem[first:stop],
                    by_syn[first:stop],
                )  # fmt: skip
