"""Trainings that are killed before any step on the disk, and resumed, leave the same folder as undisturbed ones."""

import itertools
import math
import os
import shutil

import pytest
import torch

import firstspike as fs
import python_runs
from firstspike.config import load_config
from firstspike.runs.checkpoint import load_checkpoint, save_checkpoint
from firstspike.runs.files import whole_file
from firstspike.runs.lock import LOCK
from firstspike.runs.writer import RunWriter
from trained import resume, start

TINY = ["data.train=20", "data.validation=10", "data.test=10", "training.batch_size=10", "training.epochs=2"]
RUNS = {
    "each epoch": ["training.checkpoint_every=1"],
    "some epochs": ["training.checkpoint_every=2"],
    "seeds": ["training.checkpoint_every=3", "training.n_seeds=2", "training.epochs=1"],
    "stops early": [
        "training.checkpoint_every=9",
        "training.epochs=9",
        "training.early_stopping={patience: 1, metric: silent_0}",
    ],
}


class Killed(BaseException):
    """Ends a training at once; nothing is written or removed any more."""


class Steps:
    """Counts the steps on the disk that show in a folder, and kills before one of them."""

    def __init__(self, monkeypatch):
        self.left, self.done = math.inf, 0
        for of, name in ((os, "rename"), (os, "replace"), (os, "unlink"), (shutil, "rmtree")):
            monkeypatch.setattr(of, name, self.counted(getattr(of, name)))

    def counted(self, function):
        def step(path, *arguments, **options):
            if os.path.basename(path) != LOCK:  # the system frees it, whoever is killed
                if self.left <= 0:
                    raise Killed
                self.left -= 1
                self.done += 1
            return function(path, *arguments, **options)

        return step

    def kill_before(self, number):
        self.left = number

    def live(self):
        self.left = math.inf


@pytest.fixture
def steps(monkeypatch):
    return Steps(monkeypatch)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_wherever_it_is_killed(tmp_path, steps, name):
    config = load_config("bars", [*TINY, *RUNS[name]])
    start(tmp_path / "whole", config, progress_bar=False)
    assert any(path.startswith("epoch") for path in os.listdir(next((tmp_path / "whole").rglob("checkpoints"))))
    for number in range(steps.done):
        run = tmp_path / f"{number}"
        steps.kill_before(number)
        with pytest.raises(Killed):
            start(run, config, progress_bar=False)
        steps.live()
        if (run / "config.yaml").is_file():
            resume(run, progress_bar=False)
        else:
            start(run, config, progress_bar=False)
        assert names(run) == names(tmp_path / "whole"), number
        for table in (tmp_path / "whole").rglob("metrics.csv"):
            assert (run / table.relative_to(tmp_path / "whole")).read_bytes() == table.read_bytes()
        for checkpoint in (tmp_path / "whole").rglob("epoch_*"):
            mine, other = load_checkpoint(run / checkpoint.relative_to(tmp_path / "whole")), load_checkpoint(checkpoint)
            assert all(torch.equal(mine.weights[key], other.weights[key]) for key in other.weights)


def test_a_kill_while_a_regular_checkpoint_follows_the_best(tmp_path, steps):
    config = load_config("bars", [*TINY, *RUNS["each epoch"]])
    start(tmp_path / "run", config, progress_bar=False)
    checkpoints = tmp_path / "run" / "checkpoints"
    before = names(tmp_path / "run")
    (best,) = checkpoints.glob("best_*")
    for path in checkpoints.glob("epoch_*"):
        if path.name[-4:] >= best.name[-4:]:
            path.rename(path.with_name(f".{path.name}.partial"))
    shutil.copytree(best, checkpoints / ".best_0001.leaving")
    resume(tmp_path / "run", progress_bar=False)
    assert names(tmp_path / "run") == before


def train_on_own(folder, data, **options):
    network = python_runs.network(6, 4, 3)
    trainer = fs.Trainer(network, fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters()))
    return trainer.fit(data, data, test=data, epochs=1, batch_size=15, folder=folder, progress_bar=False, **options)


def test_the_copy_of_own_data_is_whole_or_not_there(tmp_path, steps):
    data = python_runs.data()
    train_on_own(tmp_path / "whole", data)
    assert names(tmp_path / "whole" / "data") == ["test.npz", "train.npz", "validation.npz"]
    torn = 0
    for number in itertools.count():
        run = tmp_path / f"{number}"
        steps.kill_before(number)
        with pytest.raises(Killed):
            train_on_own(run, data)
        steps.live()
        if (run / "data").exists():
            assert names(run / "data") == names(tmp_path / "whole" / "data")
            break
        torn += (run / ".data.partial").exists()
        train_on_own(run, data, resume=(run / "config.yaml").is_file())
        assert names(run) == names(tmp_path / "whole")
    assert torn


def test_without_a_copy_own_data_are_asked_for(tmp_path, steps, monkeypatch):
    system = shutil.rmtree
    monkeypatch.setattr(RunWriter, "_captured", lambda *_: steps.kill_before(0))
    with pytest.raises(Killed):
        train_on_own(tmp_path / "run", python_runs.data())
    steps.live()
    monkeypatch.undo()
    data = fs.Run(tmp_path / "run").data
    assert [len(part) for part in data] == [45] * 3
    system(tmp_path / "run" / "data")
    with pytest.raises(ValueError, match="hand them over"):
        resume(tmp_path / "run", progress_bar=False)


def test_a_run_beside_a_folder_of_that_name_takes_its_own_data(tmp_path, steps):
    train_on_own(tmp_path / "other", python_runs.data())
    shutil.copytree(tmp_path / "other" / "data", tmp_path / "data")
    start(tmp_path / "run", load_config("bars", [*TINY, "training.epochs=1"]), progress_bar=False)
    assert fs.Run(tmp_path / "run").data.train.features == 9


def test_a_copy_that_is_there_is_not_written_again(tmp_path, steps):
    data = python_runs.data()
    train_on_own(tmp_path / "run", data)
    before = (tmp_path / "run" / "data" / "train.npz").stat().st_ino
    resume(tmp_path / "run", epochs=2, progress_bar=False)
    assert (tmp_path / "run" / "data" / "train.npz").stat().st_ino == before
    resume(tmp_path / "run", epochs=3, progress_bar=False, data=fs.data.Splits(data, data, data.empty()))
    assert names(tmp_path / "run" / "data") == ["train.npz", "validation.npz"]


def test_a_whole_file_and_checkpoint_in_place_of_old_ones(tmp_path, steps):
    checkpoint = fs.runs.checkpoint.Checkpoint(1, 0, {"w": torch.ones(2)}, {"a": 1})
    save_checkpoint(tmp_path / "epoch_0001", checkpoint)
    save_checkpoint(tmp_path / "epoch_0001", checkpoint)
    with whole_file(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert names(tmp_path)[0] == "epoch_0001"
    assert load_checkpoint(tmp_path / "epoch_0001").state == {"a": 1}
