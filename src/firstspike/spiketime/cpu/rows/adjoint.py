"""Backward: the adjoint of the scan, from each neuron's spike back through its causal inputs.

At input k, with ``s = T - t_k``, the faster and the slower time constant, ``F = exp(x/fast)`` and ``L = exp(x/slow)``,
where x is that of ``coefficients``, a lane carries

    C' = scale kappa(s) / L_k,     E' = scale exp(-s/fast) / F_k              scale = dL/dT / V'(T)
    C'_k = C'_{k+1} + E' BACK_k                                               E' is constant

and gives ``dL/dw_k = -L_k C'`` and ``dL/dt_k = F_k/tau_syn w_k (E' + LEAK_k C')``, whose terms only cancel where kappa
has its maximum. Lanes join at their last causal input, with values computed there; before that they are 0. Weights,
threshold and slopes are in the neuron's unit, see ``pack``.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from typing import Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.constants import FLAT, HEIGHT, PER_MEM, PER_SYN, REST_MEM, REST_SYN, SUMMIT
from firstspike.spiketime.cpu.membrane import kappa, rates_of, responses
from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.rows.coefficients import BACK, FAST, LEAK, SLOW
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.sort import first_from
from firstspike.spiketime.cpu.vectors.lanes import fold16, sum_rows16
from firstspike.spiketime.cpu.vectors.simd import (
    absolute,
    fill16,
    fma,
    gather16,
    lanes_of,
    load,
    load16,
    load_part16,
    load_whole16,
    lowest_bit,
    maximum,
    select,
    store,
    store_whole16,
)

RESPONSE, DECAY = 0, 1  # of a tile's lanes: C' and E' with which each joins
WAIT, SCALE, UNIT_SLOW, UNIT_FAST = 2, 3, 4, 5  # what they follow from
KEPT = 6  # scale, 0 where max_weight_grad drops the weights' gradient
TOTAL = 7  # of all scales, the derivative by the threshold
GRAD, SPIKE, SLOPE = 8, 9, 10  # of a sample: dL/dT, T, and dV/dt there in units of the threshold
UNIT, LEVEL = 11, 12  # the neuron's unit, and the threshold in it
N_LANES = 13


class Found(NamedTuple):
    """What a sample's neurons have: the gradients by their spikes, the spikes, slopes, and last causal inputs."""

    grad: Any
    spikes: Any
    slope: Any
    last: Any


class Into(NamedTuple):
    """What one walk back adds to.

    ``sums`` has room for 16 rows of 16 numbers, as many as ``by_times``, in order of arrival, takes at once.
    """

    sums: Any
    by_weight: Any
    by_times: Any
    wants_weight: Any
    wants_times: Any


@inlined
def settle_flat(bits, found, begin, first, packed, sample, lanes, c):
    """Compute the slopes of 16 lanes, ``bits`` of them from ``first`` on, afresh where the spike is next to the peak.

    The tile's first neuron is ``begin``. There a slope is what little the drive has more than the leak takes: in double
    precision, at the spike time as it was rounded, it keeps its digits.
    """
    steep = load_part16(bits, found.slope, begin + first)
    flat = (steep * steep < c[PER_MEM] * c[PER_SYN] * FLAT) & (absolute(steep) > 0.0) & bits
    while flat:
        lane = first + lowest_bit(flat)
        flat &= flat - np.uint64(1)
        spike, last = found.spikes[begin + lane], found.last[begin + lane]
        found.slope[begin + lane] = _slope(spike, last, packed, lane, sample, lanes[LEVEL, lane], c)


@jit
def _slope(spike, last, packed, lane, sample, level, c):
    """dV/dt of a lane of a tile at its spike, in units of the threshold."""
    mem = np.float64(c[PER_MEM]) + np.float64(c[REST_MEM])
    syn = np.float64(c[PER_SYN]) + np.float64(c[REST_SYN])
    drive = 0.0
    for k in range(last + 1):
        weight = np.float64(packed[np.intp(sample.order[k]) * TILE + lane])
        drive += weight * math.exp((np.float64(sample.arrival[k]) - np.float64(spike)) * syn)
    return drive * syn / level - mem


@jit
def prepare(zero, lanes, places, joins, last, sample, c, bound):
    """Values with which a tile's lanes join and where; returns the last row with one, and whether any is dropped."""
    arrival, rows = sample.arrival, sample.rows
    top, dropped, stride, none, never = -1, False, rows.shape[1], fill16(lanes, 0.0), arrival.dtype.type(math.inf)
    for first in range(0, lanes_of(zero), 16):
        steep = load16(lanes, SLOPE * TILE + first) * load16(lanes, LEVEL * TILE + first)
        k = load_whole16(lanes, last, first)
        store_whole16(np.uint64(0xFFFF), places, first, maximum(k, 0.0))
        spiked = (k >= 0.0) & (steep > 0.0)
        wait = load16(lanes, SPIKE * TILE + first) - gather16(arrival, 0, places, first)
        scale = select(spiked, load16(lanes, GRAD * TILE + first) / steep, none)
        spiked &= (scale > 0.0) | (scale < 0.0) | ~(scale >= scale)  # without a gradient there is nothing to do
        unit_slow = 1.0 / gather16(rows, SLOW * stride, places, first)
        unit_fast = 1.0 / gather16(rows, FAST * stride, places, first)
        store(lanes, WAIT * TILE + first, select(spiked, wait, none))
        store(lanes, SCALE * TILE + first, scale)
        store(lanes, KEPT * TILE + first, scale)
        store(lanes, UNIT_SLOW * TILE + first, select(spiked, unit_slow, none))
        store(lanes, UNIT_FAST * TILE + first, select(spiked, unit_fast, none))
        while spiked:
            lane = first + lowest_bit(spiked)
            spiked &= spiked - np.uint64(1)
            at = np.intp(places[lane])
            joins[at] |= np.uint64(1) << np.uint64(lane)
            top = max(top, at)
            if bound < math.inf:
                factor, allowed = abs(lanes[SCALE, lane]), bound * lanes[UNIT, lane]
                if factor * c[HEIGHT] > allowed:
                    most = largest(lanes[SPIKE, lane], -never, arrival, (0, at), c)
                    if factor * most > allowed:
                        lanes[KEPT, lane], dropped = 0, True
    return top, dropped


