import math
from dataclasses import replace

import pytest
import torch

from firstspike.layers import Delay, DelayRule, FirstSpike, LIFLinear, LIFRecurrent, LIFSpikeTrains, Network
from firstspike.neurons import LIF, AdaptiveLIF, AdEx
from firstspike.substrates import Exact, Noisy

DOUBLE = {"dtype": torch.float64}
ALL = {
    "threshold_offset": 0.13,
    "threshold_spread": 0.08,
    "threshold_batch_noise": 0.04,
    "threshold_sample_noise": 0.02,
    "input_jitter": 0.01,
    "spike_jitter": 0.01,
    "delay_jitter": 0.01,
    "spike_loss": 0.05,
    "weight_scale": 30.0,
    "weight_max": 2.1,
}


@pytest.fixture
def layer(source):
    return LIFLinear(6, 30, LIF(1.0, 1.0, 2.6), weight_mean=2.0, weight_std=0.5, generator=source, **DOUBLE)


@pytest.fixture
def inputs(source):
    return 2 * torch.rand(50, 6, generator=source, **DOUBLE)


def with_thresholds(layer, thresholds):
    """The layer's times where neuron j has another threshold."""
    other = LIFLinear(6, 30, replace(layer.neuron, threshold=thresholds), **DOUBLE)
    other.load_state_dict({"threshold": thresholds, "weight": layer.weight})
    return other


def test_the_fixed_pattern_is_that_of_shifted_thresholds(layer, inputs):
    substrate = Noisy(threshold_offset=0.13, threshold_spread=0.08, seed=4)
    pattern = substrate.thresholds(0, layer, 1, layer.weight)
    assert float(pattern.mean()) == pytest.approx(2.73, abs=0.05)
    assert float(pattern.std()) == pytest.approx(0.08, rel=0.4)
    found = substrate.run(Network(layer), inputs).output
    torch.testing.assert_close(found, with_thresholds(layer, pattern)(inputs), rtol=0, atol=1e-12)
    assert torch.equal(found, substrate.run(Network(layer), inputs).output)
    assert torch.equal(
        found, Noisy(threshold_offset=0.13, threshold_spread=0.08, seed=4).run(Network(layer), inputs)[1][0]
    )
    assert not torch.equal(
        found, Noisy(threshold_offset=0.13, threshold_spread=0.08, seed=5).run(Network(layer), inputs)[1][0]
    )


def test_batch_noise_is_one_draw_for_all_samples(layer, inputs):
    substrate = Noisy(threshold_batch_noise=0.1)
    same = inputs[:1].expand(50, -1)
    first, second = (substrate.run(Network(layer), same).output for _ in range(2))
    assert torch.equal(first[0].expand(50, -1), first)
    assert not torch.equal(first, second)
    assert 0.003 < float((first - second)[torch.isfinite(first - second)].abs().mean()) < 0.2


def test_sample_noise_differs_between_samples(layer, inputs):
    same = inputs[:1].expand(400, -1)
    found = Noisy(threshold_sample_noise=0.05).run(Network(layer), same).output
    exact = layer(same)[0].detach()
    spikes = found[:, torch.isfinite(found).all(0) & torch.isfinite(exact)]
    assert spikes.shape[1] > 10
    assert bool((spikes.std(dim=0) > 1e-3).all())
    centre = exact[torch.isfinite(found).all(0) & torch.isfinite(exact)]
    assert bool(((spikes.mean(dim=0) - centre).abs() < 0.05).all())


