"""The numbers of a trained network of theirs, put into the form of ours."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from firstspike.interop.fast_and_deep.layers import Source
from firstspike.interop.safe_pickle import StandIn
from firstspike.interop.torch_file import StoredTensor, read_torch_file

_NAMES = {"weight": "weights", "synaptic": "_delay_parameters"}
_CLASSES = {"weight": ("NeuronLayer", "EqualtimeLayer"), "synaptic": ("DelayLayer",)}


def read_network(path: Path, sources: dict[str, Source]) -> dict[str, Tensor]:
    """Parameters of ours from a pickled network of theirs.

    Args:
        path: their ``*_network.pt``.
        sources: for each of our parameters where theirs are, see ``Translation``.

    Returns:
        For each parameter its values in double precision: weights ``(out, in)``, delays before the bound.

    Raises:
        UnsafePickleError: the file wants to call something that is not harmless.
        ValueError: no network of theirs, or one that does not fit the config.
        OSError: it cannot be read.
    """
    layers = _layers(path, read_torch_file(path))
    found = {name: _value(path, layers, source) for name, source in sources.items()}
    return {name: torch.from_numpy(_arranged(values, sources[name])) for name, values in found.items()}


def _layers(path: Path, network: object) -> list[StandIn]:
    """The modules in the network's ``layers``, in order."""
    if not isinstance(network, StandIn):
        raise ValueError(f"{path}: holds no network, but {type(network).__name__}")
    container = _modules(network).get("layers")
    if not isinstance(container, StandIn):
        raise ValueError(f"{path}: {network.qualified} has no layers; expected a network of fastAndDeep")
    modules = _modules(container)
    return [modules[str(index)] for index in range(len(modules)) if str(index) in modules]


def _modules(module: StandIn) -> dict[str, StandIn]:
    found = module.attributes.get("_modules")
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _value(path: Path, layers: list[StandIn], source: Source) -> np.ndarray:
    """A parameter of theirs, of the shape that the config says."""
    kind = "weight" if source.kind == "weight" else "synaptic"
    place = f"{path}: layers[{source.layer}]"
    if source.layer >= len(layers):
        raise ValueError(f"{place} is missing: the network has {len(layers)} layers and does not fit the config")
    layer = layers[source.layer]
    if not isinstance(layer, StandIn) or layer.name not in _CLASSES[kind]:
        raise ValueError(f"{place}: expected {_CLASSES[kind][0]}, got {layer!r}; the network does not fit the config")
    parameters = layer.attributes.get("_parameters")
    # what does not learn is a plain attribute
    tensor = (parameters if isinstance(parameters, dict) else {}).get(_NAMES[kind], layer.attributes.get(_NAMES[kind]))
    if not isinstance(tensor, StoredTensor):
        raise ValueError(f"{place}: has no tensor {_NAMES[kind]}")
    if tensor.shape != source.shape:
        raise ValueError(
            f"{place}.{_NAMES[kind]}: expected shape {source.shape} by the config, got {tensor.shape}; is it the "
            "network of this config?"
        )
    values = np.array(tensor.array(), dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{place}.{_NAMES[kind]}: holds numbers that are not finite")
    return values


def _arranged(values: np.ndarray, source: Source) -> np.ndarray:
    """Theirs (inputs, neurons), in their order and shared, as ours."""
    full = np.tile(values, source.tiles)
    if source.kind == "dendritic":
        return full[0].copy()
    ordered = full[list(source.order)]
    return ordered[:, 0].copy() if source.kind == "axonal" else ordered.T.copy()
