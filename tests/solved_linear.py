"""Spikes of linear neurons from their exact solution, in decimals: no code of the package, and no series.

Between events the state ``x = (V, components, 1)`` obeys ``dx/dt = A x``. As nothing feeds back, ``exp(A t)`` is a sum
of ``exp(-r t)`` over the rates r, with coefficients that are known, and so is the excess over the threshold,
``g(t) = sum_i a_i exp(-r_i t)``. Each ``h_k = dh_(k-1)/dt + r_k h_(k-1)``, with ``h_0 = g``, has one term less than the
one before. As ``exp(r_k t) h_(k-1)`` is monotone between zeros of ``h_k``, all zeros of g are found between those of
``h_1``, these between those of ``h_2``, and so on. A grid of times, 4 in each octave, tells where to look.
"""

import itertools
import math
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

import numpy as np

OCTAVE = 4  # times of the grid in it
LATE = 160  # slowest time constants after which nothing changes
CLOSE = Decimal(10) ** -22  # relative distance of rates that are equal
NEVER = Decimal("Infinity")


class Cell(NamedTuple):
    """A neuron. Numbers are decimals."""

    tau_mem: Decimal
    synapses: tuple
    """``(tau, rise)`` of each receptor, where the rise may be 0."""
    threshold: Decimal
    reset: Decimal | None
    refractory: Decimal
    bias: Decimal
    adaptation: tuple = ()
    """``(tau, jump)``, as of the parts of the threshold."""
    parts: tuple = ()


class Solved(NamedTuple):
    spikes: list
    more: bool
    """Whether there are more spikes than asked for."""
    end: list | None
    """Membrane, components and the rest of the refractory time at the end, if that is finite and there are no more."""


def digits_for(rates):
    """As many as the differences of rates cost."""
    gaps = [abs(a - b) / max(a, b) for k, a in enumerate(rates) for b in rates[:k] if a != b and max(a, b) > 0]
    closest = min(gaps, default=Decimal(1))
    return 45 + 2 * max(0, -closest.adjusted() - 1)


