"""One linear neuron in one interval, event by event, in float64, where lanes do not suffice."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.linear.flow import BIAS, THRESHOLD, drive_of, pass_time
from firstspike.spiketime.cpu.linear.lanes import BUSY, constants_of
from firstspike.spiketime.cpu.linear.search import crossing
from firstspike.spiketime.cpu.runtime.compiling import jit

FORCED, FIXED = -1.0, 0.0  # in place of slopes: a spike at a release; one that nothing moves
WORK = 4  # rows of float64 for one neuron: where the search works, and its components


@jit
def go_alone(g, at, lane, here, there, now, stop, holds):
    """Take one neuron through an interval, event by event, from the rows ``here`` to ``there``.

    Returns whether it is held then, and whether it would spike more often than it may.
    """
    state, work, kinds, j = g.state[at.slot], g.work[at.slot], g.kinds, at.first + lane
    count = kinds.size
    rates, leak, theta = g.rates[at.e, j], g.leak[at.e, j], np.float64(g.threshold[at.e, j])
    y, copy = work[3], work[4]
    v, free, spiked, stuck = np.float64(state[here + lane]), g.free[at.slot, lane], g.counts[at.slot, lane], False
    for k in range(count):
        y[k] = state[here + (1 + k) * LANES + lane]
    while True:
        due = g.spikes[at.b, j, spiked] if g.observes != 0 and spiked < g.most else math.inf
        pending = g.observes != 0 and due <= stop and due < math.inf
        if holds and not (pending and due < free):
            if free > stop:
                break
            v = pass_time(v, y, free - now, g.resets != 0, kinds, leak, rates)
            now, holds = free, False
            if g.taped == 0:
                g.ups[at.b, j, spiked] = rate_of(v, y, kinds, leak, rates)
        waits = -1.0
        if g.observes != 0:
            if pending:
                waits = np.float64(due) - now
        elif excess(v, y, theta, kinds) >= 0 and now == free:
            waits = 0.0
        elif stop > now:
            for k in range(count):
                copy[k] = y[k]
            waits = crossing(v, copy, theta, stop - now, kinds, leak, rates, work)
        if waits < 0:
            break
        time = g.spikes.dtype.type(now + waits)
        if g.observes == 0 and waits > 0:
            least = np.nextafter(g.spikes.dtype.type(now), g.spikes.dtype.type(math.inf))
            time = min(max(time, least), g.spikes.dtype.type(stop))
        v = pass_time(v, y, time - now, holds and g.resets != 0, kinds, leak, rates)
        over = excess(v, y, theta, kinds)
        slope = rate_of(v - over, y, kinds, leak, rates)  # at the threshold, where observed spikes are not
        for k in range(count):
            if kinds[k] == THRESHOLD:
                slope += y[k] * rates[k]
        if spiked >= g.most:
            free = math.inf
            v = np.float64(g.reset[at.e, j]) if g.resets != 0 else v
            now, holds, stuck = np.float64(time), True, True
            break
        again = now == free and time == g.spikes.dtype.type(free)
        if holds or slope <= 0:
            slope = FIXED
        if again and not holds and over >= 0:
            slope = FORCED
        if g.taped == 0:
            g.slopes[at.b, j, spiked] = slope
        if g.observes == 0:
            g.spikes[at.b, j, spiked] = time
        spiked += 1
        now = np.float64(time)
        for k in range(count):
            y[k] += 0.0 if kinds[k] == BIAS else g.jumps[at.e, j, k]
        if g.resets != 0:
            v = np.float64(g.reset[at.e, j])
        free = np.float64(g.spikes.dtype.type(time + g.refractory[at.e, j]))
        holds = free > now
        if not holds:
            free = -math.inf
            if g.taped == 0:
                g.ups[at.b, j, spiked] = rate_of(v, y, kinds, leak, rates)
        if g.once != 0 and spiked >= g.most:
            break
    v = pass_time(v, y, stop - now, holds and g.resets != 0, kinds, leak, rates)
    state[there + lane] = v
    for k in range(count):
        state[there + (1 + k) * LANES + lane] = y[k]
    g.free[at.slot, lane], g.counts[at.slot, lane] = free, spiked
    busy = free if holds else math.inf
    if g.observes != 0 and spiked < g.most:
        busy = min(busy, np.float64(g.spikes[at.b, j, spiked]))
    state[constants_of(g) + BUSY * LANES + lane] = busy
    return holds, stuck


@jit
def rate_of(v, y, kinds, leak, rates):
    """dV/dt of a membrane without spikes."""
    rate = -leak * v
    for k in range(kinds.size):
        rate += drive_of(kinds[k], leak, rates[k]) * y[k]
    return rate


@jit
def excess(v, y, theta, kinds):
    """g, the membrane above the threshold."""
    over = v - theta
    for k in range(kinds.size):
        over -= y[k] if kinds[k] == THRESHOLD else 0.0
    return over
