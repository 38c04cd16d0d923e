"""A sweep as a table: a row for each point, for people and as CSV."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from firstspike.sweeps.config import Sweep
from firstspike.sweeps.folder import RUNS, sweep_folder
from firstspike.sweeps.storage import answering, file_of, open_storage, storage_url, without_password
from firstspike.sweeps.study import ERROR, FOLDER, RESULTS, WORKER, Attempts, survey
from firstspike.training.files import write_whole

_NUMBERS = (
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


@dataclass(frozen=True)
class Row:
    """A point.

    Args:
        number: of the point.
        state: ``complete``, ``pruned``, ``failed``, ``running``, ``waiting`` or ``open``.
        values: of the axes, as far as they are known.
        results: of a complete point; accuracies are means over the seeds, and their standard deviations.
        reason: why it failed.
        folder: of its run.
        worker: machine and process.
        started: its place in the order in which points were begun.
    """

    number: int
    state: str
    values: dict[str, Any]
    results: dict[str, Any]
    reason: str
    folder: str
    worker: str
    started: int


@dataclass(frozen=True)
class Table:
    """A sweep's points; ``sweep`` is its description."""

    name: str
    sweep: Sweep
    rows: list[Row]

    @property
    def axes(self) -> list[str]:
        """Keys of the axes."""
        return list(self.sweep.axes)

    def csv(self) -> str:
        """All columns, accuracies as fractions."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["point", "state", *self.axes, *_NUMBERS, "folder", "worker", "reason"])
        for row in self.rows:
            values = [worded(row.values.get(key, "")) for key in self.axes]
            numbers = [_blank(row.results.get(key)) for key in _NUMBERS]
            writer.writerow([row.number, row.state, *values, *numbers, row.folder, row.worker, row.reason])
        return text.getvalue()

    def text(self) -> str:
        """A few columns, in percent."""
        head = ["point", *self.axes, "validation %", "test %", "parameters", "seconds", "run"]
        lines = [head, *(self._line(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(x, widths, strict=True)).rstrip() for x in lines]
        failed = [f"point {row.number} failed: {row.reason.splitlines()[0]}" for row in self.rows if row.reason]
        return "\n".join(shown + failed)

    def _line(self, row: Row) -> list[str]:
        values = [_short(row.values.get(key, "")) for key in self.axes]
        found = row.results
        if not found:
            return [str(row.number), *values, row.state, "", "", "", _near(row.folder)]
        accuracies = [_percent(found[f"{split}_accuracy"], found[f"{split}_std"]) for split in ("validation", "test")]
        numbers = [str(found["parameters"]), f"{found['seconds']:.1f}"]
        return [str(row.number), *values, *accuracies, *numbers, _near(row.folder)]

    def write(self, folder: Path) -> Path:
        """``table.csv`` in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "table.csv", self.csv())
        return folder / "table.csv"


def read_study(name: str, storage: str | None = None, runs: Path = RUNS) -> tuple[optuna.Study, Path]:
    """The study of a sweep, and the sweep's folder.

    Args:
        name: of the study, or the folder of its sweep.
        storage: where it lives; by default what the folder says.
        runs: where folders of names are.

    Raises:
        FileNotFoundError: there is no such folder or study.
        ValueError: the folder does not say where the study lives.
        ConnectionError: the storage does not answer.
    """
    folder = sweep_folder(name, runs)
    where = storage
    if folder is not None:
        try:
            said = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            name, kept = str(said["name"]), said["storage"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'sweep.json'} is damaged ({type(error).__name__}: {error})") from None
        where = storage or (str(folder / kept) if kept == "study.db" else kept)
        if where is None:
            raise ValueError(f"{folder} does not say where its study lives, as that has a password; give --storage")
    if where is None:
        raise FileNotFoundError(f"{name}: there is no sweep of this name in {runs}, and no --storage is given")
    url = storage_url(where)
    file = file_of(url)
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        with answering(url):
            study = optuna.load_study(study_name=name, storage=open_storage(url, 20, 120))
    except KeyError:
        raise FileNotFoundError(f"{without_password(url)} has no study {name}") from None
    return study, folder or runs / name


def table_of(study: optuna.Study) -> Table:
    """The table of a study that a sweep made.

    Raises:
        FileNotFoundError: it is another one.
    """
    content = study.user_attrs.get("sweep")
    if content is None:
        raise FileNotFoundError(f"the study {study.study_name} is of no sweep")
    sweep = Sweep.model_validate(content["sweep"])
    known = [trial.user_attrs.get("point", -1) for trial in study.get_trials(deepcopy=False)]
    points = survey(study, max(known, default=-1) + 1)
    return Table(study.study_name, sweep, [_row(point) for point in points if point.trials])


def _row(point: Attempts) -> Row:
    trial = point.last
    assert trial is not None, "a point in the table has a trial"
    error = point.error
    state = "failed" if error else "open" if point.open else trial.state.name.lower()
    said = trial.user_attrs
    return Row(
        number=point.number,
        state=state,
        values=trial.params or trial.system_attrs.get("fixed_params", {}),
        results=said.get(RESULTS, {}) if state == "complete" else {},
        reason=error or (said.get(ERROR, "") if state == "failed" else ""),
        folder=said.get(FOLDER, ""),
        worker=said.get(WORKER, ""),
        started=trial.number,
    )


def _near(folder: str) -> str:
    """The path from here if it is inside."""
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if folder and path.is_relative_to(Path.cwd()) else folder


def _percent(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.2f}" + ("" if spread is None else f" +- {100 * spread:.2f}")


def worded(value: Any) -> Any:
    """A value of an axis where None, which tables leave empty, is the word for it in a sweep's file."""
    return "null" if value is None else value


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(worded(value))


def _blank(value: Any) -> Any:
    return "" if value is None else value


def failures(points: Sequence[Attempts]) -> int:
    """How many points failed."""
    return sum(point.error is not None for point in points)
