"""Layers whose work depends on values, in recorded programs: a custom op there makes the layer again and calls it."""

import copy
import inspect
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from firstspike import neurons
from firstspike.connect import Synapses
from firstspike.layers.delay import DelayRule
from firstspike.layers.neurons import LIF_NAMES
from firstspike.layers.trains import takes_trains
from firstspike.spiketime.backends import resolve_backend
from firstspike.spiketime.custom_ops import refuse_onnx
from firstspike.spiketime.values import raised, records

_Method = TypeVar("_Method", bound=Callable[..., Any])

torch.library.define("firstspike::layer", "(Tensor trains, Tensor[] tensors, str kind, str arguments) -> Tensor")
torch.library.define(
    "firstspike::layer_backward",
    "(Tensor grad, Tensor trains, Tensor[] tensors, bool[] needs, str kind, str arguments) -> Tensor[]",
)


class MadeAgain(nn.Module):
    """A base of such layers."""

    def recipe(self: Any) -> tuple[str, str]:
        """The class, and its arguments in JSON: shapes in place of tensors, no values that are trained.

        For classes without a known name, an empty name and the class.
        """
        kind, neuron = type(self), type(self.initial_neuron)
        if kind not in MadeAgain.__subclasses__():
            return "", f"a {kind.__name__}, only the layer that it extends"
        if getattr(neurons, neuron.__name__, None) is not neuron:
            return "", f"a {neuron.__name__}, only firstspike.neurons"
        found = {name: self._argument(name) for name in inspect.signature(kind).parameters}
        found |= {name: 1.0 for name in found if name.endswith("mask") and found[name] is not None}  # tensors tell
        written = json.dumps(getattr(self.neuron, "written", {}))
        found["neuron"] = self.neuron.values | {"class": neuron.__name__, "written": written}
        return kind.__name__, json.dumps(
            found, default=lambda x: _form(x) if isinstance(x, Tensor | Synapses) else asdict(x)
        )

    # its result is recorded. ``torch.compiler.assume_constant_result`` would import the compiler
    recipe._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def _varies(self: Any) -> bool:
        """Whether a call is more than its recipe: with jitter, or one of many that torch maps."""
        rule = getattr(self, "delay_rule", None)
        return (self.training and rule is not None and rule.jitter > 0) or torch._C._are_functorch_transforms_active()


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters()) | dict(layer.named_buffers())


def _form(x: Tensor | Synapses) -> dict[str, Any]:
    """Sizes, as values come with a call."""
    return {"shape": x.shape} if isinstance(x, Tensor) else {"sources": x.sources, "targets": x.targets, "each": len(x)}


def _made(found: dict[str, Any]) -> Any:
    """A rule, a tensor, a neuron, or all arguments of a recipe."""
    if "class" in found:
        if isinstance(found.get("reset"), Tensor):  # below any threshold
            found["reset"] -= 1
        return getattr(neurons, found.pop("class"))(**json.loads(found.pop("written", "{}")), **found)
    if "bound" in found:
        return DelayRule(**found)
    if "neuron" in found:
        return found | {"device": "meta"}
    if "each" in found:
        each = torch.arange(found.pop("each"))
        return Synapses(**found, source=each // found["targets"] % found["sources"], target=each % found["targets"])
    return torch.ones(found["shape"])


@lru_cache(maxsize=128)
def _layer(kind: str, arguments: str, backward: bool, thread: int) -> tuple[Any, list[str]]:
    """The layer of a recipe, and names of its tensors; one for each thread, as calls put values into it."""
    (make,) = (x for x in MadeAgain.__subclasses__() if kind in (x.__name__, LIF_NAMES.get(x.__name__)))
    layer: Any = make(**json.loads(arguments, object_hook=_made)).eval()
    if backward:  # the forward pass has told
        layer.overflow = "drop"
    return layer, sorted(_tensors(layer))


def _called(trains: Tensor, tensors: Sequence[Tensor], *recipe: Any) -> Tensor:
    layer, names = _layer(*recipe, threading.get_ident())
    found: Tensor = torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), (trains,))
    return found.contiguous()


@torch.library.impl("firstspike::layer", ("cpu", "cuda"))
def _(trains: Tensor, tensors: list[Tensor], kind: str, arguments: str) -> Tensor:
    with torch.no_grad():
        return _called(trains, tensors, kind, arguments, False)


@torch.library.impl("firstspike::layer_backward", ("cpu", "cuda"))
def _(grad: Tensor, trains: Tensor, tensors: list[Tensor], needs: list[bool], *recipe: str) -> list[Tensor]:
    first, *rest = given = [x.detach().requires_grad_(need) for x, need in zip((trains, *tensors), needs, strict=True)]
    with torch.enable_grad():
        found = _called(first, rest, *recipe, True)
    asked = [x for x in given if x.requires_grad]
    return [x.contiguous() for x in torch.autograd.grad(found, asked, grad, materialize_grads=True)]


