"""A network from a NIR graph."""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from firstspike import connect, layers
from firstspike.config.network import too_many_spikes
from firstspike.interop.nir.conventions import RESET, SPARSE, Convention, Values
from firstspike.interop.nir.synapses import Synapses, after, finite, numbers
from firstspike.layers import Network
from firstspike.layers.trains import form_of
from firstspike.neurons import LIF

_FIELDS = ("tau_mem", "tau_syn", "r", "v_leak", "w_in")
_DELAYS = layers.DelayRule("clip", scale=math.inf, std=0.0)
_BIAS = "bias spikes"

Signal = dict[str, Synapses]
"""The connections of a node by the node whose spikes they carry. Those of bias spikes, which the input has last, by
``_BIAS``."""


def _in_order(after: Mapping[str, Collection[str]]) -> list[str]:
    """Names, each after those that it comes after."""
    try:
        return list(TopologicalSorter(after).static_order())
    except CycleError as error:
        names = ", ".join(sorted(set(error.args[1])))
        raise ValueError(f"the graph has a loop ({names}) that is not one from neurons to themselves") from None


class Reader:
    """Composes all nodes between two layers of neurons.

    ``bias_times`` are those of the input's last channels. ``of_layers`` are properties of layers that NIR does not
    express, one number for all layers or one for each: ``max_spikes``, ``refractory``, ``duration``, ``window_spikes``
    and ``sparse``; and ``overflow``, a word for each.
    """

    def __init__(
        self,
        graph: nir.NIRGraph,
        convention: Convention,
        dtype: torch.dtype | None,
        bias_times: Sequence[float],
        **of_layers: float | Sequence[float | str],
    ) -> None:
        self.graph, self.convention, self.dtype = graph, convention, dtype or torch.get_default_dtype()
        self.bias = [float(time) for time in bias_times]
        count = sum(isinstance(node, nir.CubaLIF) for node in graph.nodes.values())
        self.trains: list[dict[str, Any]] = [{} for _ in range(count)]  # 0 where a property does not apply
        for name, given in of_layers.items():
            found = [given] * count if isinstance(given, int | float) else list(given) or [0] * count
            if len(found) != count or not all(isinstance(x, str) or 0 <= x < math.inf for x in found):
                wanted = "a word" if name == "overflow" else "a number >= 0"
                raise ValueError(f"{name}: expected {wanted} for each of {count} CubaLIF, got {found}")
            for trains, value in zip(self.trains, found, strict=True):
                trains[name] = value
        self.once = of_layers["max_spikes"] == []  # nobody says whether neurons spike once
        graph.check_types()
        self.input, self.output = (self._only(kind) for kind in (nir.Input, nir.Output))
        size = np.asarray(graph.nodes[self.input].input_type["input"]).ravel().tolist()
        if len(size) != 1:
            raise ValueError(f"{self.input}: expected one dimension of inputs, got the shape {tuple(size)}")
        self.inputs = int(size[0]) - len(self.bias)
        if self.inputs < 1:
            raise ValueError(f"{len(self.bias)} bias times leave nothing of the {int(size[0])} inputs")
        self.layers: list[nn.Module] = []
        self.last, self.places = self.input, {self.input: 0}  # number of layers before the spikes of a node

    def _only(self, kind: type) -> str:
        found = [name for name, node in self.graph.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise ValueError(f"expected a graph with one {kind.__name__}, got {len(found)}")
        return found[0]

    def network(self) -> Network:
        """The network of the whole graph."""
        nodes, sources = self.graph.nodes, dict[str, list[str]]()
        for source, name in self.graph.edges:
            sources.setdefault(name, []).append(source)
        neurons = [name for name, node in nodes.items() if isinstance(node, nir.CubaLIF | nir.CubaLI)]
        signals: dict[str, Signal] = {name: {name: Synapses.one_to_one(len(nodes[name].tau_mem))} for name in neurons}
        signals[self.input] = {self.input: Synapses.one_to_one(self.inputs)}
        if self.bias:
            signals[self.input][_BIAS] = Synapses.one_to_one(len(self.bias), first=self.inputs)

        def arriving(name: str) -> Signal:
            found: Signal = {}
            for source in sources.get(name, []):
                for origin, part in signals[source].items():
                    found[origin] = found[origin] + part if origin in found else part
            return found

        unit = self.convention.time_unit
        between = nodes.keys() - signals.keys() - {self.output}
        for name in _in_order({name: between.intersection(sources.get(name, [])) for name in between}):
            signals[name] = {origin: after(name, nodes[name], part, unit) for origin, part in arriving(name).items()}
        ends = {name: arriving(name) for name in (*neurons, self.output)}
        for name in _in_order({name: ends.keys() & before.keys() - {name} for name, before in ends.items()}):
            if name == self.output:
                self._end(ends[name])
            else:
                make = self._lif if isinstance(nodes[name], nir.CubaLIF) else self._readout
                make(name, nodes[name], ends[name])
                self.places[name], self.last = len(self.layers), name
        return Network(*self.layers)

    def _lif(self, name: str, node: Any, before: Signal) -> None:
        (neurons, gain), trains = self._neurons(name, node), self.trains.pop(0)
        loop, synapses = _loop(name, before.pop(name, None)), self._inputs(name, before)
        out, rule = len(gain), None
        last: list[nn.Module] = []
        for spikes in (trains["max_spikes"], trains["window_spikes"]):
            if (problem := too_many_spikes(out, spikes)) is not None:
                raise ValueError(f"{name}: {problem}")
        if loop is not None and not (trains["max_spikes"] and trains["duration"]):
            needs = "give max_spikes and duration, when they stop"
            raise ValueError(f"{name}: the neurons are connected to each other; {needs}")
        if synapses.delay.any():
            if trains["max_spikes"]:
                synapses, rule = _alone(name, synapses), _DELAYS
            elif (axonal := synapses.common_delay(synapses.column, synapses.inputs)) is not None:
                self.layers.append(self._delays(axonal))
            elif (dendritic := synapses.common_delay(synapses.row, out)) is not None:
                last.append(self._delays(dendritic))
            else:
                rule = _DELAYS
                synapses, copies = synapses.apart()
                self.layers += [layers.Multiplex(copies)] if copies > 1 else []
        parameters = LIF(*(self._shared(neurons[key]) for key in ("tau_mem", "tau_syn", "threshold")))
        make: dict[str, Any] = {"delay": rule, "generator": torch.Generator(), "dtype": self.dtype}
        size, synapses = (synapses.inputs, out), replace(synapses, weight=synapses.weight * gain[synapses.row])
        if sparse := trains["sparse"] & SPARSE["weight"]:
            make["synapses"] = _connected(synapses, out, self.dtype, delays=rule is not None)
        layer: layers.SpikingLinear | layers.SpikeTrains
        if not trains["max_spikes"]:
            layer = layers.SpikingLinear(*size, parameters, **make)
            if self.once and (neurons["reset"] > -RESET / 10 * neurons["threshold"]).any():
                again = f"{name} has a v_reset after which neurons may spike again; here they spike at most once"
                warnings.warn(f"{again}. For more give from_nir their max_spikes, or 0", stacklevel=5)
        else:
            reset = self._shared(neurons["reset"], rtol=1e-6, atol=1e-12)
            parameters = replace(parameters, reset=reset, refractory=trains["refractory"])
            make["overflow"] = trains["overflow"] or "error"
            if loop is None:
                layer = layers.SpikeTrains(*size, trains["max_spikes"], parameters, **make)
            else:
                loop = replace(loop, weight=loop.weight * gain[loop.row])
                layer = _recurrent(size, parameters, make, trains, loop)
        if not sparse:
            _fill(layer.weight, synapses, synapses.weight)
            if layer.delay_raw is not None:
                _fill(layer.delay_raw, synapses, synapses.delay)
        self.layers += [layer, *last]

    def _readout(self, name: str, node: Any, before: Signal) -> None:
        """A readout. How its membrane is read is in the metadata alone."""
        found, unit = self.graph.metadata, self.convention.time_unit
        target = layers.LAYERS.get(str(found.get("readout")))
        if target is None or not issubclass(target, layers.Readout):
            raise ValueError(f"{name} is a readout (CubaLI), and the metadata do not define how its membrane is read")
        (neurons, gain), synapses = self._neurons(name, node), self._inputs(name, before)
        if synapses.delay.any():
            axonal = synapses.common_delay(synapses.column, synapses.inputs)
            if axonal is None:
                raise ValueError(f"{name} is a readout whose synapses have delays, which has no counterpart here")
            self.layers.append(self._delays(axonal))
        options = {x: float(found[f"readout_{x}"]) / unit for x in ("tau", "time") if f"readout_{x}" in found}
        parameters = LIF(self._shared(neurons["tau_mem"]), self._shared(neurons["tau_syn"]))
        make: Any = target
        layer = make(synapses.inputs, len(gain), parameters, **options, dtype=self.dtype)
        _fill(layer.weight, synapses, synapses.weight * gain[synapses.row])
        self.layers.append(layer)

    def _inputs(self, name: str, before: Signal) -> Synapses:
        """Inputs from the layer before, from earlier layers that skip it, and from bias spikes."""
        if self.last not in before:
            origins = " and ".join(sorted(before)) or "nothing"
            row = f"the layers must be a row, in which it follows {self.last}"
            raise ValueError(f"{name} gets spikes of {origins}; {row}")
        if name in before:
            raise ValueError(f"{name} is a readout with a loop, which has no counterpart here")
        joined = before[self.last]
        for origin in sorted(before.keys() - {self.last, _BIAS}, key=self.places.__getitem__):
            part = before[origin]
            if len(part.row):
                past = len(self.layers) - self.places[origin]
                self.layers.append(layers.Concatenate(joined.inputs, past, skipped=part.inputs, delay=0.0))
                joined = _beside(joined, part)
        if _BIAS not in before or not len(before[_BIAS].row):
            return joined
        used, column = np.unique(before[_BIAS].column, return_inverse=True)
        self.layers.append(layers.BiasSpikes([self.bias[k] for k in used], dtype=self.dtype))
        return _beside(joined, replace(before[_BIAS], inputs=len(used), column=column))

    def _neurons(self, name: str, node: Any) -> tuple[dict[str, Values], Values]:
        """The checked result of ``Convention.neurons`` for a node."""
        given = {key: getattr(node, key) for key in _FIELDS}
        # a readout has no threshold and no reset: any values do
        given |= {"v_threshold": getattr(node, "v_threshold", np.asarray(node.v_leak) + 1.0)}
        fields = {key: finite(f"{name}: {key}", values) for key, values in given.items()}
        # neurons that spike once have any v_reset, of others their layer checks it
        fields["v_reset"] = numbers(f"{name}: v_reset", getattr(node, "v_reset", node.v_leak))
        shape = fields["tau_mem"].shape
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"{name}: expected parameters of the shape (neurons,), got {shape}")
        for key in ("tau_mem", "tau_syn"):
            if not (fields[key] > 0).all():
                raise ValueError(f"{name}: {key} must be > 0, got {fields[key].min()}")
        with np.errstate(all="ignore"):
            neurons, gain = self.convention.neurons(fields)
        for key in ("tau_mem", "tau_syn", "threshold"):
            finite(f"{name}: its {key} here", neurons[key], self.dtype)
        if not (neurons["threshold"] > 0).all():
            raise ValueError(f"{name}: v_threshold must be above v_leak; these neurons would spike without input")
        return neurons, gain

    def _end(self, before: Signal) -> None:
        """Delays after the last neurons. Nothing else is allowed there."""
        synapses = before.get(self.last)
        if self.last == self.input or synapses is None or len(before) > 1:
            raise ValueError(f"{self.output} must follow the last neurons alone, got {' and '.join(sorted(before))}")
        straight = Synapses.one_to_one(synapses.inputs)
        if not all(np.array_equal(getattr(synapses, x), getattr(straight, x)) for x in ("row", "column", "weight")):
            raise ValueError(f"between {self.last} and {self.output} there are weights without neurons after them")
        if synapses.delay.any():
            self.layers.append(self._delays(synapses.delay))

    def _delays(self, delay: np.ndarray) -> layers.Delay:
        """Delays of the outputs of the last layer."""
        trains = bool(self.layers) and form_of(self.layers[-1]) == "trains"
        found = layers.Delay(len(delay), _DELAYS, trains=trains, generator=torch.Generator(), dtype=self.dtype)
        with torch.no_grad():
            found.delay_raw.copy_(torch.from_numpy(delay))
        return found

    def _shared(self, values: np.ndarray, rtol: float = 0.0, atol: float = 0.0) -> float | Tensor:
        """One number if all are the same, up to rounding."""
        same = np.allclose(values, values[0], rtol, atol)
        return float(values[0]) if same else torch.as_tensor(values, dtype=self.dtype)


