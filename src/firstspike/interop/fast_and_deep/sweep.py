"""A sweep file of the original becomes one of ours.

Its ``parameters`` span a grid. Each has a ``path`` into a config, such as ``network_layout/layers/1/size``, or a list
of paths that take the same values in lock-step, and a list of values as ``value``. The config is a file of its own.

All points are translated. A parameter that always changes the same single key of our config becomes an axis; those that
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

_MOST_POINTS = 2000
_SEED = ("training", "seed")

Key = tuple[str | tuple[str, int], ...]  # ("network", ("lif", 0), "out_features") is network[lif:0].out_features
Grid = dict[tuple[int, ...], Translation]  # by the index of each parameter's value


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
    if (points := math.prod(len(parameter.values) for parameter in parameters)) > _MOST_POINTS:
        raise ValueError(f"expected at most {_MOST_POINTS} points, got {points}")
    grid: Grid = {}
    for indices in itertools.product(*(range(len(parameter.values)) for parameter in parameters)):
        point = copy.deepcopy(base)
        for parameter, index in zip(parameters, indices, strict=True):
            parameter.apply(point, index)
        grid[indices] = translate(point)
    axes: dict[Key, list[Any]] = {}
    in_base = []  # of each parameter the indices of the values that need a base config of their own
    for number, parameter in enumerate(parameters):
        axis = _axis(grid, number)
        in_base.append(range(len(parameter.values)) if axis is None else range(1))
        if axis is not None and axis[0]:
            axes |= dict([axis])
        elif axis is not None and len(parameter.values) > 1:
            root.no_counterpart.append(f"{parameter.place}: {', '.join(parameter.paths)} changes nothing here")
    bases: dict[str, str] = {}
    for indices in itertools.product(*in_base):
        values = [p.values[i] for p, i, own in zip(parameters, indices, in_base, strict=True) if len(own) > 1]
        label = "_".join(re.sub(r"[^\w.-]+", "-", str(value))[:30] for value in values) or "base"
        file = f"{name}_{label}.yaml" if f"{name}_{label}.yaml" not in bases else f"{name}_{len(bases)}.yaml"
        bases[file] = parse_config(grid[indices].config, file).to_yaml()
        root.no_counterpart += grid[indices].no_counterpart
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


def _axis(grid: Grid, number: int) -> tuple[Key, list[Any]] | None:
    """The one key that a parameter changes and its values; an empty key if it changes none, None if it changes more."""
    keys: set[Key] = set()
    for indices, point in grid.items():
        keys.update(_changed_keys(grid[(*indices[:number], 0, *indices[number + 1 :])].config, point.config))
    if len(keys) > 1 or ("network",) in keys:
        return None
    key: Key = keys.pop() if keys else ()
    values: dict[int, Any] = {}
    for indices, point in grid.items() if key else ():
        try:
            value = _get(point.config, key)
        except LookupError:
            return None
        if values.setdefault(indices[number], value) != value:
            return None
    return key, list(values.values())


def _changed_keys(a: Any, b: Any, key: Key = ()) -> Iterator[Key]:
    """The innermost keys in which two configs of ours differ."""
    if a == b:
        return
    if key == ("network",) and _places(a) == _places(b):
        for step, one, other in zip(_places(a), a, b, strict=True):
            yield from _changed_keys(one, other, (*key, step))
    elif isinstance(a, dict) and isinstance(b, dict) and a.get("kind") == b.get("kind"):
        for name in a.keys() | b.keys():
            yield from _changed_keys(a[name], b[name], (*key, name)) if name in a and name in b else [(*key, name)]
    else:
        yield key


def _places(layers: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Of each layer its kind, and how many of that kind come before it."""
    kinds = [layer["kind"] for layer in layers]
    return [(kind, kinds[:index].count(kind)) for index, kind in enumerate(kinds)]


def _get(config: Any, key: Key) -> Any:
    for step in key:
        config = config[step] if isinstance(step, str) else dict(zip(_places(config), config, strict=True))[step]
    return config


def _sweep(bases: list[str], axes: dict[Key, list[Any]]) -> dict[str, Any]:
    """The sweep's file; consecutive seeds are trained side by side, from that of the base config on."""
    sweep: dict[str, Any] = {"base": bases[0]} if len(bases) == 1 else {}
    values: dict[str, list[Any]] = {} if len(bases) == 1 else {"base": bases}
    for key, found in axes.items():
        unique = [value for index, value in enumerate(found) if value not in found[:index]]
        consecutive = [unique[0] + k for k in range(len(unique))] if key == _SEED else []
        if len(bases) * len(axes) > 1 and unique == consecutive:
            sweep["seeds"] = len(unique)
        else:
            steps = (f".{step}" if isinstance(step, str) else f"[{step[0]}:{step[1]}]" for step in key)
            values["".join(steps)[1:]] = unique
    if not values:
        raise ValueError("the sweep changes nothing that firstspike has")
    return sweep | {"axes": values}
