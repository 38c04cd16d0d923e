"""What reaches neurons: inputs, their receptors, the signs of weights, and which connections exist."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.connect import Synapses
from firstspike.layers.delay import Delayed, project_delays_
from firstspike.layers.trains import Spikes
from firstspike.neurons import Neuron
from firstspike.ranges import PositiveFraction
from firstspike.spiketime.parameters import receptor_of
from firstspike.spiketime.values import check_memory
from firstspike.text import shortened

Receptors = Sequence[int] | Literal["sign"] | None
Mask = PositiveFraction | Tensor | None
"""Which connections exist: a boolean tensor, or the probability of each; None for all."""
MOST_DENSE = 2**24
"""Weights of the matrix by which sparse synapses compute where no kernel takes them as they are."""


class Arriving(NamedTuple):
    """The inputs of a layer's neurons: trains or, after ``each_spike``, each spike as a separate input."""

    times: Spikes
    """Times as a neuron sees them, without delays."""
    weight: Float[Tensor, "rows inputs"]
    delay: Float[Tensor, "rows inputs"] | None
    until: float
    """When the layer stops."""
    receptor: Int64[Tensor, " inputs"] | Literal["sign"] | None = None
    """The receptor that each reaches, see ``first_spike_time``; None if there is one."""


def each_spike(of_trains: Arriving) -> Arriving:
    """The arriving spikes, with every spike of a train as a separate input."""
    each = of_trains.times.shape[-1]
    own = {name: getattr(of_trains, name) for name in ("weight", "delay", "receptor")}
    own = {name: x.repeat_interleave(each, dim=-1) for name, x in own.items() if isinstance(x, Tensor)}
    return of_trains._replace(times=of_trains.times.flatten(-2), **own)


def checked_receptors(
    neuron: Neuron, receptor: Receptors, inputs: int, name: str = "receptor"
) -> tuple[Receptors, Int64[Tensor, " inputs"] | None]:
    """The receptors of inputs as a layer keeps them, and in a tensor, unless there is one or signs tell."""
    if receptor is not None and not neuron.receptors:
        hint = "; without it, weights of both signs reach the one that there is" if receptor == "sign" else ""
        raise ValueError(f"{name} needs a neuron with several, such as LIF(tau_syn=(1.0, 2.0)), got {neuron}{hint}")
    kept = receptor if isinstance(receptor, str) else _whole(name, receptor)
    if kept is None and len(neuron.receptors) <= 1:
        return None, None
    try:
        return kept, receptor_of(neuron, kept, torch.empty(0, inputs, device="cpu"))
    except ValueError as error:
        raise ValueError(str(error) if name == "receptor" else f"{name}: {error}") from None


def _whole(name: str, numbers: Sequence[int] | None) -> tuple[int, ...] | None:
    try:
        return None if numbers is None else tuple(map(operator.index, numbers))
    except TypeError:
        raise ValueError(f"{name} must be a list with a whole number for each input, got {numbers!r}") from None


def usual_signs(signs: Sequence[int] | None, neuron: Neuron, inputs: int, receptor: Receptors) -> Sequence[int] | None:
    """The signs that are given, and by default no negative one where weights are conductances of given receptors."""
    return [1] * inputs if signs is None and neuron.conducts and receptor != "sign" else signs


def checked_signs(name: str, signs: Sequence[int] | None, inputs: int) -> tuple[int, ...] | None:
    """The signs of the weights of inputs as a layer keeps them."""
    found = _whole(name, signs)
    if found is not None and (len(found) != inputs or not set(found) <= {-1, 0, 1}):
        raise ValueError(f"{name} must be 1, -1 or 0 for each of {inputs} inputs, got {len(found)}: {shortened(signs)}")
    return found


def _sides(layer: Any, name: str, signs: Sequence[int]) -> Tensor:
    weight = getattr(layer, name)
    sides = weight.new_tensor(signs)
    return sides[ends_of(layer, name)[0]] if name in layer.sparse else sides.view(-1, *[1] * (weight.ndim - 2))


