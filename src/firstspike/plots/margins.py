"""Why a network decides as it does: which input spikes the margin of a decision depends on."""

import math
import textwrap

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from firstspike.layers.named import to_numpy
from firstspike.plots import run_data
from firstspike.plots.look import COLOURS, GREY, as_text, image_panels, new_figure, signed, time_label
from firstspike.plots.run_data import NotApplicable, run_figure
from firstspike.runs import Run
from firstspike.training.margin import Margins, margins

_NAMES_UP_TO = 40  # inputs with a tick each
_SAMPLES = 1000  # whose margins are taken


def margins_of(run: Run) -> Margins:
    """Margins of the decisions of the exact network on the first samples of ``held_out``, and their derivatives."""
    try:
        return margins(run.stored_network, run.held_out[1].times[:_SAMPLES], readout=run_data.classified(run).readout)
    except (ValueError, RuntimeError) as reason:  # a network of one output; one that has no gradient
        raise NotApplicable(str(reason)) from None


def input_effects(found: Margins) -> Float[np.ndarray, " inputs"]:
    """Mean absolute derivative of the margins with respect to each input's time, for trains that of all spikes."""
    values = to_numpy(found.by_times[torch.isfinite(found.margin)])
    if not len(values):
        raise NotApplicable("in no sample do two outputs spike, so that no decision has a margin")
    return np.abs(values.reshape(*values.shape[:2], -1).sum(axis=-1)).mean(axis=0)


def _input_derivatives(run: Run, found: Margins, sample: int, ax: Axes) -> None:
    """Input spikes of one sample, coloured by derivatives: red where it is positive, blue where it is negative."""
    when = to_numpy(run.held_out[1].times[sample])
    values = to_numpy(found.by_times[sample])[..., : when.shape[-1]]  # one sample's events need less padding
    rows = np.broadcast_to(np.arange(len(when)).reshape(-1, *[1] * (when.ndim - 1)), when.shape)
    there = np.isfinite(when)
    size = 40.0 if len(when) <= _NAMES_UP_TO else 12.0
    dots = ax.scatter(when[there], rows[there], size, values[there], edgecolor=GREY, linewidth=0.4, **signed(values))
    ax.figure.colorbar(dots, ax=ax, label="derivative of the margin", pad=0.02)
    if len(when) <= _NAMES_UP_TO:
        ax.set_yticks(range(len(when)), list(map(as_text, run_data.input_names(run))))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_ylabel("input")
    ax.set(xlabel=time_label(run_data.unit_in(run)), ylim=(len(when) - 0.4, -0.6))  # from top to bottom


def _value_derivatives(run: Run, found: Margins, sample: int, axes: tuple[Axes, Axes]) -> None:
    """Of a table, bars for each column, those that matter most on average at the top: in the sample, and the mean."""
    train, (_, data) = run.data.train, run.held_out
    encoder = train.table
    assert encoder is not None
    derivatives = encoder.by_values(found.by_times)
    mean = to_numpy(derivatives[torch.isfinite(found.margin)].abs().mean(dim=0))
    shown = np.argsort(-mean, kind="stable")[:_NAMES_UP_TO]
    values = encoder.decode(data.times[[sample]])[0]
    names = [f"{as_text(train.columns[k])} = {number_text(float(values[k]))}" for k in shown]
    left, right = axes
    own = to_numpy(derivatives[sample])[shown]
    left.barh(range(len(shown)), own, color=[COLOURS[4] if x > 0 else COLOURS[0] for x in own])
    left.axvline(0, color=GREY, linewidth=0.8)
    left.set_yticks(range(len(shown)), names)
    left.set(ylim=(len(shown) - 0.4, -0.6), xlabel="derivative of the margin")
    right.barh(range(len(shown)), mean[shown], color=COLOURS[0])


def number_text(value: float) -> str:
    """A value of a table."""
    return "missing" if math.isnan(value) else f"{value:.4g}"


@run_figure
def margins_figure(run: Run, sample: int = 0) -> Figure:
    """Influence of each input, in one test sample and on average."""
    found = margins_of(run)
    effects = input_effects(found)
    if (image := run.data.train.image) is not None:
        of_inputs = to_numpy(found.by_times[sample]).reshape(len(effects), -1).sum(axis=-1)
        shown, mean = (np.concatenate(values.reshape(image), axis=1) for values in (of_inputs, effects))
        figure = new_figure(6.5, 2.8)
        left, right = figure.subplots(1, 2)
        image_panels([shown], [left], None, "derivative of the margin", image[0], **signed(shown))
        image_panels([mean], [right], None, "|derivative|", image[0], cmap="Greys", vmin=0)
    else:
        rows = len(effects) if run.data.train.table is None else len(run.data.train.columns)
        figure = new_figure(7.5, min(7.0, 2.0 + 0.17 * rows))
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1), sharey=True)
        if run.data.train.table is not None:
            _value_derivatives(run, found, sample, (left, right))
        else:
            _input_derivatives(run, found, sample, left)
            right.barh(range(len(effects)), effects, color=COLOURS[0])
        right.set_xlabel("|derivative|")
    figure.suptitle(textwrap.fill(f"{run_data.sample_title(run, sample)}: {_decision(run, found, sample)}", 95))
    left.set_title("this sample")
    right.set_title(f"mean of {int(found.margin.isfinite().sum())} samples")
    return figure


def _decision(run: Run, found: Margins, sample: int) -> str:
    """The decision in words."""
    margin, chosen, rival = (x[sample].item() for x in found[:3])
    if math.isnan(margin):
        return "no output spikes"
    names = list(map(as_text, run.names(int(max(chosen, rival)) + 1)))
    if rival < 0:
        return f"decision {names[int(chosen)]}: no other output spikes"
    by = f"{margin:.3g} above" if run.evaluation.readout else f"{margin:.3g} {run_data.unit_in(run)} before"
    return f"decision {names[int(chosen)]}, {by} {names[int(rival)]}"
