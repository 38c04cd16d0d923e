import csv
import logging
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest

from firstspike.sweeps.plan import load_plan
from firstspike.sweeps.study import TRIAL, open_storage, storage_url, trials_of
from forked import Forked
from trained import start

SMALL = """
base: bars
set: {data.train: 60, data.validation: 30, data.test: 30, training.epochs: 4, training.checkpoint_every: 1}
axes:
  network[lif:0].out_features: [4, 6]
  training.optimizer.lr: {from: 0.005, to: 0.02, log: true, count: 2}
heartbeat: 1
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


@pytest.fixture
def opened():
    """Opens storages, and closes their connections at the end."""
    found = []

    def open_one(where, heartbeat=None):
        url = str(where) if "://" in str(where) else f"sqlite:///{where}"
        found.append(open_storage(storage_url(url, Path()), heartbeat))
        return found[-1]

    yield open_one
    for storage in found:
        storage.remove_session()
        storage.engine.dispose()


class Command:
    """The command in processes of its own, in a folder."""

    def __init__(self, folder):
        self.folder, self.started = folder, []

    def start(self, *arguments, before=()):
        if before:
            line = [*before, sys.executable, "-m", "firstspike", *map(str, arguments)]
            process = subprocess.Popen(
                line, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        else:
            process = Forked(*arguments, cwd=self.folder)
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


SIX = """
base: yin_yang_w
set: {data.train: 100, data.validation: 40, data.test: 40, training.epochs: 24, training.checkpoint_every: 1}
axes:
  network[lif:0].out_features: [4, 5]
  training.optimizer.lr: {from: 0.005, to: 0.02, log: true, count: 3}
seeds: 2
heartbeat: 2
"""


@pytest.fixture
def six(write_sweep):
    """A sweep of six trials with two seeds each."""
    return write_sweep(SIX, name="six")


@pytest.fixture
def study_of(opened, until):
    """A study in a storage, once it is there."""

    def load(where, name="six"):
        if "://" not in str(where):
            until(Path(where).is_file)
        storage = opened(where)
        until(lambda: name in optuna.get_all_study_names(storage))
        return optuna.load_study(study_name=name, storage=storage)

    return load


@pytest.fixture
def busy(until, tmp_path):
    """Waits for a trial that has trained some of its epochs; gives it and its worker's process."""

    def look(study, besides=()):
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            number = trial.user_attrs[TRIAL]
            metrics = next((tmp_path / "runs").glob(f"*/{number:04d}/metrics.csv"), tmp_path / "nothing")
            worker = int(trial.user_attrs.get("worker", ":0").split(":")[1])
            if worker not in besides and metrics.is_file() and 3 <= len(metrics.read_text().splitlines()) <= 20:
                return trial, worker
        return None

    return lambda study, besides=(): until(lambda: look(study, besides))


@pytest.fixture
def check_six(tmp_path):
    """That the table has six results, each once, and the resumed trial's are as if nothing had happened."""

    def check(sweep, study, *taken):
        folder, plan = tmp_path / "runs" / "six", load_plan(sweep)
        rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
        shown = [(int(row["network[lif:0].out_features"]), float(row["training.optimizer.lr"])) for row in rows]
        assert shown == [tuple(params.values()) for params in plan.trials()]
        assert {row["state"] for row in rows} == {"complete"}
        assert len(trials_of(study)) == 6
        assert len([path for path in folder.iterdir() if path.name.isdigit()]) == 6
        for trial in taken:
            assert study.trials[trial.number].state is optuna.trial.TrialState.FAIL
        row, alone = rows[taken[0].user_attrs[TRIAL]], tmp_path / "alone"
        results = start(alone, plan.config(plan.trials()[int(row["trial"])]), progress_bar=False)
        assert float(row["test_accuracy"]) == results["test"]["accuracy"]
        assert float(row["validation_std"]) == results["validation"]["accuracy_std"]
        assert (tmp_path / row["folder"] / "metrics.csv").read_text() == (alone / "metrics.csv").read_text()

    return check
