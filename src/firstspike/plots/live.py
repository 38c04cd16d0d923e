"""A figure of the training that is replaced while it runs."""

from matplotlib.figure import Figure

from firstspike.plots.save import write_figure
from firstspike.plots.style import new_figure, styled
from firstspike.plots.training import accuracy, loss_and_error
from firstspike.training.run import Row, Run
from firstspike.training.watchers import Pace, Watcher


class LiveFigure(Watcher):
    """Draws accuracy, error and loss to ``figures/live.png``, seldom enough to cost little, and once at the end.

    Args:
        run: whose training it is.
        epoch: whole epochs done before.
        pace: how often to draw.
    """

    def __init__(self, run: Run, epoch: int = 0, pace: Pace | None = None) -> None:
        self.path = run.path / "figures" / "live.png"
        self.epochs = run.config.training.epochs
        self.columns = {name: values[:epoch] for name, values in run.table("metrics").items()}
        self.pace = pace or Pace()
        self.drawn = epoch

    def epoch(self, row: Row) -> None:
        """Draw, if enough time has passed since the last drawing."""
        for name, value in row.items():
            self.columns.setdefault(name, []).append(float(value))
        if self.pace.due():
            self.draw()

    def draw(self) -> None:
        """Replace the figure."""
        with self.pace.measured():
            self.path.parent.mkdir(exist_ok=True)
            write_figure(live_figure(self.columns, self.epochs), self.path)
        self.drawn = len(self.columns["epoch"])

    def close(self) -> None:
        """Draw the epochs since the last drawing."""
        if len(self.columns.get("epoch", ())) > self.drawn:
            self.draw()


@styled
def live_figure(metrics: dict[str, list[float]], epochs: int) -> Figure:
    """Accuracy, error and loss so far, of ``epochs`` in all."""
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
