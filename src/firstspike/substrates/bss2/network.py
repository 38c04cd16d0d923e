"""A network on BrainScaleS-2 through PyNN: populations and projections, weights and delays, spikes in and out.

A delay is a pair of neurons, as in Göltz et al. 2025: the first one forwards a spike at once, the second one, its
neighbour, fires when the refractory period of the first one ends.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.layers import BiasSpikes, Delay, Multiplex, Network, Readout, Record, SpikeTrains
from firstspike.layers.dense import DenseLayer
from firstspike.substrates.bss2.base import CLOCK_US, DELAY_STEP_US, Clock
from firstspike.substrates.windows import Spikes, Windows, recorded

_DRIVE = 800  # makes a delay neuron forward any spike. PyNN takes as many synapses for it as it needs
_DELAY_OFFSET_US = 2.0  # a delay is this plus as many steps as the setting of the refractory period


@dataclass
class _Channels:
    """Channels of the signal between two layers that come from one population, cell by cell."""

    population: Any
    """None for spikes from outside, which get a population if they are needed."""
    place: Int[np.ndarray, " cells"]
    """Index among all channels."""
    origin: Int[np.ndarray, " cells"] | None = None
    """Indices of spikes from outside, None for others."""


class ChipNetwork:
    """Populations and projections of a network, and of later ones with its layers. ``pynn`` has its ``placement``."""

    def __init__(self, pynn: Any, network: Network, clock: Clock, settings: Any) -> None:
        self.pynn, self.clock, self.settings = pynn, clock, settings
        inputs = network.inputs
        assert inputs is not None, "a LIF layer fixes it"
        self._sources: list[tuple[Any, Int[np.ndarray, " cells"]]] = []
        self._recorded: dict[int, Any] = {}
        self._projections: list[tuple[Any, int, Int[np.ndarray, " cells"], int]] = []
        self._delays: dict[int, Any] = {}
        self._written: dict[object, np.ndarray] = {}
        every = np.arange(inputs)
        parts, outside = [_Channels(None, every, every)], inputs
        for index, layer in enumerate(network):
            match layer:
                case DenseLayer():
                    parts = self._lif(index, layer, parts)
                case Delay():
                    parts = self._delay(index, layer, parts)
                case BiasSpikes():
                    new = np.arange(len(layer.times))
                    parts.append(_Channels(None, sum(len(part.place) for part in parts) + new, outside + new))
                    outside += len(new)
                case Multiplex():
                    parts = [copy for part in parts for copy in _copies(part, layer.copies)]

    def _lif(self, index: int, layer: DenseLayer, parts: list[_Channels]) -> list[_Channels]:
        pynn = self.pynn
        neurons = pynn.Population(layer.out_features, pynn.cells.HXNeuron())
        neurons.record(["spikes"])
        self._recorded[index] = neurons
        for part in parts:
            before = self._population(part)
            for receptor, sign in (("excitatory", 1), ("inhibitory", -1)):
                synapse = pynn.synapses.StaticSynapse(weight=0)
                connector = pynn.AllToAllConnector()
                made = pynn.Projection(before, neurons, connector, synapse_type=synapse, receptor_type=receptor)
                self._projections.append((made, index, part.place, sign))
        return [_Channels(neurons, np.arange(layer.out_features))]

    def _delay(self, index: int, layer: Delay, parts: list[_Channels]) -> list[_Channels]:
        pynn, size = self.pynn, layer.features
        cell = pynn.cells.HXNeuron(event_routing_enable_bypass_excitatory=True, multicompartment_connect_right=True)
        first, second = pynn.Population(size, cell), pynn.Population(size, pynn.cells.HXNeuron())
        second.record(["spikes"])
        for part in parts:
            chosen = np.zeros((len(part.place), size), dtype=bool)
            chosen[np.arange(len(part.place)), part.place] = True
            synapse = pynn.synapses.StaticSynapse(weight=_DRIVE)
            connector = pynn.ArrayConnector(chosen)
            pynn.Projection(self._population(part), first, connector, synapse_type=synapse, receptor_type="excitatory")
        self._delays[index], self._recorded[index] = first, second
        return [_Channels(second, np.arange(size))]

    def _population(self, part: _Channels) -> Any:
        if part.population is not None:
            return part.population
        assert part.origin is not None
        source = self.pynn.Population(len(part.origin), self.pynn.cells.SpikeSourceArray())
        self._sources.append((source, part.origin))
        return source

    def write(self, network: Network) -> None:
        """Write the weights and delays of a network to the chip, as far as they have changed."""
        stored = self.settings.parameters(network)
        for number, (projection, index, place, sign) in enumerate(self._projections):
            whole = (stored[f"{index}.weight"].cpu().double() * self.settings.weight_scale).round()
            weight = (sign * (sign * whole).clamp(min=0)).to(torch.int64).numpy()[:, place].T
            if self._changed((number, index), weight):
                projection.set(weight=weight)
        for index, first in self._delays.items():
            layer = network[index]
            assert isinstance(layer, Delay)
            delay_us = self.clock.delay(layer.delay.detach().cpu().double()) * self.clock.unit_us
            steps = ((delay_us - _DELAY_OFFSET_US) / DELAY_STEP_US).round().to(torch.int64).numpy()
            if self._changed(index, steps):
                first.set(refractory_period_refractory_time=steps)

    def _changed(self, key: object, values: np.ndarray) -> bool:
        """Whether the chip has other values than these. From now on it has them."""
        same = key in self._written and np.array_equal(self._written[key], values)
        self._written[key] = values
        return not same

    def feed(self, outside: Float[np.ndarray, "samples sources spikes"], windows: Windows) -> None:
        """Set the times of the spikes from outside: inputs, and after them all bias spikes."""
        from pyNN.parameters import Sequence

        for source, origin in self._sources:
            trains = windows.trains(outside[:, origin])
            # a quarter of a tick: PyNN cuts times off to ticks, and rounding may have left them just below theirs
            source.set(spike_times=[Sequence(train + 0.25e-3 * CLOCK_US) for train in trains])

    def spikes(self) -> dict[int, Spikes]:
        """The recorded spikes of the last run, by the index of the layer."""
        return {index: recorded(population) for index, population in self._recorded.items()}

    def record(self, network: Network, received: Tensor, spikes: dict[int, Spikes], windows: Windows) -> Record:
        """Times of all layers, as the host receives them, of inputs as the chip ``received`` them."""
        known, layers, late_ms = received, [], self.settings.latency_us * 1e-3
        for index, layer in enumerate(network):
            if index in spikes:
                neurons, at = spikes[index]
                every = windows.each(self._recorded[index].size, neurons, at - late_ms)
                fine = self.clock.step / 1000  # far above the rounding errors of a long run
                trains = torch.from_numpy(np.round(every / fine) * fine)
                known = layer.fitted(trains) if isinstance(layer, SpikeTrains) else trains[..., 0]
            elif isinstance(layer, BiasSpikes):
                bias = self.clock.floor(layer.times.cpu().double())
                known = torch.cat([known, bias.expand(len(known), -1)], dim=1)
            else:
                known = layer(known.to(layer.weight.dtype) if isinstance(layer, Readout) else known)
            layers.append(known)
        return Record(received, tuple(layers))


def _copies(part: _Channels, copies: int) -> list[_Channels]:
    """Copies of inputs are separate sources, those of neurons further synapses of the same."""
    places = part.place[:, None] * copies + np.arange(copies)
    if part.origin is not None:
        return [_Channels(None, places.ravel(), part.origin.repeat(copies))]
    return [_Channels(part.population, place) for place in places.T]
