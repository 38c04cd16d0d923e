"""A log of the training for TensorBoard."""

from importlib.util import find_spec

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from firstspike.layers.stages import parameters
from firstspike.plots.confusion import confusion
from firstspike.plots.spike_times import spike_histogram
from firstspike.plots.style import new_figure, style, styled, time_unit
from firstspike.training.build import Experiment
from firstspike.training.evaluation import Evaluation
from firstspike.training.run import Row, Run
from firstspike.training.watchers import Pace, Watcher

_DPI = 100


class TensorBoard(Watcher):
    """Logs into ``tensorboard/`` of a run: scalars every epoch, histograms of parameters with every checkpoint.

    Figures come with the last checkpoint, and with those before it where they take little of the time.

    A resumed training goes on in the same log; what an earlier one wrote of later epochs is marked as void.

    Args:
        run: whose training it is.
        epoch: whole epochs done before.
        pace: how often to draw figures.

    Raises:
        ImportError: the extra ``tensorboard`` is not installed.
    """

    def __init__(self, run: Run, epoch: int = 0, pace: Pace | None = None) -> None:
        check_tensorboard()
        self.pace = pace or Pace(guess=0.4)
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        purge = epoch + 1 if folder.exists() else None
        self.writer = SummaryWriter(str(folder), purge_step=purge)

    def epoch(self, row: Row) -> None:
        """All numbers of the epoch."""
        for name, value in row.items():
            if name != "epoch":
                part, _, what = name.partition("_")
                tag = f"{what}/{part}" if part in ("train", "validation") else name.replace("silent_", "silent/layer ")
                self.writer.add_scalar(tag, float(value), int(row["epoch"]))

    def checkpoint(self, epoch: int, experiment: Experiment, validation: Evaluation) -> None:
        """Weights and delays, output times and decisions."""
        for name, values in parameters(experiment.network).items():
            self.writer.add_histogram("/".join(name.split(", ")), values, epoch)
        if self.pace.due() or epoch == experiment.config.training.epochs:
            with self.pace.measured():
                self._figures(epoch, experiment, validation)
        self.writer.flush()

    def _figures(self, epoch: int, experiment: Experiment, validation: Evaluation) -> None:
        names = experiment.data.validation.class_names
        unit = time_unit(experiment.config.neuron.tau_syn)
        for tag, figure in (
            ("confusion, validation", _confusion_figure(validation, names)),
            ("output spike times, validation", _times_figure(validation, unit)),
        ):
            self.writer.add_image(tag, pixels(figure), epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def check_tensorboard() -> None:
    """Whether TensorBoard is there.

    Raises:
        ImportError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise ImportError('TensorBoard is missing. Install it: pip install "firstspike[tensorboard]"')


def pixels(figure: Figure) -> np.ndarray:
    """A figure as an image ``(height, width, 3)``."""
    with style():
        figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@styled
def _confusion_figure(validation: Evaluation, names: tuple[str, ...]) -> Figure:
    size = 3.6 if len(names) <= 5 else 5.0
    figure = new_figure(size + 0.6, size - 0.4)
    confusion(validation, figure.subplots(), names)
    return figure


@styled
def _times_figure(validation: Evaluation, unit: str) -> Figure:
    figure = new_figure(4.0, 2.8)
    spike_histogram(validation.times, figure.subplots(), "output", unit=unit)
    return figure
