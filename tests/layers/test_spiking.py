"""Layers of neurons that spike several times: what they add to the operator, and how they work in networks."""

import copy
import math
import pickle

import pytest
import torch

from agreement import with_rest
from firstspike import LIF, DelayRule, FirstSpike, IntegralReadout, LIFLinear, LIFSpikeTrains, Network, spike_trains
from firstspike.layers import start_firing_
from firstspike.layers.ensembles import Ensemble
from firstspike.layers.trains import form_of, takes_trains

INF = math.inf


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(samples=5, inputs=4, spikes=3, seed=0, until=4.0):
    times = torch.rand(samples, inputs, spikes, generator=seeded(seed), dtype=torch.float64) * until
    times[0, 1] = INF
    times[1, :, 1:] = INF
    return times.sort(-1).values


def layer(inputs=4, outputs=6, spikes=9, seed=0, **options):
    make = {"dtype": torch.float64, "generator": seeded(seed), "weight_mean": 0.6, "weight_std": 0.4} | options
    neuron, make = with_rest(LIF(2.0), make)
    return LIFSpikeTrains(inputs, outputs, spikes, neuron, **make)


def network(seed=0, **options):
    make = {"dtype": torch.float64, "generator": seeded(seed)}
    return Network(layer(seed=seed, **options), layer(6, 5, 40, seed + 1), IntegralReadout(5, 3, tau=4.0, **make))


def test_a_layer_is_the_operator():
    lif = layer(refractory=0.2, reset=-0.3, delay=DelayRule())
    expected = spike_trains(trains(), lif.weight, lif.neuron, max_spikes=9, delay=lif.delay)
    assert torch.equal(lif(trains()), expected)
    assert int(expected.isfinite().sum(-1).max()) > 1
    first = trains()[..., 0]
    assert torch.equal(lif(first), lif(first[..., None]))
    assert (form_of(lif), takes_trains(lif)) == ("trains", True)
    assert "max_spikes=9, LIF(tau_mem=2.0, tau_syn=1.0, threshold=1.0, reset=-0.3, refractory=0.2)" in str(lif)


def test_one_spike_is_the_layer_of_first_spikes():
    once, first = layer(spikes=1, overflow="drop"), LIFLinear(4, 6, LIF(2.0), dtype=torch.float64)
    first.load_state_dict(once.state_dict())
    assert torch.equal(once(trains()[..., 0]).squeeze(-1), first(trains()[..., 0]))


def test_observed_trains_are_returned_with_the_gradient_there():
    lif = layer()
    seen = lif(trains()).detach()
    again = lif(trains(), seen)
    assert torch.equal(again, seen)
    total = [torch.where(x.isfinite(), x, 0.0).sum() for x in (again, lif(trains()))]
    found, expected = (torch.autograd.grad(x, lif.weight)[0] for x in total)
    torch.testing.assert_close(found, expected)


def test_a_network_of_trains():
    net = network()
    record = net.record(trains())
    assert [tuple(x.shape) for x in record.layers] == [(5, 6, 9), (5, 5, 40), (5, 3)]
    assert (net.gives, net.takes_trains, net.inputs) == ("values", True, 4)
    assert torch.equal(net(trains()), record.output)
    observed = [x.detach() for x in record.layers]
    assert all(torch.equal(x, y) for x, y in zip(net.record(trains(), observed).layers, observed, strict=True))
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(copied(trains()), net(trains()))
    other = network(seed=5)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(trains()), net(trains()))


def test_gradients_through_a_network():
    net = network()

    def loss(*parameters):
        named = dict(zip([name for name, _ in net.named_parameters()], parameters, strict=True))
        return torch.func.functional_call(net, named, (trains(),)).square().sum()

    assert torch.autograd.gradcheck(loss, tuple(net.parameters()), atol=1e-6)


def test_first_spikes_of_trains_and_layers_of_first_spikes():
    make = {"dtype": torch.float64, "generator": seeded()}
    net = Network(layer(), FirstSpike(), LIFLinear(6, 3, **make))
    record = net.record(trains())
    assert torch.equal(record.layers[1], record.layers[0][..., 0])
    assert record.output.shape == (5, 3)
    mixed = Network(LIFLinear(4, 6, **make), layer(6, 3, 9))
    assert mixed(trains()[..., 0]).shape == (5, 3, 9)
    with pytest.raises(ValueError, match="LIFLinear expects first spikes, and gets spike trains"):
        Network(layer(), LIFLinear(6, 3))


def test_side_by_side():
    members = [network(seed) for seed in range(3)]
    expected = [member.record(trains()) for member in members]
    together = Ensemble(members)
    for found in (together.record(trains()), together.record(trains().expand(3, -1, -1, -1))):
        for index, outputs in enumerate(found.layers):
            for outputs_of, alone in zip(outputs, expected, strict=True):
                torch.testing.assert_close(outputs_of, alone.layers[index], rtol=1e-12, atol=1e-12)


