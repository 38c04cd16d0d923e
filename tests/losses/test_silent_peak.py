import math

import pytest
import torch
from torch import nn

from firstspike import LIF, BiasSpikes, DelayRule, LIFConv2d, LIFLinear, LIFRecurrent, LIFSpikeTrains, Network
from firstspike.layers.ensembles import Ensemble
from firstspike.losses import SilentPeak
from firstspike.neurons import QIF
from firstspike.spiketime.maxima.peaks import lacking
from firstspike.spiketime.response import kappa

pytestmark = pytest.mark.usefixtures("on_device")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, scale=0.15):
    make = {"dtype": torch.float64, "generator": seeded(seed)}
    net = Network(
        LIFConv2d((1, 4, 4), 2, 3, LIF(2.0, threshold=1.5), **make),
        BiasSpikes([0.5], dtype=torch.float64),
        LIFLinear(9, 5, delay=DelayRule(), **make),
        LIFLinear(5, 3, **make),
    )
    with torch.no_grad():
        net[0].weight *= 0.3
        net[2].weight *= scale
    return net


def batch(seed=1):
    return torch.rand(6, 16, generator=seeded(seed), dtype=torch.float64) * 2


def term(net, times, **options):
    record = net.record(times)
    return SilentPeak(**({"alpha": 0.5} | options))(record.output, torch.zeros(6, dtype=torch.int64), net, record)


def test_the_formula():
    net, times = network(), batch()
    layers = net.record(times).layers
    expected = 0.0
    seen = net[0].seen(times)
    for position in range(4):
        spikes = layers[0].view(6, 2, 4)[:, :, position]
        lack = lacking(seen[:, position], net[0].synapses, net[0].neuron, spikes.isinf())
        expected += lack.sum().item() / 6 / 1.5
    for index in (2, 3):
        before, layer = layers[index - 1], net[index]
        expected += lacking(before, layer.weight, layer.neuron, layers[index].isinf(), layer.delay).sum().item() / 6
    assert expected > 0.5
    assert term(net, times, max_silent=0.0).item() == pytest.approx(0.5 * expected)
    assert term(net, times, alpha=1.0).item() == pytest.approx(2 * term(net, times).item())


def test_neurons_that_are_seldom_silent_are_left_alone():
    times = torch.tensor([[0.0, math.inf], [math.inf, 0.0], [0.0, 0.0]])
    net = Network(LIFLinear(2, 2, weight_mean=0.0, weight_std=0.0))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[4.0, 2.0], [2.0, 2.0]]))
    silent = net(times).isinf().double().mean(dim=0).tolist()
    assert silent == pytest.approx([1 / 3, 2 / 3])
    term(net, times.repeat(2, 1), max_silent=0.5).backward()
    assert net[0].weight.grad.any(dim=1).tolist() == [False, True]
    assert bool((net[0].weight.grad <= 0).all())
    assert term(net, times.repeat(2, 1), max_silent=1.0) == 0


def test_it_wakes_a_silent_layer():
    net, times = network(scale=0.05), batch()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    assert net.record(times).layers[2].isinf().all()
    for _ in range(100):
        optimizer.zero_grad()
        term(net, times).backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())
        optimizer.step()
    silent = [x.isinf().double().mean().item() for x in net.record(times).layers]
    assert max(silent) < 0.5


def test_gradient_goes_through_the_layers_before():
    net, times = network(), batch()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    assert net[0](times).isfinite().all()
    term(net, times).backward()
    assert net[0].weight.grad.any()
    assert net[2].delay_raw.grad.any()


def test_members_of_an_ensemble():
    members, times = [network(seed) for seed in range(3)], batch()
    labels = torch.zeros(6, dtype=torch.int64)
    regularizer = SilentPeak(0.5)

    def one(net):
        record = net.record(times)
        return regularizer(record.output, labels, net, record)

    together = Ensemble(members)
    found = together.map(one)
    torch.testing.assert_close(found, torch.stack([one(net) for net in members]))
    found.sum().backward()
    together.share_gradients()
    for net in members:
        shared = [p.grad for p in net.parameters()]
        own = torch.autograd.grad(one(net), list(net.parameters()), allow_unused=True)
        for a, b in zip(shared, own, strict=True):
            torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


RECURRENT = {
    "plain": {},
    "delays": {"recurrent_delay": DelayRule("clip", scale=2.0, mean=0.7)},
    "all delays": {"recurrent_delay": DelayRule(), "delay": DelayRule()},
    "ends early": {"duration": 3.1},
}


def recurrent(**options):
    """The last neuron is silent; the others, which spike, first excite and then inhibit it, or inhibit it alone."""
    given = {
        "duration": 6.0,
        "window": 0.5,
        "window_spikes": 20,
        "generator": seeded(),
        "dtype": torch.float64,
    } | options
    layer = LIFRecurrent(3, 4, 40, neuron=LIF(2.0, 1.0, torch.tensor([0.8, 0.9, 1.0, 1.3])), **given)
    with torch.no_grad():
        layer.weight.copy_(2.5 * torch.rand(4, 3, generator=seeded(1), dtype=torch.float64))
        layer.recurrent_weight.copy_(0.3 * torch.randn(4, 4, generator=seeded(2), dtype=torch.float64))
        layer.weight[3] *= 0.12
        layer.recurrent_weight[3, :3] = torch.tensor([0.1, -0.5, 0.05])
    return Network(layer)


