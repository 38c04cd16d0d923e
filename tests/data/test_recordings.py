"""Sounds as spike trains, and spoken digits from small files that are named as the published ones."""

import wave

import numpy as np
import pytest
import torch

from firstspike.data import DATASETS, cochleagram, outline

RATE = 8000
spoken_digits = DATASETS["spoken_digits"]


def tone(frequency, seconds=0.2):
    return 1000 * np.sin(2 * np.pi * frequency * np.arange(int(RATE * seconds)) / RATE)


def write(path, values, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.asarray(values).astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path):
    for digit in range(10):
        for speaker in ("ada", "max"):
            for number in range(7):
                write(tmp_path / f"{digit}_{speaker}_{number}.wav", tone(200 + 300 * digit, 0.1 + 0.01 * number))
    return tmp_path


def test_places_are_in_the_order_of_their_tones():
    loudest = [int(cochleagram(tone(f), RATE).mean(dim=1).argmax()) for f in (200, 400, 800, 1600, 3200)]
    assert loudest == sorted(set(loudest))


def test_loudness_is_relative():
    sound = torch.tensor(tone(500)) * torch.linspace(0, 1, 1600)
    found = cochleagram(sound, RATE, channels=20)
    assert found.shape == (20, 21)
    assert (found.min(), found.max()) == (0, 1)
    torch.testing.assert_close(cochleagram(7 * sound, RATE, channels=20), found)
    assert not cochleagram(torch.zeros(800), RATE).any(), "a silent sound is silent"


@pytest.mark.parametrize("factor", [2.0**1000, 1e300, 1e-170, 1e-300, 2.0**-1030])
def test_very_loud_and_very_quiet_sounds_are_sounds(factor):
    sound = tone(500) / 1000
    assert abs(sound).max() * factor < 1e308
    torch.testing.assert_close(cochleagram(factor * sound, RATE), cochleagram(sound, RATE), rtol=1e-6, atol=1e-6)


def test_a_tenth_of_the_pressure_is_20_decibels_less():
    quiet, loud = tone(1000), np.concatenate([tone(1000), 10 * tone(1000)])
    found = cochleagram(loud, RATE, loudness=40.0).max(dim=0).values
    assert float(found[5]) == pytest.approx(0.5, abs=1e-3)
    assert float(cochleagram(quiet, RATE, loudness=40.0).max(dim=0).values[5]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("sound", "options", "message"),
    [
        (np.zeros((2, 800)), {}, "one channel"),
        (np.zeros(800), {"channels": 500}, "channels: expected fewer"),
        (
            np.where(np.arange(800) == 7, np.nan, 1.0),
            {},
            "sound: expected finite numbers, got nan at 7; fill gaps first",
        ),
        (np.ma.masked_array(np.ones(800), np.arange(800) == 7), {}, "got nan at 7; fill gaps first"),
        ([0.0, -np.inf], {}, "sound: expected finite numbers, got -inf at 1"),
    ],
)
def test_sounds_that_do_not_fit(sound, options, message):
    with pytest.raises(ValueError, match=message):
        cochleagram(sound, RATE, **options)


def test_the_first_five_recordings_are_the_test_data(folder):
    parts = spoken_digits(validation=10, folder=folder)
    assert [len(part) for part in parts] == [30, 10, 100]
    assert parts.test.labels.bincount().tolist() == [10] * 10
    assert parts.train.trains
    assert parts.train.encoder == parts.test.encoder


def test_a_speaker_can_be_held_out(folder):
    parts = spoken_digits(validation=0.2, speaker="max", folder=folder)
    assert [len(part) for part in parts] == [56, 14, 70]
    with pytest.raises(ValueError, match="speaker: expected one of ada, max, got 'eve'"):
        spoken_digits(speaker="eve", folder=folder)


def test_outline_needs_no_files(folder):
    encode = {"kind": "threshold", "levels": 3, "dt": 0.5}
    for options in ({}, {"channels": 12}, {"encode": encode}):
        found, parts = outline("spoken_digits", **options), spoken_digits(folder=folder, **options)
        assert (found.features, found.class_names) == (parts.train.features, parts.train.class_names)


def test_files_that_are_not_there_or_not_as_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recordings such as"):
        spoken_digits(folder=tmp_path)
    write(tmp_path / "0_ada_0.wav", np.zeros(200), channels=2)
    with pytest.raises(
        ValueError, match="expected one channel of 16 bits, at most at 1000000 Hz, got 2 of 16 at 8000 Hz"
    ):
        spoken_digits(folder=tmp_path)
    (tmp_path / "0_ada_0.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="cannot be read as a WAV file"):
        spoken_digits(folder=tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-7], "cannot be read as a WAV file: it ends too early"),
        (lambda b: b[:-8], "cannot be read as a WAV file: it ends too early"),
        (lambda b: b[:44], "cannot be read as a WAV file: it ends too early"),
        (lambda b: b[:40] + bytes(4), "cannot be read as a WAV file: it ends too early"),
        (lambda b: b[:30], "cannot be read as a WAV file: it ends too early"),
        (lambda b: b[:4] + b"\x10" + b[5:], "cannot be read as a WAV file: it ends too early"),
        (lambda b: b[:4] + bytes(4) + b[8:], "cannot be read as a WAV file: "),
        (lambda b: b[:24] + bytes(4) + b[28:], "got 1 of 16 at 0 Hz"),
        (lambda b: b[:27] + b"\xff" + b[28:], "at most at 1000000 Hz, got 1 of 16 at 4278198080 Hz"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    file = tmp_path / "0_ada_0.wav"
    write(file, tone(500, 0.05))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        spoken_digits(folder=tmp_path)
    assert str(error.value).startswith(str(file))
