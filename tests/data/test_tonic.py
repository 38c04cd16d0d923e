"""tonic's data sets as spike trains: a stand-in with its attributes, as tonic downloads what it has."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

import firstspike as fs

CAMERA = np.dtype([("x", "<i8"), ("y", "<i8"), ("t", "<i8"), ("p", "<i8")])
COCHLEA = np.dtype([("t", "<i8"), ("x", "<i8"), ("p", "<i8")])


class Recordings:
    """As ``tonic.Dataset``: events and labels by index."""

    def __init__(self, sensor_size, samples, classes=None):
        self.sensor_size, self.samples = sensor_size, samples
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.fixture
def camera():
    events = np.array([(2, 1, 500, 1), (0, 0, 1500, 0), (2, 1, 250, 1)], dtype=CAMERA)
    return Recordings((3, 2, 2), [(events, 1), (events[:1], 0)], ["left", "right"])


def test_each_pixel_and_polarity_is_an_input(camera):
    data = fs.data.from_tonic(camera, time_unit=1e-3)
    assert (data.features, data.image, data.class_names) == (12, (2, 2, 3), ("left", "right"))
    assert data.labels.tolist() == [1, 0]
    trains = data.dense
    assert trains[0, 11].tolist() == [0.25, 0.5]
    assert trains[0, 0].tolist() == [1.5, math.inf]
    assert int(trains.isfinite().sum()) == 4


def test_a_cochlea_has_a_row_of_inputs():
    events = np.array([(1_000_000, 699, 1), (10_000, 0, 1)], dtype=COCHLEA)
    recordings = Recordings((700, 1, 1), [(events[["t", "x"]], 3)])
    data = fs.data.from_tonic(recordings, time_unit=0.01)
    assert (data.features, data.image, data.class_names) == (700, None, ("0", "1", "2", "3"))
    assert data.dense[0, [0, 699], 0].tolist() == [1.0, 100.0]


def test_part_of_a_data_set(camera):
    data = fs.data.from_tonic(Subset(camera, [1]), 1e-3, dtype=torch.float64)
    assert len(data) == 1
    assert data.class_names == ("left", "right")
    assert data.times.dtype == torch.float64


def test_what_is_refused(camera):
    with pytest.raises(ValueError, match=r"events: expected x from 0 to 1, got 0 \.\.\. 2 for sample 0"):
        fs.data.from_tonic(camera, 1e-3, sensor_size=(2, 2, 2))
    frames = Recordings((3, 2, 2), [(np.zeros((4, 2, 2, 3)), 0)])
    with pytest.raises(
        ValueError, match="expected events with a field t, got ndarray with no fields for sample 0; take"
    ):
        fs.data.from_tonic(frames, 1e-3)
    with pytest.raises(ValueError, match="sensor_size: expected width, height and polarities, and the data set says"):
        fs.data.from_tonic([(frames, 0)], 1e-3)


@pytest.mark.parametrize("label", [10**9, -1])
def test_labels_that_are_no_numbers_of_classes(label):
    events = np.array([(1_000, 0, 0)], dtype=COCHLEA)
    with pytest.raises(
        ValueError, match=rf"labels: expected 0 \.\.\. 999999, got {label} \.\.\. {label}; count classes"
    ):
        fs.data.from_tonic(Recordings((2, 1, 1), [(events, label)]), time_unit=1e-3)


def test_a_unit_of_time_in_microseconds_is_pointed_out():
    events = np.zeros(3, dtype=COCHLEA)
    events["t"] = [0, 1000, 2000]
    with pytest.warns(UserWarning, match="within 2e-07 units of time; time_unit is in seconds, got 10000"):
        fs.data.from_tonic(Recordings((2, 1, 1), [(events, 0)]), time_unit=1e4)
