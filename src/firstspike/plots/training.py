"""Loss, error and parameters over training."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from firstspike.plots.run_data import RunData
from firstspike.plots.style import FAINT, axes_list, epoch_axis, legend_right, line_style, log_axis, new_figure, styled
from firstspike.plots.style import square_grid as grid

_LINES_AT_MOST = 30  # above, parameters are shown by their quantiles
_SAMPLES = 12


def loss_and_error(
    metrics: Mapping[str, ArrayLike], axes: Axes | Iterable[Any], window: int | None = None
) -> list[Axes]:
    """Loss and error (1 - accuracy) of training and validation over epochs, raw values faint below a running mean.

    Args:
        metrics: the columns ``epoch``, ``train_loss``, ``train_accuracy``, ``validation_loss``,
            ``validation_accuracy``, each ``(epochs,)``.
        axes: two, for the loss and for the error in percent. Both are logarithmic; an error of 0 has its place below
            the smallest other value, where the axis is linear.
        window: epochs in the running mean, by default a fortieth of all, at least 1.
    """
    loss_ax, error_ax = axes_list(axes, 2)[:2]
    epochs = np.asarray(metrics["epoch"], dtype=float)
    window = window or max(1, len(epochs) // 40)
    for ax, column, label in ((loss_ax, "loss", "loss"), (error_ax, "accuracy", "error [%]")):
        shown: list[float] = []
        for index, part in enumerate(("train", "validation")):
            values = np.asarray(metrics[f"{part}_{column}"], dtype=float)
            if column == "accuracy":
                values = np.clip(100 * (1 - values), 0, None)
                values[values < 1e-4] = 0.0  # accuracies of float32 sums are not exactly 1
            shown += values.tolist()
            look = line_style(index)
            if window > 1:
                ax.plot(epochs, values, color=look["color"], alpha=FAINT, linewidth=0.7)
            ax.plot(epochs, running_mean(values, window), label=part, **look, marker="o" if len(epochs) == 1 else None)
        log_axis(ax, shown)
        ax.set_ylabel(label)
        epoch_axis(ax)
    legend_right(error_ax)
    return [loss_ax, error_ax]


def accuracy(metrics: Mapping[str, ArrayLike], ax: Axes) -> Axes:
    """Accuracy of training and validation in percent over epochs.

    Args:
        metrics: the columns ``epoch``, ``train_accuracy``, ``validation_accuracy``, each ``(epochs,)``.
        ax: where to draw.
    """
    epochs = np.asarray(metrics["epoch"], dtype=float)
    for index, part in enumerate(("train", "validation")):
        values = 100 * np.asarray(metrics[f"{part}_accuracy"], dtype=float)
        ax.plot(epochs, values, label=part, **line_style(index), marker="o" if len(epochs) == 1 else None)
    ax.set_ylabel("accuracy [%]")
    epoch_axis(ax)
    return ax


def running_mean(values: Float[np.ndarray, " epochs"], window: int) -> Float[np.ndarray, " epochs"]:
    """Mean over ``window`` epochs around each one (one more if that is even), over fewer at the ends."""
    half = window // 2
    return np.array([values[max(0, place - half) : place + half + 1].mean() for place in range(len(values))])


def parameter_history(
    epochs: Float[np.ndarray, " checkpoints"],
    values: Float[np.ndarray, "checkpoints parameters"],
    ax: Axes,
    label: str = "weight",
) -> Axes:
    """Parameters over training: a line for each of up to 30, else median, quantiles, and a dozen of them as samples.

    Args:
        epochs: when the parameters had these values.
        values: one column per parameter.
        ax: where to draw.
        label: what they are, with their unit if they have one.
    """
    if values.shape[1] <= _LINES_AT_MOST:
        ax.plot(epochs, values, color=line_style(0)["color"], linewidth=0.8, alpha=0.8)
    else:
        low, lower, median, upper, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
        colour = line_style(0)["color"]
        ax.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0, label="5 - 95 %")
        ax.fill_between(epochs, lower, upper, color=colour, alpha=0.35, linewidth=0, label="25 - 75 %")
        chosen = np.linspace(0, values.shape[1] - 1, _SAMPLES).astype(int)
        lines = ax.plot(epochs, values[:, chosen], color="#222222", linewidth=0.6, alpha=0.6)
        lines[0].set_label(f"{_SAMPLES} of {values.shape[1]}")
        ax.plot(epochs, median, color=colour, linewidth=2, label="median")
    ax.set_ylabel(label)
    epoch_axis(ax)
    return ax


@styled
def loss_and_error_figure(run: RunData) -> Figure:
    """Loss and error of a run over its epochs."""
    figure = new_figure(7.5, 2.8)
    loss_and_error(run.metrics, figure.subplots(1, 2))
    return figure


@styled
def parameters_figure(run: RunData) -> Figure:
    """All weights, delays and learnt parameters of neurons of a run over its epochs."""
    rows, columns = grid(len(run.history), 2)
    figure = new_figure(7.5, 2.6 * rows)
    axes = axes_list(figure.subplots(rows, columns, sharex=True, squeeze=False), rows * columns)
    for ax, (name, history) in zip(axes, run.history.items(), strict=False):
        kind, _, place = name.partition(", ")
        unit = f" [{run.unit}]" if "delay" in kind or "time constant" in kind else ""
        one, count = kind.removesuffix("s"), history.values.shape[1]
        parameter_history(history.epochs, history.values, ax, one + unit)
        ax.set_title(f"{place}, {count} {one if count == 1 else kind}")
        ax.tick_params(labelbottom=True)
        if ax.get_legend_handles_labels()[0] and ax is axes[len(run.history) - 1]:
            legend_right(ax)
    for ax in axes[len(run.history) :]:
        ax.set_visible(False)
    return figure
