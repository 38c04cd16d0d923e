import re

import numpy as np
import pytest
from matplotlib.image import imread

from firstspike import plots
from firstspike.plots.live import LiveFigure, live_figure
from firstspike.training.config import load_config
from firstspike.training.loop import Interrupted
from firstspike.training.run import Run
from firstspike.training.session import resume, start
from firstspike.training.watchers import Pace

ALWAYS, NEVER = Pace(share=1.0, guess=-1.0), Pace(share=0.0)
CONFIG = ["training.epochs=6", "training.checkpoint_every=2"]


def row(epoch, accuracy=0.5):
    return {"epoch": epoch, "lr": 0.1} | {
        f"{part}_{what}": accuracy for part in ("train", "validation") for what in ("loss", "accuracy")
    }


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", load_config("bars", CONFIG))


def test_a_watched_training_is_the_same_training(tmp_path):
    start(tmp_path / "plain", load_config("bars", CONFIG), show=False)
    start(tmp_path / "live", load_config("bars", CONFIG), show=False, watch=["live"])
    assert (tmp_path / "plain" / "metrics.csv").read_bytes() == (tmp_path / "live" / "metrics.csv").read_bytes()
    height, width, _ = imread(tmp_path / "live" / "figures" / "live.png").shape
    assert 300 < height < width < 2000


def test_it_is_drawn_when_it_is_due_and_at_the_end(run):
    seldom = LiveFigure(run, pace=NEVER)
    seldom.epoch(row(1))
    assert not seldom.path.exists()
    seldom.close()
    first = seldom.path.read_bytes()
    often = LiveFigure(run, pace=ALWAYS)
    often.epoch(row(1))
    assert seldom.path.read_bytes() == first
    ALWAYS.cost = -1.0
    often.epoch(row(2, 0.75))
    assert seldom.path.read_bytes() != first
    assert [path.name for path in seldom.path.parent.iterdir()] == ["live.png"]


def test_nothing_new_is_nothing_to_draw(run):
    live = LiveFigure(run, pace=NEVER)
    live.close()
    assert not live.path.exists()


def test_the_old_figure_stays_while_a_new_one_fails(run, monkeypatch):
    live = LiveFigure(run, pace=NEVER)
    live.epoch(row(1))
    live.draw()
    before = live.path.read_bytes()

    def half(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    live.epoch(row(2))
    with pytest.raises(OSError, match="No space left"):
        live.draw()
    assert live.path.read_bytes() == before
    assert [path.name for path in live.path.parent.iterdir()] == ["live.png"]


def test_a_drawing_that_fails_stops_no_training(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr("firstspike.plots.live.live_figure", fail)
    results = start(tmp_path / "run", load_config("bars", CONFIG), show=False, watch=["live"])
    assert results["epochs"] == 6
    assert "LiveFigure failed (no ink); the training goes on without it" in caplog.text


def test_a_resumed_training_draws_all_epochs(tmp_path, monkeypatch):
    drawn = []

    def noted(metrics, epochs):
        drawn.append((list(metrics["epoch"]), epochs))
        return live_figure(metrics, epochs)

    monkeypatch.setattr("firstspike.plots.live.live_figure", noted)
    monkeypatch.setattr("firstspike.training.session.train", stopping(3))
    with pytest.raises(Interrupted):
        start(tmp_path / "run", load_config("bars", CONFIG), show=False, watch=["live"])
    monkeypatch.undo()
    monkeypatch.setattr("firstspike.plots.live.live_figure", noted)
    resume(tmp_path / "run", show=False, watch=["live"])
    assert drawn == [([1, 2, 3], 6), ([1, 2, 3, 4, 5, 6], 6)]


def stopping(epochs):
    """The training loop, interrupted after so many epochs."""
    from firstspike.training.loop import train

    def stopped(trainer, runs, states, watcher, stop, writes):
        return train(trainer, runs, states, watcher, stop=lambda: states[0].epoch >= epochs)

    return stopped


def test_what_it_shows():
    metrics = {name: [value, value / 2] for name, value in row(1, 0.5).items()}
    metrics["epoch"] = [1, 2]
    figure = live_figure(metrics, 8)
    figure.draw_without_rendering()
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["accuracy [%]", "error [%]", "loss"]
    shown = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(shown["train"], [50, 25])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [50, 75])
    assert re.search(r"epoch 2 of 8: validation accuracy 25\.00 %", figure.get_suptitle())
    assert sum(ax.get_legend() is not None for ax in figure.axes) == 1


def test_accuracy_of_one_epoch_is_a_point(ax):
    assert plots.accuracy({"epoch": [1], "train_accuracy": [0.5], "validation_accuracy": [0.25]}, ax) is ax
    assert [line.get_marker() for line in ax.lines] == ["o", "o"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[50], [25]]
