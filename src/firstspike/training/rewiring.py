"""Rewiring: sparse synapses of no use move to other neurons while the network learns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor

from firstspike.connect import Synapses
from firstspike.layers import synapses
from firstspike.layers.neurons import NeuronLayer
from firstspike.ranges import NotNegative, PositiveInt, checks_ranges
from firstspike.seeding import generator
from firstspike.training.callbacks import Callback
from firstspike.training.member import Member

if TYPE_CHECKING:
    from firstspike.training.fit import Fit

_TRIES = 100


@checks_ranges
@dataclass(eq=False, repr=False)
class Rewiring(Callback):
    """Moves sparse synapses whose weight has reached 0 to pairs of neurons drawn at random (Deep R).

    A layer has as many synapses as before, and as many of each sign: a synapse keeps its sign and its delay, and moves
    to a source whose sign is the same or free, and to any target. It starts there with almost no weight and a new
    state of the optimiser: if its gradient asks for the other sign, it moves again. No pair gets a second synapse. What
    finds no free pair starts again where it is. All follows from the seed of the training, so that a resumed one
    continues bit for bit.

    Args:
        every: batches after which dead synapses move.
        decay: by how much each weight approaches 0 before that, as by a penalty on its size.
        autapses: whether recurrent synapses may connect a neuron to itself.

    Raises:
        ValueError: a number out of its range; in a training, several networks, or one without sparse synapses.

    Source: Bellec, Kappel, Maass and Legenstein 2018, "Deep rewiring: training very sparse deep networks".
    """

    essential = True

    every: PositiveInt = 1
    decay: NotNegative = 0.0
    autapses: bool = False
    sides: dict[str, Tensor] = field(default_factory=dict, init=False)
    """The sign of each synapse, by the name of its weights."""

    def on_fit_start(self, fit: "Fit") -> None:
        """Note the signs of all synapses."""
        if len(fit.trainer.members) > 1:
            raise ValueError(f"Rewiring takes one network at a time, got {len(fit.trainer.members)}")
        found = _sparse_in(fit.trainer.members[0])
        if not found:
            raise ValueError("Rewiring needs a layer with synapses of fs.connect; those of a mask cannot move")
        for key, layer, name in found:
            weight, signs = getattr(layer, name).detach(), layer._signed[name]
            fixed = 0 if signs is None else weight.new_tensor(signs)[synapses.ends_of(layer, name)[0]]
            if self.sides.get(key, weight).shape != weight.shape or key not in self.sides:
                self.sides[key] = torch.where(weight + fixed < 0, -1, 1).to(torch.int8)

    def on_batch_end(self, fit: "Fit") -> None:
        """Move dead synapses."""
        if fit.batch % self.every:
            return
        member, draw = fit.trainer.members[0], generator(fit.seeds[0], "rewiring", fit.epoch, fit.batch)
        for key, layer, name in _sparse_in(member):
            self.sides[key] = self._move(member, key, layer, name, self.sides[key].to(layer.weight.device), draw)

    @torch.no_grad()
    def _move(
        self, member: Member, key: str, layer: NeuronLayer, name: str, side: Tensor, draw: torch.Generator
    ) -> Tensor:
        """Move the dead synapses of a set; the signs of all, in their new order."""
        weight, none = getattr(layer, name), torch.finfo(layer.weight.dtype).tiny
        if self.decay:
            weight.copy_(side * (side * weight - self.decay).clamp(min=0))
        dead = side * weight <= none
        if not bool(dead.any()):
            return side
        sparse, signs, autapses = layer.sparse[name], layer._signed[name], self.autapses or name == "weight"
        source, target = (x.cpu() for x in synapses.ends_of(layer, name))
        pair = source * sparse.targets + target
        for sign in (-1, 1):
            senders = torch.arange(sparse.sources)
            if signs is not None:
                senders = senders[torch.tensor(signs) * sign >= 0]
            moving = (dead & (side == sign)).cpu().nonzero().squeeze(1)
            new = _free_pairs(pair, len(moving), senders, sparse.targets, autapses, draw)
            pair[moving[: len(new)]] = new
        pair, order = pair.sort(stable=True)
        order = order.to(weight.device)
        for own in (name, "delay_raw" if name == "weight" else "recurrent_delays.delay_raw"):
            if (parameter := dict(layer.named_parameters()).get(own)) is None:
                continue
            kept = member.optimizer.state.get(parameter, {}).values()
            kept = [x for x in kept if isinstance(x, Tensor) and x.shape == parameter.shape]
            averages = {} if member.average is None else member.average.averages
            both = [parameter, *(x for place, x in averages.items() if place == key.removesuffix(name) + own)]
            for x in kept:
                x[dead] = 0
            for x in both if own == name else ():
                x.copy_(torch.where(dead, side * none, x))
            for x in (*both, *kept):
                x.copy_(x[order])
        ends = pair // sparse.targets, pair % sparse.targets
        synapses.set_structure_(layer, name, Synapses(sparse.sources, sparse.targets, *ends, rules=sparse.rules))
        return side[order]

    def state_dict(self) -> dict[str, Any]:
        """The signs."""
        return {"sides": dict(self.sides)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.sides = dict(state["sides"])


def _sparse_in(member: Member) -> list[tuple[str, NeuronLayer, str]]:
    """Full name of the weights, layer, and their name there, of all sparse synapses."""
    layers = [x for x in member.network.named_modules() if isinstance(x[1], NeuronLayer)]
    return [(f"{place}.{name}".lstrip("."), x, name) for place, x in layers for name in x.sparse]


def _free_pairs(
    taken: Int64[Tensor, " synapses"],
    number: int,
    senders: Int64[Tensor, " senders"],
    targets: int,
    autapses: bool,
    draw: torch.Generator,
) -> Int64[Tensor, " found"]:
    """Pairs ``source * targets + target`` that are not taken, in random order: that many, or fewer if few are left."""
    taken, found = taken.sort().values, taken[:0]
    for _ in range(_TRIES if len(senders) else 0):
        if len(found) == number:
            break
        left = number - len(found)
        source = senders[torch.randint(len(senders), (left,), generator=draw)]
        target = torch.randint(targets, (left,), generator=draw)
        pair = source * targets + target
        place = torch.searchsorted(taken, pair).clamp(max=len(taken) - 1)
        pair = pair[(taken[place] != pair) & (autapses | (source != target))]
        found = torch.cat([found, pair]).unique()
    return found[torch.randperm(len(found), generator=draw)]
