"""The operator as custom ops of ``torch.library``, for whatever records a program: compile, export, ``make_fx``.

Such a program cannot contain what a backend does, so it contains a call of one of these ops. Eager code calls
``function`` directly, which costs less. The ops run the same code: checks of values, backends, derivatives. What the
forward pass of first spikes saves is among its results, so that nothing is sorted or searched again; what that of
trains saves has shapes that only the values tell, so there the backward op computes it again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from firstspike.spiketime.backends import resolve_backend
from firstspike.spiketime.contract import OF_SAMPLES, QUANTITIES, Arguments, Needs, in_order
from firstspike.spiketime.function import INPUTS, Options, SpikeGradient, Spikes, named, pulled_back, recorded_gradients
from firstspike.spiketime.transforms import mapped

_TYPES = {
    str: "str",
    int: "int",
    bool: "bool",
    float: "float",
    float | None: "float?",
    Sequence[float] | None: "float[]?",
}
_INPUTS = ", ".join(f"Tensor{'?' * (name not in ('times', 'weight', 'threshold'))} {name}" for name in QUANTITIES)
_OPTIONS = ", ".join(f"{_TYPES[kind]} {name}" for name, kind in Options.__annotations__.items() if name != "rows")
_GRADS = "Tensor grad, Tensor? of_voltage, Tensor? of_current, Tensor? of_left, Tensor spikes"
_GIVEN = 5 + INPUTS
_DEVICES = ("cpu", "cuda")

torch.library.define("firstspike::spike_forward", f"({_INPUTS}, {_OPTIONS}) -> Tensor[]")
torch.library.define(
    "firstspike::spike_backward", f"(str[] needs, {_GRADS}, {_INPUTS}, Tensor[] saved, {_OPTIONS}) -> Tensor[]"
)


@torch.library.impl("firstspike::spike_forward", _DEVICES)
def _spikes(*given: Any) -> list[Tensor]:
    """First spikes and saved tensors; or trains, the state at the end, and overflows."""
    tensors, options = given[:INPUTS], Options(*given[INPUTS:])
    found = Spikes.forward(*tensors, options)
    if options.max_spikes or not options.closed:
        found = found[: 5 if options.max_spikes else 1]
    elif len(found) == 1:  # of no inputs, say
        found = (*found, *_saved(tensors, options))
    return [_alone(x) for x in found]


@torch.library.impl("firstspike::spike_backward", _DEVICES)
def _spike_gradients(needs: Sequence[str], *given: Any) -> list[Tensor]:
    """The gradients that ``needs`` asks for, in the order of ``DIFFERENTIABLE``."""
    tensors, saved, options = given[:_GIVEN], given[_GIVEN], Options(*given[_GIVEN + 1 :])
    if options.max_spikes or not options.closed:
        again = Spikes.forward(*tensors[5:], options._replace(overflow="drop"))
        saved = again[4 if options.max_spikes else 1 :]
    return [_alone(x) for x in SpikeGradient.forward(Needs(needs), options, *tensors, *saved)]


def _alone(x: Tensor) -> Tensor:
    """A contiguous tensor that shares its memory with no other: results of an op may not."""
    return x.clone(memory_format=torch.contiguous_format) if x._is_view() else x.contiguous()


def _saved(tensors: Sequence[Any], options: Options) -> tuple[Tensor, ...]:
    """Tensors like those that the forward pass of first spikes saves."""
    given, saves = named(tensors), resolve_backend(options.backend, tensors[0].device).saves
    if given["observed"] is not None or saves is None or not options.closed:
        return ()
    return saves(Arguments(**given | options.constants._asdict()))


def refuse_onnx() -> None:
    """Raise a NotImplementedError where a program for ONNX is recorded."""
    if torch.onnx.is_in_onnx_export():
        raise NotImplementedError("ONNX has no operator for spike times; write a program of PyTorch with fs.export")


@torch.library.register_fake("firstspike::spike_forward")
def _(*given: Any) -> list[Tensor]:
    refuse_onnx()
    times, weight, *_ = tensors = given[:INPUTS]
    options = Options(*given[INPUTS:])
    if not options.max_spikes:
        spikes = times.new_empty((*times.shape[:-1], weight.shape[-2]))
        return [spikes, *(torch.empty_like(x) for x in _saved(tensors, options))]
    shape = (*times.shape[:2], weight.shape[1])
    ends = (*shape[:2], 0) if options.until is None else shape
    inputs = named(tensors)
    parts = [] if inputs["jumps"] is None else [len(options.components.split())]
    if options.equations:
        parts = [inputs["current"].shape[-1]]
    state = [times.new_empty(ends), times.new_empty((*ends, *parts)), times.new_empty(ends)]
    return [times.new_empty((*shape, options.max_spikes)), *state, times.new_empty(shape, dtype=torch.bool)]


@torch.library.register_fake("firstspike::spike_backward")
def _(needs: Sequence[str], *given: Any) -> list[Tensor]:
    inputs = named(given[5:])
    likes = [inputs[name] for name in in_order(Needs(needs))]
    return [x.new_empty(x.shape) for x in likes]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.options = Options(*inputs[INPUTS:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *inputs[:INPUTS], *output[4 if ctx.options.max_spikes else 1 :])


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    return pulled_back(ctx, grads, recorded_gradients)


torch.library.register_autograd("firstspike::spike_forward", _backward, setup_context=_setup_context)


@torch.library.register_vmap("firstspike::spike_forward")
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[list[Tensor], list[int]]:
    op = torch.ops.firstspike.spike_forward
    return mapped(lambda *x: op(*x, *inputs[INPUTS:]), info, in_dims[:INPUTS], inputs[:INPUTS], OF_SAMPLES)


@torch.library.register_vmap("firstspike::spike_backward")
def _(info: Any, in_dims: tuple[Any, ...], needs: Any, *inputs: Any) -> tuple[list[Tensor], list[int]]:
    op = torch.ops.firstspike.spike_backward
    dims, tensors = (*in_dims[1 : _GIVEN + 1], *in_dims[_GIVEN + 1]), (*inputs[:_GIVEN], *inputs[_GIVEN])
    return mapped(lambda *x: op(needs, *x[:_GIVEN], x[_GIVEN:], *inputs[_GIVEN + 1 :]), info, dims, tensors)
