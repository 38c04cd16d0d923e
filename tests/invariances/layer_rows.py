"""Layers: those that move spikes, neurons, readouts, and networks of several."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from firstspike import LIF, layers
from firstspike.layers import DelayRule, LIFRecurrent, Network, Record
from problems import DELAY, DOUBLE, DURATION, LEVEL, POINT, SPIKES, TIMES, TRAINS, WEIGHT, Outputs, Problem, Quantity, Setting, Source
from rows import NO_BUDGET, NO_OBSERVED, NO_STATE, NO_WEIGHTS, ONE_BACKEND, ONE_TO_ONE, PASSES_ON, Row

NAMES = ("tau_mem", "tau_syn", "threshold")
FIXED = {"weight_mean": 0.0, "weight_std": 1.0} | DOUBLE  # weights that a problem replaces
UNBOUNDED = DelayRule("clip", scale=math.inf)
OUT_TRAINS = Quantity("bos", time=1, point=True)
VALUES = Quantity("bo", weight=1)

Build = Callable[[Mapping[str, Any], str], Network]
Parameters = Callable[[Mapping[str, Any]], Outputs]


class Recorder(nn.Module):
    """``network.record`` as a forward pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, times: Tensor, observed: list[Tensor | None] | None) -> Record:
        return self.network.record(times, observed)


def called(build: Build, parameters: Parameters, values: Mapping[str, Any], backend: str, places: bool) -> Tensor:
    """The output of the network of a problem, with the problem's tensors as its parameters.

    Args:
        build: the network.
        parameters: of it, by their names.
        values: of the problem.
        backend: of the layers.
        places: whether outputs have a further dimension in the problem, and are flat in the network.
    """
    network = build(values, backend)
    state = {f"network.{name}": x for name, x in parameters(values).items()}
    seen = values.get("observed")
    observed = None if seen is None else [*[None] * (len(network) - 1), seen.flatten(-2) if places else seen]
    record: Record = functional_call(Recorder(network), state, (values["times"], observed))
    return record.output


def of_neuron(values: Mapping[str, Any], backend: str | None = "auto", **others: Any) -> dict[str, Any]:
    """Arguments of a layer for the neuron of a problem: what are tensors are parameters that learn."""
    learnt = [name for name in NAMES if isinstance(values.get(name), Tensor)]
    start = {name: 1.0 if name in learnt else values[name] for name in NAMES if name in values}
    each = any(values[name].ndim for name in learnt)
    options = {"neuron": LIF(**start), "trainable": learnt, "per_neuron": each} | FIXED | others
    return options if backend is None else options | {"backend": backend}


def learnt_neuron(values: Mapping[str, Any], index: int = 0) -> Outputs:
    """The parameters of a layer for the neuron of a problem."""
    return {f"{index}.log_{name}": x.log() for name in NAMES if isinstance(x := values.get(name), Tensor)}


def sizes(values: Mapping[str, Any]) -> tuple[int, int]:
    outputs, inputs = values["weight"].shape[-2:]
    return inputs, outputs


RAW = ("delay", "recurrent_delay", "before", "carried")
"""Delays, whose raw values a rule cuts to a range before they are checked."""


def layer_row(
    name: str,
    covers: tuple[str, ...],
    fill: Callable[[Source], None],
    build: Build,
    parameters: Parameters,
    output: Quantity,
    places: Callable[[Tensor, Mapping[str, Any]], Tensor] | None = None,
    excused: Mapping[str, str] | None = None,
    result: str = "spikes",
    **options: Any,
) -> Row:
    """A row whose problems are networks; ``places`` gives their outputs the dimensions that they have in the row."""

    def run(values: Mapping[str, Any], backend: str) -> Outputs:
        found = called(build, parameters, values, backend, places is not None)
        return {result: found if places is None else places(found, values)}

    def make(setting: Setting, member: int = 0) -> Problem:
        source = Source(setting, member)
        fill(source)
        return source.problem(run, **{result: output})

    excused = dict(excused or {})
    options.setdefault("unchecked", RAW)
    if not options.get("others"):
        excused.setdefault("ensemble, other options", "all of its options are in its printed form, which members share")
    if not options.get("observed"):
        excused.setdefault("observed", NO_OBSERVED)
    if not options.get("pieces"):
        excused.setdefault("cut", NO_STATE)
    return Row(name, make, covers, excused, network=build, parameters=parameters, **options)


