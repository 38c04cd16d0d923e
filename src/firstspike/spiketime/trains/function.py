"""The differentiable function of spike trains: checks values, asks a backend, saves what backward needs. No maths.

The counterpart of ``spiketime.function``, with the same two classes and the same ensemble dimension.
"""

import math
import warnings
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from firstspike.spiketime.backend import Constants, each_tensor
from firstspike.spiketime.function import Direct, fold, keep_signature
from firstspike.spiketime.time_constants import check_time_constants, members, resolve
from firstspike.spiketime.trains.backend import Arguments, Backend, Gradients, Grads, Held, Needs, Result, Windows
from firstspike.spiketime.trains.room import check_room
from firstspike.spiketime.values import check_values

OVERFLOW = ("error", "warn", "drop")


class Options(NamedTuple):
    """What a call fixes beside its tensors; time constants that are tensors count in place of ``constants``."""

    backend: Backend
    constants: Constants
    max_spikes: int
    start: float
    until: float
    overflow: str
    max_weight_grad: float | None
    windows: Windows | None = None


class SpikeTrains(Direct):
    """``(times, weight, threshold, delay, observed, taus, refractory, reset, state, options)`` -> trains and more.

    The results are trains, overflows, voltage, current and refractory time at ``until`` (of no neurons where that is
    ``inf``), and what is saved. The three of the state may be None.
    """

    @staticmethod
    def forward(
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        observed: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        refractory: Tensor,
        reset: Tensor,
        voltage: Tensor | None,
        current: Tensor | None,
        left: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, ...]:
        cause = f"max_spikes={options.max_spikes}"
        check_room(len(times) * times.shape[1], weight.shape[1], options.max_spikes, cause, times.dtype, times.device)
        check_values(times, weight, threshold, delay, observed)
        check_time_constants(options.constants, tau_mem, tau_syn, weight.dtype)
        _check_more(observed, threshold, refractory, reset, (voltage, current, left), options)
        tensors = (times, weight, threshold, delay, tau_mem, tau_syn, refractory, reset, voltage, current, left)
        given = _arguments(*tensors, options)._replace(observed=observed)
        results = [_flat(options.backend.forward(part), weight) for (part,) in _networks(given.constants, given)]
        trains, overflows, *rest = map(_joined, zip(*results, strict=True))
        trains = trains if observed is None else observed.clone()
        _report(overflows, options)
        return trains, overflows, *rest

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        times, weight, threshold, delay, _, *rest, ctx.options = inputs
        trains, overflows, _, _, _, *saved = output
        ctx.mark_non_differentiable(overflows, *saved)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(trains, overflows, times, weight, threshold, delay, *rest, *saved)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        asked = ctx.needs_input_grad
        needs = Needs(*asked[:4], *asked[5:7], any(asked[9:12]))  # type: ignore[call-arg]
        of_state = others[:3]
        if (grad is None and all(x is None for x in of_state)) or not any(needs):
            return (None,) * 13
        trains = ctx.saved_tensors[0]
        grad = torch.zeros_like(trains) if grad is None else grad
        if all(x is None for x in of_state) or ctx.options.until == math.inf:
            of_state = (None, None, None)
        else:
            of_state = tuple(torch.zeros_like(trains[..., 0]) if x is None else x for x in of_state)
        found = iter(SpikeTrainsGradient.apply(needs, ctx.options, grad, *of_state, *ctx.saved_tensors))
        times, weight, threshold, delay, tau_mem, tau_syn = (next(found) if need else None for need in needs[:6])
        state = tuple(found) or (None, None, None)
        return times, weight, threshold, delay, None, tau_mem, tau_syn, None, None, *state, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        *tensors, options = inputs
        tensors, unfold = fold(info, in_dims[:-1], tensors, of_samples=(0, 4, 9, 10, 11))
        output = tuple(unfold(x) for x in SpikeTrains.apply(*tensors, options))
        return output, (unfold.dim,) * len(output)


class SpikeTrainsGradient(Direct):
    """``(needs, options, grads, what the forward pass saved) -> the needed gradients``."""

    @staticmethod
    def forward(
        needs: Needs,
        options: Options,
        grad: Tensor,
        of_voltage: Tensor | None,
        of_current: Tensor | None,
        of_left: Tensor | None,
        trains: Tensor,
        overflows: Tensor,
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        refractory: Tensor,
        reset: Tensor,
        voltage: Tensor | None,
        current: Tensor | None,
        left: Tensor | None,
        *saved: Tensor,
    ) -> tuple[Tensor, ...]:
        tensors = (times, weight, threshold, delay, tau_mem, tau_syn, refractory, reset, voltage, current, left)
        given = _arguments(*tensors, options)
        grads = Grads(grad, _held(of_voltage, of_current, of_left))
        result = Result(trains, overflows, None, saved)
        parts: list[Gradients] = [
            options.backend.backward(asked, found, part, options.max_weight_grad, needs)
            for asked, found, part in _networks(given.constants, grads, result, given)
        ]
        flat = [(*x[:6], *(x.state or ())) for x in parts]
        needed = [x for x in zip(*flat, strict=True) if x[0] is not None]
        return tuple(map(_joined, needed))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "spike_trains has first derivatives only, no Hessian; "
            "call backward() or autograd.grad() without create_graph"
        )

    jvp = backward

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        needs, options, *tensors = inputs
        tensors, unfold = fold(info, in_dims[2:], tensors)
        output = tuple(unfold(x) for x in SpikeTrainsGradient.apply(needs, options, *tensors))
        return output, (0,) * len(output)


