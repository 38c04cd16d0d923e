"""Figures of a sweep: accuracy over its axes with the spread over seeds, and Optuna's own figures of the study."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from firstspike.plots import NotApplicable
from firstspike.plots.look import as_text, legend_right, line_style, log_ticks, marker_style, panels, styled

if TYPE_CHECKING:
    from optuna import Study

_LINES = 8  # more cannot be distinguished
_BLUES = ListedColormap(mpl.colormaps["Blues"](np.linspace(0.35, 1.0, 256)))  # without those that are almost white


def accuracy_over(
    x: Sequence[Any],
    accuracy: ArrayLike,
    spread: ArrayLike,
    ax: Axes,
    lines: Sequence[Any] | None = None,
    curve: bool = True,
) -> Axes:
    """Accuracy in percent over one axis, numbers or names, with its spread; NaN if there is none.

    ``lines`` has the line that each trial belongs to, shifted a little so that spreads do not cover each other. A
    ``curve`` connects the trials of a line, but never over names.
    """
    means, spreads = 100 * np.asarray(accuracy, float), 100 * np.asarray(spread, float)
    numbers = _numeric(x)
    texts = [as_text(str(value)) for value in x]
    names = list(dict.fromkeys(texts))
    places = np.asarray(x if numbers else list(map(names.index, texts)), float)
    scale = np.log if (logarithmic := numbers and _multiples(x)) else np.asarray
    steps = np.diff(np.unique(scale(places)))
    of_line = np.asarray([as_text(str(line)) for line in lines or [""] * len(x)])
    shown = dict.fromkeys(of_line.tolist())
    for number, line in enumerate(shown):
        mine = np.flatnonzero(of_line == line)
        mine = mine[np.argsort(places[mine], kind="stable")]
        look = line_style(number) | marker_style(number) | {"capsize": 3, "elinewidth": 1, "markersize": 4}
        look |= {} if curve and numbers else {"linestyle": "none"}
        error = np.nan_to_num(spreads[mine]) if np.isfinite(spreads[mine]).any() else None
        shift = 0.08 * min(steps, default=0.0) * (number - (len(shown) - 1) / 2)
        at = places[mine] * np.exp(shift) if logarithmic else places[mine] + shift
        ax.errorbar(at, means[mine], error, label=line or None, **look)
    if not numbers:
        ax.set_xticks(range(len(names)), names, rotation=20 if len("".join(names)) > 30 else 0)
    elif logarithmic:
        ax.set_xscale("log")
        log_ticks(ax.xaxis, *ax.get_xlim())
    return ax


@styled
def over_figure(study: "Study") -> Figure:
    """Accuracy over each axis and the number of parameters, with its spread; lines show an axis of names."""
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
    figure, axes = panels(len(shown), 2, (4.6, 3.0))
    for ax, name in zip(axes, shown, strict=True):
        best = list({(str(varied[name][k]), lines[k]): k for k in order}.values())
        x, of = [varied[name][k] for k in best], [lines[k] for k in best]
        accuracy_over(x, accuracy[best], spread[best], ax, of, study.user_attrs["firstspike"]["sampler"] == "grid")
        seeds = f", {rows[0]['seeds']} seeds" if rows[0]["seeds"] > 1 else ""
        ax.set(xlabel=name, ylabel=f"{split} accuracy [%]{seeds}")
        if len(best) < len(rows):
            ax.set_title("other axes: the best on validation data", fontsize=8)
        if second is not None:
            legend_right(ax, title=second, title_fontsize=8)
    return figure


def _by_optuna(name: str, what: str, trials: int = 2, axes: int = 1) -> Callable[["Study"], Figure]:
    """A figure of ``optuna.visualization.matplotlib``, of at least ``trials`` that differ and ``axes`` that vary."""

    def draw(study: "Study") -> Figure:
        import matplotlib.pyplot as plt
        import optuna.visualization.matplotlib as drawing
        from optuna.importance import FanovaImportanceEvaluator

        varied, metric = list(_varied(study)), study.user_attrs["firstspike"]["metric"]
        if len(varied) < axes or len({trial.value for trial in _complete(study)}) < trials:
            raise NotApplicable(f"needs {trials} complete trials with different values, and {axes} axes or more")
        options: dict[str, Any] = {"params": varied} if axes else {}
        if name == "plot_param_importances":
            options["evaluator"] = FanovaImportanceEvaluator(seed=0)
        settings: dict[Any, Any] = {"figure.constrained_layout.use": True}
        with mpl.rc_context(settings), warnings.catch_warnings(action="ignore"):  # Optuna sets a style, and warns of it
            drawn = getattr(drawing, name)(_for_drawing(study), target_name=metric.replace("_", " "), **options)
            figure: Figure = np.ravel(drawn)[0].figure
            rows, columns = np.atleast_2d(drawn).shape
            figure.set_size_inches(2.5 + 3 * columns, 2.0 + 2.0 * rows)
            for artist in figure.findobj():
                if isinstance(artist, ScalarMappable):
                    artist.set_cmap(_BLUES)
            for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) if axis.get_scale() == "log"):
                log_ticks(axis, *axis.get_view_interval())
            if name == "plot_param_importances":
                drawn.get_legend().remove()  # one entry, the label of the axis
            plt.close(figure)
        return figure

    draw.__doc__ = what
    return draw


SWEEP_PLOTS: dict[str, Callable[["Study"], Figure]] = {
    "over": over_figure,
    "map": _by_optuna("plot_contour", "The metric over each pair of axes.", axes=2),
    "slices": _by_optuna("plot_slice", "The metric over each axis, darker for later trials."),
    "parallel": _by_optuna("plot_parallel_coordinate", "A line for each trial through its values, by its metric."),
    "history": _by_optuna("plot_optimization_history", "The metric of each trial, and the best so far.", 1, 0),
    "importance": _by_optuna("plot_param_importances", "The share of each axis in the metric's variance.", 4, 2),
}
"""Figures of a sweep by name; each takes its study."""


def _complete(study: "Study") -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _for_drawing(study: "Study") -> "Study":
    """The complete trials, numbered from 0, with distributions that define which axes are numbers, and their scale."""
    from optuna import create_study, logging
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)  # this study is nobody's business
    shown = create_study(direction=study.direction)
    logging.set_verbosity(verbosity)
    varied = _varied(study)
    numbers = {
        name: FloatDistribution(min(values), max(values), log=_multiples(values))
        for name, values in varied.items()
        if _numeric(values)
    }
    for trial in _complete(study):
        params = {name: trial.params[name] for name in varied}
        distributions = {name: numbers.get(name, trial.distributions[name]) for name in varied}
        shown.add_trial(create_trial(params=params, distributions=distributions, value=trial.value))
    return shown


def _varied(study: "Study", *others: str) -> dict[str, list[Any]]:
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
