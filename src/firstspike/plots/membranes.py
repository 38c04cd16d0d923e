"""Membrane voltages of one sample, exact.

Every input adds ``w kappa(t - t_i)`` (see ``spiketime/reference/response.py``), so the voltage needs no integration.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from firstspike.layers import LIFLinear, LIFRecurrent, LIFSpikeTrains
from firstspike.neuron import LIF
from firstspike.plots.look import (
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
from firstspike.plots.run_data import RunData, run_figure
from firstspike.spiketime.reference.response import kappa

_POINTS = 1000
TRACES = 6  # more in one panel cannot be told apart


def membrane_voltage(
    at: Float[Tensor, " points"],
    times: Float[Tensor, " inputs"] | Float[Tensor, "inputs spikes"],
    weight: Float[Tensor, "out inputs"],
    neuron: LIF,
    delay: Float[Tensor, "out inputs"] | None = None,
    *,
    resets: Float[Tensor, "out spikes"] | None = None,
    refractory: float = 0.0,
    reset: float = 0.0,
) -> Float[Tensor, "out points"]:
    """Voltage of neurons relative to the leak, in float64; without ``resets`` that of neurons that do not spike.

    A reset moves the membrane and not the current, so what it adds decays with ``tau_mem`` alone.

    Args:
        at: when; at the time of a reset, the voltage is that just before it.
        times: input spike times, or trains, ``inf`` = no spike.
        weight: of the synapses.
        neuron: its time constants; the threshold plays no part.
        delay: of each synapse.
        resets: sorted times of the neurons' own spikes, at which they are reset; ``inf`` after the last one.
        refractory: time for which a neuron then stays at ``reset``.
        reset: membrane after a spike.
    """
    tau_mem, tau_syn = (
        tau.detach().cpu().double().reshape(-1, 1, 1) if isinstance(tau, Tensor) else tau
        for tau in (neuron.tau_mem, neuron.tau_syn)
    )
    spikes = times.shape[-1] if times.ndim > 1 else 1
    every = times.double().reshape(len(times), -1)
    arrival = every if delay is None else every + delay.double().unsqueeze(-1)  # (inputs, spikes) or with outputs
    arrival, weight = arrival.flatten(-2), weight.double().repeat_interleave(spikes, dim=-1)

    def driven(at: Tensor) -> Tensor:
        """At points (points,), or (out, points) of each neuron."""
        since = at.unsqueeze(-1) - arrival.unsqueeze(-2)  # (points, inputs) or (out, points, inputs)
        response = torch.where(since > 0, kappa(since.clamp(min=0), tau_mem, tau_syn), 0.0)
        return (weight.unsqueeze(-2) * response).sum(dim=-1)

    at = at.double()
    voltage = driven(at)
    if resets is None:
        return voltage
    resets = resets.double()
    free = torch.where(torch.isfinite(resets), resets + refractory, 0.0)  # when membranes go on
    shift = reset - driven(free)
    last = torch.searchsorted(resets.contiguous(), at.expand(len(resets), -1).contiguous()) - 1  # spike before a point
    nth, since = last.clamp(min=0), at - free.gather(1, last.clamp(min=0))
    decay = torch.exp(-since.clamp(min=0) / (tau_mem.squeeze(-1) if isinstance(tau_mem, Tensor) else tau_mem))
    voltage = torch.where(last >= 0, voltage + shift.gather(1, nth) * decay, voltage)
    return torch.where((last >= 0) & (since < 0), reset, voltage)


class Membranes:
    """Membranes of some neurons of a layer, in float64 on the CPU.

    Those of a layer of spike trains are reset at their spikes, all others never.

    Args:
        layer: the neurons, their weights and delays.
        neurons: which of them; by default all.

    Attributes:
        threshold: of each neuron.
        tau: largest synaptic time constant.
        trains: whether the neurons spike several times.
    """

    def __init__(self, layer: LIFLinear | LIFSpikeTrains, neurons: Sequence[int] | None = None) -> None:
        self.chosen = list(range(layer.out_features) if neurons is None else neurons)
        tau_mem, tau_syn, self.threshold = (
            torch.as_tensor(x).detach().cpu().double().expand(layer.out_features)[self.chosen]
            for x in (layer.neuron.tau_mem, layer.neuron.tau_syn, layer.neuron.threshold)
        )
        self.neuron, self.tau = LIF(tau_mem, tau_syn), float(tau_syn.max())
        self.trains, self.recurrent = isinstance(layer, LIFSpikeTrains), isinstance(layer, LIFRecurrent)
        self._options = dict[str, float]()
        if isinstance(layer, LIFSpikeTrains):
            self._options = {"refractory": layer.refractory, "reset": layer.reset}
        synapses = _with_recurrence(layer) if isinstance(layer, LIFRecurrent) else (layer.weight, layer.delay)
        weight, delay = synapses
        self.weight = weight.detach().cpu()[self.chosen]
        self.delay = None if delay is None else delay.detach().cpu()[self.chosen]

    def voltage(
        self, at: Float[Tensor, " points"], times: Tensor, spikes: Tensor | None = None
    ) -> Float[Tensor, "neurons points"]:
        """Voltage relative to the leak.

        Neurons that would spike more often than `max_spikes` are held at the reset, as their layer does.

        Args:
            at: when.
            times: of the input spikes ``(inputs,)``, or trains ``(inputs, spikes)``.
            spikes: of all neurons of the layer, ``(out, spikes)``; those of spike trains are reset there.
        """
        if not self.trains or spikes is None:
            return membrane_voltage(at, times, self.weight, self.neuron, self.delay)
        if self.recurrent:
            both = times.reshape(len(times), -1), spikes.to(times)
            most = max(x.shape[-1] for x in both)
            times = torch.cat([functional.pad(x, (0, most - x.shape[-1]), value=torch.inf) for x in both])
        own = spikes[self.chosen].double()
        voltage = membrane_voltage(at, times, self.weight, self.neuron, self.delay, resets=own, **self._options)
        late = (own[:, -1:] < at) & torch.isfinite(own[:, -1:])  # after the last spike that there is room for
        held = (late & (voltage > self.threshold.unsqueeze(-1))).any(dim=-1, keepdim=True)
        return torch.where(late & held, self._options["reset"], voltage)

    def window(self, times: Tensor, spikes: Tensor) -> tuple[float, float, Float[Tensor, " events"]]:
        """Start and end of a time axis, and all arrivals and spikes.

        It starts at 0 and ends a little after the last spike; if a neuron is silent, or spikes several times, after its
        inputs have faded.

        Args:
            times: of the input spikes.
            spikes: of all neurons of the layer, or their trains.
        """
        every = times.double().reshape(len(times), -1)
        arrivals = every if self.delay is None else every + self.delay.double()[:, : len(times), None]
        own = spikes[self.chosen].double()
        fired = own[torch.isfinite(own)]
        known = torch.cat([arrivals[torch.isfinite(arrivals)], fired])
        start, last = (min(0.0, float(known.min())), float(known.max())) if len(known) else (0.0, 0.0)
        if len(fired) < len(own) or self.trains:
            return start, last + 1.5 * self.tau, known
        return start, start + 1.15 * max(float(fired.max()) - start, 1e-3 * self.tau), known

    def points(
        self, start: float, stop: float, spikes: Tensor, known: Tensor | None = None, count: int = _POINTS
    ) -> Float[Tensor, " points"]:
        """Where to draw a trace: ``count`` evenly spaced times, ``known`` ones and all spikes, of trains the resets."""
        own = spikes[self.chosen].double()
        fired = own[torch.isfinite(own)]
        resets = torch.nextafter(fired, torch.full_like(fired, torch.inf)) if self.trains else fired[:0]
        even = torch.linspace(start, stop, count, dtype=torch.float64)
        at = torch.cat([even, fired, resets, fired[:0] if known is None else known]).unique()
        return at[at <= stop]


def _with_recurrence(layer: LIFRecurrent) -> tuple[Tensor, Tensor]:
    """Weights and delays of a layer's inputs and, after them, of its own neurons."""
    delay = torch.zeros_like(layer.weight) if layer.delay is None else layer.delay
    return torch.cat([layer.weight, layer.recurrent_weight], dim=1), torch.cat([delay, layer.own_delay], dim=1)


