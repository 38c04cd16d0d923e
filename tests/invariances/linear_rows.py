"""Neurons that are linear between events: several receptors, a rise, a bias, adaptation, no reset."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from operator_rows import ONCE, OPERATOR, OUT_TRAINS, STATE
from problems import DELAY, DURATION, POINT, SPIKES, TIMES, TRAINS, WEIGHT, Outputs, Problem, Quantity, Setting, Source
from rows import Row

from firstspike.neurons import AdaptiveLIF, Neuron
from firstspike.spiketime import Current, TrainState, first_spike_time, spike_trains, spike_window

SLOW_REFERENCE = "the reference takes seconds, by the same code as in spike_window; see spiketime/test_linear_agreement"
TAU, LEVEL = Quantity(time=1), Quantity(weight=1)
PARAMETERS = {
    "tau_mem": (TAU, 1.0), "tau_syn": (TAU, 0.8), "second": (TAU, 0.5), "rise": (TAU, 0.3), "threshold": (LEVEL, 0.9),
    "bias": (LEVEL, 0.5), "adaptation_tau": (TAU, 2.0), "adaptation_jump": (LEVEL, 0.3),
    "adaptation_rise": (TAU, 0.4), "threshold_tau": (TAU, 1.1), "threshold_jump": (LEVEL, 0.4),
}  # fmt: skip
"""By names of a problem: units, and numbers that parameters are near; those of ``tau_mem`` times the ratio."""
SYNAPSES = ("tau_mem", "tau_syn", "second", "threshold")
ADAPTATION = ("adaptation_tau", "adaptation_jump", "adaptation_rise", "threshold_tau", "threshold_jump")


def neuron_of(values: Mapping[str, Any]) -> AdaptiveLIF:
    """The neuron of a problem."""
    several = {name: (values[name],) for name in ADAPTATION if name in values}
    single = {name: values[name] for name in ("bias", "refractory") if name in values}
    return AdaptiveLIF(
        values["tau_mem"], (values["tau_syn"], values["second"]), values["threshold"], values.get("reset"),
        tau_rise=(values.get("rise", 0.0), 0.0), **single, **several,
    )  # fmt: skip


Of = Callable[[Mapping[str, Any]], Neuron]


def options_of(values: Mapping[str, Any]) -> dict[str, Any]:
    names = ("max_spikes", "delay", "observed", "overflow", "max_weight_grad", "receptor")
    found = {name: values[name] for name in names if name in values}
    return found | ({"current": Current(values["steps"], values["amplitudes"])} if "steps" in values else {})


def _add(source: Source, names: tuple[str, ...], by_sign: bool) -> None:
    """Parameters, and what receptor inputs reach; often synapses are much faster than membrane and rise."""
    size = source.setting
    faster = random.Random(size.seed + 1).choice((1, 1, 1 / 20, 1 / 100))
    for name in names:
        unit, start = PARAMETERS[name]
        start = 0.8 * size.ratio if name == "tau_mem" else start * (faster if name in ("tau_syn", "second") else 1)
        if name != "bias" or math.isfinite(size.ratio):
            source.parameter(name, unit, start, size.neurons, near=unit == TAU)
    each = source.uniform(size.inputs) < 0.5
    source.add("receptor", Quantity() if by_sign else Quantity("i"), "sign" if by_sign else each.long())


def _make_first(setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    source.add("times", TIMES, source.times(size.samples, size.inputs), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=size.inputs), learnt=True)
    if setting.grid:
        source.add("delay", DELAY, source.uniform(size.neurons, size.inputs, high=1.5), learnt=True)
    _add(source, (*SYNAPSES, "rise"), by_sign=False)
    source.add("reset", LEVEL, 0.0)
    return source.problem(_first, spikes=SPIKES)


def _first(values: Mapping[str, Any], backend: str) -> Outputs:
    spikes = first_spike_time(
        values["times"], values["weight"], neuron_of(values), backend=backend, **options_of(values)
    )
    return {"spikes": spikes}


def _make_trains(setting: Setting, member: int = 0) -> Problem:
    """Receptors by sign: no weight is 0, where the derivative jumps. With a reset or without one."""
    setting = setting._replace(zeros=False)
    source, parts = Source(setting, member), random.Random(setting.seed + 2)
    add_trains(source, 8)
    _add(source, (*SYNAPSES, *parts.choice((("rise",), ADAPTATION, ("rise", *ADAPTATION)))), by_sign=True)
    if parts.random() < 0.5:
        source.add("reset", LEVEL, -0.2)
    return source.problem(_trains, trains=OUT_TRAINS)


def add_trains(source: Source, budget: int) -> None:
    size = source.setting
    arrivals = size.inputs * size.spikes
    source.add("times", TRAINS, source.trains(size.samples, size.inputs, size.spikes, gap=size.gap), learnt=True)
    source.add("weight", WEIGHT, source.weights(size.neurons, size.inputs, arrivals=arrivals), learnt=True)
    if size.grid:
        source.add("delay", DELAY, source.uniform(size.neurons, size.inputs, high=1.5), learnt=True)
    source.parameter("refractory", DURATION, 0.2, size.neurons, near=True)
    source.add("max_spikes", Quantity(), budget)
    source.add("overflow", Quantity(), "drop")


def _trains(values: Mapping[str, Any], backend: str) -> Outputs:
    trains = spike_trains(values["times"], values["weight"], neuron_of(values), backend=backend, **options_of(values))
    return {"trains": trains}


def _make_window(setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    add_trains(source, 12)
    _add(source, tuple(PARAMETERS), by_sign=False)
    source.add("reset", LEVEL, torch.tensor(-0.2, dtype=torch.float64), learnt=True)
    pairs, parts = (size.samples, size.neurons), len(neuron_of(source.values).components)
    level, levels = Quantity("bo", weight=1), Quantity("bom", weight=1)
    source.add("voltage", level, source.uniform(*pairs, low=-0.5, high=0.6), learnt=True)
    current = 0.5 * source.normal(*pairs, parts)
    source.add("current", levels, torch.cat([current[..., :-1], current[..., -1:].abs()], -1), learnt=True)
    left = source.uniform(*pairs, low=-0.3, high=0.3).clamp(min=0)
    source.add("left", Quantity("bo", time=1), left)
    source.add("start", POINT, 0.25)
    source.add("until", POINT, 3.0 + size.gap)
    state = {"voltage": level, "current": levels, "left": Quantity("bo", time=1)}
    return source.problem(partial(window, neuron_of), trains=OUT_TRAINS, overflows=Quantity("bo"), **state)


def _state_of(values: Mapping[str, Any]) -> TrainState:
    return TrainState(values["voltage"], values["current"], values["left"], values["start"])


def window(neuron_of: Of, values: Mapping[str, Any], backend: str) -> Outputs:
    return _of_window(neuron_of, values, backend, _state_of(values), values["until"])


def _of_window(neuron_of: Of, values: Mapping[str, Any], backend: str, state: TrainState, until: float) -> Outputs:
    trains, ends, overflows = spike_window(
        values["times"], values["weight"], neuron_of(values), state=state, until=until, backend=backend,
        **options_of(values),
    )  # fmt: skip
    return {"trains": trains, "overflows": overflows.double(), **dict(zip(STATE, ends[:3], strict=True))}


def window_in_pieces(neuron_of: Of, problem: Problem, cuts: list[float], backend: str) -> Outputs:
    values = problem.values
    state, trains, over = _state_of(values), [], []
    for until in [*(x for x in cuts if values["start"] < x < values["until"]), values["until"]]:
        found = _of_window(neuron_of, values, backend, state, until)
        state = TrainState(found["voltage"], found["current"], found["left"], until)
        trains.append(found["trains"])
        over.append(found["overflows"])
    whole = torch.cat(trains, dim=-1).sort(dim=-1).values[..., : values["max_spikes"]]
    return {
        "trains": whole, "overflows": torch.stack(over).amax(dim=0), **dict(zip(STATE, state[:3], strict=True))
    }  # fmt: skip


def _make_current(setting: Setting, member: int = 0) -> Problem:
    """A window with a current, of which some steps are before its start."""
    found = _make_window(setting._replace(ratio=setting.ratio if math.isfinite(setting.ratio) else 20.0), member)
    source, size = Source(setting, member + 1), setting
    steps, values = source.uniform(5, low=-0.5, high=3.0).sort().values, 0.8 * source.normal(size.neurons, 5)
    values[:, -1] = 0.0  # or neurons would spike on and on in a long gap
    quantities = {"steps": Quantity("c", time=1, point=True), "amplitudes": Quantity("oc", weight=1)}
    return replace(
        found, values={**found.values, "steps": steps, "amplitudes": values}, learnt=(*found.learnt, "amplitudes"),
        quantities={**found.quantities, **quantities},
    )  # fmt: skip


LINEAR_ROWS = [
    Row("first_spike_time, receptors", _make_first, (), ONCE, empty=True, observed="spikes"),
    Row("spike_trains, linear", _make_trains, (), OPERATOR | {"cut": "see spike_window", "backends": SLOW_REFERENCE},
        ("cpu",), empty=True, observed="trains"),
    Row("spike_window, current", _make_current, ("Current",), OPERATOR, slow=True, empty=True, observed="trains",
        pieces=partial(window_in_pieces, neuron_of), unchecked=("start",)),
    Row("spike_window, linear", _make_window, (), OPERATOR, empty=True, observed="trains",
        pieces=partial(window_in_pieces, neuron_of), unchecked=("start",)),
]  # fmt: skip
