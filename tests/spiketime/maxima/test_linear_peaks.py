"""Maxima of linear neurons that do not spike, and the responses that they follow from."""

import math

import mpmath
import pytest
import torch

from firstspike import LIF, first_spike_time
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime.maxima.peaks import lacking, maximum
from firstspike.spiketime.response import ReceptorTaus, response, time_constants_of

TWO = LIF(2.0, (0.6, 3.0))
NEURONS = {
    "two receptors": (TWO, [0, 1, 1, 0, 1]),
    "by sign": (TWO, "sign"),
    "rise and bias": (LIF(2.0, (0.6, 3.0), tau_rise=(0.3, 3.0), bias=0.2), [0, 1, 1, 0, 1]),
    "bias below rest": (LIF(2.0, reset=None, refractory=0.1, bias=-0.3), None),
    "no leak": (LIF(math.inf, 1.0, tau_rise=0.5), None),
    "of each neuron": (
        LIF(torch.tensor([1.0, 2.5]).double(), (torch.tensor([0.5, 1.0]).double(), 2.0)),
        [0, 1, 1, 0, 1],
    ),
}


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    times = 5 * torch.rand(2, 5, 2, generator=generator, dtype=torch.float64)
    return times, torch.randn(2, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "taus", [(2.0, 0.5, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0 + 1e-7, 3.0), (math.inf, 1.0, 0.2), (0.1, 5.0, 5.0 - 1e-9)]
)
def test_response_to_a_current_that_rises(taus):
    since = torch.cat([torch.zeros(1).double(), torch.logspace(-6, 2, 60).double()])
    mem, syn, rise = taus
    with mpmath.workdps(30):
        flow = mpmath.matrix([[-1 / mem, 1 / syn, 0], [0, -1 / syn, 1 / rise], [0, 0, -1 / rise]])
        expected = torch.tensor([float(mpmath.expm(flow * s)[0, 2]) for s in since.tolist()], dtype=torch.float64)
    found = response(since, mem, ReceptorTaus(syn, rise))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-15)
    leaves = [torch.tensor(x).double().requires_grad_() for x in taus if x < math.inf]
    first = [] if len(leaves) == 3 else [mem]

    def of(*given):
        some, (one, *two) = given[0], [*first, *given[1:]]
        return response(some, one, ReceptorTaus(*two))

    assert torch.autograd.gradcheck(of, (since[20::8].clone().requires_grad_(), *leaves), atol=1e-7)


IN_READOUTS = "by sign", "two receptors"  # tests/layers/test_readouts.py has these gradients


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.exhaustive] * (kind in IN_READOUTS)) for kind in NEURONS]
)
def test_gradient_of_the_maximum(kind):
    neuron, receptor = NEURONS[kind]
    times, weight = problem()
    times, weight = times[:1].requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: maximum(*given, neuron, receptor), (times, weight), atol=1e-7)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "rise and bias")) for kind in NEURONS]
)
def test_a_membrane_reaches_its_maximum_and_no_more(kind):
    """A neuron with a threshold just below the maximum spikes, one with a threshold just above does not."""
    neuron, receptor = NEURONS[kind]
    for seed in range(1 if kind == "rise and bias" else 3):  # which takes as long as all others
        times, weight = problem(seed)
        first = times[..., 0]
        top = maximum(first.unsqueeze(-1), weight, neuron, receptor)
        for sample, row in (top > 1e-3).nonzero().tolist():
            for factor, spikes in ((1 - 1e-9, True), (1 + 1e-9, False)):
                own = {name: _row(x, row) for name, x in neuron.values.items()}
                one = LIF(**(own | {"threshold": top[sample, row].item() * factor}))
                when = first_spike_time(
                    first[sample], weight[row : row + 1], one, receptor=receptor, backend="reference"
                )
                assert bool(when.isfinite()) == spikes


def _row(value, row):
    if isinstance(value, tuple):
        return tuple(_row(x, row) for x in value)
    return float(value[row]) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("until", [math.inf, 3.0])
def test_equal_receptors_are_a_lif(until):
    times, weight = (x.requires_grad_() for x in problem(1))
    delay = torch.rand(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    silent = torch.tensor([[True, True], [False, True]])
    found = []
    for neuron, receptor in ((LIF(2.0, threshold=5.0), None), (LIF(2.0, (1.0, 1.0), threshold=5.0), [0, 1, 0, 0, 1])):
        lack = lacking(times[..., 0], weight, neuron, silent, delay, until, receptor)
        found.append((lack, *torch.autograd.grad(lack.sum(), (times, weight, delay))))
    for plain, linear in zip(*found, strict=True):
        torch.testing.assert_close(linear, plain, rtol=1e-11, atol=1e-13)


def test_nothing_arrives():
    times, weight = problem()
    never = torch.full_like(times, math.inf)
    assert maximum(never, weight, TWO, "sign").tolist() == [[0.0, 0.0]] * 2
    assert maximum(never, weight, LIF(reset=None, refractory=0.1, bias=0.4)).flatten().tolist() == pytest.approx(
        [0.4] * 4
    )
    assert maximum(
        times[:, :0], weight[:, :0], LIF(reset=None, refractory=0.1, bias=0.4)
    ).flatten().tolist() == pytest.approx([0.4] * 4)
    assert maximum(times[:, :0], weight[:, :0], TWO, "sign").tolist() == [[0.0, 0.0]] * 2


def test_what_adapts_plays_no_part_without_spikes():
    times, weight = problem()
    silent = torch.ones(2, 2, dtype=torch.bool)
    adaptive = AdaptiveLIF(2.0, threshold=9.0, adaptation=[(3.0, 0.5)], threshold_adaptation=[(2.0, 0.3)])
    torch.testing.assert_close(
        lacking(times[..., 0], weight, adaptive, silent),
        lacking(times[..., 0], weight, LIF(2.0, threshold=9.0), silent),
    )
    assert time_constants_of(adaptive) == [ReceptorTaus(1.0, None)]


def test_under_vmap_and_in_single_precision():
    times, weight = problem()
    weights = torch.stack([weight, 2 * weight])
    together = torch.vmap(lambda one: maximum(times, one, TWO, "sign"))(weights)
    torch.testing.assert_close(together, torch.stack([maximum(times, one, TWO, "sign") for one in weights]))
    single = maximum(times.float(), weight.float(), TWO, "sign")
    torch.testing.assert_close(single.double(), together[0], rtol=1e-5, atol=1e-6)
