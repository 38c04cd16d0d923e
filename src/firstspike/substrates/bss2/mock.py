"""An emulated BrainScaleS-2, with its limits and imperfections, for experiments without a chip."""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike import layers
from firstspike._version import __version__
from firstspike.layers import Network, Record
from firstspike.layers.dense import DenseLayer
from firstspike.layers.windows import joined_trains
from firstspike.neurons import LIF
from firstspike.neurons.base import each
from firstspike.ranges import Finite, Fraction, NotNegative, Positive, Probability, Retries, Seed, checks_ranges
from firstspike.spiketime import TrainState
from firstspike.substrates.bss2.base import Bss2, Clock, StalledError
from firstspike.substrates.imperfect import DeviceNoise, Imperfect, Trains, joined, looped, window_of

logger = logging.getLogger(__name__)

_USUAL = 0.1  # of a threshold: by how much a chip changes it, at most


class _Spikes(NamedTuple):
    """Spikes of a layer: on the chip, ``(batch, neurons, spikes)``, and as the host receives them."""

    trains: Tensor
    known: Tensor


@checks_ranges
@dataclass(eq=False)
class MockBss2(Bss2, Imperfect):
    """BrainScaleS-2 in software: integer weights, a fixed pattern of imperfect neurons, noise, clocks, faults.

    Defaults are those of the chip as Göltz et al. used it, for networks with a threshold of 2.6. Times are in units of
    ``tau_syn`` unless stated otherwise.

    Args:
        chip: number of the chip, which determines its fixed pattern.
        tau_us: ``tau_syn`` on the chip, in microseconds; of two that of the excitatory synapses.
        weight_scale: a weight w becomes the integer ``round(w weight_scale)``, at most 63.
        weight_spread: relative standard deviation of the strengths of the synapses, a fixed pattern.
        threshold_offset: mean offset of the thresholds, in their unit.
        threshold_spread: standard deviation of the thresholds from neuron to neuron, a fixed pattern.
        threshold_batch_noise: standard deviation of noise on the thresholds, drawn for each run.
        threshold_sample_noise: standard deviation of noise on the thresholds, drawn for each sample.
        tau_spread: relative standard deviation of the time constants from neuron to neuron, a fixed pattern.
        spike_jitter: standard deviation of noise on the spikes of LIF layers.
        delay_jitter: standard deviation of noise on the delays, drawn for each spike.
        refractory: refractory period. A neuron may spike again after it, and later layers receive these spikes. Layers
            of spike trains need the same ``refractory``.
        window: duration of a sample. Later spikes are lost.
        latency_us: delay with which spikes are recorded, in microseconds; known and subtracted.
        spike_loss: probability with which a spike is lost.
        stall: probability with which a run stalls and is repeated.
        retries: number of attempts at a run.
        seed: seed of all that differs between runs.

    Raises:
        ValueError: a value out of its range; in ``open``, spike trains with another refractory time.
    """

    kind = "mock_bss2"
    neurons = (layers.SpikingLinear, layers.SpikeTrains, layers.SpikingRecurrent)

    chip: Seed = 1
    tau_us: Positive = 6.0
    weight_scale: Positive = 30.0
    weight_spread: NotNegative = 0.0
    threshold_offset: Finite = 0.13
    threshold_spread: NotNegative = 0.08
    threshold_batch_noise: NotNegative = 0.04
    threshold_sample_noise: NotNegative = 0.0
    tau_spread: NotNegative = 0.0
    spike_jitter: NotNegative = 0.0
    delay_jitter: NotNegative = 0.01
    refractory: Positive = 2.67
    window: Positive = 30.0
    latency_us: NotNegative = 0.08
    spike_loss: Probability = 0.0
    stall: Fraction = 0.0
    retries: Retries = 5
    seed: Seed | None = None

    def __post_init__(self) -> None:
        self.fixed = DeviceNoise(self.chip)
        self.noise = DeviceNoise(self.seed or 0)
        self._clock: Clock | None = None

    def open(self, network: Network) -> Self:
        clock = self.clock_for(network)
        for index, layer in enumerate(network):
            if isinstance(layer, DenseLayer):
                threshold, noise = float(layer.neuron.threshold), abs(self.threshold_offset) + self.threshold_spread
                if noise > _USUAL * threshold:
                    logger.warning(
                        "layer %d: threshold_offset and threshold_spread of the mock chip change a threshold of %g by "
                        "%.0f %%; their defaults are for thresholds of about 2.6",
                        *(index, threshold, 100 * noise / threshold),
                    )
            if isinstance(layer, layers.SpikeTrains):
                wanted = self.refractory * self.tau_us / clock.unit_us
                for refractory in torch.as_tensor(layer.neuron.refractory).unique().tolist():
                    if not math.isclose(refractory, wanted, rel_tol=1e-3):
                        raise ValueError(
                            f"layer {index} has the refractory time {refractory:g}, the neurons of the chip "
                            f"{wanted:.4g}: set the neuron's refractory, or the substrate's"
                        )
        self._clock = clock
        return self

    def close(self) -> None:
        self._clock = None

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "chip": f"mock {self.chip}",
            "bitfile": f"emulated by firstspike {__version__}",
            "settings": self.settings_of(),
        }

    @torch.no_grad()
    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        def attempt() -> Record:
            if self.stall and float(self.noise.uniform(times.new_empty(1))) < self.stall:
                raise StalledError("by chance")
            return self._run(network, times)

        return self.repeated(attempt, f"the mock chip {self.chip}")

    @property
    def clock(self) -> Clock:
        """The chip's times in the network's unit; a ValueError unless it is open."""
        if self._clock is None:
            raise ValueError("the chip is not open: call open(network) first")
        return self._clock

    @property
    def _tau(self) -> float:
        """``tau_syn`` in the network's unit."""
        return self.tau_us / self.clock.unit_us

    def _run(self, network: Network, times: Tensor) -> Record:
        clock = self.clock
        received = clock.floor(times.double())
        spikes = _Spikes(received if received.ndim > 2 else received.unsqueeze(-1), received)
        known = []
        for index, layer in enumerate(network):
            match layer:
                case DenseLayer():
                    spikes = self._fire(index, layer, spikes.trains)
                case layers.FirstSpike() | layers.Readout():  # on the host: the chip's neurons get all spikes
                    spikes = spikes._replace(known=layer(spikes.known.to(times.dtype)))
                case layers.Delay():
                    # delay neurons rest until their delay is over: a spike that comes earlier passes unseen
                    delay, idle = clock.delay(layer.delay.double()), torch.full_like(spikes.known, -math.inf)
                    trains, _ = self._through_delays(spikes.trains.sort(dim=-1).values, delay, idle)
                    spikes = _Spikes(trains, self._noted(trains.amin(dim=-1)))
                case layers.BiasSpikes():  # from outside, too, and once
                    bias = clock.floor(layer.times.to(spikes.known)).expand(len(spikes.known), -1)
                    trains = joined_trains(spikes.trains, bias.unsqueeze(-1))
                    spikes = _Spikes(trains, torch.cat([spikes.known, bias], dim=1))
                case _:
                    each = [layer(train) for train in spikes.trains.unbind(-1)]
                    spikes = _Spikes(torch.stack(each, dim=-1), layer(spikes.known))
            known.append(spikes.known.to(times.dtype))
        return Record(received.to(times.dtype), tuple(known))

    def _fire(self, index: int, layer: DenseLayer, trains: Tensor) -> _Spikes:
        weight, tau = self._strengths("weight", index, layer.weight), self._tau
        row, given = weight.new_empty(len(weight)), layer.neuron.tau_syn
        taus = {"tau_mem": layer.neuron.tau_mem} | {f"tau_syn{k or ''}": x for k, x in enumerate(each(given))}
        mem, *syn = (x * self._varied(name, index, row, self.tau_spread, 0.1) for name, x in taus.items())
        lif = LIF(mem, tuple(syn) if isinstance(given, tuple) else syn[0])
        neurons = lif, self.thresholds(index, layer, len(trains), weight), self.refractory * tau
        if isinstance(layer, layers.SpikingRecurrent):
            weight = torch.cat([weight, self._strengths("recurrent weight", index, layer.recurrent_weight)], dim=1)
            delay = self.clock.delay(trains.new_tensor(layer.window))
            found = self._loop(trains, weight, neurons, delay, min(self.window * tau, layer.duration))
        else:
            found = self.imperfect(_fired(trains, weight, *neurons, self.window * tau)[0], tau)
        if isinstance(layer, layers.SpikeTrains):
            found = found.sort(dim=-1).values
            return _Spikes(found, layer.fitted(self._noted(found)))
        return _Spikes(found, self._noted(found.amin(dim=-1)))

    def _strengths(self, purpose: str, index: int, weight: Tensor) -> Tensor:
        """Weights as the synapses have them."""
        weight = self.stored(weight).double()
        return weight * self._varied(purpose, index, weight, self.weight_spread, 0.0)

    def _varied(self, purpose: str, index: int, like: Tensor, spread: float, least: float) -> float | Tensor:
        """Factors of a fixed pattern around 1."""
        return (1 + spread * self.fixed.pattern(purpose, index, like)).clamp(least) if spread else 1.0

    def _loop(
        self, trains: Tensor, weight: Tensor, neurons: tuple[LIF, Tensor, float], delay: Tensor, until: float
    ) -> Tensor:
        """Spikes of neurons that get their own ones back through delay neurons."""

        def fire(trains: Tensor, end: float, state: tuple[TrainState | None, Tensor] | None) -> Any:
            before, busy = state or (None, trains.new_full((len(trains), len(weight)), -math.inf))
            fired, after = _fired(trains, weight, *neurons, end, before)
            fired = self.imperfect(fired, self._tau).sort(dim=-1).values
            late, busy = self._through_delays(fired, delay, busy)
            return fired, late.clamp(min=end), (after, busy)

        return looped(trains, len(weight), until, float(delay), float(delay) / 2, fire)

    def _through_delays(self, trains: Tensor, delay: Tensor, busy: Tensor) -> tuple[Tensor, Tensor]:
        """Sorted trains after delay neurons that are busy until then, and until when they are busy now."""
        found, jitter = [], self.delay_jitter * self._tau
        for train in trains.unbind(-1):
            noise = self.noise.normal(jitter, train) if jitter else 0.0
            later = torch.where(train < busy, math.inf, train + (delay + noise).clamp(min=0))
            busy = torch.where(torch.isfinite(later), later, busy)
            found.append(later.masked_fill(later >= self.window * self._tau, math.inf))
        return torch.stack(found, dim=-1), busy

    def _noted(self, times: Tensor) -> Tensor:
        """Spike times as the host receives them: a little late, on the clock, the known latency subtracted."""
        latency = self.latency_us / self.clock.unit_us
        return self.clock.floor(times + latency) - latency


def _fired(
    trains: Trains,
    weight: Float[Tensor, "neurons inputs"],
    neuron: LIF,
    threshold: Float[Tensor, "*batch neurons"],
    refractory: float,
    until: float,
    state: TrainState | None = None,
) -> tuple[Trains, TrainState]:
    """The spikes of a layer up to a time, at least one column of them, and the state then."""
    begin = (float(trains.amin()) if trains.numel() else until) if state is None else state.time
    span = until - begin
    most = 1 + math.floor(span / refractory) if 0 < span < math.inf else 1
    neuron = replace(neuron, refractory=refractory)
    options: dict[str, Any] = {"max_spikes": most, "overflow": "drop"}
    options |= {"receptor": "sign"} if len(neuron.receptors) > 1 else {}
    found, state = window_of(trains, weight, neuron, threshold, until, state, **options)
    return joined(found), state
