"""A sweep file of the original becomes one of ours.

Its ``parameters`` span a grid. Each has a ``path`` into a config, such as ``network_layout/layers/1/size``, or a list
of paths that take the same values in lock-step, and a list of values as ``value``. The config is a file of its own.

All trials are translated. A parameter that always changes the same single key of our config becomes an axis; those that
change several keys, or the layers of the network, become configs of their own, which the axis ``base`` varies.
"""

import copy
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from firstspike.config import parse_config
from firstspike.interop.fast_and_deep.table import Table
from firstspike.interop.fast_and_deep.translate import Translation, read_yaml, translate

_MOST_TRIALS = 2000
_SEED = "training.seed"
_KINDS = "network"  # the kinds of all layers
_MISSING = object()

Grid = dict[tuple[int, ...], dict[str, Any]]
"""The values of our configs by their keys, of each trial by the index of each parameter's value."""


@dataclass(frozen=True)
class _Parameter:
    place: str
    paths: list[str]
    values: list[Any]

    def apply(self, raw: dict[str, Any], index: int) -> None:
        """Set one of the values at all paths of a config."""
        for path in self.paths:
            *parents, last = path.split("/")
            node: Any = raw
            try:
                for step in parents:
                    node = node[int(step) if isinstance(node, list) else step]
                at: Any = int(last) if isinstance(node, list) else last
                _ = node[at]  # the original does not add keys either
                node[at] = copy.deepcopy(self.values[index])
            except (LookupError, TypeError, ValueError):
                raise ValueError(f"{self.place}.path: the config has no {path}") from None


def is_sweep(raw: dict[str, Any]) -> bool:
    """Whether a YAML file of the original is a sweep rather than a config."""
    return "parameters" in raw and "network_layout" not in raw


def import_sweep(file: Path, config: Path, name: str) -> tuple[dict[str, str], list[str]]:
    """Translate a sweep.

    Args:
        file: the original's sweep file.
        config: the original's config that it varies.
        name: of our sweep, with which the names of its files begin.

    Returns:
        Texts by file name, the sweep and then its base configs; and what has no counterpart, one line each.

    Raises:
        ValueError: not a sweep of the original, a path that the config does not have, or values without counterpart.
        OSError: a file cannot be read.
    """
    raw, base = read_yaml(file), read_yaml(config)
    try:
        return _translate_sweep(raw, base, name)
    except ValueError as error:
        raise ValueError(f"{file} with {config}: {error}") from None


def _translate_sweep(raw: dict[str, Any], base: dict[str, Any], name: str) -> tuple[dict[str, str], list[str]]:
    root = Table(raw)
    parameters = _parameters(root)
    if (count := math.prod(len(parameter.values) for parameter in parameters)) > _MOST_TRIALS:
        raise ValueError(f"expected at most {_MOST_TRIALS} trials, got {count}")
    trials: dict[tuple[int, ...], Translation] = {}
    for indices in itertools.product(*(range(len(parameter.values)) for parameter in parameters)):
        trial = copy.deepcopy(base)
        for parameter, index in zip(parameters, indices, strict=True):
            parameter.apply(trial, index)
        trials[indices] = translate(trial)
    grid = {indices: dict(_flat(trial.config)) for indices, trial in trials.items()}
    axes: dict[str, list[Any]] = {}
    in_base = []  # of each parameter the indices of the values that need a base config of their own
    for number, parameter in enumerate(parameters):
        axis = _axis(grid, number)
        in_base.append(range(len(parameter.values)) if axis is None else range(1))
        if axis:
            axes |= axis
        elif axis is not None and len(parameter.values) > 1:
            root.no_counterpart.append(f"{parameter.place}: {', '.join(parameter.paths)} changes nothing here")
    bases: dict[str, str] = {}
    for indices in itertools.product(*in_base):
        values = [p.values[i] for p, i, own in zip(parameters, indices, in_base, strict=True) if len(own) > 1]
        label = "_".join(re.sub(r"[^\w.-]+", "-", str(value))[:30] for value in values) or "base"
        file = f"{name}_{label}.yaml" if f"{name}_{label}.yaml" not in bases else f"{name}_{len(bases)}.yaml"
        bases[file] = parse_config(trials[indices].config, file).to_yaml()
        root.no_counterpart += trials[indices].no_counterpart
    lines = {line.partition(" = ")[0]: line for line in reversed(root.no_counterpart)}  # each key once
    text = yaml.safe_dump(_sweep(list(bases), axes), sort_keys=False)
    return {f"{name}.yaml": text} | bases, [*reversed(lines.values())]


def _parameters(root: Table) -> list[_Parameter]:
    found = []
    for table in root.tables("parameters"):
        path, values = table.take("path"), table.take("value", [])
        paths = path if isinstance(path, list) else [path]
        if not paths or not all(isinstance(path, str) for path in paths):
            raise ValueError(f"{table.place}.path: expected a path such as training_params/learning_rate, got {path!r}")
        if values == []:
            table.note("value", f" is empty: {', '.join(paths)} stays as it is, as in the original")
        else:
            found.append(_Parameter(table.place, paths, values if isinstance(values, list) else [values]))
        table.close()
    root.close()
    return found


def _flat(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config by the keys that a sweep varies, such as ``network[lif:0].out_features``."""
    if key == "network":
        kinds = [layer["kind"] for layer in config]
        yield _KINDS, kinds
        for index, (kind, layer) in enumerate(zip(kinds, config, strict=True)):
            yield from _flat(layer, f"network[{kind}:{kinds[:index].count(kind)}]")
    elif isinstance(config, dict):
        for name, value in config.items():
            yield from _flat(value, f"{key}.{name}".lstrip("."))
    else:
        yield key, config


def _axis(grid: Grid, number: int) -> dict[str, list[Any]] | None:
    """The one key that a parameter changes and its values; empty if it changes none, None if it changes more."""
    changed: set[str] = set()
    for indices, trial in grid.items():
        first = grid[(*indices[:number], 0, *indices[number + 1 :])]
        keys = trial.keys() | first.keys()
        changed |= {key for key in keys if trial.get(key, _MISSING) != first.get(key, _MISSING)}
    if not changed:
        return {}
    key = changed.pop()
    if changed or key == _KINDS or any(key not in trial for trial in grid.values()):
        return None
    values: dict[int, Any] = {}
    for indices, trial in grid.items():
        if values.setdefault(indices[number], trial[key]) != trial[key]:
            return None
    return {key: list(values.values())}


def _sweep(bases: list[str], found: dict[str, list[Any]]) -> dict[str, Any]:
    """The sweep's file; consecutive seeds are trained side by side, from that of the base config on."""
    sweep: dict[str, Any] = {"base": bases[0]} if len(bases) == 1 else {}
    axes: dict[str, list[Any]] = {} if len(bases) == 1 else {"base": bases}
    for key, values in found.items():
        unique = [value for index, value in enumerate(values) if value not in values[:index]]
        alone = len(bases) == len(found) == 1  # a sweep needs an axis
        if key == _SEED and not alone and unique == [unique[0] + k for k in range(len(unique))]:
            sweep["seeds"] = len(unique)
        else:
            axes[key] = unique
    if not axes:
        raise ValueError("the sweep changes nothing that firstspike has")
    return sweep | {"axes": axes}
