"""Code that imperfect devices share: quantised weights, noise, and layers whose neurons are connected to each other.

A spike arrives at other neurons after a delay of at least the window of its layer. In slices of half a window, what
arrives in a slice left its neuron before the slice, even if it was moved ahead by up to half a window.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.deferred import sent
from firstspike.layers import Network, SpikeTrains, SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.layers.windows import columns_within, joined_trains, only_within
from firstspike.neurons import LIF
from firstspike.seeding import generator
from firstspike.spiketime import TrainState, spike_window
from firstspike.substrates.base import Substrate

Trains = Float[Tensor, "batch sources spikes"]

_LOWEST = 0.01  # fraction of the nominal threshold below which no noise takes one


class QuantisedWeights(Substrate):
    """Stores weights as multiples of ``1 / weight_scale`` between ``-weight_max`` and ``weight_max``."""

    weight_scale: float | None
    """None for no rounding."""
    weight_max: float | None
    """None for no limit."""

    def stored(self, weight: Tensor) -> Tensor:
        """The weights as they are stored."""
        if self.weight_scale is not None:
            weight = torch.round(weight * self.weight_scale) / self.weight_scale
        return weight if self.weight_max is None else weight.clamp(-self.weight_max, self.weight_max)

    def parameters(self, network: Network) -> dict[str, Tensor]:
        if self.weight_scale is None and self.weight_max is None:
            return {}
        return {name: self.stored(weight.detach()) for name, weight in _weights(network)}

    @torch.no_grad()
    def project_(self, network: Network) -> None:
        """Keep weights within the limit: beyond it they would drift without an effect."""
        if self.weight_max is not None:
            for _, weight in _weights(network):
                weight.clamp_(-self.weight_max, self.weight_max)


def _weights(network: Network) -> Iterator[tuple[str, Tensor]]:
    """The weights of all LIF layers, by the names of the network's parameters."""
    for index, layer in enumerate(network):
        if isinstance(layer, DenseLayer):
            yield f"{index}.weight", layer.weight
        if isinstance(layer, SpikingRecurrent):
            yield f"{index}.recurrent_weight", layer.recurrent_weight


