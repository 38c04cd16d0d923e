"""Weights before and after training, and as images."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from firstspike.layers import BiasSpikes, Delay, LIFConv2d
from firstspike.layers.named import NamedLIF, named_lif_layers, to_numpy
from firstspike.plots.run_data import NotApplicable, RunData, run_figure
from firstspike.plots.style import COLOURS, SIGNED, axes_list, image_panels, legend_right, new_figure, panels

_IMAGES = 24  # neurons whose weights are images


def weight_histogram(before: Float[Tensor, "..."], after: Float[Tensor, "..."], ax: Axes, bins: int = 40) -> Axes:
    """Histograms of a layer's weights before and after training, over the same bins.

    Args:
        before: weights of any shape.
        after: the same weights later.
        ax: where to draw.
        bins: number of bins.
    """
    old, new = to_numpy(before).ravel(), to_numpy(after).ravel()
    both = np.concatenate([old, new])
    edges = np.histogram_bin_edges(both, min(bins, max(5, 2 * int(np.sqrt(len(old))))))
    ax.hist(old, edges.tolist(), color="#BBBBBB", label="before")
    ax.hist(new, edges.tolist(), histtype="step", color=COLOURS[0], linewidth=1.5, label="after")
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    ax.set_xlabel("weight")
    ax.set_ylabel("synapses")
    return ax


def weight_matrix(weight: Float[Tensor, "out inputs"], ax: Axes, limit: float | None = None) -> Axes:
    """Weights as an image: neurons in rows, inputs in columns; red is positive, blue negative.

    Args:
        weight: of one layer.
        ax: where to draw.
        limit: largest magnitude of the colour scale, by default that of the weights.
    """
    values = to_numpy(weight)
    limit = limit or float(np.abs(values).max()) or 1.0
    image = ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="weight", pad=0.02)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    ax.set_xlabel("input")
    ax.set_ylabel("neuron")
    return ax


def receptive_fields(
    weight: Float[Tensor, "neurons height width"],
    axes: Axes | Iterable[Any],
    titles: Sequence[str] | None = None,
    limit: float | None = None,
) -> list[Axes]:
    """The weights of neurons as images of their inputs; red is positive, blue negative.

    Args:
        weight: of each neuron to draw.
        axes: one per neuron.
        titles: one per neuron.
        limit: largest magnitude of the colour scale, by default that of the weights.
    """
    values = to_numpy(weight)
    flat = axes_list(axes, len(values))[: len(values)]
    limit = limit or float(np.abs(values).max()) or 1.0
    options = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    image_panels(values, flat, titles, "weight", **options)
    return flat


def _before_and_after(run: RunData) -> list[tuple[NamedLIF, NamedLIF]]:
    return list(zip(named_lif_layers(run.initial), run.lif_layers, strict=True))


@run_figure
def weight_histograms_figure(run: RunData) -> Figure:
    """Weights of every LIF layer before and after training."""
    layers = _before_and_after(run)
    figure, axes = panels(len(layers), 4, (2.8, 2.6), (0.8, 0.0))
    for ax, (before, after) in zip(axes, layers, strict=True):
        weight_histogram(before.layer.weight, after.layer.weight, ax)
        ax.set_title(f"{after.name}, {after.layer.weight.numel()} weights")
    legend_right(axes[-1])
    return figure


@run_figure
def weight_matrices_figure(run: RunData) -> Figure:
    """Weight matrices of every LIF layer before and after training."""
    layers = _before_and_after(run)
    figure = new_figure(7.0, 2.7 * len(layers))
    axes = figure.subplots(len(layers), 2, squeeze=False)
    for row, pair in zip(axes, layers, strict=True):
        limit = max(float(lif.layer.weight.abs().max()) for lif in pair)
        for ax, lif, when in zip(row, pair, ("before", "after"), strict=True):
            weight_matrix(lif.layer.synapses, ax, limit)
            ax.set_title(f"{lif.name}, {when}")
    return figure


@run_figure
def receptive_fields_figure(run: RunData) -> Figure:
    """Weights of the first layer as images of the input, the filters of a convolution; channels side by side."""
    lif, shape = run.lif_layers[0], run.pixels
    if isinstance(lif.layer, LIFConv2d):
        images, of = lif.layer.weight, "filters"
    else:
        rows, columns, copies = shape or (0, 0, 1)
        channels = run.data.train.features // max(1, rows * columns * copies)
        before = list(run.network)[: lif.index]
        if shape is None or not all(isinstance(layer, BiasSpikes | Delay) for layer in before):
            raise NotApplicable("the inputs of the first LIF layer are not the pixels of an image")
        pixels = lif.layer.synapses[:, : channels * rows * columns * copies]
        images, of = pixels.unflatten(1, (channels, rows, columns, copies)).mean(dim=-1), "neurons"
    chosen = np.linspace(0, len(images) - 1, min(_IMAGES, len(images))).astype(int)
    beside = images[chosen].movedim(1, 2).flatten(2)  # (neurons, height, channels * width)
    width = min(3.0, beside.shape[2] / beside.shape[1])
    figure, axes = panels(len(chosen), 8 if width < 2 else 4, (0.85 * width, 1.1), (1.0, 0.3))
    receptive_fields(beside, axes, [str(neuron) for neuron in chosen])
    for ax in axes:
        for channel in range(1, images.shape[1]):
            ax.axvline(channel * images.shape[3] - 0.5, color="black", linewidth=0.8)
    figure.suptitle(f"{lif.name}: {len(chosen)} of {len(images)} {of}")
    return figure
