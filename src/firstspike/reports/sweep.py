"""The page of a sweep, whose table may come from the folders of its runs."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from firstspike.config import ConfigError
from firstspike.reports.facts import Fact
from firstspike.reports.page import Picture, render
from firstspike.runs.folder import RunFolder
from firstspike.sweeps.table import NUMBERS, SweepTable, Value, cell, digest, number

_MEASURED = tuple(x for x in NUMBERS if x.endswith(("accuracy", "loss", "seconds")))
_COLUMNS = 24  # at most, of runs that differ in everything


def table_of_runs(folders: Iterable[Path]) -> SweepTable:
    """A row for each run: the keys in which its config differs from the others, and its results if it is finished."""
    runs = [RunFolder(folder) for folder in folders]
    configs: list[dict[str, Value]] = [{} for _ in runs]
    for run, config in zip(runs, configs, strict=True):
        with suppress(ConfigError):  # a file that cannot be read has no values
            config |= _leaves("", run.config.model_dump(mode="json"))
    keys = dict.fromkeys(key for config in configs for key in config)
    varied = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)][:_COLUMNS]
    rows: list[dict[str, Value]] = []
    for run, config in zip(runs, configs, strict=True):
        state = "finished" if run.results else "not finished" if config else "config cannot be read"
        row = {"state": state} | {key: config.get(key) for key in varied}
        rows.append(row | (digest(run.results) if run.results else {}) | {"folder": str(run.path)})
    return SweepTable(varied, rows)


def _leaves(key: str, value: Any) -> Iterable[tuple[str, Value]]:
    """A config's values by their keys as ``--set`` takes them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from _leaves(f"{key}[{place}]", inner)
    else:
        yield key, str(value) if isinstance(value, list) else value


def sweep_page(title: str, table: SweepTable, place: Path, pictures: Sequence[Picture] = ()) -> str:
    """The page of a sweep called ``title``, to be written into the folder ``place``: links are relative to it."""
    order = ("trial", "state", *table.axes, *_MEASURED, "parameters", "epochs", "seeds", "worker", "reason")
    columns = [name for name in order if any(row.get(name) not in (None, "") for row in table.rows)]
    rows = [[_link(row, place), *(cell(name, row) for name in columns)] for row in table.rows]
    head = ["run", *map(_title, columns)]
    return render("sweep", None, title=title, summary=_summary(table), head=head, rows=rows, pictures=pictures)


class Link(NamedTuple):
    """A cell with a link, empty if there is none."""

    text: str
    href: str


def _summary(table: SweepTable) -> list[Fact]:
    finished = [row for row in table.rows if number(row.get("validation_accuracy")) is not None]
    facts = [Fact("runs", str(len(table.rows))), Fact("with a result", str(len(finished)))]
    if finished:
        best = max(finished, key=lambda row: number(row["validation_accuracy"]) or 0.0)
        facts.append(Fact("best validation accuracy", f"{cell('validation_accuracy', best)} % ({_name(best)})"))
        if number(best.get("test_accuracy")) is not None:
            facts.append(Fact("test accuracy of that run", f"{cell('test_accuracy', best)} %"))
    seconds = sum(number(row.get("seconds")) or 0.0 for row in table.rows)
    return [*facts, Fact("total training time", f"{seconds:.0f} s")]


def _name(row: Mapping[str, Value]) -> str:
    return Path(str(row["folder"])).name


def _link(row: Mapping[str, Value], place: Path) -> Link:
    """The run's report if there is one, otherwise its folder; no link if that is not here."""
    folder = Path(str(row["folder"])).resolve()
    target = folder / "report.html"
    there = os.path.relpath(target if target.is_file() else folder, place.resolve())
    return Link(folder.name, quote(Path(there).as_posix()) if folder.is_dir() else "")


def _title(name: str) -> str:
    if name not in _MEASURED:
        return name
    return name.replace("_", " ").replace("seconds", "time [s]") + (" [%]" if name.endswith("accuracy") else "")
