"""Backward of first spikes: where and with which values each neuron joins the walk back to the first input."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import FLAT, TILE, every_lane, rates_of, saved_of
from firstspike.spiketime.cpu.membrane import exact_slope, fades, kappa
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.mathfun import exp
from firstspike.spiketime.cpu.vectors.rows import sixteen
from firstspike.spiketime.cpu.vectors.simd import (
    fma,
    gather16,
    lanes_of,
    load,
    load_some16,
    load_whole16,
    next_lane,
    select,
    splat,
    store_whole16,
)

_WHOLE = np.uint64(0xFFFF)


@inlined
def lanes_in(g, at, first):
    """Those of 16 lanes of a tile, from ``first`` on, that have a neuron, and the number of the first one's neuron."""
    begin = at.tile * TILE
    return every_lane(min(TILE, g.outputs - begin)) >> np.uint64(first) & _WHOLE, begin + first


@inlined
def settle_flat(tile, g, at, packed, sample):
    """Compute the slopes of lanes afresh where the spike is next to the peak.

    At the spike time as it was rounded, the slope keeps its digits.
    """
    c, saved = tile.c, saved_of(g, at.e, at.b)
    for first in range(0, lanes_of(tile.zero), 16):
        bits, begin = lanes_in(g, at, first)
        steep = load_some16(bits, saved.slope, begin)
        flat = (steep * steep < c.mem * c.syn * FLAT) & (abs(steep) > 0.0) & bits
        while flat:
            bit, flat = next_lane(flat)
            lane, j = first + bit, begin + bit
            level, inputs, spike = tile.state[lane].level, sample.arrival[: saved.last[j] + 1], g.spikes[at.e, at.b, j]
            slope = exact_slope(inputs, sample.order, packed[lane:], None, TILE, c, spike, (1.0, level))
            saved.slope[j] = slope / level


@jit
def observe_tile(tile, g, at, packed, sample):
    """Last causal input and slope, in units of the threshold, of a tile's lanes at spike times from elsewhere."""
    zero, lanes, c, order, arrival, rows = tile.zero, tile.state, tile.c, sample.order, sample.arrival, sample.rows
    syn, begin = rows.fast if c.mem <= c.syn else rows.slow, at.tile * TILE
    size = min(TILE, g.outputs - begin)
    for lane in range(size):
        spike = g.spikes[at.e, at.b, begin + lane]
        lanes[lane].scale = spike if spike < math.inf else -spike
    spike, drive, last, start = lanes.scale, zero, splat(zero, -1.0), 0
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
        drive = drive * exp(max(until - arrival[start], 0.0) * -c.syn)
        start = end
    lanes.scale, lanes.decay = last, (drive * c.syn) / lanes.level - c.mem
    saved = saved_of(g, at.e, at.b)
    for lane in range(size):
        saved.last[begin + lane] = np.int32(lanes[lane].scale)
        saved.slope[begin + lane] = lanes[lane].decay


@jit
def join_lanes(tile, g, at, sample, bound):
    """Where and with which values lanes join. Returns the last row, and whether the bound drops any.

    Lanes that the bound drops join without a scale.
    """
    arrival, rows, top, dropped = sample.arrival, sample.rows, -1, False
    places, joins = g.places[at.slot], g.joins[at.slot]
    for first in range(0, lanes_of(tile.zero), 16):
        (bits, begin), some = lanes_in(g, at, first), sixteen(tile.state, first)
        if not bits:
            break
        asked, kept, scale = joining(tile, g, at, first, arrival, bound)
        left = asked
        while left:
            bit, left = next_lane(left)
            row = np.intp(places[first + bit])
            joins[row] |= np.uint64(1) << np.uint64(first + bit)
            top = max(top, row)
        if kept != asked:
            scale, dropped = select(kept, scale, 0.0), True
            some.scale = scale
        wait = load_some16(bits, g.spikes[at.e, at.b], begin) - gather16(arrival, 0, places, first)
        _, decay, response = fades(select(asked, wait, 0.0), rates_of(tile.c))
        unit_slow = 1.0 / gather16(rows.slow, 0, places, first)
        unit_fast = 1.0 / gather16(rows.fast, 0, places, first)
        some.response = response * scale * select(asked, unit_slow, 0.0)
        some.decay = decay * scale * select(asked, unit_fast, 0.0)
    return top, dropped


@inlined
def joining(tile, g, at, first, arrival, bound):
    """How 16 lanes of a tile, from ``first`` on, join.

    Fills in the places of their last causal inputs. Returns the lanes with a gradient, those of them whose gradients
    with respect to weights are within the bound, and the scales.
    """
    saved, places, some, c = saved_of(g, at.e, at.b), g.places[at.slot], sixteen(tile.state, first), tile.c
    bits, begin = lanes_in(g, at, first)
    k = select(bits, load_whole16(arrival, saved.last, begin), -1.0)
    store_whole16(_WHOLE, places, first, max(k, 0.0))
    steep = load_some16(bits, saved.slope, begin) * some.level
    spiked = (k >= 0.0) & (steep > 0.0)
    scale = select(spiked, load_some16(bits, g.grad[at.e, at.b], begin) / steep, 0.0)
    some.scale = scale
    asked = spiked & ((scale > 0.0) | (scale < 0.0) | ~(scale >= scale))
    kept, never = asked, arrival.dtype.type(math.inf)
    suspects = (abs(scale) * c.height > some.unit * bound) & asked
    while suspects:
        bit, suspects = next_lane(suspects)
        own, spike = tile.state[first + bit], g.spikes[at.e, at.b, begin + bit]
        inputs = 0, np.intp(places[first + bit])
        if exceeds(abs(own.scale), bound * own.unit, spike, -never, arrival, inputs, c):
            kept &= ~(np.uint64(1) << np.uint64(bit))
    return asked, kept, scale


@jit
def exceeds(factor, allowed, spike, since, arrival, inputs, c):
    """Whether ``factor`` times the largest response to an input between ``since`` and a spike is more than that."""
    if not factor * c.height > allowed:
        return False
    first, last = inputs
    end = first_from(arrival, first, last + 1, spike)  # the first input that comes too late
    begin = first_from(arrival, first, last + 1, since)
    best = arrival.dtype.type(0)
    if begin > first:
        best = math.exp((arrival[begin - 1] - since) * c.syn) * kappa(spike - since, c)
    if begin < end:  # next to the maximum of kappa, on one side or the other
        near = first_from(arrival, begin, end, spike - c.summit)
        if near > begin:
            best = max(best, kappa(spike - arrival[near - 1], c))
        if near < end:
            best = max(best, kappa(spike - arrival[near], c))
    return factor * best > allowed
