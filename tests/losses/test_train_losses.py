"""Losses between spike trains, and what makes spikes appear or go."""

import itertools
import math

import pytest
import torch

import firstspike as fs
from firstspike.layers.voltages import excess
from firstspike.losses import MatchedSpikes, SpikeErrors, VanRossum, coincidence_factor

inf = math.inf


def trains(*shape, seed=0):
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5
    drawn[0, 0, 1:] = inf
    drawn[-1, -1] = inf
    return drawn.sort(dim=-1).values


def cheapest(a, b, scale, power):
    """The cost of the best of all pairings."""
    a, b = ([x for x in train.tolist() if x < inf] for train in (a, b))
    best = len(a) + len(b)
    for k in range(1, min(len(a), len(b)) + 1):
        for some in itertools.product(itertools.combinations(a, k), itertools.combinations(b, k)):
            moved = sum((abs(x - y) / scale) ** power for x, y in zip(*some, strict=True))
            best = min(best, len(a) + len(b) - 2 * k + moved)
    return best


@pytest.mark.parametrize(("error", "power"), [("absolute", 1), ("squared", 2)])
@pytest.mark.parametrize("columns", [(4, 5), (1, 3), (5, 1)])
def test_matched_spikes_have_the_cheapest_pairing(error, power, columns):
    output, target = (trains(3, 2, count, seed=k) for k, count in enumerate(columns))
    found = MatchedSpikes(0.7, error).distance(output, target)
    expected = [
        [cheapest(*pair, 0.7, power) for pair in zip(*rows, strict=True)] for rows in zip(output, target, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_van_rossum_is_the_integral():
    output, target = torch.tensor([[[1.0, 2.0, inf]]]).double(), torch.tensor([[[1.5, 3.0]]]).double()
    at = torch.linspace(0, 30, 3_000_001, dtype=torch.float64)

    def trace(train):
        return sum(torch.where(at > t, torch.exp((t - at) / 0.7), 0.0) for t in train[0, 0] if t < inf)

    integral = torch.trapezoid((trace(output) - trace(target)) ** 2, at) / 0.7
    assert VanRossum(0.7)(output, target).item() == pytest.approx(integral.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [VanRossum(0.5), MatchedSpikes(0.5), MatchedSpikes(0.5, "squared")])
def test_gradients_and_invariances(loss):
    output, target = trains(3, 2, 4).requires_grad_(), trains(3, 2, 3, seed=1)
    finite = output.isfinite()
    spikes = output.detach()[finite].requires_grad_()

    def cost(spikes):
        return loss(torch.full_like(output, inf).masked_scatter(finite, spikes), target)

    assert torch.autograd.gradcheck(cost, spikes)
    assert loss(target, target).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(loss(output + 3, target + 3), loss(output, target))
    padded = torch.nn.functional.pad(output, (0, 3), value=inf)
    torch.testing.assert_close(loss(padded, target), loss(output, target))
    loss(output, target).backward()
    assert output.grad.isfinite().all()
    assert (output.grad[~finite] == 0).all()


def all_pairs(output, target, tau):
    """The distance of van Rossum as a sum over all pairs of spikes."""
    times, side = (
        torch.cat([output, target], dim=-1),
        torch.tensor([1.0] * output.shape[-1] + [-1.0] * target.shape[-1]),
    )
    sign = torch.where(times.isfinite(), side.double(), 0.0)
    times = torch.where(times.isfinite(), times, 0.0)
    apart = (times.unsqueeze(-1) - times.unsqueeze(-2)).abs() / tau
    return (sign.unsqueeze(-1) * sign.unsqueeze(-2) * torch.exp(-apart)).sum(dim=(-1, -2)) / 2


@pytest.mark.parametrize("met", [False, True])
def test_van_rossum_is_the_sum_over_all_pairs(met):
    output, target = trains(20, 3, 7) - 2, trains(20, 3, 5, seed=1) - 2
    if met:  # spikes at the same time, which have no gradient between them
        output[..., :3], target[..., :3] = target[..., :3], output[..., :3].clone()
        target[:10, :, :5] = output[:10, :, :5]
        output = output.sort(dim=-1).values
    output.requires_grad_()
    found, wanted = VanRossum(0.7, reduction="none")(output, target), all_pairs(output, target, 0.7).sum(-1)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    slopes = [torch.autograd.grad(x.sum(), output)[0] for x in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [VanRossum(0.5), MatchedSpikes(0.5)])
def test_padding_costs_nothing(loss, monkeypatch):
    output, target = trains(4, 5, 3), trains(4, 5, 2, seed=1)
    padded = [torch.nn.functional.pad(x, (0, 57), value=inf) for x in (output, target)]
    seen, distance = [], loss.distance
    monkeypatch.setattr(loss, "distance", lambda *x: seen.append([y.shape[-1] for y in x]) or distance(*x))
    assert loss(*padded) == loss(output, target)
    assert seen == [[3, 2], [3, 2]]
    in_vmap = torch.func.vmap(lambda x, y: loss(x[None], y[None]))(*padded)
    torch.testing.assert_close(in_vmap.mean(), loss(output, target), rtol=1e-14, atol=1e-14)
    nothing = torch.full_like(output, inf)
    assert loss(nothing, nothing) == 0


@pytest.mark.parametrize("loss", [VanRossum(0.5), MatchedSpikes(0.5), MatchedSpikes(0.5, "squared")])
def test_trains_may_be_in_any_order(loss):
    output, target = trains(3, 2, 4).requires_grad_(), trains(3, 2, 3, seed=1)
    torch.testing.assert_close(loss(output.flip(-1), target.roll(1, -1)), loss(output, target), rtol=1e-12, atol=0)
    slopes = [torch.autograd.grad(loss(*x), output)[0] for x in ((output.flip(-1), target.flip(-1)), (output, target))]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_a_spike_alone():
    output, target = torch.tensor([[[1.0]]]), torch.tensor([[[inf]]])
    assert VanRossum(0.5)(output, target).item() == 0.5
    assert MatchedSpikes(0.5)(output, target).item() == 1
    assert MatchedSpikes(0.5)(output, torch.tensor([[[1.1]]])).item() == pytest.approx(0.2)
    assert MatchedSpikes(0.5)(output, torch.tensor([[[9.0]]])).item() == 2


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, 1]), r"targets: expected spike trains \(batch, outputs, spikes\), got torch.int64"),
        (torch.rand(2, 3), "targets: expected spike trains"),
        (torch.full((2, 3, 1), math.nan), "NaN"),
    ],
)
def test_wrong_targets(targets, message):
    with pytest.raises(ValueError, match=message):
        VanRossum(0.5)(trains(2, 3, 4), targets)


