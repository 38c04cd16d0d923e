"""Membrane voltages of one sample, exact.

Every input adds ``w kappa(t - t_i)`` (see ``spiketime/reference/response.py``), so the voltage needs no integration.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from firstspike.layers import SpikeTrains, SpikingLinear
from firstspike.layers.neurons import Arriving, NeuronLayer
from firstspike.layers.trains import form_of
from firstspike.neurons import LIF
from firstspike.plots import look, run_data
from firstspike.plots.run_data import run_figure
from firstspike.runs import Run
from firstspike.spiketime.reference.response import kappa

_POINTS = 1000
TRACES = 6  # more in one panel cannot be told apart


def membrane_voltage(
    at: Float[Tensor, " points"],
    times: Float[Tensor, " inputs"],
    weight: Float[Tensor, "out inputs"],
    neuron: LIF,
    delay: Float[Tensor, "out inputs"] | None = None,
    *,
    resets: Float[Tensor, "out spikes"] | None = None,
) -> Float[Tensor, "out points"]:
    """Voltage of neurons relative to the leak, in float64; without ``resets`` that of neurons that do not spike.

    ``resets`` are sorted times of the neurons' own spikes, ``inf`` after the last one. At such a time, the voltage is
    that just before it; then the neuron stays at its reset for its refractory time. A reset moves the membrane and
    not the current, so what it adds decays with ``tau_mem`` alone.
    """
    tau_mem, tau_syn = (_double(tau).reshape(-1, 1, 1) for tau in (neuron.tau_mem, neuron.tau_syn))
    arrival = times.double() if delay is None else times.double() + delay.double()

    def driven(at: Tensor) -> Tensor:
        """At points (points,), or (out, points) of each neuron."""
        since = at.unsqueeze(-1) - arrival.unsqueeze(-2)  # (points, inputs) or (out, points, inputs)
        response = torch.where(since > 0, kappa(since.clamp(min=0), tau_mem, tau_syn), 0.0)
        return (weight.double().unsqueeze(-2) * response).sum(dim=-1)

    at = at.double()
    voltage = driven(at)
    if resets is None:
        return voltage
    resets = resets.double()
    reset, refractory = (_double(x).reshape(-1, 1) for x in (neuron.reset, neuron.refractory))
    free = torch.where(torch.isfinite(resets), resets + refractory, 0.0)  # when membranes go on
    shift = reset - driven(free)
    last = torch.searchsorted(resets.contiguous(), at.expand(len(resets), -1).contiguous()) - 1  # spike before a point
    nth, since = last.clamp(min=0), at - free.gather(1, last.clamp(min=0))
    decay = torch.exp(-since.clamp(min=0) / tau_mem.squeeze(-1))
    voltage = torch.where(last >= 0, voltage + shift.gather(1, nth) * decay, voltage)
    return torch.where((last >= 0) & (since < 0), reset, voltage)


def _double(value: float | Tensor) -> Float64[Tensor, "..."]:
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


@torch.no_grad()
def _chosen(
    layer: SpikingLinear | SpikeTrains, neurons: Sequence[int], times: Tensor, spikes: Tensor
) -> tuple[LIF, Arriving]:
    """Constants of some neurons of a layer, and all that arrives at them in a sample, on the CPU."""
    constants = (_double(x).expand(layer.out_features)[neurons] for x in layer.neuron.values.values())
    each = (x.double().to(layer.weight.device).unsqueeze(0) for x in (times, spikes))
    arriving = layer.arriving(*each)
    delay = None if arriving.delay is None else arriving.delay.cpu()[neurons]
    weight = arriving.weight.cpu()[neurons]
    return LIF(*constants), arriving._replace(times=arriving.times[0].cpu(), weight=weight, delay=delay)


def voltages(
    layer: SpikingLinear | SpikeTrains,
    neurons: Sequence[int],
    at: Float[Tensor, " points"],
    times: Float[Tensor, " inputs *spikes"],
    spikes: Float[Tensor, " out *spikes"],
) -> Float[Tensor, "neurons points"]:
    """Membranes of some neurons of a layer relative to the leak, in float64 on the CPU.

    Those of spike trains are reset at their spikes, all others never. Neurons that would spike more often than
    ``max_spikes`` are held at the reset, as their layer does. ``times`` are those of the inputs, ``spikes`` those of
    all neurons of the layer.
    """
    neuron, (seen, weight, delay, *_) = _chosen(layer, neurons, times, spikes)
    if not isinstance(layer, SpikeTrains):
        return membrane_voltage(at, seen, weight, neuron, delay)
    own = spikes[neurons].double()
    voltage = membrane_voltage(at, seen, weight, neuron, delay, resets=own)
    late = (own[:, -1:] < at) & torch.isfinite(own[:, -1:])  # after the last spike that there is room for
    held = (late & (voltage > torch.as_tensor(neuron.threshold).unsqueeze(-1))).any(dim=-1, keepdim=True)
    return torch.where(late & held, torch.as_tensor(neuron.reset).unsqueeze(-1), voltage)


def unit_of(module: nn.Module) -> str:
    """The unit of a module's times, by the ``tau_syn`` that its layers started with; none if they differ."""
    layers = (x for x in module.modules() if isinstance(x, NeuronLayer) and "tau_syn" not in x.unused)
    taus = {tau for x in layers for tau in torch.as_tensor(x.initial_neuron.tau_syn).flatten().tolist()} or {1.0}
    return look.time_unit(*taus) if len(taus) == 1 else ""


