"""Neurons beyond LIF with one receptor: LIF neurons with two, and quadratic ones. Layers, and answers to 50 digits.

Two receptors: between inputs V is a sum of three exponentials, so V' times one of them has at most one extremum: that
divides time into pieces in which V' has at most one zero, and these into pieces in which V is monotonic.

QIF: with v = n / d the equations are linear, ``tau_mem n' = I d - n``, ``tau_mem d' = -n``; their Taylor series are
summed in steps, a spike is a zero of d, and derivatives are central differences with 90 digits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import mpmath as mp
from lines import Layer
from random_families import Random, drawn_weights
from solver import DIGITS, GUARD, ROUNDING, Answer, Number

STEP, SMALL = 0.25, "1e-26"
TERMS = 62
"""Of a series: enough for 90 digits at this step."""


def root(f: Callable[[Number], Number], low: Number, high: Number) -> Number:
    """The zero between two points where the signs of f differ."""
    rises = f(high) > 0
    for _ in range(int(3.4 * (DIGITS + GUARD))):
        middle = (low + high) / 2
        low, high = (low, middle) if (f(middle) > 0) == rises else (middle, high)
    return (low + high) / 2


def zeros(f: Callable[[Number], Number], points: Sequence[Number]) -> list[Number]:
    """Zeros of a function that is monotonic from point to point."""
    values = [f(x) for x in points]
    pairs = zip(pairwise(points), pairwise(values), strict=True)
    return [root(f, *ends) for ends, (a, b) in pairs if (a > 0) != (b > 0)]


def response(s: Number, mem: Number, syn: Number) -> tuple[Number, Number]:
    x, y, scale = mp.exp(-s * mem), mp.exp(-s * syn), syn / (syn - mem)
    return scale * (x - y), scale * (syn * y - mem * x)


def two_receptors(tau_mem: float, taus: Sequence[float], times: Any, weights: Any, receptor: Sequence[int]) -> Answer:
    """The first spike of a LIF neuron with two synaptic time constants, neither of which is that of the membrane."""
    with mp.workdps(DIGITS + 2 * GUARD):
        mem, syns = 1 / mp.mpf(tau_mem), [1 / mp.mpf(x) for x in taus]
        inputs = [(mp.mpf(t), mp.mpf(w), syns[r]) for t, w, r in zip(times, weights, receptor, strict=True)]

        def v(t: Number, order: int = 0, power: int = 1, known: Any = inputs) -> Number:
            return mp.fsum(abs(w) ** (1 - power) * w**power * response(t - x, mem, syn)[order] for x, w, syn in known)

        arrivals = sorted({x for x, _, _ in inputs})
        peak, near = mp.mpf(0), False
        for k, begin in enumerate(arrivals):
            end = arrivals[k + 1] if k + 1 < len(arrivals) else begin + 60 * max(tau_mem, *taus)
            known = [x for x in inputs if x[0] <= begin]
            # V' e^(mem t) = constant + sum of c e^(-(syn - mem) t), and the zero of its derivative
            a, b = (
                mp.fsum(w * syn**2 * mp.exp(syn * (x - begin)) for x, w, other in known if other == syn) for syn in syns
            )
            at = mp.log(-b / a) / (syns[1] - syns[0]) if a and -b / a > 0 else mp.mpf(-1)
            middle = [begin + at] if 0 < at < end - begin else []
            slope = partial(v, order=1, known=known)
            points = [begin, *zeros(slope, [begin, *middle, end]), end]
            for low, high in pairwise(points):
                value = v(high, known=known)
                size = ROUNDING * max(mp.mpf(1), mp.fsum(abs(w) * response(high - x, mem, s)[0] for x, w, s in known))
                near = near or abs(value - 1) < size
                if value < 1:
                    peak = max(peak, value)
                    continue
                t = root(lambda t, known=known: v(t, known=known) - 1, low, high)  # type: ignore[misc]
                steep = slope(t)
                parts = [(response(t - x, mem, s), w) if x < t else ((mp.mpf(0), mp.mpf(0)), w) for x, w, s in inputs]
                by_weight, by_time = [-p[0] / steep for p, _ in parts], [w * p[1] / steep for p, w in parts]
                moves = float("inf") if near else float(size / steep)
                return Answer([t], by_weight, by_time, steep, None, moves, 0.0)
        nothing = [mp.mpf(0)] * len(inputs)
        return Answer([], nothing, nothing, None, peak, float("inf") if near else 0.0, 0.0)


def qif_spike(tau_mem: Number, tau_syn: Number, until: Number, times: Any, weights: Any) -> Number | None:
    """When d reaches 0, if it does before ``until``."""
    now, n, d, i = mp.mpf(0), mp.mpf(0), mp.mpf(1), mp.mpf(0)
    events = sorted(zip(times, weights, strict=True))
    for arrival, weight in [*events, (until, mp.mpf(0))]:
        while now < arrival:
            h = min(mp.mpf(STEP), arrival - now)
            ns, ds, currents = [n], [d], [i]
            for k in range(TERMS):
                drive = mp.fdot(currents, reversed(ds))
                ns.append((drive - ns[k]) / (tau_mem * (k + 1)))
                ds.append(-ns[k] / (tau_mem * (k + 1)))
                currents.append(-currents[k] / (tau_syn * (k + 1)))
            n, d, i = (mp.polyval(x[::-1], h) for x in (ns, ds, currents))
            if d <= 0:
                return now + root(lambda s, ds=ds: mp.polyval(ds[::-1], s), mp.mpf(0), h)  # type: ignore[misc]
            now += h
        i += weight
    return None


def quadratic(tau_mem: float, tau_syn: float, until: float, times: Any, weights: Any) -> Answer:
    """The first spike at infinity of a quadratic neuron that rests at 0."""
    with mp.workdps(90):
        given = [mp.mpf(x) for x in times], [mp.mpf(x) for x in weights]
        spike = partial(qif_spike, mp.mpf(tau_mem), mp.mpf(tau_syn), mp.mpf(until))
        t, h = spike(*given), mp.mpf(SMALL)
        by: list[list[Number]] = [[mp.mpf(0)] * len(times) for _ in range(2)]
        if t is None:
            return Answer([], *by, None, None, 0.0, 0.0)
        for which in (0, 1):
            for k, x in enumerate(given[0]):
                if x < t:
                    ends = []
                    for sign in (-1, 1):
                        changed = [list(part) for part in given]
                        changed[which][k] += sign * h
                        ends.append(spike(*changed))
                    by[1 - which][k] = (ends[1] - ends[0]) / (2 * h)
        moves = ROUNDING * mp.fsum(abs(w * x) for w, x in zip(given[1], by[0], strict=True))
        moves = mp.inf if abs(t - until) < mp.mpf("1e-6") else moves
        return Answer([t], *by, None, None, float(moves), 0.0)


def receptors(random: Random, name: str) -> Layer:
    """Inputs reach one of two receptors, with time constants of their own."""
    tau_mem, other = float(random.choice([2.0, 5.0])), float(random.uniform(0.3, 1.7))
    weights = drawn_weights(random, 4, 8, tau_mem)
    reached = random.integers(0, 2, 8).tolist()
    return Layer(
        name, "other neurons", "two receptors", "first", tau_mem, random.uniform(0, 3, (1, 8)), weights,
        neuron="receptors", tau_syn=[1.0, other], receptor=reached,
    )  # fmt: skip


def qif(random: Random, name: str) -> Layer:
    """Quadratic neurons, half of them with tau_mem = 2 tau_syn, which has a closed form."""
    tau_mem = 2.0 if random.random() < 0.5 else float(random.uniform(0.7, 3.0))
    weights = random.normal(1.0, 1.0, (2, 5)) * random.uniform(0.2, 3.0, (2, 1))
    times = random.uniform(0, 3, (1, 5))
    return Layer(name, "other neurons", "qif", "first", tau_mem, times, weights, neuron="qif", until=12.0)


def solved(layer: Layer) -> list[list[Answer]]:
    samples, rows = layer.times.tolist(), layer.weights.tolist()
    if layer.neuron == "qif":
        solve = partial(quadratic, layer.tau_mem, layer.one_tau_syn, layer.until)
    else:
        assert isinstance(layer.tau_syn, list)
        solve = partial(two_receptors, layer.tau_mem, layer.tau_syn, receptor=layer.receptor)
    return [[solve(times=times, weights=weights) for weights in rows] for times in samples]
