"""The results of a sweep as a table, as text or CSV. Needs no Optuna."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from firstspike.runs.files import csv_text, write_whole
from firstspike.runs.lock import LOCK
from firstspike.text import printable

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
        names = list(self.rows[0]) if self.rows else []
        rows = [[row.get(name) for name in names] for row in self.rows]
        # a carriage return would begin another row
        text = csv_text([names, *([printable(x) if isinstance(x, str) else x for x in row] for row in rows)])
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):  # another command may write it at the same moment
            write_whole(folder / "table.csv", text)
        return folder / "table.csv"

    def shown(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows as people read them: the main columns without empty ones; accuracies, or else losses."""
        titles = {"validation_accuracy": "validation %", "test_accuracy": "test %"}
        known = {name for row in self.rows for name, value in row.items() if value not in (None, "")}
        results = titles if known & titles.keys() else ("validation_loss", "test_loss")
        order = ("trial", *self.axes, *results, "parameters", "seconds", "state", "reason")
        names = [name for name in order if name in known]
        return [titles.get(name, name) for name in names], [[cell(name, row) for name in names] for row in self.rows]

    def text(self) -> str:
        """The ``shown`` table as lines of text."""
        head, rows = self.shown()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in (head, *rows))


def cell(name: str, row: Mapping[str, Value]) -> str:
    """A value as people read it: accuracies in percent with their spread, numbers with few digits, a line of text."""
    value = row.get(name)
    if not isinstance(value, float) or not math.isfinite(value):
        return "" if value in (None, "") else str(value).splitlines()[0]
    if name.endswith("accuracy"):
        spread = row.get(name.removesuffix("accuracy") + "std")
        return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if isinstance(spread, float) else "")
    return f"{value:.1f}" if name == "seconds" else f"{value:.6g}"
