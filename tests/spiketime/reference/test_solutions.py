"""The last step by itself: from a state below the threshold to its crossing, against 50 digits."""

import math

import mpmath as mp
import pytest
import torch

from firstspike.spiketime.reference.solutions import time_to_threshold
from firstspike.spiketime.response import peak

STATES = {
    "at rest": (0.0, 6.0, 1.0),
    "strong input": (0.0, 1e6, 1.0),
    "close to the threshold": (1 - 1e-9, 6.0, 1.0),
    "below rest": (-3.0, 40.0, 1.0),
    "far below rest": (-50.0, 1e3, 1.0),
    "small scale": (1e-8, 6e-6, 1e-6),
    "large scale": (1e5, 8e6, 1e6),
}


def tensor(value, dtype=torch.float64):
    return torch.full((1, 1, 1), value, dtype=dtype)


def truth(voltage, current, threshold, ratio, exact):
    """Bisection between the state and the peak, or a late time without one."""
    with mp.workdps(exact.digits):

        def level(s):
            decay = mp.mpf(1) if math.isinf(ratio) else mp.exp(-s / mp.mpf(ratio))
            return mp.mpf(voltage) * decay + mp.mpf(current) * exact.response(s, ratio, 1.0)

        high = mp.mpf(100)
        if not math.isinf(ratio):
            high = mp.mpf(peak(tensor(voltage), tensor(current), ratio, 1.0)[0].item())
        low = mp.mpf(0)
        assert level(low) < threshold < level(high)
        for _ in range(150):
            middle = (low + high) / 2
            low, high = (middle, high) if level(middle) < threshold else (low, middle)
        return high


@pytest.mark.parametrize("length", [math.inf, 1.0], ids=["endless", "limited"])
@pytest.mark.parametrize("state", STATES)
def test_crossing(state, length, ratio, exact):
    voltage, current, threshold = STATES[state]
    expected = float(truth(voltage, current, threshold, ratio, exact))
    found = time_to_threshold(tensor(voltage), tensor(current), tensor(threshold), tensor(length), ratio, 1.0)
    # a wait counts from an input's time, so an error relative to tau is what matters
    assert found.item() == pytest.approx(expected, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("tau_syn", [5e-3, 250.0])
def test_units(tau_syn, ratio):
    state = (tensor(-0.2), tensor(7.0), tensor(1.0), tensor(math.inf))
    found = time_to_threshold(*state, ratio * tau_syn, tau_syn)
    assert found.item() == pytest.approx(time_to_threshold(*state, ratio, 1.0).item() * tau_syn, rel=1e-13)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, 1.37, 10.0, 1 + 1e-9, 0.3])
def test_tangent(ratio):
    """At a threshold equal to the peak, up to rounding, the crossing is the peak."""
    voltage, current = tensor(0.2), tensor(5.0)
    at, height = peak(voltage, current, ratio, 1.0)
    for threshold in (height, torch.nextafter(height, height + 1), torch.nextafter(height, height - 1)):
        found = time_to_threshold(voltage, current, threshold, tensor(math.inf), ratio, 1.0)
        assert found.item() == pytest.approx(at.item(), abs=3e-7)


def test_rounded_over_the_asymptote():
    """Without leak: a threshold not reached for one bit gives a late time, not NaN."""
    voltage, current = tensor(0.3), tensor(0.7)
    threshold = torch.nextafter(voltage + current, tensor(2.0))
    assert time_to_threshold(voltage, current, threshold, tensor(50.0), math.inf, 1.0).item() > 30


def test_elements_are_independent(ratio):
    """One that converges slowly, or not at all, does not change the others."""
    voltage = torch.tensor([[[0.0, 0.5, -3.0, 0.0, 0.0]]], dtype=torch.float64)
    current = torch.tensor([[[6.0, 4.0, 40.0, 0.1, -5.0]]], dtype=torch.float64)
    threshold, length = torch.ones_like(voltage), torch.full_like(voltage, math.inf)
    together = time_to_threshold(voltage, current, threshold, length, ratio, 1.0)
    for k in range(3):
        part = (..., slice(k, k + 1))
        alone = time_to_threshold(voltage[part], current[part], threshold[part], length[part], ratio, 1.0)
        torch.testing.assert_close(alone, together[part], rtol=1e-15, atol=0)


def test_float32(ratio):
    state = [torch.tensor([[[x]]]) for x in (0.2, 5.0, 1.0, math.inf)]
    found = time_to_threshold(*state, ratio, 1.0)
    assert found.dtype == torch.float32
    expected = time_to_threshold(*(x.double() for x in state), ratio, 1.0)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-7)
