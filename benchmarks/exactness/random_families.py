"""Random problems: uniform ones, and neurons of trained networks with what enters them. Each draws one layer."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lines import Array, Layer

RATIOS = (0.1, 0.5, 1.0, 1.37, 2.0, 10.0, 100.0, math.inf)
"""tau_mem / tau_syn; the closed forms and others."""
INPUTS, OFTEN = (3, 10, 30, 100), (0.35, 0.4, 0.22, 0.03)
SAMPLES, NEURONS = 5, 8
TRAINED = Path(__file__).parent / "trained.npz"
Random = np.random.Generator


def highest(ratio: float) -> float:
    """The peak of the response to one input of weight 1."""
    if ratio == math.inf:
        return 1.0
    if ratio == 1.0:
        return math.exp(-1)
    return float(ratio ** (1 / (1 - ratio)))


def drawn_weights(random: Random, neurons: int, inputs: int, ratio: float) -> Array:
    """Of such a size that about half of the neurons spike."""
    gain = random.uniform(0.2, 3.5, (neurons, 1))
    return gain / highest(ratio) * random.normal(1.0, 1.5, (neurons, inputs)) / max(inputs, 3) ** 0.8


def uniform(random: Random, name: str) -> Layer:
    ratio, inputs = float(random.choice(RATIOS)), int(random.choice(INPUTS, p=OFTEN))
    times = random.uniform(0.0, 3.0, (SAMPLES, inputs))
    return Layer(name, "random", "uniform", "first", ratio, times, drawn_weights(random, NEURONS, inputs, ratio))


@cache
def trained_layers() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with np.load(TRAINED) as file:
        for key in file.files:
            name, what = key.rsplit(".", 1)
            found.setdefault(name, {})[what] = file[key]
    return found


def trained(random: Random, name: str) -> Layer:
    """Some neurons of a layer, some samples; what was silent stays so, at inf."""
    layers = trained_layers()
    layer = layers[str(random.choice(sorted(layers)))]
    weights, times = layer["weights"].astype(float), layer["times"].astype(float)
    rows = random.permutation(len(weights))[:NEURONS]
    samples = random.permutation(len(times))[:SAMPLES]
    return Layer(name, "random", "trained", "first", float(layer["tau_mem"]), times[samples], weights[rows])


def trains(random: Random, name: str) -> Layer:
    ratio, inputs = float(random.choice(RATIOS)), int(random.choice([5, 15]))
    times = random.uniform(0.0, 4.0, (2, inputs))
    weights = 2.5 * drawn_weights(random, 4, inputs, ratio)
    refractory = 0.0 if random.random() < 0.5 else int(random.integers(1, 6)) / 10
    return Layer(name, "trains", "trains", "train", ratio, times, weights, refractory=refractory)
