"""Neurons that are connected to each other, on substrates that simulate them: their trains, and the gradient there."""

import pytest
import torch

from agreement import with_rest
from firstspike import connect
from firstspike.layers import DelayRule, IntegralReadout, LIFRecurrent, LIFSpikeTrains, Network, SpikingRecurrent
from firstspike.neurons import LIF
from firstspike.substrates import SUBSTRATES, Brian2, Exact, Integrator, MockBss2, Nest, Neuron, Noisy

DOUBLE = {"dtype": torch.float64}
EXCITED = {"recurrent_mean": 0.25, "recurrent_std": 0.4}  # such that the neurons still spike at the end


def made(source, unit=1.0, **options):
    """A recurrent layer and a readout, and trains for them."""
    given = {"window": unit, "window_spikes": 20, "refractory": 0.1 * unit, "recurrent_mean": 0.05}
    given |= {"recurrent_std": 0.4, "weight_mean": 0.6, "weight_std": 0.4, "generator": source} | DOUBLE | options
    neuron, given = with_rest(LIF(2.0 * unit, unit), given)
    layer = LIFRecurrent(4, 6, 60, 8.0 * unit, neuron, **given)
    times = (4.0 * unit * torch.rand(5, 4, 3, generator=source, **DOUBLE)).sort(-1).values
    times[4] = torch.inf
    return Network(layer, IntegralReadout(6, 2, generator=source, **DOUBLE)), times


def whole_steps(network, step=0.01):
    """The same with delays of whole steps."""
    with torch.no_grad():
        raw = network[0].recurrent_delays.delay_raw
        raw.copy_((raw / step).round() * step)
    return network


def counts(trains):
    return torch.isfinite(trains).sum(-1)


def alike(found, wanted):
    """Largest and median difference of spikes, where trains have as many, and how many trains have."""
    same = counts(found) == counts(wanted)
    differences = (found - wanted).detach()[same.unsqueeze(-1) & torch.isfinite(wanted)].abs()
    return float(differences.max()), float(differences.median()), float(same.double().mean())


CASES = {
    "plain": {},
    "active at the end": EXCITED,
    "refractory": {"refractory": 0.25, "reset": -0.3},
    "short window": {"window": 0.2, "recurrent_std": 0.7},
    "delays": {"recurrent_delay": DelayRule("clip", 2.0, mean=0.7)},
    "all delays": {"recurrent_delay": DelayRule("clip", 2.0, mean=0.7), "delay": DelayRule("softplus")},
    "seconds": {"unit": 0.02},
}


@pytest.mark.nest
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_nest(source, options):
    """The trains of the layer to rounding, and with them its gradient; no sample knows of the one before."""
    network, times = made(source, **options)
    unit = options.get("unit", 1.0)
    if "recurrent_delay" in options:
        whole_steps(network)
    with Nest().open(network) as nest:
        record = nest.record(network, times)
    exact = network.record(times)
    assert int(counts(exact.layers[0]).max()) > 4
    assert not counts(exact.layers[0])[4].any()
    assert torch.equal(counts(record.layers[0]), counts(exact.layers[0]))
    torch.testing.assert_close(record.layers[0], exact.layers[0], atol=1e-9 * unit, rtol=0)
    parameters = list(network.parameters())
    for one, other in zip(*(torch.autograd.grad(x.output.sum(), parameters) for x in (record, exact)), strict=True):
        assert bool(one.any())
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-7)


@pytest.mark.nest
def test_nest_after_other_layers(source):
    before = LIFSpikeTrains(3, 4, 30, LIF(2.0, refractory=0.1), weight_mean=0.8, weight_std=0.3, generator=source)
    network = Network(before.double(), *made(source)[0]).requires_grad_(False)
    times = (3 * torch.rand(4, 3, 2, generator=source, **DOUBLE)).sort(-1).values
    with Nest().open(network) as nest:
        torch.testing.assert_close(nest.run(network, times).output, network(times), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("simulator", "window", "message"),
    [
        (
            Nest,
            0.015,
            r"layer 0: NEST has delays of whole steps of 0\.01, at least 1, got a window of 0\.015: set the layer",
        ),
        (
            Neuron,
            0.005,
            r"layer 0: NEURON has delays of whole steps of 0\.01, at least 1, got a window of 0\.005:",
        ),
    ],
)
def test_windows_that_a_simulator_lacks(source, simulator, window, message):
    with pytest.raises(ValueError, match=message):
        simulator().open(made(source, window=window)[0])


@pytest.mark.parametrize(
    "simulator", [pytest.param(Neuron, marks=pytest.mark.neuron), pytest.param(Brian2, marks=pytest.mark.brian2)]
)
def test_simulators_with_fixed_steps(source, simulator):
    network, times = made(source, refractory=0.2, recurrent_delay=DelayRule("clip", 2.0, mean=0.7))
    times = times[:2]
    with pytest.warns(
        UserWarning, match=f"^layer 0: {simulator.title} has delays of whole steps of 0.02, and rounds a recurr"
    ):
        opened = simulator(step=0.02).open(network)
    with opened:
        found = opened.run(network, times).layers[0]
    _, median, same = alike(found, network.record(times).layers[0])
    assert same > 0.8
    assert median < 0.05


