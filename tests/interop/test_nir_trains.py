"""Networks of spike trains as NIR graphs and back."""

import math

import nir
import numpy as np
import pytest
import torch

import firstspike as fs
from agreement import with_rest

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
    neuron, make = with_rest(fs.LIF(2.0, 1.0, 1.3), make)
    return fs.LIFSpikeTrains(inputs, outputs, 60, neuron, **make)


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


def test_filters_with_delays():
    neuron = fs.LIF(2.0, reset=-0.2)
    make = {"max_spikes": 60, "delay": fs.DelayRule(scale=2.0, std=1.0), "weight_mean": 0.8, "weight_std": 0.4} | DOUBLE
    conv = fs.LIFConv1d((1, 4), 3, 3, neuron, padding=1, **make)
    network = fs.Network(conv, fs.LIFConv2d((3, 1, 4), 2, (1, 2), **make), READOUTS["integral"]())
    again = fs.from_nir(fs.to_nir(network), dtype=torch.float64)
    assert [type(x).__name__ for x in again] == ["SpikeTrains", "SpikeTrains", "IntegralReadout"]
    for one, other in zip(again.record(trains()).layers, network.record(trains()).layers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_neurons_of_other_programs_may_spike_several_times():
    graph = fs.to_nir(fs.Network(spiking()))
    del graph.metadata["max_spikes"]
    with pytest.warns(UserWarning, match="lif_0 has a v_reset after which neurons may spike again; here they spike at"):
        once = fs.from_nir(graph)
    assert isinstance(once[0], fs.LIFLinear)
    assert isinstance(fs.from_nir(graph, max_spikes=0)[0], fs.LIFLinear)
    often = fs.from_nir(graph, max_spikes=5)
    assert (often[0].max_spikes, often[0].neuron.reset) == (5, 0.0)
    mixed = fs.to_nir(fs.Network(fs.LIFLinear(4, 6, **DOUBLE), spiking(6, 3)))
    assert [x._get_name() for x in fs.from_nir(mixed)] == ["LIFLinear", "LIFSpikeTrains"]


def test_more_spikes_than_fit():
    layer = fs.LIFSpikeTrains(2, 3, 5, generator=torch.Generator().manual_seed(0))
    graph = fs.to_nir(fs.Network(layer))
    for spikes in (10**12, 2**62):
        graph.metadata["max_spikes"] = np.array([spikes])
        with pytest.raises(ValueError, match=f"{spikes} spikes of 3 neurons are more than fit"):
            fs.from_nir(graph)


def test_what_nir_cannot_express():
    with pytest.raises(ValueError, match=r"layer 0: NIR's CubaLIF has no refractory time, the layer has 0\.1"):
        fs.to_nir(fs.Network(spiking(refractory=0.1)))
    with pytest.raises(ValueError, match="layer 0: snnTorch always resets to 0, the layer to -1"):
        fs.to_nir(fs.Network(spiking(reset=-1.0)), target="snntorch")
    with pytest.raises(ValueError, match="layer 0: snntorch reads no delays, which loops have; write the target nir"):
        fs.to_nir(fs.Network(fs.LIFRecurrent(4, 6, 10, 5.0)), target="snntorch")
    with pytest.raises(ValueError, match="layer 1: NIR cannot represent FirstSpike"):
        fs.to_nir(fs.Network(spiking(), fs.FirstSpike()))
    graph = fs.to_nir(fs.Network(spiking(), READOUTS["integral"]()))
    del graph.metadata["readout"]
    with pytest.raises(ValueError, match="the metadata do not define how its membrane is read"):
        fs.from_nir(graph)
    with pytest.raises(ValueError, match=r"max_spikes: expected a number >= 0 for each of 1 CubaLIF, got \[-1\]"):
        fs.from_nir(graph, max_spikes=-1)


def recurrent(inputs=4, **options):
    make = {"weight_mean": 0.6, "weight_std": 0.4, "recurrent_std": 0.4, "window_spikes": 12} | DOUBLE | options
    neuron, make = with_rest(fs.LIF(2.0, 1.0, 1.3), make)
    return fs.LIFRecurrent(inputs, 6, 60, 9.0, neuron, window=0.7, **make)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refractory": 0.2, "reset": -0.3},
        {"recurrent_delay": fs.DelayRule("clip", scale=2.0, mean=0.8, std=0.5)},
        {"recurrent_delay": fs.DelayRule("sigmoid", scale=2.0), "delay": fs.DelayRule(scale=2.0)},
    ],
    ids=["plain", "refractory", "delays", "all delays"],
)
def test_recurrent_layers(options, tmp_path):
    network = fs.Network(spiking(), recurrent(6, **options), READOUTS["integral"]())
    nir.write(tmp_path / "model.nir", fs.to_nir(network, time_unit=0.01, keep_refractory=True))
    again = fs.from_nir(tmp_path / "model.nir", dtype=torch.float64)
    assert [type(x).__name__ for x in again] == [type(x).__name__ for x in network]
    assert (again[1].duration, again[1].window_spikes) == (9.0, 12)
    assert again[1].window >= 0.7 * (1 - 1e-12)
    record = network.record(trains())
    assert int(record.layers[1].isfinite().sum()) > 100
    for one, other in zip(again.record(trains()).layers, record.layers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_recurrent_graph_says_by_itself_what_its_network_is():
    """The specification's equations, with the loop, give the same spikes as the network: no metadata are needed."""
    layer = recurrent()
    graph = fs.to_nir(fs.Network(layer))
    graph.metadata.clear()
    with pytest.raises(ValueError, match="lif_0: the neurons are connected to each other; give max_spikes"):
        fs.from_nir(graph)
    with pytest.raises(ValueError, match="give max_spikes and duration"):
        fs.from_nir(graph, max_spikes=60)
    again = fs.from_nir(graph, max_spikes=60, duration=9.0, dtype=torch.float64)
    torch.testing.assert_close(again(trains()), layer(trains()), rtol=1e-9, atol=1e-9)
    nodes = graph.nodes
    np.testing.assert_allclose(nodes["recurrent_0_delay"].delay, 0.7)
    np.testing.assert_allclose(nodes["recurrent_0"].weight, 2.0 * layer.recurrent_weight.detach())
    assert ("recurrent_0", "lif_0") in graph.edges


def test_refractory_times_are_kept_on_request():
    network = fs.Network(spiking(refractory=0.25), spiking(6, 6, weight_mean=0.3))
    graph = fs.to_nir(network, time_unit=2.0, keep_refractory=True)
    assert graph.metadata["refractory"].tolist() == [0.5, 0.0]
    again = fs.from_nir(graph, dtype=torch.float64)
    assert [layer.neuron.refractory for layer in again] == [0.25, 0.0]
    torch.testing.assert_close(again(trains()), network(trains()), rtol=1e-9, atol=1e-9)


def test_loops_that_have_no_counterpart():
    graph = fs.to_nir(fs.Network(recurrent()))
    graph.nodes["recurrent_0_delay"].delay[:] = 0.0
    with pytest.raises(ValueError, match="lif_0: the neurons are connected to themselves without a delay"):
        fs.from_nir(graph)
    graph = fs.to_nir(fs.Network(spiking(), spiking(6, 4)))
    graph.nodes["back"] = nir.Linear(weight=np.ones((6, 4)))
    graph.edges += [("lif_1", "back"), ("back", "lif_0")]
    with pytest.raises(ValueError, match=r"the graph has a loop \(lif_0, lif_1\) that is not one from neurons"):
        fs.from_nir(graph)


@pytest.mark.parametrize("kind", READOUTS)
def test_delays_before_a_readout(kind, tmp_path):
    network = fs.Network(spiking(), fs.Delay(6, trains=True, **DOUBLE), READOUTS[kind]())
    nir.write(tmp_path / "model.nir", fs.to_nir(network))
    again = fs.from_nir(tmp_path / "model.nir", dtype=torch.float64)
    torch.testing.assert_close(again(trains()), network(trains()), rtol=1e-9, atol=1e-9)
    first = fs.Network(fs.LIFLinear(4, 6, **DOUBLE), fs.Delay(6, **DOUBLE), READOUTS[kind]())
    again = fs.from_nir(fs.to_nir(first), dtype=torch.float64)
    torch.testing.assert_close(again(trains()[..., 0]), first(trains()[..., 0]), rtol=1e-9, atol=1e-9)


def test_overflow_comes_along(tmp_path):
    options = {"generator": torch.Generator().manual_seed(0), "overflow": "drop"} | DOUBLE
    layers = fs.LIFSpikeTrains(4, 6, 2, weight_mean=2.0, weight_std=0.1, **options), spiking(6, 3)
    network = fs.Network(*layers)
    nir.write(tmp_path / "model.nir", fs.to_nir(network))
    again = fs.from_nir(tmp_path / "model.nir", dtype=torch.float64)
    assert [layer.overflow for layer in again] == ["drop", "error"]
    torch.testing.assert_close(again(trains()), network(trains()), rtol=1e-9, atol=1e-9)
    graph = fs.to_nir(network)
    graph.metadata["overflow"] = "drop"
    with pytest.raises(ValueError, match=r"overflow: expected a word for each of 2 CubaLIF, got \['drop'\]"):
        fs.from_nir(graph)
    graph.metadata["overflow"] = "drop often"
    with pytest.raises(ValueError, match="overflow must be one of error, warn, drop, got 'often'"):
        fs.from_nir(graph)


def test_axonal_and_dendritic_delays_of_trains():
    make = {"trains": True, "dtype": torch.float64}
    network = fs.Network(fs.Delay(4, **make), spiking(), fs.Delay(6, **make))
    back = fs.from_nir(fs.to_nir(network), dtype=torch.float64)
    torch.testing.assert_close(back(trains()), network(trains()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("delays", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("parts", ["inputs", "recurrent", "both"])
def test_sparse_synapses_come_back_as_synapses(tmp_path, parts, delays):
    """With their values and spikes; zeros of the matrices are no synapses."""
    draw, options = torch.Generator().manual_seed(0), {"dtype": torch.float64}
    late = torch.distributions.Uniform(torch.tensor(1.0).double(), torch.tensor(3.0).double()) if delays else None
    inner = fs.connect.fixed_indegree(30, 30, 4, weight=0.3, delay=late, generator=draw)
    outer = fs.connect.fixed_indegree(12, 30, 3, weight=0.8, delay=late, generator=draw)
    options |= {"recurrent": inner} if parts != "inputs" else {}
    options |= {"synapses": outer} if parts != "recurrent" else {"weight_mean": 0.2, "weight_std": 0.1}
    neuron, rule = fs.LIF(4.0, 2.0), {"window_spikes": 10, "overflow": "drop", "generator": draw}
    layer = fs.SpikingRecurrent(12, 30, 40, 20.0, neuron, window=1.0, **rule, **options)
    network = fs.Network(layer)
    nir.write(tmp_path / "sparse.nir", fs.to_nir(network, time_unit=0.5))
    (back,) = fs.from_nir(tmp_path / "sparse.nir", dtype=torch.float64)
    assert back.sparse.keys() == layer.sparse.keys() and len(back.sparse) == 1 + (parts == "both")  # noqa: PT018
    for name, found in layer.sparse.items():
        assert torch.equal(found.source, back.sparse[name].source)
        assert torch.equal(found.target, back.sparse[name].target)
        torch.testing.assert_close(getattr(back, name), getattr(layer, name))
    times = 15.0 * torch.rand(3, 12, 4, generator=draw, dtype=torch.float64)
    assert layer(times).isfinite().sum() > 100
    torch.testing.assert_close(back(times), layer(times))
