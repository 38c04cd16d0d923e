"""Networks from their sections, and sections from networks."""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn, optim

from firstspike.config.connections import described_signs, signs_of
from firstspike.config.section import Section
from firstspike.config.sections import CUSTOM, LAYER_SECTIONS, Custom, described_neuron
from firstspike.config.yaml_file import Place, shown_place
from firstspike.connect import Synapses
from firstspike.data import SpikeData
from firstspike.layers import (
    Delay,
    DelayRule,
    FirstSpike,
    Network,
    Readout,
    SpikeDropout,
    SpikeTrains,
    SpikingConv1d,
    SpikingLayer,
    SpikingLinear,
)
from firstspike.layers.branches import Branch
from firstspike.layers.neurons import NeuronLayer
from firstspike.layers.trains import Form, check_follows, form_of
from firstspike.losses.base import check_reads
from firstspike.neurons import LIF

MOST_NUMBERS = 2**31
"""Weights of a layer, or input times of a part of the data: 8 GiB in float32."""
_RATES = ("lr", "delay_lr", "neuron_lr")
_OUTPUTS = (SpikingLinear, SpikeTrains, Readout)
"""Layers whose neurons can be the classes."""

Problem = tuple[Place, str]
"""An error in a config: its place, the expected and the received value, and how to fix it."""


class LayerError(ValueError):
    """A layer that does not fit; ``problem`` is where in the config, and why."""

    def __init__(self, place: Place, message: str) -> None:
        self.problem: Problem = (place, message)
        super().__init__(f"{shown_place(place)}: {message}")


def layers_of(
    sections: Sequence[Section], data: SpikeData, neuron: LIF, max_weight_grad: float | None = None, **runtime: Any
) -> Iterator[nn.Module]:
    """The layers of a network for these data, of which samples are not needed; a LayerError for one that does not fit.

    ``neuron`` and ``max_weight_grad`` are for layers without their own, ``runtime`` has ``generator``, ``dtype`` and
    ``device``, of which ``meta`` only checks that the layers fit.
    """
    size, image = data.features, data.image
    form: Form = "trains" if data.trains else "first spikes"
    points: list[int | tuple[int, int, int]] = []  # inputs of each layer
    for index, section in enumerate(sections):
        kind: str = section.kind  # type: ignore[attr-defined]
        if kind == CUSTOM:
            name: str = section.name  # type: ignore[attr-defined]
            hint = "hand the network over in Python: network=..."
            raise LayerError(("network", index), f"{name!r} is not in the registries; {hint}")
        target: Any = type(section)._target
        takes = inspect.signature(target).parameters
        points.append(size if image is None else image)
        if issubclass(target, SpikingConv1d) and image is None:
            image = (1, 1, size)
        around = runtime | {"in_features": size, "features": size, "image": image}
        given = section.arguments(*_RATES) | {name: x for name, x in around.items() if name in takes}
        try:
            if issubclass(target, NeuronLayer):
                given["neuron"] = given["neuron"] or neuron
            if "max_weight_grad" in given:
                given["max_weight_grad"] = given["max_weight_grad"] or max_weight_grad
            if issubclass(target, Branch):
                given |= _ends(points, given["over"])
            for name, sources in (("synapses", size), ("recurrent", given.get("out_features"))):
                if rules := given.get(name):
                    ends = {"sources": sources, "targets": given["out_features"]}
                    given[name] = _synapses(rules, ("network", index, name), runtime.get("generator"), **ends)
            channels = image[0] if "image" in takes and image is not None else size
            for name, sources in (("signs", channels), ("recurrent_signs", given.get("out_features", 0))):
                if name in given:
                    given[name] = signs_of(name, given[name], sources)
            if "image" in takes and image is None:
                raise ValueError(
                    f"{kind} needs an image: data of images, and before it only layers that keep it, such as conv, "
                    "pool and delay; events of a camera in files are given in Python, SpikeData(..., image=(2, 32, 32))"
                )
            layer = target(**given)
            check_follows(form, layer)
            size, form = layer.output_size(size), form_of(layer)
        except LayerError:
            raise
        except ValueError as error:
            raise LayerError(("network", index), str(error)) from None
        keeps = isinstance(layer, Delay | SpikeDropout | FirstSpike)
        image = image if keeps else getattr(layer, "out_image", None)
        yield layer


