"""A sweep as a table, from its CSV file or from the folder that holds its runs."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from firstspike.config import ConfigError
from firstspike.reports.facts import Fact
from firstspike.reports.page import render
from firstspike.reports.values import percent
from firstspike.runs import RunFolder

Value = None | bool | int | float | str

ACCURACIES = ("validation_accuracy", "test_accuracy", "best_validation_accuracy")
MEASURED = (*ACCURACIES, "validation_loss", "test_loss", "seconds")
"""Columns of numbers to look at, in the order in which they are shown."""
FOLDER = "folder"
_BESIDE = {"validation_accuracy": "validation_std", "test_accuracy": "test_std"}
_FIRST = ("point", "state")
_LAST = ("parameters", "epochs", "seeds", "worker", "reason")
_COLUMNS = 24  # parameters at most, of runs that differ in everything


@dataclass(frozen=True)
class SweepTable:
    """Rows of a sweep.

    Args:
        rows: values by column. ``folder`` is the run's, ``..._accuracy`` a fraction, ``..._std`` its deviation over
            seeds, ``seconds`` the time of training; ``point``, ``state``, ``parameters`` (their number), ``epochs``,
            ``seeds``, ``worker`` and ``reason`` are about the run. Whatever else there is was varied.
    """

    rows: list[dict[str, Value]]

    def columns(self, among: Iterable[str]) -> list[str]:
        """Those columns that some row has a value in."""
        return [name for name in among if any(row.get(name) not in (None, "") for row in self.rows)]

    @property
    def parameters(self) -> list[str]:
        """What was varied."""
        known = {*MEASURED, *_BESIDE.values(), *_FIRST, *_LAST, FOLDER}
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in known))


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, by name."""
    return sorted(path.parent for path in folder.glob("*/config.yaml") if not path.parent.name.startswith("."))


def table_of_runs(folders: Iterable[Path]) -> SweepTable:
    """A row for each run: where its config differs from others', and its results; none yet if it is not finished."""
    runs = [RunFolder(folder) for folder in folders]
    configs = [_flat(run) for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    varied = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)][:_COLUMNS]
    rows: list[dict[str, Value]] = []
    for run, config in zip(runs, configs, strict=True):
        results = run.results
        row: dict[str, Value] = {key: config.get(key) for key in varied} | {FOLDER: str(run.path)}
        row["state"] = "finished" if results else "not finished" if config else "config cannot be read"
        row |= {key: results[key] for key in ("epochs", "parameters", "seconds", "best_validation_accuracy") if results}
        for split in ("validation", "test"):
            if split in results:
                found = results[split]
                row |= {f"{split}_accuracy": found["accuracy"], f"{split}_loss": found["loss"]}
                row[f"{split}_std"] = found.get("accuracy_std")
        rows.append(row)
    return SweepTable(rows)


def table_of_csv(text: str, near: Path, name: str = "the table") -> SweepTable:
    """The rows of a CSV table with a head.

    Args:
        text: the table.
        near: where run folders are, if they are not where the table says.
        name: of the table, for messages.

    Raises:
        ValueError: no rows, or rows that do not fit the head.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{name}: expected a CSV table with a head and rows of the same width, and got another file")
    found: list[dict[str, Value]] = [{name: _value(cell) for name, cell in row.items()} for row in rows]
    for row, cells in zip(found, rows, strict=True):
        if folder := cells.get(FOLDER):
            places = (Path(folder), near / folder, near / Path(folder).name)
            row[FOLDER] = str(next((place for place in places if place.is_dir()), folder))
    return SweepTable(found)


def sweep_page(title: str, table: SweepTable, place: Path) -> str:
    """The page of a sweep.

    Args:
        title: its name.
        table: its rows.
        place: the folder that the page will be in; links are seen from there.
    """
    parameters = table.columns(table.parameters)
    columns = [*table.columns(_FIRST), *parameters, *table.columns((*MEASURED, *_LAST))]
    rows = [[_link(row, place), *(_cell(name, row) for name in columns)] for row in table.rows]
    measured = [name for name in table.columns(MEASURED) if any(_number(r.get(name)) is not None for r in table.rows)]
    drawn = [*parameters, *measured, *_BESIDE.values()]
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
    """A cell: what is shown, what is sorted by, where it leads."""

    text: str
    value: Value
    href: str = ""


def _summary(table: SweepTable) -> list[Fact]:
    facts = [Fact("runs", str(len(table.rows)))]
    judged = [(value, row) for row in table.rows if (value := _number(row.get("validation_accuracy"))) is not None]
    facts.append(Fact("with a result", str(len(judged))))
    if judged:
        best = max(judged, key=lambda pair: pair[0])[1]
        name = f" ({Path(str(best[FOLDER])).name})" if best.get(FOLDER) else ""
        facts.append(Fact("best validation accuracy", f"{_cell('validation_accuracy', best).text} %{name}"))
        if _number(best.get("test_accuracy")) is not None:
            facts.append(Fact("test accuracy of that one", f"{_cell('test_accuracy', best).text} %"))
    seconds = [value for row in table.rows if (value := _number(row.get("seconds"))) is not None]
    if seconds:
        facts.append(Fact("time of all trainings", f"{sum(seconds):.0f} s"))
    return facts


def _link(row: Mapping[str, Value], place: Path) -> Cell:
    """The run's report, if there is one, else its folder; nowhere if that is not here."""
    if not row.get(FOLDER):
        return Cell("", "")
    folder = Path(str(row[FOLDER])).resolve()
    target = folder / "report.html"
    there = os.path.relpath(target if target.is_file() else folder, place.resolve())
    return Cell(folder.name, folder.name, quote(Path(there).as_posix()) if folder.is_dir() else "")


def _cell(name: str, row: Mapping[str, Value]) -> Cell:
    value = row.get(name)
    number = _number(value)
    if number is None:
        return Cell("" if value is None else str(value), "" if isinstance(value, float) else value)
    if name in ACCURACIES:
        spread = _number(row.get(_BESIDE.get(name, "")))
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


def _value(cell: str) -> Value:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _drawn(value: Value, varied: bool) -> Value:
    """What a chart gets: JSON has no word for infinity, which is a name among what was varied, else nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if varied else None
    return value


def _flat(run: RunFolder) -> dict[str, Value]:
    """A config's values by their keys as ``--set`` takes them; none if the file cannot be read."""
    try:
        return dict(_walk("", run.config.model_dump(mode="json")))
    except ConfigError:
        return {}


def _walk(key: str, value: Any) -> Iterable[tuple[str, Value]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from _walk(f"{key}[{number}]", inner)
    else:
        yield key, str(value) if isinstance(value, list) else value