class Traces(NamedTuple):
    """Membranes of some neurons in one sample, as figures and reports draw them."""

    neurons: list[int]
    names: list[str]
    at: Float[Tensor, " points"]
    voltage: Float[Tensor, "neurons points"]
    spikes: list[Tensor]
    threshold: Float[Tensor, " neurons"]
    trains: bool


def traces(
    layer: LIFLinear | LIFSpikeTrains,
    times: Tensor,
    spikes: Tensor,
    neurons: Sequence[int],
    names: Sequence[str] | None = None,
    until: float | None = None,
    count: int = _POINTS,
) -> Traces:
    """Membranes of neurons of a layer.

    Args:
        layer: the neurons, their weights and delays.
        times: input spike times of the sample, or trains.
        spikes: of all neurons of the layer, or their trains.
        neurons: which of them.
        names: of these neurons, by default their numbers.
        until: end of the time axis; by default shortly after the last spike.
        count: number of evenly spaced points.
    """
    names = [str(number) for number in neurons] if names is None else class_names(names, len(neurons))
    times, spikes, membranes = times.detach().cpu(), spikes.detach().cpu().double(), Membranes(layer, neurons)
    start, end, known = membranes.window(times, spikes)
    at = membranes.points(start, end if until is None else until, spikes, known if count == _POINTS else None, count)
    fired = [own[torch.isfinite(own)].reshape(-1) for own in spikes[membranes.chosen]]
    voltage = membranes.voltage(at, times, spikes)
    return Traces(membranes.chosen, names, at, voltage, fired, membranes.threshold, membranes.trains)


