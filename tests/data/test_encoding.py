import json
import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from firstspike.data import LatencyEncoder
from firstspike.data.encoding import latency

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


@pytest.mark.parametrize(("early", "late"), [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bad_window_is_refused(early, late):
    with pytest.raises(ValueError, match="early, late: expected"):
        latency(torch.tensor([0.5]), early, late)


VALUES = np.array([[1.0, -10.0, 5.0, math.nan], [2.0, 0.0, 5.0, math.nan], [5.0, math.nan, 5.0, math.nan]])
DOUBLE = {"dtype": torch.float64}


def encode(values, dtype=torch.float32, **options):
    return LatencyEncoder(**options).fit(values)(values, dtype)


def test_each_feature_has_its_own_range():
    times = encode(VALUES, early=1.0, late=3.0, **DOUBLE)
    assert times[:, 0].tolist() == [1.0, 1.5, 3.0]
    assert times[:, 1].tolist() == [1.0, 3.0, math.inf]  # a missing value does not spike
    assert times[:, 2].tolist() == [1.0, 1.0, 1.0]  # constant
    assert times[:, 3].tolist() == [math.inf] * 3
    shared = encode(VALUES, early=1.0, late=4.0, per_feature=False, **DOUBLE)
    torch.testing.assert_close(shared[:, :2], torch.tensor([[3.2, 1.0], [3.4, 3.0], [4.0, math.inf]], **DOUBLE))


def test_large_values_first_and_both_ways():
    early, late = encode(VALUES, on_off=False), encode(VALUES, on_off=False, invert=True)
    finite = torch.isfinite(early)
    torch.testing.assert_close(early[finite] + late[finite], torch.full_like(early[finite], 2.15))
    assert torch.equal(encode(VALUES), torch.cat([early, late], dim=1))
    assert torch.equal(encode(VALUES, invert=True), torch.cat([late, early], dim=1))


@pytest.mark.parametrize("given", [np.asarray, torch.tensor, list, lambda x: np.float32(x)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_of_any_kind(given, dtype):
    values = [[1, 2], [3, 5], [2, 11]]
    table = given(values)
    times = encode(table, dtype=dtype)
    assert times.dtype == dtype
    assert torch.equal(times, encode(torch.tensor(values, dtype=torch.float64), dtype=torch.float64).to(dtype))
    assert np.array_equal(np.asarray(table), np.asarray(values))


def test_values_outside_the_range_are_clipped():
    encoder = LatencyEncoder(early=1.0, late=2.0, on_off=False).fit([[0.0, 7.0], [4.0, 7.0]])
    assert encoder([[-3.0, 8.0], [9.0, -8.0], [1.0, math.nan]]).tolist() == [[1.0, 1.0], [2.0, 1.0], [1.25, math.inf]]
    assert (encoder.low, encoder.high, encoder.features) == ((0.0, 7.0), (4.0, 7.0), 2)
    assert encoder.blank == (1.0,)
    assert LatencyEncoder(1.0, 2.0, invert=True, on_off=True).blank == (2.0, 1.0)


def test_fitting_leaves_the_encoder_as_it_was():
    encoder = LatencyEncoder()
    encoder.fit(VALUES)
    with pytest.raises(ValueError, match=r"has no ranges yet: use encoder = encoder\.fit"):
        encoder(VALUES)


def test_ranges_are_stored_as_plain_values():
    encoder = LatencyEncoder(late=1.5, per_feature=False, invert=True).fit(np.array([[0.1, 0.2], [1 / 3, 0.3]]))
    stored = json.loads(json.dumps(encoder.to_dict()))
    assert LatencyEncoder.from_dict(stored) == encoder
    assert yaml.safe_load(yaml.safe_dump(encoder.to_dict())) == stored
    assert LatencyEncoder.from_dict(LatencyEncoder().to_dict()) == LatencyEncoder()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"earlier": 1.0}, "encode: unknown key 'earlier'; valid keys: early, late, per_feature, invert, on_off"),
        ([1.0], r"encode: expected the keys early, .*, got \[1.0\]"),
        ({"early": "soon"}, "early must be >= 0 and finite, got 'soon'"),
        ({"late": None}, "late must be finite, got None"),
        ({"early": True}, "early must be >= 0 and finite, got True"),
        ({"late": 0.1}, "early, late: expected"),
        ({"invert": 1}, "invert: expected true or false, got 1"),
        ({"low": [0.0]}, "high: expected a list of numbers, one per feature, got None"),
        ({"low": 1.0, "high": 2.0}, "low: expected a list of numbers"),
        ({"low": ["a"], "high": [1.0]}, "low: expected a list of numbers"),
        ({"low": [], "high": []}, "low: expected a list of numbers"),
        ({"low": [0.0], "high": [1.0, 2.0]}, "low, high: expected as many"),
        ({"low": [1.0], "high": [0.0]}, "low, high: expected"),
        ({"low": [math.nan], "high": [0.0]}, "low, high: expected"),
        ({"low": [0.0], "high": [math.inf]}, "low, high: expected"),
        ({"low": [-1.7e308], "high": [1.7e308]}, "low, high: expected"),
    ],
)
def test_stored_encoders_that_do_not_fit(stored, message):
    with pytest.raises(ValueError, match=message) as error:
        LatencyEncoder.from_dict(stored)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [3.0, math.inf]], r"values: expected finite numbers or NaN \(missing\), got inf at \[1, 1\]"),
        ([1.0, 2.0], r"values: expected the shape \(samples, inputs\)"),
        ([[]], r"values: expected the shape"),
        ([["a", "b"]], r"values: expected numbers, got 'a' at \[0, 0\]"),
        ([[1.0], [1.0, 2.0]], "values: expected numbers"),
        ([[1j]], "values: expected numbers, got complex128"),
    ],
)
def test_values_that_cannot_be_encoded(values, message):
    with pytest.raises(ValueError, match=message) as error:
        encode(values)
    assert "\n" not in str(error.value)


def test_another_number_of_features():
    with pytest.raises(ValueError, match=r"values: expected the shape \(samples, 4\), got \(1, 3\)"):
        LatencyEncoder().fit(VALUES)([[1.0, 2.0, 3.0]])


@given(st.lists(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=1, max_size=20))
def test_times_of_values_lie_in_the_window_and_in_order(values):
    times, values = encode(values, **DOUBLE), torch.tensor(values, dtype=torch.float64)
    assert times.min() >= 0.15
    assert times.max() <= 2.0
    order = values.argsort(dim=0, stable=True)
    assert bool((times.gather(0, order).diff(dim=0) >= 0).all())
