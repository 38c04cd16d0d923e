"""A network from a NIR graph."""

import math
from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

import nir
import numpy as np
import torch
from torch import Tensor, nn

from firstspike.config.network import too_many_spikes
from firstspike.interop.nir.conventions import Convention, Neurons
from firstspike.interop.nir.edges import edges_of
from firstspike.interop.nir.synapses import Synapses
from firstspike.layers import (
    LAYERS,
    BiasSpikes,
    Concatenate,
    Delay,
    DelayRule,
    LIFLinear,
    LIFRecurrent,
    LIFSpikeTrains,
    Multiplex,
    Network,
    Readout,
)
from firstspike.layers.trains import form_of
from firstspike.neuron import LIF

_FIELDS = ("tau_mem", "tau_syn", "r", "v_leak", "w_in")
_DELAYS = DelayRule("clip", scale=math.inf, std=0.0)
_BIAS = "bias spikes"

Signal = dict[str, Synapses]
"""The connections of a node by the node whose spikes they carry; those of bias spikes, which the input has last, by
``_BIAS``."""


class _Trains(NamedTuple):
    """Properties of a layer that NIR does not express; 0 if they do not apply."""

    max_spikes: int
    refractory: float
    duration: float
    window_spikes: int


def _together(signals: dict[str, Signal], sources: list[str]) -> Signal:
    """The signals of several nodes, added."""
    found: Signal = {}
    for source in sources:
        for origin, part in signals[source].items():
            found[origin] = found[origin] + part if origin in found else part
    return found