def _synapses(rules: Sequence[Section], place: Place, generator: torch.Generator | None, **ends: int) -> Synapses:
    """The synapses of all rules together."""
    parts: list[Synapses] = []
    for k, rule in enumerate(rules):
        try:
            parts.append(rule.build(generator=generator or torch.Generator(), **ends))
        except ValueError as error:
            raise LayerError((*place, k), str(error)) from None
    return replace(sum(parts[1:], parts[0]), rules=tuple(rules))


def _ends(points: Sequence[int | tuple[int, int, int]], over: int) -> dict[str, Any]:
    """The sizes that a ``Branch`` joins, given the inputs of all layers (``points``): images if both are images."""
    if over >= len(points):
        raise ValueError(f"over={over} skips {over} layers, but only {len(points) - 1} precede it")
    ends: dict[str, Any] = {"inputs": points[-1], "skipped": points[-1 - over]}
    if all(isinstance(end, tuple) for end in ends.values()):
        return ends
    return {name: end if isinstance(end, int) else math.prod(end) for name, end in ends.items()}


def network_problems(
    sections: Sequence[Section],
    data: SpikeData,
    neuron: LIF,
    limits: Sequence[float] | float | None,
    labels: str | None = None,
    reads: Form | None = None,
) -> list[Problem]:
    """Errors in a network for these data, whose samples are not needed.

    ``limits`` are those of silent neurons, ``labels`` is the column or array of the classes, if another one could be
    meant, ``reads`` the form that the loss takes, if it is known.
    """
    if any(section.kind == CUSTOM for section in sections):  # type: ignore[attr-defined]
        return []
    try:
        layers = list(layers_of(sections, data, neuron, device="meta"))
    except LayerError as error:
        return [error.problem]
    for index, layer in enumerate(layers):
        if (weights := sum(parameter.numel() for parameter in layer.parameters())) > MOST_NUMBERS:
            return [(("network", index), f"{weights} weights are more than fit; the most are {MOST_NUMBERS}")]
        for name in ("max_spikes", "window_spikes"):
            if (problem := too_many_spikes(getattr(layer, "out_features", 0), getattr(layer, name, 0))) is not None:
                return [(("network", index, name), problem)]
    outputs = [index for index, layer in enumerate(layers) if isinstance(layer, _OUTPUTS)]
    if not outputs:
        return [(("network",), "has no layer of kind lif, so no class has a neuron; add one")]
    last, classes, problems = outputs[-1], len(data.class_names), list[Problem]()
    kind = sections[last].kind  # type: ignore[attr-defined]
    if not all(isinstance(layer, Delay | FirstSpike) for layer in layers[last + 1 :]):
        message = f"only delay layers may follow the last {kind} layer, whose neurons are the classes"
        problems.append((("network",), message))
    if reads is not None:
        try:
            check_reads("loss", reads, form_of(layers[-1]))
        except ValueError as error:
            problems.append((("loss", "kind"), str(error)))
    if (size := layers[last].out_features) != classes:
        message = f"the last {kind} layer has {size} neurons, the data has {classes} classes"
        fix = f"write out_features: {classes}"
        fix = f"; {fix}" if labels is None else f" ({labels}): if data.labels is correct, {fix}, otherwise correct it"
        problems.append((("network", last, "out_features"), message + fix))
    for index, section in enumerate(sections):
        for rate, keys in (("delay_lr", ("delay", "recurrent_delay")), ("neuron_lr", ("trainable",))):
            if getattr(section, rate, None) is not None and not any(getattr(section, key, None) for key in keys):
                problems.append((("network", index, rate), f"{rate} needs {keys[0]}, which this layer does not have"))
    spiking = [layer for layer in layers if isinstance(layer, SpikingLayer)]
    if isinstance(limits, Sequence) and len(limits) != len(spiking):
        message = f"expected one for each of {len(spiking)} LIF layers, or one number, got {len(limits)}"
        problems.append((("training", "silent", "limits"), message))
    return problems


