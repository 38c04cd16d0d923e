"""Weights on a grid: what becomes of them on a device that stores small whole numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.layers import LIFLinear, Network
from firstspike.substrates.base import Substrate


@dataclass(frozen=True)
class WeightDigits:
    """Weights as multiples of ``1 / scale`` between ``-limit`` and ``limit``.

    Args:
        scale: steps per unit of weight; None for no rounding.
        limit: largest magnitude; None for no limit.

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
        layers = ((index, layer) for index, layer in enumerate(network) if isinstance(layer, LIFLinear))
        return {f"{index}.weight": self(layer.weight.detach()) for index, layer in layers}

    @torch.no_grad()
    def clip_(self, network: Network) -> None:
        """Put weights beyond the limit back on it. Without, they would drift off where nothing can be seen of it."""
        if self.limit is not None:
            for layer in network:
                if isinstance(layer, LIFLinear):
                    layer.weight.clamp_(-self.limit, self.limit)


class StoresDigits(Substrate):
    """What substrates share that store weights as digits."""

    digits: WeightDigits

    def parameters(self, network: Network) -> dict[str, Tensor]:
        """See ``Substrate``."""
        return self.digits.parameters(network)

    def project_(self, network: Network) -> None:
        """See ``Substrate``."""
        self.digits.clip_(network)
