"""A network as a NIR graph."""

from functools import partial
from typing import Any

import nir
import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from firstspike import layers
from firstspike._version import __version__
from firstspike.interop.nir.conventions import SPARSE, Convention
from firstspike.interop.nir.synapses import Matrix
from firstspike.layers import Network, SpikingLayer
from firstspike.layers.named import to_numpy
from firstspike.layers.neurons import NeuronLayer
from firstspike.layers.trains import form_of

_LARGEST = 50_000_000  # numbers in a matrix, 0.4 GB. Only expanded synaptic delays and filters come near


class Writer:
    """Builds the graph layer by layer.

    The signal between two layers has channels: each is output ``column`` of the node ``source``. ``entered`` keeps
    those before each layer, for connections past layers.
    """

    def __init__(self, network: Network, convention: Convention, keep_refractory: bool = False) -> None:
        if not isinstance(network, Network):
            name = network._get_name() if isinstance(network, nn.Module) else type(network).__name__
            raise ValueError(f"expected a Network, got a {name}")
        if network.inputs is None or not any(isinstance(layer, SpikingLayer) for layer in network):
            raise ValueError("the network has no LIF layer: nothing for NIR")
        self.network, self.convention, self.inputs = network, convention, network.inputs
        self.bias = [float(t) for layer in network if isinstance(layer, layers.BiasSpikes) for t in layer.times]
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.sizes: dict[str, int] = {}  # number of outputs of each node
        self.keep_refractory = keep_refractory
        self.lifs: list[SpikingLayer] = []
        self.readout: dict[str, Any] = {}
        self.source = np.full(self.inputs, "input", dtype=object)
        self.column = np.arange(self.inputs)
        self.biases = self.inputs  # the channel of the next bias spike
        self.entered: list[tuple[np.ndarray, np.ndarray]] = []

    def graph(self) -> nir.NIRGraph:
        """The graph of the whole network."""
        size = self.inputs + len(self.bias)
        self._add("input", nir.Input(input_type={"input": np.array([size])}), size)
        last = max(index for index, layer in enumerate(self.network) if isinstance(layer, SpikingLayer))
        for index, layer in enumerate(self.network):
            self.entered.append((self.source, self.column))
            try:
                if index > last and isinstance(layer, layers.BiasSpikes | layers.Multiplex | layers.Concatenate):
                    raise ValueError(f"after the last LIF layer NIR has delays only, no {layer._get_name()}")
                self._layer(layer)
            except ValueError as error:
                raise ValueError(f"layer {index}: {error}") from None
        (end,) = set(self.source)
        self._add("output", nir.Output(output_type={"output": np.array([self.sizes[end]])}), self.sizes[end], end)
        unit, step = self.convention.time_unit, self.convention.step
        metadata = {"made_by": f"firstspike {__version__}", "target": self.convention.target, "time_unit": unit}
        metadata |= {} if step is None else {"dt": step}
        metadata |= {"bias_times": np.array(self.bias) * unit} if self.bias else {}
        for name in ("max_spikes", "refractory", "duration", "window_spikes"):  # of every layer, 0 if it has none
            each = (_refractory(x) if name == "refractory" else getattr(x, name, None) for x in self.lifs)
            values = np.array([x or 0 for x in each])
            if values.any():
                metadata[name] = values * unit if name in ("refractory", "duration") else values
        sparse = np.array([sum(bit for name, bit in SPARSE.items() if name in x.sparse) for x in self.lifs])
        metadata |= {"sparse": sparse} if sparse.any() else {}
        words = [getattr(lif, "overflow", "error") for lif in self.lifs]
        metadata |= {} if set(words) == {"error"} else {"overflow": " ".join(words)}
        metadata |= self.readout
        if approximations := self._approximations():
            metadata["approximate"] = "; ".join(approximations)
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=metadata)

    def _layer(self, layer: nn.Module) -> None:
        match layer:
            case layers.SpikingLinear() | layers.SpikingConv2d() | layers.SpikeTrains():
                self._lif(layer)
            case layers.Readout():
                self._readout(layer)
            case layers.Delay():
                self.source, self.column = self._delayed(layer, self.source, self.column)
            case layers.SpikeDropout():
                pass  # in training only
            case layers.BiasSpikes():
                count = len(layer.times)
                self.source = np.append(self.source, np.full(count, "input", dtype=object))
                self.column = np.append(self.column, self.biases + np.arange(count))
                self.biases += count
            case layers.Multiplex():
                self.source, self.column = self.source.repeat(layer.copies), self.column.repeat(layer.copies)
            case layers.Concatenate() if layer.reduce is None:
                past = self.entered[-1 - layer.over]
                ends = (self.source, self.column), past if layer.delays is None else self._delayed(layer.delays, *past)
                self.source, self.column = (np.concatenate(x) for x in zip(*ends, strict=True))
            case _:
                raise ValueError(f"NIR cannot represent {layer._get_name()}")

    def _approximations(self) -> list[str]:
        """Differences between a reader and the network, in words; none if the graph is faithful."""
        target, step, found = self.convention.target, self.convention.step, []
        if step is not None:
            found.append(f"{target} moves spikes to a grid of {step:g}")
        if target != "nir" and not all(form_of(lif) == "trains" for lif in self.lifs):
            how = "ignores v_reset" if target == "norse" else "resets to 0"
            found.append(f"{target} {how}, so that neurons may spike again after their first spike")
        if target != "nir" and any(isinstance(node, nir.Delay) for node in self.nodes.values()):
            found.append(f"{target} has no counterpart of delays")
        trains: list[Any] = [lif for lif in self.lifs if form_of(lif) == "trains"]
        if trains:
            most = min(lif.max_spikes for lif in trains)
            found.append(f"readers ignore max_spikes: neurons may spike more than {most} times")
        if any(map(_refractory, trains)):
            found.append("readers ignore refractory times")
        if self.readout:
            found.append(f"readers return the membrane, of which the network takes the {self.readout['readout']}")
        return found

    def _add(self, name: str, node: Any, size: int, *before: str) -> str:
        """A new node after others. Returns its name, numbered if that exists already."""
        free, number = name, 2
        while free in self.nodes:
            free, number = f"{name}_{number}", number + 1
        self.nodes[free], self.sizes[free] = node, size
        self.edges += [(source, free) for source in before]
        return free

    def _linear(self, name: str, weight: Matrix, before: str) -> str:
        return self._add(name, nir.Linear(weight=weight), len(weight), before)

    def _lif(self, layer: layers.SpikingLinear | layers.SpikingConv2d | layers.SpikeTrains) -> None:
        mem, syn, threshold = (_per_neuron(layer, name) for name in ("tau_mem", "tau_syn", "threshold"))
        reset = None
        self.lifs.append(layer)
        if form_of(layer) == "trains":
            reset = _per_neuron(layer, "reset")
            if _refractory(layer) and not self.keep_refractory:
                raise ValueError(
                    f"NIR's CubaLIF has no refractory time, the layer has {_refractory(layer)}; with "
                    "keep_refractory it is in the metadata, which only from_nir reads"
                )
            if self.convention.target == "snntorch" and reset.any():
                raise ValueError(f"snnTorch always resets to 0, the layer to {layer.neuron.reset}")
        fields, gain = self.convention.node(mem, syn, threshold, reset)
        self._neurons(layer, "lif", nir.CubaLIF(**fields), gain)
        if isinstance(layer, layers.SpikingRecurrent):
            self._recurrent(layer, gain)

    def _recurrent(self, layer: layers.SpikingRecurrent, gain: Float[np.ndarray, " neurons"]) -> None:
        """A loop from the neurons of the layer that was just made to themselves: their delays, then weights."""
        if (target := self.convention.target) != "nir":
            hint = "write the target nir, for a reader that supports them"
            raise ValueError(f"{target} reads no delays, which loops have; {hint}")
        (lif,) = set(self.source)
        name, size = lif.replace("lif", "recurrent"), layer.out_features
        weight, delay = to_numpy(layer.recurrent_synapses) * gain[:, None], np.full((size, size), layer.window)
        if layer.recurrent_delays is not None:
            delay = to_numpy(layer.own_delay)
            last = self._synaptic(name, lif, np.arange(size), weight, delay * self.convention.time_unit)
        else:
            delayed = self._add(f"{name}_delay", nir.Delay(delay=delay[0] * self.convention.time_unit), size, lif)
            last = self._linear(name, weight, delayed)
        self.edges.append((last, lif))

    def _readout(self, layer: layers.Readout) -> None:
        mem, syn = (_per_neuron(layer, name) for name in ("tau_mem", "tau_syn"))
        fields, gain = self.convention.node(mem, syn, np.ones(layer.out_features))
        node = nir.CubaLI(**{name: x for name, x in fields.items() if name not in ("v_threshold", "v_reset")})
        self._neurons(layer, "readout", node, gain)
        kind = next((kind for kind, target in layers.LAYERS.items() if target is type(layer)), None)
        if kind is None:
            raise ValueError(f"NIR cannot represent {layer._get_name()}")
        unit, times = self.convention.time_unit, [name for name in ("tau", "time") if hasattr(layer, name)]
        self.readout = {"readout": kind} | {f"readout_{name}": getattr(layer, name) * unit for name in times}

    def _neurons(self, layer: NeuronLayer, kind: str, neurons: Any, gain: Float[np.ndarray, " neurons"]) -> None:
        """Weights and delays of a layer, and its neurons after them."""
        number = len(self.lifs) - (kind == "lif")
        matrix = partial(_expanded, layer) if isinstance(layer, layers.SpikingConv2d) else to_numpy
        weight, delay = matrix(layer.synapses) * gain[:, None], getattr(layer, "delay", None)
        delays = None if delay is None or not delay.any() else matrix(delay)
        before: list[str] = []
        for node, place in _parts(self.source):
            name = f"fc_{number}_{node}" if before else f"fc_{number}"
            if delays is None:
                joined = np.zeros((len(weight), self.sizes[node]))
                np.add.at(joined.T, self.column[place], weight[:, place].T)
                before.append(self._linear(name, joined, node))
            else:
                own = weight[:, place], delays[:, place] * self.convention.time_unit
                before.append(self._synaptic(name, node, self.column[place], *own))
        size = layer.out_features
        made = self._add(f"{kind}_{number}", neurons, size, *before)
        self.source, self.column = np.full(size, made, dtype=object), np.arange(size)

    def _synaptic(self, name: str, node: str, column: np.ndarray, weight: Matrix, delay: Matrix) -> str:
        """A copy of its input for every synapse, with a separate delay."""
        out, channels = weight.shape
        copies = out * channels
        if copies * max(self.sizes[node], out) > _LARGEST:
            needs = f"which needs matrices of {copies}x{max(self.sizes[node], out)} for them"
            hint = "axonal or dendritic ones (Delay) need none"
            raise ValueError(f"{copies} synaptic delays are too many for NIR, {needs}; {hint}")
        copied = self._linear(f"{name}_copies", np.eye(self.sizes[node])[np.tile(column, out)], node)
        delayed = self._add(f"{name}_delays", nir.Delay(delay=delay.ravel()), copies, copied)
        summed = np.zeros((out, copies))
        summed[np.repeat(np.arange(out), channels), np.arange(copies)] = weight.ravel()
        return self._linear(name, summed, delayed)

    def _delayed(self, layer: layers.Delay, source: np.ndarray, channel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channels after delays."""
        delay = to_numpy(layer.delay) * self.convention.time_unit
        if not delay.any():
            return source, channel
        source, channel = source.copy(), channel.copy()
        for node, place in _parts(source):
            column, own, before = channel[place], delay[place], node
            full = np.zeros(self.sizes[node])
            full[column] = own
            if not np.array_equal(full[column], own):  # copies with separate delays
                before = self._linear("copies", np.eye(self.sizes[node])[column], node)
                full, column = own, np.arange(len(own))
            source[place] = self._add("delay", nir.Delay(delay=full), len(full), before)
            channel[place] = column
        return source, channel


def _parts(source: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The nodes of a signal, and its channels from each."""
    return [(node, np.flatnonzero(source == node)) for node in dict.fromkeys(source)]


def _refractory(layer: NeuronLayer) -> float:
    """The refractory time of a layer, 0 of neurons that spike once."""
    times = _per_neuron(layer, "refractory") if form_of(layer) == "trains" else np.zeros(1)
    if (times != times[0]).any():
        raise ValueError("the metadata have one refractory time for all neurons of a layer, this one has several")
    return float(times[0])


def _per_neuron(layer: NeuronLayer, name: str) -> Float[np.ndarray, " neurons"]:
    for words in layer.unusual.values():
        raise ValueError(f"NIR has no neurons {words}")
    value = getattr(layer.neuron, name)
    values = to_numpy(value) if isinstance(value, Tensor) else np.array(value, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError("NIR has no neurons with synapses and without leak (tau_mem inf)")
    return np.repeat(np.atleast_1d(values), layer.out_features // values.size)


def _expanded(layer: layers.SpikingConv2d, values: Tensor) -> Matrix:
    """Values of filters as a matrix over all pixels."""
    seen, made = layer.image, layer.out_image
    if seen.size * made.size > _LARGEST:
        raise ValueError(f"its filters as a matrix of {made.size}x{seen.size} are too large")
    places, weight = layer.window.places(seen), values.detach().cpu().double().unsqueeze(1)
    shape = len(weight), *places.shape
    found = weight.new_zeros(*shape[:2], seen.size + 1).scatter_(-1, places.expand(shape), weight.expand(shape))
    return to_numpy(found[..., :-1].flatten(0, 1))  # without the border
