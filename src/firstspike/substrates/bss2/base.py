"""Capacity and resolution of BrainScaleS-2, and code that the chip and its emulation share.

Sources: electronicvisions' brainscales2-demos and pynn-brainscales, and the settings of Göltz et al. 2021 and 2025.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from firstspike import layers
from firstspike.layers import Network, Record
from firstspike.layers.dense import DenseLayer
from firstspike.neurons.base import each
from firstspike.substrates.base import SubstrateError
from firstspike.substrates.imperfect import QuantisedWeights

logger = logging.getLogger(__name__)

CIRCUITS = 512  # of neurons. Several are joined for a neuron with many inputs
ROWS = 256  # synapses of a circuit. A signed input takes two, one excitatory and one inhibitory
MAX_WEIGHT = 63  # weights are whole numbers of six bits, and a sign
CLOCK_US = 0.008  # resolution of input and output spike times
# axonal delays: one circuit fires at once, and a second one when the first one's refractory period ends
SHORTEST_DELAY_US, LONGEST_DELAY_US, DELAY_STEP_US = 8.25, 33.25, 0.125
FIRST_DELAY = 256  # circuit from which on delay neurons are placed, in pairs. All others are before it


@dataclass(frozen=True)
class Clock:
    """The chip's times in the unit of the network's."""

    unit_us: float
    """Microseconds in one unit of the network's times."""

    @property
    def step(self) -> float:
        """Resolution of input and output spike times."""
        return CLOCK_US / self.unit_us

    def floor(self, times: Tensor) -> Tensor:
        """The last tick of the clock at or before each time. A time on a tick stays, whatever its last bits are."""
        return (times / self.step + 1e-6).floor() * self.step

    def delay(self, wanted: Tensor) -> Tensor:
        """The chip's delays that are nearest to the desired ones."""
        steps = ((wanted * self.unit_us - SHORTEST_DELAY_US) / DELAY_STEP_US).round()
        most = (LONGEST_DELAY_US - SHORTEST_DELAY_US) / DELAY_STEP_US
        return (SHORTEST_DELAY_US + DELAY_STEP_US * steps.clamp(0, most)) / self.unit_us


def circuits_of(layer: DenseLayer | layers.Delay) -> int:
    """Number of the chip's circuits that a layer takes."""
    if isinstance(layer, layers.Delay):
        return 2 * layer.features
    inputs, delays = layer.in_features, 0
    if isinstance(layer, layers.SpikingRecurrent):  # its spikes return through delay neurons
        inputs, delays = inputs + layer.out_features, 2 * layer.out_features
    return layer.out_features * math.ceil(2 * inputs / ROWS) + delays


def placement(network: Network) -> list[int]:
    """The circuits of all neurons in the order in which their populations are made, one for each."""
    lifs = [(index, layer) for index, layer in enumerate(network) if isinstance(layer, DenseLayer)]
    delays = sum(layer.features for layer in network if isinstance(layer, layers.Delay))
    size, room = sum(layer.out_features for _, layer in lifs), FIRST_DELAY if delays else CIRCUITS
    problems = [
        f"layer {index}: {layer.in_features} inputs per neuron; a neuron here is one circuit, which has {ROWS // 2}"
        for index, layer in lifs
        if 2 * layer.in_features > ROWS
    ]
    if size > room:
        problems.append(f"{size} neurons; the chip has {room}" + (" next to delays" if delays else ""))
    if 2 * delays > CIRCUITS - FIRST_DELAY:
        problems.append(f"{delays} delays; the chip has {(CIRCUITS - FIRST_DELAY) // 2}")
    _refuse(problems)
    found: list[int] = []
    neuron, pair = 0, FIRST_DELAY
    for layer in network:
        if isinstance(layer, DenseLayer):
            found += range(neuron, neuron + layer.out_features)
            neuron += layer.out_features
        elif isinstance(layer, layers.Delay):
            pairs = range(pair, pair + 2 * layer.features, 2)
            found += [*pairs, *(first + 1 for first in pairs)]
            pair += 2 * layer.features
    return found


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("the network does not fit on BrainScaleS-2: " + "; ".join(problems))