@torch.library.register_fake("firstspike::layer_backward")
def _(grad: Tensor, trains: Tensor, tensors: list[Tensor], needs: list[bool], *recipe: str) -> list[Tensor]:
    pairs = zip((trains, *tensors), needs, strict=True)
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x, need in pairs if need]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    trains, tensors, *ctx.recipe = inputs
    ctx.save_for_backward(trains, *tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    trains, *tensors = ctx.saved_tensors
    needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    found = iter(torch.ops.firstspike.layer_backward(grad, trains, tensors, needs, *ctx.recipe))
    first, *rest = (next(found) if need else None for need in needs)
    return first, rest, None, None


torch.library.register_autograd("firstspike::layer", _backward, setup_context=_setup_context)


@torch.library.register_fake("firstspike::layer")
def _(trains: Tensor, tensors: list[Tensor], kind: str, arguments: str) -> Tensor:
    refuse_onnx()
    found = json.loads(arguments)
    sizes = [found[name] for name in ("out_features", "max_spikes") if name in found]
    return trains.new_empty((*trains.shape[:-2], *sizes))


def by_values(method: _Method) -> _Method:
    """A method of such a layer, which programs record as one call with times alone. Others are left out."""

    @wraps(method)
    def call(self: Any, times: Tensor, *more: Any, **others: Any) -> Any:
        name = f"{self._get_name()}.{method.__name__}"
        if torch.compiler.is_compiling():
            kind, arguments = self.recipe()
            if not torch.compiler.is_exporting() and (more or others or not kind or self._varies()):
                return torch.compiler.disable(method)(self, times, *more, **others)
            if more or others:
                raise NotImplementedError(f"{name} can be exported with times alone")
            if not kind:
                raise NotImplementedError(f"torch.export does not know {arguments}")
            tensors, trains = _tensors(self), self.seen(times)
            if torch.is_autocast_enabled(trains.device.type):
                trains = raised(trains, self.weight.dtype)
            return torch.ops.firstspike.layer(trains, [tensors[x] for x in sorted(tensors)], kind, arguments)
        if records():
            raise NotImplementedError(f"{name} depends on values, which linearize does not know; take torch.func.vjp")
        return method(self, times, *more, **others)

    return call  # type: ignore[return-value]


def export(network: nn.Module, path: str | os.PathLike[str], times: Tensor | None = None) -> None:
    """Write a network as a program of ``torch.export``, for any number of samples and, of trains, of spikes.

    It computes as in evaluation, on the network's device, and gives the same numbers bit for bit, in any process with
    firstspike and the same version of torch::

        fs.export(network, "network.pt2")

        import firstspike.layers                                  # the operators that the program calls
        run = torch.export.load("network.pt2").module()

    Args:
        network: a ``Network``, a layer, or a module that begins with one. It stays as it is.
        path: the file, with the ending ``.pt2``. A file that is there is replaced.
        times: example inputs of which only the shape counts. By default first spikes ``(batch, inputs)``, or trains
            ``(batch, inputs, spikes)`` if the first layer takes them.

    Raises:
        ValueError: another ending; no ``times`` for a network whose number of inputs its layers do not fix.
        NotImplementedError: layers or neurons of your own, in recurrent layers and ``MaximumReadout``.
    """
    if os.path.splitext(path)[1] != ".pt2":
        raise ValueError(
            f"path must end in .pt2, got {path}; it becomes a program of torch.export, not ONNX or TorchScript"
        )
    trains = any(map(takes_trains, (network, *list(network.children())[:1])))
    inputs = getattr(network, "inputs", getattr(network, "in_features", None))
    if times is None and inputs is None:
        raise ValueError("export needs times, example inputs of the network: no layer fixes their number")
    shape: Any = (2, inputs, 2)[: 2 + trains] if times is None else (2, *times.shape[1:])
    dynamic = {0: torch.export.Dim("batch")}
    if trains and len(shape) > 2:
        shape = (*shape[:-1], 2)
        dynamic[len(shape) - 1] = torch.export.Dim("spikes")
    like = next(network.parameters(), torch.empty(0))
    own = copy.deepcopy(network).eval()
    for layer in own.modules():  # kernels cannot be loaded within torch.export, which replaces ``min``
        if isinstance(backend := getattr(layer, "backend", None), str):
            resolve_backend(backend, like.device)
    program = torch.export.export(own, (like.new_zeros(shape),), dynamic_shapes=(dynamic,))
    torch.export.save(program, path)
