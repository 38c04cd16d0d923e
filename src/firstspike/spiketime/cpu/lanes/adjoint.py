"""Backward of neurons with delays or time constants of their own, and the gradients by time constants of all.

The lanes of a vector are 32 neurons of one sample. With delays it is a sum over the causal inputs, which needs no
order; otherwise the inputs are taken from the last causal one back to the first, with steps as in the forward scan. The
formulas are those of ``response``: with ``y = s |1/tau_syn - 1/tau_mem|`` the response and its derivatives consist of

    G_0 = (1 - exp(-y)) / y,     G_1 = (y - 1 + exp(-y)) / y^2 = (1 - G_0) / y,     G_2 = G_0 - G_1
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.constants import FLAT
from firstspike.spiketime.cpu.lanes.scan import (
    BY_MEM_SERIES,
    DELTA,
    HEIGHT,
    LANES,
    PER_MEM,
    PER_SYN,
    REST_MEM,
    REST_SYN,
    SHORT,
    SLOWER,
    UNIT,
    brief,
    responses,
    series,
)
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.lanes import fold16, sum_rows16
from firstspike.spiketime.cpu.vectors.mathfun import exp, expm1
from firstspike.spiketime.cpu.vectors.simd import (
    absolute,
    fill16,
    fill32,
    fma,
    load16,
    load32,
    lowest_bit,
    maximum,
    minimum,
    select,
    store,
)

# of G_1 in powers of -y: below y = 1/2 the rest is smaller than half a unit in the last place
_SERIES_32 = tuple(1 / math.factorial(n + 2) for n in range(8))
_SERIES_64 = tuple(1 / math.factorial(n + 2) for n in range(14))
_LATE = 0.95


def _series(minus_y):
    """``G_1`` for ``0 <= y < 1/2``."""
    raise NotImplementedError


@chosen_by_type(_series)
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
def derivatives(s, c):
    """Derivatives of ``kappa(s) tau_syn`` (see ``responses``) by the logarithms of tau_mem and tau_syn, for ``s >= 0``.

    That by tau_syn leaves out the factor tau_syn itself.
    """
    a, b, slower = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES), load32(c, SLOWER * LANES)
    y = s * load32(c, DELTA * LANES)
    slow, grown = exp(s * slower * -1.0), expm1(y * -1.0) * -1.0
    series, large = _series(y * -1.0), maximum(y, 0.5)
    small = y < 0.5
    zeroth = select(small, fma(y * -1.0, series, 1.0), grown / large)
    first = select(small, series, (zeroth * -1.0 + 1.0) / large)
    common = s * slow
    of_slower, of_faster = s * slower, s * maximum(a, b)
    # G_2 loses digits as a difference where y is large, and its product with y^2 must not overflow
    steep, second = (grown - y * (grown * -1.0 + 1.0)) / large, zeroth - first
    by_slower = common * first * of_slower
    by_faster = common * select(y >= 1.0, steep * (of_faster / large), second * of_faster)
    leaks_slower, response = b >= a, common * zeroth
    return select(leaks_slower, by_slower, by_faster), select(leaks_slower, by_faster, by_slower) - response


@inlined
def arrived(times, delay, i, spike, unit):
    """How long before the spikes of 32 neurons input ``i`` arrived; negative if it is not causal."""
    if delay is None:
        return (spike - times[i]) * unit
    return (spike - (load32(delay, i * LANES) + times[i])) * unit


@jit
def observed_slopes(times, weight, delay, c, level, spike):
    """dV/dt of 32 neurons at their spikes, in the units of the neurons and of the rates."""
    zero, b, unit = fill32(c, 0.0), load32(c, PER_SYN * LANES), c[UNIT]
    drive = zero
    for i in range(times.size):
        s = arrived(times, delay, i, spike, unit)
        causal = s > 0.0
        if causal:
            drive = fma(select(causal, exp(s * b * -1.0), zero), load32(weight, i * LANES), drive)
    return drive * b - level * load32(c, PER_MEM * LANES)


@jit
def exact_slope(lane, times, weight, delay, c, level, spike):
    """The same of one lane in double precision."""
    mem = np.float64(c[PER_MEM * LANES + lane]) + np.float64(c[REST_MEM * LANES + lane])
    syn = np.float64(c[PER_SYN * LANES + lane]) + np.float64(c[REST_SYN * LANES + lane])
    drive = 0.0
    for i in range(times.size):
        arrival = times[i] if delay is None else delay[i * LANES + lane] + times[i]
        if arrival < spike:
            elapsed = (np.float64(spike) - np.float64(arrival)) * np.float64(c[UNIT])
            drive += np.float64(weight[i * LANES + lane]) * math.exp(-elapsed * syn)
    return drive * syn - level * mem


@jit
def kept_scale(scale, times, delay, c, spike, most):
    """``scale`` where no weight's gradient exceeds ``most``, 0 elsewhere."""
    zero, b, unit = fill32(c, 0.0), load32(c, PER_SYN * LANES), c[UNIT]
    size = absolute(scale)
    if not (size * b * load32(c, HEIGHT * LANES) > most):
        return scale
    largest = zero
    for i in range(times.size):
        s = arrived(times, delay, i, spike, unit)
        causal = s > 0.0
        if causal:
            largest = maximum(largest, select(causal, responses(maximum(s, 0.0), c)[2], zero))
    return select(size * b * largest > most, zero, scale)


