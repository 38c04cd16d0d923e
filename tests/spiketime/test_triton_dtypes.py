"""The backend for GPUs in Triton's interpreter, in both dtypes: in a file that may run beside the others."""

import pytest
from test_triton import run_interpreted


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_interpreted(dtype):
    run_interpreted(dtype)
