"""Trainable delays: axonal before a LIF layer, dendritic after it, synaptic inside (``SpikingLinear(delay=...)``).

Source: Göltz et al. 2025, "DelGrad".
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from firstspike.layers.noise import drawn
from firstspike.layers.trains import Noise, SpikeLayer, Spikes, at_observed
from firstspike.ranges import Finite, NotNegative, PositiveOrInf, Size, checks_ranges
from firstspike.spiketime.transforms import Direct


@checks_ranges
@dataclass(frozen=True)
class DelayRule:
    """How delays start and how they stay >= 0, from the parameter ``raw``:

    * ``"sigmoid"``: ``shift + scale * sigmoid(raw)``;
    * ``"softplus"``: ``shift + scale * softplus(raw)``;
    * ``"clip"``: the raw value itself, cut to the range from shift to shift + scale. Its gradient does not vanish at
      the bounds: there it is 1 if a step downhill leads back inside, and 0 if it leads further out. Raw values that
      an optimiser's momentum carries outside are put back on the bound after each step of a training.

    Jitter is Gaussian noise on the delays in training mode, redrawn in each forward pass: for each spike of a
    ``Delay``, and once for all samples for each synapse of a ``SpikingLinear``. A delay that would fall below 0 is 0.
    Gradients are those of the delays without it. There is none if output times are ``observed``.

    Args:
        bound: how the delays follow from the raw values: ``"sigmoid"`` between ``shift`` and ``shift + scale``,
            ``"softplus"`` above ``shift``, ``"clip"`` within ``shift`` and ``shift + scale``.
        scale: range of the delays above ``shift``, > 0, in the unit of the times; ``inf`` for a ``"clip"`` without
            upper bound.
        shift: smallest delay, >= 0, in the unit of the times.
        mean: mean of the raw values at the start, which are normally distributed. For ``"clip"`` these are the delays.
        std: standard deviation of the raw values at the start.
        trainable: whether the delays are trained.
        jitter: standard deviation of the noise on the delays in training, in the unit of the times.

    Raises:
        ValueError: an unknown bound, a value out of its range.
    """

    bound: Literal["sigmoid", "softplus", "clip"] = "sigmoid"
    scale: PositiveOrInf = 1.0
    shift: NotNegative = 0.0
    mean: Finite = 0.0
    std: NotNegative = 0.25
    trainable: bool = True
    jitter: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.scale == math.inf and self.bound != "clip":
            raise ValueError(f"scale must be finite for the bound {self.bound}, got {self.scale}")

    def __call__(self, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Delays from raw values."""
        if self.bound == "clip":
            clip = _Clip if torch.compiler.is_compiling() else _ClipWithTangent
            clipped: Tensor = clip.apply(raw, self.shift, self.shift + self.scale)
            return clipped
        bounded = torch.sigmoid(raw) if self.bound == "sigmoid" else functional.softplus(raw)
        return self.shift + self.scale * bounded

    def raw_of(self, delay: Any, raw: Tensor, beyond: float = 0.0) -> Float[Tensor, "*shape"]:
        """Raw values like ``raw``, of delays that exceed those of the rule by ``beyond``: the inverse of a call."""
        given = torch.as_tensor(delay, dtype=raw.dtype, device=raw.device)
        if given.ndim and given.shape != raw.shape:
            raise ValueError(f"delays must be a number or in the shape {tuple(raw.shape)}, got {tuple(given.shape)}")
        own = given - beyond
        found, unit = own, (own.double() - self.shift) / self.scale
        if self.bound != "clip":
            found = torch.logit(unit) if self.bound == "sigmoid" else unit + torch.log(-torch.expm1(-unit))
        if not bool((found.isfinite() & torch.isclose(self(found).to(own), own)).all()):
            most = math.inf if self.bound == "softplus" else self.shift + self.scale
            window = f" after a window of {beyond:g}" if beyond else ""
            got = f"{float(given.min()):g} to {float(given.max()):g}"
            cure = f"take another rule, or delays from {beyond + self.shift:g} to {beyond + most:g}"
            raise ValueError(f"delays must be within scale and shift of {self}{window}, got {got}; {cure}")
        return found

    def draw_(self, raw: Tensor, generator: torch.Generator | None) -> None:
        """Fill raw values with their start."""
        raw.normal_(self.mean, self.std, generator=generator)
        self.project_(raw)

    def project_(self, raw: Tensor) -> None:
        """Put raw values that are outside their bounds back. Only ``"clip"`` allows them."""
        if self.bound == "clip":
            raw.clamp_(self.shift, self.shift + self.scale)

    def jittered(self, delay: Tensor, like: Tensor, noise: Noise) -> Tensor:
        """The delays with noise in the shape of ``like``, which broadcasts. They stay >= 0. See ``drawn``."""
        return delay + torch.maximum(self.jitter * drawn(torch.randn, like, noise), -delay.detach())


