"""Neurons that are fully connected to their inputs, and spike once or several times."""

import math
from typing import Any, Literal, Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from firstspike.layers.delay import Delayed, DelayRule, checked_rule
from firstspike.layers.neurons import NeuronLayer, SpikingLayer, SpikingOptions
from firstspike.layers.rows import Structure, state_of, structure_of, windows_for
from firstspike.layers.synapses import matrix
from firstspike.layers.trains import Noise, Spikes
from firstspike.neurons import Neuron
from firstspike.ranges import Size, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import first_spike_time, spike_trains, spike_window
from firstspike.spiketime.contract import Recurrence
from firstspike.spiketime.current import Current
from firstspike.spiketime.values import check_overflow, records, values_of

Overflow = Literal["error", "warn", "drop"]


class DenseOptions(SpikingOptions, total=False):
    """Keyword arguments of all fully connected layers of neurons, see ``DenseLayer``."""

    delay: DelayRule | None


class SpikeTrainOptions(DenseOptions, total=False):
    """Keyword arguments of all layers of neurons that spike several times, see ``SpikeTrains``."""

    overflow: Overflow


@takes_arguments_of(NeuronLayer)
class DelayedNeurons(Delayed, SpikingLayer):
    """Neurons whose synapses may have delays.

    Args:
        delay: rule by which synaptic delays, in the shape of the weights, start and stay >= 0; None for no delays.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        in_features: Size,
        out_features: Size,
        neuron: Neuron | None = None,
        *,
        delay: DelayRule | None = None,
        **options: Unpack[SpikingOptions],
    ) -> None:
        super().__init__(shape, in_features, out_features, neuron, **options)
        self.delay_rule = checked_rule("delay", delay)
        if self.delay_rule is None and "weight" in self.sparse and self.sparse["weight"].delay is not None:
            self.delay_rule = delay = DelayRule("clip", math.inf, std=0.0, trainable=False)
        self.delay_raw = None if delay is None else nn.Parameter(torch.empty_like(self.weight), delay.trainable)
        self._reset_delays_(options.get("generator"))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Redraw weights and delays. Trainable parameters of the neuron start again."""
        super().reset_parameters(generator)
        self._reset_delays_(generator)

    @torch.no_grad()
    def _reset_delays_(self, generator: torch.Generator | None) -> None:
        if self.delay_rule is not None and self.delay_raw is not None:
            self.delay_rule.draw_(self.delay_raw, generator)
            if "weight" in self.sparse and (given := self.sparse["weight"].delay) is not None:
                self.set_delays_(given.to(self.delay_raw))

    @property
    def delay(self) -> Float[Tensor, "rows inputs"] | None:
        """The delays, >= 0, without jitter, as a matrix; None without delays."""
        delay = self._delay_values(jitters=False)
        return None if delay is None else matrix(self, "weight", delay).flatten(1)

    def delay_in_pass(self, observed: Tensor | None = None) -> Float[Tensor, "rows inputs"] | None:
        """Synaptic delays of a forward pass: in training mode, if nothing is observed, with jitter that is redrawn."""
        delay = self._delay_values(observed is None)
        return None if delay is None else matrix(self, "weight", delay).flatten(1)

    def _delay_values(self, jitters: bool) -> Float[Tensor, "*shape"] | None:
        """``delay_in_pass`` in the shape of the weights."""
        rule, raw = self.delay_rule, self.delay_raw
        if rule is None or raw is None:
            return None
        delay = rule(raw)
        if not (rule.jitter and self.training and jitters):
            return delay
        return rule.jittered(delay, delay, Noise(self.noise.source))

    def _argument(self, name: str) -> Any:
        return self.delay_rule if name == "delay" else super()._argument(name)


@takes_arguments_of(DelayedNeurons, without=("shape",))
class DenseLayer(DelayedNeurons):
    """Fully connected neurons, optionally with synaptic delays."""

    def __init__(
        self, in_features: Size, out_features: Size, neuron: Neuron | None = None, **options: Unpack[DenseOptions]
    ) -> None:
        super().__init__((out_features, in_features), in_features, out_features, neuron, **options)


@takes_arguments_of(DenseLayer)
class SpikingLinear(DenseLayer):
    """Fully connected neurons: ``times (..., in_features) -> first spike times (..., out_features)``.

    Stateless: every sample is one presentation that starts at rest, and each neuron spikes at most once. The times of
    silent neurons are ``inf``.

    Parameters of the neuron named in ``trainable`` are trained: the layer has their logarithms as ``log_tau_mem``,
    ``log_tau_syn`` and ``log_threshold``, so that they stay positive, and steps are relative; in ``log_reset``, of
    layers for trains, that of how far the reset is below the threshold. ``neuron`` has their current values. Others
    that are tensors are buffers of the layer, or parameters if they are ``nn.Parameter``.
    """

    def forward(
        self, times: Float[Tensor, "*batch in_features"], observed: Float[Tensor, "*batch out_features"] | None = None
    ) -> Float[Tensor, "*batch out_features"]:
        """First spike times; with ``observed``, these times and the gradient at them."""
        self._check_first(times, "put FirstSpike() before it, or take LIFSpikeTrains")
        delay = self.delay_in_pass(observed)
        return first_spike_time(times, self.synapses, self.neuron, delay=delay, observed=observed, **self.dynamics)


