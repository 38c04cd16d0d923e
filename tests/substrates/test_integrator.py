import pytest
import torch

from firstspike.layers import (
    BiasSpikes,
    DelayRule,
    IntegralReadout,
    LIFLinear,
    LIFSpikeTrains,
    Network,
    SpikingRecurrent,
)
from firstspike.neurons import LIF, AdaptiveLIF
from firstspike.substrates import Exact, Integrator

DOUBLE = {"dtype": torch.float64}


def both(network, times, **settings):
    return Integrator(**settings).run(network, times).output, Exact().run(network, times).output


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(2.0, 1.0, 1.0),
        LIF(float("inf"), 1.0, 0.8),
        LIF(0.7, 1.3, torch.tensor([0.5, 0.8, 1.0])),
        LIF(torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.7]), 0.6),
        LIF(torch.tensor(1.5), 1.0, 0.6),
    ],
    ids=["two", "leakless", "thresholds", "taus", "one tau"],
)
@pytest.mark.parametrize("delay", [None, DelayRule("softplus")], ids=["undelayed", "synaptic"])
def test_time_constants_and_delays(source, neuron, delay):
    layer = LIFLinear(6, 3, neuron, weight_mean=0.8, weight_std=0.8, delay=delay, generator=source, **DOUBLE)
    times = 2 * torch.rand(60, 6, generator=source, **DOUBLE)
    found, wanted = both(Network(layer.double()), times, step=0.005, duration=30)
    late = found - wanted
    assert float(torch.isfinite(found).double().mean()) > 0.2
    assert int(((late < -1e-9) | (late > 0.0051)).sum()) <= 1  # one may only just touch its threshold
    assert bool((torch.isfinite(found) <= torch.isfinite(wanted)).all())  # none is invented


def test_half_the_step_is_half_the_error(network, times):
    errors = []
    for step in (0.1, 0.05, 0.025):
        found, wanted = Integrator(step, 10).run(network, times), Exact().run(network, times)
        difference = found.layers[3] - wanted.layers[3]
        errors.append(float(difference[torch.isfinite(difference)].mean()))
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.25)


def test_spikes_after_the_duration_are_missed():
    layer = LIFLinear(1, 1, **DOUBLE)
    with torch.no_grad():
        layer.weight.fill_(5.0)
    times = torch.tensor([[0.0], [2.0], [-1.0]], **DOUBLE)
    found, wanted = both(Network(BiasSpikes([9.0], **DOUBLE), grown(layer)), times, step=0.01, duration=1.0)
    assert torch.isfinite(found).flatten().tolist() == [True, False, True]
    assert bool(torch.isfinite(wanted).all())
    assert float(found[2]) < 0


def grown(layer):
    """The same neurons with one more input, of weight 0."""
    wide = LIFLinear(layer.in_features + 1, layer.out_features, layer.neuron, **DOUBLE)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([layer.weight, torch.zeros_like(layer.weight[:, :1])], dim=1))
    return wide


def test_delays_jitter_in_training_only(source):
    layer = LIFLinear(3, 2, delay=DelayRule(jitter=0.3), weight_mean=3, weight_std=0.1, generator=source, **DOUBLE)
    network, times = Network(layer), torch.rand(8, 3, generator=source, **DOUBLE)
    substrate = Integrator()
    assert not torch.equal(substrate.run(network, times).output, substrate.run(network, times).output)
    network.eval()
    assert torch.equal(substrate.run(network, times).output, substrate.run(network, times).output)


@pytest.mark.parametrize(("step", "duration"), [(0, 1), (0.1, 0.05), (0.1, float("inf")), (float("nan"), 1)])
def test_bad_settings(step, duration):
    with pytest.raises(ValueError, match=r"(step|duration) must be"):
        Integrator(step, duration)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("neuron", "options"),
    [(LIF(2.0), {}), (LIF(2.0, refractory=0.3, reset=-0.2), {}), (LIF(2.0), {"delay": DelayRule()})],
)
def test_spike_trains(source, neuron, options):
    make = {"weight_mean": 0.8, "weight_std": 0.5, "generator": source} | DOUBLE
    layer = LIFSpikeTrains(6, 4, 60, neuron, **make, **options)
    network = Network(layer, IntegralReadout(4, 2, **DOUBLE))
    times = (4 * torch.rand(20, 6, 2, generator=source, **DOUBLE)).sort(-1).values
    with Integrator(step=0.0005, duration=30).open(network) as substrate:
        seen = substrate.record(network, times)
    exact = network.record(times)
    found, wanted = (x.layers[0].isfinite().sum(-1) for x in (seen, exact))
    assert int(wanted.max()) > 3
    assert float((found == wanted).double().mean()) > 0.9  # errors of a step add up over spikes
    same = (found == wanted).unsqueeze(-1) & wanted.bool().unsqueeze(-1) & exact.layers[0].isfinite()
    assert float((seen.layers[0] - exact.layers[0]).detach()[same].abs().median()) < 0.01
    seen.output.sum().backward()
    assert bool(layer.weight.grad.isfinite().all())
    assert bool(layer.weight.grad.any())


