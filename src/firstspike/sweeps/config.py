"""What a sweep's file may hold."""

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, StrictFloat, StrictInt, Tag, model_validator

from firstspike.config.network import Problem
from firstspike.config.section import Section
from firstspike.ranges import Count, Seed

Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Choice = None | bool | int | float | str
"""A value as Optuna stores it; lists and mappings as JSON."""

MAX_TRIALS = 10_000
METRICS = ("validation_accuracy", "test_accuracy", "best_validation_accuracy", "validation_loss", "test_loss")
N_SEEDS = ("training.n_seeds", "training.seeds")
"""The key of the number of seeds, and its name in older configs."""


class Range(Section):
    """Numbers from ``from`` to ``to``, both included; integers if both are (write ``1.0`` for floats).

    ``log``: logarithmic scale. ``step``: distance between neighbours. ``count``: number of values in a grid.
    """

    start: Number = Field(alias="from")
    to: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None
    count: Annotated[int, Field(ge=2, le=MAX_TRIALS)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.start < self.to:
            raise ValueError(f"from must be less than to, got {self.start} and {self.to}")
        if self.log and self.start <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.start}")
        if self.step is not None and (self.log or self.count is not None):
            raise ValueError("step cannot be combined with log or count")
        if self.step is not None and (self.to - self.start) / self.step > 10**9:
            raise ValueError(f"has more than 1e9 steps; give a larger step, got {self.step}")
        return self

    @property
    def integer(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.start, int) and isinstance(self.to, int) and not isinstance(self.step, float)

    def values(self) -> list[Choice]:
        """Its numbers in a grid; a ValueError if it does not say which ones, or has too many."""
        if self.count is None:
            step = self.step or (1 if self.integer else None)
            if self.log or step is None:
                raise ValueError("in a grid it needs a count" + ("" if self.log else " or a step"))
            steps = math.floor((self.to - self.start) / step + 1e-9)
            if steps >= MAX_TRIALS:
                raise ValueError(f"in a grid it has more than {MAX_TRIALS} values; give a count or a larger step")
            found = [self.start + k * step for k in range(steps + 1)]
            return [x if self.integer else float(f"{x:.12g}") for x in found]  # 0.3 for 0.1 + 2 * 0.1
        between = (np.geomspace if self.log else np.linspace)(self.start, self.to, self.count)[1:-1].tolist()
        if self.integer:
            return sorted({self.start, *map(round, between), self.to})
        # rounded to a few digits, as one would write them
        return [float(self.start), *(float(f"{x:.6g}") for x in between), float(self.to)]


def _unique(values: list[Any]) -> list[Any]:
    encoded = choices(values)
    for number, choice in enumerate(encoded):
        if choice in encoded[:number]:  # as Optuna compares them: 1, 1.0 and true are equal
            raise ValueError(f"duplicate value {json.dumps(values[number])}")
    return values


Axis = Annotated[
    Annotated[list[Any], Field(min_length=1, max_length=MAX_TRIALS), AfterValidator(_unique), Tag("values")]
    | Annotated[Range, Tag("range")],
    Discriminator(lambda raw: "values" if isinstance(raw, list) else "range"),
]


def choices(axis: Axis) -> list[Choice]:
    """The values of an axis in a grid, as Optuna stores them."""
    if isinstance(axis, Range):
        return axis.values()
    return [value if isinstance(value, Choice) else json.dumps(value, sort_keys=True) for value in axis]


class Median(Section):
    """Stop a trial whose validation accuracy is below the median of the other trials at the same epoch.

    ``startup``: trials that finish before any is stopped. ``warmup``: epochs before a trial may be stopped. ``every``:
    epochs between checks.
    """

    kind: Literal["median"] = "median"
    startup: Annotated[int, Field(ge=0, le=10**9)] = 5
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 0
    every: Count = 1


class Halving(Section):
    """Successive halving: the best ``1 / factor`` of the trials continues after ``first`` epochs, and so on."""

    kind: Literal["halving"]
    first: Count = 10
    factor: Annotated[int, Field(ge=2)] = 3


class Sweep(Section):
    """A sweep, as its file describes it; ``docs/sweeps.md`` explains the keys."""

    base: str | None = None
    settings: dict[str, Any] = Field(default={}, alias="set")
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[int, Field(gt=0, le=MAX_TRIALS)] | None = None
    seed: Seed = 0
    seeds: Annotated[int, Field(gt=0, le=1000)] | None = None
    metric: Literal[METRICS] = "validation_accuracy"  # type: ignore[valid-type]
    pruning: Annotated[Median | Halving, Field(discriminator="kind")] | None = None
    heartbeat: Count = 20
    grace: Count = 120

    @property
    def loss(self) -> bool:
        """Whether the metric is a loss, which is minimised; accuracies are maximised."""
        return self.metric.endswith("loss")

    def errors(self) -> Iterator[Problem]:
        """Keys that contradict each other: their places, and what is wrong."""
        grid, size = self.sampler == "grid", 1
        if (self.base is None) == ("base" not in self.axes):
            yield ("base",), "give one config, or several as the axis base"
        if grid and self.trials is not None:
            yield ("trials",), "a grid has one trial per combination; leave it out, or choose the sampler random or tpe"
        if not grid and self.trials is None:
            yield ("trials",), f"is required by the sampler {self.sampler}"
        for key, axis in self.axes.items():
            if not grid and isinstance(axis, Range) and axis.count:
                yield ("axes", key, "count"), "is for a grid; leave it out"
            try:
                size *= len(choices(axis)) if grid else 1
            except ValueError as error:
                yield ("axes", key), str(error)
        if size > MAX_TRIALS:
            yield ("axes",), f"a grid has at most {MAX_TRIALS} trials, got {size}"
        for key in (*N_SEEDS, *(["training.seed"] if self.seeds else [])):
            if key in self.axes:
                yield ("axes", key), "cannot be an axis; set the number of seeds with seeds"
            if key in self.settings and self.seeds and key in N_SEEDS:
                yield ("set", key), "is the same as seeds; leave out one of them"
        yield from ((("set", key), "is an axis, too") for key in self.settings if key in self.axes)
        if self.grace < 2 * self.heartbeat:
            yield ("grace",), f"must be at least twice the heartbeat, got {self.grace} and {self.heartbeat}"
