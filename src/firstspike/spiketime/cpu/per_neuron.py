"""Neurons that see their inputs in an order of their own (synaptic delays), or have their own time constants: forward.

The lanes of a vector are 16 neurons of one sample, with their own coefficients. With synaptic delays each lane has its
own order of arrival as well: a sorting network sorts all lanes at once, each exchange in two operations per row. Then
all lanes take the same step from one input to the next, each over its own time.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.mathfun import SMALL, exp, exp_and_expm1, expm1, log1p, small_expm1
from firstspike.spiketime.cpu.simd import (
    absolute,
    fill16,
    fma,
    load16,
    lowest_bit,
    maximum,
    minimum,
    power_of_two,
    select,
    split_power,
    sqrt,
    store,
)

LANES = 16
# what follows from the time constants of 16 neurons: see ``constants``, whose names these are; FIRST has ``KIND`` in
# its first lane
PER_MEM, PER_SYN, SLOWER, DELTA, PER_RISE, RATIO, X, TOP, HEIGHT, FIRST = range(10)
N_RATES = 10 * LANES
_ANY, _EQUAL, _DOUBLE = range(3)

_EVERY = np.uint64(0xFFFF)
_ENOUGH = 1 - 1e-4  # what is left of a number after any rounding
_FAR = 40.0  # a leaky neuron that rises falls again before that many time constants
_MAX_STEPS = 60
_LATE = -0.95


@jit
def lane_rates(mem, syn, first, step, rates):
    """Fill the ``rates`` of the neurons from ``first`` on; lanes without a neuron are like the last one.

    ``step`` is 0 where all neurons have the same time constants.
    """
    tiny = 1e-10 if rates.itemsize == 4 else 1e-20
    equal = double = True
    for lane in range(LANES):
        j = min(first + lane * step, mem.size - 1)
        tau_mem, tau_syn = np.float64(mem[j]), np.float64(syn[j])
        ratio = tau_syn / tau_mem
        x = 1 - ratio
        wide = x if abs(x) > tiny else tiny
        top = math.inf if ratio == 0 else 1.0 if x == 0 else -math.log(ratio) / x
        rates[PER_MEM * LANES + lane], rates[PER_SYN * LANES + lane] = 1 / tau_mem, 1 / tau_syn
        rates[SLOWER * LANES + lane] = min(1 / tau_mem, 1 / tau_syn)
        rates[DELTA * LANES + lane], rates[PER_RISE * LANES + lane] = abs(wide) / tau_syn, 1 / abs(wide)
        rates[RATIO * LANES + lane], rates[X * LANES + lane], rates[TOP * LANES + lane] = ratio, x, top
        rates[HEIGHT * LANES + lane] = 1.0 if ratio == 0 else math.exp(-top * ratio)
        equal &= abs(x) <= tiny
        double &= rates[DELTA * LANES + lane] == rates[SLOWER * LANES + lane]
    # of the layer's, so that the digits of a neuron do not depend on its neighbours
    rates[FIRST * LANES] = _ANY if step > 0 else _EQUAL if equal else _DOUBLE if double else _ANY


@jit
def responses(s, c):
    """``exp(-s/tau_mem)``, ``exp(-s/tau_syn)`` and ``kappa(s)`` for finite ``s >= 0``; ``c`` are the lanes' rates."""
    slower, delta, kind = load16(c, SLOWER * LANES), load16(c, DELTA * LANES), c[FIRST * LANES]
    x, y = s * slower * -1.0, s * delta * -1.0
    if (minimum(x, y) >= -SMALL) == _EVERY:
        grown = small_expm1(x)
        if kind == _EQUAL:
            slow = grown + 1.0
            return slow, slow, slow * s * load16(c, PER_SYN * LANES)
        slow = grown + 1.0
        if kind == _DOUBLE:
            fast = slow * slow
        else:
            grown = small_expm1(y)
            fast = fma(slow, grown, slow)
    elif kind == _EQUAL:
        slow = exp(x)
        return slow, slow, slow * s * load16(c, PER_SYN * LANES)
    elif kind == _DOUBLE:
        slow, grown = exp_and_expm1(x)
        fast = slow * slow
    else:
        slow, grown = exp(x), expm1(y)
        fast = fma(slow, grown, slow)
        late = grown < _LATE
        if late:  # no digits are left of the difference
            fast = select(late, exp(s * maximum(load16(c, PER_MEM * LANES), load16(c, PER_SYN * LANES)) * -1.0), fast)
    response = slow * grown * (load16(c, PER_RISE * LANES) * -1.0)
    leaks_slower = load16(c, PER_SYN * LANES) >= load16(c, PER_MEM * LANES)
    return select(leaks_slower, slow, fast), select(leaks_slower, fast, slow), response


