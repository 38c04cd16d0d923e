"""Sparse synapses: which neurons are connected, with a weight and a delay for each synapse, and never as a matrix.

    excites = fs.connect.fixed_probability(8000, 10000, 0.02, weight=0.1, delay=1.5).at(sources=10000)
    inhibits = fs.connect.fixed_indegree(2000, 10000, 40, weight=-0.5, delay=1.5).at(8000)
    layer = fs.SpikingRecurrent(100, 10000, 50, 1000.0, recurrent=excites + inhibits, window=1.5)

The words are PyNN's. Populations are slices of the neurons, see ``Synapses.at``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.distributions import Distribution

from firstspike.ranges import Count, Fraction, Size, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.text import needed

__all__ = [
    "Synapses", "all_to_all", "by_distance", "fixed_indegree", "fixed_outdegree", "fixed_probability",
    "from_sonata", "from_sparse", "one_to_one", "pairs",
]  # fmt: skip

MOST_SYNAPSES = 2**31 - 1
Values = float | Tensor | Distribution | Callable[[Any], Any] | None
_Rule = TypeVar("_Rule", bound=Callable[..., Any])
_HOST = torch.device("cpu")


class Options(TypedDict, total=False):
    """Keyword arguments of all rules, if they apply."""

    autapses: bool
    multapses: bool
    weight: Values
    delay: Values
    generator: torch.Generator | None


def _options(
    *,
    autapses: bool = True,
    multapses: bool = False,
    weight: Values = None,
    delay: Values = None,
    generator: torch.Generator | None = None,
) -> None:
    """What rules take.

    Args:
        sources: number of neurons that send.
        targets: number of neurons that receive.
        autapses: whether neurons may be connected to themselves, as by default in PyNN and NEST. Without them there are
            as many sources as targets.
        multapses: whether a pair may have several synapses; not by default, as in PyNN. NEST makes them by default.
        weight: weights: a number, a tensor ``(synapses,)`` in order by source, then by target, a distribution of
            ``torch.distributions``, or a function of the size ``(synapses,)`` such as ``torch.rand``. Without weights
            the layer draws them.
        delay: delays, likewise, in the unit of the times. Without delays those of the layer.
        generator: source of all random numbers, on the CPU; torch's global one by default.

    Raises:
        ValueError: arguments that do not fit; weights that are not finite, and delays that are not or are negative;
            more than 2147483647 synapses.
    """


def _rule(*without: str) -> Callable[[_Rule], _Rule]:
    """A decorator for functions with these options, except some."""
    return lambda function: checks_ranges(takes_arguments_of(_options, without)(function))


@checks_ranges
@dataclass(frozen=True, eq=False, repr=False)
class Synapses:
    """Synapses in order by source, then by target, in which they are put when they are made; ``+`` joins two sets.

    All tensors are on the CPU, and layers share them: do not write into them.

    Args:
        sources: number of neurons that send.
        targets: number of neurons that receive.
        source: neuron that sends, of each synapse ``(synapses,)``.
        target: neuron that receives, of each synapse ``(synapses,)``.
        weight: finite weights ``(synapses,)``, or one for all; None leaves them to the layer.
        delay: finite delays >= 0 ``(synapses,)``, or one for all, in the unit of the times; None for that of the layer.
        rules: the sections of a config that they were made by.

    Raises:
        ValueError: indices out of range, weights that are not finite, delays that are not or are negative, lengths that
            differ, more than 2147483647 synapses.
    """

    sources: Size
    targets: Size
    source: Int64[Tensor, " synapses"]
    target: Int64[Tensor, " synapses"]
    weight: Float[Tensor, " synapses"] | None = None
    delay: Float[Tensor, " synapses"] | None = None
    rules: tuple[Any, ...] = field(default=(), kw_only=True)
    multapses: bool = field(init=False)
    """Whether a pair of neurons has several synapses."""

    def __post_init__(self) -> None:
        source, target = _indices("source", self.source, self.sources), _indices("target", self.target, self.targets)
        if len(source) != len(target):
            raise ValueError(f"source and target must be equally long, got {len(source)} and {len(target)}")
        _few(len(source))
        found: dict[str, Tensor | None] = {"source": source, "target": target}
        found |= {name: _numbers(name, getattr(self, name), len(source)) for name in ("weight", "delay")}
        key = source * self.targets + target
        key, order = (key, None) if bool((key[1:] >= key[:-1]).all()) else key.sort(stable=True)
        object.__setattr__(self, "multapses", bool((key[1:] == key[:-1]).any()))
        for name, x in found.items():
            if x is not None:  # a copy, which only this object has
                x = x.clone(memory_format=torch.contiguous_format) if order is None else x[order]
            object.__setattr__(self, name, x)

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        given = "".join(f", {name}" for name in ("weight", "delay") if getattr(self, name) is not None)
        return f"Synapses({self.sources} sources, {self.targets} targets, {len(self)} synapses{given})"

    @cached_property
    def rows(self) -> Int64[Tensor, " sources_1"]:
        """Where the synapses of each source begin, and their number at the end, as in the CSR format."""
        return torch.searchsorted(self.source, torch.arange(self.sources + 1, device=_HOST))

    def __add__(self, other: "Synapses") -> "Synapses":
        if not isinstance(other, Synapses):
            return NotImplemented
        if (self.sources, self.targets) != (other.sources, other.targets):
            raise ValueError(f"{self} + {other}: sizes differ; at(source, target, sources, targets) sets them")
        joined: list[Any] = []
        for name in ("source", "target", "weight", "delay"):
            both = [x for x in (getattr(self, name), getattr(other, name)) if x is not None]
            if len(both) == 1:
                raise ValueError(f"{self} + {other}: only one has a {name}; with_values({name}=...) sets it")
            joined.append(torch.cat(both) if both else None)
        return Synapses(self.sources, self.targets, *joined)

    def __radd__(self, other: int) -> "Synapses":
        return self if other == 0 else NotImplemented  # ``sum`` begins with 0

    def at(self, source: int = 0, target: int = 0, sources: int = 0, targets: int = 0) -> "Synapses":
        """The same synapses between slices of larger populations, which begin at the neurons ``source`` and ``target``.

        These have ``sources`` and ``targets`` neurons, and by default end where the slices do.
        """
        sizes = sources or source + self.sources, targets or target + self.targets
        return Synapses(*sizes, self.source + source, self.target + target, self.weight, self.delay)

    @_rule("autapses", "multapses")
    def with_values(self, **options: Unpack[Options]) -> "Synapses":
        """The same synapses with other weights, delays, or both."""
        return replace(self, **_drawn((len(self),), options))


@_rule("multapses")
def fixed_probability(sources: Size, targets: Size, probability: Fraction, **options: Unpack[Options]) -> Synapses:
    """Each pair is connected with the same ``probability``, whatever the others are.

    Args:
        probability: chance of each pair to be connected.
    """
    chance = torch.full((sources,), float(probability), dtype=torch.float64, device=_HOST)
    source, target = _existing(chance, _others(sources, targets, options), options.get("generator"))
    return _made(sources, targets, source, _past(target, source, options), options)


@_rule()
def fixed_indegree(sources: Size, targets: Size, number: Count, **options: Unpack[Options]) -> Synapses:
    """Each target has synapses from the same ``number`` of sources, which are drawn: PyNN's ``FixedNumberPre``.

    Args:
        number: sources of each target.
    """
    target, source = _chosen(targets, sources, number, options)
    return _made(sources, targets, source, target, options)


@_rule()
def fixed_outdegree(sources: Size, targets: Size, number: Count, **options: Unpack[Options]) -> Synapses:
    """Each source has synapses onto the same ``number`` of targets, which are drawn: PyNN's ``FixedNumberPost``.

    Args:
        number: targets of each source.
    """
    return _made(sources, targets, *_chosen(sources, targets, number, options), options)


@_rule("autapses", "multapses")
def one_to_one(number: Size, **options: Unpack[Options]) -> Synapses:
    """Each of ``number`` sources is connected to the target of the same place.

    Args:
        number: sources, and targets.
    """
    each = torch.arange(number, device=_HOST)
    return _made(number, number, each, each, options)


@_rule("multapses")
def all_to_all(sources: Size, targets: Size, **options: Unpack[Options]) -> Synapses:
    """Every source is connected to every target."""
    others = _others(sources, targets, options)
    _few(sources * others)
    source = torch.arange(sources, device=_HOST).repeat_interleave(others)
    target = torch.arange(others, device=_HOST).repeat(sources)
    return _made(sources, targets, source, _past(target, source, options), options)


@_rule("autapses")
def pairs(index: Int64[Tensor, "2 synapses"], sources: Size, targets: Size, **options: Unpack[Options]) -> Synapses:
    """Given pairs in any order, as PyTorch Geometric has them in ``edge_index``.

    Args:
        index: sources in the first row, targets in the second. Tensors of weights and delays are in the same order.
    """
    index = _tensor("index", index)
    if index.ndim != 2 or len(index) != 2:
        raise ValueError(f"index must have the shape (2, synapses), sources and targets, got {tuple(index.shape)}")
    found = Synapses(sources, targets, *index, **_drawn(tuple(index.shape[1:]), options))
    if found.multapses and not options.get("multapses"):
        raise ValueError("index has pairs more than once; multapses=True allows that")
    return found


@_rule("multapses")
def by_distance(
    shape: int | Sequence[int],
    probability: Callable[[Tensor], Any],
    periodic: bool = True,
    **options: Unpack[Options],
) -> Synapses:
    """Neurons of one population, on a ring or a grid, are connected with a probability that depends on their distance.

    Functions in ``weight`` and ``delay`` are of the distances ``(synapses,)`` here, and not of a size::

        fs.connect.by_distance((100, 100), lambda d: 0.3 * torch.exp(-((d / 8) ** 2)), delay=lambda d: 1.0 + 0.2 * d)

    Args:
        shape: number of neurons on a ring, or numbers along the sides of a grid, which are numbered row by row.
        probability: function of a tensor of distances, in units of that between neighbours.
        periodic: whether opposite ends are neighbours.
    """
    sides = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sides or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ValueError(f"shape must be a whole number > 0, or several, got {shape!r}")
    ends = [(-(n // 2), n - n // 2) if periodic else (1 - n, n) for n in sides]
    steps = [torch.arange(*x, device=_HOST) for x in ends]
    offset = torch.cartesian_prod(*steps).view(-1, len(sides))
    distance = offset.double().square().sum(dim=1).sqrt()
    chance = torch.as_tensor(probability(distance), dtype=torch.float64, device=_HOST)
    if chance.shape != distance.shape or not bool(((chance >= 0) & (chance <= 1)).all()):
        got = f"{float(chance.min()):g} to {float(chance.max()):g} in the shape {tuple(chance.shape)}"
        raise ValueError(f"probability must give a number from 0 to 1 for each of {len(distance)} distances, got {got}")
    chance = torch.where(distance == 0, 0.0, chance) if not options.get("autapses", True) else chance
    way, source = _existing(chance, number := math.prod(sides), options.get("generator"))
    place = torch.stack(torch.unravel_index(source, sides), dim=1) + offset[way]
    size = torch.tensor(sides, device=_HOST)
    place = place % size if periodic else place
    inside = ((place >= 0) & (place < size)).all(dim=1)
    target = sum(place[:, k] * math.prod(sides[k + 1 :]) for k in range(len(sides)))
    found = Synapses(number, number, source[inside], torch.as_tensor(target)[inside], delay=distance[way[inside]])
    return replace(found, **{"delay": None} | _drawn((len(found),), options, found.delay))


@_rule("autapses", "multapses", "weight")
def from_sparse(matrix: Any, **options: Unpack[Options]) -> Synapses:
    """The entries of a sparse matrix ``(targets, sources)``: rows receive, as in the weights of layers.

    Entries of the same place add up, stored zeros are synapses, and booleans are no weights.

    Args:
        matrix: one of ``scipy.sparse``, or a tensor of torch in any layout.
    """
    if hasattr(matrix, "tocoo"):
        found = matrix.tocoo()
        index = torch.stack([torch.as_tensor(x).long() for x in (found.row, found.col)])
        matrix = torch.sparse_coo_tensor(index, torch.as_tensor(found.data), found.shape, check_invariants=True)
    if not isinstance(matrix, Tensor) or matrix.ndim != 2:
        got = f"{matrix.ndim} dimensions" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise ValueError(f"matrix must be one of scipy.sparse or a tensor of torch, of two dimensions, got {got}")
    (targets, sources), matrix = matrix.shape, matrix.detach().to(_HOST).to_sparse_coo().coalesce()
    target, source = matrix.indices()
    found = Synapses(sources, targets, source, target, None if matrix.dtype == torch.bool else matrix.values())
    return replace(found, **_drawn((len(found),), options))


@_rule("autapses", "multapses")
def from_sonata(
    path: Path | str, sources: Size, targets: Size, population: str | None = None, **options: Unpack[Options]
) -> Synapses:
    """The edges of a SONATA file, with its ``syn_weight`` and ``delay`` where it has them and no others are given.

    Of tables of edge types (CSV) nothing is read: give ``weight`` and ``delay``.

    Args:
        path: the HDF5 file of edges. Reading it takes the extra ``h5py``.
        population: name of the edges; by default there is only one.
    """
    h5py = needed("h5py", "h5py", "h5py, which reads SONATA files,")
    try:
        with h5py.File(path, "r") as file:
            (name,) = [population] if population else file["edges"]
            edges = file["edges"][name]
            ends = [torch.from_numpy(edges[f"{x}_node_id"][:].astype("int64")) for x in ("source", "target")]
            (group,) = [edges[x] for x in edges if x.isdigit()] or [{}]
            there = {x: group[y] for x, y in (("weight", "syn_weight"), ("delay", "delay")) if y in group}
            row = edges["edge_group_index"][:] if there else None
            found = {x: torch.from_numpy(values[:].astype("float64")[row]) for x, values in there.items()}
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected SONATA edges, of one population and with one group: {error}") from None
    return Synapses(sources, targets, *ends, **found | _drawn(tuple(ends[0].shape), options))


def _made(sources: int, targets: int, source: Tensor, target: Tensor, options: Options) -> Synapses:
    """Synapses whose weights and delays come after they are in order."""
    found = Synapses(sources, targets, source, target)
    return replace(found, **_drawn((len(found),), options))


def _indices(name: str, given: Any, size: int) -> Int64[Tensor, " synapses"]:
    found = _tensor(name, given)
    if found.ndim != 1 or (found.numel() and (found.dtype == torch.bool or found.dtype.is_floating_point)):
        cure = "; long() makes them whole" * found.dtype.is_floating_point
        raise ValueError(f"{name} must be whole numbers (synapses,), got {found.dtype} {tuple(found.shape)}{cure}")
    found = found.long()
    if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < size:
        raise ValueError(f"{name} must be from 0 to {size - 1}, got {int(found.min())} to {int(found.max())}")
    return found


def _tensor(name: str, given: Any) -> Tensor:
    """A tensor on the CPU, of real numbers."""
    try:
        found = torch.as_tensor(given, device=_HOST)
    except (RuntimeError, TypeError, ValueError):  # a list of unequal lists, say
        found = None
    if found is None or found.is_complex():
        got = type(given).__name__ if found is None else found.dtype
        raise ValueError(f"{name} must be numbers, in a tensor or an array, got {got}")
    return found


def _numbers(name: str, given: Any, count: int) -> Float[Tensor, " synapses"] | None:
    if given is None:
        return None
    found = (
        torch.tensor(given, dtype=torch.float64) if isinstance(given, int | float) else _tensor(name, given).detach()
    )
    found = found if found.is_floating_point() else found.double()
    if found.shape not in ((), (count,)):
        raise ValueError(f"{name} must be a number, or one for each of {count} synapses, got {tuple(found.shape)}")
    if not bool(found.isfinite().all()) or (name == "delay" and bool((found < 0).any())):
        least = " and >= 0" * (name == "delay")
        raise ValueError(f"{name} must be finite{least}, got {float(found.min()):g} to {float(found.max()):g}")
    return found.expand(count)


def _few(number: float) -> None:
    if number > MOST_SYNAPSES:
        raise ValueError(f"there can be at most {MOST_SYNAPSES} synapses, got {number:.15g}")


def _drawn(size: tuple[int, ...], options: Options, distance: Tensor | None = None) -> dict[str, Any]:
    """The weights and delays that are given, drawn if they have to be. A generator seeds torch's own meanwhile."""
    found: dict[str, Any] = {}
    generator = options.get("generator")
    for name in ("weight", "delay"):
        if (given := options.get(name)) is None:
            continue
        draw: Any = given.sample if isinstance(given, Distribution) else given
        with torch.random.fork_rng(devices=[], enabled=callable(draw) and generator is not None):
            if callable(draw) and generator is not None:
                torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            of_distance = callable(given) and distance is not None
            found[name] = draw(distance if of_distance else size) if callable(draw) else given
    return found


