import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from firstspike import plots
from firstspike.config import load_config
from firstspike.plots.callbacks import LiveFigure, live_figure
from firstspike.training import Interrupted
from firstspike.training.callbacks import Pace
from trained import resume, start

ALWAYS, NEVER = Pace(share=1.0, guess=-1.0), Pace(share=0.0)
CONFIG = ["training.epochs=6", "training.checkpoint_every=2"]


def row(epoch, accuracy=0.5):
    return {"epoch": epoch, "lr": 0.1} | {
        f"{part}_{what}": accuracy for part in ("train", "validation") for what in ("loss", "accuracy")
    }


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def finish(live, epoch, accuracy=0.5):
    live.run.append("metrics", [row(epoch, accuracy)])
    live.on_epoch_end(None, row(epoch, accuracy))


def live_figure_of(folder, pace):
    folder.mkdir(exist_ok=True)
    live = LiveFigure(folder, pace=pace)
    live.on_fit_start(SimpleNamespace(epoch=0, epochs=6))
    return live


@pytest.mark.slow
def test_a_watched_training_is_the_same_training(tmp_path):
    start(tmp_path / "plain", load_config("bars", CONFIG), progress_bar=False)
    start(tmp_path / "live", load_config("bars", CONFIG), progress_bar=False, callbacks=[LiveFigure(tmp_path / "live")])
    assert (tmp_path / "plain" / "metrics.csv").read_bytes() == (tmp_path / "live" / "metrics.csv").read_bytes()
    height, width, _ = imread(tmp_path / "live" / "figures" / "live.png").shape
    assert 300 < height < width < 2000


def test_it_is_drawn_when_it_is_due_and_at_the_end(run):
    seldom = live_figure_of(run, NEVER)
    finish(seldom, 1)
    assert not seldom.path.exists()
    seldom.close()
    first = seldom.path.read_bytes()
    often = live_figure_of(run, ALWAYS)
    often.on_epoch_end(None, row(1))
    assert seldom.path.read_bytes() == first
    ALWAYS.cost = -1.0
    finish(often, 2, 0.75)
    assert seldom.path.read_bytes() != first
    assert [path.name for path in seldom.path.parent.iterdir()] == ["live.png"]


def test_nothing_new_is_nothing_to_draw(run):
    live = live_figure_of(run, NEVER)
    live.close()
    assert not live.path.exists()


def test_the_old_figure_stays_while_a_new_one_fails(run, monkeypatch):
    live = live_figure_of(run, NEVER)
    finish(live, 1)
    live.draw()
    before = live.path.read_bytes()

    def half(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    live.on_epoch_end(None, row(2))
    with pytest.raises(OSError, match="No space left"):
        live.draw()
    assert live.path.read_bytes() == before
    assert [path.name for path in live.path.parent.iterdir()] == ["live.png"]


def test_a_drawing_that_fails_stops_no_training(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr("firstspike.plots.callbacks.live_figure", fail)
    results = start(
        tmp_path / "run", load_config("bars", CONFIG), progress_bar=False, callbacks=[LiveFigure(tmp_path / "run")]
    )
    assert results["epochs"] == 6
    assert "LiveFigure failed (no ink); the training continues without it" in caplog.text


@pytest.mark.slow
def test_a_resumed_training_draws_all_epochs(tmp_path, monkeypatch):
    drawn = []

    def noted(metrics, epochs):
        drawn.append((list(metrics["epoch"]), epochs))
        return live_figure(metrics, epochs)

    monkeypatch.setattr("firstspike.plots.callbacks.live_figure", noted)
    left = iter(range(100))
    with pytest.raises(Interrupted):
        start(
            tmp_path / "run",
            load_config("bars", CONFIG),
            progress_bar=False,
            callbacks=[LiveFigure(tmp_path / "run")],
            stop=lambda: next(left) >= 3 * 10,
        )
    resume(tmp_path / "run", progress_bar=False, callbacks=[LiveFigure(tmp_path / "run")])
    assert drawn == [([1, 2, 3], 6), ([1, 2, 3, 4, 5, 6], 6)]


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
    assert all({text.get_text() for text in ax.texts} == {"train", "validation"} for ax in figure.axes)


def test_without_validation_data():
    metrics = {name: [values] for name, values in row(1).items() if "validation" not in name}
    figure = live_figure(metrics, 8)
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "epoch 1 of 8: training accuracy 50.00 %"


def test_accuracy_of_one_epoch_is_a_point(ax):
    assert plots.accuracy({"epoch": [1], "train_accuracy": [0.5], "validation_accuracy": [0.25]}, ax) is ax
    assert [line.get_marker() for line in ax.lines] == ["o", "o"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[50], [25]]
