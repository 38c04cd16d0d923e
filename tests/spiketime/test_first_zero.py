"""The first zero of polynomials, with roots anywhere: none is missed, and none is found where there is none."""

import numba
import numpy as np
import pytest
from numpy.polynomial import polynomial

from firstspike.spiketime.cpu.series.zeros import first_zero

EPS = np.finfo(np.float64).eps
MOST = 24  # of degrees
NUMBERS = [2000, pytest.param(100_000, marks=pytest.mark.exhaustive)]


@numba.njit
def first_zeros(rows, sizes, found):
    room = np.empty(rows.shape[1])
    for k in range(len(rows)):
        found[k] = first_zero(rows[k], sizes[k], room)


def of_roots(roots, random):
    """With these real roots, and others elsewhere."""
    p = polynomial.polyfromroots(roots)
    while len(p) <= MOST - 1 and random.random() < 0.7:
        if random.random() < 0.5:
            x, y = random.normal(0.5, 1), random.choice([1e-4, 0.1, 1.0]) * random.random()
            p = polynomial.polymul(p, [x * x + y * y, -2 * x, 1])
        else:
            p = polynomial.polymul(p, [-random.choice([-1, 1]) * random.uniform(1.0, 4.0) - 0.5, 1])
    return p[: MOST + 1]


def any_coefficients(random):
    n = random.integers(2, MOST + 1)
    return random.normal(size=n + 1) * random.choice([0.1, 0.5, 1.0, 2.0]) ** np.arange(n + 1)


def close_roots(random):
    first, apart = random.random(), 10.0 ** -random.uniform(1, 9)
    return of_roots(first + apart * np.arange(random.integers(1, 6)), random)


def multiple_roots(random):
    return of_roots(np.repeat(random.random(2), random.integers(1, 5, size=2)), random)


def roots_at_ends(random):
    ends = [1.0, 1 - EPS, 1 + EPS, 1e-300, 1e-16, 1e-9, 1 - 1e-9]
    return of_roots([*random.choice(ends, random.integers(1, 3)), *random.random(random.integers(0, 3))], random)


def near_tangents(random):
    p = polynomial.polymul(of_roots([], random), [1.0])
    middle = random.random()
    touching = -polynomial.polymul(polynomial.polymul(p, p) if len(p) < 11 else [1.0], [middle**2, -2 * middle, 1])
    touching[0] += random.choice([-1, 1]) * 10.0 ** -random.uniform(1, 17) * np.abs(touching).max()
    return touching


KINDS = [any_coefficients, close_roots, multiple_roots, roots_at_ends, near_tangents]


def drawn(kind, number, seed):
    random, rows, sizes = np.random.default_rng(seed), np.zeros((number, MOST + 2)), np.zeros(number, np.int64)
    k = 0
    while k < number:
        p = kind(random)
        p = p if p[0] < 0 else -p
        if p[0] < 0:
            rows[k, : len(p)], sizes[k] = p, len(p)
            k += 1
    return rows, sizes


def highest(p, end):
    """The largest value on [0, end], which is at an end or where the slope is 0."""
    roots = polynomial.polyroots(polynomial.polyder(np.trim_zeros(p, "b")))
    near = roots.real[np.abs(roots.imag) < 1e-2]
    places = np.concatenate([[0.0, end], near[(near > 0) & (near < end)], np.linspace(0, end, 50)])
    return polynomial.polyval(places, p).max()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_first_zeros(kind, number):
    rows, sizes = drawn(kind, number // len(KINDS), seed=1)
    found = np.empty(len(rows))
    first_zeros(rows, sizes, found)
    crossings = 0
    for p, n, s in zip(rows, sizes, found, strict=True):
        p = p[:n]
        rounding = 4 * EPS * np.abs(p).sum()
        if s < 0:
            assert highest(p, 1.0) < rounding, p.tolist()
            continue
        crossings += 1
        assert s <= 1
        assert abs(polynomial.polyval(s, p)) <= rounding, p.tolist()
        assert highest(p, s * (1 - 1e-12)) <= rounding, p.tolist()
    assert crossings > len(rows) / 10
