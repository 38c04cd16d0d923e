import csv
import logging
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest

from firstspike.runs import start
from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.storage import open_storage
from firstspike.sweeps.study import number_of

SMALL = """
base: bars
set: {data.train: 60, data.validation: 30, data.test: 30, training.epochs: 4, training.checkpoint_every: 1}
axes:
  network[lif:0].out_features: [4, 6]
  training.optimizer.lr: {from: 0.005, to: 0.02, log: true, count: 2}
heartbeat: 1
grace: 2
"""


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    logging.getLogger("optuna").setLevel(logging.NOTSET)


@pytest.fixture
def write_sweep(tmp_path):
    """Writes a sweep's file; lines that are given take the place of those with the same key."""

    def write(text=SMALL, name="small", **changes):
        lines = textwrap.dedent(text).strip().splitlines()
        for key, value in changes.items():
            lines = [line for line in lines if not line.startswith(f"{key}:")] + [f"{key}: {value}"]
        file = tmp_path / f"{name}.yaml"
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


@pytest.fixture
def plan(write_sweep):
    return load_plan(write_sweep())


@pytest.fixture(params=["db", "journal"])
def where(request, tmp_path):
    """A storage of each kind that needs no server."""
    return str(tmp_path / f"study.{request.param}")


@pytest.fixture
def opened():
    """Opens storages, and closes their connections at the end."""
    found = []

    def open_one(where):
        found.append(open_storage(where))
        return found[-1]

    yield open_one
    for storage in found:
        if hasattr(storage, "engine"):
            storage.remove_session()
            storage.engine.dispose()


class Command:
    """The command in processes of its own, in a folder."""

    def __init__(self, folder):
        self.folder, self.started = folder, []

    def start(self, *arguments, before=()):
        line = [*before, sys.executable, "-m", "firstspike", *map(str, arguments)]
        process = subprocess.Popen(
            line, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=400)
        return process.returncode, out, err

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.terminate()  # its workers save and end with it
                process.communicate(timeout=60)


@pytest.fixture
def command(tmp_path):
    found = Command(tmp_path)
    yield found
    found.close()


@pytest.fixture
def until():
    """Waits until something is so, and gives it."""

    def wait(what, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.05)
        raise AssertionError("it never came to be")

    return wait


TWELVE = """
base: yin_yang_w
set: {data.train: 100, data.validation: 40, data.test: 40, training.epochs: 12, training.checkpoint_every: 1}
axes:
  network[lif:0].out_features: [4, 5, 6, 7]
  training.optimizer.lr: {from: 0.005, to: 0.02, log: true, count: 3}
seeds: 5
heartbeat: 1
grace: 4
"""


@pytest.fixture
def twelve(write_sweep):
    """A sweep of twelve trials with five seeds each."""
    return write_sweep(TWELVE, name="twelve")


@pytest.fixture
def busy():
    """The trial that has trained longest among those that run, its run folder and its worker's process."""

    def look(study):
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            metrics = Path(trial.user_attrs.get("folder", "/nowhere")) / "metrics.csv"
            if metrics.is_file() and 4 <= len(metrics.read_text().splitlines()) <= 8:
                return trial, metrics.parent, int(trial.user_attrs["worker"].split(":")[1])
        return None

    return look


@pytest.fixture
def check_twelve():
    """That the table of twelve trials is complete, and the resumed one as if nothing had happened."""

    def check(folder, sweep, study, taken, tmp_path):
        rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
        plan = load_plan(sweep)
        shown = [(int(row["network[lif:0].out_features"]), float(row["training.optimizer.lr"])) for row in rows]
        assert shown == [tuple(params.values()) for params in plan.grid()]
        assert {row["state"] for row in rows} == {"complete"}
        done = [number_of(t) for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
        assert sorted(done) == list(range(12))
        number = number_of(taken)
        assert taken.state is not optuna.trial.TrialState.COMPLETE
        config = plan.config(plan.grid()[number])
        alone = start(tmp_path / "alone", config, progress_bar=False)
        assert len(alone["seeds"]) == 5
        assert float(rows[number]["test_accuracy"]) == alone["test"]["accuracy"]
        assert float(rows[number]["validation_std"]) == alone["validation"]["accuracy_std"]
        assert rows[number]["folder"].endswith(f"{number:04d}-2")
        assert (Path(rows[number]["folder"]) / "metrics.csv").read_text() == (
            tmp_path / "alone" / "metrics.csv"
        ).read_text()

    return check
