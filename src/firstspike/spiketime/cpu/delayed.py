"""Synaptic delays: each neuron sees its own order of arrival, so that neurons cannot share rows.

Forward: each (sample, neuron) sorts its arrivals and scans them alone, in memory of a task's own. Backward needs no
order: the derivatives are sums over causal inputs, taken for 16 inputs at a time.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.constants import PER_MEM, PER_SYN, RATIO, kappa, peak
from firstspike.spiketime.cpu.crossing import (
    CURRENT,
    ENOUGH,
    LIMIT,
    N_STATE,
    TILE,
    VOLTAGE,
    endless_wait,
    responses,
    solve,
)
from firstspike.spiketime.cpu.pack import unit_of_row
from firstspike.spiketime.cpu.rows import (
    BOUND,
    LEVEL,
    MEM,
    N_FORWARD,
    RISE,
    SYN,
    TANGENT,
    find_segments,
    forward_rows,
    stride_of,
)
from firstspike.spiketime.cpu.simd import (
    absolute,
    fill16,
    fill64,
    fma,
    keep,
    load16,
    maximum,
    select,
    store,
    unowned,
)
from firstspike.spiketime.cpu.sort import sort_row, sort_scratch, unowned_scratch


@jit
def reaches(voltage, current, duration, mem, syn, rise, mem_end, level, level_end, c):
    """Whether a scaled state reaches the threshold within a row of a segment, and the latest time for it."""
    following = voltage + current * rise
    if following >= mem_end:
        return True, duration
    if voltage * level < current and current * ENOUGH < following * level_end:
        time, height = peak(voltage / mem, current / syn, c)
        return height >= 1 and time <= duration, min(time, duration)
    return False, duration


@jit
def leaves(voltage, current, duration, c):
    """The same from a state of scale 1 in an interval that may not end."""
    if math.isinf(duration) and c[PER_MEM] == 0:
        fires = voltage + current > 1
        return fires, endless_wait(voltage, current, c) if fires else duration
    if not math.isinf(duration) and voltage * math.exp(-duration * c[PER_MEM]) + current * kappa(duration, c) >= 1:
        return True, duration
    if current > 0 and current * c[PER_SYN] > voltage * c[PER_MEM] and c[PER_MEM] > 0:
        time, height = peak(voltage, current, c)
        return height >= 1 and time <= duration, time
    return False, duration


@jit
def scan_lane(weight, threshold, order, arrival, n, ends, segments, rows, c, state, lane):
    """Scan one neuron's inputs; returns the row after which it fires, with its state, or -1."""
    voltage = current = arrival[0] * 0
    begin = 0
    for segment in range(segments):
        end = ends[segment]
        for k in range(begin, end):
            current += weight[order[k]] / threshold * rows[SYN, k]
            duration = arrival[k + 1] - arrival[k] if k + 1 < n else math.inf
            if duration == 0:
                continue
            mem, syn = rows[MEM, k], rows[SYN, k]
            if k + 1 < end:
                if voltage + current * rows[TANGENT, k] >= rows[BOUND, k]:
                    fires, limit = reaches(
                        voltage, current, duration, mem, syn, rows[RISE, k], rows[MEM, k + 1], rows[LEVEL, k],
                        rows[LEVEL, k + 1], c,
                    )  # fmt: skip
                else:
                    fires, limit = False, duration
            else:
                fires, limit = leaves(voltage / mem, current / syn, duration, c)
            if fires:
                state[VOLTAGE, lane], state[CURRENT, lane], state[LIMIT, lane] = voltage / mem, current / syn, limit
                return k
            if k + 1 < end:
                voltage += current * rows[RISE, k]
            elif k + 1 < n:
                voltage, current = (
                    voltage / mem * math.exp(-duration * c[PER_MEM]) + current / syn * kappa(duration, c),
                    current / syn * math.exp(-duration * c[PER_SYN]),
                )
        begin = end
    return -1


