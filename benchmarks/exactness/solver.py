"""First spikes and trains of LIF neurons to 50 digits, with derivatives, by mpmath: the answers of the set.

Shares no code with firstspike, nor with its tests. Between inputs the membrane is a sum of two exponentials, whose
coefficients are sums over the inputs so far; it has at most one maximum there, which is known in closed form. So an
interval has a crossing if, and only if, the membrane reaches the threshold at its end or at that maximum. The crossing
is bracketed, and Newton's method refines it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mpmath as mp

DIGITS = 50
GUARD = 25
"""Further digits of the computation, beyond those that its range of exponentials takes."""
ROUNDING = 16 * mp.mpf(2) ** -52
"""By how much the threshold is moved to find out how far a spike then moves, relative to what is added up."""
FARTHEST = mp.mpf("1e-3")
"""A spike that moves farther by that, in tau_syn, or comes or goes, is beyond double precision."""

Number = Any  # an mpf, which has no type


@dataclass
class Neuron:
    """``tau_mem dV/dt = -V + tau_mem / tau_syn I``, where an input adds its weight to I, which decays with tau_syn."""

    tau_mem: float
    tau_syn: float = 1.0
    threshold: float = 1.0
    reset: float = 0.0
    refractory: float = 0.0

    @property
    def rates(self) -> tuple[Number, Number]:
        return mp.mpf(1) / mp.mpf(self.tau_mem), 1 / mp.mpf(self.tau_syn)


@dataclass
class Spike:
    """A spike and its derivatives with respect to what came before it."""

    time: Number
    slope: Number
    by_weight: list[Number]
    by_time: list[Number]
    by_start: Number = field(default_factory=lambda: mp.mpf(0))
    """By the time at which the membrane was let go, in a train."""


@dataclass
class Answer:
    """What a problem has as an answer, and how much of it doubles can tell."""

    spikes: list[Number]
    by_weight: list[Number]
    by_time: list[Number]
    slope: Number | None
    peak: Number | None
    """Of a silent neuron, the largest value of its membrane, or the limit that it approaches from below."""
    moves: float
    """How far a spike moves if the threshold does by some units of rounding; inf if it comes or goes."""
    slope_moves: float
    """How much the slope, and with it the gradient, changes by that, relative to itself."""

    @property
    def beyond(self) -> bool:
        """Whether doubles cannot tell if there is such a spike."""
        return not self.moves <= FARTHEST


class Membrane:
    """V from a time on, given V and I there, and further inputs: ``(time, weight)``, sorted."""

    def __init__(
        self, neuron: Neuron, inputs: Sequence[tuple[Number, Number]], start: Number, v: Number, i: Number
    ) -> None:
        self.mem, self.syn = neuron.rates
        self.inputs, self.start, self.v, self.i = inputs, start, v, i
        self.equal = neuron.tau_mem == neuron.tau_syn
        self.scale = mp.mpf(1) if self.equal else self.syn / (self.syn - self.mem)
        # V = scale * (slow e^(-u mem) - fast e^(-u syn)), or e^(-u syn) (slow + syn fast u) of equal constants;
        # first of V itself, then with the magnitudes of all that it adds up
        rest = v if self.equal else i + v / self.scale
        self.sums = [(start, (rest, i), (abs(rest), abs(i)))]
        for t, w in inputs:
            u = t - start
            y = mp.exp(u * self.syn)
            x = -self.syn * u * y if self.equal else mp.exp(u * self.mem)
            begin, (slow, fast), (most, size) = self.sums[-1]
            new = (t, (slow + w * x, fast + w * y), (most + abs(w) * x, size + abs(w) * y))
            if t == begin:
                self.sums[-1] = new
            else:
                self.sums.append(new)
        self.ends: list[tuple[Number, Number, Number, int]] | None = None

    def at(self, t: Number, k: int, order: int = 0, which: int = 1) -> Number:
        """V, or its derivative of an order, in the interval k; with ``which=2`` the sum of the magnitudes in it."""
        u = t - self.start
        slow, fast = self.sums[k][which]
        y = mp.exp(-u * self.syn)
        if self.equal:
            value, step = slow + self.syn * fast * u, self.syn * fast
            for _ in range(order):
                value, step = step - self.syn * value, -self.syn * step
            return y * value
        x = mp.exp(-u * self.mem) if self.mem else mp.mpf(1)
        return self.scale * (slow * x * (-self.mem) ** order - fast * y * (-self.syn) ** order)

    def highest(self, k: int) -> tuple[Number, Number] | None:
        """Where the membrane, which rises at the start of the interval k, is highest in it, and how high; else None.

        The time is inf where V only approaches a limit.
        """
        begin, (slow, fast), _ = self.sums[k]
        if self.at(begin, k, 1) <= 0:  # it then never reaches a threshold above 0 in this interval
            return None
        end = self.sums[k + 1][0] if k + 1 < len(self.sums) else mp.inf
        if self.equal:
            top = self.start + 1 / self.syn - slow / (self.syn * fast) if fast > 0 else mp.inf
        elif self.mem == 0:
            top = mp.inf
        else:
            ratio = (self.syn * fast) / (self.mem * slow) if slow else mp.mpf(-1)
            top = self.start + mp.log(ratio) / (self.syn - self.mem) if ratio > 0 else mp.inf
        end = min(end, top if top > begin else mp.inf)
        if mp.isinf(end):
            return end, slow if self.mem == 0 else mp.mpf(0)  # from below
        return end, self.at(end, k)

    def intervals(self) -> list[tuple[Number, Number, Number, int]]:
        """Of each interval in which V rises: where it is highest, how high, what it adds up, and its number."""
        if self.ends is None:
            self.ends = []
            for k in range(len(self.sums)):
                if found := self.highest(k):
                    size = self.at(found[0], k, which=2) if found[0] < mp.inf else self.sums[k][2][0]
                    self.ends.append((*found, size, k))
        return self.ends

    def crossing(self, threshold: Number, moved: int = 0) -> tuple[Number, int] | None:
        """The first time with V >= threshold, raised by ``moved`` rounding errors, and the interval."""
        for end, value, size, k in self.intervals():
            level = threshold + moved * ROUNDING * max(threshold, size)
            if value > level if mp.isinf(end) else value >= level:
                return self.climb(k, end, level), k
        return None

    def climb(self, k: int, end: Number, level: Number) -> Number:
        """Where V reaches the level in the interval k; it rises up to ``end``, where it is above."""
        low = now = self.sums[k][0]
        high = end
        if mp.isinf(high):  # V is concave there, and Newton's method comes from below
            high = now + 1 / self.syn
            while self.at(high, k) < level:
                low, high = high, high + (high - now)
        enough = mp.mpf(10) ** (-DIGITS - 10) * (1 + abs(high - self.start)) / self.syn
        now = low
        for _ in range(400):
            missing = level - self.at(now, k)
            if missing > 0:
                low = max(low, now)
            else:
                high = min(high, now)
            slope = self.at(now, k, 1)
            step = missing / slope if slope > 0 else mp.inf
            if abs(step) < enough:
                return now + step
            guess = now + step
            now = guess if low < guess < high else (low + high) / 2
            if high - low < enough:
                return now
        raise ArithmeticError("no convergence")

    def peak(self) -> Number:
        return max((value for _, value, *_ in self.intervals()), default=mp.mpf(0))


def response(s: Number, mem: Number, syn: Number) -> tuple[Number, Number]:
    """V a time s after an input of weight 1, and its derivative."""
    y = mp.exp(-s * syn)
    if mem == syn:
        return syn * s * y, syn * y * (1 - syn * s)
    x, scale = mp.exp(-s * mem), syn / (syn - mem)
    return scale * (x - y), scale * (syn * y - mem * x)


def derivatives(
    neuron: Neuron, times: Sequence[Number], weights: Sequence[Number], membrane: Membrane, found: tuple[Number, int]
) -> Spike:
    """A spike with its derivatives: by the inputs, and by the time at which the membrane began (V and I there)."""
    t, k = found
    mem, syn = neuron.rates
    start, first = membrane.start, mp.isinf(membrane.sums[0][0])
    slope = membrane.at(t, k, 1)
    by_weight, by_time = [], []
    held, change = response(t - start, mem, syn) if not first else (mp.mpf(0), mp.mpf(0))
    for x, w in zip(times, weights, strict=True):
        if not x < t:
            by_weight.append(mp.mpf(0))
            by_time.append(mp.mpf(0))
        elif x >= start:
            value, rate = response(t - x, mem, syn)
            by_weight.append(-value / slope)
            by_time.append(w * rate / slope)
        else:  # arrived while the membrane was held
            left = mp.exp((x - start) * syn)
            by_weight.append(-left * held / slope)
            by_time.append(-syn * w * left * held / slope)
    decayed = membrane.v * mem * mp.exp((start - t) * mem)
    by_start = -(decayed - membrane.i * (syn * held + change)) / slope
    return Spike(t, slope, by_weight, by_time, by_start)


def precision(neuron: Neuron, times: Sequence[float]) -> int:
    """Digits of the computation: exponentials of the whole duration are added up, and nearly equal constants cancel."""
    known = [x for x in times if x < float("inf")]
    span = (max(known) - min(known)) / neuron.tau_syn if known else 0.0
    span = max(span, span * neuron.tau_syn / neuron.tau_mem)
    apart = abs(neuron.tau_mem / neuron.tau_syn - 1)
    close = int(-mp.log10(apart)) + 1 if 0 < apart < 1 else 0
    return DIGITS + GUARD + int(0.44 * span) + 2 * close


def _inputs(times: Sequence[float], weights: Sequence[float]) -> tuple[list[Number], list[Number], list[Any]]:
    exact = [mp.mpf(x) for x in times]
    scaled = [mp.mpf(w) for w in weights]
    return exact, scaled, sorted((x, w) for x, w in zip(exact, scaled, strict=True) if x < mp.inf)


def first_spike(
    neuron: Neuron, times: Sequence[float], weights: Sequence[float], delays: Sequence[float] = ()
) -> Answer:
    """The first spike of a neuron; inputs at inf do not arrive, and delays are added to the times exactly."""
    with mp.workdps(precision(neuron, times)):
        exact, scaled, arriving = _inputs(times, weights)
        if delays:
            exact = [x + mp.mpf(d) for x, d in zip(exact, delays, strict=True)]
            arriving = sorted((x, w) for x, w in zip(exact, scaled, strict=True) if x < mp.inf)
        nothing = [mp.mpf(0)] * len(exact)
        if not arriving:
            return Answer([], nothing, nothing, None, mp.mpf(0), 0.0, 0.0)
        membrane = Membrane(neuron, arriving, arriving[0][0], mp.mpf(0), mp.mpf(0))
        threshold = mp.mpf(neuron.threshold)
        found = membrane.crossing(threshold)
        near = [membrane.crossing(threshold, sign) for sign in (-1, 1)]
        if found is None:
            moves = float("inf") if any(near) else 0.0
            return Answer([], nothing, nothing, None, membrane.peak(), moves, 0.0)
        spike = derivatives(neuron, exact, scaled, membrane, found)
        moves, bends = moved(membrane, spike, near, mp.mpf(neuron.tau_syn))
        return Answer([spike.time], spike.by_weight, spike.by_time, spike.slope, None, moves, bends)


def moved(membrane: Membrane, spike: Spike, near: Sequence[Any], unit: Number) -> tuple[float, float]:
    """How far a spike moves with the threshold, in ``unit``, and its slope relative to itself."""
    if None in near:
        return float("inf"), float("inf")
    moves = max(abs(t - spike.time) for t, _ in near) / unit
    bends = max(abs(membrane.at(t, k, 1) / spike.slope - 1) for t, k in near)
    return float(moves), float(bends)


def train(
    neuron: Neuron, times: Sequence[float], weights: Sequence[float], upstream: Sequence[float] = (), most: int = 60
) -> Answer:
    """All spikes of a neuron, and the gradient of their sum with the factors ``upstream`` (all 1 where these end).

    After a spike V is held at the reset for the refractory time, while I decays and inputs arrive.

    Raises:
        OverflowError: more than ``most`` spikes.
    """
    with mp.workdps(precision(neuron, times)):
        exact, scaled, arriving = _inputs(times, weights)
        spikes, slopes, shift, bends = _run(neuron, exact, scaled, arriving, most)
        gradient = [mp.mpf(0)] * len(exact), [mp.mpf(0)] * len(exact)
        owed = mp.mpf(0)
        for k in reversed(range(len(spikes))):
            owed += mp.mpf(upstream[k]) if k < len(upstream) else 1
            for total, part in zip(gradient, (spikes[k].by_weight, spikes[k].by_time), strict=True):
                for j, x in enumerate(part):
                    total[j] += owed * x
            owed *= spikes[k].by_start
        return Answer([x.time for x in spikes], *gradient, min(slopes, default=None), None, shift, bends)


def _run(
    neuron: Neuron, times: Sequence[Number], weights: Sequence[Number], arriving: Sequence[Any], most: int
) -> tuple[list[Spike], list[Number], float, float]:
    """The spikes one after the other, and how far any of them moves with the threshold.

    That adds up from spike to spike: a spike that is later makes the next ones later, by its derivative.
    """
    if not arriving:
        return [], [], 0.0, 0.0
    membrane = Membrane(neuron, arriving, arriving[0][0], mp.mpf(0), mp.mpf(0))
    threshold, unit, syn = mp.mpf(neuron.threshold), mp.mpf(neuron.tau_syn), neuron.rates[1]
    spikes: list[Spike] = []
    shift = moves = bends = 0.0
    while True:
        near = [membrane.crossing(threshold, sign) for sign in (-1, 1)]
        found = membrane.crossing(threshold)
        if found is None:
            return spikes, [x.slope for x in spikes], float("inf") if any(near) else moves, bends
        spike = derivatives(neuron, times, weights, membrane, found)
        now, bent = moved(membrane, spike, near, unit)
        shift = now + abs(float(spike.by_start)) * shift if spikes else now
        moves, bends = max(moves, shift), max(bends, bent)
        spikes.append(spike)
        if len(spikes) > most:
            raise OverflowError(f"more than {most} spikes")
        start = spike.time + mp.mpf(neuron.refractory)
        current = mp.fsum(w * mp.exp((x - start) * syn) for x, w in arriving if x <= start)
        later = [(x, w) for x, w in arriving if x > start]
        membrane = Membrane(neuron, later, start, mp.mpf(neuron.reset), current)
