"""The trials of a sweep and their configs: all can be built before the first one starts."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from firstspike.config import Config, ConfigError, load_config
from firstspike.config.load import read_yaml
from firstspike.config.network import Problem
from firstspike.config.sections import CUSTOM
from firstspike.config.yaml_file import Place, shown_place, shown_value
from firstspike.sweeps.config import N_SEEDS, Choice, Range, Sweep, choices

Params = Mapping[str, Choice]
"""The values of one trial, by axis."""


@dataclass(frozen=True)
class Plan:
    """A checked sweep: the name of its study, what its file says, and the folder of base configs that are files."""

    name: str
    sweep: Sweep
    folder: Path

    @property
    def n_trials(self) -> int:
        """The number of trials."""
        return self.sweep.trials or len(self.grid())

    def grid(self) -> list[Params]:
        """All combinations of a grid, the last axis fastest."""
        axes = self.sweep.axes
        return [dict(zip(axes, row, strict=True)) for row in itertools.product(*map(choices, axes.values()))]

    def config(self, params: Params) -> Config:
        """The config of a trial; a ConfigError names all values that do not fit."""
        base, axes, values = self._base(params), self.sweep.axes, dict(self.sweep.settings)
        for key, choice in params.items():
            axis = axes[key]
            if key != "base":
                values[key] = choice if isinstance(axis, Range) else axis[choices(axis).index(choice)]
        if self.sweep.seeds is not None:
            values[N_SEEDS[0]] = self.sweep.seeds
        return load_config(base, [f"{_resolved(key, base)}={_yaml(value)}" for key, value in values.items()])

    def problems(self) -> list[Problem]:
        """Why trials cannot be built, and where that is in the file.

        All trials of a grid are built; for other samplers the extremes of each axis, with the others at both ends.
        """
        problems = [(place, f"{shown_place(place)}: {message}") for place, message in self.sweep.errors()]
        built = self.grid() if self.sweep.sampler == "grid" and not problems else list(self._extremes())
        found: dict[str, list[Params]] = {}
        for params in built if self.sweep.base or "base" in self.sweep.axes else ():
            for text in self._refusals(params):
                found.setdefault(text, []).append(params)
        for text, bad in found.items():
            more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            where = "" if len(bad) == len(built) else f" (at {describe(bad[0])}{more})"
            problems.append((self._place_of(text, self._base(bad[0])), text + where))
        return problems

    def _refusals(self, params: Params) -> Iterator[str]:
        """Why a trial cannot be trained."""
        try:
            config = self.config(params)
        except ConfigError as error:
            for text, line in zip(error.errors, error.lines, strict=True):
                yield text.removeprefix("--set ") + ("" if line is None else f" ({error.source}, line {line})")
            return
        parts: dict[str, Any] = {"data": config.data, "loss": config.loss, "substrate": config.substrate}
        parts |= {f"training.{key}": getattr(config.training, key) for key in ("optimizer", "schedule")}
        parts |= {f"network[{index}]": layer for index, layer in enumerate(config.network)}
        for place, part in parts.items():
            if (kind := getattr(part, "kind", None)) in ("given", CUSTOM):
                yield f"{place}: {kind} objects are made in Python, so trials cannot build them; use a registered kind"
        needed = {"metric": "test" if self.sweep.metric.startswith("test") else "validation"}
        needed |= {"pruning": "validation"} if self.sweep.pruning else {}
        for key, split in needed.items():
            if not getattr(config.data, split, True):
                yield f"{key}: needs {split} data, but data.{split} is 0"

    def _place_of(self, error: str, base: str) -> Place:
        """Where in the sweep's file the value is that a trial was refused for; empty if it is not there."""
        parts = {"set": self.sweep.settings, "axes": self.sweep.axes}
        places = [("metric",), ("pruning",), *((part, key) for part, keys in parts.items() for key in keys)]
        return next((x for x in places if re.match(rf"{re.escape(_resolved(x[-1], base))}(?!\w)", error)), ())

    def _base(self, params: Params) -> str:
        """The base config of a trial: a file, or the name of a shipped one."""
        base = str(params.get("base", self.sweep.base))
        return str(self.folder / base) if (self.folder / base).is_file() else base

    def _extremes(self) -> Iterator[Params]:
        ends = {key: [x.start, x.to] if isinstance(x, Range) else choices(x) for key, x in self.sweep.axes.items()}
        for end in (0, -1):
            start = {key: values[end] for key, values in ends.items()}
            yield from ({**start, key: value} for key, values in ends.items() for value in values)

    def definition(self) -> dict[str, Any]:
        """What all workers on a study must agree on, ready for JSON: the sweep, and its base configs."""
        sweep = self.sweep.model_dump(mode="json", by_alias=True, exclude={"heartbeat", "grace", "trials"})
        bases = choices(self.sweep.axes["base"]) if self.sweep.base is None else [self.sweep.base]
        return sweep | {f"config {base}": _without_folders(self._base({"base": base})) for base in bases}


