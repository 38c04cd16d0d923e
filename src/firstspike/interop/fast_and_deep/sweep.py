"""A sweep file of the original becomes one of ours.

Its ``parameters`` span a grid. Each has a ``path`` into a config, such as ``network_layout/layers/1/size``, or a list
of paths that take the same values in lock-step, and a list of values as ``value``. The config is a file of its own.

A parameter that changes one key of our config becomes an axis. Those that change several, or the layers of the network,
become configs of their own, which the axis ``base`` varies. Every point of our grid is compared with the translation of
the original's; where one differs, all points become configs.
"""

import copy
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from firstspike.interop.fast_and_deep.table import Remarks, Table
from firstspike.interop.fast_and_deep.translate import parse_config, read_yaml, translate

_MOST_POINTS = 2000
_SEED = ("training", "seed")

Key = tuple[str | tuple[str, int], ...]  # ("network", ("lif", 0), "size") for network[lif:0].size


@dataclass(frozen=True)
class ImportedSweep:
    """Our sweep.

    Args:
        files: texts by file name: the sweep, then its base configs.
        no_counterpart: what firstspike does not have, one line each.
    """

    files: dict[str, str]
    no_counterpart: list[str]


@dataclass(frozen=True)
class _Parameter:
    place: str
    paths: list[str]
    values: list[Any]

    def apply(self, raw: dict[str, Any], value: Any) -> dict[str, Any]:
        """A copy of the original's config with the value at all paths."""
        raw = copy.deepcopy(raw)
        for path in self.paths:
            *parents, last = path.split("/")
            node: Any = raw
            try:
                for step in parents:
                    node = node[int(step) if isinstance(node, list) else step]
                at: Any = int(last) if isinstance(node, list) else last
                _ = node[at]  # the original does not add keys either
                node[at] = copy.deepcopy(value)
            except (LookupError, TypeError, ValueError):
                raise ValueError(f"{self.place}.path: the config has no {path}") from None
        return raw


@dataclass(frozen=True)
class _Axis:
    key: Key
    values: list[Any]  # one for each value of the parameter


def is_sweep(raw: dict[str, Any]) -> bool:
    """Whether a YAML file of the original is a sweep rather than a config."""
    return "parameters" in raw and "network_layout" not in raw


def import_sweep(file: Path, config: Path, name: str) -> ImportedSweep:
    """Translate a sweep.

    Args:
        file: the original's sweep file.
        config: the original's config that it varies.
        name: of our sweep, with which the names of its files begin.

    Raises:
        ValueError: not a sweep of the original, a path that the config does not have, or values without counterpart.
        OSError: a file cannot be read.
    """
    raw, base = read_yaml(file), read_yaml(config)
    try:
        return _translate_sweep(raw, base, name)
    except ValueError as error:
        raise ValueError(f"{file} with {config}: {error}") from None


def _translate_sweep(raw: dict[str, Any], base: dict[str, Any], name: str) -> ImportedSweep:
    remarks = Remarks()
    parameters = _parameters(Table(raw, "", remarks))
    points = math.prod(len(parameter.values) for parameter in parameters)
    if points > _MOST_POINTS:
        raise ValueError(f"expected at most {_MOST_POINTS} points, got {points}")
    axes = [_axis(base, parameter) for parameter in parameters]
    for parameter, axis in zip(parameters, axes, strict=True):
        if axis is not None and not axis.key:
            remarks.no_counterpart.append(
                f"{parameter.place}: {', '.join(parameter.paths)} changes nothing here; left out"
            )
    if not _same_points(base, parameters, axes):
        axes = [None if axis is None or axis.key else axis for axis in axes]
    varied = [parameter for parameter, axis in zip(parameters, axes, strict=True) if axis is None]
    bases = {}
    for values in itertools.product(*(parameter.values for parameter in varied)):
        translation = translate(_applied(base, varied, values))
        remarks.no_counterpart += translation.remarks.no_counterpart
        label = "_".join(re.sub(r"[^\w.-]+", "-", str(value))[:30] for value in values) or "base"
        label = f"{name}_{label}" if f"{name}_{label}.yaml" not in bases else f"{name}_{label}_{len(bases)}"
        bases[f"{label}.yaml"] = parse_config(translation.config, label).to_yaml()
    sweep = _sweep(list(bases), [axis for axis in axes if axis is not None and axis.key])
    if not sweep["axes"]:
        raise ValueError("the sweep changes nothing that firstspike has")
    lines = {line.partition(" = ")[0]: line for line in reversed(remarks.no_counterpart)}  # each key once
    return ImportedSweep({f"{name}.yaml": yaml.safe_dump(sweep, sort_keys=False)} | bases, [*reversed(lines.values())])


