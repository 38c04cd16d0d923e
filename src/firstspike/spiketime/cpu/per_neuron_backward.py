"""Backward where neurons have delays or time constants of their own: sums over the causal inputs, which need no order.

The lanes of a vector are 16 neurons of one sample. The formulas are those of ``response``: with
``y = s |1/tau_syn - 1/tau_mem|`` the response and its derivatives consist of

    G_0 = (1 - exp(-y)) / y,     G_1 = (y - 1 + exp(-y)) / y^2 = (1 - G_0) / y,     G_2 = G_0 - G_1
"""

# mypy: disable-error-code="no-untyped-def"
import math

from numba.core import types
from numba.extending import overload

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.lanes import sum_rows16
from firstspike.spiketime.cpu.mathfun import exp, expm1
from firstspike.spiketime.cpu.per_neuron import DELTA, LANES, PER_MEM, PER_SYN, RATIO, SLOWER, responses
from firstspike.spiketime.cpu.simd import absolute, fill16, fma, load16, maximum, minimum, select, store

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
def derivatives(s, c):
    """Derivatives of ``kappa(s)`` by the logarithms of tau_mem and tau_syn, for ``s >= 0``."""
    a, b, slower = load16(c, PER_MEM * LANES), load16(c, PER_SYN * LANES), load16(c, SLOWER * LANES)
    y = s * load16(c, DELTA * LANES)
    slow, grown = exp(s * slower * -1.0), expm1(y * -1.0) * -1.0
    series, large = _series(y * -1.0), maximum(y, 0.5)
    small = y < 0.5
    zeroth = select(small, fma(y * -1.0, series, 1.0), grown / large)
    first = select(small, series, (zeroth * -1.0 + 1.0) / large)
    common = s * b * slow
    of_slower, of_faster = s * slower, s * maximum(a, b)
    # G_2 loses digits as a difference where y is large, and its product with y^2 must not overflow
    steep, second = (grown - y * (grown * -1.0 + 1.0)) / large, zeroth - first
    by_slower = common * first * of_slower
    by_faster = common * select(y >= 1.0, steep * (of_faster / large), second * of_faster)
    leaks_slower, response = b >= a, common * zeroth
    return select(leaks_slower, by_slower, by_faster), select(leaks_slower, by_faster, by_slower) - response


@jit
def arrived(times, delay, place, i, spike):
    """How long ago input ``i`` arrived at the spikes of 16 neurons; negative or NaN if it is not causal."""
    if delay is None:
        return spike - times[i]
    return spike - (load16(delay, place) + times[i])


@jit
def observed_slopes(times, weight, delay, c, level, spike):
    """dV/dt of 16 neurons at their spikes, in their units."""
    zero, b = fill16(c, 0.0), load16(c, PER_SYN * LANES)
    drive = zero
    for i in range(times.size):
        s = arrived(times, delay, i * LANES, i, spike)
        causal = s > 0.0
        if causal:
            drive = fma(select(causal, exp(s * b * -1.0), zero), load16(weight, i * LANES), drive)
    return drive * b - level * load16(c, PER_MEM * LANES)


@jit
def largest_response(times, delay, c, spike):
    """The largest kappa among the causal inputs of 16 neurons."""
    zero = fill16(c, 0.0)
    largest = zero
    for i in range(times.size):
        s = arrived(times, delay, i * LANES, i, spike)
        causal = s > 0.0
        if causal:
            largest = maximum(largest, select(causal, responses(maximum(s, 0.0), c)[2], zero))
    return largest


@jit
def add_gradients(
    grad, spike, slope, observes, times, weight, delay, c, unit, level, bound, everything, taus, sums, by_weight,
    by_delay, by_times, totals,
):  # fmt: skip
    """Add the gradients of 16 neurons for one sample.

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
        everything: whether more is asked for than the gradients by time constants.
        taus: whether these are asked for.
        sums: scratch for 16 rows.
        by_weight: of the lanes, in their units.
        by_delay: of the lanes.
        by_times: of the inputs, filled up to whole vectors.
        totals: by threshold, in units, tau_mem and tau_syn.
    """
    zero, inputs = fill16(c, 0.0), times.size
    a, b = load16(c, PER_MEM * LANES), load16(c, PER_SYN * LANES)
    asks = (spike < math.inf) & ((grad > 0.0) | (grad < 0.0) | ~(grad >= grad))
    if not asks:
        return
    spike = select(asks, spike, fill16(c, -math.inf))
    steep = observed_slopes(times, weight, delay, c, level, spike) if observes else slope * level
    asks &= steep > 0.0
    if not asks:
        return
    spike, scale = select(asks, spike, fill16(c, -math.inf)), select(asks, grad / steep, zero)
    store(totals, 0, load16(totals, 0) + scale)
    kept = scale
    if bound < math.inf:
        dropped = asks & ~(unit * bound >= absolute(scale) * largest_response(times, delay, c, spike))
        kept = select(dropped, zero, scale)
    leaks_slower, pull, rise = b >= a, minimum(load16(c, RATIO * LANES), 1.0), scale * b * -1.0
    mem_sum, syn_sum = zero, zero
    for i in range(inputs):
        place = i * LANES
        s = arrived(times, delay, place, i, spike)
        causal = s > 0.0
        if not causal:
            if everything:
                store(sums, (i & 15) * 16, zero)
        else:
            s, w = maximum(s, 0.0), load16(weight, place)
            if taus:
                of_mem, of_syn = derivatives(s, c)
                mem_sum = fma(select(causal, of_mem, zero), w, mem_sum)
                syn_sum = fma(select(causal, of_syn, zero), w, syn_sum)
            if everything:
                mem, syn, response = responses(s, c)
                response = select(causal, response, zero)
                fast = select(causal, select(leaks_slower, syn, mem), zero)
                each = (fast - response * pull) * w * rise
                store(by_weight, place, fma(response, kept, load16(by_weight, place)))
                if delay is not None:
                    store(by_delay, place, load16(by_delay, place) + each)
                store(sums, (i & 15) * 16, each)
        if everything and (i & 15 == 15 or i == inputs - 1):
            first = i & ~15
            for row in range(i + 1, first + 16):
                store(sums, (row & 15) * 16, zero)
            store(by_times, first, load16(by_times, first) + sum_rows16(sums, 0))
    if taus:
        store(totals, LANES, load16(totals, LANES) - scale * a * mem_sum)
        store(totals, 2 * LANES, load16(totals, 2 * LANES) - scale * b * syn_sum)
