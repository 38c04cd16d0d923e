import math

import mpmath as mp
import numpy as np
import pytest
import scipy.special
import torch

from firstspike.spiketime.reference.solutions import lambert_w0

BRANCH_POINT = -math.exp(-1)  # the double next to -1/e; a little below it

DOMAIN = {
    "near the branch point": BRANCH_POINT + np.logspace(-16, -0.5, 120),
    "where the series ends": np.linspace(-0.36787, -0.3668, 200),
    "negative": np.linspace(-0.3678, -1e-3, 200),
    "close to 0": np.concatenate([np.logspace(-300, -1, 80), -np.logspace(-300, -1, 80)]),
    "start values change": np.nextafter(-0.25, [-1, 0]),
    "moderate": np.linspace(1e-3, 50, 200),
    "huge": np.logspace(1, 308, 80),
    "extreme": np.array([5e-324, -5e-324, 1e-310, -1e-310, np.finfo(float).tiny, np.finfo(float).max]),
}


def exact(z):
    with mp.workdps(60):
        return mp.lambertw(mp.mpf(float(z))).real


@pytest.mark.parametrize("part", DOMAIN)
def test_against_60_digits(part):
    z = DOMAIN[part]
    found = lambert_w0(torch.from_numpy(z))
    assert found.dtype == torch.float64
    for value, argument in zip(found.tolist(), z, strict=True):
        truth = exact(argument)
        assert abs((mp.mpf(value) - truth) / truth) < 1e-14, argument


@pytest.mark.parametrize("part", ["negative", "moderate", "huge"])
def test_against_scipy(part):
    z = DOMAIN[part]
    np.testing.assert_allclose(lambert_w0(torch.from_numpy(z)).numpy(), scipy.special.lambertw(z).real, rtol=1e-13)


def test_special_values():
    z = torch.tensor([0.0, -0.0, math.inf, BRANCH_POINT, math.e], dtype=torch.float64)
    found = lambert_w0(z)
    assert found[:4].tolist() == [0, 0, math.inf, -1]
    assert found[4].item() == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("z", [math.nan, -math.inf, -1.0, np.nextafter(BRANCH_POINT, -1)])
def test_nan_below_the_branch_point(z):
    assert math.isnan(lambert_w0(torch.tensor(z, dtype=torch.float64)).item())


def test_inverse():
    z = torch.logspace(-8, 8, 100, dtype=torch.float64)
    w = lambert_w0(z)
    torch.testing.assert_close(w * w.exp(), z, rtol=1e-14, atol=0)


def test_float32_is_rounded_float64():
    z = torch.linspace(-0.3, 100, 50)
    assert lambert_w0(z).dtype == torch.float32
    assert torch.equal(lambert_w0(z), lambert_w0(z.double()).float())


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3, 4)])
def test_shapes_and_argument_unchanged(shape):
    z = torch.full(shape, 0.5, requires_grad=True)
    found = lambert_w0(z)
    assert found.shape == shape
    assert not found.requires_grad
    assert bool((z == 0.5).all())


def test_one_element_does_not_change_another():
    z = torch.tensor([0.1, math.nan, BRANCH_POINT, 1e300, 0.0, -0.36], dtype=torch.float64)
    together = lambert_w0(z)
    alone = torch.stack([lambert_w0(x) for x in z])
    torch.testing.assert_close(together, alone, rtol=1e-15, atol=0, equal_nan=True)
