"""Membranes of one sample, exact, with the currents and moving thresholds of neurons that have any."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from firstspike.layers import SpikeTrains, SpikingLinear
from firstspike.layers.neurons import NeuronLayer
from firstspike.layers.trains import form_of
from firstspike.neurons.base import each
from firstspike.plots import look, run_data
from firstspike.plots.run_data import run_figure
from firstspike.plots.voltages import chosen_of, double, voltages
from firstspike.runs import Run

_POINTS = 1000
_STRIP = 1.0  # height of the currents of a neuron, in thresholds
TRACES = 6  # more in one panel cannot be told apart


def unit_of(module: nn.Module) -> str:
    """The unit of a module's times, by its neurons or the ``tau_syn`` that they started with; none if they differ."""
    layers = (x for x in module.modules() if isinstance(x, NeuronLayer) and "tau_syn" not in x.unused)
    neurons = [(x.initial_neuron, first_tau(x.initial_neuron)) for x in layers]  # as in a config
    units = {look.time_unit(tau, x.unit) for x, first in neurons for tau in torch.as_tensor(first).flatten().tolist()}
    return "" if len(units) > 1 else next(iter(units), look.TAU_SYN)


def first_tau(neuron: Any) -> Any:
    """The synaptic time constant of a neuron, of several the first; 1 where its equations have none of this name."""
    return each(neuron.values.get("tau_syn", 1.0))[0]


@dataclass(frozen=True)
class Traces:
    """Membranes of some neurons in one sample, in units of the thresholds, as figures and reports draw them."""

    neurons: list[int]
    names: list[str]
    at: Float[Tensor, " points"]
    voltage: Float[Tensor, "neurons points"]
    spikes: list[Tensor]
    trains: bool
    threshold: Float[Tensor, "neurons points"]
    currents: dict[str, Float[Tensor, "neurons points"]] = field(default_factory=dict)
    """The currents of neurons with ``components``."""

    @property
    def in_rows(self) -> bool:
        """Whether each membrane has its own row: those of trains, and those with currents."""
        return self.trains or bool(self.currents)

    @property
    def tones(self) -> list[int]:
        """Index of each neuron's colour: its number, or its place where two would have the same colour."""
        colours = {neuron % len(look.COLOURS) for neuron in self.neurons}
        return self.neurons if len(colours) == len(self.neurons) else list(range(len(self.neurons)))

    @property
    def bases(self) -> list[float]:
        """Height of each membrane at rest, in rows the first at the top."""
        highest = torch.maximum(self.threshold, self.voltage) if self.trains else self.threshold
        above = highest.amax(dim=-1).clamp(min=1)[1:]
        strip = _STRIP * bool(self.currents)
        rows = (self.voltage[:-1].amin(dim=-1).clamp(max=0) - above - 0.3 - strip).cumsum(dim=0)
        return [0.0, *rows.tolist()] if self.in_rows else [0.0] * len(self.neurons)


def traces(
    layer: SpikingLinear | SpikeTrains,
    times: Float[Tensor, " inputs *spikes"],
    spikes: Float[Tensor, " out *spikes"],
    neurons: Sequence[int],
    names: Sequence[str] | None = None,
    until: float | None = None,
    count: int = _POINTS,
) -> Traces:
    """Membranes of some neurons of a layer in one sample, at ``count`` evenly spaced points and at their spikes.

    The time axis starts shortly before the first arrival and ends a little after the last spike; if a neuron is silent,
    or spikes several times, after its inputs have faded. With ``until`` it starts at 0 and ends there. A recurrent
    layer is followed up to its ``duration``.
    """
    names = [str(number) for number in neurons] if names is None else look.class_names(names, len(neurons))
    times, spikes, neurons = times.detach().cpu(), spikes.detach().cpu().double(), list(neurons)
    neuron, arriving, resets = chosen_of(layer, neurons, times, spikes)
    arrivals, _, delay, last, _ = arriving
    trains, described = isinstance(layer, SpikeTrains), neuron.equations is not None
    unit = torch.ones(1, 1).double() if described else double(neuron.threshold).unsqueeze(-1)
    taus = [first_tau(neuron)] if described else each(neuron.tau_syn)
    tau = max(float(double(x).max()) for x in taus)
    if delay is not None:
        arrivals = arrivals + delay
    every = spikes[neurons].reshape(len(neurons), -1)
    fired, arrivals = every[torch.isfinite(every)], arrivals[torch.isfinite(arrivals) & (arrivals <= last)]
    known = torch.cat([arrivals, fired]) if len(arrivals) + len(fired) else torch.zeros(1).double()
    first, end = float(known.min()), float(known.max())
    start = min(first, max(0.0, first - 0.1 * (end - first)))
    if trains or len(fired) < len(every):
        end += 1.5 * tau
    else:
        end = start + 1.15 * max(float(fired.max()) - start, 1e-3 * tau)
    if until is not None:
        start, end = min(0.0, start), until
    start = max(start, 0.0) if described else start  # where they begin
    end = min(end, last)
    after = torch.nextafter(fired, torch.full_like(fired, torch.inf)) if trains or described else fired  # the resets
    top = fired - 1e-9 * (end - start) if described else fired  # rounding may put their spikes before
    at = torch.cat([torch.linspace(start, end, count).double(), top, after]).unique()
    at = at[at <= end]
    own = [spiked[torch.isfinite(spiked)] for spiked in every]
    voltage, threshold, currents = voltages(at, neuron, arriving, resets)
    shown = {name: current / unit for name, current in currents.items()}
    return Traces(neurons, names, at, voltage / unit, own, trains, threshold / unit, shown)


