"""When does a linear neuron reach its threshold? The first zero of g = V - threshold(t) in a piece of time, or none.

Pieces in which a bound keeps g below 0 are left out. Others are at most as long as the fastest time constant that
matters, so that g is its Taylor series to rounding, of few terms: each follows from the one before by the neuron's
equations. Where coefficients tell that g stays below 0, or
falls, there is none; where it rises or is concave its end or its one maximum decides. Otherwise the piece is halved.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from firstspike.spiketime.cpu.linear.flow import BIAS, LONG, RISE, THRESHOLD, drive_of, pass_time
from firstspike.spiketime.cpu.runtime.compiling import jit

TERMS = 24  # at most, of which 19 are enough in double precision
_SMALLEST = 2.0**-40  # part of a piece that is not halved again
_STEPS = 60
_NOTHING = 1e-19  # part of the threshold and the membrane that does not show
_FAR = 2.0**40  # in units of the fastest time constant: where to look first of what has no end


@jit
def rest_of(v, y, theta, kinds, leak, rates, wait):
    """An upper bound of g for a time that follows, from the rest of each component."""
    slowest, lift, push = math.inf, -theta, 0.0
    left = math.exp(-leak * wait)
    fed = 0.0
    for k in range(kinds.size):
        kind, rate = kinds[k], rates[k]
        part = math.exp(-rate * wait)
        most = max(y[k], y[k] * part) + fed
        fed = max(y[k], 0.0) * (1 - part) if kind == RISE else 0.0
        if kind == THRESHOLD:
            lift -= min(y[k], y[k] * part)
        elif kind != RISE:
            drive = drive_of(kind, leak, rate)
            push += drive * most if drive > 0 else drive * min(y[k], y[k] * part)
            if rate > 0:
                slowest = min(slowest, rate)
    if leak > 0:
        return max(v, v * left + push * (1 - left) / leak) + lift
    return v + max(push, 0.0) * (wait if wait < math.inf else 1 / slowest) + lift


@jit
def series(v, y, d, theta, kinds, leak, rates, b, terms):
    """Fill ``b`` with the coefficients of g as a function of time in units of ``d``. Returns how many there are."""
    count = kinds.size
    lift = 0.0
    for k in range(count):
        terms[k] = y[k]
        if kinds[k] == THRESHOLD:
            lift += y[k]
    b[0], size, before = v - lift - theta, theta + abs(v), True
    for n in range(1, TERMS):
        step = d / n
        change, total, lift, fed = -leak * v, 0.0, 0.0, 0.0
        for k in range(count):
            kind, rate, term = kinds[k], rates[k], terms[k]
            part = drive_of(kind, leak, rate) * term
            change += part
            total += abs(part)
            following = (fed - rate * term) * step
            fed = rate * term if kind == RISE else 0.0
            total += abs(fed)
            terms[k] = following
            if kind == THRESHOLD:
                lift += following
                total += abs(following)
        v = change * step
        b[n] = v - lift
        small = abs(v) + total * step < 1e-17 * size
        if small and before:
            return n + 1
        before = small
    return TERMS


@jit
def taylor_shift(b, n, start, width, c):
    """Coefficients of the same polynomial on a part of the piece, from ``start`` on."""
    for j in range(n):
        c[j] = b[j]
    if start != 0:
        for i in range(n - 1):
            for j in range(n - 2, i - 1, -1):
                c[j] += start * c[j + 1]
    power = 1.0
    for j in range(n):
        c[j] *= power
        power *= width


@jit
def values(c, n, u):
    """The polynomial and two derivatives."""
    p, q, r = c[n - 1], 0.0, 0.0
    for j in range(n - 2, -1, -1):
        r = r * u + q
        q = q * u + p
        p = p * u + c[j]
    return p, q, 2 * r


@jit
def root(c, n, high, u):
    """The zero in [0, high] of a function that rises there from below 0, from ``u`` on: a parabola at each step."""
    low = 0.0
    for _ in range(_STEPS):
        p, q, r = values(c, n, u)
        if p < 0:
            low = u
        else:
            high = u
        bent = q * q - 2 * p * r
        under = q + (math.sqrt(bent) if bent > 0 else 0.0)
        following = u - 2 * p / under if under > 0 else -1.0
        halves = not low <= following <= high
        if halves:
            following = 0.5 * (low + high)
        moved = abs(following - u)
        u = following
        # the error of a step by a parabola is about the cube of its length
        near = moved * moved * moved < 1e-18 * u and not halves
        if near or moved <= 1e-16 * u or high - low <= 1e-16 * high:
            break
    return u


@jit
def summit(c, n):
    """Where a concave polynomial that rises at 0 and falls at 1 is largest."""
    low, high, u = 0.0, 1.0, 0.5
    for _ in range(_STEPS):
        _, q, r = values(c, n, u)
        if q > 0:
            low = u
        else:
            high = u
        following = u - q / r if r < 0 else -1.0
        if not low <= following <= high:
            following = 0.5 * (low + high)
        moved = abs(following - u)
        u = following
        if moved <= 1e-9 * u or high - low <= 1e-9 * high:  # the height then has all its digits
            break
    return u


@jit
def first_zero(b, n, c):
    """The first zero of the polynomial ``b`` on [0, 1], which is below 0 at 0; -1 if there is none."""
    start, width = 0.0, 1.0
    while start < 1:
        taylor_shift(b, n, start, width, c)
        top, steepest, least, bend, end, slope = c[0], c[1], c[1], 0.0, c[0], 0.0
        for j in range(1, n):
            x = c[j]
            end += x
            slope += j * x
            if x > 0:
                top += x
            if j > 1:
                steepest += j * max(x, 0.0)
                least += j * min(x, 0.0)
                bend += j * (j - 1) * (x if j == 2 else max(x, 0.0))
        if top < 0 or steepest <= 0:
            known = True
        elif least >= 0 or (bend < 0 and slope >= 0):
            known = True
            if end >= 0:
                first = -c[0] / c[1] if c[1] > -c[0] else 0.5
                return start + width * root(c, n, 1.0, first)
        elif bend < 0:
            known = True
            u = summit(c, n)
            p, _, r = values(c, n, u)
            if p >= 0:
                first = u - math.sqrt(2 * p / -r) if r < 0 else 0.5 * u
                return start + width * root(c, n, u, first if 0 < first < u else 0.5 * u)
        else:
            known = width < _SMALLEST
        if known:
            start += width
            width = min(2 * width, 1 - start)
        else:
            width *= 0.5
    return -1.0


@jit
def fastest_of(v, y, theta, kinds, leak, rates):
    """The fastest rate that shows: of the membrane, of components that are not 0, and of those that these feed."""
    fastest, least = leak, _NOTHING * (theta + abs(v))
    for k in range(kinds.size):
        if kinds[k] != BIAS and abs(y[k]) > least:
            fastest = max(fastest, rates[k])
            if kinds[k] == RISE:
                fastest = max(fastest, rates[k + 1])
    return fastest


@jit
def crossing(v, y, theta, wait, kinds, leak, rates, work):
    """Time until a membrane below its threshold first reaches it, at most ``wait``; -1 if it does not.

    A piece in which ``rest_of`` shows that there is none may have any length. ``work`` are rows of at least ``TERMS``
    numbers. The components ``y`` change.
    """
    begin, d = 0.0, wait
    while True:
        fastest = fastest_of(v, y, theta, kinds, leak, rates)
        d = min(d, wait - begin)
        if fastest == 0:  # nothing moves
            return -1.0
        skips = fastest * d > 1
        while skips and rest_of(v, y, theta, kinds, leak, rates, d) >= 0:
            d = 0.5 * d if d < LONG else _FAR / fastest
            skips = fastest * d > 1
        if not skips:
            n = series(v, y, d, theta, kinds, leak, rates, work[0], work[2])
            found = 0.0 if work[0, 0] >= 0 else first_zero(work[0], n, work[1])
            if found >= 0:
                return begin + found * d
        begin += d
        if begin >= wait or d <= 0:
            return -1.0
        v = pass_time(v, y, d, False, kinds, leak, rates)
        d *= 2
