"""An emulated BrainScaleS-2, with its limits and imperfections, for experiments without a chip."""

import logging
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike._version import __version__
from firstspike.layers import (
    BiasSpikes,
    Delay,
    FirstSpike,
    LIFLinear,
    LIFRecurrent,
    LIFSpikeTrains,
    Network,
    Readout,
    Record,
)
from firstspike.layers.lif import DenseLIFLayer
from firstspike.layers.windows import joined_trains
from firstspike.neuron import LIF
from firstspike.ranges import Finite, Fraction, NotNegative, Positive, Probability, Retries, Seed, checks_ranges
from firstspike.spiketime import TrainState
from firstspike.substrates.bss2.base import Bss2, Clock, StalledError
from firstspike.substrates.imperfect import Imperfect, Noise, joined, slices, window_of

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
        tau_us: ``tau_syn`` on the chip, in microseconds.
        weight_scale: a weight w becomes the integer ``round(w weight_scale)``, at most 63.
        weight_spread: relative standard deviation of the strengths of the synapses, a fixed pattern.
        threshold_offset: mean offset of the thresholds, in their unit.
        threshold_spread: standard deviation of the thresholds from neuron to neuron, a fixed pattern.
        threshold_batch_noise: standard deviation of noise on the thresholds, drawn for each run.
        threshold_sample_noise: standard deviation of noise on the thresholds, drawn for each sample.
        tau_spread: relative standard deviation of the time constants from neuron to neuron, a fixed pattern.
        spike_jitter: standard deviation of noise on the spikes of LIF layers.
        delay_jitter: standard deviation of noise on the delays, drawn for each spike.
        refractory: refractory period; a neuron may spike again after it, and later layers receive these spikes. Layers
            of spike trains need the same ``refractory``.
        window: duration of a sample; later spikes are lost.
        latency_us: delay with which spikes are recorded, in microseconds; known and subtracted.
        spike_loss: probability with which a spike is lost.
        stall: probability with which a run stalls and is repeated.
        retries: number of attempts at a run.
        seed: seed of all that differs between runs.

    Raises:
        ValueError: a value out of its range; in ``open``, spike trains with another refractory time.
    """

    kind = "mock_bss2"
    neurons = (LIFLinear, LIFSpikeTrains, LIFRecurrent)

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
        self.pattern = Noise(self.chip)
        self.noise = Noise(self.seed or 0)
        self._clock: Clock | None = None

    def open(self, network: Network) -> Self:
        """See ``Substrate``."""
        clock = self.clock_for(network)
        for index, layer in enumerate(network):
            if isinstance(layer, DenseLIFLayer):
                threshold, noise = float(layer.neuron.threshold), abs(self.threshold_offset) + self.threshold_spread
                if noise > _USUAL * threshold:
                    logger.warning(
                        "layer %d: threshold_offset and threshold_spread of the mock chip change a threshold of %g by "
                        "%.0f %%; their defaults are for thresholds of about 2.6",
                        *(index, threshold, 100 * noise / threshold),
                    )
            if isinstance(layer, LIFSpikeTrains):
                wanted = self.refractory * self.tau_us / clock.unit_us
                if not math.isclose(layer.refractory, wanted, rel_tol=1e-3):
                    raise ValueError(
                        f"layer {index} has the refractory time {layer.refractory:g}, the neurons of the chip "
                        f"{wanted:.4g}: set the layer's refractory, or the substrate's"
                    )
        self._clock = clock
        return self

    def close(self) -> None:
        """See ``Substrate``."""
        self._clock = None

    def identity(self) -> dict[str, Any]:
        """See ``Substrate``."""
        return {
            "kind": self.kind,
            "chip": f"mock {self.chip}",
            "bitfile": f"emulated by firstspike {__version__}",
            "settings": self.settings_of(),
        }

    @torch.no_grad()
    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        """See ``Substrate``."""
        clock = self._clock
        if clock is None:
            raise ValueError("the chip is not open: call open(network) first")

        def attempt() -> Record:
            if self.stall and float(self.noise.uniform(times.new_empty(1))) < self.stall:
                raise StalledError("by chance")
            return self._run(network, times, clock)

        return self.repeated(attempt, f"the mock chip {self.chip}")

    def _run(self, network: Network, times: Tensor, clock: Clock) -> Record:
        tau = self.tau_us / clock.unit_us  # tau_syn in the network's unit
        received = clock.floor(times.double())
        spikes = _Spikes(received if received.ndim > 2 else received.unsqueeze(-1), received)
        layers = []
        for index, layer in enumerate(network):
            match layer:
                case DenseLIFLayer():
                    spikes = self._fire(index, layer, spikes, clock, tau)
                case FirstSpike() | Readout():  # on the host: the chip's neurons get all spikes
                    spikes = spikes._replace(known=layer(spikes.known.to(times.dtype)))
                case Delay():
                    spikes = self._delay(layer, spikes, clock, tau)
                case BiasSpikes():
                    spikes = _with_bias(layer, spikes, clock)
                case _:
                    each = [layer(train) for train in spikes.trains.unbind(-1)]
                    spikes = _Spikes(torch.stack(each, dim=-1), layer(spikes.known))
            layers.append(spikes.known.to(times.dtype))
        return Record(received.to(times.dtype), tuple(layers))

    def _fire(self, index: int, layer: DenseLIFLayer, spikes: _Spikes, clock: Clock, tau: float) -> _Spikes:
        trains = spikes.trains
        weight = self._strengths("weight", index, layer.weight)
        neuron = LIF(
            *(self._spread(name, index, getattr(layer.neuron, name), weight) for name in ("tau_mem", "tau_syn"))
        )
        cells = neuron, self.thresholds(index, layer, len(trains), weight)
        if isinstance(layer, LIFRecurrent):
            found = self._loop(index, layer, trains, weight, cells, clock, tau)
        else:
            found = self.imperfect(_fired(trains, weight, *cells, self.refractory * tau, self.window * tau)[0], tau)
        if isinstance(layer, LIFSpikeTrains):
            found = found.sort(dim=-1).values
            return _Spikes(found, layer.fitted(self._noted(found, clock)))
        return _Spikes(found, self._noted(found.amin(dim=-1), clock))

    def _strengths(self, purpose: str, index: int, weight: Tensor) -> Tensor:
        """Weights as the synapses have them."""
        weight = self.stored(weight).double()
        if self.weight_spread:
            weight = weight * (1 + self.weight_spread * self.pattern.pattern(purpose, index, weight)).clamp(0)
        return weight

    def _spread(self, name: str, index: int, tau: Any, weight: Tensor) -> Any:
        """A time constant as the neurons have it."""
        if not self.tau_spread:
            return float(tau)
        return float(tau) * (
            1 + self.tau_spread * self.pattern.pattern(name, index, weight.new_empty(len(weight)))
        ).clamp(min=0.1)

    def _loop(
        self,
        index: int,
        layer: LIFRecurrent,
        trains: Tensor,
        weight: Tensor,
        cells: tuple[LIF, Tensor],
        clock: Clock,
        tau: float,
    ) -> Tensor:
        """Spikes of neurons that get their own ones back through delay neurons, in slices of half the delay."""
        weight = torch.cat([weight, self._strengths("recurrent weight", index, layer.recurrent_weight)], dim=1)
        delay = clock.delay(trains.new_tensor(layer.window))
        until, start, state = min(self.window * tau, layer.duration), -math.inf, None
        spikes = arriving = trains.new_full((len(trains), layer.out_features, 1), math.inf)
        busy = torch.full_like(spikes[..., 0], -math.inf)
        for end in slices(trains, until, float(delay)):
            given = joined_trains(trains, arriving)
            fired, state = _fired(given, weight, *cells, self.refractory * tau, end, state)
            now = self.imperfect(fired, tau).sort(dim=-1).values
            spikes = joined(spikes, now)
            late, busy = self._through_delays(now, delay, busy, tau)
            arriving, start = joined(arriving, late.clamp(min=end), since=start), end
        return torch.where(spikes <= until, spikes, math.inf)

    def _delay(self, layer: Delay, spikes: _Spikes, clock: Clock, tau: float) -> _Spikes:
        """Delay neurons rest until their delay is over: a spike that comes earlier passes unseen."""
        delay, idle = clock.delay(layer.delay.double()), torch.full_like(spikes.known, -math.inf)
        trains, _ = self._through_delays(spikes.trains.sort(dim=-1).values, delay, idle, tau)
        return _Spikes(trains, self._noted(trains.amin(dim=-1), clock))

    def _through_delays(self, trains: Tensor, delay: Tensor, busy: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """Sorted trains after delay neurons that are busy until then, and until when they are busy now."""
        found = []
        for train in trains.unbind(-1):
            noise = self.noise.normal(self.delay_jitter * tau, train) if self.delay_jitter else 0.0
            later = torch.where(train < busy, math.inf, train + (delay + noise).clamp(min=0))
            busy = torch.where(torch.isfinite(later), later, busy)
            found.append(later.masked_fill(later >= self.window * tau, math.inf))
        return torch.stack(found, dim=-1), busy

    def _noted(self, times: Tensor, clock: Clock) -> Tensor:
        """Spike times as the host receives them: a little late, on the clock, the known latency subtracted."""
        latency = self.latency_us / clock.unit_us
        return clock.floor(times + latency) - latency


def _with_bias(layer: BiasSpikes, spikes: _Spikes, clock: Clock) -> _Spikes:
    """Bias spikes come from outside, too, and once."""
    bias = clock.floor(layer.times.to(spikes.known)).expand(len(spikes.known), -1)
    known = torch.cat([spikes.known, bias], dim=1)
    rest = bias.new_full((*bias.shape, spikes.trains.shape[2] - 1), math.inf)
    return _Spikes(torch.cat([spikes.trains, torch.cat([bias.unsqueeze(-1), rest], dim=2)], dim=1), known)


def _fired(
    trains: Float[Tensor, "batch inputs spikes"],
    weight: Float[Tensor, "neurons inputs"],
    neuron: LIF,
    threshold: Float[Tensor, "*batch neurons"],
    refractory: float,
    until: float,
    state: TrainState | None = None,
) -> tuple[Float[Tensor, "batch neurons fired"], TrainState]:
    """All spikes of a layer up to a time, at least one column of them, and the state then."""
    begin = (float(trains.amin()) if trains.numel() else until) if state is None else state.time
    span = until - begin
    most = 1 + math.floor(span / refractory) if 0 < span < math.inf else 1
    options = {"max_spikes": most, "refractory": refractory, "overflow": "drop"}
    found, state = window_of(trains, weight, neuron, threshold, until, state, **options)
    return joined(found), state