@jit
def largest(spike, since, arrival, inputs, c):
    """Largest derivative of the membrane at a spike by the weight of one input, of those after ``since`` and before."""
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
    return best


@jit
def start_lanes(zero, lanes, scale_row, c):
    """Compute C' and E' of a tile's lanes."""
    for first in range(0, lanes_of(zero), 16):
        s, scale = load16(lanes, WAIT * TILE + first), load16(lanes, scale_row * TILE + first)
        mem, syn, response = responses(s, rates_of(c))
        decay = syn if c[PER_MEM] <= c[PER_SYN] else mem
        store(lanes, RESPONSE * TILE + first, response * scale * load16(lanes, UNIT_SLOW * TILE + first))
        store(lanes, DECAY * TILE + first, decay * scale * load16(lanes, UNIT_FAST * TILE + first))


@jit
def unwind_tile(zero, packed, sample, lanes, scale_row, joins, top, c, into):
    """Walk back from row ``top``, with the scales in a row of ``lanes``, adding to the tile's gradients."""
    arrival, ends, rows, sums = sample.arrival, sample.ends, sample.rows, into.sums
    start_lanes(zero, lanes, scale_row, c)
    slow, fast, back = rows[SLOW], rows[FAST], rows[BACK]
    slower, faster = min(c[PER_MEM], c[PER_SYN]), max(c[PER_MEM], c[PER_SYN])
    response = decay = zero
    for i in range(((top & 15) + 1) * 16, sums.size):
        sums[i] = 0
    segment = sample.segments - 1
    while segment > 0 and ends[segment - 1] > top:
        segment -= 1
    begin = ends[segment - 1] if segment > 0 else 0
    k = top
    while True:
        at = np.uintp(k)  # without a sign, an index needs no test for one below 0
        if joins[at]:
            response = select(joins[at], load(zero, lanes, RESPONSE * TILE), response)
            decay = select(joins[at], load(zero, lanes, DECAY * TILE), decay)
        add_row(zero, packed, sample, k, response, decay, into)
        if k == begin:
            if k == 0:
                break
            segment -= 1
            begin = ends[segment - 1] if segment > 0 else 0
            duration = arrival[k] - arrival[k - 1]
            response = fma(response, math.exp(-duration * slower), decay * kappa(duration, c)) * (1 / slow[k - 1])
            decay = decay * (math.exp(-duration * faster) / fast[k - 1])
            k -= 1
        else:
            k -= 1
            response = fma(decay, back[np.uintp(k)], response)


@inlined
def add_row(zero, packed, sample, k, response, decay, into):
    """Add what input k has to the gradients."""
    row, rows, sums = np.uintp(k), sample.rows, into.sums
    first = np.intp(sample.order[row]) * TILE
    if into.wants_weight:
        store(into.by_weight, first, fma(response, rows[SLOW, row], load(zero, into.by_weight, first)))
    if into.wants_times:
        at = k & 15
        store(sums, at * 16, fold16(load(zero, packed, first) * fma(response, rows[LEAK, row], decay)))
        if at == 0:
            store(into.by_times, k, load16(into.by_times, k) + sum_rows16(sums, 0))


@jit
def observe_tile(zero, packed, sample, found, begin, size, lanes, joins, c):
    """Last causal input and slope, in units of the threshold, of a tile's lanes at spike times from elsewhere."""
    order, arrival, ends, rows, top = sample.order, sample.arrival, sample.ends, sample.rows, -1
    spikes, last = found.spikes[begin : begin + size], found.last[begin : begin + size]
    slope = found.slope[begin : begin + size]
    for lane in range(size):
        k = first_from(arrival, 0, sample.n, spikes[lane]) - 1 if spikes[lane] < math.inf else -1
        last[lane], slope[lane] = k, 0
        if k >= 0:
            joins[k] |= np.uint64(1) << np.uint64(lane)
            top = max(top, k)
    current, state = zero, lanes[WAIT]  # free until ``prepare``
    syn = rows[FAST] if c[PER_MEM] <= c[PER_SYN] else rows[SLOW]
    begin = 0
    for segment in range(sample.segments):
        if begin > top:
            break
        if begin > 0:
            current = current * (math.exp((arrival[begin - 1] - arrival[begin]) * c[PER_SYN]) / syn[begin - 1])
        for row in range(begin, min(ends[segment], top + 1)):
            k = np.uintp(row)
            current = fma(load(zero, packed, np.intp(order[k]) * TILE), syn[k], current)
            leaving = joins[k]
            if leaving:
                joins[k] = 0
                store(state, 0, current)
                while leaving:
                    lane = lowest_bit(leaving)
                    leaving &= leaving - np.uint64(1)
                    now = state[lane] / syn[k] * math.exp((arrival[k] - spikes[lane]) * c[PER_SYN])
                    slope[lane] = (now * c[PER_SYN] - lanes[LEVEL, lane] * c[PER_MEM]) / lanes[LEVEL, lane]
        begin = ends[segment]
