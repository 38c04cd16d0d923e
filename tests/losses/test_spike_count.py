import math

import pytest
import torch

from firstspike import LIF, LIFConv2d, LIFLinear, LIFSpikeTrains, Network, SpikingRecurrent, connect
from firstspike.losses import SpikeCount

INF = math.inf


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(seed=0, samples=6, inputs=4):
    return (torch.rand(samples, inputs, 3, generator=seeded(seed), dtype=torch.float64) * 5).sort(-1).values


def network(scale=1.0):
    make = {"dtype": torch.float64, "generator": seeded()}
    net = Network(
        LIFSpikeTrains(4, 5, 100, LIF(2.0, threshold=0.7), **make),
        LIFSpikeTrains(5, 3, 500, LIF(2.0), **make),
    )
    with torch.no_grad():
        for layer in net:
            layer.weight *= scale
    return net


def term(net, times, **options):
    record = net.record(times)
    return SpikeCount(**({"alpha": 0.5} | options))(record.output, torch.zeros(6).long(), net, record)


def test_the_formula():
    net, times = network(), trains()
    expected = 0.0
    for spikes in net.record(times).layers:
        count = spikes.isfinite().sum(-1).double().mean(0)
        expected += ((1.5 - count).clamp(min=0) ** 2 + (count - 2.0).clamp(min=0) ** 2).mean().item()
    assert expected > 0.1
    assert term(net, times, least=1.5, most=2.0).item() == pytest.approx(0.5 * expected)
    assert term(net, times) == 0  # without bounds


def test_the_surrogate_is_that_of_a_neuron_without_leak():
    net, times = network(), trains()
    (gradient,) = torch.autograd.grad(term(net, times, alpha=1.0, most=0.5), net[0].weight)
    count = net.record(times).layers[0].isfinite().sum(-1).double().mean(0)
    received = times.isfinite().sum(-1).double().mean(0)
    expected = 2 * (count - 0.5).clamp(min=0)[:, None] / 5 * received / 0.7
    torch.testing.assert_close(gradient, expected)


def test_without_leak_and_with_small_weights_the_surrogate_is_right():
    """Many weak inputs long before the end: the number of spikes is the charge over the threshold, rounded down."""
    times = (torch.rand(8, 50, 20, generator=seeded(), dtype=torch.float64) * 20).sort(-1).values
    layer = LIFSpikeTrains(50, 6, 100, LIF(INF), weight_mean=0.01, weight_std=0.003, dtype=torch.float64)
    count = layer(times).isfinite().sum(-1).double()
    charge = times.isfinite().sum(-1).double() @ layer.weight.mT
    assert bool(((count - charge).abs() <= 1).all())


@pytest.mark.parametrize(("scale", "bounds"), [(0.01, {"least": 2.0}), (1.0, {"most": 3.0})])
def test_it_wakes_silent_neurons_and_calms_bursting_ones(scale, bounds):
    net, times = network(scale), trains()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    before = term(net, times, **bounds).item()
    for _ in range(150):
        optimizer.zero_grad()
        term(net, times, **bounds).backward()
        optimizer.step()
    assert before > 1.0
    assert term(net, times, **bounds).item() < 0.05 * before


def test_first_spikes_and_images_count_as_well():
    times = torch.rand(6, 16, generator=seeded(), dtype=torch.float64)
    make = {"dtype": torch.float64, "generator": seeded()}
    net = Network(LIFConv2d((1, 4, 4), 2, 3, **make), LIFLinear(8, 3, **make))
    record = net.record(times)
    expected = sum((2 - x.isfinite().double().mean(0)).square().mean().item() for x in record.layers)
    found = term(net, times, alpha=1.0, least=2.0)
    assert found.item() == pytest.approx(expected)
    found.backward()
    seen = net[0].seen(times).isfinite().double().mean(0)
    few = 2 - record.layers[0].isfinite().double().mean(0).view(2, 4)
    gradient = -2 * torch.einsum("rp,pi->ri", few, seen) / 8
    torch.testing.assert_close(net[0].weight.grad.flatten(1), gradient)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="most: expected at least 2, the lower bound, got 1"):
        SpikeCount(0.1, least=2.0, most=1.0)
    with pytest.raises(ValueError, match="needs a Network and its record"):
        SpikeCount(0.1)(torch.rand(2, 3), torch.zeros(2).long(), network())


def test_the_threshold_keeps_its_precision():
    net = Network(LIFLinear(1, 1, LIF(threshold=1.1), weight_mean=0.0, weight_std=0.0, dtype=torch.float64))
    times = torch.zeros(1, 1, dtype=torch.float64)
    record = net.record(times)
    SpikeCount(1.0, least=1.0)(record.output, torch.zeros(1, dtype=torch.int64), net, record).backward()
    assert net[0].weight.grad.item() == pytest.approx(-2 / 1.1, rel=1e-15)


def recurrent_network(**options):
    make = {"window": 0.5, "overflow": "drop", "dtype": torch.float64, "generator": seeded(), **options}
    return Network(SpikingRecurrent(4, 6, 30, 8.0, LIF(2.0, threshold=0.7), **make))


