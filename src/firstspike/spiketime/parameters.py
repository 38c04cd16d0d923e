"""A neuron's arguments of the operator, as tensors with a number for each neuron of a layer."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from firstspike.deferred import CONDUCTS, require
from firstspike.neurons import Neuron
from firstspike.neurons.base import each
from firstspike.neurons.expressions import value_of
from firstspike.spiketime.contract import QUANTITIES
from firstspike.spiketime.values import records, values_of
from firstspike.text import shortened

Receptor = str | Sequence[int] | Int64[Tensor, " inputs"] | None
"""Which receptor each input reaches, see ``first_spike_time``."""
_WRONG = 'receptor must be "sign", or a whole number for each input, got {!r}'
_NEGATIVE = (
    "weights of {} must be >= 0, as its synapses are conductances, got {:g}: name the receptor of inputs that inhibit, "
    'and give layers signs=[1, ...], or let signs choose it by receptor="sign"'
)


def all_tensors(given: dict[str, Any]) -> dict[str, Any]:
    """The ``QUANTITIES`` in order, None for those that are not given."""
    return dict.fromkeys(QUANTITIES) | given


def of_neurons(value: float | Tensor, weight: Tensor) -> Tensor:
    """One number for each neuron, ``(outputs,)``."""
    if isinstance(value, Tensor):
        return value.to(dtype=weight.dtype, device=weight.device).expand(weight.shape[0])
    if torch.finfo(weight.dtype).max < abs(value) < math.inf:
        raise ValueError(f"a value of the neuron, {value:g}, is too large for {weight.dtype}: take another unit")
    return torch.full((weight.shape[0],), value, dtype=weight.dtype, device=weight.device)


def parameters_of(
    neuron: Any, weight: Tensor, receptor: Receptor
) -> tuple[tuple[float | None, float], dict[str, Any], dict[str, Any]]:
    """A neuron's time constants for ``Options``, its tensors by name, and its other ``Options``."""
    if neuron.equations is not None:
        return _of_equations(neuron, weight, receptor)
    components, mem, syn = neuron.components, neuron.tau_mem, neuron.tau_syn
    given: dict[str, Any] = {"threshold": of_neurons(neuron.threshold, weight)}
    given["tau_mem"] = of_neurons(mem, weight) if isinstance(mem, Tensor) else None
    fixed_mem = None if isinstance(mem, Tensor) or mem == math.inf else mem
    if not components:
        if receptor is not None:
            raise ValueError(f"receptor needs a neuron with several, such as LIF(tau_syn=(1.0, 2.0)), got {neuron}")
        given["tau_syn"] = of_neurons(syn, weight) if isinstance(syn, Tensor) else None
        return (fixed_mem, 1.0 if isinstance(syn, Tensor) else syn), given, {}
    given["tau_syn"] = torch.stack([of_neurons(component.tau, weight) for component in components], -1)
    given["jumps"] = torch.stack([of_neurons(component.jump, weight) for component in components], -1)
    bias = neuron.bias
    given["bias"] = of_neurons(bias, weight) if isinstance(bias, Tensor) or bias != 0.0 else None
    given["receptor"] = receptor_of(neuron, receptor, weight)
    kind: dict[str, Any] = {"components": " ".join(component.kind for component in components)}
    kind["resets"] = neuron.reset is not None
    if given["bias"] is not None:
        kind["start"] = 0.0
    return (fixed_mem, 1.0), given, kind


def _of_equations(
    neuron: Neuron, weight: Tensor, receptor: Receptor
) -> tuple[tuple[float | None, float], dict[str, Any], dict[str, Any]]:
    equations, values = neuron.equations, neuron.named_values
    assert equations is not None
    reached = receptor_of(neuron, receptor, weight)
    if neuron.conducts and reached is None:
        equations = equations.turning(equations.receptors[1])
    elif neuron.conducts and weight.numel() and not records():
        least = values_of(weight).amin()
        require(CONDUCTS, least >= 0, lambda: _NEGATIVE.format(type(neuron).__name__, float(least)))
    for name, parameter in neuron.parameters.items() if not records() else ():
        for value in each(neuron.values[name]):
            if isinstance(value, Tensor) and value.numel():
                wrong = [x for x in map(float, values_of(value).aminmax()) if not parameter.allows(x)]
                if wrong:
                    raise ValueError(f"{name} must be {parameter.range}, got {wrong[0]}")
    names = (*equations.parameters, "refractory")
    one = torch.ones_like(weight[:, 0]) if weight.shape[1] else weight.new_ones(len(weight))
    given: dict[str, Any] = {"threshold": one, "receptor": reached}
    given["parameters"] = torch.stack([of_neurons(values[name], weight) for name in names], -1)
    return (None, 1.0), given, {"equations": equations.key, "start": 0.0}


def turned(neuron: Neuron, receptor: Receptor, others: Tensor) -> Tensor:
    """States of a neuron as its kernels have them, or back: weights < 0 take from the second conductance there."""
    if not (neuron.conducts and isinstance(receptor, str)):
        return others
    sides = others.new_ones(others.shape[-1])
    sides[neuron.receptors[1] - 1] = -1
    return others * sides


def starting_state(neuron: Neuron, samples: int, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Membrane, other states and the rest of a refractory time of neurons with equations, at the start."""
    assert neuron.equations is not None
    values = {name: torch.as_tensor(x, dtype=weight.dtype).to(weight) for name, x in neuron.named_values.items()}
    found = [value_of(neuron.start.get(name, 0.0), values) for name in neuron.equations.states]
    voltage, *others = (of_neurons(x, weight).expand(samples, -1) for x in found)
    rest = torch.stack(others, -1) if others else voltage.new_empty(*voltage.shape, 0)
    return voltage, rest, torch.zeros_like(voltage)


def receptor_of(neuron: Neuron, receptor: Receptor, weight: Tensor) -> Tensor | None:
    """The receptor that each input reaches; None if the signs of the weights tell."""
    inputs, several = weight.shape[1], len(neuron.receptors)
    if isinstance(receptor, str):
        if receptor != "sign":
            raise ValueError(_WRONG.format(receptor))
        if several != 2:
            raise ValueError(
                f'receptor="sign" needs a neuron with two receptors, such as LIF(tau_syn=(1.0, 2.0)), got {neuron}'
            )
        return None
    if receptor is None:
        if several > 1:
            raise ValueError(
                f'{neuron} has {several} receptors: say which one each input reaches, as receptor=[0, 1, ...] or "sign"'
            )
        return torch.zeros(inputs, dtype=torch.int64, device=weight.device)
    try:
        numbers = torch.as_tensor(receptor, device=weight.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(_WRONG.format(receptor)) from None
    if numbers.numel() and (numbers.is_floating_point() or numbers.dtype == torch.bool):
        raise ValueError(_WRONG.format(receptor))
    numbers = numbers.long()
    if numbers.shape != (inputs,):
        raise ValueError(f"receptor must have a number for each of {inputs} inputs, got {tuple(numbers.shape)}")
    if inputs and not records():
        known = values_of(numbers)
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < several:
            raise ValueError(f"receptor must be from 0 to {several - 1} for {neuron}, got {shortened(receptor)}")
    return numbers
