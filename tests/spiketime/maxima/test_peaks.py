import math

import pytest
import torch

from firstspike import LIF
from firstspike.spiketime.maxima.peaks import accumulate, lacking
from firstspike.spiketime.response import kappa

INF = math.inf
RATIOS = [1.0, 2.0, 0.5, 1.37, 50.0, INF]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def case(seed=0, inputs=7, outputs=9):
    """Weights of both signs, too small to spike; some inputs do not arrive, one sample has none at all."""
    times = torch.rand(5, inputs, generator=seeded(seed), dtype=torch.float64) * 4
    times[0, 2:4] = INF
    times[4] = INF
    weight = torch.randn(outputs, inputs, generator=seeded(seed + 1), dtype=torch.float64) * 0.6
    return times, weight


def everyone(times, weight):
    return torch.ones(len(times), len(weight), dtype=torch.bool)


def by_grid(times, weight, neuron):
    """The maximum over a fine grid of times."""
    at = torch.cat([torch.linspace(0, 300, 30_001), torch.linspace(0, 8, 80_001)]).double()
    since = at[:, None] - times[:, None]
    response = torch.where(since > 0, kappa(since.clamp(min=0), neuron.tau_mem, neuron.tau_syn), 0.0)
    return torch.einsum("bti,oi->bto", response, weight).amax(dim=1).clamp(min=0)


@pytest.mark.parametrize("tau_mem", RATIOS)
def test_the_peak_is_the_largest_value_of_the_membrane(tau_mem):
    times, weight = case()
    neuron = LIF(tau_mem, threshold=5.0)
    lack = lacking(times, weight, neuron, everyone(times, weight))
    grid = by_grid(times, weight, neuron)
    torch.testing.assert_close(5.0 - lack, grid, rtol=0, atol=1e-4)
    assert bool((5.0 - lack >= grid - 1e-12).all())
    assert bool((lack[4] == 5.0).all())


@pytest.mark.parametrize("tau_mem", RATIOS)
@pytest.mark.parametrize("delayed", [False, True])
def test_gradient(tau_mem, delayed):
    times, weight = case(seed=3, inputs=5, outputs=3)
    silent = everyone(times, weight)
    silent[1, ::2] = False
    finite = torch.where(times.isfinite(), times, 0.0).requires_grad_()
    delay = torch.rand(weight.shape, generator=seeded(9), dtype=torch.float64)

    def lack(finite, weight, delay):
        shown = torch.where(times.isfinite(), finite, INF)
        return lacking(shown, weight, LIF(tau_mem, threshold=5.0), silent, delay if delayed else None)

    inputs = (finite, weight.requires_grad_(), delay.requires_grad_(delayed))
    assert torch.autograd.gradcheck(lack, inputs, atol=1e-6, eps=1e-7, rtol=1e-4)


def test_a_peak_at_an_arrival_moves_with_it():
    """Excitation, then strong inhibition before the membrane has reached its maximum."""
    times = torch.tensor([[0.0, 0.4]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[1.0, -5.0]], dtype=torch.float64)
    lack = lacking(times, weight, LIF(), torch.ones(1, 1, dtype=torch.bool))
    expected = 1 - 0.4 * math.exp(-0.4)
    assert lack.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(lack.sum(), times)
    slope = (1 - 0.4) * math.exp(-0.4)
    assert gradient[0].tolist() == pytest.approx([slope, -slope])


def test_only_silent_pairs_count():
    times, weight = case()
    weight = weight.abs().requires_grad_()
    silent = torch.zeros(5, 9, dtype=torch.bool)
    silent[2, 3] = True
    lack = lacking(times, weight, LIF(threshold=5.0), silent)
    assert lack.nonzero().tolist() == [[2, 3]]
    (gradient,) = torch.autograd.grad(lack.sum(), weight)
    assert gradient.any(dim=1).nonzero().flatten().tolist() == [3]
    nobody = lacking(times, weight, LIF(), torch.zeros_like(silent))
    assert not nobody.any()
    assert not torch.autograd.grad(nobody.sum(), weight)[0].any()


def test_membranes_below_rest_have_no_gradient():
    times, weight = case()
    weight = -weight.abs().requires_grad_()
    lack = lacking(times, weight, LIF(), everyone(times, weight))
    assert bool((lack == 1).all())
    assert not torch.autograd.grad(lack.sum(), weight)[0].any()


def test_parameters_of_each_neuron():
    times, weight = case()
    tau, threshold = torch.rand(9).double() + 0.5, torch.rand(9).double() + 4
    lack = lacking(times, weight, LIF(tau, threshold=threshold), everyone(times, weight))
    for k in range(9):
        alone = lacking(
            times, weight[k : k + 1], LIF(float(tau[k]), threshold=float(threshold[k])), everyone(times, weight[:1])
        )
        torch.testing.assert_close(lack[:, k : k + 1], alone)


def test_parts_add_up(monkeypatch):
    times, weight = case()
    whole = lacking(times, weight, LIF(threshold=5.0), everyone(times, weight))
    monkeypatch.setattr("firstspike.spiketime.maxima.peaks._CHUNK", 20)
    assert torch.equal(lacking(times, weight, LIF(threshold=5.0), everyone(times, weight)), whole)


def test_vmap():
    times, weights = case()[0], torch.stack([case(seed)[1] for seed in range(3)]).requires_grad_()
    silent = torch.rand(3, 5, 9, generator=seeded(5)) < 0.5

    def one(weight, silent):
        return lacking(times, weight, LIF(2.0, threshold=5.0), silent)

    together = torch.vmap(one)(weights, silent)
    alone = torch.stack([one(w, s) for w, s in zip(weights, silent, strict=True)])
    assert torch.equal(together, alone)
    found, expected = (torch.autograd.grad(x.square().sum(), weights)[0] for x in (together, alone))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("inputs", [1, 2, 7, 8, 9, 63, 64, 65, 200, 600])
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.7, 1.3), (math.inf, 1.0)])
def test_states_are_sums_over_earlier_inputs(inputs, taus):
    source = torch.Generator().manual_seed(inputs)
    time = (6 * torch.rand(inputs, 3, 1, generator=source, dtype=torch.float64)).sort(0).values
    time[inputs // 2 :, 0] = time[inputs // 2, 0].clone()
    weight = torch.randn(inputs, 3, 4, generator=source, dtype=torch.float64)
    voltage, current = torch.zeros_like(weight), weight.clone()
    voltage[0] = 0.3
    accumulate(time, voltage, current, *taus)
    elapsed = time.unsqueeze(1) - time
    before = (torch.arange(inputs) <= torch.arange(inputs)[:, None])[..., None, None]
    wanted = (torch.where(before, kappa(elapsed.clamp(min=0), *taus), 0.0) * weight).sum(1)
    wanted = wanted + 0.3 * torch.exp((time[0] - time) / taus[0])
    torch.testing.assert_close(voltage, wanted, rtol=1e-12, atol=1e-12)
    wanted = (torch.where(before, torch.exp(-elapsed.clamp(min=0) / taus[1]), 0.0) * weight).sum(1)
    torch.testing.assert_close(current, wanted, rtol=1e-12, atol=1e-12)