@pytest.mark.parametrize(
    "options",
    [pytest.param(x, id=name, marks=[] if name == "plain" else pytest.mark.slow) for name, x in CASES.items()],
)
def test_integrator(source, options):
    network, times = made(source, **options)
    unit = options.get("unit", 1.0)
    wanted = network.record(times).layers[0]
    with Integrator(step=0.002 * unit, duration=20.0 * unit).open(network) as integrator:
        found = integrator.run(network, times).layers[0]
    largest, median, same = alike(found, wanted)
    assert same >= 0.9  # errors of a step add up, and excite or silence other neurons
    assert median < 0.005 * unit
    assert largest < 0.3 * unit


def test_integrator_ends_with_the_layer_or_before(source):
    network, times = made(source, **EXCITED)
    wanted = network.record(times).layers[0]
    for duration, end in ((20.0, 8.0), (5.0, 5.0)):
        found = Integrator(duration=duration).open(network).run(network, times).layers[0]
        last = found[torch.isfinite(found)].max()
        assert end - 0.5 < last <= end
        assert int(counts(torch.where(wanted < end - 0.5, wanted, torch.inf)).sum()) <= int(counts(found).sum())


class TestNoise:
    @pytest.mark.parametrize("options", CASES.values(), ids=CASES)
    def test_without_noise_it_is_exact(self, source, options):
        network, times = made(source, **options)
        with Noisy().open(network) as substrate:
            found = substrate.run(network, times)
        torch.testing.assert_close(found.layers[0], Exact().run(network, times).layers[0], rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("options", [{}, CASES["all delays"]], ids=["plain", "delays"])
    @pytest.mark.parametrize(
        "noise",
        [
            {"threshold_spread": 0.1, "threshold_batch_noise": 0.05},
            {"threshold_sample_noise": 0.1},
            {"input_jitter": 0.1},
            {"spike_jitter": 0.2, "spike_loss": 0.1},
            {"weight_scale": 4.0, "weight_max": 1.0},
        ],
        ids=str,
    )
    def test_noise(self, source, noise, options):
        """Spikes are others, and the gradient is the exact one at them, for the weights that were used."""
        network, times = made(source, overflow="drop", **options)
        with Noisy(**noise, seed=1).open(network) as substrate:
            state = substrate.state_dict()
            seen = substrate.run(network, times)
            substrate.load_state_dict(state)
            record = substrate.record(network, times)
            used = substrate.parameters(network)
        trains = seen.layers[0]
        assert torch.equal(trains.sort(-1).values, trains)
        assert not torch.equal(trains, Exact().run(network, times).layers[0])
        assert torch.equal(record.layers[0], trains)
        record.output.sum().backward()
        parameters = network[0].weight, network[0].recurrent_weight
        found = [x.grad.clone() for x in parameters]
        assert all(bool(x.isfinite().all()) and bool(x.any()) for x in found)
        network.zero_grad()
        with torch.no_grad():
            for name, value in used.items():
                network.get_parameter(name).copy_(value)
        network.record(seen.inputs, seen.layers).output.sum().backward()
        for one, parameter in zip(found, parameters, strict=True):
            torch.testing.assert_close(one, parameter.grad)

    @pytest.mark.parametrize("options", [{}, CASES["delays"]], ids=["plain", "delays"])
    @pytest.mark.parametrize("shift", [1.9, 2.6, 7.5])
    def test_spikes_before_time_0_reach_other_neurons(self, source, shift, options):
        network, times = made(source, **EXCITED | options)
        wanted = Noisy().open(network).run(network, times).layers[0]
        network[0].duration -= shift
        found = Noisy().open(network).run(network, times - shift).layers[0]
        assert bool((found < 0).any())
        torch.testing.assert_close(found + shift, wanted, rtol=1e-9, atol=1e-9)

    def test_others_get_the_jittered_spikes(self, source):
        """One neuron spikes, the other one a window later: the jitter of the first is that of the second."""
        layer = LIFRecurrent(
            1, 2, 1, 4.0, LIF(2.0), window_spikes=1, overflow="drop", weight_mean=1.0, weight_std=1.0, generator=source,
            **DOUBLE,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[4.0], [0.0]]))
            layer.recurrent_weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
        network, times = Network(layer), torch.zeros(400, 1, 1, **DOUBLE)
        response = Exact().run(network, times).output[0, :, 0].diff()
        with Noisy(spike_jitter=0.05, seed=2).open(network) as substrate:
            first, second = substrate.run(network, times).output[..., 0].unbind(-1)
        own = second - first - response
        assert float(own.std()) == pytest.approx(0.05, rel=0.2)  # of the second neuron alone
        assert float(second.std()) == pytest.approx(0.05 * 2**0.5, rel=0.2)


IDEAL = {"threshold_offset": 0.0, "threshold_spread": 0.0, "threshold_batch_noise": 0.0, "delay_jitter": 0.0}


