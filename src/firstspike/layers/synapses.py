"""What reaches neurons: inputs, their receptors, the signs of weights, and which connections exist."""

import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.layers.delay import project_delays_
from firstspike.layers.trains import Spikes
from firstspike.neurons import Neuron
from firstspike.ranges import PositiveFraction
from firstspike.spiketime.parameters import receptor_of

Receptors = Sequence[int] | Literal["sign"] | None
Mask = PositiveFraction | Tensor | None
"""Which connections exist: a boolean tensor, or the probability of each; None for all."""


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
        raise ValueError(f"{name} must be 1, -1 or 0 for each of {inputs} inputs, got {len(found)}: {signs}")
    return found


def _sides(weight: Tensor, signs: Sequence[int]) -> Tensor:
    return weight.new_tensor(signs).view(-1, *[1] * (weight.ndim - 2))


def connect(layer: nn.Module, name: str, mask: Mask) -> None:
    """Give a layer a buffer for the connections of the weights of that name, of a mask or yet to be drawn."""
    weight, of = getattr(layer, name), name.replace("weight", "mask")
    form = torch.bool, weight.shape, torch.strided
    if isinstance(mask, Tensor) and (mask.dtype, mask.shape, mask.layout) != form:
        got = f"{mask.dtype} {tuple(mask.shape)}" + f", {mask.layout}" * (mask.layout is not torch.strided)
        raise ValueError(f"{of} must be a probability or a boolean tensor {tuple(weight.shape)}, got {got}")
    setattr(layer, of, mask)
    held = mask.to(weight.device, copy=True) if isinstance(mask, Tensor) else torch.empty_like(weight, dtype=torch.bool)
    layer.register_buffer(name.replace("weight", "connections"), None if mask is None else held)


def _connections(layer: nn.Module, name: str) -> Any:
    return getattr(layer, name.replace("weight", "connections"))


def existing(layer: nn.Module, name: str = "weight") -> Float[Tensor, "*shape"]:
    """Weights as they act: those of missing connections are 0, and have no gradient."""
    weight, connections = getattr(layer, name), _connections(layer, name)
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
    weight, connections, mask = getattr(layer, name), _connections(layer, name), name.replace("weight", "mask")
    signs, rows, more = layer._signed[name], weight.flatten(1), 1.0
    if connections is not None:
        if not isinstance(chance := getattr(layer, mask), Tensor):
            connections.copy_(torch.empty_like(weight).uniform_(generator=generator) < chance)
        more = 1 / connections.flatten(1).to(weight).mean(dim=1, keepdim=True).clamp(min=1 / rows.shape[1])
        mean, std = mean * (more if usual is True else 1.0), std * (more.sqrt() if usual else torch.ones_like(more))
    if isinstance(std, Tensor):
        rows.normal_(generator=generator)
        rows.sub_(existing(layer, name).flatten(1).mean(dim=1, keepdim=True) * more if balanced else 0.0)
        rows.mul_(std).add_(mean)
    else:
        rows.normal_(mean, std, generator=generator)
    rows.mul_(scale)
    if signs is not None:
        side, inhibits = _sides(weight, signs), signs.count(-1) / len(signs)
        if usual is True and 0 < inhibits < 1:
            weight.mul_(torch.where(side < 0, 1 / inhibits, 2 / (1 - inhibits)))
        weight.copy_(torch.where(side == 0, weight, side * weight.abs()))
    weight.copy_(existing(layer, name))


def bounded_in(network: nn.Module) -> list[tuple[nn.Module, str, tuple[int, ...] | None]]:
    """The layers and names of all weights whose signs are fixed or of which some are missing, and the signs."""
    found = [(x, *pair) for x in network.modules() for pair in vars(x).get("_signed", {}).items()]
    return [each for each in found if each[2] is not None or _connections(*each[:2]) is not None]


@torch.no_grad()
def project_(network: nn.Module) -> None:
    """Put raw delays and weights that an optimiser carried outside their bounds back, missing weights to 0."""
    project_delays_(network)
    for layer, name, signs in bounded_in(network):
        weight = existing(layer, name)
        weight = weight if signs is None else torch.where(_sides(weight, signs) * weight < 0, 0.0, weight)
        getattr(layer, name).copy_(weight)
