"""Layers of a network, their spikes and parameters, by the names that figures, tables and files show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.branches import Branch, Concatenate
from firstspike.layers.conv import EarliestPool2d, MergePool2d
from firstspike.layers.delay import Delay, Delayed
from firstspike.layers.inputs import BiasSpikes, Multiplex, PoissonSpikes
from firstspike.layers.network import Network, Record
from firstspike.layers.neurons import NeuronLayer, SpikingLayer
from firstspike.layers.noise import SpikeDropout
from firstspike.layers.recurrent import SpikingRecurrent
from firstspike.layers.trains import FirstSpike, form_of

_NEURON = {
    "tau_mem": "membrane time constants",
    "tau_syn": "synaptic time constants",
    "threshold": "thresholds",
    "reset": "resets",
    "refractory": "refractory times",
    "tau_rise": "rise time constants",
    "bias": "biases",
    "adaptation_tau": "adaptation time constants",
    "adaptation_jump": "adaptation jumps",
    "adaptation_rise": "adaptation rise times",
    "threshold_tau": "threshold time constants",
    "threshold_jump": "threshold jumps",
}


Neurons = slice | Sequence[int]
"""Some neurons of a layer."""


class NamedSpikes(NamedTuple):
    """Spikes of one layer: ``times (samples, neurons)``, ``inf`` = silent, or trains ``(samples, neurons, spikes)``."""

    name: str
    times: Tensor

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.times.shape[1]

    @property
    def first(self) -> Tensor:
        """First spikes ``(samples, neurons)``."""
        return self.times[..., 0] if self.times.ndim > 2 else self.times


def populations_of(layer: nn.Module | None) -> dict[str, Neurons]:
    """Neurons of a recurrent layer that excite, ``"E"``, and that inhibit, ``"I"``, by the signs of their weights."""
    signs = np.asarray(getattr(layer, "recurrent_signs", None) or ())
    found = {"E": np.flatnonzero(signs > 0).tolist(), "I": np.flatnonzero(signs < 0).tolist()}
    return {name: slice_of(own) for name, own in found.items() if own}


def slice_of(numbers: list[int]) -> Neurons:
    """Numbers as a slice, if they are in a row."""
    inside = slice(numbers[0], numbers[-1] + 1)
    return inside if numbers == list(range(inside.start, inside.stop)) else numbers


@dataclass(frozen=True)
class NamedLayer:
    """A spiking layer, its index, and its name: hidden, numbered if there are several; output, if no readout is."""

    index: int
    name: str
    layer: SpikingLayer

    def inputs(self, record: Record) -> Tensor:
        """Spike times that reach it ``(samples, inputs)``."""
        return record.layers[self.index - 1] if self.index else record.inputs


def named_layers(network: nn.Module) -> list[NamedLayer]:
    """The spiking layers of a ``Network`` in order; none of another module."""
    layers = enumerate(network) if isinstance(network, Network) else ()
    found = [(index, layer) for index, layer in layers if isinstance(layer, SpikingLayer)]
    hidden = len(found) - (isinstance(network, Network) and network.gives != "values")
    names = [*(f"hidden {k}" if hidden > 1 else "hidden" for k in range(1, hidden + 1)), "output"]
    return [NamedLayer(index, name, layer) for (index, layer), name in zip(found, names, strict=False)]


def named_spikes(network: nn.Module, record: Record) -> list[NamedSpikes]:
    """The spikes that a network adds to its input, in order: for bias layers the bias spikes alone, no copies.

    For a concatenation these are the appended spikes. A readout has no spikes. Of a module that is not a ``Network``
    only input and output are known.
    """
    found = [NamedSpikes("input", record.inputs)]
    if not isinstance(network, Network):
        return [*found, NamedSpikes("output", record.output)]
    names = {lif.index: lif.name for lif in named_layers(network)}
    before = record.inputs
    for index, (layer, times) in enumerate(zip(network, record.layers, strict=True)):
        if isinstance(layer, BiasSpikes | Concatenate):
            name = "bias" if isinstance(layer, BiasSpikes) else "carried past"
            found.append(NamedSpikes(name, times[..., before.shape[-1] :]))
        elif isinstance(layer, PoissonSpikes):
            found.append(NamedSpikes("background", times[:, -layer.sources :]))
        elif form_of(layer) != "values" and not isinstance(layer, Multiplex | SpikeDropout | FirstSpike):
            kinds = {EarliestPool2d: "pooled", MergePool2d: "pooled", Delay: "delayed", Branch: "earliest"}
            kind = next((kind for known, kind in kinds.items() if isinstance(layer, known)), type(layer).__name__)
            found.append(NamedSpikes(names.get(index, kind), times))
        before = times
    return found


def named_parameters(network: nn.Module) -> dict[str, Float[np.ndarray, "..."]]:
    """Weights, delays and learnt parameters of neurons, as they act, by readable names; others by PyTorch's names."""
    names = {lif.index: lif.name for lif in named_layers(network)}
    found: dict[str, Float[np.ndarray, ...]] = {}
    source = "input"
    for index, layer in enumerate(network) if isinstance(network, Network) else [(0, network)]:
        if isinstance(layer, NeuronLayer) and isinstance(network, Network):
            source = names.get(index, "output")
            found[f"weights, {source}"] = to_numpy(layer.weight)
            if isinstance(layer, Delayed) and layer.delay_raw is not None:
                found[f"synaptic delays, {source}"] = to_numpy(layer.delay_rule(layer.delay_raw))
            if isinstance(layer, SpikingRecurrent):
                found[f"recurrent weights, {source}"] = to_numpy(layer.recurrent_weight)
                if layer.recurrent_delays is not None:
                    found[f"recurrent delays, {source}"] = to_numpy(layer.window + layer.recurrent_delays.delay)
            for parameter, value in layer.neuron.values.items():
                parts = value if isinstance(value, tuple) else (value,)
                if parameter not in layer.unused and any(isinstance(x, Tensor) for x in parts):
                    each = torch.broadcast_tensors(*(torch.as_tensor(x).detach().cpu().double() for x in parts))
                    several = torch.stack(each, -1) if isinstance(value, tuple) else each[0]
                    found[f"{_NEURON.get(parameter, parameter)}, {source}"] = to_numpy(several)
        elif isinstance(layer, Delay):
            name = f"delays, {source}" if f"delays, {source}" not in found else f"delays, {index}"
            found[name] = to_numpy(layer.delay[:: layer.copies])  # copies of an input share one
        elif isinstance(layer, Branch):
            if layer.delays is not None:
                found[f"delays, carried to {index}"] = to_numpy(layer.delays.delay[:: layer.delays.copies])
        else:
            place = "" if layer is network else f"{index}."
            found |= {f"{place}{name}": to_numpy(value) for name, value in layer.named_parameters()}
    return found


def to_numpy(values: Tensor) -> Float[np.ndarray, "..."]:
    """A float64 copy on the CPU, without gradient."""
    return values.detach().cpu().to(torch.float64, copy=True).numpy()
