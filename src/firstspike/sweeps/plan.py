"""A sweep's file, read and checked: all points can be built before the first one runs."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from firstspike.sweeps.config import Choice, Sweep, Values
from firstspike.training.config import Config, ConfigError, load_config
from firstspike.training.config.base import Problem
from firstspike.training.config.load import read_yaml
from firstspike.training.config.yaml_file import Document, Place, shown_place, shown_value

Point = dict[str, Choice]

_LAYER = re.compile(r"network\[([a-z]+):(\d+)\]")


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

    def base(self, point: Mapping[str, Choice]) -> str:
        """The base config of a point, as ``load_config`` takes it."""
        return _located(str(point.get("base", self.sweep.base)), self.folder)

    def config(self, point: Mapping[str, Choice]) -> Config:
        """The config of a point.

        Raises:
            ConfigError: values that do not fit; the message names all of them.
        """
        base, sweep = self.base(point), self.sweep
        values = dict(sweep.settings)
        for key, choice in point.items():
            axis = sweep.axes[key]
            if key != "base":
                values[key] = axis.meant(choice) if isinstance(axis, Values) else choice
        if sweep.seeds is not None:
            values["training.seeds"] = sweep.seeds
        settings, errors = [], []
        for key, value in values.items():
            try:
                settings.append(f"{_key(key, base)}={_yaml(value)}")
            except ConfigError as error:
                errors += error.errors
        try:
            config = load_config(base, settings)
        except ConfigError as error:
            raise ConfigError(error.source, [*errors, *error.errors], [*[None] * len(errors), *error.lines]) from None
        if errors:
            raise ConfigError(base, errors)
        return config

    def grid(self) -> list[Point]:
        """All points of a grid, the last axis fastest."""
        axes = self.sweep.axes
        return [dict(zip(axes, row, strict=True)) for row in itertools.product(*(a.values() for a in axes.values()))]

    @property
    def size(self) -> int:
        """The number of points."""
        return self.sweep.points or len(self.grid())

    def check(self, document: Document | None = None) -> None:
        """See that the points can be built: all of a grid; else each axis by itself, with the others at both ends.

        Args:
            document: what the sweep was read from, for the lines.

        Raises:
            ConfigError: some cannot; the message names all errors, and points that have them.
        """
        errors = [(place, f"{shown_place(place)}: {message}") for place, message in self.sweep.errors()]
        points = self.grid() if self.sweep.sampler == "grid" and not errors else list(self._edges())
        found: dict[str, list[Point]] = {}
        for point in points if self.sweep.base or "base" in self.sweep.axes else ():
            try:
                self.config(point)
            except ConfigError as error:
                for text, line in zip(error.errors, error.lines, strict=True):
                    where = "" if line is None else f" ({error.source}, line {line})"
                    found.setdefault(text.removeprefix("--set ") + where, []).append(point)
        errors += [(self._cause(text), text + _where(bad, len(points))) for text, bad in found.items()]
        if errors:
            known = document or Document({})
            raise ConfigError(self.name, [text for _, text in errors], [known.line(place) for place, _ in errors])

    def _cause(self, error: str) -> Place:
        """Where in the sweep the value is that a config was refused for, if it is there."""
        keys = [("set", key) for key in self.sweep.settings] + [("axes", key) for key in self.sweep.axes]
        return next((place for place in keys if re.match(rf"{re.escape(place[1])}(?!\w)", error)), ())

    def _edges(self) -> Iterator[Point]:
        ends = {key: axis.ends() for key, axis in self.sweep.axes.items()}
        for others in (0, -1):
            start = {key: values[others] for key, values in ends.items()}
            yield start
            for key, values in ends.items():
                yield from ({**start, key: value} for value in values)

    def content(self) -> dict[str, Any]:
        """What must be the same for all who work on the study, ready for JSON: the sweep, and the configs it is of."""
        sweep = self.sweep.model_dump(mode="json", by_alias=True, exclude={"heartbeat", "grace", "points"})
        bases = {str(name): name for name in ([self.sweep.base] if self.sweep.base else self.sweep.axes["base"].ends())}
        return {
            "sweep": sweep,
            "bases": {name: load_config(_located(name, self.folder)).model_dump(mode="json") for name in bases},
        }


def load_plan(file: Path, name: str | None = None) -> Plan:
    """Read a sweep's file and check all of it.

    Args:
        file: YAML.
        name: of the study; by default the file's.

    Raises:
        ConfigError: no such file, no YAML, keys or values that do not fit, points whose config is refused.
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


def shown(point: Mapping[str, Choice]) -> str:
    """A point for people: its axes with their values."""
    return ", ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in point.items()
    )


def _located(base: str, folder: Path) -> str:
    return str(folder / base) if (folder / base).is_file() else base


def _key(key: str, base: str) -> str:
    """A key for ``load_config``: ``network[lif:1]`` is the second layer of its kind, wherever it stands."""
    found = _LAYER.match(key)
    if found is None:
        return key
    places = [place for place, kind in enumerate(_kinds(base)) if kind == found[1]]
    number = int(found[2])
    if number >= len(places):
        raise ConfigError(base, [f"{key}: it has {len(places)} layer(s) of kind {found[1]}, counted from 0"])
    return f"network[{places[number]}]{key[found.end() :]}"


@cache
def _kinds(base: str) -> tuple[str, ...]:
    return tuple(layer.kind for layer in load_config(base).network)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()


def _where(points: Sequence[Point], of: int) -> str:
    if len(points) == of:
        return ""
    return f" (at {shown(points[0])}{f', and {len(points) - 1} more' if len(points) > 1 else ''})"


def _explain(detail: Any) -> Problem:
    """One pydantic error: its place and what is wrong."""
    tags = {"values", "range", "median", "halving"}
    place = tuple(step for step in detail["loc"] if step not in tags)
    if detail["type"] == "extra_forbidden":
        return place, "unknown key"
    if detail["type"] == "missing":
        return place, "is missing"
    if detail["type"] == "model_type" and detail["loc"][0] == "axes":
        message = "expected a list of values, or a range as {from: 1, to: 5}"
    elif detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "expected keys with values"
    else:
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = detail["input"]
    return place, message + ("" if isinstance(value, dict | list | Values) else f", got {shown_value(value)}")
