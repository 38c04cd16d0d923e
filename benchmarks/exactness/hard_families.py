"""Hard problems, by construction: each function draws one layer that one sample reaches.

What they need to know of a membrane, its maxima and crossings, comes from the solver.
"""

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
from lines import Array, Layer
from random_families import Random, drawn_weights, highest
from solver import Membrane, Neuron, train

NEURONS = 4
RATIOS = (0.5, 1.0, 1.37, 2.0, 10.0)
TRIES = 200


def membrane(ratio: float, times: Array, weights: Array) -> Membrane:
    inputs = sorted((mp.mpf(t), mp.mpf(w)) for t, w in zip(times.tolist(), weights.tolist(), strict=True))
    return Membrane(Neuron(ratio), inputs, inputs[0][0], mp.mpf(0), mp.mpf(0))


def of_neurons(draw: Callable[[], Array | None], count: int = NEURONS) -> Array:
    """As many rows as there are neurons, tried until each exists."""
    rows: list[Array] = []
    for _ in range(TRIES):
        row = draw()
        if row is not None:
            rows.append(row)
        if len(rows) == count:
            return np.array(rows)
    raise ArithmeticError("no such problem found")


def excess(random: Random, least: int, most: int) -> float:
    """Between 10**-most and 10**-least."""
    return float(10.0 ** -random.uniform(least, most))


def with_peak(random: Random, ratio: float, times: Array, peak: float) -> tuple[Array, float] | None:
    """Weights whose membrane has its largest value, ``peak``, after these inputs, and when; or None."""
    weights = random.normal(1.2, 1.0, times.size)
    found = membrane(ratio, times, weights)
    ends = found.intervals()
    if not ends or ends[-1][3] != len(found.sums) - 1 or mp.isinf(ends[-1][0]):
        return None
    top, value, *_ = ends[-1]
    if value < 0.05 or top - times.max() < 0.05 or any(x[1] > 0.99 * value for x in ends[:-1]):
        return None
    return weights * (peak / float(value)), float(top)


def layer(name: str, family: str, ratio: float, times: Array, weights: Array, **more: Any) -> Layer:
    return Layer(name, "hard", family, "first", ratio, times[None], weights, **more)


def peaks(random: Random, name: str) -> Layer:
    """The maximum after the last input is the threshold, but for a relative 1e-3 to 1e-12, above and below."""
    ratio, times = float(random.choice(RATIOS)), np.sort(random.uniform(0, 2, 5))

    def draw() -> Array | None:
        found = with_peak(random, ratio, times, 1 + float(random.choice([-1, 1])) * excess(random, 3, 12))
        return None if found is None else found[0]

    return layer(name, "peaks", ratio, times, of_neurons(draw))


def dips(random: Random, name: str) -> Layer:
    """After such a maximum an input inhibits, and a last one excites: the spike is at the maximum, or much later."""
    ratio, times = float(random.choice(RATIOS)), np.sort(random.uniform(0, 2, 4))
    later = times.max() + random.uniform([0.5, 1.5], [1.5, 3.0])

    def draw() -> Array | None:
        found = with_peak(random, ratio, times, 1 + float(random.choice([-1, 1])) * excess(random, 3, 12))
        if found is None or not found[1] < later[0]:
            return None
        last = random.uniform([-2.0, 2.0], [-0.2, 4.0]) / highest(ratio)
        return np.concatenate([found[0], last])

    return layer(name, "dips", ratio, np.concatenate([times, later]), of_neurons(draw))


def _crossing(random: Random) -> tuple[float, Array, Array, float, float]:
    """Ratio, times and weights, a spike of theirs that is not close to a tangent, and its slope."""
    ratio, times = float(random.choice(RATIOS)), np.sort(random.uniform(0, 2, 4))
    for _ in range(TRIES):
        weights = drawn_weights(random, 1, times.size, ratio)[0]
        found = membrane(ratio, times, weights)
        at = found.crossing(mp.mpf(1))
        if at is not None and (slope := float(found.at(*at, order=1))) > 0.1:
            return ratio, times, weights, float(at[0]), slope
    raise ArithmeticError("no such problem found")


def brief(random: Random, name: str) -> Layer:
    """An input ends the rise 1e-3 to 1e-9 after the membrane has reached the threshold, or before it would."""
    ratio, times, weights, at, slope = _crossing(random)
    gap = float(random.choice([-1, 1])) * excess(random, 3, 9)
    row = np.append(weights, -slope * random.uniform(1.5, 6.0))
    return layer(name, "brief", ratio, np.append(times, at + gap), row[None])


def close(random: Random, name: str) -> Layer:
    """The spike is between two inputs that are 1e-9 apart."""
    ratio, times, weights, at, slope = _crossing(random)
    row = np.append(weights, slope * random.uniform([-0.5, -3.0], [0.5, 3.0]))
    return layer(name, "close", ratio, np.append(times, [at - 5e-10, at + 5e-10]), row[None])


def ties(random: Random, name: str) -> Layer:
    """Six inputs at two or three times."""
    ratio = float(random.choice(RATIOS))
    times = random.choice(random.uniform(0, 2, int(random.choice([2, 3]))), 6)
    return layer(name, "ties", ratio, times, drawn_weights(random, NEURONS, 6, ratio))


