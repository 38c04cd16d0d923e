"""Many networks of one shape, computed as one: how a training runs several networks side by side."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.network import Call, Network, Record
from firstspike.layers.neurons import NeuronLayer


class Ensemble(nn.Module):
    """Networks that differ in their parameters and connections only, with a leading dimension for the member.

    Members remain usable: their parameters are views of the ensemble's, and their gradients are after
    ``share_gradients``. The ensemble itself is not copied, moved or loaded. A ValueError says how members differ.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one network")
        for index, member in enumerate(members):
            if difference := difference_of(member, members[0]):
                raise ValueError(f"member {index} differs from member 0: {difference}")
        self.members = tuple(members)  # in a tuple, so that their parameters are not registered twice
        self._call = (Call(members[0]),)  # likewise
        own = [dict(member.named_parameters()) | _connections_in(member) for member in members]
        self._names = list(own[0])
        self._parts = [[parts[name] for parts in own] for name in self._names]
        self.stacked = nn.ParameterList()
        for parts in self._parts:
            stacked = torch.stack([part.detach() for part in parts])
            self.stacked.append(nn.Parameter(stacked, parts[0].requires_grad))
            for part, view in zip(parts, stacked, strict=True):
                part.data = view

    def record(self, times: Float[Tensor, "*members batch inputs"]) -> Record:
        """Spike times of every layer of every member, ``(members, batch, size)``.

        Input times are ``(members, batch, inputs)``, or ``(batch, inputs)`` for the same in all members, and trains
        have one more dimension.
        """
        if times.ndim < (4 if self.members[0].takes_trains else 3):
            return Record(times, self.map(lambda network: network.record(times).layers))
        return Record(times, self.map(lambda network, mine: network.record(mine).layers, times))

    def map(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """``function(network, *inputs)`` for every member, by ``torch.vmap``: tensors, or tuples of them.

        Inputs and results have a leading dimension for the member. The function must not write to anything.
        """

        def one(stacked: Sequence[Tensor], *inputs: Tensor) -> Any:
            return self._call[0].with_parameters(dict(zip(self._names, stacked, strict=True)), function, *inputs)

        # the jitter of delays differs between members
        return torch.vmap(one, randomness="different")(list(self.stacked), *inputs)

    def forward(self, times: Float[Tensor, "*members batch inputs"]) -> Float[Tensor, "members batch outputs"]:
        """Output times of every member; ``times`` as in ``record``."""
        return self.record(times).output

    def train(self, mode: bool = True) -> Self:
        """Put all members into training or evaluation mode."""
        for member in self.members:
            member.train(mode)
        return super().train(mode)

    def share_gradients(self, members: Sequence[int] | None = None) -> None:
        """Let the ``grad`` of these members, by default all, be views of the ensemble's, and None in the others."""
        taken = [members is None or index in members for index in range(len(self.members))]
        for parts, stacked in zip(self._parts, self.stacked, strict=True):
            gradients = [None] * len(self.members) if stacked.grad is None else stacked.grad.unbind()
            for part, gradient, take in zip(parts, gradients, taken, strict=True):
                part.grad = gradient if take else None


_NOT_COMPARED = vars(nn.Module()).keys() | {
    *("weight_mean", "weight_std", "recurrent_mean", "recurrent_std", "initial_neuron", "_starts"),  # how they start
    *("sparse", "_kept_rows"),  # as buffers
    "_tensors",  # parameters and buffers, which are
    "noise",
}


def difference_of(module: nn.Module, expected: nn.Module) -> str | None:
    """How a module differs from another one, apart from values of parameters and their start; None if it does not."""
    parts, others = dict(module.named_modules()), dict(expected.named_modules())
    if [(name, type(part)) for name, part in parts.items()] != [(name, type(part)) for name, part in others.items()]:
        return f"it has other layers: {module}, expected {expected}"
    for place, part in parts.items():
        found, wanted = _settings(part), _settings(others[place])
        for name in {**wanted, **found}:
            one, other = found.get(name), wanted.get(name)
            if not _same(one, other):
                where = f"layer {place} ({part._get_name()}): " if place else ""
                shown = (str(x).partition("\n")[0] for x in (one, other))
                return f"{where}{name.strip('_')} is {', expected '.join(shown)}"
    return None


def _settings(module: nn.Module) -> dict[str, Any]:
    """The settings of a module, without parameter values and without its parts."""
    found = {name: x for name, x in vars(module).items() if name not in _NOT_COMPARED}
    if isinstance(module, NeuronLayer):
        found.pop("_neuron")
        found |= {name: x for name, x in found.pop("_numbers").items() if name not in module.unused}
    found |= dict(module.named_buffers(recurse=False))
    for name, x in (*module.named_parameters(recurse=False), *_connections_in(module, recurse=False).items()):
        learns = "a parameter" if x.requires_grad else "a parameter that does not learn"
        found[name] = f"{learns} {tuple(x.shape)}, {x.dtype} on {x.device}"
    return found


def _connections_in(module: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    """Which connections exist, where there are masks: they differ between networks, as parameters do."""
    return {name: x for name, x in module.named_buffers(recurse=recurse) if name.endswith("connections")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
        return alike and (one.is_meta or torch.equal(one, other))
    if one is other or isinstance(one, Tensor) or isinstance(other, Tensor):
        return one is other
    equal = one == other
    return bool(equal.all() if hasattr(equal, "all") else equal)
