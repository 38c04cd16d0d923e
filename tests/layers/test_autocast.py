"""Layers under autocast, and with times of low precision."""

import pytest
import torch
from test_programs import seeded
from torch import nn
from torch.func import jvp

from firstspike import LIF, DelayRule, LIFLinear

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own parts


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64])
def test_autocast(dtype, backend):
    """A layer takes times in low precision, computes in the type of its weight, and gives gradients back."""
    encoder, lif = nn.Linear(6, 5), LIFLinear(5, 4, LIF(2.0), delay=DelayRule(), backend=backend, dtype=dtype)
    values = torch.rand(7, 6, generator=seeded(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        times = encoder(values)
        out = lif(times)
        again = lif(times.to(dtype))
    assert times.dtype == torch.bfloat16
    assert out.dtype == dtype
    assert torch.equal(out, lif(times.to(dtype)))
    assert torch.equal(out, again)
    out[out.isfinite()].sum().backward()
    assert encoder.weight.grad.any()
    assert encoder.weight.grad.dtype == torch.float32
    assert lif.weight.grad.dtype == dtype


@pytest.mark.slow
def test_tangents_under_autocast_are_those_without(backend):
    lif, times = LIFLinear(5, 4, LIF(2.0), generator=seeded(), backend=backend), torch.rand(7, 5, generator=seeded(2))
    expected = jvp(lif, (times,), (times,))[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(jvp(lif, (times,), (times,))[1], expected)


def test_autocast_converts_nothing_else():
    lif = LIFLinear(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match=r"times is torch\.float64 on cpu, weight is torch\.float32"):
            lif(torch.rand(2, 5).double())
        with pytest.raises(ValueError, match=r"times must be float32 or float64, got torch\.int16"):
            lif(torch.ones(2, 5, dtype=torch.int16))


def test_low_precision_without_autocast_is_refused():
    lif = LIFLinear(5, 4)
    with pytest.raises(
        ValueError, match=r"times is torch\.bfloat16 on cpu, weight is torch\.float32 .* times\.to\(weight\)"
    ):
        lif(torch.rand(2, 5).bfloat16())
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match=r"weight must be float32 or float64, got torch\.bfloat16"),
    ):
        lif.bfloat16()(torch.rand(2, 5).bfloat16())
