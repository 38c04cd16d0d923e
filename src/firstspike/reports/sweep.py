"""The page of a sweep, from its table."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from firstspike.reports.facts import Fact
from firstspike.reports.page import render
from firstspike.reports.values import percent
from firstspike.sweeps.table import SweepTable, Value

ACCURACIES = ("validation_accuracy", "test_accuracy", "best_validation_accuracy")
MEASURED = (*ACCURACIES, "validation_loss", "test_loss", "seconds")
"""Columns of results, in the order in which they are shown."""
_SPREAD = {"validation_accuracy": "validation_std", "test_accuracy": "test_std"}
_FIRST = ("trial", "point", "state")
_LAST = ("parameters", "epochs", "seeds", "worker", "reason")


def sweep_page(title: str, table: SweepTable, place: Path) -> str:
    """The page of a sweep.

    Args:
        title: its name.
        table: its rows.
        place: the folder of the page, to which links are relative.
    """
    parameters = table.columns(table.axes)
    columns = [*table.columns(_FIRST), *parameters, *table.columns((*MEASURED, *_LAST))]
    rows = [[_link(row, place), *(_cell(name, row) for name in columns)] for row in table.rows]
    measured = [name for name in table.columns(MEASURED) if any(_number(r.get(name)) is not None for r in table.rows)]
    drawn = [*parameters, *measured, *_SPREAD.values()]
    values = [{name: _drawn(row.get(name), name in parameters) for name in drawn} for row in table.rows]
    data = {
        "parameters": parameters,
        "measured": measured,
        "runs": [cells[0].text for cells in rows],
        "rows": values,
    }
    return render(
        "sweep",
        data,
        title=title,
        summary=_summary(table),
        head=["run", *map(_title, columns)],
        rows=rows,
        chart=bool(parameters and measured),
    )


class Cell(NamedTuple):
    """A cell: its text, the value to sort by, and a link."""

    text: str
    value: Value
    href: str = ""


def _summary(table: SweepTable) -> list[Fact]:
    facts = [Fact("runs", str(len(table.rows)))]
    finished = [row for row in table.rows if _number(row.get("validation_accuracy")) is not None]
    facts.append(Fact("with a result", str(len(finished))))
    if finished:
        best = max(finished, key=lambda row: _number(row["validation_accuracy"]) or 0.0)
        name = f" ({Path(str(best['folder'])).name})" if best.get("folder") else ""
        facts.append(Fact("best validation accuracy", f"{_cell('validation_accuracy', best).text} %{name}"))
        if _number(best.get("test_accuracy")) is not None:
            facts.append(Fact("test accuracy of that run", f"{_cell('test_accuracy', best).text} %"))
    seconds = [value for row in table.rows if (value := _number(row.get("seconds"))) is not None]
    if seconds:
        facts.append(Fact("total training time", f"{sum(seconds):.0f} s"))
    return facts


def _link(row: Mapping[str, Value], place: Path) -> Cell:
    """The run's report if there is one, otherwise its folder; no link if that is not here."""
    if not row.get("folder"):
        return Cell("", "")
    folder = Path(str(row["folder"])).resolve()
    target = folder / "report.html"
    there = os.path.relpath(target if target.is_file() else folder, place.resolve())
    return Cell(folder.name, folder.name, quote(Path(there).as_posix()) if folder.is_dir() else "")


def _cell(name: str, row: Mapping[str, Value]) -> Cell:
    value = row.get(name)
    number = _number(value)
    if number is None:
        return Cell("" if value is None else str(value), "" if value is None or isinstance(value, float) else value)
    if name in ACCURACIES:
        spread = _number(row.get(_SPREAD.get(name, "")))
        if spread is not None:
            return Cell(percent({"accuracy": number, "accuracy_std": spread}).removesuffix(" %"), value)
        return Cell(f"{100 * number:.2f}", value)
    return Cell(
        f"{value:.1f}" if name == "seconds" else f"{value:.5g}" if isinstance(value, float) else str(value), value
    )


def _number(value: Value) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _title(name: str) -> str:
    if name in MEASURED:
        unit = " [%]" if name in ACCURACIES else " [s]" if name == "seconds" else ""
        return name.replace("_", " ").replace("seconds", "time") + unit
    return name


def _drawn(value: Value, varied: bool) -> Value:
    """A value for the chart. JSON cannot hold infinity: on an axis it is a name, among results it is left out."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if varied else None
    return value
