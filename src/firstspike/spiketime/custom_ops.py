"""The operator as custom ops of ``torch.library``, for whatever records a program: compile, export, ``make_fx``.

Such a program cannot contain what a backend does, so it contains a call of one of these ops. Eager code calls
``function`` directly, which costs less. The ops run the same code: checks of values, backends, derivatives. What the
forward pass of first spikes saves is among its results, so that nothing is sorted or searched again; what that of
trains saves has shapes that only the values tell, so there the backward op computes it again.

Tensors are those of ``Tensors``, in its order, and the options those of ``Options``, whose time constants are
``fixed_mem`` and ``fixed_syn`` here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Backend, Needs, Tensors
from firstspike.spiketime.function import (
    INPUTS,
    OF_SAMPLES,
    Options,
    SpikeGradient,
    Spikes,
    pulled_back,
    recorded_gradients,
    resolve_backend,
)
from firstspike.spiketime.transforms import fold

_INPUTS = (
    "Tensor times, Tensor weight, Tensor threshold, Tensor? delay, Tensor? tau_mem, Tensor? tau_syn, "
    "Tensor? voltage, Tensor? current, Tensor? left, Tensor? observed, Tensor? refractory, Tensor? reset"
)
_OPTIONS = (
    "str backend, float? fixed_mem, float fixed_syn, float? max_weight_grad, int max_spikes, float? start, "
    "float? until, float[]? bounds, float lag, int budget, str overflow"
)
_GRADS = "Tensor grad, Tensor? of_voltage, Tensor? of_current, Tensor? of_left, Tensor spikes"
_N_GRADS = 5
_DEVICES = ("cpu", "cuda")

torch.library.define("firstspike::spikes", f"({_INPUTS}, {_OPTIONS}) -> Tensor[]")
torch.library.define(
    "firstspike::spike_gradient", f"(bool[] needs, {_GRADS}, {_INPUTS}, Tensor[] saved, {_OPTIONS}) -> Tensor[]"
)


@torch.library.impl("firstspike::spikes", _DEVICES)
def _spikes(*given: Any) -> list[Tensor]:
    tensors: Any = given[:INPUTS]
    options = Options(*given[INPUTS:])
    found: Any = Spikes.forward(*tensors, options)
    if options.max_spikes:
        found = found[:5]
    elif len(found) == 1:  # of no inputs, say
        found = (*found, *_saved(tensors, options))
    return [_alone(x) for x in found]


@torch.library.impl("firstspike::spike_gradient", _DEVICES)
def _spike_gradient(needs: Sequence[bool], *given: Any) -> list[Tensor]:
    """The gradients that ``needs`` asks for, in the order of ``Needs``."""
    tensors: Any
    grads, tensors = given[:_N_GRADS], given[_N_GRADS : _N_GRADS + INPUTS]
    saved, *rest = given[_N_GRADS + INPUTS :]
    options = Options(*rest)
    if options.max_spikes and _backend(tensors, options).saves is not None:
        saved = Spikes.forward(*tensors, options._replace(overflow="drop"))[4:]
    found = SpikeGradient.forward(Needs(*needs), options, *grads, *tensors, *saved)
    return [_alone(x) for x in found]


def _alone(x: Tensor) -> Tensor:
    """A contiguous tensor that shares its memory with no other: results of an op may not."""
    return x.clone(memory_format=torch.contiguous_format) if x._is_view() else x.contiguous()


def _backend(tensors: Sequence[Any], options: Options) -> Backend:
    return resolve_backend(options.backend, tensors[0].device)


def _saved(tensors: Sequence[Any], options: Options) -> tuple[Tensor, ...]:
    """Tensors like those that the forward pass of first spikes saves."""
    given, saves = Tensors(*tensors), _backend(tensors, options).saves
    return () if given.observed is not None or saves is None else saves(Arguments(*given[:4], options.constants))


@torch.library.register_fake("firstspike::spikes")
def _(*given: Any) -> list[Tensor]:
    times, weight, *_ = tensors = given[:INPUTS]
    options = Options(*given[INPUTS:])
    if not options.max_spikes:
        spikes = times.new_empty((*times.shape[:-1], weight.shape[-2]))
        return [spikes, *(torch.empty_like(x) for x in _saved(tensors, options))]
    shape = (*times.shape[:2], weight.shape[1])
    ends = (*shape[:2], 0) if options.until is None else shape
    state = [times.new_empty(ends) for _ in range(3)]
    return [times.new_empty((*shape, options.max_spikes)), *state, times.new_empty(shape, dtype=torch.bool)]


@torch.library.register_fake("firstspike::spike_gradient")
def _(needs: Sequence[bool], *given: Any) -> list[Tensor]:
    times, weight, threshold, *_ = inputs = given[_N_GRADS:]
    like = (times, weight, threshold, weight, threshold, threshold, *inputs[6:9])
    return [x.new_empty(x.shape) for x, need in zip(like, (*needs, needs[6], needs[6]), strict=True) if need]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.options = Options(*inputs[INPUTS:])
    ctx.outputs = 4 if ctx.options.max_spikes else 1
    ctx.ends = 1 if ctx.options.until is None else ctx.outputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *inputs[:INPUTS], *output[ctx.outputs :])


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    return pulled_back(ctx, grads[: ctx.ends], lambda needs, *given: recorded_gradients(needs, ctx.options, *given))


torch.library.register_autograd("firstspike::spikes", _backward, setup_context=_setup_context)


@torch.library.register_vmap("firstspike::spikes")
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[list[Tensor], list[int]]:
    tensors, unfold = fold(info, in_dims[:INPUTS], inputs[:INPUTS], OF_SAMPLES)
    found = torch.ops.firstspike.spikes(*tensors, *inputs[INPUTS:])
    return [unfold(x) for x in found], [unfold.dim] * len(found)


@torch.library.register_vmap("firstspike::spike_gradient")
def _(info: Any, in_dims: tuple[Any, ...], needs: Any, *inputs: Any) -> tuple[list[Tensor], list[int]]:
    first, rest = _N_GRADS + INPUTS, inputs[_N_GRADS + INPUTS + 1 :]
    saved = inputs[first]
    tensors, unfold = fold(info, (*in_dims[1 : first + 1], *in_dims[first + 1]), (*inputs[:first], *saved))
    found = torch.ops.firstspike.spike_gradient(needs, *tensors[:first], tensors[first:], *rest)
    return [unfold(x) for x in found], [0] * len(found)
