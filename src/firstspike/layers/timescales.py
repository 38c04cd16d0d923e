"""Whether the times of the inputs fit the time constants of the neurons: mostly a question of their unit."""

import math
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.inputs import PoissonSpikes
from firstspike.layers.neurons import NeuronLayer
from firstspike.neurons.base import each

_FORGOTTEN = 10.0  # time constants between an input and the next
_AT_ONCE = 0.01  # of a time constant, for all inputs of a sample
_SAMPLES = 100  # that are looked at
_CURE = "or give neurons others: LIF(tau_mem=..., tau_syn=...), in a config neuron.tau_mem and neuron.tau_syn"


def waits_and_lengths(times: Any) -> tuple[Float[Tensor, " waits"], Float[Tensor, " samples"]]:
    """Waits between successive inputs of a sample, and the time from its first to its last.

    ``times`` are ``(samples, inputs[, spikes])``, also as ``EventLists``. Those that are 0 are left out.
    """
    some: Tensor = times[:_SAMPLES].detach().flatten(1).double().cpu().sort(dim=1).values
    some = torch.where(some.isfinite(), some, math.nan)
    waits = some.diff(dim=1)
    lengths = waits.nansum(dim=1)
    return waits[waits > 0], lengths[lengths > 0]


def warn_of_misfit(network: nn.Module, times: Any) -> bool:
    """Warn if inputs come further apart than neurons remember, or all at once. Returns whether they do.

    The neurons are those of the first layer that has any.
    """
    layers: list[Any] = list(network) if isinstance(network, nn.Sequential) else []
    index = next((k for k, layer in enumerate(layers) if isinstance(layer, NeuronLayer)), len(layers))
    before = layers[: index + 1]
    if index == len(layers) or any(isinstance(layer, PoissonSpikes) for layer in before):
        return False
    given = layers[index].initial_neuron.values.items()
    values = [torch.as_tensor(x).flatten() for name, value in given if name.startswith("tau") for x in each(value)]
    taus = [tau for tau in torch.cat([*values, torch.empty(0)]).tolist() if tau]
    waits, lengths = waits_and_lengths(times)
    if not taus or not len(waits):
        return False
    wait, length, longest, shortest = float(waits.median()), float(lengths.median()), max(taus), min(taus)
    if wait > _FORGOTTEN * longest:
        found = (
            f"inputs of a sample come about {_rough(wait / longest)} times further apart (in the median) than the "
            f"longest time constant of neurons, {longest:g}, so that each is forgotten before the next: divide the "
            "times, such as microseconds by 1000 for ms"
        )
    elif length < _AT_ONCE * shortest and not any(getattr(layer, "delay", None) is not None for layer in before):
        found = (
            f"all inputs of a sample come within about {_rough(length / shortest)} of the shortest time constant of "
            f"neurons, {shortest:g}, which is all at once: multiply the times, such as seconds by 1000 for ms"
        )
    else:
        return False
    warnings.warn(f"{found}, {_CURE}", stacklevel=1)  # here, so that it is shown once, by whatever ways a user comes
    return True


def _rough(number: float) -> str:
    return f"{float(f'{number:.1g}'):g}"