@jit
def exchange(keys, values, i, j):
    """Sort two rows of all lanes by their keys."""
    low, high = load16(keys, i * LANES), load16(keys, j * LANES)
    first, second = load16(values, i * LANES), load16(values, j * LANES)
    swapped = low > high
    store(keys, i * LANES, select(swapped, high, low))
    store(keys, j * LANES, select(swapped, low, high))
    store(values, i * LANES, select(swapped, second, first))
    store(values, j * LANES, select(swapped, first, second))


@jit
def sort_lanes(keys, values, n):
    """Sort ``n`` rows of 16 lanes, each lane by its own keys: Batcher's merge exchange, which needs no power of two.

    Source: Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M.
    """
    top = 1
    while 2 * top < n:
        top *= 2
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            for start in range(r, n - d, 2 * p):
                for i in range(start, min(start + p, n - d)):
                    exchange(keys, values, i, i + d)
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2


@jit
def peaks_of(voltage, current, c):
    """Time and height of the maximum after rising states with positive currents, as in ``response.peak``."""
    ratio, x, top = voltage / current, load16(c, X * LANES), load16(c, TOP * LANES)
    equal = absolute(x) < 1e-12
    early = select(equal, ratio, log1p(maximum(ratio * x, -1.0)) / select(equal, fill16(c, 1.0), x))
    early = minimum(early, top)  # rounding may let a state fall that barely rises
    return (top - early) / load16(c, PER_SYN * LANES), current * (exp(early) * load16(c, HEIGHT * LANES))


@jit
def reaches(voltage, current, wait, end, decay, candidates, c):
    """The candidates that reach the threshold, which is 1, within ``wait``, and the latest time for it.

    A lane does if it ends above the threshold, or if it rises first and falls at the end, and its peak is high enough.
    ``end`` and ``decay`` are its membrane at the end and what is left of its current.
    """
    ratio, leaks = load16(c, RATIO * LANES), load16(c, PER_MEM * LANES) > 0.0
    # rounding may reach what a membrane without leak only approaches
    crosses = (end >= 1.0) & candidates & (leaks | (voltage + current > 1.0))
    # where V follows the current closely, rounding decides whether it falls at the end: the time of the peak tells
    falls = (current * (decay * _ENOUGH) < end * ratio) | (wait * load16(c, SLOWER * LANES) > _FAR)
    peaks = (current > voltage * ratio) & falls & leaks & candidates & ~crosses
    high = current * load16(c, HEIGHT * LANES)
    peaks &= (voltage + high >= _ENOUGH) | (high >= _ENOUGH)
    limit = wait
    if peaks:
        time, height = peaks_of(voltage, current, c)
        peaks &= (height >= 1.0) & (wait >= time)
        limit = select(peaks, minimum(time, wait), limit)
    endless = crosses & ~(wait < math.inf)
    if endless:  # no leak: the wait, rounded up
        left = minimum((voltage * -1.0 + 1.0) / current, 1 - 1e-16)
        limit = select(endless, log1p(left * -1.0) * (-1 - 1e-6) / load16(c, PER_SYN * LANES), limit)
    return crosses | peaks, limit


