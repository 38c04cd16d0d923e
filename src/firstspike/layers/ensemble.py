"""Many networks of one shape, computed as one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from firstspike.layers.network import Network, Record


class _Recording(nn.Module):
    """A network whose forward pass gives the times of all layers, as ``functional_call`` wants it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, times: Tensor) -> tuple[Tensor, ...]:
        return self.network.record(times).layers


class Ensemble(nn.Module):
    """Networks that differ in their parameters only, with a leading dimension for the member.

    The members go on to work by themselves: their parameters are views of the ensemble's, which are the ones to give
    to an optimiser. So do their gradients, after ``share_gradients``.

    Args:
        members: networks with the same layers; their parameters become views.

    Raises:
        ValueError: no member, or members of different shapes.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one network")
        first = [(name, x.shape, x.dtype, x.device) for name, x in members[0].named_parameters()]
        for index, member in enumerate(members):
            found = [(name, x.shape, x.dtype, x.device) for name, x in member.named_parameters()]
            if found != first or str(member) != str(members[0]):
                raise ValueError(f"member {index} has other layers than member 0: {member}, expected {members[0]}")
        self._members = tuple(members)  # in a tuple: their parameters are none beside the ensemble's
        self._names = [name for name, *_ in first]
        self._recording = (_Recording(members[0]),)
        self.stacked = nn.ParameterList()
        for name in self._names:
            parts = [member.get_parameter(name) for member in members]
            stacked = nn.Parameter(torch.stack([part.detach() for part in parts]), parts[0].requires_grad)
            self.stacked.append(stacked)
            for part, view in zip(parts, stacked.detach(), strict=True):
                part.data = view

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks, whose parameters are views of the ensemble's."""
        return self._members

    def __len__(self) -> int:
        return len(self._members)

    def record(self, times: Float[Tensor, "*members batch inputs"]) -> Record:
        """Spike times of every layer of every member, ``(members, batch, size)``.

        Args:
            times: input times, ``(members, batch, inputs)``, or ``(batch, inputs)`` for the same in all members.

        Raises:
            ValueError: another shape.
        """
        if times.ndim not in (2, 3) or (times.ndim == 3 and len(times) != len(self)):
            raise ValueError(
                f"expected times (batch, inputs) or ({len(self)}, batch, inputs), got the shape {tuple(times.shape)}"
            )
        recording = self._recording[0]
        parameters = {f"network.{name}": x for name, x in zip(self._names, self.stacked, strict=True)}

        def one(parameters: dict[str, Tensor], times: Tensor) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = functional_call(recording, parameters, (times,))
            return found

        # the jitter of delays differs between members
        mapped = torch.vmap(one, in_dims=(0, None if times.ndim == 2 else 0), randomness="different")
        layers = mapped(parameters, times)
        return Record(times, layers)

    def forward(self, times: Float[Tensor, "*members batch inputs"]) -> Float[Tensor, "members batch outputs"]:
        """Output times of every member; ``times`` as in ``record``."""
        return self.record(times).output

    def share_gradients(self, members: Sequence[bool] | None = None) -> None:
        """Let the members' ``grad`` be views of the ensemble's, None for those that are left out.

        Args:
            members: which ones take part; by default all.
        """
        for name, stacked in zip(self._names, self.stacked, strict=True):
            for index, member in enumerate(self._members):
                taken = stacked.grad is not None and (members is None or members[index])
                member.get_parameter(name).grad = stacked.grad[index] if taken and stacked.grad is not None else None


def ensemble(members: Sequence[Network]) -> Ensemble:
    """The networks as one that is computed side by side; see ``Ensemble``.

    Example::

        together = fs.ensemble([make_network() for _ in range(10)])
        times = together(batch)                                        # (10, batch, outputs)
        loss.per_sample(times, labels.expand(10, -1)).mean(dim=1).sum().backward()

    Raises:
        ValueError: no network, or networks of different shapes.
    """
    return Ensemble(members)
