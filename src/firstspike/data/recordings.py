"""Recorded sounds as spike trains: a model of the inner ear, and the Free Spoken Digit Dataset."""

import math
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import as_tensor
from firstspike.data.base import SpikeData, Splits, no_trains
from firstspike.data.paths import folder_of
from firstspike.data.series_encoding import as_series, series_encoder
from firstspike.data.splits import Samples, divided
from firstspike.ranges import Positive, Seed, Size, checks_ranges

WHERE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_RECORDINGS = 5  # recordings of each speaker and digit, by the data set's own rule
_LOWEST = 100.0  # Hz
_MOST_RATE = 10**6  # of a file that is not damaged
_USUAL = {"levels": 8, "dt": 1.0}


@checks_ranges
def cochleagram(
    sound: Float[Tensor, " values"] | ArrayLike,
    rate: Positive,
    channels: Size = 32,
    frame: Positive = 0.01,
    loudness: Positive = 60.0,
) -> Float64[Tensor, "channels frames"]:
    """Loudness of a sound over time at places along the cochlea, low tones first.

    Triangular bands whose centres are evenly spaced on the scale of equivalent rectangular bandwidths, from 100 Hz to
    half the sampling rate (Glasberg and Moore, Hear. Res. 47, 103, 1990), of spectra in windows of 2.5 frames.

    Args:
        sound: the recorded values, in any unit.
        rate: values a second.
        channels: number of bands.
        frame: time from one spectrum to the next in seconds.
        loudness: decibels from the loudest place and time, which is 1, down to silence, 0.

    Raises:
        ValueError: not one channel of finite numbers, a band narrower than the resolution of a window.
    """
    values = as_tensor("sound", sound, torch.float64).double()
    if values.ndim != 1 or not len(values):
        raise ValueError(f"sound: expected values of one channel, got the shape {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        place = int((~values.isfinite()).nonzero()[0])
        raise ValueError(f"sound: expected finite numbers, got {float(values[place])} at {place}; fill gaps first")
    exponent = int(torch.frexp(values.abs().max()).exponent)
    values = values * 2.0 ** -max(exponent, -1022)  # exactly; squares stay within the range of the type
    hop = max(1, round(frame * rate))
    size = 2 ** math.ceil(math.log2(2.5 * hop))
    window = torch.hann_window(round(2.5 * hop), dtype=torch.float64)
    spectrum = torch.stft(values, size, hop, len(window), window, pad_mode="constant", return_complex=True)
    energy = _bands(channels, size, rate) @ spectrum.abs().square()
    tiny = torch.finfo(energy.dtype).tiny
    decibels = 10 * (energy / energy.max().clamp(min=tiny)).clamp(min=tiny).log10()
    return (1 + decibels / loudness).clamp(min=0)


def _bands(channels: int, size: int, rate: float) -> Float64[Tensor, "channels frequencies"]:
    """Weight of each frequency of a spectrum in each band."""
    low_end, high_end = (21.4 * math.log10(1 + 0.00437 * frequency) for frequency in (_LOWEST, rate / 2))
    edges = (10 ** (torch.linspace(low_end, high_end, channels + 2, dtype=torch.float64) / 21.4) - 1) / 0.00437
    frequencies = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    low, middle, high = (edges[k : k + channels, None] for k in range(3))
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    bands = torch.minimum(rising, falling).clamp(min=0)
    if not bool(bands.any(dim=1).all()):
        raise ValueError(f"channels: expected fewer, so that each has a different frequency, got {channels}")
    return bands


def spoken_digits_splits(
    validation: float = 0.1,
    speaker: str | None = None,
    seed: Seed = 42,
    folder: str | Path | None = None,
    channels: Size = 32,
    frame: Positive = 0.01,
    encode: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """Free Spoken Digit Dataset: six speakers say the digits 0 to 9 fifty times each, 3000 recordings at 8 kHz.

    Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0). The WAV files of a copy of
    that repository are read. Nothing is downloaded. The test data are the recordings 0 to 4 of each speaker and digit,
    or those of one speaker, who is then absent from the training data.

    Args:
        validation: part of the other recordings that is held out: below 1 a fraction, from 1 on their number.
        speaker: name of the speaker who is only heard in the test data.
        seed: seed of the random choice of the held-out samples.
        folder: the repository's folder, or the one with its files; by default `free-spoken-digit-dataset` in the user's
            cache, `~/.cache/firstspike`.
        channels: places along the cochlea, see `cochleagram`.
        frame: time between two of its values in seconds.
        encode: encoder of the loudness at each place, see `time_series_splits`. By default `level_crossing` with eight
            levels and one unit of time for each frame.
        dtype: of the times.
    """
    encoder = series_encoder(encode, **_USUAL)
    known = recordings_in(folder)
    speakers = sorted({own for _, own, _, _ in known})
    if speaker is not None and speaker not in speakers:
        raise ValueError(f"speaker: expected one of {', '.join(speakers)}, got {speaker!r}")
    fresh = [number < TEST_RECORDINGS if speaker is None else own == speaker for _, own, number, _ in known]
    series = as_series([cochleagram(*read_wav(path), channels, frame) for *_, path in known])
    samples = Samples(series, torch.tensor([digit for digit, *_ in known]), _WORDS)
    learn, test = (samples.chosen(torch.tensor(fresh).eq(part).nonzero().squeeze(1)) for part in (False, True))
    parts = divided(learn, validation, 0, seed, encoder, dtype)
    return parts._replace(test=test.data(parts.train.encoder, dtype))


def spoken_digits_outline(channels: int, encode: dict[str, Any] | None, **_: Any) -> SpikeData:
    """Inputs and class names without samples. No file is read."""
    return no_trains(channels * series_encoder(encode, **_USUAL).inputs_per_channel, _WORDS)


def recordings_in(given: str | Path | None) -> list[tuple[int, str, int, Path]]:
    """Digit, speaker, number and file of all recordings of a folder, in this order."""
    place = folder_of(given, "free-spoken-digit-dataset")
    inner = place / "recordings" if (place / "recordings").is_dir() else place
    named = ((re.fullmatch(r"(\d)_([a-z]+)_(\d+)\.wav", path.name), path) for path in inner.glob("*.wav"))
    found = [(int(name[1]), name[2], int(name[3]), path) for name, path in named if name]
    if not found:
        raise FileNotFoundError(
            f"spoken_digits: no recordings such as 0_jackson_0.wav in {inner}: get {WHERE}, or set data.folder"
        )
    return sorted(found)


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Values and sampling rate of a WAV file."""
    try:
        with wave.open(str(path), "rb") as file:
            form = file.getparams()
            if (form.nchannels, form.sampwidth) != (1, 2) or not 0 < form.framerate <= _MOST_RATE:
                got = f"{form.nchannels} of {8 * form.sampwidth} at {form.framerate} Hz"
                raise ValueError(f"{path}: expected one channel of 16 bits, at most at {_MOST_RATE} Hz, got {got}")
            content = file.readframes(form.nframes)
            if not form.nframes or len(content) < form.sampwidth * form.nframes:
                raise EOFError
            return np.frombuffer(content, "<i2"), form.framerate
    except (wave.Error, EOFError, RuntimeError) as error:  # the last one for parts longer than the whole
        raise ValueError(f"{path} cannot be read as a WAV file: {str(error) or 'it ends too early'}") from None
