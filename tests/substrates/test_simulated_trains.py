"""Spike trains through simulators that do not know firstspike's equations, and through noise."""

import pytest
import torch
from fake_pynn_brainscales import calibration

from firstspike.layers import DelayRule, FirstSpike, IntegralReadout, LIFLinear, LIFSpikeTrains, Network
from firstspike.neurons import LIF
from firstspike.substrates import SUBSTRATES, Brian2, Exact, Nest, Neuron, Noisy

DOUBLE = {"dtype": torch.float64}


def random_trains(source, batch, inputs, spikes, until):
    return (until * torch.rand(batch, inputs, spikes, generator=source, **DOUBLE)).sort(-1).values


def counts(trains):
    return torch.isfinite(trains).sum(-1)


@pytest.mark.parametrize(
    ("neuron", "options"),
    [
        (LIF(2.0, 1.0, refractory=0.01), {}),
        (LIF(1.0, 1.0, refractory=0.25, reset=-0.4), {}),
        (LIF(0.7, 1.3, torch.tensor([0.5, 0.8, 1.0]), refractory=0.26, reset=0.2), {}),
        (LIF(0.04, 0.02, 1.0, refractory=0.002), {}),
        (LIF(2.0, 1.0, refractory=0.1), {"delay": DelayRule("softplus")}),
    ],
    ids=["plain", "refractory", "own thresholds", "seconds", "delays"],
)
@pytest.mark.nest
def test_trains_through_nest(source, neuron, options):
    unit = 0.02 if isinstance(neuron.tau_syn, float) and neuron.tau_syn < 0.1 else 1.0
    layer = LIFSpikeTrains(
        6, 3, 60, neuron, weight_mean=0.6, weight_std=0.6, generator=source, **options, **DOUBLE
    ).double()
    network = Network(layer).requires_grad_(False)
    times = unit * random_trains(source, 12, 6, 4, 6.0)
    with Nest().open(network) as nest:
        found = nest.run(network, times).output
    wanted = network(times)
    assert int(counts(wanted).max()) > 3
    assert torch.equal(counts(found), counts(wanted))
    torch.testing.assert_close(found, wanted, atol=1e-9 * unit, rtol=0)


@pytest.mark.parametrize("step", [2 / 3 / 20, 1 / 30, 0.01 / 0.7316, 0.0012345])
@pytest.mark.parametrize("tau_syn", [1.0, 0.7316])
@pytest.mark.nest
def test_steps_that_nest_would_round(source, step, tau_syn):
    """It has whole microseconds: the unit of time follows the step."""
    refractory = 20 * step * tau_syn
    layer = LIFSpikeTrains(
        6, 4, 60, LIF(2.0, tau_syn, refractory=refractory), weight_mean=0.4, weight_std=0.6, generator=source, **DOUBLE
    )
    network = Network(layer).requires_grad_(False)
    times = random_trains(source, 12, 6, 4, 6.0)
    with Nest(step).open(network) as nest:
        found = nest.run(network, times).output
    wanted = network(times)
    assert int(counts(wanted).max()) > 3
    assert torch.equal(counts(found), counts(wanted))
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


@pytest.mark.nest
def test_two_hundred_neurons_through_nest(source):
    """For 20 tau_syn; membranes that only just reach the threshold may differ, and then the whole train does."""
    layer = LIFSpikeTrains(
        50, 200, 120, LIF(2.0, refractory=0.1), weight_mean=0.03, weight_std=0.15, generator=source, **DOUBLE
    )
    times = random_trains(source, 1, 50, 20, 20.0)
    network = Network(layer).requires_grad_(False)
    with Nest().open(network) as nest:
        found = nest.run(network, times).output
    wanted = network(times)
    same = counts(found) == counts(wanted)
    assert int(counts(wanted).sum()) > 1000
    assert int((~same).sum()) <= 1
    torch.testing.assert_close(found[same], wanted[same], atol=1e-9, rtol=0)


@pytest.mark.nest
def test_the_gradient_is_that_at_the_trains_of_nest(source):
    network = Network(
        LIFSpikeTrains(4, 8, 30, LIF(2.0, refractory=0.1), weight_mean=0.8, weight_std=0.5, generator=source, **DOUBLE),
        LIFSpikeTrains(8, 5, 30, LIF(2.0, refractory=0.2), weight_mean=0.3, weight_std=0.3, generator=source, **DOUBLE),
        IntegralReadout(5, 2, generator=source, **DOUBLE),
    )
    times = random_trains(source, 5, 4, 3, 4.0)
    with Nest().open(network) as nest:
        record = nest.record(network, times)
    exact = network.record(times)
    for seen, wanted in zip(record.layers, exact.layers, strict=True):
        torch.testing.assert_close(seen, wanted, atol=1e-8, rtol=0)
    found, wanted = (torch.autograd.grad(x.output.sum(), list(network.parameters())) for x in (record, exact))
    for one, other in zip(found, wanted, strict=True):
        assert bool(one.any())
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.nest
def test_trains_and_first_spikes_through_nest(source):
    network = Network(
        LIFSpikeTrains(4, 6, 30, LIF(2.0, refractory=0.1), weight_mean=0.8, weight_std=0.4, generator=source, **DOUBLE),
        FirstSpike(),
        LIFLinear(6, 3, LIF(2.0), generator=source, **DOUBLE),
    ).requires_grad_(False)
    times = random_trains(source, 6, 4, 3, 3.0)
    with Nest().open(network) as nest:
        found = nest.run(network, times)
    torch.testing.assert_close(found.output, network(times), atol=1e-8, rtol=0)


