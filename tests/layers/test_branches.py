"""Connections past layers: what they carry, its gradient, and networks that have them."""

import math

import pytest
import torch

from firstspike import LIF, Concatenate, Delay, DelayRule, Earliest, LIFConv2d, LIFLinear, LIFSpikeTrains, Network
from firstspike.layers import start_firing_
from firstspike.layers.ensembles import Ensemble
from firstspike.layers.named import named_parameters, named_spikes
from firstspike.layers.noise import jitter_from
from firstspike.substrates import SUBSTRATES
from firstspike.training import SilentNeurons

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf
DOUBLE = {"dtype": torch.float64}
RULE = DelayRule("clip", scale=2.0, mean=0.7, std=0.1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lif(inputs, outputs, seed=0):
    return LIFLinear(inputs, outputs, LIF(2.0), generator=seeded(seed), **DOUBLE)


def network(seed=0, delay=RULE):
    """The input is joined after two layers, and what entered the second one merged after the third."""
    given = {"delay": delay, "generator": seeded(seed + 9), **DOUBLE}
    return Network(
        lif(4, 6, seed),
        lif(6, 6, seed + 1),
        Concatenate(6, 2, skipped=4, **given),
        lif(10, 6, seed + 2),
        Earliest(6, 3, **given),
        lif(6, 3, seed + 3),
    )


def inputs(samples=7):
    times = 1.5 * torch.rand(samples, 4, generator=seeded(1), **DOUBLE)
    times[0, 1] = INF
    return times.requires_grad_()


def total(out):
    return torch.where(out.isfinite(), out, 0.0).square().sum()


def test_what_is_carried_and_joined():
    net, times = network(), inputs()
    first, second, joined, third, merged, output = net.record(times).layers
    assert torch.equal(joined, torch.cat([second, times + net[2].delays.delay], dim=-1))
    assert torch.equal(merged, torch.minimum(third, first + net[4].delays.delay))
    assert torch.equal(output, net[5](merged))
    assert torch.equal(net(times), output)
    used = merged == first + net[4].delays.delay
    assert used.any()
    assert not used.all()
    assert torch.equal(net(times[2]), output[2])


def test_gradients_are_those_of_finite_differences():
    net = network()
    parameters = list(net.parameters())

    def out(*values):
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)
        return net(times.detach())

    times = inputs()
    found = torch.autograd.grad(total(net(times)), [times, *parameters])
    assert all(x.any() for x in found)
    for parameter, gradient in zip(parameters, found[1:], strict=True):
        direction = torch.randn(parameter.shape, generator=seeded(3), **DOUBLE)
        start, sides = parameter.detach().clone(), []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.copy_(start + sign * 1e-6 * direction)
            sides.append(total(net(times)).item())
        with torch.no_grad():
            parameter.copy_(start)
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-7)


def test_gradient_of_the_earlier_spike_alone():
    layer = Earliest(4, 1, delay=0.5, **DOUBLE)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == []
    times = torch.tensor([[1.0, 2.0, INF, INF]], **DOUBLE, requires_grad=True)
    skipped = torch.tensor([[0.5, 1.0, 3.0, INF]], **DOUBLE, requires_grad=True)
    out = layer(times, skipped=skipped)
    assert out.tolist() == [[1.0, 1.5, 3.5, INF]]
    total(out).backward()
    assert (times.grad != 0).tolist() == [[True, False, False, False]]
    assert (skipped.grad != 0).tolist() == [[False, True, True, False]]


def test_observed():
    net, times = network(), inputs()
    ideal = [x.detach() for x in net.record(times).layers]
    values = [times, *net.parameters()]
    own, seen = (
        torch.autograd.grad(total(record.output), values) for record in (net.record(times), net.record(times, ideal))
    )
    for mine, theirs in zip(own, seen, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)
    moved = [None, None, ideal[2] + 0.01, None, None, None]
    record = net.record(times, moved)
    assert torch.equal(record.layers[2], moved[2])
    assert all(x.any() for x in torch.autograd.grad(total(record.output), values))


@pytest.mark.parametrize("kind", ["exact", "integrator", "noisy"])
def test_substrates(kind):
    net, times = network(), inputs().detach()
    options = {"integrator": {"step": 0.002}, "noisy": {"delay_jitter": 0.01}}.get(kind, {})
    with SUBSTRATES[kind](**options).open(net) as substrate:
        record = substrate.record(net, times)
    ideal = net.record(times)
    for layer, (own, seen) in enumerate(zip(ideal.layers, record.layers, strict=True)):
        both = own.isfinite() & seen.isfinite()
        assert both.double().mean() > 0.5, layer
        assert (own - seen)[both].abs().max() < (0.0 if kind == "exact" else 0.3) + 1e-12, layer
    if kind == "noisy":  # noise on delays reaches those of connections
        assert not torch.equal(record.layers[2][:, 6:], ideal.layers[2][:, 6:])
    total(record.output).backward()
    assert net[2].delays.delay_raw.grad.any()


def test_a_chip_refuses_them():
    with pytest.raises(ValueError, match="layer 2: the chip does not support Concatenate"):
        SUBSTRATES["mock_bss2"]().open(network())


def test_ensembles_have_the_results_of_their_members():
    members, times = [network(seed) for seed in (0, 20, 40)], inputs().detach()
    alone = [member.record(times).layers for member in members]
    together = Ensemble(members).record(times)
    for index, member in enumerate(alone):
        for own, joint in zip(member, together.layers, strict=True):
            torch.testing.assert_close(own, joint[index], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"member 1 .*layer 2 \(Earliest\): over is 2, expected 1"):
        Ensemble([Network(lif(4, 4), lif(4, 4), Earliest(4, over, delay=1.0, **DOUBLE)) for over in (1, 2)])


