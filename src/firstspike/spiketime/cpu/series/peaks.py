"""The distance of silent neurons from equations to their threshold, with its exact gradient.

The largest excess is where its slope is 0, at an input that ends its rise, or at the end. Its derivative is that of the
excess at a fixed time, and at an input, which moves this time, also the slope just before.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import Arguments, Grads, Needs, Result, as_several
from firstspike.spiketime.cpu.series import host
from firstspike.spiketime.maxima.members import Height
from firstspike.spiketime.parameters import Receptor, all_tensors, parameters_of, starting_state, turned


def lacking(
    times: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: Neuron,
    silent: Bool[Tensor, "batch outputs"],
    delay: Float[Tensor, "outputs inputs"] | None,
    until: float,
    receptor: Receptor,
) -> Float[Tensor, "batch outputs"]:
    """How far below the threshold a silent neuron stays, relative to how far it is at the start; 0 for all others.

    Differentiable by times, weight and delay. The neuron's parameters count as constants.
    """
    wide = weight.detach().double()
    _, given, kind = parameters_of(neuron, wide, receptor)
    voltage, others, left = starting_state(neuron, len(times), wide)
    state = voltage, turned(neuron, receptor, others), left
    values = {name: torch.as_tensor(x).detach().double() for name, x in neuron.named_values.items()}
    scale = -neuron.beginning(values)[1].to(weight)
    constants = (x if x is None else x.detach() for x in (given["parameters"], given["receptor"], *state))
    options = kind["equations"], kind["start"], until
    excess = Height.apply(*_SERIES, times, weight, delay, silent, *constants, *options)[0]
    return torch.where(silent, (-excess).clamp(min=0) / scale.clamp(min=1e-30), 0.0)


def _arguments(times: Tensor, weight: Tensor, delay: Tensor | None, *given: Any) -> Arguments:
    parameters, receptor, voltage, current, left, equations, start, until = given
    named: dict[str, Any] = {
        "times": times.unsqueeze(-1), "weight": weight, "delay": delay, "parameters": parameters, "voltage": voltage,
        "current": current, "left": left, "threshold": torch.ones_like(left[0]),
    }  # fmt: skip
    wide = {name: x if x is None else x.double() for name, x in named.items()} | {"receptor": receptor}
    tensors = as_several(all_tensors(wide)) | {"tau_mem": math.inf, "tau_syn": 1.0}
    return Arguments(**tensors, start=start, until=until, max_spikes=1, equations=equations)


def _highest(
    times: Tensor, weight: Tensor, delay: Tensor | None, _silent: Tensor, *given: Any
) -> tuple[Tensor, Tensor]:
    """The largest excess, and the numbers of the kernel."""
    found = host.peaks(_arguments(times, weight, delay, *given))[0]
    return found[..., 0].to(times.dtype), found


def _gradients(grad: Tensor, _excess: Tensor, found: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    times, weight, delay, silent, *others = given
    arguments = _arguments(times, weight, delay, *others)
    wide = torch.where(silent, grad.double(), 0.0)
    at = torch.where(silent & (found[..., 0] < 0), found[..., 1], math.inf)[None, ..., None]
    result = Result(at, (torch.full((*at.shape[:3], 2), 64, dtype=torch.int32),), torch.zeros_like(at[..., 0]) > 0)
    needs = Needs(("times", "weight") if delay is None else ("times", "weight", "delay"))
    by = host.backward(Grads(wide[None, ..., None]), result, arguments, None, needs, True)
    first, second = by["times"][0, ..., 0], by["weight"][0]
    third = None if delay is None else by["delay"][0]
    moves = silent & (found[..., 3] >= 0) & at[0, ..., 0].isfinite()
    sample, neuron = moves.nonzero(as_tuple=True)
    source, extra = found[..., 3].long()[moves], (wide * found[..., 2])[moves]
    first = first.index_put((sample, source), extra, accumulate=True)
    if third is not None:
        third = third.index_put((neuron, source), extra, accumulate=True).to(delay.dtype)
    return first.to(times.dtype), second.to(weight.dtype), third


_SERIES = _highest, _gradients
