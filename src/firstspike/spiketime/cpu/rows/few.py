"""Both passes of samples with few inputs: 16 neurons at a time, whose states stay in registers.

Intervals between few inputs are long: in many of them some neuron fires. A branch that depends on it would be predicted
wrongly in as many. So all intervals are passed first, then those are tested in which a neuron may fire. States have
scale 1.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import HEIGHT, PER_MEM, PER_SYN, RATIO
from firstspike.spiketime.cpu.membrane import ENOUGH, fades, rates_of, reaches, responses
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.adjoint import SCALE, TOTAL, UNIT, exceeds, joining
from firstspike.spiketime.cpu.rows.intervals import CURRENT, LIMIT, SINCE, UNTIL, VOLTAGE
from firstspike.spiketime.cpu.runtime.compiling import inlined
from firstspike.spiketime.cpu.vectors.lanes import sum_rows16
from firstspike.spiketime.cpu.vectors.masks import mask_of, update
from firstspike.spiketime.cpu.vectors.simd import (
    fill16,
    fma,
    gather16,
    load16,
    load_some16,
    lowest_bit,
    select,
    store,
    store_whole16,
)

FEW = 64  # inputs that are too many
_SYN, _RISE, _MEM = range(3)  # exp(-D/tau_syn), kappa(D), exp(-D/tau_mem)
_LEFT, _DRIVE = 3, 4  # V LEFT + I DRIVE is the end of the tangent to V, above which it does not rise
_ONE, _BACK, _SLOW, _FAST = range(4)  # backward: 1, which gradients are scaled with; kappa(D), the two exponentials
_WHOLE = np.uint64(0xFFFF)


@inlined
def few_rows(arrival, n, c, rows):
    """Fill the coefficients of the interval after each input; the last one ends with V = 0."""
    stride, r = rows.shape[1], rates_of(c)
    for k in range(0, n, 16):
        wait = load16(arrival, k + 1) - load16(arrival, k)
        mem, syn, rise = responses(wait, r)
        store(rows, _SYN * stride + k, syn)
        store(rows, _RISE * stride + k, rise)
        store(rows, _MEM * stride + k, mem)
        left = (1.0 - wait * c[PER_MEM]) * (1 / ENOUGH)
        short = left > 0.5  # if not, the tangent tells nothing, and any current is enough for the exact test
        store(rows, _LEFT * stride + k, select(short, left, fill16(rows, 0.0)))
        store(rows, _DRIVE * stride + k, select(short, wait * (c[PER_SYN] / ENOUGH), fill16(rows, math.inf)))
    rows[_RISE, n - 1] = rows[_MEM, n - 1] = rows[_LEFT, n - 1] = 0
    rows[_DRIVE, n - 1] = math.inf


@inlined
def scan_few(packed, sample, first, bits, c, state, last, passed):
    """Scan one sample with 16 neurons of a tile from lane ``first`` on; returns those of ``bits`` that fire.

    All pass the intervals as if none fired, until none is left that was always below the threshold. Only then those
    intervals are tested in which one may fire. ``passed (inputs, 2, 16)`` has room for the states. Notes what
    ``intervals.solve`` needs in ``state``, and the rows of their last causal inputs in ``last``.
    """
    order, arrival, n, rows = sample.order, sample.arrival, sample.n, sample.rows
    r, none = rates_of(c), fill16(rows, 0.0)
    voltage = current = none
    below = bits  # never above the threshold so far
    decay, candidates = 0.0, np.uint64(0)
    for k in range(n):
        weight = load16(packed, np.intp(order[k]) * TILE + first)
        current = fma(current, fill16(rows, decay), weight)
        decay = rows[_SYN, k]
        if rows[_RISE, k] == 0 and k < n - 1:
            continue  # the next input arrives at the same time
        store(passed, 32 * k, voltage)
        store(passed, 32 * k + 16, current)
        below &= voltage < 1.0
        if not below:
            break
        end = fma(voltage, fill16(rows, rows[_MEM, k]), current * rows[_RISE, k])
        tangent = fma(voltage, fill16(rows, rows[_LEFT, k]), current * rows[_DRIVE, k])
        # the end as well, which rounding may put above a tangent of large terms; of NaN and a number this is the number
        may = (max(tangent, end) >= 1.0) & below
        candidates |= np.uint64(may != 0) << np.uint64(k)
        voltage = end
    last_voltage = last_current = limit = since = until = place = none
    silent = bits
    while candidates and silent:
        k = lowest_bit(candidates)
        candidates &= candidates - np.uint64(1)
        endless = k == n - 1
        voltage, current = load16(passed, 32 * k), load16(passed, 32 * k + 16)
        end = fma(voltage, fill16(rows, rows[_MEM, k]), current * rows[_RISE, k])
        wait = fill16(rows, math.inf if endless else arrival[k + 1] - arrival[k])
        fired, latest = reaches(voltage, current, wait, end, current * rows[_SYN, k], silent, r)
        last_voltage, last_current = select(fired, voltage, last_voltage), select(fired, current, last_current)
        limit = select(fired, latest, limit)
        since = select(fired, fill16(rows, arrival[k]), since)
        until = select(fired, fill16(rows, math.inf if endless else arrival[k + 1]), until)
        place = select(fired, fill16(rows, float(k)), place)
        silent &= ~fired
    found = bits & ~silent
    store(state, VOLTAGE * TILE + first, last_voltage)
    store(state, CURRENT * TILE + first, last_current)
    store(state, LIMIT * TILE + first, limit)
    store(state, SINCE * TILE + first, since)
    store(state, UNTIL * TILE + first, until)
    store_whole16(found, last, first, place)
    return found


@inlined
def few_rows_back(arrival, n, c, rows):
    """Fill the coefficients of the backward pass, as ``few_rows``."""
    stride, r = rows.shape[1], rates_of(c)
    for k in range(0, n, 16):
        slow, fast, rise = fades(load16(arrival, k + 1) - load16(arrival, k), r)
        store(rows, _ONE * stride + k, fill16(rows, 1.0))
        store(rows, _BACK * stride + k, rise)
        store(rows, _SLOW * stride + k, slow)
        store(rows, _FAST * stride + k, fast)


@inlined
def unwind_few(g, e, slot, b, begin, first, bits, packed, sample, bound, into):
    """The backward pass of one sample for 16 neurons of a tile, from lane ``first`` on: ``bits`` of them.

    The tile's first neuron is ``begin``. Adds the scales to the lanes' TOTAL, to the sums ``(inputs, 16)`` the terms of
    the gradients by times, and to those by weights. See ``adjoint``; here C and E have scale 1.
    """
    order, arrival, rows, places, spikes = sample.order, sample.arrival, sample.rows, g.places[slot], g.spikes[e, b]
    c, lanes, none = g.c, g.state[slot], fill16(rows, 0.0)
    joins, asked, scale = joining(g, e, slot, b, begin, first, bits)
    store(lanes, TOTAL * TILE + first, load16(lanes, TOTAL * TILE + first) + scale)
    if not asked:
        return
    joins = select(asked, joins, -1.0)
    wait = load_some16(bits, spikes, begin + first) - gather16(arrival, 0, places, first)
    _, decay, response = fades(select(asked, wait, none), rates_of(c))
    response, decay = response * scale, decay * scale
    top = sample.n - 1
    while not joins >= float(top):
        top -= 1
    allowed, kept = load16(lanes, UNIT * TILE + first) * bound, asked
    suspects = (abs(scale) * c[HEIGHT] > allowed) & asked
    while suspects:
        lane = lowest_bit(suspects)
        bit, at = np.uint64(1) << np.uint64(lane), first + lane
        suspects &= ~bit
        factor, most, inputs = abs(lanes[SCALE, at]), bound * lanes[UNIT, at], (0, np.intp(places[at]))
        if exceeds(factor, most, spikes[begin + at], -arrival.dtype.type(math.inf), arrival, inputs, c):
            kept &= ~bit
    keeps, leak = mask_of(none, kept), -min(c[RATIO], 1.0)
    value = faster = none
    for k in range(top, -1, -1):
        here = joins == float(k)
        value, faster = select(here, response, value), select(here, decay, faster)
        row = np.intp(order[np.uintp(k)]) * TILE + first
        if into.wants_weight:
            store(into.by_weight, row, load16(into.by_weight, row) + update(keeps, value, none))
        if into.wants_times:
            terms = load16(packed, row) * fma(value, fill16(rows, leak), faster)
            store(into.sums, k * 16, load16(into.sums, k * 16) + terms)
        if k > 0:
            before = np.uintp(k - 1)  # without a sign, an index needs no test for one below 0
            value = fma(value, fill16(rows, rows[_SLOW, before]), faster * rows[_BACK, before])
            faster = faster * rows[_FAST, before]


@inlined
def sum_few(sums, n, by_times):
    """Add the sums of the first n rows of ``sums`` to ``by_times``, and set them to 0."""
    none = fill16(sums, 0.0)
    for k in range(0, n, 16):
        store(by_times, k, load16(by_times, k) + sum_rows16(sums, k * 16))
    for k in range(n):
        store(sums, k * 16, none)
