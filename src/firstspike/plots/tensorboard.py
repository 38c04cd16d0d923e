"""A log of the training for TensorBoard."""

import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
        self.events = EventFile(run.path / "tensorboard", epoch + 1)
        self.pace = pace or Pace(guess=0.4)

    def epoch(self, row: Row) -> None:
        """All numbers of the epoch."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in row.items():
            if name != "epoch":
                part, _, what = name.partition("_")
                tag = f"{what}/{part}" if part in ("train", "validation") else name.replace("silent_", "silent/layer ")
                self.events.add(scalar(tag, float(value)), int(row["epoch"]))
        self.events.flush()

    def checkpoint(self, epoch: int, experiment: Experiment, validation: Evaluation) -> None:
        """Weights and delays, output times and decisions."""
        from torch.utils.tensorboard.summary import histogram

        for name, values in parameters(experiment.network).items():
            self.events.add(histogram("/".join(name.split(", ")), values, "auto"), epoch)
        if self.pace.due() or epoch == experiment.config.training.epochs:
            with self.pace.measured():
                self._figures(epoch, experiment, validation)
        self.events.flush()

    def _figures(self, epoch: int, experiment: Experiment, validation: Evaluation) -> None:
        from torch.utils.tensorboard.summary import image

        names = experiment.data.validation.class_names
        unit = time_unit(experiment.config.neuron.tau_syn)
        for tag, figure in (
            ("confusion, validation", _confusion_figure(validation, names)),
            ("output spike times, validation", _times_figure(validation, unit)),
        ):
            self.events.add(image(tag, pixels(figure), dataformats="HWC"), epoch)

    def close(self) -> None:
        """Write what is left."""
        self.events.close()


class EventFile:
    """One more file of events in a folder, written at once: torch's own writer has a thread that fails noisily.

    Args:
        folder: of the log.
        first: events of this step and later ones in the folder's other files are void.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}.{os.getpid()}"  # sorts by time
        self._records = RecordWriter((folder / name).open("wb"))
        self._write(file_version="brain.Event:2")
        self._write(step=first, session_log=SessionLog(status=SessionLog.START))

    def add(self, summary: Any, step: int) -> None:
        """Write what a function of ``torch.utils.tensorboard.summary`` gives."""
        self._write(step=step, summary=summary)

    def flush(self) -> None:
        """Let readers see all of it."""
        self._records.flush()

    def close(self) -> None:
        """Write what is left."""
        self._records.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())


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
