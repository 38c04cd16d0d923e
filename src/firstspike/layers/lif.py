"""LIF neurons that are fully connected to their inputs."""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.delay import DelayRule
from firstspike.layers.neurons import LIFLayer
from firstspike.layers.trains import wrong_inputs
from firstspike.neuron import LIF
from firstspike.ranges import Finite, NotNegative, Positive, Size
from firstspike.spiketime import first_spike_time
from firstspike.spiketime.values import check_times


class DenseLIFLayer(LIFLayer):
    """LIF neurons that see all inputs, perhaps with synaptic delays.

    Args:
        in_features: number of inputs.
        out_features: number of neurons.
        neuron: see ``LIFLinear``, as all that follows.
        delay: rule of synaptic delays.
        generator: source of the initial values.
        options: what else a ``NeuronLayer`` takes.

    Raises:
        ValueError: sizes < 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        neuron: LIF | None,
        *,
        delay: DelayRule | None,
        generator: torch.Generator | None,
        **options: Any,
    ) -> None:
        if in_features < 1 or out_features < 1:
            raise ValueError(f"in_features and out_features must be >= 1, got {in_features} and {out_features}")
        super().__init__((out_features, in_features), in_features, out_features, neuron, **options)
        self.delay_rule = delay
        self.jitter_source: torch.Generator | None = None  # see ``jitter_from``
        self.delay_raw = None if delay is None else nn.Parameter(torch.empty_like(self.weight), delay.trainable)
        self.reset_parameters(generator)

    @property
    def _name(self) -> str:
        return f"{type(self).__name__}({self.in_features}, {self.out_features})"

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and delays anew; parameters of the neuron that learn start again."""
        super().reset_parameters(generator)
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

    def output_size(self, inputs: int) -> int:
        """Number of outputs for that number of inputs.

        Raises:
            ValueError: a number of inputs that the weights are not made for.
        """
        if inputs != self.in_features:
            raise ValueError(f"{self._name} gets {inputs} inputs")
        return self.out_features

    def extra_repr(self) -> str:
        """Sizes and neuron, as torch prints them."""
        delay = "" if self.delay_rule is None else f", delay={self.delay_rule}"
        return f"{self.in_features}, {self.out_features}, {self.neuron_repr()}{delay}"


class LIFLinear(DenseLIFLayer):
    """LIF neurons that see all inputs: ``times (..., in_features) -> first spike times (..., out_features)``.

    Stateless: every sample is one presentation that starts at rest, and each neuron spikes at most once. The times of
    silent neurons are ``inf``.

    Parameters of the neuron named in ``trainable`` learn: the layer has their logarithms as ``log_tau_mem``,
    ``log_tau_syn`` and ``log_threshold``, so that they stay positive, and steps are relative. ``neuron`` has their
    current values. Others that are tensors are buffers of the layer, or parameters where they are ``nn.Parameter``.

    Args:
        in_features: number of inputs.
        out_features: number of neurons.
        neuron: parameters of the neurons, a ``LIF``; initial values of those that are trained. ``LIF()`` by default.
        trainable: which of ``"tau_mem"``, ``"tau_syn"`` and ``"threshold"`` are trained.
        per_neuron: whether each neuron has its own values of what is trainable; otherwise the layer shares one.
        weight_mean: mean of the initial weights, which are normally distributed; given together with ``weight_std``.
            Without both, most neurons spike at first for inputs in [0, 2] tau_syn, for any number of inputs (see
            ``firing_weights``).
        weight_std: standard deviation of the initial weights; given together with ``weight_mean``.
        delay: rule by which synaptic delays (out_features, in_features) start and stay >= 0; None for no delays.
        max_weight_grad: see ``first_spike_time``.
        backend: see ``first_spike_time``.
        generator: source of the initial values; torch's global one by default.
        device: as in torch.
        dtype: float32 or float64, as in torch.

    Raises:
        ValueError: sizes < 1, one of ``weight_mean`` and ``weight_std`` without the other, a negative ``weight_std``,
            parameters that cannot learn from where they start.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        neuron: LIF | None = None,
        *,
        trainable: Collection[str] = (),
        per_neuron: bool = False,
        weight_mean: Finite | None = None,
        weight_std: NotNegative | None = None,
        delay: DelayRule | None = None,
        max_weight_grad: Positive | None = None,
        backend: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            neuron,
            delay=delay,
            generator=generator,
            trainable=trainable,
            per_neuron=per_neuron,
            weight_mean=weight_mean,
            weight_std=weight_std,
            max_weight_grad=max_weight_grad,
            backend=backend,
            device=device,
            dtype=dtype,
        )

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
