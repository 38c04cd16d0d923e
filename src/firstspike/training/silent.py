"""Silent neurons: they have no gradient, so their weights are raised instead.

Source: Göltz et al. 2021, supplement; the rule of their code.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import LIFLayer, Network, Record


class SilentNeurons:
    """Watches the silent fraction of every LIF layer and raises weights where it is too high.

    If in a batch the fraction of silent (sample, neuron) pairs of a layer exceeds its limit, the foremost such layer,
    for the ones behind it only lack its spikes, gets ``bump`` on the weights of each neuron that is itself silent in a
    larger fraction of samples than the limit. While the same layer stays too silent, the bump doubles from batch to
    batch. In the papers such a batch makes no gradient step.

    Args:
        limits: largest silent fraction allowed, 0 to 1, by index of the layer in the network.
        bump: first amount to add to each weight, > 0.
        targeted: raise the silent neurons only, else all of the layer.
        exponential: double while it repeats.
        instead: a batch that raises weights makes no gradient step.

    Raises:
        ValueError: limits that are not fractions by index, a bump that is not positive.
    """

    def __init__(
        self,
        limits: Mapping[int, float],
        bump: float = 0.0005,
        targeted: bool = True,
        exponential: bool = True,
        instead: bool = True,
    ) -> None:
        if not isinstance(limits, Mapping) or not all(0 <= limit <= 1 for limit in limits.values()):
            raise ValueError(
                "limits must give the largest silent fraction, 0 to 1, by index of a layer, such as {0: 0.5, 1: 0.3}, "
                f"got {limits}"
            )
        if not 0 < bump < math.inf:
            raise ValueError(f"bump must be > 0 and finite, got {bump}")
        self.limits = dict(limits)
        self.bump = bump
        self.targeted = targeted
        self.exponential = exponential
        self.instead = instead
        self.last_layer: int | None = None
        self.repeats = 0

    def too_silent(self, fractions: Sequence[float]) -> int | None:
        """Index of the foremost layer above its limit, or None; counts how often in a row it is the same.

        Args:
            fractions: of a batch, as ``fractions(record)`` gives them.
        """
        for (layer, limit), fraction in zip(self.limits.items(), fractions, strict=True):
            if fraction > limit:
                self.repeats = self.repeats + 1 if layer == self.last_layer else 0
                self.last_layer = layer
                return layer
        self.last_layer, self.repeats = None, 0
        return None

    def raise_weights_(self, network: Network, record: Record) -> bool:
        """Raise weights if the batch has too many silent neurons.

        With ``instead=False`` the gradient step may come before or after, for a member of an ``Ensemble`` before.

        Args:
            network: whose weights may be raised, in place.
            record: the batch all through that network.

        Returns:
            Whether to leave out the gradient step: True if weights were raised, never with ``instead=False``.

        Raises:
            ValueError: limits for layers that the network does not have, or that are not of LIF neurons.
        """
        for layer in self.limits:
            _lif_layer(network, layer)
        found = self.too_silent(self.fractions(record).tolist())
        if found is None:
            return False
        lif, times = _lif_layer(network, found), record.layers[found]
        if self.instead or getattr(lif.weight, "of_ensemble", False):
            self.raise_layer_(network, found, times)
        else:  # in new memory: a backward pass that is still to come needs the weights of the forward pass
            lif.weight.data = lif.weight.detach() + self._bumps(lif, found, _silent(times))
        return self.instead

    def raise_layer_(self, network: Network, layer: int, times: Float[Tensor, "batch neurons"]) -> None:
        """Raise weights of the layer that is too silent.

        Args:
            network: whose weights are raised, in place.
            layer: index of the layer, as ``too_silent`` gives it.
            times: the layer's spike times in the batch.
        """
        self.raise_silent_(network, layer, _silent(times))

    @torch.no_grad()
    def raise_silent_(self, network: Network, layer: int, silent: Float[Tensor, " neurons"]) -> None:
        """The same from the fraction of samples in which each neuron of the layer is silent."""
        lif = _lif_layer(network, layer)
        lif.weight.add_(self._bumps(lif, layer, silent))

    def _bumps(self, lif: LIFLayer, layer: int, silent: Float[Tensor, " neurons"]) -> Tensor:
        """What is added to the weights; it broadcasts."""
        amount = self.bump * 2**self.repeats if self.exponential else self.bump
        if not self.targeted:
            return lif.weight.new_tensor(amount)
        silent = silent.view(len(lif.weight), -1).mean(dim=1)  # of all neurons that share the weights
        raised = (silent > self.limits[layer]).to(lif.weight) * amount
        return raised.view(-1, *[1] * (lif.weight.ndim - 1))

    def fractions(self, record: Record) -> Float[Tensor, " spiking"]:
        """Silent fraction of each LIF layer in the record, in the order of ``limits``.

        Raises:
            ValueError: limits for layers that the record does not have.
        """
        missing = [layer for layer in self.limits if not -len(record.layers) <= layer < len(record.layers)]
        if missing:
            raise ValueError(f"limits are for layer {missing[0]}, the record has {len(record.layers)} layers")
        return torch.stack([torch.isinf(record.layers[i]).mean(dtype=record.inputs.dtype) for i in self.limits])

    def state_dict(self) -> dict[str, int | None]:
        """What a resumed training needs to go on with."""
        return {"last_layer": self.last_layer, "repeats": self.repeats}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Take up a saved state."""
        self.last_layer, self.repeats = state["last_layer"], state["repeats"] or 0


def _silent(times: Float[Tensor, "*batch neurons"]) -> Float[Tensor, " neurons"]:
    """Fraction of the samples in which each neuron is silent."""
    return torch.isinf(times).flatten(0, -2).mean(dim=0, dtype=times.dtype)


def _lif_layer(network: Network, index: int) -> LIFLayer:
    """The layer of LIF neurons with that index."""
    layer = network[index] if -len(network) <= index < len(network) else None
    if not isinstance(layer, LIFLayer):
        there = [str(place) for place, other in enumerate(network) if isinstance(other, LIFLayer)]
        raise ValueError(
            f"limits are for layer {index}, which is not a layer of LIF neurons; those of this network are "
            f"{', '.join(there) or 'none'}"
        )
    return layer
