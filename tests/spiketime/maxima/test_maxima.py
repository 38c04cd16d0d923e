"""Maxima of shared spikes against those of each pair of a sample and a neuron alone, which ``peaks`` computes."""

import math

import pytest
import torch

from firstspike import LIF
from firstspike.spiketime.maxima.peaks import lacking, maximum

INF = math.inf
HIGH = 100.0


def case(samples=6, inputs=5, copies=7, outputs=4, seed=0, dtype=torch.float64):
    """Trains of different lengths in any order; one sample has a single spike, one none, one membrane never rises."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(samples, inputs, copies, generator=generator, dtype=torch.float64) * 6
    times = torch.where(torch.rand(times.shape, generator=generator) < 0.6, times, INF)
    times[1] = INF
    times[2] = INF
    times[2, 3, -1] = 1.5
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    weight[-1] = -weight[-1].abs()
    return times.to(dtype), weight.to(dtype)


def of_pairs(times, weight, neuron):
    flat, each = times.flatten(1), weight.repeat_interleave(times.shape[-1], dim=1)
    everyone = torch.ones(len(flat), len(each), dtype=torch.bool)
    return HIGH - lacking(flat, each, LIF(neuron.tau_mem, neuron.tau_syn, HIGH), everyone)


def with_gradients(function, times, weight, neuron):
    x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
    found = function(x, w, neuron)
    factors = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(found)
    return found.detach(), *torch.autograd.grad((found * factors).sum(), [x, w])


@pytest.mark.parametrize("copies", [1, 7, 60])
@pytest.mark.parametrize("tau_mem", [0.5, 1.0, 1.37, 100.0, INF])
def test_equals_pairs(tau_mem, copies):
    times, weight = case(copies=copies, seed=copies)
    neuron = LIF(0.8 * tau_mem, 0.8)
    found, expected = (with_gradients(x, times, weight, neuron) for x in (maximum, of_pairs))
    assert not found[0][:, -1].any()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    assert found[1].any()
    assert found[2].any()


def test_constants_of_each_output():
    times, weight = case()
    neuron = LIF(torch.tensor([0.5, 1.0, 2.0, 30.0]).double(), torch.tensor([1.0, 1.0, 0.7, 1.3]).double())
    for one, other in zip(*(with_gradients(x, times, weight, neuron) for x in (maximum, of_pairs)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_float32_and_late_times():
    """The result hangs on differences of times only."""
    times, weight = case()
    found = maximum(times.float(), weight.float(), LIF(2.0))
    torch.testing.assert_close(found.double(), maximum(times, weight, LIF(2.0)), rtol=1e-5, atol=1e-6)
    late = maximum(times + 2.0**20, weight, LIF(2.0))
    torch.testing.assert_close(late, maximum(times, weight, LIF(2.0)), rtol=1e-8, atol=1e-9)


def test_arrivals_at_once():
    """Excitation and stronger inhibition at the same time: the membrane never rises in between."""
    times = torch.tensor([[[1.0], [1.0]]], dtype=torch.float64)
    weight = torch.tensor([[5.0, -6.0], [6.0, -5.0]], dtype=torch.float64)
    assert maximum(times, weight, LIF())[0].tolist() == pytest.approx([0.0, math.exp(-1)])


def test_parts_add_up(monkeypatch):
    times, weight = case()
    whole = with_gradients(maximum, times, weight, LIF(2.0))
    monkeypatch.setattr("firstspike.spiketime.maxima.peaks._CHUNK", 20)
    for one, other in zip(with_gradients(maximum, times, weight, LIF(2.0)), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_nothing_arrives():
    times, weight = case()
    for given in (torch.full_like(times, INF), times[:0], times[..., :0]):
        found, by_times, by_weight = with_gradients(maximum, given, weight, LIF())
        assert found.shape == (len(given), 4)
        assert not found.any()
        assert not by_times.any()
        assert not by_weight.any()
    assert maximum(times, weight[:0], LIF()).shape == (6, 0)


def test_vmap():
    times, weights = case()[0], torch.stack([case(seed=seed)[1] for seed in range(3)]).requires_grad_()
    together = torch.vmap(lambda weight: maximum(times, weight, LIF(2.0)))(weights)
    alone = torch.stack([maximum(times, weight, LIF(2.0)) for weight in weights])
    assert torch.equal(together, alone)
    found, expected = (torch.autograd.grad(x.square().sum(), weights)[0] for x in (together, alone))
    assert torch.equal(found, expected)