class Flow:
    """The solution of a neuron without events."""

    def __init__(self, cell):
        self.cell = cell
        with localcontext(Context(prec=90)):
            self._build(cell)
        self.context = Context(prec=digits_for(self.rates))
        with localcontext(self.context):
            self._tabulate()

    def _build(self, cell):
        leak = 0 / Decimal(1) if cell.tau_mem.is_infinite() else 1 / cell.tau_mem
        rates, fed, self.jumps, self.reads, self.receptors = [leak], [], [], [Decimal(1)], []
        """Rates of the membrane, the components and the constant; (from, to, by); jumps at a spike; g of the state."""
        for tau, rise in cell.synapses:
            self.receptors.append(len(rates))
            if rise:
                fed.append((len(rates), len(rates) + 1, 1 / rise))
                rates.append(1 / rise)
            fed.append((len(rates), 0, 1 / tau))
            rates.append(1 / tau)
        self.jumps += [Decimal(0)] * (len(rates) - 1)
        for tau, jump, *rise in cell.adaptation:
            if rise and rise[0]:
                fed.append((len(rates), len(rates) + 1, 1 / rise[0]))
                rates.append(1 / rise[0])
                self.jumps.append(jump)
                jump = Decimal(0)
            fed.append((len(rates), 0, -1 / tau))
            rates.append(1 / tau)
            self.jumps.append(jump)
        for tau, jump in cell.parts:
            rates.append(1 / tau)
            self.jumps.append(jump)
        own = len(rates) - len(cell.parts)
        self.reads += [Decimal(-1) if k >= own else Decimal(0) for k in range(1, len(rates))] + [-cell.threshold]
        if leak:
            fed.append((len(rates), 0, cell.bias * leak))
        rates.append(Decimal(0))
        for k in range(len(rates)):  # equal ones are moved apart
            while any(abs(rates[k] - r) < CLOSE * rates[k] / 2 for r in rates[:k]):
                rates[k] *= 1 + CLOSE
        self.rates, self.size = rates, len(rates)
        # exp(A t)[p, m] = sum of W exp(-r_i t) over the items (i, W)
        self.terms = {(m, m): [(m, Decimal(1))] for m in range(self.size)}
        for m, p, by in fed:
            chains = [([m, p], by)] + ([([m, p, q], by * then) for k, q, then in fed if k == p] if p else [])
            for chain, product in chains:
                parts = []
                for i in chain:
                    others = [rates[j] - rates[i] for j in chain if j != i]
                    parts.append((i, product / math.prod(others)))
                self.terms[chain[-1], m] = parts
        self.order = sorted(range(self.size), key=lambda i: -rates[i])  # fast terms vanish first

    def _tabulate(self):
        rates = [r for r in self.rates if r > 0]
        first = [(Decimal(2).ln() * k / OCTAVE).exp() / (8 * max(rates)) for k in range(OCTAVE)]
        number = OCTAVE * math.ceil(math.log2(LATE * 8 * float(max(rates) / min(rates)) + 1))
        self.times = [Decimal(0)] + [first[k % OCTAVE] * (1 << k // OCTAVE) for k in range(number)]
        self.powers = [[Decimal(1)] * self.size]
        for k in range(number):
            if k < OCTAVE:
                self.powers.append([(-r * first[k]).exp() for r in self.rates])
            else:
                self.powers.append([x * x for x in self.powers[k - OCTAVE + 1]])
        # g and the other h_k at these times, as rows to be multiplied by a state
        left, reads = [], list(self.reads)
        self.steps = self.order[: self.size - 1]
        weights = [[Decimal(0)] * self.size for _ in range(self.size)]  # g by terms and states
        for (p, m), items in self.terms.items():
            for i, w in items:
                weights[i][m] += reads[p] * w
        self.weights = weights
        generator = [[Decimal(0)] * self.size for _ in range(self.size)]
        for (p, m), items in self.terms.items():
            for i, w in items:
                generator[p][m] -= self.rates[i] * w
        for i in [None, *self.steps]:
            if i is not None:
                reads = [
                    sum(reads[p] * generator[p][m] for p in range(self.size)) + self.rates[i] * reads[m]
                    for m in range(self.size)
                ]
            left.append([float(x) for x in reads])
        flows = np.zeros((len(self.times), self.size, self.size))
        for (p, m), items in self.terms.items():
            flows[:, p, m] = [float(sum(w * power[i] for i, w in items)) for power in self.powers]
        self.table = np.einsum("kp,jpm->jkm", np.array(left), flows)
        self.floats = np.array([float(t) for t in self.times])
        self.exponentials = np.array([[float(x) for x in power] for power in self.powers])
        smallest = min((abs(a - b) for k, a in enumerate(self.rates) for b in self.rates[:k] if a != b), default=1)
        self.apart = float(smallest / max(rates)) > 1e-6 or len({*self.rates}) < 3

    def exponentials_at(self, time):
        return [(-r * time).exp() if r else Decimal(1) for r in self.rates]

    def moved(self, x, time, held=False):
        """The state after a time, in which the membrane may be held."""
        if not time:
            return x
        powers, found = self.exponentials_at(time), [Decimal(0)] * self.size
        for (p, m), items in self.terms.items():
            if x[m] and (p or not held):
                found[p] += x[m] * sum(w * powers[i] for i, w in items)
        if held:
            found[0] = x[0]
        return found

    def excess(self, x):
        return sum(map(Decimal.__mul__, self.reads, x))

    def summits(self, x, length):
        """The membrane where its slope is 0, and at the end if that is late."""
        parts = [sum(map(Decimal.__mul__, row, x)) for row in self.weights]
        slopes, found = [-a * r for a, r in zip(parts, self.rates, strict=True)], []
        for k, low in enumerate(self.times[:-1]):
            if low >= length:
                break
            high = min(self.times[k + 1], length)
            known = {low: self.powers[k]} | ({high: self.powers[k + 1]} if high == self.times[k + 1] else {})
            cell = _Points(self, slopes, known, low, high)
            for time in cell.zeros(self.size - 1, 0):
                found.append(sum(map(Decimal.__mul__, parts, cell.powers(time))) + self.cell.threshold)
        if length > self.times[-1]:
            found.append(sum(map(Decimal.__mul__, parts, self.powers[-1])) + self.cell.threshold)
        return found

    def crossing(self, x, length):
        """When g, which is below 0, first is 0 or more, within the length; None if it is not."""
        parts = [sum(map(Decimal.__mul__, row, x)) for row in self.weights]
        end = len(self.times) - 1
        if length < self.times[-1]:
            end = int(np.searchsorted(self.floats, float(length), side="left"))
            end = next(k for k in range(max(1, end - 1), len(self.times)) if self.times[k] >= length)
        state = np.array([float(v) for v in x])
        signs = self.table[: end + 1] @ state
        most = np.full(end, math.inf)
        if self.apart:
            a = np.array([float(v) for v in parts])
            terms = self.exponentials[: end + 1] * a
            most = np.maximum(terms[:-1], terms[1:]).sum(1) + 1e-9 * np.abs(terms[:-1]).sum(1)
        noise = 1e-9 * (np.abs(self.table[: end + 1, 0]) @ np.abs(state))
        for k in np.flatnonzero(most >= 0):
            low, high = self.times[k], min(self.times[k + 1], length)
            known = {low: self.powers[k]}
            if high == length < self.times[k + 1]:  # in a part of a cell all levels may change
                level = self.size - 1
            else:
                known[high] = self.powers[k + 1]
                changes = np.flatnonzero((signs[k, 1:] > 0) != (signs[k + 1, 1:] > 0))
                level = 1 + int(changes[-1]) if len(changes) else 0
                if not level and max(signs[k, 0] + noise[k], signs[k + 1, 0] + noise[k + 1]) < 0:
                    continue
            found = _Points(self, parts, known, low, high).first(level)
            if found is not None:
                return found
        return None


class _Points:
    """h_k in a cell of the grid."""

    def __init__(self, flow, parts, known, low, high):
        self.flow, self.known, self.low, self.high = flow, known, low, high
        self.parts = [parts]
        for k in flow.steps:
            self.parts.append([a * (flow.rates[k] - r) for a, r in zip(self.parts[-1], flow.rates, strict=True)])

    def powers(self, time):
        if time not in self.known:
            self.known[time] = self.flow.exponentials_at(time)
        return self.known[time]

    def value(self, level, time):
        return sum(map(Decimal.__mul__, self.parts[level], self.powers(time)))

    def slope(self, level, time):
        return -sum(a * r * e for a, r, e in zip(self.parts[level], self.flow.rates, self.known[time], strict=True))

    def zeros(self, level, least):
        """Those of ``h_least`` in the cell, if ``h_k`` of higher levels than ``level`` do not change their sign."""
        splits, found = [self.low, self.high], []
        for k in range(level, least - 1, -1):
            found = []
            for a, b in itertools.pairwise(splits):
                one, other = self.value(k, a), self.value(k, b)
                if (one > 0) != (other > 0) and one != 0 and other != 0:
                    found.append(self.root(k, a, b, one, Decimal("1e-12") * (b - a)))
            splits = sorted({self.low, *found, self.high})
        return found

    def first(self, level):
        """The first time in the cell at which g is >= 0."""
        for a, b in itertools.pairwise(sorted({self.low, *self.zeros(level, 1), self.high})):
            if self.value(0, b) >= 0:
                return self.root(0, a, b, self.value(0, a), Decimal("1e-30") * b)
        return None

    def root(self, level, a, b, left, tolerance):
        """Newton's steps, and halves where these leave the bracket."""
        up, s = left < 0, (a + b) / 2
        for _ in range(400):
            value = self.value(level, s)
            if (value < 0) == up:
                a = s
            else:
                b = s
            steep = self.slope(level, s)
            following = s - value / steep if steep else a
            if not a < following < b:
                following = (a + b) / 2
            if abs(following - s) < tolerance or b - a < tolerance:
                return following
            s = following
        raise AssertionError("no convergence")


def highest(flow, arrivals, *, start=None, until=NEVER):
    """The largest value of a membrane that does not spike, from the start on, with it: 0 or more."""
    with localcontext(flow.context):
        queue = sorted((a for a in arrivals if (start is None or a[0] >= start) and a[0] < until), reverse=True)
        now = start if start is not None else queue[-1][0] if queue else until
        x, most = [Decimal(0)] * (flow.size - 1) + [Decimal(1)], Decimal(0)
        while now < until:
            while queue and queue[-1][0] == now:
                _, receptor, weight = queue.pop()
                x[flow.receptors[receptor]] += weight
            end = queue[-1][0] if queue else until
            most = max(most, x[0], *flow.summits(x, end - now))
            if end == NEVER:
                break
            x, now = flow.moved(x, end - now), end
        return max(most, x[0])


def train(flow, arrivals, *, most, start=None, until=NEVER, state=None, rounded=None):
    """Spikes of a neuron.

    Args:
        flow: of the neuron.
        arrivals: ``(time, receptor, weight)`` of each input spike.
        most: largest number of spikes.
        start: when the state holds; None is at rest until the first input.
        until: when to stop. Spikes are after the start and not after this time, and inputs at it do not arrive.
        state: membrane, components and the rest of the refractory time.
        rounded: a function of the time of a spike that changes it before the reset.
    """
    with localcontext(flow.context):
        return _train(flow, arrivals, most, start, until, state, rounded)


def _train(flow, arrivals, most, start, until, state, rounded):
    cell, resets = flow.cell, flow.cell.reset is not None
    queue = sorted((a for a in arrivals if (start is None or a[0] >= start) and a[0] < until), reverse=True)
    x, free, spikes, releases = [Decimal(0)] * (flow.size - 1) + [Decimal(1)], -NEVER, [], False
    now = start if start is not None else queue[-1][0] if queue else NEVER
    if state is not None:
        x, free = [*state[0], Decimal(1)], now + state[1]
        if state[1] > 0 and resets:
            x[0] = cell.reset
    while now.is_finite():
        end = min(queue[-1][0] if queue else NEVER, until)
        if now < free:
            stop = min(free, end)
            x, now = flow.moved(x, stop - now, held=resets), stop
            releases = now == free
        else:
            above = flow.excess(x) >= 0
            if above and not releases:
                raise ArithmeticError("above the threshold after a reset, or at the start")
            wait = Decimal(0) if above else flow.crossing(x, end - now) if end > now else None
            releases = False
            if wait is not None:
                if len(spikes) == most:
                    return Solved(spikes, True, None)
                spike = now + wait
                spike = spike if rounded is None else min(max(rounded(spike), now), end)
                x, now = flow.moved(x, spike - now), spike
                spikes.append(now)
                x = [cell.reset if resets else x[0], *map(Decimal.__add__, x[1:-1], flow.jumps), x[-1]]
                free = now + cell.refractory
                releases = False
                continue
            if end.is_infinite():
                return Solved(spikes, False, None)
            x, now = flow.moved(x, end - now), end
        while queue and queue[-1][0] == now:
            _, receptor, weight = queue.pop()
            x[flow.receptors[receptor]] += weight
        if now == until and not (releases and flow.excess(x) >= 0):
            return Solved(spikes, False, [*x[:-1], max(free - now, Decimal(0))])
    return Solved(spikes, False, None)