@jit
def start(grad, spike, slope, observes, times, weight, delay, c, unit, level, bound, sums, totals):
    """What 32 neurons' gradients of one sample begin with.

    Args:
        grad: by the spike times.
        spike: their times.
        slope: dV/dt there in units of the threshold.
        observes: whether the slopes are to be computed.
        times: of the sample's inputs.
        weight: of the lanes, in their units.
        delay: of the lanes, or None.
        c: rates.
        unit: of the neurons' weights.
        level: threshold in that unit.
        bound: on weight gradients.
        sums: scratch for three vectors.
        totals: by threshold, in units, to add to.

    Returns:
        The lanes with a gradient; their spikes, others' are -inf; dL/dT / V'(T); and the same with 0 for neurons whose
        weights' gradient is dropped. In the units of the neurons and of the rates.
    """
    zero, never = fill32(c, 0.0), fill32(c, -math.inf)
    asks = (spike < math.inf) & ((grad > 0.0) | (grad < 0.0) | ~(grad >= grad))
    spike = select(asks, spike, never)
    if asks and observes:
        slope = observed_slopes(times, weight, delay, c, level, spike)
    else:
        slope = slope * level * (1 / c[UNIT])
    steep = slope / level  # next to a peak it has few digits, see ``settle_flat`` of the kernels of shared constants
    flat = (steep * steep < load32(c, PER_MEM * LANES) * load32(c, PER_SYN * LANES) * FLAT) & (absolute(steep) > 0.0)
    flat &= asks
    if flat:
        store(sums, 0, slope)
        store(sums, LANES, spike)
        store(sums, 2 * LANES, level)
        while flat:
            lane = lowest_bit(flat)
            flat &= flat - np.uint64(1)
            sums[lane] = exact_slope(lane, times, weight, delay, c, sums[2 * LANES + lane], sums[LANES + lane])
        slope = load32(sums, 0)
    asks &= slope > 0.0
    spike, scale = select(asks, spike, never), select(asks, grad / slope, zero)
    store(totals, 0, load32(totals, 0) + scale * (1 / c[UNIT]))
    kept = scale
    if bound < math.inf and asks:
        kept = kept_scale(scale, times, delay, c, spike, unit * (bound * c[UNIT]))
    return asks, spike, scale, kept


@jit
def sum_up(spike, scale, kept, times, weight, delay, c, everything, taus, sums, by_weight, by_delay, by_times, totals):
    """Add the gradients of 32 neurons for one sample, in any order of its inputs.

    Args:
        spike: as ``start`` gives it.
        scale: the same.
        kept: the same.
        times: of the sample's inputs.
        weight: of the lanes, in their units.
        delay: of the lanes.
        c: rates.
        everything: whether more is asked for than the gradients by time constants.
        taus: whether these are asked for.
        sums: scratch for 16 rows.
        by_weight: of the lanes, in their units.
        by_delay: of the lanes.
        by_times: of the inputs, filled up to whole vectors.
        totals: by tau_mem and tau_syn from the second vector on.
    """
    zero, inputs, unit = fill32(c, 0.0), times.size, c[UNIT]
    a, b = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES)
    leaks_slower, pull = b >= a, minimum(a, b) * -1.0
    scale, kept = scale * b, kept * b * (1 / unit)
    mem_sum, syn_sum = zero, zero
    for i in range(inputs):
        place = i * LANES
        s = arrived(times, delay, i, spike, unit)
        causal = s > 0.0
        each = zero
        if causal:
            s, w = maximum(s, 0.0), load32(weight, place)
            if taus:
                of_mem, of_syn = derivatives(s, c)
                mem_sum = fma(select(causal, of_mem, zero), w, mem_sum)
                syn_sum = fma(select(causal, of_syn, zero), w, syn_sum)
            if everything:
                mem, syn, response = responses(s, c)
                response = select(causal, response, zero)
                fast = select(causal, select(leaks_slower, syn, mem), zero)
                each = fma(response, pull, fast) * w * scale
                store(by_weight, place, fma(response, kept, load32(by_weight, place)))
                store(by_delay, place, load32(by_delay, place) - each)
        if everything:
            add_row(each, i, inputs, sums, by_times)
    store(totals, LANES, load32(totals, LANES) - scale * a * mem_sum)
    store(totals, 2 * LANES, load32(totals, 2 * LANES) - scale * b * syn_sum)


