"""Backward of first spikes: where and with which values each neuron joins the walk back to the first input."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import FLAT, HEIGHT, PER_MEM, PER_SYN, SUMMIT, TILE, rates_of, saved_of
from firstspike.spiketime.cpu.membrane import exact_slope, fades, kappa
from firstspike.spiketime.cpu.rows.adjoint import DECAY, LEVEL, RESPONSE, SCALE, UNIT
from firstspike.spiketime.cpu.rows.intervals import FAST, SLOW
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.simd import (
    fma,
    gather16,
    lanes_of,
    load,
    load16,
    load_some16,
    load_whole16,
    next_lane,
    select,
    splat,
    store,
    store_whole16,
)

_WHOLE = np.uint64(0xFFFF)


@inlined
def settle_flat(g, e, b, begin, first, bits, packed, sample, lanes):
    """Compute the slopes of 16 lanes, ``bits`` of them from ``first`` on, afresh where the spike is next to the peak.

    The tile's first neuron is ``begin``. At the spike time as it was rounded, the slope keeps its digits.
    """
    c, saved = g.c, saved_of(g, e, b)
    steep = load_some16(bits, saved.slope, begin + first)
    flat = (steep * steep < c[PER_MEM] * c[PER_SYN] * FLAT) & (abs(steep) > 0.0) & bits
    while flat:
        bit, flat = next_lane(flat)
        lane = first + bit
        level, spike = lanes[LEVEL + lane], g.spikes[e, b, begin + lane]
        n = saved.last[begin + lane] + 1
        slope = exact_slope(sample.arrival, sample.order, n, packed, None, lane, TILE, c, 1.0, level, spike)
        saved.slope[begin + lane] = slope / level


@jit
def observe_tile(zero, g, e, slot, b, begin, size, packed, sample):
    """Last causal input and slope, in units of the threshold, of a tile's lanes at spike times from elsewhere."""
    order, arrival, rows, c, lanes = sample.order, sample.arrival, sample.rows, g.c, g.state[slot]
    syn = rows[FAST] if c[PER_MEM] <= c[PER_SYN] else rows[SLOW]
    for lane in range(size):
        spike = g.spikes[e, b, begin + lane]
        lanes[SCALE + lane] = spike if spike < math.inf else -spike
    spike, drive, last, start = load(zero, lanes, SCALE), zero, splat(zero, -1.0), 0
    for segment in range(sample.segments):
        end = sample.ends[segment]
        for row in range(start, end):
            k = np.uintp(row)
            causal = spike > arrival[k]
            if not causal:
                break
            drive = select(causal, fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], drive), drive)
            last = select(causal, float(row), last)
        until = min(spike, arrival[end]) if segment < sample.segments - 1 else spike
        drive = drive * exp(max(until - arrival[start], 0.0) * -c[PER_SYN])
        start = end
    store(lanes, SCALE, last)
    store(lanes, DECAY, (drive * c[PER_SYN]) / load(zero, lanes, LEVEL) - c[PER_MEM])
    saved = saved_of(g, e, b)
    for lane in range(size):
        saved.last[begin + lane] = np.int32(lanes[SCALE + lane])
        saved.slope[begin + lane] = lanes[DECAY + lane]


@jit
def join_lanes(zero, g, e, slot, b, begin, every, sample, bound):
    """Where and with which values the lanes ``every`` join. Returns the last row, and whether the bound drops any.

    The tile's first neuron is ``begin``. Lanes that the bound drops join without a scale.
    """
    arrival, rows, stride, top, dropped = sample.arrival, sample.rows, sample.rows.shape[1], -1, False
    lanes, places, joins = g.state[slot], g.places[slot], g.joins[slot]
    for first in range(0, lanes_of(zero), 16):
        bits = every >> np.uint64(first) & _WHOLE
        if not bits:
            break
        asked, kept, scale = joining(g, e, slot, b, begin, first, bits, arrival, bound)
        left = asked
        while left:
            bit, left = next_lane(left)
            row = np.intp(places[first + bit])
            joins[row] |= np.uint64(1) << np.uint64(first + bit)
            top = max(top, row)
        if kept != asked:
            scale, dropped = select(kept, scale, 0.0), True
            store(lanes, SCALE + first, scale)
        wait = load_some16(bits, g.spikes[e, b], begin + first) - gather16(arrival, 0, places, first)
        _, decay, response = fades(select(asked, wait, 0.0), rates_of(g.c))
        unit_slow = 1.0 / gather16(rows, SLOW * stride, places, first)
        unit_fast = 1.0 / gather16(rows, FAST * stride, places, first)
        store(lanes, RESPONSE + first, response * scale * select(asked, unit_slow, 0.0))
        store(lanes, DECAY + first, decay * scale * select(asked, unit_fast, 0.0))
    return top, dropped


@inlined
def joining(g, e, slot, b, begin, first, bits, arrival, bound):
    """How 16 lanes of a tile, ``bits`` of them from ``first`` on, join. The tile's first neuron is ``begin``.

    Fills in the places of their last causal inputs. Returns the lanes with a gradient, those of them whose gradients
    with respect to weights are within the bound, and the scales.
    """
    saved, places, lanes, at = saved_of(g, e, b), g.places[slot], g.state[slot], begin + first
    k = select(bits, load_whole16(lanes, saved.last, at), -1.0)
    store_whole16(_WHOLE, places, first, max(k, 0.0))
    steep = load_some16(bits, saved.slope, at) * load16(lanes, LEVEL + first)
    spiked = (k >= 0.0) & (steep > 0.0)
    scale = select(spiked, load_some16(bits, g.grad[e, b], at) / steep, 0.0)
    store(lanes, SCALE + first, scale)
    asked = spiked & ((scale > 0.0) | (scale < 0.0) | ~(scale >= scale))
    kept, never = asked, arrival.dtype.type(math.inf)
    suspects = (abs(scale) * g.c[HEIGHT] > load16(lanes, UNIT + first) * bound) & asked
    while suspects:
        bit, suspects = next_lane(suspects)
        lane = first + bit
        factor, allowed, inputs = abs(lanes[SCALE + lane]), bound * lanes[UNIT + lane], (0, np.intp(places[lane]))
        if exceeds(factor, allowed, g.spikes[e, b, begin + lane], -never, arrival, inputs, g.c):
            kept &= ~(np.uint64(1) << np.uint64(bit))
    return asked, kept, scale


@jit
def exceeds(factor, allowed, spike, since, arrival, inputs, c):
    """Whether ``factor`` times the largest response to an input between ``since`` and a spike is more than that."""
    if not factor * c[HEIGHT] > allowed:
        return False
    first, last = inputs
    end = first_from(arrival, first, last + 1, spike)  # the first input that comes too late
    begin = first_from(arrival, first, last + 1, since)
    best = arrival.dtype.type(0)
    if begin > first:
        best = math.exp((arrival[begin - 1] - since) * c[PER_SYN]) * kappa(spike - since, c)
    if begin < end:  # next to the maximum of kappa, on one side or the other
        near = first_from(arrival, begin, end, spike - c[SUMMIT])
        if near > begin:
            best = max(best, kappa(spike - arrival[near - 1], c))
        if near < end:
            best = max(best, kappa(spike - arrival[near], c))
    return factor * best > allowed