def draw_traces(drawn: Traces, ax: Axes, unit: str = look.TAU_SYN, other: Traces | None = None) -> list[Line2D]:
    """Draw traces with thresholds and spikes, those in rows with the names on the y axis; the lines.

    Currents are below the membranes, all on one scale. The ``other`` ones are of the same neurons: they are dashed, and
    both end with the spikes.
    """
    sides = (drawn,) if other is None else (drawn, other)
    for base, threshold in zip(drawn.bases, drawn.threshold, strict=True):
        ax.plot(drawn.at, base + threshold, color=look.GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        if not drawn.in_rows:
            break
    _draw_currents(drawn, ax)
    lines: list[Line2D] = []
    for k, base in enumerate(drawn.bases):
        for side in sides:
            drawn_as = look.line_style(drawn.tones[k])
            if drawn.in_rows or other is not None:
                drawn_as["linestyle"] = (0, (3, 2)) if side is other else "-"
            label = drawn.names[k] if side is drawn and not drawn.in_rows else None
            spikes, heights = side.spikes[k], base + side.voltage[k]
            end = side.at[-1] if drawn.trains or not len(spikes) else spikes[0]
            before, after = side.at <= end, side.at >= end
            lines += ax.plot(side.at[before], heights[before], label=label, zorder=3, **drawn_as)
            if other is None:
                faint = {"alpha": look.FAINT, "linewidth": 1, "color": drawn_as["color"]}
                ax.plot(side.at[after], heights[after], **faint)
            marker = look.marker_style(drawn.tones[k]) | ({"markerfacecolor": "white"} if side is other else {})
            place = torch.searchsorted(side.at, spikes).clamp(max=len(side.at) - 1)
            reached = torch.maximum(heights[place], heights[(place - 1).clamp(min=0)])  # a rounded time may be after it
            ax.plot(spikes, reached, linestyle="none", markersize=4 if drawn.in_rows else 6, zorder=4, **marker)
    drawn_heights = np.concatenate([line.get_ydata(orig=False) for line in lines])
    bottom = min(drawn.bases[-1], drawn_heights.min()) - _STRIP * bool(drawn.currents)
    top = max(1.0, float(drawn.threshold[0].max()), drawn_heights.max())
    above = (0.05 if drawn.in_rows else 0.25) * (top - bottom)
    ax.set(xlabel=look.time_label(unit), ylim=(bottom - 0.15 * (top - bottom), top + above))
    ax.set_xlim(min(float(side.at[0]) for side in sides), max(float(side.at[-1]) for side in sides))
    if drawn.in_rows:
        ax.set_yticks(drawn.bases, drawn.names)
    ax.set_ylabel("membranes, thresholds dashed" if drawn.in_rows else "membrane [threshold]")
    return lines[:: len(sides)]


def _draw_currents(drawn: Traces, ax: Axes) -> None:
    """Draw the currents in a strip below each membrane."""
    most = max((float(current.abs().max()) for current in drawn.currents.values()), default=0.0)
    for k, base in enumerate(drawn.bases):
        middle = base + float(drawn.voltage[k].min().clamp(max=0)) - 0.55 * _STRIP
        for place, (name, current) in enumerate(drawn.currents.items()):
            heights = middle + 0.45 * _STRIP * current[k] / (most or 1.0)
            colour = look.COLOURS[-1 - place % (len(look.COLOURS) - 1)]
            ax.fill_between(drawn.at, middle, heights, color=colour, alpha=0.3, linewidth=0, zorder=1)
            ax.plot(drawn.at, heights, color=colour, linewidth=0.7, label=None if k else name, zorder=2)


def membrane(
    layer: SpikingLinear | SpikeTrains,
    times: Float[Tensor, " inputs"] | Float[Tensor, "inputs spikes"],
    ax: Axes,
    neurons: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    until: float | None = None,
    unit: str | None = None,
) -> Axes:
    """Membrane voltages of a layer in one sample, with threshold, spikes and, as ticks below, input spikes.

    Neurons of a layer of spike trains are reset at each spike, and drawn in rows. A neuron that spikes once has a faint
    trace after its spike: the voltage that the inputs would cause without a reset. Neurons with several receptors, or
    that adapt, have their currents below the membrane, all on one scale, and a threshold that moves. Those from
    equations have all their states there, each on its own scale, and the membrane 0 where it starts.

    Args:
        layer: the neurons, their weights and delays.
        times: input spike times of the sample, or trains.
        neurons: which of them; by default all, at most six.
        names: of the chosen neurons, by default their numbers.
        until: end of a time axis that starts at 0. By default it is as long as something happens.
    """
    with torch.no_grad():
        spikes = layer(times.to(layer.weight).unsqueeze(0))[0]
    chosen = range(min(TRACES, layer.out_features)) if neurons is None else neurons
    draw_traces(traces(layer, times, spikes, chosen, names, until), ax, unit_of(layer) if unit is None else unit)
    return _input_ticks(times, ax)


def _input_ticks(times: Tensor, ax: Axes) -> Axes:
    """Input spikes as ticks below."""
    rug = times[torch.isfinite(times)].detach().cpu()
    drawn_as: dict[str, Any] = {"color": look.COLOURS[2], "markersize": 7, "markeredgewidth": 0.8}
    ax.plot(rug, torch.full_like(rug, 0.03), "|", label="input spikes", transform=ax.get_xaxis_transform(), **drawn_as)
    return ax


def membranes_of(run: Run, sample: int, count: int = _POINTS) -> Traces:
    """Membranes of a run's last spiking layer in a sample of ``held_out``, six at most.

    Of many output neurons its class, which is the first, and those with the earliest spikes; of neurons before a
    readout those that spike most.
    """
    lif, layer = run_data.membrane_layer(run)
    spikes, names = run.record.layers[lif.index][sample], run_data.neuron_names(run)
    rows = spikes.reshape(layer.out_features, -1)
    if run_data.spiking_output(run):
        label = int(run.held_out[1].labels[sample])
        neurons = sorted(rows[:, 0].argsort(stable=True).tolist(), key=lambda neuron: neuron != label)[:TRACES]
    else:
        count_of = torch.isfinite(rows).sum(-1)
        neurons = sorted(count_of.argsort(descending=True, stable=True)[:TRACES].tolist())
    shown = [names[neuron] for neuron in neurons]
    return traces(layer, lif.inputs(run.record)[sample], spikes, neurons, shown, count=count)


def output_membranes(run: Run, sample: int, ax: Axes) -> Axes:
    """Draw ``membranes_of`` a sample, that of its class thick."""
    lif, layer = run_data.membrane_layer(run)
    drawn = membranes_of(run, sample)
    lines = draw_traces(drawn, ax, run_data.unit_in(run))
    _input_ticks(lif.inputs(run.record)[sample], ax)
    few, spiking = len(drawn.neurons) < layer.out_features, run_data.spiking_output(run)
    if spiking:
        lines[0].set_linewidth(2.5)
        where, some = "output", f"the true class and the\n{TRACES - 1} earliest of {layer.out_features - 1} others"
    else:
        where, some = lif.name, f"the {TRACES} of {layer.out_features} neurons\nthat spike most"
    ax.set_title(f"{where}, {run_data.sample_title(run, sample)}")
    look.legend_right(ax, title=some if few else "output" if spiking else "neuron", title_fontsize=8)
    return ax


@run_figure
def membrane_figure(run: Run, sample: int | None = None) -> Figure:
    """Membranes of the output neurons, or of those before a readout, in test samples of up to three classes."""
    labels = run.held_out[1].labels
    if labels.is_floating_point():
        labels = torch.arange(len(labels))  # each sample is a separate class
    samples = [int((labels == label).nonzero()[0]) for label in labels.unique()[:3]] if sample is None else [sample]
    tall = 2.6 if form_of(run_data.membrane_layer(run)[1]) == "trains" else 1.9
    figure, axes = look.panels(len(samples), 1, (6.5, tall), (0.0, 0.4))
    for sample, ax in zip(samples, axes, strict=True):
        output_membranes(run, sample, ax)
    look.label_outer(axes, 1)
    return figure
