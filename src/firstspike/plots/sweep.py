"""Figures of a sweep: accuracy over its axes, its history, and which axes mattered."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike

from firstspike.plots.run_data import NotApplicable
from firstspike.plots.style import SEQUENTIAL, as_text, legend_right, line_style, marker_style, new_figure, styled

_LINES = 8  # more cannot be told apart
_CELLS = 12  # a map with at most this many rows and columns shows numbers


@dataclass(frozen=True)
class SweepResults:
    """The complete trials of a sweep: rows of its table, at least one, and the names of its axes.

    ``history`` has the metric in the order in which trials started, and whether the trial was pruned; ``importance`` is
    the share of each axis in the variance of the metric.
    """

    rows: Sequence[Mapping[str, Any]]
    axes: Sequence[str]
    metric: str = "validation_accuracy"
    maximize: bool = True
    history: Sequence[tuple[float, bool]] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    grid: bool = True

    def column(self, name: str) -> list[Any]:
        """The values of a column, one per trial."""
        return [row[name] for row in self.rows]

    @property
    def split(self) -> str:
        """``test``, or ``validation`` where there are no test data."""
        return "test" if any(row["test_accuracy"] is not None for row in self.rows) else "validation"

    @property
    def varied(self) -> dict[str, int]:
        """Axes with more than one value, and their number of values."""
        counts = {name: len(set(map(str, self.column(name)))) for name in self.axes}
        return {name: count for name, count in counts.items() if count > 1}

    def best_of(self, *axes: str) -> "SweepResults":
        """Of the trials with the same values on these axes the best on the validation data each."""
        found: dict[tuple[str, ...], Mapping[str, Any]] = {}
        for row in self.rows:
            best = found.setdefault(tuple(str(row[name]) for name in axes), row)
            if (row["validation_accuracy"] or 0) > (best["validation_accuracy"] or 0):
                found[tuple(str(row[name]) for name in axes)] = row
        return SweepResults(list(found.values()), self.axes)

    def second_axis(self, *taken: str) -> str | None:
        """The most important axis besides those ``taken`` that lines can show, of names rather than of numbers."""
        usable = [name for name, count in self.varied.items() if count <= _LINES and name not in taken]
        return min(usable, key=lambda x: (_numeric(self.column(x)), -self.importance.get(x, 0.0)), default=None)

    def draw(self, name: str, ax: Axes, second: str | None, curve: bool) -> None:
        """Accuracy over a column; lines show a second axis."""
        spread = np.asarray(self.column(f"{self.split}_std"), float)  # None becomes NaN
        lines = None if second is None else self.column(second)
        accuracy_over(self.column(name), self.column(f"{self.split}_accuracy"), spread, ax, lines, curve)
        if second is not None:
            legend_right(ax, title=second, title_fontsize=8)
        seeds = self.rows[0]["seeds"]
        ax.set(xlabel=name, ylabel=f"{self.split} accuracy [%]" + (f", {seeds} seeds" if seeds > 1 else ""))


def accuracy_over(
    x: Sequence[Any],
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None = None,
    curve: bool = True,
) -> Axes:
    """Accuracy in percent over one axis, numbers or names, with its spread; NaN where there is none.

    ``lines`` has the line that each trial belongs to; they are drawn side by side. A ``curve`` connects the trials of a
    line, but never over names.
    """
    places, means, spreads = _places(x, ax), 100 * np.asarray(accuracy, float), 100 * np.asarray(spread, float)
    names = _in_order(lines) if lines is not None else [""]
    for number, name in enumerate(names):
        mine = np.flatnonzero([str(line) == name for line in lines] if lines is not None else np.isfinite(places))
        mine = mine[np.argsort(places[mine], kind="stable")]
        look = line_style(number) | marker_style(number) | {"capsize": 3, "elinewidth": 1, "markersize": 4}
        look |= {"label": _short(name) or None} | ({} if curve and _numeric(x) else {"linestyle": "none"})
        aside = ScaledTranslation(4 * (number - (len(names) - 1) / 2) / 72, 0, ax.figure.dpi_scale_trans)  # 4 points
        error = np.nan_to_num(spreads[mine]) if np.isfinite(spreads[mine]).any() else None
        for drawn in ax.errorbar(places[mine], means[mine], error, **look).get_children():
            drawn.set_transform(drawn.get_transform() + aside)
    return ax


def accuracy_map(x: Sequence[Any], y: Sequence[Any], accuracy: ArrayLike, ax: Axes) -> Axes:
    """Accuracy in percent over two axes: a cell for each pair of values, or a dot where most values occur once."""
    percent = 100 * np.asarray(accuracy, float)
    columns, rows = _in_order(x), _in_order(y)
    if len(columns) * len(rows) > 2 * len(percent):
        dots = ax.scatter(_places(x, ax), _places(y, ax, vertical=True), c=percent, cmap=SEQUENTIAL, edgecolors="k")
        ax.figure.colorbar(dots, ax=ax, label="accuracy [%]")
        return ax
    cells = np.full((len(rows), len(columns)), np.nan)
    cells[[rows.index(str(b)) for b in y], [columns.index(str(a)) for a in x]] = percent
    ax.figure.colorbar(ax.imshow(cells, origin="lower", aspect="auto", cmap=SEQUENTIAL), ax=ax, label="accuracy [%]")
    ax.set_xticks(range(len(columns)), map(_short, columns), rotation=45 if len(columns) > 6 else 0)
    ax.set_yticks(range(len(rows)), map(_short, rows))
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells) if max(cells.shape) <= _CELLS else ():
        if np.isfinite(value):
            colour = "k" if value > middle else "w"
            ax.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=7)
    return ax


@styled
def over_figure(results: SweepResults) -> Figure:
    """Test accuracy over each axis with its spread; lines show a second axis."""
    shown = {name: results.second_axis(name) for name in results.varied if _numeric(results.column(name))}
    # names without an order are lines of another panel, and have their own only if they are not
    others = {name: results.second_axis(name) for name in results.varied if name not in shown}
    shown |= {name: second for name, second in others.items() if name not in shown.values()}
    if not shown:
        raise NotApplicable("no axis has two complete trials that differ")
    columns, rows = min(2, len(shown)), -(-len(shown) // 2)
    figure = new_figure(4.6 * columns, 3.0 * rows)
    for place, (name, second) in enumerate(shown.items(), 1):
        ax = figure.add_subplot(rows, columns, place)
        chosen = results.best_of(*filter(None, (name, second)))
        chosen.draw(name, ax, second, curve=results.grid)
        _note_choice(results, chosen, ax, name, second)
    return figure


@styled
def map_figure(results: SweepResults) -> Figure:
    """Test accuracy over the two axes with most values, the best over the others."""
    x, y, *_ = [*sorted(results.varied, key=lambda name: -results.varied[name]), "", ""]
    if not y:
        raise NotApplicable("a map needs two axes with two values at least")
    figure = new_figure(5.5, 3.6)
    ax, chosen = figure.add_subplot(), results.best_of(x, y)
    accuracy_map(chosen.column(x), chosen.column(y), chosen.column(f"{results.split}_accuracy"), ax)
    ax.set(xlabel=x, ylabel=y, title=f"{results.split} accuracy")
    _note_choice(results, chosen, ax, x, y)
    return figure


@styled
def parameters_figure(results: SweepResults) -> Figure:
    """Test accuracy against the number of trained parameters; lines show an axis."""
    if len(counts := set(results.column("parameters"))) < 2:
        raise NotApplicable("all trials have the same number of parameters")
    # numbers that follow from the number of parameters, such as sizes, would say nothing new
    pairs = {name: len({(row["parameters"], str(row[name])) for row in results.rows}) for name in results.varied}
    implied = [name for name in pairs if pairs[name] == len(counts) and _numeric(results.column(name))]
    figure = new_figure(5.5, 3.2)
    results.draw("parameters", figure.add_subplot(), results.second_axis(*implied), curve=False)
    return figure


@styled
def history_figure(results: SweepResults) -> Figure:
    """What the study optimised in the order in which trials started, and the best complete one so far."""
    if not results.history:
        raise NotApplicable("no trial has a value yet")
    percent = results.metric.endswith("accuracy")
    values, pruned = np.array(results.history, float).T
    number, values = np.arange(1, len(values) + 1), values * (100 if percent else 1)
    figure = new_figure(5.5, 3.0)
    ax = figure.add_subplot()
    complete, stopped = np.where(pruned, np.nan, values), pruned > 0
    ax.plot(number, complete, linestyle="none", markersize=4, label="trial", **marker_style(0))
    if stopped.any():
        look = marker_style(0) | {"fillstyle": "none", "alpha": 0.7, "label": "pruned"}
        ax.plot(number[stopped], values[stopped], linestyle="none", markersize=4, **look)
    best = (np.fmax if results.maximize else np.fmin).accumulate(complete)
    ax.step(number, best, where="post", label="best so far", zorder=1, **line_style(1))
    ax.set(xlabel="trials started", ylabel=results.metric.replace("_", " ") + (" [%]" if percent else ""))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_right(ax)
    return figure


@styled
def importance_figure(results: SweepResults) -> Figure:
    """How much each axis mattered for what the study optimised, by fANOVA as Optuna computes it."""
    if not results.importance:
        raise NotApplicable("importances need two axes or more, and trials that differ")
    names = sorted(results.importance, key=lambda name: results.importance[name])
    figure = new_figure(5.5, 0.9 + 0.35 * len(names))
    ax = figure.add_subplot()
    bars = ax.barh(names, [100 * results.importance[name] for name in names], color=line_style(0)["color"])
    ax.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
    ax.set(xlim=(0, 110), xlabel="importance [%]", title=f"for the {results.metric.replace('_', ' ')}")
    return figure


SWEEP_PLOTS: dict[str, Callable[[SweepResults], Figure]] = {
    "over": over_figure,
    "map": map_figure,
    "parameters": parameters_figure,
    "history": history_figure,
    "importance": importance_figure,
}


def _note_choice(results: SweepResults, chosen: SweepResults, ax: Axes, *axes: str | None) -> None:
    """Say so in the title where trials are left out, because they differ only on axes that the figure has not."""
    left_out = [name for name in results.varied if name not in axes]
    if len(chosen.rows) < len(results.rows) and left_out:
        ax.set_title(f"{ax.get_title()}\nbest on validation data over {', '.join(left_out)}".strip(), fontsize=8)


def _numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers that have a place on an axis."""
    return all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)


