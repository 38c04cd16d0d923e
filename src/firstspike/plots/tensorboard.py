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

from firstspike.layers import Network
from firstspike.layers.named import named_parameters
from firstspike.plots.confusion import confusion
from firstspike.plots.spike_times import spike_histogram
from firstspike.plots.style import new_figure, style, styled, time_unit
from firstspike.training import Callback, Evaluation, Fit, Pace, Row

_DPI = 100


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
            raise ImportError('TensorBoard is missing. Install it: pip install "firstspike[tensorboard]"')
        self.folder = Path(folder) / "tensorboard"
        self.pace = pace or Pace(guess=0.4)
        self.events: EventFile | None = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open a file of events."""
        self.events = EventFile(self.folder, fit.epoch + 1)

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Log all numbers of the epoch."""
        from torch.utils.tensorboard.summary import scalar

        assert self.events is not None
        for name, value in row.items():
            if name != "epoch":
                part, _, what = name.partition("_")
                tag = f"{what}/{part}" if part in ("train", "validation") else name.replace("silent_", "silent/layer ")
                self.events.add(scalar(tag, float(value)), int(row["epoch"]))
        self.events.flush()

    def on_checkpoint(self, fit: Fit) -> None:
        """Log weights and delays, output times and decisions of the first network."""
        from torch.utils.tensorboard.summary import histogram

        assert self.events is not None
        network = fit.trainer.network
        if isinstance(network, Network):
            for name, values in named_parameters(network).items():
                self.events.add(histogram("/".join(name.split(", ")), values, "auto"), fit.epoch)
        if fit.validations and (self.pace.due() or fit.epoch == fit.epochs):
            with self.pace.measured():
                self._figures(fit)
        self.events.flush()

    def _figures(self, fit: Fit) -> None:
        from torch.utils.tensorboard.summary import image

        assert self.events is not None
        validation, names = fit.validations[0], fit.train.class_names
        unit = time_unit(getattr(fit.trainer.objective.loss, "tau_syn", 1.0))
        for tag, figure in (
            ("confusion, validation", _confusion_figure(validation, names)),
            ("output spike times, validation", _times_figure(validation, unit)),
        ):
            self.events.add(image(tag, pixels(figure), dataformats="HWC"), fit.epoch)

    def close(self) -> None:
        """Write the rest."""
        if self.events is not None:
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

        folder.mkdir(parents=True, exist_ok=True)
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
