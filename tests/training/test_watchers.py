import time

import pytest

from firstspike.training.build import build
from firstspike.training.config import load_config
from firstspike.training.loop import train
from firstspike.training.progress import Progress
from firstspike.training.run import Run
from firstspike.training.saving import State
from firstspike.training.trainers import InTurn
from firstspike.training.watchers import Pace, Watcher, Watchers


class Notes(Watcher):
    def __init__(self):
        self.notes = []

    def batch(self):
        self.notes.append("batch")

    def epoch(self, row):
        self.notes.append(("epoch", row["epoch"]))

    def checkpoint(self, epoch, experiment, validation):
        self.notes.append(("checkpoint", epoch, len(validation.labels)))

    def close(self):
        self.notes.append("close")


class Broken(Notes):
    def epoch(self, row):
        super().epoch(row)
        raise RuntimeError("out of ink")


def trained(folder, watcher):
    settings = ["training.epochs=3", "training.checkpoint_every=2", "training.batch_size=150"]
    config = load_config("bars", settings)
    with watcher:
        return train(InTurn([build(config)]), [Run.create(folder, config)], [State()], watcher)[0]


def test_watchers_hear_of_everything_in_order(tmp_path):
    one, other = Notes(), Notes()
    trained(tmp_path / "run", Watchers([one, other]))
    epoch = ["batch", "batch"]
    assert one.notes == [
        *epoch,
        ("epoch", 1),
        *epoch,
        ("epoch", 2),
        ("checkpoint", 2, 90),
        *epoch,
        ("epoch", 3),
        ("checkpoint", 3, 90),
        "close",
    ]
    assert other.notes == one.notes


def test_one_that_fails_stops_nothing_and_is_asked_no_more(tmp_path, caplog):
    broken, fine = Broken(), Notes()
    result = trained(tmp_path / "a", Watchers([broken, fine]))
    assert broken.notes == ["batch", "batch", ("epoch", 1)]
    assert fine.notes[-1] == "close"
    assert caplog.messages == ["Broken failed (out of ink); the training goes on without it"]
    assert result.accuracy == trained(tmp_path / "b", Watcher()).accuracy
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_one_that_cannot_be_made_is_left_out(caplog):
    def make():
        raise OSError("no room")

    watchers = Watchers()
    watchers.add(make)
    watchers.add(Notes)
    assert [type(watcher) for watcher in watchers.watchers] == [Notes]
    assert "no room; the training goes on without it" in caplog.text


def test_requests_to_stop_are_no_failures():
    class Stopped(Watcher):
        def batch(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Watchers([Stopped()]).batch()


def test_the_progress_bar_is_a_watcher(capsys):
    with Progress(2, 3) as progress:
        progress.batch()
        progress.epoch({"epoch": 1, "validation_loss": 0.5, "validation_accuracy": 0.25, "silent_0": 0.125})
    shown = capsys.readouterr().err
    assert "1/6" in shown
    assert "accuracy 25.00 %, silent 12.5 %" in shown


def test_pace(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    pace = Pace(share=0.05, guess=0.5)
    now += 9.9
    assert not pace.due()
    now += 0.2
    assert pace.due()
    with pace.measured():
        now += 2.0
    now += 39.9
    assert not pace.due()
    now += 0.2
    assert pace.due()
