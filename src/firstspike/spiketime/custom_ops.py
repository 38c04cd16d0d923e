"""The operator as custom ops of ``torch.library``, for whatever records a program: compile, export, ``make_fx``.

Such a program cannot contain what a backend does, so it contains a call of one of these ops. Eager code calls
``function`` directly, which costs less. The ops run the same code: checks of values, backends, derivatives. What a
forward pass saves has shapes that only the values tell, so the backward op computes it again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.contract import Needs, Tensors
from firstspike.spiketime.function import (
    INPUTS,
    Options,
    SpikeGradient,
    Spikes,
    pulled_back,
    recorded_gradients,
)
from firstspike.spiketime.transforms import OF_SAMPLES, mapped

_TYPES = {str: "str", int: "int", float: "float", float | None: "float?", Sequence[float] | None: "float[]?"}
_INPUTS = ", ".join(f"Tensor{'?' * (name in Tensors._field_defaults)} {name}" for name in Tensors._fields)
_OPTIONS = ", ".join(f"{_TYPES[kind]} {name}" for name, kind in Options.__annotations__.items())
_GRADS = "Tensor grad, Tensor? of_voltage, Tensor? of_current, Tensor? of_left, Tensor spikes"
_GIVEN = 5 + INPUTS
_DEVICES = ("cpu", "cuda")

torch.library.define("firstspike::spike_times", f"({_INPUTS}, {_OPTIONS}) -> Tensor[]")
torch.library.define("firstspike::spike_gradients", f"(bool[] needs, {_GRADS}, {_INPUTS}, {_OPTIONS}) -> Tensor[]")


@torch.library.impl("firstspike::spike_times", _DEVICES)
def _spikes(*given: Any) -> list[Tensor]:
    """First spikes; or trains, the state at the end, and overflows."""
    options = Options(*given[INPUTS:])
    found = Spikes.forward(*given[:INPUTS], options)
    return [_alone(x) for x in found[: 5 if options.max_spikes else 1]]


@torch.library.impl("firstspike::spike_gradients", _DEVICES)
def _spike_gradient(needs: Sequence[bool], *given: Any) -> list[Tensor]:
    """The gradients that ``needs`` asks for, in the order of ``Needs``."""
    options = Options(*given[_GIVEN:])
    saved: tuple[Tensor, ...] = ()
    if options.max_spikes:
        saved = Spikes.forward(*given[5:_GIVEN], options._replace(overflow="drop"))[4:]
    return [_alone(x) for x in SpikeGradient.forward(Needs(*needs), options, *given[:_GIVEN], *saved)]


def _alone(x: Tensor) -> Tensor:
    """A contiguous tensor that shares its memory with no other: results of an op may not."""
    return x.clone(memory_format=torch.contiguous_format) if x._is_view() else x.contiguous()


@torch.library.register_fake("firstspike::spike_times")
def _(*given: Any) -> list[Tensor]:
    times, weight, *_ = given
    options = Options(*given[INPUTS:])
    if not options.max_spikes:
        return [times.new_empty((*times.shape[:-1], weight.shape[-2]))]
    shape = (*times.shape[:2], weight.shape[1])
    ends = (*shape[:2], 0) if options.until is None else shape
    state = [times.new_empty(ends) for _ in range(3)]
    return [times.new_empty((*shape, options.max_spikes)), *state, times.new_empty(shape, dtype=torch.bool)]


@torch.library.register_fake("firstspike::spike_gradients")
def _(needs: Sequence[bool], *given: Any) -> list[Tensor]:
    times, weight, threshold, *_ = inputs = given[5:]
    like = (times, weight, threshold, weight, threshold, threshold, *inputs[6:9])
    return [x.new_empty(x.shape) for x, need in zip(like, (*needs, needs[6], needs[6]), strict=True) if need]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.options = Options(*inputs[INPUTS:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *inputs[:INPUTS])


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    return pulled_back(ctx, grads, recorded_gradients)


torch.library.register_autograd("firstspike::spike_times", _backward, setup_context=_setup_context)


@torch.library.register_vmap("firstspike::spike_times")
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[list[Tensor], list[int]]:
    op = torch.ops.firstspike.spike_times
    return mapped(lambda *x: op(*x, *inputs[INPUTS:]), info, in_dims[:INPUTS], inputs[:INPUTS], OF_SAMPLES)


@torch.library.register_vmap("firstspike::spike_gradients")
def _(info: Any, in_dims: tuple[Any, ...], needs: Any, *inputs: Any) -> tuple[list[Tensor], list[int]]:
    op = torch.ops.firstspike.spike_gradients
    return mapped(lambda *x: op(needs, *x, *inputs[_GIVEN:]), info, in_dims[1 : _GIVEN + 1], inputs[:_GIVEN])
