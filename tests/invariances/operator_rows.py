"""Operators: first spikes, spike trains, windows of them, maxima of membranes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from problems import (
    DELAY,
    DURATION,
    LEVEL,
    POINT,
    SPIKES,
    TIMES,
    TRAINS,
    WEIGHT,
    Outputs,
    Problem,
    Quantity,
    Setting,
    Source,
    lif,
)
from rows import NO_BUDGET, NO_NETWORK, NO_OBSERVED, NO_STATE, ONE_BACKEND, Row

from firstspike.layers.trains import spike_counts
from firstspike.spiketime import TrainState, first_spike_time, spike_trains, spike_window
from firstspike.spiketime.maxima.peaks import lacking, maximum

OUT_TRAINS = Quantity("bos", time=1, point=True)


def _first(values: Mapping[str, Any], backend: str) -> Outputs:
    options = {name: values.get(name) for name in ("delay", "observed", "max_weight_grad")}
    return {"spikes": first_spike_time(values["times"], values["weight"], lif(values), backend=backend, **options)}


def _make_first(delays: bool, bound: bool, setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    source.add("times", TIMES, source.times(size.samples, size.inputs), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=size.inputs), learnt=True)
    if delays:
        source.add("delay", DELAY, source.uniform(size.neurons, size.inputs, high=1.5), learnt=True)
    if bound:
        source.add("max_weight_grad", Quantity(weight=-1), 0.5)
    source.neuron(size.neurons)
    return source.problem(_first, spikes=SPIKES)


def _make_alike(setting: Setting, member: int = 0) -> Problem:
    """Neurons that share their time constants and their order of arrival, for which the CPU has other kernels."""
    return _make_first(False, False, setting._replace(constants="numbers"), member)


def _add_trains(source: Source, delays: bool, budget: int) -> None:
    size = source.setting
    arrivals = size.inputs * size.spikes
    source.add("times", TRAINS, source.trains(size.samples, size.inputs, size.spikes, gap=size.gap), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=arrivals), learnt=True)
    if delays:
        source.add("delay", DELAY, source.uniform(size.neurons, size.inputs, high=1.5), learnt=True)
    source.neuron(size.neurons)
    if size.constants == "each":
        source.add("refractory", Quantity("o", time=1), source.uniform(size.neurons, low=0.1, high=0.3), learnt=True)
        source.add("reset", Quantity("o", weight=1), source.uniform(size.neurons, low=-0.3, high=0.3), learnt=True)
    else:
        source.parameter("refractory", DURATION, 0.2, size.neurons, near=True)
        source.add("reset", LEVEL, -0.2)
    source.add("max_spikes", Quantity(), budget)
    source.add("overflow", Quantity(), "drop")


def _options(values: Mapping[str, Any]) -> dict[str, Any]:
    names = ("max_spikes", "delay", "observed", "overflow", "max_weight_grad")
    return {name: values[name] for name in names if name in values}


def _trains(values: Mapping[str, Any], backend: str) -> Outputs:
    return {"trains": spike_trains(values["times"], values["weight"], lif(values), backend=backend, **_options(values))}


def _make_trains(delays: bool, setting: Setting, member: int = 0) -> Problem:
    source = Source(setting, member)
    _add_trains(source, delays, budget=8)
    if not delays:
        source.add("max_weight_grad", Quantity(weight=-1), 0.5)
    return source.problem(_trains, trains=OUT_TRAINS)


def _window(values: Mapping[str, Any], backend: str) -> Outputs:
    state = TrainState(values["voltage"], values["current"], values["left"], values["start"])
    return _of_window(values, backend, state, values["until"])


def _of_window(values: Mapping[str, Any], backend: str, state: TrainState | None, until: float) -> Outputs:
    trains, ends, overflows = spike_window(
        values["times"], values["weight"], lif(values), state=state, until=until, backend=backend, **_options(values)
    )
    return {"trains": trains, "overflows": overflows.double(), **dict(zip(STATE, ends[:3], strict=True))}


STATE = ("voltage", "current", "left")


def _make_window(setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    _add_trains(source, delays=setting.grid, budget=12)
    pairs = (size.samples, size.neurons)
    level = Quantity("bo", weight=1)
    source.add("voltage", level, source.uniform(*pairs, low=-0.5, high=0.6), learnt=True)
    source.add("current", level, source.normal(*pairs), learnt=True)
    left = source.uniform(*pairs, low=-0.3, high=0.3).clamp(min=0)
    source.add("left", Quantity("bo", time=1), left)
    source.add("start", POINT, 0.25)
    source.add("until", POINT, 3.0 + size.gap)
    state = {"voltage": level, "current": level, "left": Quantity("bo", time=1)}
    return source.problem(_window, trains=OUT_TRAINS, overflows=Quantity("bo"), **state)


def _window_in_pieces(problem: Problem, cuts: list[float], backend: str) -> Outputs:
    values = problem.values
    state = TrainState(values["voltage"], values["current"], values["left"], values["start"])
    trains, over = [], []
    for until in [*(x for x in cuts if values["start"] < x < values["until"]), values["until"]]:
        found = _of_window(values, backend, state, until)
        state = TrainState(found["voltage"], found["current"], found["left"], until)
        trains.append(found["trains"])
        over.append(found["overflows"])
    whole = torch.cat(trains, dim=-1).sort(dim=-1).values[..., : values["max_spikes"]]
    over = torch.stack(over).amax(dim=0)
    return {"trains": whole, "overflows": over, **dict(zip(STATE, state[:3], strict=True))}


def _make_lacking(setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    source.add("times", TIMES, source.times(size.samples, size.inputs), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=size.inputs), learnt=True)
    source.add("silent", Quantity("bo"), source.uniform(size.samples, size.neurons) < 0.7)
    if setting.grid:
        source.add("delay", DELAY, source.uniform(size.neurons, size.inputs), learnt=True)
    source.neuron(size.neurons, learnt=False)
    return source.problem(_lacking, lack=Quantity("bo", weight=1))


def _lacking(values: Mapping[str, Any], backend: str) -> Outputs:
    return {"lack": lacking(values["times"], values["weight"], lif(values), values["silent"], values.get("delay"))}


def _make_maximum(setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    arrivals = size.inputs * size.spikes
    source.add("times", TRAINS, source.trains(size.samples, size.inputs, size.spikes), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=arrivals), learnt=True)
    source.neuron(size.neurons, threshold=False, learnt=False)
    return source.problem(
        lambda values, _: {"height": maximum(values["times"], values["weight"], lif(values))},
        height=Quantity("bo", weight=1),
    )


def _make_counts(setting: Setting, member: int = 0) -> Problem:
    source = Source(setting, member)
    source.add(
        "times", Quantity("bok", time=1, point=True), source.trains(setting.samples, setting.neurons, setting.spikes)
    )
    return source.problem(lambda values, _: {"counts": spike_counts(values["times"])}, counts=Quantity("bo"))


OPERATOR = {"ensemble": NO_NETWORK, "ensemble, other options": NO_NETWORK}
ONCE = OPERATOR | {"cut": NO_STATE, "overflow": "each neuron spikes once at most"}
PURE = OPERATOR | {"cut": NO_STATE, "overflow": NO_BUDGET, "observed": NO_OBSERVED, "backends": ONE_BACKEND}
NO_CHECKS = "takes what layers have checked"

OPERATOR_ROWS = [
    Row("first_spike_time", partial(_make_first, False, False), ("first_spike_time",), ONCE, empty=True,
        observed="spikes", often=3),
    Row("first_spike_time, neurons alike", _make_alike, (), ONCE, empty=True, observed="spikes", often=3),
    Row("first_spike_time, delays", partial(_make_first, True, False), (), ONCE, empty=True, observed="spikes",
        often=2),
    Row("first_spike_time, max_weight_grad", partial(_make_first, False, True), (),
        ONCE | {"differences": "the bound sets gradients to zero"}, empty=True, observed="spikes"),
    Row("spike_trains", partial(_make_trains, False), ("spike_trains",),
        OPERATOR | {"cut": "see spike_window", "differences": "the bound sets gradients to zero"}, empty=True,
        observed="trains"),
    Row("spike_trains, delays", partial(_make_trains, True), (), OPERATOR | {"cut": "see spike_window"},
        empty=True, observed="trains"),
    Row("spike_window", _make_window, ("spike_window", "TrainState"), OPERATOR, empty=True, observed="trains",
        pieces=_window_in_pieces, unchecked=("start",)),
    Row("lacking", _make_lacking, (), PURE | {"nonfinite": NO_CHECKS}, ("cpu",), empty=True, slow=True),
    Row("maximum", _make_maximum, (), PURE | {"nonfinite": NO_CHECKS}, ("cpu",), empty=True, slow=True),
]  # fmt: skip
