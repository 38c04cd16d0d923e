"""Which receptor an input reaches, and the sign of its weights."""

import operator
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from firstspike.layers.delay import project_delays_
from firstspike.neurons import Neuron
from firstspike.spiketime.parameters import receptor_of

Receptors = Sequence[int] | Literal["sign"] | None


def checked_receptors(
    neuron: Neuron, receptor: Receptors, inputs: int, name: str = "receptor"
) -> tuple[Receptors, Int64[Tensor, " inputs"] | None]:
    """The receptors of inputs as a layer keeps them, and in a tensor, unless there is one or signs tell."""
    if receptor is not None and not neuron.receptors:
        raise ValueError(f"{name} needs a neuron with several, such as LIF(tau_syn=(1.0, 2.0)), got {neuron}")
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


def usual_signs(signs: Sequence[int] | None, neuron: Neuron, inputs: int) -> Sequence[int] | None:
    """The signs that are given, and by default no negative one where weights are conductances."""
    return [1] * inputs if signs is None and neuron.conducts else signs


def checked_signs(name: str, signs: Sequence[int] | None, inputs: int) -> tuple[int, ...] | None:
    """The signs of the weights of inputs as a layer keeps them."""
    found = _whole(name, signs)
    if found is not None and (len(found) != inputs or not set(found) <= {-1, 0, 1}):
        raise ValueError(f"{name} must be 1, -1 or 0 for each of {inputs} inputs, got {len(found)}: {signs}")
    return found


def _sides(weight: Tensor, signs: Sequence[int]) -> Tensor:
    return weight.new_tensor(signs).view(-1, *[1] * (weight.ndim - 2))


@torch.no_grad()
def give_signs_(weight: Tensor, signs: Sequence[int] | None, usual: bool = False) -> None:
    """Give weights their signs; ``usual``: scaled so that inhibition is half of the excitation, with the same sum."""
    if signs is None:
        return
    side, inhibits = _sides(weight, signs), signs.count(-1) / len(signs)
    if usual and 0 < inhibits < 1:
        weight.mul_(torch.where(side < 0, 1 / inhibits, 2 / (1 - inhibits)))
    weight.copy_(torch.where(side == 0, weight, side * weight.abs()))


def signed_in(network: nn.Module) -> list[tuple[Tensor, tuple[int, ...]]]:
    """All weights in a network whose signs are fixed, and the signs."""
    found = [(x, *pair) for x in network.modules() for pair in getattr(x, "_signed", {}).items()]
    return [(getattr(layer, name), signs) for layer, name, signs in found if signs is not None]


@torch.no_grad()
def project_(network: nn.Module) -> None:
    """Put raw delays and weights that an optimiser carried outside their bounds back."""
    project_delays_(network)
    for weight, signs in signed_in(network):
        weight.copy_(torch.where(_sides(weight, signs) * weight < 0, 0.0, weight))
