"""The one differentiable function: checks values, asks a backend, saves what backward needs. No maths.

Two ``autograd.Function`` classes, so that ``torch.func`` can map over the backward pass as well. Both work on tensors
with an ensemble dimension (see ``backend``); vmap folds a mapped dimension into the ensemble, or into the batch where
neither weight nor anything else of the network is mapped.
"""

import inspect
import math
from collections.abc import Iterable
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstspike.spiketime.backend import Backend, Constants, Gradients, Needs
from firstspike.spiketime.time_constants import check_time_constants, members, resolve
from firstspike.spiketime.units import check_weights


class Options(NamedTuple):
    """What a call fixes beside its tensors; time constants that are tensors count in place of ``constants``."""

    backend: Backend
    constants: Constants
    max_weight_grad: float | None


class FirstSpikeTime(torch.autograd.Function):
    """``(times, weight, threshold, delay, observed, tau_mem, tau_syn, options) -> (spikes, *saved)``."""

    @staticmethod
    def forward(
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        observed: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, ...]:
        check_values(times, weight, threshold, delay, observed)
        check_time_constants(options.constants, tau_mem, tau_syn, weight.dtype)
        if observed is not None:
            return (observed.clone(),)
        constants = resolve(options.constants, tau_mem, tau_syn)
        each = members(constants)
        if each is None:
            spikes, saved = options.backend.forward(times, weight, threshold, delay, constants)
            return (spikes, *saved)
        networks = zip(_networks(times), _networks(weight), _networks(threshold), _networks(delay), each, strict=False)
        found = [options.backend.forward(*network) for network in networks]
        return tuple(torch.cat(x) for x in zip(*((spikes, *saved) for spikes, saved in found), strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        times, weight, threshold, delay, _, tau_mem, tau_syn, ctx.options = inputs
        spikes, *saved = output
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(spikes, times, weight, threshold, delay, tau_mem, tau_syn, *saved)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        needs = Needs(*ctx.needs_input_grad[:4], *ctx.needs_input_grad[5:7])
        if grad is None or not any(needs):
            return (None,) * 8
        found = iter(FirstSpikeGradient.apply(needs, ctx.options, grad, *ctx.saved_tensors))
        times, weight, threshold, delay, tau_mem, tau_syn = (next(found) if need else None for need in needs)
        return times, weight, threshold, delay, None, tau_mem, tau_syn, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        *tensors, options = inputs
        *dims, _ = in_dims
        tensors = [_to_front(x, dim) for x, dim in zip(tensors, dims, strict=True)]
        if all(dim is None or place in (0, 4) for place, dim in enumerate(dims)):  # only times and observed
            for place in (0, 4):
                tensors[place] = _fold(tensors[place], dims[place], info.batch_size, 1)
            output = FirstSpikeTime.apply(*tensors, options)
            return tuple(x.unflatten(1, (info.batch_size, -1)) for x in output), (1,) * len(output)
        folded = (_fold(x, dim, info.batch_size, 0) for x, dim in zip(tensors, dims, strict=True))
        output = FirstSpikeTime.apply(*folded, options)
        return tuple(x.unflatten(0, (info.batch_size, -1)) for x in output), (0,) * len(output)


class FirstSpikeGradient(torch.autograd.Function):
    """``(needs, options, grad, spikes, times, weight, threshold, delay, taus, *saved) -> the needed gradients``."""

    @staticmethod
    def forward(
        needs: Needs,
        options: Options,
        grad: Tensor,
        spikes: Tensor,
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        *saved: Tensor,
    ) -> tuple[Tensor, ...]:
        tensors = (grad, spikes, times, weight, threshold, delay)
        constants = resolve(options.constants, tau_mem, tau_syn)
        rest = (options.max_weight_grad, needs)
        each = members(constants)
        asking = _asking(grad) if each is None else None
        if asking is not None:
            picked = [None if x is None else x[asking] for x in (*tensors, *saved)]
            part = options.backend.backward(*picked[: len(tensors)], tuple(picked[len(tensors) :]), constants, *rest)
            found = Gradients(*(None if x is None else _spread(x, asking, len(grad)) for x in part))
        elif each is None:
            found = options.backend.backward(*tensors, saved, constants, *rest)
        else:
            kept = zip(*map(_networks, saved), strict=True) if saved else repeat(())
            networks = zip(*map(_networks, tensors), kept, each, strict=False)
            parts = [options.backend.backward(*network, *rest) for network in networks]
            found = Gradients(*(None if x[0] is None else torch.cat(x) for x in zip(*parts, strict=True)))
        missing = [name for name, need, x in zip(needs._fields, needs, found, strict=True) if need and x is None]
        assert not missing, f"the backend gave no gradient by {missing}"
        return tuple(x for x in found if x is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "first_spike_time has first derivatives only; call backward() or autograd.grad() without create_graph"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        needs, options, *tensors = inputs
        folded = (
            _fold(_to_front(x, dim), dim, info.batch_size, 0) for x, dim in zip(tensors, in_dims[2:], strict=True)
        )
        output = FirstSpikeGradient.apply(needs, options, *folded)
        return tuple(x.unflatten(0, (info.batch_size, -1)) for x in output), (0,) * len(output)


def _asking(grad: Tensor) -> Tensor | None:
    """Numbers of the networks with a gradient, where some have none: in an ensemble not all need to learn."""
    asking = grad.flatten(1).any(dim=1) if len(grad) > 1 else None
    return None if asking is None or bool(asking.all()) else asking.nonzero().flatten()


def _spread(part: Tensor, places: Tensor, size: int) -> Tensor:
    """The gradients of some networks among zeros for the others."""
    return part.new_zeros(size, *part.shape[1:]).index_copy_(0, places, part)


def _keep_signature(forward: Any) -> None:
    """Torch asks for the signature at every call, and ``inspect`` would find it anew each time."""
    forward.__signature__ = inspect.signature(forward)


_keep_signature(FirstSpikeTime.forward)
_keep_signature(FirstSpikeGradient.forward)


def check_values(
    times: Tensor, weight: Tensor, threshold: Tensor, delay: Tensor | None, observed: Tensor | None
) -> None:
    """Raise ValueError for values that no neuron can work with."""
    for name, tensor in (("times", times), ("observed times", observed)):
        if tensor is not None and tensor.numel() and not float(tensor.detach().amin()) > -math.inf:
            raise ValueError(f"{name} must be real numbers or inf (no spike), got NaN or -inf")
    low, high = _extremes(threshold)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"threshold must be > 0 and finite, got {low} to {high}")
    check_weights(weight, threshold, low)
    if delay is not None:
        low, high = _extremes(delay)
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"delay must be >= 0 and finite, got {low} to {high}")


def _extremes(tensor: Tensor) -> tuple[float, float]:
    """Smallest and largest number, NaN if there is any; 1 for an empty tensor, which has nothing to complain of."""
    if tensor.numel() == 0:
        return 1.0, 1.0
    low, high = tensor.detach().aminmax()
    return float(low), float(high)


def _networks(x: Tensor | None) -> Iterable[Tensor | None]:
    """A tensor of each network of an ensemble, or None for each."""
    return repeat(None) if x is None else x.split(1)


def _to_front(x: Tensor | None, dim: int | None) -> Tensor | None:
    return x if x is None or dim is None else x.movedim(dim, 0)


def _fold(x: Tensor | None, dim: int | None, size: int, into: int) -> Tensor | None:
    """Merge the mapped dimension, now in front (or none: the same for all), into the ensemble (0) or the batch (1)."""
    if x is None:
        return None
    if dim is None:
        x = x.expand(size, *x.shape)
    return x.movedim(0, into).flatten(into, into + 1)
