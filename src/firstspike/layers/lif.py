"""A layer of LIF neurons, fully connected to its inputs."""

import math
from collections.abc import Collection
from dataclasses import fields, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstspike.layers.delay import DelayRule
from firstspike.layers.init import draw_firing_weights_
from firstspike.neuron import LIF
from firstspike.spiketime import first_spike_time

_NAMES = tuple(field.name for field in fields(LIF))


class LIFLinear(nn.Module):
    """``times (..., in_features) -> first spike times (..., out_features)``, ``inf`` for silent neurons.

    Stateless: every sample is one presentation that starts at rest, and each neuron spikes at most once.

    Parameters of the neuron named in ``trainable`` learn: the layer has their logarithms as ``log_tau_mem``,
    ``log_tau_syn`` and ``log_threshold``, so that they stay positive, and steps are relative. ``neuron`` has their
    current values. Others that are tensors are buffers of the layer, or parameters where they are ``nn.Parameter``.

    Args:
        in_features: number of inputs.
        out_features: number of neurons.
        neuron: their parameters, at the start for those that learn; ``LIF()`` by default.
        trainable: which of ``"tau_mem"``, ``"tau_syn"`` and ``"threshold"`` learn.
        per_neuron: whether each neuron has its own values of those, else the layer shares one.
        weight_mean: together with ``weight_std``: weights start normally distributed so. Without both they start so
            that most neurons fire on inputs in [0, 2] tau_syn, whatever ``in_features`` (see ``firing_weights``).
        weight_std: see ``weight_mean``.
        delay: how synaptic delays (out_features, in_features) start and stay >= 0; None for no delays.
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
        in_features: int,
        out_features: int,
        neuron: LIF | None = None,
        *,
        trainable: Collection[str] = (),
        per_neuron: bool = False,
        weight_mean: float | None = None,
        weight_std: float | None = None,
        delay: DelayRule | None = None,
        max_weight_grad: float | None = None,
        backend: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(f"in_features and out_features must be >= 1, got {in_features} and {out_features}")
        if (weight_mean is None) != (weight_std is None):
            raise ValueError("weight_mean and weight_std belong together: give both or none")
        if weight_std is not None and weight_std < 0:
            raise ValueError(f"weight_std must be >= 0, got {weight_std}")
        self.in_features = in_features
        self.out_features = out_features
        self.weight_mean, self.weight_std = weight_mean, weight_std
        self.delay_rule = delay
        self.jitter_source: torch.Generator | None = None  # see ``jitter_from``
        self.max_weight_grad = max_weight_grad
        self.backend = backend
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.delay_raw = None if delay is None else nn.Parameter(torch.empty_like(self.weight), delay.trainable)
        self._take(neuron or LIF(), trainable, per_neuron)
        self.reset_parameters(generator)

    def _take(self, neuron: LIF, trainable: Collection[str], per_neuron: bool) -> None:
        """Make tensors among the neuron's parameters, and those that learn, parameters and buffers of the layer."""
        if isinstance(trainable, str) or not set(trainable) <= set(_NAMES):
            raise ValueError(f"trainable must be some of {', '.join(_NAMES)} in a list, got {trainable!r}")
        if per_neuron and not trainable:
            raise ValueError("per_neuron is about parameters that learn: name them in trainable")
        self._starts: dict[str, Tensor] = {}
        self._tensors: list[str] = []
        for name in _NAMES:
            value = getattr(neuron, name)
            if name in trainable:
                start = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
                if not per_neuron and start.numel() != 1:
                    raise ValueError(f"{name} starts with {start.numel()} values: set per_neuron, or give one number")
                if not bool(((start > 0) & (start < math.inf)).all()):
                    raise ValueError(f"{name} can only learn from a finite value > 0, got {value}")
                start = start.expand(self.out_features) if per_neuron else start.reshape(())
                self._starts[name] = start.log()
                self.register_parameter(f"log_{name}", nn.Parameter(self.weight.new_empty(start.shape)))
            elif isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, Tensor):
                self.register_buffer(name, value.to(self.weight.device))
            else:
                continue
            self._tensors.append(name)
        self._numbers = replace(neuron, **dict.fromkeys(self._tensors, 1.0))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and delays anew; parameters of the neuron that learn start again."""
        for name, start in self._starts.items():
            getattr(self, f"log_{name}").copy_(start)
        if self.weight_mean is not None and self.weight_std is not None:
            self.weight.normal_(self.weight_mean, self.weight_std, generator=generator)
        else:
            starts = {name: start.exp() for name, start in self._starts.items()}
            draw_firing_weights_(self.weight, replace(self.neuron, **starts), generator)
        if self.delay_rule is not None and self.delay_raw is not None:
            self.delay_rule.draw_(self.delay_raw, generator)

    @property
    def neuron(self) -> LIF:
        """The neurons' parameters as they are now."""
        if not self._tensors:
            return self._numbers
        return replace(
            self._numbers,
            **{
                name: getattr(self, f"log_{name}").exp() if name in self._starts else getattr(self, name)
                for name in self._tensors
            },
        )

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
        """Number of outputs for so many inputs.

        Raises:
            ValueError: a number of inputs that the weights are not made for.
        """
        if inputs != self.in_features:
            raise ValueError(f"LIFLinear({self.in_features}, {self.out_features}) gets {inputs} inputs")
        return self.out_features

    def forward(
        self, times: Float[Tensor, "*batch in_features"], observed: Float[Tensor, "*batch out_features"] | None = None
    ) -> Float[Tensor, "*batch out_features"]:
        """First spike times; with ``observed`` those, and the gradient there."""
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

    def extra_repr(self) -> str:
        """Sizes and neuron, as torch prints them."""
        learnt = {name: name in self._starts or name in self._parameters for name in _NAMES}
        neuron = self.neuron
        # values that learn are state, not form: two networks of one form print alike
        shown = {name: f"learnt {tuple(x.shape)}" if learnt[name] else x for name, x in vars(neuron).items()}
        parameters = ", ".join(f"{name}={value}" for name, value in shown.items())
        delay = "" if self.delay_rule is None else f", delay={self.delay_rule}"
        return f"{self.in_features}, {self.out_features}, LIF({parameters}){delay}"
