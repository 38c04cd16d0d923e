"""Code that imperfect devices share: quantised weights, noise, and layers whose neurons are connected to each other.

A spike arrives at other neurons after a delay of at least the window of its layer. In slices of half a window, what
arrives in a slice left its neuron before the slice, even if it was moved ahead by up to half a window.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.devices import sent
from firstspike.layers import LIFRecurrent, Network
from firstspike.layers.lif import DenseLIFLayer
from firstspike.ranges import Positive, checks_ranges
from firstspike.seeding import generator
from firstspike.substrates.base import Substrate

LOWEST_THRESHOLD = 0.01
"""No noise takes a threshold below this fraction of its nominal value."""


@checks_ranges
@dataclass(frozen=True)
class WeightQuantiser:
    """Weights as multiples of ``1 / scale`` between ``-limit`` and ``limit``.

    Args:
        scale: steps per unit of weight; None for no rounding.
        limit: largest magnitude; None for none.

    Raises:
        ValueError: a value that is not positive.
    """

    scale: Positive | None = None
    limit: Positive | None = None

    def __call__(self, weight: Tensor) -> Tensor:
        """The weights as they are stored."""
        if self.scale is not None:
            weight = torch.round(weight * self.scale) / self.scale
        return weight if self.limit is None else weight.clamp(-self.limit, self.limit)

    def parameters(self, network: Network) -> dict[str, Tensor]:
        """The stored weights of all LIF layers, by the names of the network's; none if nothing is rounded."""
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
        if isinstance(layer, DenseLIFLayer):
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


class Noise:
    """Random numbers of a device: one stream, whose state can be kept, and patterns that never change.

    Args:
        seed: of both.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.source = generator(seed, "substrate noise")

    def normal(self, std: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The next normally distributed numbers."""
        drawn = torch.randn(shape, generator=self.source, dtype=torch.float64)
        return sent((std * drawn).to(like.dtype), like.device)

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The next numbers between 0 and 1."""
        return sent(torch.rand(shape, generator=self.source, dtype=torch.float64), like.device)

    def pattern(self, purpose: str, index: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Normally distributed numbers that are the same at every call with this purpose and index."""
        drawn = torch.randn(shape, generator=generator(self.seed, purpose, index), dtype=torch.float64)
        return sent(drawn.to(like.dtype), like.device)

    def state_dict(self) -> dict[str, Tensor]:
        """The position in the stream."""
        return {"noise": self.source.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the position."""
        self.source.set_state(state["noise"].cpu())


class Imperfect(QuantisedWeights):
    """Substrates with quantised weights and individual thresholds, which also draw random numbers."""

    noise: Noise
    threshold_offset: float
    threshold_spread: float
    threshold_batch_noise: float
    threshold_sample_noise: float
    spike_jitter: float
    spike_loss: float

    def thresholds(
        self, index: int, nominal: Float[Tensor, " neurons"], batch: int, device: Noise
    ) -> Float[Tensor, "*batch neurons"]:
        """Thresholds in this run, or of each sample and neuron, of the layer with that index.

        ``nominal`` are the ideal ones; ``device`` has the fixed pattern.
        """
        size = tuple(nominal.shape)
        found = nominal + self.threshold_offset
        if self.threshold_spread:
            found = found + self.threshold_spread * device.pattern("threshold", index, size, nominal)
        if self.threshold_batch_noise:
            found = found + self.noise.normal(self.threshold_batch_noise, size, nominal)
        if self.threshold_sample_noise:
            found = found + self.noise.normal(self.threshold_sample_noise, (batch, *size), nominal)
        return torch.maximum(found, LOWEST_THRESHOLD * nominal)

    def imperfect(self, spikes: Tensor, unit: float = 1.0) -> Tensor:
        """Spike times with jitter, whose standard deviation is in this unit, and without lost ones."""
        if self.spike_jitter:
            spikes = spikes + self.noise.normal(self.spike_jitter * unit, tuple(spikes.shape), spikes)
        if self.spike_loss:
            lost = self.noise.uniform(tuple(spikes.shape), spikes) < self.spike_loss
            spikes = spikes.masked_fill(lost, torch.inf)
        return spikes

    def state_dict(self) -> dict[str, Any]:
        """See ``Substrate``."""
        return self.noise.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Substrate``."""
        self.noise.load_state_dict(state)


def slices(inputs: Float[Tensor, "batch inputs spikes"], duration: float, window: float) -> list[tuple[float, float]]:
    """Starts and ends of slices of half a window.

    The first one ends within half a window after the earliest input, or after 0 if all inputs are later.
    """
    half = window / 2
    count = max(1, math.ceil(duration / half - 1e-9))
    earliest = min(0.0, float(inputs.amin())) if inputs.numel() else 0.0
    return list(pairwise([-math.inf, *(k * half for k in range(math.floor(earliest / half) + 1, count)), duration]))


def no_spikes(layer: LIFRecurrent, like: Tensor) -> Float[Tensor, "batch neurons 1"]:
    """Trains of a layer before its first spike."""
    return like.new_full((len(like), layer.out_features, 1), math.inf)


def joined(
    *trains: Float[Tensor, "batch neurons spikes"], since: float = -math.inf
) -> Float[Tensor, "batch neurons all"]:
    """Trains of the same neurons as one, sorted and as long as the longest; only spikes after ``since``."""
    both = torch.cat(trains, dim=-1)
    both = torch.where(both > since, both, math.inf).sort(dim=-1).values
    counts = torch.isfinite(both).sum(dim=-1)
    return both[..., : max(1, int(counts.max()) if counts.numel() else 0)]
