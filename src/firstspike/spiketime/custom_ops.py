"""The operator as custom ops of ``torch.library``, for whatever records a program: compile, export, ``make_fx``.

Such a program cannot contain what a backend does, so it contains a call of one of these ops. Eager code calls
``function`` directly, which costs less and keeps what the forward pass saved. The ops run the same code: checks of
values, backends, derivatives.

Shapes are those of ``backend``. ``tau_mem`` and ``tau_syn`` are the time constants that are tensors; where they are
None, ``fixed_mem`` and ``fixed_syn`` count. A ``fixed_mem`` of None is ``inf``, see ``recordable``.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.backend import Constants, Needs
from firstspike.spiketime.function import FirstSpikeGradient, FirstSpikeTime, Options, fold
from firstspike.spiketime.operator import resolve_backend

_TENSORS = 7  # first arguments of the forward op, as of ``FirstSpikeTime``


@torch.library.custom_op("firstspike::first_spike_time", mutates_args=())
def first_spike_time(
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    observed: Tensor | None,
    tau_mem: Tensor | None,
    tau_syn: Tensor | None,
    fixed_mem: float | None,
    fixed_syn: float,
    max_weight_grad: float | None,
    backend: str,
) -> Tensor:
    """Spike times."""
    options = _options(times, fixed_mem, fixed_syn, max_weight_grad, backend)
    spikes, *_ = FirstSpikeTime.forward(times, weight, threshold, delay, observed, tau_mem, tau_syn, options)
    return spikes.contiguous()


@torch.library.custom_op("firstspike::first_spike_gradient", mutates_args=())
def first_spike_gradient(
    grad: Tensor,
    spikes: Tensor,
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    tau_mem: Tensor | None,
    tau_syn: Tensor | None,
    needs: Sequence[bool],
    fixed_mem: float | None,
    fixed_syn: float,
    max_weight_grad: float | None,
    backend: str,
) -> list[Tensor]:
    """The gradients that ``needs`` asks for, in the order of ``Needs``."""
    options = _options(times, fixed_mem, fixed_syn, max_weight_grad, backend)
    tensors = (grad, spikes, times, weight, threshold, delay, tau_mem, tau_syn)
    return [x.contiguous() for x in FirstSpikeGradient.forward(Needs(*needs), options, *tensors)]


def _options(
    times: Tensor, fixed_mem: float | None, fixed_syn: float, max_weight_grad: float | None, backend: str
) -> Options:
    constants = Constants(math.inf if fixed_mem is None else fixed_mem, fixed_syn)
    return Options(resolve_backend(backend, times.device), constants, max_weight_grad)


@first_spike_time.register_fake
def _(times: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return times.new_empty((*times.shape[:-1], weight.shape[-2]))


@first_spike_gradient.register_fake
def _(
    grad: Tensor,
    spikes: Tensor,
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    tau_mem: Tensor | None,
    tau_syn: Tensor | None,
    needs: Sequence[bool],
    *_: Any,
) -> list[Tensor]:
    like = (times, weight, threshold, weight, threshold, threshold)
    return [x.new_empty(x.shape) for x, need in zip(like, needs, strict=True) if need]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    times, weight, threshold, delay, _, tau_mem, tau_syn, *ctx.rest = inputs
    ctx.save_for_backward(output, times, weight, threshold, delay, tau_mem, tau_syn)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    asked = ctx.needs_input_grad
    needs = [*asked[:4], *asked[5:7]]
    found = iter(torch.ops.firstspike.first_spike_gradient(grad, *ctx.saved_tensors, needs, *ctx.rest))
    times, weight, threshold, delay, tau_mem, tau_syn = (next(found) if need else None for need in needs)
    return times, weight, threshold, delay, None, tau_mem, tau_syn, *(None for _ in ctx.rest)


first_spike_time.register_autograd(_backward, setup_context=_setup_context)


@first_spike_time.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
    tensors, unfold = fold(info, in_dims[:_TENSORS], inputs[:_TENSORS], of_samples=(0, 4))
    return unfold(torch.ops.firstspike.first_spike_time(*tensors, *inputs[_TENSORS:])), unfold.dim


@first_spike_gradient.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[list[Tensor], list[int]]:
    tensors, unfold = fold(info, in_dims[:8], inputs[:8])
    found = torch.ops.firstspike.first_spike_gradient(*tensors, *inputs[8:])
    return [unfold(x) for x in found], [0] * len(found)
