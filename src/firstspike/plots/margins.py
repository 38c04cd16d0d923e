"""Why a network decides as it does: which input spikes the margin of a decision depends on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.layers.named import to_numpy
from firstspike.plots.look import (
    COLOURS,
    GREY,
    SIGNED,
    TAU_SYN,
    as_text,
    class_names,
    image_panels,
    new_figure,
    time_label,
)
from firstspike.plots.run_data import RunData, run_figure
from firstspike.training.margin import per_input

_NAMES_UP_TO = 40  # inputs with a tick each


def input_derivatives(
    times: Float[Tensor, " inputs *spikes"],
    derivatives: Float[Tensor, " inputs *spikes"],
    ax: Axes,
    names: Sequence[str] | None = None,
    unit: str = TAU_SYN,
) -> Axes:
    """Input spikes of one sample, coloured by a derivative: red where it is positive, blue where it is negative.

    Args:
        times: of the spikes, ``inf`` = silent.
        derivatives: of the margin by each of them, see ``fs.training.margins``.
        names: of the inputs, by default numbers.
    """
    when, values = to_numpy(times), to_numpy(derivatives)
    rows = np.broadcast_to(np.arange(len(when)).reshape(-1, *[1] * (when.ndim - 1)), when.shape)
    there, limit = np.isfinite(when), float(np.abs(values).max(initial=0)) or 1.0
    size = 40.0 if len(when) <= _NAMES_UP_TO else 12.0
    look: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "edgecolor": GREY, "linewidth": 0.4}
    dots = ax.scatter(when[there], rows[there], size, values[there], **look)
    ax.figure.colorbar(dots, ax=ax, label="derivative of the margin", pad=0.02)
    ax.set_xlabel(time_label(unit))
    return _input_axis(ax, names, len(when))


def input_effects(effects: ArrayLike, ax: Axes, names: Sequence[str] | None = None) -> Axes:
    """Mean absolute derivative of the margin by each input as bars.

    Args:
        effects: of each input, ``(inputs,)``.
        names: of the inputs, by default numbers.
    """
    values = np.asarray(effects, dtype=float)
    ax.barh(np.arange(len(values)), values, color=COLOURS[0])
    ax.set_xlabel("mean |derivative|")
    return _input_axis(ax, names, len(values))


def _input_axis(ax: Axes, names: Sequence[str] | None, count: int) -> Axes:
    """Inputs from top to bottom, with their names where there is room."""
    if names is not None and count <= _NAMES_UP_TO:
        ax.set_yticks(range(count), list(map(as_text, names)))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_ylabel("input")
    ax.set_ylim(count - 0.4, -0.6)
    return ax


@run_figure
def margins_figure(run: RunData, sample: int = 0) -> Figure:
    """Which inputs the decisions depend on: of a test sample, and on average."""
    found, effects = run.margins, run.input_effects
    derivatives = found.by_times[sample]
    if run.pixels is not None:
        rows, columns, copies = run.pixels

        def image(values: Float[np.ndarray, " inputs"]) -> Float[np.ndarray, "rows columns"]:
            beside = values.reshape(-1, rows, columns, copies).sum(axis=-1)  # channels side by side
            return np.moveaxis(beside, 0, 1).reshape(rows, -1)

        width = effects.size / (rows * columns * copies) * columns / rows
        figure = new_figure(6.5, 1.2 + min(2.6, 2.4 / width))
        left, right = figure.subplots(1, 2)
        shown = image(to_numpy(per_input(derivatives[None])[0]))
        limit = float(np.abs(shown).max()) or 1.0
        image_panels([shown], [left], None, "derivative of the margin", cmap=SIGNED, vmin=-limit, vmax=limit)
        image_panels([image(effects)], [right], None, "mean |derivative|", cmap="Greys", vmin=0)
        for ax in (left, right):
            for channel in range(columns, len(shown[0]), columns):
                ax.axvline(channel - 0.5, color="black", linewidth=0.8)
    else:
        figure = new_figure(7.5, min(7.0, 2.0 + 0.17 * len(effects)))
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        input_derivatives(run.held_out[1].times[sample], derivatives, left, run.input_names, run.unit)
        input_effects(effects, right, run.input_names)
        if len(effects) <= _NAMES_UP_TO:
            right.tick_params(labelleft=False)
        else:
            right.set_ylabel("")
    left.set_title(f"{run.sample_title(sample)}\n{_decision(run, sample)}")
    right.set_title(f"{int(found.margin.isfinite().sum())} {run.held_out[0]} samples")
    return figure


def _decision(run: RunData, sample: int) -> str:
    """The decision in words."""
    found = run.margins
    margin, chosen, rival = (float(x[sample]) for x in (found.margin, found.chosen, found.rival))
    if np.isnan(margin):
        return "no output spikes"
    names = class_names(run.names(int(max(chosen, rival)) + 1), int(max(chosen, rival)) + 1)
    if rival < 0:
        return f"decision {names[int(chosen)]}: no other output spikes"
    by = f"{margin:.3g} above" if run.reads_values else f"{margin:.3g} {run.unit} before"
    return f"decision {names[int(chosen)]}, {by} {names[int(rival)]}"
