"""Layers, readouts and pseudospikes of neurons from equations."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from firstspike import LIF, Network, Neuron, first_spike_time, spike_trains
from firstspike.layers import (
    IntegralReadout,
    MembraneReadout,
    SpikeTrains,
    SpikingConv2d,
    SpikingLinear,
    SpikingRecurrent,
)
from firstspike.losses import SilentPeak
from firstspike.neurons import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich

LIF_TEXT = "dv/dt = -v/tau_mem + i/tau_syn; di/dt = -i/tau_syn"
NAMED = [(QIF(), 1.0), (EIF(), 1.0), (AdLIF(), 1.0), (ConductanceLIF(), 1.0), (AdEx(), 5.0), (Izhikevich(), 5.0)]


def leaky(threshold=1.0, **values) -> Neuron:
    given = {"tau_mem": 2.0, "tau_syn": 1.0, "theta": threshold, "v_r": 0.0} | values
    return Neuron(LIF_TEXT, threshold="v > theta", reset="v = v_r", receptors=["i"], **given)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(one, other, parameters=(("tau_mem", "tau_mem"),)):
    """The layers give the same spikes, and the same gradients of weights and inputs."""
    times, found = 2 * draw(6, one.in_features), []
    for layer in (one, other):
        given = times.clone().requires_grad_()
        spikes = layer(given)
        torch.where(spikes.isfinite(), spikes, 0.0).sum().backward()
        found.append((spikes.detach(), given.grad, *(p.grad for p in layer.parameters())))
    assert found[0][0].isfinite().any()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("trains", [False, True])
def test_a_layer_is_that_of_lif_neurons(trains):
    options = {"dtype": torch.float64, "until": 20.0, "trainable": ["tau_mem"], "weight_mean": 0.8, "weight_std": 0.5}
    kind, more = (SpikeTrains, {"max_spikes": 9}) if trains else (SpikingLinear, {})
    layers = [kind(7, 5, neuron=x, **options, **more) for x in (LIF(2.0), leaky())]
    layers[1].load_state_dict({**layers[1].state_dict(), "weight": layers[0].weight.detach()})
    same(*layers)


def test_recurrent_neurons_are_those_of_lif():
    options = {"dtype": torch.float64, "weight_mean": 0.8, "weight_std": 0.5, "recurrent_std": 0.4, "window": 0.5}
    layers = [SpikingRecurrent(7, 5, 20, 6.0, x, **options) for x in (LIF(2.0), leaky())]
    for name in ("weight", "recurrent_weight"):
        getattr(layers[1], name).data.copy_(getattr(layers[0], name).data)
    times = 2 * draw(4, 7)
    inputs = times.requires_grad_(), *(x for layer in layers for x in (layer.weight, layer.recurrent_weight))
    found = [layer(times) for layer in layers]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)
    sums = [torch.where(x.isfinite(), x, 0.0).sum() for x in found]
    by = [torch.autograd.grad(x, inputs, allow_unused=True) for x in sums]
    for mine, other in ((0, 0), (1, 3), (2, 4)):
        torch.testing.assert_close(by[0][mine], by[1][other], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("neuron", "unit"), NAMED, ids=lambda x: type(x).__name__)
def test_most_neurons_spike_at_the_start_and_learn(neuron, unit):
    receptor = {"receptor": [0, 0, 0, 0, 1]} if len(neuron.receptors) > 1 else {}
    torch.manual_seed(0)
    layer = SpikeTrains(5, 40, 60, neuron, until=10 * unit, overflow="drop", **receptor)
    spikes = layer(2 * unit * draw(16, 5).float())
    assert spikes[..., 0].isfinite().float().mean() > 0.5
    torch.where(spikes.isfinite(), spikes, 0.0).sum().backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.abs().max() > 0
    assert (layer.weight >= 0).all() or not neuron.conducts


def test_conductances_by_sign_are_those_by_number():
    """Weights of both signs, with which layers begin then, in a loop, as membranes, and as peaks of silent neurons."""
    options = {"window": 0.4, "overflow": "drop", "dtype": torch.float64, "signs": [1, 1, 1, 1, -1]}
    by_sign = SpikingRecurrent(5, 4, 40, 6.0, ConductanceLIF(), receptor="sign", **options)
    assert by_sign.recurrent_signs is None
    assert SpikeTrains(2, 1, 5, ConductanceLIF(), until=5.0, receptor="sign").signs is None
    numbers = {"receptor": [0, 0, 0, 0, 1], "recurrent_receptor": [1, 0, 1, 0], "signs": [1] * 5}
    by_number = SpikingRecurrent(5, 4, 40, 6.0, ConductanceLIF(), **options | numbers)
    sides = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    with torch.no_grad():
        by_sign.weight.copy_(2 * torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0]) * draw(4, 5))
        by_sign.recurrent_weight.copy_(draw(4, 4, seed=1) * sides)
        for name in ("weight", "recurrent_weight"):
            getattr(by_number, name).copy_(getattr(by_sign, name).abs())
    times, found = 3 * draw(3, 5, 2), []
    for layer in (by_sign, by_number):
        spikes = layer(times)
        membranes = layer.voltages(times, torch.linspace(0.5, 6.0, 12))
        found.append((spikes, membranes))
        (spikes[spikes.isfinite()].sum() + membranes.square().sum()).backward()
    assert found[0][0].isfinite().sum() > 12
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)
    gradients = [layer.recurrent_weight.grad for layer in (by_sign, by_number)]
    torch.testing.assert_close(gradients[0] * sides, gradients[1], rtol=1e-9, atol=1e-9)
    quiet = []
    for receptor, factor in (("sign", 1), ([0, 0, 1, 1, 1], torch.tensor([1, 1, -1, -1, -1]))):
        layer = SpikingLinear(5, 4, ConductanceLIF(), receptor=receptor, until=6.0, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(0.1 * torch.tensor([1, 1, -1, -1, -1]) * draw(4, 5) * factor)
        network = Network(layer)
        record = network.record(times[..., 0])
        cost = SilentPeak(1.0)(record.output, None, network, record)
        cost.backward()
        quiet.append((cost.detach(), layer.weight.grad * factor))
    assert quiet[0][0] > 0.5
    torch.testing.assert_close(*quiet, rtol=1e-11, atol=1e-11)


def test_a_convolution():
    layer = SpikingConv2d((2, 5, 5), 3, 3, QIF(), until=6.0)
    spikes = layer(2 * draw(2, 50).float())
    assert spikes.shape == (2, 27)
    assert spikes.isfinite().any()


def test_a_neuron_without_an_end_is_refused():
    with pytest.raises(ValueError, match="QIF needs a finite until, got inf"):
        SpikingLinear(3, 2, QIF())
    with pytest.raises(ValueError, match="needs a finite until"):
        first_spike_time(draw(2, 3), draw(4, 3), QIF())


OF_LAYERS = ["noise", "mask", "weight", "until", "neuron", "connections", "forward", "training", "signs", "receptor"]
OF_SOME = {
    "recurrent_weight": SpikingRecurrent, "window": SpikingRecurrent, "max_spikes": SpikeTrains,
    "out_image": SpikingConv2d,
}  # fmt: skip
SIZES = {SpikingRecurrent: (3, 2, 9, 5.0), SpikeTrains: (3, 2, 9), SpikingConv2d: ((1, 3, 3), 2, 2)}


@pytest.mark.parametrize(("name", "kind"), [*((x, SpikingLinear) for x in OF_LAYERS), *OF_SOME.items()])
def test_names_of_layers_are_no_names_of_what_they_learn(name, kind):
    text = {"threshold": "v > 1", "reset": "v = 0", "receptors": ["i"]}
    end = {} if kind is SpikingRecurrent else {"until": 5.0}
    for value, more in ((1.0, {"trainable": [name]}), (torch.tensor(1.0), {})):
        neuron = Neuron(f"dv/dt = (i - v) / {name}; di/dt = -i", **text, **{name: value})
        with pytest.raises(ValueError, match=f"{name} cannot learn or be a tensor: layers use this name"):
            kind(*SIZES.get(kind, (3, 2)), neuron=neuron, **end, **more)
    number = Neuron(f"dv/dt = (i - v) / {name}; di/dt = -i", **text, **{name: 2.0})
    assert SpikingLinear(3, 2, number, until=5.0)(torch.rand(4, 3)).shape == (4, 2)  # a number is the neuron's alone


def test_an_end_of_lif_neurons():
    times, weight = 2 * draw(5, 7), draw(4, 7)
    whole, until = first_spike_time(times, weight, LIF(2.0)), 1.2
    found = first_spike_time(times, weight, LIF(2.0), until=until)
    assert torch.equal(found, torch.where(whole > until, math.inf, whole))
    assert found.isinf().any()
    assert found.isfinite().any()


@pytest.mark.parametrize("neuron", [QIF(), QIF(threshold=10.0, reset=-10.0, refractory=0.1)])
def test_pseudospikes_follow_spikes_without_a_jump(neuron):
    times, weight = 2 * draw(1, 6)[..., None], draw(3, 6, seed=1)
    ends = [
        spike_trains(times, factor * weight, neuron, max_spikes=3, until=3.0, silent="pseudospikes", overflow="drop")
        for factor in torch.linspace(0.2, 1.5, 400, dtype=torch.float64)
    ]
    every = torch.stack(ends)
    assert every.isfinite().all()
    assert (every < 3.0).any()
    assert (every > 3.0).any()
    assert every.diff(dim=0).abs().max() < 0.1

    def spikes(*given):
        return spike_trains(*given, neuron, max_spikes=3, until=3.0, silent="pseudospikes", overflow="drop")

    assert gradcheck(spikes, (times.requires_grad_(), weight.requires_grad_()))


def test_only_quadratic_neurons_have_pseudospikes():
    with pytest.raises(ValueError, match="needs QIF neurons and a finite until"):
        SpikingLinear(3, 2, EIF(), until=3.0, silent="pseudospikes")
    with pytest.raises(ValueError, match="silent must be one of inf, pseudospikes"):
        SpikingLinear(3, 2, QIF(), until=3.0, silent="spikes")


def test_the_membrane_at_a_time():
    options = {"time": 3.0, "dtype": torch.float64, "trainable": ["tau_mem"]}
    torch.manual_seed(1)
    readouts = [MembraneReadout(7, 5, x, **options) for x in (LIF(2.0), leaky(threshold=0.01))]
    readouts[1].weight.data.copy_(readouts[0].weight.data)
    same(*readouts)
    with pytest.raises(ValueError, match="IntegralReadout takes LIF neurons"):
        IntegralReadout(7, 5, leaky())


@pytest.mark.parametrize("delayed", [False, True])
def test_silent_neurons_lack_as_much_as_those_of_lif(delayed):
    from firstspike import DelayRule

    times, found = 4 * draw(7, 9, seed=2), []
    weight = 0.3 * draw(21, 9, seed=3) - 0.1
    for neuron in (LIF(2.0, 0.7), leaky(tau_syn=0.7)):
        rule = DelayRule(scale=2.0) if delayed else None
        layer = SpikingLinear(9, 21, neuron, until=9.0, delay=rule, dtype=torch.float64)
        layer.weight.data.copy_(weight)
        if delayed:
            layer.delay_raw.data.copy_(draw(21, 9, seed=4))
        given, network = times.clone().requires_grad_(), Network(layer)
        record = network.record(given)
        term = SilentPeak(1.0, 0.0)(record.output, torch.zeros(7).long(), network, record)
        term.backward()
        found.append((term.detach(), given.grad, *(x.grad for x in layer.parameters())))
    assert found[0][0] > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
