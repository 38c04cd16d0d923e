"""The results of a sweep as a table, as text or CSV. Needs no Optuna."""

import csv
import io
import math
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


@dataclass(frozen=True)
class SweepTable:
    """Rows of a sweep: values by column, None or ``""`` if there is none; and which columns are axes.

    ``folder`` is the run's; ``..._accuracy`` a fraction, the mean over the seeds, and ``..._std`` its standard
    deviation over them; ``seconds`` the time of training.
    """

    axes: list[str]
    rows: list[dict[str, Value]]

    def write(self, folder: Path) -> Path:
        """Write all columns to ``table.csv`` in a folder, accuracies as fractions."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]) if self.rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "table.csv", text.getvalue())
        return folder / "table.csv"

    def text(self) -> str:
        """The main columns, accuracies in percent."""
        names = ("trial", *self.axes, "validation_accuracy", "test_accuracy", "parameters", "seconds", "state")
        lines = [["trial", *self.axes, "validation %", "test %", "parameters", "seconds", "state"]]
        lines += [[cell(name, row) for name in names] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
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


def digest(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run's ``results.json`` that a table shows."""
    found = {key: results[key] for key in ("parameters", "epochs", "seconds", "best_validation_accuracy")}
    for split in ("validation", "test"):
        part = results[split] or {}  # None if a run has no such data
        found |= {f"{split}_accuracy": part.get("accuracy"), f"{split}_loss": part.get("loss")}
        found[f"{split}_std"] = part.get("accuracy_std")
    return found | {"seeds": len(results.get("seeds", [0]))}
