"""Layers that learn delays and time constants, in an ensemble."""

import pytest
import torch

from firstspike import Delay, DelayRule, LIFLinear, Multiplex, Network
from firstspike.layers.ensemble import ensemble


@pytest.mark.parametrize("per_neuron", [False, True])
def test_members_learn_time_constants_and_delays(per_neuron):
    def member(k):
        source = torch.Generator().manual_seed(k)
        lif = LIFLinear(6, 4, trainable=["tau_mem", "threshold"], per_neuron=per_neuron, generator=source)
        with torch.no_grad():
            lif.log_tau_mem.copy_(0.3 * torch.randn(lif.log_tau_mem.shape, generator=source))
        return Network(Multiplex(2), Delay(6, DelayRule("clip", mean=0.5), copies=2, generator=source), lif)

    members = [member(k) for k in range(3)]
    together = ensemble(members)
    times = torch.rand(5, 3)
    out = together(times)
    assert torch.equal(out, torch.stack([net(times) for net in members]))
    torch.where(out.isfinite(), out, 0.0).sum().backward()
    together.share_gradients()
    for net in members:
        shared = {name: x.grad for name, x in net.named_parameters()}
        net.zero_grad()
        alone = net(times)
        torch.where(alone.isfinite(), alone, 0.0).sum().backward()
        for name, x in net.named_parameters():
            torch.testing.assert_close(shared[name], x.grad, rtol=1e-4, atol=1e-5)


def test_members_jitter_by_themselves():
    members = [Network(Delay(3, DelayRule(std=0.0, jitter=0.1))) for _ in range(2)]
    one, other = ensemble(members)(torch.zeros(4, 3))
    assert (one != other).all()
    assert (one != one[0]).any()