def _loop(name: str, found: Synapses | None) -> Synapses | None:
    """The connections of neurons to themselves."""
    if found is None or not len(found.row):
        return None
    if not (found.delay > 0).all():
        raise ValueError(
            f"{name}: the neurons are connected to themselves without a delay; here every such one has one"
        )
    return _alone(name, found)


def _recurrent(
    size: tuple[int, int], parameters: LIF, make: dict[str, Any], trains: dict[str, Any], loop: Synapses
) -> layers.SpikingRecurrent:
    """A layer with a loop, whose shortest delay is the window."""
    window = float(loop.delay.min())
    more = np.where(np.isclose(loop.delay, window, rtol=1e-9, atol=0), 0.0, loop.delay - window)
    make |= {"window": window, "window_spikes": trains["window_spikes"] or trains["max_spikes"]}
    make |= {"recurrent_delay": layers.DelayRule("clip", scale=float(more.max()), std=0.0) if more.any() else None}
    if trains["sparse"] & SPARSE["recurrent_weight"]:
        make["recurrent"] = _connected(replace(loop, delay=window + more), size[1], make["dtype"], delays=True)
    layer = layers.SpikingRecurrent(*size, trains["max_spikes"], trains["duration"], parameters, **make)
    if layer.recurrent is not None:
        return layer
    if layer.recurrent_delays is not None:
        _fill(layer.recurrent_delays.delay_raw, loop, more)
    _fill(layer.recurrent_weight, loop, loop.weight)
    return layer


