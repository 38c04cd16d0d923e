"""Neurons with time constants of their own, forward.

With ``a = 1/tau_mem`` and ``b = 1/tau_syn`` the state of a neuron, its membrane in units of the threshold and its
current, goes from one input to the next in closed form: for 16 neurons at a time, or with synaptic delays, where each
neuron sees its own order of arrival, for each one alone. The crossing is looked for, in double precision, where it can
be: while the membrane rises it is concave, and stays below its tangent.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.mathfun import exp, expm1
from firstspike.spiketime.cpu.simd import (
    absolute,
    fill16,
    fma,
    load16,
    lowest_bit,
    maximum,
    minimum,
    select,
    store,
)
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch

_MAX_STEPS = 100  # each halves the bracket at least; about four are needed
_EPS = 2.220446049250313e-16
_ALMOST = 1 - 1e-4  # of the threshold: where the tangent stays below this, rounding cannot hide a crossing


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
    top = 1.0 if x == 0 else -math.log(a / b) / x
    early = ratio if x == 0 else math.log1p(max(x * ratio, -1.0)) / x
    early = min(early, top)  # rounding may let a state fall that barely rises
    return (top - early) / b, current * math.exp(early - top * a / b)


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
def scan_group(packed, order, arrival, n, rates, state, found, waits):
    """``scan_neuron`` for 16 neurons: fills ``found`` and ``waits``. ``rates`` are a and b of each."""
    a, b = load16(rates, 0), load16(rates, 16)
    slower, rate, leaks_slower = minimum(a, b), absolute(b - a), b >= a
    voltage = current = fill16(packed, 0.0)
    found[:] = -1
    active = np.uint64(0xFFFF)
    for k in range(n):
        current = current + load16(packed, np.intp(order[k]) * 16)
        duration = arrival[k + 1] - arrival[k] if k + 1 < n else packed.dtype.type(math.inf)
        if duration == 0:
            continue  # the next input arrives at the same time
        slope = current * b - voltage * a
        if math.isinf(duration):
            candidates, following, left = (slope > 0.0) & active, voltage, current
        else:
            candidates = (fma(slope, duration, voltage) >= _ALMOST) & active
            s = fill16(packed, duration)
            y = maximum(s * rate, 1e-30)
            slow, grown = exp(s * slower * -1.0), expm1(y * -1.0) * -1.0
            fast = slow - slow * grown
            rise = s * b * slow * (grown / y)
            following = fma(current, rise, voltage * select(leaks_slower, slow, fast))
            left = current * select(leaks_slower, fast, slow)
        if candidates:
            store(state, 0, voltage)
            store(state, 16, current)
            store(state, 32, following)
            while candidates:
                lane = lowest_bit(candidates)
                candidates &= candidates - np.uint64(1)
                wait = crossing(
                    np.float64(state[lane]), np.float64(state[16 + lane]), np.float64(duration),
                    np.float64(state[32 + lane]), np.float64(rates[lane]), np.float64(rates[16 + lane]),
                )  # fmt: skip
                if wait >= 0:
                    found[lane], waits[lane] = k, wait
                    active &= ~(np.uint64(1) << np.uint64(lane))
            if not active:
                break
        voltage, current = following, left


@jit
def spike_time(k, wait, arrival, n):
    """The time of a spike after input ``k``; ``inf`` for ``k = -1``."""
    if k < 0:
        return arrival.dtype.type(math.inf)
    since, spike = arrival[k], arrival.dtype.type(np.float64(arrival[k]) + wait)
    if not spike > since:  # too soon after the input for the floats: the input stays causal
        spike = np.nextafter(since, arrival.dtype.type(math.inf))
    return min(spike, arrival[k + 1]) if k + 1 < n else spike


@jit
def scan_groups(times, packed, rates, spikes):
    """Spike times of one sample; neurons are packed 16 to a group."""
    outputs, inputs = spikes.size, times.size
    order, arrival = np.empty(inputs, np.int32), np.empty(inputs, times.dtype)
    n = sort_row(times, order, arrival, sort_scratch(times, inputs))
    state, found, waits = np.empty(48, times.dtype), np.empty(16, np.int64), np.zeros(16)
    for group in range(packed.shape[0]):
        scan_group(packed[group], order, arrival, n, rates[group], state, found, waits)
        for lane in range(min(16, outputs - group * 16)):
            spikes[group * 16 + lane] = spike_time(found[lane], waits[lane], arrival, n)


@jit
def scan_delayed_neurons(times, weight, threshold, delay, mem, syn, spikes):
    """Spike times of one sample, of neurons whose synapses have delays."""
    outputs, inputs = weight.shape
    order, arrival, shifted = np.empty(inputs, np.int32), np.empty(inputs, times.dtype), np.empty(inputs, times.dtype)
    scratch = sort_scratch(times, inputs)
    for j in range(outputs):
        for i in range(inputs):
            shifted[i] = times[i] + delay[j, i]
        n = sort_row(shifted, order, arrival, scratch)
        a, b = 1 / np.float64(mem[j]), 1 / np.float64(syn[j])
        k, wait = scan_neuron(weight[j], np.float64(threshold[j]), order, arrival, n, a, b)
        spikes[j] = spike_time(k, wait, arrival, n)