@jit
def add_row(each, i, end, sums, by_times):
    """Add the sum of a row to ``by_times[i]``, when 16 have come or there are no more."""
    store(sums, (i & 15) * 16, fold16(each))
    if i & 15 == 15 or i == end - 1:
        for row in range((i & 15) + 1, 16):
            store(sums, row * 16, fill16(sums, 0.0))
        store(by_times, i & ~15, load16(by_times, i & ~15) + sum_rows16(sums, 0))


@jit
def unwind(
    asks, spike, scale, kept, last, order, arrival, weight, c, everything, taus, joins, sums, by_weight, by_times,
    totals,
):  # fmt: skip
    """The same from the last causal input back to the first, where all neurons have one order of arrival.

    ``by_times`` is in that order, and ``joins`` has room for as many zeros as there are inputs. A lane carries the
    response to the input that it has come to, times what ``start`` gives, the part of its slope that the current
    causes, and the response's derivative by the logarithm of tau_mem. That by tau_syn follows from

        dkappa/dlog(tau_mem) + dkappa/dlog(tau_syn) = -s dkappa/ds
    """
    zero, unit = fill32(c, 0.0), c[UNIT]
    a, b = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES)
    top = -1
    lanes = asks
    while lanes:
        lane = lowest_bit(lanes)
        lanes &= lanes - np.uint64(1)
        k = np.intp(last[lane])
        joins[k] |= np.uint64(1) << np.uint64(lane)
        top = max(top, k)
        sums[lane] = arrival[k]
    wait = select(asks, (spike - load32(sums, 0)) * unit, zero)
    scale = scale * b
    _, syn, added = responses(wait, c)
    first_response, first_drive = added * scale, syn * scale
    first_by = derivatives(wait, c)[0] * scale if taus else zero
    kept = select(absolute(kept) > 0.0, fill32(c, 1 / unit), zero)
    for row in range((top & 15) + 1, 16):
        store(sums, row * 16, fill16(sums, 0.0))
    response = drive = by_mem = mem_sum = all_sum = zero
    minus_a = a * -1.0
    for k in range(top, -1, -1):
        if joins[k]:
            response, drive = select(joins[k], first_response, response), select(joins[k], first_drive, drive)
            by_mem = select(joins[k], first_by, by_mem)
            joins[k] = 0
        at = np.intp(order[k]) * LANES
        w = load32(weight, at)
        each = fma(response, minus_a, drive) * w
        if everything:
            store(by_weight, at, fma(response, kept, load32(by_weight, at)))
            store(sums, (k & 15) * 16, fold16(each))
            if k & 15 == 0:
                store(by_times, k, load16(by_times, k) + sum_rows16(sums, 0))
        if taus:
            mem_sum = fma(by_mem, w, mem_sum)
            all_sum = fma(each, (spike - arrival[k]) * unit, all_sum)
        duration = (arrival[k] - arrival[k - 1]) * unit if k > 0 else unit * 0
        if duration == 0:
            continue
        wait, is_brief = fill32(c, duration), duration < c[SHORT]
        mem, syn, added = brief(wait, c) if is_brief else responses(wait, c)
        if taus:
            by_added = series(wait, c, BY_MEM_SERIES) * wait * wait if is_brief else derivatives(wait, c)[0]
            by_mem = fma(by_mem, mem, fma(response, wait * a * mem, drive * by_added))
        response, drive = fma(response, mem, drive * added), drive * syn
    if taus:
        all_sum = select(asks, all_sum, zero)
        store(totals, LANES, load32(totals, LANES) - a * mem_sum)
        store(totals, 2 * LANES, load32(totals, 2 * LANES) + b * (all_sum + mem_sum))
