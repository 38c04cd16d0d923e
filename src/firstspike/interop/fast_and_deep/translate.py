"""A config of theirs becomes one of ours. No torch in here: dict to dict.

Two forms are known. In the release 1.0.0 ``network_layout`` has ``layer_sizes``, ``n_biases``, ``bias_times``,
``weight_means`` and ``weight_stdevs``; later it has a list ``layers``.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from firstspike.interop.fast_and_deep.data import Inputs, data
from firstspike.interop.fast_and_deep.layers import Builder, Source, translate_layers
from firstspike.interop.fast_and_deep.learning import loss, training
from firstspike.interop.fast_and_deep.neuron import bound, neuron, threshold_unit
from firstspike.interop.fast_and_deep.substrate import noise, runs_on_chip, substrate
from firstspike.interop.fast_and_deep.table import Remarks, Table
from firstspike.training.config import Config, parse_config

_MAX_BYTES = 1_000_000


@dataclass
class Translation:
    """What a config of theirs is here.

    Args:
        config: our config, as ``parse_config`` takes it.
        sources: for each of our parameters, by its name in ``state_dict``, where it is in their network.
        inexact: why spike times of theirs may differ from ours by more than rounding, one reason each.
        remarks: what has no counterpart, and what has no effect.
        name: their name of the data set, which their files carry.
    """

    config: dict[str, Any]
    sources: dict[str, Source]
    inexact: list[str] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)
    name: str = ""


class _Loader(yaml.SafeLoader):
    """Plain values only, and 1e-3 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_config(path: Path) -> dict[str, Any]:
    """Their YAML file as a dict.

    Raises:
        ValueError: no YAML, or no mapping.
        OSError: it cannot be read.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: is larger than {_MAX_BYTES} bytes, which no config is")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML raises all of these for values that do not fit their tags
        raise ValueError(f"{path}: is no YAML of plain values: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: is no config of fastAndDeep: expected a mapping")
    return raw


def import_config(path: Path, exact: bool = False) -> tuple[Config, Translation]:
    """Translate a YAML file of theirs; ``exact`` as in ``translate``.

    Raises:
        ValueError: no config of theirs, or one that cannot be expressed here.
        OSError: it cannot be read.
    """
    try:
        translation = translate(read_config(path), exact)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    return parse_config(translation.config, f"{path}, translated"), translation


def translate(raw: dict[str, Any], exact: bool = False) -> Translation:
    """Translate a config.

    Args:
        raw: their config, as its YAML file says it; it is not changed.
        exact: whether a network of theirs is taken over, whose delays must all find their place.

    Raises:
        ValueError: a config that is none of theirs, or uses what cannot be expressed here.
    """
    remarks = Remarks()
    root = Table(raw, "", remarks)
    if "network_layout" not in root or "training_params" not in root:
        raise ValueError("is no config of fastAndDeep: it has no network_layout and training_params")
    layout, params = root.table("network_layout"), root.table("training_params")
    dataset = _dataset(root)
    name = str(dataset.raw.get("name"))
    main = "default_neuron_params" in root
    defaults = root.table("default_neuron_params" if main else "neuron_params")
    root.close()
    on_chip = runs_on_chip(params.raw)
    n_inputs = layout.integer("n_inputs")
    inputs = data(dataset, n_inputs, on_chip)
    unrolled = inputs.size != n_inputs  # the file as it was before their program repeated the inputs for the chip
    layered = "layers" in layout
    if layered:
        tables = layout.tables("layers")
        if unrolled and tables and tables[0].raw.get("name") == "Biases":
            tables[0].raw["times"] = tables[0].numbers("times") * inputs.copies
        builder, base = translate_layers(tables, inputs, defaults, exact)
        if not main:
            builder.bounds = [bound(params)]
        else:
            params.without_effect("max_dw_norm")  # set by their program; the neurons' counts
    else:
        builder, base = _from_sizes(layout, params, inputs, defaults, unrolled)
    layout.without_effect("width_pixel")
    layout.close()
    where, inexact = substrate(params, builder.imperfections)
    entries = [{"kind": p.section["kind"]} | p.section for p in builder.layers]
    sources = {f"{i}.{key}": source for i, p in enumerate(builder.layers) for key, source in p.sources.items()}
    config = {
        "data": inputs.section,
        "neuron": base,
        "network": entries,
        "loss": loss(params, main, base["tau_syn"], _delays(sources)),
        "training": training(params, builder.bounds),
    }
    if where:
        config["substrate"] = where
    return Translation(config, sources, inexact, remarks, name)


def _dataset(root: Table) -> Table:
    """The data set, which older configs only name."""
    if "dataset_params" in root:
        return root.table("dataset_params")
    named = root.take("dataset")
    return Table(named if isinstance(named, dict) else {"name": named}, "dataset", root.remarks)


def _from_sizes(
    layout: Table, params: Table, inputs: Inputs, defaults: Table, unrolled: bool
) -> tuple[Builder, dict[str, float]]:
    """The network of the release 1.0.0: layers of neurons, each with bias spikes behind its inputs."""
    sizes = layout.integers("layer_sizes")
    count = len(sizes)
    if layout.integer("n_layers", count) != count:
        raise ValueError(f"{layout.place}.n_layers: {layout.raw['n_layers']} layers, but {count} layer_sizes")
    means, stds = layout.numbers("weight_means", count), layout.numbers("weight_stdevs", count)
    silent = params.numbers("max_num_missing_spikes", count)
    biases = _bias_times(layout, count)
    if unrolled and inputs.copies > 1:
        biases = [biases[0] * inputs.copies] + [[] for _ in biases[1:]]
    base = neuron(defaults)
    imperfect = noise(defaults, threshold_unit(defaults, base["tau_mem"], base["tau_syn"]))
    bounds = [bound(defaults if "max_dw_norm" in defaults else params)]
    params.take("max_dw_norm", None)
    defaults.take("max_dw_norm", None)
    defaults.close()
    builder = Builder(inputs, exact=True)
    builder.imperfections.neurons = [imperfect] * count
    for index, size in enumerate(sizes):
        builder.bias(biases[index])
        section = {"size": size, "weight_mean": means[index], "weight_std": stds[index], "max_silent": silent[index]}
        builder.lif(section, index)
    builder.bounds = bounds
    return builder, base


def _bias_times(layout: Table, count: int) -> list[list[float]]:
    """Bias spikes of each layer: one list for all, or a list each."""
    times = layout.take("bias_times", [])
    numbers = layout.integers("n_biases", count)
    if isinstance(times, list) and times and isinstance(times[0], list):
        per_layer = [
            Table({"bias_times": entry}, layout.place, layout.remarks).numbers("bias_times") for entry in times
        ]
        per_layer += [[] for _ in range(count - len(per_layer))]
    else:
        per_layer = [layout.numbers("bias_times") if n else [] for n in numbers]
    for index, (n, entry) in enumerate(zip(numbers, per_layer, strict=True)):
        if n != len(entry):
            raise ValueError(f"{layout.place}.bias_times: layer {index} has {n} biases and {len(entry)} times")
    return per_layer


def _delays(sources: dict[str, Source]) -> int:
    """Number of delays in the network."""
    return sum(math.prod((*s.shape, *s.tiles, s.copies)) for s in sources.values() if s.kind != "weight")
