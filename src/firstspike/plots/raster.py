"""All spikes of one sample."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.layers import Network, Record
from firstspike.layers.named import NamedSpikes, named_spikes, to_numpy
from firstspike.plots.run_data import RunData
from firstspike.plots.style import COLOURS, TAU_SYN, new_figure, styled, time_label

_TICKS_UP_TO = 20  # neurons of a layer whose spikes are drawn as ticks, else as dots


def raster(network: Network, record: Record, ax: Axes, sample: int = 0, unit: str = TAU_SYN) -> Axes:
    """Spikes of one sample through all layers, input at the bottom, a row per neuron; larger layers get more height.

    Rows of silent neurons are empty. Beside a layer stands how many of its neurons spiked.

    Args:
        network: which layers there are.
        record: spike times of a batch through it, see ``Network.record``.
        ax: where to draw.
        sample: which one of the batch.
        unit: of the times.
    """
    shown = named_spikes(network, record)
    ticks, labels = [], []
    bottom = 0.0
    for index, (spikes, height) in enumerate(zip(shown, layer_heights(shown), strict=True)):
        times = to_numpy(spikes.times[sample])
        spiked = np.isfinite(times)
        row = 0.84 * height / len(times)
        rows = bottom + 0.08 * height + row * (np.arange(len(times)) + 0.5)
        colour = COLOURS[index % len(COLOURS)]
        if len(times) <= _TICKS_UP_TO:
            ax.vlines(times[spiked], (rows - 0.4 * row)[spiked], (rows + 0.4 * row)[spiked], colour, linewidth=2)
        else:  # ticks would be too short to be seen
            ax.plot(times[spiked], rows[spiked], "o", color=colour, markersize=2.2, markeredgewidth=0)
        if index:
            ax.axhline(bottom, color="#AAAAAA", linewidth=0.6)
        ticks.append(bottom + 0.5 * height)
        bottom += height
        labels.append(f"{spikes.name} {spiked.sum()}/{len(times)}")
    ax.set_yticks(ticks, labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(0, bottom)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    ax.set_ylabel("layer, spikes / neurons")
    ax.set_xlabel(time_label(unit))
    return ax


def layer_heights(shown: list[NamedSpikes]) -> list[float]:
    """Heights of the layers in the raster: growing with their sizes, but none vanishes or drowns the others."""
    heights = [min(6.0, max(1.3, math.sqrt(spikes.times.shape[-1]))) for spikes in shown]
    return [max(height, 0.07 * sum(heights)) for height in heights]


@styled
def raster_figure(run: RunData, sample: int = 0) -> Figure:
    """Raster of a test sample, or of another split's where there are no test data."""
    figure = new_figure(6.0, min(7.0, 0.8 + 0.33 * sum(layer_heights(named_spikes(run.network, run.record)))))
    ax, (name, data) = figure.subplots(), run.held_out
    raster(run.network, run.record, ax, sample, run.unit)
    ax.set_title(f"{name} sample {sample}, class {run.class_names[int(data.labels[sample])]}")
    return figure