def too_many_spikes(neurons: int, spikes: int | None) -> str | None:
    """The error if a layer has more spikes in one sample than fit; None otherwise."""
    if spikes is None or neurons * spikes <= MOST_NUMBERS:
        return None
    return f"{spikes} spikes of {neurons} neurons are more than fit; the most are {MOST_NUMBERS // neurons} of each"


def parameter_groups(sections: Sequence[Section], network: nn.Module, lr: float) -> list[dict[str, Any]]:
    """The parameters that learn, those with the same settings together. ``lr`` is that of layers without their own."""
    if not isinstance(network, Network) or len(network) != len(sections):  # of your own: sections name it only
        return [{"params": [p for p in network.parameters() if p.requires_grad], "lr": lr}]
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for section, layer in zip(sections, network, strict=True):
        for name, parameter in layer.named_parameters():
            rate = _rate_of(layer, name)
            if parameter.requires_grad:
                groups.setdefault((getattr(section, rate, None) or lr, rate == "neuron_lr"), []).append(parameter)
    # weight decay on logarithms would draw time constants to 1
    return [
        {"params": found, "lr": own} | ({"weight_decay": 0.0} if of_neurons else {})
        for (own, of_neurons), found in groups.items()
    ]


def _rate_of(layer: nn.Module, parameter: str) -> str:
    """The key that holds the learning rate of a layer's parameter."""
    kind = layer.kind_of(parameter) if isinstance(layer, NeuronLayer) else "weight"
    return {"neuron": "neuron_lr", "delay": "delay_lr", "weight": "lr"}[kind]


def describe_network(network: nn.Module, optimizer: optim.Optimizer) -> list[Section]:
    """The sections of a network; of a module that is not a ``Network`` of registered layers only its name."""
    if not isinstance(network, Network):
        return [Custom(kind="custom", name=network._get_name())]
    kinds = {section._target: (kind, section) for kind, section in LAYER_SECTIONS.items()}
    rates = {id(p): group.get("initial_lr", group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    usual = optimizer.defaults.get("lr")
    sections: list[Section] = []
    for layer in network:
        kind, section = kinds.get(type(layer), ("custom", Custom))
        found = None if section is Custom else _describe_layer(section, layer)
        if found is None:
            sections.append(Custom(kind="custom", name=layer._get_name()))
            continue
        own = {_rate_of(layer, name): rates.get(id(p)) for name, p in layer.named_parameters()}
        found |= {key: lr for key, lr in own.items() if lr not in (None, usual)}
        sections.append(section(kind=kind, **found))  # type: ignore[call-arg]
    return sections


def _describe_layer(section: type[Section], layer: nn.Module) -> dict[str, Any] | None:
    """The fields of a layer's section; None if one is a tensor, or synapses of no config, which none can hold."""
    names = [name for name in section.model_fields if name not in ("kind", *_RATES)]
    taken = ("neuron", "delay", "synapses", "recurrent")
    values = {name: getattr(layer, name) for name in names if name not in taken}
    values |= {x: described_signs(values[x]) for x in ("signs", "recurrent_signs") if x in names}
    if "delay" in names:
        values["delay"] = layer.delay if isinstance(layer, Branch) else layer.delay_rule
    if isinstance(layer, NeuronLayer):
        values["neuron"] = described_neuron(layer.initial_neuron)
        for name, weights in (("synapses", "weight"), ("recurrent", "recurrent_weight")):
            if weights in layer.sparse:
                values[name] = layer.sparse[weights].rules
        if (
            values["neuron"] is None
            or not all(x.rules for x in layer.sparse.values())
            or any(isinstance(values.get(x), Tensor) for x in ("mask", "recurrent_mask"))
        ):
            return None
    return {
        name: x.tolist() if isinstance(x, Tensor) else vars(x) if isinstance(x, DelayRule) else x
        for name, x in values.items()
    }
