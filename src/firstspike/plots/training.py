"""Figures over the epochs of a training: loss, error, weights and other parameters."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from firstspike.layers.named import named_parameters
from firstspike.layers.trains import form_of
from firstspike.plots import look, run_data
from firstspike.plots.run_data import NotApplicable, run_figure
from firstspike.runs import Run
from firstspike.runs.checkpoint import load_checkpoint
from firstspike.training.state import CheckpointError

_log = logging.getLogger(__name__)

_LINES_AT_MOST = 30  # beyond that, parameters are shown by their quantiles
_SAMPLES = 12
_DOTS_UP_TO = 10  # checkpoints
_PARTS: dict[str, dict[str, Any]] = {
    "train": {"color": look.COLOURS[0], "linestyle": look.LINES[2], "zorder": 3},
    "validation": {"color": look.COLOURS[1], "linestyle": "-"},
}


def loss_and_error(
    metrics: Mapping[str, ArrayLike], axes: Axes | Iterable[Any], seeds: Sequence[Mapping[str, ArrayLike]] = ()
) -> list[Axes]:
    """Loss and error (1 - accuracy) of training and validation over epochs, raw values faint below a running median.

    The median is of a fortieth of all epochs. Where labels are numbers, the error is the mean absolute one.

    Args:
        metrics: the columns ``epoch``, ``train_loss``, ``train_accuracy``, each ``(epochs,)``; with validation data
            ``validation_loss``, ``validation_accuracy``. With ``raised``, ticks at the bottom mark epochs in which
            weights of silent neurons were raised.
        axes: two, for the loss and for the error in percent. Both are logarithmic. If some errors are 0, the axis is
            linear below the smallest other value.
        seeds: metrics of each seed, where ``metrics`` are their mean. Their range is drawn as a band.
    """
    loss_ax, error_ax = look.axes_list(axes, 2)[:2]
    epochs = np.asarray(metrics["epoch"], dtype=float)
    window = max(1, len(epochs) // 40)
    error = ("accuracy", "error [%]") if "train_mae" not in metrics else ("mae", "mean absolute error")
    for ax, column, label in ((loss_ax, "loss", "loss"), (error_ax, *error)):
        shown: list[float] = []
        for part, style in _PARTS.items():
            if f"{part}_{column}" not in metrics:
                continue
            values = _values(metrics, part, column)
            if seeds:
                all_seeds = np.stack([_values(seed, part, column) for seed in seeds])
                low, high = all_seeds.min(axis=0), all_seeds.max(axis=0)
                ax.fill_between(epochs, low, high, color=style["color"], alpha=0.5 * look.FAINT, linewidth=0)
                shown += low.tolist() + high.tolist()
            elif window > 1:
                ax.plot(epochs, values, color=style["color"], alpha=look.FAINT, linewidth=0.7)
            shown += values.tolist()
            ax.plot(epochs, running_median(values, window), label=part, **style)
        look.log_axis(ax, shown, 107 if column == "accuracy" else math.inf)
        ax.set_ylabel(label)
        look.epoch_axis(ax)
        look.label_lines(ax)
    notes = [f"band: {len(seeds)} seeds"] if seeds else ["faint: each epoch"] if window > 1 else []
    notes += [f"line: median of {2 * (window // 2) + 1} epochs"] if window > 1 else ["line: mean"] if seeds else []
    raised = epochs[np.asarray(metrics.get("raised", np.zeros(len(epochs))), dtype=float) > 0]
    if len(raised):
        drawn_as: dict[str, Any] = {"marker": "|", "color": look.GREY, "markersize": 5, "linestyle": ""}
        loss_ax.plot(raised, np.full(len(raised), 0.015), transform=loss_ax.get_xaxis_transform(), **drawn_as)
        notes.append("ticks: weights raised")
    loss_ax.set_title("; ".join(notes), loc="left", fontsize="small", color=look.GREY)
    return [loss_ax, error_ax]


def accuracy(metrics: Mapping[str, ArrayLike], ax: Axes) -> Axes:
    """Accuracy of training and validation in percent over epochs.

    Args:
        metrics: the columns ``epoch``, ``train_accuracy``, and with validation data ``validation_accuracy``, each
            ``(epochs,)``.
    """
    epochs = np.asarray(metrics["epoch"], dtype=float)
    for part, style in _PARTS.items():
        if (name := f"{part}_accuracy") in metrics:
            values = 100 * np.asarray(metrics[name], dtype=float)
            ax.plot(epochs, values, label=part, **style)
    ax.set_ylabel("accuracy [%]")
    look.epoch_axis(ax)
    look.label_lines(ax)
    return ax


def _values(metrics: Mapping[str, ArrayLike], part: str, column: str) -> Float[np.ndarray, " epochs"]:
    """A column of the metrics, of accuracies the error in percent."""
    values = np.asarray(metrics[f"{part}_{column}"], dtype=float)
    if column == "accuracy":
        values = 100 * (1 - values)
        values[values < 1e-4] = 0.0  # accuracies from sums in float32 are not exactly 1
    return values


def running_median(values: Float[np.ndarray, "epochs ..."], window: int) -> Float[np.ndarray, "epochs ..."]:
    """Median of ``window`` epochs around each one (one more if that is even), of fewer at the ends; without NaNs."""
    half, known = window // 2, np.ma.masked_invalid(values)
    around = (known[max(0, place - half) : place + half + 1] for place in range(len(known)))
    return np.stack([np.ma.filled(np.ma.median(part, axis=0), np.nan) for part in around])


def spike_counts(metrics: Mapping[str, ArrayLike], axes: Axes | Iterable[Any], names: Mapping[int, str]) -> list[Axes]:
    """Spikes per neuron and sample in layers of spike trains over epochs, and the neurons with none or too many.

    Args:
        metrics: the columns ``epoch`` and, for each of the layers, ``spikes_LAYER``, ``silent_LAYER`` and
            ``full_LAYER``: the mean number of spikes, the fraction of (sample, neuron) pairs without a spike, and of
            those with as many as their capacity. ``LAYER`` is the index in the network.
        axes: two, for the numbers of spikes and for the fractions in percent. Where all fractions are 0, the title of
            the first says so, and there is no need for a second.
        names: of the layers, by their index in the network.
    """
    none = not _some_silent_or_full(metrics, names)
    left, *others = look.axes_list(axes, 1 if none else 2)[:2]
    right = others[0] if others else None
    epochs = np.asarray(metrics["epoch"], dtype=float)
    for place, (layer, name) in enumerate(names.items()):
        drawn_as: dict[str, Any] = {"color": look.COLOURS[place % len(look.COLOURS)]}
        spikes, silent, full = (np.asarray(metrics[f"{x}_{layer}"], dtype=float) for x in ("spikes", "silent", "full"))
        left.plot(epochs, spikes, label=name, **drawn_as)
        if right is None:
            continue
        right.plot(epochs, 100 * silent, label=f"{name}, silent", **drawn_as)
        right.plot(epochs, 100 * full, label=f"{name}, full", linestyle=look.LINES[2], **drawn_as)
    shown = {left: "spikes per neuron"} | ({} if right is None else {right: r"neurons $\times$ samples [%]"})
    for ax, label in shown.items():
        ax.set_ylabel(label)
        top = max(0.1 if ax is left else 1.0, 1.05 * ax.dataLim.y1)
        ax.set_ylim(-0.05 * top, top)  # lines at 0 are above the axis
        look.epoch_axis(ax)
        look.label_lines(ax)
    if none:
        left.set_title("no neuron is ever silent or full")
    return list(shown)


def _some_silent_or_full(metrics: Mapping[str, ArrayLike], layers: Iterable[int]) -> bool:
    """Whether, in any epoch, a neuron of these layers has no spike in a sample, or as many as its capacity."""
    columns = (np.asarray(metrics[f"{x}_{layer}"], dtype=float) for layer in layers for x in ("silent", "full"))
    return any((column > 0).any() for column in columns)


def parameter_history(
    epochs: Sequence[float], values: Float[np.ndarray, "checkpoints parameters"], ax: Axes, label: str = "weight"
) -> Axes:
    """Parameters over training: a line for each of up to 30; of more, median, quantiles and a dozen as samples.

    The lines between few checkpoints are straight, so that dots mark these.
    """
    colour, few = look.COLOURS[0], len(epochs) <= _DOTS_UP_TO
    dots: dict[str, Any] = {"marker": "o", "markersize": 3} if few else {}
    if values.shape[1] <= _LINES_AT_MOST:
        ax.plot(epochs, values, color=colour, linewidth=0.8, alpha=0.8, **dots)
    else:
        low, lower, median, upper, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
        ax.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0, label="5 - 95 %")
        ax.fill_between(epochs, lower, upper, color=colour, alpha=0.35, linewidth=0, label="25 - 75 %")
        chosen = np.linspace(0, values.shape[1] - 1, _SAMPLES).astype(int)
        lines = ax.plot(epochs, values[:, chosen], color=look.COLOURS[2], linewidth=0.6, alpha=0.6, **dots)
        lines[0].set_label(f"{_SAMPLES} examples")
        ax.plot(epochs, median, color=colour, linewidth=2, label="median", **dots)
    ax.set_ylabel(label)
    look.epoch_axis(ax)
    if len(epochs) == 2:  # values in between are unknown
        ax.set_xticks(epochs, ["before training", f"epoch {epochs[-1]:g}"])
        ax.set(xlabel="", xlim=(epochs[0] - 0.3 * np.ptp(epochs), epochs[-1] + 0.3 * np.ptp(epochs)))
    return ax


def history(run: Run) -> tuple[list[float], dict[str, Float[np.ndarray, "checkpoints parameters"]]]:
    """All that is learnt before training and at each readable checkpoint, oldest first: epochs, and the values.

    A checkpoint inside an epoch has a fraction of it.
    """
    epochs, states = [0.0], [named_parameters(run.initial)]
    batches = max(1, -(-len(run.data.train) // run.config.training.batch_size))
    for name in run.checkpoints:
        try:
            checkpoint = load_checkpoint(run.folder / "checkpoints" / name)
            network = run.network_at(checkpoint)
        except CheckpointError as error:
            _log.warning("%s; the figures leave it out", error)
            continue
        epoch = checkpoint.epoch + checkpoint.batch / batches
        if epoch > epochs[-1]:  # the best checkpoint may be one of the regular ones
            epochs.append(epoch)
            states.append(named_parameters(network))
    if len(epochs) == 1:
        raise NotApplicable(f"{run.folder} has no checkpoint that can be read")
    return epochs, {name: np.stack([state[name].ravel() for state in states]) for name in states[0]}


@run_figure
def loss_and_error_figure(run: Run) -> Figure:
    """Loss and error over the epochs; with several seeds, the mean and the range."""
    figure = look.new_figure(7.5, 2.8)
    seeds = list(map(run_data.metrics_of, run.seeds))
    loss_and_error(run_data.metrics_of(run), figure.subplots(1, 2), seeds=seeds)
    return figure


@run_figure
def spike_counts_figure(run: Run) -> Figure:
    """Spikes per neuron in layers of spike trains over the epochs, and the neurons with none or too many."""
    names = {lif.index: lif.name for lif in run_data.named_layers_of(run) if form_of(lif.layer) == "trains"}
    if not names:
        raise NotApplicable("the network has no layers of spike trains; their neurons spike at most once")
    metrics = run_data.metrics_of(run)
    figure, axes = look.panels(1 + _some_silent_or_full(metrics, names), 2, (3.75, 2.8))
    spike_counts(metrics, axes, names)
    return figure


@run_figure
def parameters_figure(run: Run) -> Figure:
    """All weights, delays and learnt parameters of neurons over the epochs."""
    epochs, parameters = history(run)
    figure, axes = look.panels(len(parameters), 2, (3.75, 2.6), sharex=True)
    for ax, (name, values) in zip(axes, parameters.items(), strict=True):
        kind, _, place = name.partition(", ")
        one, count = kind.removesuffix("s"), values.shape[1]
        unit = f" [{run_data.unit_in(run)}]" if "delay" in kind or "time constant" in kind else ""
        parameter_history(epochs, values, ax, one + unit if place else "value")
        ax.set_title(f"{place}, {count} {one if count == 1 else kind}" if place else f"{name}, {count} values")
        ax.tick_params(labelbottom=True)
    described = next((found for ax in axes if (found := ax.get_legend_handles_labels())[0]), None)
    if described is not None:
        figure.legend(*described, loc="outside right upper")
    return figure
