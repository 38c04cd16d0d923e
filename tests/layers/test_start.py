import math
from itertools import pairwise

import pytest
import torch

from firstspike import (
    LIF,
    BiasSpikes,
    Concatenate,
    Delay,
    DelayRule,
    Earliest,
    EarliestPool2d,
    LIFConv2d,
    LIFLinear,
    MaximumReadout,
    Network,
)
from firstspike.layers import SpikeTrains, SpikingRecurrent, start_firing_
from firstspike.layers.init import firing_weights
from firstspike.layers.start import passing_weights


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(inputs, samples=60, dark=0.8, background=2.0):
    """Times as of images: most pixels are dark."""
    times = 0.15 + 1.85 * torch.rand(samples, inputs, generator=seeded(1))
    return torch.where(torch.rand(samples, inputs, generator=seeded(2)) < dark, background, times)


def started(sizes, neuron, times, seed=0):
    net = Network(*(LIFLinear(a, b, neuron) for a, b in pairwise(sizes)))
    start_firing_(net, times, seeded(seed))
    return net


def firing(net, times):
    return [x.isfinite().double().mean().item() for x in net.record(times).layers]


@pytest.mark.slow
@pytest.mark.parametrize("depth", range(1, 9))
@pytest.mark.parametrize("background", [2.0, math.inf])
def test_no_layer_is_silent_at_any_depth(depth, background):
    times = images(64, background=background)
    net = started([64, *[50] * depth, 10], LIF(), times)
    assert min(firing(net, times)) > 0.5


@pytest.mark.parametrize("inputs", [6, 30, 784])
@pytest.mark.parametrize("tau_mem", [0.5, 1.0, 2.0, 10.0, 100.0, math.inf])
def test_no_layer_is_silent_for_any_fan_in_and_time_constant(inputs, tau_mem):
    times = images(inputs, dark=0.5, background=math.inf)
    net = started([inputs, 100, 20, 200, 30], LIF(tau_mem), times)
    assert min(firing(net, times)) > 0.5


def test_times_and_thresholds_in_other_units():
    """The same network, with times in milliseconds and a threshold in millivolts."""
    times, unit, threshold = images(64), 10.0, 7.0
    one = started([64, 30, 10], LIF(2.0), times)
    other = started([64, 30, 10], LIF(2.0 * unit, unit, threshold), times * unit)
    for mine, yours in zip(one, other, strict=True):
        torch.testing.assert_close(mine.weight * threshold, yours.weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one(times) * unit, other(times * unit), rtol=1e-3, atol=1e-3)


def test_differences_between_samples_reach_the_output():
    """Of spike times without the shift that all neurons share; with narrow weights they are lost on the way."""
    times = images(64)

    def difference(net):
        out = net[:-1](times)
        out = torch.where(out.isfinite(), out, out[out.isfinite()].mean())
        out = out - out.mean(dim=1, keepdim=True)
        return out.std(dim=0).mean().item()

    wide = started([64, *[100] * 8, 10], LIF(), times)
    narrow = Network(*(LIFLinear(layer.in_features, layer.out_features) for layer in wide))
    with torch.no_grad():
        for layer, given in zip(narrow, wide, strict=True):
            layer.weight.copy_(given.weight.mean() + 0.3 * (given.weight - given.weight.mean()))
    assert min(firing(narrow, times)) > 0.9
    assert difference(wide) > 20 * difference(narrow)


def test_deeper_networks_start_wider():
    shallow, deep = (passing_weights(100, LIF(), images(100), layers) for layers in (2, 9))
    assert shallow.mean == deep.mean
    assert shallow.std < deep.std


def test_mean_membrane_peaks_at_four_thresholds():
    times = torch.rand(200, 40, generator=seeded(3)) * 2
    found = passing_weights(40, LIF(2.0), times)
    assert found.mean == pytest.approx(firing_weights(40, LIF(2.0)).mean * 4 / 5, rel=0.03)
    half = torch.where(torch.rand(200, 40, generator=seeded(4)) < 0.5, math.inf, times)
    assert passing_weights(40, LIF(2.0), half).mean == pytest.approx(2 * found.mean, rel=0.05)


def test_no_spikes_at_all():
    assert passing_weights(7, LIF(), torch.full((3, 7), math.inf)) == firing_weights(7, LIF())