def recurrent_batch():
    return (3 * torch.rand(6, 3, 2, generator=seeded(3), dtype=torch.float64)).sort(-1).values


@pytest.mark.slow
@pytest.mark.parametrize("options", RECURRENT.values(), ids=RECURRENT)
def test_recurrent_synapses_count(options):
    net, times = recurrent(**options), recurrent_batch()
    layer, spikes = net[0], net(times)
    assert spikes[:, :3, 0].isfinite().all()
    assert spikes[:, 3, 0].isinf().all()
    seen = nn.functional.pad(times, (0, 38), value=math.inf)
    seen = seen if layer.delay is None else seen + layer.delay[3, :, None]
    arrivals = torch.cat([seen, spikes + layer.own_delay[3, :, None]], dim=1)
    weight = torch.cat([layer.weight, layer.recurrent_weight], dim=1)[3, :, None, None]
    grid, expected = torch.linspace(0, layer.duration, 10001, dtype=torch.float64), 0.0
    for arrival in arrivals:
        at = torch.cat([grid, arrival[arrival < layer.duration]])
        since = (at - arrival.unsqueeze(-1)).clamp(min=0)  # kappa(0) is 0
        membrane = (weight * kappa(since, 2.0, 1.0)).sum((0, 1))
        expected += (1.3 - membrane.amax().item()) / 1.3 / 6
    assert term(net, times, alpha=1.0).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("options", RECURRENT.values(), ids=RECURRENT)
def test_gradient_of_recurrent_layers(options):
    net, times = recurrent(**options), recurrent_batch().requires_grad_()
    parameters = [times, *net.parameters()]
    found = torch.autograd.grad(term(net, times), parameters)
    assert all(bool(grad.any()) for grad in found)
    assert bool(found[2][3, :3].any())  # of the silent neuron's recurrent weights
    step = 1e-6
    for parameter, grad in zip(parameters, found, strict=True):
        for place in range(0, parameter.numel(), 3):
            values = []
            for sign in (1, -2):
                with torch.no_grad():
                    parameter.view(-1)[place] += sign * step
                    values.append(term(net, times).item())
            with torch.no_grad():
                parameter.view(-1)[place] += step
            slope = (values[0] - values[1]) / (2 * step)
            assert grad.reshape(-1)[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_thresholds_keep_their_precision():
    layer = LIFLinear(2, 1, LIF(threshold=1.1), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    net, times = Network(layer), torch.full((6, 2), 0.0, dtype=torch.float64)
    assert term(net, times, alpha=1.0).item() == pytest.approx((1.1 - math.exp(-1)) / 1.1, rel=1e-15)


def test_wrong_use():
    with pytest.raises(ValueError, match="max_silent must be >= 0 and <= 1, got 2"):
        SilentPeak(1.0, max_silent=2)
    with pytest.raises(ValueError, match="needs a Network and its record"):
        SilentPeak(1.0)(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), nn.Identity())


@pytest.mark.parametrize("neuron", [LIF(2.0), pytest.param(QIF(), marks=pytest.mark.host)])
def test_layers_of_trains_end_as_others(neuron):
    make = {"dtype": torch.float64, "weight_mean": 0.02, "weight_std": 0.01, "until": 1.0}
    once = Network(LIFLinear(16, 5, neuron, generator=seeded(), **make))
    trains = Network(LIFSpikeTrains(16, 5, 3, neuron, generator=seeded(), **make))
    expected = term(once, batch(), max_silent=0.0)
    assert expected > 0
    assert term(trains, batch(), max_silent=0.0).item() == expected.item()


@pytest.mark.slow  # it has kernels of its own to compile
def test_linear_neurons():
    """Equal receptors are one, and the gradient is that of differences where they are not."""
    make = {"dtype": torch.float64, "weight_mean": 0.05, "weight_std": 0.05}
    plain = Network(LIFLinear(16, 5, LIF(2.0), generator=seeded(), **make))
    for tau, same in (((1.0, 1.0), True), ((0.6, 3.0), False)):
        net = Network(LIFLinear(16, 5, LIF(2.0, tau), receptor=[0, 1] * 8, generator=seeded(), **make))
        value = term(net, batch(), max_silent=0.0)
        assert (value.item() == pytest.approx(term(plain, batch(), max_silent=0.0).item())) == same
    (found,) = torch.autograd.grad(value, net[0].weight)
    with torch.no_grad():
        net[0].weight[2, 3] += 1e-6
    assert ((term(net, batch(), max_silent=0.0) - value) / 1e-6).item() == pytest.approx(found[2, 3].item(), rel=1e-4)
