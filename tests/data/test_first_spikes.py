"""Rasters of libraries with time steps as first spike times."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import firstspike as fs


@given(
    st.integers(1, 8).flatmap(
        lambda steps: st.lists(st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=6, max_size=6)
    ),
    st.floats(1e-3, 1e3),
)
def test_step_k_is_the_time_k_dt(trains, dt):
    raster = torch.tensor(trains).T.reshape(-1, 2, 3)
    times = fs.data.first_spikes(raster, dt, dtype=torch.float64)
    expected = [train.index(True) * dt if any(train) else math.inf for train in trains]
    assert times.shape == (2, 3)
    assert times.flatten().tolist() == expected


@pytest.mark.parametrize("form", [torch.bool, torch.float32, torch.float64, torch.int64, torch.uint8, "array", "list"])
def test_every_kind_of_raster_is_read_alike_and_stays_as_it_was(form):
    spikes = [[[0, 1], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 1]]]  # (3 steps, 2 samples, 2 inputs)
    raster = {"array": np.array(spikes, float), "list": spikes}.get(form)
    if raster is None:
        raster = torch.tensor(spikes, dtype=form)
    times = fs.data.first_spikes(raster, 0.5)
    assert times.dtype == torch.float32
    assert times.tolist() == [[0.5, 0.0], [math.inf, 1.0]]
    assert np.array_equal(np.asarray(raster), np.array(spikes))


def test_images_keep_their_shape_and_fit_into_a_convolution():
    raster = torch.rand(20, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.1
    times = fs.data.first_spikes(raster, 0.1)
    assert times.shape == (4, 1, 8, 8)
    assert fs.LIFConv2d((1, 8, 8), 2, kernel_size=3)(times).shape == (4, 2, 6, 6)


@pytest.mark.parametrize(
    ("raster", "message"),
    [
        (
            torch.ones(5, 3),
            r"raster: expected \(steps, batch, inputs\) .* got \(5, 3\); for a single sample pass raster",
        ),
        (torch.ones(5), r"raster: expected \(steps, batch, inputs\) with at least one step, got \(5,\)$"),
        (torch.ones(0, 3, 2), r"with at least one step, got \(0, 3, 2\)$"),
        (
            torch.full((2, 1, 1), 3.0),
            r"raster: expected 0 and 1 only, got 3; if these are spike counts, pass raster > 0",
        ),
        (torch.full((2, 1, 1), -0.25), "expected 0 and 1 only, got -0.25;"),
        (torch.full((2, 1, 1), math.nan), "expected 0 and 1 only, got nan;"),
        ([[["a"]]], "raster: expected numbers, got 'a' at"),
    ],
)
def test_what_is_not_a_raster_is_one_clear_line(raster, message):
    with pytest.raises(ValueError, match=message) as error:
        fs.data.first_spikes(raster, 1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dt", [0, -0.1, math.inf, math.nan, True, "1"])
def test_a_step_has_a_positive_length(dt):
    with pytest.raises(ValueError, match="dt must be > 0 and finite, got"):
        fs.data.first_spikes(torch.ones(2, 1, 1), dt)
