"""Backward where time constants count: sums over the causal inputs of each (sample, neuron), 16 inputs at a time.

The derivatives by the time constants, and, for neurons with time constants of their own, all the others as well. The
formulas are those of ``response``: with ``y = s |1/tau_syn - 1/tau_mem|`` the response and its derivatives consist of

    G_0 = (1 - exp(-y)) / y,     G_1 = (y - 1 + exp(-y)) / y^2 = (1 - G_0) / y,     G_2 = G_0 - G_1
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types
from numba.extending import overload

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.mathfun import exp, expm1
from firstspike.spiketime.cpu.pack import unit_of_row
from firstspike.spiketime.cpu.simd import absolute, fill16, fma, load16, maximum, select, store

# of G_1 in powers of -y: below y = 1/2 the rest is smaller than half a unit in the last place
_SERIES_32 = tuple(1 / math.factorial(n + 2) for n in range(8))
_SERIES_64 = tuple(1 / math.factorial(n + 2) for n in range(14))
_LATE = 0.95


def _series(minus_y):
    """``G_1`` for ``0 <= y < 1/2``."""
    raise NotImplementedError


@overload(_series)
def _overload_series(minus_y):
    if minus_y.dtype == types.float32:
        c0, c1, c2, c3, c4, c5, c6, c7 = _SERIES_32

        def series(minus_y):
            p = fma(fma(fma(minus_y, c7, c6), minus_y, c5), minus_y, c4)
            return fma(fma(fma(fma(p, minus_y, c3), minus_y, c2), minus_y, c1), minus_y, c0)

    else:
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = _SERIES_64

        def series(minus_y):
            p = fma(fma(fma(fma(minus_y, c13, c12), minus_y, c11), minus_y, c10), minus_y, c9)
            p = fma(fma(fma(fma(p, minus_y, c8), minus_y, c7), minus_y, c6), minus_y, c5)
            return fma(fma(fma(fma(fma(p, minus_y, c4), minus_y, c3), minus_y, c2), minus_y, c1), minus_y, c0)

    return series


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
def sum_neurons(
    grad, spikes, times, weight, threshold, delay, delayed, mem, syn, bound, everything, by_weight, by_delay, by_times,
    by_threshold, by_mem, by_syn, neurons, samples,
):  # fmt: skip
    """Add up the gradients of some neurons and samples, each a pair (first, stop). Rows are whole vectors."""
    inputs = times.shape[1]
    kept_responses, kept_fast, lanes = (
        np.empty(inputs, grad.dtype), np.empty(inputs, grad.dtype), np.empty(16, grad.dtype),
    )  # fmt: skip
    zero = fill16(grad, 0.0)
    one = grad.dtype.type(1)
    if everything:
        by_times[samples[0] : samples[1]] = 0
    for j in range(neurons[0], neurons[1]):
        a, b = one / mem[j], one / syn[j]
        pull, unit = min(a / b, one), unit_of_row(weight, j, threshold[j])
        per_unit, level = one / unit, threshold[j] / unit
        by_mem[j], by_syn[j] = 0, 0
        if everything:
            by_weight[j], by_delay[j], by_threshold[j] = 0, 0, 0
        for row in range(samples[0], samples[1]):
            spike = spikes[row, j]
            if not spike < math.inf or grad[row, j] == 0:
                continue
            drive, largest, mem_sum, syn_sum = zero, zero, zero, zero
            for i in range(0, inputs, 16):
                arrival = load16(times, row * inputs + i)
                if delayed:
                    arrival = arrival + load16(delay, j * inputs + i)
                s = fill16(grad, spike) - arrival
                causal = s > 0.0
                response, decay, fast, of_mem, of_syn = responses(maximum(s, 0.0), a, b)
                response, fast = select(causal, response, zero), select(causal, fast, zero)
                w = select(causal, load16(weight, j * inputs + i) * per_unit, zero)
                drive = fma(decay, w, drive)
                mem_sum, syn_sum = fma(of_mem, w, mem_sum), fma(of_syn, w, syn_sum)
                if everything:
                    store(kept_responses, i, response)
                    store(kept_fast, i, fast)
                    largest = maximum(largest, absolute(response))
            store(lanes, 0, drive)
            slope = lanes.sum() * b - level * a
            if not slope > 0:
                continue
            scale = grad[row, j] / slope
            store(lanes, 0, mem_sum)
            by_mem[j] -= scale * a * lanes.sum()
            store(lanes, 0, syn_sum)
            by_syn[j] -= scale * b * lanes.sum()
            if not everything:
                continue
            by_threshold[j] += scale
            store(lanes, 0, largest)
            kept = -scale if abs(scale) * lanes.max() <= bound * unit else grad.dtype.type(0)
            scale *= b
            for i in range(0, inputs, 16):
                response, place = load16(kept_responses, i), j * inputs + i
                store(by_weight, place, fma(response, kept, load16(by_weight, place)))
                each = (load16(kept_fast, i) - response * pull) * (load16(weight, place) * per_unit) * scale
                store(by_delay, place, load16(by_delay, place) + each)
                store(by_times, row * inputs + i, load16(by_times, row * inputs + i) + each)
        if everything:
            by_threshold[j] *= per_unit
            for i in range(0, inputs, 16):
                store(by_weight, j * inputs + i, load16(by_weight, j * inputs + i) * per_unit)