def draw_traces(drawn: Traces, ax: Axes, unit: str = TAU_SYN, dashed: bool | None = None) -> tuple[float, float]:
    """Draw traces with threshold and spikes. Returns the lowest and the highest voltage.

    Of two that are compared, all traces of the first are solid (False), those of the second dashed and without names
    (True), and they end with their spikes.
    """
    for level in drawn.threshold.unique().tolist():
        ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    lowest, highest, at = 0.0, float(drawn.threshold.max()), drawn.at
    for neuron, name, voltage, spikes in zip(drawn.neurons, drawn.names, drawn.voltage, drawn.spikes, strict=True):
        look = line_style(neuron) | ({} if dashed is None else {"linestyle": (0, (3, 2)) if dashed else "-"})
        last = at[-1] if drawn.trains or not len(spikes) else spikes[0]
        ax.plot(at[at <= last], voltage[at <= last], label=None if dashed else name, zorder=3, **look)
        if dashed is None:
            ax.plot(at[at >= last], voltage[at >= last], alpha=FAINT, linewidth=1, color=look["color"])
        marker = marker_style(neuron) | ({"markerfacecolor": "white"} if dashed else {})
        size = 4 if drawn.trains else 6
        heights = voltage[torch.searchsorted(at, spikes).clamp(max=len(at) - 1)]
        ax.plot(spikes, heights, linestyle="none", markersize=size, zorder=4, **marker)
        lowest = min(lowest, float(voltage[at <= last].min()))
        highest = max(highest, float(voltage[at <= last].max()))
    ax.set(xlabel=time_label(unit))
    ax.set_ylabel("membrane [threshold]" if bool((drawn.threshold == 1).all()) else "membrane voltage")
    return lowest, highest