@takes_arguments_of(DenseLayer)
@checks_ranges
class SpikeTrains(DenseLayer):
    """Neurons that spike several times: ``times (batch, in_features[, spikes]) -> (batch, out, max_spikes)``.

    Input and output are spike trains, sorted along the last dimension, ``inf`` after the last spike. First spikes
    ``(batch, in_features)`` are trains of one spike. At each spike the membrane is set to the neuron's ``reset`` and
    stays there for the time ``refractory``, while the current continues. Stateless: every sample starts at rest. See
    ``spike_trains``.

    Args:
        max_spikes: most spikes of a neuron in a sample.
        overflow: behaviour if a neuron would spike more than ``max_spikes`` times: ``"error"`` raises ValueError,
            ``"warn"`` warns and drops the later spikes, ``"drop"`` drops them. A training reports the fraction of
            trains with ``max_spikes`` spikes, as ``full`` in its metrics.

    Raises:
        ValueError: sizes < 1, ``max_spikes`` above 1000000, a reset at the threshold or above, a negative refractory
            time; otherwise as ``SpikingLinear``. More spikes than ``max_spikes``, in ``forward``.
    """

    takes_trains = True
    gives = "trains"
    unused = ()
    passes_on = ("overflow", *SpikingLayer.passes_on)
    usual_weights = 0.5  # with those of neurons that spike once they would spike several times in a row

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        max_spikes: Size,
        neuron: Neuron | None = None,
        *,
        overflow: Overflow = "error",
        **options: Unpack[DenseOptions],
    ) -> None:
        super().__init__(in_features, out_features, neuron, **options)
        self.max_spikes = max_spikes
        self.overflow: Overflow = overflow
        self._kept_rows: Any = None

    def forward(
        self,
        times: Spikes,
        observed: Float[Tensor, "*batch out_features max_spikes"] | None = None,
        current: Current | None = None,
    ) -> Float[Tensor, "*batch out_features max_spikes"]:
        """Spike trains; with ``observed``, these times and the gradient at them. A current is injected beside them."""
        if current is None and forward_ad._current_level < 0 and (structure := self._structure()) is not None:
            return self._by_rows(self.seen(times), structure, observed)
        given = self.seen(times), self.synapses, self.neuron
        options = {"delay": self.delay_in_pass(observed), "observed": observed, "current": current} | self.dynamics
        return spike_trains(*given, max_spikes=self.max_spikes, **options)

    def _by_rows(self, trains: Tensor, structure: Structure, observed: Tensor | None) -> Tensor:
        """The trains, by kernels that take no matrix."""
        values, delay = self._delay_values(observed is None), None
        if values is not None:
            delay = structure.joined(values)
        longest = 0.0 if values is None or not values.numel() else float(values.detach().max())
        start = 0.0 if self.neuron.begins else -math.inf
        windows = Recurrence(windows_for(trains, structure, longest, start, self.until), 0.0, self.max_spikes)
        options = {name: x for name, x in self.dynamics.items() if name not in ("until", "silent")}
        if isinstance(options["receptor"], Tensor):  # of the neurons too, which send nothing back
            options["receptor"] = functional.pad(options["receptor"], (0, self.out_features))
        options |= {"max_spikes": self.max_spikes, "observed": observed, "delay": delay, "rows": structure.rows}
        options["overflow"] = "drop"
        found = spike_window(trains, structure.joined(self.weight), self.neuron, windows=windows, **options)
        if observed is None:
            self.check_room(values_of(found.overflows))
        return found.trains

    def _structure(self) -> Structure | None:
        """The synapses for kernels of sparse layers; None where a matrix computes."""
        masked = [getattr(self, name, None) is not None for name in ("connections", "recurrent_connections")]
        recorded = records() or torch._C._are_functorch_transforms_active()
        if not (self.sparse or any(masked)) or self.max_weight_grad is not None or recorded:
            return None
        state, kept = state_of(self), self._kept_rows
        if kept is None or any(x is not y or n != m for (x, n), (y, m) in zip(state, kept[0], strict=True)):
            self._kept_rows = kept = state, structure_of(self)
        found: Structure | None = kept[1]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept_rows": None}

    def fitted(self, trains: Float[Tensor, "*batch out_features spikes"]) -> Float[Tensor, "*batch out_features most"]:
        """Sorted trains with ``max_spikes`` columns. ``overflow`` controls longer ones."""
        most, columns = self.max_spikes, trains.shape[-1]
        if columns <= most:
            return functional.pad(trains, (0, most - columns), value=math.inf)
        self.check_room(values_of(torch.isfinite(trains[..., most])))
        return trains[..., :most]

    def check_room(self, more: Bool[Tensor, "*batch out_features"]) -> None:
        """Raise a ValueError, or warn, if neurons spike more often than `max_spikes`, according to ``overflow``."""
        check_overflow(more, self.max_spikes, self.overflow)
