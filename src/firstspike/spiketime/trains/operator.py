"""``spike_trains`` and ``spike_window``: shapes, types and the choice of a backend, around ``function``."""

import math
from collections.abc import Callable
from functools import cache, wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.neuron import LIF, check_neuron
from firstspike.spiketime.operator import (
    check_form,
    constants_of,
    of_neurons,
    raised,
    resolve_backend,
)
from firstspike.spiketime.reference import train_gradient, trains
from firstspike.spiketime.times import check_tensor
from firstspike.spiketime.trains.backend import Backend, Windows, in_units, of_first_spikes
from firstspike.spiketime.trains.function import OVERFLOW, Options, SpikeTrains
from firstspike.spiketime.trains.room import check_spikes


class TrainState(NamedTuple):
    """What neurons keep from one window of time to the next: see ``spike_window``."""

    voltage: Float[Tensor, "*batch outputs"]
    """Membrane, below the threshold."""
    current: Float[Tensor, "*batch outputs"]
    """Synaptic current."""
    refractory: Float[Tensor, "*batch outputs"]
    """Time left of the refractory time, 0 if the neuron is not refractory."""
    time: float
    """When this holds, for all samples and neurons."""


class Window(NamedTuple):
    """The result of ``spike_window``."""

    trains: Float[Tensor, "*batch outputs max_spikes"]
    """Spike times, sorted; ``inf`` after the last spike."""
    state: TrainState | None
    """At ``until``; None where that is ``inf``."""
    overflows: Bool[Tensor, "*batch outputs"]
    """Neurons that would spike more than ``max_spikes`` times."""