def test_targets_filled_up_with_0():
    with pytest.warns(UserWarning, match="have trains that are filled up with 0"):
        VanRossum(0.5)(torch.tensor([[[1.0, inf]]]), torch.tensor([[[1.0, 0.0]]]))


NEURONS = {
    "lif": (fs.LIF(refractory=0.1), {}),
    "receptors": (fs.LIF(tau_syn=(1.0, 0.5)), {"receptor": [0] * 20 + [1] * 10}),
    "adaptive": (fs.neurons.AdaptiveLIF(threshold_adaptation=[(2.0, 0.3)]), {}),
    "adlif": (fs.neurons.AdLIF(), {"until": 12.0}),
}


@pytest.mark.parametrize("kind", NEURONS)
def test_spike_errors_raise_and_lower_the_membrane(kind):
    neuron, options = NEURONS[kind]
    options = options | {"generator": torch.Generator().manual_seed(2), "dtype": torch.float64}
    network = fs.Network(fs.SpikeTrains(30, 2, 40, neuron, **options))
    record = network.record(trains(2, 30, 4, seed=3))
    spikes = record.output.detach()
    target = spikes.clone()
    target[0, 0] = torch.cat([spikes[0, 0, :1], spikes[0, 0, 2:], spikes.new_tensor([inf])])  # its second is too many
    target[1, 0, 1:] = inf
    target[1, 0, 1] = 11.0  # is missing; all but its first are too many
    errors = [(0, 0, float(spikes[0, 0, 1]) - 1e-9, 1), (1, 0, 11.0, -1)]
    errors += [(1, 0, float(t) - 1e-9, 1) for t in spikes[1, 0, 1:] if t < inf]
    assert len(errors) > 3
    above = excess(network[0], record.inputs, torch.tensor([t for *_, t, _ in errors], dtype=torch.float64))
    expected = sum(sign * above[sample, out, k] for k, (sample, out, _, sign) in enumerate(errors)) / 2
    found = SpikeErrors(1.0, 1e-3)(record.output, target, network, record)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    slopes = [torch.autograd.grad(x, network[0].weight, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("spikes", "target", "extra", "missing"),
    [
        ([1.0, 3.0], [2.0], 1, 0),  # on a grid, pairings may be equally good: any of them, but not half of each
        ([2.0], [1.0, 3.0], 0, 1),
        ([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5], 1, 0),
        ([1.5, 2.5, 3.5], [1.0, 2.0, 3.0, 4.0], 0, 1),
        ([1.0, 9.0], [9.0], 1, 0),
    ],
)
def test_one_of_equally_good_pairings(spikes, target, extra, missing):
    network = fs.Network(fs.SpikeTrains(1, 1, 9, dtype=torch.float64))
    torch.nn.init.constant_(network[0].weight, 0.01)  # so that each error costs about 1
    record = network.record(torch.tensor([[[0.5]]], dtype=torch.float64))
    output, wanted = (torch.tensor([[x]], dtype=torch.float64) for x in (spikes, target))
    found = SpikeErrors(1.0, 3.0)(output, wanted, network, record)
    assert found.item() == pytest.approx(missing - extra, abs=0.02)
    slope = torch.autograd.grad(MatchedSpikes(3.0)(output.requires_grad_(), wanted), output)[0] * 3
    assert slope.abs().sum().item() == pytest.approx(len(spikes) - extra - (spikes[-1] == 9))
    assert slope.round().equal(slope.round(decimals=6))


def test_spike_errors_without_errors():
    network = fs.Network(fs.SpikeTrains(30, 2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    times = trains(2, 30, 4, seed=3)
    record = network.record(times)
    assert SpikeErrors(1.0, 0.5)(record.output, record.output.detach(), network, record) == 0
    with pytest.raises(ValueError, match="SpikeErrors needs a Network whose last layer gives trains"):
        SpikeErrors(1.0, 0.5)(record.output, record.output, fs.Network(fs.LIFLinear(3, 2)), record)


@pytest.mark.parametrize(("mean", "target", "expected"), [(0.005, 4.0, 1), (0.03, inf, 0)])
def test_missing_spikes_appear_and_extra_ones_go(mean, target, expected):
    generator = torch.Generator().manual_seed(1)
    times = (torch.rand(1, 100, 4, generator=generator, dtype=torch.float64) * 10).sort(dim=-1).values
    weights = {"weight_mean": mean, "weight_std": 0.01, "dtype": torch.float64, "generator": generator}
    network = fs.Network(fs.SpikeTrains(100, 1, 40, **weights))
    assert int(network(times).isfinite().sum()) == 0 if expected else network(times).isfinite().any()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        record = network.record(times)
        cost = SpikeErrors(1.0, 1.0)(record.output, torch.tensor([[[target]]]), network, record)
        if cost == 0:  # no errors are left
            break
        cost.backward()
        optimizer.step()
    assert int(network(times).isfinite().sum()) == expected


def test_van_rossum_where_spikes_of_one_train_meet():
    output, target = torch.tensor([[[1.0, 1.0, 2.0, 2.0]]]).double(), torch.tensor([[[1.0, 2.0, 2.0]]]).double()
    output.requires_grad_()
    found, wanted = VanRossum(0.7)(output, target), all_pairs(output, target, 0.7).sum()
    slopes = [torch.autograd.grad(x, output)[0] for x in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_coincidence_factor_by_hand():
    target = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    output = torch.tensor([[41.5, 10.5, inf, 11.0, 25.0]])  # two pairs: 11.0 is one spike too many
    chance = 2 * 2 * 4 / 100
    expected = (2 - chance * 4) / 4 / (1 - chance)
    assert coincidence_factor(output, target, 2.0, 100.0).item() == pytest.approx(expected)
    early = torch.tensor([[9.0, 11.0], [11.0, 13.5]])  # each may have the target, but only one has
    both = coincidence_factor(early, torch.tensor([[10.0, 12.0], [10.0, inf]]), 1.5, 1e9)
    torch.testing.assert_close(both, torch.tensor([1.0, 2 / 3]))


def test_coincidence_factor_ends():
    train = trains(3, 2, 4)
    same = coincidence_factor(train, train, 1e-3, 5.0)
    assert same[-1, -1].isnan(), "neither has a spike"
    torch.testing.assert_close(same.flatten()[:-1], torch.ones(5, dtype=torch.float64))
    silent = torch.full((1, 1), inf)
    assert coincidence_factor(silent, train[1], 0.1, 5.0).tolist() == [0, 0]
    assert coincidence_factor(train[1], train[1], 1.0, 5.0).isnan().all(), "too coarse: all by chance"
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(100, 2, 200, generator=generator) * 1e5
    by_chance = coincidence_factor(drawn[:, 0], drawn[:, 1], 1.0, 1e5)
    assert by_chance.mean().abs() < 0.002
    with pytest.raises(ValueError, match="precision"):
        coincidence_factor(train, train, -1.0, 5.0)
