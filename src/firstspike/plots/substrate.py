"""Spike times on a substrate against the exact ones."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from firstspike.layers.named import to_numpy
from firstspike.plots.membrane import membrane_comparison
from firstspike.plots.run_data import NotApplicable, RunData, run_figure
from firstspike.plots.style import COLOURS, GREY, TAU_SYN, legend_right, new_figure, time_label

_DOTS = 4000  # more merge into a blot


def time_comparison(
    exact: Float[Tensor, "samples neurons"],
    observed: Float[Tensor, "samples neurons"],
    ax: Axes,
    name: str = "",
    unit: str = TAU_SYN,
) -> Axes:
    """Observed against exact spike times, a dot for each sample and neuron (of many, some evenly chosen).

    The title has the median distance, and the fractions that spike on one of the two sides only.

    Of trains, the first spikes are compared with each other, then the second ones, and so on.

    Args:
        exact: spike times, ``inf`` = silent.
        observed: those of a substrate.
        name: of the layer.

    Raises:
        ValueError: different shapes.
    """
    if exact.shape != observed.shape:
        raise ValueError(f"exact and observed must have one shape, got {tuple(exact.shape)}, {tuple(observed.shape)}")
    one, other = to_numpy(exact).ravel(), to_numpy(observed).ravel()
    both = np.isfinite(one) & np.isfinite(other)
    x, y = one[both], other[both]
    lost, new = (100 * np.mean(np.isfinite(a) & ~np.isfinite(b)) for a, b in ((one, other), (other, one)))
    if len(x):
        limits = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(limits, limits, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        step = -(-len(x) // _DOTS)
        ax.plot(x[::step], y[::step], ".", color=COLOURS[0], markersize=3, alpha=0.4, markeredgewidth=0, zorder=2)
        title = f"median distance {np.median(np.abs(x - y)):.2g}"
    else:
        title = f"{100 - lost - new:.1f} % silent in both"
        ax.text(0.5, 0.5, "no spike in both", transform=ax.transAxes, ha="center", va="center")
    head = ", ".join(part for part in (name, title) if part)
    ax.set_title(f"{head}\nsilent there {lost:.1f} %, only there {new:.1f} %")
    ax.set(xlabel=time_label(unit, "exact"), ylabel=time_label(unit, "on the substrate"))
    return ax


@run_figure
def substrate_figure(run: RunData) -> Figure:
    """Spike times of every LIF layer on the run's substrate against the exact ones, and membranes of a sample."""
    if run.substrate == "exact":
        raise NotApplicable("the run is on the exact substrate: there is nothing to compare it with")
    layers, (output, last), exact, observed = run.lif_layers, run.membrane_layer, run.exact_record, run.record
    figure = new_figure(max(6.5, 2.7 * len(layers)), 5.2)
    grid = figure.add_gridspec(2, len(layers), height_ratios=(1.15, 1))
    for place, lif in enumerate(layers):
        ax = figure.add_subplot(grid[0, place])
        time_comparison(exact.layers[lif.index], observed.layers[lif.index], ax, lif.name, run.unit)
    ax = figure.add_subplot(grid[1, :])
    sides = [(output.inputs(record)[0], record.layers[output.index][0]) for record in (exact, observed)]
    names = run.names(last.out_features) if run.spiking_output else None
    membrane_comparison(last, sides[0], sides[1], ax, names, run.unit)
    where = "output neurons" if run.spiking_output else output.name
    ax.set_title(f"{where}, {run.held_out[0]} sample 0: exact (solid) and {run.substrate} (dashed)")
    legend_right(ax)
    return figure
