"""From the last event back to the first: the adjoint of 32 neurons of one sample, and all gradients.

Lanes go between two inputs as often as any of them has a spike or a release; with delays from one spike or release to
the one before, between which inputs in any order are put. With v- the slope of V - threshold at a spike, v+ that of V
behind it, and g the loss by its time,

    y -> (x + v+ y - g - sum_k q_k b_k / tau_k) / v-,      q_k -> q_k - y for parts of the threshold

where b_k are the jumps of the components, and x is what the release owes to its spike: with a refractory time y is 0
from there back to the spike, and ``x = v+ y`` with v+ at the release. -x is the loss by the refractory time.
See Wunderlich and Pehle 2021.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES, named_rates, saved_of
from firstspike.spiketime.cpu.lanes import windows
from firstspike.spiketime.cpu.lanes.adjoint import (
    BY_BIAS,
    BY_HOLD,
    BY_MEM,
    BY_PARTS,
    BY_RESET,
    BY_THRESHOLD,
    DUE,
    EACH,
    FACTOR,
    FIRST,
    HOLD,
    LEFT,
    LEVEL,
    N_OTHERS,
    NOW,
    OF_MEM,
    OF_NEXT,
    OF_OWN,
    OF_Y,
    OWED,
    OWED_KEPT,
    PARTS,
    Q_KEPT,
    RELEASES,
    RESET,
    SIZE,
    Y_KEPT,
    Q,
    Y,
)
from firstspike.spiketime.cpu.lanes.bound import drop_bounded
from firstspike.spiketime.cpu.lanes.flow import back, reload, save, settled
from firstspike.spiketime.cpu.lanes.state import FORCED, RISE, SYNAPSE, THRESHOLD, recurs
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.simd import fill32, load32, load_some32, lowest_bit, select, store


@jit
def next_due(g, at, lane, before):
    """The release or the spike of a lane that comes before ``before``, and whether it is a release."""
    rows, j, others = g.state[at.kept], g.whole[at.kept, LEFT + lane], PARTS + g.count * EACH
    spike = g.spikes[at.b, at.first + lane, j - 1] if j > 0 else rows.dtype.type(-math.inf)
    release = spike + rows[others + HOLD + lane] if j > 0 else rows[others + FIRST + lane]
    if spike < release < before:
        return release, 1
    return spike, 0


@chosen_by_type
def is_stuck(g, at, lane):
    """Whether a lane has no room for its spikes at the end."""
    if recurs(g):
        return windows.is_stuck.py_func
    return lambda g, at, lane: g.overflows[at.b, at.first + lane] != 0


@chosen_by_type
def loss_by(g, at, lane, number):
    """The loss by the time of a spike."""
    if recurs(g):
        return windows.loss_by.py_func
    return lambda g, at, lane, number: g.grad[at.b, at.first + lane, number]


@jit
def start_back(g, at):
    """The adjoint of 32 neurons at the end, or at their last spikes, and their next events back."""
    rows, whole, end = g.state[at.kept], g.whole[at.kept], g.bounds[1]
    g.filled[at.kept] = 0
    totals, others = g.totals[at.group, at.chunk], PARTS + g.count * EACH
    for place in range(others + N_OTHERS):
        rows[place] = 0
    for lane in range(LANES):
        rows[NOW + lane] = rows[DUE + lane] = rows[others + FIRST + lane] = -math.inf
        rows[others + SIZE + lane] = rows[others + LEVEL + lane] = 1
        whole[LEFT + lane] = whole[RELEASES + lane] = 0
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        unit, count, full = g.unit[at.e, j], np.intp(g.numbers[at.b, j]), is_stuck(g, at, lane)
        rows[others + SIZE + lane], rows[others + LEVEL + lane] = unit, g.level[at.e, j]
        rows[others + RESET + lane] = g.reset[at.e, j] / unit
        rows[others + HOLD + lane] = g.refractory[at.e, j]
        if g.starts != 0 and g.left[at.b, j] > 0:
            rows[others + FIRST + lane] = g.bounds[0] + g.left[at.b, j]
        whole[LEFT + lane] = count
        spike = g.spikes[at.b, j, count - 1] if count > 0 else rows.dtype.type(-math.inf)
        last = spike + rows[others + HOLD + lane] if count > 0 else rows[others + FIRST + lane]
        if g.asks_end == 0:
            rows[NOW + lane] = rows[DUE + lane] = spike
            continue
        y = g.of_voltage[at.b, j] * unit
        for k in range(g.variables):
            part = PARTS + k * EACH + lane
            rows[part + Q] = rows[part + Q_KEPT] = g.of_current[at.b, j, k] * unit
        if full or last > end:
            if g.resets != 0:
                totals[BY_RESET + lane] += y
                y = rows.dtype.type(0)
            if not full:
                rows[others + OWED + lane] = rows[others + OWED_KEPT + lane] = -g.of_left[at.b, j]
        rows[Y + lane] = rows[Y_KEPT + lane] = y
        rows[NOW + lane] = end
        following = np.nextafter(rows.dtype.type(end), rows.dtype.type(math.inf))
        rows[DUE + lane], whole[RELEASES + lane] = next_due(g, at, lane, following)


@jit
def start_once(g, at):
    """The adjoint of 32 neurons at their first spikes, before which there is no event. Returns which have one."""
    g.filled[at.kept] = 0
    rows, first, others = g.state[at.kept], at.b * g.outputs + at.first, PARTS + g.count * EACH
    totals, none, never = g.totals[at.group, at.chunk], fill32(g.state, 0.0), fill32(g.state, -math.inf)
    for place in range(0, PARTS + g.count * EACH, LANES):
        store(rows, place, none)
    grad = load_some32(at.every, g.grad.reshape(g.grad.size), first)
    spike = load_some32(at.every, g.spikes.reshape(g.spikes.size), first)
    level, slope = load32(g.level[at.e], at.first), load_some32(at.every, saved_of(g, at.b).slope, at.first)
    asks = (spike < math.inf) & ((grad > 0.0) | (grad < 0.0) | ~(grad >= grad)) & at.every
    spike = select(asks, spike, never)
    slope = settled(g, at, spike, slope, asks)
    asks &= slope > 0.0
    y = select(asks, grad * -1.0 / (slope * level), none)
    store(totals, BY_THRESHOLD, load32(totals, BY_THRESHOLD) - y)
    for row, x in ((Y, y), (Y_KEPT, y), (NOW, spike), (DUE, never)):
        store(rows, row, x)
    size = load32(g.unit[at.e], at.first)
    suspects = (abs(y) * load32(g.heights[at.group], 0) > size * g.bound[0]) & asks
    if suspects:
        store(rows, others + FACTOR, y)
        store(rows, others + SIZE, size)
        for lane in range(LANES):
            g.whole[at.kept, LEFT + lane] = 0
        drop_bounded(g, at, suspects)
    return asks


@jit
def goes_on(g, at, lane):
    """Take a lane back over the time where its membrane starts at the reset. Returns what it owes, also for weights."""
    rows, others, totals = g.state[at.kept], PARTS + g.count * EACH, g.totals[at.group, at.chunk]
    y, kept = rows[Y + lane], rows[Y_KEPT + lane]
    totals[BY_RESET + lane] += y
    totals[BY_MEM + lane] += rows[others + RESET + lane] * rows[OF_Y + lane]
    rows[Y + lane] = rows[Y_KEPT + lane] = rows[OF_Y + lane] = 0
    return y, kept


@jit
def jump(g, at, hits):
    """Take the lanes ``hits`` back over their spikes or releases at DUE. Returns those that the bound may drop."""
    rows, whole, c, totals = g.state[at.kept], g.whole[at.kept], g.rates[at.group], g.totals[at.group, at.chunk]
    unit, others, suspects, none = named_rates(c[0])[0].unit, PARTS + g.count * EACH, np.uint64(0), rows.dtype.type(0)
    while hits:
        lane = lowest_bit(hits)
        bit = np.uint64(1) << np.uint64(lane)
        hits &= ~bit
        now, left, level, j = rows[DUE + lane], whole[LEFT + lane], rows[others + LEVEL + lane], at.first + lane
        pull, pull_kept, released = rows[others + OWED + lane], rows[others + OWED_KEPT + lane], whole[RELEASES + lane]
        if g.resets != 0 and (released or not now + rows[others + HOLD + lane] > now):
            up = g.ups[at.b, j, left] * level
            y, kept = goes_on(g, at, lane)
            pull, pull_kept = pull + up * y, pull_kept + up * kept
        if not released:
            totals[BY_HOLD + lane] -= rows[others + OWED + lane]
            left -= 1
            whole[LEFT + lane] = left
            slope = g.slopes[at.b, j, left]
            for k in range(g.count if g.jumping > 0 else 0):
                b, part = g.jump_rows[at.group, k * LANES + lane], PARTS + k * EACH + lane
                rate, y, kept = named_rates(c[k])[lane].syn * unit, none, none
                if g.kinds[k] == SYNAPSE:  # 0 where a reset has come in between
                    y, kept = rows[Y + lane], rows[Y_KEPT + lane]
                elif g.kinds[k] == RISE:
                    y, kept = rows[part + EACH + Q], rows[part + EACH + Q_KEPT]
                    totals[BY_PARTS + (2 * k + 2) * LANES + lane] += b * rows[part + OF_NEXT]
                pull -= (rows[part + Q] - y) * rate * b
                pull_kept -= (rows[part + Q_KEPT] - kept) * rate * b
                totals[BY_MEM + lane] += b * rows[part + OF_MEM]
                totals[BY_PARTS + 2 * k * LANES + lane] += b * rows[part + OF_OWN]
                totals[BY_PARTS + (2 * k + 1) * LANES + lane] += rows[part + Q]
            asked = loss_by(g, at, lane, left)
            pull, pull_kept, change, change_kept = pull - asked, pull_kept - asked, none, none
            if slope > 0:
                change, change_kept = pull / (slope * level), pull_kept / (slope * level)
            if slope != FORCED:
                pull = pull_kept = none
            rows[Y + lane] += change
            rows[Y_KEPT + lane] += change_kept
            for k in range(g.count):
                if g.kinds[k] == THRESHOLD:
                    rows[PARTS + k * EACH + Q + lane] -= change
                    rows[PARTS + k * EACH + Q_KEPT + lane] -= change_kept
            totals[BY_THRESHOLD + lane] -= change
            if abs(change_kept) * g.heights[at.group, lane] > g.bound[0] * rows[others + SIZE + lane]:
                suspects |= bit
                rows[others + FACTOR + lane] = change_kept
        rows[others + OWED + lane], rows[others + OWED_KEPT + lane] = pull, pull_kept
        rows[NOW + lane] = now
        rows[DUE + lane], whole[RELEASES + lane] = next_due(g, at, lane, now)
    return suspects


@jit
def gradients_by_start(g, at):
    """Write the gradients of some neurons' state at the start, and add its part in those of parameters."""
    rows, others, totals = g.state[at.kept], PARTS + g.count * EACH, g.totals[at.group, at.chunk]
    for lane in range(min(LANES, g.outputs - at.first)):
        j = at.first + lane
        unit, free = g.unit[at.e, j], g.starts == 0 or not g.left[at.b, j] > 0 or g.resets == 0
        if g.biased != 0:
            part, bias = PARTS + g.variables * EACH + lane, g.bias[at.e, j] / unit
            totals[BY_BIAS + lane] += rows[part + Q]
            totals[BY_MEM + lane] += bias * rows[part + OF_MEM]
        if g.starts == 0:
            continue
        g.by_voltage[at.b, j] = rows[Y + lane] / unit if free else 0
        g.by_left[at.b, j] = -rows[others + OWED + lane]
        if free:
            totals[BY_MEM + lane] += g.voltage[at.b, j] / unit * rows[OF_Y + lane]
        for k in range(g.variables):
            part, current = PARTS + k * EACH + lane, g.current[at.b, j, k] / unit
            g.by_current[at.b, j, k] = rows[part + Q] / unit
            totals[BY_MEM + lane] += current * rows[part + OF_MEM]
            totals[BY_PARTS + 2 * k * LANES + lane] += current * rows[part + OF_OWN]
            if g.kinds[k] == RISE:
                totals[BY_PARTS + (2 * k + 2) * LANES + lane] += current * rows[part + OF_NEXT]


@inlined
def back_over(g, at, x, hits):
    """The adjoint before the spikes and releases of the lanes ``hits``, which are at DUE."""
    save(g, at, x, g.state[at.kept], 0)
    suspects = jump(g, at, hits)
    if suspects:
        drop_bounded(g, at, suspects)
    return reload(g, at)


@jit
def leave(g, at, c, x):
    """Take lanes to the start, and write the gradients of the state there."""
    if at.begin > -math.inf:
        x = back(g, at, c, x, fill32(g.state, at.begin), False, False, g.by_taus != 0)
        save(g, at, x, g.state[at.kept], 0)
        gradients_by_start(g, at)
