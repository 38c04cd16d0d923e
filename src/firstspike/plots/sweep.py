"""Accuracy over what a sweep varied, its course, and which parameters mattered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from firstspike.plots.run_data import NotApplicable
from firstspike.plots.style import (
    SEQUENTIAL,
    legend_right,
    line_style,
    marker_style,
    new_figure,
    square_grid,
    styled,
)
from firstspike.plots.sweep_axes import in_order, number_axis, numeric, places_of, short

_LINES = 8  # more cannot be told apart
_CELLS = 12  # values, up to which a map shows numbers


@dataclass(frozen=True)
class SweepPoints:
    """The complete points of a sweep.

    Args:
        axes: values of each axis, one per point: numbers, or anything that is shown as text.
        accuracy: test accuracy, mean over the seeds.
        spread: its standard deviation over the seeds, NaN for a single one.
        validation: validation accuracy; of points that a figure cannot tell apart it shows the best by this.
        parameters: number of trained parameters.
        seeds: of each point.
        metric: what the study optimised.
        upwards: whether more of it is better.
        history: the metric in the order in which points were begun, those that were pruned included.
        importance: of each axis for the metric, in all 1; empty if there are too few points to say.
        grid: whether all combinations of values are there, or were to be.
    """

    axes: Mapping[str, Sequence[Any]]
    accuracy: Float[np.ndarray, " points"]
    spread: Float[np.ndarray, " points"]
    validation: Float[np.ndarray, " points"]
    parameters: Int[np.ndarray, " points"]
    seeds: int = 1
    metric: str = "validation_accuracy"
    upwards: bool = True
    history: Sequence[float] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    grid: bool = True

    @property
    def label(self) -> str:
        """What the accuracy is, for an axis."""
        return "test accuracy [%]" + (f", {self.seeds} seeds" if self.seeds > 1 else "")

    def best_of(self, *axes: str) -> list[int]:
        """Of the points with the same values on these axes the best on the validation data each."""
        found: dict[tuple[str, ...], int] = {}
        for point in range(len(self.accuracy)):
            key = tuple(str(self.axes[name][point]) for name in axes)
            if key not in found or self.validation[point] > self.validation[found[key]]:
                found[key] = point
        return list(found.values())


def accuracy_over(
    x: Sequence[Any],
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None = None,
    curve: bool = True,
) -> Axes:
    """Accuracy in percent over one axis, with its spread.

    Args:
        x: values of the axis ``(points,)``; numbers, or names, which get even distances.
        accuracy: fractions ``(points,)``.
        spread: standard deviations of these, NaN where there is none.
        ax: where to draw.
        lines: what line each point belongs to; by default all to one.
        curve: whether points of a line are connected.
    """
    places = places_of(x, ax)
    means, spreads = 100 * np.asarray(accuracy, float), 100 * np.nan_to_num(np.asarray(spread, float))
    names = [""] * len(x) if lines is None else [str(line) for line in lines]
    for number, name in enumerate(in_order(names if lines is None else lines)):
        mine = [k for k in range(len(x)) if names[k] == name]
        mine.sort(key=lambda k: places[k])
        style = line_style(number) | {"marker": marker_style(number)["marker"]}
        if not curve:
            style["linestyle"] = "none"
        ax.errorbar(
            places[mine],
            means[mine],
            spreads[mine],
            label=short(name),
            capsize=3,
            markersize=4,
            **style,
        )
    return ax


def accuracy_map(x: Sequence[Any], y: Sequence[Any], accuracy: ArrayLike, ax: Axes) -> Axes:
    """Accuracy in percent over two axes: a cell for each pair of values, or a dot where most values are there once."""
    percent = 100 * np.asarray(accuracy, float)
    columns, rows = in_order(x), in_order(y)
    if len(columns) * len(rows) > 2 * len(percent):
        dots = ax.scatter(places_of(x, ax), places_of(y, ax, vertical=True), c=percent, cmap=SEQUENTIAL, edgecolors="k")
        ax.figure.colorbar(dots, ax=ax, label="accuracy [%]")
        return ax
    cells = np.full((len(rows), len(columns)), np.nan)
    for a, b, value in zip(map(str, x), map(str, y), percent, strict=True):
        cells[rows.index(b), columns.index(a)] = value
    image = ax.imshow(cells, origin="lower", aspect="auto", cmap=SEQUENTIAL)
    ax.figure.colorbar(image, ax=ax, label="accuracy [%]")
    ax.set_xticks(
        range(len(columns)), [short(name) or name for name in columns], rotation=45 if len(columns) > 6 else 0
    )
    ax.set_yticks(range(len(rows)), [short(name) or name for name in rows])
    if max(len(rows), len(columns)) <= _CELLS:
        middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
        for row, column in zip(*np.nonzero(np.isfinite(cells)), strict=True):
            value = cells[row, column]
            ax.text(
                column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color="k" if value > middle else "w"
            )
    return ax


def accuracy_by_parameters(
    parameters: ArrayLike, accuracy: ArrayLike, spread: ArrayLike, ax: Axes, groups: Sequence[Any] | None = None
) -> Axes:
    """Accuracy in percent against the number of parameters, a dot with its spread for each point."""
    count, means = np.asarray(parameters), 100 * np.asarray(accuracy, float)
    spreads = 100 * np.nan_to_num(np.asarray(spread, float))
    names = [""] * len(count) if groups is None else [str(group) for group in groups]
    for number, name in enumerate(in_order(names if groups is None else groups)):
        mine = [k for k in range(len(count)) if names[k] == name]
        style = marker_style(number)
        ax.errorbar(
            count[mine], means[mine], spreads[mine], linestyle="none", label=short(name), capsize=2, markersize=4,
            elinewidth=0.8, **style,
        )  # fmt: skip
    number_axis(ax, sorted(set(count.tolist())))
    ax.set_xlabel("parameters")
    return ax


def sweep_history(values: ArrayLike, ax: Axes, upwards: bool = True) -> Axes:
    """The metric of each point in the order in which they were begun, and the best so far as a line."""
    found = np.asarray(values, float)
    number = np.arange(1, len(found) + 1)
    ax.plot(number, found, linestyle="none", alpha=0.6, markersize=4, label="point", **marker_style(0))
    best = (np.fmax if upwards else np.fmin).accumulate(found)
    ax.step(number, best, where="post", label="best so far", **line_style(1))
    ax.set_xlabel("points begun")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def parameter_importance(importance: Mapping[str, float], ax: Axes) -> Axes:
    """A bar for the share that each axis has in the variance of the metric, the largest on top."""
    names = sorted(importance, key=lambda name: importance[name])
    shares = [importance[name] for name in names]
    ax.barh(names, shares, color=line_style(0)["color"])
    for place, share in enumerate(shares):
        ax.text(share + 0.01, place, f"{share:.2f}", va="center", fontsize=8)
    ax.set(xlim=(0, 1.1), xlabel="importance")
    return ax


@styled
def over_figure(points: SweepPoints) -> Figure:
    """Test accuracy over each axis with its spread; another axis with few values makes the lines."""
    numbers = [name for name, values in points.axes.items() if numeric(values)]
    shown = [name for name in numbers or points.axes if len(set(map(str, points.axes[name]))) > 1]
    if not shown:
        raise NotApplicable("no axis has two complete points that differ")
    rows, columns = square_grid(len(shown), 2)
    figure = new_figure(4.6 * columns, 3.0 * rows)
    for place, name in enumerate(shown):
        ax = figure.add_subplot(rows, columns, place + 1)
        other = _lines_for(points, name)
        chosen = points.best_of(name, *([other] if other else []))
        lines = None if other is None else [points.axes[other][k] for k in chosen]
        x = [points.axes[name][k] for k in chosen]
        accuracy_over(x, points.accuracy[chosen], points.spread[chosen], ax, lines, points.grid)
        ax.set(xlabel=name, ylabel=points.label)
        if other:
            legend_right(ax, title=other, title_fontsize=8)
    return figure


@styled
def map_figure(points: SweepPoints) -> Figure:
    """Test accuracy over the two axes with most values, the best over the others."""
    count = {name: len(set(map(str, values))) for name, values in points.axes.items()}
    x, y, *_ = [*sorted(count, key=lambda name: -count[name]), "", ""]
    if not y or count[y] < 2:
        raise NotApplicable("a map needs two axes with two values at least")
    figure = new_figure(5.5, 3.6)
    ax = figure.add_subplot()
    chosen = points.best_of(x, y)
    accuracy_map([points.axes[x][k] for k in chosen], [points.axes[y][k] for k in chosen], points.accuracy[chosen], ax)
    ax.set(xlabel=x, ylabel=y, title=points.label.replace(" [%]", ""))
    return figure


@styled
def parameters_figure(points: SweepPoints) -> Figure:
    """Test accuracy against the number of trained parameters."""
    if len(set(points.parameters.tolist())) < 2:
        raise NotApplicable("all points have the same number of parameters")
    figure = new_figure(5.5, 3.2)
    ax = figure.add_subplot()
    names = [name for name, values in points.axes.items() if not numeric(values)]
    groups = points.axes[names[0]] if names and len(set(map(str, points.axes[names[0]]))) <= _LINES else None
    accuracy_by_parameters(points.parameters, points.accuracy, points.spread, ax, groups)
    ax.set_ylabel(points.label)
    if groups is not None:
        legend_right(ax, title=names[0], title_fontsize=8)
    return figure


@styled
def history_figure(points: SweepPoints) -> Figure:
    """What the study optimised, point by point, and the best so far."""
    if not len(points.history):
        raise NotApplicable("no point has a value yet")
    figure = new_figure(5.5, 3.0)
    ax = sweep_history(points.history, figure.add_subplot(), points.upwards)
    ax.set_ylabel(points.metric.replace("_", " "))
    legend_right(ax)
    return figure


@styled
def importance_figure(points: SweepPoints) -> Figure:
    """How much each axis mattered for what the study optimised, by fANOVA as Optuna computes it."""
    if not points.importance:
        raise NotApplicable("an importance needs two axes or more, and points that differ")
    figure = new_figure(5.5, 0.9 + 0.35 * len(points.importance))
    ax = parameter_importance(points.importance, figure.add_subplot())
    ax.set_title(f"for the {points.metric.replace('_', ' ')}")
    return figure


SWEEP_PLOTS: dict[str, Callable[[SweepPoints], Figure]] = {
    "over": over_figure,
    "map": map_figure,
    "parameters": parameters_figure,
    "history": history_figure,
    "importance": importance_figure,
}


def _lines_for(points: SweepPoints, name: str) -> str | None:
    """The other axis that has the fewest values, names before numbers, if they are few."""
    others = [(numeric(v), len(set(map(str, v))), key) for key, v in points.axes.items() if key != name]
    found = [key for _, count, key in sorted(others) if 1 < count <= _LINES]
    return found[0] if found else None