keep_signature(SpikeTrains.forward)
keep_signature(SpikeTrainsGradient.forward)


def _arguments(
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    tau_mem: Tensor | None,
    tau_syn: Tensor | None,
    refractory: Tensor,
    reset: Tensor,
    voltage: Tensor | None,
    current: Tensor | None,
    left: Tensor | None,
    options: Options,
) -> Arguments:
    constants = resolve(options.constants, tau_mem, tau_syn)
    state = _held(voltage, current, left)
    rest = (refractory, reset, state, options.start, options.until, options.max_spikes)
    return Arguments(times, weight, threshold, delay, constants, *rest, windows=options.windows)


def _held(voltage: Tensor | None, current: Tensor | None, left: Tensor | None) -> Held | None:
    return None if voltage is None or current is None or left is None else Held(voltage, current, left)


def _flat(result: Result, like: Tensor) -> tuple[Tensor, ...]:
    state = result.state or (like.new_empty(*result.overflows.shape[:2], 0),) * 3
    return result.trains, result.overflows, *state, *result.saved


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    """Those of all networks; what is saved of one may be longer than that of another, and is filled up."""
    if len(parts) == 1:
        return parts[0]
    longest = max(x.shape[-1] for x in parts)
    return torch.cat([functional.pad(x, (0, longest - x.shape[-1])) for x in parts])


def _networks(constants: Constants, *given: Any) -> Iterator[tuple[Any, ...]]:
    """``given`` as a whole, or a part for each network where each has numbers of its own as time constants."""
    each = members(constants)
    if each is None:
        yield given
        return
    for number, own in enumerate(each):
        parts = each_tensor(itemgetter(slice(number, number + 1)), given)
        yield tuple(x._replace(constants=own) if isinstance(x, Arguments) else x for x in parts)


def _check_more(
    observed: Tensor | None,
    threshold: Tensor,
    refractory: Tensor,
    reset: Tensor,
    state: tuple[Tensor | None, ...],
    options: Options,
) -> None:
    """Raise ValueError for values that only trains have."""
    if observed is not None and not bool((observed[..., 1:] >= observed[..., :-1]).all()):
        raise ValueError("observed trains must be sorted along their last dimension; call observed.sort(-1).values")
    if observed is not None and not bool(
        (observed.isinf() | ((observed > options.start) & (observed <= options.until))).all()
    ):
        raise ValueError(f"observed spikes must be after {options.start} and not after until={options.until}, or inf")
    if not bool(((refractory >= 0) & (refractory < math.inf)).all()):
        raise ValueError(
            f"refractory must be >= 0 and finite, got {float(refractory.min())} to {float(refractory.max())}"
        )
    if not bool(((reset < threshold) & (reset > -math.inf)).all()):
        raise ValueError(
            f"reset must be finite and below the threshold, got {float(reset.max())} and {float(threshold.min())}"
        )
    for name, x in zip(Held._fields, state, strict=True):
        if x is not None and not bool(x.isfinite().all()):
            raise ValueError(f"state.{name} must be finite, got NaN or inf")
    left = state[2]
    if left is not None and not bool((left >= 0).all()):
        raise ValueError(f"state.refractory must be >= 0, got {float(left.min())}")
    limit = torch.finfo(threshold.dtype).max
    if math.isfinite(options.until) and abs(options.until) > limit:
        raise ValueError(f"until must be inf or at most {limit:g} in {threshold.dtype}, got {options.until:g}")
    if not options.start < options.until:
        raise ValueError(f"until must be later than the time of the state, got {options.until} and {options.start}")


def _report(overflows: Tensor, options: Options) -> None:
    """Raise or warn where neurons would spike more often than they may."""
    if options.overflow == "drop" or not bool(overflows.any()):
        return
    window, names = "", "max_spikes"
    if options.windows is not None:
        window = f", or more than window_spikes={options.windows.budget} times in a window"
        names = "max_spikes or window_spikes"
    message = (
        f"{int(overflows.sum())} of {overflows.numel()} neurons (counted in each sample) spike more than "
        f"max_spikes={options.max_spikes} times{window}; raise {names} or lower the weights"
    )
    if options.overflow == "error":
        raise ValueError(f"{message}, or drop the later spikes with overflow='warn' or 'drop'")
    warnings.warn(f"{message}. Their later spikes are dropped", stacklevel=2)
