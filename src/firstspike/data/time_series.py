"""Labelled time series of the UCR and UEA archives as spike trains, through aeon."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstspike.data.base import SpikeData, Splits
from firstspike.data.series import as_series, series_encoder
from firstspike.data.splits import class_indices, divided, spike_data
from firstspike.ranges import Seed
from firstspike.text import needed


class _Known(NamedTuple):
    """Channels and classes of a set."""

    channels: int
    class_names: tuple[str, ...]


_KNOWN = {"JapaneseVowels": _Known(12, tuple("123456789"))}
"""Sets whose configs can be checked without their files."""


def time_series_splits(
    name: str = "JapaneseVowels",
    validation: float = 0.2,
    seed: Seed = 42,
    folder: str | Path | None = None,
    encode: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """A labelled set of time series as spike trains, by its name in the UCR and UEA archives (extra `timeseries`).

    aeon (Middlehurst et al., J. Mach. Learn. Res. 25, 289, 2024) has `JapaneseVowels`, `BasicMotions`, `GunPoint` and a
    few others in its package, and downloads the rest. The sets come with their test data.

    JapaneseVowels: nine speakers say two vowels; 12 coefficients of their spectra at 7 to 29 times; 270 recordings for
    training, 370 for tests (Kudo, Toyama and Shimbo, Pattern Recognit. Lett. 20, 1103, 1999).

    Args:
        name: name of the set, as in the archives.
        validation: part of its training data that is held out: below 1 a fraction, from 1 on the number of samples; 0
            for none.
        seed: seed of the random choice of the held-out samples.
        folder: where aeon looks for sets that its package does not have, and puts what it downloads; by default its
            own folder.
        encode: encoder of the series: `kind`, which is `level_crossing` or `threshold`, and its arguments, see
            `LevelCrossingEncoder` and `ThresholdEncoder`. Ranges are those of the training part. By default
            `level_crossing` with its defaults.
        dtype: of the times.

    Returns:
        Spike trains `(samples, inputs, spikes)`, padded with `inf`, and labels `(samples,)`. The `encoder` of the parts
        is the fitted one.

    Raises:
        ImportError: aeon is missing.
        FileNotFoundError: no such set, or it cannot be downloaded.
        ValueError: an encoder that does not fit, series with gaps.
    """
    encoder = series_encoder(encode)
    (series, labels), (fresh, truth) = (_load(name, part, folder) for part in ("train", "test"))
    classes, names = class_indices(labels, len(series))
    parts = divided(series, None, classes, names, validation, 0, seed, True, encoder, dtype)
    targets, _ = class_indices(truth, len(fresh), names)
    return parts._replace(test=spike_data(fresh, targets, names, None, parts.train.encoder, dtype))


def time_series_outline(
    name: str = "JapaneseVowels", encode: dict[str, Any] | None = None, **options: Any
) -> SpikeData:
    """Inputs and class names without samples, of a set that is known without its files; otherwise they are read."""
    known = _KNOWN.get(name)
    if known is None:
        return time_series_splits(name=name, encode=encode, **options).train.empty()
    encoder = series_encoder(encode)
    inputs = known.channels * encoder.inputs_per_channel
    return SpikeData(torch.empty(0, inputs, 1), torch.empty(0, dtype=torch.int64), known.class_names)


def _load(name: str, part: str, folder: str | Path | None) -> tuple[Tensor, np.ndarray]:
    """Series ``(samples, channels, time)``, NaN after their end, and labels, from aeon."""
    datasets = needed("aeon.datasets", "timeseries", f"aeon, which reads {name},")
    try:
        values, labels = datasets.load_classification(
            name, split=part, extract_path=None if folder is None else str(folder)
        )
    except (OSError, ValueError) as error:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise FileNotFoundError(
            f"{name}: aeon cannot load it ({said}); choose a set of its package, such as JapaneseVowels"
        ) from None
    return as_series(values), np.asarray(labels)
