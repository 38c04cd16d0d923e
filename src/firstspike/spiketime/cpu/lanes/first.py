"""Short cuts for the gradients of first spikes of closed neurons, before which there are no other events.

With delays and equal time constants the response to an input is ``s exp(-s/tau) / tau``. With ``s = T - t - d`` the
exponential is a product of ``exp(d/tau)``, which all samples share, of ``exp((t - first)/tau)``, which all neurons
share, and of ``exp((first - T)/tau)``, where ``first`` is the first input.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import AHEAD, EQUAL, LANES, fetch_row, named_rates, rates_in
from firstspike.spiketime.cpu.lanes.adjoint import BY_MEM, BY_PARTS, NOW, Y_KEPT, Y, add_event, add_sums, into_of
from firstspike.spiketime.cpu.membrane import brief, brief_derivatives, derivatives, fades, responses
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.shuffles import fold16
from firstspike.spiketime.cpu.vectors.simd import fill16, fill32, fma, highest, load16, load32, lowest, select, store


@jit
def far(c):
    """Times in units of the time constant up to which products of exponentials are far from the ends of the range."""
    return 40.0 if c.itemsize == 4 else 300.0


@jit
def fill_growth(c, delay, growth):
    """Fill in ``exp(delay / tau)`` of the synapses of 32 neurons."""
    rate = named_rates(c)[0].syn * named_rates(c)[0].unit
    for place in range(0, delay.size, LANES):
        store(growth, place, exp(min(load32(delay, place) * rate, far(c))))


@jit
def fill_grown(g, at, spike):
    """Whether all responses are products, and ``exp((first - T) / tau)``. Fills in ``exp((t - first) / tau)``."""
    times, c, grown = g.times[at.b], g.rates[at.group, 0], g.sort_keys[at.slot, 0]
    if g.grown == 0 or named_rates(c)[0].kind != EQUAL:
        return False, spike
    n, rate, least = times.size, named_rates(c)[0].syn * named_rates(c)[0].unit, fill16(c, math.inf)
    store(grown, n // 16 * 16, least)
    for i in range(n):
        grown[i] = times[i]
    for i in range(0, n, 16):
        least = min(least, load16(grown, i))
    first = lowest(least)
    for i in range(0, n, 16):
        store(grown, i, exp(min((load16(grown, i) - first) * rate, far(c))))
    return 0 <= (highest(spike) - first) * rate <= far(c), exp(min((first - spike) * rate, 0.0))


@jit
def settle_first(g, at):
    """Add all inputs' gradients from the adjoint at the spikes. They may come in any order."""
    times, c, delay, into = g.times[at.b], g.rates[at.group, 0], g.delays[at.group], into_of(g, at)
    rows, sums, events, unit = g.state[at.kept], g.sums[at.slot], g.columns[at.slot], named_rates(c)[0].unit
    r, taus = rates_in(c), g.by_taus != 0
    spike, adjoint, kept, none, number = load32(rows, NOW), load32(rows, Y), load32(rows, Y_KEPT), fill32(c, 0.0), 0
    quick, factor = fill_grown(g, at, spike)
    growth, grown, y, mem_sum, own_sum = g.growth[at.group], g.sort_keys[at.slot, 0], adjoint * unit, none, none
    if quick:
        y, kept = y * factor * r.syn, kept * factor * r.syn
    for i in range(times.size):
        place = i * LANES
        s = (spike - (load32(delay, place) + times[i])) * unit
        causal = s > 0.0
        if not causal:
            continue
        s, w = max(s, 0.0), load32(into.weight, place)
        if taus:
            _, _, _, of_mem, of_own = derivatives(s, r)
            mem_sum = fma(select(causal, of_mem, none), w, mem_sum)
            own_sum = fma(select(causal, of_own, none), w, own_sum)
        if quick:
            fast = select(causal, load32(growth, place) * grown[i], none)
            response = fast * s
        else:
            _, fast, response = fades(s, r)  # which is 0 where it is not causal
            fast = select(causal, fast * r.syn, none)
        each = fma(response, r.slower, fast * -1.0) * w * y
        store(into.by_weight, place, fma(response, kept * -1.0, load32(into.by_weight, place)))
        store(into.by_delay, place, load32(into.by_delay, place) - each)
        number = add_event(sums, events, into.by_times, number, i, fold16(each))
    add_sums(sums, events, into.by_times, number)
    if taus:
        totals = g.totals[at.group, at.chunk]
        store(totals, BY_MEM, fma(adjoint, mem_sum, load32(totals, BY_MEM)))
        store(totals, BY_PARTS, fma(adjoint, own_sum, load32(totals, BY_PARTS)))


@jit
def walk_first(g, at, keys, source, n):
    """Add the gradients of neurons with the same order of arrival, from the adjoint at the spikes.

    A lane carries its response to the input that it has come to, the rest of the input's current, both times the
    adjoint, and the response's derivative by log(tau_mem). It stays at its spike until the others come there. The
    derivative by log(tau_syn) follows from

        dkappa/dlog(tau_mem) + dkappa/dlog(tau_syn) = -s dkappa/ds
    """
    into, sums, events = into_of(g, at), g.sums[at.slot], g.columns[at.slot]
    rows, c = g.state[at.kept], g.rates[at.group, 0]
    spike, decay, taus, r, unit = (
        load32(rows, NOW),
        load32(rows, Y),
        g.by_taus != 0,
        rates_in(c),
        named_rates(c)[0].unit,
    )
    none, kept = fill32(c, 0.0), load32(rows, Y_KEPT)
    weighs = select((kept > 0.0) | (kept < 0.0), none + 1.0, none)
    leak, fade = r.mem * unit, r.syn * (unit * -1.0)
    response = by_mem = mem_sum = all_sum = none
    later, number = c.dtype.type(math.inf), 0
    for row in range(first_from(keys, 0, n, highest(spike)) - 1, -1, -1):
        k = np.uintp(row)  # without a sign, an index needs no test for one below 0
        now = keys[k]
        if later > now:
            wait, is_brief = (
                max(min(spike, later) - now, 0.0) * unit,
                (later - now) * unit < named_rates(c)[0].brief_end,
            )
            if not taus:
                mem, syn, rise = brief(wait, r) if is_brief else responses(wait, r)
            else:
                mem, syn, rise, by_rise, _ = brief_derivatives(wait, r) if is_brief else derivatives(wait, r)
                by_mem = fma(by_mem, mem, fma(response, wait * r.mem * mem, decay * by_rise))
            response, decay, later = fma(response, mem, decay * rise), decay * syn, now
        place, ahead = np.intp(source[k]) * LANES, max(row - AHEAD, 0)
        fetch_row(into.weight, source, ahead)
        fetch_row(into.by_weight, source, ahead)
        w = load32(into.weight, place)
        each = fma(response, leak, select(spike > now, decay * fade, none)) * w
        store(into.by_weight, place, fma(response, weighs * -1.0, load32(into.by_weight, place)))
        number = add_event(sums, events, into.by_times, number, source[k], fold16(each))
        if taus:
            mem_sum = fma(by_mem, w, mem_sum)
            all_sum = fma(each, spike - now, all_sum)
    add_sums(sums, events, into.by_times, number)
    if taus:
        totals, all_sum = g.totals[at.group, at.chunk], select(spike > -math.inf, all_sum, none)
        store(totals, BY_MEM, load32(totals, BY_MEM) + mem_sum)
        store(totals, BY_PARTS, load32(totals, BY_PARTS) + all_sum - mem_sum)
