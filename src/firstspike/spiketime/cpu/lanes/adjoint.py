"""Backward of neurons with delays or their own time constants, and the gradients with respect to time constants of all.

The lanes of a vector are 32 neurons of one sample. With delays it is a sum over the causal inputs, which needs no
order. Otherwise the inputs are taken from the last causal one back to the first, with steps as in the forward scan.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import (
    AHEAD,
    BRIEF_END,
    EQUAL,
    FLAT,
    HEIGHT,
    KIND,
    LANES,
    PER_MEM,
    PER_SYN,
    UNIT,
    fetch_row,
    rates_in,
    saved_of,
)
from firstspike.spiketime.cpu.lanes.windows import arrivals, window_of
from firstspike.spiketime.cpu.membrane import brief, brief_derivatives, derivatives, exact_slope, fades, responses
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.shuffles import fold16, sum_rows16
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fill32,
    fma,
    highest,
    load16,
    load32,
    load_some32,
    lowest,
    lowest_bit,
    select,
    store,
)

BY_THRESHOLD, BY_MEM, BY_SYN, BY_RESET = range(0, 4 * LANES, LANES)  # sums of a group's gradients, see ``kernels``


@inlined
def arrived(times, delay, i, spike, unit):
    """How long before the spikes of 32 neurons input ``i`` arrived; negative if it is not causal."""
    if delay is None:
        return (spike - times[i]) * unit
    return (spike - (load32(delay, i * LANES) + times[i])) * unit


@jit
def observed_slopes(times, weight, delay, c, level, spike):
    """dV/dt of 32 neurons at their spikes, in the units of the neurons and of the rates."""
    zero, b, unit = fill32(c, 0.0), load32(c, PER_SYN * LANES), c[UNIT, 0]
    drive = zero
    for i in range(times.size):
        s = arrived(times, delay, i, spike, unit)
        causal = s > 0.0
        if causal:
            drive = fma(select(causal, exp(s * b * -1.0), zero), load32(weight, i * LANES), drive)
    return drive * b - level * load32(c, PER_MEM * LANES)


@jit
def bounded(scale, suspects, g, at, window, delayed, spike, since, most):
    """``scale``, but 0 for ``suspects`` where a weight's gradient exceeds ``most`` by an input, or by its rest.

    The responses are those of a spike to inputs ``since``.
    """
    c = g.rates[at.group]
    r, unit, largest = rates_in(c), c[UNIT, 0], fill32(c, 0.0)
    for k in range(window.n):
        arrival, inside = fill32(c, window.times[k]), at.every
        if delayed:
            arrival, inside = arrivals(g, at, window, k)
        causal = (spike > arrival) & (arrival >= window.begin) & inside & suspects
        if causal:
            start = max(arrival, since)
            wait = select(causal, max(spike - start, 0.0) * unit, 0.0)
            age = select(causal, (arrival - start) * r.syn * unit, 0.0)
            largest = max(largest, select(causal, responses(wait, r)[2] * exp(age), 0.0))
    return select((abs(scale) * largest > most) & suspects, 0.0, scale)


@jit
def start(g, at, delay):
    """The lanes with a gradient; their spikes, others' are -inf; dL/dT / V'(T); and the same without dropped spikes.

    The last is 0 for neurons whose weights' gradient exceeds the bound. In the units of the neurons and of the rates.
    """
    times, weight, c, sums, first = g.times[at.b], g.packed[at.group], g.rates[at.group], g.sums[at.slot], at.first
    level, zero, never = load32(g.level[at.e], first), fill32(c, 0.0), fill32(c, -math.inf)
    grad, spike = load_some32(at.every, g.grad[at.b], first), load_some32(at.every, g.spikes[at.b], first)
    asks = (spike < math.inf) & ((grad > 0.0) | (grad < 0.0) | ~(grad >= grad))
    if not asks:
        return asks, never, zero, zero
    spike = select(asks, spike, never)
    if g.observes:
        slope = observed_slopes(times, weight, delay, c, level, spike)
    else:
        saved = saved_of(g, at.b)
        slope = load_some32(at.every, saved.slope, first) * level * (1 / c[UNIT, 0])
    steep = slope / level
    flat = (steep * steep < load32(c, PER_MEM * LANES) * load32(c, PER_SYN * LANES) * FLAT) & (abs(steep) > 0.0)
    flat &= asks
    if flat:
        store(sums, 0, slope)
        store(sums, LANES, spike)
        while flat:
            lane = lowest_bit(flat)
            flat &= flat - np.uint64(1)
            mine, unit, level_here = c[:, lane], c[UNIT, 0], g.level[at.e, first + lane]
            sums[lane] = exact_slope(
                times, None, times.size, weight, delay, lane, LANES, mine, unit, level_here, sums[LANES + lane]
            )
        slope = load32(sums, 0)
    asks &= slope > 0.0
    spike, scale = select(asks, spike, never), select(asks, grad / slope, zero)
    totals = g.totals[at.group, at.chunk]
    store(totals, BY_THRESHOLD, load32(totals, BY_THRESHOLD) + scale * (1 / c[UNIT, 0]))
    kept = scale
    if g.bound[0] < math.inf:
        most = load32(g.unit[at.e], first) * (g.bound[0] * c[UNIT, 0])
        suspects = (abs(scale) * load32(c, HEIGHT * LANES) > most) & asks
        if suspects:
            window = window_of(g, at.slot, at.b, 0, True)
            kept = bounded(scale, suspects, g, at, window, delay is not None, spike, never, most)
    return asks, spike, scale, kept


@jit
def add_row(each, i, end, sums, by_times):
    """Add the sum of a row to ``by_times[i]``, when 16 have come or there are no more."""
    store(sums, (i & 15) * 16, fold16(each))
    if i & 15 == 15 or i == end - 1:
        for row in range((i & 15) + 1, 16):
            store(sums, row * 16, fill16(sums, 0.0))
        store(by_times, i & ~15, load16(by_times, i & ~15) + sum_rows16(sums, 0))


@jit
def far(c):
    """Times in units of the time constant up to which products of exponentials are far from the ends of the range."""
    return 40.0 if c.itemsize == 4 else 300.0


@jit
def fill_growth(c, delay, growth):
    """Fill in ``exp(delay / tau)`` of the synapses of 32 neurons, for ``growths``."""
    rate = c[PER_SYN, 0] * c[UNIT, 0]
    for place in range(0, delay.size, LANES):
        store(growth, place, exp(min(load32(delay, place) * rate, far(c))))


@jit
def growths(g, at, spike):
    """Whether all responses are quick to compute, and ``exp((first - T) / tau)``, where ``first`` is the first input.

    Where both time constants are equal, the response is ``s exp(-s / tau) / tau``. With ``s = T - t - d`` the
    exponential is that factor times ``exp(d / tau)``, which all samples share, and ``exp((t - first) / tau)``, which
    all neurons share. The latter are filled into the first of ``sort_keys``.
    """
    times, c, grown = g.times[at.b], g.rates[at.group], g.sort_keys[at.slot, 0]
    if g.grown == 0 or c[KIND, 0] != EQUAL:
        return False, spike
    n, rate, least = times.size, c[PER_SYN, 0] * c[UNIT, 0], fill16(c, math.inf)
    store(grown, n // 16 * 16, least)
    for i in range(n):
        grown[i] = times[i]
    for i in range(0, n, 16):
        least = min(least, load16(grown, i))
    first = lowest(least)
    for i in range(0, n, 16):
        store(grown, i, exp(min((load16(grown, i) - first) * rate, far(c))))
    return 0 <= (highest(spike) - first) * rate <= far(c), exp((first - spike) * rate)


@jit
def unwind_delayed(g, at):
    """Add the gradients of 32 neurons with synaptic delays for sample ``b``, in any order of its inputs."""
    delay = g.delays[at.group]
    asks, spike, scale, kept = start(g, at, delay)
    if not asks:
        return
    times, weight, c, totals = g.times[at.b], g.packed[at.group], g.rates[at.group], g.totals[at.group, at.chunk]
    by_weight, by_delay = g.weight_parts[at.group, at.chunk], g.delay_parts[at.group, at.chunk]
    by_times, sums = g.times_parts[at.part, at.b], g.sums[at.slot]
    zero, inputs, unit, r, taus = fill32(c, 0.0), times.size, c[UNIT, 0], rates_in(c), g.by_taus != 0
    scale, kept, steep = scale * (1 / unit), kept * (1 / unit), scale
    mem_sum = syn_sum = zero
    quick, factor = growths(g, at, spike)
    grown, growth = g.sort_keys[at.slot, 0], g.growth[at.group]
    if quick:
        kept, steep = kept * factor * r.syn, steep * factor * r.syn
    for i in range(inputs):
        place = i * LANES
        s = arrived(times, delay, i, spike, unit)
        causal = s > 0.0
        each = zero
        if causal:
            s, w = max(s, 0.0), load32(weight, place)
            if taus:
                of_mem, of_syn = derivatives(s, r)
                mem_sum = fma(select(causal, of_mem, zero), w, mem_sum)
                syn_sum = fma(select(causal, of_syn, zero), w, syn_sum)
            if quick:  # without the factors that are the same for all inputs
                fast = select(causal, load32(growth, place) * grown[i], zero)
                response = fast * s
            else:
                _, fast, response = fades(s, r)  # 0 where it is not causal
                fast = select(causal, fast * r.syn, zero)
            # the derivative of kappa, whose terms only cancel where it has its maximum
            each = fma(response, r.slower * -1.0, fast) * w * steep
            store(by_weight, place, fma(response, kept, load32(by_weight, place)))
            store(by_delay, place, load32(by_delay, place) - each)
        add_row(each, i, inputs, sums, by_times)
    store(totals, BY_MEM, load32(totals, BY_MEM) - scale * mem_sum)
    store(totals, BY_SYN, load32(totals, BY_SYN) - scale * syn_sum)


@jit
def unwind_sorted(g, at):
    """Unwind from the last causal input back to the first, where all neurons have one order of arrival.

    The gradient with respect to the times is in that order. A lane carries the response to the input that it has come
    to, times the factor of ``start``, the rest of the input's current, and the response's derivative with respect to
    log(tau_mem). It stays at its spike until the others come there. That with respect to tau_syn follows from

        dkappa/dlog(tau_mem) + dkappa/dlog(tau_syn) = -s dkappa/ds
    """
    asks, spike, scale, kept = start(g, at, None)
    if not asks:
        return
    last, _, order, arrival = saved_of(g, at.b)
    weight, totals, sums = g.packed[at.group], g.totals[at.group, at.chunk], g.sums[at.slot]
    by_weight, by_times = g.weight_parts[at.group, at.chunk], g.times_parts[at.part, at.b]
    c, taus = g.rates[at.group], g.by_taus != 0
    zero, unit, r = fill32(c, 0.0), c[UNIT, 0], rates_in(c)
    top = first_from(arrival, 0, last[g.outputs], highest(spike)) - 1
    kept = select(abs(kept) > 0.0, fill32(c, 1 / unit), zero)
    for row in range((top & 15) + 1, 16):
        store(sums, row * 16, fill16(sums, 0.0))
    response = by_mem = mem_sum = all_sum = zero
    decay, later = scale, c.dtype.type(math.inf)
    for row in range(top, -1, -1):
        k = np.uintp(row)  # without a sign, an index needs no test for one below 0
        now = arrival[k]
        if later > now:
            wait, is_brief = max(min(spike, later) - now, 0.0) * unit, (later - now) * unit < c[BRIEF_END, 0]
            mem, syn, rise = brief(wait, r) if is_brief else responses(wait, r)
            if taus:
                by_rise = brief_derivatives(wait, r)[0] if is_brief else derivatives(wait, r)[0]
                by_mem = fma(by_mem, mem, fma(response, wait * r.mem * mem, decay * by_rise))
            response, decay, later = fma(response, mem, decay * rise), decay * syn, now
        at, ahead = np.intp(order[k]) * LANES, max(row - AHEAD, 0)
        fetch_row(weight, order, ahead)
        fetch_row(by_weight, order, ahead)
        w = load32(weight, at)
        each = fma(response, r.mem * -1.0, select(spike > now, decay * r.syn, zero)) * w
        store(by_weight, at, fma(response, kept, load32(by_weight, at)))
        store(sums, (row & 15) * 16, fold16(each))
        if row & 15 == 0:
            store(by_times, row, load16(by_times, row) + sum_rows16(sums, 0))
        if taus:
            mem_sum = fma(by_mem, w, mem_sum)
            all_sum = fma(each, (spike - now) * unit, all_sum)
    if taus:
        all_sum = select(asks, all_sum, zero)
        store(totals, BY_MEM, load32(totals, BY_MEM) - mem_sum * (1 / unit))
        store(totals, BY_SYN, load32(totals, BY_SYN) + (all_sum + mem_sum) * (1 / unit))
