"""Layers that only move spikes: their inputs are neurons here, as each has an output of its own."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from networks import OUT_TRAINS, UNBOUNDED, layer_row
from problems import (
    DOUBLE,
    POINT,
    SPIKES,
    Outputs,
    Quantity,
    Source,
)
from rows import NO_BUDGET, NO_WEIGHTS, ONE_BACKEND, ONE_TO_ONE, PASSES_ON

from firstspike import layers
from firstspike.layers import Network
from firstspike.layers.branches import Branch


def fill_times(source: Source, *shape: int, trains: bool = False, distinct: bool = False) -> None:
    size = source.setting
    each = (size.samples, size.neurons, *shape)
    axes = "bo" + "xy"[: len(shape)]
    if trains:
        # none twice: of spikes at one time, their order tells which has the gradient
        given = source.trains(*each, size.spikes) + 1e-3 * torch.arange(size.spikes)
        source.add("times", Quantity("bok", time=1, point=True), given, learnt=True)
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


def fill_count(source: Source) -> None:
    fill_times(source, trains=True)
    for name, quantity, value in (("start", POINT, 0.3), ("until", POINT, 2.5), ("xi", Quantity(time=1), 0.7)):
        source.add(name, quantity, value)


def with_bias(values: Mapping[str, Any], _: str) -> Network:
    return Network(layers.BiasSpikes([values["bias"]], **DOUBLE))


def fill_branch(source: Source) -> None:
    fill_delay(source)
    carried = source.uniform(source.setting.neurons, low=0.05, high=2.0)
    source.add("carried", Quantity("o", time=1), carried, learnt=True)


def build_branch(kind: type[Branch], values: Mapping[str, Any], _: str) -> Network:
    neurons = len(values["delay"])
    return Network(layers.Delay(neurons, UNBOUNDED, **DOUBLE), kind(neurons, 1, delay=UNBOUNDED, **DOUBLE))


def branch_state(values: Mapping[str, Any]) -> Outputs:
    return {"0.delay_raw": values["delay"], "1.delays.delay_raw": values["carried"]}


def build_pool(values: Mapping[str, Any], _: str) -> Network:
    return Network(layers.EarliestPool2d(tuple(values["times"].shape[-3:]), (2, 1)))


def fill_merged(source: Source) -> None:
    size = source.setting
    given = source.trains(size.samples, size.neurons, 4, 3, size.spikes)
    apart = 1e-3 * torch.arange(given[0, 0].numel()).view(given.shape[2:])  # none twice in a window
    source.add("times", Quantity("boxyk", time=1, point=True), (given + apart).sort(-1).values, learnt=True)


MOVING_ROWS = [
    layer_row("MergePool2d", ("merge_pool", "MergePool2d"), fill_merged,
        lambda values, _: Network(layers.MergePool2d(tuple(values["times"].shape[1:4]), (2, 1))), lambda _: {},
        Quantity("bops", time=1, point=True), result="trains",
        places=lambda x, values: x.unflatten(-2, (values["times"].shape[1], -1)), **MOVING | {"observed": None}),
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
    layer_row("PoissonSpikes", ("poisson_spikes", "PoissonSpikes"), partial(fill_times, trains=True),
        lambda *_: Network(layers.PoissonSpikes(2, 0.5, 4.0)).eval(), lambda _: {}, OUT_TRAINS,
        places=lambda x, values: x[..., :-2, : values["times"].shape[-1]], **MOVING | {"observed": None}),
    layer_row("FirstSpike", ("first_spike", "FirstSpike"), partial(fill_times, trains=True),
        lambda *_: Network(layers.FirstSpike()), lambda _: {}, SPIKES, **MOVING),
    layer_row("SmoothCount", ("smooth_count", "SmoothCount"), fill_count,
        lambda values, _: Network(layers.SmoothCount(values["until"], values["xi"], values["start"])), lambda _: {},
        Quantity("bo"), result="values", **MOVING | {"observed": None}),
    layer_row("Concatenate", ("concatenate", "Concatenate"), fill_branch, partial(build_branch, layers.Concatenate),
        branch_state, Quantity("bco", time=1, point=True), places=lambda x, _: x.unflatten(-1, (2, -1)), **MOVING),
    layer_row("Earliest", ("earliest", "Earliest"), fill_branch, partial(build_branch, layers.Earliest),
        branch_state, SPIKES, **MOVING),
]  # fmt: skip
