"""Rows whose problems are networks, and what layers of neurons have in common."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from problems import (
    DELAY,
    DOUBLE,
    TIMES,
    TRAINS,
    WEIGHT,
    Outputs,
    Problem,
    Quantity,
    Setting,
    Source,
)
from rows import NO_OBSERVED, NO_STATE, Row
from torch import Tensor, nn
from torch.func import functional_call

from firstspike import LIF
from firstspike.layers import DelayRule, Network, Record

NAMES = ("tau_mem", "tau_syn", "threshold", "reset", "refractory")
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
    observed = None if seen is None else [*[None] * (len(network) - 1), seen.flatten(1, 2) if places else seen]
    record: Record = functional_call(Recorder(network), state, (values["times"], observed))
    return record.output


def of_neuron(values: Mapping[str, Any], backend: str | None = "auto", **others: Any) -> dict[str, Any]:
    """Arguments of a layer for the neuron of a problem: what are tensors are parameters that learn."""
    learnt = [name for name in NAMES if isinstance(values.get(name), Tensor)]
    start = {name: float(name != "reset") if name in learnt else values[name] for name in NAMES if name in values}
    each = any(values[name].ndim for name in learnt)
    options = {"neuron": LIF(**start), "trainable": learnt, "per_neuron": each} | FIXED | others
    return options if backend is None else options | {"backend": backend}


def learnt_neuron(values: Mapping[str, Any], index: int = 0) -> Outputs:
    """The parameters of a layer for the neuron of a problem."""
    found = {name: x for name in NAMES if isinstance(x := values.get(name), Tensor)}
    if "reset" in found:  # what is learnt is how far below the threshold it is
        found["reset"] = values.get("threshold", 1.0) - found["reset"]
    return {f"{index}.log_{name}": x.log() for name, x in found.items()}


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


def fill_dense(
    source: Source, trains: bool = False, delays: bool = False, threshold: bool = True, **weights: Any
) -> None:
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
