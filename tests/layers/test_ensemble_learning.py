"""Layers that learn delays and time constants, in an ensemble, and members that stay views of it."""

import pytest
import torch

from firstspike import (
    LIF,
    BiasSpikes,
    Delay,
    DelayRule,
    LIFLinear,
    LIFRecurrent,
    LIFSpikeTrains,
    Multiplex,
    Network,
)
from firstspike.layers.ensembles import Ensemble

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_device")]


def check_gradients(together, times, out, **tolerance):
    """Each member's gradients in the ensemble are those that it has alone."""
    torch.where(out.isfinite(), out, 0.0).sum().backward()
    together.share_gradients()
    for net in together.members:
        shared = {name: x.grad for name, x in net.named_parameters()}
        net.zero_grad()
        alone = net(times)
        torch.where(alone.isfinite(), alone, 0.0).sum().backward()
        for name, x in net.named_parameters():
            torch.testing.assert_close(shared[name], x.grad, **tolerance)


@pytest.mark.parametrize("per_neuron", [False, True])
def test_members_learn_time_constants_and_delays(per_neuron):
    def member(k):
        source = torch.Generator().manual_seed(k)
        lif = LIFLinear(6, 4, trainable=["tau_mem", "threshold"], per_neuron=per_neuron, generator=source)
        with torch.no_grad():
            lif.log_tau_mem.copy_(0.3 * torch.randn(lif.log_tau_mem.shape, generator=source))
        return Network(Multiplex(2), Delay(6, DelayRule("clip", mean=0.5), copies=2, generator=source), lif)

    members = [member(k) for k in range(3)]
    together = Ensemble(members)
    times = torch.rand(5, 3)
    out = together(times)
    assert torch.equal(out, torch.stack([net(times) for net in members]))
    check_gradients(together, times, out, rtol=1e-4, atol=1e-5)


def test_members_jitter_by_themselves():
    members = [Network(Delay(3, DelayRule(std=0.0, jitter=0.1))) for _ in range(2)]
    one, other = Ensemble(members)(torch.zeros(4, 3))
    assert (one != other).all()
    assert (one != one[0]).any()


def members_with_everything(count):
    """Networks with weights, delays, buffers and time constants that learn."""

    def member(k):
        source = torch.Generator().manual_seed(k)
        first = LIFLinear(5, 4, LIF(threshold=torch.tensor([0.9, 1.0, 1.1, 1.2])), generator=source)
        return Network(
            BiasSpikes([0.2]),
            first,
            Delay(4, generator=source),
            LIFLinear(4, 2, trainable=["tau_mem"], generator=source),
        )

    return [member(k) for k in range(count)]


def check_linked(together, times):
    """Members are the ensemble, before and after its parameters change."""
    for step in (0.0, 0.05):
        with torch.no_grad():
            for stacked in together.stacked:
                stacked.add_(step)
        out = together(times)
        assert out.dtype == times.dtype
        assert len(out) == len(together.members)
        for mine, net in zip(out, together.members, strict=True):
            # torch's exp and sigmoid may round differently for one network and for three at once
            torch.testing.assert_close(mine, net(times), rtol=8 * torch.finfo(times.dtype).eps, atol=0)
            assert {x.dtype for x in (*net.parameters(), *net.buffers())} == {times.dtype}


@pytest.mark.host
@pytest.mark.parametrize("count", [1, 3])
def test_members_are_views_of_the_ensemble(count):
    together, times = Ensemble(members_with_everything(count)), torch.rand(5, 4)
    check_linked(together, times)
    optimizer, before = (
        torch.optim.SGD([p for net in together.members for p in net.parameters()], lr=0.1),
        together(times),
    )
    torch.where(before.isfinite(), before, 0.0).sum().backward()
    together.share_gradients()
    optimizer.step()
    assert not torch.equal(together(times), before)
    check_linked(together, times)


LAYERS = {
    "recurrent": lambda options: LIFRecurrent(6, 5, 200, 6.0, window=0.75, window_spikes=40, **options),
    "recurrent with delays": lambda options: LIFRecurrent(
        6, 5, 200, 6.0, window=0.75, window_spikes=40, recurrent_delay=DelayRule(scale=1.0), **options
    ),
    "trains": lambda options: LIFSpikeTrains(6, 70, 200, **options),
    "trains with delays": lambda options: LIFSpikeTrains(6, 5, 200, delay=DelayRule(scale=1.0), **options),
}


@pytest.mark.host
@pytest.mark.parametrize("trainable", [["tau_mem"], ["tau_syn", "threshold"]], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_members_with_spike_trains_learn_shared_time_constants(kind, trainable):
    """Each member has other time constants and other numbers of events, and so other memory for what it saves."""
    members = []
    for k in range(3):
        source = torch.Generator().manual_seed(k)
        options = {"trainable": trainable, "generator": source, "dtype": torch.float64}
        member = Network(LAYERS[kind](options), LIFSpikeTrains(LAYERS[kind](options).out_features, 3, 400, **options))
        with torch.no_grad():
            for name, x in member.named_parameters():
                if "tau" in name:
                    x.copy_(0.3 * torch.randn(x.shape, generator=source, dtype=torch.float64))
                elif "weight" in name:
                    x.mul_(0.5 + 0.2 * k)
        members.append(member)
    times = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64).mul(3).sort(-1).values
    times[1:, :, 1:] = torch.inf
    together = Ensemble(members)
    out = together(times)
    torch.testing.assert_close(out, torch.stack([net(times) for net in members]), rtol=1e-12, atol=1e-12)
    check_gradients(together, times, out, rtol=1e-8, atol=1e-8)