def _lif_problems(layer: DenseLayer) -> Iterator[str]:
    neuron = layer.neuron
    if neuron.equations is not None:
        yield f"neurons of the kind {type(neuron).__name__}; those of the chip are LIF"
        return
    resets = isinstance(layer, layers.SpikeTrains) and neuron.reset is not None
    for reset in filter(bool, torch.as_tensor(neuron.reset).unique() if resets else ()):
        yield f"a reset to {reset:g}; the chip is calibrated to a reset to the leak, 0"
    for words in (words for name, words in layer.unusual.items() if name != "tau_syn"):
        yield f"neurons {words}; those of the chip have none"
    if len(each(neuron.tau_syn)) > 1 and layer.receptor != "sign":
        yield 'receptors (tau_syn) by number; the chip has one for each sign of the weights: set receptor="sign"'
    if layer.sparse:
        yield "sparse synapses; give weights as a matrix, with mask and recurrent_mask"
    elif layer.delay is not None:
        yield "synaptic delays; the chip only has axonal ones, a delay layer before this one"
    if isinstance(layer, layers.SpikingRecurrent) and layer.recurrent_delays is not None:
        yield "a recurrent_delay; the chip only has axonal delays, which are the window"
    if any(isinstance(x, Tensor) for x in (neuron.tau_mem, *each(neuron.tau_syn), neuron.threshold)):
        yield "parameters of neurons that learn or differ; the chip is calibrated to one number for each"
    elif math.isinf(neuron.tau_mem):
        yield "neurons without leak (tau_mem inf); the chip's leak always"


def _delay_problems(layer: layers.Delay, last: bool) -> Iterator[str]:
    if last:
        yield "delays after the last LIF layer; the chip only has axonal ones"
    if layer.trains:
        yield "delays of spike trains; those of the chip are for first spikes"


class StalledError(Exception):
    """A run without a result, which may be repeated."""


class Bss2(QuantisedWeights):
    """BrainScaleS-2, real or emulated. A subclass is a dataclass of its settings."""

    tau_us: float
    weight_scale: float
    retries: int

    @property
    def weight_max(self) -> float:  # type: ignore[override]
        """Largest magnitude of a weight."""
        return MAX_WEIGHT / self.weight_scale

    def clock_for(self, network: Network) -> Clock:
        """The chip's times for a network, whose first ``tau_syn`` is ``tau_us``; a ValueError if it does not fit."""
        problems, needed = [], {}
        lifs = [index for index, layer in enumerate(network) if self.has(layer)]
        for index, layer in enumerate(network):
            found: Iterable[str] = ()
            match layer:
                case DenseLayer() if self.has(layer):
                    needed[index], found = circuits_of(layer), _lif_problems(layer)
                case layers.Delay():
                    needed[index], found = circuits_of(layer), _delay_problems(layer, not lifs or index > lifs[-1])
                case layers.BiasSpikes() | layers.Multiplex() | layers.FirstSpike() | layers.Readout():
                    pass
                case _:
                    found = [f"the chip does not support {layer._get_name()}"]
            problems += [f"layer {index}: {problem}" for problem in found]
        if not lifs:
            problems.append("the network has no LIF layer")
        if sum(needed.values()) > CIRCUITS:
            parts = ", ".join(f"layer {index} takes {count}" for index, count in needed.items())
            problems.append(f"{sum(needed.values())} neuron circuits needed, the chip has {CIRCUITS}: {parts}")
        _refuse(problems)
        first = network[lifs[0]]
        assert isinstance(first, DenseLayer)
        clock = Clock(self.tau_us / float(each(first.neuron.tau_syn)[0]))
        low, high = SHORTEST_DELAY_US / clock.unit_us, LONGEST_DELAY_US / clock.unit_us
        for index, layer in enumerate(network):
            if isinstance(layer, layers.Delay | layers.SpikingRecurrent):
                delay = layer.delay if isinstance(layer, layers.Delay) else layer.own_delay
                least, most = (float(x) for x in delay.detach().aminmax())
                if least < low - 1e-6 or most > high + 1e-6:
                    raise ValueError(
                        f"layer {index} has delays from {least:.3g} to {most:.3g}, BrainScaleS-2 has them from "
                        f"{low:.4g} to {high:.4g} only; e.g. {{bound: sigmoid, shift: 2, scale: 1.5}} keeps them there"
                    )
        return clock

    def settings_of(self) -> dict[str, Any]:
        """Settings by name, without the file that overrides them."""
        return {name: value for name, value in asdict(cast("Any", self)).items() if name != "settings"}

    def repeated(self, run: Callable[[], Record], chip: str) -> Record:
        """The result of a run, which is repeated while it stalls, up to ``retries`` times."""
        reason = ""
        for attempt in range(1, self.retries + 1):
            try:
                return run()
            except StalledError as error:
                reason = str(error)
                logger.warning("%s stalled, try %d of %d: %s", chip, attempt, self.retries, reason)
        raise SubstrateError(f"{chip} stalled {self.retries} times in a row ({reason})")