@pytest.mark.nest
def test_room_for_trains_of_nest(source):
    layer = LIFSpikeTrains(3, 2, 1, LIF(2.0, refractory=0.1), weight_mean=2.0, weight_std=0.1, **DOUBLE)
    network, times = Network(layer), random_trains(source, 4, 3, 2, 2.0)
    with Nest().open(network) as nest:
        with pytest.raises(ValueError, match="spike more than max_spikes=1 times; raise max_spikes"):
            nest.run(network, times)
        layer.overflow = "drop"
        assert nest.run(network, times).output.shape == (4, 2, 1)


@pytest.mark.parametrize(
    "simulator", [pytest.param(Neuron, marks=pytest.mark.neuron), pytest.param(Brian2, marks=pytest.mark.brian2)]
)
def test_trains_through_fixed_steps(source, simulator):
    layer = LIFSpikeTrains(
        4, 5, 40, LIF(2.0, refractory=0.2), weight_mean=0.8, weight_std=0.5, generator=source, **DOUBLE
    )
    network, times = Network(layer).requires_grad_(False), random_trains(source, 6, 4, 3, 4.0)
    with simulator(step=0.01).open(network) as opened:
        found = opened.run(network, times).output
    wanted = network(times)
    same = counts(found) == counts(wanted)
    assert int(counts(wanted).max()) > 3
    assert float(same.double().mean()) > 0.8  # errors of a step add up over spikes
    differences = (found - wanted)[same.unsqueeze(-1) & torch.isfinite(wanted)]
    assert float(differences.abs().median()) < 0.03


@pytest.mark.parametrize("refractory", [0.0, 0.015])
def test_refractory_times_that_nest_lacks(refractory):
    with pytest.raises(ValueError, match=r"layer 0: NEST has refractory times of whole steps of .*0\.01"):
        Nest().open(Network(LIFSpikeTrains(2, 2, 3, neuron=LIF(refractory=refractory))))


class TestNoise:
    @pytest.fixture
    def network(self, source):
        options = {"weight_mean": 0.7, "weight_std": 0.5, "overflow": "drop", "generator": source} | DOUBLE
        return Network(
            LIFSpikeTrains(5, 6, 30, LIF(2.0, refractory=0.1, reset=0.3), **options),
            LIFSpikeTrains(6, 4, 30, LIF(2.0, 1.0, 1.2), delay=DelayRule("softplus"), **options),
            IntegralReadout(4, 2, generator=source, **DOUBLE),
        )

    @pytest.fixture
    def times(self, source):
        return random_trains(source, 7, 5, 2, 3.0)

    def test_without_noise_it_is_exact(self, network, times):
        with Noisy().open(network) as substrate:
            for one, other in zip(
                substrate.run(network, times).layers, Exact().run(network, times).layers, strict=True
            ):
                assert torch.equal(one, other)

    @pytest.mark.parametrize(
        "noise",
        [
            {"threshold_spread": 0.1, "threshold_batch_noise": 0.05},
            {"threshold_sample_noise": 0.1},
            {"input_jitter": 0.1},
            {"spike_jitter": 0.2, "spike_loss": 0.1},
            {"delay_jitter": 0.1},
            {"weight_scale": 4.0, "weight_max": 1.0},
            {"threshold_spread": 5.0},
        ],
        ids=str,
    )
    def test_noise(self, network, times, noise):
        exact = Exact().run(network, times).layers[1]
        with Noisy(**noise, seed=1).open(network) as substrate:
            substrate_state = substrate.state_dict()
            seen = substrate.run(network, times)
            substrate.load_state_dict(substrate_state)
            record = substrate.record(network, times)
            used = substrate.parameters(network)
        trains = seen.layers[1]
        assert torch.equal(trains.sort(-1).values, trains)
        assert not torch.equal(trains, exact)
        record.output.sum().backward()
        found = network[0].weight.grad.clone()
        assert bool(found.isfinite().all())
        assert bool(found.any())
        network.zero_grad()
        with torch.no_grad():
            for name, value in used.items():
                network.get_parameter(name).copy_(value)
        network.record(seen.inputs, seen.layers).output.sum().backward()
        torch.testing.assert_close(found, network[0].weight.grad)


