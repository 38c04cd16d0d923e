"""The truth about neurons from equations: Taylor series in 40 digits, and no code of the package.

A neuron is a few functions of its states and parameters, written once in Python. They work with numbers of mpmath and
with ``Series``, whose coefficients follow one order after the other.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mpmath as mp

DIGITS = 40
ORDER = 40


class Series:
    """A function of time by its coefficients. All of one tape grow by one order at a time, in the order of making."""

    def __init__(self, tape: list, rule: Callable[[int], Any] | None = None) -> None:
        self.tape, self.c, self.rule = tape, [], rule
        self.times_order: list = []
        if rule is not None:
            tape.append(self)

    def _of(self, rule: Callable[[int], Any]) -> "Series":
        return Series(self.tape, rule)

    def __neg__(self):
        return self._of(lambda n: -self.c[n])

    def __add__(self, other):
        if isinstance(other, Series):
            return self._of(lambda n: self.c[n] + other.c[n])
        return self._of(lambda n: self.c[n] + other if n == 0 else self.c[n])

    __radd__ = __add__

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        if isinstance(other, Series):
            return self._of(lambda n: mp.fdot(zip(self.c[: n + 1], other.c[n::-1], strict=True)))
        return self._of(lambda n: self.c[n] * other)

    __rmul__ = __mul__

    def __truediv__(self, other):
        if not isinstance(other, Series):
            return self * (1 / mp.mpf(other))
        found = self._of(lambda n: (self.c[n] - mp.fdot(zip(found.c[:n], other.c[n:0:-1], strict=True))) / other.c[0])
        return found

    def __rtruediv__(self, other):
        rest = lambda n: other if n == 0 else 0  # noqa: E731
        found = self._of(lambda n: (rest(n) - mp.fdot(zip(found.c[:n], self.c[n:0:-1], strict=True))) / self.c[0])
        return found


def _weighted(one: Series, other: Series, n: int):
    """``sum_k k one_k other_(n-k) / n``."""
    for k in range(len(one.times_order), n):
        one.times_order.append((k + 1) * one.c[k + 1])
    return mp.fdot(zip(one.times_order[:n], other.c[n - 1 :: -1], strict=True)) / n


def exp(x):
    if not isinstance(x, Series):
        return mp.exp(x)
    found = x._of(lambda n: _weighted(x, found, n) if n else mp.exp(x.c[0]))
    return found


def log(x):
    if not isinstance(x, Series):
        return mp.log(x)
    slope = 1 / x
    return x._of(lambda n: _weighted(x, slope, n) if n else mp.log(x.c[0]))


def power(x, exponent):
    if not isinstance(x, Series):
        return mp.power(x, exponent)
    return exp(exponent * log(x))


def sin(x):
    return _sine_and_cosine(x)[0]


def cos(x):
    return _sine_and_cosine(x)[1]


def _sine_and_cosine(x):
    if not isinstance(x, Series):
        return mp.sin(x), mp.cos(x)
    sine = x._of(lambda n: _weighted(x, cosine, n) if n else mp.sin(x.c[0]))
    cosine = x._of(lambda n: -_weighted(x, sine, n) if n else mp.cos(x.c[0]))
    return sine, cosine


def tanh(x):
    return 1 - 2 / (exp(2 * x) + 1)


class Cell(NamedTuple):
    """One neuron. Functions take the states and the parameters."""

    flow: Callable[[Sequence, Mapping], Sequence]
    excess: Callable[[Sequence, Mapping], Any]
    reset: Callable[[Sequence, Mapping], Sequence]
    receptors: tuple[int, ...]
    held: tuple[int, ...]
    direct: tuple[int, ...] = ()
    """States in the excess to which inputs add."""


class Truth(NamedTuple):
    spikes: list
    slopes: list
    """Of the excess before each spike; None where the spike has the time of an input or a release."""
    end: list
    """The states at the end, and what is left of the refractory time."""
    highest: Any
    """The highest excess after the last input."""


class Step(NamedTuple):
    """Polynomials of the states and the excess."""

    rows: list
    excess: list
    length: Any


def expand(cell: Cell, x, p, held: bool, longest) -> Step:
    """One step from x."""
    tape: list = []
    states = [Series(tape) for _ in x]
    for state, value in zip(states, x, strict=True):
        state.c.append(value)
    rates = cell.flow(states, p)
    level = cell.excess(states, p)
    for n in range(ORDER + 1):
        for node in tape:
            node.c.append(node.rule(n))
        for k, (state, rate) in enumerate(zip(states, rates, strict=True)):
            still = held and k in cell.held
            value = rate.c[n] if isinstance(rate, Series) else (rate if n == 0 else 0)
            state.c.append(mp.mpf(0) if still else value / (n + 1))
    length = longest
    size = max(1, *map(abs, x))
    for row in (*states, level):
        for n in (ORDER - 1, ORDER):
            if row.c[n]:
                length = min(length, mp.power(mp.mpf(10) ** (-mp.mp.dps - 2) * size / abs(row.c[n]), mp.mpf(1) / n))
    return Step([s.c[: ORDER + 1] for s in states], level.c[: ORDER + 1], length)


def value(c, s):
    return mp.polyval(c[::-1], s)  # from the highest power on


def first_rise(b):
    """Where a polynomial that is at most 0 at 0 first rises through 0 in (0, 1]; None if it does not. Its maximum."""
    n = len(b) - 1
    if b[0] + mp.fsum(max(c, 0) for c in b[1:]) < 0:
        return None
    whole = bernstein(b)
    slope = [k * c for k, c in enumerate(b)][1:]
    parts = [(whole, mp.mpf(0), mp.mpf(1))]
    while parts:
        c, low, width = parts.pop()
        if max(c) < 0 or width < mp.mpf(2) ** (-3 * n):
            continue
        signs = [x >= 0 for x in c]
        if not signs[0] and sum(x != y for x, y in itertools.pairwise(signs)) == 1:
            return newton(b, slope, low, low + width)
        left, right = halves(c)
        width /= 2
        parts += [(right, low + width, width), (left, low, width)]
    return None


def bernstein(b):
    n = len(b) - 1
    scaled = [c / math.comb(n, j) for j, c in enumerate(b)]
    return [mp.fsum(math.comb(i, j) * scaled[j] for j in range(i + 1)) for i in range(n + 1)]


def halves(c):
    """A polynomial on the first and on the second half."""
    left, right = [c[0]], [c[-1]]
    while len(c) > 1:
        c = [(x + y) / 2 for x, y in itertools.pairwise(c)]
        left.append(c[0])
        right.append(c[-1])
    return left, right[::-1]


def newton(b, slope, low, high):
    s = high
    for _ in range(400):
        v = value(b, s)
        low, high = (s, high) if v < 0 else (low, s)
        steep = value(slope, s)
        step = s - v / steep if steep else low
        s, before = step if low < step < high else (low + high) / 2, s
        if abs(s - before) < mp.mpf(10) ** (3 - mp.mp.dps):
            return s
    raise AssertionError("no convergence")


def summit(b):
    """The maximum of a polynomial on [0, 1], by its slope's zeros."""
    best = max(b[0], mp.fsum(b))
    slope = [k * c for k, c in enumerate(b)][1:]
    if slope[0] <= 0:  # what falls at first has no maximum that a step does not begin or end with, nearly always
        return best
    if mp.fsum(slope) < 0:
        s = newton([-c for c in slope], [-k * c for k, c in enumerate(slope)][1:], mp.mpf(0), mp.mpf(1))
        best = max(best, value(b, s))
    return best