# What neurons see


def fill_dense(source: Source, trains: bool = False, delays: bool = False, threshold: bool = True, **weights: Any) -> None:
    size = source.setting
    shape = (size.samples, size.inputs)
    if trains:
        source.add("times", TRAINS, source.trains(*shape, size.spikes), learnt=True)
    else:
        source.add("times", TIMES, source.times(*shape), learnt=True)
    arrivals = size.inputs * (size.spikes if trains else 1)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=arrivals, **weights), learnt=True)
    if delays:
        source.add("delay", DELAY, source.uniform(size.neurons, size.inputs, low=0.05, high=1.5), learnt=True)
    source.neuron(size.neurons, threshold)


def dense_state(values: Mapping[str, Any]) -> Outputs:
    delay = {"0.delay_raw": values["delay"]} if "delay" in values else {}
    return {"0.weight": values["weight"]} | delay | learnt_neuron(values)


def rule(values: Mapping[str, Any]) -> DelayRule | None:
    return UNBOUNDED if "delay" in values else None


def build_linear(values: Mapping[str, Any], backend: str) -> Network:
    bound = values.get("max_weight_grad")
    return Network(
        layers.LIFLinear(*sizes(values), delay=rule(values), max_weight_grad=bound, **of_neuron(values, backend))
    )


def fill_trains(source: Source, delays: bool) -> None:
    fill_dense(source, trains=True, delays=delays)
    source.add("refractory", Quantity(time=1), 0.2)
    source.add("reset", Quantity(weight=1), -0.2)
    source.add("max_spikes", Quantity(), 8)
    source.add("overflow", Quantity(), "drop")


def train_options(values: Mapping[str, Any], backend: str) -> dict[str, Any]:
    own = {name: values[name] for name in ("refractory", "reset", "overflow")}
    return own | {"delay": rule(values), "max_weight_grad": values.get("max_weight_grad")} | of_neuron(values, backend)


def build_trains(values: Mapping[str, Any], backend: str) -> Network:
    return Network(layers.LIFSpikeTrains(*sizes(values), values["max_spikes"], **train_options(values, backend)))


# Recurrent layers


def fill_recurrent(source: Source, delays: bool) -> None:
    size = source.setting
    fill_trains(source, delays)
    recurrent = source.weights(size.neurons, size.neurons, arrivals=size.neurons, charge=0.3, spread=0.5)
    source.add("recurrent_weight", Quantity("oj", weight=1), recurrent, learnt=True)
    if delays:
        further = source.uniform(size.neurons, size.neurons, low=0.05, high=0.9)
        source.add("recurrent_delay", Quantity("oj", time=1), further, learnt=True)
        source.add("longest", Quantity(time=1), 1.0)
    source.add("window", Quantity(time=1), 0.7)
    source.add("window_spikes", Quantity(), 6)
    source.add("until", POINT, 4.0)


def recurrent_layer(values: Mapping[str, Any], backend: str) -> LIFRecurrent:
    further = DelayRule("clip", scale=values["longest"]) if "longest" in values else None
    return LIFRecurrent(
        *sizes(values),
        values["max_spikes"],
        values["until"],
        window=values["window"],
        window_spikes=values["window_spikes"],
        recurrent_delay=further,
        recurrent_std=1.0,
        **train_options(values, backend),
    )


def recurrent_state(values: Mapping[str, Any]) -> Outputs:
    delay = {"0.recurrent_delays.delay_raw": values["recurrent_delay"]} if "recurrent_delay" in values else {}
    return dense_state(values) | {"0.recurrent_weight": values["recurrent_weight"]} | delay


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


def in_pieces(problem: Problem, cuts: list[float], backend: str) -> Outputs:
    values, most = problem.values, problem.values["max_spikes"]
    layer = Proceeding(recurrent_layer(values, backend))
    trains = functional_call(layer, recurrent_state(values), (values["times"], [*cuts, values["until"]]))
    return {"trains": nn.functional.pad(trains, (0, max(0, most - trains.shape[-1])), value=math.inf)[..., :most]}


