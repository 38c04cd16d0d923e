"""Numbers of any size, in units in which they fit the arithmetic.

Units are powers of two, so that a result has the same digits in any of them. The weights and the threshold of a neuron
have one of their own, see ``unit_of_weights``. Times stay in the unit that is given while the faster time constant is
neither very short nor very long in it, see ``in_units``.
"""

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.devices import UNIT, is_host, refuse
from firstspike.spiketime.contract import Arguments, Backend, Constants, Gradients, Grads, Held, Needs, Result
from firstspike.spiketime.limits import LARGEST_32, LARGEST_64

LARGEST = {torch.float32: LARGEST_32, torch.float64: LARGEST_64}
"""Limit of weights, in thresholds, and of ``tau_mem / tau_syn``, beyond which ``tau_mem`` counts as infinite."""

LONGEST = {torch.float32: 1e35, torch.float64: 1e250}
"""Limit of time constants; the shortest is the inverse of the longest."""

_NEAR = 2.0**12  # a unit that much shorter or longer than the faster time constant does


def unit_of_weights(weight: Float[Tensor, "E O I"], threshold: Float[Tensor, "E O"]) -> Float[Tensor, "E O"]:
    """For each neuron a power of two about as large as the threshold, or as the largest weight if that is larger."""
    size = torch.maximum(weight.abs().amax(dim=-1), threshold) if weight.shape[-1] else threshold
    limit = 126 if size.dtype == torch.float32 else 1022  # its inverse is a normal number, too
    return torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent.clamp(-limit, limit))


def in_units(backend: Backend) -> Backend:
    """The backend for time constants in any unit of time. It itself sees a faster time constant of about 1.

    Raises:
        ValueError: at the call, times or delays that have no number in units of the time constants.
    """

    def forward(given: Arguments) -> Result:
        unit, inner = _inside(given)
        found = backend.forward(inner)
        if is_one(unit):
            return found
        state = found.state and found.state._replace(refractory=found.state.refractory * unit)
        if given.observed is not None:
            return found._replace(spikes=given.observed, state=state)
        spikes = from_unit(found.spikes, unit)
        if given.until < math.inf:
            spikes = torch.where(spikes.isinf(), spikes, spikes.clamp(max=given.until))
        return found._replace(spikes=spikes, state=state)

    def backward(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        unit, inner = _inside(given)
        if is_one(unit):
            return backend.backward(grads, result, inner, max_weight_grad, needs)
        first, then = split(unit)
        bound: Any = None if max_weight_grad is None else max_weight_grad / then
        state = grads.state and Held(grads.state[0] / then, grads.state[1] / then, grads.state[2] * first)
        result = result._replace(spikes=result.spikes / unit)
        found = backend.backward(Grads(grads.spikes * first, state), result, inner, bound, needs)
        factors = (1 / first, then, then, 1 / first, 1 / first, 1 / first)
        tensors: Any = (None if x is None else x * factor for x, factor in zip(found[:6], factors, strict=True))
        state = found.state and Held(found.state[0] * then, found.state[1] * then, found.state[2] / first)
        return Gradients(*tensors)._replace(state=state)

    return replace(backend, forward=forward, backward=backward)


def from_unit(inner: Tensor, unit: float | Tensor) -> Tensor:
    """Spike times in the unit outside. Rounded up, a spike stays after the inputs that cause it."""
    outer = inner * unit
    early = outer / unit < inner
    return torch.where(early, torch.nextafter(outer, torch.full_like(outer, math.inf)), outer)


def split(unit: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """A unit as the product of one that is at least 1 and one that is at most 1.

    Derivatives by weights and thresholds are times; a long unit counts before they are small, a short one after.
    """
    if isinstance(unit, Tensor):
        return unit.clamp(min=1), unit.clamp(max=1)
    return max(unit, 1.0), min(unit, 1.0)


def _inside(given: Arguments) -> tuple[float | Tensor, Arguments]:
    """The unit to work in, and the arguments in it."""
    unit, constants = unit_of_time(given.constants, given.times.dtype)
    if is_one(unit):
        return unit, given._replace(constants=constants)
    names = ("times", "delay", "refractory", "observed")
    times: dict[str, Any] = {name: getattr(given, name) for name in names}
    times = {name: None if x is None else in_unit(name, x, unit) for name, x in times.items()}
    inner = given._replace(**times, constants=constants)
    if not given.max_spikes:
        return unit, inner
    unit = float(unit)  # waits for a GPU
    in_unit("until", given.times.new_tensor([given.until, given.start]), unit)
    state = given.state and given.state._replace(refractory=in_unit("state.refractory", given.state.refractory, unit))
    windows = given.windows and given.windows._replace(
        bounds=tuple(x / unit for x in given.windows.bounds), lag=given.windows.lag / unit
    )
    return unit, inner._replace(state=state, start=given.start / unit, until=given.until / unit, windows=windows)


def in_unit(name: str, x: Tensor, unit: float | Tensor) -> Tensor:
    """Times in a unit.

    Raises:
        ValueError: times that have no number in it; on a GPU later, see ``raise_deferred_errors``.
    """
    inner = x / unit
    wrong = (inner.isinf() != x.isinf()).any()
    limit = torch.finfo(x.dtype).max
    refuse(UNIT, wrong, lambda: f"{name} must be below {float(unit) * limit:g} with such time constants in {x.dtype}")
    return inner


def unit_of_time(constants: Constants, dtype: torch.dtype) -> tuple[float | Tensor, Constants]:
    """The unit to work in, and the constants in it; on a GPU that of tensors is one, and may be 1."""
    mem, syn = constants
    if not isinstance(syn, Tensor):
        assert not isinstance(mem, Tensor)
        return _unit_of_numbers(mem, syn, dtype)
    if not syn.numel():
        return 1.0, constants
    faster = (torch.minimum(mem, syn) if isinstance(mem, Tensor) else syn).amin()
    unit: float | Tensor
    if is_host(faster.device):
        unit = _power_of(float(faster))
    else:
        near = (faster >= 1 / _NEAR) & (faster <= _NEAR)
        unit = torch.where(near, 1.0, torch.ldexp(torch.ones_like(faster), torch.frexp(faster).exponent))
    if is_one(unit):
        return unit, constants
    if isinstance(mem, Tensor):
        mem = torch.where(mem.isinf(), mem, (mem / unit).clamp(max=torch.finfo(dtype).max))
    return unit, Constants(mem, syn / unit)


@lru_cache(maxsize=256)
def _unit_of_numbers(mem: float, syn: float, dtype: torch.dtype) -> tuple[float, Constants]:
    """The same of numbers. Neurons that leak too slowly to show have no leak."""
    unit = _power_of(min(mem, syn))
    return unit, Constants(math.inf if mem > LARGEST[dtype] * syn else mem / unit, syn / unit)


def is_one(unit: float | Tensor) -> bool:
    """Whether it is known to be 1; a tensor is not read."""
    return not isinstance(unit, Tensor) and unit == 1


def _power_of(faster: float) -> float:
    return 1.0 if 1 / _NEAR <= faster <= _NEAR else 2.0 ** math.frexp(faster)[1]
