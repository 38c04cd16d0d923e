"""Figures of a trained network: weights before and after training, receptive fields, and its confusions."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from firstspike.layers import BiasSpikes, Delay, Multiplex, Network, SpikeDropout, SpikingConv2d
from firstspike.layers.named import NamedLayer, named_layers, to_numpy
from firstspike.plots import look, run_data
from firstspike.plots.run_data import NotApplicable, run_figure
from firstspike.runs import Run
from firstspike.text import no_decision
from firstspike.training.evaluation import Evaluation, confusion_counts, success_text
from firstspike.training.objective import numbers_of

_NUMBERS_UP_TO = 20  # classes. Beyond that, numbers in the cells are too small to read
_LETTERS = 32  # of all classes. More do not fit in a line
_DARK = 36  # percent, beyond which numbers are white
_NAMES_UP_TO = 16  # inputs or outputs, whose ticks have names
_IMAGES = 24  # neurons whose weights are images


def weight_matrix(weight: Float[Tensor, "out inputs"], ax: Axes, limit: float | None = None, bias: int = 0) -> Axes:
    """Weights as an image, red is positive, blue negative. The last ``bias`` columns are marked as bias spikes."""
    values = to_numpy(weight)
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **look.signed(values, limit))
    ax.figure.colorbar(image, ax=ax, label="weight", pad=0.02)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if bias:
        last, above = values.shape[1] - 0.5, ax.get_xaxis_transform()
        ax.plot([last - bias, last], [1.015] * 2, "k", linewidth=2, transform=above, clip_on=False, scalex=False)
        ax.text(last, 1.03, "bias", transform=above, ha="right", va="bottom", fontsize="small")
    ax.set(xlabel="input", ylabel="neuron")
    return ax


def receptive_fields(
    weight: Float[Tensor, "neurons height width"],
    axes: Axes | Iterable[Any],
    titles: Sequence[str] | None = None,
    channels: int = 1,
) -> list[Axes]:
    """The weights of neurons as images of their inputs. Red is positive, blue negative.

    Args:
        weight: of each neuron to draw, with ``channels`` next to each other.
        axes: one per neuron.
        titles: one per neuron.
        channels: of the inputs.
    """
    values = to_numpy(weight)
    flat = look.axes_list(axes, len(values))[: len(values)]
    look.image_panels(values, flat, titles, "weight", channels, interpolation="nearest", **look.signed(values))
    return flat


@run_figure
def weight_matrices_figure(run: Run) -> Figure:
    """Weight matrices of every LIF layer before and after training."""
    layers = list(zip(named_layers(run.initial), run_data.named_layers_of(run), strict=True))
    names = list(map(look.as_text, run_data.neuron_names(run)))
    figure = look.new_figure(7.0, 2.7 * len(layers))
    for row, pair in zip(figure.subplots(len(layers), 2, squeeze=False), layers, strict=True):
        limit = max(float(lif.layer.weight.abs().max()) for lif in pair)
        for ax, lif, when in zip(row, pair, ("before training", "after"), strict=True):
            filters = isinstance(lif.layer, SpikingConv2d)
            weight_matrix(lif.layer.synapses, ax, limit, 0 if filters else _bias_columns(run.network, lif))
            ax.set_title(f"{lif.name}, {when}")
            if pair is layers[-1] and run_data.spiking_output(run) and len(names) <= _NAMES_UP_TO:
                ax.set_yticks(range(len(names)), names)
            if all(isinstance(x, BiasSpikes | Delay | SpikeDropout) for x in list(run.network)[: lif.index]):
                _name_inputs(run, ax)
            if filters:
                ax.set(xlabel="place in the filter", ylabel="filter")
    return figure


def _name_inputs(run: Run, ax: Axes) -> None:
    """Ticks with the names of the inputs, if they are known and few."""
    names = list(map(look.as_text, run_data.input_names(run)))
    if len(names) <= _NAMES_UP_TO and names[0] != "0":
        upright = sum(map(len, names)) > _LETTERS
        ax.set_xticks(range(len(names)), names, rotation=30 if upright else 0, ha="right" if upright else "center")


def _bias_columns(network: Network, lif: NamedLayer) -> int:
    """Number of a layer's last inputs that are bias spikes."""
    count, copies = 0, 1
    for layer in reversed(list(network)[: lif.index]):
        if isinstance(layer, Multiplex):
            copies *= layer.copies
        elif isinstance(layer, BiasSpikes):
            count += copies * len(layer.times)
        elif not isinstance(layer, Delay | SpikeDropout):
            break
    return count