def test_sample_noise_alone_is_exact_for_the_thresholds_drawn(layer, inputs):
    substrate = Noisy(threshold_sample_noise=0.05)
    state = substrate.state_dict()
    found = substrate.run(Network(layer), inputs).output
    substrate.load_state_dict(state)
    thresholds = substrate.thresholds(0, layer, 50, layer.weight)
    for sample in (0, 17, 49):
        wanted = with_thresholds(layer, thresholds[sample])(inputs[sample])
        torch.testing.assert_close(found[sample], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("what", ["input_jitter", "spike_jitter", "delay_jitter"])
def test_jitter_has_its_width(what, inputs):
    rule = DelayRule("clip", scale=3, mean=1.0, std=0)
    layer = LIFLinear(6, 4, weight_mean=30.0, weight_std=0.0, **DOUBLE)  # fires at once: noise goes on as it is
    network = Network(Delay(6, rule, **DOUBLE), layer)
    inputs = inputs[:1].expand(2000, -1)
    found, exact = Noisy(**{what: 0.05}).run(network, inputs), Exact().run(network, inputs)
    place = {"input_jitter": 0, "delay_jitter": 1, "spike_jitter": 2}[what]
    pairs = list(zip((found.inputs, *found.layers), (exact.inputs, *exact.layers), strict=True))
    difference = pairs[place][0] - pairs[place][1]
    assert float(difference.std()) == pytest.approx(0.05, rel=0.1)
    assert abs(float(difference.mean())) < 0.01
    assert all(torch.equal(one, other) for one, other in pairs[:place])


@pytest.mark.parametrize("what", ["input_jitter", "delay_jitter", "spike_jitter"])
def test_jittered_trains_stay_sorted(what, source):
    """Also where the first layer asks for the first spike only."""
    rule = DelayRule("clip", scale=9.0, mean=3.0, std=0)
    lif = LIFSpikeTrains(6, 4, 30, LIF(2.0), weight_mean=1.0, weight_std=0.5, generator=source, **DOUBLE)
    network = Network(Delay(6, rule, trains=True, **DOUBLE), lif, Delay(4, rule, trains=True, **DOUBLE), FirstSpike())
    times = (2 * torch.rand(50, 6, 4, generator=source, **DOUBLE)).sort(-1).values
    times[:, ::2, 2:] = torch.inf
    substrate = Noisy(**{what: 0.5}, seed=1)
    record = substrate.run(network, times)
    for found in (record.inputs, *record.layers[:3]):
        assert torch.equal(found.sort(-1).values, found)
    place = {"input_jitter": 0, "delay_jitter": 1, "spike_jitter": 2}[what]
    moved, still = (record.inputs, *record.layers)[place], (times, *Exact().run(network, times).layers)[place]
    assert not torch.equal(moved, still)
    assert torch.equal(moved.isfinite(), still.isfinite())
    assert torch.equal(record.output, record.layers[2].amin(-1))
    first = substrate.run(Network(FirstSpike(), LIFLinear(6, 3, **DOUBLE)), times)
    assert torch.equal(first.layers[0], first.inputs.amin(-1))


def test_synaptic_delays_jitter_by_synapse(inputs):
    layer = LIFLinear(
        6, 4, delay=DelayRule("clip", scale=3, mean=1.0, std=0), weight_mean=3.0, weight_std=0.0, **DOUBLE
    )
    found = Noisy(delay_jitter=0.05).run(Network(layer), inputs[:1].expand(10, -1)).output
    assert torch.equal(found, found[:1].expand(10, -1))
    assert float(found[0].std()) > 1e-3


def test_delays_never_become_negative(inputs):
    network = Network(Delay(6, DelayRule("clip", mean=0.0, std=0), **DOUBLE), LIFLinear(6, 1, **DOUBLE))
    found = Noisy(delay_jitter=0.5).run(network, inputs)
    assert bool((found.layers[0] >= inputs).all())


def test_lost_spikes(layer, inputs):
    exact = Exact().run(Network(layer), inputs).output
    found = Noisy(spike_loss=0.2).run(Network(layer), inputs).output
    spiked = torch.isfinite(exact)
    lost = torch.isinf(found) & spiked
    assert float(lost.sum() / spiked.sum()) == pytest.approx(0.2, abs=0.05)
    assert torch.equal(found[~lost], exact[~lost])


def test_weights_are_rounded_and_clipped():
    weight = torch.tensor([0.0, 0.016, 0.017, -0.05, 3.0, -3.0], **DOUBLE)
    stored = Noisy(weight_scale=30.0, weight_max=2.1).stored(weight)
    torch.testing.assert_close(stored * 30, torch.tensor([0.0, 0, 1, -2, 63, -63], **DOUBLE))
    assert Noisy().stored(weight) is weight


def test_rounding_is_straight_through(layer, inputs):
    network, substrate = Network(layer), Noisy(weight_scale=4.0, weight_max=2.0)
    rounded = LIFLinear(6, 30, layer.neuron, **DOUBLE)
    with torch.no_grad():
        rounded.weight.copy_((layer.weight * 4).round().clamp(-8, 8) / 4)
    record = substrate.record(network, inputs)
    wanted = rounded(inputs)
    torch.testing.assert_close(record.output, wanted, rtol=0, atol=1e-9)
    for output in (record.output, wanted):
        torch.where(torch.isfinite(output), output, 0.0).sum().backward()
    torch.testing.assert_close(layer.weight.grad, rounded.weight.grad)
    assert not torch.equal(layer.weight, rounded.weight)


def test_weights_are_clipped_after_a_step(layer):
    with torch.no_grad():
        layer.weight[0, :2] = torch.tensor([5.0, -5.0])
    kept = layer.weight.detach().clone().clamp(-2.1, 2.1)
    Noisy(weight_max=2.1).project_(Network(layer))
    assert torch.equal(layer.weight, kept)
    before = layer.weight.detach().clone()
    Noisy(weight_scale=30.0).project_(Network(layer))
    assert torch.equal(layer.weight, before)


def test_thresholds_stay_positive(layer, inputs):
    found = Noisy(threshold_offset=-5.0).run(Network(layer), inputs).output
    assert bool(torch.isfinite(found).all())


def test_state_goes_on_where_it_was(network, times):
    substrate = Noisy(**ALL, seed=2)
    substrate.run(network, times)
    state = substrate.state_dict()
    wanted = substrate.run(network, times)
    other = Noisy(**ALL, seed=2)
    other.load_state_dict(state)
    found = other.run(network, times)
    assert all(torch.equal(x, y) for x, y in zip(found.layers, wanted.layers, strict=True))
    assert torch.equal(found.inputs, wanted.inputs)


@pytest.mark.parametrize(
    "bad",
    [
        {"spike_jitter": -1.0},
        {"spike_loss": 1.0},
        {"threshold_spread": -0.1},
        {"weight_max": 0.0},
        {"input_jitter": 10**400},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=r"must be"):
        Noisy(**bad)


@pytest.mark.parametrize("several", [False, True])
def test_neurons_with_several_receptors(several):
    """Without noise they spike as the layer says."""
    given = {"receptor": [0, 1, 0], "signs": [1, -1, 1], "backend": "reference", "dtype": torch.float64}
    neuron = LIF(2.0, (1.0, 2.5))
    trains = LIFSpikeTrains(3, 4, 9, neuron, overflow="drop", **given)
    layer = trains if several else LIFLinear(3, 4, neuron, **given)
    times = torch.rand(5, 3, dtype=torch.float64)
    with Noisy() as quiet:
        torch.testing.assert_close(quiet.run(Network(layer), times).output, layer(times), rtol=1e-12, atol=1e-12)


FLUCTUATING = {"backend": "reference", "weight_mean": 0.0, "weight_std": 0.0, **DOUBLE}


@pytest.mark.slow
def test_membranes_fluctuate_as_an_ornstein_uhlenbeck_process():
    """Numbers of spikes below the threshold of the mean membrane, against the process itself; none without noise."""
    layer = LIFSpikeTrains(1, 200, 60, LIF(2.0, bias=0.8, refractory=0.25), until=12.0, **FLUCTUATING)
    network, times = Network(layer), torch.zeros(4, 1, **DOUBLE)
    assert network(times).isinf().all()
    found = Noisy(membrane_noise=0.2, noise_time=0.1, seed=1).open(network).run(network, times).output
    assert torch.equal(found, found.sort(dim=-1).values)
    gaps = found[..., 1:] - found[..., :-1]
    assert gaps[gaps.isfinite()].min() >= 0.25

    generator, count, last = torch.Generator().manual_seed(2), 0, torch.full((4000,), -1.0, **DOUBLE)
    voltage = torch.zeros(4000, **DOUBLE)
    kick = 0.2 * (1 - torch.exp(torch.tensor(-0.1, **DOUBLE))).sqrt()
    for step in range(1, 120):
        now, held = 0.1 * step, (0.1 * step - last - 0.25).clamp(max=0.1)  # time since its refractory time
        towards = (1 - torch.exp(-held.clamp(min=0) / 2)) * (0.8 - voltage)
        voltage = voltage + towards + (held > 1e-9) * kick * torch.randn(4000, generator=generator, **DOUBLE)
        fires = voltage >= 1
        voltage, last, count = torch.where(fires, 0.0, voltage), torch.where(fires, now, last), count + int(fires.sum())
    assert float(found.isfinite().sum()) / 800 == pytest.approx(count / 4000, rel=0.05)
    assert count / 4000 > 0.9


def test_spikes_at_kicks_have_all_digits():
    layer = LIFSpikeTrains(1, 40, 400, LIF(2.0, bias=0.8), until=40.0, **FLUCTUATING)
    times = torch.full((2, 1), math.inf, **DOUBLE)
    found = Noisy(membrane_noise=0.4, noise_time=0.1, seed=1).open(Network(layer)).run(Network(layer), times).output
    steps = found[found.isfinite()] / 0.1
    assert len(steps) > 40
    assert (steps - steps.round()).abs().max() < 1e-10


def test_fluctuating_networks_go_on_where_they_were(source):
    layer = LIFRecurrent(
        6, 8, 200, 4.0, LIF(2.0, 1.0), window=0.7, window_spikes=60, weight_mean=1.5, weight_std=0.3,
        recurrent_delay=DelayRule("clip", scale=1.0, mean=0.3), generator=source, backend="reference", **DOUBLE,
    )  # fmt: skip
    network, times = Network(layer), torch.rand(3, 6, generator=source, **DOUBLE)
    substrate = Noisy(membrane_noise=0.3, noise_time=0.2, threshold_spread=0.05, seed=3).open(network)
    state = substrate.state_dict()
    one, other = substrate.record(network, times).output, substrate.run(network, times).output
    assert not torch.equal(one, other)
    substrate.load_state_dict(state)
    assert torch.equal(substrate.run(network, times).output, one)
    one.nan_to_num(posinf=0).sum().backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.any()
    plain = Noisy(threshold_spread=0.05, seed=3).open(network).run(network, times).output
    little = Noisy(membrane_noise=1e-12, threshold_spread=0.05, seed=3).open(network).run(network, times).output
    torch.testing.assert_close(little, plain, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "layer",
    [
        LIFLinear(2, 3, until=5.0),
        LIFSpikeTrains(2, 3, 9),
        LIFSpikeTrains(2, 3, 9, LIF(reset=None, refractory=0.1), until=5.0),
        LIFSpikeTrains(2, 3, 9, AdaptiveLIF(adaptation=[(2.0, 0.1)]), until=5.0),
        LIFSpikeTrains(2, 3, 9, AdEx(), until=5.0),
    ],
    ids=["first spikes", "no end", "no reset", "adaptation", "equations"],
)
def test_neurons_that_do_not_fluctuate(layer):
    message = "^layer 0: the substrate noisy has no neurons with membrane_noise but those with a reset, without adaptat"
    with pytest.raises(ValueError, match=message):
        Noisy(membrane_noise=0.1).open(Network(layer))
    Noisy().open(Network(layer))
