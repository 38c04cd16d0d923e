"""Exponentials and logarithms of SIMD vectors, to about two units in the last place.

``exp(x) = 2^n exp(r)`` with ``|r| <= ln(2)/2`` and a polynomial for ``expm1(r)``, which keeps its relative accuracy
next to 0. Arguments are cut to the range where ``2^n`` is a normal number: the result never is inf, NaN or 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math
from collections.abc import Sequence
from functools import reduce

from numba.core import types

from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, emitted, inlined, jit
from firstspike.spiketime.cpu.vectors.simd import constant, fma, fused, nearest, power_of_two, select, split_power

_LOG2E = 1 / math.log(2)
SMALL = 0.34  # below ln(2)/2


def polynomial(single: Sequence[float], double: Sequence[float]):
    """The function that evaluates a polynomial, the lowest power's coefficient first, those of float32 or of float64.

    By Horner's scheme, where each step waits for the one before.
    """

    @emitted(lambda x: x(x))
    def value(context, builder, sig, x):
        terms = [constant(x.type, c) for c in (single if sig.return_type.dtype == types.float32 else double)]
        return reduce(lambda total, c: fused(builder, total, x, c), reversed(terms))

    return value


# Taylor's series of (expm1(x) - x) / x**2, whose remainder is below half a unit in the last place
_SERIES_32 = tuple(1 / math.factorial(n) for n in range(2, 8))
_SERIES_64 = tuple(1 / math.factorial(n) for n in range(2, 14))
_expm1_series = polynomial(_SERIES_32, _SERIES_64)
# (atanh(s) / s - 1) / s**2, from s**2 <= 0.0295
_log_series = polynomial([1 / n for n in range(3, 11, 2)], [1 / n for n in range(3, 23, 2)])


@chosen_by_type
def small_expm1(x):
    """``exp(x) - 1`` of a vector with ``|x| <= SMALL``."""
    c2, c3, c4, c5, c6, c7 = _SERIES_32

    def single(x):
        square = x * x  # three short chains instead of a long one
        p = fma(fma(fma(x, c7, c6), square, fma(x, c5, c4)), square, fma(x, c3, c2))
        return fma(p, square, x)

    def double(x):
        return fma(_expm1_series(x) * x, x, x)

    return single if x.dtype == types.float32 else double


@chosen_by_type
def _reduced(x):
    """``n`` and ``expm1(r)`` for ``x = n ln(2) + r``."""
    single = x.dtype == types.float32
    # ln(2) in two parts, the first with so few digits that n times it is exact
    high, low = (0.693359375, -2.12194440e-4) if single else (6.93147180369123816490e-01, 1.90821492927058770002e-10)
    limit = 87.0 if single else 708.0

    def reduced(x):
        x = max(min(x, limit), -limit)
        n = nearest(x * _LOG2E)
        return n, small_expm1(fma(n, -low, fma(n, -high, x)))

    return reduced


@inlined
def exp_and_expm1(x):
    """``exp(x)`` of a vector and ``exp(x) - 1``, which is accurate next to 0. An unused result costs nothing."""
    n, p = _reduced(x)
    scale = power_of_two(n)
    return fma(p, scale, scale), fma(p, scale, scale - 1.0)


@jit
def exp(x):
    """``exp`` of a vector."""
    return exp_and_expm1(x)[0]


@chosen_by_type
def expm1(x):
    """``exp(x) - 1`` of a number or a vector."""
    return (lambda x: math.expm1(x)) if isinstance(x, types.Float) else (lambda x: exp_and_expm1(x)[1])


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
    whole = max(x + 1.0, 1e-37)
    return log(whole) + (x - (whole - 1.0)) / whole
