"""Which classes are mistaken for which."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from firstspike.plots.run_data import RunData, run_figure
from firstspike.plots.style import GREY, as_text, class_names, new_figure, styled
from firstspike.text import no_decision
from firstspike.training import Evaluation
from firstspike.training.evaluation import confusion_counts

_NUMBERS_UP_TO = 20  # classes; beyond that, numbers in the cells are too small to read
_DARK = 36  # percent, beyond which numbers are white


def confusion(evaluation: Evaluation, ax: Axes, names: Sequence[str] | None = None) -> Axes:
    """Confusion matrix: true classes in rows, decisions in columns. Right ones are grey.

    Wrong decisions are shaded by their fraction of the true class, on a scale of square roots up to 100 %.

    Args:
        evaluation: labels and predictions of a data set.
        names: of the classes.
    """
    counts = confusion_counts(evaluation, None if names is None else len(names))
    classes = len(counts)
    names = class_names(names, classes)
    decisions = [*names, as_text(no_decision(names))][: counts.shape[1]]
    fractions = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(*counts.shape) == 1
    ax.imshow(np.where(right, 1.0, np.nan), cmap="Greys", vmin=0, vmax=5)
    image = ax.imshow(np.ma.masked_array(fractions, right), cmap="Reds", norm=PowerNorm(0.5, 0, 100))
    if (fractions[~right] > 0).any():
        label = "wrong decisions [% of the class]"
        ax.figure.colorbar(image, ax=ax, shrink=0.8, label=label, ticks=[0, 5, 20, 50, 100])
    for (row, column), count in np.ndenumerate(counts) if classes <= _NUMBERS_UP_TO else ():
        dark = not right[row, column] and fractions[row, column] > _DARK
        colour, size = "white" if dark else "black" if count else GREY, 9 if classes <= 5 else 6
        ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    long = max(map(len, decisions)) > 5
    ax.set_xticks(range(len(decisions)), decisions, rotation=30 if long else 0, ha="right" if long else "center")
    ax.set_yticks(range(classes), names)
    if counts.shape[1] > classes:
        ax.axvline(classes - 0.5, color="black", linewidth=1)
    ax.tick_params(length=0)
    ax.set(xlabel="decision", ylabel="true class")
    ax.set_title(f"accuracy {100 * evaluation.accuracy:.1f} ± {100 * evaluation.accuracy_error:.1f} %")
    return ax


@styled
def evaluation_figure(evaluation: Evaluation, names: Sequence[str]) -> Figure:
    """Confusion matrix of an evaluation."""
    size = 3.6 if len(names) <= 5 else 5.0
    figure = new_figure(size + 0.6, size - 0.4)
    confusion(evaluation, figure.subplots(), names)
    return figure


@run_figure
def confusion_figure(run: RunData) -> Figure:
    """Which classes are mistaken for which, on the test data."""
    return evaluation_figure(run.evaluation, run.names(len(confusion_counts(run.evaluation, len(run.class_names)))))
