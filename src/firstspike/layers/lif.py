"""LIF neurons that are fully connected to their inputs."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.delay import DelayRule
from firstspike.layers.neurons import LIFLayer, LIFOptions, NeuronLayer
from firstspike.layers.trains import wrong_inputs
from firstspike.neuron import LIF
from firstspike.ranges import Size
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import first_spike_time
from firstspike.spiketime.times import check_times


class DenseLIFOptions(LIFOptions, total=False):
    """Keyword arguments of all layers of LIF neurons that see all inputs, see ``DenseLIFLayer``."""

    delay: DelayRule | None


@takes_arguments_of(NeuronLayer, without=("shape",))
class DenseLIFLayer(LIFLayer):
    """LIF neurons that see all inputs, perhaps with synaptic delays.

    Args:
        delay: rule by which synaptic delays (out_features, in_features) start and stay >= 0; None for no delays.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        neuron: LIF | None = None,
        *,
        delay: DelayRule | None = None,
        **options: Unpack[LIFOptions],
    ) -> None:
        super().__init__((out_features, in_features), in_features, out_features, neuron, **options)
        self.delay_rule = delay
        self.jitter_source: torch.Generator | None = None  # see ``jitter_from``
        self.delay_raw = None if delay is None else nn.Parameter(torch.empty_like(self.weight), delay.trainable)
        self._reset_delays_(options.get("generator"))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and delays anew; parameters of the neuron that learn start again."""
        super().reset_parameters(generator)
        self._reset_delays_(generator)

    @torch.no_grad()
    def _reset_delays_(self, generator: torch.Generator | None) -> None:
        if self.delay_rule is not None and self.delay_raw is not None:
            self.delay_rule.draw_(self.delay_raw, generator)

    @property
    def delay(self) -> Float[Tensor, "out_features in_features"] | None:
        """Synaptic delays, >= 0, without jitter; None where there are none."""
        return None if self.delay_rule is None or self.delay_raw is None else self.delay_rule(self.delay_raw)

    def delay_in_pass(self) -> Float[Tensor, "out_features in_features"] | None:
        """Synaptic delays of a forward pass: in training mode with jitter, drawn anew at each call."""
        delay, rule = self.delay, self.delay_rule
        if delay is not None and rule is not None and rule.jitter and self.training:
            delay = rule.jittered(delay, delay, self.jitter_source)
        return delay

    def extra_repr(self) -> str:
        """Sizes, neuron and delays, as torch prints them."""
        delay = "" if self.delay_rule is None else f", delay={self.delay_rule}"
        return f"{super().extra_repr()}{delay}"


@takes_arguments_of(DenseLIFLayer)
class LIFLinear(DenseLIFLayer):
    """LIF neurons that see all inputs: ``times (..., in_features) -> first spike times (..., out_features)``.

    Stateless: every sample is one presentation that starts at rest, and each neuron spikes at most once. The times of
    silent neurons are ``inf``.

    Parameters of the neuron named in ``trainable`` learn: the layer has their logarithms as ``log_tau_mem``,
    ``log_tau_syn`` and ``log_threshold``, so that they stay positive, and steps are relative. ``neuron`` has their
    current values. Others that are tensors are buffers of the layer, or parameters where they are ``nn.Parameter``.

    Args:
        weight_mean: mean of the initial weights, which are normally distributed; given together with ``weight_std``.
            Without both, most neurons spike at first for inputs in [0, 2] tau_syn, for any number of inputs (see
            ``firing_weights``).
        max_weight_grad: see ``first_spike_time``.
        backend: see ``first_spike_time``.

    Raises:
        ValueError: sizes < 1, one of ``weight_mean`` and ``weight_std`` without the other, a negative ``weight_std``,
            parameters that cannot learn from where they start.
    """

    def forward(
        self, times: Float[Tensor, "*batch in_features"], observed: Float[Tensor, "*batch out_features"] | None = None
    ) -> Float[Tensor, "*batch out_features"]:
        """First spike times; with ``observed`` those, and the gradient there."""
        check_times(times)
        if not times.ndim or times.shape[-1] != self.in_features:
            hint = "put FirstSpike() before it, or take LIFSpikeTrains"
            raise wrong_inputs(self._name, self.in_features, times, hint, self.weight)
        delay = self.delay_in_pass() if observed is None else self.delay
        return first_spike_time(
            times,
            self.weight,
            self.neuron,
            delay=delay,
            observed=observed,
            max_weight_grad=self.max_weight_grad,
            backend=self.backend,
        )
