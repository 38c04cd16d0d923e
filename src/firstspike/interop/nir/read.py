"""A network from a graph of NIR."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from firstspike.interop.nir.conventions import Convention, Neurons
from firstspike.interop.nir.synapses import Synapses
from firstspike.layers import BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network
from firstspike.neuron import LIF

_FIELDS = ("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "w_in")

Signal = dict[str, Synapses]  # by the node whose spikes they carry


def network_of(
    graph: nir.NIRGraph, convention: Convention, bias: Sequence[float], dtype: torch.dtype | None
) -> Network:
    """See ``from_nir``."""
    return _Reader(graph, convention, bias, dtype).network()


class _Reader:
    def __init__(
        self, graph: nir.NIRGraph, convention: Convention, bias: Sequence[float], dtype: torch.dtype | None
    ) -> None:
        self.graph, self.convention, self.dtype = graph, convention, dtype or torch.get_default_dtype()
        self.bias = [float(time) for time in bias]
        graph.check_types()
        self.input, self.output = (self._only(kind) for kind in (nir.Input, nir.Output))
        size = np.asarray(graph.nodes[self.input].input_type["input"]).ravel()
        if len(size) != 1:
            raise ValueError(f"{self.input}: expected one dimension of inputs, got the shape {tuple(size.tolist())}")
        self.inputs = int(size[0]) - len(self.bias)
        if self.inputs < 1:
            raise ValueError(f"{len(self.bias)} bias times leave nothing of the {int(size[0])} inputs")

    def network(self) -> Network:
        signals: dict[str, Signal] = {}
        last = self.input
        layers: list[nn.Module] = []
        for name in self._in_order():
            node = self.graph.nodes[name]
            before = self._joined(name, signals)
            if isinstance(node, nir.CubaLIF):
                layers += self._lif(name, node, before, last)
                last, signals[name] = name, {name: Synapses.one_to_one(len(node.tau_mem))}
            elif name == self.input:
                signals[name] = {name: Synapses.one_to_one(self.inputs + len(self.bias))}
            elif name == self.output:
                layers += self._end(before, last)
            else:
                signals[name] = {source: _behind(name, node, part) for source, part in before.items()}
        return Network(*layers)

    def _only(self, kind: type) -> str:
        found = [name for name, node in self.graph.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise ValueError(f"expected a graph with one {kind.__name__}, got {len(found)}")
        return found[0]

    def _in_order(self) -> list[str]:
        """Every node behind those that lead to it."""
        waiting = {name: {a for a, b in self.graph.edges if b == name} for name in self.graph.nodes}
        order: list[str] = []
        while waiting:
            ready = [name for name, before in waiting.items() if before <= set(order)]
            if not ready:
                raise ValueError(f"the graph has a loop ({', '.join(sorted(waiting))}); a neuron spikes once here")
            order += ready
            for name in ready:
                del waiting[name]
        return order

    def _joined(self, name: str, signals: dict[str, Signal]) -> Signal:
        """All that arrives at a node."""
        found: Signal = {}
        for a, b in self.graph.edges:
            if b == name:
                for source, part in signals[a].items():
                    found[source] = found[source] + part if source in found else part
        return found

    def _lif(self, name: str, node: Any, before: Signal, last: str) -> list[nn.Module]:
        neurons = self._neurons(name, node)
        layers, synapses = self._inputs(name, before, last)
        out = len(neurons.threshold)
        synapses = replace(
            synapses,
            weight=synapses.weight * neurons.gain[synapses.row],
            delay=synapses.delay / self.convention.time_unit,
        )
        synaptic = None
        behind: list[nn.Module] = []
        if synapses.delay.any():
            if (axonal := synapses.by(synapses.column, synapses.inputs)) is not None:
                layers.append(self._delays(axonal))
            elif (dendritic := synapses.by(synapses.row, out)) is not None:
                behind.append(self._delays(dendritic))
            else:
                copies = int(synapses.rank().max()) + 1
                if copies > 1:
                    layers.append(Multiplex(copies))
                    column = synapses.column * copies + synapses.rank()
                    synapses = replace(synapses, inputs=synapses.inputs * copies, column=column)
                synaptic = np.zeros((out, synapses.inputs))
                synaptic[synapses.row, synapses.column] = synapses.delay
        layer = LIFLinear(
            synapses.inputs,
            out,
            LIF(*(self._shared(values) for values in (neurons.tau_mem, neurons.tau_syn, neurons.threshold))),
            delay=None if synaptic is None else DelayRule("clip", scale=math.inf, std=0.0),
            generator=torch.Generator(),
            dtype=self.dtype,
        )
        weight = np.zeros((out, synapses.inputs))
        weight[synapses.row, synapses.column] = synapses.weight
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            if layer.delay_raw is not None and synaptic is not None:
                layer.delay_raw.copy_(torch.from_numpy(synaptic))
        return [*layers, layer, *behind]

    def _inputs(self, name: str, before: Signal, last: str) -> tuple[list[nn.Module], Synapses]:
        """What comes from the layer before, and bias spikes behind it."""
        others = sorted(set(before) - {last, self.input})
        if others or last not in before:
            raise ValueError(
                f"{name} gets spikes of {' and '.join(sorted(before)) or 'nothing'}; the layers must be a row, "
                f"in which it follows {last}"
            )
        main, given = before[last], before.get(self.input)
        size = self.inputs if last == self.input else main.inputs
        if given is None:
            return [], main
        of_bias = given.column >= self.inputs
        if last != self.input and not of_bias.all():
            raise ValueError(f"{name} gets spikes of the input past {last}; that needs bias_times, when they come")
        used = np.unique(given.column[of_bias])
        if not len(used):
            return [], replace(main, inputs=size)
        place = np.where(of_bias, size + np.searchsorted(used, given.column), given.column)
        moved = replace(given, inputs=size + len(used), column=place)
        joined = moved if last == self.input else replace(main, inputs=size + len(used)) + moved
        return [BiasSpikes([self.bias[k - self.inputs] for k in used], dtype=self.dtype)], joined

    def _neurons(self, name: str, node: Any) -> Neurons:
        fields = {key: np.asarray(getattr(node, key), dtype=np.float64) for key in _FIELDS}
        shape = fields["tau_mem"].shape
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"{name}: expected parameters of the shape (neurons,), got {shape}")
        for key, values in fields.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: {key} has values that are not finite")
        for key in ("tau_mem", "tau_syn"):
            if not (fields[key] > 0).all():
                raise ValueError(f"{name}: {key} must be > 0, got {fields[key].min()}")
        neurons = self.convention.neurons(fields)
        if not (neurons.threshold > 0).all():
            raise ValueError(f"{name}: v_threshold must be above v_leak; these neurons would spike without input")
        return neurons

    def _end(self, before: Signal, last: str) -> list[nn.Module]:
        """Delays behind the last neurons; nothing else can be there."""
        synapses = before.get(last)
        if last == self.input or synapses is None or len(before) > 1:
            raise ValueError(f"{self.output} must follow the last neurons alone, got {' and '.join(sorted(before))}")
        straight = Synapses.one_to_one(synapses.inputs)
        if not all(np.array_equal(getattr(synapses, x), getattr(straight, x)) for x in ("row", "column", "weight")):
            raise ValueError(f"between {last} and {self.output} there are weights without neurons behind them")
        return [self._delays(synapses.delay / self.convention.time_unit)] if synapses.delay.any() else []

    def _delays(self, delay: np.ndarray) -> Delay:
        rule = DelayRule("clip", scale=math.inf, std=0.0)
        found = Delay(len(delay), rule, generator=torch.Generator(), dtype=self.dtype)
        with torch.no_grad():
            found.delay_raw.copy_(torch.from_numpy(delay))
        return found

    def _shared(self, values: np.ndarray) -> float | Tensor:
        """One number where all are the same."""
        return float(values[0]) if (values == values[0]).all() else torch.as_tensor(values, dtype=self.dtype)


def _behind(name: str, node: Any, before: Synapses) -> Synapses:
    """What is left of a signal behind a node without spikes of its own."""
    match node:
        case nir.Linear() | nir.Affine():
            weight = _finite(name, node.weight)
            if weight.ndim != 2:
                raise ValueError(f"{name}: expected a matrix of weights, got the shape {weight.shape}")
            if isinstance(node, nir.Affine) and np.any(node.bias):
                raise ValueError(f"{name}: an Affine with a bias is a constant current, which has no counterpart here")
            return before.through(weight)
        case nir.Scale():
            return replace(before, weight=before.weight * _finite(name, node.scale)[before.row])
        case nir.Delay():
            delay = _finite(name, node.delay)
            if (delay < 0).any():
                raise ValueError(f"{name}: delays must be >= 0, got {delay.min()}")
            return before.later(delay)
    raise ValueError(f"{name}: a {type(node).__name__} has no counterpart here")


def _finite(name: str, values: Any) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: has values that are not finite")
    return found