def solve(cell: Cell, p: Mapping, arrivals, *, x, until, left=0, start=0, most=100, watch=None) -> Truth:
    """Spikes of a neuron.

    ``arrivals`` are ``(time, receptor, weight)``; ``p`` has ``refractory`` beside its parameters; ``x`` is the state at
    the start, ``left`` what is left of a refractory time. No spikes are looked for after the time ``watch``.
    """
    now, until = mp.mpf(start), mp.mpf(until)
    queue = sorted((a for a in arrivals if now <= a[0] < until), key=lambda a: a[0])
    x, free = [mp.mpf(y) for y in x], now + left if left > 0 else None
    spikes, slopes, highest = [], [], -mp.inf
    released, lifted = False, False

    def spike(slope):
        nonlocal x, free
        assert len(spikes) < most, "more spikes than expected"
        spikes.append(now)
        slopes.append(slope)
        x = [mp.mpf(y) for y in cell.reset(x, p)]
        free = now + p["refractory"] if p["refractory"] > 0 else None
        assert free is not None or cell.excess(x, p) < 0, "above the threshold after a reset"

    while True:
        if free is not None and now == free:
            free, released = None, True
        looks = free is None and (watch is None or now < watch)
        if looks and (released or lifted) and cell.excess(x, p) >= 0:
            spike(None)
            released = lifted = False
            continue
        released = lifted = False
        if queue and queue[0][0] == now:
            _, receptor, weight = queue.pop(0)
            place = cell.receptors[receptor]
            x = [y + weight if k == place else y for k, y in enumerate(x)]
            lifted = place in cell.direct
            highest = -mp.inf
            continue
        if now >= until:
            return Truth(spikes, slopes, [*x, mp.mpf(0) if free is None else free - until], highest)
        end = min([until, *(a[0] for a in queue[:1]), *([] if free is None else [free])])
        step = expand(cell, x, p, free is not None, end - now)
        length = min(step.length, end - now)
        scaled, by = [], mp.mpf(1)
        for c in step.excess:
            scaled.append(c * by)
            by *= length
        if free is None:
            highest = max(highest, summit(scaled))
        if looks:
            s = first_rise(scaled)
            if s is not None:
                now, x = now + s * length, [value(c, s * length) for c in step.rows]
                slope = value([k * c for k, c in enumerate(step.excess)][1:], s * length)
                spike(slope)
                continue
        x = [value(c, length) for c in step.rows]
        now = end if length == end - now else now + length
