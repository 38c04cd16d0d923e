"""Configs of earlier versions: their names become today's, with one warning (logging) for each file."""

import logging
from copy import deepcopy
from functools import lru_cache
from typing import Any

from firstspike.config.yaml_file import Document, Place

logger = logging.getLogger(__name__)

_LAYERS = {
    "size": "out_features",
    "channels": "out_channels",
    "kernel": "kernel_size",
    "train_neuron": "trainable",
}
_MOVED: dict[Place, Place] = {
    ("data", "mirrored"): ("data", "on_off"),
    ("training", "seeds"): ("training", "n_seeds"),
    ("training", "time_noise"): ("training", "augment", "jitter"),
    ("training", "augment", "drop"): ("training", "augment", "dropout"),
    ("training", "silent", "bump"): ("training", "silent", "increment"),
    ("training", "silent", "instead"): ("training", "silent", "skip_step"),
}


def upgraded(document: Document, source: str) -> Document:
    """The document with the names of this version; the same object if it has no others."""
    if not isinstance(document.data, dict):
        return document
    data, lines = deepcopy(document.data), dict(document.lines)
    changes: list[str] = []

    def move(before: Place, after: Place) -> None:
        parent = _at(data, before[:-1])
        if isinstance(parent, dict) and before[-1] in parent and _put(data, after, parent[before[-1]]):
            del parent[before[-1]]
            for place in [place for place in lines if place[: len(before)] == before]:
                lines[after + place[len(before) :]] = lines.pop(place)
            changes.append(f"{before[-1]} is now {after[-1]}")

    for before, after in _MOVED.items():
        move(before, after)
    network = data.get("network")
    for index, layer in enumerate(network if isinstance(network, list) else ()):
        if isinstance(layer, dict):
            for old, new in _LAYERS.items():
                if not (old == "size" and layer.get("kind") != "lif"):
                    move(("network", index, old), ("network", index, new))
    _move_limits(data, changes)
    if not changes:
        return document
    _warn(source, tuple(dict.fromkeys(changes)))
    return Document(data, lines)


@lru_cache(maxsize=100)  # a sweep reads the same file for each of its trials
def _warn(source: str, changes: tuple[str, ...]) -> None:
    logger.warning("%s: names of an earlier version: %s", source, ", ".join(changes))


def _move_limits(data: dict[str, Any], changes: list[str]) -> None:
    """``max_silent`` of each LIF layer becomes an entry of ``training.silent.limits``."""
    network = data.get("network")
    layers = [x for x in network if isinstance(x, dict)] if isinstance(network, list) else []
    spiking = [layer for layer in layers if layer.get("kind") in ("lif", "conv")]
    if any("max_silent" in layer for layer in spiking):
        known = _at(data, ("training", "silent", "limits"))
        known = known if isinstance(known, list) and len(known) == len(spiking) else [1.0] * len(spiking)
        limits = [layer.pop("max_silent", limit) for layer, limit in zip(spiking, known, strict=True)]
        if _put(data, ("training", "silent", "limits"), limits):
            changes.append("max_silent is now training.silent.limits")


def _at(data: Any, place: Place) -> Any:
    for step in place:
        inside = isinstance(data, dict) or (isinstance(data, list) and isinstance(step, int))
        if not inside or (isinstance(data, dict) and step not in data):
            return None
        data = data[step]
    return data


def _put(data: Any, place: tuple[Any, ...], value: Any) -> bool:
    """Set a value; False where something that is not a mapping is in the way."""
    for step in place[:-1]:
        if isinstance(data, list):
            data = data[step]
            continue
        if data.get(step) is None:
            data[step] = {}
        data = data[step]
        if not isinstance(data, dict | list):
            return False
    if not isinstance(data, dict):
        return False
    data[place[-1]] = value
    return True
