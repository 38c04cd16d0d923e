"""Layers of a network, their spikes and parameters, by the names that figures, tables and files show."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.conv import EarliestPool2d
from firstspike.layers.inputs import BiasSpikes, Multiplex
from firstspike.layers.network import Network, Record
from firstspike.layers.neurons import LIFLayer

_NEURON = {"tau_mem": "membrane time constants", "tau_syn": "synaptic time constants", "threshold": "thresholds"}


class NamedSpikes(NamedTuple):
    """Spikes of one layer: ``times (samples, neurons)``, ``inf`` = silent."""

    name: str
    times: Tensor


@dataclass(frozen=True)
class NamedLIF:
    """A LIF layer, its index in the network, and its name: hidden (numbered where there are several), output."""

    index: int
    name: str
    layer: LIFLayer

    def inputs(self, record: Record) -> Tensor:
        """Spike times that reach it ``(samples, inputs)``."""
        return record.layers[self.index - 1] if self.index else record.inputs


def named_lif_layers(network: Network) -> list[NamedLIF]:
    """The LIF layers of a network in order."""
    found = [(index, layer) for index, layer in enumerate(network) if isinstance(layer, LIFLayer)]
    hidden = len(found) - 1
    names = [*(f"hidden {k}" if hidden > 1 else "hidden" for k in range(1, hidden + 1)), "output"]
    return [NamedLIF(index, name, layer) for (index, layer), name in zip(found, names, strict=False)]


def named_spikes(network: Network, record: Record) -> list[NamedSpikes]:
    """The spikes that a network adds to its input, in order: of bias layers the bias spikes alone, no copies.

    Args:
        network: where the record comes from.
        record: spike times of a batch through it, see ``Network.record``.
    """
    names = {lif.index: lif.name for lif in named_lif_layers(network)}
    found = [NamedSpikes("input", record.inputs)]
    before = record.inputs
    for index, (layer, times) in enumerate(zip(network, record.layers, strict=True)):
        if index in names:
            found.append(NamedSpikes(names[index], times))
        elif isinstance(layer, BiasSpikes):
            found.append(NamedSpikes("bias", times[..., before.shape[-1] :]))
        elif isinstance(layer, EarliestPool2d):
            found.append(NamedSpikes("pooled", times))
        elif not isinstance(layer, Multiplex):
            found.append(NamedSpikes("delayed", times))
        before = times
    return found


def named_parameters(network: Network) -> dict[str, Float[np.ndarray, "..."]]:
    """All weights, delays and learnt parameters of neurons by a readable name; as they act, not their raw values."""
    names = {lif.index: lif.name for lif in named_lif_layers(network)}
    found = {}
    behind = "input"
    for index, layer in enumerate(network):
        if isinstance(layer, LIFLayer):
            behind = names[index]
            found[f"weights, {behind}"] = to_numpy(layer.weight)
            if isinstance(delay := getattr(layer, "delay", None), Tensor):
                found[f"synaptic delays, {behind}"] = to_numpy(delay)
            for parameter, title in _NEURON.items():
                if isinstance(value := getattr(layer.neuron, parameter), Tensor):
                    found[f"{title}, {behind}"] = to_numpy(value)
        elif isinstance(delay := getattr(layer, "delay", None), Tensor):
            delay = delay[:: getattr(layer, "copies", 1)]  # copies of an input share one
            found[f"delays, {behind}" if f"delays, {behind}" not in found else f"delays, {index}"] = to_numpy(delay)
    return found


def to_numpy(values: Tensor) -> Float[np.ndarray, "..."]:
    """A float64 copy on the CPU, without gradient."""
    return values.detach().cpu().to(torch.float64, copy=True).numpy()
