import csv
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from firstspike.config import load_config
from firstspike.plots.callbacks import LiveFigure, TensorBoard
from firstspike.runs.checkpoint import load_checkpoint
from firstspike.runs.folder import RunFolder
from firstspike.training import Interrupted
from trained import resume, start

CONFIG = ["training.epochs=5", "training.checkpoint_every=2"]
BATCHES = 10  # per epoch


def read(folder):
    log = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    return log.Reload()


def column(folder, name):
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_everything_can_be_read_back(tmp_path):
    folder = tmp_path / "run"
    start(folder, load_config("bars", CONFIG), progress_bar=False, callbacks=[TensorBoard(folder)])
    log = read(folder)
    assert log.Tags()["scalars"] == [
        "lr",
        "loss/train",
        "accuracy/train",
        "loss/validation",
        "accuracy/validation",
        "raised",
        "silent/layer 0",
        "silent/layer 1",
    ]
    for tag, name in (("loss/train", "train_loss"), ("accuracy/validation", "validation_accuracy"), ("lr", "lr")):
        assert [event.step for event in log.Scalars(tag)] == [1, 2, 3, 4, 5]
        np.testing.assert_allclose([event.value for event in log.Scalars(tag)], column(folder, name), rtol=1e-6)
    assert log.Tags()["histograms"] == [
        "weights/hidden",
        "weights/output",
        "output spike times, validation",
    ]
    for event in log.Histograms("weights/hidden"):
        weights = load_checkpoint(folder / "checkpoints" / f"epoch_{event.step:04d}").weights["0.weight"]
        values = event.histogram_value
        assert values.num == weights.numel() == 99
        assert (values.min, values.max) == pytest.approx((weights.min().item(), weights.max().item()))
        assert values.sum == pytest.approx(weights.sum(dtype=torch.float64).item(), rel=1e-6)
    assert [event.step for event in log.Histograms("weights/hidden")] == [2, 4, 5]
    assert log.Tags()["images"] == ["confusion, validation"]
    image = log.Images("confusion, validation")[-1]
    assert (image.step, image.encoded_image_string[:4]) == (5, b"\x89PNG")
    assert image.width > image.height > 200


@pytest.mark.slow
def test_a_resumed_training_goes_on_in_the_same_log(tmp_path, monkeypatch):
    """Epochs after the newest checkpoint are trained again; what was logged of them before is void."""
    folder = tmp_path / "run"

    append = RunFolder.append

    def fail(run, table, rows):
        append(run, table, rows)
        if table == "output_times" and rows[0]["epoch"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", fail)
    with pytest.raises(KeyboardInterrupt):
        start(folder, load_config("bars", CONFIG), progress_bar=False, callbacks=[TensorBoard(folder)])
    monkeypatch.undo()
    assert [event.step for event in read(folder).Scalars("lr")] == [1, 2, 3]
    with SummaryWriter(str(folder / "tensorboard")) as further:
        for step in (4, 7):  # as if it had got further before it was killed
            further.add_scalar("loss/train", -1.0, step)
    assert [event.step for event in read(folder).Scalars("loss/train")] == [1, 2, 3, 4, 7]
    resume(folder, progress_bar=False, callbacks=[TensorBoard(folder)])
    events = read(folder).Scalars("loss/train")
    assert [event.step for event in events] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([event.value for event in events], column(folder, "train_loss"), rtol=1e-6)


def test_an_interrupted_training_has_its_log(tmp_path):
    left, folder = iter(range(100)), tmp_path / "run"
    with pytest.raises(Interrupted):
        start(
            folder,
            load_config("bars", CONFIG),
            progress_bar=False,
            callbacks=[TensorBoard(folder)],
            stop=lambda: next(left) >= 3 * BATCHES,
        )
    assert [event.step for event in read(folder).Scalars("lr")] == [1, 2, 3]


@pytest.mark.slow
def test_a_watched_training_is_the_same_training(tmp_path):
    start(tmp_path / "plain", load_config("bars", CONFIG), progress_bar=False)
    start(
        tmp_path / "logged",
        load_config("bars", CONFIG),
        progress_bar=False,
        callbacks=[TensorBoard(tmp_path / "logged"), LiveFigure(tmp_path / "logged")],
    )
    assert (tmp_path / "plain" / "metrics.csv").read_bytes() == (tmp_path / "logged" / "metrics.csv").read_bytes()


def test_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[tensorboard\]"'):
        start(tmp_path / "run", load_config("bars"), progress_bar=False, callbacks=[TensorBoard(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
