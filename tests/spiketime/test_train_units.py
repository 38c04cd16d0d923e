"""Spike trains in units of time that are far from the time constants: ends, windows, states, observed spikes."""

import math

import pytest
import torch

from firstspike import LIF, LIFRecurrent, spike_trains
from firstspike.spiketime import spike_window

INF = math.inf
UNITS = [2.0**13, 2.0**-13, 5000.0, 1e-6]


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(3, 6, 3, generator=generator, dtype=torch.float64) * 4
    times[0, 2, 1:] = INF
    weight = (torch.rand(4, 6, generator=generator, dtype=torch.float64) - 0.3) * 2.5
    return times.to(dtype), weight.to(dtype)


def finite(x):
    return torch.where(x < INF, x, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("unit", UNITS)
def test_silence_stays_silence_up_to_a_finite_end(unit, dtype, backend):
    times, weight = draw(dtype)
    plain = spike_trains(times, weight, LIF(2.0), max_spikes=30, until=2.5, backend=backend)
    scaled = spike_trains(times * unit, weight, LIF(2.0 * unit, unit), max_spikes=30, until=2.5 * unit, backend=backend)
    assert 20 < int(plain.isfinite().sum()) < plain.numel() - 10
    assert torch.equal(scaled.isfinite(), plain.isfinite())
    assert bool((scaled[scaled < INF] <= 2.5 * unit).all())
    torch.testing.assert_close(scaled / unit, plain, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("observes", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_windows_and_gradients_in_any_unit(unit, observes, backend):
    """Through the states of three windows, refractory times included."""
    times, weight = draw()
    results = []
    for scale in (1.0, unit):
        leaves = [(times * scale).requires_grad_(), weight.clone().requires_grad_()]
        leaves.append((torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).double() * scale).requires_grad_())
        state, total, found = None, 0.0, []
        for until in (1.3, 2.0, 6.0):
            options = {"delay": leaves[2], "refractory": 0.4 * scale, "reset": -0.1, "backend": backend}
            options |= {"state": state, "until": until * scale, "max_weight_grad": 3.0}
            if observes:
                seen = spike_window(leaves[0], leaves[1], LIF(2.0 * scale, scale), max_spikes=30, **options).trains
                options["observed"] = seen.detach()
            part, state, _ = spike_window(leaves[0], leaves[1], LIF(2.0 * scale, scale), max_spikes=30, **options)
            found.append(part / scale)
            total = total + finite(part / scale).square().sum()
        total = total + state.voltage.sin().sum() + state.current.sum() + (state.refractory / scale).square().sum()
        by = torch.autograd.grad(total, leaves)
        results.append((*found, by[0] * scale, by[1], by[2] * scale, state.refractory / scale, *state[:2]))
    assert sum(int(x.isfinite().sum()) for x in results[0][:3]) > 20
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("unit", UNITS)
def test_recurrent_layers_in_any_unit(unit):
    times = draw()[0]
    results = []
    for scale in (1.0, unit):
        lif = LIFRecurrent(
            6, 5, 30, 6.0 * scale, LIF(2.0 * scale, scale), window=0.75 * scale, window_spikes=20, weight_mean=0.8,
            weight_std=0.3, recurrent_std=0.4, dtype=torch.float64, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        found = lif(times * scale) / scale
        results.append((found, *torch.autograd.grad(finite(found).sum(), tuple(lif.parameters()))))
    assert 20 < int(results[0][0].isfinite().sum()) < results[0][0].numel() - 20
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("until", [1e30, 1e39])
def test_ends_without_a_number_are_refused(until, backend):
    times, weight = draw(torch.float32)
    with pytest.raises(ValueError, match=r"until must be .*float32"):
        spike_trains(times * 1e-13, weight, LIF(2e-13, 1e-13), max_spikes=30, until=until, backend=backend)
    with pytest.raises(ValueError, match=r"until must be .*float32"):
        spike_trains(times, weight, LIF(2.0), max_spikes=30, until=1e39, backend=backend)
