"""Which checkpoint is the best, and that a resumed training knows."""

import csv
import math

import pytest
import torch

from firstspike.config import build, build_data, load_config
from firstspike.runs.checkpoint import checkpoints, load_checkpoint, newest_first
from firstspike.runs.writer import RunWriter
from firstspike.training import Callback, Evaluation, Interrupted
from firstspike.training.member import Progress
from trained import resume, start

# nine samples to validate on: equal accuracies are common
TIES = ["data.train=60", "data.validation=9", "data.test=9", "training.epochs=24", "training.checkpoint_every=5"]


def best_epoch(folder):
    """What the table says: the highest accuracy, of several the lowest loss."""
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    rows = [(float(x["validation_accuracy"]), -float(x["validation_loss"]), int(x["epoch"])) for x in table]
    accuracies = [accuracy for accuracy, *_ in rows]
    assert max(accuracies) > accuracies[0]
    assert accuracies.index(max(accuracies)) + 1 < max(rows)[2], "the first of equals would do as well"
    return max(rows)[2]


def saved_as_best(folder):
    return [load_checkpoint(path) for path in checkpoints(folder / "checkpoints") if path.name.startswith("best_")]


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_best_has_the_lowest_loss_among_equal_accuracies(tmp_path, seeds):
    start(tmp_path / "run", load_config("bars", [*TIES, f"training.n_seeds={seeds}"]), progress_bar=False)
    for folder in [tmp_path / "run"] if seeds == 1 else [tmp_path / "run" / f"seed_{2000 + k}" for k in range(seeds)]:
        (best,) = saved_as_best(folder)
        assert best.epoch == best_epoch(folder)
        assert best.state["progress"]["best_loss"] == pytest.approx(loss_of(folder, best))


def loss_of(folder, checkpoint):
    config = load_config(str(folder / "config.yaml"))
    trainer, data = build(config), build_data(config)
    trainer.network.load_state_dict(checkpoint.weights)
    return trainer.evaluate(data.validation).loss


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [13, 33, 41])
def test_a_resumed_training_has_the_same_best(tmp_path, stop_after):
    config = load_config("bars", TIES)
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked) >= stop_after)
    (before,) = saved_as_best(tmp_path / "parts")
    assert (
        before.state["progress"]["best_loss"]
        == load_checkpoint(checkpoints(tmp_path / "parts" / "checkpoints")[-1]).state["progress"]["best_loss"]
    )
    resume(tmp_path / "parts", progress_bar=False)
    (one,), (other,) = (saved_as_best(tmp_path / name) for name in ("whole", "parts"))
    assert one.epoch == other.epoch == best_epoch(tmp_path / "whole")
    assert all(one.weights[name].equal(other.weights[name]) for name in one.weights)


def evaluation(accuracy, loss):
    nothing = torch.zeros(0)
    return Evaluation(loss, accuracy, (), nothing, nothing, nothing)


def test_which_evaluation_is_better():
    state = Progress()
    found = [(0.5, 2.0), (0.5, 2.0), (0.5, 3.0), (0.5, 1.0), (0.4, 0.1), (0.6, 9.0), (0.6, math.nan), (0.6, 8.0)]
    assert [state.improve(evaluation(*x)) for x in found] == [True, False, False, True, False, True, False, True]
    assert (state.best, state.best_loss) == (0.6, 8.0)


def bests_of_epochs(folder):
    """For each epoch whether it was better, the best networks on disk, and those that wait."""
    config = load_config("bars", [*TIES, "training.checkpoint_every=24"])
    data, callback = build_data(config), RunWriter(folder, config)
    found = []

    class Look(Callback):
        essential = True

        def on_epoch_end(self, fit, row):
            found.append((fit.improved[0], [x.epoch for x in saved_as_best(folder)], dict(callback.best)))

    trainer = build(config)
    trainer.fit(
        data.train, data.validation, epochs=23, batch_size=30, seed=1, callbacks=[callback, Look()], progress_bar=False
    )
    return found


@pytest.mark.slow
def test_improvements_wait_for_the_next_checkpoint(tmp_path):
    found = bests_of_epochs(tmp_path / "run")
    improved = [epoch for epoch, (better, *_) in enumerate(found, start=1) if better]
    for epoch, (_, on_disk, waiting) in enumerate(found[:-1], start=1):
        assert on_disk == []
        assert [x.epoch for x in waiting.values()] == [e for e in improved if e <= epoch][-1:]
    (best,) = saved_as_best(tmp_path / "run")
    assert best.epoch == improved[-1] == best_epoch(tmp_path / "run")


def test_a_state_without_the_neurons_of_the_weights_is_read():
    config = load_config("bars", [*TIES, "training.schedule.kind=cosine"])
    state = build(config).state_dict()["members"][0]
    state["progress"] |= {"epoch": 3, "best": 0.9}
    state["schedule"]["last_epoch"] = 3
    weights = {name: value for name, value in state["network"].items() if not name.endswith("_extra_state")}
    assert len(weights) < len(state["network"])
    trainer = build(config)
    trainer.load_state_dict({"members": [state | {"network": weights}]})
    progress = trainer.members[0].progress
    assert (progress.epoch, progress.best, progress.best_loss) == (3, 0.9, math.inf)
    assert progress.improve(evaluation(0.9, 1.0))


@pytest.mark.parametrize("names", [["epoch_0003", "best_0004"], ["best_0004", "epoch_0003"]])
def test_regular_checkpoints_come_before_the_best(tmp_path, names):
    for name in [*names, "epoch_0002", "epoch_0003_batch_00001"]:
        (tmp_path / name).mkdir()
    found = [path.name for path in newest_first(tmp_path)]
    assert found == ["epoch_0003_batch_00001", "epoch_0003", "epoch_0002", "best_0004"]
