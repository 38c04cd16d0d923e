"""Layers of neurons, readouts, and a network of several."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from networks import (
    FIXED,
    OUT_TRAINS,
    UNBOUNDED,
    VALUES,
    dense_state,
    fill_dense,
    layer_row,
    learnt_neuron,
    of_neuron,
    rule,
    sizes,
)
from problems import (
    DOUBLE,
    DURATION,
    LEVEL,
    POINT,
    SPIKES,
    TIMES,
    WEIGHT,
    Outputs,
    Problem,
    Quantity,
    Source,
)
from rows import NO_BUDGET, ONE_BACKEND, Row
from torch import Tensor, nn
from torch.func import functional_call

from firstspike import LIF, layers
from firstspike.connect import all_to_all
from firstspike.layers import DelayRule, LIFRecurrent, Network


def build_linear(values: Mapping[str, Any], backend: str) -> Network:
    bound = values.get("max_weight_grad")
    return Network(
        layers.LIFLinear(*sizes(values), delay=rule(values), max_weight_grad=bound, **of_neuron(values, backend))
    )


def fill_trains(source: Source, delays: bool) -> None:
    fill_dense(source, trains=True, delays=delays)
    source.add("refractory", Quantity(time=1), 0.2)
    if source.setting.constants == "each":
        neurons = source.setting.neurons
        source.add("reset", Quantity("o", weight=1), source.uniform(neurons, low=-0.3, high=0.3), learnt=True)
    else:
        source.add("reset", Quantity(weight=1), -0.2)
    source.add("max_spikes", Quantity(), 8)
    source.add("overflow", Quantity(), "drop")


def train_options(values: Mapping[str, Any], backend: str) -> dict[str, Any]:
    own = {"overflow": values["overflow"]}
    return own | {"delay": rule(values), "max_weight_grad": values.get("max_weight_grad")} | of_neuron(values, backend)


def build_trains(values: Mapping[str, Any], backend: str) -> Network:
    return Network(layers.LIFSpikeTrains(*sizes(values), values["max_spikes"], **train_options(values, backend)))


# Recurrent layers


def fill_recurrent(source: Source, delays: bool) -> None:
    size = source.setting
    fill_trains(source, delays)
    recurrent = source.weights(size.neurons, size.neurons, arrivals=size.neurons, charge=1.5, spread=1.5)
    source.add("recurrent_weight", Quantity("oj", weight=1), recurrent, learnt=True)
    if delays:
        further = source.uniform(size.neurons, size.neurons, low=0.05, high=0.9)
        source.add("recurrent_delay", Quantity("oj", time=1), further, learnt=True)
        source.add("longest", Quantity(time=1), 1.0)
    source.add("window", Quantity(time=1), 0.7)
    source.add("window_spikes", Quantity(), 6)
    source.add("until", POINT, 4.0)


def recurrent_layer(values: Mapping[str, Any], backend: str, sparse: bool = False) -> LIFRecurrent:
    inputs, neurons = sizes(values)
    synapses = {"synapses": all_to_all(inputs, neurons), "recurrent": all_to_all(neurons, neurons)} if sparse else {}
    further = DelayRule("clip", scale=values["longest"]) if "longest" in values else None
    return LIFRecurrent(
        inputs,
        neurons,
        values["max_spikes"],
        values["until"],
        window=values["window"],
        window_spikes=values["window_spikes"],
        recurrent_delay=further,
        recurrent_std=1.0,
        **synapses,
        **train_options(values, backend),
    )


def recurrent_state(values: Mapping[str, Any]) -> Outputs:
    delay = {"0.recurrent_delays.delay_raw": values["recurrent_delay"]} if "recurrent_delay" in values else {}
    return dense_state(values) | {"0.recurrent_weight": values["recurrent_weight"]} | delay


def sparse_state(values: Mapping[str, Any]) -> Outputs:
    """A value for each synapse, in order by source, then by target."""
    return {name: x.mT.flatten() if x.ndim == 2 else x for name, x in recurrent_state(values).items()}


class Proceeding(nn.Module):
    """``LIFRecurrent.proceed`` from piece to piece as a forward pass."""

    def __init__(self, layer: LIFRecurrent) -> None:
        super().__init__()
        self.add_module("0", layer)

    def forward(self, times: Tensor, ends: list[float]) -> Tensor:
        layer, state, found = self.get_submodule("0"), None, []
        for until in ends:
            trains, state = layer.proceed(times, until, state)
            found.append(trains)
        return torch.cat(found, dim=-1).sort(dim=-1).values


def in_pieces(problem: Problem, cuts: list[float], backend: str, sparse: bool = False) -> Outputs:
    values, most = problem.values, problem.values["max_spikes"]
    layer, state = Proceeding(recurrent_layer(values, backend, sparse)), sparse_state if sparse else recurrent_state
    trains = functional_call(layer, state(values), (values["times"], [*cuts, values["until"]]))
    return {"trains": nn.functional.pad(trains, (0, max(0, most - trains.shape[-1])), value=math.inf)[..., :most]}


def fill_conv(source: Source) -> None:
    size = source.setting
    channels, filters = min(size.inputs, 4), size.neurons
    times = source.times(size.samples, channels, 4, 3)
    source.add("times", Quantity("bixy", time=1, point=True), times, learnt=True)
    weight = source.weights(filters, channels, 2, 2, arrivals=4 * channels)
    source.add("weight", Quantity("oixy", weight=1), weight, learnt=True)
    source.neuron(filters)


def build_conv(values: Mapping[str, Any], backend: str) -> Network:
    filters = len(values["weight"])
    image = tuple(values["times"].shape[-3:])
    return Network(layers.LIFConv2d(image, filters, 2, padding=(1, 0), stride=(2, 1), **of_neuron(values, backend)))


def fill_conv_trains(source: Source, sides: int, delays: bool) -> None:
    size = source.setting
    channels, filters, axes = min(size.inputs, 4), size.neurons, "xy"[:sides]
    times = source.trains(size.samples, channels, *(4, 3)[:sides], size.spikes)
    source.add("times", Quantity(f"bi{axes}k", time=1, point=True), times, learnt=True)
    kernel = (filters, channels, *(2, 2)[:sides])
    weight = source.weights(*kernel, arrivals=2**sides * channels * size.spikes)
    source.add("weight", Quantity(f"oi{axes}", weight=1), weight, learnt=True)
    if delays:
        delay = source.uniform(*kernel, low=0.05, high=1.5)
        source.add("delay", Quantity(f"oi{axes}", time=1), delay, learnt=True)
    source.add("refractory", Quantity(time=1), 0.2)
    source.add("max_spikes", Quantity(), 8)
    source.add("overflow", Quantity(), "drop")
    source.neuron(filters)


def build_conv_trains(values: Mapping[str, Any], backend: str) -> Network:
    sides, filters, most = values["weight"].ndim - 2, len(values["weight"]), values["max_spikes"]
    image, options = tuple(values["times"].shape[1 : 2 + sides]), train_options(values, backend)
    if sides == 1:
        return Network(layers.LIFConv1d(image, filters, 2, padding=1, dilation=2, max_spikes=most, **options))
    return Network(layers.LIFConv2d(image, filters, 2, padding=(1, 0), stride=(2, 1), max_spikes=most, **options))


def conv_row(name: str, covers: tuple[str, ...], sides: int, delays: bool, **others: Any) -> Row:
    return layer_row(name, covers, partial(fill_conv_trains, sides=sides, delays=delays), build_conv_trains,
        dense_state, Quantity("bops", time=1, point=True), result="trains", observed="trains",
        places=lambda x, values: x.unflatten(-2, (len(values["weight"]), -1)), **others)  # fmt: skip


# Readouts


def build_readout(kind: type[layers.Readout], name: str, values: Mapping[str, Any], _: str) -> Network:
    own = {name: values[name]} if name else {}
    options = of_neuron(values, backend=None)
    if kind is layers.MaximumReadout:
        for key in ("trainable", "per_neuron"):
            del options[key]
        options |= {"neuron": LIF(values["tau_mem"], values["tau_syn"]), "negative_slope": 0.3}
    return Network(kind(*sizes(values), **own, **options))


def fill_readout(name: str, quantity: Quantity, value: float, source: Source) -> None:
    fill_dense(source, trains=True, threshold=False)
    source.add(name, quantity, value)


def fill_maximum(source: Source) -> None:
    size = source.setting
    source.setting = size._replace(constants="numbers")
    fill_dense(source, trains=True, threshold=False)


READS = {"overflow": NO_BUDGET, "backends": ONE_BACKEND, "observed": "replaces the values, which are no times"}
READING = {"backends": ("cpu",), "result": "values"}
ONCE = {"overflow": "each neuron spikes once at most"}
FROM_ZERO = (0.3, 2.0, 64.0, 1000.0, -0.7)  # a recurrent layer begins at 0 and ends after it
COUPLED = {"neuron alone": "neurons depend on one another"}


# Several layers


def fill_network(source: Source) -> None:
    size = source.setting
    source.add("times", TIMES, source.times(size.samples, size.inputs), learnt=True)
    source.add("before", Quantity("i", time=1), source.uniform(size.inputs, low=0.05), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=size.inputs), learnt=True)
    out = source.weights(2, size.neurons, arrivals=size.neurons, charge=6.0)
    source.add("out_weight", Quantity("cj", weight=1), out, learnt=True)
    source.neuron(size.neurons)
    for name, quantity, value in (("out_tau", DURATION, 0.9), ("out_threshold", LEVEL, 0.8), ("rest", DURATION, 0.2)):
        source.add(name, quantity, value)


def build_network(values: Mapping[str, Any], backend: str) -> Network:
    inputs, hidden = sizes(values)
    out = LIF(values["out_tau"], values["out_tau"], values["out_threshold"])
    bound = values.get("max_weight_grad")
    return Network(
        layers.Delay(inputs, UNBOUNDED, **DOUBLE),
        layers.LIFLinear(inputs, hidden, max_weight_grad=bound, **of_neuron(values, backend)),
        layers.LIFSpikeTrains(
            hidden, 2, 4, out.with_values(refractory=values["rest"]), overflow="drop", backend=backend, **FIXED
        ),
        layers.FirstSpike(),
    )


def network_state(values: Mapping[str, Any]) -> Outputs:
    own = {"0.delay_raw": values["before"], "1.weight": values["weight"], "2.weight": values["out_weight"]}
    return own | learnt_neuron(values, 1)


LAYER_ROWS = [
    layer_row("LIFLinear", ("lif", "LIFLinear", "Network", "Record"), fill_dense, build_linear, dense_state,
        SPIKES, excused=ONCE, observed="spikes", others={"max_weight_grad": 1e-3}),
    layer_row("LIFLinear, delays", (), partial(fill_dense, delays=True), build_linear, dense_state, SPIKES,
        excused=ONCE, observed="spikes"),
    layer_row("LIFConv2d", ("conv", "LIFConv2d"), fill_conv, build_conv,
        lambda values: {"0.weight": values["weight"]} | learnt_neuron(values), Quantity("bop", time=1, point=True),
        places=lambda x, values: x.unflatten(-1, (len(values["weight"]), -1)), excused=ONCE, observed="spikes"),
    conv_row("LIFConv2d, trains", (), 2, False, others={"max_weight_grad": 1e-3, "max_spikes": 4, "overflow": "error"}),
    conv_row("LIFConv2d, trains, delays", (), 2, True, slow=True),
    conv_row("LIFConv1d, trains", ("conv1d", "LIFConv1d"), 1, True),
    layer_row("LIFSpikeTrains", ("spike_trains", "LIFSpikeTrains"), partial(fill_trains, delays=False), build_trains,
        dense_state, OUT_TRAINS, result="trains", observed="trains",
        others={"max_weight_grad": 1e-3, "max_spikes": 4, "overflow": "error"}),
    layer_row("LIFSpikeTrains, delays", (), partial(fill_trains, delays=True), build_trains, dense_state, OUT_TRAINS,
        result="trains", observed="trains"),
    layer_row("LIFRecurrent", ("recurrent", "LIFRecurrent"), partial(fill_recurrent, delays=False),
        lambda values, backend: Network(recurrent_layer(values, backend)), recurrent_state, OUT_TRAINS,
        result="trains", observed="trains", pieces=in_pieces, shifts=FROM_ZERO, excused=COUPLED,
        others={"max_weight_grad": 1e-3, "window_spikes": 5, "overflow": "error"}),
    layer_row("LIFRecurrent, delays", (), partial(fill_recurrent, delays=True),
        lambda values, backend: Network(recurrent_layer(values, backend)), recurrent_state, OUT_TRAINS,
        result="trains", observed="trains", pieces=in_pieces, shifts=FROM_ZERO, excused=COUPLED, slow=True),
    layer_row("LIFRecurrent, sparse", (), partial(fill_recurrent, delays=True),
        lambda values, backend: Network(recurrent_layer(values, backend, sparse=True)), sparse_state, OUT_TRAINS,
        result="trains", observed="trains", pieces=partial(in_pieces, sparse=True), shifts=FROM_ZERO, excused=COUPLED,
        slow=True),
    layer_row("IntegralReadout", ("integral", "IntegralReadout"),
        partial(fill_readout, "tau", Quantity(time=1), 3.0), partial(build_readout, layers.IntegralReadout, "tau"),
        dense_state, Quantity("bo", time=1, weight=1),
        excused=READS | {"shift": "the integral begins at 0"}, **READING),
    layer_row("MaximumReadout", ("maximum", "MaximumReadout"), fill_maximum,
        partial(build_readout, layers.MaximumReadout, ""), dense_state, VALUES, excused=READS, **READING),
    layer_row("MembraneReadout", ("membrane", "MembraneReadout"), partial(fill_readout, "time", POINT, 2.5),
        partial(build_readout, layers.MembraneReadout, "time"), dense_state, VALUES, excused=READS,
        shifts=(0.3, -0.7, -2.0, 64.0, 1000.0), **READING),
    layer_row("a network", (), fill_network, build_network, network_state,
        Quantity("bc", time=1, point=True), excused=ONCE | {"neuron alone": "all of them make the output"},
        others={"max_weight_grad": 1e-3}),
]  # fmt: skip
