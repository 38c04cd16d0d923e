"""Sections for the synapses of a layer: rules of ``fs.connect`` between slices, and signs of populations."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Discriminator, Field, Tag
from torch.distributions import LogNormal, Normal, Uniform

from firstspike import connect
from firstspike.config.section import Built, Section, derive, union
from firstspike.connect import Synapses
from firstspike.ranges import Finite, NotNegativeInt, Positive


class _Distribution(Built):
    """Values of synapses that are drawn."""

    def build(self, **more: Any) -> Any:
        """The distribution."""
        low, high = getattr(self, "low", 0.0), getattr(self, "high", 1.0)
        if low >= high:
            raise ValueError(f"low must be below high, got {low:g} and {high:g}")
        return super().build(**more)


_ENDS: Any = {x: (Finite, Field(..., description=f"{x}est value")) for x in ("low", "high")}
_SCALES: Any = {
    "loc": (Finite, Field(..., description="mean, of logarithms in ``log_normal``")),
    "scale": (Positive, Field(..., description="standard deviation, likewise")),
}
DISTRIBUTIONS = {
    kind: derive(target, kind, base=_Distribution, omit=("validate_args",), extra=extra)
    for kind, target, extra in (
        ("uniform", Uniform, _ENDS), ("normal", Normal, _SCALES), ("log_normal", LogNormal, _SCALES)
    )
}  # fmt: skip
MOST_DRAWN = 10**8


def _slice(name: str, ends: tuple[int, int], size: int) -> slice:
    """The neurons from the first to the one past the last."""
    start, stop = ends
    if not start < stop <= size:
        raise ValueError(f"{name}: expected the first and the one past the last of {size}, got {start}, {stop}")
    return slice(start, stop)


_Ends = tuple[NotNegativeInt, NotNegativeInt]
_SOURCE, _TARGET = (f"neurons that {do}: the first, and the one past the last" for do in ("send", "receive"))


class _Sign(Section):
    """The sign that the weights of a population keep."""

    source: _Ends = Field(description=_SOURCE)
    sign: Literal[-1, 1] = Field(description="1 if they excite, -1 if they inhibit")


def signs_of(name: str, given: tuple[Any, ...] | None, size: int) -> tuple[int, ...] | None:
    """One sign for each of that many sources, 0 for those in no slice."""
    if not given or not isinstance(given[0], _Sign):
        return given
    signs = [0] * size
    for k, part in enumerate(given):
        place = _slice(f"{name}[{k}].source", part.source, size)
        if -part.sign in signs[place]:
            ends = f"{place.start} to {place.stop - 1}"
            raise ValueError(f"{name}[{k}].source: some of the neurons {ends} have the other sign already")
        signs[place] = [part.sign] * (place.stop - place.start)
    return tuple(signs)


def described_signs(signs: tuple[int, ...] | None) -> tuple[Any, ...] | None:
    """Signs as slices where that is much shorter."""
    if signs is None:
        return None
    ends = [0, *(k for k in range(1, len(signs)) if signs[k] != signs[k - 1]), len(signs)]
    runs = [{"source": (start, stop), "sign": signs[start]} for start, stop in pairwise(ends) if signs[start]]
    return tuple(runs) if 10 * len(runs) < len(signs) and runs else signs


class _Connection(Section):
    """A rule of ``fs.connect`` between slices of the neurons."""

    def build(self, *, sources: int, targets: int, generator: torch.Generator | None) -> Synapses:  # type: ignore[override]
        """Its synapses, between that many neurons."""
        ends = [_slice(x, getattr(self, x) or (0, n), n) for x, n in (("source", sources), ("target", targets))]
        first, sizes = [x.start for x in ends], [x.stop - x.start for x in ends]
        given, rule = self.arguments("source", "target"), type(self)._target
        pairs = given.get("probability", 1.0) * math.prod(sizes)
        each = {"fixed_indegree": sizes[1], "fixed_outdegree": sizes[0], "one_to_one": 1}
        most = given.get("number", 1) * each.get(rule.__name__, pairs)
        if most > MOST_DRAWN:
            raise ValueError(f"about {most:.3g} synapses, a config draws at most {MOST_DRAWN}: hand the network over")
        given |= {} if rule is connect.one_to_one else {"sources": sizes[0], "targets": sizes[1]}
        found: Synapses = rule(**given, generator=generator)
        if [found.sources, found.targets] != sizes:
            raise ValueError(
                f"number must be that of each, {sizes[0]} sources and {sizes[1]} targets, got {len(found)}"
            )
        return found.at(first[0], first[1], sources, targets)


_VALUES: Any = Annotated[
    Annotated[Finite, Tag("number")] | Annotated[union(DISTRIBUTIONS.values()), Tag("drawn")],
    Discriminator(lambda given: "drawn" if isinstance(given, dict | Section) else "number"),
]
_SIDES: Any = {
    name: (_Ends | None, Field(None, description=x)) for name, x in (("source", _SOURCE), ("target", _TARGET))
}
_OF_RULES: Any = {"omit": ("sources", "targets"), "types": dict.fromkeys(("weight", "delay"), _VALUES | None)}
_RULES = "fixed_probability", "fixed_indegree", "fixed_outdegree", "one_to_one", "all_to_all"
CONNECTIONS = {x: derive(getattr(connect, x), x, base=_Connection, extra=_SIDES, **_OF_RULES) for x in _RULES}
_CONNECTION: Any = union(CONNECTIONS.values())
Connections: Any = Annotated[
    tuple[_CONNECTION, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, dict | Section) else given),
    Field(min_length=1),
]
Signs: Any = Annotated[
    Annotated[tuple[int, ...], Tag("each")] | Annotated[tuple[_Sign, ...], Tag("slices")],
    Discriminator(
        lambda given: (
            "slices" if isinstance(given, list | tuple) and given and isinstance(given[0], dict | Section) else "each"
        )
    ),
]
