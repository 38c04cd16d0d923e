"""Membranes at given times as data."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.plots.voltages import chosen_of, voltages

AT = torch.tensor([0.3, 4.0, 1.1, 1.1, 2.7, 7.5], dtype=torch.float64)
NEURONS = {
    "lif": fs.LIF(tau_mem=2.0, refractory=0.2),
    "receptors": fs.LIF(tau_mem=2.0, tau_syn=(1.0, 0.5), bias=0.2, refractory=0.3),
    "adaptive": fs.neurons.AdaptiveLIF(adaptation=[(2.0, 0.3)], refractory=0.1),
}
LAYERS = {
    "first": (fs.SpikingLinear, ()),
    "trains": (fs.SpikeTrains, (30,)),
    "recurrent": (fs.SpikingRecurrent, (30, 8.0)),
}


def built(layer, neuron):
    kind, sizes = LAYERS[layer]
    options = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    if isinstance(neuron.values["tau_syn"], tuple):
        options["receptor"] = [0, 0, 0, 1, 1]
    if layer == "recurrent":
        options |= {"window_spikes": 20, "recurrent_std": 0.3}
        options |= {"recurrent_receptor": [0] * 4} if "receptor" in options else {}
    return kind(5, 4, *sizes, neuron, **options)


def inputs(samples=2):
    return torch.rand(samples, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_as_by_the_formula(layer, neuron):
    made, times = built(layer, NEURONS[neuron]), inputs()
    found, spikes = made.voltages(times, AT).detach(), made(times).detach()
    assert found.shape == (2, 4, len(AT))
    for sample in range(2):
        expected = voltages(AT, *chosen_of(made, range(4), times[sample], spikes[sample])).voltage
        torch.testing.assert_close(found[sample], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients(layer):
    made, times = built(layer, NEURONS["lif"]), inputs().requires_grad_()
    assert torch.autograd.gradcheck(lambda times: made.voltages(times, AT), times, atol=1e-6)

    weight = made.weight.detach().clone()
    (slope,) = torch.autograd.grad(made.voltages(times, AT).sin().sum(), made.weight)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1e-6
    with torch.no_grad():
        values = []
        for side in (1, -1):
            made.weight.copy_(weight + side * step)
            values.append(made.voltages(times, AT).sin().sum())
    torch.testing.assert_close((values[0] - values[1]) / 2, (slope * step).sum(), rtol=1e-5, atol=1e-12)


def test_neurons_from_equations_begin_at_their_start():
    layer = fs.SpikeTrains(5, 4, 20, fs.neurons.AdEx(), until=50.0, dtype=torch.float64)
    found = layer.voltages(inputs() * 5, torch.tensor([-1.0, 0.0, 20.0]))
    assert (found[..., :2] == -70.6).all()
    assert (found[..., 2] > -70.6).any()


def test_readout():
    readout = fs.MembraneReadout(5, 3, time=2.5, dtype=torch.float64)
    torch.testing.assert_close(readout.voltages(inputs(), torch.tensor([2.5]))[..., 0], readout(inputs()))


def test_observed_spikes_reset():
    layer, times = built("trains", fs.LIF()), inputs()
    observed = torch.tensor([1.0, math.inf], dtype=torch.float64).expand(2, 4, 2)
    before, after = layer.voltages(times, torch.tensor([0.9, 1.0]), observed).unbind(-1)
    assert (after.abs() < 1e-15).all()
    assert (before.abs() > 1e-6).all()


def test_layers_of_a_network():
    network = fs.Network(*(built("trains", fs.LIF()) for _ in range(1)), fs.IntegralReadout(4, 2, dtype=torch.float64))
    times = inputs()
    torch.testing.assert_close(network.voltages(times, AT, layer=0), network[0].voltages(times, AT))
    torch.testing.assert_close(network.voltages(times, AT), network[1].voltages(network[0](times), AT))
    with pytest.raises(ValueError, match=r"layer: expected one with neurons, of \[0, 1\], got 5"):
        network.voltages(times, AT, layer=5)


@pytest.mark.parametrize(
    ("layer", "at", "message"),
    [
        ("trains", torch.tensor([math.inf]), r"at: expected finite times \(points,\)"),
        ("trains", torch.rand(2, 2), r"at: expected finite times \(points,\)"),
        ("trains", [1.0], r"at: expected finite times \(points,\), such as torch.tensor\(\[1.0, 2.0\]\), got \[1.0\]"),
        ("trains", 1.0, r"at: expected finite times \(points,\), .* got 1.0"),
        ("trains", torch.tensor([1j]), "at: .* got torch.complex64"),
        ("recurrent", torch.tensor([9.0]), "at: the layer stops at 8, got a time of 9"),
    ],
)
def test_wrong_times(layer, at, message):
    with pytest.raises(ValueError, match=message):
        built(layer, fs.LIF()).voltages(inputs(), at)
    conv = fs.LIFConv2d((1, 4, 4), 2, 3)
    with pytest.raises(ValueError, match="has no voltages"):
        conv.voltages(torch.rand(1, 16), torch.tensor([1.0]))


@pytest.mark.parametrize("neuron", [fs.LIF(), fs.LIF(bias=0.1), fs.neurons.AdLIF()])
@pytest.mark.parametrize("observed", [False, True])
def test_no_points(neuron, observed):
    end = {} if neuron.equations is None else {"until": 8.0}
    layer = fs.SpikeTrains(5, 4, 30, neuron, dtype=torch.float64, **end)
    spikes = torch.full((2, 4, 30), math.inf, dtype=torch.float64) if observed else None
    assert layer.voltages(inputs(), AT[:0], spikes).shape == (2, 4, 0)
