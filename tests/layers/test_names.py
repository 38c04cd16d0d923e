"""Layers are named for what they do, and those of LIF neurons are also called after them."""

from dataclasses import dataclass

import pytest
import torch

import firstspike as fs
from firstspike import layers
from firstspike.layers.named import named_parameters
from firstspike.layers.neurons import LIF_NAMES
from firstspike.neurons import AdaptiveLIF, Neuron


@dataclass(frozen=True, eq=False)
class Other(Neuron):
    """A neuron of another kind."""

    tau_mem: float = 1.0
    tau_syn: float = 1.0
    threshold: float = 1.0

    parameters = {name: fs.LIF.parameters[name] for name in ("tau_mem", "tau_syn", "threshold")}  # noqa: RUF012


MADE = {
    "LIFLinear": lambda neuron=None: fs.SpikingLinear(6, 3, neuron),
    "LIFSpikeTrains": lambda neuron=None: fs.SpikeTrains(6, 3, 5, neuron),
    "LIFRecurrent": lambda neuron=None: fs.SpikingRecurrent(6, 3, 5, 4.0, neuron),
    "LIFConv1d": lambda neuron=None: fs.SpikingConv1d((6, 1), 3, 1, neuron),
    "LIFConv2d": lambda neuron=None: fs.SpikingConv2d((6, 1, 1), 3, 1, neuron),
}


@pytest.mark.parametrize(("name", "second"), LIF_NAMES.items())
def test_one_class_has_two_names(name, second):
    for room in (fs, layers):
        assert getattr(room, second) is getattr(room, name)
    assert getattr(fs, name).__name__ == name
    assert layers.LIFLayer is layers.SpikingLayer


def test_each_spiking_layer_has_two_names():
    kinds = {kind.__name__ for kind in layers.LAYERS.values() if issubclass(kind, layers.SpikingLayer)}
    assert kinds == LIF_NAMES.keys()
    assert MADE.keys() == set(LIF_NAMES.values())


@pytest.mark.parametrize(("name", "second"), LIF_NAMES.items())
def test_layers_are_called_after_lif_neurons_alone(name, second):
    lif, other = MADE[second](), MADE[second](Other())
    assert str(lif).startswith(f"{second}(6")
    assert str(other).startswith(f"{name}(6")
    for layer, shown in ((lif, second), (other, name)):
        with pytest.raises(ValueError, match=rf"^{shown}\b.* expects .*5"):
            layer(torch.zeros(2, 5))
        with pytest.raises(ValueError, match=rf"^layer 1 does not fit the one before it: {shown}\b"):
            fs.Network(fs.Delay(5), layer)


def test_a_class_of_ones_own_has_its_own_name():
    class Own(fs.LIFLinear):
        pass

    assert str(Own(6, 3)).startswith("Own(6, 3, LIF(")


def test_learnt_values_of_a_tuple():
    neuron = AdaptiveLIF(2.0, (0.7, 1.9), adaptation=[(3.0, 0.5)])
    names = ["tau_syn", "adaptation_tau", "bias"]
    trains = fs.SpikeTrains(2, 3, neuron=neuron, receptor=[0, 1], max_spikes=9, trainable=names, per_neuron=True)
    found = named_parameters(fs.Network(trains, fs.MembraneReadout(3, 2, time=1.0)))
    shapes = {name: values.shape for name, values in found.items() if "hidden" in name and "weights" not in name}
    expected = {"synaptic time constants": (3, 2), "adaptation time constants": (3, 1), "biases": (3,)}
    assert shapes == {f"{name}, hidden": shape for name, shape in expected.items()}