def test_neurons_that_learn():
    lif = layer(trainable=["tau_mem", "tau_syn", "threshold"], per_neuron=True)
    out = lif(trains())
    torch.where(out.isfinite(), out, 0.0).sum().backward()
    for name in ("log_tau_mem", "log_tau_syn", "log_threshold"):
        assert lif.get_parameter(name).grad.shape == (6,)
        assert bool(lif.get_parameter(name).grad.any())


@pytest.mark.parametrize("neuron", [LIF(2.0, refractory=0.1), LIF(2.0, (1.0, 0.5), refractory=0.1)], ids=["one", "two"])
def test_a_refractory_time_is_learnt(neuron):
    """From a wrong value for all neurons; it stays above 0, and has a gradient also where a neuron spikes once."""
    several = {"receptor": "sign"} if neuron.components else {}
    make = {"overflow": "drop", "weight_mean": 0.9, "weight_std": 0.3, "dtype": torch.float64, "generator": seeded()}

    def built(neuron, spikes=12):
        return LIFSpikeTrains(4, 6, spikes, neuron, trainable=["refractory"], **several, **make)

    wanted = built(neuron.with_values(refractory=0.4))
    lif = built(neuron)
    lif.load_state_dict(wanted.state_dict() | {"log_refractory": lif.log_refractory.detach()})
    assert lif.kind_of("log_refractory") == "neuron"
    target = wanted(trains()).detach()
    known = target.isfinite().sum(-1, keepdim=True)
    optimizer = torch.optim.Adam([lif.log_refractory], lr=0.05)
    for _ in range(120):
        out, number = lif(trains()), torch.arange(12)
        some = out.isfinite() & (number < known) & (number < 3)
        optimizer.zero_grad()
        torch.where(some, out - target, 0.0).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(lif.neuron.refractory.item(), 0.4, rtol=1e-2, atol=0.0)
    assert int(known.max()) > 3
    once = built(neuron, 1)
    (none,) = torch.autograd.grad(once(trains()).nan_to_num(posinf=0.0).sum(), once.log_refractory)
    assert none == 0


@pytest.mark.parametrize("spikes", [1, 3, 20])
@pytest.mark.parametrize("delay", [None, DelayRule(scale=0.5)])
def test_every_layer_fires_at_the_start(spikes, delay):
    times = trains(64, 10, spikes, until=8.0)
    make = {"dtype": torch.float64, "generator": seeded()}
    net = Network(
        LIFSpikeTrains(10, 30, 1, LIF(2.0), delay=delay, overflow="error", **make),
        LIFSpikeTrains(30, 20, 200, LIF(2.0), **make),
        LIFSpikeTrains(20, 5, 400, LIF(2.0), **make),
    )
    start_firing_(net, times, seeded())
    assert net[0].overflow == "error"
    net[0].max_spikes = 200
    for outputs in net.record(times).layers:
        assert float(outputs[..., 0].isfinite().double().mean()) > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spikes": 0}, "max_spikes must be > 0 and <= 1000000, got 0"),
        ({"refractory": -1.0}, "refractory must be >= 0 and finite, got -1.0"),
        ({"reset": 1.0}, "reset must be finite and below the threshold of 1.0, got 1.0"),
        ({"overflow": "ignore"}, "overflow must be one of error, warn, drop, got 'ignore'"),
        ({"inputs": 0}, "in_features must be > 0.*, got 0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


def test_more_spikes_than_there_is_room_for():
    lif = layer(spikes=1)
    with pytest.raises(ValueError, match="max_spikes"):
        lif(trains())
    lif.overflow = "drop"
    assert bool(lif(trains()).isfinite().any())
    with pytest.raises(ValueError, match=r"LIFSpikeTrains\(4, 6\) expects times \(batch, 4\), or trains"):
        lif(torch.rand(5, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("per_neuron", [False, True])
def test_a_reset_that_learns_stays_below_the_threshold(per_neuron):
    threshold = torch.linspace(0.8, 1.2, 3)
    neuron = LIF(2.0, threshold=threshold, reset=torch.tensor([-0.2, 0.1, 0.3]) if per_neuron else -0.2)
    lif = LIFSpikeTrains(4, 3, 9, neuron, trainable=["reset"], per_neuron=per_neuron, overflow="drop")
    torch.testing.assert_close(lif.neuron.reset, torch.as_tensor(neuron.reset))
    assert lif.kind_of("log_reset") == "neuron"
    with torch.no_grad():
        lif.log_reset -= 3
    assert bool((lif.neuron.reset < threshold).all())
    lif(torch.rand(5, 4)).nan_to_num(posinf=0.0).sum().backward()
    assert lif.log_reset.grad.shape == ((3,) if per_neuron else ())
    with pytest.raises(ValueError, match="reset can only learn from a value below the threshold"):
        LIFSpikeTrains(4, 3, 9, LIF(2.0, threshold=threshold, reset=0.9), trainable=["reset"])
