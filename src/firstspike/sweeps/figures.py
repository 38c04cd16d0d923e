"""Accuracy of a sweep over its axes, with the spread over seeds. Optuna has further figures of the study."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from optuna.trial import FrozenTrial, TrialState

from firstspike.plots.look import as_text, legend_right, line_style, log_ticks, marker_style, panels, styled
from firstspike.plots.run_data import NotApplicable

_LINES = 8  # more cannot be distinguished


def accuracy_over(
    x: Sequence[Any],
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None = None,
    curve: bool = True,
    log: bool | None = None,
) -> Axes:
    """Accuracy in percent over one axis, numbers or names, with its spread; NaN if there is none.

    ``lines`` has the line that each trial belongs to, shifted a little so that spreads do not cover each other. A
    ``curve`` connects the trials of a line, but never over names. A ``log`` axis is by default one of multiples.
    """
    means, spreads = 100 * np.asarray(accuracy, float), 100 * np.asarray(spread, float)
    numbers, texts = _numeric(x), [as_text(str(value)) for value in x]
    names = list(dict.fromkeys(texts))
    places = np.asarray(x if numbers else list(map(names.index, texts)), float)
    logarithmic = numbers and (_multiples(x) if log is None else log)
    step = min(np.diff(np.unique(np.log(places) if logarithmic else places)), default=0.0)
    order, lines = np.argsort(places, kind="stable"), lines or [""] * len(x)
    shown = list(dict.fromkeys(lines))
    for number, line in enumerate(shown):
        mine = [k for k in order if lines[k] == line]
        look = line_style(number) | marker_style(number) | {"capsize": 3, "elinewidth": 1, "markersize": 4}
        look |= {} if curve and numbers else {"linestyle": "none"}
        ends = np.nan_to_num(spreads[mine])
        error = [ends, np.minimum(ends, 100 - means[mine])] if np.isfinite(spreads[mine]).any() else None
        shift = 0.08 * step * (number - (len(shown) - 1) / 2)
        at = places[mine] * np.exp(shift) if logarithmic else places[mine] + shift
        ax.errorbar(at, means[mine], error, label=as_text(str(line)) or None, **look)
    if not numbers:
        ax.set_xticks(range(len(names)), names, rotation=20 if len("".join(names)) > 30 else 0)
    elif logarithmic:
        ax.set_xscale("log")
        log_ticks(ax.xaxis, *ax.get_xlim())
    return ax


@styled
def over_figure(study: optuna.Study) -> Figure:
    """Accuracy over each axis and the number of parameters, with its spread. Lines show an axis of names."""
    varied = _varied(study, "parameters")
    shown = [name for name, values in varied.items() if _numeric(values)] or list(varied)
    if not shown:
        raise NotApplicable("no axis has two complete trials that differ")
    second = next((x for x in varied if x not in shown and len(set(varied[x])) <= _LINES), None)
    rows = [trial.user_attrs for trial in _complete(study)]
    split = "test" if rows[0]["test_accuracy"] is not None else "validation"
    accuracy, spread = (np.asarray([row[f"{split}_{x}"] for row in rows], float) for x in ("accuracy", "std"))
    order = np.argsort([row["validation_accuracy"] or 0.0 for row in rows], kind="stable")  # the best last
    lines = [""] * len(rows) if second is None else varied[second]
    said = study.user_attrs["firstspike"]
    seeds = rows[0]["seeds"]
    said_once = [f"mean and standard deviation of {seeds} seeds"] if seeds > 1 else []
    figure, axes = panels(len(shown), 2, (4.6, 3.0))
    for ax, name in zip(axes, shown, strict=True):
        best = list({(str(varied[name][k]), lines[k]): k for k in order}.values())
        x, of = [varied[name][k] for k in best], [lines[k] for k in best]
        axis = said["axes"].get(name)
        log = True if isinstance(axis, dict) and axis.get("log") else None
        accuracy_over(x, accuracy[best], spread[best], ax, of, said["sampler"] == "grid", log)
        ax.set(xlabel=name, ylabel=f"{split} accuracy [%]")
        if len(best) < len(rows):
            said_once.append("on the other axes: the best on validation data")
        if second is not None:
            legend_right(ax, title=second, title_fontsize=8)
    figure.suptitle("; ".join(dict.fromkeys(said_once)), fontsize=9)
    return figure


SWEEP_PLOTS: dict[str, Callable[[optuna.Study], Figure]] = {"over": over_figure}
"""Figures of a sweep by name. Each takes its study."""


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _varied(study: optuna.Study, *others: str) -> dict[str, list[Any]]:
    """The values of the trials on each axis, and of other attributes, that differ."""
    rows = [trial.params | {name: trial.user_attrs[name] for name in others} for trial in _complete(study)]
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return {name: values for name, values in columns.items() if len(set(map(str, values))) > 1}


def _multiples(values: Sequence[float]) -> bool:
    """Whether numbers belong on a logarithmic axis: they span much, or their ratios differ less than their steps."""
    known = np.unique(np.asarray(values, float))
    if known[0] <= 0:
        return False
    steps, ratios = np.diff(known), np.diff(np.log(known))
    even = len(known) > 2 and np.ptp(ratios) < 0.25 * ratios.max() and np.ptp(steps) > 0.25 * steps.max()
    return bool(known[-1] >= 30 * known[0] or even)


def _numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers that have a place on an axis."""
    return all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)