@jit
def scan_delayed(times, weight, threshold, delay, c, spikes, first, stop):
    """Spike times of the samples from ``first`` to ``stop`` of one network."""
    outputs, inputs = weight.shape
    stride = stride_of(inputs)
    real, whole = np.empty((N_FORWARD + 3, stride), times.dtype), np.empty((2, inputs), np.int32)
    lanes_of = np.zeros((N_STATE + 4, TILE), times.dtype)
    sorting = sort_scratch(times, inputs)
    rows, ends, order, state = unowned(real)[:N_FORWARD], unowned(whole)[0], unowned(whole)[1], unowned(lanes_of)
    start, shifted, arrival = unowned(real)[-3], unowned(real)[-2][:inputs], unowned(real)[-1]
    lane_spikes, slopes, since, until = state[-4], state[-3], state[-2], state[-1]
    scratch = unowned_scratch(sorting)
    for b in range(first, stop):
        for begin in range(0, outputs, TILE):
            lanes, fired = min(TILE, outputs - begin), np.uint64(0)
            for lane in range(lanes):
                j = begin + lane
                for i in range(inputs):
                    shifted[i] = times[b, i] + delay[j, i]
                n = sort_row(shifted, order, arrival, scratch)
                if n == 0:
                    continue
                segments = find_segments(arrival, n, c, math.inf, start, ends)
                forward_rows(arrival, n, c, False, start, rows)
                k = scan_lane(weight[j], threshold[j], order, arrival, n, ends, segments, rows, c, state, lane)
                if k >= 0:
                    fired |= np.uint64(1) << np.uint64(lane)
                    since[lane], until[lane] = arrival[k], arrival[k + 1] if k + 1 < n else math.inf
            solve(fill64(state, 0.0), state, fired, since, until, c, lane_spikes, slopes)
            for lane in range(lanes):
                spikes[b, begin + lane] = lane_spikes[lane]
    keep(real)
    keep(whole)
    keep(lanes_of)
    keep(sorting)


@jit
def unwind_delayed(
    grad, spikes, times, weight, threshold, delay, c, bound, by_weight, by_delay, by_times, by_threshold, neurons,
    samples,
):  # fmt: skip
    """Add up the gradients of some neurons and samples, each a pair (first, stop). Rows are whole vectors."""
    inputs = times.shape[1]
    kept_responses, kept_fast, lanes = (
        np.empty(inputs, grad.dtype), np.empty(inputs, grad.dtype), np.empty(16, grad.dtype),
    )  # fmt: skip
    zero, leaks_slower, pull = fill16(grad, 0.0), c[PER_MEM] <= c[PER_SYN], min(c[RATIO], 1.0)
    by_times[samples[0] : samples[1]] = 0
    for j in range(neurons[0], neurons[1]):
        by_weight[j], by_delay[j], by_threshold[j] = 0, 0, 0
        unit = unit_of_row(weight, j, threshold[j])
        per_unit, level = grad.dtype.type(1) / unit, threshold[j] / unit
        for b in range(samples[0], samples[1]):
            spike = spikes[b, j]
            if not spike < math.inf or grad[b, j] == 0:
                continue
            drive, largest = zero, zero
            for i in range(0, inputs, 16):
                s = fill16(grad, spike) - (load16(times, b * inputs + i) + load16(delay, j * inputs + i))
                causal = s > 0.0
                s = maximum(s, 0.0)
                mem, syn, response = responses(s, c)
                response, syn = select(causal, response, zero), select(causal, syn, zero)
                store(kept_responses, i, response)
                store(kept_fast, i, syn if leaks_slower else select(causal, mem, zero))
                drive = fma(syn, load16(weight, j * inputs + i) * per_unit, drive)
                largest = maximum(largest, absolute(response))
            store(lanes, 0, drive)
            slope = lanes.sum() * c[PER_SYN] - level * c[PER_MEM]
            if not slope > 0:
                continue
            scale = grad[b, j] / slope
            by_threshold[j] += scale
            store(lanes, 0, largest)
            kept = -scale if abs(scale) * lanes.max() <= bound * unit else grad.dtype.type(0)
            scale *= c[PER_SYN]
            for i in range(0, inputs, 16):
                response, place = load16(kept_responses, i), j * inputs + i
                store(by_weight, place, fma(response, kept, load16(by_weight, place)))
                each = (load16(kept_fast, i) - response * pull) * (load16(weight, place) * per_unit) * scale
                store(by_delay, place, load16(by_delay, place) + each)
                store(by_times, b * inputs + i, load16(by_times, b * inputs + i) + each)
        by_threshold[j] *= per_unit
        for i in range(0, inputs, 16):
            store(by_weight, j * inputs + i, load16(by_weight, j * inputs + i) * per_unit)