@jit
def crossings(voltage, current, limit, fired, c):
    """Times from the states of the lanes ``fired`` to their first crossings of the threshold.

    Steps to the root of the parabola in s, between bounds. Each costs as much as Newton's and triples the digits.
    """
    a, b = load16(c, PER_MEM * LANES), load16(c, PER_SYN * LANES)
    tolerance = 2e-3 if c.itemsize == 4 else 1e-5
    unit, size = fill16(c, 1.0), maximum(absolute(voltage), absolute(current * b))
    if (size > (2.0**40 if c.itemsize == 4 else 2.0**400)) & fired:  # so that no square overflows
        exponent, _ = split_power(maximum(size, 1.0))
        unit = power_of_two(exponent * -1.0)
        voltage, current = voltage * unit, current * unit
    s, low, high, value, drive = fill16(c, 0.0), fill16(c, 0.0), limit, voltage, current * b
    going = fired  # a lane stops by itself, so that its last digits do not depend on its neighbours
    for _ in range(_MAX_STEPS):
        slope = drive - value * a
        curve = drive * b * -1.0 - slope * a
        gap = unit - value
        before = (gap > 0.0) & (slope > 0.0)
        low, high = select(before, s, low), select(before, high, s)
        step = gap * 2.0 / (slope + sqrt(maximum(slope * slope + curve * gap * 2.0, 0.0)))
        following = s + step
        following = select(high >= following, following, high)
        inside = following >= low
        following = select(inside, following, (low + high) * 0.5)
        # a halving says nothing of how near the root is, but the bounds do
        moved = select(inside, absolute(following - s), high - low)
        s = select(going, following, s)
        going &= moved > absolute(following) * tolerance
        if not going:
            break
        mem, syn, response = responses(s, c)
        value = select(going, fma(voltage, mem, current * response), value)
        drive = select(going, current * syn * b, drive)
    return s


@jit
def scan(keys, values, order, n, c, every, found):
    """Spike times of 16 neurons, ``inf`` where silent, and dV/dt there in units of the threshold, 0 where silent.

    Args:
        keys: times of arrival. With an order that all share ``(n + 1,)``, otherwise ``(n + 1) * LANES`` of the lanes;
            the last is inf.
        values: weights in units of the threshold, for each input or in the order of arrival.
        order: of the inputs, or None where each lane has its own.
        n: how many arrive.
        c: rates.
        every: lanes that have a neuron.
        found: to be filled with both, ``(2 * LANES,)``.
    """
    a, b, never, longest = (
        load16(c, PER_MEM * LANES), load16(c, PER_SYN * LANES), fill16(c, math.inf),
        1e30 if c.itemsize == 4 else 1e250,
    )  # fmt: skip
    voltage = current = voltage_then = current_then = since = until = limit = fill16(c, 0.0)
    active, fired = every, np.uint64(0)
    now = load16(keys, 0) if order is None else fill16(c, keys[0])
    for k in range(n):
        if order is None:
            current = current + load16(values, k * LANES)
            following = load16(keys, (k + 1) * LANES)
        else:
            current = current + load16(values, np.intp(order[k]) * LANES)
            if keys[k + 1] == keys[k]:
                continue  # the next input arrives at the same time
            following = fill16(c, keys[k + 1])
        wait = following - now
        mem, syn, rise = responses(minimum(wait, longest), c)
        end = fma(voltage, mem, current * rise)
        # while V rises it is concave, and stays below its tangent
        candidates = (fma(current * b - voltage * a, wait, voltage) >= _ENOUGH) & (wait > 0.0) & active
        if candidates:
            fires, latest = reaches(voltage, current, wait, end, syn, candidates, c)
            voltage_then, current_then = select(fires, voltage, voltage_then), select(fires, current, current_then)
            since, until = select(fires, now, since), select(fires, following, until)
            limit = select(fires, latest, limit)
            fired |= fires
        active &= ~fired & (following < math.inf)
        if not active:
            break
        voltage, current, now = end, current * syn, following
    spike, slope = never, fill16(c, 0.0)
    if fired:
        spike = since + crossings(voltage_then, current_then, limit, fired, c)
        early = fired & ~(spike > since)
        if early:  # the floats are coarse: after the inputs that cause it
            store(found, 0, spike)
            store(found, LANES, since)
            while early:
                lane = lowest_bit(early)
                early &= early - np.uint64(1)
                found[lane] = np.nextafter(found[LANES + lane], found.dtype.type(math.inf))
            spike = load16(found, 0)
        spike = minimum(spike, until)
        slope = select(fired, current_then * exp((since - spike) * b) * b - a, slope)
    store(found, 0, select(fired, spike, never))
    store(found, LANES, slope)


@jit
def scan_delayed(times, delay, weight, c, every, keys, values, found):
    """``scan`` for one sample of 16 neurons with synaptic delays; ``keys`` and ``values`` are scratch."""
    n = 0
    for i in range(times.size):
        if times[i] < math.inf:
            store(keys, n * LANES, load16(delay, i * LANES) + times[i])
            store(values, n * LANES, load16(weight, i * LANES))
            n += 1
    store(keys, n * LANES, fill16(keys, math.inf))
    sort_lanes(keys, values, n)
    scan(keys, values, None, n, c, every, found)
