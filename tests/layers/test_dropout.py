"""Dropout of spikes between layers, alone and in trainings."""

import pytest
import torch

from firstspike import LIFLinear, Network, SpikeDropout
from firstspike.layers.named import named_spikes
from firstspike.layers.noise import jitter_from


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_fraction_of_the_spikes_gets_lost():
    layer, times = SpikeDropout(0.3), torch.rand(200, 50, requires_grad=True)
    with jitter_from(layer, seeded(1)):
        out = layer(times)
    lost = out.isinf()
    assert lost.double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(out[~lost], times[~lost])
    (out[~lost]).sum().backward()
    assert torch.equal(times.grad, (~lost).float())
    with jitter_from(layer, seeded(1)):
        assert torch.equal(layer(times), out)
    assert layer.noise.source is None


def test_evaluation_and_observed_times_pass():
    layer, times = SpikeDropout(0.9), torch.rand(4, 5)
    assert layer(times).isinf().any()
    assert layer(times, times) is times or torch.equal(layer(times, times), times)
    assert layer.eval()(times) is times
    assert SpikeDropout(0.0)(times) is times


def test_a_part_of_a_batch_loses_what_it_loses_in_the_whole():
    layer, times = SpikeDropout(0.5), torch.rand(6, 5)
    with jitter_from(layer, seeded(2)):
        whole = layer(times)
    with jitter_from(layer, seeded(2)), jitter_from(layer, part=(6, slice(2, 5))):
        assert torch.equal(layer(times[2:5]), whole[2:5])


def test_in_a_network():
    network, times = Network(LIFLinear(5, 8), SpikeDropout(0.5), LIFLinear(8, 3)), torch.rand(9, 5)
    assert [x.name for x in named_spikes(network, network.record(times))] == ["input", "hidden", "output"]
    assert network.record(times).layers[1].isinf().sum() > network.record(times).layers[0].isinf().sum()


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_refused(p):
    with pytest.raises(ValueError, match="p must be >= 0 and < 1"):
        SpikeDropout(p)
