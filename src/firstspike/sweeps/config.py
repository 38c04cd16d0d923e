"""The sections of a sweep's file."""

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    StrictFloat,
    StrictInt,
    Tag,
    model_validator,
)

from firstspike.training.config.base import MOST_SEEDS, Count, Problem, Section, Seed

Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Choice = None | bool | int | float | str

MOST_POINTS = 10_000  # of a grid; each of them is checked before the first one runs

METRICS = ("validation_accuracy", "best_validation_accuracy", "test_accuracy", "validation_loss", "test_loss")


class Range(Section):
    """Numbers from ``from`` to ``to``, both included; whole numbers if both are whole (write ``1.0`` for others).

    ``log``: evenly spaced in the logarithm. ``count``: so many of them in a grid. ``step``: the distance of neighbours.
    """

    start: Number = Field(alias="from")
    to: Number
    log: bool = False
    step: Number | None = None
    count: Annotated[int, Field(ge=2, le=MOST_POINTS)] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.start < self.to:
            raise ValueError(f"from must be less than to, got {self.start} and {self.to}")
        if self.log and self.start <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.start}")
        if self.step is not None and (self.log or self.count is not None):
            raise ValueError("step goes with neither log nor count")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be greater than 0, got {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is of whole numbers."""
        return isinstance(self.start, int) and isinstance(self.to, int) and not isinstance(self.step, float)

    def values(self) -> list[Choice]:
        """Its numbers in a grid.

        Raises:
            ValueError: there is no saying which.
        """
        if self.count is None and (self.log or (self.step is None and not self.whole)):
            raise ValueError("in a grid it needs a count" + ("" if self.log else " or a step"))
        if self.count is None:
            step = self.step or 1
            if (self.to - self.start) / step > MOST_POINTS:
                raise ValueError(f"in a grid it has more than {MOST_POINTS} values; give a count or a larger step")
            stepped = (self.start + k * step for k in range(math.floor((self.to - self.start) / step + 1e-9) + 1))
            return [x if self.whole else float(f"{x:.12g}") for x in stepped]  # 0.3 for 0.1 + 2 * 0.1
        parts = [k / (self.count - 1) for k in range(1, self.count - 1)]
        if self.log:
            between = [self.start * (self.to / self.start) ** part for part in parts]
        else:
            between = [self.start + (self.to - self.start) * part for part in parts]
        if self.whole:
            return sorted({self.start, *map(round, between), self.to})
        # a few digits are what one would have written
        return [float(self.start), *(float(f"{x:.6g}") for x in between), float(self.to)]

    def ends(self) -> list[Choice]:
        """Its first and last number."""
        return [self.start, self.to]


class Values(RootModel[Annotated[list[Any], Field(min_length=1)]]):
    """Values one by one: anything that a config may hold there."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _once(self) -> Self:
        try:
            kept = self.values()
        except TypeError:
            raise ValueError("values are numbers, words, lists and mappings; put a date in quotes") from None
        for number, value in enumerate(kept):
            if value in kept[:number]:  # as Optuna compares them: 1, 1.0 and true are the same
                raise ValueError(f"the value {_text(self.root[number])} stands twice")
        return self

    def values(self) -> list[Choice]:
        """All of them as Optuna keeps them: lists and mappings as JSON."""
        return [x if isinstance(x, Choice) else _text(x) for x in self.root]

    ends = values

    def meant(self, choice: Choice) -> Any:
        """What stands in the config for one of ``values``."""
        return next(x for x, kept in zip(self.root, self.values(), strict=True) if _text(kept) == _text(choice))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


Axis = Annotated[
    Annotated[Values, Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(lambda raw: "values" if isinstance(raw, list | Values) else "range"),
]


class Median(Section):
    """Stops a point whose validation accuracy is below the median of the others' at the same epoch.

    ``startup``: so many points run to their end first. ``warmup``: epochs before a point may be stopped.
    ``every``: epochs between looks.
    """

    kind: Literal["median"] = "median"
    startup: Annotated[int, Field(ge=0, le=10**9)] = 5
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 0
    every: Count = 1


class Halving(Section):
    """Successive halving: the best ``1 / factor`` of the points goes on after ``first`` epochs, and so on."""

    kind: Literal["halving"]
    first: Count = 10
    factor: Annotated[int, Field(ge=2)] = 3


class Sweep(Section):
    """A sweep, as its file describes it.

    ``base``: a shipped config or a file, seen from the sweep's own. ``set``: values that all points share. ``axes``:
    what varies, by its key in the config; the key ``base`` varies the config. ``points``: how many, for the samplers
    that are not a grid. ``seed``: of the sampler ``random``. ``seeds``: networks of each point. ``heartbeat``: seconds
    between signs of life of a worker. ``grace``: seconds without one after which its point is given to another.
    """

    base: str | None = None
    settings: dict[str, Any] = Field(default={}, alias="set")
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    sampler: Literal["grid", "random", "tpe"] = "grid"
    points: Count | None = None
    seed: Seed = 0
    seeds: Annotated[int, Field(gt=0, le=MOST_SEEDS)] | None = None
    metric: Literal[METRICS] = "validation_accuracy"  # type: ignore[valid-type]
    direction: Literal["maximize", "minimize"] | None = None
    pruning: Annotated[Median | Halving, Field(discriminator="kind")] | None = None
    heartbeat: Count = 20
    grace: Count = 120

    @property
    def loss(self) -> bool:
        """Whether the metric is a loss."""
        return self.metric.endswith("loss")

    @property
    def upwards(self) -> bool:
        """Whether more is better."""
        return not self.loss if self.direction is None else self.direction == "maximize"

    def errors(self) -> list[Problem]:
        """Values that do not go together."""
        found: list[Problem] = []
        if (self.base is None) == ("base" not in self.axes):
            found.append((("base",), "give one config, or several as the axis base"))
        if self.sampler == "grid" and self.points is not None:
            message = "a grid has the points of its axes; leave it out, or choose the sampler random or tpe"
            found.append((("points",), message))
        if self.sampler != "grid" and self.points is None:
            found.append((("points",), f"the sampler {self.sampler} needs to know how many"))
        if self.sampler == "grid" and (points := math.prod(map(_length, self.axes.values()))) > MOST_POINTS:
            found.append((("axes",), f"a grid of {points} points; the most are {MOST_POINTS}"))
        for key, axis in self.axes.items():
            if self.sampler == "grid" and (wrong := _no_grid(axis)):
                found.append((("axes", key), wrong))
            if self.sampler != "grid" and isinstance(axis, Range) and axis.count:
                found.append((("axes", key, "count"), "is for a grid; leave it out"))
        if "base" in self.axes and not all(isinstance(x, str) for x in self.axes["base"].ends()):
            found.append((("axes", "base"), "expected names of configs"))
        for key in ("training.seeds", *(["training.seed"] if self.seeds else [])):
            if key in self.axes:
                found.append((("axes", key), "seeds are no axis; give their number as seeds"))
        found += [(("set", key), "is an axis, too") for key in self.settings if key in self.axes]
        if self.seeds and "training.seeds" in self.settings:
            found.append((("set", "training.seeds"), "is the same as seeds; leave out one of them"))
        if self.grace < 2 * self.heartbeat:
            message = f"must be at least twice the heartbeat, got {self.grace} and {self.heartbeat}"
            found.append((("grace",), message))
        if self.pruning is not None and self.upwards == self.loss:
            found.append((("pruning",), "goes with accuracies upwards, or losses downwards; mend direction"))
        return found


def _length(axis: Values | Range) -> int:
    """Number of values in a grid; 1 where there is no saying."""
    return 1 if _no_grid(axis) else len(axis.values())


def _no_grid(axis: Values | Range) -> str:
    try:
        axis.values()
    except ValueError as error:
        return str(error)
    return ""
