"""Layers whose work depends on values, in exported programs: a custom op there makes the layer again and calls it."""

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from firstspike import neurons
from firstspike.layers.delay import DelayRule
from firstspike.layers.neurons import LIF_NAMES
from firstspike.spiketime.values import records

_Method = TypeVar("_Method", bound=Callable[..., Any])

torch.library.define("firstspike::layer", "(Tensor trains, Tensor[] tensors, str kind, str arguments) -> Tensor")


class MadeAgain(nn.Module):
    """A base of such layers."""

    def recipe(self: Any) -> tuple[str, str]:
        """The class, and its arguments in JSON: shapes in place of tensors, no values that are trained."""
        kind = type(self)
        if kind not in MadeAgain.__subclasses__():
            raise NotImplementedError(f"torch.export does not know a {kind.__name__}, only the layer that it extends")
        found = {name: self._argument(name) for name in inspect.signature(kind).parameters}
        neuron = type(self.initial_neuron)
        if getattr(neurons, neuron.__name__, None) is not neuron:
            raise NotImplementedError(f"torch.export does not know a {neuron.__name__}, only firstspike.neurons")
        found |= {name: 1.0 for name in found if name.endswith("mask") and found[name] is not None}  # tensors tell
        found["neuron"] = self.neuron.values | {"class": neuron.__name__}
        return kind.__name__, json.dumps(
            found, default=lambda x: {"shape": x.shape} if isinstance(x, Tensor) else asdict(x)
        )

    # its result is recorded; ``torch.compiler.assume_constant_result`` would import the compiler
    recipe._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters()) | dict(layer.named_buffers())


def _made(found: dict[str, Any]) -> Any:
    """A rule, a tensor, a neuron, or all arguments of a recipe."""
    if "bound" in found:
        return DelayRule(**found)
    if "neuron" in found:
        return found | {"device": "meta"}
    if "shape" in found:
        return torch.ones(found["shape"])
    if isinstance(found["reset"], Tensor):  # below any threshold
        found["reset"] -= 1
    return getattr(neurons, found.pop("class"))(**found)


@torch.library.impl("firstspike::layer", ("cpu", "cuda"))
def _(trains: Tensor, tensors: list[Tensor], kind: str, arguments: str) -> Tensor:
    (make,) = (x for x in MadeAgain.__subclasses__() if kind in (x.__name__, LIF_NAMES.get(x.__name__)))
    layer = make(**json.loads(arguments, object_hook=_made)).eval()
    given = dict(zip(sorted(_tensors(layer)), tensors, strict=True))
    with torch.no_grad():
        found: Tensor = torch.func.functional_call(layer, given, (trains,))
    return found.contiguous()


@torch.library.register_fake("firstspike::layer")
def _(trains: Tensor, tensors: list[Tensor], kind: str, arguments: str) -> Tensor:
    found = json.loads(arguments)
    sizes = [found[name] for name in ("out_features", "max_spikes") if name in found]
    return trains.new_empty((*trains.shape[:-2], *sizes))


def by_values(method: _Method) -> _Method:
    """A method of such a layer, which compiled code calls as it is, and which is exported with times alone."""

    @wraps(method)
    def call(self: Any, times: Tensor, *more: Any, **others: Any) -> Any:
        name = f"{self._get_name()}.{method.__name__}"
        if torch.compiler.is_exporting():
            if more or others:
                raise NotImplementedError(f"{name} can be exported with times alone")
            tensors = _tensors(self)
            return torch.ops.firstspike.layer(self.seen(times), [tensors[x] for x in sorted(tensors)], *self.recipe())
        if torch.compiler.is_compiling():
            return torch.compiler.disable(method)(self, times, *more, **others)
        if records():
            raise NotImplementedError(f"{name} depends on values, which linearize does not know; take torch.func.vjp")
        return method(self, times, *more, **others)

    return call  # type: ignore[return-value]
