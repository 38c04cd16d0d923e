"""A network as a graph of NIR."""

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike._version import __version__
from firstspike.interop.nir.conventions import Convention
from firstspike.layers import BiasSpikes, Delay, LIFConv2d, LIFLayer, LIFLinear, Multiplex, Network

_LARGEST = 50_000_000  # numbers in a matrix, 0.4 GB; only written-out synaptic delays and filters come near

Matrix = Float[np.ndarray, "rows columns"]


@dataclass
class _Channels:
    """The signal between two layers: each channel is one of the outputs of a node.

    Args:
        node: the node's name.
        size: how many outputs it has.
        column: which of them each channel is.
        place: of the channels among all.
    """

    node: str
    size: int
    column: Int[np.ndarray, " channels"]
    place: Int[np.ndarray, " channels"]


def graph_of(network: Network, convention: Convention) -> nir.NIRGraph:
    """See ``to_nir``."""
    return _Writer(network, convention).graph()


class _Writer:
    def __init__(self, network: Network, convention: Convention) -> None:
        if not isinstance(network, Network):
            raise ValueError(f"expected a Network, got a {type(network).__name__}")
        self.network, self.convention = network, convention
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        if network.inputs is None:
            raise ValueError("the network has no LIF layer: nothing for NIR")
        self.inputs = network.inputs
        self.bias = [float(t) for layer in network if isinstance(layer, BiasSpikes) for t in layer.times]
        self.size = self.inputs + len(self.bias)

    def graph(self) -> nir.NIRGraph:
        self.nodes["input"] = nir.Input(input_type={"input": np.array([self.size])})
        every = np.arange(self.inputs)
        signal, count, biases = [_Channels("input", self.size, every, every)], self.inputs, self.inputs
        lifs = [index for index, layer in enumerate(self.network) if isinstance(layer, LIFLayer)]
        if not lifs:
            raise ValueError("the network has no LIF layer: nothing for NIR")
        for index, layer in enumerate(self.network):
            match layer:
                case LIFLinear() | LIFConv2d():
                    signal, count = self._lif(index, layer, signal), layer.out_features
                case Delay():
                    signal = self._delay(layer, signal)
                case BiasSpikes() if index < lifs[-1]:
                    new = np.arange(len(layer.times))
                    signal = _joined([*signal, _Channels("input", self.size, biases + new, count + new)])
                    count, biases = count + len(new), biases + len(new)
                case Multiplex() if index < lifs[-1]:
                    signal = [_copied(part, layer.copies) for part in signal]
                    count *= layer.copies
                case BiasSpikes() | Multiplex():
                    raise ValueError(f"layer {index}: behind the last LIF layer NIR has delays only, no {_name(layer)}")
                case _:
                    raise ValueError(f"layer {index}: NIR has nothing for a {_name(layer)}")
        (last,) = signal
        self._add("output", nir.Output(output_type={"output": np.array([last.size])}), last.node)
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=self._metadata())

    def _metadata(self) -> dict[str, Any]:
        """What a reader need not know."""
        found = {
            "made_by": f"firstspike {__version__}",
            "target": self.convention.target,
            "time_unit": self.convention.time_unit,
        }
        if self.convention.dt is not None:
            found["dt"] = self.convention.dt
        if self.bias:
            found["bias_times"] = np.array(self.bias) * self.convention.time_unit
        return found

    def _add(self, name: str, node: Any, *before: str) -> str:
        """A new node behind others; returns its name, with a number where it is there already."""
        free, number = name, 2
        while free in self.nodes:
            free, number = f"{name}_{number}", number + 1
        self.nodes[free] = node
        self.edges += [(source, free) for source in before]
        return free

    def _lif(self, index: int, layer: LIFLinear | LIFConv2d, signal: list[_Channels]) -> list[_Channels]:
        number = sum(isinstance(node, nir.CubaLIF) for node in self.nodes.values())
        values = {name: _each(index, layer, name) for name in ("tau_mem", "tau_syn", "threshold")}
        fields, gain = self.convention.node(**values)
        weight = _numpy(layer.weight) if isinstance(layer, LIFLinear) else _written_out(index, layer)
        weight = weight * gain[:, None]
        delay = _delays(layer)
        into = []
        for part in signal:
            own = weight[:, part.place]
            end = "" if len(signal) == 1 or part is signal[0] else f"_{part.node}"
            name = f"fc_{number}{end}"
            if delay is None:
                joined = np.zeros((len(weight), part.size))
                np.add.at(joined.T, part.column, own.T)
                into.append(self._add(name, nir.Linear(weight=joined), part.node))
            else:
                into.append(self._unrolled(index, name, part, own, delay[:, part.place]))
        made = self._add(f"lif_{number}", nir.CubaLIF(**fields), *into)
        every = np.arange(layer.out_features)
        return [_Channels(made, layer.out_features, every, every)]

    def _unrolled(self, index: int, name: str, part: _Channels, weight: Matrix, delay: Matrix) -> str:
        """A copy of its input for every synapse, delayed by itself."""
        out, channels = weight.shape
        copies = out * channels
        if copies * max(part.size, out) > _LARGEST:
            raise ValueError(
                f"layer {index}: {copies} synaptic delays are too many for NIR, which needs matrices of "
                f"{copies}x{max(part.size, out)} for them; axonal or dendritic ones (Delay) need none"
            )
        copied = np.zeros((copies, part.size))
        copied[np.arange(copies), np.tile(part.column, out)] = 1.0
        summed = np.zeros((out, copies))
        summed[np.repeat(np.arange(out), channels), np.arange(copies)] = weight.ravel()
        copied_at = self._add(f"{name}_copies", nir.Linear(weight=copied), part.node)
        delayed_at = self._add(f"{name}_delays", nir.Delay(delay=delay.ravel() * self.convention.time_unit), copied_at)
        return self._add(name, nir.Linear(weight=summed), delayed_at)

    def _delay(self, layer: Delay, signal: list[_Channels]) -> list[_Channels]:
        delay = _numpy(layer.delay) * self.convention.time_unit
        if not delay.any():
            return signal
        found = []
        for part in signal:
            own = delay[part.place]
            full = np.zeros(part.size)
            full[part.column] = own
            node, column = part.node, part.column
            if not np.array_equal(full[column], own):  # copies with delays of their own
                copied = np.zeros((len(own), part.size))
                copied[np.arange(len(own)), column] = 1.0
                node = self._add("copies", nir.Linear(weight=copied), node)
                full, column = own, np.arange(len(own))
            found.append(_Channels(self._add("delay", nir.Delay(delay=full), node), len(full), column, part.place))
        return found


