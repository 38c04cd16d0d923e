"""The results of a sweep, or of any folder of runs, as a table: as text, CSV, or for reports. Needs no Optuna."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstspike.training.config import ConfigError
from firstspike.training.files import write_whole
from firstspike.training.run import Run

Value = None | bool | int | float | str

NUMBERS = (
    "validation_accuracy",
    "validation_std",
    "test_accuracy",
    "test_std",
    "validation_loss",
    "test_loss",
    "best_validation_accuracy",
    "parameters",
    "epochs",
    "seeds",
    "seconds",
)
_BEFORE, _AFTER = ("trial", "state"), ("folder", "worker", "reason")
_COLUMNS = 24  # at most, of runs that differ in everything


@dataclass(frozen=True)
class SweepTable:
    """Rows of a sweep.

    Args:
        rows: values by column, None or ``""`` where there is none. ``folder`` is the run's, ``..._accuracy`` a
            fraction, its mean over seeds, ``..._std`` its standard deviation over them, ``parameters`` the number of
            trained ones, ``seconds`` the time of training; ``trial``, ``state`` (``complete``, ``pruned``, ``failed``,
            ``running``, ``waiting``, ``open``), ``epochs``, ``seeds``, ``worker`` and ``reason`` describe the training.
            Columns of other names are axes.
    """

    rows: list[dict[str, Value]]

    @property
    def axes(self) -> list[str]:
        """What was varied."""
        known = {*_BEFORE, "point", *NUMBERS, *_AFTER}  # "point" was the trial's number in older versions
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in known))

    @property
    def complete(self) -> list[dict[str, Value]]:
        """The rows of complete trials."""
        return [row for row in self.rows if row.get("state") == "complete"]

    @property
    def failed(self) -> list[dict[str, Value]]:
        """The rows of trials that failed."""
        return [row for row in self.rows if row.get("state") == "failed"]

    def columns(self, among: Iterable[str]) -> list[str]:
        """Those columns that have a value in some row."""
        return [name for name in among if any(row.get(name) not in (None, "") for row in self.rows)]

    def csv(self) -> str:
        """All columns, accuracies as fractions."""
        text = io.StringIO()
        columns = [*_BEFORE, *self.axes, *NUMBERS, *_AFTER]
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def write(self, folder: Path) -> Path:
        """Write ``table.csv`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "table.csv", self.csv())
        return folder / "table.csv"

    def text(self) -> str:
        """The main columns, accuracies in percent."""
        axes = self.axes
        lines = [["trial", *axes, "validation %", "test %", "parameters", "seconds", "run"]]
        lines += [_line(row, axes) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(x, widths, strict=True)).rstrip() for x in lines]
        failed = [f"trial {row['trial']} failed: {str(row['reason']).splitlines()[0]}" for row in self.failed]
        return "\n".join(shown + failed)


def _line(row: dict[str, Value], axes: list[str]) -> list[str]:
    values = [f"{x:.6g}" if isinstance(x := row.get(key, ""), float) else str(x) for key in axes]
    numbers = [str(row["state"]), "", "", ""]
    if row["state"] == "complete":
        numbers = [_percent(row, "validation"), _percent(row, "test"), str(row["parameters"]), f"{row['seconds']:.1f}"]
    path, here = Path(str(row["folder"])), Path.cwd()
    folder = path.relative_to(here) if row["folder"] and path.is_relative_to(here) else row["folder"]
    return [str(row["trial"]), *values, *numbers, str(folder)]


def _percent(row: dict[str, Any], split: str) -> str:
    spread = row[f"{split}_std"]
    return f"{100 * row[f'{split}_accuracy']:.2f}" + ("" if spread is None else f" +- {100 * spread:.2f}")


def existing(folder: str, near: Path) -> str:
    """A run folder where it is now: as the table says, or in the folder of the table if that was moved."""
    places = (Path(folder), near / folder, near / Path(folder).name) if folder else ()
    return str(next((place for place in places if place.is_dir()), folder))


def table_of_csv(text: str, near: Path, name: str = "the table") -> SweepTable:
    """The rows of a CSV table with a header.

    Args:
        text: the table.
        near: where run folders are, if they are not where the table says.
        name: of the table, for messages.

    Raises:
        ValueError: no rows, or rows that do not fit the header.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{name}: expected a CSV table, a header and rows of the same length")
    found = [{name: existing(x, near) if name == "folder" else _value(x) for name, x in row.items()} for row in rows]
    return SweepTable(found)


def _value(cell: str) -> Value:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, by name."""
    return sorted(path.parent for path in folder.glob("*/config.yaml") if not path.parent.name.startswith("."))


def table_of_runs(folders: Iterable[Path]) -> SweepTable:
    """A row for each run: where its config differs from those of the others, and its results if it is finished."""
    runs = [Run(folder) for folder in folders]
    configs = [_config_values(run) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    varied = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)][:_COLUMNS]
    rows: list[dict[str, Value]] = []
    for run, config in zip(runs, configs, strict=True):
        results = run.results
        state = "finished" if results else "not finished" if config else "config cannot be read"
        values = {key: config.get(key) for key in varied}
        rows.append({"state": state} | values | (digest(results) if results else {}) | {"folder": str(run.path)})
    return SweepTable(rows)


def digest(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run's ``results.json`` that a table shows."""
    found = {key: results[key] for key in ("parameters", "epochs", "seconds", "best_validation_accuracy")}
    for split in ("validation", "test"):
        part = results[split]
        found |= {f"{split}_accuracy": part["accuracy"], f"{split}_loss": part["loss"]}
        found[f"{split}_std"] = part.get("accuracy_std")
    return found | {"seeds": len(results.get("seeds", [0]))}


def _config_values(run: Run) -> dict[str, Value]:
    """A config's values by their keys as ``--set`` takes them; none if the file cannot be read."""
    try:
        return dict(_leaves("", run.config.model_dump(mode="json")))
    except ConfigError:
        return {}


def _leaves(key: str, value: Any) -> Iterable[tuple[str, Value]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from _leaves(f"{key}[{number}]", inner)
    else:
        yield key, str(value) if isinstance(value, list) else value
