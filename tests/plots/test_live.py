import math
import time

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from firstspike import plots
from firstspike.config import load_config
from firstspike.plots.callbacks import DrawingPace, LiveFigure
from trained import start

CONFIG = ["training.epochs=6", "training.checkpoint_every=2"]


def watched(folder, pace=None, **options):
    live = LiveFigure(folder, pace)
    return start(folder, load_config("bars", CONFIG), progress_bar=False, callbacks=[live], **options)


@pytest.fixture
def drawn(monkeypatch):
    """The epochs of each figure that was drawn."""
    found = []

    def noted(run):
        found.append(run.metrics["epoch"].tolist())
        return Figure()

    monkeypatch.setitem(plots.PLOTS, "loss_and_error", noted)
    return found


@pytest.mark.slow
def test_a_watched_training_is_the_same_training(tmp_path):
    start(tmp_path / "plain", load_config("bars", CONFIG), progress_bar=False)
    watched(tmp_path / "live", DrawingPace(share=1.0, guess=-1.0))
    assert (tmp_path / "plain" / "metrics.csv").read_bytes() == (tmp_path / "live" / "metrics.csv").read_bytes()
    height, width, _ = imread(tmp_path / "live" / "figures" / "loss_and_error.png").shape
    assert 300 < height < width < 2000
    assert [path.name for path in (tmp_path / "live" / "figures").iterdir()] == ["loss_and_error.png"]


def test_it_is_drawn_when_it_is_due(tmp_path, drawn):
    watched(tmp_path / "seldom", DrawingPace(share=0.0))
    assert drawn == []
    watched(tmp_path / "often", DrawingPace(share=math.inf))
    assert drawn == [list(range(1, epoch + 1)) for epoch in range(1, 7)]


def test_a_drawing_that_fails_stops_no_training(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setitem(plots.PLOTS, "loss_and_error", fail)
    assert watched(tmp_path / "run", DrawingPace(share=1.0, guess=-1.0))["epochs"] == 6
    reason = "no figure loss_and_error: RuntimeError: no ink"
    assert f"LiveFigure failed ({reason}); the training continues without it" in caplog.text


def test_accuracy_of_one_epoch_is_a_point(ax):
    assert plots.accuracy({"epoch": [1], "train_accuracy": [0.5], "validation_accuracy": [0.25]}, ax) is ax
    assert [line.get_marker() for line in ax.lines] == ["o", "o"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[50], [25]]


def test_pace(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    pace, drawn = DrawingPace(share=0.05, guess=0.5), []

    def draw():
        nonlocal now
        drawn.append(now)
        now += 2.0

    for wait, times in ((9.9, 0), (0.2, 1), (39.9, 1), (0.2, 2)):
        now += wait
        pace.draw(draw)
        assert len(drawn) == times
    pace.draw(draw, anyway=True)
    assert len(drawn) == 3
