"""Test samples to pick on the page: their input, spikes of all layers, membranes of the output neurons."""

from typing import Any

import torch
from torch import Tensor

from firstspike.layers import LIFLinear, Record
from firstspike.layers.named import NamedLIF, named_lif_layers, named_spikes
from firstspike.neuron import LIF
from firstspike.plots import RunData, membrane_voltage
from firstspike.plots.spike_times import layer_heights
from firstspike.reports.values import plain

POINTS = 160  # of a membrane trace
_LEAST = 12  # samples, however large they are


def samples(run: RunData, budget: int) -> dict[str, Any]:
    """Samples of the test data, as many as the budget of numbers allows.

    Wrong decisions come first, up to half of the places; the rest are the first samples of the data.

    Returns:
        ``index``, ``label`` and ``decision`` (-1 is silent), one per sample; ``layers`` with ``name``, ``height`` and
        ``times[sample][neuron]``; ``membrane`` (of the output neurons, in units of their thresholds: ``traces`` on
        equal steps from ``start`` to ``stop``, ``spikes``); ``image`` with its shape, or ``points`` on the plane
        with the names of the ``inputs``.
    """
    shown, evaluation, test = named_spikes(run.network, run.record), run.evaluation, run.held_out[1]
    output = named_lif_layers(run.network)[-1]
    size = sum(spikes.times.shape[1] for spikes in shown) + POINTS * run.record.layers[output.index].shape[1]
    chosen = choose(evaluation.predictions != test.labels, max(_LEAST, budget // size))
    found: dict[str, Any] = {
        "of": len(test),
        "index": chosen.tolist(),
        "label": test.labels[chosen].tolist(),
        "decision": evaluation.predictions[chosen].tolist(),
        "layers": [
            {"name": spikes.name, "height": height, "times": plain(spikes.times[chosen])}
            for spikes, height in zip(shown, layer_heights(shown), strict=True)
        ],
    }
    if isinstance(output.layer, LIFLinear):
        found["membrane"] = _membranes(output, output.layer, run.record, chosen)
    section = run.config.data
    if section.kind == "yin_yang":
        found["inputs"] = ["x", "y", "1 - x", "1 - y"]
        found["points"] = plain(run.plane.coordinates(test.times[chosen]))
    elif section.kind == "bars":
        found["image"] = {"rows": section.size, "columns": section.size, "every": section.multiply}
    elif (image := run.data.train.image) is not None:
        found["image"] = {"rows": image[1], "columns": image[2], "every": 1}
    return found


def choose(wrong: Tensor, count: int) -> Tensor:
    """Which samples, sorted: wrong ones, at most half, then the first ones."""
    if count >= len(wrong):
        return torch.arange(len(wrong))
    first = wrong.nonzero().flatten()[: count // 2]
    others = torch.ones(len(wrong), dtype=torch.bool)
    others[first] = False
    return torch.cat([first, others.nonzero().flatten()[: count - len(first)]]).sort().values


def _membranes(output: NamedLIF, layer: LIFLinear, record: Record, chosen: Tensor) -> dict[str, Any]:
    """Exact voltages that the spikes into the output layer drive, without a reset, relative to the leak."""
    tau_mem, tau_syn, threshold = (
        torch.as_tensor(x).detach().cpu().double().expand(layer.out_features)
        for x in (layer.neuron.tau_mem, layer.neuron.tau_syn, layer.neuron.threshold)
    )
    neuron = LIF(tau_mem, tau_syn)
    weight, delay = layer.weight.detach(), None if layer.delay is None else layer.delay.detach()
    spikes = record.layers[output.index][chosen].double()
    found: dict[str, Any] = {"start": [], "stop": [], "traces": [], "spikes": plain(spikes)}
    for times, own in zip(output.inputs(record)[chosen].double(), spikes, strict=True):
        arrivals = times if delay is None else times + delay.double()
        start, stop = _window(arrivals[torch.isfinite(arrivals)], own, float(tau_syn.max()))
        at = torch.linspace(start, stop, POINTS, dtype=torch.float64)
        voltage = membrane_voltage(at, times, weight, neuron, delay)
        found["start"].append(round(start, 4))
        found["stop"].append(round(stop, 4))
        found["traces"].append(plain(voltage / threshold.unsqueeze(-1), 3))
    return found


def _window(arrivals: Tensor, spikes: Tensor, tau: float) -> tuple[float, float]:
    """From 0 to a little after the last output spike; where a neuron is silent, until its inputs are over."""
    fired = spikes[torch.isfinite(spikes)]
    known = torch.cat([arrivals.flatten(), fired])
    if not len(known):
        return 0.0, tau
    start = min(0.0, float(known.min()))
    if len(fired) == len(spikes):
        return start, start + 1.15 * max(float(fired.max()) - start, 1e-3 * tau)
    return start, float(known.max()) + 1.5 * tau
