"""The first zero of a polynomial of one neuron in a step: where coefficients tell that there is none, or one.

That is where it stays below 0, falls, rises, or is concave, with one maximum. Otherwise the piece is halved.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from firstspike.spiketime.cpu.runtime.compiling import jit

_SMALLEST = 2.0**-40  # part of a piece that is not halved again
_STEPS = 60


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