# Layers that only move spikes: their inputs are neurons here, as each has an output of its own


def fill_times(source: Source, *shape: int, trains: bool = False, distinct: bool = False) -> None:
    size = source.setting
    each = (size.samples, size.neurons, *shape)
    axes = "bo" + "xy"[: len(shape)]
    if trains:
        source.add("times", Quantity("bok", time=1, point=True), source.trains(*each, size.spikes), learnt=True)
    else:
        times = source.times(*each, distinct=distinct)
        source.add("times", Quantity(axes, time=1, point=True), times, learnt=True)


MOVES = {
    "inputs permuted": ONE_TO_ONE,
    "input split": NO_WEIGHTS,
    "silent input": ONE_TO_ONE,
    "scale": NO_WEIGHTS,
    "overflow": NO_BUDGET,
    "backends": ONE_BACKEND,
    "nonfinite": PASSES_ON,
}
MOVING = {"excused": MOVES, "backends": ("cpu",), "observed": "spikes"}


def fill_delay(source: Source) -> None:
    fill_times(source)
    source.add("delay", Quantity("o", time=1), source.uniform(source.setting.neurons, low=0.05), learnt=True)


def fill_bias(source: Source) -> None:
    fill_times(source)
    source.add("bias", POINT, 0.4)


def with_bias(values: Mapping[str, Any], _: str) -> Network:
    return Network(layers.BiasSpikes([values["bias"]], **DOUBLE))


def fill_branch(source: Source) -> None:
    fill_delay(source)
    carried = source.uniform(source.setting.neurons, low=0.05, high=2.0)
    source.add("carried", Quantity("o", time=1), carried, learnt=True)


def build_branch(kind: type[layers.Branch], values: Mapping[str, Any], _: str) -> Network:
    neurons = len(values["delay"])
    return Network(layers.Delay(neurons, UNBOUNDED, **DOUBLE), kind(neurons, 1, delay=UNBOUNDED, **DOUBLE))


def branch_state(values: Mapping[str, Any]) -> Outputs:
    return {"0.delay_raw": values["delay"], "1.delays.delay_raw": values["carried"]}


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


def build_pool(values: Mapping[str, Any], _: str) -> Network:
    return Network(layers.EarliestPool2d(tuple(values["times"].shape[-3:]), (2, 1)))


# Readouts


def build_readout(kind: type[layers.Readout], name: str, values: Mapping[str, Any], _: str) -> Network:
    own = {name: values[name]} if name else {}
    options = of_neuron(values, backend=None)
    if kind is layers.MaximumReadout:
        for key in ("trainable", "per_neuron"):
            del options[key]
        options["neuron"] = LIF(values["tau_mem"], values["tau_syn"])
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
        layers.LIFSpikeTrains(hidden, 2, 4, out, refractory=values["rest"], overflow="drop", backend=backend, **FIXED),
        layers.FirstSpike(),
    )


def network_state(values: Mapping[str, Any]) -> Outputs:
    own = {"0.delay_raw": values["before"], "1.weight": values["weight"], "2.weight": values["out_weight"]}
    return own | learnt_neuron(values, 1)


