"""Delays of spike trains, and trains that reach layers of first spikes."""

import math

import pytest
import torch

from firstspike import (
    LIF,
    Delay,
    DelayRule,
    FirstSpike,
    IntegralReadout,
    LIFLinear,
    LIFRecurrent,
    LIFSpikeTrains,
    Multiplex,
    Network,
)
from firstspike.config import build, build_data, describe, load_config
from firstspike.layers.ensembles import Ensemble
from firstspike.layers.trains import form_of, takes_trains

pytestmark = pytest.mark.usefixtures("on_device")

INF = math.inf
DOUBLE = {"dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(samples=6, inputs=3, spikes=3, seed=0):
    times = 4 * torch.rand(samples, inputs, spikes, generator=seeded(seed), **DOUBLE).sort(-1).values
    count = torch.randint(spikes + 1, (samples, inputs, 1), generator=seeded(seed + 1))
    return torch.where(torch.arange(spikes) < count, times, INF)


@pytest.mark.parametrize("copies", [1, 3])
def test_all_spikes_of_an_input_are_late_by_its_delay(copies):
    """With as many spikes as inputs, too: a delay belongs to an input."""
    layer, times = Delay(3, copies=copies, trains=True, generator=seeded(), **DOUBLE), trains().requires_grad_()
    found = layer(times)
    assert torch.equal(found, times + layer.delay[:, None])
    assert torch.equal(found.sort(-1).values, found)
    assert torch.equal(found.isinf(), times.isinf())
    assert (form_of(layer), takes_trains(layer)) == ("trains", True)
    by_times, by_raw = torch.autograd.grad(torch.where(found.isfinite(), found, 0.0).sum(), (times, layer.delay_raw))
    assert torch.equal(by_times, times.isfinite().double())
    delay = layer.delay.detach()
    expected = times.isfinite().sum((0, 2)) * delay * (1 - delay)
    torch.testing.assert_close(by_raw, expected if copies == 1 else expected.sum().view(1))


def test_first_spikes_are_trains_of_one_spike():
    layer = Delay(3, trains=True, **DOUBLE)
    first = trains()[..., 0]
    assert torch.equal(layer(first), layer(first.unsqueeze(-1)))
    assert layer(first).shape == (6, 3, 1)


def test_jitter_leaves_trains_sorted():
    layer = Delay(3, DelayRule(jitter=1.0), trains=True, **DOUBLE).train()
    torch.manual_seed(0)
    found, still = layer(trains()), layer.eval()(trains())
    assert torch.equal(found.sort(-1).values, found)
    assert torch.equal(found.isinf().sum(-1), still.isinf().sum(-1))
    assert not torch.equal(found, still)
    assert bool((found >= trains()[..., :1]).all())


def test_observed():
    layer, times = Delay(3, trains=True, **DOUBLE), trains().requires_grad_()
    seen = layer(times).detach() + 0.01
    found = layer(times, seen)
    assert torch.equal(found, seen)
    (grad,) = torch.autograd.grad(torch.where(found.isfinite(), found, 0.0).sum(), times)
    assert torch.equal(grad, times.isfinite().double())


def network(seed=0):
    make = {"generator": seeded(seed)} | DOUBLE
    return Network(
        Delay(3, trains=True, **make),
        LIFSpikeTrains(3, 5, 50, LIF(2.0), **make),
        Delay(5, trains=True, **make),
        LIFRecurrent(5, 4, 99, 8.0, LIF(2.0), window_spikes=20, **make),
        Delay(4, trains=True, **make),
        IntegralReadout(4, 2, **make),
    )


def test_axonal_and_dendritic_delays_are_synaptic_ones():
    """An axonal delay is one for all synapses of an input; a dendritic one is that of the next layer's inputs."""
    net, times = network(), trains()
    expected = times
    for delay, layer in ((net[0], net[1]), (net[2], net[3])):
        expected = layer((expected.unsqueeze(-1) + delay.delay[:, None, None]).squeeze(-1))
    expected = net[5](expected + net[4].delay[:, None])
    assert torch.equal(net(times), expected)
    assert int(net.record(times).layers[3].isfinite().sum()) > 20
    rule = DelayRule(std=0.0, mean=0.4)
    axonal = Network(Delay(3, rule, trains=True, **DOUBLE), LIFSpikeTrains(3, 5, 20, generator=seeded(), **DOUBLE))
    synaptic = LIFSpikeTrains(3, 5, 20, delay=rule, generator=seeded(), **DOUBLE)
    with torch.no_grad():
        synaptic.weight.copy_(axonal[1].weight)
    torch.testing.assert_close(axonal(times), synaptic(times), rtol=1e-12, atol=1e-12)


def test_gradient_of_a_network():
    net, times = network(), trains(seed=4)
    raw = [net[index].delay_raw for index in (0, 2, 4)]
    found = torch.autograd.grad(net(times).square().sum(), raw)
    step = 1e-6
    for parameter, grad in zip(raw, found, strict=True):
        for place in range(len(parameter)):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[place] += sign * step
                    values.append(net(times).square().sum().item())
                    parameter[place] -= sign * step
            assert grad[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_members_of_an_ensemble():
    members = [network(seed) for seed in range(2)]
    torch.testing.assert_close(Ensemble(members)(trains()), torch.stack([net(trains()) for net in members]))


def test_from_a_config():
    layers = [
        {"kind": "delay", "trains": True, "rule": {"shift": 0.5}},
        {"kind": "spike_trains", "out_features": 5, "max_spikes": 10},
        {"kind": "delay", "trains": True},
        {"kind": "integral", "out_features": 2},
    ]
    config = load_config(
        {
            "data": {"kind": "delayed_xor", "train": 20, "validation": 10, "test": 10},
            "network": layers,
            "loss": {"kind": "readout_cross_entropy"},
            "training": {"epochs": 1, "batch_size": 10, "optimizer": {"kind": "adam", "lr": 0.01}},
        }
    )
    trainer = build(config)
    assert [layer.trains for layer in trainer.network if isinstance(layer, Delay)] == [True, True]
    assert [x.trains for x in describe(trainer).network if x.kind == "delay"] == [True, True]
    assert trainer.network[0].rule.shift == 0.5


def test_layers_of_first_spikes_refuse_trains_that_do_not_fit():
    message = r"{} expects 3 inputs, got 4: times \(6, 3, 4\).*; for spike trains {}"
    with pytest.raises(ValueError, match=message.format(r"Delay\(3\)", r"write Delay\(3, trains=True\)")):
        Delay(3, **DOUBLE)(trains(spikes=4))
    hint = r"put FirstSpike\(\) before it, or take LIFSpikeTrains"
    with pytest.raises(ValueError, match=message.format(r"LIFLinear\(3, 2\)", hint)):
        LIFLinear(3, 2, **DOUBLE)(trains(spikes=4))
    with pytest.raises(ValueError, match=r"Delay\(3\) expects 3 inputs, got 1"):
        Delay(3)(torch.rand(5, 1))  # which would broadcast
    with pytest.raises(ValueError, match=r"Delay\(3\) expects times \(batch, 3\), or trains \(batch, 3, spikes\)"):
        Delay(3, trains=True)(torch.rand(5, 4, 3))


@pytest.mark.parametrize("layers", [(Delay(3),), (Multiplex(1),), (LIFLinear(3, 3),), (Multiplex(1), Delay(3))])
@pytest.mark.parametrize("last", [FirstSpike, lambda: LIFSpikeTrains(3, 2, 50), lambda: IntegralReadout(3, 2)])
def test_networks_refuse_trains_for_their_first_spikes(layers, last):
    """As many spikes as inputs: each layer alone could take them for more samples."""
    net = Network(*layers, last())
    for call in (net, net.record):
        with pytest.raises(ValueError, match=rf"{layers[0]._get_name()}, takes first spikes \(batch, inputs\), got "):
            call(torch.rand(6, 3, 3))
    assert net(torch.rand(6, 3)).shape[0] == 6


def test_networks_of_first_spikes_take_any_samples():
    net = Network(Delay(3, **DOUBLE), LIFLinear(3, 3, **DOUBLE))
    assert net(torch.rand(4, 3, 3, **DOUBLE)).shape == (4, 3, 3)


def test_a_delay_of_first_spikes_after_trains():
    with pytest.raises(
        ValueError, match=r"Delay expects first spikes, and gets spike trains.*Delay\(..., trains=True\)"
    ):
        Network(LIFSpikeTrains(3, 2, 5), Delay(2))
    with pytest.raises(ValueError, match="LIFLinear expects first spikes, and gets spike trains"):
        Network(Delay(2, trains=True), LIFLinear(2, 2))


def test_networks_with_delays_of_trains_are_trained_and_evaluated():
    """Learnt before the hidden layer: what a layer lets through is as long as what it gets."""
    layers = (
        "[{kind: delay, trains: true}, {kind: spike_trains, out_features: 5, max_spikes: 9, overflow: drop}, "
        "{kind: integral, out_features: 2}]"
    )
    config = load_config("delayed_xor", [f"network={layers}", "data.train=40", "data.validation=20", "data.test=20"])
    trainer = build(config)
    splits = build_data(config)
    before = trainer.network[0].delay.detach().clone()
    result = trainer.fit(splits.train, splits.validation, epochs=1, batch_size=10, progress_bar=False)
    assert 0 <= result.metrics["validation_accuracy"][0] <= 1
    assert 0 <= trainer.evaluate(splits.test).accuracy <= 1
    assert not torch.equal(trainer.network[0].delay, before)
