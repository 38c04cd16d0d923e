"""Neurons from equations: what must hold bit for bit."""

import pytest
import torch

from firstspike import Neuron, spike_trains

LAST = 2.5


def run(samples=slice(None)):
    """Spikes, and gradients by weights and times of samples whose last input comes late."""
    random = torch.Generator().manual_seed(1)
    times = 2 * torch.rand(40, 8, 1, generator=random, dtype=torch.float64)
    times[:, -1] = LAST
    weight = 2 * torch.rand(20, 8, generator=random, dtype=torch.float64)
    tau = (0.5 + torch.rand(20, generator=random, dtype=torch.float64)).requires_grad_()
    neuron = Neuron(
        "dv/dt = (v*(v - 1) + i) / tau; di/dt = -i / 0.5", threshold="v > 10", reset="v = -10", receptors=["i"], tau=tau
    )
    times, weight = times[samples].requires_grad_(), weight.requires_grad_()
    spikes = spike_trains(times, weight, neuron, max_spikes=30, until=4.0)
    return spikes, times, weight, tau


def everything(spikes, *leaves):
    return spikes.detach(), *torch.autograd.grad(spikes[spikes.isfinite()].sum(), leaves)


@pytest.mark.parametrize("before", [1, 4])
def test_any_number_of_threads_gives_the_same_bits(before):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(before)
        one = everything(*run())
        torch.set_num_threads(2)
        other = everything(*run())
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, one, other))


def test_a_sample_alone_is_that_of_a_batch():
    spikes, times, *_ = run()
    (by,) = torch.autograd.grad(spikes[spikes.isfinite()].sum(), times)
    for k in (0, 17, 39):
        alone, own, *_ = run(slice(k, k + 1))
        torch.testing.assert_close(alone[0], spikes[k], rtol=1e-13, atol=0)
        (found,) = torch.autograd.grad(alone[alone.isfinite()].sum(), own)
        torch.testing.assert_close(found[0], by[k], rtol=1e-10, atol=1e-12)


def test_an_input_after_the_last_spike_has_no_gradient():
    spikes, times, weight, _ = run()
    early = spikes < LAST
    assert early.any()
    assert (spikes.isfinite() & ~early).any()
    by_times, by_weight = torch.autograd.grad(spikes[early].sum(), (times, weight))
    for by in (by_times, by_weight):
        assert not by[:, -1].any()
        assert by[:, :-1].any()