P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """``torch.compiler.disable``, applied only while something is compiled.

    As a decorator it would import the compiler together with this module.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            disabled: Callable[P, T] = torch.compiler.disable(function)
            return disabled(*args, **kwargs)
        return function(*args, **kwargs)

    return call


@uncompiled
def spike_trains(
    times: Float[Tensor, "*batch inputs K"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    *,
    max_spikes: int,
    delay: Float[Tensor, "outputs inputs"] | None = None,
    observed: Float[Tensor, "*batch outputs max_spikes"] | None = None,
    refractory: float | Float[Tensor, " outputs"] = 0.0,
    reset: float | Float[Tensor, " outputs"] = 0.0,
    overflow: str = "error",
    max_weight_grad: float | None = None,
    state: TrainState | None = None,
    until: float = math.inf,
    backend: str = "auto",
) -> Float[Tensor, "*batch outputs max_spikes"]:
    """All times at which each neuron's membrane reaches the threshold, exact and differentiable.

    The neuron of ``first_spike_time`` spikes again: at each spike its membrane is set to ``reset`` and held there for
    the time ``refractory``, while its current decays and inputs arrive. As a spike is exactly at the threshold, a reset
    to 0 is the same as subtracting the threshold from the membrane.

    The derivatives by weight, times, delay, threshold, time constants and state are those of the adjoint method: a
    spike that moves takes the reset with it, and so moves all later ones. Reverse mode and ``torch.func`` transforms
    work, ``vmap`` included; forward mode and ``torch.export`` do not, ``torch.compile`` leaves the call as it is, and
    second derivatives raise NotImplementedError. With ``max_spikes=1``, one time per input and ``overflow="drop"`` the
    spikes and gradients are bit for bit those of ``first_spike_time``, and cost as much.

    Args:
        times: arrivals of each input's spikes, in the unit of ``neuron.tau_syn`` and any order along K; ``inf`` never
            arrives, and fills up trains that are shorter than K.
        weight: synaptic weights.
        neuron: as in ``first_spike_time``.
        max_spikes: most spikes that there is room for, from 1 to 1000000.
        delay: synaptic delays >= 0; synapse (j, i) sees ``times[..., i, :] + delay[j, i]``.
        observed: trains from elsewhere (a simulator, a chip), sorted, ``inf`` after the last spike: returned as they
            are, with the gradient taken there. A spike where the ideal membrane would not rise, or within the
            refractory time of the one before, has none.
        refractory: time for which a neuron is held at ``reset`` after a spike, >= 0, without a gradient.
        reset: membrane after a spike, below the threshold, without a gradient.
        overflow: what happens where a neuron would spike more than ``max_spikes`` times: ``"error"`` raises
            ValueError, ``"warn"`` warns and drops the later spikes, ``"drop"`` drops them. The neuron then stays at
            ``reset`` until ``until``.
        max_weight_grad: bound on the gradient of the loss by the weights of one spike. Where the largest magnitude of
            its parts, one for each input spike, exceeds the bound, this spike counts as fixed for the gradient by the
            weights: its membrane only just reaches the threshold, and the derivative diverges. All other gradients are
            left alone.
        state: of the neurons at the start, with which only inputs from then on arrive; by default they are at rest.
        until: when to stop: inputs from then on do not arrive, and no spike is later.
        backend: ``"auto"`` (the fastest for the device), ``"cpu"``, or ``"reference"``, which is plain PyTorch and
            much slower.

    Returns:
        Spike times, sorted along the last dimension; ``inf`` after the last spike.

    Raises:
        ValueError: what ``first_spike_time`` refuses, more spikes than ``max_spikes``, trains that are larger than the
            memory, observed trains that are not sorted, a reset at the threshold or above, a negative refractory time.

    Source: Wunderlich and Pehle 2021, "Event-based backpropagation can compute exact gradients for spiking neural
    networks" (the adjoint).
    """
    return _window(
        times, weight, neuron, max_spikes, delay, observed, refractory, reset, overflow, max_weight_grad, state, until,
        backend, None, True,
    ).trains  # fmt: skip


@uncompiled
def spike_window(
    times: Float[Tensor, "*batch inputs K"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    *,
    max_spikes: int,
    delay: Float[Tensor, "outputs inputs"] | None = None,
    observed: Float[Tensor, "*batch outputs max_spikes"] | None = None,
    refractory: float | Float[Tensor, " outputs"] = 0.0,
    reset: float | Float[Tensor, " outputs"] = 0.0,
    overflow: str = "error",
    max_weight_grad: float | None = None,
    state: TrainState | None = None,
    until: float = math.inf,
    backend: str = "auto",
) -> Window:
    """``spike_trains`` of a window of time, with the state that the next window needs.

    Windows that follow one another give the spikes of one long call: inputs in ``[state.time, until)`` arrive, and
    spikes are in ``(state.time, until]``. Gradients flow through the state, by ``voltage``, ``current`` and
    ``refractory``. A recurrent layer whose delays are at least as long as its windows sees all that arrives in a
    window before the window begins::

        state = None
        for until in ends:
            trains, state, _ = spike_window(inputs, weight, neuron, max_spikes=4, state=state, until=until)

    Args:
        times: see ``spike_trains``, as for all arguments; inputs outside of the window do not arrive.
        weight: see ``spike_trains``.
        neuron: see ``spike_trains``.
        max_spikes: most spikes within the window.
        delay: see ``spike_trains``.
        observed: spikes within the window.
        refractory: see ``spike_trains``.
        reset: see ``spike_trains``.
        overflow: see ``spike_trains``.
        max_weight_grad: see ``spike_trains``.
        state: of the window before.
        until: end of the window.
        backend: see ``spike_trains``.

    Raises:
        ValueError: what ``spike_trains`` refuses, or an end that is not after the time of the state.
    """
    return _window(
        times, weight, neuron, max_spikes, delay, observed, refractory, reset, overflow, max_weight_grad, state, until,
        backend, None, False,
    )  # fmt: skip


@uncompiled
def recurrent_window(
    times: Float[Tensor, "*batch sources K"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    windows: Windows,
    *,
    max_spikes: int,
    observed: Float[Tensor, "*batch outputs max_spikes"] | None = None,
    refractory: float | Float[Tensor, " outputs"] = 0.0,
    reset: float | Float[Tensor, " outputs"] = 0.0,
    overflow: str = "error",
    max_weight_grad: float | None = None,
    state: TrainState | None = None,
    backend: str = "auto",
) -> Window:
    """``spike_window`` of neurons whose own spikes arrive again after ``windows.lag``: many windows in one call.

    Only the CPU kernels know this, see ``knows_recurrence``.

    Args:
        times: see ``spike_trains``; all inputs, or without the last ``outputs`` of them.
        weight: the last ``outputs`` columns are those of the neurons themselves.
        neuron: see ``spike_trains``; its time constants are numbers.
        windows: of a time that they divide.
        max_spikes: most spikes in all windows; ``windows.budget`` is that in each.
        observed: see ``spike_trains``, as for all other arguments.
        refractory: see ``spike_trains``.
        reset: see ``spike_trains``.
        overflow: what happens where a neuron has more spikes than there is room for in a window, where it then stays at
            ``reset`` until the window ends, or in all windows, where later spikes are left out of the result.
        max_weight_grad: see ``spike_trains``; of the inputs of a window.
        state: see ``spike_window``.
        backend: auto or cpu.
    """
    return _window(
        times, weight, neuron, max_spikes, None, observed, refractory, reset, overflow, max_weight_grad, state,
        windows.bounds[-1], backend, windows, False,
    )  # fmt: skip


def knows_recurrence(neuron: LIF, backend: str, device: torch.device) -> bool:
    """Whether ``recurrent_window`` works there: on a CPU, with time constants that are numbers."""
    shared = not isinstance(neuron.tau_mem, Tensor) and not isinstance(neuron.tau_syn, Tensor)
    return shared and backend in ("auto", "cpu") and device.type == "cpu"


def _window(
    times: Tensor,
    weight: Tensor,
    neuron: LIF,
    max_spikes: int,
    delay: Tensor | None,
    observed: Tensor | None,
    refractory: float | Tensor,
    reset: float | Tensor,
    overflow: str,
    max_weight_grad: float | None,
    state: TrainState | None,
    until: float,
    backend: str,
    windows: Windows | None,
    only_trains: bool,
) -> Window:
    for name, x in (("times", times), ("weight", weight), ("delay", delay), ("observed", observed)):
        if x is not None and not isinstance(x, Tensor):
            check_tensor(name, x)
    if times.dtype != weight.dtype and torch.is_autocast_enabled(times.device.type):
        times = raised(times, weight.dtype)
        delay, observed = (None if x is None else raised(x, weight.dtype) for x in (delay, observed))
    of_inputs = weight if windows is None else weight[:, : times.shape[-2]]
    _check(times, of_inputs, neuron, max_spikes, delay, observed, overflow, max_weight_grad, state, windows)
    lead, outputs = times.shape[:-2], weight.shape[0]
    samples = math.prod(lead)
    given, *taus = constants_of(neuron, weight)
    start = -math.inf if state is None else state.time
    once = max_spikes == times.shape[-1] == 1 and state is None and until == math.inf
    known = overflow == "drop" or observed is not None  # nobody asks whether there are more spikes than one
    chosen = _of_first(backend, times) if once and known and only_trains else _backend(backend, times)
    options = Options(chosen, given, max_spikes, start, float(until), overflow, max_weight_grad, windows)
    trains, overflows, *after = SpikeTrains.apply(
        times.reshape(1, samples, *times.shape[-2:]),
        weight[None],
        of_neurons(neuron.threshold, weight)[None],
        None if delay is None else delay[None],
        None if observed is None else observed.reshape(1, samples, outputs, max_spikes),
        *(None if tau is None else tau[None] for tau in taus),
        of_neurons(refractory, weight)[None],
        of_neurons(reset, weight)[None],
        *((None,) * 3 if state is None else (x.reshape(1, samples, outputs) for x in state[:3])),
        options,
    )
    ends = None
    if options.until < math.inf:
        voltage, current, left = (x.reshape(*lead, outputs) for x in after[:3])
        ends = TrainState(voltage, current, left, options.until)
    return Window(trains.reshape(*lead, outputs, max_spikes), ends, overflows.reshape(*lead, outputs))


@cache
def _reference() -> Backend:
    return in_units(Backend(trains.forward, train_gradient.backward, "reference"))


@cache
def _cpu() -> Backend:
    from firstspike.spiketime.cpu.trains import host  # loads numba

    return in_units(Backend(host.forward, host.backward, "cpu"))


def _of_first(name: str, times: Tensor) -> Backend:
    """The backend of first spikes, for trains of one spike from inputs of one spike."""
    _backend(name, times)
    return of_first_spikes(resolve_backend(name, times.device))


def _backend(name: str, times: Tensor) -> Backend:
    resolve_backend(name, times.device)
    if name == "triton":
        raise ValueError("spike_trains has no backend 'triton'; use auto or reference")
    return _cpu() if name == "cpu" or (name == "auto" and times.device.type == "cpu") else _reference()


def _check(
    times: Tensor,
    weight: Tensor,
    neuron: LIF,
    max_spikes: int,
    delay: Tensor | None,
    observed: Tensor | None,
    overflow: str,
    max_weight_grad: float | None,
    state: TrainState | None,
    windows: Windows | None,
) -> None:
    check_neuron(neuron)
    if times.ndim < 2:
        raise ValueError(f"expected times (..., inputs, K), got {tuple(times.shape)}")
    if isinstance(max_spikes, bool) or not isinstance(max_spikes, int) or max_spikes < 1:
        raise ValueError(f"max_spikes must be a whole number >= 1, got {max_spikes!r}")
    if windows is None:
        check_spikes("max_spikes", max_spikes)
    else:
        check_spikes("the number of spikes in a window", windows.budget)
    if overflow not in OVERFLOW:
        raise ValueError(f"overflow must be one of {', '.join(OVERFLOW)}, got {overflow!r}")
    wanted = (*times.shape[:-2], weight.shape[0])
    if observed is not None and observed.shape != (*wanted, max_spikes):
        raise ValueError(f"observed must have the shape {(*wanted, max_spikes)}, got {tuple(observed.shape)}")
    check_form(times[..., 0] if times.shape[-1] else times.sum(-1), weight, neuron, delay, None, max_weight_grad)
    for name, x in (("observed", observed), *(() if state is None else zip(state._fields[:3], state[:3], strict=True))):
        if x is not None and (x.dtype != weight.dtype or x.device != weight.device):
            raise ValueError(f"{name} is {x.dtype} on {x.device}, weight is {weight.dtype} on {weight.device}")
    if state is not None:
        for name, x in zip(state._fields[:3], state[:3], strict=True):
            if x.shape != wanted:
                raise ValueError(f"state.{name} must have the shape {wanted}, got {tuple(x.shape)}")
