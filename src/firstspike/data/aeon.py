"""Labelled time series of the UCR and UEA archives as spike trains, through aeon."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from firstspike.data.base import SpikeData, Splits, no_trains
from firstspike.data.labels import class_indices
from firstspike.data.series_encoding import as_series, series_encoder
from firstspike.data.splits import Samples, divided
from firstspike.ranges import Seed
from firstspike.text import first_line, needed

_KNOWN = {"JapaneseVowels": (12, tuple("123456789"))}
"""Channels and class names of sets whose configs can be checked without their files."""


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
        folder: folder in which aeon looks for, and saves, sets that its package does not have; by default its
            own folder.
        encode: encoder of the series: `kind`, which is `level_crossing` or `threshold`, and its arguments, see
            `LevelCrossingEncoder` and `ThresholdEncoder`. Ranges are those of the training part. By default
            `level_crossing` with its defaults.
        dtype: of the times.
    """
    encoder = series_encoder(encode)
    learn = _load(name, "train", folder)
    test = _load(name, "test", folder, learn.class_names)
    parts = divided(learn, validation, 0, seed, encoder, dtype)
    return parts._replace(test=test.data(parts.train.encoder, dtype))


def time_series_outline(name: str, encode: dict[str, Any] | None, **options: Any) -> SpikeData:
    """Inputs and class names without samples, of a set that is known without its files; otherwise they are read."""
    if name not in _KNOWN:
        return time_series_splits(name=name, encode=encode, **options).train.empty()
    channels, class_names = _KNOWN[name]
    return no_trains(channels * series_encoder(encode).inputs_per_channel, class_names)


def _load(name: str, part: str, folder: str | Path | None, class_names: tuple[str, ...] | None = None) -> Samples:
    """Series ``(samples, channels, time)``, NaN after their end, and labels, from aeon."""
    datasets = needed("aeon.datasets", "timeseries", f"aeon, which reads {name},")
    try:
        values, labels = datasets.load_classification(
            name, split=part, extract_path=None if folder is None else str(folder)
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name}: aeon cannot load it ({first_line(error)}); choose a set of its package, such as JapaneseVowels"
        ) from None
    return Samples(as_series(values), *class_indices(np.asarray(labels), len(values), class_names))
