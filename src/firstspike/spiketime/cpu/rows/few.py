"""Backward through samples with few inputs, as ``adjoint`` does: 16 neurons at a time, in registers, with scale 1."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import HEIGHT, RATIO, TILE, rates_of
from firstspike.spiketime.cpu.membrane import fades
from firstspike.spiketime.cpu.rows.adjoint import SCALE, TOTAL, UNIT, exceeds, joining
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
)

FEW = 32  # inputs that are too many
_ONE, _BACK, _SLOW, _FAST = range(4)  # 1, which gradients are scaled with; kappa(D), the two exponentials


@inlined
def few_rows_back(arrival, n, c, rows):
    """Fill the coefficients of the interval after each input."""
    stride, r = rows.shape[1], rates_of(c)
    for k in range(0, n, 16):
        slow, fast, rise = fades(load16(arrival, k + 1) - load16(arrival, k), r)
        store(rows, _ONE * stride + k, fill16(rows, 1.0))
        store(rows, _BACK * stride + k, rise)
        store(rows, _SLOW * stride + k, slow)
        store(rows, _FAST * stride + k, fast)


@inlined
def unwind_few(g, e, slot, b, begin, first, bits, packed, sample, bound, into):
    """``join_lanes`` and ``unwind_tile`` of 16 lanes, ``bits`` of those from ``first`` on in a tile."""
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
