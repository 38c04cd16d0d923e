"""Exponentials of SIMD vectors, to about two units in the last place.

``exp(x) = 2^n exp(r)`` with ``|r| <= ln(2)/2`` and a polynomial for ``expm1(r)``, which keeps its relative accuracy
next to 0. Arguments are cut to the range where ``2^n`` is a normal number: the result never is inf, NaN or 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numba
from numba.core import types
from numba.extending import overload

from firstspike.spiketime.cpu.simd import fma, maximum, minimum, nearest, power_of_two

# the last is the highest power's; Taylor's series, whose remainder is below half a unit in the last place
_SERIES_32 = tuple(1 / math.factorial(n) for n in range(2, 8))
_SERIES_64 = tuple(1 / math.factorial(n) for n in range(2, 14))
_LOG2E = 1 / math.log(2)


def _reduced(x):
    """``n`` and ``expm1(r)`` for ``x = n ln(2) + r``."""
    raise NotImplementedError


@overload(_reduced, inline="never")
def _overload_reduced(x):
    single = x.dtype == types.float32
    # ln(2) in two parts, the first with so few digits that n times it is exact
    high, low = (0.693359375, -2.12194440e-4) if single else (6.93147180369123816490e-01, 1.90821492927058770002e-10)
    limit = 87.0 if single else 708.0
    if single:
        c2, c3, c4, c5, c6, c7 = _SERIES_32

        def reduced(x):
            x = maximum(minimum(x, limit), -limit)
            n = nearest(x * _LOG2E)
            r = fma(n, -low, fma(n, -high, x))
            p = fma(fma(fma(fma(fma(r, c7, c6), r, c5), r, c4), r, c3), r, c2)
            return n, fma(p * r, r, r)

    else:
        c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = _SERIES_64

        def reduced(x):
            x = maximum(minimum(x, limit), -limit)
            n = nearest(x * _LOG2E)
            r = fma(n, -low, fma(n, -high, x))
            p = fma(fma(fma(fma(fma(fma(r, c13, c12), r, c11), r, c10), r, c9), r, c8), r, c7)
            p = fma(fma(fma(fma(fma(p, r, c6), r, c5), r, c4), r, c3), r, c2)
            return n, fma(p * r, r, r)

    return reduced


@numba.njit(cache=True)
def exp(x):
    """``exp`` of a vector."""
    n, p = _reduced(x)
    scale = power_of_two(n)
    return fma(p, scale, scale)


@numba.njit(cache=True)
def expm1(x):
    """``exp(x) - 1`` of a vector, accurate next to 0."""
    n, p = _reduced(x)
    scale = power_of_two(n)
    return fma(p, scale, scale - 1.0)
