"""A ``state_dict`` knows which neurons its weights were trained with."""

import copy
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from firstspike import LIF, BiasSpikes, Delay, LIFConv2d, LIFLinear, Network

TRAINED = LIF(1.5, 0.5, 2.6)


def network(neuron=TRAINED, **options):
    conv = LIFConv2d((1, 2, 3), 2, 2, neuron, **options)
    return Network(conv, Delay(4), BiasSpikes([0.1]), LIFLinear(5, 3, neuron, **options))


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (LIF(1.5, 0.5, 1.0), r"0\.weight was trained with threshold=2\.6, but this LIFConv2d has threshold=1; build"),
        (LIF(math.inf, 0.5, 2.6), r"trained with tau_mem=1\.5, but this LIFConv2d has tau_mem=inf"),
        (LIF(1.5, 0.25, 1.0), r"with tau_syn=0\.5, threshold=2\.6, but .* has tau_syn=0\.25, threshold=1; "),
        (LIF(1.5, 0.5, 2.60001), r"with threshold=2\.6, but .* has threshold=2\.60001; "),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_other_neurons_are_refused(neuron, message, dtype):
    state, other = network().state_dict(), network(neuron, dtype=dtype)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        other.load_state_dict(state)
    assert "remove '0._extra_state' from the state" in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items()), "nothing is taken over"
    anyway = {name: value for name, value in state.items() if "_extra_state" not in name}
    other.load_state_dict(anyway)
    assert torch.equal(other[0].weight, state["0.weight"].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("neuron", [TRAINED, LIF(), LIF(math.inf, 0.1), LIF(tau_mem=1 / 3, threshold=1e-3)])
def test_weights_of_the_same_neurons_are_loaded(neuron, dtype):
    one, other = network(neuron), network(neuron, dtype=dtype)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other[3].weight, one[3].weight.to(dtype))
    one.load_state_dict(other.state_dict(), assign=True)
    kept = load(save(one.state_dict()))
    assert all(torch.equal(value, kept[name]) for name, value in one.state_dict().items())
    network(neuron).load_state_dict(kept)
    copy.deepcopy(one).load_state_dict(kept)
    filled = network(neuron, device="meta")
    filled.load_state_dict(kept, assign=True)
    times = torch.rand(5, one[0].in_features, dtype=one[3].weight.dtype)
    assert torch.equal(filled(times), one(times))


def test_a_state_of_an_earlier_version_is_loaded():
    state = {name: value for name, value in network().state_dict().items() if "_extra_state" not in name}
    assert list(state) == ["0.weight", "1.delay_raw", "2.times", "3.weight"]
    given = dict(state)
    assert network(LIF()).load_state_dict(state) == nn.Module().load_state_dict({}), "no key is missing or too much"
    assert state.keys() == given.keys()
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
        network().load_state_dict({})


def linear(neuron, **options):
    return LIFLinear(3, 2, neuron, receptor=[0, 1, 0], backend="reference", **options)


def test_weights_of_other_linear_neurons_are_refused():
    trained = linear(LIF(2.0, (1.0, 2.0), tau_rise=0.1, bias=0.5))
    state = trained.state_dict()
    linear(LIF(2.0, (1.0, 2.0), tau_rise=0.1, bias=0.5)).load_state_dict(state)
    for other, message in (
        (
            LIF(2.0, (1.0, 3.0), tau_rise=0.1, bias=0.5),
            r"with tau_syn\[1\]=2, but this LIFLinear has tau_syn\[1\]=3; bu",
        ),
        (
            LIF(2.0, (1.0, 2.0), tau_rise=0.2, bias=0.4),
            r"with tau_rise=0\.1, bias=0\.5, but .* tau_rise=0\.2, bias=0\.4",
        ),
        (LIF(2.0, (1.0, 2.0)), r"must hold tau_mem, tau_syn\[0\], tau_syn\[1\], threshold as a tensor \(4,\), got"),
    ):
        with pytest.raises(ValueError, match=message):
            linear(other).load_state_dict(state)
    plain = LIFLinear(3, 2).state_dict()
    assert plain["_extra_state"].tolist() == [1.0, 1.0, 1.0]


def test_parameters_that_learn_are_not_compared():
    one, other = (network(LIF(1.5, 0.5, start), trainable=["threshold"]) for start in (2.6, 1.0))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other[3].neuron.threshold, one[3].neuron.threshold)
    elsewhere = network(LIF(2.0, 0.5, 2.6), trainable=["threshold"])
    with pytest.raises(ValueError, match=r"with tau_mem=1\.5, but .* has tau_mem=2; "):
        elsewhere.load_state_dict(one.state_dict())


def test_tensors_are_loaded_like_weights():
    one, other = (LIFLinear(3, 2, LIF(threshold=torch.tensor(values))) for values in ([2.6, 1.0], [1.0, 1.0]))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.neuron.threshold, one.neuron.threshold)


@pytest.mark.parametrize("state", [torch.ones(2), torch.ones(3).long(), "LIF()", None])
def test_what_is_no_state_of_a_neuron(state):
    layer = LIFLinear(3, 2)
    with pytest.raises(ValueError, match=r"_extra_state must hold tau_mem, tau_syn, threshold as a tensor \(3,\), got"):
        layer.load_state_dict({"weight": torch.zeros(2, 3), "_extra_state": state})
    assert bool(layer.weight.any())
