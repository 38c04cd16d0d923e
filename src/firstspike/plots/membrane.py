"""Membrane voltages of one sample, exact.

Every input adds ``w kappa(t - t_i)`` (see ``spiketime/response.py``), so the voltage needs no integration.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from firstspike.layers import LIFLinear
from firstspike.neuron import LIF
from firstspike.plots.run_data import RunData, run_figure
from firstspike.plots.style import (
    COLOURS,
    FAINT,
    GREY,
    TAU_SYN,
    class_names,
    label_outer,
    legend_right,
    line_style,
    marker_style,
    panels,
    time_label,
)
from firstspike.spiketime.response import kappa

_POINTS = 1000
_TRACES = 6  # more in one panel cannot be told apart
_COMPARED = 4  # neurons, two traces each


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


class Membranes:
    """Membranes of some neurons of a layer without a reset, in float64 on the CPU.

    Args:
        layer: the neurons, their weights and delays.
        neurons: which of them; by default all.

    Attributes:
        threshold: of each neuron.
        tau: largest synaptic time constant.
    """

    def __init__(self, layer: LIFLinear, neurons: Sequence[int] | None = None) -> None:
        chosen = list(range(layer.out_features) if neurons is None else neurons)
        tau_mem, tau_syn, self.threshold = (
            torch.as_tensor(x).detach().cpu().double().expand(layer.out_features)[chosen]
            for x in (layer.neuron.tau_mem, layer.neuron.tau_syn, layer.neuron.threshold)
        )
        self.neuron, self.tau = LIF(tau_mem, tau_syn), float(tau_syn.max())
        self.weight = layer.weight.detach().cpu()[chosen]
        self.delay = None if layer.delay is None else layer.delay.detach().cpu()[chosen]

    def voltage(self, at: Float[Tensor, " points"], times: Float[Tensor, " inputs"]) -> Float[Tensor, "neurons points"]:
        """Voltage relative to the leak, driven by input spikes."""
        return membrane_voltage(at, times, self.weight, self.neuron, self.delay)

    def window(
        self, times: Float[Tensor, " inputs"], spikes: Float[Tensor, " neurons"]
    ) -> tuple[float, float, Float[Tensor, " events"]]:
        """Start and end of a time axis, and all arrivals and spikes.

        It starts at 0 and ends a little after the last spike; if a neuron is silent, after its inputs have faded.
        """
        arrivals = (times if self.delay is None else times + self.delay).double().flatten()
        fired = spikes[torch.isfinite(spikes)].double()
        known = torch.cat([arrivals[torch.isfinite(arrivals)], fired])
        start, last = (min(0.0, float(known.min())), float(known.max())) if len(known) else (0.0, 0.0)
        if len(fired) < len(spikes):
            return start, last + 1.5 * self.tau, known
        return start, start + 1.15 * max(float(fired.max()) - start, 1e-3 * self.tau), known


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

    After its spike a trace is faint: the voltage that the inputs would cause without a reset.

    Args:
        layer: the neurons, their weights and delays.
        times: input spike times of the sample.
        neurons: which of them; by default all, at most six.
        names: of the chosen neurons, by default their numbers.
        until: end of the time axis; by default shortly after the last spike.
    """
    chosen = list(range(min(_TRACES, layer.out_features))) if neurons is None else list(neurons)
    names = [str(number) for number in chosen] if names is None else class_names(names, len(chosen))
    times = times.detach().cpu()
    with torch.no_grad():
        spikes = layer(times.to(layer.weight)).cpu()[chosen].double()
    membranes = Membranes(layer, chosen)
    start, end, known = membranes.window(times, spikes)
    until = end if until is None else until
    at = torch.cat([torch.linspace(start, until, _POINTS, dtype=torch.float64), known[known <= until]]).unique()
    lowest, highest = 0.0, _thresholds(membranes, ax)
    traces = zip(chosen, names, membranes.voltage(at, times), spikes, membranes.threshold, strict=True)
    for neuron, name, voltage, spike, threshold in traces:
        before, look = at <= spike, line_style(neuron)
        ax.plot(at[before], voltage[before], label=name, zorder=3, **look)
        ax.plot(at[at >= spike], voltage[at >= spike], alpha=FAINT, linewidth=1, color=look["color"])
        if torch.isfinite(spike):
            ax.plot(spike, threshold, markersize=6, zorder=4, **marker_style(neuron))
        lowest, highest = min(lowest, float(voltage[before].min())), max(highest, float(voltage[before].max()))
    span = highest - lowest
    ax.set_ylim(lowest - 0.15 * span, highest + 0.25 * span)
    rug = times[torch.isfinite(times)]
    look = {"color": COLOURS[2], "markersize": 7, "markeredgewidth": 0.8, "transform": ax.get_xaxis_transform()}
    ax.plot(rug, torch.full_like(rug, 0.03), "|", label="input spikes", **look)
    ax.set(xlim=(start, until), xlabel=time_label(unit))
    ax.set_ylabel("membrane [threshold]" if bool((membranes.threshold == 1).all()) else "membrane voltage")
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

    A marker on a dashed line is the observed spike. Its distance to the threshold is the effect of the neuron's
    imperfections, noise and quantised weights.

    Args:
        layer: the neurons and their weights; at most four are drawn.
        exact: times of its inputs, and of its spikes.
        observed: the same as the substrate saw them.
        names: of the neurons, by default their numbers.
    """
    names = class_names(names, layer.out_features)
    chosen = list(range(min(_COMPARED, layer.out_features)))
    membranes = Membranes(layer, chosen)
    sides = [(inputs.detach().cpu(), spikes.detach().cpu()[chosen].double()) for inputs, spikes in (exact, observed)]
    starts, ends, known = zip(*(membranes.window(*side) for side in sides), strict=True)
    at = torch.cat([torch.linspace(min(starts), max(ends), _POINTS, dtype=torch.float64), *known]).unique()
    _thresholds(membranes, ax)
    for (inputs, spikes), dashed in zip(sides, (False, True), strict=True):
        for neuron, spike, voltage in zip(chosen, spikes, membranes.voltage(at, inputs), strict=True):
            before = at <= spike
            look = line_style(neuron) | {"linestyle": (0, (3, 2)) if dashed else "-"}
            ax.plot(at[before], voltage[before], label=None if dashed else names[neuron], **look)
            if torch.isfinite(spike):
                marker = marker_style(neuron) | {"markerfacecolor": "white" if dashed else look["color"]}
                ax.plot(spike, voltage[before][-1], markersize=5, zorder=4, **marker)
    ax.set(xlim=(min(starts), max(ends)), xlabel=time_label(unit), ylabel="membrane")
    return ax


def _thresholds(membranes: Membranes, ax: Axes) -> float:
    """Draw the thresholds; the highest."""
    for level in membranes.threshold.unique().tolist():
        ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    return float(membranes.threshold.max())


def output_membranes(run: RunData, sample: int, ax: Axes) -> Axes:
    """Membranes of a run's output neurons in a sample; of many, its class and those with the earliest spikes."""
    lif, layer = run.output_layer
    label, times = int(run.held_out[1].labels[sample]), run.record.layers[lif.index][sample]
    names = run.names(layer.out_features)
    order = times.argsort(stable=True).tolist()
    neurons = sorted(order, key=lambda neuron: neuron != label)[:_TRACES]  # the class comes first
    membrane(layer, lif.inputs(run.record)[sample], ax, neurons, [names[k] for k in neurons], unit=run.unit)
    for line in ax.get_lines():
        if line.get_label() == names[neurons[0]]:
            line.set_linewidth(2.5)
    ax.set_title(f"output neurons, {run.sample_title(sample)}")
    some = f"the class, and the\n{_TRACES - 1} earliest of {len(names) - 1} others"
    legend_right(ax, title=some if len(neurons) < len(names) else None, title_fontsize=8)
    return ax


@run_figure
def membrane_figure(run: RunData) -> Figure:
    """Membranes of the output neurons, a panel for the first test sample of each of up to three classes."""
    labels = run.held_out[1].labels
    samples = [int((labels == label).nonzero()[0]) for label in labels.unique()[:3]]
    figure, axes = panels(len(samples), 1, (6.5, 1.9), (0.0, 0.4))
    for sample, ax in zip(samples, axes, strict=True):
        output_membranes(run, sample, ax)
    label_outer(axes, 1)
    return figure
