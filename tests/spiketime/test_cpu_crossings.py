"""Crossings that the CPU kernels find in ways of their own: in closed form, and between few inputs."""

import math

import mpmath as mp
import pytest
import torch

from firstspike import LIF, first_spike_time

DTYPES = [torch.float32, torch.float64]
BEFORE = 8.0  # from the input that sets the membrane to the one that makes it cross


def kappa(s, tau_mem):
    """Response to an input of weight 1 with ``tau_syn = 1``."""
    return (mp.exp(-s / tau_mem) - mp.exp(-s)) / (1 - 1 / mp.mpf(tau_mem))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [0.5, 3.0, 50.0, 1e4])
@pytest.mark.parametrize("tau_mem", [2.0, 0.5])
def test_roots_of_the_quadratic_early_and_late(tau_mem, depth, dtype):
    slow = max(tau_mem, 1.0)
    u = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)  # 1 - exp(-s/slow) at the crossings
    if tau_mem == 2:  # V(u) = V (1 - u) + 2 I u (1 - u)
        current = (1 + depth * (1 - u)) / (2 * u * (1 - u))
        slope = depth + 2 * current * (1 - 2 * u)  # dV/du
    else:  # V(u) = V (1 - u)^2 + I u (1 - u)
        current = (1 + depth * (1 - u) ** 2) / (u * (1 - u))
        slope = 2 * depth * (1 - u) + current * (1 - 2 * u)
    rises = slope > 0.01 * current  # not next to the peak, where rounding decides whether there is a spike
    u, current = u[rises], current[rises]
    first = torch.full_like(u, -depth / float(kappa(BEFORE, tau_mem)))
    weight = torch.stack([first, current - first * math.exp(-BEFORE)], dim=1).to(dtype)
    times = torch.tensor([[0.0, BEFORE]], dtype=dtype)
    found = first_spike_time(times, weight, LIF(tau_mem, 1.0, 1.0), backend="cpu")[0].double()

    eps = torch.finfo(dtype).eps
    for spike, (pull, push), wanted in zip(found.tolist(), weight.tolist(), u.tolist(), strict=True):
        with mp.workdps(50):
            level = pull * kappa(spike, tau_mem) + push * kappa(spike - BEFORE, tau_mem)
            largest = depth + push
        assert abs(level - 1) <= eps * (8 * largest + 2 * BEFORE * largest)
        assert spike - BEFORE == pytest.approx(-slow * math.log1p(-wanted), rel=0.05)
    if depth >= 50:
        assert (u < 0.75).sum() > 50
        assert (u > 0.75).sum() > 20


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau_mem", [1.0, 2.0, 1.37])
def test_first_of_many_intervals_in_which_a_neuron_would_fire(tau_mem, dtype):
    times = 5.0 * torch.arange(63, dtype=dtype)[None]
    strength = 1.5 / float(max(kappa(s, tau_mem + 1e-9) for s in (0.5, 0.75, 1.0, 1.25, 1.5)))
    weight = torch.zeros(40, 63, dtype=dtype)
    weight[0] = strength  # above the threshold and below it again after each input
    for neuron in range(1, 39):
        weight[neuron, neuron + 20 :] = strength
    found = first_spike_time(times, weight, LIF(tau_mem), backend="cpu")[0]
    wait = found[0].item()
    assert 0 < wait < 2
    assert found[39] == math.inf
    later = times[0, 21:59] + wait
    torch.testing.assert_close(found[1:39], later, rtol=2 * torch.finfo(dtype).eps, atol=0)