class TestChip:
    @pytest.fixture
    def network(self, source):
        lif, options = LIF(1.0, 1.0, 2.6, refractory=2.67), {"generator": source} | DOUBLE
        found = Network(
            LIFSpikeTrains(5, 8, 12, lif, weight_mean=1.6, weight_std=0.3, **options),
            LIFSpikeTrains(8, 6, 12, lif, weight_mean=0.5, weight_std=0.6, **options),
            IntegralReadout(6, 2, generator=source, **DOUBLE),
        )
        with torch.no_grad():
            for layer in (found[0], found[1]):
                layer.weight.copy_((layer.weight * 30).round().clamp(-57, 57) / 30)
        return found

    @pytest.fixture(params=["mock_bss2", "brainscales2"])
    def chip(self, request, tmp_path):
        if request.param == "mock_bss2":
            return SUBSTRATES["mock_bss2"](threshold_offset=0.0, threshold_spread=0.0, threshold_batch_noise=0.0)
        request.getfixturevalue("machine")
        return SUBSTRATES["brainscales2"](calibration=calibration(tmp_path / "short.pbin", refractory_us=6 * 2.67))

    def test_trains(self, chip, network, source):
        times = random_trains(source, 12, 5, 4, 9.0)
        with chip.open(network) as substrate:
            record = substrate.record(network, times)
        exact = network.record(record.inputs)
        same = counts(record.layers[0]) == counts(exact.layers[0])
        assert int(counts(exact.layers[0]).max()) >= 3
        assert float(same.double().mean()) > 0.97
        torch.testing.assert_close(record.layers[0][same], exact.layers[0][same], atol=0.01, rtol=0)
        assert float((record.output - exact.output).detach().abs().median()) < 0.02
        record.output.sum().backward()
        assert bool(network[0].weight.grad.any())

    @pytest.mark.parametrize("kind", ["mock_bss2", "brainscales2"])
    def test_two_receptors(self, kind, source, request, tmp_path):
        lif = LIF(1.0, (1.0, 2.0), 2.6, refractory=2.67)
        options = {"receptor": "sign", "generator": source} | DOUBLE
        network = Network(
            LIFSpikeTrains(5, 8, 12, lif, weight_mean=1.6, weight_std=1.2, **options),
            LIFSpikeTrains(8, 6, 12, lif, weight_mean=0.4, weight_std=0.6, **options),
        )
        with torch.no_grad():
            for layer in network:
                layer.weight.copy_((layer.weight * 30).round().clamp(-57, 57) / 30)
        ideal = {"threshold_offset": 0.0, "threshold_spread": 0.0, "threshold_batch_noise": 0.0}
        if kind == "brainscales2":
            request.getfixturevalue("machine")
            file = calibration(tmp_path / "two.pbin", refractory_us=6 * 2.67, tau_syn_us=[6.0, 12.0])
            ideal = {"calibration": file}
        times = random_trains(source, 12, 5, 4, 9.0)
        with SUBSTRATES[kind](**ideal).open(network) as substrate:
            record = substrate.record(network, times)
        exact = network.record(record.inputs)
        same = counts(record.layers[0]) == counts(exact.layers[0])
        assert int(counts(exact.layers[0]).max()) >= 2
        assert bool((network[0].weight < 0).any())
        assert float(same.double().mean()) > 0.95
        torch.testing.assert_close(record.layers[0][same], exact.layers[0][same], atol=0.01, rtol=0)

    def test_float32(self, chip, network, source):
        times = random_trains(source, 4, 5, 3, 9.0).float()
        with chip.open(network.float()) as substrate:
            assert substrate.record(network, times).output.dtype == torch.float32

    def test_first_spikes_of_trains(self, chip, source):
        lif = LIF(1.0, 1.0, 2.6)
        options = {"weight_mean": 1.4, "weight_std": 0.2, "generator": source} | DOUBLE
        network = Network(
            LIFSpikeTrains(5, 8, 12, lif.with_values(refractory=2.67), **options),
            FirstSpike(),
            LIFLinear(8, 3, lif, **options),
        )
        times = random_trains(source, 6, 5, 2, 3.0)
        with chip.open(network) as substrate:
            record = substrate.run(network, times)
        assert record.output.shape == (6, 3)
        assert torch.equal(record.layers[1], record.layers[0][..., 0])

    def test_a_reset_that_the_chip_lacks(self, chip):
        with pytest.raises(ValueError, match=r"layer 0: a reset to 0\.5; the chip is calibrated"):
            chip.open(Network(LIFSpikeTrains(2, 2, 3, neuron=LIF(refractory=2.67, reset=0.5))))

    def test_another_refractory_time(self):
        with pytest.raises(ValueError, match=r"layer 0 has the refractory time 0, the neurons of the chip 2\.67"):
            SUBSTRATES["mock_bss2"]().open(Network(LIFSpikeTrains(2, 2, 3)))