def _alone(name: str, synapses: Synapses) -> Synapses:
    """Synapses with separate delays. Layers of spike trains have no copies of inputs before them."""
    apart, copies = synapses.apart()
    if copies > 1:
        raise ValueError(f"{name}: two neurons are connected by several synapses with other delays; trains have one")
    return apart


def _connected(synapses: Synapses, out: int, dtype: torch.dtype, delays: bool) -> connect.Synapses:
    """The same as sparse synapses of a layer."""
    source, target = torch.from_numpy(synapses.column), torch.from_numpy(synapses.row)
    weight, delay = (torch.from_numpy(finite("weights or delays", x, dtype)) for x in (synapses.weight, synapses.delay))
    return connect.Synapses(synapses.inputs, out, source, target, weight, delay if delays else None)


@torch.no_grad()
def _fill(parameter: Tensor, synapses: Synapses, values: np.ndarray) -> None:
    """Write a value for each synapse into a matrix, 0 if there is none."""
    values = finite("a matrix of weights or delays", values, parameter.dtype)
    parameter.zero_()[synapses.row, synapses.column] = torch.from_numpy(values).to(parameter.dtype)


def _beside(first: Synapses, second: Synapses) -> Synapses:
    """Connections from the inputs of both, those of the second after those of the first."""
    inputs = first.inputs + second.inputs
    return replace(first, inputs=inputs) + replace(second, inputs=inputs, column=first.inputs + second.column)
