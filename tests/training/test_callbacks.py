import pytest

from firstspike.config import load_config
from firstspike.training import Callback
from firstspike.training.callbacks import Callbacks, ProgressBar
from trained import start


class Notes(Callback):
    def __init__(self):
        self.notes = []

    def on_batch_end(self, fit):
        self.notes.append("batch")

    def on_epoch_end(self, fit, row):
        self.notes.append(("epoch", row["epoch"]))

    def on_checkpoint(self, fit):
        self.notes.append(("checkpoint", fit.epoch, len(fit.validations[0].labels)))

    def close(self):
        self.notes.append("close")


class Broken(Notes):
    def on_epoch_end(self, fit, row):
        super().on_epoch_end(fit, row)
        raise RuntimeError("out of ink")


def trained(folder, *callbacks):
    settings = ["training.epochs=3", "training.checkpoint_every=2", "training.batch_size=150"]
    return start(folder, load_config("bars", settings), callbacks=callbacks, progress_bar=False)["test"]


def test_callbacks_receive_everything_in_order(tmp_path):
    one, other = Notes(), Notes()
    trained(tmp_path / "run", one, other)
    epoch = ["batch", "batch"]
    assert one.notes == [
        *epoch,
        ("epoch", 1),
        *epoch,
        ("checkpoint", 2, 90),
        ("epoch", 2),
        *epoch,
        ("checkpoint", 3, 90),
        ("epoch", 3),
        "close",
    ]
    assert other.notes == one.notes


def test_one_that_fails_stops_nothing_and_is_not_called_again(tmp_path, caplog):
    broken, fine = Broken(), Notes()
    result = trained(tmp_path / "a", broken, fine)
    assert broken.notes == ["batch", "batch", ("epoch", 1)]
    assert fine.notes[-1] == "close"
    assert caplog.messages == ["Broken failed (out of ink); the training continues without it"]
    assert result["accuracy"] == trained(tmp_path / "b")["accuracy"]
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_requests_to_stop_are_no_failures():
    class Stopped(Callback):
        def on_batch_end(self, fit):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([Stopped()]).call("on_batch_end", None)


def test_the_progress_bar_is_a_callback(capsys):
    class Shown:
        validations = ()
        epochs, batches, epoch, batch = 2, 3, 0, 0

    bar = ProgressBar()
    bar.on_fit_start(Shown)
    bar.on_batch_end(Shown)
    bar.on_epoch_end(Shown, {"epoch": 1, "validation_loss": 0.5, "validation_accuracy": 0.25, "silent_0": 0.125})
    bar.close()
    shown = capsys.readouterr().err
    assert "1/6" in shown
    assert "accuracy 25.00 %, silent 12.5 %" in shown
