"""A run of several seeds: a folder with an ordinary run for each, and their mean.

RUN/config.yaml        with ``training.seeds``
RUN/metrics.csv        the mean over the seeds
RUN/results.json       mean and standard deviation, and each seed
RUN/seeds.csv          the same as a table
RUN/seed_2000/ ...     the runs
"""

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstspike.training.build import Experiment
from firstspike.training.checkpoint import Checkpoint, CheckpointError, load_newest_of_all, moment_of, newest_first
from firstspike.training.config import Config
from firstspike.training.files import write_whole
from firstspike.training.run import Row, Run
from firstspike.training.watchers import Watcher


def member_configs(config: Config) -> list[Config]:
    """The config of each seed; of one seed the config itself."""
    training = config.training
    if training.seeds == 1:
        return [config]
    return [
        config.model_copy(update={"training": training.model_copy(update={"seed": training.seed + k, "seeds": 1})})
        for k in range(training.seeds)
    ]


def member_folder(top: Path, config: Config) -> Path:
    """Where a seed's run lives in the run of all."""
    return top / f"seed_{config.training.seed}"


def create_members(top: Run, members: Sequence[Experiment]) -> list[Run]:
    """The runs of a new training, one for each experiment, whose substrates are open."""
    return [top] if len(members) == 1 else [_create(top, member) for member in members]


def open_members(top: Run, members: Sequence[Experiment]) -> list[Run]:
    """The same of a training that was begun; runs that it did not come to are made."""
    if len(members) == 1:
        return [top]
    folders = [member_folder(top.path, member.config) for member in members]
    return [
        Run.open(folder) if (folder / "config.yaml").is_file() else _create(top, member)
        for folder, member in zip(folders, members, strict=True)
    ]


def _create(top: Run, member: Experiment) -> Run:
    return Run.create(member_folder(top.path, member.config), member.config, member.substrate.identity())


def newest_of_all(runs: Sequence[Run]) -> list[Checkpoint] | None:
    """The newest checkpoints of the same moment in all runs; damaged ones are reported (logging) and passed over.

    None before the first of them. Several runs are saved one after the other: what was saved of a first moment, or the
    best of some, is then there without the rest.

    Raises:
        CheckpointError: there are some, but none that can be read, or of no moment in all of the runs.
        OSError: a folder that cannot be read.
    """
    found = [_by_moment(run.checkpoints) for run in runs]
    common = sorted(set(found[0]).intersection(*found[1:]), reverse=True)
    saved = [
        {at for at, paths in moments.items() if any(path.name.startswith("epoch_") for path in paths)}
        for moments in found
    ]
    if not common and len(set().union(*saved)) > 1:
        newest = [next((paths[0].name for paths in moments.values()), "none") for moments in found]
        has = ", ".join(f"{run.path.name} {name}" for run, name in zip(runs, newest, strict=True))
        raise CheckpointError(f"{runs[0].path.parent}: no checkpoints of the same moment; the newest are {has}")
    return load_newest_of_all([[moments[at] for moments in found] for at in common])


def _by_moment(folder: Path) -> dict[tuple[int, ...], list[Path]]:
    """Folders that may be checkpoints, by the moment of the training."""
    found: dict[tuple[int, ...], list[Path]] = {}
    for path in newest_first(folder):
        found.setdefault(moment_of(path), []).append(path)
    return found


class MeanTable(Watcher):
    """Writes the mean over the seeds into the ``metrics.csv`` of the run of all."""

    def __init__(self, top: Run) -> None:
        self.top = top

    def epoch(self, row: Row) -> None:
        """One more epoch is done."""
        self.top.append("metrics", [row])


def joint_results(configs: Sequence[Config], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, in the form of one seed's results, and all of them."""
    found: dict[str, Any] = {key: results[0][key] for key in ("epochs", "parameters", "seconds")}
    found["best_validation_accuracy"] = statistics.fmean(r["best_validation_accuracy"] for r in results)
    for split in ("validation", "test"):
        parts = [result[split] for result in results]
        accuracies = [part["accuracy"] for part in parts]
        found[split] = {
            "samples": parts[0]["samples"],
            "accuracy": statistics.fmean(accuracies),
            "accuracy_std": statistics.stdev(accuracies),
            "loss": statistics.fmean(part["loss"] for part in parts),
            "silent": [statistics.fmean(layer) for layer in zip(*(part["silent"] for part in parts), strict=True)],
        }
    found["seeds"] = {str(c.training.seed): result for c, result in zip(configs, results, strict=True)}
    return found


def write_table(top: Run, results: dict[str, Any]) -> None:
    """Write ``seeds.csv``: a row for each seed, then mean and standard deviation."""
    columns = ("best_validation_accuracy", "validation_accuracy", "test_accuracy", "test_loss")
    rows: list[list[Any]] = [
        [seed, r["best_validation_accuracy"], r["validation"]["accuracy"], r["test"]["accuracy"], r["test"]["loss"]]
        for seed, r in results["seeds"].items()
    ]
    values = list(zip(*(row[1:] for row in rows), strict=True))
    rows.append(["mean", *map(statistics.fmean, values)])
    rows.append(["std", *map(statistics.stdev, values)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", *columns])
    writer.writerows(rows)
    write_whole(top.path / "seeds.csv", text.getvalue())