TWO = {"receptor": "sign"}
ADAPTS = {"adaptation": [(3.0, 0.4), (8.0, 0.2)], "threshold_adaptation": [(5.0, 0.3)]}
LINEAR = {
    "two": (LIF(2.0, (1.0, 1.7)), TWO),
    "by number": (LIF(2.0, (1.7, 1.0)), {"receptor": [0, 0, 1, 1, 1, 1], "delay": DelayRule("softplus")}),
    "rise": (LIF(2.0, 1.0, tau_rise=torch.tensor([0.2, 0.5, 1.0, 2.0], **DOUBLE)), {}),
    "bias": (LIF(2.0, 1.0, bias=torch.tensor([0.3, -0.4, 0.8, 1.2], **DOUBLE)), {}),
    "adaptation": (AdaptiveLIF(2.0, (1.0, 1.7), reset=-0.2, refractory=0.3, **ADAPTS), TWO),
    "no reset": (AdaptiveLIF(2.0, 1.0, reset=None, refractory=0.3, **ADAPTS), {}),
    "no adaptation": (LIF(1.0, 1.0, reset=None, refractory=0.3), {}),
    "recurrent": (AdaptiveLIF(2.0, (1.0, 1.7), bias=0.3, refractory=0.3, **ADAPTS), TWO),
}


SLOW = ("by number", "recurrent")  # these have kernels of their own to compile


@pytest.mark.parametrize(
    ("neuron", "options"),
    [pytest.param(*x, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, x in LINEAR.items()],
)
def test_trains_of_linear_neurons(source, neuron, options, request):
    recurrent = (10.0,) if "recurrent" in request.node.name else ()
    make = {"weight_mean": 0.5, "weight_std": 0.6, "overflow": "drop", "generator": source} | DOUBLE | options
    layer = (SpikingRecurrent if recurrent else LIFSpikeTrains)(6, 4, 60, *recurrent, neuron, **make)
    network = Network(layer).requires_grad_(False)
    times, errors = (4 * torch.rand(8, 6, 3, generator=source, **DOUBLE)).sort(-1).values - 0.3, []
    wanted = network(times)
    wanted = wanted.masked_fill(wanted > 10, torch.inf)
    for step in (0.02, 0.005):
        found = Integrator(step, 10).run(network, times).output
        same = found.isfinite().sum(-1) == wanted.isfinite().sum(-1)
        assert float(same.double().mean()) > 0.7  # errors of a step add up over spikes
        late = (found - wanted)[same.unsqueeze(-1) & wanted.isfinite()].abs()
        errors.append(float(late.median()))
        assert errors[-1] < 3 * step
    assert int(wanted.isfinite().sum(-1).max()) >= 3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.4)


@pytest.mark.slow  # it has kernels of its own to compile
def test_first_spikes_of_linear_neurons(source):
    neuron = AdaptiveLIF(2.0, (1.0, 1.7), bias=0.6, tau_rise=(0.0, 0.5), reset=None, **ADAPTS)
    layer = LIFLinear(6, 30, neuron, **TWO, generator=source, weight_mean=0.5, weight_std=0.5, **DOUBLE)
    times = 2 * torch.rand(20, 6, generator=source, **DOUBLE) - 0.5
    found, wanted = both(Network(layer), times, step=0.005, duration=30)
    late = (found - wanted)[torch.isfinite(found) & torch.isfinite(wanted)]
    assert len(late) > 200
    assert int(((late < -1e-9) | (late > 0.0051)).sum()) <= 3  # those that only just touch their threshold
    assert int((torch.isfinite(found) != torch.isfinite(wanted)).sum()) <= 1


def test_room_for_spike_trains(source):
    layer = LIFSpikeTrains(6, 4, 1, LIF(2.0), weight_mean=1.0, weight_std=0.1, generator=source, **DOUBLE)
    times = torch.rand(5, 6, 2, generator=source, **DOUBLE).sort(-1).values
    with pytest.raises(ValueError, match="spike more than max_spikes=1 times; raise max_spikes"):
        Integrator().run(Network(layer), times)
    layer.overflow = "drop"
    assert Integrator().run(Network(layer), times).output.shape == (5, 4, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_refractory_time_of_whole_steps_is_the_same_in_any_unit(dtype):
    trains = []
    for unit in (1.0, 0.37, 5000.0):
        neuron = LIF(2 * unit, unit, 0.5, refractory=0.25 * unit)
        options = {"weight_mean": 3.0, "weight_std": 0.0, "dtype": dtype}
        network = Network(LIFSpikeTrains(1, 1, 40, neuron, **options))
        times = unit * torch.tensor([[[0.0, 0.5, 1.0, 1.5, 2.0]]], dtype=dtype)
        trains.append(Integrator(0.01 * unit, 8 * unit).run(network, times).output / unit)
    assert torch.isfinite(trains[0]).sum() > 5
    torch.testing.assert_close(trains[1], trains[0])
    torch.testing.assert_close(trains[2], trains[0])


def test_what_is_no_time_is_refused():
    network = Network(LIFLinear(2, 1, **DOUBLE))
    for bad in (float("nan"), -float("inf")):
        with pytest.raises(ValueError, match="times must be real numbers or inf"):
            Integrator().run(network, torch.tensor([[0.1, bad]], **DOUBLE))