class DeviceNoise:
    """Random numbers of a device, in the shape of a tensor: one stream, and patterns that never change."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.source = generator(seed, "substrate noise")

    def normal(self, std: float, like: Tensor, *lead: int) -> Tensor:
        """The next normally distributed numbers, with further dimensions ``lead``."""
        drawn = torch.randn((*lead, *like.shape), generator=self.source, dtype=torch.float64)
        return sent((std * drawn).to(like.dtype), like.device)

    def uniform(self, like: Tensor) -> Tensor:
        """The next numbers between 0 and 1."""
        return sent(torch.rand(like.shape, generator=self.source, dtype=torch.float64), like.device)

    def pattern(self, purpose: str, index: int, like: Tensor) -> Tensor:
        """Normally distributed numbers that are the same at every call with this purpose and index."""
        drawn = torch.randn(like.shape, generator=generator(self.seed, purpose, index), dtype=torch.float64)
        return sent(drawn.to(like.dtype), like.device)


class Imperfect(QuantisedWeights):
    """Substrates with quantised weights and individual thresholds, which also draw random numbers."""

    noise: DeviceNoise
    fixed: DeviceNoise
    """Patterns of the device, which never change."""
    threshold_offset: float
    threshold_spread: float
    threshold_batch_noise: float
    threshold_sample_noise: float
    spike_jitter: float
    spike_loss: float

    def thresholds(self, index: int, layer: DenseLayer, batch: int, like: Tensor) -> Float[Tensor, "*batch neurons"]:
        """Thresholds of neurons in this run, or of each sample and neuron, above the reset; numbers as in ``like``."""
        nominal = torch.as_tensor(layer.neuron.threshold, dtype=like.dtype, device=like.device)
        nominal = nominal.expand(layer.out_features)
        found = nominal + self.threshold_offset
        if self.threshold_spread:
            found = found + self.threshold_spread * self.fixed.pattern("threshold", index, nominal)
        if self.threshold_batch_noise:
            found = found + self.noise.normal(self.threshold_batch_noise, nominal)
        if self.threshold_sample_noise:
            found = found + self.noise.normal(self.threshold_sample_noise, nominal, batch)
        lowest = layer.neuron.reset if isinstance(layer, SpikeTrains) else 0.0
        reset = torch.as_tensor(0.0 if lowest is None else lowest).to(like).clamp(min=0)
        return torch.maximum(found, reset + _LOWEST * (nominal - reset))

    def imperfect(self, spikes: Tensor, unit: float = 1.0) -> Tensor:
        """Spike times with jitter, whose standard deviation is in this unit, and without lost ones."""
        if self.spike_jitter:
            spikes = spikes + self.noise.normal(self.spike_jitter * unit, spikes)
        if self.spike_loss:
            spikes = spikes.masked_fill(self.noise.uniform(spikes) < self.spike_loss, torch.inf)
        return spikes

    def state_dict(self) -> dict[str, Any]:
        return {"noise": self.noise.source.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.noise.source.set_state(state["noise"].cpu())


def with_thresholds(spikes: Callable[..., Any], neuron: LIF, threshold: Tensor | None, *given: Tensor) -> Any:
    """``spikes(neuron, *given)`` with these thresholds or its own; if those of samples differ, of each sample alone."""
    if threshold is None:
        return spikes(neuron, *given)

    def one(threshold: Tensor, *given: Tensor) -> Any:
        return spikes(replace(neuron, threshold=threshold), *given)

    return (torch.vmap(one) if threshold.ndim > 1 else one)(threshold, *given)


def window_of(
    trains: Trains,
    weight: Float[Tensor, "neurons inputs"],
    neuron: LIF,
    threshold: Float[Tensor, "*batch neurons"] | None,
    until: float,
    state: TrainState | None,
    **options: Any,
) -> tuple[Trains, TrainState]:
    """Spikes up to a time, and the state then: ``spike_window`` with such thresholds."""

    def spikes(neuron: LIF, trains: Tensor, *held: Any) -> tuple[Tensor, ...]:
        before = None if state is None else TrainState(*held, state.time)  # type: ignore[call-arg]
        found = spike_window(trains, weight, neuron, until=until, state=before, **options)
        assert found.state is not None
        return found.trains, *found.state[:3]

    found, *held = with_thresholds(spikes, neuron, threshold, trains, *(() if state is None else state[:3]))
    return found, TrainState(*held, until)  # type: ignore[call-arg]


def looped(
    inputs: Trains,
    neurons: int,
    duration: float,
    window: float,
    reach: float,
    fire: Callable[[Trains, float, Any], tuple[Trains, Trains, Any]],
) -> Trains:
    """The spikes up to ``duration`` of neurons that are connected to each other, sorted.

    ``fire(trains, end, state)`` takes the inputs and, after them, the neurons' own spikes as they return. It gives the
    spikes of the slice up to ``end``, the same as they return, and the state then, which is None at first. Spikes that
    returned more than ``reach`` before the end of a slice are no longer needed.
    """
    spikes = own = inputs.new_full((len(inputs), neurons, 1), math.inf)
    state, half = None, window / 2
    count = max(1, math.ceil(duration / half - 1e-9))
    earliest = min(0.0, float(inputs.amin())) if inputs.numel() else 0.0
    # the first slice ends within half a window after the earliest input, or after 0 if all are later
    for end in [*(k * half for k in range(math.floor(earliest / half) + 1, count)), duration]:
        fired, back, state = fire(joined_trains(inputs, own), end, state)
        spikes, own = joined(spikes, fired), joined(own, back, since=end - reach)
    return torch.where(spikes <= duration, spikes, math.inf)


def joined(*trains: Trains, since: float = -math.inf) -> Trains:
    """Trains of the same neurons as one, sorted and as long as the longest; only spikes after ``since``."""
    return columns_within(only_within(torch.cat(trains, dim=-1), since, math.inf), -math.inf, math.inf)
