"""When neurons spike: over training, and in the end."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.layers.named import named_lif_layers, to_numpy
from firstspike.plots.run_data import RunData
from firstspike.plots.style import (
    COLOURS,
    FAINT,
    TAU_SYN,
    axes_list,
    class_names,
    epoch_axis,
    legend_right,
    line_style,
    new_figure,
    square_grid,
    styled,
    time_label,
)


def output_times(
    rows: Mapping[str, ArrayLike],
    axes: Axes | Iterable[Any],
    names: Sequence[str] | None = None,
    unit: str = TAU_SYN,
) -> list[Axes]:
    """Mean and standard deviation of each output's spike time over epochs, one panel for each true class.

    The line is faint where fewer than half of the samples make the neuron spike, and interrupted where none does.

    Args:
        rows: the columns ``epoch``, ``label``, ``neuron``, ``mean``, ``std``, ``spiked`` (fraction of the samples in
            which the neuron spiked), a row for each epoch, class and neuron. Times in the unit of the run.
        axes: as many as there are classes; fewer show the first classes.
        names: of the classes.
        unit: of the times.
    """
    table = {name: np.asarray(column, dtype=float) for name, column in rows.items()}
    classes = int(table["label"].max()) + 1
    neurons = int(table["neuron"].max()) + 1
    names = class_names(names, classes)
    flat = axes_list(axes, 1)[:classes]
    for label, ax in enumerate(flat):
        for neuron in range(neurons):
            part = (table["label"] == label) & (table["neuron"] == neuron)
            epoch, mean, std, spiked = (table[name][part] for name in ("epoch", "mean", "std", "spiked"))
            look = line_style(neuron) | {"marker": "o" if len(epoch) == 1 else ""}
            shade = 0.15 if neurons <= 4 else 0.07
            ax.fill_between(epoch, mean - std, mean + std, color=look["color"], alpha=shade, linewidth=0)
            name = names[neuron] if neuron < classes else str(neuron)
            ax.plot(epoch, mean, alpha=FAINT, **look)
            ax.plot(epoch, np.where(spiked >= 0.5, mean, np.nan), label=name, **look)
        ax.set_title(f"true class: {names[label]}")
        epoch_axis(ax, 4)
    flat[0].set_ylabel(time_label(unit, "output spike time"))
    legend_right(flat[-1], title="output")
    return flat


def spike_histogram(
    times: Float[Tensor, "samples neurons"], ax: Axes, name: str = "", bins: int = 40, unit: str = TAU_SYN
) -> Axes:
    """Histogram of all spike times of a layer, and the fraction of silent (sample, neuron) pairs in the title.

    Args:
        times: spike times, ``inf`` = silent.
        ax: where to draw.
        name: of the layer.
        bins: number of bins between the earliest and the latest spike.
        unit: of the times.
    """
    values = to_numpy(times).ravel()
    spikes = values[np.isfinite(values)]
    silent = 1 - len(spikes) / len(values)
    if len(spikes):
        weights = np.full(len(spikes), 100 / len(values))
        ax.hist(spikes, bins=bins, weights=weights, color=COLOURS[0], edgecolor="white", linewidth=0.3)
        ax.set_ylim(bottom=0)
    else:
        ax.text(0.5, 0.5, "no spikes", transform=ax.transAxes, ha="center", va="center")
    ax.set_xlabel(time_label(unit, "spike time"))
    ax.set_ylabel(r"neurons $\times$ samples [%]")
    ax.set_title(", ".join(part for part in (name, f"{100 * silent:.1f} % silent") if part))
    return ax


@styled
def output_times_figure(run: RunData) -> Figure:
    """Output spike times of a run over its epochs, a panel per class."""
    names = run.class_names
    rows, columns = square_grid(len(names), 3 if len(names) <= 6 else 4)
    figure = new_figure(2.4 * columns + 1.1, 2.2 * rows + 0.4)
    axes = axes_list(figure.subplots(rows, columns, sharey=True, squeeze=False), rows * columns)
    output_times(run.output_times, axes[: len(names)], names, run.unit)
    _legend_beside_first_row(axes, columns, len(names))
    for index, ax in enumerate(axes):
        ax.set_visible(index < len(names))
        ax.set_ylabel(axes[0].get_ylabel() if index % columns == 0 else "")
        ax.set_xlabel("epoch" if index + columns >= len(names) else "")
    return figure


@styled
def spike_histogram_figure(run: RunData) -> Figure:
    """Spike times of every LIF layer on the test data."""
    layers = named_lif_layers(run.network)
    rows, columns = square_grid(len(layers), 3)
    figure = new_figure(3.0 * columns, 2.6 * rows)
    axes = axes_list(figure.subplots(rows, columns, squeeze=False), rows * columns)
    for ax, lif in zip(axes, layers, strict=False):
        spike_histogram(run.record.layers[lif.index], ax, lif.name, unit=run.unit)
    for ax in axes[len(layers) :]:
        ax.set_visible(False)
    return figure


def _legend_beside_first_row(axes: list[Axes], columns: int, panels: int) -> None:
    """Move the legend from the last panel to the end of the first row."""
    last, end = axes[panels - 1], axes[min(columns, panels) - 1]
    if last is not end and (legend := last.get_legend()) is not None:
        legend.remove()
        legend_right(end, title="output")
