"""The set: problems from a seed, with their answers.

python benchmarks/exactness/make.py --out DIR [--seed 0 --first 10000 --trains 2000 --processes 2]

Writes ``exactness.jsonl.gz`` and ``exactness.npz``. ``--small`` writes the committed part, ``small.jsonl``, instead.
"""

import argparse
import time
import zlib
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import hard_families as hard
import mpmath as mp
import numpy as np
import other_neurons as other
import random_families as random
from lines import Layer, write, write_arrays
from solver import DIGITS, Answer, Neuron, first_spike, train

HERE = Path(__file__).parent
SMALL = HERE / "small.jsonl"
Draw = Callable[[np.random.Generator, str], Layer]

FIRST: dict[str, tuple[Draw, float]] = {
    "uniform": (random.uniform, 0.5),
    "trained": (random.trained, 0.3),
    **{draw.__name__: (draw, 0.02) for draw in (
        hard.peaks, hard.dips, hard.brief, hard.close, hard.ties, hard.late, hard.offsets, hard.delays, hard.ratios,
    )},
    "receptors": (other.receptors, 0.01),
    "qif": (other.qif, 0.01),
}  # fmt: skip
"""Families of first spikes, and which share of the outputs each has."""
TRAINS: dict[str, tuple[Draw, float]] = {
    "trains": (random.trains, 0.7),
    "refractory": (hard.refractory_inputs, 0.1),
    "last": (hard.last_spikes, 0.1),
    "others": (hard.other_trains, 0.1),
}


def text(x: Any, digits: int) -> str:
    return str(mp.nstr(x, digits)) if x else "0"


def solved(layer: Layer) -> Layer:
    """The layer with its answers."""
    if layer.neuron != "lif":
        return filled(layer, other.solved(layer))
    neuron = Neuron(layer.tau_mem, layer.one_tau_syn, layer.threshold, layer.reset, layer.refractory)
    draw = np.random.default_rng(zlib.crc32(layer.id.encode()))
    rows: list[list[Answer]] = []
    layer.upstream = [] if layer.kind == "train" else None
    for times in layer.times.tolist():
        row, factors = [], []
        for k, weights in enumerate(layer.weights.tolist()):
            if layer.kind == "train":
                factors.append(draw.uniform(0.5, 1.5, 60).tolist())
                row.append(train(neuron, times, weights, factors[-1]))
                factors[-1] = factors[-1][: len(row[-1].spikes)]
            else:
                delays = () if layer.delays is None else layer.delays[k].tolist()
                row.append(first_spike(neuron, times, weights, delays))
        rows.append(row)
        if layer.upstream is not None:
            layer.upstream.append(factors)
    return filled(layer, rows)


def filled(layer: Layer, rows: Sequence[Sequence[Answer]]) -> Layer:
    def of(what: Callable[[Answer], Any]) -> list[list[Any]]:
        return [[what(answer) for answer in row] for row in rows]

    layer.spikes = of(lambda a: [text(t, DIGITS) for t in a.spikes])
    layer.by_weight = of(lambda a: [text(x, 25) for x in a.by_weight] if a.spikes else None)
    layer.by_time = of(lambda a: [text(x, 25) for x in a.by_time] if a.spikes else None)
    layer.slope = of(lambda a: None if a.slope is None else text(a.slope, 25))
    layer.peak = of(lambda a: None if a.peak is None else text(a.peak, 25))
    layer.moves = of(lambda a: a.moves)
    layer.slope_moves = of(lambda a: a.slope_moves)
    layer.beyond = of(lambda a: a.beyond)
    return layer


def made(task: tuple[int, str, int]) -> Layer:
    """The layer of a number in a family: it depends on these and the seed alone."""
    seed, family, number = task
    draw = ({**FIRST, **TRAINS})[family][0]
    random = np.random.default_rng([seed, zlib.crc32(family.encode()), number])
    while True:
        try:
            return solved(draw(random, f"{family}-{number}"))
        except ArithmeticError:  # no such problem, or trains of too many spikes: draw again
            continue


def small(seed: int) -> list[Layer]:
    """About 200 problems, some of each family: layers with few neurons, inputs and samples are cut from those drawn."""
    found = []
    for name in {**FIRST, **TRAINS}:
        count = 4 if name in ("uniform", "trained") else 8 if name in ("brief", "close") else 3
        found += [cut(made((seed + 1000, name, k))) for k in range(count)]
    return found


def cut(layer: Layer) -> Layer:
    """At most 2 samples and 4 neurons."""
    for name in ("spikes", "by_weight", "by_time", "slope", "peak", "moves", "slope_moves", "beyond", "upstream"):
        if getattr(layer, name) is not None:
            setattr(layer, name, [row[:4] for row in getattr(layer, name)[:2]])
    layer.times, layer.weights = layer.times[:2], layer.weights[:4]
    layer.delays = None if layer.delays is None else layer.delays[:4]
    return layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=10000, help="first spikes, about")
    parser.add_argument("--trains", type=int, default=2000, help="trains, about")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--small", action="store_true", help="the committed part instead")
    options = parser.parse_args()
    if options.small:
        write(SMALL, small(options.seed))
        return
    found: list[Layer] = []
    with Pool(options.processes) as pool:
        for families, count in ((FIRST, options.first), (TRAINS, options.trains)):
            for name, (_, share) in families.items():
                start = time.perf_counter()
                here = made_of(options.seed, name, round(share * count), pool)
                found += here
                elapsed = time.perf_counter() - start
                print(f"{name}: {sum(x.problems for x in here)} problems, {elapsed:.0f} s", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "exactness.jsonl.gz", found)
    write_arrays(options.out / "exactness.npz", found)


def made_of(seed: int, name: str, problems: int, pool: Any) -> list[Layer]:
    """Layers of a family, a few at a time, until they have as many problems as asked for."""
    found: list[Layer] = []
    while sum(x.problems for x in found) < problems:
        found += pool.map(made, [(seed, name, len(found) + k) for k in range(4)], chunksize=1)
    count = 0
    for k, layer in enumerate(found):  # the same, whatever the number of processes
        count += layer.problems
        if count >= problems:
            return found[: k + 1]
    return found


if __name__ == "__main__":
    main()
