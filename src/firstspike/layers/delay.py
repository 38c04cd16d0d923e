"""Delays that learn: axonal before a LIF layer, dendritic after it, synaptic inside (``LIFLinear(delay=...)``).

Source: Göltz et al. 2025, "DelGrad".
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from firstspike.layers.observed import at_observed


@dataclass(frozen=True)
class DelayRule:
    """How delays start and how they stay >= 0: ``delay = shift + scale * bound(raw)`` with ``raw`` the parameter.

    Args:
        bound: ``"sigmoid"`` keeps delays in (shift, shift + scale), ``"softplus"`` above shift.
        scale: > 0, in the unit of the times.
        shift: >= 0, in the unit of the times.
        mean: of the raw values at the start, normally distributed.
        std: their standard deviation.
        trainable: whether they learn.
    """

    bound: Literal["sigmoid", "softplus"] = "sigmoid"
    scale: float = 1.0
    shift: float = 0.0
    mean: float = 0.0
    std: float = 0.25
    trainable: bool = True

    def __post_init__(self) -> None:
        if self.bound not in ("sigmoid", "softplus"):
            raise ValueError(f"bound must be sigmoid or softplus, got {self.bound!r}")
        values = (self.scale, self.shift, self.mean, self.std)
        if not (all(map(math.isfinite, values)) and self.scale > 0 and self.shift >= 0 and self.std >= 0):
            raise ValueError(
                f"expected finite values with scale > 0, shift >= 0 and std >= 0, got scale {self.scale}, "
                f"shift {self.shift}, mean {self.mean}, std {self.std}"
            )

    def __call__(self, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Delays from raw values."""
        bounded = torch.sigmoid(raw) if self.bound == "sigmoid" else functional.softplus(raw)
        return self.shift + self.scale * bounded

    def draw_(self, raw: Tensor, generator: torch.Generator | None) -> None:
        """Fill raw values with their start."""
        raw.normal_(self.mean, self.std, generator=generator)


class Delay(nn.Module):
    """Adds a delay to each spike: ``times (..., features) -> times (..., features)``; ``inf`` stays ``inf``.

    Args:
        features: number of inputs.
        rule: how the delays start and stay >= 0.
        generator: source of the initial values; torch's global one by default.
        device: as in torch.
        dtype: as in torch.
    """

    def __init__(
        self,
        features: int,
        rule: DelayRule | None = None,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features must be >= 1, got {features}")
        self.features = features
        self.rule = rule or DelayRule()
        self.delay_raw = nn.Parameter(torch.empty(features, device=device, dtype=dtype), self.rule.trainable)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the delays anew."""
        self.rule.draw_(self.delay_raw, generator)

    @property
    def delay(self) -> Float[Tensor, " features"]:
        """The delays, >= 0."""
        return self.rule(self.delay_raw)

    def output_size(self, inputs: int) -> int:
        """Number of outputs for so many inputs.

        Raises:
            ValueError: another number of inputs than ``features``.
        """
        if inputs != self.features:
            raise ValueError(f"Delay({self.features}) gets {inputs} inputs")
        return inputs

    def forward(
        self, times: Float[Tensor, "*batch features"], observed: Float[Tensor, "*batch features"] | None = None
    ) -> Float[Tensor, "*batch features"]:
        """Delayed times; with ``observed`` those, and the gradient of the sum."""
        delayed = times + self.delay
        return delayed if observed is None else at_observed(delayed, observed)

    def extra_repr(self) -> str:
        """Size and rule, as torch prints them."""
        return f"{self.features}, {self.rule}"