class Reader:
    """Composes all nodes between two layers of neurons.

    ``bias_times`` are those of the input's last channels, ``of_layers`` has the fields of ``_Trains``, one number for
    all layers or one for each.
    """

    def __init__(
        self,
        graph: nir.NIRGraph,
        convention: Convention,
        dtype: torch.dtype | None,
        bias_times: Sequence[float],
        **of_layers: float | Sequence[float],
    ) -> None:
        self.graph, self.convention, self.dtype = graph, convention, dtype or torch.get_default_dtype()
        self.bias = [float(time) for time in bias_times]
        self.count = sum(isinstance(node, nir.CubaLIF) for node in graph.nodes.values())
        each = zip(*(self._each(name, of_layers[name]) for name in _Trains._fields), strict=True)
        self.trains = [_Trains(int(spikes), rest, end, int(budget)) for spikes, rest, end, budget in each]
        graph.check_types()
        self.input, self.output = (self._only(kind) for kind in (nir.Input, nir.Output))
        size = np.asarray(graph.nodes[self.input].input_type["input"]).ravel().tolist()
        if len(size) != 1:
            raise ValueError(f"{self.input}: expected one dimension of inputs, got the shape {tuple(size)}")
        self.inputs = int(size[0]) - len(self.bias)
        if self.inputs < 1:
            raise ValueError(f"{len(self.bias)} bias times leave nothing of the {int(size[0])} inputs")

    def _each(self, name: str, given: float | Sequence[float]) -> list[float]:
        """A number for every layer of neurons, 0 if none is given."""
        found = [given] * self.count if isinstance(given, int | float) else list(given) or [0] * self.count
        if len(found) != self.count or not all(0 <= x < math.inf for x in found):
            raise ValueError(f"{name}: expected a number >= 0 for each of {self.count} CubaLIF, got {found}")
        return found

    def network(self) -> Network:
        """See ``from_nir``."""
        signals: dict[str, Signal] = {}
        arriving: dict[str, Signal] = {}
        leading, back = edges_of(self.graph)
        order = list(TopologicalSorter(leading).static_order())
        for name in order:
            node = self.graph.nodes[name]
            arriving[name] = before = _together(signals, leading[name])
            if isinstance(node, nir.CubaLIF | nir.CubaLI):
                signals[name] = {name: Synapses.one_to_one(len(node.tau_mem))}
            elif name == self.input:
                signals[name] = {name: Synapses.one_to_one(self.inputs)}
                if self.bias:
                    signals[name][_BIAS] = Synapses.one_to_one(len(self.bias), first=self.inputs)
            elif name != self.output:
                signals[name] = {origin: _after(name, node, part) for origin, part in before.items()}
        last, layers = self.input, list[nn.Module]()
        self.places = {self.input: 0}  # number of layers before the spikes of a node
        for name in order:
            node, before = self.graph.nodes[name], arriving[name]
            if isinstance(node, nir.CubaLIF):
                loop = self._loop(name, _together(signals, back[name]))
                layers += self._lif(name, node, before, last, len(layers), loop)
            elif isinstance(node, nir.CubaLI):
                layers += self._readout(name, node, before, last, len(layers))
            elif name == self.output:
                layers += self._end(before, last, trains=bool(layers) and form_of(layers[-1]) == "trains")
            if isinstance(node, nir.CubaLIF | nir.CubaLI):
                self.places[name], last = len(layers), name
        return Network(*layers)

    def _loop(self, name: str, arriving: Signal) -> Synapses | None:
        """The connections of neurons to themselves."""
        if not arriving:
            return None
        if arriving.keys() != {name}:
            raise ValueError(f"{name}: its loop carries spikes of {' and '.join(sorted(arriving))}")
        loop = replace(arriving[name], delay=arriving[name].delay / self.convention.time_unit)
        if not len(loop.row):
            return None
        if not (loop.delay > 0).all():
            raise ValueError(
                f"{name}: the neurons are connected to themselves without a delay; here every such one has one"
            )
        return loop

    def _only(self, kind: type) -> str:
        found = [name for name, node in self.graph.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise ValueError(f"expected a graph with one {kind.__name__}, got {len(found)}")
        return found[0]

    def _lif(
        self, name: str, node: Any, before: Signal, last: str, place: int, loop: Synapses | None
    ) -> list[nn.Module]:
        neurons = self._neurons(name, node)
        layers, synapses = self._inputs(name, before, last, place)
        out, rule = len(neurons.threshold), None
        synapses = replace(synapses, delay=synapses.delay / self.convention.time_unit)
        after: list[nn.Module] = []
        trains = self.trains.pop(0)
        for spikes in (trains.max_spikes, trains.window_spikes):
            if (problem := too_many_spikes(out, spikes)) is not None:
                raise ValueError(f"{name}: {problem}")
        if loop is not None and not (trains.max_spikes and trains.duration):
            raise ValueError(
                f"{name}: the neurons are connected to each other; give max_spikes and duration, when they stop"
            )
        if synapses.delay.any():
            if trains.max_spikes:
                synapses, rule = self._alone(name, synapses), _DELAYS
            elif (axonal := synapses.common_delay(synapses.column, synapses.inputs)) is not None:
                layers.append(self._delays(axonal))
            elif (dendritic := synapses.common_delay(synapses.row, out)) is not None:
                after.append(self._delays(dendritic))
            else:
                rule = _DELAYS
                synapses, copies = synapses.apart()
                layers += [Multiplex(copies)] if copies > 1 else []
        parameters = LIF(*(self._shared(values) for values in (neurons.tau_mem, neurons.tau_syn, neurons.threshold)))
        make: dict[str, Any] = {"delay": rule, "generator": torch.Generator(), "dtype": self.dtype}
        layer: LIFLinear | LIFSpikeTrains
        if trains.max_spikes:
            make |= {"reset": self._reset(name, node, neurons), "refractory": trains.refractory}
            if loop is None:
                layer = LIFSpikeTrains(synapses.inputs, out, trains.max_spikes, parameters, **make)
            else:
                layer = self._recurrent((synapses.inputs, out), parameters, make, trains, self._alone(name, loop))
                _fill(layer.recurrent_weight, loop, loop.weight * neurons.gain[loop.row])
        else:
            layer = LIFLinear(synapses.inputs, out, parameters, **make)
        _fill(layer.weight, synapses, synapses.weight * neurons.gain[synapses.row])
        if layer.delay_raw is not None:
            _fill(layer.delay_raw, synapses, synapses.delay)
        return [*layers, layer, *after]

    def _recurrent(
        self, size: tuple[int, int], parameters: LIF, make: dict[str, Any], trains: _Trains, loop: Synapses
    ) -> LIFRecurrent:
        """A layer with a loop, whose shortest delay is the window; without the weights of the loop."""
        window = float(loop.delay.min())
        more = np.where(np.isclose(loop.delay, window, rtol=1e-9, atol=0), 0.0, loop.delay - window)
        rule = DelayRule("clip", scale=float(more.max()), std=0.0) if more.any() else None
        budget = trains.window_spikes or trains.max_spikes
        layer = LIFRecurrent(
            *size, trains.max_spikes, trains.duration, parameters, window=window, window_spikes=budget,
            recurrent_delay=rule, **make,
        )  # fmt: skip
        if layer.recurrent_delays is not None:
            _fill(layer.recurrent_delays.delay_raw, loop, more)
        return layer

    def _reset(self, name: str, node: Any, neurons: Neurons) -> float:
        """Membrane after a spike, which all neurons of a layer share."""
        v_reset, v_leak, v_threshold = (
            np.asarray(getattr(node, key), dtype=np.float64) for key in ("v_reset", "v_leak", "v_threshold")
        )
        reset = (v_reset - v_leak) / (v_threshold - v_leak) * neurons.threshold
        if not np.allclose(reset, reset[0], rtol=1e-6, atol=1e-12):
            raise ValueError(f"{name}: neurons that spike several times must have the same v_reset, got {v_reset}")
        return float(reset[0])

    def _alone(self, name: str, synapses: Synapses) -> Synapses:
        """Synapses with separate delays; layers of spike trains have no copies of inputs before them."""
        apart, copies = synapses.apart()
        if copies > 1:
            raise ValueError(
                f"{name}: two neurons are connected by several synapses with other delays; trains have one"
            )
        return apart

    def _readout(self, name: str, node: Any, before: Signal, last: str, place: int) -> list[nn.Module]:
        """A readout; how its membrane is read is in the metadata alone."""
        found, unit = self.graph.metadata, self.convention.time_unit
        target = LAYERS.get(str(found.get("readout")))
        if target is None or not issubclass(target, Readout):
            raise ValueError(f"{name} is a readout (CubaLI), and the metadata do not define how its membrane is read")
        neurons = self._neurons(name, node)
        layers, synapses = self._inputs(name, before, last, place)
        if synapses.delay.any():
            raise ValueError(f"{name} is a readout with delays, which has no counterpart here")
        options = {x: float(found[f"readout_{x}"]) / unit for x in ("tau", "time") if f"readout_{x}" in found}
        parameters = LIF(self._shared(neurons.tau_mem), self._shared(neurons.tau_syn))
        make: Any = target
        layer = make(synapses.inputs, len(neurons.tau_mem), parameters, **options, dtype=self.dtype)
        _fill(layer.weight, synapses, synapses.weight * neurons.gain[synapses.row])
        return [*layers, layer]

    def _inputs(self, name: str, before: Signal, last: str, place: int) -> tuple[list[nn.Module], Synapses]:
        """What comes from the layer before, from earlier ones past it, and bias spikes."""
        if last not in before:
            origins = " and ".join(sorted(before)) or "nothing"
            raise ValueError(f"{name} gets spikes of {origins}; the layers must be a row, in which it follows {last}")
        joined, layers = before[last], list[nn.Module]()
        for origin in sorted(before.keys() - {last, _BIAS}, key=self.places.__getitem__):
            part = before[origin]
            if len(part.row):
                over = place + len(layers) - self.places[origin]
                layers.append(Concatenate(joined.inputs, over, skipped=part.inputs, delay=0.0))
                joined = _beside(joined, part)
        if _BIAS not in before or not len(before[_BIAS].row):
            return layers, joined
        used, column = np.unique(before[_BIAS].column, return_inverse=True)
        layers.append(BiasSpikes([self.bias[k] for k in used], dtype=self.dtype))
        return layers, _beside(joined, replace(before[_BIAS], inputs=len(used), column=column))

    def _neurons(self, name: str, node: Any) -> Neurons:
        fields = {key: np.asarray(getattr(node, key), dtype=np.float64) for key in _FIELDS}
        # a readout has no threshold: any value does
        threshold = node.v_threshold if isinstance(node, nir.CubaLIF) else fields["v_leak"] + 1.0
        fields["v_threshold"] = np.asarray(threshold, dtype=np.float64)
        shape = fields["tau_mem"].shape
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"{name}: expected parameters of the shape (neurons,), got {shape}")
        for key, values in fields.items():
            _finite(f"{name}: {key}", values)
            if key.startswith("tau") and not (values > 0).all():
                raise ValueError(f"{name}: {key} must be > 0, got {values.min()}")
        neurons = self.convention.neurons(fields)
        if not (neurons.threshold > 0).all():
            raise ValueError(f"{name}: v_threshold must be above v_leak; these neurons would spike without input")
        return neurons

    def _end(self, before: Signal, last: str, *, trains: bool) -> list[nn.Module]:
        """Delays after the last neurons; nothing else is allowed there."""
        synapses = before.get(last)
        if last == self.input or synapses is None or len(before) > 1:
            raise ValueError(f"{self.output} must follow the last neurons alone, got {' and '.join(sorted(before))}")
        straight = Synapses.one_to_one(synapses.inputs)
        if not all(np.array_equal(getattr(synapses, x), getattr(straight, x)) for x in ("row", "column", "weight")):
            raise ValueError(f"between {last} and {self.output} there are weights without neurons after them")
        return [self._delays(synapses.delay / self.convention.time_unit, trains)] if synapses.delay.any() else []

    def _delays(self, delay: np.ndarray, trains: bool = False) -> Delay:
        found = Delay(len(delay), _DELAYS, trains=trains, generator=torch.Generator(), dtype=self.dtype)
        with torch.no_grad():
            found.delay_raw.copy_(torch.from_numpy(delay))
        return found

    def _shared(self, values: np.ndarray) -> float | Tensor:
        """One number if all are the same."""
        return float(values[0]) if (values == values[0]).all() else torch.as_tensor(values, dtype=self.dtype)


@torch.no_grad()
def _fill(parameter: Tensor, synapses: Synapses, values: np.ndarray) -> None:
    """Write a value for each synapse into a matrix, 0 if there is none."""
    parameter.zero_()[synapses.row, synapses.column] = torch.from_numpy(values).to(parameter.dtype)


def _beside(first: Synapses, second: Synapses) -> Synapses:
    """Connections from the inputs of both, those of the second after those of the first."""
    inputs = first.inputs + second.inputs
    return replace(first, inputs=inputs) + replace(second, inputs=inputs, column=first.inputs + second.column)


def _after(name: str, node: Any, before: Synapses) -> Synapses:
    """A signal after a node that does not spike itself."""
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
            return before.delayed(delay)
    raise ValueError(f"{name}: a {type(node).__name__} has no counterpart here")


def _finite(name: str, values: Any) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} has values that are not finite")
    return found
