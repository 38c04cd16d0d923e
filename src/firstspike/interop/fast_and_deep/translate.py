"""A config of the original becomes one of ours, dict to dict. It loads no torch.

Two forms are known. In release 1.0.0 ``network_layout`` has ``layer_sizes``, ``n_biases``, ``bias_times``,
``weight_means`` and ``weight_stdevs``. The current form lists ``layers``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from firstspike.config import Config, ConfigError, load_config
from firstspike.interop.fast_and_deep.layers import NetworkBuilder, Origin
from firstspike.interop.fast_and_deep.sections import data, loss, runs_on_chip, substrate, training
from firstspike.interop.fast_and_deep.table import Settings

_MAX_BYTES = 1_000_000


@dataclass
class Translation:
    """A translated config, as ``load_config`` takes it, and the settings that it leaves out."""

    config: dict[str, Any]
    sources: dict[str, Origin]  # of our parameters, by name in ``state_dict``
    inexact: list[str]  # why the original's spike times may differ by more than rounding
    no_counterpart: list[str]  # settings that are missing here


def import_config(path: Path, exact: bool = False) -> tuple[Config, Translation]:
    """Translate a YAML file; ``exact`` as in ``translate``."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: exceeds the limit of {_MAX_BYTES} bytes for configs")
    try:  # the original's files have aliases, which ours must not
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML raises all of these for values that do not fit their tags
        raise ValueError(f"{path}: not YAML of plain values: {' '.join(str(error).split())}") from None
    try:
        translation = translate(raw, exact)
        return load_config(translation.config), translation
    except ConfigError as error:
        raise ConfigError(f"{path}, translated", error.errors) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def translate(raw: dict[str, Any], exact: bool = False) -> Translation:
    """Translate a config; ``exact``: a trained network is imported as well, whose delays must all keep their place."""
    root = Settings(raw)
    if "network_layout" not in root or "training_params" not in root:
        raise ValueError("not a config of fastAndDeep: expected the keys network_layout and training_params")
    layout, params = root.table("network_layout"), root.table("training_params")
    if "dataset_params" in root:
        dataset = root.table("dataset_params")
    else:  # older configs have only the name
        named = root.take("dataset")
        dataset = Settings(named if isinstance(named, dict) else {"name": named}, "dataset", root)
    current = "default_neuron_params" in root
    defaults = root.table("default_neuron_params" if current else "neuron_params")
    root.close()
    n_inputs = layout.integer("n_inputs")
    inputs = data(dataset, n_inputs, runs_on_chip(params.raw))
    # whether the file is as it was before the program repeated the inputs, and their biases, for the chip
    copies = inputs.copies if inputs.size != n_inputs else 1
    listed = "layers" in layout
    tables = layout.tables("layers") if listed else _layers_from_sizes(layout, params, copies)
    if tables and tables[0].raw.get("name") == "Biases":
        tables[0].raw["times"] = tables[0].numbers("times") * copies
    builder = NetworkBuilder(inputs, defaults, exact)
    builder.add_layers(tables, listed)
    if current or "max_dw_norm" in defaults:
        params.skip("max_dw_norm")  # the neurons' counts
    else:
        builder.weight_grad_limits = [params.optional("max_dw_norm")]
    layout.skip("width_pixel")
    layout.close()
    section, inexact = substrate(params, builder.noise, builder.jitter)
    config = {
        "data": inputs.section,
        "neuron": builder.neuron,
        "network": builder.layers,
        "loss": loss(params, current, builder.neuron["tau_syn"], len(builder.order)),
        "training": training(params, builder.weight_grad_limits, builder.silent_limits),
    }
    if section:
        config["substrate"] = section
    return Translation(config, builder.sources, inexact, root.no_counterpart)


def _layers_from_sizes(layout: Settings, params: Settings, copies: int) -> list[Settings]:
    """The network of release 1.0.0 as a list of layers: neurons, each after its bias spikes."""
    sizes = layout.integers("layer_sizes")
    count = len(sizes)
    if layout.integer("n_layers", count) != count:
        raise ValueError(f"{layout.place}.n_layers: {layout.raw['n_layers']} layers, but {count} layer_sizes")
    biases = _bias_times(layout, count)
    layers: list[dict[str, Any]] = []
    means, stds = layout.numbers("weight_means", count), layout.numbers("weight_stdevs", count)
    silent = params.numbers("max_num_missing_spikes", count)
    if copies > 1:  # on the chip only the first layer has bias spikes
        biases[1:] = [[] for _ in biases[1:]]
    for times, size, mean, std, limit in zip(biases, sizes, means, stds, silent, strict=True):
        layers += [{"name": "Biases", "times": times}] if times else []
        layers.append({"name": "EqualtimeLayer", "size": size, "weights_mean": mean, "weights_std": std})
        layers[-1]["max_num_missing_spikes"] = limit
    return [Settings(layer, layout.place, layout) for layer in layers]


def _bias_times(layout: Settings, count: int) -> list[list[float]]:
    """Bias spikes of each layer: one list for all, or a list each."""
    times, numbers = layout.take("bias_times", []), layout.integers("n_biases", count)
    if isinstance(times, list) and times and isinstance(times[0], list):
        each = [Settings({"bias_times": entry}, layout.place, layout).numbers("bias_times") for entry in times]
        each += [[] for _ in range(count - len(each))]
    else:
        each = [layout.numbers("bias_times") if n else [] for n in numbers]
    for index, (n, entry) in enumerate(zip(numbers, each, strict=True)):
        if n != len(entry):
            raise ValueError(f"{layout.place}.bias_times: layer {index} has {n} biases and {len(entry)} times")
    return each