def parameter(like: Tensor, shape: tuple[int, ...], sparse: Synapses | None, what: str) -> nn.Parameter:
    """Weights yet to be drawn: in that shape, or one for each of the synapses."""
    if sparse is not None and not isinstance(sparse, Synapses):
        got = f"got {type(sparse).__name__}: from_sparse takes a matrix, pairs an edge index"
        raise ValueError(f"sparse {what} must be Synapses of fs.connect, {got}")
    size = shape if sparse is None else (len(sparse),)
    cure = "where few neurons are connected, give synapses of fs.connect, which take no matrix"
    check_memory(math.prod(size) * like.itemsize * like.is_cpu, what, cure)
    return nn.Parameter(like.new_empty(size))


def connect(layer: Any, name: str, mask: Mask, sparse: Synapses | None, shape: tuple[int, ...]) -> None:
    """Give a layer buffers for the connections of the weights of that name: of a mask or yet to be drawn, or sparse.

    ``shape`` is that of a matrix.
    """
    weight, of = getattr(layer, name), name.replace("weight", "mask")
    if sparse is not None:
        what, std, signs = "synapses", "weight_std", layer._signed[name]
        if name != "weight":
            what, std = "recurrent", "recurrent_std"
        if mask is not None:
            raise ValueError(f"{what} and {of} exclude each other")
        if (sparse.targets, sparse.sources) != shape:
            raise ValueError(f"{what} must fit weights {shape}, (targets, sources), got {sparse}")
        if sparse.delay is not None and not isinstance(layer, Delayed):
            raise ValueError(f"{layer._name} has no synaptic delays, got {sparse}")
        if sparse.weight is not None and getattr(layer, std) is not None:
            raise ValueError(f"{what} and {std} exclude each other: {sparse}")
        layer.sparse[name] = sparse
        for key, x in zip(_keys(name), (sparse.source, sparse.target), strict=True):
            layer.register_buffer(key, x.to(weight.device))
        sides = 0 if signs is None else torch.tensor(signs)[sparse.source]
        if sparse.weight is not None and bool((sides * sparse.weight < 0).any()):
            raise ValueError(f"{what} has weights with other signs than {of.replace('mask', 'signs')}")
    form = torch.bool, weight.shape, torch.strided
    if isinstance(mask, Tensor) and (mask.dtype, mask.shape, mask.layout) != form:
        got = f"{mask.dtype} {tuple(mask.shape)}" + f", {mask.layout}" * (mask.layout is not torch.strided)
        raise ValueError(f"{of} must be a probability or a boolean tensor {tuple(weight.shape)}, got {got}")
    setattr(layer, of, mask)
    if mask is None:  # no empty buffer, which torch.export would count
        setattr(layer, name.replace("weight", "connections"), None)
        return
    held = mask.to(weight.device, copy=True) if isinstance(mask, Tensor) else torch.empty_like(weight, dtype=torch.bool)
    layer.register_buffer(name.replace("weight", "connections"), held)


def connections_of(layer: nn.Module, name: str) -> Any:
    """The boolean matrix of a mask, if there is one."""
    return getattr(layer, name.replace("weight", "connections"))


def _keys(name: str) -> tuple[str, str]:
    return name.replace("weight", "source"), name.replace("weight", "target")


