"""From values to spike times."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import as_table, as_tensor
from firstspike.signature import takes_arguments_of

_Encoder = TypeVar("_Encoder")


def latency(
    values: Float[Tensor, "*shape"] | ArrayLike,
    early: float = 0.15,
    late: float = 2.0,
    invert: bool = False,
    silent_background: bool = False,
) -> Float[Tensor, "*shape"]:
    """Encode each value by the time of one spike, linearly between `early` and `late`.

    ===== ============================ =========================================
    value `invert=False` (coordinates) `invert=True` (images: ink or light is 1)
    ===== ============================ =========================================
    0     `early`                      `late`
    1     `late`                       `early`
    ===== ============================ =========================================

    The defaults are those of Göltz et al., Nat. Mach. Intell. 3, 823 (2021).

    Args:
        values: numbers in [0, 1], any shape, floating point; a tensor, an array or a list.
        early: earliest spike time, at least 0, in units of `tau_syn`.
        late: latest spike time, later than `early`.
        invert: let large values spike first.
        silent_background: values exactly at the late end (0 if inverted, otherwise 1) never spike: `inf`.

    Returns:
        Spike times, of the shape and dtype of `values`.

    Raises:
        ValueError: a value outside [0, 1] or NaN, values that are not floating point, a window that violates
            `0 <= early < late`.
    """
    check_window(early, late)
    values = as_tensor("values", values)
    if not values.is_floating_point():
        raise ValueError(
            f"values: expected floating point, got {values.dtype}. Convert to it, pixels of 8 bits by values / 255."
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"values: expected numbers in [0, 1], got {values.min().item():g} ... {values.max().item():g}. "
            "Rescale them, for instance with firstspike.data.encode."
        )
    fraction = 1 - values if invert else values
    times = early + fraction * (late - early)
    if silent_background:
        background = values == (0 if invert else 1)
        times = torch.where(background, math.inf, times)
    return times


def first_spikes(
    raster: Tensor | ArrayLike, dt: float, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, " batch *inputs"]:
    """First spike times of a raster, the tensor of zeros and ones that libraries with time steps use.

    Steps are counted from 0, and a spike in step `k` has the time `k * dt`. Later spikes of the same input are ignored.
    The result has no gradient.

    Args:
        raster: `(steps, batch, inputs)` or, for images, `(steps, batch, channels, height, width)`: time first, as in
            snnTorch, Norse and SpikingJelly. 0 and 1, or bool; a tensor, an array or a list.
        dt: length of a time step, in units of `tau_syn`.
        dtype: of the times.

    Returns:
        Times `(batch, inputs)` or `(batch, channels, height, width)`; `inf` for no spike in any step.

    Raises:
        ValueError: a raster of another shape, without steps, or with other values than 0 and 1; `dt` that is not a
            positive, finite number.
    """
    spikes = checked_raster(raster, dt)
    times = spikes.to(torch.uint8).argmax(dim=0).double() * dt
    return torch.where(spikes.any(dim=0), times, math.inf).to(dtype)


def checked_raster(raster: Tensor | ArrayLike, dt: float) -> Bool[Tensor, "steps batch *inputs"]:
    """A raster as bool.

    Raises:
        ValueError: see ``first_spikes``.
    """
    raster = as_tensor("raster", raster)
    if raster.ndim < 3 or not len(raster):
        one = "; for a single sample pass raster[:, None]" if raster.ndim == 2 else ""
        raise ValueError(
            f"raster: expected (steps, batch, inputs) with at least one step, got {tuple(raster.shape)}{one}"
        )
    if not (is_number(dt) and 0 < dt < math.inf):
        raise ValueError(f"dt: expected a positive number, the length of a time step in units of tau_syn, got {dt!r}")
    spikes = raster != 0
    if not bool((spikes == raster).all()):
        other = raster[spikes & (raster != 1)][0].item()
        raise ValueError(f"raster: expected 0 and 1 only, got {other:g}; if these are spike counts, pass raster > 0")
    return spikes


@dataclass(frozen=True)
class LatencyEncoder:
    """Encodes values of any range by spike times: the smallest value of the training part spikes first.

    `fit` takes the range of each feature from the training part, and returns an encoder that maps this range linearly
    to `early ... late`::

        encoder = fs.data.LatencyEncoder(late=1.5).fit(train)
        times = encoder(test)

    * Values outside the range are clipped to it.
    * Missing values, NaN, do not spike: their time is `inf`.
    * A feature that is constant in the training part, or has no value there, always spikes at the time of the smallest
      value.

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

    early: float = 0.15
    late: float = 2.0
    per_feature: bool = True
    invert: bool = False
    on_off: bool = True
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_window(self.early, self.late)
        for name in ("per_feature", "invert", "on_off"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        check_ranges(self, "feature")

    @property
    def features(self) -> int:
        """Number of values of a sample, with `on_off` half the number of inputs; 0 before `fit`."""
        return len(self.low or ())

    @property
    def blank(self) -> tuple[float, ...]:
        """Spike time of the smallest value, for `on_off` in the "on" and in the "off" channel."""
        return self._channels(self.late, self.early) if self.invert else self._channels(self.early, self.late)

    def fit(self, values: ArrayLike | Tensor) -> "LatencyEncoder":
        """The same encoder with the ranges of these values; NaN is ignored.

        Args:
            values: `(samples, features)`, numbers or NaN; images are flattened.

        Raises:
            ValueError: values of another shape or kind, infinite values, ranges beyond float64.
        """
        table = _finite_table(values)
        if not len(table):
            raise ValueError("values: expected at least one sample to fit the encoder to, got none")
        low, high = ranges(table, (0,), self.per_feature)
        return replace(self, low=low, high=high)

    def __call__(
        self, values: ArrayLike | Tensor, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "samples inputs"]:
        """Spike times of values.

        Args:
            values: `(samples, features)`, numbers or NaN.
            dtype: of the times; they are computed in float64.

        Returns:
            Times `(samples, features)`, twice as many columns with `on_off`; `inf` if the value is missing.

        Raises:
            ValueError: an encoder that has not been fitted, values of another shape or kind, infinite values.
        """
        if self.low is None or self.high is None:
            raise ValueError("this LatencyEncoder has no ranges yet: use encoder = encoder.fit(training_values)")
        table = _finite_table(values, self.features)
        low, high = (torch.tensor(end, dtype=torch.float64) for end in (self.low, self.high))
        fraction = torch.where(high > low, (table - low) / (high - low), 0.0).clamp(0, 1)
        known = fraction.nan_to_num(0.0)
        channels = [latency(known, self.early, self.late, way) for way in self._channels(self.invert, not self.invert)]
        times = torch.cat([torch.where(torch.isnan(table), math.inf, channel) for channel in channels], dim=1)
        return times.to(values.device if isinstance(values, Tensor) else None, dtype)

    def to_dict(self) -> dict[str, Any]:
        """Settings and ranges as plain values, for JSON or YAML; see `from_dict`."""
        return plain_settings(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "LatencyEncoder":
        """The encoder that `to_dict` stored.

        Raises:
            ValueError: unknown names, or values that do not fit.
        """
        return from_settings(cls, stored)

    def _channels(self, on: Any, off: Any) -> tuple[Any, ...]:
        return (on, off) if self.on_off else (on,)


@takes_arguments_of(LatencyEncoder, without=("low", "high"))
def encode(
    values: ArrayLike | Tensor, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Float[Tensor, "samples inputs"]:
    """Encode values of any range by spike times: the smallest one spikes first, see `LatencyEncoder`.

    The ranges are those of `values` themselves. To encode other values in the same way, keep a `LatencyEncoder`; to
    take the ranges from the training part alone, `firstspike.data.split` has the argument `encode`.

    Args:
        values: `(samples, features)`, an array, tensor or nested list; NaN is a missing value.
        dtype: of the times; they are computed in float64.

    Returns:
        Times `(samples, features)`, twice as many columns with `on_off`; `inf` if the value is missing.

    Raises:
        ValueError: a window that violates `0 <= early < late`, values of another shape or kind, infinite values.
    """
    return LatencyEncoder(**options).fit(values)(values, dtype)


def _finite_table(values: ArrayLike | Tensor, features: int | None = None) -> Float64[Tensor, "samples features"]:
    table, _ = as_table(values, "values", features)
    if bool(torch.isinf(table).any()):
        row, column = torch.isinf(table).nonzero()[0].tolist()
        raise ValueError(
            f"values: expected finite numbers or NaN (missing), got {float(table[row, column])} at [{row}, {column}]"
        )
    return table


def check_ranges(encoder: Any, each: str) -> None:
    """Raise a ValueError unless ``low`` and ``high`` of an encoder fit together; they become tuples of floats."""
    if encoder.low is None and encoder.high is None:
        return
    for name in ("low", "high"):
        ends = getattr(encoder, name)
        if not isinstance(ends, list | tuple) or not ends or not all(map(is_number, ends)):
            raise ValueError(f"{name}: expected a list of numbers, one per {each}, got {ends!r}")
        object.__setattr__(encoder, name, tuple(map(float, ends)))
    low, high = encoder.low, encoder.high
    if len(low) != len(high) or not all(0 <= b - a < math.inf for a, b in zip(low, high, strict=True)):
        raise ValueError("low, high: expected as many of one as of the other, finite, and no low above its high")


def ranges(values: Float64[Tensor, "..."], dims: tuple[int, ...], apart: bool) -> tuple[list[float], list[float]]:
    """Smallest and largest values over some dimensions, ignoring NaN; without any value both are 0.

    Args:
        values: finite or NaN.
        dims: over which.
        apart: each has its own range; otherwise all share one.
    """
    known = ~torch.isnan(values)
    low = torch.where(known, values, math.inf).amin(dim=dims)
    high = torch.where(known, values, -math.inf).amax(dim=dims)
    if not apart:
        low, high = low.amin().expand_as(low), high.amax().expand_as(high)
    unknown = low > high
    return torch.where(unknown, 0.0, low).tolist(), torch.where(unknown, 0.0, high).tolist()


def plain_settings(encoder: Any) -> dict[str, Any]:
    """The arguments of an encoder as plain values."""
    return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(encoder).items()}


def from_settings(target: type[_Encoder], settings: Mapping[str, Any]) -> _Encoder:
    """An encoder from its arguments; a ValueError names those that are unknown."""
    known = [field.name for field in fields(target)]  # type: ignore[arg-type]
    if not isinstance(settings, Mapping):
        raise ValueError(f"encode: expected the keys {', '.join(known)}, got {settings!r}")
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(f"encode: unknown key {unknown[0]!r}; valid keys: {', '.join(known)}")
    return target(**settings)


def check_window(early: float, late: float) -> None:
    """Raise a ValueError unless ``0 <= early < late < inf``."""
    if not (is_number(early) and is_number(late) and 0 <= early < late < math.inf):
        raise ValueError(
            f"early, late: expected finite times with 0 <= early < late, got {early} and {late}. "
            "To let large values spike first use invert=True."
        )


def is_number(value: object) -> bool:
    """Whether this is a real number; booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool)
