"""Losses and regularisers."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from layer_rows import fill_network
from networks import UNBOUNDED, sizes
from problems import DOUBLE, DURATION, LEVEL, SPIKES, Outputs, Problem, Quantity, Setting, Source
from rows import NO_BUDGET, NO_NETWORK, NO_OBSERVED, NO_STATE, ONE_BACKEND, Row
from torch import Tensor, nn
from torch.func import functional_call

from firstspike import LIF, layers, losses
from firstspike.layers import Network
from firstspike.losses.base import Loss

NO_INPUTS = "takes what a network gives, one time or value for each class"
CLASSES = "each neuron is a class"
LOSS = {
    **dict.fromkeys(("inputs permuted", "input split", "silent input"), NO_INPUTS),
    **dict.fromkeys(("neuron repeated", "neuron alone"), CLASSES),
    **dict.fromkeys(("ensemble", "ensemble, other options"), NO_NETWORK),
    "cut": NO_STATE,
    "overflow": NO_BUDGET,
    "observed": NO_OBSERVED,
    "backends": ONE_BACKEND,
}
TIME_LOSS = LOSS | {"scale": "knows no weights"}


def labels_of(values: Mapping[str, Any]) -> Tensor:
    """True classes; they are one-hot in a problem, so that they follow a permutation of the neurons."""
    found: Tensor = values["true"].argmax(dim=-1)
    return found


def add_labels(source: Source, axes: str, classes: int) -> None:
    which = (source.uniform(source.setting.samples) * classes).long()
    source.add("true", Quantity(axes), nn.functional.one_hot(which, classes).double())


def make_loss(
    kind: type[Loss],
    numbers: dict[str, tuple[Quantity, float]],
    cost: Quantity,
    setting: Setting,
    member: int = 0,
) -> Problem:
    source, size = Source(setting, member), (setting.samples, setting.neurons)
    if issubclass(kind, losses.TimeLoss):
        source.add("times", SPIKES, source.times(*size, distinct=True), learnt=True)  # ties have no decision to permute
    else:
        source.add("output", Quantity("bo", weight=1), source.normal(*size), learnt=True)
    add_labels(source, "bo", setting.neurons)
    for name, (quantity, value) in numbers.items():
        source.add(name, quantity, value)
    if setting.zeros and kind in (losses.TimeCrossEntropy, losses.ReadoutCrossEntropy):
        source.add("label_smoothing", Quantity(), 0.1)

    def run(values: Mapping[str, Any], _: str) -> Outputs:
        options = {name: values[name] for name in (*numbers, "label_smoothing") if name in values}
        loss = kind(**options)
        given = values["times"] if "times" in values else values["output"]
        chosen = loss.predict(given)
        classes = torch.arange(given.shape[-1])
        return {
            "cost": loss.per_sample(given, labels_of(values)),
            "chosen": (chosen.unsqueeze(-1) == classes).double(),
        }

    return source.problem(run, cost=cost, chosen=Quantity("bo"))


def make_regression(setting: Setting, member: int = 0) -> Problem:
    source, size, kind = Source(setting, member), (setting.samples, setting.neurons), Quantity("bo", weight=1)
    source.add("output", kind, source.normal(*size), learnt=True)
    source.add("numbers", kind, source.normal(*size))
    loss = losses.ReadoutRegression()

    def run(values: Mapping[str, Any], _: str) -> Outputs:
        return {"cost": loss.per_sample(values["output"], values["numbers"])}

    return source.problem(run, cost=Quantity("b", weight=2))


TAU = {"tau_syn": (DURATION, 0.8)}
COST = Quantity("b")
MSE_TARGETS = {"correct": (LEVEL, 1.0), "wrong": (LEVEL, -0.5)}


# Regularisers


class Regularised(nn.Module):
    """A regulariser of a batch as the forward pass of a module."""

    def __init__(self, network: Network, regularizer: nn.Module) -> None:
        super().__init__()
        self.network, self.regularizer = network, regularizer

    def forward(self, times: Tensor, labels: Tensor) -> Tensor:
        record = self.network.record(times)
        first = layers.trains.first_of(self.network[-1], record.output)
        found: Tensor = self.regularizer(first, labels, self.network, record)
        return found


def make_regularizer(
    kind: type[nn.Module], numbers: dict[str, Any], trains: bool, setting: Setting, member: int = 0
) -> Problem:
    source = Source(setting._replace(constants="numbers"), member)
    fill_network(source)
    add_labels(source, "bc", 2)
    if trains:
        recurrent = source.weights(setting.neurons, setting.neurons, arrivals=setting.neurons, charge=0.5, spread=0.5)
        source.add("recurrent_weight", Quantity("oj", weight=1), recurrent, learnt=True)
        source.values["weight"] = source.values["weight"] * 0.5

    def run(values: Mapping[str, Any], backend: str) -> Outputs:
        network = trains_network(values, backend) if trains else dense_network(values, backend)
        model = Regularised(network, kind(tau_syn=values["out_tau"], **numbers))
        state = {"network.0.weight": values["weight"], "network.1.weight": values["out_weight"]}
        if trains:
            state["network.0.recurrent_weight"] = values["recurrent_weight"]
        else:
            state = {"network.1.weight": values["weight"], "network.2.weight": values["out_weight"]}
            state["network.0.delay_raw"] = values["before"]
        return {"term": functional_call(model, state, (values["times"], labels_of(values)))}

    if trains:
        source.learnt.remove("before")
    return source.problem(run, term=Quantity())


def neurons_of(values: Mapping[str, Any]) -> tuple[LIF, LIF]:
    hidden = LIF(values["tau_mem"], values["tau_syn"], values["threshold"])
    return hidden, LIF(values["out_tau"], values["out_tau"], values["out_threshold"])


def dense_network(values: Mapping[str, Any], backend: str) -> Network:
    (inputs, neurons), (hidden, out) = sizes(values), neurons_of(values)
    fixed = {"weight_mean": 0.0, "weight_std": 1.0, "backend": backend} | DOUBLE
    return Network(
        layers.Delay(inputs, UNBOUNDED, **DOUBLE),
        layers.LIFLinear(inputs, neurons, hidden, **fixed),
        layers.LIFLinear(neurons, 2, out, **fixed),
    )


def trains_network(values: Mapping[str, Any], backend: str) -> Network:
    (inputs, neurons), (hidden, out) = sizes(values), neurons_of(values)
    fixed = {"weight_mean": 0.0, "weight_std": 1.0, "backend": backend, "overflow": "drop"} | DOUBLE
    rest, unit = values["rest"], values["out_tau"]
    return Network(
        layers.LIFRecurrent(
            inputs,
            neurons,
            8,
            6 * unit,
            hidden.with_values(refractory=rest),
            window=unit,
            window_spikes=8,
            recurrent_std=1.0,
            **fixed,
        ),
        layers.LIFSpikeTrains(neurons, 2, 8, out.with_values(refractory=rest), **fixed),
    )


OVER_NEURONS = "goes over neurons, so that one more counts"
TERM = LOSS | {
    **dict.fromkeys(("sample alone", "empty batch"), "is a mean over the samples"),
    **dict.fromkeys(("neuron repeated", "neuron alone"), OVER_NEURONS),
}
for _name in ("inputs permuted", "input split", "silent input", "backends"):
    del TERM[_name]
SPLIT_DELAYS = {"input_split": "goes over delays, so that one more counts", "silent_input": "goes over delays"}


def regularizer_rows(kind: type[nn.Module], name: str, numbers: dict[str, Any], **excused: str) -> list[Row]:
    shown = kind.__name__
    more = {key.replace("_", " "): reason for key, reason in excused.items()}
    if kind is losses.LayerWindow:
        more["input split"] = "measures times from the mean over inputs"
    make = partial(make_regularizer, kind, numbers, False)
    found = [Row(shown, make, (name, shown), TERM | more, unchecked=("before", "rest"))]
    if kind in (losses.LayerWindow, losses.SilentPeak, losses.SpikeCount):
        begins = {"shift": "a recurrent layer begins at 0"}
        make = partial(make_regularizer, kind, numbers, True)
        found.append(Row(f"{shown}, trains", make, (), TERM | more | begins, slow=True, unchecked=("before",)))
    return found


FROM_ZERO = "measures times from 0"
LOSS_ROWS = [
    Row("TimeCrossEntropy", partial(make_loss, losses.TimeCrossEntropy, TAU | {"xi": (Quantity(), 0.3)}, COST),
        ("cross_entropy", "TimeCrossEntropy"), TIME_LOSS, ("cpu",)),
    Row("TimeMSE", partial(make_loss, losses.TimeMSE, TAU | {"correct": (Quantity(), 0.5), "wrong": (Quantity(), 1.5)},
        COST), ("mse", "TimeMSE"), TIME_LOSS | {"shift": FROM_ZERO}, ("cpu",)),
    Row("ShiftInvariantMSE", partial(make_loss, losses.ShiftInvariantMSE, TAU | {"delta": (Quantity(), 0.2)}, COST),
        ("shift_invariant", "ShiftInvariantMSE"), TIME_LOSS, ("cpu",)),
    Row("ReadoutCrossEntropy", partial(make_loss, losses.ReadoutCrossEntropy, TAU | {"temperature": (LEVEL, 0.7)},
        COST), ("readout_cross_entropy", "ReadoutCrossEntropy"), LOSS, ("cpu",),
        unchecked=("output",)),  # in torch's cross-entropy, too, a value of -inf is a class that cannot be
    Row("ReadoutMSE", partial(make_loss, losses.ReadoutMSE, TAU | MSE_TARGETS, Quantity("b", weight=2)),
        ("readout_mse", "ReadoutMSE"), LOSS, ("cpu",)),
    Row("ReadoutRegression", make_regression, ("regression", "ReadoutRegression"), LOSS, ("cpu",)),
    *regularizer_rows(losses.EarlyOutput, "early_output", {"alpha": 0.7, "beta": 1.5}, shift=FROM_ZERO),
    *regularizer_rows(losses.DelayL2, "delay_l2", {"alpha": 0.7}, **SPLIT_DELAYS),
    *regularizer_rows(losses.LayerWindow, "layer_window", {"alpha": 0.7, "start": 0.1, "stop": 0.4}),
    *regularizer_rows(losses.SilentPeak, "silent_peak", {"alpha": 0.7, "max_silent": 0.2}),
    *regularizer_rows(losses.SpikeCount, "spike_count", {"alpha": 0.7, "least": 0.7, "most": 1.2},
        differences="a number of spikes has a surrogate for its gradient"),
]  # fmt: skip