def membrane(
    layer: LIFLinear | LIFSpikeTrains,
    times: Float[Tensor, " inputs"] | Float[Tensor, "inputs spikes"],
    ax: Axes,
    neurons: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    until: float | None = None,
    unit: str = TAU_SYN,
) -> Axes:
    """Membrane voltages of a layer in one sample, with threshold, spikes and, as ticks below, input spikes.

    Neurons of a layer of spike trains are reset at each spike. A neuron that spikes once has a faint trace after its
    spike: the voltage that the inputs would cause without a reset.

    Args:
        layer: the neurons, their weights and delays.
        times: input spike times of the sample, or trains.
        neurons: which of them; by default all, at most six.
        names: of the chosen neurons, by default their numbers.
        until: end of the time axis; by default shortly after the last spike.
    """
    with torch.no_grad():
        spikes = layer(times.to(layer.weight).unsqueeze(0))[0]
    chosen = range(min(TRACES, layer.out_features)) if neurons is None else neurons
    return _with_inputs(traces(layer, times, spikes, chosen, names, until), times, ax, unit)


def _with_inputs(drawn: Traces, times: Tensor, ax: Axes, unit: str) -> Axes:
    """Traces, with input spikes as ticks below."""
    lowest, highest = draw_traces(drawn, ax, unit)
    span = highest - lowest
    ax.set(xlim=(float(drawn.at[0]), float(drawn.at[-1])), ylim=(lowest - 0.15 * span, highest + 0.25 * span))
    rug = times[torch.isfinite(times)].detach().cpu()
    look: dict[str, Any] = {
        "color": COLOURS[2],
        "markersize": 7,
        "markeredgewidth": 0.8,
        "transform": ax.get_xaxis_transform(),
    }
    ax.plot(rug, torch.full_like(rug, 0.03), "|", label="input spikes", **look)
    return ax


def membranes_of(run: RunData, sample: int, count: int = _POINTS) -> Traces:
    """Membranes of a run's last spiking layer in a sample of ``held_out``, six at most.

    Of many output neurons its class, which is the first, and those with the earliest spikes; of neurons before a
    readout those that spike most.
    """
    lif, layer = run.membrane_layer
    spikes, names = run.record.layers[lif.index][sample], run.neuron_names
    rows = spikes.reshape(layer.out_features, -1)
    if run.spiking_output:
        label = int(run.held_out[1].labels[sample])
        neurons = sorted(rows[:, 0].argsort(stable=True).tolist(), key=lambda neuron: neuron != label)[:TRACES]
    else:
        count_of = torch.isfinite(rows).sum(-1)
        neurons = sorted(count_of.argsort(descending=True, stable=True)[:TRACES].tolist())
    shown = [names[neuron] for neuron in neurons]
    return traces(layer, lif.inputs(run.record)[sample], spikes, neurons, shown, count=count)


def output_membranes(run: RunData, sample: int, ax: Axes) -> Axes:
    """Draw ``membranes_of`` a sample, that of its class thick."""
    lif, layer = run.membrane_layer
    drawn = membranes_of(run, sample)
    _with_inputs(drawn, lif.inputs(run.record)[sample], ax, run.unit)
    if run.spiking_output:
        next(line for line in ax.get_lines() if line.get_label() == drawn.names[0]).set_linewidth(2.5)
        where, some = "output neurons", f"the class, and the\n{TRACES - 1} earliest of {layer.out_features - 1} others"
    else:
        where, some = lif.name, f"neurons: the {TRACES} of\n{layer.out_features} that spike most"
    ax.set_title(f"{where}, {run.sample_title(sample)}")
    legend_right(ax, title=some if len(drawn.neurons) < layer.out_features else None, title_fontsize=8)
    return ax


@run_figure
def membrane_figure(run: RunData) -> Figure:
    """Membranes of the neurons of the output, or before a readout, in the first test samples of up to three classes."""
    labels = run.held_out[1].labels
    if labels.is_floating_point():
        labels = torch.arange(len(labels))  # each sample is a class of its own
    samples = [int((labels == label).nonzero()[0]) for label in labels.unique()[:3]]
    figure, axes = panels(len(samples), 1, (6.5, 1.9), (0.0, 0.4))
    for sample, ax in zip(samples, axes, strict=True):
        output_membranes(run, sample, ax)
    label_outer(axes, 1)
    return figure
