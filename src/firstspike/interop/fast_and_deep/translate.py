"""A config of the original becomes one of ours, dict to dict; it loads no torch.

Two forms are known. In release 1.0.0 ``network_layout`` has ``layer_sizes``, ``n_biases``, ``bias_times``,
``weight_means`` and ``weight_stdevs``; the current form lists ``layers``.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from firstspike.interop.fast_and_deep.layers import NetworkBuilder, Source, neuron, threshold_unit, translate_layers
from firstspike.interop.fast_and_deep.sections import Inputs, data, loss, training
from firstspike.interop.fast_and_deep.substrate import noise, runs_on_chip, substrate
from firstspike.interop.fast_and_deep.table import Table
from firstspike.training.config import Config, parse_config

_MAX_BYTES = 1_000_000


@dataclass
class Translation:
    """What a config of the original is here.

    Args:
        config: our config, as ``parse_config`` takes it.
        sources: for each parameter of ours, by its name in ``state_dict``, where it is in the original's network.
        inexact: why the original's spike times may differ from ours by more than rounding, one reason each.
        no_counterpart: what firstspike does not have, one line each.
        without_effect: keys that change neither what a network computes nor what it learns, one line each.
        name: the original's name of the data set, with which its files begin.
    """

    config: dict[str, Any]
    sources: dict[str, Source]
    inexact: list[str]
    no_counterpart: list[str]
    without_effect: list[str]
    name: str


class _Loader(yaml.SafeLoader):
    """Plain values only, and 1e-3 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of the original as a dict.

    Raises:
        ValueError: not YAML of plain values, or not a mapping.
        OSError: it cannot be read.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: exceeds the limit of {_MAX_BYTES} bytes for configs")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML of plain values: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: not a config of fastAndDeep: expected a mapping")
    return raw


def import_config(path: Path, exact: bool = False) -> tuple[Config, Translation]:
    """Translate a YAML file; ``exact`` as in ``translate``.

    Raises:
        ValueError: not a config of the original, or one that cannot be expressed here.
        OSError: it cannot be read.
    """
    raw = read_yaml(path)
    try:
        translation = translate(raw, exact)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return parse_config(translation.config, f"{path}, translated"), translation


def translate(raw: dict[str, Any], exact: bool = False) -> Translation:
    """Translate a config.

    Args:
        raw: the original's config, as its YAML file has it; it is not changed.
        exact: whether a trained network is imported as well, whose delays must all keep their place.

    Raises:
        ValueError: not a config of the original, or one that uses what cannot be expressed here.
    """
    root = Table(raw)
    if "network_layout" not in root or "training_params" not in root:
        raise ValueError("not a config of fastAndDeep: expected the keys network_layout and training_params")
    layout, params = root.table("network_layout"), root.table("training_params")
    dataset = _dataset(root)
    current = "default_neuron_params" in root
    defaults = root.table("default_neuron_params" if current else "neuron_params")
    root.close()
    n_inputs = layout.integer("n_inputs")
    inputs = data(dataset, n_inputs, runs_on_chip(params.raw))
    # whether the file is as it was before the program repeated the inputs, and their biases, for the chip
    copies = inputs.copies if inputs.size != n_inputs else 1
    if "layers" in layout:
        tables = layout.tables("layers")
        if tables and tables[0].raw.get("name") == "Biases":
            tables[0].raw["times"] = tables[0].numbers("times") * copies
        builder, base = translate_layers(tables, inputs, defaults, exact)
        if current:
            params.skip("max_dw_norm")  # set by the program; the neurons' counts
        else:
            builder.weight_grad_limits = [params.optional("max_dw_norm")]
    else:
        builder, base = _from_sizes(layout, params, inputs, defaults, copies)
    layout.skip("width_pixel")
    layout.close()
    section, inexact = substrate(params, builder.imperfections)
    lif_layers = [layer for layer in builder.layers if layer["kind"] == "lif"]
    for layer, limit in zip(lif_layers, builder.silent_limits, strict=True):
        layer["max_silent"] = limit
    delays = sum(math.prod((*s.shape, *s.tiles, s.copies)) for s in builder.sources.values() if s.kind != "weight")
    config = {
        "data": inputs.section,
        "neuron": base,
        "network": builder.layers,
        "loss": loss(params, current, base["tau_syn"], delays, len(builder.order)),
        "training": training(params, builder.weight_grad_limits),
    }
    if section:
        config["substrate"] = section
    notes = root.no_counterpart, root.without_effect
    return Translation(config, builder.sources, inexact, *notes, str(dataset.raw["name"]))


def _dataset(root: Table) -> Table:
    """The data set, of which older configs have only the name."""
    if "dataset_params" in root:
        return root.table("dataset_params")
    dataset = root.take("dataset")
    return Table(dataset if isinstance(dataset, dict) else {"name": dataset}, "dataset", root)


def _from_sizes(
    layout: Table, params: Table, inputs: Inputs, defaults: Table, copies: int
) -> tuple[NetworkBuilder, dict[str, float]]:
    """The network of release 1.0.0: layers of neurons, each with bias spikes after its inputs."""
    sizes = layout.integers("layer_sizes")
    count = len(sizes)
    if layout.integer("n_layers", count) != count:
        raise ValueError(f"{layout.place}.n_layers: {layout.raw['n_layers']} layers, but {count} layer_sizes")
    means, stds = layout.numbers("weight_means", count), layout.numbers("weight_stdevs", count)
    silent = params.numbers("max_num_missing_spikes", count)
    biases = _bias_times(layout, count)
    if copies > 1:
        biases = [times * copies for times in biases[:1]] + [[] for _ in biases[1:]]
    base = neuron(defaults)
    imperfections = noise(defaults, threshold_unit(defaults, base))
    builder = NetworkBuilder(inputs, exact=True)
    builder.weight_grad_limits = [(defaults if "max_dw_norm" in defaults else params).optional("max_dw_norm")]
    params.take("max_dw_norm", None)
    defaults.close()
    builder.imperfections.neurons = [imperfections] * count
    for index, size in enumerate(sizes):
        builder.bias(biases[index])
        builder.lif(index, size, means[index], stds[index], silent[index])
    return builder, base


def _bias_times(layout: Table, count: int) -> list[list[float]]:
    """Bias spikes of each layer: one list for all, or a list each."""
    times = layout.take("bias_times", [])
    numbers = layout.integers("n_biases", count)
    if isinstance(times, list) and times and isinstance(times[0], list):
        each = [Table({"bias_times": entry}, layout.place, layout).numbers("bias_times") for entry in times]
        each += [[] for _ in range(count - len(each))]
    else:
        each = [layout.numbers("bias_times") if n else [] for n in numbers]
    for index, (n, entry) in enumerate(zip(numbers, each, strict=True)):
        if n != len(entry):
            raise ValueError(f"{layout.place}.bias_times: layer {index} has {n} biases and {len(entry)} times")
    return each
