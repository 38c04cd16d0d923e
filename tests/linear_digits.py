"""The truth about spike trains of linear neurons: Taylor series in 50 digits, and no code of the package.

Between events the state x = (V, components) of a neuron obeys ``dx/dt = A x + b``. In a piece of time its series is
summed until the terms are below the precision; where the polynomial that is left reaches the threshold, halving of its
Bernstein form finds out for certain.
"""

import itertools
import math
from typing import NamedTuple

import mpmath as mp

DIGITS = 50
PIECE = 2  # length of pieces, in units of the fastest time constant


class Cell(NamedTuple):
    """Parameters of one neuron, and the kinds of its components, see ``firstspike.neurons.base.Component``."""

    kinds: tuple
    taus: tuple
    jumps: tuple
    tau_mem: object
    threshold: object
    reset: object = 0.0
    refractory: object = 0.0
    bias: object = 0.0

    @property
    def rates(self):
        return [1 / mp.mpf(x) for x in (self.tau_mem, *self.taus)]

    def change(self, x, held, rates, constant):
        """dx/dt; without the bias it is linear."""
        dv = (mp.mpf(self.bias) if constant else 0) * rates[0] - x[0] * rates[0]
        found = []
        for k, kind in enumerate(self.kinds, 1):
            flow = x[k] * rates[k]
            fed = found and self.kinds[k - 2] in ("rise", "onset")
            found.append((x[k - 1] * rates[k - 1] if fed else 0) - flow)
            dv += flow if kind == "synapse" else -flow if kind == "current" else 0
        return [mp.mpf(0) if held else dv, *found]

    def excess(self, x, constant=True):
        """How far the membrane is above the threshold."""
        parts = mp.fsum(y for kind, y in zip(self.kinds, x[1:], strict=True) if kind == "threshold")
        return x[0] - parts - (mp.mpf(self.threshold) if constant else 0)

    @property
    def receptors(self):
        fed = [False, *(kind == "rise" for kind in self.kinds)]
        return [k for k, kind in enumerate(self.kinds) if kind == "rise" or (kind == "synapse" and not fed[k])]


class Truth(NamedTuple):
    spikes: list
    slopes: list
    """Of the excess, before each spike; None where one follows at the end of the refractory time."""
    end: list | None
    """The state at ``until``."""
    log: list
    """What happened, in order."""
    more: bool
    """Whether there are more spikes than asked for."""


def series(cell, x, length, held):
    """Terms of the series of x at the length, as vectors."""
    rates, tiny = cell.rates, mp.mpf(10) ** (-mp.mp.dps - 4)
    terms, size = [x], max(map(abs, x)) + mp.mpf(1)
    for n in range(1, 400):
        by = length / n
        x = [y * by for y in cell.change(x, held, rates, n == 1)]
        terms.append(x)
        if n > 3 and max(map(abs, x)) < tiny * size:
            return terms
    raise AssertionError("the piece is too long")


def moved(cell, x, length, held=False):
    """The state after a time."""
    pieces = max(1, int(mp.ceil(length * max(cell.rates) / PIECE)))
    for _ in range(pieces):
        x = [mp.fsum(column) for column in zip(*series(cell, x, length / pieces, held), strict=True)]
    return x


def value(p, s):
    found = mp.mpf(0)
    for c in reversed(p):
        found = found * s + c
    return found