class Traces(NamedTuple):
    """Membranes of some neurons in one sample, in units of the thresholds, as figures and reports draw them."""

    neurons: list[int]
    names: list[str]
    at: Float[Tensor, " points"]
    voltage: Float[Tensor, "neurons points"]
    spikes: list[Tensor]
    trains: bool

    @property
    def bases(self) -> list[float]:
        """Height of each membrane at rest: those of trains are in rows, the first at the top."""
        rows = (self.voltage[:-1].amin(dim=-1).clamp(max=0) - 1.3).cumsum(dim=0)
        return [0.0, *rows.tolist()] if self.trains else [0.0] * len(self.neurons)


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
    neuron, (arrivals, _, delay, last, _) = _chosen(layer, neurons, times, spikes)
    trains = isinstance(layer, SpikeTrains)
    tau, threshold = float(torch.as_tensor(neuron.tau_syn).max()), torch.as_tensor(neuron.threshold).unsqueeze(-1)
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
    end = min(end, last)
    after = torch.nextafter(fired, torch.full_like(fired, torch.inf)) if trains else fired  # the resets
    at = torch.cat([torch.linspace(start, end, count).double(), fired, after]).unique()
    at = at[at <= end]
    own = [spiked[torch.isfinite(spiked)] for spiked in every]
    return Traces(neurons, names, at, voltages(layer, neurons, at, times, spikes) / threshold, own, trains)


def draw_traces(drawn: Traces, ax: Axes, unit: str = look.TAU_SYN, other: Traces | None = None) -> list[Line2D]:
    """Draw traces with thresholds and spikes, those of trains in rows with the names on the y axis; the lines.

    The ``other`` ones are of the same neurons: they are dashed, and both end with the spikes.
    """
    sides = (drawn,) if other is None else (drawn, other)
    for height in set(drawn.bases):
        ax.axhline(height + 1, color=look.GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    lines: list[Line2D] = []
    for k, base in enumerate(drawn.bases):
        for side in sides:
            drawn_as = look.line_style(drawn.neurons[k])
            if drawn.trains or other is not None:
                drawn_as["linestyle"] = (0, (3, 2)) if side is other else "-"
            label = drawn.names[k] if side is drawn and not drawn.trains else None
            spikes, heights = side.spikes[k], base + side.voltage[k]
            end = side.at[-1] if drawn.trains or not len(spikes) else spikes[0]
            before, after = side.at <= end, side.at >= end
            lines += ax.plot(side.at[before], heights[before], label=label, zorder=3, **drawn_as)
            if other is None:
                faint = {"alpha": look.FAINT, "linewidth": 1, "color": drawn_as["color"]}
                ax.plot(side.at[after], heights[after], **faint)
            marker = look.marker_style(drawn.neurons[k]) | ({"markerfacecolor": "white"} if side is other else {})
            reached = heights[torch.searchsorted(side.at, spikes).clamp(max=len(side.at) - 1)]
            ax.plot(spikes, reached, linestyle="none", markersize=4 if drawn.trains else 6, zorder=4, **marker)
    drawn_heights = np.concatenate([line.get_ydata(orig=False) for line in lines])
    bottom, top = min(drawn.bases[-1], drawn_heights.min()), max(1.0, drawn_heights.max())
    above = (0.05 if drawn.trains else 0.25) * (top - bottom)
    ax.set(xlabel=look.time_label(unit), ylim=(bottom - 0.15 * (top - bottom), top + above))
    ax.set_xlim(min(float(side.at[0]) for side in sides), max(float(side.at[-1]) for side in sides))
    if drawn.trains:
        ax.set_yticks(drawn.bases, drawn.names)
    ax.set_ylabel("membranes, thresholds dashed" if drawn.trains else "membrane [threshold]")
    return lines[:: len(sides)]


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
    trace after its spike: the voltage that the inputs would cause without a reset.

    Args:
        layer: the neurons, their weights and delays.
        times: input spike times of the sample, or trains.
        neurons: which of them; by default all, at most six.
        names: of the chosen neurons, by default their numbers.
        until: end of a time axis that starts at 0; by default it is as long as something happens.
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
def membrane_figure(run: Run) -> Figure:
    """Membranes of the output neurons, or of those before a readout, in test samples of up to three classes."""
    labels = run.held_out[1].labels
    if labels.is_floating_point():
        labels = torch.arange(len(labels))  # each sample is a class of its own
    samples = [int((labels == label).nonzero()[0]) for label in labels.unique()[:3]]
    tall = 2.6 if form_of(run_data.membrane_layer(run)[1]) == "trains" else 1.9
    figure, axes = look.panels(len(samples), 1, (6.5, tall), (0.0, 0.4))
    for sample, ax in zip(samples, axes, strict=True):
        output_membranes(run, sample, ax)
    look.label_outer(axes, 1)
    return figure