class _Clip(torch.autograd.Function):
    """``clamp(raw, low, high)``, with a gradient if it leads back inside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(raw: Tensor, low: float, high: float) -> Tensor:
        return raw.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        raw, ctx.low, ctx.high = inputs
        ctx.save_for_backward(raw)
        ctx.save_for_forward(raw)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (raw,) = ctx.saved_tensors
        outward = ((raw >= ctx.high) & (grad < 0)) | ((raw <= ctx.low) & (grad > 0))  # a step goes against the gradient
        return torch.where(outward, 0.0, grad), None, None


class _ClipWithTangent(Direct, _Clip):
    """``_Clip`` with forward mode, which ``torch.compile`` does not take."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (raw,) = ctx.saved_tensors
        outward = ((raw >= ctx.high) & (tangent > 0)) | ((raw <= ctx.low) & (tangent < 0))
        return torch.where(outward, 0.0, tangent)


@torch.no_grad()
def project_delays_(network: nn.Module) -> None:
    """Put raw values that an optimiser carried outside their rule's bounds back, see ``DelayRule``."""
    for rule, raw in delays_in(network):
        rule.project_(raw)


def delays_in(network: nn.Module) -> list[tuple[DelayRule, Tensor]]:
    """The rule and the raw values of all delays in a network."""
    found: list[Any] = [x for x in network.modules() if isinstance(vars(x).get("delay_rule"), DelayRule)]
    return [(x.delay_rule, x.delay_raw) for x in found if isinstance(getattr(x, "delay_raw", None), Tensor)]


def checked_rule(name: str, rule: Any) -> DelayRule | None:
    """A rule, or None. Raises a ValueError for anything else, such as the delays themselves."""
    if rule is None or isinstance(rule, DelayRule):
        return rule
    raise ValueError(
        f"{name} must be a DelayRule, such as DelayRule(scale=2.0), got a {type(rule).__name__}; "
        f"set the delays themselves with the layer's set_{name.replace('rule', 'delay')}s_"
    )


class Delayed(nn.Module):
    """A layer whose delays can be set."""

    delay_rule: Any
    delay_raw: Any

    @property
    def delay(self) -> Any:
        """The delays, >= 0, without jitter; None without delays."""
        return None if self.delay_rule is None or self.delay_raw is None else self.delay_rule(self.delay_raw)

    @torch.no_grad()
    def set_delays_(self, delay: float | Float[Tensor, "*shape"]) -> None:
        """Set the delays. They are trained, saved and redrawn as before.

        Args:
            delay: in the unit of the times: one for all, or in the shape of ``delay_raw``.

        Raises:
            ValueError: no delays, delays out of the bounds of their rule, or of another shape.
        """
        if self.delay_rule is None or self.delay_raw is None:
            raise ValueError(f"{self._get_name()} has no delays to set; make it with delay=fs.DelayRule(...)")
        self.delay_raw.copy_(self.delay_rule.raw_of(delay, self.delay_raw))


@checks_ranges
class Delay(Delayed, SpikeLayer):
    """Adds a delay to each spike: ``times (..., features) -> times (..., features)``. ``inf`` stays ``inf``.

    With ``trains`` all spikes of an input get its delay: ``(batch, features[, spikes]) -> (batch, features, spikes)``,
    sorted as before.

    Args:
        features: number of inputs.
        rule: initial values, bounds and jitter of the delays.
        copies: number of neighbouring inputs that share one delay: the copies that ``Multiplex(copies)`` makes of an
            input, or the pixels of a channel.
        trains: whether the spikes are spike trains, before or after layers such as ``SpikeTrains``.
        generator: source of the initial values; torch's global one by default.
        device: as in torch.
        dtype: as in torch.

    Raises:
        ValueError: features or copies < 1, or features that are not a multiple of the copies.
    """

    def __init__(
        self,
        features: Size,
        rule: DelayRule | None = None,
        *,
        copies: Size = 1,
        trains: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if features % copies:
            raise ValueError(f"{copies} copies cannot share delays among {features} features: no whole multiple")
        self.features = self.in_features = self.out_features = features
        self.rule = self.delay_rule = checked_rule("rule", rule) or DelayRule()
        self.copies = copies
        self.trains = self.takes_trains = trains
        self.gives = "trains" if trains else "first spikes"
        self.delay_raw = nn.Parameter(torch.empty(features // copies, device=device, dtype=dtype), self.rule.trainable)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Redraw the delays."""
        self.rule.draw_(self.delay_raw, generator)

    @property
    def delay(self) -> Float[Tensor, " features"]:
        """The delays, >= 0, without jitter."""
        delay = self.rule(self.delay_raw)
        return delay if self.copies == 1 else delay.repeat_interleave(self.copies)

    @property
    def added(self) -> Float[Tensor, "*features_1"]:
        """The delays as they are added to times: ``(features,)``, of trains ``(features, 1)``."""
        return self.delay.unsqueeze(-1) if self.trains else self.delay

    def forward(self, times: Spikes, observed: Float[Tensor, "*shape"] | None = None) -> Float[Tensor, "*shape"]:
        """Delayed times; with ``observed``, these times and the gradient of the sum."""
        if self.trains:
            times = self._as_trains(times)
        else:
            self._check_first(times, f"write {self._name[:-1]}, trains=True)")
        delay = self.added
        if observed is not None:
            return at_observed(times + delay, observed)
        if not self.training or not self.rule.jitter:
            return times + delay
        delayed = times + self.rule.jittered(delay, times, self.noise)
        return delayed.sort(dim=-1, stable=True).values if self.trains else delayed
