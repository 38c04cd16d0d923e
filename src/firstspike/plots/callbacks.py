"""Callbacks that write figures and logs during a training. To add one: a class here, a line in ``CALLBACKS``."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from firstspike.config.describer import describe
from firstspike.layers.named import named_parameters
from firstspike.plots.look import new_figure, style, styled, time_unit
from firstspike.plots.matrices import evaluation_figure
from firstspike.plots.save import write_figure
from firstspike.plots.spike_times import spike_histogram
from firstspike.plots.training import accuracy, loss_and_error
from firstspike.runs.files import write_whole
from firstspike.runs.folder import RunFolder
from firstspike.text import installed_with
from firstspike.training import Callback, Fit, FitResult
from firstspike.training.callbacks import Pace
from firstspike.training.fitting import Row

_DPI = 100


class LiveFigure(Callback):
    """Draws the metrics of a run to ``figures/live.png``, rarely enough to cost little, and once at the end.

    Args:
        folder: the run folder.
        pace: how often to draw.
    """

    def __init__(self, folder: Path | str, pace: Pace | None = None) -> None:
        self.run = RunFolder(Path(folder))
        self.path = self.run.path / "figures" / "live.png"
        self.pace = pace or Pace()
        self.epochs, self.late = 0, False

    def on_fit_start(self, fit: Fit) -> None:
        """Learn how many epochs there will be."""
        self.epochs = fit.epochs

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Draw, if enough time has passed since the last drawing."""
        self.late = True
        if self.pace.due():
            self.draw()

    def draw(self) -> None:
        """Replace the figure."""
        with self.pace.measured():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_figure(live_figure(self.run.table("metrics"), self.epochs), self.path)
        self.late = False

    def close(self) -> None:
        """Draw the epochs since the last drawing."""
        if self.late:
            self.draw()


@styled
def live_figure(metrics: dict[str, list[float]], epochs: int) -> Figure:
    """Accuracy, error and loss so far, of a total of ``epochs``."""
    figure = new_figure(9.5, 2.8)
    first, second, third = figure.subplots(1, 3)
    part = "validation" if "validation_loss" in metrics else "train"
    if "train_accuracy" in metrics:
        accuracy(metrics, first)
        found = f"accuracy {100 * metrics[f'{part}_accuracy'][-1]:.2f} %"
    else:
        first.set_axis_off()
        found = f"mae {metrics[f'{part}_mae'][-1]:.4g}"
    loss_and_error(metrics, (third, second))
    figure.suptitle(f"epoch {len(metrics['epoch'])} of {epochs}: {part.replace('train', 'training')} {found}")
    return figure


class TensorBoard(Callback):
    """Logs to ``tensorboard/`` in the run folder: scalars every epoch, histograms of parameters with every checkpoint.

    Figures come with the last checkpoint, and with earlier ones where they take little of the time. A resumed training
    continues the same log; what an earlier one wrote of later epochs is marked as void.

    Args:
        folder: the run folder.
        pace: how often to draw figures.

    Raises:
        ImportError: the extra ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path | str, pace: Pace | None = None) -> None:
        if find_spec("tensorboard") is None:
            raise ImportError(f"TensorBoard is missing. Install it: {installed_with('tensorboard')}")
        self.folder = Path(folder) / "tensorboard"
        self.pace = pace or Pace(guess=0.4)
        self.log: Any = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open a file of events."""
        from torch.utils.tensorboard import SummaryWriter

        self.log = SummaryWriter(str(self.folder), purge_step=fit.epoch + 1)

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
        if fit.validations and (self.pace.due() or fit.epoch == fit.epochs):
            with self.pace.measured(), style():
                for tag, figure in _validation_figures(fit).items():
                    figure.set_dpi(_DPI)
                    self.log.add_figure(f"{tag}, validation", figure, fit.epoch)
        self.log.flush()

    def close(self) -> None:
        """Write the rest."""
        if self.log is not None:
            self.log.close()


def _validation_figures(fit: Fit) -> dict[str, Figure]:
    validation = fit.validations[0]
    figures = {"confusion": evaluation_figure(validation, fit.train.class_names)}
    if not validation.readout:
        unit = time_unit(getattr(fit.trainer.objective.loss, "tau_syn", 1.0))
        figures["output spike times"] = times = new_figure(4.0, 2.8)
        spike_histogram(validation.times, times.subplots(), "output", unit=unit)
    return figures


class WandbLog(Callback):
    """Logs config, metrics and results to Weights & Biases; with ``WANDB_MODE=offline`` into the run folder only.

    A resumed training continues the same log.

    Args:
        folder: the run folder; the log is named after it.
        project: of the log.

    Raises:
        ImportError: the extra ``wandb`` is not installed.
    """

    def __init__(self, folder: Path | str, project: str = "firstspike") -> None:
        if find_spec("wandb") is None:
            raise ImportError(f"Weights & Biases is missing. Install it: {installed_with('wandb')}")
        self.folder, self.project = Path(folder), project
        self.log: Any = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open the log, or continue the one that the folder names."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self.folder / "wandb.txt"
        number = mark.read_text(encoding="utf-8").strip() if mark.is_file() else None
        self.log = wandb.init(
            project=self.project,
            name=self.folder.resolve().name,
            id=number,
            resume="allow",
            dir=str(self.folder),
            settings=wandb.Settings(silent=True),
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
"""Each is made from the run folder."""
