"""Neurons with time constants of their own, forward: each one scans each sample alone, in double precision.

With ``a = 1/tau_mem`` and ``b = 1/tau_syn`` the state of a neuron, its membrane in units of the threshold and its
current, goes from one input to the next in closed form, and the crossing is looked for where it can be.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.simd import jit
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch

_MAX_STEPS = 100  # each halves the bracket at least; about four are needed
_EPS = 2.220446049250313e-16


@jit
def advance(voltage, current, s, a, b):
    """The state at a finite time ``s`` later."""
    y = s * abs(b - a)
    slow, grown = math.exp(-s * min(a, b)), -math.expm1(-y)
    rise = s * b * slow * (grown / y if y > 0 else 1.0)
    fast = slow - slow * grown
    if a <= b:
        return voltage * slow + current * rise, current * fast
    return voltage * fast + current * rise, current * slow


@jit
def summit(voltage, current, a, b):
    """Time and height of the maximum after a rising state with a positive current, as in ``response.peak``."""
    x, ratio = 1 - a / b, voltage / current
    time = (1 - ratio) / b if x == 0 else -(math.log(a / b) + math.log1p(max(x * ratio, -1.0))) / (x * b)
    return time, b / a * current * math.exp(-time * b)


@jit
def crossing(voltage, current, duration, following, a, b):
    """Time from a state below the threshold to its first crossing within ``duration``, -1 without one.

    ``following`` is the membrane at the end of the interval, unless it is endless.
    """
    endless = math.isinf(duration)
    rises = current > 0 and b * current > a * voltage
    limit = duration
    if a == 0:
        if not voltage + current > 1 or (not endless and not following >= 1):
            return -1.0
        if endless:
            return -math.log1p(-min((1 - voltage) / current, 1 - _EPS / 2)) / b
    elif endless or not following >= 1:
        if not rises:
            return -1.0
        limit, height = summit(voltage, current, a, b)
        if not (height >= 1 and limit <= duration):
            return -1.0
    if not rises:  # rounded up to the threshold at the interval's end
        return duration
    # steps to the root of the parabola in s, between bounds
    low, high, s = 0.0, limit, 0.0
    value, now = voltage, current
    for _ in range(_MAX_STEPS):
        slope, gap = b * now - a * value, 1 - value
        if gap > 0 and slope > 0:
            low = s
        else:
            high = s
        curve = -b * b * now - a * slope
        step = 2 * gap / (slope + math.sqrt(max(slope * slope + 2 * curve * gap, 0.0)))
        following = min(s + step, high)
        if not following >= low:
            following = (low + high) / 2
        done = abs(following - s) <= 2 * _EPS * following
        s = following
        if done:
            break
        value, now = advance(voltage, current, s, a, b)
    return s


@jit
def scan_neuron(weight, threshold, order, arrival, n, a, b):
    """The place of the input after which the neuron fires, and how long after it; -1 if it stays silent."""
    voltage = current = 0.0
    for k in range(n):
        current += np.float64(weight[order[k]]) / threshold
        duration = np.float64(arrival[k + 1]) - np.float64(arrival[k]) if k + 1 < n else math.inf
        if duration == 0:
            continue  # the next input arrives at the same time
        following, left = (voltage, current) if math.isinf(duration) else advance(voltage, current, duration, a, b)
        wait = crossing(voltage, current, duration, following, a, b)
        if wait >= 0:
            return k, wait
        voltage, current = following, left
    return -1, math.inf


@jit
def scan_single(times, weight, threshold, delay, delayed, mem, syn, spikes, first, stop):
    """Spike times of the samples from ``first`` to ``stop`` of one network."""
    outputs, inputs = weight.shape
    eps, tiny = np.finfo(times.dtype).eps, np.finfo(times.dtype).tiny
    order, arrival, shifted = np.empty(inputs, np.int32), np.empty(inputs, times.dtype), np.empty(inputs, times.dtype)
    scratch = sort_scratch(times, inputs)
    for b in range(first, stop):
        n = 0 if delayed else sort_row(times[b], order, arrival, scratch)
        for j in range(outputs):
            if delayed:
                for i in range(inputs):
                    shifted[i] = times[b, i] + delay[j, i]
                n = sort_row(shifted, order, arrival, scratch)
            k, wait = scan_neuron(
                weight[j], np.float64(threshold[j]), order, arrival, n, 1 / np.float64(mem[j]), 1 / np.float64(syn[j])
            )
            spikes[b, j] = math.inf
            if k >= 0:
                spikes[b, j] = np.float64(arrival[k]) + wait
                if not spikes[b, j] > arrival[k]:  # too soon after the input for the floats: the input stays causal
                    spikes[b, j] = arrival[k] + max(abs(arrival[k]) * eps, tiny)
                if k + 1 < n:
                    spikes[b, j] = min(spikes[b, j], arrival[k + 1])
