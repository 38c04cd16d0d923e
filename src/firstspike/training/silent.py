"""Silent neurons: they have no gradient, so their weights are raised instead.

Source: Göltz et al. 2021, supplement; the rule of their code.
"""

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
        limits: largest silent fraction allowed, by index of the layer in the network.
        bump: first amount to add to each weight.
        targeted: raise the silent neurons only, else all of the layer.
        exponential: double while it repeats.
        instead: a batch that raises weights makes no gradient step.
    """

    def __init__(
        self,
        limits: Mapping[int, float],
        bump: float,
        targeted: bool = True,
        exponential: bool = True,
        instead: bool = True,
    ) -> None:
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
        """Raise weights if the batch has too many silent neurons; True if so, and the gradient step is to be left out.

        Args:
            network: whose weights may be raised, in place.
            record: the batch all through that network.
        """
        layer = self.too_silent(self.fractions(record).tolist())
        if layer is not None:
            self.raise_layer_(network, layer, record.layers[layer])
        return layer is not None

    def raise_layer_(self, network: Network, layer: int, times: Float[Tensor, "batch neurons"]) -> None:
        """Raise weights of the layer that is too silent.

        Args:
            network: whose weights are raised, in place.
            layer: index of the layer, as ``too_silent`` gives it.
            times: the layer's spike times in the batch.
        """
        self.raise_silent_(network, layer, torch.isinf(times).flatten(0, -2).mean(dim=0, dtype=times.dtype))

    @torch.no_grad()
    def raise_silent_(self, network: Network, layer: int, silent: Float[Tensor, " neurons"]) -> None:
        """The same from the fraction of samples in which each neuron of the layer is silent."""
        lif = network[layer]
        assert isinstance(lif, LIFLayer)
        amount = self.bump * 2**self.repeats if self.exponential else self.bump
        if self.targeted:
            silent = silent.view(len(lif.weight), -1).mean(dim=1)  # of all neurons that share the weights
            lif.synapses.add_((silent > self.limits[layer])[:, None], alpha=amount)
        else:
            lif.weight.add_(amount)

    def fractions(self, record: Record) -> Float[Tensor, " spiking"]:
        """Silent fraction of each LIF layer in the record, in the order of ``limits``."""
        return torch.stack([torch.isinf(record.layers[i]).mean(dtype=record.inputs.dtype) for i in self.limits])

    def state_dict(self) -> dict[str, int | None]:
        """What a resumed training needs to go on with."""
        return {"last_layer": self.last_layer, "repeats": self.repeats}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Take up a saved state."""
        self.last_layer, self.repeats = state["last_layer"], state["repeats"] or 0
