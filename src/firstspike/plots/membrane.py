"""Membrane voltages of one sample, exact.

Every input adds ``w kappa(t - t_i)`` (see ``spiketime/response.py``), so the voltage needs no integration.
"""

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
from firstspike.plots.run_data import RunData
from firstspike.plots.style import (
    COLOURS,
    FAINT,
    TAU_SYN,
    class_names,
    legend_right,
    line_style,
    marker_style,
    new_figure,
    styled,
    time_label,
)
from firstspike.spiketime.response import kappa

_POINTS = 1000
_TRACES = 6  # more in one panel cannot be told apart


def membrane_voltage(
    at: Float[Tensor, " points"],
    times: Float[Tensor, " inputs"],
    weight: Float[Tensor, "out inputs"],
    neuron: LIF,
    delay: Float[Tensor, "out inputs"] | None = None,
) -> Float[Tensor, "out points"]:
    """Voltage of neurons that do not spike, relative to the leak, in float64.

    Args:
        at: when.
        times: input spike times, ``inf`` = no spike.
        weight: of the synapses.
        neuron: its time constants; the threshold plays no part.
        delay: of each synapse.
    """
    tau_mem, tau_syn = (
        tau.detach().cpu().double().reshape(-1, 1, 1) if isinstance(tau, Tensor) else tau
        for tau in (neuron.tau_mem, neuron.tau_syn)
    )
    arrival = times.double() if delay is None else times.double() + delay.double()  # (inputs) or (out, inputs)
    since = at.double().unsqueeze(-1) - arrival.unsqueeze(-2)  # (points, inputs) or (out, points, inputs)
    response = torch.where(since > 0, kappa(since.clamp(min=0), tau_mem, tau_syn), 0.0)
    return (weight.double().unsqueeze(-2) * response).sum(dim=-1)


def membrane(
    layer: LIFLinear,
    times: Float[Tensor, " inputs"],
    ax: Axes,
    neurons: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    until: float | None = None,
    unit: str = TAU_SYN,
) -> Axes:
    """Membrane voltages of a layer in one sample, with threshold, spikes and, as ticks below, input spikes.

    A trace goes on faintly after its spike: the voltage that the inputs would drive on, without a reset.

    Args:
        layer: the neurons, their weights and delays.
        times: input spike times of the sample.
        ax: where to draw.
        neurons: which of them; by default all, at most six.
        names: of the chosen neurons, by default their numbers.
        until: end of the time axis; by default shortly after the last spike.
        unit: of the times.
    """
    chosen = list(range(min(_TRACES, layer.out_features))) if neurons is None else list(neurons)
    names = [str(number) for number in chosen] if names is None else class_names(names, len(chosen))
    times = times.detach().cpu()
    tau_mem, tau_syn, threshold = (
        torch.as_tensor(x).detach().cpu().double().expand(layer.out_features)[chosen]
        for x in (layer.neuron.tau_mem, layer.neuron.tau_syn, layer.neuron.threshold)
    )
    tau = float(tau_syn.max()) if len(chosen) else 1.0
    with torch.no_grad():
        spikes = layer(times.to(layer.weight)).cpu()[chosen].double()
        delay = None if layer.delay is None else layer.delay.cpu()[chosen]
        weight = layer.weight.cpu()[chosen]
    arrivals = (times if delay is None else times + delay).double()
    known = torch.cat([arrivals[torch.isfinite(arrivals)].flatten(), spikes[torch.isfinite(spikes)]])
    start = min(0.0, float(known.min())) if len(known) else 0.0
    if until is None:
        last = float(known.max()) if len(known) else tau
        # a silent neuron is watched a little longer
        until = last + (0.15 * (last - start) if bool(torch.isfinite(spikes).all()) else 1.5 * tau)
    at = torch.cat([torch.linspace(start, until, _POINTS, dtype=torch.float64), known[known <= until]]).unique()
    voltages = membrane_voltage(at, times, weight, LIF(tau_mem, tau_syn), delay)

    levels = threshold.unique().tolist()
    for level in levels:
        ax.axhline(level, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    lowest, highest = 0.0, max(levels)
    for index, (name, voltage, spike) in enumerate(zip(names, voltages, spikes.tolist(), strict=True)):
        before = at <= spike
        look = line_style(chosen[index])
        ax.plot(to_numpy(at[before]), to_numpy(voltage[before]), label=name, zorder=3, **look)
        ax.plot(
            to_numpy(at[at >= spike]), to_numpy(voltage[at >= spike]), alpha=FAINT, linewidth=1, color=look["color"]
        )
        lowest, highest = min(lowest, float(voltage[before].min())), max(highest, float(voltage[before].max()))
        if spike < float("inf"):
            marker = marker_style(chosen[index])["marker"]
            ax.plot(spike, float(threshold[index]), marker, color=look["color"], markersize=6, zorder=4)
    span = highest - lowest
    ax.set_ylim(lowest - 0.15 * span, highest + 0.25 * span)
    inputs = arrivals if delay is None else times.double()
    rug = to_numpy(inputs[torch.isfinite(inputs)].flatten())
    bottom = np.full(len(rug), 0.03)
    look = {"color": COLOURS[2], "markersize": 7, "markeredgewidth": 0.8, "transform": ax.get_xaxis_transform()}
    ax.plot(rug, bottom, "|", label="input spikes", **look)
    ax.set_xlim(start, until)
    ax.set_xlabel(time_label(unit))
    ax.set_ylabel("membrane [threshold]" if levels == [1.0] else "membrane voltage")
    return ax


@styled
def membrane_figure(run: RunData) -> Figure:
    """Membranes of the output neurons, a panel for the first test sample of each of up to three classes."""
    output, test = named_lif_layers(run.network)[-1], run.held_out[1]
    layer, inputs = output.layer, output.inputs(run.record)
    labels = [label for label in range(len(run.class_names)) if bool((test.labels == label).any())][:3]
    samples = [int((test.labels == label).nonzero()[0]) for label in labels]
    known = torch.cat([inputs[samples].flatten(), run.record.layers[output.index][samples].flatten()])
    until = 1.15 * float(known[torch.isfinite(known)].max())
    figure = new_figure(6.5, 1.9 * len(labels) + 0.4)
    axes = figure.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0]
    for label, sample, ax in zip(labels, samples, axes, strict=True):
        output_membranes(run, sample, ax, until)
        ax.set_title(f"output neurons, test sample {sample}, class {run.class_names[label]}")
        if ax is not axes[0] and layer.out_features <= _TRACES and (legend := ax.get_legend()) is not None:
            legend.remove()
        if ax is not axes[-1]:
            ax.set_xlabel("")
    return figure


def output_membranes(run: RunData, sample: int, ax: Axes, until: float | None = None) -> Axes:
    """Membranes of a run's output neurons in a test sample; of many, those of its class and of the earliest spikes."""
    output = named_lif_layers(run.network)[-1]
    label, times = int(run.held_out[1].labels[sample]), run.record.layers[output.index][sample]
    first = [neuron for neuron in times.argsort(stable=True).tolist() if neuron != label]
    neurons = sorted([label, *first[: _TRACES - 1]])
    names = [run.class_names[neuron] for neuron in neurons]
    assert isinstance(output.layer, LIFLinear), "a config asks for it"
    membrane(output.layer, output.inputs(run.record)[sample], ax, neurons, names, until, run.unit)
    legend_right(ax)
    return ax
