"""Encoders of time series against a simulation of what they describe, and what they refuse."""

import json
import math

import numpy as np
import pytest
import torch
from reading import read_times

from firstspike.data import LevelCrossingEncoder, ThresholdEncoder, file_splits, split
from firstspike.data.series_encoding import as_encoder, as_series, series_encoder

inf, nan = math.inf, math.nan


def walks(samples=6, channels=3, steps=15, seed=0):
    steps_of = torch.randn(samples, channels, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return steps_of.cumsum(-1)


def on_a_fine_grid(signal, dt, points=15001):
    """A signal that starts at 0 and runs in straight lines between its values, at many times."""
    knots = dt * np.arange(len(signal) + 1)
    time = np.linspace(knots[0], knots[-1], points)
    return time, np.interp(time, knots, np.concatenate([[0.0], signal]))


def finite(train):
    return train[torch.isfinite(train)].numpy()


@pytest.mark.parametrize("levels", [3, 10])
def test_level_crossings_are_those_of_send_on_delta(levels):
    values = walks()
    encoder = LevelCrossingEncoder(levels=levels, dt=0.3).fit(values)
    trains = encoder(values, torch.float64)
    assert trains.shape[:2] == (6, 6)
    for sample in range(6):
        for channel in range(3):
            scale = encoder.high[channel] - encoder.low[channel]
            signal = (values[sample, channel].numpy() - encoder.low[channel]) / scale
            time, height = on_a_fine_grid(signal, 0.3)
            last, events = 0.0, ([], [])
            for t, x in zip(time, height, strict=True):
                while abs(x - last) >= 1 / levels - 1e-12:
                    way = int(x < last)
                    last += (1 - 2 * way) / levels
                    events[way].append(t)
            for way, expected in enumerate(events):
                found = finite(trains[sample, 3 * way + channel])
                assert len(found) == len(expected)
                np.testing.assert_allclose(found, expected, atol=2 * (time[1] - time[0]))


def test_threshold_crossings():
    values = walks()
    encoder = ThresholdEncoder(levels=4, dt=0.3).fit(values)
    trains = encoder(values, torch.float64)
    assert trains.shape[1] == 3 * 4 == 3 * encoder.inputs_per_channel
    for sample in range(6):
        for channel in range(3):
            scale = encoder.high[channel] - encoder.low[channel]
            signal = (values[sample, channel].numpy() - encoder.low[channel]) / scale
            time, height = on_a_fine_grid(signal, 0.3)
            for level in range(4):
                above = height >= (level + 1) / 5
                found = finite(trains[sample, level * 3 + channel])
                np.testing.assert_allclose(found, time[1:][above[1:] & ~above[:-1]], atol=2 * (time[1] - time[0]))


@pytest.mark.parametrize("kind", [LevelCrossingEncoder, ThresholdEncoder])
def test_series_of_different_lengths(kind):
    values = list(walks())
    short = [signal[:, : 15 - 2 * sample] for sample, signal in enumerate(values)]
    encoder = kind(levels=5).fit(values)
    whole, cut = encoder(values, torch.float64), encoder(short, torch.float64)
    padded = encoder(as_series(short), torch.float64)
    assert torch.equal(cut, padded)
    for sample in range(6):
        end = 0.1 * (15 - 2 * sample)
        for a, b in zip(whole[sample], cut[sample], strict=True):
            assert finite(a)[finite(a) <= end].tolist() == finite(b).tolist()


@pytest.mark.parametrize("kind", [LevelCrossingEncoder, ThresholdEncoder])
def test_trains_are_sorted_and_times_exact_on_a_ramp(kind):
    encoder = kind(levels=4, dt=2.0, low=[0.0], high=[1.0])
    trains = encoder([[[1.0, 0.0]]], torch.float64)
    expected = [0.5, 1.0, 1.5, 2.0] if kind is LevelCrossingEncoder else [0.4, 0.8, 1.2, 1.6]
    if kind is LevelCrossingEncoder:
        assert trains[0].tolist() == [expected, [2.5, 3.0, 3.5, 4.0]]
    else:
        torch.testing.assert_close(trains[0], torch.tensor(expected, dtype=torch.float64)[:, None])
    trains = encoder(walks(channels=1), torch.float64)
    assert bool((trains[..., :-1] <= trains[..., 1:]).all())


def test_ranges():
    values = torch.tensor([[[0.0, 2.0], [1.0, 5.0]], [[1.0, -1.0], [3.0, nan]]])
    assert LevelCrossingEncoder().fit(values).low == (-1.0, 1.0)
    assert LevelCrossingEncoder(per_channel=False).fit(values).high == (5.0, 5.0)
    constant = LevelCrossingEncoder().fit([[[2.0, 2.0]]])
    assert constant([[[2.0, 2.0]]]).tolist() == [[[inf], [inf]]]


@pytest.mark.parametrize("encoder", [LevelCrossingEncoder(levels=3, dt=0.25), ThresholdEncoder(levels=3)])
def test_stored_as_plain_values(encoder):
    fitted = encoder.fit(walks())
    assert series_encoder(json.loads(json.dumps(fitted.to_dict()))) == fitted
    with pytest.raises(ValueError, match="unknown key 'start'"):
        series_encoder(fitted.to_dict() | {"start": 1.0})
    assert as_encoder(fitted) is fitted


def test_split_and_files_fit_the_encoder_to_the_training_part(tmp_path):
    values, labels = walks(samples=20), np.arange(20) % 2
    parts = split(values, labels, 0.2, 0.2, encode={"kind": "level_crossing", "levels": 4}, dtype=torch.float64)
    assert all(part.trains and part.features == 6 for part in parts)
    assert parts.train.encoder == parts.test.encoder
    assert parts.test.encoder.levels == 4
    file = tmp_path / "series.npz"
    np.savez(file, values=values.numpy(), labels=labels)
    again = file_splits(file, 0.2, 0.2, encode={"kind": "level_crossing", "levels": 4}, dtype=torch.float64)
    for one, other in zip(parts, again, strict=True):
        assert torch.equal(one.times, other.times)
    found = read_times(file, 6, torch.float64, parts.train.encoder, trains=True)
    assert torch.equal(found, parts.train.encoder(values, torch.float64))


@pytest.mark.parametrize("outlier", [1e9, -1e300])
def test_outliers_are_named(outlier):
    values = walks()
    fitted = [encoder.fit(values) for encoder in (LevelCrossingEncoder(), ThresholdEncoder(), ThresholdEncoder(2))]
    values[4, 2, 7] = outlier
    low, high = fitted[0].low[2], fitted[0].high[2]
    message = (
        "values: expected at most 1000000 events of a signal, got about .* of channel 2 in sample 4: it goes from "
        f".* the training part from {low:g} to {high:g}. Leave outliers out, or lower levels=8"
    )
    with pytest.raises(ValueError, match=message) as error:
        fitted[0](values)
    assert f"{outlier:g}" in str(error.value)
    for encoder in fitted[1:]:  # what is far beyond the thresholds crosses each of them once
        trains = encoder(values, torch.float64)
        assert trains[torch.isfinite(trains)].ge(0).all()
        assert trains.shape[-1] < 20


def test_more_levels_than_fit():
    with pytest.raises(ValueError, match=r"at most 1000000 events of a signal, .* or lower levels=1000000"):
        ThresholdEncoder(10**6).fit(walks())(walks())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected at least one sample to fit the encoder to, got none"),
        ([[1.0, 2.0]], r"expected numbers \(channels, time\) for each sample, got float64 of shape \(2,\)"),
        ([[[1.0]], [[1.0], [2.0]]], "expected 1 channels in every sample, got 2 in sample 1"),
        ([[[1.0, inf]]], "expected finite numbers, NaN only after the end of a signal"),
        ([[[1.0, nan, 2.0]]], "fill gaps first"),
    ],
)
def test_wrong_series(values, message):
    with pytest.raises(ValueError, match=message):
        LevelCrossingEncoder().fit(values)


def test_an_encoder_knows_its_channels():
    with pytest.raises(ValueError, match="this ThresholdEncoder has no ranges yet"):
        ThresholdEncoder()(walks())
    with pytest.raises(ValueError, match="expected 3 channels, got 2"):
        ThresholdEncoder().fit(walks())(walks(channels=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "levels must be > 0 and <= 1000000, got 0"),
        ({"dt": 0.0}, "dt must be > 0 and finite, got 0.0"),
        ({"per_channel": 1}, "per_channel: expected true or false, got 1"),
        ({"low": [1.0], "high": [0.0]}, "low, high: expected as many"),
        ({"low": "ab", "high": [0.0]}, "low: expected a list of numbers"),
        ({"kind": "rate"}, "expected a kind out of level_crossing, threshold and its arguments"),
        ({"early": 1.0}, "unknown key 'early'; valid keys: levels, dt, per_channel, low, high"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        series_encoder({"kind": "level_crossing"} | settings)
