"""What a backend of spike trains provides: two functions of plain tensors, as in ``spiketime.backend``::

    forward(arguments) -> result
    backward(grads, result, arguments, max_weight_grad, needs) -> gradients

E networks side by side, B samples, I inputs with K times each, O outputs, S spikes at most. After its k-th spike T_k a
neuron is held at ``reset`` until ``T_k + refractory``, while its current decays and inputs arrive. Inputs outside of
``[start, until)`` never arrive. Spikes are in ``(start, until]``.

The gradient is taken at ``trains``, whoever computed them. A spike where the membrane would not rise, or within the
refractory time of another, moves with nothing. ``max_weight_grad`` bounds the gradient of each spike: where the largest
derivative of the loss by a weight, through this spike and for one input spike, exceeds the bound, the spike counts as
fixed for the gradient by the weights, and no other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.spiketime import backend as first_spikes
from firstspike.spiketime.backend import Constants
from firstspike.spiketime.units import from_unit, gradients_from_unit, in_unit, split, unit_of_time


class Held(NamedTuple):
    """State of each neuron at a time, or gradients by it."""

    voltage: Float[Tensor, "E B O"]
    current: Float[Tensor, "E B O"]
    refractory: Float[Tensor, "E B O"]
    """Time that is left of the refractory time, 0 if none is."""


class Windows(NamedTuple):
    """How neurons see their own spikes again: time is cut into windows in which they are independent."""

    bounds: tuple[float, ...]
    """The start, the ends of all windows but the last, and the end. No window is longer than ``lag``."""
    lag: float
    """Delay of all recurrent synapses."""
    budget: int
    """Most spikes of a neuron in a window."""


class Arguments(NamedTuple):
    """What spike trains follow from. Tensors for ``constants`` only where not all neurons have the same."""

    times: Float[Tensor, "E B I K"]
    weight: Float[Tensor, "E O I"]
    threshold: Float[Tensor, "E O"]
    delay: Float[Tensor, "E O I"] | None
    constants: Constants
    refractory: Float[Tensor, "E O"]
    reset: Float[Tensor, "E O"]
    state: Held | None
    """At ``start``; without one the neurons are at rest until the first input."""
    start: float
    until: float
    max_spikes: int
    observed: Float[Tensor, "E B O S"] | None = None
    """Trains to take the gradient at, in place of those of the neurons."""
    windows: Windows | None = None
    """Of neurons that are connected to each other: the last O columns of ``weight`` are those of their own spikes, and
    ``times`` may leave out what arrives there from before ``start``. Only the CPU kernels know this."""


class Result(NamedTuple):
    """Spikes, what is left at a finite ``until``, and what backward can use again, ``(E, B, ...)`` each."""

    trains: Float[Tensor, "E B O S"]
    overflows: Bool[Tensor, "E B O"]
    """Neurons that would spike again after ``max_spikes``. They are held at ``reset`` until ``until``."""
    state: Held | None
    saved: tuple[Tensor, ...] = ()


class Grads(NamedTuple):
    """Gradients of the loss by what came out; None for zero."""

    trains: Float[Tensor, "E B O S"]
    state: Held | None


class Needs(NamedTuple):
    """Which gradients are asked for."""

    times: bool
    weight: bool
    threshold: bool
    delay: bool
    tau_mem: bool
    tau_syn: bool
    state: bool


class Gradients(NamedTuple):
    """Gradients in the shapes of the arguments; None where not asked for."""

    times: Tensor | None = None
    weight: Tensor | None = None
    threshold: Tensor | None = None
    delay: Tensor | None = None
    tau_mem: Tensor | None = None
    tau_syn: Tensor | None = None
    state: Held | None = None


Forward = Callable[[Arguments], Result]
Backward = Callable[[Grads, Result, Arguments, float | None, Needs], Gradients]


@dataclass(frozen=True)
class Backend:
    """A pair of functions, see the module, and its name."""

    forward: Forward
    backward: Backward
    name: str = ""


def in_units(backend: Backend) -> Backend:
    """The backend for time constants in any unit of time. It itself sees a faster time constant of about 1."""

    def forward(given: Arguments) -> Result:
        unit, inner = _inside(given)
        found = backend.forward(inner)
        if unit == 1:
            return found
        if given.observed is not None:
            return found._replace(trains=given.observed, state=_outside(found.state, unit))
        trains = from_unit(found.trains, unit)
        trains = torch.where(trains.isinf(), trains, trains.clamp(max=given.until))
        return found._replace(trains=trains, state=_outside(found.state, unit))

    def backward(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        unit, inner = _inside(given)
        if unit == 1:
            return backend.backward(grads, result, given, max_weight_grad, needs)
        first, then = split(unit)
        bound: Any = None if max_weight_grad is None else max_weight_grad / then
        v, i, left = grads.state or (None, None, None)
        held = None if v is None or i is None or left is None else Held(v / then, i / then, left * first)
        scaled = Grads(grads.trains * first, held)
        found = backend.backward(scaled, result._replace(trains=result.trains / unit), inner, bound, needs)
        state = found.state and Held(found.state[0] * then, found.state[1] * then, found.state[2] / first)
        return Gradients(*gradients_from_unit(found[:6], first, then))._replace(state=state)  # type: ignore[arg-type]

    return Backend(forward, backward, backend.name)


def of_first_spikes(backend: first_spikes.Backend) -> Backend:
    """A backend of trains from one of first spikes: inputs have one time and neurons one spike, at rest and for ever.

    ``overflows`` are not known, and all false.
    """

    def single(given: Arguments) -> first_spikes.Arguments:
        return first_spikes.Arguments(given.times[..., 0], *given[1:5])

    def forward(given: Arguments) -> Result:
        if given.observed is not None:
            spikes, saved = given.observed[..., 0], tuple[Tensor, ...]()
        else:
            spikes, saved = backend.forward(single(given))
        return Result(spikes.unsqueeze(-1).clone(), torch.zeros_like(spikes, dtype=torch.bool), None, saved)

    def backward(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        found = first_spikes.Result(result.trains[..., 0], result.saved)
        asked = first_spikes.Needs(*needs[:6])
        times, *others = backend.backward(grads.trains[..., 0], found, single(given), max_weight_grad, asked)
        return Gradients(None if times is None else times.unsqueeze(-1), *others)  # type: ignore[arg-type]

    return Backend(forward, backward, backend.name)


def _outside(state: Held | None, unit: float) -> Held | None:
    return state and state._replace(refractory=state.refractory * unit)


def _inside(given: Arguments) -> tuple[float, Arguments]:
    """The unit to work in, and the arguments in it."""
    found, constants = unit_of_time(given.constants, given.times.dtype)
    unit = float(found)  # waits for a GPU
    if unit == 1:
        return unit, given._replace(constants=constants)
    state = given.state and given.state._replace(refractory=in_unit("state.refractory", given.state.refractory, unit))
    in_unit("until", given.times.new_tensor([given.until, given.start]), unit)
    windows = given.windows and given.windows._replace(
        bounds=tuple(x / unit for x in given.windows.bounds), lag=given.windows.lag / unit
    )
    return unit, given._replace(
        times=in_unit("times", given.times, unit),
        delay=None if given.delay is None else in_unit("delay", given.delay, unit),
        constants=constants,
        refractory=in_unit("refractory", given.refractory, unit),
        state=state,
        start=given.start / unit,
        until=given.until / unit,
        observed=None if given.observed is None else in_unit("observed", given.observed, unit),
        windows=windows,
    )
