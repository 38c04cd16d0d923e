"""A run folder: everything that one training leaves.

config.yaml         as it ran, defaults written out
environment.json    versions, command, seed, device, substrate, checksum of the data
metrics.csv         a row an epoch
output_times.csv    mean and spread of each output's spike time per class, on the validation data, per epoch
checkpoints/        weights and state of the training
results.json        accuracy on the test data, once it is done
data/               a copy of small data of your own
evaluation/ spikes/ results of ``firstspike evaluate``, and the spike times of every layer (firstspike.runs.evaluate)
figures/            figures
tensorboard/        the log of ``--tensorboard``
report.html         the report of ``firstspike report``
"""

import csv
import itertools
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from firstspike._version import __version__
from firstspike.config import Config, load_config
from firstspike.config.yaml_file import Place, shown_place, shown_value
from firstspike.data import Splits
from firstspike.runs.checkpoint import remove_others
from firstspike.runs.files import remove_empty, remove_leftovers, with_file_name, write_whole
from firstspike.runs.forms import Environment, JsonForm, Results, read_json
from firstspike.runs.lock import HOLDER, LOCK
from firstspike.torchrun import processes, rank
from firstspike.training.fit import Row

_TABLES = ("metrics", "output_times")
_FREE = {("training", name) for name in ("epochs", "checkpoint_every", "device")}  # as they change no result


class RunFolder:
    """The folder of one training. Files are written whole, or line by line if a torn last line is harmless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run; a FileNotFoundError if the folder holds none."""
        if not (path / "config.yaml").is_file():
            missing = "config.yaml is missing" if path.is_dir() else "it does not exist"
            if (path / "sweep.json").is_file():
                missing = f"it is a sweep, whose runs are {path / '0000'} and so on"
            elif first := min(path.glob("*/config.yaml"), default=None):
                missing = f"it holds runs, {first.parent} and so on"
            raise FileNotFoundError(f"{path} is not a run folder: {missing}")
        return cls(path)

    def create(
        self, config: Config, substrate: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        """Create the folder with the files that exist before the first epoch.

        They hold the identity of the substrate, by default its kind alone, and the checksum of the data.
        """
        path = self.path
        check_free(path)
        fresh = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        try:
            write_whole(path / "config.yaml", config.to_yaml())
            self.write("environment", environment(config, substrate, data))
        except OSError:  # a half-made folder would block the next attempt
            (path / "config.yaml").unlink(missing_ok=True)
            if fresh:
                path.rmdir()
            raise

    def continue_from(
        self, epoch: int | None, config: Config, substrate: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        """Prepare the folder of a training that continues after an epoch, or for None starts over.

        Rows of later epochs are dropped, and of a changed substrate or other data, those before are noted. For a
        damaged file it raises a ValueError.
        """
        found = self.environment
        for key, history, value in (("substrate", "earlier_substrates", substrate), ("data", "earlier_data", data)):
            if (before := found.get(key)) != value:
                earlier = [] if before is None else [before]
                found |= {key: dict(value), history: [*found.get(history, []), *earlier]}
        if found != self.environment:
            self.write("environment", found)
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)
        if epoch is None:
            remove_others(self.checkpoints)
        self.drop_rows_after(epoch)
        if config != self.config:
            write_whole(self.path / "config.yaml", config.to_yaml())

    @property
    def config(self) -> Config:
        """The config as it ran."""
        return load_config(self.path / "config.yaml", read_tables=False)  # the folder may hold a copy

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def environment(self) -> dict[str, Any]:
        """Contents of ``environment.json``; empty if it is missing, a ValueError if it is damaged."""
        return self._read("environment", Environment)

    @property
    def results(self) -> dict[str, Any]:
        """Contents of ``results.json``; empty before the end of the training, a ValueError if it is damaged."""
        return self._read("results", Results)

    def _read(self, name: str, form: type[JsonForm]) -> dict[str, Any]:
        path = self.path / f"{name}.json"
        return read_json(path, form) if path.is_file() else {}

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``NAME.json``."""
        write_whole(self.path / f"{name}.json", json.dumps(content, indent=1) + "\n")

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Add rows to ``table`` (``metrics`` or ``output_times``)."""
        rows = list(rows)
        path = self.path / f"{table}.csv"
        with with_file_name(path):
            names = _names(path)
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, names or rows[0].keys(), lineterminator="\n")
                if not names:
                    writer.writeheader()
                writer.writerows(rows)

    def check_columns(self, columns: Iterable[str]) -> None:
        """Raise a ValueError if the table of metrics has other columns, in whatever order."""
        path, names = self.path / "metrics.csv", set(columns)
        found = set(_names(path)) or names
        if differ := [f"lacks {x}" for x in sorted(names - found)] + [f"has {x}" for x in sorted(found - names)]:
            raise ValueError(
                f"{path} {', '.join(differ)}, unlike this training: continue with the metrics and validation data that "
                "it began with, or remove the file to continue without its rows"
            )

    def table(self, table: str) -> dict[str, list[float]]:
        """The columns of ``metrics`` or ``output_times``, empty before the first rows; a ValueError if damaged."""
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

    def drop_rows_after(self, epoch: int | None) -> None:
        """Drop the rows of later epochs, all for None, and a torn last line.

        If another line is damaged it raises a ValueError, and drops nothing.
        """
        tables = {path: _rows_until(epoch, path) for name in _TABLES if (path := self.path / f"{name}.csv").exists()}
        for path, rows in tables.items():
            if rows:
                write_whole(path, "".join(rows))
            else:  # also if the disk was full before the first row
                path.unlink()