def _joined(signal: list[_Channels]) -> list[_Channels]:
    """Channels of one node in one part."""
    found: dict[str, _Channels] = {}
    for part in signal:
        if part.node in found:
            first = found[part.node]
            part = _Channels(
                part.node,
                part.size,
                np.concatenate([first.column, part.column]),
                np.concatenate([first.place, part.place]),
            )
        found[part.node] = part
    return list(found.values())


def _copied(part: _Channels, copies: int) -> _Channels:
    place = (part.place[:, None] * copies + np.arange(copies)).ravel()
    return _Channels(part.node, part.size, part.column.repeat(copies), place)


def _each(index: int, layer: LIFLinear | LIFConv2d, name: str) -> Float[np.ndarray, " neurons"]:
    """A parameter of each neuron."""
    value = getattr(layer.neuron, name)
    values = _numpy(value) if isinstance(value, Tensor) else np.array(value, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError(f"layer {index}: NIR has no neurons with synapses and without leak (tau_mem inf)")
    return np.repeat(np.atleast_1d(values), layer.out_features // values.size)


def _delays(layer: LIFLinear | LIFConv2d) -> Matrix | None:
    delay = getattr(layer, "delay", None)
    values = None if delay is None else _numpy(delay)
    return values if values is not None and values.any() else None


def _written_out(index: int, layer: LIFConv2d) -> Matrix:
    """Filters as a matrix of all pixels."""
    seen, made = layer.image, layer.out_image
    if seen.size * made.size > _LARGEST:
        raise ValueError(f"layer {index}: its filters written out are a matrix of {made.size}x{seen.size}, too large")
    pixels = layer.window.patches(torch.arange(seen.size, dtype=torch.float64), seen).numpy()
    positions, patch = np.nonzero(np.isfinite(pixels))
    found = np.zeros((layer.weight.shape[0], len(pixels), seen.size))
    found[:, positions, pixels[positions, patch].astype(int)] = _numpy(layer.synapses)[:, patch]
    return found.reshape(made.size, seen.size)


def _name(layer: object) -> str:
    return type(layer).__name__


def _numpy(values: Tensor) -> Float[np.ndarray, "..."]:
    found: Float[np.ndarray, ...] = values.detach().cpu().double().numpy()
    return found
