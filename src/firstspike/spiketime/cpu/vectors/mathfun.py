"""Exponentials and logarithms of SIMD vectors, to about two units in the last place.

``exp(x) = 2^n exp(r)`` with ``|r| <= ln(2)/2`` and a polynomial for ``expm1(r)``, which keeps its relative accuracy
next to 0. Arguments are cut to the range where ``2^n`` is a normal number: the result never is inf, NaN or 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from numba.core import types

from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, jit
from firstspike.spiketime.cpu.vectors.simd import fma, maximum, minimum, nearest, power_of_two, select, split_power

# the last is the highest power's; Taylor's series, whose remainder is below half a unit in the last place
_SERIES_32 = tuple(1 / math.factorial(n) for n in range(2, 8))
_SERIES_64 = tuple(1 / math.factorial(n) for n in range(2, 14))
_LOG2E = 1 / math.log(2)
SMALL = 0.34  # below ln(2)/2


def small_expm1(x):
    """``exp(x) - 1`` of a vector with ``|x| <= SMALL``."""
    raise NotImplementedError


@chosen_by_type(small_expm1)
def _overload_small_expm1(x):
    if x.dtype == types.float32:
        c2, c3, c4, c5, c6, c7 = _SERIES_32

        def small(x):
            square = x * x  # three short chains instead of a long one
            p = fma(fma(fma(x, c7, c6), square, fma(x, c5, c4)), square, fma(x, c3, c2))
            return fma(p, square, x)

    else:
        c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = _SERIES_64

        def small(x):
            p = fma(fma(fma(fma(fma(fma(x, c13, c12), x, c11), x, c10), x, c9), x, c8), x, c7)
            p = fma(fma(fma(fma(fma(p, x, c6), x, c5), x, c4), x, c3), x, c2)
            return fma(p * x, x, x)

    return small


def _reduced(x):
    """``n`` and ``expm1(r)`` for ``x = n ln(2) + r``."""
    raise NotImplementedError


@chosen_by_type(_reduced)
def _overload_reduced(x):
    single = x.dtype == types.float32
    # ln(2) in two parts, the first with so few digits that n times it is exact
    high, low = (0.693359375, -2.12194440e-4) if single else (6.93147180369123816490e-01, 1.90821492927058770002e-10)
    limit = 87.0 if single else 708.0

    def reduced(x):
        x = maximum(minimum(x, limit), -limit)
        n = nearest(x * _LOG2E)
        return n, small_expm1(fma(n, -low, fma(n, -high, x)))

    return reduced


@jit
def exp(x):
    """``exp`` of a vector."""
    n, p = _reduced(x)
    scale = power_of_two(n)
    return fma(p, scale, scale)


@jit
def expm1(x):
    """``exp(x) - 1`` of a vector, accurate next to 0."""
    n, p = _reduced(x)
    scale = power_of_two(n)
    return fma(p, scale, scale - 1.0)


@jit
def exp_and_expm1(x):
    """Both of a vector, for the price of one."""
    n, p = _reduced(x)
    scale = power_of_two(n)
    return fma(p, scale, scale), fma(p, scale, scale - 1.0)


def _log_series(square):
    """``(atanh(s) / s - 1) / s**2`` from ``s**2 <= 0.0295``."""
    raise NotImplementedError


@chosen_by_type(_log_series)
def _overload_log_series(square):
    if square.dtype == types.float32:

        def series(square):
            return fma(fma(fma(square, 1 / 9, 1 / 7), square, 1 / 5), square, 1 / 3)

    else:

        def series(square):
            p = fma(fma(fma(fma(square, 1 / 21, 1 / 19), square, 1 / 17), square, 1 / 15), square, 1 / 13)
            p = fma(fma(fma(p, square, 1 / 11), square, 1 / 9), square, 1 / 7)
            return fma(fma(p, square, 1 / 5), square, 1 / 3)

    return series


@jit
def log(x):
    """``log`` of a vector of positive normal numbers."""
    n, m = split_power(x)
    low = m < 0.7071067811865476
    n, m = select(low, n - 1.0, n), select(low, m + m, m)
    f = m - 1.0
    s = f / (f + 2.0)
    square = s * s
    # log(m) = 2 atanh(s); ln(2) in two parts, the first with so few digits that n times it is exact
    small = fma(s * square, _log_series(square) * 2.0, s + s)
    return fma(n, 0.693145751953125, fma(n, 1.42860682030941723e-06, small))


@jit
def log1p(x):
    """``log(1 + x)`` of a vector with ``x > -1``, accurate next to 0."""
    whole = maximum(x + 1.0, 1e-37)
    return log(whole) + (x - (whole - 1.0)) / whole
