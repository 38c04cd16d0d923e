import dataclasses
import json
import math

import pytest
import torch
from torch.utils.data import DataLoader

from firstspike.data import SpikeData
from firstspike.data.base import Splits, balanced_labels, make_splits, seeded_generator


@pytest.fixture
def data():
    times = torch.arange(12.0).reshape(4, 3)
    times[0, 0] = math.inf
    return SpikeData(times, torch.tensor([0, 1, 1, 0]), ("a", "b"))


def test_length_features_and_items(data):
    assert len(data) == 4
    assert data.features == 3
    times, label = data[1]
    assert times.tolist() == [3.0, 4.0, 5.0]
    assert label.item() == 1
    times, labels = data[torch.tensor([2, 0])]
    assert torch.equal(times, data.times[[2, 0]])
    assert labels.tolist() == [1, 0]
    assert data[1:3][0].shape == (2, 3)


def test_works_in_a_data_loader(data):
    batches = list(DataLoader(data, batch_size=3))
    assert torch.equal(torch.cat([times for times, _ in batches]), data.times)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)


def test_to_changes_times_only(data):
    other = data.to(dtype=torch.float64)
    assert other.times.dtype == torch.float64
    assert other.labels.dtype == torch.int64
    assert other.class_names == data.class_names
    assert torch.equal(other.times, data.times.double())
    assert data.to("cpu").times.dtype == torch.float32


def test_frozen(data):
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.times = torch.zeros(1, 1)


@pytest.mark.parametrize(
    ("times", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "times: expected a floating-point tensor"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "times: expected"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), "labels: expected int64 of shape"),
        (torch.zeros(3, 2), torch.zeros(3), "labels: expected int64"),
        (torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.int64), "NaN or -inf"),
        (torch.full((3, 2), -math.inf), torch.zeros(3, dtype=torch.int64), "NaN or -inf"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), r"labels: expected 0 \.\.\. 1"),
        (torch.zeros(3, 2), torch.tensor([0, -1, 1]), r"labels: expected 0 \.\.\. 1"),
    ],
)
def test_wrong_data(times, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        SpikeData(times, labels, ("a", "b"))
    assert "\n" not in str(error.value)


def test_balanced_labels():
    labels = balanced_labels(11, 3, seeded_generator(0))
    assert labels.bincount().tolist() == [4, 4, 3]
    assert labels.tolist() != [k % 3 for k in range(11)]
    with pytest.raises(ValueError, match="samples: expected"):
        balanced_labels(0, 3, seeded_generator(0))


def test_splits_need_three_seeds(data):
    with pytest.raises(ValueError, match="seeds: expected three"):
        make_splits(lambda size, seed: data, (1, 1, 1), (1, 2))


def test_checksums(data):
    twin = SpikeData(data.times.clone(), data.labels.clone(), ("a", "b"))
    splits = Splits(data, data, data)
    assert json.loads(json.dumps(splits.checksum)) == splits.checksum
    assert splits.differences(Splits(twin, twin, twin).checksum) == []
    other = dataclasses.replace(data, labels=1 - data.labels)
    nudged = dataclasses.replace(data, times=torch.nextafter(data.times, torch.zeros(())))
    fewer = SpikeData(data.times[:3], data.labels[:3], ("a", "b"))
    assert Splits(other, nudged, fewer).differences(splits.checksum) == [
        "train: other labels",
        "validation: other times",
        "test: 3 samples instead of 4",
    ]
    double = data.to(dtype=torch.float64)
    assert Splits(double, data, data).differences(splits.checksum) == ["train: times in float64 instead of float32"]
    named = dataclasses.replace(data, class_names=("a", "c"))
    assert Splits(named, named, named).differences(splits.checksum) == ["other names of classes"]
    assert SpikeData(data.times.T.contiguous().T, data.labels, ("a", "b")).checksum == data.checksum
    assert Splits(data, data, data).differences({"test": {"labels": "?"}}) == ["test: other labels"]
    assert data.to(dtype=torch.bfloat16).checksum["dtype"] == "bfloat16"
