"""The page of a sweep, whose table may come from the folders of its runs."""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from firstspike.config import ConfigError
from firstspike.plots.run_data import left_out
from firstspike.reports.page import Picture, render
from firstspike.runs.folder import RunFolder
from firstspike.runs.seeds import digest
from firstspike.sweeps.table import SweepTable, Value

logger = logging.getLogger(__name__)

_COLUMNS = 24  # at most, of runs that differ in everything


def read_sweep(source: Path) -> tuple[SweepTable, list[Picture]]:
    """Table and figures of a sweep, from its study; of a folder of runs, or without the study, their table alone."""
    if (source / "sweep.json").is_file():
        try:
            from firstspike.sweeps.figures import SWEEP_PLOTS
            from firstspike.sweeps.study import read_study, table_of

            study, folder = read_study(str(source))
        except (OSError, ValueError, ImportError) as error:  # unreachable, needs a password, lacks its driver
            logger.warning("the study of the sweep cannot be reached; the report shows the runs in it: %s", error)
        else:
            drawn = []
            for name, draw in SWEEP_PLOTS.items():
                try:
                    drawn.append(Picture.of(name.capitalize(), draw, draw(study)))
                except Exception as error:
                    left_out(f"figure {name}", error)
            return table_of(study, folder), drawn
    return table_of_runs([RunFolder(file.parent) for file in sorted(source.glob("[!.]*/config.yaml"))]), []


def table_of_runs(runs: Sequence[RunFolder]) -> SweepTable:
    """A row for each run: the keys in which its config differs from the others, and its results if it is finished."""
    configs: list[dict[str, Value]] = [{} for _ in runs]
    for run, config in zip(runs, configs, strict=True):
        with suppress(ConfigError):  # a file that cannot be read has no values
            config |= _leaves("", run.config.model_dump(mode="json"))
    keys = dict.fromkeys(key for config in configs for key in config)
    varied = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)][:_COLUMNS]
    rows: list[dict[str, Value]] = []
    for run, config in zip(runs, configs, strict=True):
        state = "finished" if run.results else "not finished" if config else "config cannot be read"
        row = {"state": state, "folder": str(run.path)} | {key: config.get(key) for key in varied}
        rows.append(row | (digest(run.results) if run.results else {}))
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
    head, shown = table.shown()
    rows = [
        [_link(Path(str(row["folder"])).resolve(), place), *cells] for row, cells in zip(table.rows, shown, strict=True)
    ]
    return render("sweep", None, title=title, head=["run", *head], rows=rows, pictures=pictures)


def _link(folder: Path, place: Path) -> str | dict[str, str]:
    """A link to the run's report if there is one, otherwise to its folder; the name alone if that is not here."""
    report = folder / "report.html"
    there = os.path.relpath(report if report.is_file() else folder, place.resolve())
    return {"text": folder.name, "href": quote(os.fsencode(Path(there).as_posix()))} if folder.is_dir() else folder.name
