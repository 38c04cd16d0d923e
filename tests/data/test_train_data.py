"""Spike trains as data: what SpikeData takes, how they come from events, rasters, arrays and files."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from reading import read_labelled, read_times

from firstspike.data import (
    SpikeData,
    event_lists,
    file_splits,
    first_spikes,
    split,
    trains_from_events,
    trains_from_raster,
)
from firstspike.data.base import Splits

inf = math.inf
TRAINS = torch.tensor([[[0.5, 1.5, inf], [0.25, inf, inf]], [[inf, inf, inf], [1.0, 2.0, 3.0]]])


@pytest.fixture
def data():
    return SpikeData(TRAINS, torch.tensor([0, 1]), ("a", "b"))


def test_spike_data_of_trains(data):
    assert data.trains
    assert (len(data), data.features) == (2, 2)
    assert data[1][0].shape == (2, 3)
    assert data.to(dtype=torch.float64).times.dtype == torch.float64
    first = data.first_spikes()
    assert not first.trains
    assert first.times.tolist() == [[0.5, 0.25], [inf, 1.0]]
    assert first.first_spikes() is first
    assert data.empty().trains


def test_checksums_know_the_number_of_spikes(data):
    splits = Splits(data, data, data)
    assert json.loads(json.dumps(splits.checksum)) == splits.checksum
    shorter = dataclasses.replace(data, times=TRAINS[..., :2])
    assert Splits(shorter, data, data).differences(splits.checksum) == ["train: 2 spikes instead of 3"]
    none = Splits(data, data.empty(), data)
    assert Splits(data, shorter.empty(), data).differences(none.checksum) == []
    first = data.first_spikes()
    assert "spikes" not in Splits(first, first, first).checksum["train"]


def test_trains_that_are_not_sorted_are_refused():
    with pytest.raises(ValueError, match=r"sorted along the last dimension.*times.sort\(dim=-1\).values, or flatten"):
        SpikeData(TRAINS.flip(-1), torch.tensor([0, 1]), ("a", "b"))


def test_trains_filled_up_with_0_are_refused():
    with pytest.raises(ValueError, match="sorted along the last dimension, got others: fill them up with inf, not 0"):
        SpikeData(TRAINS.nan_to_num(posinf=0.0), torch.tensor([0, 1]), ("a", "b"))


def test_trains_from_events():
    events = [([0.5, 0.25, 1.5], [0, 1, 0]), (torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1, 1, 1]))]
    assert torch.equal(trains_from_events(events, 2), TRAINS)
    pairs = [[(0.5, 0), (0.25, 1), (1.5, 0)], torch.tensor([(3.0, 1), (1.0, 1), (2.0, 1)])]
    assert torch.equal(trains_from_events(pairs, 2), TRAINS)
    assert torch.equal(trains_from_events([np.array(pairs[0]), pairs[1].numpy()], 2), TRAINS)
    assert trains_from_events([[(0.5, 0), (0.25, 1)]], 2).tolist() == [[[0.5], [0.25]]]
    assert trains_from_events([([], [])], 3).tolist() == [[[inf]] * 3]
    assert trains_from_events([], 3).shape == (0, 3, 1)
    assert trains_from_events(events, 2, torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (([0.0, 1.0], [0]), r"expected as many times as inputs, got \(2,\) and \(1,\) for sample 0"),
        (([inf], [0]), "expected finite times, got NaN or inf for sample 0"),
        (([0.0], [2]), r"expected inputs from 0 to 1, got 2 \.\.\. 2 for sample 0"),
        (([0.0, 1.0], [1, 0.5]), "inputs: expected whole numbers, got 0.5 for sample 0"),
        (([0.0], [math.nan]), "inputs: expected whole numbers, got nan for sample 0"),
        (([0.0], [1], [1]), r"expected a pair \(times, inputs\) for each sample, got a tuple of 3 for sample 0"),
        (np.zeros((2, 5)), r"got a ndarray of shape \(2, 5\) for sample 0; .*; an array has a row \(time, input\)"),
        (0.5, r"expected a pair \(times, inputs\) for each sample, got a float for sample 0; a single sample is \["),
        (np.zeros(3, [("t", int), ("x", int)]), r"got a ndarray .* fields t, x make \(array\[TIME\], array\[INPUT\]\)"),
        ((0.1, 1), r"expected \(times, inputs\) for each sample, got one time and one input for sample 0"),
        ({"times": [0.0], "inputs": [1]}, r"expected a pair \(times, inputs\) for each sample, got a dict"),
    ],
)
def test_wrong_events(event, message):
    with pytest.raises(ValueError, match=message):
        trains_from_events([event], 2)


@pytest.mark.parametrize("inputs", [10**12, 0, 2.5])
def test_numbers_of_inputs_that_cannot_be(inputs):
    for make in (trains_from_events, event_lists):
        with pytest.raises(ValueError, match=f"inputs: expected their number, from 1 to 2147483648, got {inputs}"):
            make([([0.5], [0])], inputs)


def test_trains_that_would_not_fit(monkeypatch):
    monkeypatch.setattr("firstspike.data.events.MOST_TIMES", 10)
    with pytest.raises(ValueError, match="4 inputs of all samples, of which the busiest has 3 spikes, are 12 times"):
        trains_from_events([([0.0, 1.0, 2.0], [0, 0, 0]), ([], [])], 2)


def test_trains_from_a_raster():
    raster = (torch.rand(9, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    trains = trains_from_raster(raster, 0.5, dtype=torch.float64)
    assert torch.equal(trains[..., 0], first_spikes(raster, 0.5, dtype=torch.float64))
    assert torch.equal(torch.isfinite(trains).sum(-1), raster.sum(0).long())
    for sample in range(4):
        for source in range(5):
            steps = raster[:, sample, source].nonzero().squeeze(1)
            found = trains[sample, source]
            assert torch.equal(found[torch.isfinite(found)], steps * 0.5)
    with pytest.raises(ValueError, match=r"got \(2, 1, 1, 1, 1\); flatten the inputs"):
        trains_from_raster(torch.ones(2, 1, 1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="expected 0 and 1 only"):
        trains_from_raster(torch.full((2, 1, 1), 2.0), 1.0)


def test_split_divides_trains():
    trains = torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(0)).sort(-1).values
    labels = torch.arange(20) % 2
    parts = split(trains, labels, 0.2, 0.1, trains=True, dtype=torch.float64)
    assert [len(part) for part in parts] == [14, 4, 2]
    assert all(part.trains and part.image is None for part in parts)
    rows = {tuple(row.flatten().tolist()) for row in trains.double()}
    assert rows == {tuple(row.flatten().tolist()) for part in parts for row in part.times}
    with pytest.raises(
        ValueError, match=r"times: expected \(samples, inputs\), got \(20, 3, 4\) .* pass trains=True; for"
    ):
        split(trains, labels)
    assert split(trains[:, None], labels).train.image == (1, 3, 4)  # images have one dimension more
    assert split(trains.flip(-1), labels).train.image == (1, 3, 4)  # or rows that are not sorted
    assert split(trains, labels, encode={"on_off": False}).train.image == (1, 3, 4)  # values are no trains
    with pytest.raises(ValueError, match=r"expected spike trains \(samples, inputs, spikes\), got \(20, 12\)"):
        split(trains.flatten(1), labels, trains=True)


def test_trains_in_files(tmp_path):
    trains = np.random.default_rng(0).random((10, 3, 4))
    trains.sort(axis=-1)
    trains[:, :, 3] = np.inf
    labels = np.arange(10) % 2
    file = tmp_path / "trains.npz"
    np.savez(file, trains=trains, labels=labels)
    parts = file_splits(file, validation=0.2, test=file, dtype=torch.float64)
    assert parts.test.times.tolist() == trains.tolist()
    assert parts.train.features == 3
    assert torch.equal(read_times(file, 3, torch.float64, trains=True), parts.test.times)
    assert read_labelled(file, 3, ("0", "1"), torch.float64, trains=True).trains
    np.save(tmp_path / "alone.npy", trains)
    assert torch.equal(read_times(tmp_path / "alone.npy", 3, torch.float64, trains=True), parts.test.times)
    with pytest.raises(ValueError, match="trains: expected 4 inputs, got 3"):
        read_times(file, 4, trains=True)
    np.savez(tmp_path / "times.npz", times=trains, labels=labels)
    with pytest.raises(ValueError, match=r"times.npz: times: .* got \(10, 3, 4\) .* name the array 'trains'"):
        file_splits(tmp_path / "times.npz")
    with pytest.raises(ValueError, match="expected an array 'times', got trains, labels"):
        read_times(file, 3)
