"""Weights before and after training."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from firstspike.layers.named import named_lif_layers, to_numpy
from firstspike.plots.run_data import RunData
from firstspike.plots.style import COLOURS, SIGNED, axes_list, legend_right, new_figure, styled


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
    ax.set_xlabel("weight")
    ax.set_ylabel("synapses")
    return ax


def weight_matrix(weight: Float[Tensor, "out inputs"], ax: Axes, limit: float | None = None) -> Axes:
    """Weights as an image: neurons in rows, inputs in columns; bright is positive, dark negative.

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


@styled
def weight_histograms_figure(run: RunData) -> Figure:
    """Weights of every LIF layer of a run before and after training."""
    layers = list(zip(named_lif_layers(run.initial), named_lif_layers(run.network), strict=True))
    figure = new_figure(2.8 * len(layers) + 0.8, 2.6)
    axes = axes_list(figure.subplots(1, len(layers)), len(layers))
    for ax, (before, after) in zip(axes, layers, strict=True):
        weight_histogram(before.layer.weight, after.layer.weight, ax)
        ax.set_title(f"{after.name}, {after.layer.weight.numel()} weights")
    legend_right(axes[-1])
    return figure


@styled
def weight_matrices_figure(run: RunData) -> Figure:
    """Weight matrices of every LIF layer of a run before and after training."""
    layers = list(zip(named_lif_layers(run.initial), named_lif_layers(run.network), strict=True))
    figure = new_figure(7.0, 2.7 * len(layers))
    axes = figure.subplots(len(layers), 2, squeeze=False)
    for row, pair in zip(axes, layers, strict=True):
        limit = max(float(lif.layer.weight.abs().max()) for lif in pair)
        for ax, lif, when in zip(row, pair, ("before", "after"), strict=True):
            weight_matrix(lif.layer.synapses, ax, limit)
            ax.set_title(f"{lif.name}, {when}")
    return figure
