"""The results of a sweep as a table, as text or CSV. Needs no Optuna."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstspike.runs.files import write_whole

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
        failed = [
            f"trial {row['trial']} failed: {str(row['reason']).splitlines()[0]}" for row in self.rows if row["reason"]
        ]
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
    accuracy, spread = row[f"{split}_accuracy"], row[f"{split}_std"]
    if accuracy is None:  # no such data
        return ""
    return f"{100 * accuracy:.2f}" + ("" if spread is None else f" +- {100 * spread:.2f}")


def existing(folder: str, near: Path) -> str:
    """A run folder where it is now: as the table says, or in the folder of the table if that was moved."""
    places = (Path(folder), near / folder, near / Path(folder).name) if folder else ()
    return str(next((place for place in places if place.is_dir()), folder))


def digest(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run's ``results.json`` that a table shows."""
    found = {key: results[key] for key in ("parameters", "epochs", "seconds", "best_validation_accuracy")}
    for split in ("validation", "test"):
        part = results[split] or {}  # None where a run has no such data
        found |= {f"{split}_accuracy": part.get("accuracy"), f"{split}_loss": part.get("loss")}
        found[f"{split}_std"] = part.get("accuracy_std")
    return found | {"seeds": len(results.get("seeds", [0]))}
