"""The exact equations with the imperfections of a device, for hardware-aware training."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import Delay, SpikeTrains, SpikingLayer, SpikingLinear, SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.neurons import LIF
from firstspike.ranges import Finite, NotNegative, Positive, Probability, Seed, checks_ranges
from firstspike.spiketime import TrainState, first_spike_time, spike_trains
from firstspike.substrates.base import LayerByLayer
from firstspike.substrates.imperfect import DeviceNoise, Imperfect, joined, looped, window_of, with_thresholds

TYPICAL_NOISE = {"threshold_spread": 0.03, "threshold_batch_noise": 0.015, "spike_jitter": 0.01, "delay_jitter": 0.01}
"""Settings of a config with ``kind: noisy`` alone: about those of DelGrad for a threshold of 1."""


@checks_ranges
@dataclass(eq=False)
class Noisy(Imperfect, LayerByLayer):
    """Exact spike times of neurons with imperfect thresholds, weights, delays and spikes; all off by default.

    ``fs.substrates.Noisy()`` is an ideal device. A config with ``kind: noisy`` alone has typical noise.
    All random numbers come from separate generators. The gradient is that of ideal neurons at the resulting
    times, for the rounded weights, as it would be on a device.

    Args:
        threshold_offset: mean offset of the thresholds, once for each neuron, in their unit.
        threshold_spread: standard deviation of the thresholds from neuron to neuron: the fixed pattern of a device.
        threshold_batch_noise: standard deviation of noise on the thresholds, drawn for each batch.
        threshold_sample_noise: standard deviation of noise on the thresholds, drawn for each sample; slower, because
            each sample is then computed alone.
        membrane_noise: standard deviation of a random fluctuation of the membranes of spike trains, in their unit: an
            Ornstein-Uhlenbeck process with the time constant ``tau_mem``, by kicks every ``noise_time``, between which
            all is exact. It needs an end of the layer, ``until``, a leak, a reset and no adaptation.
        noise_time: time between kicks, in the unit of the times. Recurrent layers have two or more in a ``window``.
        input_jitter: standard deviation of noise on the input times. The network sees and records the jittered times.
        spike_jitter: standard deviation of noise on the spike times of LIF layers.
        delay_jitter: standard deviation of noise on delays, drawn for each spike of a ``Delay``, and for each synapse
            and batch of synaptic delays.
        spike_loss: probability with which a spike of a LIF layer is lost.
        weight_scale: weights are rounded to multiples of ``1 / weight_scale``; None for no rounding.
        weight_max: largest magnitude of a weight. A training also keeps the weights themselves within.
        seed: seed of the fixed pattern and of all noise.

    Raises:
        ValueError: a value out of its range.
    """

    kind = "noisy"
    neurons = (SpikingLinear, SpikeTrains, SpikingRecurrent)

    threshold_offset: Finite = 0.0
    threshold_spread: NotNegative = 0.0
    threshold_batch_noise: NotNegative = 0.0
    threshold_sample_noise: NotNegative = 0.0
    membrane_noise: NotNegative = 0.0
    noise_time: Positive = 0.1
    input_jitter: NotNegative = 0.0
    spike_jitter: NotNegative = 0.0
    delay_jitter: NotNegative = 0.0
    spike_loss: Probability = 0.0
    weight_scale: Positive | None = None
    weight_max: Positive | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        self.noise = self.fixed = DeviceNoise(self.seed or 0)

    def lacks(self, layer: SpikingLayer) -> list[str]:
        unfit = {"equations", "reset", "adaptation_tau", "threshold_tau"} & layer.unusual.keys()
        endless = not isinstance(layer, SpikeTrains) or getattr(layer, "duration", layer.until) == math.inf
        if self.membrane_noise and (unfit or endless):
            return ["with membrane_noise but those with a reset, without adaptation, in layers of trains with an end"]
        noise = self.threshold_spread, self.threshold_batch_noise, self.threshold_sample_noise
        kind = layer.unusual.get("equations") if any((self.threshold_offset, *noise)) else None
        return [] if kind is None else [f"{kind} whose thresholds vary: set threshold_spread and its like to 0"]

    def _thresholds(self, index: int, layer: DenseLayer, times: Tensor) -> Float[Tensor, "*batch neurons"] | None:
        """Thresholds in this run; None of neurons from equations, which keep theirs."""
        return None if layer.neuron.equations else self.thresholds(index, layer, len(times), layer.weight)

    def received(self, times: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        if not self.input_jitter:
            return times
        return _sorted(times + self.noise.normal(self.input_jitter, times))

    def delayed(
        self, index: int, layer: Delay, times: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch features"]:
        delayed: Tensor = layer(times)
        if not self.delay_jitter:
            return delayed
        noise = self.noise.normal(self.delay_jitter, delayed)
        return _sorted(delayed + torch.maximum(noise, -layer.added.to(delayed)))

    def spikes(self, index: int, layer: DenseLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        if isinstance(layer, SpikingRecurrent) or (self.membrane_noise and isinstance(layer, SpikeTrains)):
            return self._in_slices(index, layer, times)
        weight, delay = self._synapses(layer)

        def fired(neuron: LIF, times: Tensor) -> Tensor:
            if isinstance(layer, SpikeTrains):
                return spike_trains(times, weight, neuron, max_spikes=layer.max_spikes, delay=delay, **layer.dynamics)
            return first_spike_time(times, weight, neuron, delay=delay, **layer.dynamics)

        threshold = self._thresholds(index, layer, times)
        return _sorted(self.imperfect(with_thresholds(fired, layer.neuron, threshold, layer.seen(times))))

    def _in_slices(self, index: int, layer: SpikeTrains, times: Tensor) -> Float[Tensor, "batch outputs spikes"]:
        """Spikes of recurrent neurons arrive at others with the jitter that they are observed with."""
        weight, delay = self._synapses(layer)
        threshold = self._thresholds(index, layer, times)
        length, end, most, shift, reach = 2 * self.noise_time, layer.until, layer.max_spikes, math.inf, 0.0
        if isinstance(layer, SpikingRecurrent):
            weight = torch.cat([weight, self.stored(layer.recurrent_synapses)], dim=1)
            own, end, most = layer.own_delay, layer.duration, layer.window_spikes
            if layer.recurrent_delays is not None and self.delay_jitter:
                own = (own + self.noise.normal(self.delay_jitter, own)).clamp(min=layer.window)
            shift = layer.window  # without delays of synapses the kernels are faster
            length = min(length, shift) if self.membrane_noise else shift
            if delay is not None or layer.recurrent_delays is not None:
                shift, reach = 0.0, float(own.max())
                delay = torch.cat([torch.zeros_like(layer.synapses) if delay is None else delay, own], dim=1)
        given: Any = {"receptor": layer.reached, "overflow": layer.overflow, "backend": layer.backend}

        def fire(trains: Tensor, end: float, state: TrainState | None) -> Any:
            kicked, state = self._kicked(layer, threshold, end, state)
            arriving = trains[:, : weight.shape[1]], weight, layer.neuron, threshold, end, state
            found, state = window_of(*arriving, max_spikes=most, delay=delay, **given)
            found = joined(*kicked, found) if kicked else found
            seen = self.imperfect(found)
            seen = torch.maximum(seen, found - layer.window / 2) if isinstance(layer, SpikingRecurrent) else seen
            return seen, seen + shift, state

        return layer.fitted(looped(layer.seen(times), layer.out_features, end, length, reach, fire))

    def _kicked(
        self, layer: SpikeTrains, threshold: Any, end: float, state: TrainState | None
    ) -> tuple[list[Tensor], TrainState | None]:
        """Spikes of membranes that a kick takes over the threshold, and the state after kicks, up to the next ones."""
        if state is None or not self.membrane_noise:
            return [], state
        (voltage, current, left), neuron = state[:3], layer.neuron
        tau, reset, rest = (torch.as_tensor(x).to(left) for x in (neuron.tau_mem, neuron.reset, neuron.refractory))
        size = torch.sqrt(-torch.expm1(-2 * (end - state.time) / tau)) * (left <= 0)
        voltage = voltage + size * self.noise.normal(self.membrane_noise, voltage)
        over = (left <= 0) & (voltage >= threshold)
        held = torch.where(over, reset, voltage), current, torch.where(over, rest, left), state.time
        return [torch.full_like(voltage, state.time).where(over, math.inf).unsqueeze(-1)], TrainState(*held)

    def _synapses(self, layer: DenseLayer) -> tuple[Tensor, Tensor | None]:
        """Weights and delays of a layer in this run."""
        weight, delay = self.stored(layer.synapses), layer.delay_in_pass()
        if delay is not None and self.delay_jitter:
            delay = (delay + self.noise.normal(self.delay_jitter, delay)).clamp(min=0)
        return weight, delay


def _sorted(times: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Trains in order again: jitter may exchange spikes, and lost ones leave gaps. First spikes stay as they are."""
    return times.sort(dim=-1).values if times.ndim > 2 else times
