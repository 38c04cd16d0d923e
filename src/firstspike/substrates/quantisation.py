"""Quantised weights, as devices store them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.layers import LIFLinear, LIFRecurrent, LIFSpikeTrains, Network
from firstspike.substrates.base import Substrate


@dataclass(frozen=True)
class WeightQuantiser:
    """Weights as multiples of ``1 / scale`` between ``-limit`` and ``limit``.

    Args:
        scale: steps per unit of weight; None for no rounding.
        limit: largest magnitude; None for none.

    Raises:
        ValueError: a value that is not positive.
    """

    scale: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("weight_scale", self.scale), ("weight_max", self.limit)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")

    def __call__(self, weight: Tensor) -> Tensor:
        """The weights as they are stored."""
        if self.scale is not None:
            weight = torch.round(weight * self.scale) / self.scale
        return weight if self.limit is None else weight.clamp(-self.limit, self.limit)

    def parameters(self, network: Network) -> dict[str, Tensor]:
        """The stored weights of all LIF layers, by the names of the network's; none where nothing is rounded."""
        if self.scale is None and self.limit is None:
            return {}
        return {name: self(weight.detach()) for name, weight in _weights(network)}

    @torch.no_grad()
    def clip_(self, network: Network) -> None:
        """Clip weights to the limit. Otherwise they would drift beyond it without an effect."""
        if self.limit is not None:
            for _, weight in _weights(network):
                weight.clamp_(-self.limit, self.limit)


def _weights(network: Network) -> Iterator[tuple[str, Tensor]]:
    """The weights of all LIF layers, by the names of the network's parameters."""
    for index, layer in enumerate(network):
        if isinstance(layer, LIFLinear | LIFSpikeTrains):
            yield f"{index}.weight", layer.weight
        if isinstance(layer, LIFRecurrent):
            yield f"{index}.recurrent_weight", layer.recurrent_weight


class QuantisedWeights(Substrate):
    """Substrates that store quantised weights."""

    quantiser: WeightQuantiser

    def parameters(self, network: Network) -> dict[str, Tensor]:
        """See ``Substrate``."""
        return self.quantiser.parameters(network)

    def project_(self, network: Network) -> None:
        """See ``Substrate``."""
        self.quantiser.clip_(network)
