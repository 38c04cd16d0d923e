"""Callbacks that write figures and logs during a training. To add one: a class here, a line in ``CALLBACKS``."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firstspike.config.describer import describe
from firstspike.layers.named import named_parameters
from firstspike.plots.matrices import evaluation_figure
from firstspike.runs import Run
from firstspike.runs.files import write_whole
from firstspike.text import needed
from firstspike.training import Callback, Evaluation, Fit, FitResult
from firstspike.training.fit import Row


class DrawingPace:
    """Draws so rarely that it takes at most a ``share`` of the time.

    With 0.03 it waits 33 times as long as the last time took. Before that is measured, it is a ``guess`` in seconds.
    """

    def __init__(self, share: float = 0.03, guess: float = 0.15) -> None:
        self.share, self.cost = share, guess
        self.last = time.perf_counter()

    def draw(self, draw: Callable[[], object], anyway: bool = False) -> None:
        """Draw if enough time has passed since the last time, or ``anyway``."""
        began = time.perf_counter()
        if anyway or (began - self.last) * self.share > self.cost:
            draw()
            self.last = time.perf_counter()
            self.cost = self.last - began


class LiveFigure(Callback):
    """Redraws ``figures/loss_and_error.png`` in the run folder, rarely enough to cost little."""

    def __init__(self, folder: Path | str, pace: DrawingPace | None = None) -> None:
        self.folder, self.pace = Path(folder), pace or DrawingPace()

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Draw, if enough time has passed since the last drawing."""
        self.pace.draw(lambda: Run(self.folder).plot(["loss_and_error"]))


class TensorBoard(Callback):
    """Logs to ``tensorboard/`` in the run folder: scalars every epoch, histograms of parameters with every checkpoint.

    The confusion matrix comes with the last checkpoint, and with earlier ones where drawing takes little of the time.
    A resumed training continues the same log. Entries of later epochs by an earlier one are marked as void.
    """

    def __init__(self, folder: Path | str) -> None:
        self.writer = needed("torch.utils.tensorboard", "tensorboard", "TensorBoard").SummaryWriter
        self.folder = Path(folder) / "tensorboard"
        self.pace = DrawingPace(guess=0.4)
        self.log: Any = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open a file of events."""
        self.log = self.writer(str(self.folder), purge_step=fit.epoch + 1)

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Log all numbers of the epoch."""
        for name, value in row.items():
            if name != "epoch":
                part, _, what = name.partition("_")
                tag = f"{what}/{part}" if part in ("train", "validation") else name.replace("silent_", "silent/layer ")
                self.log.add_scalar(tag, float(value), int(row["epoch"]))
        self.log.flush()

    def on_checkpoint(self, fit: Fit) -> None:
        """Log parameters, output times and decisions of the first network."""
        for name, values in named_parameters(fit.trainer.network).items():
            self.log.add_histogram("/".join(name.split(", ")), values, fit.epoch, "auto")
        if fit.validations:
            found = fit.validations[0]
            if not found.readout and len(spikes := found.times[found.times.isfinite()]):
                self.log.add_histogram("output spike times, validation", spikes, fit.epoch, "auto")
            self.pace.draw(lambda: self._add_confusion(fit, found), fit.epoch == fit.epochs)
        self.log.flush()

    def _add_confusion(self, fit: Fit, found: Evaluation) -> None:
        self.log.add_figure("confusion, validation", evaluation_figure(found, fit.train.class_names), fit.epoch)

    def close(self) -> None:
        """Write the rest."""
        if self.log is not None:
            self.log.close()


class WandbLog(Callback):
    """Logs config, metrics and results to Weights & Biases; with ``WANDB_MODE=offline`` into the run folder only.

    The log is named after the folder. A resumed training continues the same log.
    """

    def __init__(self, folder: Path | str) -> None:
        self.wandb = needed("wandb", "wandb", "Weights & Biases")
        self.folder = Path(folder)
        self.log: Any = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open the log, or continue the one that the folder names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self.folder / "wandb.txt"
        number = mark.read_text(encoding="utf-8").strip() if mark.is_file() else None
        self.log = self.wandb.init(
            project="firstspike",
            name=self.folder.resolve().name,
            id=number,
            resume="allow",
            dir=str(self.folder),
            settings=self.wandb.Settings(silent=True),
            config=describe(fit.trainer, fit).model_dump(mode="json"),
        )
        write_whole(mark, f"{self.log.id}\n")

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Log the numbers of the epoch."""
        self.log.log({name: value for name, value in row.items() if name != "epoch"}, step=int(row["epoch"]))

    def on_fit_end(self, fit: Fit, result: FitResult) -> None:
        """Log the results."""
        if result.test is not None:
            self.log.summary["test_accuracy"] = result.test.accuracy

    def close(self) -> None:
        """Write the rest."""
        if self.log is not None:
            self.log.finish()


CALLBACKS: dict[str, Callable[[Path], Callback]] = {"live": LiveFigure, "tensorboard": TensorBoard, "wandb": WandbLog}
"""The callbacks that draw or log, made from the run folder."""