LAYER_ROWS = [
    layer_row("LIFLinear", ("lif", "LIFLinear", "Network", "Layer", "Record"), fill_dense, build_linear, dense_state,
        SPIKES, excused=ONCE, observed="spikes", others={"max_weight_grad": 1e-3}),
    layer_row("LIFLinear, delays", (), partial(fill_dense, delays=True), build_linear, dense_state, SPIKES,
        excused=ONCE, observed="spikes"),
    layer_row("LIFConv2d", ("conv", "LIFConv2d"), fill_conv, build_conv,
        lambda values: {"0.weight": values["weight"]} | learnt_neuron(values), Quantity("bop", time=1, point=True),
        places=lambda x, values: x.unflatten(-1, (len(values["weight"]), -1)), excused=ONCE, observed="spikes"),
    layer_row("LIFSpikeTrains", ("spike_trains", "LIFSpikeTrains"), partial(fill_trains, delays=False), build_trains,
        dense_state, OUT_TRAINS, result="trains", observed="trains",
        others={"max_weight_grad": 1e-3, "max_spikes": 4, "overflow": "error", "reset": 0.0, "refractory": 0.1}),
    layer_row("LIFSpikeTrains, delays", (), partial(fill_trains, delays=True), build_trains, dense_state, OUT_TRAINS,
        result="trains", observed="trains"),
    layer_row("LIFRecurrent", ("recurrent", "LIFRecurrent", "RecurrentState"), partial(fill_recurrent, delays=False),
        lambda values, backend: Network(recurrent_layer(values, backend)), recurrent_state, OUT_TRAINS,
        result="trains", observed="trains", pieces=in_pieces, shifts=FROM_ZERO, excused=COUPLED,
        others={"max_weight_grad": 1e-3, "window_spikes": 5, "overflow": "error"}),
    layer_row("LIFRecurrent, delays", (), partial(fill_recurrent, delays=True),
        lambda values, backend: Network(recurrent_layer(values, backend)), recurrent_state, OUT_TRAINS,
        result="trains", observed="trains", pieces=in_pieces, shifts=FROM_ZERO, excused=COUPLED, slow=True),
    layer_row("IntegralReadout", ("integral", "IntegralReadout"),
        partial(fill_readout, "tau", Quantity(time=1), 3.0), partial(build_readout, layers.IntegralReadout, "tau"),
        dense_state, Quantity("bo", time=1, weight=1), excused=READS | {"shift": "the integral begins at 0"}, **READING),
    layer_row("MaximumReadout", ("maximum", "MaximumReadout"), fill_maximum,
        partial(build_readout, layers.MaximumReadout, ""), dense_state, VALUES, excused=READS, **READING),
    layer_row("MembraneReadout", ("membrane", "MembraneReadout"), partial(fill_readout, "time", POINT, 2.5),
        partial(build_readout, layers.MembraneReadout, "time"), dense_state, VALUES, excused=READS,
        shifts=(0.3, -0.7, -2.0, 64.0, 1000.0), **READING),
    layer_row("EarliestPool2d", ("pool", "EarliestPool2d"), lambda source: fill_times(source, 4, 3, distinct=True),
        build_pool, lambda _: {}, Quantity("bop", time=1, point=True),
        places=lambda x, values: x.unflatten(-1, (values["times"].shape[-3], -1)), **MOVING),
    layer_row("Delay", ("delay", "Delay", "DelayRule"), fill_delay,
        lambda values, _: Network(layers.Delay(len(values["delay"]), UNBOUNDED, **DOUBLE)),
        lambda values: {"0.delay_raw": values["delay"]}, SPIKES, **MOVING),
    layer_row("BiasSpikes", ("bias", "BiasSpikes"), fill_bias, with_bias, lambda _: {}, SPIKES,
        places=lambda x, values: torch.minimum(x[..., :-1], x[..., -1:]), **MOVING | {"observed": None}),
    layer_row("Multiplex", ("multiplex", "Multiplex"), fill_times, lambda *_: Network(layers.Multiplex(3)),
        lambda _: {}, Quantity("boc", time=1, point=True), places=lambda x, _: x.unflatten(-1, (-1, 3)), **MOVING),
    layer_row("SpikeDropout", ("dropout", "SpikeDropout"), fill_times,
        lambda *_: Network(layers.SpikeDropout(0.5)).eval(), lambda _: {}, SPIKES, **MOVING),
    layer_row("FirstSpike", ("first_spike", "FirstSpike"), partial(fill_times, trains=True),
        lambda *_: Network(layers.FirstSpike()), lambda _: {}, SPIKES, **MOVING),
    layer_row("Concatenate", ("concatenate", "Concatenate"), fill_branch, partial(build_branch, layers.Concatenate),
        branch_state, Quantity("bco", time=1, point=True), places=lambda x, _: x.unflatten(-1, (2, -1)), **MOVING),
    layer_row("Earliest", ("earliest", "Earliest"), fill_branch, partial(build_branch, layers.Earliest),
        branch_state, SPIKES, **MOVING),
    layer_row("a network", ("Ensemble",), fill_network, build_network, network_state,
        Quantity("bc", time=1, point=True), excused=ONCE | {"neuron alone": "all of them make the output"},
        others={"max_weight_grad": 1e-3}),
]  # fmt: skip