def late(random: Random, name: str) -> Layer:
    """Spikes later than 20 tau_syn: long after all inputs of a neuron without leak, or of inputs over 40 tau_syn."""
    if random.random() < 0.5:
        times = np.sort(random.uniform(0, 2, 5))

        def approaches() -> Array | None:
            weights, decayed = random.normal(0.3, 0.4, 5), np.exp(times - random.uniform(20, 24))
            weights[-1] = (1 - (weights * (1 - decayed))[:-1].sum()) / (1 - decayed[-1])
            at = membrane(math.inf, times, weights).crossing(mp.mpf(1))
            return weights if at is not None and at[0] > 20 else None

        return layer(name, "late", math.inf, times, of_neurons(approaches))
    ratio = float(random.choice([2.0, 10.0, 100.0]))
    times = np.sort(random.uniform(0, 40, 12))

    def waits() -> Array | None:
        weights = drawn_weights(random, 1, 12, ratio)[0] * np.where(times < 20, 0.4, 2.0)
        at = membrane(ratio, times, weights).crossing(mp.mpf(1))
        return weights if at is not None and at[0] > 20 else None

    return layer(name, "late", ratio, times, of_neurons(waits))


def offsets(random: Random, name: str) -> Layer:
    """All inputs come 10 to 1e4 tau_syn after time 0."""
    ratio = float(random.choice(RATIOS))
    times = random.uniform(0, 3, 10) + 10.0 ** random.uniform(1, 4)
    return layer(name, "offsets", ratio, times, drawn_weights(random, NEURONS, 10, ratio))


def delays(random: Random, name: str) -> Layer:
    """Each synapse has a delay of its own."""
    ratio = float(random.choice(RATIOS))
    weights = drawn_weights(random, NEURONS, 10, ratio)
    return layer(name, "delays", ratio, random.uniform(0, 2, 10), weights, delays=random.uniform(0, 2, weights.shape))


EXTREME = (1 - 1e-9, 1 + 1e-9, 1 + 1e-6, 1 + 1e-3, 1e-3, 1e3, 1e6)


def ratios(random: Random, name: str) -> Layer:
    """Time constants that are almost equal, or far apart."""
    ratio = float(random.choice(EXTREME))
    return layer(name, "ratios", ratio, random.uniform(0, 2, 10), drawn_weights(random, NEURONS, 10, ratio))


def of_trains(name: str, family: str, ratio: float, times: Array, weights: Array, refractory: float) -> Layer:
    return Layer(name, "hard trains", family, "train", ratio, times[None], weights, refractory=refractory)


def refractory_inputs(random: Random, name: str) -> Layer:
    """Inputs arrive while the membrane is held."""
    ratio, refractory = float(random.choice([*RATIOS, math.inf])), int(random.integers(1, 11)) / 10
    times = np.sort(random.uniform(0, 4, 8))

    def draw() -> Array | None:
        weights = 2.5 * drawn_weights(random, 1, 8, ratio)[0]
        try:
            found = train(Neuron(ratio, refractory=refractory), times.tolist(), weights.tolist(), most=30)
        except OverflowError:
            return None
        held = [t for t in times if any(s < t < s + refractory for s in map(float, found.spikes))]
        return weights if len(held) > 1 else None

    return of_trains(name, "refractory inputs", ratio, times, of_neurons(draw), refractory)


def last_spikes(random: Random, name: str) -> Layer:
    """A relative 1e-3 to 1e-10 on all weights makes a last spike come or go."""
    ratio, refractory = float(random.choice(RATIOS)), float(random.choice([0.0, 0.2]))
    times, neuron = np.sort(random.uniform(0, 3, 6)), Neuron(ratio, refractory=refractory)

    def spikes(weights: Array) -> int:
        return len(train(neuron, times.tolist(), weights.tolist(), most=30).spikes)

    def draw() -> Array | None:
        weights = 2 * np.abs(drawn_weights(random, 1, 6, ratio)[0])
        try:
            low, high = 1.0, 1.3
            few = spikes(weights)
            if not 0 < few < spikes(high * weights):
                return None
            while high - low > 1e-13:
                middle = (low + high) / 2
                low, high = (middle, high) if spikes(middle * weights) == few else (low, middle)
        except OverflowError:
            return None
        return weights * high * (1 + float(random.choice([-1, 1])) * excess(random, 3, 10))

    return of_trains(name, "last spikes", ratio, times, of_neurons(draw), refractory)


def other_trains(random: Random, name: str) -> Layer:
    """Trains of neurons whose constants are extreme, or that begin 10 to 1e4 tau_syn after time 0."""
    moved = random.random() < 0.5
    ratio = float(random.choice(RATIOS if moved else EXTREME))
    times = random.uniform(0, 4, 8) + (10.0 ** random.uniform(1, 4) if moved else 0.0)
    weights = 2.5 * drawn_weights(random, NEURONS, 8, ratio)
    return of_trains(name, "offsets and ratios", ratio, times, weights, float(random.choice([0.0, 0.3])))
