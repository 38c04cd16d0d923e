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

from firstspike.runs.files import csv_text, write_whole


def member_folders(top: Path, seeds: Sequence[int]) -> list[Path]:
    """The folder of each seed's run in the run of all; of one seed that run itself."""
    return [top] if len(seeds) == 1 else [top / f"seed_{seed}" for seed in seeds]


def mean_of(found: Sequence[Any]) -> Any:
    """Mean of each number in nested results of several networks, of accuracies also the standard deviation.

    None if one of them lacks it. Numbers that all share stay as they are.
    """
    first = found[0]
    if isinstance(first, dict):
        joint = {key: mean_of([x[key] for x in found]) for key in first}
        spread = {"accuracy_std": statistics.stdev(x["accuracy"] for x in found)} if "accuracy" in first else {}
        return joint | spread
    if isinstance(first, list):
        return [mean_of(x) for x in zip(*found, strict=True)]
    if None in found:
        return None
    return first if all(x == first for x in found) else statistics.fmean(found)


def digest(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run's ``results.json`` that a table shows."""
    found = {key: results[key] for key in ("parameters", "epochs", "seconds", "best_validation_accuracy")}
    for split in ("validation", "test"):
        part = results[split] or {}  # None if a run has no such data
        found |= {f"{split}_accuracy": part.get("accuracy"), f"{split}_loss": part.get("loss")}
        found[f"{split}_std"] = part.get("accuracy_std")
    return found | {"seeds": len(results.get("seeds", [0]))}


COLUMNS = ("best_validation_accuracy", "validation_accuracy", "test_accuracy", "test_loss")


def write_table(top: Path, results: dict[str, Any]) -> None:
    """Write ``seeds.csv``: ``COLUMNS`` of each seed, then mean and standard deviation; NaN for missing values."""
    numbers = {}
    for seed, result in results["seeds"].items():
        found = digest(result)
        numbers[seed] = [math.nan if found[name] is None else found[name] for name in COLUMNS]
    columns = list(zip(*numbers.values(), strict=True))
    means = [statistics.fmean(x) for x in columns]
    spreads = [statistics.stdev(x) if all(map(math.isfinite, x)) else math.nan for x in columns]
    rows = (numbers | {"mean": means, "std": spreads}).items()
    write_whole(top / "seeds.csv", csv_text([("seed", *COLUMNS), *((name, *row) for name, row in rows)]))
