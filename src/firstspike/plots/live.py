"""A figure of the training that is redrawn while it runs."""

from pathlib import Path

from matplotlib.figure import Figure

from firstspike.plots.save import write_figure
from firstspike.plots.style import new_figure, styled
from firstspike.plots.training import accuracy, loss_and_error
from firstspike.runs import RunFolder
from firstspike.training import Callback, Fit, Pace, Row


class LiveFigure(Callback):
    """Draws accuracy, error and loss to ``figures/live.png``, rarely enough to cost little, and once at the end.

    Args:
        folder: the run folder.
        pace: how often to draw.
    """

    def __init__(self, folder: Path | str, pace: Pace | None = None) -> None:
        self.run = RunFolder(Path(folder))
        self.path = self.run.path / "figures" / "live.png"
        self.pace = pace or Pace()
        self.columns: dict[str, list[float]] = {}
        self.epochs = self.drawn = 0

    def on_fit_start(self, fit: Fit) -> None:
        """Take over the epochs of a run that is resumed."""
        self.epochs, self.drawn = fit.epochs, fit.epoch
        self.columns = {name: values[: fit.epoch] for name, values in self.run.table("metrics").items()}

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Draw, if enough time has passed since the last drawing."""
        for name, value in row.items():
            self.columns.setdefault(name, []).append(float(value))
        if self.pace.due():
            self.draw()

    def draw(self) -> None:
        """Replace the figure."""
        with self.pace.measured():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_figure(live_figure(self.columns, self.epochs), self.path)
        self.drawn = len(self.columns["epoch"])

    def close(self) -> None:
        """Draw the epochs since the last drawing."""
        if len(self.columns.get("epoch", ())) > self.drawn:
            self.draw()


@styled
def live_figure(metrics: dict[str, list[float]], epochs: int) -> Figure:
    """Accuracy, error and loss so far, of a total of ``epochs``."""
    figure = new_figure(9.5, 2.8)
    first, second, third = figure.subplots(1, 3)
    accuracy(metrics, first)
    loss_and_error(metrics, (third, second))
    if (legend := second.get_legend()) is not None:  # one for all three
        legend.remove()
        first.legend(loc="lower right")
    figure.suptitle(
        f"epoch {len(metrics['epoch'])} of {epochs}: "
        f"validation accuracy {100 * metrics['validation_accuracy'][-1]:.2f} %"
    )
    return figure
