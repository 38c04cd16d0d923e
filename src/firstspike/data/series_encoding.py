"""From time series to spike trains: encoders that send an event when a signal crosses a level."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from firstspike.data.arrays import unmasked
from firstspike.data.encoding import Encoder, LatencyEncoder
from firstspike.data.events import numbered, padded_trains
from firstspike.ranges import Positive, Size, checks_ranges
from firstspike.signature import takes_arguments_of

Series = Sequence[ArrayLike | Tensor] | ArrayLike | Tensor
"""Signals ``(samples, channels, time)``, or for samples of different lengths a list of ``(channels, time)`` each."""

Crossings = Iterator[tuple[Int64[Tensor, " events"], Float64[Tensor, " events"]]]
"""Events between two values: ``signal * inputs_per_channel + input`` and the fraction of the interval that passed."""

MOST_EVENTS = 10**6
"""Most events of one signal."""


def as_series(values: Series) -> Float64[Tensor, "samples channels time"]:
    """Signals as one tensor on the CPU. Those of shorter samples end with NaN."""
    signals: list[Tensor] = []
    for sample, given in enumerate(values):  # type: ignore[arg-type]  # (an array is a sequence of its rows)
        array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(unmasked(given))
        if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
            raise ValueError(
                f"values: expected numbers (channels, time) for each sample, got {array.dtype} of shape {array.shape} "
                f"for sample {sample}; a single channel has the shape (1, time)"
            )
        if signals and len(array) != len(signals[0]):
            raise ValueError(
                f"values: expected {len(signals[0])} channels in every sample, got {len(array)} in sample {sample}"
            )
        signal = torch.from_numpy(array.astype(np.float64))
        gaps = torch.isnan(signal[:, :-1]) & ~torch.isnan(signal[:, 1:])
        if bool(torch.isinf(signal).any()) or bool(gaps.any()):
            raise ValueError(
                f"values: expected finite numbers, NaN only after the end of a signal, got others in sample {sample}; "
                "fill gaps first, for instance by interpolation"
            )
        signals.append(signal)
    if not signals:
        return torch.empty(0, (*np.shape(values), 0)[1], 1, dtype=torch.float64)  # type: ignore[arg-type]
    series = pad_sequence([signal.T for signal in signals], batch_first=True, padding_value=math.nan)
    return series.movedim(1, 2).contiguous()


@dataclass(frozen=True)
class SeriesEncoder(Encoder):
    """Base class of encoders of time series: the range of each channel, and the time axis.

    A signal is scaled so that the range of the training part is 0 ... 1. It starts at 0 at the time 0, reaches its
    first value at the time `dt`, and is linear between values. So the first value of a sample also causes spikes.

    Args:
        dt: time between two values of a signal, in units of `tau_syn`.
        per_channel: each channel has its own range; False: all channels share one.
        low: smallest value of each channel, as found by `fit`.
        high: largest value of each channel.

    Raises:
        ValueError: a number out of its range; `low` and `high` that are not finite, or out of order.
    """

    levels: Size = 8
    dt: Positive = 0.1
    per_channel: bool = True

    _active: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # between which signals make events

    @property
    @abstractmethod
    def inputs_per_channel(self) -> int:
        """Number of inputs that one channel is encoded by."""

    def fit(self, values: Series) -> Self:
        """Learn the ranges of these signals and return the encoder.

        Args:
            values: `(samples, channels, time)`, or a list of `(channels, time)` of different lengths; NaN after the end
                of a signal.

        Raises:
            ValueError: values of another shape or kind, infinite values, gaps.
        """
        return self._fitted(as_series(values), (0, 2), self.per_channel)

    def __call__(self, values: Series, dtype: torch.dtype = torch.float32) -> Float[Tensor, "samples inputs spikes"]:
        """Spike trains of signals.

        Args:
            values: as in `fit`.
            dtype: of the times. They are computed in float64.

        Returns:
            Times `(samples, channels * inputs_per_channel, spikes)`, sorted along the last dimension, `inf` after the
            last spike.

        Raises:
            ValueError: an encoder that has not been fitted, another number of channels, signals that make more events
                than fit (`MOST_EVENTS` each), and as in `fit`.
        """
        low, high = (end.unsqueeze(-1) for end in self._ranges())
        series = as_series(values)
        samples, channels, _ = series.shape
        each = self.inputs_per_channel
        if channels != self.features:
            raise ValueError(f"values: expected {self.features} channels, got {channels}")
        scaled = torch.where(high > low, (series - low) / (high - low), 0.0 * series).flatten(0, 1)
        whole = torch.cat([torch.zeros_like(scaled[:, :1]), scaled], dim=1)
        self._check_events(series, whole)
        rows, times = [], []
        for step, (row, fraction) in enumerate(self._crossings(whole.unbind(1))):
            signal, part = row // each, row % each
            rows.append((signal // channels * each + part) * channels + signal % channels)
            times.append((step + fraction) * self.dt)
        trains = padded_trains(torch.cat(rows), torch.cat(times).to(dtype), samples * channels * each)
        return trains.unflatten(0, (samples, channels * each))

    def _check_events(
        self, series: Float64[Tensor, "samples channels time"], scaled: Float64[Tensor, "signals time+1"]
    ) -> None:
        """Raise a ValueError that names the signal which makes the most events, unless they are few enough."""
        change = scaled.clamp(*self._active).diff(dim=1).abs()
        events = self.levels * change.nan_to_num(0.0, posinf=math.inf).sum(dim=1)
        if len(events) and not float(events.max()) <= MOST_EVENTS:
            sample, channel = divmod(int(events.argmax()), self.features)
            signal = series[sample, channel]
            values = signal[~torch.isnan(signal)]
            low, high = (self.low or ())[channel], (self.high or ())[channel]
            raise ValueError(
                f"values: expected at most {MOST_EVENTS} events of a signal, got about {float(events.max()):.2g} of "
                f"channel {channel} in sample {sample}: it goes from {float(values.min()):g} to "
                f"{float(values.max()):g}, the training part from {low:g} to {high:g}. Leave outliers out, or lower "
                f"levels={self.levels}"
            )

    @abstractmethod
    def _crossings(self, steps: Sequence[Float64[Tensor, " signals"]]) -> Crossings:
        """Events, from the values of all signals at the start, and then at every time step."""


@takes_arguments_of(SeriesEncoder)
@checks_ranges
@dataclass(frozen=True)
class LevelCrossingEncoder(SeriesEncoder):
    """Encodes changes of signals: an event for each step up or down (send on delta).

    Each channel has two inputs: "up" spikes when the signal has risen by `1 / levels` of the range since the last event
    of the channel, "down" when it has fallen by that. First come the "up" inputs of all channels, then the "down"
    inputs. Event times are exact for signals that run in straight lines between their values.

    A signal starts at 0, the lowest value, at the time 0, and reaches its first value at the time `dt`::

        encoder = fs.data.LevelCrossingEncoder(levels=8, dt=0.2).fit(train)
        times = encoder(test)                                       # (samples, 2 * channels, spikes)

    Args:
        levels: number of steps from the smallest to the largest value of the training part.
    """

    kind = "level_crossing"
    inputs_per_channel = 2  # "up" and "down"

    def _crossings(self, steps: Sequence[Float64[Tensor, " signals"]]) -> Crossings:
        reached = torch.zeros_like(steps[0])  # in steps: the level of the last event
        for before, after in pairwise(steps):
            change = (after * self.levels - reached).nan_to_num(0.0)
            signal, number = numbered(change.abs().floor().long())
            sign = change.sign()[signal]
            level = (reached[signal] + sign * (number + 1)) / self.levels
            fraction = ((level - before[signal]) / (after - before)[signal]).clamp(0, 1)
            reached = reached + change.trunc()
            yield 2 * signal + (sign < 0).long(), fraction


@takes_arguments_of(SeriesEncoder)
@checks_ranges
@dataclass(frozen=True)
class ThresholdEncoder(SeriesEncoder):
    """Encodes the times at which signals cross fixed thresholds.

    Each channel has `levels` thresholds, evenly spaced inside the range of the training part, and for each of them an
    input that spikes when the signal rises through it. First come the inputs of the lowest threshold of all channels,
    then those of the next one. Event times are exact for signals that run in straight lines between their values.

    A signal starts below all thresholds at the time 0, and reaches its first value at the time `dt`.

    Args:
        levels: number of thresholds of each channel.
    """

    kind = "threshold"
    _active = (0.0, 1.0)

    @property
    def inputs_per_channel(self) -> int:
        """One for each threshold."""
        return self.levels

    def _crossings(self, steps: Sequence[Float64[Tensor, " signals"]]) -> Crossings:
        thresholds = torch.arange(1, self.levels + 1, dtype=torch.float64) / (self.levels + 1)
        for before, after in pairwise(steps):
            was, now = (torch.searchsorted(thresholds, x.contiguous(), right=True) for x in (before, after))
            signal, number = numbered(torch.where(torch.isnan(after), 0, now - was).clamp(min=0))
            place = was[signal] + number
            yield signal * self.levels + place, (thresholds[place] - before[signal]) / (after - before)[signal]


_KINDS: dict[str, type[SeriesEncoder]] = {"level_crossing": LevelCrossingEncoder, "threshold": ThresholdEncoder}


def as_encoder(encode: Encoder | Mapping[str, Any]) -> Encoder:
    """The encoder, or the one that a dict of its arguments describes: for signals if it has a `kind`."""
    if isinstance(encode, Encoder):
        return encode
    signals = isinstance(encode, Mapping) and "kind" in encode
    return series_encoder(encode) if signals else LatencyEncoder.from_dict(encode)


def series_encoder(settings: Mapping[str, Any] | None, **usual: Any) -> SeriesEncoder:
    """The encoder that a dict of its `kind` and arguments describes; without one a `LevelCrossingEncoder` as usual."""
    if settings is None:
        return LevelCrossingEncoder(**usual)
    if not isinstance(settings, Mapping) or settings.get("kind") not in list(_KINDS):  # it may be a list
        raise ValueError(f"encode: expected a kind out of {', '.join(_KINDS)} and its arguments, got {settings!r}")
    return _KINDS[settings["kind"]].from_dict(settings)
