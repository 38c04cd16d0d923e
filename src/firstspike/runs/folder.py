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
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from firstspike._version import __version__
from firstspike.config import Config, load_config
from firstspike.data import Splits
from firstspike.runs.files import named, write_whole
from firstspike.training import Row
from firstspike.training.torchrun import processes

class RunFolder:
    """The folder of one training. Files are written whole, or line by line where a torn last line does no harm.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            FileNotFoundError: the folder does not hold a run.
        """
        if not (path / "config.yaml").is_file():
            raise FileNotFoundError(f"{path} is not a run folder: config.yaml is missing")
        return cls(path)

    def create(
        self, config: Config, substrate: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        """Make the folder with what is known before the first epoch.

        Args:
            config: as it will run.
            substrate: the identity of the substrate that it will run on; by default its kind alone.
            data: the checksum of its data.

        Raises:
            FileExistsError: the folder is not empty.
        """
        path = self.path
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(f"{path} is not empty; choose another --out, or continue it with: firstspike resume")
        fresh = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            self.write_config(config)
            write_whole(path / "environment.json", json.dumps(environment(config, substrate, data), indent=1) + "\n")
        except OSError:  # a half-made folder would block the next attempt
            (path / "config.yaml").unlink(missing_ok=True)
            if fresh:
                path.rmdir()
            raise

    def continue_from(
        self, epoch: int, config: Config, substrate: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        """Prepare the folder of a training that continues after an epoch.

        Args:
            epoch: whole epochs done; rows of later ones are dropped.
            config: as it continues, perhaps with more epochs.
            substrate: the identity of the substrate that it continues on.
            data: the checksum of its data.
        """
        if config.training.epochs != self.config.training.epochs:
            self.write_config(config)
        self._drop_rows_after(epoch)
        if self.environment.get("substrate") != substrate["kind"]:  # early runs name the kind alone
            self._note("substrate", "earlier_substrates", substrate)
        self._note("data", "earlier_data", data)

    @property
    def config(self) -> Config:
        """The config as it ran."""
        return load_config(self.path / "config.yaml", read_tables=False)  # the folder may hold a copy

    def write_config(self, config: Config) -> None:
        """Write ``config.yaml``."""
        write_whole(self.path / "config.yaml", config.to_yaml())

    def _note(self, key: str, history: str, value: Mapping[str, Any]) -> None:
        """Replace an entry of ``environment.json``, if it has changed; what was there before is kept."""
        found = self.environment
        before = found.get(key)
        if before != value:
            earlier = [*found.get(history, []), *([] if before is None else [before])]
            found |= {key: dict(value), history: earlier}
            write_whole(self.path / "environment.json", json.dumps(found, indent=1) + "\n")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def environment(self) -> dict[str, Any]:
        """Contents of ``environment.json``; empty where it is missing."""
        return self._read_json("environment.json")

    @property
    def results(self) -> dict[str, Any]:
        """Contents of ``results.json``; empty before the end of the training."""
        return self._read_json("results.json")

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

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
        """The columns of ``metrics`` or ``output_times``; empty where nothing was written yet."""
        path = self.path / f"{table}.csv"
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row.values() and None not in row]
        return {name: [float(row[name]) for row in rows] for name in reader.fieldnames or ()}

    def _drop_rows_after(self, epoch: int) -> None:
        """Drop the rows of later epochs, and a torn last line."""
        for table in ("metrics", "output_times"):
            path = self.path / f"{table}.csv"
            if not path.is_file():
                continue
            head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
            if not head.endswith("\n"):  # the disk was full before the first row
                path.unlink()
                continue
            width = head.count(",")
            kept = [x for x in lines if x.endswith("\n") and x.count(",") == width and int(x.split(",")[0]) <= epoch]
            write_whole(path, "".join([head, *kept]))


def environment(
    config: Config, substrate: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a run depends on, beside its config.

    Args:
        config: as it runs.
        substrate: the identity of its substrate; by default the kind alone.
        data: the checksum of its data.
    """
    import torch

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


def changed_data(run: RunFolder, data: Splits) -> str:
    """A line that says how the data differ from those of the training; empty if they are not known to."""
    try:
        found = data.differences(run.environment.get("data"))
    except ValueError:  # environment.json is damaged; only those who need it say so
        return ""
    return f"{run.path}: the data are not those that the run was trained on: {'; '.join(found)}" if found else ""


def next_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first free number behind it."""
    path, number = parent / name, 2
    while path.exists():
        path, number = parent / f"{name}-{number}", number + 1
    return path


def _commit() -> str | None:
    """The commit of the package's own source, where it runs from a checkout."""
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