def ends_of(layer: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """Source and target of sparse synapses."""
    source, target = (getattr(layer, key) for key in _keys(name))
    return source, target


def matrix(layer: Any, name: str, values: Tensor | None = None, rest: float = 0.0) -> Float[Tensor, "*shape"]:
    """Weights as they act, or delays in ``values``, as a matrix, also those of sparse synapses.

    The weights of several synapses of a pair add up. Delays are ``rest`` for pairs without a synapse.
    """
    found = existing(layer, name) if values is None else values
    if (sparse := layer.sparse.get(name)) is None:
        return found
    shape, (source, target) = (sparse.targets, sparse.sources), ends_of(layer, name)
    if math.prod(shape) > MOST_DENSE:
        size = f"{math.prod(shape) * found.itemsize / 1e9:.3g} GB for {len(found)} synapses"
        bound = "" if getattr(layer, "max_weight_grad", None) is None else " because of max_weight_grad"
        raise ValueError(
            f"{sparse} compute as a matrix here{bound}, of at most {MOST_DENSE} weights, and would take {size}; kernels "
            "without one are those of SpikeTrains and SpikingRecurrent for LIF and AdaptiveLIF on CPUs"
        )
    at = target * sparse.sources + source
    if values is None:
        twin = found.new_zeros(math.prod(shape)).index_add(0, at, found)
        same = not sparse.multapses or layer.receptor != "sign" or bool(((twin[at] * found > 0) | (found == 0)).all())
    else:
        twin = found.new_full((math.prod(shape),), rest).index_put((at,), found)
        same = not sparse.multapses or (not found.requires_grad and torch.equal(twin[at], found))
    if not same:
        raise ValueError(
            f"{sparse}: several of one pair compute as one here: with delays that learn or differ, or "
            "with receptors by both signs, they cannot"
        )
    return twin.view(shape)


def fan_out(layer: Any, name: str = "weight") -> Int64[Tensor, " inputs"]:
    """Number of weights of each input that exist."""
    if (sparse := layer.sparse.get(name)) is not None:
        return torch.bincount(ends_of(layer, name)[0], minlength=sparse.sources)
    if (connections := connections_of(layer, name)) is not None:
        return connections.flatten(1).sum(dim=0)
    weight = getattr(layer, name)
    return torch.full((weight[0].numel(),), len(weight), device=weight.device)


def charge_of(layer: Any, name: str, sent: Float[Tensor, "places sources"]) -> Float[Tensor, "places rows"]:
    """What rows receive of a number that each source sends, by the weights of that name; without a matrix if sparse."""
    weight = existing(layer, name)
    if (sparse := layer.sparse.get(name)) is None:
        return sent @ weight.flatten(1).mT
    source, target = ends_of(layer, name)
    return sent.new_zeros(len(sent), sparse.targets).index_add(1, target, sent[:, source] * weight)


def of_rows(layer: Any, name: str, values: Any) -> Any:
    """Numbers of each row, if they are no single one, in a form that broadcasts with the weights."""
    if not isinstance(values, Tensor):
        return values
    if name in layer.sparse:
        return values.flatten()[ends_of(layer, name)[1]]
    return values.view(-1, *[1] * (getattr(layer, name).ndim - 1))


def _means(layer: Any, name: str, values: Tensor) -> Float[Tensor, " rows"]:
    """The mean of each row over all inputs; missing connections count as 0."""
    if (sparse := layer.sparse.get(name)) is None:
        return values.flatten(1).mean(dim=1)
    return values.new_zeros(sparse.targets).index_add(0, ends_of(layer, name)[1], values) / sparse.sources


@torch.no_grad()
def check_structure(layer: Any, state: Mapping[str, Any], prefix: str) -> None:
    """Make room for the sparse synapses of a state, which may be others; ValueError if they cannot be."""
    for name, sparse in layer.sparse.items():
        source, target = (state.get(prefix + key) for key in _keys(name))
        if not isinstance(source, Tensor) or not isinstance(target, Tensor) or source.is_meta:
            continue
        if not source.shape == target.shape == sparse.source.shape:
            continue  # torch says so
        found = Synapses(sparse.sources, sparse.targets, source, target, rules=sparse.rules)
        if not (torch.equal(found.source, source.cpu()) and torch.equal(found.target, target.cpu())):
            raise ValueError(f"{prefix}{name}: synapses of a state must be in order by source, then by target")
        if not (torch.equal(found.source, sparse.source) and torch.equal(found.target, sparse.target)):
            set_structure_(layer, name, found)


def set_structure_(layer: Any, name: str, found: Synapses) -> None:
    """Give a layer as many other sparse synapses, whose weights and delays are to be put in their order."""
    layer.sparse[name] = found
    for key, x in zip(_keys(name), (found.source, found.target), strict=True):
        setattr(layer, key, x.to(getattr(layer, key).device))


def existing(layer: nn.Module, name: str = "weight") -> Float[Tensor, "*shape"]:
    """Weights as they act: those of missing connections are 0, and have no gradient."""
    weight, connections = getattr(layer, name), connections_of(layer, name)
    return weight if connections is None else torch.where(connections, weight, 0.0)


@torch.no_grad()
def draw_(
    layer: Any,
    name: str,
    mean: float | Tensor,
    std: float | Tensor,
    generator: torch.Generator | None,
    usual: bool | Literal["spread"] = False,
    balanced: bool = False,
    scale: float | Tensor = 1.0,
) -> None:
    """Draw connections, if their probability is given, and normally distributed weights with their signs.

    The ``usual`` mean and spread, or the spread alone, are for all inputs: those that exist take the place of others,
    and inhibition is half of the excitation. ``balanced``: weights of all rows have the same mean.
    """
    weight, connections, mask = getattr(layer, name), connections_of(layer, name), name.replace("weight", "mask")
    signs, sparse = layer._signed[name], layer.sparse.get(name)
    more: Any = 1.0
    if sparse is not None and weight.is_meta:
        return
    if connections is not None or sparse is not None:
        if connections is not None and not isinstance(chance := getattr(layer, mask), Tensor):
            connections.copy_(torch.empty_like(weight).uniform_(generator=generator) < chance)
        inputs = weight[0].numel() if sparse is None else sparse.sources
        exist = torch.ones_like(weight) if connections is None else connections.to(weight)
        more = 1 / _means(layer, name, exist).clamp(min=1 / inputs)
        mean, std = mean * (more if usual is True else 1.0), std * (more.sqrt() if usual else torch.ones_like(more))
    mean, std, scale = (of_rows(layer, name, x) for x in (mean, std, scale))
    if isinstance(std, Tensor):
        weight.normal_(generator=generator)
        weight.sub_(of_rows(layer, name, _means(layer, name, existing(layer, name)) * more) if balanced else 0.0)
        weight.mul_(std).add_(mean)
    else:
        weight.normal_(mean, std, generator=generator)
    weight.mul_(scale)
    if signs is not None:
        side, inhibits = _sides(layer, name, signs), signs.count(-1) / len(signs)
        if usual is True and 0 < inhibits < 1:
            weight.mul_(torch.where(side < 0, 1 / inhibits, 2 / (1 - inhibits)))
        weight.copy_(torch.where(side == 0, weight, side * weight.abs()))
    weight.copy_(existing(layer, name))


@torch.no_grad()
def given_(layer: Any, name: str) -> bool:
    """Set the weights that sparse synapses come with; False if there are none."""
    if (sparse := layer.sparse.get(name)) is None or sparse.weight is None:
        return False
    getattr(layer, name).copy_(sparse.weight)
    return True


def bounded_in(network: nn.Module) -> list[tuple[nn.Module, str, tuple[int, ...] | None]]:
    """The layers and names of all weights whose signs are fixed or of which some are missing, and the signs."""
    found = [(x, *pair) for x in network.modules() for pair in vars(x).get("_signed", {}).items()]
    return [each for each in found if each[2] is not None or connections_of(*each[:2]) is not None]


@torch.no_grad()
def project_(network: nn.Module) -> None:
    """Put raw delays and weights that an optimiser carried outside their bounds back, missing weights to 0."""
    project_delays_(network)
    for layer, name, signs in bounded_in(network):
        weight = existing(layer, name)
        weight = weight if signs is None else torch.where(_sides(layer, name, signs) * weight < 0, 0.0, weight)
        getattr(layer, name).copy_(weight)