def _others(rows: int, number: int, options: Options) -> int:
    """How many neurons each one can be connected to."""
    if options.get("autapses", True):
        return number
    if rows != number:
        raise ValueError(f"autapses=False needs as many sources as targets, got {rows} and {number}")
    return number - 1


def _past(index: Tensor, row: Tensor, options: Options) -> Tensor:
    """Numbers among all neurons, from those among all but the row's own."""
    return index if options.get("autapses", True) else index + (index >= row)


def _existing(chance: Float[Tensor, " rows"], cells: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Row and cell of all connections, each of which exists with the probability of its row.

    A Poisson process with a mean of -log(1 - p) in each cell hits it with the probability p: no cell is looked at that
    is not hit. Cells of rows in which most exist are drawn one by one.
    """
    _few(float(chance.sum()) * cells)
    most = chance > 0.5
    mean = torch.where(most, 0.0, -torch.log1p(-chance)) * cells
    ends = mean.cumsum(0)
    total = float(ends[-1])
    points = torch.empty(int(torch.poisson(ends[-1], generator)) + 1, dtype=torch.float64, device=_HOST)
    points = points.exponential_(generator=generator).cumsum(0)
    points = (points[:-1] * (total / float(points[-1]))).clamp(max=total * (1 - 1e-15))  # uniform, and in order
    row = torch.searchsorted(ends, points, right=True)
    cell = ((points - (ends - mean)[row]) / mean[row] * cells).long().clamp(0, max(cells - 1, 0))
    hit = (row * cells + cell).unique_consecutive()
    each = (most.nonzero() * cells + torch.arange(cells, device=_HOST)).flatten()
    kept = torch.rand(len(each), dtype=torch.float64, generator=generator, device=_HOST)
    hit = torch.cat([hit, each[kept < chance[most].repeat_interleave(cells)]])
    return hit // max(cells, 1), hit % max(cells, 1)


def _chosen(rows: int, of: int, number: int, options: Options) -> tuple[Tensor, Tensor]:
    """Row and neuron of all connections, of which each row has the same number. All choices are equally likely."""
    others, generator, multapses = _others(rows, of, options), options.get("generator"), options.get("multapses", False)
    if number > others and not (multapses and others):
        cure = "; multapses=True draws with replacement" * (others > 0)
        raise ValueError(f"number must be at most {others}, as many as there are to choose from, got {number}{cure}")
    _few(number * rows)
    row = torch.arange(rows, device=_HOST).expand(number, -1).mT
    if not multapses and 2 * number > others:
        keys = torch.rand(rows, others, dtype=torch.float64, generator=generator, device=_HOST)
        return row.flatten(), _past(keys.argsort(dim=1)[:, :number], row, options).flatten()
    found = torch.randint(others, (rows, number), generator=generator, device=_HOST)
    left = torch.arange(0 if multapses else rows, device=_HOST)
    while len(left):  # what a row has twice is drawn again
        own = found[left].sort(dim=1).values
        twice = torch.zeros_like(own, dtype=torch.bool)
        twice[:, 1:] = own[:, 1:] == own[:, :-1]
        own[twice] = torch.randint(others, (int(twice.sum()),), generator=generator, device=_HOST)
        found[left] = own
        left = left[twice.any(dim=1)]
    return row.flatten(), _past(found, row, options).flatten()
