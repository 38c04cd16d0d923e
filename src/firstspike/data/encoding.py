"""Encoders from values to spike times, and their shared base."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import as_table
from firstspike.ranges import Finite, NotNegative, checks_ranges


def latency(
    values: Float[Tensor, "*shape"],
    early: float = 0.15,
    late: float = 2.0,
    invert: bool = False,
    silent_background: bool = False,
) -> Float[Tensor, "*shape"]:
    """Times of values in [0, 1]: 0 spikes at `early` and 1 at `late`, with `invert` the other way round.

    With `silent_background`, values exactly at the late end (0 if inverted, otherwise 1) never spike: `inf`.
    """
    check_window(early, late)
    times = early + (1 - values if invert else values) * (late - early)
    if silent_background:
        times = torch.where(values == (0 if invert else 1), math.inf, times)
    return times


@dataclass(frozen=True)
class Encoder(ABC):
    """Base class of encoders: the ranges of values, and a form for JSON or YAML."""

    low: Sequence[float] | None = field(default=None, kw_only=True)
    high: Sequence[float] | None = field(default=None, kw_only=True)

    kind: ClassVar[str | None] = None  # in a dict of an encoder's arguments; a LatencyEncoder has none

    def __post_init__(self) -> None:
        for name, default in ((each.name, each.default) for each in fields(self)):
            if isinstance(default, bool) and not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        if self.low is None and self.high is None:
            return
        low, high = (self._ends(name) for name in ("low", "high"))
        if len(low) != len(high) or not all(0 <= b - a < math.inf for a, b in zip(low, high, strict=True)):
            raise ValueError("low, high: expected as many of one as of the other, finite, and no low above its high")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def _ends(self, name: str) -> tuple[float, ...]:
        ends = getattr(self, name)
        if not isinstance(ends, list | tuple) or not ends or not all(isinstance(end, Real) for end in ends):
            each = "channel" if self.kind else "feature"
            raise ValueError(f"{name}: expected a list of numbers, one per {each}, got {ends!r}")
        return tuple(map(float, ends))

    @property
    def features(self) -> int:
        """Number of values of a sample, or of channels of a signal; 0 before `fit`."""
        return len(self.low or ())

    @abstractmethod
    def fit(self, values: Any) -> Self:
        """Learn the ranges of these values and return the encoder."""

    @abstractmethod
    def __call__(self, values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        """Spike times of values."""

    def _fitted(self, values: Float64[Tensor, "samples ..."], dims: tuple[int, ...], apart: bool) -> Self:
        """The same encoder with ranges over these dimensions, ignoring NaN; one for all unless they are `apart`."""
        if not len(values):
            raise ValueError("values: expected at least one sample to fit the encoder to, got none")
        known = ~torch.isnan(values)
        low = torch.where(known, values, math.inf).amin(dim=dims)
        high = torch.where(known, values, -math.inf).amax(dim=dims)
        if not apart:
            low, high = low.amin().expand_as(low), high.amax().expand_as(high)
        low, high = low.where(low <= high, 0.0), high.where(low <= high, 0.0)  # 0 without any value
        return replace(self, low=low.tolist(), high=high.tolist())

    def _ranges(self) -> tuple[Float64[Tensor, " features"], Float64[Tensor, " features"]]:
        if self.low is None or self.high is None:
            name = type(self).__name__
            raise ValueError(f"this {name} has no ranges yet: use encoder = encoder.fit(training_values)")
        return torch.tensor(self.low, dtype=torch.float64), torch.tensor(self.high, dtype=torch.float64)

    def to_dict(self) -> dict[str, Any]:
        """Settings and ranges as plain values, for JSON or YAML."""
        settings = {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}
        return settings if self.kind is None else {"kind": self.kind} | settings

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """The encoder that `to_dict` stored.

        Raises:
            ValueError: unknown names, or values that do not fit.
        """
        known = [each.name for each in sorted(fields(cls), key=lambda each: bool(each.kw_only))]
        if not isinstance(stored, Mapping):
            raise ValueError(f"encode: expected the keys {', '.join(known)}, got {stored!r}")
        given = {name: x for name, x in stored.items() if name != "kind" or x != cls.kind}
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"encode: unknown key {unknown[0]!r}; valid keys: {', '.join(known)}")
        return cls(**given)


@checks_ranges
@dataclass(frozen=True)
class LatencyEncoder(Encoder):
    """Encodes values of any range by spike times: the smallest value of the training part spikes first.

    `fit` takes the range of each feature from the training part, and returns an encoder that maps this range linearly
    to `early ... late`::

        encoder = fs.data.LatencyEncoder(late=1.5).fit(train)
        times = encoder(test)

    * Values outside the range are clipped to it.
    * Missing values, NaN, do not spike: their time is `inf`.
    * A feature that is constant in the training part, or has no value there, always spikes at the time of the smallest
      value.

    The default window is that of Göltz et al., Nat. Mach. Intell. 3, 823 (2021).

    Args:
        early: earliest spike time, at least 0, in units of `tau_syn`.
        late: latest spike time, later than `early`.
        per_feature: each feature has its own range; False: all features share one.
        invert: large values spike first.
        on_off: two inputs for each value: an "on" channel as described above, and after all of them an "off" channel
            encoded the other way round, so that one of the two spikes early. Networks often learn tables better with
            both.
        low: smallest value of each feature, as found by `fit`.
        high: largest value of each feature.

    Raises:
        ValueError: a window that violates `0 <= early < late`; `low` and `high` that are not finite, or out of order.
    """

    early: NotNegative = 0.15
    late: Finite = 2.0
    per_feature: bool = True
    invert: bool = False
    on_off: bool = True

    def __post_init__(self) -> None:
        check_window(self.early, self.late)
        super().__post_init__()

    @property
    def blank(self) -> tuple[float, ...]:
        """Spike time of the smallest value, for `on_off` in the "on" and in the "off" channel."""
        return tuple(self.late if way else self.early for way in self._ways)

    def fit(self, values: ArrayLike | Tensor) -> Self:
        """Learn the ranges of these values, ignoring NaN, and return the encoder.

        Args:
            values: `(samples, features)`, numbers or NaN. Images are flattened.

        Raises:
            ValueError: values of another shape or kind, infinite values, ranges beyond float64.
        """
        return self._fitted(as_table(values, "values")[0], (0,), self.per_feature)

    def __call__(
        self, values: ArrayLike | Tensor, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "samples inputs"]:
        """Spike times of values.

        Args:
            values: `(samples, features)`, numbers or NaN.
            dtype: of the times. They are computed in float64.

        Returns:
            Times `(samples, features)`, twice as many columns with `on_off`; `inf` if the value is missing.

        Raises:
            ValueError: an encoder that has not been fitted, values of another shape or kind, infinite values.
        """
        low, high = self._ranges()
        table, _ = as_table(values, "values", self.features)
        fraction = torch.where(high > low, (table - low) / (high - low), 0.0).clamp(0, 1)
        channels = [latency(fraction, self.early, self.late, way) for way in self._ways]
        times = torch.cat([torch.where(torch.isnan(table), math.inf, channel) for channel in channels], dim=1)
        return times.to(values.device if isinstance(values, Tensor) else None, dtype)

    def decode(self, times: Float[Tensor, "samples inputs"]) -> Float64[Tensor, "samples features"]:
        """The values that times stand for, NaN without a spike.

        Args:
            times: as this encoder returns them. The first channel is read.

        Returns:
            Values `(samples, features)`. Those outside a range are at its ends.
        """
        low, high = self._ranges()
        fraction = (times[:, : self.features].double().cpu() - self.early) / (self.late - self.early)
        fraction = 1 - fraction if self.invert else fraction
        return torch.where(fraction.isfinite(), low + (high - low) * fraction, math.nan)

    def by_values(self, by_times: Float[Tensor, "samples inputs"]) -> Float64[Tensor, "samples features"]:
        """Derivatives with respect to values, of all channels together.

        Args:
            by_times: derivatives with respect to the times `(samples, inputs)`.

        Returns:
            Derivatives `(samples, features)`, where the range of a feature is 1.
        """
        signs = torch.tensor([-1.0 if way else 1.0 for way in self._ways], dtype=torch.float64)
        channels = by_times.double().cpu().unflatten(1, (len(signs), -1))
        return (self.late - self.early) * torch.einsum("scf,c->sf", channels, signs)

    @property
    def _ways(self) -> tuple[bool, ...]:
        """Whether large values spike first, in the "on" and in the "off" channel."""
        return (self.invert, not self.invert) if self.on_off else (self.invert,)


def check_window(early: float, late: float) -> None:
    """Raise a ValueError unless ``0 <= early < late < inf``."""
    if not 0 <= early < late < math.inf:
        raise ValueError(
            f"early, late: expected finite times with 0 <= early < late, got {early} and {late}. "
            "To let large values spike first use invert=True."
        )
