import math

import mpmath as mp
import pytest
import torch

from firstspike.spiketime.response import kappa, kappa_by_taus, kappa_slope, membrane, peak

ELAPSED = [0.0, 1e-12, 1e-3, 0.3, 1.0, 4.0, 30.0, 300.0]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, truth, rel):
    return float(abs(mp.mpf(found) - truth)) <= rel * float(abs(truth)) + 1e-300


@pytest.mark.parametrize("tau_syn", [1.0, 5e-3, 300.0])
def test_kappa(ratio, tau_syn, exact):
    s = tensor(*ELAPSED) * tau_syn
    found = kappa(s, ratio * tau_syn, tau_syn)
    with mp.workdps(exact.digits):
        for value, elapsed in zip(found.tolist(), s.tolist(), strict=True):
            # an error eps in s/tau is one of s/tau eps in the exponential
            assert close(value, exact.response(elapsed, ratio * tau_syn, tau_syn), 1e-14 + 1e-15 * elapsed / tau_syn)


@pytest.mark.parametrize("offset", [1e-15, 1e-12, 1e-6, -1e-12, -1e-3])
def test_kappa_for_almost_equal_constants(offset, exact):
    with mp.workdps(exact.digits):
        for elapsed in (1e-6, 0.5, 3.0, 20.0):
            found = kappa(tensor(elapsed), 1 + offset, 1.0).item()
            assert close(found, exact.response(elapsed, 1 + offset, 1.0), 1e-13)


def test_kappa_is_symmetric_up_to_a_factor():
    s = torch.linspace(0, 20, 50, dtype=torch.float64)
    torch.testing.assert_close(kappa(s, 3.0, 0.7) * 0.7, kappa(s, 0.7, 3.0) * 3.0, rtol=1e-14, atol=0)


def test_kappa_slope(ratio, exact):
    s = tensor(0.01, 0.3, 1.0, 4.0)
    found = kappa_slope(s, ratio, 1.0)
    with mp.workdps(exact.digits):
        for value, elapsed in zip(found.tolist(), s.tolist(), strict=True):
            truth = mp.diff(lambda x: exact.response(x, ratio, 1.0), mp.mpf(elapsed))
            assert abs(value - float(truth)) < 1e-14


@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-15, 1 - 1e-9, 1.2, 0.8, 2.0, 0.5, 10.0, 0.1, 100.0])
def test_kappa_by_time_constants(ratio, exact):
    """To the last digits, on both sides of where the series ends."""
    elapsed = [1e-6, 0.3, 1.0, 2.0, 4.0, 0.49 / abs(1 - 1 / ratio) if abs(ratio - 1) > 0.1 else 7.0, 30.0]
    found = kappa_by_taus(tensor(*elapsed), ratio, 1.0)
    as_tensors = kappa_by_taus(tensor(*elapsed), tensor(ratio), tensor(1.0))
    for x, y in zip(found, as_tensors, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-20)
    with mp.workdps(exact.digits):
        step = mp.mpf(10) ** -12
        for s, by_mem, by_syn in zip(elapsed, *(x.tolist() for x in found), strict=True):
            mem, syn = mp.mpf(ratio), mp.mpf(1)
            of_mem = (exact.response(s, mem + step, syn) - exact.response(s, mem - step, syn)) / (2 * step)
            of_syn = (exact.response(s, mem, syn + step) - exact.response(s, mem, syn - step)) / (2 * step)
            size = float(abs(of_syn) + exact.response(s, mem, syn))  # by tau_syn there are two terms
            assert close(by_mem, of_mem, 2e-14 + 1e-15 * s)
            assert abs(by_syn - float(of_syn)) < (2e-14 + 1e-15 * s) * size
    assert kappa_by_taus(tensor(0.0), ratio, 1.0) == (0, 0)


def test_kappa_by_time_constants_without_leak():
    s = tensor(0.0, 0.4, 3.0, 50.0)
    by_mem, by_syn = kappa_by_taus(s, math.inf, 0.5)
    assert not by_mem.any()
    torch.testing.assert_close(by_syn, -s / 0.25 * torch.exp(-s / 0.5), rtol=1e-13, atol=1e-16)


def test_membrane_composes(ratio):
    """Two short waits are one long wait."""
    voltage, current = tensor(0.3, -2.0, 0.0), tensor(1.5, 4.0, -1.0)
    first, second = tensor(0.7, 0.1, 3.0), tensor(0.4, 2.0, 1.0)
    middle = membrane(first, voltage, current, ratio, 1.0)
    twice = membrane(second, middle, current * torch.exp(-first), ratio, 1.0)
    torch.testing.assert_close(twice, membrane(first + second, voltage, current, ratio, 1.0), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("tau_syn", [1.0, 5e-3])
@pytest.mark.parametrize(("voltage", "current"), [(0.0, 1.0), (0.5, 8.0), (-0.5, 1.0), (-0.9, 1e3), (1e-3, 0.1)])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3])
def test_peak_is_where_the_slope_is_zero(ratio, tau_syn, voltage, current):
    tau_mem = ratio * tau_syn
    v, i = tensor(voltage), tensor(current)
    time, height = peak(v, i, tau_mem, tau_syn)
    assert time.item() > 0
    at_peak = membrane(time, v, i, tau_mem, tau_syn)
    torch.testing.assert_close(height, at_peak, rtol=1e-12, atol=0)
    slope = i * torch.exp(-time / tau_syn) / tau_syn - at_peak / tau_mem
    assert abs(slope.item()) * tau_syn < 1e-12 * current


def test_state_that_rises_towards_rest_has_no_peak():
    time, height = peak(tensor(-10.0), tensor(0.5), 2.0, 1.0)
    assert time.item() == math.inf
    assert height.item() == 0


@pytest.mark.parametrize("function", [kappa, kappa_slope])
def test_float32(function, ratio):
    s = torch.tensor(ELAPSED[:-2])
    single = function(s, ratio, 1.0)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), function(s.double(), ratio, 1.0), rtol=3e-6, atol=1e-7)