def _in_order(values: Sequence[Any]) -> list[str]:
    """The different values as text; numbers by their size, others as they come."""
    return list(dict.fromkeys(map(str, sorted(values) if _numeric(values) else values)))


def _short(name: str) -> str:
    """A name, to be drawn; a number with few digits."""
    with suppress(ValueError):
        return f"{float(name):.4g}"
    return as_text(name)


def _places(values: Sequence[Any], ax: Axes, vertical: bool = False) -> np.ndarray:
    """The places of values on an axis, which gets a tick each if there is room; logarithmic if numbers span much."""
    set_scale, set_ticks = (ax.set_yscale, ax.set_yticks) if vertical else (ax.set_xscale, ax.set_xticks)
    names = _in_order(values)
    if not _numeric(values):
        long: dict[str, Any] = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"}
        set_ticks(range(len(names)), map(as_text, names), **(long if not vertical and len("".join(names)) > 30 else {}))
        return np.asarray([names.index(str(value)) for value in values], float)
    scaled = ordered = np.unique(np.asarray(values, float))
    if ordered[0] > 0 and ordered[-1] / ordered[0] >= (8 if len(ordered) < 4 else 30):
        set_scale("log")
        scaled = np.log(ordered)
    if len(ordered) == 1 or np.diff(scaled).min() >= np.ptp(scaled) / 10:
        set_ticks(ordered, [f"{number:.4g}" for number in ordered])
        set_ticks([], minor=True)
    return np.asarray(values, float)
