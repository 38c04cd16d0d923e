"""Which classes are taken for which."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.plots.run_data import RunData
from firstspike.plots.style import SIGNED, class_names, new_figure, styled
from firstspike.training import Evaluation, confusion_counts

_NUMBERS_UP_TO = 20  # classes; above, numbers in the cells are too small to read


def confusion(evaluation: Evaluation, ax: Axes, names: Sequence[str] | None = None) -> Axes:
    """Confusion matrix: true classes in rows, decisions in columns, shaded by the fraction of the row.

    Args:
        evaluation: labels and predictions of a data set.
        ax: where to draw.
        names: of the classes.
    """
    counts = confusion_counts(evaluation)
    classes = counts.shape[0]
    names = class_names(names, classes)
    decisions = [*names, "silent"][: counts.shape[1]]
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(100 * fractions, cmap=SIGNED, vmin=0, vmax=100)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
    bar.set_label("of the true class [%]")
    if classes <= _NUMBERS_UP_TO:
        size = 9 if classes <= 5 else 6
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if fractions[row, column] < 0.5 else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    long = max(len(name) for name in decisions) > 5
    ax.set_xticks(range(len(decisions)), decisions, rotation=30 if long else 0, ha="right" if long else "center")
    ax.set_yticks(range(classes), names)
    if counts.shape[1] > classes:
        ax.axvline(classes - 0.5, color="white", linewidth=2)
    ax.set_xlabel("decision")
    ax.set_ylabel("true class")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(f"accuracy {100 * evaluation.accuracy:.1f} ± {100 * evaluation.accuracy_error:.1f} %")
    return ax


@styled
def confusion_figure(run: RunData) -> Figure:
    """Confusion matrix of a run on its test data."""
    size = 3.6 if len(run.class_names) <= 5 else 5.0
    figure = new_figure(size + 0.6, size - 0.4)
    confusion(run.evaluation, figure.subplots(), run.class_names)
    return figure
