import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from firstspike.data import DATASETS, LatencyEncoder, SpikeData
from firstspike.data.base import Splits


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


def test_what_is_known_of_the_inputs_stays():
    encoder = LatencyEncoder().fit([[0.0] * 6, [1.0] * 6])
    data = SpikeData(torch.zeros(4, 6), torch.zeros(4).long(), ("a",), (1, 2, 3), (math.inf,), encoder)
    for other in (data, data.to(dtype=torch.float64), dataclasses.replace(data, labels=data.labels)):
        assert (other.image, other.blank, other.encoder) == ((1, 2, 3), (math.inf,), encoder)


@pytest.mark.parametrize(
    ("image", "blank", "message"),
    [
        ((1, 2, 2), None, r"image: expected channels, height and width of 6 inputs, got \(1, 2, 2\)"),
        ((2, 1, 3), (0.0,), r"blank: expected a time for each channel of the image \(2, 1, 3\), got \(0.0,\)"),
        (None, (0.0,), "blank: expected a time for each channel"),
    ],
)
def test_images_that_do_not_fit(image, blank, message):
    with pytest.raises(ValueError, match=message):
        SpikeData(torch.zeros(4, 6), torch.zeros(4).long(), ("a",), image, blank)


def test_frozen(data):
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.times = torch.zeros(1, 1)


@pytest.mark.parametrize(
    ("times", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "times: expected a floating-point tensor"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "times: expected"),
        (np.zeros((3, 2), int), [0, 1, 0], r"got torch.int64 of shape \(3, 2\): .* become times by times \* step"),
        ([[1, 2]], [0], "times: expected a floating-point tensor .* got torch.int64"),
        (np.zeros((3, 2), bool), [0, 1, 0], "got torch.bool .* a raster of 0 and 1 .* becomes spike times by"),
        (torch.zeros(5, 3, 2), torch.zeros(3).long(), "reshape to two dimensions; a raster of 0 and 1"),
        (torch.zeros(5, 3, 2).int(), torch.zeros(3).long(), "got torch.int32 .*: a raster of 0 and 1"),
        ([[1.0, 2.0], [1.0]], [0, 1], "times: expected numbers, got a list: .*inhomogeneous"),
        ([["a"]], [0], "times: expected numbers, got 'a' at"),
        (None, [0], "times: expected numbers, got a NoneType"),
        ([[1.0]], ["a"], "labels: expected numbers, got 'a' at .*; encode names by numbers"),
        ([[1.0]], [0.0], "labels: expected int64"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), "labels: expected int64 of shape"),
        (torch.zeros(3, 2), torch.zeros(3), r"labels: expected int64 .*\.long\(\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2).long(), r"labels: .* shape \(3, 2\)\..* \.argmax\(dim=1\)"),
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


@pytest.mark.parametrize(
    ("times", "dtype"),
    [
        (np.array([[0.5, math.inf], [0.25, 1.0]]), torch.float64),
        (np.array([[0.5, math.inf], [0.25, 1.0]], np.float32), torch.float32),
        (np.array([[0.5, math.inf], [0.25, 1.0]], ">f4"), torch.float32),
        (np.array([[math.inf, 0.5], [1.0, 0.25]])[:, ::-1], torch.float64),
        ([[0.5, math.inf], [0.25, 1.0]], torch.float32),
        (((0.5, math.inf), (0.25, 1)), torch.float32),
        ([torch.tensor([0.5, math.inf]), torch.tensor([0.25, 1.0])], torch.float32),
    ],
)
@pytest.mark.parametrize("labels", [[1, 0], np.array([1, 0]), np.array([1, 0], np.uint8), torch.tensor([1, 0])])
def test_arrays_and_lists_become_tensors(times, labels, dtype):
    data = SpikeData(times, labels, ["a", "b"])
    assert data.times.dtype == dtype
    assert data.times.tolist() == [[0.5, math.inf], [0.25, 1.0]]
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [1, 0]
    assert len(DataLoader(data, batch_size=2)) == 1


def test_an_array_is_copied_and_a_tensor_is_kept():
    array, tensor = np.ones((1, 2)), torch.ones(1, 2)
    data = SpikeData(array, [0], ("a",))
    array[:] = 5
    assert data.times.tolist() == [[1.0, 1.0]]
    assert SpikeData(tensor, torch.tensor([0]), ("a",)).times is tensor


def test_times_before_0_are_legal_and_pointed_out_once():
    times = torch.tensor([[-0.25, 1.0], [math.inf, 0.5]])
    with pytest.warns(UserWarning, match=r"spike times before 0, the earliest is -0\.25; that is legal, but") as found:
        data = SpikeData(times, torch.tensor([0, 0]), ("a",))
    assert [warning.filename for warning in found] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.to(dtype=torch.float64).times.tolist() == times.tolist()
        SpikeData(torch.tensor([[0.0, -0.0, math.inf]]), torch.tensor([0]), ("a",))
        SpikeData(torch.zeros(0, 3), torch.zeros(0).long(), ("a",))


def test_splits_need_three_seeds():
    with pytest.raises(ValueError, match="seeds: expected three"):
        DATASETS["xor"](seeds=(1, 2))


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


@pytest.mark.parametrize(("most", "names"), [(0, "('0',)"), (1, "('0', '1',)"), (5, "('0', '1', '2', ...)")])
def test_names_of_classes_are_asked_for(most, names):
    with pytest.raises(ValueError, match="class_names: expected a name for each class, got none") as error:
        SpikeData(torch.rand(2, 3), torch.tensor([0, most]))
    assert names in str(error.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [("n", "'n' at \\[1, 0\\] .column 'l'.; encode names"), (None, "<NA> at .*'l'.; write nan")],
)
def test_a_frame_that_is_no_table_of_numbers_names_the_column(value, said):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"l": [0.5, pandas.NA if value is None else value], "w": [0.5, 1.0]})
    with pytest.raises(ValueError, match=said):
        SpikeData(frame, [0, 1], ("a", "b"))
