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
from firstspike.config.yaml_file import Document, Place, shown_place, shown_value
from firstspike.sweeps.config import N_SEEDS, Choice, Params, Range, Sweep, choices, extremes


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    Args:
        name: of the study.
        sweep: what the file says.
        folder: where base configs that are files are looked for.
    """

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

    def config(self, params: Mapping[str, Choice]) -> Config:
        """The config of a trial.

        Raises:
            ConfigError: values that do not fit; the message names all of them.
        """
        sweep = self.sweep
        base = self._base(params)
        values = dict(sweep.settings)
        for key, choice in params.items():
            axis = sweep.axes[key]
            if key != "base":
                values[key] = choice if isinstance(axis, Range) else axis[choices(axis).index(choice)]
        if sweep.seeds is not None:
            values[N_SEEDS[0]] = sweep.seeds
        settings, errors = [], []
        for key, value in values.items():
            try:
                settings.append(f"{_resolved(key, base)}={_yaml(value)}")
            except ConfigError as error:
                errors += error.errors
        try:
            config = load_config(base, settings)
        except ConfigError as error:
            raise ConfigError(error.source, [*errors, *error.errors], [*[None] * len(errors), *error.lines]) from None
        if errors:
            raise ConfigError(base, errors)
        return config

    def check(self, document: Document | None = None) -> None:
        """Build every trial of a grid; for other samplers the extremes of each axis, with the others at both ends.

        Args:
            document: what the sweep was read from, for the lines.

        Raises:
            ConfigError: trials that cannot be built; the message names all errors, and where they occur.
        """
        errors = [(place, f"{shown_place(place)}: {message}") for place, message in self.sweep.errors()]
        built = self.grid() if self.sweep.sampler == "grid" and not errors else list(self._extremes())
        found: dict[str, list[Params]] = {}
        for params in built if self.sweep.base or "base" in self.sweep.axes else ():
            for text in self._refusals(params):
                found.setdefault(text, []).append(params)
        for text, bad in found.items():
            more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            place = self._place_of(text, self._base(bad[0]))
            errors.append((place, text if len(bad) == len(built) else f"{text} (at {describe(bad[0])}{more})"))
        if errors:
            known = document or Document({})
            raise ConfigError(self.name, [text for _, text in errors], [known.line(place) for place, _ in errors])

    def _refusals(self, params: Params) -> Iterator[str]:
        """Why a trial cannot be trained."""
        try:
            data = self.config(params).data
        except ConfigError as error:
            for text, line in zip(error.errors, error.lines, strict=True):
                yield text.removeprefix("--set ") + ("" if line is None else f" ({error.source}, line {line})")
            return
        needed = {"metric": "test" if self.sweep.metric.startswith("test") else "validation"}
        if self.sweep.pruning is not None:
            needed["pruning"] = "validation"
        for key, part in needed.items():
            if not getattr(data, part, True):
                yield f"{key}: needs {part} data, but data.{part} is 0"

    def _place_of(self, error: str, base: str) -> Place:
        """Where in the sweep's file the value is that a trial was refused for; empty if it is not there."""
        parts = {"set": self.sweep.settings, "axes": self.sweep.axes}
        for place in [("metric",), ("pruning",), *((part, key) for part, keys in parts.items() for key in keys)]:
            try:
                key = _resolved(place[-1], base)
            except ConfigError:
                key = place[-1]
            if re.match(rf"{re.escape(key)}(?!\w)", error):
                return place
        return ()

    def _base(self, params: Mapping[str, Choice]) -> str:
        """The base config of a trial: a file, or the name of a shipped one."""
        base = str(params.get("base", self.sweep.base))
        return _located(base, self.folder)

    def _extremes(self) -> Iterator[Params]:
        checked = {key: extremes(axis) for key, axis in self.sweep.axes.items()}
        for end in (0, -1):
            start = {key: values[end] for key, values in checked.items()}
            yield start
            for key, values in checked.items():
                yield from ({**start, key: value} for value in values)

    def definition(self) -> dict[str, Any]:
        """What all workers on a study must agree on, ready for JSON: the sweep, and its base configs."""
        sweep = self.sweep.model_dump(mode="json", by_alias=True, exclude={"heartbeat", "grace", "trials"})
        bases = [self.sweep.base] if self.sweep.base else map(str, extremes(self.sweep.axes["base"]))
        return {"sweep": sweep, "bases": {base: _without_folders(_located(base, self.folder)) for base in bases}}


def load_plan(file: Path, name: str | None = None) -> Plan:
    """Read a sweep's file and check all of it.

    Args:
        file: YAML.
        name: of the study; by default the file's.

    Raises:
        ConfigError: no such file, invalid YAML, keys or values that do not fit, trials whose config is refused.
    """
    if not file.is_file():
        raise ConfigError(str(file), ["no such file; a sweep is a YAML file with a base and axes"])
    document = read_yaml(file, (field.alias or key for key, field in Sweep.model_fields.items()))
    try:
        sweep = Sweep.model_validate(document.data)
    except ValidationError as error:
        problems = [_explain(detail) for detail in error.errors(include_url=False)]
        texts = [f"{shown_place(place) or 'sweep'}: {message}" for place, message in problems]
        raise ConfigError(str(file), texts, [document.line(place) for place, _ in problems]) from None
    plan = Plan(name or file.stem, sweep, file.resolve().parent)
    errors: list[str] = []
    lines: list[int | None] = []
    if not re.fullmatch(r"\w[\w.-]*", plan.name):
        errors.append(f"the name {plan.name!r} becomes a folder: give a --name of letters, digits, '_', '-' and '.'")
        lines.append(None)
    try:
        plan.check(document)
    except ConfigError as error:
        errors += error.errors
        lines += error.lines
    if errors:
        raise ConfigError(str(file), errors, lines)
    return plan


def describe(params: Mapping[str, Choice]) -> str:
    """The values of a trial, for people."""
    return ", ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def _located(base: str, folder: Path) -> str:
    return str(folder / base) if (folder / base).is_file() else base


def _resolved(key: str, base: str) -> str:
    """A key as ``load_config`` takes it: ``network[lif:1]``, the second layer of its kind, gets its place."""
    found = re.match(r"network\[([a-z]+):(\d+)\]", key)
    if found is None:
        return key
    places = [place for place, kind in enumerate(_kinds(base)) if kind == found[1]]
    if int(found[2]) >= len(places):
        raise ConfigError(base, [f"{key}: it has {len(places)} layer(s) of kind {found[1]}, counted from 0"])
    return f"network[{places[int(found[2])]}]{key[found.end() :]}"


def _without_folders(base: str) -> dict[str, Any]:
    """A config as a dict; files of your own data by their names alone, as each machine may have them elsewhere."""
    config = load_config(base).model_dump(mode="json")
    for key, value in config["data"].items():
        if isinstance(value, str) and Path(value).is_absolute():
            config["data"][key] = Path(value).name
    return config


@cache
def _kinds(base: str) -> tuple[str, ...]:
    return tuple(layer.kind for layer in load_config(base).network)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()


def _explain(detail: Any) -> Problem:
    """One pydantic error: its place, and what is wrong."""
    tags = {"values", "range", "median", "halving"}
    place = tuple(step for step in detail["loc"] if step not in tags)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    match detail["type"]:
        case "extra_forbidden":
            return place, "unknown key"
        case "missing":
            return place, "is missing"
        case "model_type" if place[0] == "axes":
            message = "expected a list of values, or a range as {from: 1, to: 5}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "expected keys with values"
    value = detail["input"]
    return place, message + ("" if isinstance(value, dict | list) else f", got {shown_value(value)}")
