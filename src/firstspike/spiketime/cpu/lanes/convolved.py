"""Convolutions of three and four exponentials, of vectors of times and of rates.

``K(a, b, ...)(s) = exp(-a s) * exp(-b s) * ...`` is a divided difference of ``exp(-r s)`` over the rates, up to the
sign. Rates may be equal, or 0. Where they are near, it is ``exp(-a s)`` with the slowest rate a times a series in the
distances of the others, whose terms are complete homogeneous polynomials.
"""

# mypy: disable-error-code="no-untyped-def"
from numba.core import types

from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp, expm1
from firstspike.spiketime.cpu.vectors.simd import fma, select

_NEAR = 0.5  # distance of two rates times s, up to which the series has all digits
_TERMS = 16


@inlined
def convolved(s, a, b):
    """K(a, b)."""
    x = s * abs(a - b)
    s = _sooner(s, min(a, b))
    return exp(s * min(a, b) * -1.0) * s * select(x > 0.0, expm1(x * -1.0) / x * -1.0, 1.0)


@chosen_by_type
def _latest(s):
    """The time in units of the slowest time constant after which nothing is left, of whose square that is true, too."""
    latest = 80.0 if s.dtype == types.float32 else 690.0
    return lambda s: latest


@inlined
def _sooner(s, low):
    """A time, cut where nothing is left after it."""
    late = s * low > _latest(s)
    return select(late, _latest(s) / select(late, low, 1.0), s)


@jit
def convolved3(s, a, b, c):
    """K(a, b, c)."""
    low, high = min(a, min(b, c)), max(a, max(b, c))
    middle = max(min(a, b), min(max(a, b), c))
    x, y = s * (low - middle), s * (low - high)
    far = y < -_NEAR
    apart = (convolved(s, low, middle) - convolved(s, middle, high)) / select(far, high - low, 1.0)
    x, y = max(x, -_NEAR), max(y, -_NEAR)
    power = complete = x * 0.0 + 1.0
    factor, total = 0.5, power * 0.5
    for j in range(1, _TERMS):
        power = power * x
        complete = fma(complete, y, power)
        factor /= j + 2
        total = fma(complete, factor, total)
    s = _sooner(s, low)
    return select(far, apart, exp(s * low * -1.0) * s * s * total)


@jit
def convolved4(s, a, b, c, d):
    """K(a, b, c, d)."""
    low, high = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
    one, other = max(min(a, b), min(c, d)), min(max(a, b), max(c, d))
    second, third = min(one, other), max(one, other)
    x, y, z = s * (low - second), s * (low - third), s * (low - high)
    far = z < -_NEAR
    apart = (convolved3(s, low, second, third) - convolved3(s, second, third, high)) / select(far, high - low, 1.0)
    x, y, z = max(x, -_NEAR), max(y, -_NEAR), max(z, -_NEAR)
    power = of_two = of_three = x * 0.0 + 1.0
    factor, total = 1 / 6, power * (1 / 6)
    for j in range(1, _TERMS):
        power = power * x
        of_two = fma(of_two, y, power)
        of_three = fma(of_three, z, of_two)
        factor /= j + 3
        total = fma(of_three, factor, total)
    s = _sooner(s, low)
    return select(far, apart, exp(s * low * -1.0) * s * s * s * total)