def test_silent_neurons_have_limits_of_lif_layers_alone():
    net, times = network(), inputs().detach()
    silent = SilentNeurons([1.0, 1.0, 0.0, 1.0])
    with torch.no_grad():
        net[3].weight[2] = 0.0
    before = net[3].weight.clone()
    assert silent.raise_weights_(net, net.record(times))
    assert (net[3].weight != before).any(dim=1).tolist()[2]


def test_images():
    """Channels are appended; a larger image is reduced by the earliest spike of each window."""
    conv = [LIFConv2d((1, 8, 8), 4, 3, padding=1, **DOUBLE), LIFConv2d((4, 8, 8), 4, 3, padding=1, stride=2, **DOUBLE)]
    join = Concatenate((4, 4, 4), 1, skipped=(4, 8, 8), delay=RULE, **DOUBLE)
    assert join.out_image == (8, 4, 4)
    assert join.delays.delay_raw.shape == (4,)
    merge = Earliest((8, 4, 4), 1, delay=0.0, **DOUBLE)
    net = Network(*conv, join, LIFConv2d((8, 4, 4), 8, 3, padding=1, **DOUBLE), merge, lif(128, 3))
    times = torch.rand(5, 1, 8, 8, generator=seeded(2), **DOUBLE)
    start_firing_(net, times, seeded(4))
    record = net.record(times)
    pooled = record.layers[0].view(5, 4, 4, 2, 4, 2).amin(dim=(3, 5))
    carried = pooled + join.delays.delay.view(4, 4, 4)
    assert torch.equal(record.layers[2].view(5, 8, 4, 4)[:, 4:], carried)
    assert torch.equal(record.layers[4], torch.minimum(record.layers[3], record.layers[2]))
    assert net(times).shape == (5, 3)


def test_the_start_lets_spikes_arrive_together():
    times = 0.5 * torch.rand(100, 64, generator=seeded(6), **DOUBLE)
    net = Network(lif(64, 64), lif(64, 64), Earliest(64, 2, **DOUBLE), lif(64, 64), Concatenate(64, 3, **DOUBLE))
    assert net[2].delays.delay.count_nonzero() == 0
    start_firing_(net, times, seeded())
    layers = net.record(times).layers
    lag = layers[1][layers[1].isfinite()].median() - times.median()
    torch.testing.assert_close(net[2].delays.delay, lag.expand(64))
    from_block = layers[2] == layers[1]
    assert 0.2 < from_block.double().mean() < 0.8
    fixed = Network(lif(64, 64), Concatenate(64, 1, delay=0.25, **DOUBLE))
    start_firing_(fixed, times, seeded())
    assert bool((fixed[1].delays.delay == 0.25).all())


def test_jitter_of_their_delays():
    join = Concatenate(3, 1, delay=DelayRule(jitter=0.1), **DOUBLE)
    times = torch.rand(2, 3, **DOUBLE)
    with jitter_from(join, seeded(5)):
        noisy = join(times, skipped=times)
    assert not torch.equal(noisy, join.eval()(times, skipped=times))
    with jitter_from(join.train(), seeded(5)):
        assert torch.equal(noisy, join(times, skipped=times))


def test_names():
    net, times = network(), inputs().detach()
    names = [spikes.name for spikes in named_spikes(net, net.record(times))]
    assert names == ["input", "hidden 1", "hidden 2", "carried past", "hidden 3", "earliest", "output"]
    found = named_parameters(net)
    assert found["delays, carried to 2"].shape == (4,)
    assert found["delays, carried to 4"].shape == (6,)
    assert "over=2" in str(net[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Concatenate(3, 0), "over must be > 0 and <= 1000000, got 0"),
        (lambda: Concatenate(0, 1), "inputs must be >= 1, got 0"),
        (lambda: Concatenate(3, 1, delay=-1.0), "delay must be .*>= 0 and finite, got -1.0"),
        (lambda: Concatenate((1, 4, 4), 1, skipped=16), "must both be images or both be numbers"),
        (lambda: Concatenate((1, 4, 4), 1, skipped=(1, 6, 4)), "of the same height and width as 1x4x4, or of mult"),
        (lambda: Earliest(3, 1, skipped=4), "got 3 inputs and 4 that are carried past; Concatenate takes any numbers"),
        (lambda: Network(lif(4, 3), Concatenate(3, 2)), "layer 1 .* skips 2 layers, but only 1 precede"),
        (lambda: Network(lif(4, 3), Concatenate(3, 1)), "it expects 3 spikes of 1 layers earlier, and gets 4"),
        (lambda: Network(lif(4, 3), Concatenate(4, 1, skipped=4)), r"Concatenate\(4\) expects \d+ inputs, got 3"),
        (
            lambda: Network(lif(4, 4), LIFSpikeTrains(4, 4, 3, **DOUBLE), Concatenate(4, 1)),
            "Concatenate expects first spikes, and gets spike trains",
        ),
        (lambda: network()[2:4], "layer 0 .* skips 2 layers, but only 0 precede"),
        (lambda: Concatenate(3, 1)(torch.rand(2, 4), skipped=torch.rand(2, 3)), r"times of the shape \(..., 3\)"),
        (lambda: Concatenate(3, 1)(torch.rand(2, 3), skipped=torch.rand(2, 4)), r"skipped of the shape \(..., 3\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_slices_keep_connections_inside():
    net, times = network(), inputs()
    assert torch.equal(net[:4](times), net.record(times).layers[3])
    assert isinstance(net[2].delays, Delay)
