"""A layer of LIF neurons that spike several times, fully connected to its inputs."""

import math
from typing import ClassVar, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.init import NormalWeights, firing_weights
from firstspike.layers.lif import DenseLIFLayer, DenseLIFOptions
from firstspike.layers.neurons import Arriving
from firstspike.layers.trains import Form, as_trains
from firstspike.neuron import LIF
from firstspike.ranges import Finite, NotNegative, Size
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import spike_trains
from firstspike.spiketime.values import check_spikes

Overflow = Literal["error", "warn", "drop"]
_PEAK = 0.5  # of the weights with which neurons spike once: those spike several times in a row


@takes_arguments_of(DenseLIFLayer)
class LIFSpikeTrains(DenseLIFLayer):
    """LIF neurons that spike again and again: ``times (batch, in_features[, spikes]) -> (batch, out, max_spikes)``.

    Input and output are spike trains, sorted along the last dimension, ``inf`` after the last spike. First spikes
    ``(batch, in_features)`` count as trains of one spike. At each spike the membrane is set to ``reset`` and stays
    there for the time ``refractory``, while the current goes on. Stateless: every sample starts at rest. See
    ``spike_trains``.

    Args:
        max_spikes: most spikes of a neuron in a sample.
        refractory: time for which a neuron stays at ``reset`` after a spike, in the unit of the times.
        reset: membrane after a spike, below the threshold. A reset to 0 is the same as subtracting the threshold.
        overflow: what happens where a neuron would spike more than ``max_spikes`` times: ``"error"`` raises ValueError,
            ``"warn"`` warns and drops the later spikes, ``"drop"`` drops them. A training counts the trains that are as
            long as they can be, as ``full`` in its metrics.
        max_weight_grad: bound on the weight gradient of each spike, see ``spike_trains``.
        backend: see ``spike_trains``.

    Raises:
        ValueError: sizes < 1, ``max_spikes`` above 1000000, a reset at the threshold or above, a negative refractory
            time; otherwise as ``LIFLinear``. More spikes than ``max_spikes``, in ``forward``.
    """

    takes_trains = True
    gives: ClassVar[Form] = "trains"

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        max_spikes: Size,
        neuron: LIF | None = None,
        *,
        refractory: NotNegative = 0.0,
        reset: Finite = 0.0,
        overflow: Overflow = "error",
        **options: Unpack[DenseLIFOptions],
    ) -> None:
        check_spikes("max_spikes", max_spikes)
        if not 0 <= refractory < math.inf:
            raise ValueError(f"refractory must be >= 0 and finite, got {refractory}")
        if overflow not in ("error", "warn", "drop"):
            raise ValueError(f"overflow must be error, warn or drop, got {overflow!r}")
        threshold = 1.0 if neuron is None else neuron.threshold
        if not isinstance(threshold, Tensor) and not -math.inf < reset < threshold:
            raise ValueError(f"reset must be below the threshold of {threshold}, got {reset}")
        super().__init__(in_features, out_features, neuron, **options)
        self.max_spikes, self.refractory, self.reset = max_spikes, refractory, reset
        self.overflow: Overflow = overflow

    def _draw_usual_weights_(self, generator: torch.Generator | None) -> None:
        def start(unit: LIF) -> NormalWeights:
            once = firing_weights(self.synapses.shape[1], unit)
            return NormalWeights(_PEAK * once.mean, _PEAK * once.std)

        self.draw_weights_(start, generator)

    def seen(
        self, times: Float[Tensor, "*batch in_features"] | Float[Tensor, "*batch in_features spikes"]
    ) -> Float[Tensor, "*batch in_features spikes"]:
        """Input trains as a neuron sees them, without synaptic delays."""
        return as_trains(times, self.in_features, self._name)

    def arriving(self, inputs: Tensor, spikes: Tensor) -> Arriving:
        """See ``LIFLayer``."""
        return self._each_spike(self.seen(inputs), self.weight, self.delay, math.inf)

    @staticmethod
    def _each_spike(trains: Tensor, weight: Tensor, delay: Tensor | None, until: float) -> Arriving:
        """Every spike of a train as an input of its own."""
        each = trains.shape[-1]
        delay = None if delay is None else delay.repeat_interleave(each, dim=-1)
        return Arriving(trains.flatten(-2), weight.repeat_interleave(each, dim=-1), delay, until)

    def forward(
        self,
        times: Float[Tensor, "*batch in_features"] | Float[Tensor, "*batch in_features spikes"],
        observed: Float[Tensor, "*batch out_features max_spikes"] | None = None,
    ) -> Float[Tensor, "*batch out_features max_spikes"]:
        """Spike trains; with ``observed`` those, and the gradient there."""
        return spike_trains(
            self.seen(times),
            self.weight,
            self.neuron,
            max_spikes=self.max_spikes,
            delay=self.delay_in_pass() if observed is None else self.delay,
            observed=observed,
            refractory=self.refractory,
            reset=self.reset,
            overflow=self.overflow,
            max_weight_grad=self.max_weight_grad,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """Sizes, budget and neuron, as torch prints them."""
        more = "".join(
            f", {name}={value}" for name, value in (("refractory", self.refractory), ("reset", self.reset)) if value
        )
        return f"{super().extra_repr()}, max_spikes={self.max_spikes}{more}"
