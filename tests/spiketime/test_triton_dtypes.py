"""The backend for GPUs in Triton's interpreter, in both dtypes and of all values, beside the others."""

import pytest
from test_triton import run_interpreted


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_interpreted(dtype):
    run_interpreted(dtype)


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.exhaustive
def test_more_interpreted():
    run_interpreted("not float64 and not float32", "-m", "exhaustive")
