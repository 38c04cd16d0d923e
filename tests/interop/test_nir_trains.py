"""Networks of spike trains as NIR graphs and back."""

import math

import nir
import numpy as np
import pytest
import torch

import firstspike as fs

DOUBLE = {"dtype": torch.float64}
TARGETS = [{}, {"target": "norse", "dt": 0.001, "time_unit": 0.006}, {"target": "snntorch", "time_unit": 0.005}]
READOUTS = {
    "integral": lambda: fs.IntegralReadout(6, 3, fs.LIF(1.5), tau=4.0, **DOUBLE),
    "membrane": lambda: fs.MembraneReadout(6, 3, fs.LIF(1.5), time=3.0, **DOUBLE),
    "maximum": lambda: fs.MaximumReadout(6, 3, fs.LIF(1.5), **DOUBLE),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


def spiking(inputs=4, outputs=6, **options):
    make = {"weight_mean": 0.6, "weight_std": 0.4} | DOUBLE | options
    return fs.LIFSpikeTrains(inputs, outputs, 60, fs.LIF(2.0, 1.0, 1.3), **make)


def trains():
    times = (4 * torch.rand(10, 4, 3, generator=torch.Generator().manual_seed(1), **DOUBLE)).sort(-1).values
    times[0, 1] = math.inf
    return times


@pytest.mark.parametrize("target", TARGETS, ids=lambda x: x.get("target", "nir"))
@pytest.mark.parametrize("kind", READOUTS)
def test_there_and_back(kind, target, tmp_path):
    network = fs.Network(spiking(), spiking(6, 6, weight_mean=0.3), READOUTS[kind]())
    graph = fs.to_nir(network, **target)
    assert np.array_equal(graph.metadata["max_spikes"], [60, 60])
    nir.write(tmp_path / "model.nir", graph)
    again = fs.from_nir(tmp_path / "model.nir", dtype=torch.float64)
    assert [type(x).__name__ for x in again] == [type(x).__name__ for x in network]
    for one, other in zip(again.record(trains()).layers, network.record(trains()).layers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_delays_and_reset():
    network = fs.Network(spiking(reset=-0.4, delay=fs.DelayRule(scale=2.0)))
    graph = fs.to_nir(network, time_unit=0.01)
    (node,) = (node for node in graph.nodes.values() if isinstance(node, nir.CubaLIF))
    np.testing.assert_allclose(node.v_reset, -0.4)
    again = fs.from_nir(graph, dtype=torch.float64)
    torch.testing.assert_close(again(trains()), network(trains()), rtol=1e-9, atol=1e-9)


def test_neurons_of_other_programs_may_spike_several_times():
    graph = fs.to_nir(fs.Network(spiking()))
    del graph.metadata["max_spikes"]
    once, often = fs.from_nir(graph), fs.from_nir(graph, max_spikes=5)
    assert isinstance(once[0], fs.LIFLinear)
    assert (often[0].max_spikes, often[0].reset) == (5, 0.0)
    mixed = fs.to_nir(fs.Network(fs.LIFLinear(4, 6, **DOUBLE), spiking(6, 3)))
    assert [type(x).__name__ for x in fs.from_nir(mixed)] == ["LIFLinear", "LIFSpikeTrains"]


def test_what_nir_cannot_express():
    with pytest.raises(ValueError, match=r"layer 0: NIR's CubaLIF has no refractory time, the layer has 0\.1"):
        fs.to_nir(fs.Network(spiking(refractory=0.1)))
    with pytest.raises(ValueError, match="layer 0: snnTorch always resets to 0, the layer to -1"):
        fs.to_nir(fs.Network(spiking(reset=-1.0)), target="snntorch")
    with pytest.raises(ValueError, match="layer 0: NIR graphs have no recurrent layers here"):
        fs.to_nir(fs.Network(fs.LIFRecurrent(4, 6, 10, 5.0)))
    with pytest.raises(ValueError, match="layer 1: NIR has nothing for a FirstSpike"):
        fs.to_nir(fs.Network(spiking(), fs.FirstSpike()))
    graph = fs.to_nir(fs.Network(spiking(), READOUTS["integral"]()))
    del graph.metadata["readout"]
    with pytest.raises(ValueError, match="the metadata do not say how its membrane is read"):
        fs.from_nir(graph)
    with pytest.raises(ValueError, match=r"max_spikes: expected a number >= 0 for each of 1 CubaLIF, got \[-1\]"):
        fs.from_nir(graph, max_spikes=-1)