def _parameters(root: Table) -> list[_Parameter]:
    found = []
    for table in root.tables("parameters"):
        path, values = table.take("path"), table.take("value", [])
        paths = path if isinstance(path, list) else [path]
        if not paths or not all(isinstance(path, str) for path in paths):
            raise ValueError(f"{table.place}.path: expected a path such as training_params/learning_rate, got {path!r}")
        if values == []:
            table.report("value", f" is empty: {', '.join(paths)} keep the config's value, as in the original")
        else:
            found.append(_Parameter(table.place, paths, values if isinstance(values, list) else [values]))
        table.close()
    root.close()
    return found


def _applied(base: dict[str, Any], parameters: Sequence[_Parameter], values: Sequence[Any]) -> dict[str, Any]:
    for parameter, value in zip(parameters, values, strict=True):
        base = parameter.apply(base, value)
    return base


def _axis(base: dict[str, Any], parameter: _Parameter) -> _Axis | None:
    """The one key of our config that a parameter changes, empty if it changes nothing; None if it changes more."""
    before = translate(base).config
    variants = [translate(parameter.apply(base, value)).config for value in parameter.values]
    keys = {key for variant in variants for key in _changed_keys(before, variant)}
    if len(keys) > 1 or ("network",) in keys:
        return None
    key = keys.pop() if keys else ()
    try:
        return _Axis(key, [_get(variant, key) for variant in variants])
    except LookupError:  # a key that not all variants have
        return None


def _changed_keys(a: Any, b: Any, key: Key = ()) -> Iterator[Key]:
    """The innermost keys in which two configs of ours differ."""
    if a == b:
        return
    if key == ("network",) and [x["kind"] for x in a] == [x["kind"] for x in b]:
        for step, one, other in zip(_places(a), a, b, strict=True):
            yield from _changed_keys(one, other, (*key, step))
    elif isinstance(a, dict) and isinstance(b, dict) and a.get("kind") == b.get("kind"):
        for name in a.keys() | b.keys():
            if name in a and name in b:
                yield from _changed_keys(a[name], b[name], (*key, name))
            else:
                yield (*key, name)
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


def _same_points(base: dict[str, Any], parameters: list[_Parameter], axes: list[_Axis | None]) -> bool:
    """Whether our axes, set in the configs of the other parameters, give what the original's points translate to."""
    for indices in itertools.product(*(range(len(parameter.values)) for parameter in parameters)):
        values = [parameter.values[index] for parameter, index in zip(parameters, indices, strict=True)]
        wanted = translate(_applied(base, parameters, values)).config
        varied = [(p, v) for p, v, axis in zip(parameters, values, axes, strict=True) if axis is None]
        found = translate(_applied(base, *zip(*varied, strict=True)) if varied else base).config
        try:
            for axis, index in zip(axes, indices, strict=True):
                if axis is not None and axis.key:
                    _get(found, axis.key[:-1])[axis.key[-1]] = axis.values[index]
        except LookupError:
            return False
        if found != wanted:
            return False
    return True


def _sweep(bases: list[str], axes: list[_Axis]) -> dict[str, Any]:
    """The sweep's file; consecutive seeds are trained side by side."""
    sweep: dict[str, Any] = {"base": bases[0]} if len(bases) == 1 else {}
    values = {} if len(bases) == 1 else {"base": bases}
    for axis in axes:
        unique = [value for index, value in enumerate(axis.values) if value not in axis.values[:index]]
        if (
            axis.key == _SEED
            and len(bases) + len(axes) > 2
            and unique == list(range(unique[0], unique[0] + len(unique)))
        ):
            sweep |= {"set": {"training.seed": unique[0]}, "seeds": len(unique)}
        else:
            name = "".join(f".{step}" if isinstance(step, str) else f"[{step[0]}:{step[1]}]" for step in axis.key)
            values[name.removeprefix(".")] = unique
    return sweep | {"axes": values}