class TestChip:
    def network(self, source, **options):
        given = {"window": 2.0, "refractory": 2.67, "weight_mean": 1.6, "weight_std": 0.3, "recurrent_std": 0.8}
        given |= {"recurrent_mean": 0.1, "generator": source} | DOUBLE | options
        lif, given = with_rest(LIF(1.0, 1.0, 2.6), given)
        layer = LIFRecurrent(5, 8, 12, 20.0, lif, **given)
        with torch.no_grad():
            for weight in (layer.weight, layer.recurrent_weight):
                weight.copy_((weight * 30).round().clamp(-57, 57) / 30)
        return Network(layer, IntegralReadout(8, 2, generator=source, **DOUBLE))

    def test_trains(self, source):
        network = self.network(source)
        times = (9 * torch.rand(12, 5, 4, generator=source, **DOUBLE)).sort(-1).values
        with MockBss2(**IDEAL).open(network) as chip:
            record = chip.record(network, times)
        wanted = network.record(record.inputs).layers[0]
        largest, _, same = alike(record.layers[0], wanted)
        assert same > 0.97
        assert largest < 0.01  # the clock of the chip
        record.output.sum().backward()
        assert bool(network[0].recurrent_weight.grad.any())
        with torch.no_grad():
            network[0].recurrent_weight.zero_()
        assert not torch.equal(counts(network.record(record.inputs).layers[0]), counts(wanted))

    def test_noise(self, source):
        network = self.network(source)
        times = (9 * torch.rand(12, 5, 4, generator=source, **DOUBLE)).sort(-1).values
        with MockBss2(spike_jitter=0.05, spike_loss=0.05, delay_jitter=0.5).open(network) as chip:
            found = chip.run(network, times).layers[0]
        assert torch.equal(found.sort(-1).values, found)
        assert not torch.equal(counts(found), counts(network.record(times).layers[0]))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": 1.0}, r"layer 0 has delays from 1 to 1, BrainScaleS-2 has them from 1\.375 to 5\.542 only"),
            ({"recurrent_delay": DelayRule()}, "layer 0: a recurrent_delay; the chip only has axonal delays"),
            ({"refractory": 1.0}, "layer 0 has the refractory time 1, the neurons of the chip 2.67"),
            ({"reset": 0.5}, "layer 0: a reset to 0.5; the chip is calibrated"),
        ],
    )
    def test_what_the_chip_lacks(self, source, options, message):
        with pytest.raises(ValueError, match=message):
            MockBss2().open(self.network(source, **options))

    def test_room(self):
        layer = LIFRecurrent(10, 100, 5, 10.0, LIF(1.0, 1.0, refractory=2.67), window=2.0)
        MockBss2().open(Network(layer))
        layer = LIFRecurrent(10, 200, 5, 10.0, LIF(1.0, 1.0, refractory=2.67), window=2.0)
        with pytest.raises(ValueError, match="800 neuron circuits needed, the chip has 512"):
            MockBss2().open(Network(layer))


def test_no_recurrence_on_the_chip_itself():
    with pytest.raises(ValueError, match="layer 0: the chip does not support LIFRecurrent"):
        SUBSTRATES["brainscales2"]().open(Network(LIFRecurrent(2, 2, 3, 5.0, window=2.0, neuron=LIF(refractory=2.67))))


def test_which_substrates_have_recurrence():
    assert {kind for kind, substrate in SUBSTRATES.items() if LIFRecurrent not in substrate.neurons} == {
        "brainscales2",
        "exact",
    }


@pytest.mark.nest
@pytest.mark.parametrize(
    "neurons", [40, pytest.param(4100, marks=pytest.mark.slow)], ids=["few", "more than fit a matrix"]
)
def test_nest_takes_sparse_synapses(source, neurons):
    """Also several of one pair, with delays of their own and two receptors."""
    excite, options = neurons * 4 // 5, {"multapses": True, "generator": source}
    recurrent = connect.fixed_indegree(excite, neurons, 8, weight=0.15, **options).at(sources=neurons)
    recurrent += connect.fixed_indegree(neurons - excite, neurons, 2, weight=-0.4, **options).at(excite)
    recurrent = recurrent.with_values(delay=1.5 + 0.25 * torch.randint(5, (len(recurrent),), generator=source))
    layer = SpikingRecurrent(
        20, neurons, 40, 9.0, LIF(2.0, (1.0, 2.0), refractory=0.5), window=1.5, recurrent=recurrent,
        receptor="sign", synapses=connect.fixed_indegree(20, neurons, 5, weight=1.0, generator=source), **DOUBLE,
    )  # fmt: skip
    times = (8.0 * torch.rand(2, 20, 4, generator=source, **DOUBLE)).sort(-1).values
    network = Network(layer)
    with Nest(step=0.25, unit="times").open(network) as nest:
        found = nest.record(network, times).layers[0]
    assert recurrent.multapses
    assert float(counts(found).double().mean()) > 2
    torch.testing.assert_close(found, layer(times), atol=1e-9, rtol=0)
