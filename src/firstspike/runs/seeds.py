"""A run of several networks: a folder with an ordinary run for each seed, and their mean.

RUN/config.yaml        with ``training.n_seeds``
RUN/metrics.csv        the mean over the seeds
RUN/results.json       mean and standard deviation, and each seed
RUN/seeds.csv          the same as a table
RUN/seed_2000/ ...     the runs
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstspike.runs.files import write_whole


def member_folders(top: Path, seeds: Sequence[int]) -> list[Path]:
    """The folder of each seed's run in the run of all; of one seed that run itself."""
    return [top] if len(seeds) == 1 else [top / f"seed_{seed}" for seed in seeds]


def joint_results(seeds: Sequence[int], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, in the form of one seed's results, and all of them."""
    found: dict[str, Any] = {key: results[0][key] for key in ("epochs", "parameters", "seconds")}
    best = [result["best_validation_accuracy"] for result in results]
    found["best_validation_accuracy"] = None if None in best else statistics.fmean(best)  # without validation data
    for split in ("validation", "test"):
        parts = [result[split] for result in results if result.get(split) is not None]
        found[split] = mean_of(parts) if parts else None
    found["seeds"] = {str(seed): result for seed, result in zip(seeds, results, strict=True)}
    return found


def mean_of(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean of each number of several networks' results on the same data, and the standard deviation of accuracies."""
    accuracies = [part["accuracy"] for part in parts if "accuracy" in part]
    found: dict[str, Any] = {"samples": parts[0]["samples"]}
    if accuracies:
        found |= {"accuracy": statistics.fmean(accuracies), "accuracy_std": statistics.stdev(accuracies)}
    if names := parts[0].get("metrics"):
        found["metrics"] = {name: statistics.fmean(part["metrics"][name] for part in parts) for name in names}
    found["loss"] = statistics.fmean(part["loss"] for part in parts)
    found["silent"] = [statistics.fmean(layer) for layer in zip(*(part["silent"] for part in parts), strict=True)]
    return found


COLUMNS = ("best_validation_accuracy", "validation_accuracy", "test_accuracy", "test_loss")


def seeds_table(results: dict[str, Any]) -> dict[str, list[float]]:
    """``COLUMNS`` of each seed, then ``mean`` and ``std``; NaN for numbers that a seed lacks."""
    numbers = {}
    for seed, result in results["seeds"].items():
        validation, test = ((result.get(split) or {}) for split in ("validation", "test"))
        found = (result[COLUMNS[0]], validation.get("accuracy"), test.get("accuracy"), test.get("loss"))
        numbers[seed] = [math.nan if number is None else number for number in found]
    columns = list(zip(*numbers.values(), strict=True))
    means = [statistics.fmean(x) for x in columns]
    spreads = [statistics.stdev(x) if all(map(math.isfinite, x)) else math.nan for x in columns]
    return numbers | {"mean": means, "std": spreads}


def write_table(top: Path, results: dict[str, Any]) -> None:
    """Write ``seeds.csv``: a row for each seed, then mean and standard deviation."""
    rows = [("seed", *COLUMNS), *((name, *row) for name, row in seeds_table(results).items())]
    write_whole(top / "seeds.csv", "".join(f"{','.join(map(str, row))}\n" for row in rows))