def load_plan(file: Path, name: str | None = None) -> Plan:
    """Read a sweep's file and check all of it; by default the study has the file's name.

    Raises:
        ConfigError: no such file, invalid YAML, keys or values that do not fit, trials whose config is refused.
    """
    if not file.is_file():
        raise ConfigError(str(file), ["no such file; a sweep is a YAML file with a base and axes"])
    document = read_yaml(file, (field.alias or key for key, field in Sweep.model_fields.items()))
    name = name or file.stem
    if not re.fullmatch(r"\w[\w.-]*", name):
        rule = "give a --name of letters, digits, '_', '-' and '.'"
        raise ConfigError(str(file), [f"the name {name!r} becomes a folder: {rule}"])
    try:
        plan = Plan(name, Sweep.model_validate(document.data), file.resolve().parent)
        problems = plan.problems()
    except ValidationError as error:
        problems = list(map(_explain, error.errors(include_url=False)))
    if problems:
        raise ConfigError(str(file), [text for _, text in problems], [document.line(place) for place, _ in problems])
    return plan


def describe(params: Params) -> str:
    """The values of a trial, for people."""
    shown = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in params.items()}
    return ", ".join(f"{key}={value}" for key, value in shown.items())


def _resolved(key: str, base: str) -> str:
    """A key as ``load_config`` takes it: ``network[lif:1]``, the second layer of its kind, gets its place."""
    if (found := re.match(r"network\[([a-z]+):(\d+)\]", key)) is None:
        return key
    kinds, number = _kinds(base), int(found[2])
    places = [place for place, kind in enumerate(kinds) if kind == found[1]]
    return f"network[{places[number] if number < len(places) else len(kinds)}]{key[found.end() :]}"


@cache
def _kinds(base: str) -> tuple[str, ...]:
    return tuple(layer.kind for layer in load_config(base).network)


def _without_folders(base: str) -> dict[str, Any]:
    """A config as a dict; files of your own data by their names alone, as each machine may have them elsewhere."""
    config = load_config(base).model_dump(mode="json")
    paths = {key: x for key, x in config["data"].items() if isinstance(x, str) and Path(x).is_absolute()}
    return config | {"data": config["data"] | {key: Path(x).name for key, x in paths.items()}}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()


def _explain(detail: Any) -> Problem:
    """One pydantic error: its place, and what is wrong."""
    place = tuple(step for step in detail["loc"] if step not in ("values", "range", "median", "halving"))
    kind, value = detail["type"], detail["input"]
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "model_type" and place[0] == "axes":
        message = "expected a list of values, or a range as {from: 1, to: 5}"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "expected keys with values"
    message += "" if isinstance(value, dict | list) else f", got {shown_value(value)}"
    message = {"extra_forbidden": "unknown key", "missing": "is missing"}.get(kind, message)
    return place, f"{shown_place(place) or 'sweep'}: {message}"