def sparse_pair():
    """A layer with sparse synapses, and the same with masks."""
    weight = torch.distributions.Normal(torch.tensor(0.4).double(), torch.tensor(0.2).double())
    outer = connect.fixed_indegree(4, 6, 3, weight=weight, generator=seeded(1))
    inner = connect.fixed_probability(6, 6, 0.5, weight=weight, generator=seeded(2))
    net = recurrent_network(synapses=outer, recurrent=inner)
    masks = [torch.zeros(6, x.sources, dtype=torch.bool).index_put((x.target, x.source), torch.tensor(True))
             for x in (outer, inner)]  # fmt: skip
    twin = recurrent_network(mask=masks[0], recurrent_mask=masks[1])
    with torch.no_grad():
        for name, found in (("weight", outer), ("recurrent_weight", inner)):
            getattr(twin[0], name)[found.target, found.source] = getattr(net[0], name)
    return net, twin


@pytest.mark.parametrize("recurrent", [False, True])
def test_recurrent_weights_learn_only_if_they_shall(recurrent):
    net, times = recurrent_network(recurrent_std=0.05), trains()
    found = term(net, times, alpha=1.0, least=9.0, recurrent=recurrent)
    gradient = torch.autograd.grad(found, net[0].recurrent_weight, allow_unused=True)[0]
    assert (gradient is not None) == recurrent
    if recurrent:
        count = net.record(times).layers[0].isfinite().sum(-1).double().mean(0)
        expected = -2 * (9 - count).clamp(min=0)[:, None] / 6 * count / 0.7
        assert 0 < count.mean() < 9
        torch.testing.assert_close(gradient, expected)


@pytest.mark.slow
def test_sparse_synapses_have_the_gradient_of_a_mask():
    net, twin = sparse_pair()
    times = trains()
    for each in (net, twin):
        term(each, times, least=3.0, most=4.0, recurrent=True).backward()
    for name in ("weight", "recurrent_weight"):
        found, expected = (getattr(each[0], name).grad for each in (net, twin))
        assert found.abs().min() > 0
        at = net[0].sparse[name]
        torch.testing.assert_close(found, expected[at.target, at.source])


def test_a_layer_whose_matrix_would_not_fit():
    many = 20_000
    inner = connect.fixed_indegree(many, many, 2, weight=0.5, delay=1.0, generator=seeded())
    net = Network(SpikingRecurrent(4, many, 3, 3.0, window=1.0, recurrent=inner, overflow="drop", generator=seeded()))
    record = net.record(torch.rand(2, 4, generator=seeded()))
    SpikeCount(1.0, least=2.0, recurrent=True)(record.output, torch.zeros(2).long(), net, record).backward()
    assert net[0].recurrent_weight.grad.abs().max() > 0


def test_populations_and_targets_of_each_neuron():
    net, times = recurrent_network(), trains()
    count = net.record(times).layers[0].isfinite().sum(-1).double().mean(0)
    target = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert term(net, times, alpha=1.0, least=target, most=target).item() == pytest.approx(
        (count - torch.tensor(target).double()).square().mean().item()
    )
    part = term(net, times, alpha=1.0, least=torch.tensor([7.0, 8.0]), neurons=(1, 3))
    assert part.item() == pytest.approx((torch.tensor([7.0, 8.0]) - count[1:3]).clamp(min=0).square().mean().item())
    assert SpikeCount(1.0, torch.tensor([7.0, 8.0])).least == (7.0, 8.0)


def test_a_network_without_spikes_is_woken_to_its_targets():
    net, times = recurrent_network(weight_mean=0.01, weight_std=0.002, recurrent_std=0.001), trains(samples=20)
    target = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 4.0]).double()
    assert not net.record(times).output.isfinite().any()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        term(net, times, least=target, most=target, recurrent=True).backward()
        optimizer.step()
    count = net.record(times).layers[0].isfinite().sum(-1).double().mean(0)
    assert (count - target).abs().max() < 0.35


def test_wrong_bounds():
    for given, message in (
        ({"least": [1.0, 2.0], "most": [1.0, 1.5]}, "most: expected at least 2, the lower bound, got 1.5"),
        ({"least": [1.0, -2.0]}, "least must be finite and >= 0, got -2"),
        ({"least": [1.0], "most": [1.0, 2.0]}, "least, most: expected equally many, got 1 and 2"),
        ({"neurons": (3, 3)}, r"neurons must be the first and the one past the last, as in \(0, 80\), got \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SpikeCount(0.1, **given)
    net, times = recurrent_network(), trains()
    for given in ({"least": [1.0, 2.0]}, {"least": [1.0] * 3, "neurons": (4, 7)}, {"neurons": (4, 7)}):
        with pytest.raises(ValueError, match=r"bounds? for neurons \d to \d, LIFRecurrent\(4, 6\) has 6 neurons"):
            term(net, times, **given)
