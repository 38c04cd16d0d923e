"""Accuracy over the axes of a sweep, its history, and which axes mattered."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from firstspike.plots.run_data import NotApplicable
from firstspike.plots.style import SEQUENTIAL, legend_right, line_style, marker_style, new_figure, styled
from firstspike.plots.sweep_axes import in_order, numeric, places_of, short, side_by_side, wide
from firstspike.plots.sweep_results import LINES, SweepResults

_CELLS = 12  # a map with at most this many rows and columns shows numbers


def accuracy_over(
    x: Sequence[Any],
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None = None,
    curve: bool = True,
    near: float = 0.0,
) -> Axes:
    """Accuracy in percent over one axis, with its spread. Lines that share places are drawn side by side.

    Args:
        x: values of the axis ``(trials,)``; numbers, or names, which are spaced evenly.
        accuracy: fractions ``(trials,)``.
        spread: standard deviations of these, NaN where there is none.
        ax: where to draw.
        lines: the line that each trial belongs to; by default all to one.
        curve: whether the trials of a line are connected; never over names.
        near: places up to this fraction of the axis apart are drawn side by side, too.
    """
    places = places_of(x, ax)
    curve = curve and all(isinstance(value, int | float) for value in x)
    means, spreads = 100 * np.asarray(accuracy, float), 100 * np.asarray(spread, float)
    names = in_order(lines) if lines is not None else [""]
    group = np.asarray([names.index(str(line)) for line in lines] if lines is not None else np.zeros(len(places), int))
    if len(names) > 1:
        places = side_by_side(places, group, ax.get_xscale() == "log", near)
    for number, name in enumerate(names):
        mine = np.flatnonzero(group == number)
        mine = mine[np.argsort(places[mine], kind="stable")]
        look = line_style(number) | marker_style(number) | {"capsize": 3, "elinewidth": 1, "markersize": 4}
        look |= {"label": short(name) or None} | ({} if curve else {"linestyle": "none"})
        error = np.nan_to_num(spreads[mine]) if np.isfinite(spreads[mine]).any() else None
        ax.errorbar(places[mine], means[mine], error, **look)
    return ax


def _accuracy_coloured(
    x: Sequence[Any], accuracy: np.ndarray, spread: np.ndarray, values: Sequence[float], ax: Axes, label: str
) -> None:
    """Accuracy in percent over one axis, each trial in the colour of a number, which a bar explains."""
    places = places_of(x, ax)
    if np.isfinite(spread).any():
        look: dict[str, Any] = {"linestyle": "none", "color": "0.6", "elinewidth": 1, "zorder": 1}
        ax.errorbar(places, 100 * accuracy, 100 * np.nan_to_num(spread), **look)
    log = wide(sorted(set(values)))
    norm, ticks = (LogNorm(), LogLocator(subs=(1, 2, 5))) if log else (None, None)
    dots = ax.scatter(places, 100 * accuracy, 22, values, cmap=SEQUENTIAL, norm=norm, edgecolors="k", linewidths=0.5)
    ax.figure.colorbar(dots, ax=ax, label=label, ticks=ticks, format="%g" if log else None).minorticks_off()


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
    ax.set_xticks(range(len(columns)), map(short, columns), rotation=45 if len(columns) > 6 else 0)
    ax.set_yticks(range(len(rows)), map(short, rows))
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells) if max(cells.shape) <= _CELLS else ():
        if np.isfinite(value):
            look: dict[str, Any] = {"color": "k" if value > middle else "w", "fontsize": 7}
            ax.text(column, row, f"{value:.1f}", ha="center", va="center", **look)
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
    shown = {name: results.second_axis(name) for name in varied if numeric(results.axes[name])}
    # names without an order are lines of another panel, and have their own only if they are not
    shown |= {name: results.second_axis(name) for name in varied if name not in shown and name not in shown.values()}
    columns, rows = min(2, len(shown)), -(-len(shown) // 2)
    figure = new_figure(4.6 * columns, 3.0 * rows)
    for place, (name, second) in enumerate(shown.items(), 1):
        ax = figure.add_subplot(rows, columns, place)
        chosen = results.best_of(name, *([second] if second else []))
        _draw(results, [results.axes[name][k] for k in chosen], chosen, second, ax, curve=results.grid)
        ax.set_xlabel(name)
        _note_choice(results, len(chosen), ax, name, second)
    return figure


@styled
def map_figure(results: SweepResults) -> Figure:
    """Test accuracy over the two axes with most values, the best over the others."""
    x, y, *_ = [*sorted(results.varied, key=lambda name: -results.varied[name]), "", ""]
    if not y:
        raise NotApplicable("a map needs two axes with two values at least")
    figure = new_figure(5.5, 3.6)
    ax, chosen = figure.add_subplot(), results.best_of(x, y)
    columns, rows = ([results.axes[name][k] for k in chosen] for name in (x, y))
    accuracy_map(columns, rows, results.accuracy[chosen], ax)
    ax.set(xlabel=x, ylabel=y, title=results.label.replace(" [%]", ""))
    _note_choice(results, len(chosen), ax, x, y)
    return figure


@styled
def parameters_figure(results: SweepResults) -> Figure:
    """Test accuracy against the number of trained parameters; colours show an axis."""
    counts = results.parameters.tolist()
    if len(set(counts)) < 2:
        raise NotApplicable("all trials have the same number of parameters")
    # numbers that follow from the number of parameters, such as sizes, would say nothing new
    pairs = {name: len({*zip(counts, values, strict=True)}) for name, values in results.axes.items()}
    implied = [name for name in results.varied if pairs[name] == len({*counts}) and numeric(results.axes[name])]
    figure = new_figure(5.5, 3.2)
    ax = figure.add_subplot()
    _draw(results, counts, range(len(counts)), results.second_axis(*implied), ax, curve=False, near=0.015)
    ax.set_xlabel("parameters")
    return figure


def _draw(
    results: SweepResults, x: Sequence[Any], chosen: Sequence[int], second: str | None, ax: Axes, **how: Any
) -> None:
    """Accuracy of the chosen trials over ``x``; lines or, of more values, colours show a second axis."""
    accuracy, spread = results.accuracy[chosen], results.spread[chosen]
    if second is None:
        accuracy_over(x, accuracy, spread, ax, **how)
    elif results.varied[second] > LINES:
        _accuracy_coloured(x, accuracy, spread, [results.axes[second][k] for k in chosen], ax, second)
    else:
        accuracy_over(x, accuracy, spread, ax, [results.axes[second][k] for k in chosen], **how)
        legend_right(ax, title=second, title_fontsize=8)
    ax.set_ylabel(results.label)


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
