"""A run: the folder that one training lives in.

config.yaml         as it ran, defaults written out
environment.json    versions, command, seed, device, substrate
metrics.csv         a row an epoch
output_times.csv    mean and spread of each output's spike time per class, on the validation data, per epoch
checkpoints/        weights and state of the training
results.json        accuracy on the test data, once it is done
evaluation/ spikes/ what ``firstspike evaluate`` found, and the spike times of every layer (firstspike.training.report)
figures/            what the plots drew
tensorboard/        what ``--tensorboard`` logged
report.html         what ``firstspike report`` wrote
"""

import csv
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from firstspike.training.config import Config, load_config
from firstspike.training.environment import environment
from firstspike.training.files import named, remove_empty, write_whole
from firstspike.training.forms import ENVIRONMENT, read_json, results_form
from firstspike.training.lock import LOCK
from firstspike.training.torchrun import rank

Row = dict[str, float | int | str]

_TABLES = ("metrics", "output_times")


class Run:
    """The folder of one training. Files are written whole, or line by line where a torn last line does no harm."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Config, substrate: Mapping[str, Any] | None = None) -> "Run":
        """Make the folder with what is known before the first epoch.

        Args:
            path: the folder.
            config: as it will run.
            substrate: the identity of what it will run on; by default its kind alone.

        Raises:
            FileExistsError: there is something in the folder already.
        """
        check_free(path)
        fresh = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        try:
            run.write_config(config)
            write_whole(path / "environment.json", json.dumps(environment(config, substrate), indent=1) + "\n")
        except OSError:  # half a beginning would only stand in the way of the next attempt
            (path / "config.yaml").unlink(missing_ok=True)
            if fresh:
                path.rmdir()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run.

        Raises:
            FileNotFoundError: no run lives there.
        """
        if not (path / "config.yaml").is_file():
            raise FileNotFoundError(f"{path} is no run: it has no config.yaml")
        return cls(path)

    @property
    def config(self) -> Config:
        """The config as it ran."""
        return load_config(self.path / "config.yaml")

    def write_config(self, config: Config) -> None:
        """Write ``config.yaml``."""
        write_whole(self.path / "config.yaml", config.to_yaml())

    def note_substrate(self, identity: Mapping[str, Any]) -> None:
        """Write into ``environment.json`` what the run goes on on, if it is another substrate than before."""
        path = self.path / "environment.json"
        found = self.environment
        before = found.get("substrate")
        if before not in (identity, identity["kind"]):  # runs of before there was more than one name the kind alone
            earlier = [*found.get("earlier_substrates", []), *([] if before is None else [before])]
            found |= {"substrate": dict(identity), "earlier_substrates": earlier}
            write_whole(path, json.dumps(found, indent=1) + "\n")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def environment(self) -> dict[str, Any]:
        """What ``environment.json`` says; empty where there is none.

        Raises:
            ValueError: it is damaged.
        """
        path = self.path / "environment.json"
        return read_json(path, ENVIRONMENT) if path.is_file() else {}

    @property
    def results(self) -> dict[str, Any]:
        """What ``results.json`` says; empty before the end of the training.

        Raises:
            ValueError: it is damaged.
        """
        path = self.path / "results.json"
        return read_json(path, results_form) if path.is_file() else {}

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write ``results.json``."""
        write_whole(self.path / "results.json", json.dumps(results, indent=1) + "\n")

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Add rows to ``table`` (``metrics`` or ``output_times``)."""
        rows = list(rows)
        path = self.path / f"{table}.csv"
        try:
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                if not file.tell():
                    writer.writeheader()
                writer.writerows(rows)
        except OSError as error:
            raise named(error, path) from error

    def table(self, table: str) -> dict[str, list[float]]:
        """The columns of ``metrics`` or ``output_times``; empty where nothing was written yet.

        Raises:
            ValueError: it is damaged.
        """
        path = self.path / f"{table}.csv"
        if not path.is_file():
            return {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if None not in row.values() and None not in row]
            columns = {name: [float(row[name]) for row in rows] for name in reader.fieldnames or ()}
            if rows and not all(map(float.is_integer, columns.get("epoch", [math.nan]))):
                raise ValueError("it has no column of epochs")
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        return columns

    def forget_after(self, epoch: int) -> None:
        """Drop the rows of later epochs, and a torn last line.

        Raises:
            ValueError: another line is damaged; nothing was dropped.
        """
        tables = {path: _rows_until(epoch, path) for name in _TABLES if (path := self.path / f"{name}.csv").exists()}
        for path, rows in tables.items():
            if rows:
                write_whole(path, "".join(rows))
            else:  # the disk was full before the first row
                path.unlink()

    def remove_tables(self) -> None:
        """Drop all rows, whatever is in them."""
        for name in _TABLES:
            (self.path / f"{name}.csv").unlink(missing_ok=True)


def _rows_until(epoch: int, path: Path) -> list[str]:
    """The head and the rows of a table up to an epoch, without a torn last line; nothing where the head is torn."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        if not head.endswith("\n"):
            return []
        rows = [head]
        for number, line in enumerate(lines, 2):
            torn = not line.endswith("\n") or line.count(",") != head.count(",")
            if torn and number < len(lines) + 1:
                raise ValueError(f"line {number} has other columns than the first")
            if not torn and int(line.split(",")[0]) <= epoch:
                rows.append(line)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Mend it, or remove it to go on without its rows") from None
    return rows


def check_free(path: Path) -> None:
    """Whether a new run may live there.

    Raises:
        FileExistsError: there is something in the folder already, or it is a file.
    """
    beginnings = (LOCK, ".config.yaml.partial")  # of a training that was killed, or of the one that asks
    if path.exists() and (not path.is_dir() or any(entry.name not in beginnings for entry in path.iterdir())):
        raise FileExistsError(f"{path} is not empty; choose another --out, or continue it with: firstspike resume")


def next_folder(parent: Path, name: str) -> Path:
    """Make ``parent/name``, or with the first free number after it; no two processes get the same one."""
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


@contextmanager
def run_folder(out: Path | None, name: str) -> Iterator[Path]:
    """Where a new run shall live: ``out``, or by default ``runs/name``, see ``next_folder``.

    What was made here and is still empty at the end is removed. Of processes that train together the first one makes
    the folder, and only that one uses it.
    """
    if out is not None or rank():
        yield out or Path("runs", name)
        return
    parent = Path("runs")
    made = [] if parent.exists() else [parent]
    folder = next_folder(parent, name)
    try:
        yield folder
    finally:
        remove_empty([folder, *made])
