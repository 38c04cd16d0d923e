"""What a substrate makes of a network, against the exact spike times."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from firstspike.layers import LIFLinear
from firstspike.layers.named import named_lif_layers, to_numpy
from firstspike.neuron import LIF
from firstspike.plots.membrane import membrane_voltage
from firstspike.plots.run_data import NotApplicable, RunData
from firstspike.plots.style import (
    COLOURS,
    TAU_SYN,
    class_names,
    legend_right,
    line_style,
    marker_style,
    new_figure,
    styled,
    time_label,
)

_DOTS = 4000  # more are a blot
_POINTS = 600
_TRACES = 4


def time_comparison(
    exact: Float[Tensor, "samples neurons"],
    observed: Float[Tensor, "samples neurons"],
    ax: Axes,
    name: str = "",
    unit: str = TAU_SYN,
) -> Axes:
    """Observed against exact spike times, a dot for each sample and neuron (of many, some evenly chosen).

    Above stand the median distance, and the fractions that spike on one of the two sides only.

    Args:
        exact: spike times, ``inf`` = silent.
        observed: those of a substrate.
        ax: where to draw.
        name: of the layer.
        unit: of the times.

    Raises:
        ValueError: different shapes.
    """
    if exact.shape != observed.shape:
        raise ValueError(
            f"exact and observed must have one shape, got {tuple(exact.shape)} and {tuple(observed.shape)}"
        )
    one, other = to_numpy(exact).ravel(), to_numpy(observed).ravel()
    both = np.isfinite(one) & np.isfinite(other)
    x, y = one[both], other[both]
    lost, new = (100 * np.mean(np.isfinite(a) & ~np.isfinite(b)) for a, b in ((one, other), (other, one)))
    title = f"{100 - 100 * both.mean() - lost - new:.1f} % silent in both"
    if len(x):
        limits = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(limits, limits, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        step = -(-len(x) // _DOTS)
        ax.plot(x[::step], y[::step], ".", color=COLOURS[0], markersize=3, alpha=0.4, markeredgewidth=0, zorder=2)
        title = f"median distance {np.median(np.abs(x - y)):.2g}"
    else:
        ax.text(0.5, 0.5, "no spike in both", transform=ax.transAxes, ha="center", va="center")
    head = ", ".join(part for part in (name, title) if part)
    ax.set_title(f"{head}\nsilent there {lost:.1f} %, only there {new:.1f} %")
    ax.set_xlabel(time_label(unit, "exact"))
    ax.set_ylabel(time_label(unit, "on the substrate"))
    return ax


def membrane_comparison(
    layer: LIFLinear,
    exact: tuple[Float[Tensor, " inputs"], Float[Tensor, " neurons"]],
    observed: tuple[Float[Tensor, " inputs"], Float[Tensor, " neurons"]],
    ax: Axes,
    names: Sequence[str] | None = None,
    unit: str = TAU_SYN,
) -> Axes:
    """Ideal membranes of a layer in one sample, up to the spike: for the exact inputs and, dashed, the observed ones.

    A marker on a dashed line is the observed spike. Its distance to the threshold is what the neuron's imperfections,
    noise and rounded weights make of it.

    Args:
        layer: the neurons and their weights; at most four are drawn.
        exact: times of its inputs, and of its spikes.
        observed: the same as the substrate saw them.
        ax: where to draw.
        names: of the neurons, by default their numbers.
        unit: of the times.
    """
    chosen = range(min(_TRACES, layer.out_features))
    names = class_names(names, layer.out_features)
    known = torch.cat([*exact, *observed]).detach().cpu().double()
    known = known[torch.isfinite(known)]
    start, end = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    start, end = start - 0.05 * (end - start), end + 0.1 * (end - start)
    tau_mem, tau_syn, threshold = (
        torch.as_tensor(x).detach().cpu().double().expand(layer.out_features)
        for x in (layer.neuron.tau_mem, layer.neuron.tau_syn, layer.neuron.threshold)
    )
    at = torch.cat([torch.linspace(start, end, _POINTS, dtype=torch.float64), known]).unique()
    weight, delay = layer.weight.detach().cpu(), layer.delay
    for level in threshold.unique().tolist():
        ax.axhline(level, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for (inputs, spikes), dashed in ((exact, False), (observed, True)):
        spikes = spikes.detach().cpu().double()
        delays = None if delay is None else delay.detach().cpu()
        voltages = membrane_voltage(at, inputs.detach().cpu(), weight, LIF(tau_mem, tau_syn), delays)
        for neuron in chosen:
            before = at <= spikes[neuron]
            look = line_style(neuron) | {"linestyle": (0, (3, 2)) if dashed else "-"}
            label = None if dashed else names[neuron]
            ax.plot(to_numpy(at[before]), to_numpy(voltages[neuron][before]), label=label, **look)
            if torch.isfinite(spikes[neuron]):
                marker = marker_style(neuron) | {"markerfacecolor": "white" if dashed else look["color"]}
                ax.plot(float(spikes[neuron]), float(voltages[neuron][before][-1]), markersize=5, zorder=4, **marker)
    ax.set_xlim(start, end)
    ax.set_xlabel(time_label(unit))
    ax.set_ylabel("membrane")
    return ax


@styled
def substrate_figure(run: RunData) -> Figure:
    """Spike times of every LIF layer on the run's substrate against the exact ones, and membranes of a sample."""
    if run.substrate == "exact":
        raise NotApplicable("the run is on the exact substrate: there is nothing to compare it with")
    layers, exact, observed = named_lif_layers(run.network), run.exact_record, run.record
    last = layers[-1].layer
    if not isinstance(last, LIFLinear):
        raise NotApplicable("the output layer's membranes are drawn for LIFLinear only")
    figure = new_figure(max(6.5, 2.7 * len(layers)), 5.2)
    grid = figure.add_gridspec(2, len(layers), height_ratios=(1.15, 1))
    for place, lif in enumerate(layers):
        ax = figure.add_subplot(grid[0, place])
        time_comparison(exact.layers[lif.index], observed.layers[lif.index], ax, lif.name, run.unit)
    ax, output = figure.add_subplot(grid[1, :]), layers[-1]
    sides = [(output.inputs(record)[0], record.layers[output.index][0]) for record in (exact, observed)]
    membrane_comparison(last, sides[0], sides[1], ax, run.class_names, run.unit)
    ax.set_title(f"output neurons, test sample 0: exact (solid) and {run.substrate} (dashed)")
    legend_right(ax)
    return figure