def _names(path: Path) -> list[str]:
    """The columns of a table; none before its first line is whole."""
    with suppress(FileNotFoundError), path.open(newline="", encoding="utf-8", errors="replace") as file:
        if (head := file.readline(1 << 16)).endswith("\n"):
            return next(csv.reader([head]))
    return []


def _rows_until(epoch: int | None, path: Path) -> list[str]:
    """The head and the rows of a table up to an epoch, without a torn last line; nothing if the head is torn."""
    if epoch is None:
        return []
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
        raise ValueError(f"{path} is damaged: {error}. Repair it, or remove it to continue without its rows") from None
    return rows


def check_free(path: Path) -> None:
    """Raise a FileExistsError if a new run may not use a folder: it is not empty, or a file."""
    # of a training that was killed, or of the one that asks
    beginnings = {path / LOCK, path / HOLDER, *path.glob(".config.yaml.*.partial")}
    if path.exists() and (not path.is_dir() or not beginnings.issuperset(path.iterdir())):
        raise FileExistsError(f"{path} is not empty; choose another --out, or continue it with: firstspike resume")


def changed_data(run: RunFolder, data: Splits) -> str:
    """One line on how the data differ from those of the training; empty if no difference is known."""
    try:
        found = data.differences(run.environment.get("data"))
    except ValueError:  # environment.json is damaged, which is an error only where it is needed
        return ""
    return f"{run.path}: the data are not those that the run was trained on: {'; '.join(found)}" if found else ""


def changed_settings(run: RunFolder, config: Config) -> str:
    """One line on how a config differs from the run's, other than in its data; empty if it does not."""
    now, before = (each.model_dump(mode="json", exclude={"data"}) for each in (config, run.config))
    found = list(_differences(now, before))
    more = [f"and {len(found) - 5} more"] if len(found) > 5 else []
    return f"{run.path}: the training continues with other settings: {'; '.join(found[:5] + more)}" if found else ""


def _differences(now: Any, before: Any, place: Place = ()) -> Iterator[str]:
    if isinstance(now, dict) and isinstance(before, dict) and now.get("kind") == before.get("kind"):
        for key in now | before:
            yield from _differences(now.get(key), before.get(key), (*place, key))
    elif isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        for number, pair in enumerate(zip(now, before, strict=True)):
            yield from _differences(*pair, (*place, number))
    elif now != before and place not in _FREE:
        is_now, was = (shown_value(x.get("kind", x) if isinstance(x, dict) else x) for x in (now, before))
        yield f"{shown_place(place)} is {is_now}, was {was}"


def next_folder(parent: Path, name: str) -> Path:
    """Make ``parent/name``, or with the first free number after it. No two processes get the same one."""
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


@contextmanager
def run_folder(out: Path | None, name: str) -> Iterator[Path]:
    """The folder of a new run: ``out``, or by default ``runs/name``, see ``next_folder``.

    A folder that was made here and is still empty at the end is removed. Of processes that train together the first one
    makes the folder, and only that one uses it.
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


def environment(
    config: Config, substrate: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Versions, machine and data on which a run depends, besides its config."""
    packages = ("torch", "numpy", "numba", "safetensors", "pydantic")
    return {
        "firstspike": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "processes": processes(),
        "device": config.training.device,
        "dtype": config.training.dtype,
        "seed": config.training.seed,
        "substrate": dict(substrate or {"kind": config.substrate.kind}),
        "command": sys.argv,
        **({} if data is None else {"data": dict(data)}),
    }


def _commit() -> str | None:
    """The commit of the package's own source, if it runs from a checkout."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
