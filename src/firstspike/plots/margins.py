"""Why a network decides as it does: which input spikes the margin of a decision depends on."""

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from firstspike.layers.named import to_numpy
from firstspike.plots.look import COLOURS, GREY, as_text, image_panels, new_figure, signed, time_label
from firstspike.plots.run_data import RunData, run_figure

_NAMES_UP_TO = 40  # inputs with a tick each


def _input_derivatives(run: RunData, sample: int, ax: Axes) -> None:
    """Input spikes of one sample, coloured by derivatives: red where it is positive, blue where it is negative."""
    when = to_numpy(run.held_out[1].times[sample])
    values = to_numpy(run.margins.by_times[sample])[..., : when.shape[-1]]  # one sample's events need less padding
    rows = np.broadcast_to(np.arange(len(when)).reshape(-1, *[1] * (when.ndim - 1)), when.shape)
    there = np.isfinite(when)
    size = 40.0 if len(when) <= _NAMES_UP_TO else 12.0
    dots = ax.scatter(when[there], rows[there], size, values[there], edgecolor=GREY, linewidth=0.4, **signed(values))
    ax.figure.colorbar(dots, ax=ax, label="derivative of the margin", pad=0.02)
    if len(when) <= _NAMES_UP_TO:
        ax.set_yticks(range(len(when)), list(map(as_text, run.input_names)))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_ylabel("input")
    ax.set(xlabel=time_label(run.unit), ylim=(len(when) - 0.4, -0.6))  # from top to bottom


@run_figure
def margins_figure(run: RunData, sample: int = 0) -> Figure:
    """Which inputs decisions depend on: in one test sample, and on average."""
    found, effects = run.margins, run.input_effects
    if (image := run.data.train.image) is not None:
        of_inputs = to_numpy(found.by_times[sample]).reshape(len(effects), -1).sum(axis=-1)
        shown, mean = (np.concatenate(values.reshape(image), axis=1) for values in (of_inputs, effects))
        figure = new_figure(6.5, 2.8)
        left, right = figure.subplots(1, 2)
        image_panels([shown], [left], None, "derivative of the margin", image[0], **signed(shown))
        image_panels([mean], [right], None, "|derivative|", image[0], cmap="Greys", vmin=0)
    else:
        figure = new_figure(7.5, min(7.0, 2.0 + 0.17 * len(effects)))
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1), sharey=True)
        _input_derivatives(run, sample, left)
        right.barh(range(len(effects)), effects, color=COLOURS[0])
        right.set_xlabel("|derivative|")
    figure.suptitle(textwrap.fill(f"{run.sample_title(sample)}: {_decision(run, sample)}", 95))
    left.set_title("this sample")
    right.set_title(f"mean of {int(found.margin.isfinite().sum())} samples")
    return figure


def _decision(run: RunData, sample: int) -> str:
    """The decision in words."""
    margin, chosen, rival = (x[sample].item() for x in run.margins[:3])
    if math.isnan(margin):
        return "no output spikes"
    names = list(map(as_text, run.names(int(max(chosen, rival)) + 1)))
    if rival < 0:
        return f"decision {names[int(chosen)]}: no other output spikes"
    by = f"{margin:.3g} above" if run.evaluation.readout else f"{margin:.3g} {run.unit} before"
    return f"decision {names[int(chosen)]}, {by} {names[int(rival)]}"
