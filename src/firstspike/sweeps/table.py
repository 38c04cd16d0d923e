"""The results of a sweep as a table, as text or CSV. Needs no Optuna."""

import csv
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstspike.runs.files import write_whole

Value = None | bool | int | float | str

NUMBERS = (
    "validation_accuracy", "validation_std", "test_accuracy", "test_std", "validation_loss", "test_loss",
    "best_validation_accuracy", "parameters", "epochs", "seeds", "seconds",
)  # fmt: skip
_BEFORE, _AFTER = ("trial", "state"), ("folder", "worker", "reason")


@dataclass(frozen=True)
class SweepTable:
    """Rows of a sweep: values by column, None or ``""`` where there is none.

    ``folder`` is the run's; ``..._accuracy`` a fraction, the mean over the seeds, and ``..._std`` its standard
    deviation over them; ``seconds`` the time of training. Columns of names unknown here are axes.
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

    def write(self, folder: Path) -> Path:
        """Write all columns to ``table.csv`` in a folder, accuracies as fractions."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [*_BEFORE, *self.axes, *NUMBERS, *_AFTER], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "table.csv", text.getvalue())
        return folder / "table.csv"

    def text(self) -> str:
        """The main columns, accuracies in percent."""
        names = ("trial", *self.axes, "validation_accuracy", "test_accuracy", "parameters", "seconds")
        lines = [["trial", *self.axes, "validation %", "test %", "parameters", "seconds", "run"]]
        for row in self.rows:
            cells = [cell(name, row) for name in names]
            if row["state"] != "complete":
                cells[-4:] = [str(row["state"]), "", "", ""]
            lines.append([*cells, str(row["folder"]).removeprefix(f"{Path.cwd()}{os.sep}")])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(x, widths, strict=True)).rstrip() for x in lines]
        failed = [(row["trial"], str(row["reason"]).splitlines()[0]) for row in self.rows if row["reason"]]
        return "\n".join([*shown, *(f"trial {trial} failed: {reason}" for trial, reason in failed)])


def number(value: Value) -> float | None:
    """A finite number; None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value or 0) if known else None


def cell(name: str, row: Mapping[str, Value]) -> str:
    """A value as people read it: accuracies in percent with their spread, numbers with few digits."""
    value, known = row.get(name), number(row.get(name))
    if known is None:
        return "" if value is None else str(value)
    if name.endswith("accuracy"):
        spread = number(row.get(name.removesuffix("accuracy") + "std"))
        return f"{100 * known:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
    return f"{known:.1f}" if name == "seconds" else f"{known:.6g}" if isinstance(value, float) else str(value)


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
