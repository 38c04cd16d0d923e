import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstspike.data import latency

unit = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_ends():
    values = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert latency(values).tolist() == [0.15, 1.075, 2.0]
    assert latency(values, invert=True).tolist() == [2.0, 1.075, 0.15]


def test_silent_background_is_the_late_end_only():
    values = torch.tensor([0.0, 0.5, 1.0])
    assert torch.isinf(latency(values, silent_background=True)).tolist() == [False, False, True]
    assert torch.isinf(latency(values, invert=True, silent_background=True)).tolist() == [True, False, False]


def test_faint_ink_is_no_background():
    faint = torch.tensor([1e-12])  # 1 - 1e-12 rounds to 1
    assert math.isfinite(latency(faint, invert=True, silent_background=True).item())


@given(unit, st.floats(0, 5), st.floats(0.01, 5))
def test_order_range_and_inverse(values, early, width):
    values = torch.tensor(values, dtype=torch.float64)
    late = early + width
    times = latency(values, early, late)
    assert times.min() >= early
    assert times.max() <= late + 1e-12
    assert torch.allclose((times - early) / width, values, atol=1e-9)
    assert torch.allclose(times + latency(values, early, late, invert=True), torch.full_like(times, early + late))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_stay_and_input_is_unchanged(dtype):
    values = torch.rand(2, 3, 4, dtype=dtype)
    before = values.clone()
    times = latency(values, silent_background=True)
    assert times.shape == values.shape
    assert times.dtype == dtype
    assert torch.equal(values, before)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf])
def test_values_outside_are_refused(bad):
    with pytest.raises(ValueError, match=r"values: expected numbers in \[0, 1\]"):
        latency(torch.tensor([0.5, bad]))


def test_integer_values_are_refused():
    with pytest.raises(ValueError, match="values: expected floating point"):
        latency(torch.tensor([0, 1]))


def test_arrays_and_lists():
    assert latency([0.0, 0.5, 1.0]).tolist() == pytest.approx([0.15, 1.075, 2.0])
    assert latency([[0.0], [1.0]]).dtype == torch.float32
    array = np.array([[0.0, 1.0]])
    assert latency(array).tolist() == [[0.15, 2.0]]
    assert latency(array).dtype == torch.float64
    assert array.tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"values: expected floating point, got torch.uint8\. .*values / 255"):
        latency(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="values: expected numbers in a tensor or array, got a str"):
        latency("0.5")


@pytest.mark.parametrize(("early", "late"), [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bad_window_is_refused(early, late):
    with pytest.raises(ValueError, match="early, late: expected"):
        latency(torch.tensor([0.5]), early, late)