def first_zero(p):
    """Where a polynomial that is below 0 at 0 first reaches 0 in [0, 1]; None if it does not."""
    if p[0] + mp.fsum(max(c, 0) for c in p[1:]) < 0:
        return None
    n = len(p) - 1
    scaled = [c / math.comb(n, j) for j, c in enumerate(p)]
    whole = [mp.fsum(math.comb(i, j) * scaled[j] for j in range(i + 1)) for i in range(n + 1)]
    slope = [j * c for j, c in enumerate(p)][1:]
    parts = [(whole, mp.mpf(0), mp.mpf(1))]
    while parts:
        b, low, width = parts.pop()
        if max(b) < 0:
            continue
        signs = [c >= 0 for c in b]
        if sum(x != y for x, y in itertools.pairwise(signs)) == 1:
            high = low + width
            s = high
            for _ in range(300):
                v = value(p, s)
                low, high = (s, high) if v < 0 else (low, s)
                steep = value(slope, s)
                step = s - v / steep if steep else low
                s, before = step if low < step < high else (low + high) / 2, s
                if abs(s - before) < mp.mpf(10) ** (3 - mp.mp.dps):
                    return s
            raise AssertionError("no convergence")
        assert width > mp.mpf(10) ** (-mp.mp.dps // 2), "a tangent that this precision cannot decide"
        left, right = [b[0]], [b[-1]]
        while len(b) > 1:
            b = [(y + z) / 2 for y, z in itertools.pairwise(b)]
            left.append(b[0])
            right.append(b[-1])
        width /= 2
        parts += [(right[::-1], low + width, width), (left, low, width)]
    return None


def ceiling(cell, x):
    """A bound of the excess for all that follows."""
    signs = (1 if kind in ("synapse", "rise") else -1 for kind in cell.kinds)
    rises = sum(max(sign * y, 0) for sign, y in zip(signs, x[1:], strict=False))
    rest = mp.mpf(cell.bias) if not mp.isinf(mp.mpf(cell.tau_mem)) else mp.mpf(0)
    return max(x[0], rest) + rises - mp.mpf(cell.threshold)


def crossing(cell, x, length):
    """When the threshold is reached, and the state there; inf if it is not."""
    now, step = mp.mpf(0), PIECE / max(cell.rates)
    if cell.excess(x) >= 0:
        return now, x
    while now < length:
        if mp.isinf(length) and ceiling(cell, x) < 0:
            break
        h = min(step, length - now)
        terms = series(cell, x, h, False)
        p = [cell.excess(term, n == 0) for n, term in enumerate(terms)]
        s = first_zero(p)
        if s is not None:
            state = [value([term[k] for term in terms], s) for k in range(len(x))]
            return now + s * h, state
        x = [mp.fsum(column) for column in zip(*terms, strict=True)]
        now += h
    return mp.inf, x


def spiked(cell, x):
    """The state after a spike."""
    return [
        x[0] if cell.reset is None else mp.mpf(cell.reset),
        *(y + mp.mpf(b) for y, b in zip(x[1:], cell.jumps, strict=True)),
    ]


def train(cell, arrivals, *, most, start=None, until=mp.inf, state=None):
    """Spikes of a neuron.

    ``arrivals`` are ``(time, place of a component, weight)``; ``state`` is (state, time left of the refractory time).
    """
    until = mp.mpf(until)
    begin = -mp.inf if start is None else mp.mpf(start)
    queue = sorted((n for n, a in enumerate(arrivals) if begin <= a[0] < until), key=lambda n: arrivals[n][0])
    x, free = [mp.mpf(0)] * (1 + len(cell.kinds)), -mp.inf
    now = begin if start is not None else (arrivals[queue[0]][0] if queue else until)
    if state is not None:
        x, free = list(map(mp.mpf, state[0])), now + mp.mpf(state[1])
        if state[1] > 0 and cell.reset is not None:
            x[0] = mp.mpf(cell.reset)
    spikes, slopes, log = [], [], []
    while mp.isfinite(now):
        end = min(arrivals[queue[0]][0], until) if queue else until
        if now < free:
            stop = min(free, end)
            x, now = moved(cell, x, stop - now, cell.reset is not None), stop
            if now == free:
                log.append(("release", len(spikes)))
        else:
            wait, there = crossing(cell, x, end - now)
            if mp.isfinite(wait):
                if len(spikes) == most:
                    return Truth(spikes, slopes, None, log, True)
                forced = wait == 0 and now == free
                log.append(("forced" if forced else "spike", len(spikes)))
                now, x = now + wait, there
                spikes.append(now)
                slopes.append(None if forced else cell.excess(cell.change(x, False, cell.rates, True), False))
                x, free = spiked(cell, x), now + mp.mpf(cell.refractory)
                continue
            if mp.isinf(end):
                break
            x, now = moved(cell, x, end - now), end
        while queue and arrivals[queue[0]][0] == now:
            n = queue.pop(0)
            log.append(("arrival", n))
            x = list(x)
            x[1 + arrivals[n][1]] += mp.mpf(arrivals[n][2])
        if now == until and not (now == free and cell.excess(x) >= 0):
            return Truth(spikes, slopes, x, log, False)
    return Truth(spikes, slopes, None, log, False)


def again(cell, arrivals, truth, *, start=None, until=mp.inf, state=None):
    """Spikes and the state at the end of a neuron that differs a little, with the same events in the same order."""
    x, left = [mp.mpf(0)] * (1 + len(cell.kinds)), mp.mpf(0)
    begin = [arrivals[n][0] for what, n in truth.log if what == "arrival"]
    now = mp.mpf(start) if start is not None else min(begin, default=mp.mpf(0))
    if state is not None:
        x, left = list(map(mp.mpf, state[0])), mp.mpf(state[1])
        if left > 0 and cell.reset is not None:
            x[0] = mp.mpf(cell.reset)
    held, free, spikes = left > 0, now + left, []
    for what, n in truth.log:
        time = arrivals[n][0] if what == "arrival" else truth.spikes[n] if what == "spike" else free
        x, now = moved(cell, x, time - now, held and cell.reset is not None), time
        if what == "release":
            held = False
        elif what == "arrival":
            x[1 + arrivals[n][1]] += mp.mpf(arrivals[n][2])
        else:
            for _ in range(30 if what == "spike" else 0):
                by = -cell.excess(x) / cell.excess(cell.change(x, False, cell.rates, True), False)
                x, now = moved(cell, x, by), now + by
                if abs(by) < mp.mpf(10) ** (5 - mp.mp.dps):
                    break
            spikes.append(now)
            x, free, held = spiked(cell, x), now + mp.mpf(cell.refractory), cell.refractory > 0
    end = None if mp.isinf(until) else moved(cell, x, mp.mpf(until) - now, held and cell.reset is not None)
    return spikes, end


def summit(cell, x):
    """The highest excess that follows without another event."""
    best, step = cell.excess(x), mp.mpf(1) / (8 * max(cell.rates))
    while ceiling(cell, x) > best:
        terms = series(cell, x, step, False)
        p = [cell.excess(term, n == 0) for n, term in enumerate(terms)]
        slope = [j * c for j, c in enumerate(p)][1:]
        begins = value(slope, mp.mpf(0))
        if begins > 0 > value(slope, mp.mpf(1)):
            s = first_zero([-c for c in slope])
            if s is not None:
                best = max(best, value(p, s))
        x = [mp.fsum(column) for column in zip(*terms, strict=True)]
        best = max(best, cell.excess(x))
        if ceiling(cell, x) - best < mp.mpf(10) ** -12 and value(slope, mp.mpf(1)) < 0:
            break
    return best