@run_figure
def receptive_fields_figure(run: Run) -> Figure:
    """Weights of the first layer as images of the input, the filters of a convolution; channels side by side."""
    lif, shape = run_data.named_layers_of(run)[0], run.data.train.image
    if isinstance(lif.layer, SpikingConv2d):
        images, of = lif.layer.weight.flatten(2).unflatten(2, lif.layer.window.kernel), "filters"
    else:
        before = list(run.network)[: lif.index]
        if shape is None or not all(isinstance(layer, BiasSpikes | Delay | SpikeDropout) for layer in before):
            raise NotApplicable("the inputs of the first LIF layer are not the pixels of an image")
        images, of = lif.layer.synapses[:, : math.prod(shape)].unflatten(1, shape), "neurons"
    chosen = np.linspace(0, len(images) - 1, min(_IMAGES, len(images))).astype(int)
    beside = images[chosen].movedim(1, 2).flatten(2)  # (neurons, height, channels * width)
    width = min(3.0, beside.shape[2] / beside.shape[1])
    figure, axes = look.panels(len(chosen), 8 if width < 2 else 4, (0.85 * width, 1.1), (1.0, 0.3))
    receptive_fields(beside, axes, [str(neuron) for neuron in chosen], images.shape[1])
    figure.suptitle(f"{lif.name}: {len(chosen)} of {len(images)} {of}")
    return figure


def confusion(evaluation: Evaluation, ax: Axes, names: Sequence[str] | None = None) -> Axes:
    """Confusion matrix: true classes in rows, decisions in columns. Correct ones are grey.

    Wrong decisions are shaded by their fraction of the true class, on a scale of square roots up to 100 %. Where labels
    are numbers, predictions are drawn against them.

    Args:
        evaluation: labels and predictions of a data set.
        names: of the classes. Other outputs that the network decides for have numbers. Of numbers, the targets.
    """
    if evaluation.labels.is_floating_point():
        return _predictions(evaluation, ax, names)
    counts = confusion_counts(evaluation, None if names is None else len(names))
    classes, names = len(counts), names or ()
    names = look.class_names([*names, *map(str, range(len(names), classes))], classes)
    decisions = [*names, look.as_text(no_decision(names))][: counts.shape[1]]
    fractions = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(*counts.shape) == 1
    ax.imshow(np.where(right, 1.0, np.nan), cmap="Greys", vmin=0, vmax=5)
    image = ax.imshow(np.ma.masked_array(fractions, right), cmap="Reds", norm=PowerNorm(0.5, 0, 100))
    if (fractions[~right] > 0).any():
        label = "wrong [% of the class]"
        ax.figure.colorbar(image, ax=ax, shrink=0.8, label=label, ticks=[0, 5, 20, 50, 100])
    for (row, column), count in np.ndenumerate(counts) if classes <= _NUMBERS_UP_TO else ():
        dark = not right[row, column] and fractions[row, column] > _DARK
        colour, size = "white" if dark else "black" if count else look.GREY, 9 if classes <= 5 else 6
        ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    long = sum(map(len, decisions)) > _LETTERS
    ax.set_xticks(range(len(decisions)), decisions, rotation=30 if long else 0, ha="right" if long else "center")
    ax.set_yticks(range(classes), names)
    if counts.shape[1] > classes:
        ax.axvline(classes - 0.5, color="black", linewidth=1)
    ax.tick_params(length=0)
    ax.set(xlabel="decision", ylabel="true class")
    ax.set_title(success_text(vars(evaluation), 1))
    return ax


def _predictions(evaluation: Evaluation, ax: Axes, names: Sequence[str] | None) -> Axes:
    """Predicted numbers against the labels, and the line on which they would be equal."""
    given = evaluation.labels, evaluation.predictions
    labels, found = (to_numpy(numbers_of(x, evaluation.labels.ndim > 2)) for x in given)
    for target, name in enumerate(look.class_names(names, labels.shape[1])):
        colour = look.COLOURS[target % len(look.COLOURS)]
        ax.plot(labels[:, target], found[:, target], ".", color=colour, alpha=0.6, label=name)
    ends = [min(labels.min(), found.min()), max(labels.max(), found.max())]
    ax.plot(ends, ends, color=look.GREY, linewidth=0.8, zorder=0)
    ax.set(xlabel="label", ylabel="prediction", title=f"$R^2$ = {evaluation.metrics['r2']:.3f}")
    if labels.shape[1] > 1:
        ax.legend()
    return ax


@look.styled
def evaluation_figure(evaluation: Evaluation, names: Sequence[str]) -> Figure:
    """Confusion matrix of an evaluation, or predictions against labels."""
    size = 3.6 if len(names) <= 5 else 5.0
    figure = look.new_figure(size + 0.6, size - 0.4)
    confusion(evaluation, figure.subplots(), names)
    return figure


@run_figure
def confusion_figure(run: Run) -> Figure:
    """Which classes are mistaken for which, on the test data; where labels are numbers, predictions against them."""
    return evaluation_figure(run.evaluation, run.class_names)
