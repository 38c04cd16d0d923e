"""Neurons that see their inputs in an order of their own (synaptic delays), or have their own time constants: forward.

The lanes of a vector are 32 neurons of one sample. With synaptic delays each lane has its own order of arrival: a
sorting network sorts all lanes at once. Then all take the same steps from one input to the next, each over its own
time and with its own coefficients: where the order and so the times are the same for all and brief, by a few
derivatives of the state, otherwise by exponentials.

The state is the membrane in units of the threshold, and the part of its slope that the current causes, the ``drive``.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.lanes.sort import sort_lanes
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import SMALL, exp, exp_and_expm1, expm1, log1p, small_expm1
from firstspike.spiketime.cpu.vectors.simd import (
    absolute,
    fill32,
    fma,
    load32,
    lowest_bit,
    maximum,
    minimum,
    power_of_two,
    select,
    split_power,
    sqrt,
    store,
)

LANES = 32
# what follows from the time constants of 32 neurons, one vector each; times count in a unit of the group's own
PER_MEM, PER_SYN, SLOWER, DELTA, PER_DELTA, X, TOP, HEIGHT, OTHERS = range(9)
REST_MEM, REST_SYN = 9, 10  # what rounding leaves of the first two
KIND, UNIT, SHORT = OTHERS * LANES, OTHERS * LANES + 1, OTHERS * LANES + 2  # numbers of the group, see ``lane_rates``
MAX_ORDER = 6
# power series of what ``responses`` gives, and of the last one's derivative by the logarithm of tau_mem
MEM_SERIES, SYN_SERIES, ADDED_SERIES, BY_MEM_SERIES = range(11, 11 + 4 * MAX_ORDER, MAX_ORDER)
N_RATES = (11 + 4 * MAX_ORDER) * LANES
_ANY, _EQUAL, _DOUBLE = range(3)

_EVERY = np.uint64(0xFFFFFFFF)
ENOUGH = 1 - 1e-4  # what is left of a number after any rounding
_BRIEF = 2.0**-7  # of the fastest time constant: where short series do
_FAR = 40.0  # a leaky neuron that rises falls again before that many time constants
_MAX_STEPS = 60
_LATE = -0.95


@jit
def lane_rates(mem, syn, start, first, outputs, rates):
    """Fill the ``rates`` of the neurons from ``first`` on of the network whose constants begin at ``start``.

    UNIT is how many of the group's units of time are 1, a power of two that is larger than all rates. Lanes without a
    neuron are like the last one; a single pair of time constants is that of all neurons.
    """
    tiny = 1e-10 if rates.itemsize == 4 else 1e-20
    fastest, last = 0.0, min(start + outputs, mem.size) - 1
    for lane in range(LANES):
        j = min(start + first + lane, last)
        fastest = max(fastest, 1 / np.float64(mem[j]), 1 / np.float64(syn[j]))
    unit = math.ldexp(1.0, math.frexp(fastest)[1])
    equal = double = True
    for lane in range(LANES):
        j = min(start + first + lane, last)
        ratio = np.float64(syn[j]) / np.float64(mem[j])
        a, b, x = 1 / np.float64(mem[j]) / unit, 1 / np.float64(syn[j]) / unit, 1 - ratio
        wide = abs(x) if abs(x) > tiny else tiny
        top = math.inf if ratio == 0 else 1.0 if x == 0 else -math.log(ratio) / x
        rates[PER_MEM * LANES + lane], rates[PER_SYN * LANES + lane], rates[SLOWER * LANES + lane] = a, b, min(a, b)
        rates[REST_MEM * LANES + lane] = a - np.float64(rates[PER_MEM * LANES + lane])
        rates[REST_SYN * LANES + lane] = b - np.float64(rates[PER_SYN * LANES + lane])
        rates[DELTA * LANES + lane], rates[PER_DELTA * LANES + lane] = wide * b, 1 / (wide * b)
        rates[X * LANES + lane], rates[TOP * LANES + lane] = x, top
        rates[HEIGHT * LANES + lane] = (1.0 if ratio == 0 else math.exp(-top * ratio)) / b
        sign, power_a, power_b, total, by_total, factorial = 1.0, 1.0, 1.0, 1.0, 0.0, 1.0
        for m in range(MAX_ORDER):
            # of a**m, b**m, and the sum of a**i b**(m-i) with its derivative by log(a)
            sign, power_a, power_b, factorial = -sign, power_a * a, power_b * b, factorial * (m + 1)
            total, by_total = total * b + power_a, by_total * b + power_a * (m + 1)
            rates[(MEM_SERIES + m) * LANES + lane] = sign * power_a / factorial
            rates[(SYN_SERIES + m) * LANES + lane] = sign * power_b / factorial
            rates[(ADDED_SERIES + m) * LANES + lane] = sign * total / (factorial * (m + 2))
            rates[(BY_MEM_SERIES + m) * LANES + lane] = -sign * by_total / (factorial * (m + 2))
        equal &= abs(x) <= tiny
        double &= rates[DELTA * LANES + lane] == rates[SLOWER * LANES + lane]
    # only of a whole layer's, so that the digits of a neuron do not depend on its neighbours
    rates[KIND] = _ANY if mem.size > 1 else _EQUAL if equal else _DOUBLE if double else _ANY
    rates[UNIT], rates[SHORT] = unit, _BRIEF / (fastest / unit)


@inlined
def responses(s, c):
    """What a time ``s >= 0``, finite and in the unit of the rates ``c``, leaves of membranes and currents, and adds.

    ``exp(-s/tau_mem)``, ``exp(-s/tau_syn)`` and ``kappa(s) tau_syn``: the membrane after dV/dt was 1.
    """
    kind = c[KIND]
    x, y = s * load32(c, SLOWER * LANES) * -1.0, s * load32(c, DELTA * LANES) * -1.0
    if (minimum(x, y) >= -SMALL) == _EVERY:
        grown = small_expm1(x)
        slow = grown + 1.0
        if kind == _EQUAL:
            return slow, slow, slow * s
        if kind == _DOUBLE:
            fast = slow * slow
        else:
            grown = small_expm1(y)
            fast = fma(slow, grown, slow)
    elif kind == _EQUAL:
        slow = exp(x)
        return slow, slow, slow * s
    elif kind == _DOUBLE:
        slow, grown = exp_and_expm1(x)
        fast = slow * slow
    else:
        slow, grown = exp(x), expm1(y)
        fast = fma(slow, grown, slow)
        late = grown < _LATE
        if late:  # no digits are left of the difference
            fast = select(late, exp(s * maximum(load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES)) * -1.0), fast)
    added = slow * grown * (load32(c, PER_DELTA * LANES) * -1.0)
    leaks_slower = load32(c, PER_SYN * LANES) >= load32(c, PER_MEM * LANES)
    return select(leaks_slower, slow, fast), select(leaks_slower, fast, slow), added


def order_of(vector):
    """The power up to which ``brief`` takes series."""
    raise NotImplementedError


@chosen_by_type(order_of)
def _overload_order_of(vector):
    order = 3 if vector.dtype == types.float32 else MAX_ORDER
    return lambda vector: order


@inlined
def series(s, c, first):
    """``sum_m c_m s**(m-1)`` with the rows of coefficients from ``first`` on, which begin with that of m = 1."""
    order = order_of(s)
    total = load32(c, (first + order - 1) * LANES)
    for m in range(order - 2, -1, -1):
        total = fma(total, s, load32(c, (first + m) * LANES))
    return total


@inlined
def brief(s, c):
    """``responses`` for times below SHORT."""
    mem, syn = fma(series(s, c, MEM_SERIES), s, 1.0), fma(series(s, c, SYN_SERIES), s, 1.0)
    return mem, syn, fma(series(s, c, ADDED_SERIES), s, 1.0) * s


@jit
def peaks_of(voltage, drive, c):
    """Time and height of the maximum after rising states with positive currents, as in ``response.peak``."""
    b, x, top = load32(c, PER_SYN * LANES), load32(c, X * LANES), load32(c, TOP * LANES)
    ratio, equal = voltage * b / drive, absolute(x) < 1e-12
    early = select(equal, ratio, log1p(maximum(ratio * x, -1.0)) / select(equal, fill32(c, 1.0), x))
    early = minimum(early, top)  # rounding may let a state fall that barely rises
    return (top - early) / b, drive * (exp(early) * load32(c, HEIGHT * LANES))


@inlined
def reaches(voltage, drive, wait, end, drive_end, candidates, c):
    """The candidates that reach the threshold, which is 1, within ``wait``, and the latest time for it.

    A lane does if it ends above the threshold, or if it rises first and falls at the end, and its peak is high enough.
    """
    a, b = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES)
    leaks = a > 0.0
    # rounding may reach what a membrane without leak only approaches
    crosses = (end >= 1.0) & candidates & (leaks | (fma(voltage, b, drive) > b))
    # where V follows the current closely, rounding decides whether it falls at the end: the time of the peak tells
    falls = (drive_end * ENOUGH < end * a) | (wait * load32(c, SLOWER * LANES) > _FAR)
    peaks = (drive > voltage * a) & falls & leaks & candidates & ~crosses
    high = drive * load32(c, HEIGHT * LANES)
    peaks &= (voltage + high >= ENOUGH) | (high >= ENOUGH)
    limit = wait
    if peaks:
        time, height = peaks_of(voltage, drive, c)
        peaks &= (height >= 1.0) & (wait >= time)
        limit = select(peaks, minimum(time, wait), limit)
    endless = crosses & ~(wait < math.inf)
    if endless:  # no leak: the wait, rounded up
        left = minimum((voltage * -1.0 + 1.0) * b / drive, 1 - 1e-16)
        limit = select(endless, log1p(left * -1.0) * (-1 - 1e-6) / b, limit)
    return crosses | peaks, limit


@jit
def crossings(voltage, drive, limit, fired, c):
    """Times from the states of the lanes ``fired`` to their first crossings of the threshold.

    Steps to the root of the parabola in s, between bounds. Each costs as much as Newton's and triples the digits.
    """
    a, b = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES)
    tolerance = 2e-3 if c.itemsize == 4 else 1e-5
    unit, size = fill32(c, 1.0), maximum(absolute(voltage), absolute(drive))
    if (size > (2.0**40 if c.itemsize == 4 else 2.0**400)) & fired:  # so that no square overflows
        exponent, _ = split_power(maximum(size, 1.0))
        unit = power_of_two(exponent * -1.0)
        voltage, drive = voltage * unit, drive * unit
    s, low, high, value, now = fill32(c, 0.0), fill32(c, 0.0), limit, voltage, drive
    going = fired  # a lane stops by itself, so that its last digits do not depend on its neighbours
    for _ in range(_MAX_STEPS):
        slope = now - value * a
        curve = now * b * -1.0 - slope * a
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
        mem, syn, added = responses(s, c)
        value = select(going, fma(voltage, mem, drive * added), value)
        now = select(going, drive * syn, now)
    return s


@jit
def scan(keys, values, order, n, c, every, found):
    """Spike times of 32 neurons, dV/dt there in units of the threshold, and the place of the last causal input.

    Args:
        keys: times of arrival. With an order that all share ``(n + 1,)``, otherwise ``(n + 1) * LANES`` of the lanes;
            the last is inf.
        values: weights in units of the threshold, for each input or in the order of arrival.
        order: of the inputs, or None where each lane has its own.
        n: how many arrive.
        c: rates.
        every: lanes that have a neuron.
        found: to be filled with all three, ``(3 * LANES,)``; ``inf``, 0 and -1 where the neuron is silent.
    """
    a, b, never = load32(c, PER_MEM * LANES), load32(c, PER_SYN * LANES), fill32(c, math.inf)
    unit, longest = c[UNIT], 1e30 if c.itemsize == 4 else 1e250
    voltage = drive = fill32(c, 0.0)
    voltage_then = drive_then = since = until = limit = voltage
    active, fired, last = every, np.uint64(0), fill32(c, -1.0)
    now = load32(keys, 0) if order is None else fill32(c, keys[0])
    minus_a, is_brief = a * -1.0, False
    for k in range(n):
        if order is None:
            drive = fma(load32(values, k * LANES), b, drive)
            following = load32(keys, (k + 1) * LANES)
            wait = (following - now) * unit
            later = (wait > 0.0) & active
        else:
            drive = fma(load32(values, np.intp(order[k]) * LANES), b, drive)
            duration = (keys[k + 1] - keys[k]) * unit
            if duration == 0:
                continue  # the next input arrives at the same time
            following, wait = fill32(c, keys[k + 1]), fill32(c, duration)
            is_brief, later = duration < c[SHORT], active
        # while V rises it is concave, and stays below its tangent
        candidates = (fma(fma(voltage, minus_a, drive), wait, voltage) >= ENOUGH) & later
        mem, syn, added = brief(wait, c) if is_brief else responses(minimum(wait, longest), c)
        end, drive_end = fma(voltage, mem, drive * added), drive * syn
        if candidates:
            fires, latest = reaches(voltage, drive, wait, end, drive_end, candidates, c)
            voltage_then, drive_then = select(fires, voltage, voltage_then), select(fires, drive, drive_then)
            since, until = select(fires, now, since), select(fires, following, until)
            limit, last = select(fires, latest, limit), select(fires, fill32(c, float(k)), last)
            fired |= fires
            active &= ~fired
        if order is None:
            active &= following < math.inf
        if not active:
            break
        voltage, drive, now = end, drive_end, following
    spike, slope = never, fill32(c, 0.0)
    if fired:
        spike = since + crossings(voltage_then, drive_then, limit, fired, c) * (1 / unit)
        early = fired & ~(spike > since)
        if early:  # the floats are coarse: after the inputs that cause it
            store(found, 0, spike)
            store(found, LANES, since)
            while early:
                lane = lowest_bit(early)
                early &= early - np.uint64(1)
                found[lane] = np.nextafter(found[LANES + lane], found.dtype.type(math.inf))
            spike = load32(found, 0)
        spike = minimum(spike, until)
        slope = select(fired, (drive_then * exp((since - spike) * unit * b) - a) * unit, slope)
    store(found, 0, select(fired, spike, never))
    store(found, LANES, slope)
    store(found, 2 * LANES, last)


@jit
def scan_delayed(times, delay, weight, c, every, keys, values, found):
    """``scan`` for one sample of 32 neurons with synaptic delays; ``keys`` and ``values`` are scratch."""
    n = 0
    for i in range(times.size):
        if times[i] < math.inf:
            store(keys, n * LANES, load32(delay, i * LANES) + times[i])
            store(values, n * LANES, load32(weight, i * LANES))
            n += 1
    sort_lanes(keys, values, n, LANES)
    scan(keys, values, None, n, c, every, found)
