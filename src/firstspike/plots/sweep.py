"""Accuracy over the axes of a sweep, its history, and which axes mattered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
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
from firstspike.plots.sweep_axes import in_order, number_axis, numeric, places_of, short, side_by_side, wide

_LINES = 8  # more cannot be told apart
_CELLS = 12  # a map with at most this many rows and columns shows numbers


@dataclass(frozen=True)
class SweepResults:
    """The complete trials of a sweep.

    Args:
        axes: values of each axis, one per trial: numbers, or anything that is shown as text.
        accuracy: accuracy on the split as a fraction, mean over the seeds.
        spread: its standard deviation over the seeds, NaN for a single one.
        validation: validation accuracy; of trials that share a place in a figure the best by this one is shown.
        parameters: number of trained parameters.
        seeds: of each trial.
        metric: what the study optimised.
        maximize: whether it was maximised.
        history: the metric in the order in which trials started, and whether the trial was pruned.
        importance: share of each axis in the variance of the metric; empty if there are too few trials to tell.
        grid: whether the sweep is a grid.
        split: ``test``, or ``validation`` where there are no test data.
    """

    axes: Mapping[str, Sequence[Any]]
    accuracy: Float[np.ndarray, " trials"]
    spread: Float[np.ndarray, " trials"]
    validation: Float[np.ndarray, " trials"]
    parameters: Int[np.ndarray, " trials"]
    seeds: int = 1
    metric: str = "validation_accuracy"
    maximize: bool = True
    history: Sequence[tuple[float, bool]] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    grid: bool = True
    split: str = "test"

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], axes: Sequence[str], **others: Any) -> "SweepResults":
        """From the rows of a table of complete trials, at least one; ``others`` are further fields."""
        split = "test" if any(row["test_accuracy"] is not None for row in rows) else "validation"
        accuracy, spread, validation = (
            np.asarray([row[key] for row in rows], float)  # None becomes NaN
            for key in (f"{split}_accuracy", f"{split}_std", "validation_accuracy")
        )
        parameters = np.asarray([row["parameters"] for row in rows])
        columns = {key: [row[key] for row in rows] for key in axes}
        return cls(columns, accuracy, spread, validation, parameters, seeds=rows[0]["seeds"], split=split, **others)

    @property
    def label(self) -> str:
        """The accuracy, for an axis."""
        return f"{self.split} accuracy [%]" + (f", {self.seeds} seeds" if self.seeds > 1 else "")

    @property
    def varied(self) -> dict[str, int]:
        """Axes with more than one value, and their number of values."""
        return {name: count for name, values in self.axes.items() if (count := len(set(map(str, values)))) > 1}

    def best_of(self, *axes: str) -> list[int]:
        """Of the trials with the same values on these axes the best on the validation data each."""
        found: dict[tuple[str, ...], int] = {}
        for trial in range(len(self.accuracy)):
            key = tuple(str(self.axes[name][trial]) for name in axes)
            if key not in found or self.validation[trial] > self.validation[found[key]]:
                found[key] = trial
        return list(found.values())

    def second_axis(self, *taken: str) -> str | None:
        """The most important axis besides those ``taken``: of few names, otherwise of few numbers, otherwise of any."""

        def rank(name: str) -> tuple[bool, bool, float, int]:
            many, numbers = self.varied[name] > _LINES, numeric(self.axes[name])
            return many, numbers, -self.importance.get(name, 0.0), self.varied[name]

        usable = [name for name in self.varied if self.varied[name] <= _LINES or numeric(self.axes[name])]
        return min((name for name in usable if name not in taken), key=rank, default=None)


def accuracy_over(
    x: Sequence[Any],
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None = None,
    curve: bool = True,
) -> Axes:
    """Accuracy in percent over one axis, with its spread. Lines that share places are drawn side by side.

    Args:
        x: values of the axis ``(trials,)``; numbers, or names, which are spaced evenly.
        accuracy: fractions ``(trials,)``.
        spread: standard deviations of these, NaN where there is none.
        ax: where to draw.
        lines: the line that each trial belongs to; by default all to one.
        curve: whether the trials of a line are connected; never over names.
    """
    ordered = all(isinstance(value, int | float) for value in x)
    _lines_with_spread(places_of(x, ax), accuracy, spread, ax, lines, curve and ordered)
    return ax


def _lines_with_spread(
    places: np.ndarray,
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None,
    curve: bool,
    near: float = 0.0,
) -> None:
    means, spreads = 100 * np.asarray(accuracy, float), 100 * np.asarray(spread, float)
    names = in_order(lines) if lines is not None else [""]
    group = np.asarray([names.index(str(line)) for line in lines] if lines is not None else np.zeros(len(places), int))
    if len(names) > 1:
        places = side_by_side(places, group, ax.get_xscale() == "log", near)
    for number, name in enumerate(names):
        mine = np.flatnonzero(group == number)
        mine = mine[np.argsort(places[mine], kind="stable")]
        style = line_style(number) | {"marker": marker_style(number)["marker"]}
        if not curve:
            style["linestyle"] = "none"
        error = np.nan_to_num(spreads[mine]) if np.isfinite(spreads[mine]).any() else None
        ax.errorbar(places[mine], means[mine], error, label=short(name), capsize=3, elinewidth=1, markersize=4, **style)


def accuracy_coloured(
    places: ArrayLike, accuracy: ArrayLike, spread: ArrayLike, values: Sequence[float], ax: Axes, label: str = ""
) -> Axes:
    """Accuracy in percent at places on an axis, each trial in the colour of a number, which a bar explains.

    Args:
        places: on the x axis ``(trials,)``.
        accuracy: fractions ``(trials,)``.
        spread: standard deviations of these, NaN where there is none.
        values: numbers ``(trials,)``.
        ax: where to draw.
        label: what the numbers are.
    """
    means, spreads = 100 * np.asarray(accuracy, float), 100 * np.asarray(spread, float)
    if np.isfinite(spreads).any():
        ax.errorbar(places, means, np.nan_to_num(spreads), linestyle="none", color="0.6", elinewidth=1, zorder=1)
    log = wide(sorted(set(values)))
    norm, ticks = (LogNorm(), LogLocator(subs=(1, 2, 5))) if log else (None, None)
    dots = ax.scatter(places, means, 22, values, cmap=SEQUENTIAL, norm=norm, edgecolors="k", linewidths=0.5)
    bar = ax.figure.colorbar(dots, ax=ax, label=label, ticks=ticks, format="%g" if log else None)
    bar.minorticks_off()
    return ax


def accuracy_map(x: Sequence[Any], y: Sequence[Any], accuracy: ArrayLike, ax: Axes) -> Axes:
    """Accuracy in percent over two axes: a cell for each pair of values, or a dot where most values occur once."""
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
    """Accuracy in percent against the number of parameters, a dot with its spread for each trial."""
    count = np.asarray(parameters, float)
    number_axis(ax, sorted(set(count.tolist())))
    _lines_with_spread(count, accuracy, spread, ax, groups, curve=False, near=0.015)
    ax.set_xlabel("parameters")
    return ax


def sweep_history(values: ArrayLike, ax: Axes, maximize: bool = True, pruned: ArrayLike | None = None) -> Axes:
    """The metric of each trial in the order in which they started, and the best complete one so far as a line."""
    found = np.asarray(values, float)
    number = np.arange(1, len(found) + 1)
    stopped = np.zeros(len(found), bool) if pruned is None else np.asarray(pruned, bool)
    complete = np.where(stopped, np.nan, found)
    ax.plot(number, complete, linestyle="none", markersize=4, label="trial", **marker_style(0))
    if stopped.any():
        style = marker_style(0) | {"fillstyle": "none", "alpha": 0.7}
        ax.plot(number[stopped], found[stopped], linestyle="none", markersize=4, label="pruned", **style)
    best = (np.fmax if maximize else np.fmin).accumulate(complete)
    ax.step(number, best, where="post", label="best so far", zorder=1, **line_style(1))
    ax.set_xlabel("trials started")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def parameter_importance(importance: Mapping[str, float], ax: Axes) -> Axes:
    """A bar for the share of each axis in the variance of the metric, in percent, the largest on top."""
    names = sorted(importance, key=lambda name: importance[name])
    shares = [100 * importance[name] for name in names]
    ax.barh(names, shares, color=line_style(0)["color"])
    for place, share in enumerate(shares):
        ax.text(share + 1, place, f"{share:.0f} %", va="center", fontsize=8)
    ax.set(xlim=(0, 110), xticks=range(0, 101, 20), xlabel="importance [%]")
    return ax


@styled
def over_figure(results: SweepResults) -> Figure:
    """Test accuracy over each axis with its spread; lines or colours show a second axis."""
    varied = results.varied
    if not varied:
        raise NotApplicable("no axis has two complete trials that differ")
    panels = {name: results.second_axis(name) for name in varied if numeric(results.axes[name])}
    # names without an order are lines of another panel, and have their own only if they are not
    panels |= {name: results.second_axis(name) for name in varied if name not in panels and name not in panels.values()}
    rows, columns = square_grid(len(panels), 2)
    figure = new_figure(4.6 * columns, 3.0 * rows)
    for place, (name, second) in enumerate(panels.items()):
        ax = figure.add_subplot(rows, columns, place + 1)
        chosen = results.best_of(name, *([second] if second else []))
        x = [results.axes[name][k] for k in chosen]
        by = None if second is None else [results.axes[second][k] for k in chosen]
        if second is not None and varied[second] > _LINES:
            accuracy_coloured(places_of(x, ax), results.accuracy[chosen], results.spread[chosen], by or [], ax, second)
        else:
            accuracy_over(x, results.accuracy[chosen], results.spread[chosen], ax, by, results.grid)
        ax.set(xlabel=name, ylabel=results.label)
        _note_choice(results, len(chosen), ax, name, second)
        if second is not None and varied[second] <= _LINES:
            legend_right(ax, title=second, title_fontsize=8)
    return figure


@styled
def map_figure(results: SweepResults) -> Figure:
    """Test accuracy over the two axes with most values, the best over the others."""
    x, y, *_ = [*sorted(results.varied, key=lambda name: -results.varied[name]), "", ""]
    if not y:
        raise NotApplicable("a map needs two axes with two values at least")
    figure = new_figure(5.5, 3.6)
    ax = figure.add_subplot()
    chosen = results.best_of(x, y)
    accuracy_map(
        [results.axes[x][k] for k in chosen], [results.axes[y][k] for k in chosen], results.accuracy[chosen], ax
    )
    ax.set(xlabel=x, ylabel=y, title=results.label.replace(" [%]", ""))
    _note_choice(results, len(chosen), ax, x, y)
    return figure


@styled
def parameters_figure(results: SweepResults) -> Figure:
    """Test accuracy against the number of trained parameters; colours show an axis."""
    counts = results.parameters.tolist()
    if len(set(counts)) < 2:
        raise NotApplicable("all trials have the same number of parameters")
    figure = new_figure(5.5, 3.2)
    ax = figure.add_subplot()
    # numbers that follow from the number of parameters, such as sizes, would say nothing new
    implied = [
        name for name in results.varied if len({*zip(counts, results.axes[name], strict=True)}) == len({*counts})
    ]
    second = results.second_axis(*(name for name in implied if numeric(results.axes[name])))
    if second is not None and results.varied[second] > _LINES:
        number_axis(ax, sorted(set(counts)))
        accuracy_coloured(counts, results.accuracy, results.spread, results.axes[second], ax, second)
        ax.set_xlabel("parameters")
    else:
        groups = None if second is None else results.axes[second]
        accuracy_by_parameters(counts, results.accuracy, results.spread, ax, groups)
        if groups is not None:
            legend_right(ax, title=second, title_fontsize=8)
    ax.set_ylabel(results.label)
    return figure


@styled
def history_figure(results: SweepResults) -> Figure:
    """What the study optimised, trial by trial, and the best so far."""
    if not len(results.history):
        raise NotApplicable("no trial has a value yet")
    values, pruned = zip(*results.history, strict=True)
    percent = results.metric.endswith("accuracy")
    figure = new_figure(5.5, 3.0)
    ax = sweep_history((100 if percent else 1) * np.asarray(values), figure.add_subplot(), results.maximize, pruned)
    ax.set_ylabel(results.metric.replace("_", " ") + (" [%]" if percent else ""))
    legend_right(ax)
    return figure


@styled
def importance_figure(results: SweepResults) -> Figure:
    """How much each axis mattered for what the study optimised, by fANOVA as Optuna computes it."""
    if not results.importance:
        raise NotApplicable("importances need two axes or more, and trials that differ")
    figure = new_figure(5.5, 0.9 + 0.35 * len(results.importance))
    ax = parameter_importance(results.importance, figure.add_subplot())
    ax.set_title(f"for the {results.metric.replace('_', ' ')}")
    return figure


SWEEP_PLOTS: dict[str, Callable[[SweepResults], Figure]] = {
    "over": over_figure,
    "map": map_figure,
    "parameters": parameters_figure,
    "history": history_figure,
    "importance": importance_figure,
}


def _note_choice(results: SweepResults, shown: int, ax: Axes, *axes: str | None) -> None:
    """Say so in the title where trials are left out, because they differ only on axes that the figure has not."""
    left_out = [name for name in results.varied if name not in axes]
    if shown < len(results.accuracy) and left_out:
        note = f"best on validation data over {', '.join(left_out)}"
        ax.set_title(f"{title}\n{note}" if (title := ax.get_title()) else note, fontsize=8)