@pytest.mark.slow
def test_all_kinds_of_layers():
    net = Network(
        Delay(64, DelayRule(jitter=0.5)),
        LIFConv2d((1, 8, 8), 4, 3, padding=1, trainable=["tau_mem"], per_neuron=True),
        EarliestPool2d((4, 8, 8), 2),
        BiasSpikes([0.5]),
        LIFLinear(65, 30, LIF(threshold=torch.rand(30) + 0.5), delay=DelayRule(scale=3.0)),
        LIFLinear(30, 10, weight_mean=3.0, weight_std=0.0),
    )
    times, before = images(64), torch.get_rng_state()
    start_firing_(net, times, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert net.training
    assert bool((net[-1].weight == 3.0).all())
    assert min(firing(net, times)) > 0.5
    first = net[1].weight.clone()
    start_firing_(net, times, seeded())
    assert torch.equal(net[1].weight, first)


@pytest.mark.parametrize("tau_mem", [1e6, 1e12, 1e-3, math.inf])
def test_any_time_constant_gives_finite_weights_that_fire(tau_mem):
    network = Network(*(LIFLinear(*sizes, LIF(tau_mem)) for sizes in ((30, 40), (40, 5))))
    times = torch.rand(100, 30, generator=torch.Generator().manual_seed(1))
    start_firing_(network, times, torch.Generator().manual_seed(2))
    assert all(p.isfinite().all() for p in network.parameters())
    assert network(times).isfinite().double().mean() > 0.5


def test_deep_networks_have_balanced_weights():
    """What tells samples apart reaches the last of many layers, and no layer is silent."""
    times = images(64)
    net = started([64, *[64] * 15, 10], LIF(2.0), times)
    for layer in net:
        mean = layer.weight.mean(dim=1)
        torch.testing.assert_close(mean, mean[:1].expand_as(mean), rtol=1e-4, atol=1e-5)
    assert min(firing(net, times)) > 0.95
    out = net(times)
    out = out - out.mean(dim=1, keepdim=True)
    assert out.std(dim=0).mean() > 3e-4


@pytest.mark.slow
def test_neurons_differ_where_a_way_through_the_network_is_short():
    times = images(64)
    row = started([64] * 9 + [10], LIF(2.0), times)
    past = [x for _ in range(7) for x in (LIFLinear(64, 64, LIF(2.0)), Earliest(64, 1), LIFLinear(64, 64, LIF(2.0)))]
    net = Network(*past, LIFLinear(64, 10, LIF(2.0)))
    start_firing_(net, times, seeded())
    for first in (row[0], net[0]):
        assert first.weight.mean(dim=1).std() > 0.01 * first.weight.mean()


def test_connections_past_layers_start_with_their_spikes_together():
    times = 0.5 * torch.rand(60, 64, generator=seeded(1))
    lifs = [LIFLinear(64, 64, LIF(2.0)) for _ in range(4)]
    net = Network(*lifs[:2], Concatenate(64, 2), LIFLinear(128, 64), *lifs[2:], Earliest(64, 2), LIFLinear(64, 10))
    start_firing_(net, times, seeded())
    layers = net.record(times).layers
    assert min(firing(net, times)) > 0.85  # a tenth may be silent
    for index in (2, 6):
        before, joined = layers[index - 1], layers[index]
        carried = joined[:, 64:] if index == 2 else layers[3] + net[6].delays.delay
        medians = [x[x.isfinite()].median() for x in (before, carried)]
        torch.testing.assert_close(*medians, rtol=0, atol=0.05)


def trains_of(samples, inputs, most, until=8.0):
    return (until * torch.rand(samples, inputs, most, generator=seeded(7))).sort(dim=-1).values


@pytest.mark.slow
def test_layers_for_trains_start_with_a_few_spikes_at_any_depth():
    times, window = trains_of(40, 30, 12), {"duration": 10.0, "window": 1.0}
    options = {"max_spikes": 60, "overflow": "drop", "generator": seeded()}

    def made():
        return Network(
            SpikeTrains(30, 40, neuron=LIF(2.0), **options),
            SpikingRecurrent(40, 40, neuron=LIF(2.0), **window, **options),
            SpikeTrains(40, 20, neuron=LIF(2.0), weight_mean=0.5, weight_std=0.0, **options),
            SpikeTrains(20, 20, neuron=LIF(2.0), **options),
            MaximumReadout(20, 4, generator=seeded()),
        )

    for spikes, most in ((1.0, 2.5), (4.0, 10.0), (0, 60.0)):
        net = made()
        start_firing_(net, times, seeded(), spikes)
        trains = [x.isfinite() for x in net.record(times).layers[:-1]]
        counts = [x.sum() / x.any(dim=-1).sum() for x in trains]
        assert all(spikes / 2.5 <= counts[k] <= most for k in (0, 1, 3))
        assert bool((net[2].weight == 0.5).all())
    assert max(counts) > 10.0  # without


@pytest.mark.slow
def test_outputs_at_rest_rise():
    net = Network(SpikeTrains(10, 6, max_spikes=30, generator=seeded()), MaximumReadout(6, 3, generator=seeded()))
    times = trains_of(40, 10, 3)
    with torch.no_grad():
        net[1].weight[1:] = -1.0
    before = net[1].weight.clone()
    start_firing_(net, times, seeded(), 0)
    assert torch.equal(net[1].weight, before)
    start_firing_(net, times, seeded())
    assert torch.equal(net[1].weight[0], before[0])
    assert bool(((net(times) > 0).double().mean(dim=0) >= 0.5).all())


def test_a_layer_that_nothing_reaches_keeps_its_weights():
    net = Network(SpikeTrains(4, 3, max_spikes=5, generator=seeded()))
    start_firing_(net, torch.full((3, 4, 2), math.inf), seeded())
    assert net[0].weight.abs().max() < 10
    with pytest.raises(ValueError, match="spikes must be >= 0"):
        start_firing_(net, torch.rand(3, 4), seeded(), -1.0)
