"""Initial values: weights that make neurons fire, from the neuron's own response, and parameters that learn."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.neurons import LIF, Neuron
from firstspike.neurons.base import each
from firstspike.spiketime import first_spike_time
from firstspike.spiketime.response import kappa

# The membrane peaks at this multiple of the threshold in the mean over neurons, with this standard deviation: almost
# all neurons fire, and early enough that a network can delay spikes for long before it loses them.
_MEAN_PEAK = 5.0
_SPREAD = 2.0


class NormalWeights(NamedTuple):
    """Mean and standard deviation of normally distributed weights."""

    mean: float
    std: float


def first_response(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Time constants of a ``LIF`` that responds like a neuron with these parameters to its first receptor.

    Adding the time of a rise to that of the synapse keeps the area of the response and its mean time.
    """
    syn, rise = (x[0] if isinstance(x, tuple) else x for x in (values["tau_syn"], values.get("tau_rise", 0.0)))
    return values["tau_mem"], syn + rise


def firing_weights(inputs: int, neuron: LIF, window: float = 2.0) -> NormalWeights:
    """Weights for a threshold of 1 with which most neurons fire on ``inputs`` spikes in ``[0, window]`` tau_syn.

    With n inputs at uniformly random times the membrane of a neuron has the mean ``n mean phi(t)`` and the variance
    ``n std^2 psi(t)``, where phi and psi are the averages of ``kappa`` and ``kappa^2`` over the arrival times. Taken at
    the time at which phi has its maximum, mean and std follow from the membrane that is wanted there.
    """
    tau_mem, tau_syn = map(float, first_response(neuron.values))
    length = window * tau_syn
    # without leak the response never falls. Ten synaptic time constants are its end
    horizon = length + 10 * tau_syn + (0 if math.isinf(tau_mem) else 5 * tau_mem)
    time = torch.linspace(0, horizon, 512, dtype=torch.float64)[:, None]
    arrival = (torch.arange(64, dtype=torch.float64) + 0.5) / 64 * length
    response = torch.where(time > arrival, kappa((time - arrival).clamp(min=0), tau_mem, tau_syn), 0.0)
    phi, at = response.mean(dim=1).max(dim=0)
    psi = response[at].square().mean()
    return NormalWeights(_MEAN_PEAK / (inputs * phi.item()), _SPREAD / math.sqrt(inputs * psi.item()))


def _number(value: Any) -> Any:
    """One number for all neurons."""
    if isinstance(value, tuple):
        return tuple(map(_number, value))
    return float(value.double().mean()) if isinstance(value, Tensor) else value


@torch.no_grad()
def measured_weights(inputs: int, neuron: Neuron, until: float) -> NormalWeights:
    """Weights for neurons from equations, by trial: the input that just makes one spike replaces the threshold.

    The inputs come within two synaptic time constants, by the first receptor, and the neuron has until ``until``.
    """
    one = neuron.with_values(**{name: _number(x) for name, x in neuron.values.items()})
    weight = torch.logspace(-3, 9, 96, dtype=torch.float64)
    window = 2 * each(one.values.get("tau_syn", 1.0))[0]
    times = (torch.arange(64, dtype=torch.float64) + 0.5) / 64 * min(window, until)
    spikes = first_spike_time(
        times[None], (weight / 64)[:, None].expand(-1, 64), one, receptor=[0] * 64, until=until, backend="auto"
    )
    fires = spikes[0].isfinite().nonzero()
    total = float(weight[fires[0, 0]]) if len(fires) else 1.0
    return NormalWeights(_MEAN_PEAK * total / inputs, _SPREAD * total / math.sqrt(inputs))


def start_of(name: str, value: Any, rows: int | None) -> Float[Tensor, "*rows"]:
    """Where a parameter that learns starts: one number, or one for each row; of a tuple in a last dimension."""
    several = isinstance(value, tuple)
    given = [x for x in (value if several else (value,)) if x is not None]
    if not given:
        raise ValueError(f"{name} can only learn from a number, got {value}")
    starts = [torch.as_tensor(x, dtype=torch.float64).detach().cpu() for x in given]
    if rows is None and (most := max(start.numel() for start in starts)) != 1:
        raise ValueError(f"{name} starts with {most} values: set per_neuron, or give one number")
    found = torch.stack([x.reshape(()) if rows is None else x.expand(rows) for x in starts], -1)
    return found if several else found[..., 0]


def below(threshold: float | Tensor, depth: Tensor) -> Tensor:
    """The number that is so far below the threshold, for all neurons below the lowest; so also how far one is below."""
    if isinstance(threshold, Tensor) and threshold.ndim > depth.ndim:
        threshold = threshold.amin()
    return threshold - depth
