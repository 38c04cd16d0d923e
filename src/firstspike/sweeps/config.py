"""The keys of a sweep's file."""

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from pydantic import Discriminator, Field, StrictFloat, StrictInt, Tag, model_validator

from firstspike.config.section import Section, derive, union
from firstspike.ranges import Count, Seed
from firstspike.sweeps.table import Value

Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Params = Mapping[str, Value]
"""The values of one trial, by axis."""

MAX_TRIALS = 10_000
N_SEEDS = "training.n_seeds"


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
        self.distribution()
        return self

    @property
    def integer(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.start, int) and isinstance(self.to, int) and not isinstance(self.step, float)

    def distribution(self) -> BaseDistribution:
        """The distribution of a sampler; a ValueError if its numbers contradict each other."""
        with warnings.catch_warnings(action="ignore"):  # of an end between two steps, which is left out
            if self.integer:
                return IntDistribution(int(self.start), int(self.to), self.log, int(self.step or 1))
            return FloatDistribution(self.start, self.to, self.log, self.step)

    def values(self) -> list[Value]:
        """The numbers in a grid; a ValueError if they are not determined, or too many."""
        if self.count is not None:
            found: np.ndarray = (np.geomspace if self.log else np.linspace)(self.start, self.to, self.count)
        elif self.log or not (step := self.step or int(self.integer)):
            raise ValueError("in a grid, a range needs a count" + ("" if self.log else " or a step"))
        elif (self.to - self.start) / step >= MAX_TRIALS:
            raise ValueError(f"in a grid, a range has at most {MAX_TRIALS} values; give a count or a larger step")
        else:
            found = self.start + step * np.arange(math.floor((self.to - self.start) / step + 1e-9) + 1)
        if self.integer:
            return sorted({round(x) for x in found.tolist()})
        return [float(f"{x:.8g}") for x in found]  # as one would write them: 0.3 for 0.1 + 2 * 0.1


Axis = Annotated[
    Annotated[list[Any], Field(min_length=1, max_length=MAX_TRIALS), Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(lambda raw: "values" if isinstance(raw, list) else "range"),
]


def choices(axis: Axis) -> list[Value]:
    """The values of an axis in a grid, as Optuna stores them."""
    if isinstance(axis, Range):
        return axis.values()
    return [value if isinstance(value, Value) else as_yaml(value) for value in axis]


def as_yaml(value: Any) -> str:
    """A value in one line of YAML; text as it is."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()


PRUNERS = {"median": MedianPruner, "percentile": PercentilePruner, "halving": SuccessiveHalvingPruner}
"""A pruner, which stops trials early. Its keys are the arguments of Optuna's class."""

Pruning: Any = union([derive(pruner, kind) for kind, pruner in PRUNERS.items()])


class Sweep(Section):
    """A sweep, as its file describes it. ``docs/sweeps.md`` explains the keys."""

    base: str | None = None
    settings: dict[str, Any] = Field(default={}, alias="set")
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[int, Field(gt=0, le=MAX_TRIALS)] | None = None
    seed: Seed = 0
    seeds: Annotated[int, Field(gt=0, le=1000)] | None = None
    metric: Literal[
        "validation_accuracy", "test_accuracy", "best_validation_accuracy", "validation_loss", "test_loss"
    ] = "validation_accuracy"
    pruning: Pruning | None = None
    heartbeat: Count = 60

    @property
    def loss(self) -> bool:
        """Whether the metric is a loss, which is minimised. Accuracies are maximised."""
        return self.metric.endswith("loss")

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each axis."""
        return {
            key: axis.distribution()
            if isinstance(axis, Range) and self.sampler != "grid"
            else CategoricalDistribution(choices(axis))
            for key, axis in self.axes.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.base is None) == ("base" not in self.axes):
            raise ValueError("base: give one config, or several as the axis base")
        if self.sampler == "grid" and self.trials is not None:
            raise ValueError("trials: a grid has one trial per combination; leave it out, or choose another sampler")
        if self.sampler != "grid" and self.trials is None:
            raise ValueError(f"trials: is required by the sampler {self.sampler}")
        given = [*self.settings, *([N_SEEDS] if self.seeds else [])]
        if twice := [key for key in given if key in self.axes or given.count(key) > 1]:
            raise ValueError(f"{twice[0]}: is given twice, in set, axes or as seeds")
        found = [axis.choices for axis in self.distributions().values() if isinstance(axis, CategoricalDistribution)]
        if self.sampler == "grid" and (size := math.prod(map(len, found))) > MAX_TRIALS:
            raise ValueError(f"axes: a grid has at most {MAX_TRIALS} trials, got {size}")
        return self
