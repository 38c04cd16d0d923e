"""A sweep's file, checked, and the trials that it describes: all can be built before the first one starts."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import (
    AfterValidator,
    AliasChoices,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StrictFloat,
    StrictInt,
    Tag,
    ValidationError,
    model_validator,
)

from firstspike.training.config import Config, ConfigError, load_config
from firstspike.training.config.base import Section
from firstspike.training.config.load import read_yaml

Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Choice = None | bool | int | float | str
"""A value as Optuna stores it; lists and mappings as JSON."""
Params = dict[str, Choice]
"""The values of one trial, by axis."""

METRICS = ("validation_accuracy", "best_validation_accuracy", "test_accuracy", "validation_loss", "test_loss")


class Range(Section):
    """Numbers from ``from`` to ``to``, both included; integers if both are (write ``1.0`` for floats).

    ``log``: logarithmic scale. ``step``: distance between neighbours. ``count``: number of values in a grid.
    """

    start: Number = Field(alias="from")
    to: Number
    log: bool = False
    step: Number | None = None
    count: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.start < self.to:
            raise ValueError(f"from must be less than to, got {self.start} and {self.to}")
        if self.log and self.start <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.start}")
        if self.step is not None and (self.log or self.count is not None):
            raise ValueError("step cannot be combined with log or count")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be greater than 0, got {self.step}")
        return self

    @property
    def integer(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.start, int) and isinstance(self.to, int) and not isinstance(self.step, float)

    def values(self) -> list[Choice]:
        """Its numbers in a grid.

        Raises:
            ValueError: a range that does not say which ones.
        """
        if self.count is None and (self.log or (self.step is None and not self.integer)):
            raise ValueError("in a grid it needs a count" + ("" if self.log else " or a step"))
        if self.count is None:
            step = self.step or 1
            stepped = (self.start + k * step for k in range(math.floor((self.to - self.start) / step + 1e-9) + 1))
            return [x if self.integer else float(f"{x:.12g}") for x in stepped]  # 0.3 for 0.1 + 2 * 0.1
        between = (np.geomspace if self.log else np.linspace)(self.start, self.to, self.count)[1:-1].tolist()
        if self.integer:
            return sorted({self.start, *map(round, between), self.to})
        # rounded to a few digits, as one would write them
        return [float(self.start), *(float(f"{x:.6g}") for x in between), float(self.to)]


def encode(value: Any) -> Choice:
    """A value as Optuna stores it."""
    return value if isinstance(value, Choice) else json.dumps(value, sort_keys=True)


def _unique(values: list[Any]) -> list[Any]:
    try:
        encoded = [encode(value) for value in values]
    except TypeError:
        raise ValueError("values are numbers, strings, lists and mappings; quote a date") from None
    for number, choice in enumerate(encoded):
        if choice in encoded[:number]:  # as Optuna compares them: 1, 1.0 and true are equal
            raise ValueError(f"duplicate value {json.dumps(values[number])}")
    return values


Axis = Annotated[
    Annotated[list[Any], Field(min_length=1), AfterValidator(_unique), Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(lambda raw: "values" if isinstance(raw, list) else "range"),
]


def choices(axis: Axis) -> list[Choice]:
    """The values of an axis in a grid, as Optuna stores them."""
    return axis.values() if isinstance(axis, Range) else [encode(value) for value in axis]


def extremes(axis: Axis) -> list[Choice]:
    """The values of an axis that are checked where not all combinations can be."""
    return [axis.start, axis.to] if isinstance(axis, Range) else choices(axis)


class Median(Section):
    """Stop a trial whose validation accuracy is below the median of the other trials at the same epoch.

    ``startup``: trials that finish before any is stopped. ``warmup``: epochs before a trial may be stopped. ``every``:
    epochs between checks.
    """

    kind: Literal["median"] = "median"
    startup: NonNegativeInt = 5
    warmup: NonNegativeInt = 0
    every: PositiveInt = 1


class Halving(Section):
    """Successive halving: the best ``1 / factor`` of the trials continues after ``first`` epochs, and so on."""

    kind: Literal["halving"]
    first: PositiveInt = 10
    factor: Annotated[int, Field(ge=2)] = 3


class Sweep(Section):
    """A sweep, as its file describes it.

    ``base``: a shipped config, or a file relative to the sweep's own. ``set``: values that all trials share. ``axes``:
    what varies, by config key; the axis ``base`` varies the config itself. ``trials``: their number, for samplers other
    than ``grid``. ``seed``: of the sampler ``random``. ``seeds``: networks per trial. ``heartbeat``: seconds between
    heartbeats of a worker. ``grace``: seconds without a heartbeat after which a trial is given to another worker.
    """

    base: str | None = None
    settings: dict[str, Any] = Field(default={}, alias="set")
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: PositiveInt | None = Field(None, validation_alias=AliasChoices("trials", "points"))  # "points" before
    seed: NonNegativeInt = 0
    seeds: PositiveInt | None = None
    metric: Literal[METRICS] = "validation_accuracy"  # type: ignore[valid-type]
    direction: Literal["maximize", "minimize"] | None = None
    pruning: Annotated[Median | Halving, Field(discriminator="kind")] | None = None
    heartbeat: PositiveInt = 20
    grace: PositiveInt = 120

    @property
    def loss(self) -> bool:
        """Whether the metric is a loss."""
        return self.metric.endswith("loss")

    @property
    def maximize(self) -> bool:
        """Whether the metric is maximised."""
        return not self.loss if self.direction is None else self.direction == "maximize"

    def errors(self) -> Iterator[str]:
        """Keys that contradict each other, one line each."""
        if (self.base is None) == ("base" not in self.axes):
            yield "base: give one config, or several as the axis base"
        if self.sampler == "grid" and self.trials is not None:
            yield "trials: a grid has one trial per combination; leave it out, or choose the sampler random or tpe"
        if self.sampler != "grid" and self.trials is None:
            yield f"trials: is required by the sampler {self.sampler}"
        for key, axis in self.axes.items():
            if self.sampler != "grid" and isinstance(axis, Range) and axis.count:
                yield f"axes.{key}.count: is for a grid; leave it out"
            if self.sampler == "grid":
                try:
                    choices(axis)
                except ValueError as error:
                    yield f"axes.{key}: {error}"
        for key in ("training.seeds", *(["training.seed"] if self.seeds else [])):
            if key in self.axes:
                yield f"axes.{key}: cannot be an axis; set the number of seeds with seeds"
        yield from (f"set.{key}: is an axis, too" for key in self.settings if key in self.axes)
        if self.seeds and "training.seeds" in self.settings:
            yield "set.training.seeds: is the same as seeds; leave out one of them"
        if self.grace < 2 * self.heartbeat:
            yield f"grace: must be at least twice the heartbeat, got {self.grace} and {self.heartbeat}"
        if self.pruning is not None and self.maximize == self.loss:
            yield "pruning: needs accuracies to be maximised, or losses minimised; change direction"


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
        base = _located(str(params.get("base", sweep.base)), self.folder)
        values = dict(sweep.settings)
        for key, choice in params.items():
            axis = sweep.axes[key]
            if key != "base":
                values[key] = choice if isinstance(axis, Range) else axis[choices(axis).index(choice)]
        if sweep.seeds is not None:
            values["training.seeds"] = sweep.seeds
        settings, errors = [], []
        for key, value in values.items():
            try:
                settings.append(f"{_resolved(key, base)}={_yaml(value)}")
            except ConfigError as error:
                errors += error.errors
        try:
            config = load_config(base, settings)
        except ConfigError as error:
            raise ConfigError(error.source, [*errors, *error.errors]) from None
        if errors:
            raise ConfigError(base, errors)
        return config

    def check(self) -> None:
        """Build every trial of a grid; for other samplers the extremes of each axis, with the others at both ends.

        Raises:
            ConfigError: trials that cannot be built; the message names all errors, and where they occur.
        """
        errors = list(self.sweep.errors())
        built = self.grid() if self.sweep.sampler == "grid" and not errors else list(self._extremes())
        found: dict[str, list[Params]] = {}
        for params in built if self.sweep.base or "base" in self.sweep.axes else ():
            try:
                self.config(params)
            except ConfigError as error:
                for line in error.errors:
                    found.setdefault(line.removeprefix("--set "), []).append(params)
        for line, bad in found.items():
            more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            errors.append(line if len(bad) == len(built) else f"{line} (at {describe(bad[0])}{more})")
        if errors:
            raise ConfigError(self.name, errors)

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
        return {
            "sweep": sweep,
            "bases": {base: load_config(_located(base, self.folder)).model_dump(mode="json") for base in bases},
        }


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
    raw = read_yaml(file, (field.alias or key for key, field in Sweep.model_fields.items()))
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(str(file), [_explain(detail) for detail in error.errors()]) from None
    plan = Plan(name or file.stem, sweep, file.resolve().parent)
    errors = []
    if not re.fullmatch(r"\w[\w.-]*", plan.name):
        errors.append(f"the name {plan.name!r} becomes a folder: give a --name of letters, digits, '_', '-' and '.'")
    try:
        plan.check()
    except ConfigError as error:
        errors += error.errors
    if errors:
        raise ConfigError(str(file), errors)
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


@cache
def _kinds(base: str) -> tuple[str, ...]:
    return tuple(layer.kind for layer in load_config(base).network)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()


def _explain(detail: Any) -> str:
    """One pydantic error as ``place: what is wrong``."""
    tags = {"values", "range", "median", "halving"}
    place = ".".join(str(step) for step in detail["loc"] if step not in tags) or "sweep"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    match detail["type"]:
        case "extra_forbidden":
            return f"{place}: unknown key"
        case "missing":
            return f"{place}: is missing"
        case "model_type" if detail["loc"][0] == "axes":
            message = "expected a list of values, or a range as {from: 1, to: 5}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "expected keys with values"
    value = detail["input"]
    return f"{place}: {message}" + ("" if isinstance(value, dict | list) else f", got {value!r}")
