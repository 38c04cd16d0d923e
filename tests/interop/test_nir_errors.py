"""What NIR cannot say, graphs without a counterpart, and files that are none."""

import itertools
import sys

import h5py
import nir
import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.interop.nir.conventions import Convention
from firstspike.neurons import AdaptiveLIF


def lif(inputs, outputs, tau_mem=2.0, **options):
    return fs.LIFLinear(inputs, outputs, fs.LIF(tau_mem, 1.0, 1.3), **options, dtype=torch.float64)


class Foreign(torch.nn.Module):
    def output_size(self, inputs):
        return inputs

    def forward(self, times, observed=None):
        return times


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([lif(2, 3, float("inf"))], r"layer 0: NIR has no neurons with synapses and without leak"),
        ([fs.EarliestPool2d((1, 4, 4), 2), lif(4, 3)], r"layer 0: NIR cannot represent EarliestPool2d"),
        ([lif(4, 4), fs.Earliest(4, 1), lif(4, 3)], r"layer 1: NIR cannot represent Earliest"),
        ([lif(4, 4), fs.Concatenate(4, 1)], r"layer 1: after the last LIF layer NIR has delays only, no Concatenate"),
        ([lif(2, 3), fs.Multiplex(2)], r"layer 1: after the last LIF layer NIR has delays only, no Multiplex"),
        ([lif(2, 3), fs.BiasSpikes([1.0])], r"layer 1: after the last LIF layer"),
        ([fs.Multiplex(2)], "the network has no LIF layer"),
        ([lif(2, 3), Foreign()], "layer 1: NIR cannot represent Foreign"),
        (
            [fs.LIFLinear(2, 3, fs.LIF(tau_syn=(1.0, 2.0)), receptor="sign")],
            r"layer 0: NIR .* several receptors",
        ),
        ([fs.LIFConv2d((1, 4, 4), 2, 3, fs.LIF(tau_rise=0.5))], r"layer 0: NIR .* whose synapses have a rise time"),
        ([fs.LIFLinear(2, 3, fs.LIF(bias=0.5))], r"layer 0: NIR has no neurons with a constant input \(bias\)"),
        ([fs.SpikeTrains(2, 3, 4, fs.LIF(reset=None, refractory=0.1))], r"layer 0: NIR has no neurons without a reset"),
        ([fs.SpikeTrains(2, 3, 4, AdaptiveLIF(adaptation=[(2, 1)]))], r"layer 0: NIR .* with adaptation currents"),
        (
            [fs.SpikeTrains(2, 3, 4, AdaptiveLIF(threshold_adaptation=[(2, 1)]))],
            r"layer 0: NIR .* adaptive threshold",
        ),
        ([lif(500, 300, delay=fs.DelayRule())], r"layer 0: 150000 synaptic delays are too many.*axonal or dendritic"),
    ],
    ids=[
        *("leak", "pool", "earliest", "joined", "copies", "bias", "none", "foreign", "receptors", "rise", "constant"),
        *("no reset", "adaptation", "threshold", "many"),
    ],
)
def test_what_nir_cannot_say(layers, message):
    with pytest.raises(ValueError, match=message):
        fs.to_nir(fs.Network(*layers))


def test_no_network():
    with pytest.raises(ValueError, match="expected a Network, got a LIFLinear"):
        fs.to_nir(lif(2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "lava"}, "target must be one of nir, norse, snntorch, got 'lava'"),
        ({"target": "norse"}, "target norse needs dt"),
        ({"target": "snntorch", "dt": 0.1}, "the time step of snnTorch is always 0.0001 s"),
        ({"time_unit": 0.0}, "time_unit must be > 0 and finite"),
        ({"dt": float("nan")}, "dt must be > 0 and finite"),
    ],
)
def test_bad_conventions(arguments, message):
    with pytest.raises(ValueError, match=message):
        Convention(**arguments)


def graph_with(**nodes):
    """A small graph with other nodes in it, in a row."""
    row = [*fs.to_nir(fs.Network(lif(2, 3))).nodes.items()]
    row[1:3] = [(name, nodes.get(name, node)) for name, node in row[1:3] if nodes.get(name, node) is not None]
    row[-1:-1] = [(name, node) for name, node in nodes.items() if name not in ("fc_0", "lif_0")]
    names = [name for name, _ in row]
    return nir.NIRGraph(dict(row), list(itertools.pairwise(names)), type_check=False)


def cuba(**changes):
    fields = dict.fromkeys(("tau_syn", "tau_mem", "r", "v_threshold", "w_in"), 1.0) | {"v_leak": 0.0} | changes
    return nir.CubaLIF(**{name: np.full(3, value) for name, value in fields.items()})


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: graph_with(lif_0=nir.LIF(*(np.ones(3) for _ in range(4)))), "lif_0: a LIF has no counterpart"),
        (lambda: graph_with(lif_0=cuba(tau_mem=0.0)), "lif_0: tau_mem must be > 0"),
        (lambda: graph_with(lif_0=cuba(r=np.nan)), "lif_0: r has values that are not finite"),
        (lambda: graph_with(lif_0=cuba(v_leak=2.0)), "v_threshold must be above v_leak"),
        (
            lambda: graph_with(lif_0=cuba(v_threshold=1e300)),
            r"lif_0: its threshold here has values that are not finite in torch\.float32",
        ),
        (
            lambda: graph_with(lif_0=cuba(r=1e300, v_reset=-1000.0)),
            "a matrix of weights or delays has values that are not finite",
        ),
        (lambda: graph_with(lif_0=cuba(v_threshold=1e308, v_leak=-1e308)), "its threshold here has values"),
        (lambda: graph_with(fc_0=nir.Linear(np.full((3, 2), 1e300))), "a matrix of weights or delays has values"),
        (lambda: graph_with(lif_0=cuba(tau_mem=1j)), "lif_0: tau_mem: expected real numbers, got complex128"),
        (lambda: graph_with(lif_0=cuba(v_reset=1j)), "lif_0: v_reset: expected real numbers, got complex128"),
        (lambda: graph_with(fc_0=nir.Linear(np.zeros((3, 2), [("a", float), ("b", int)]))), "fc_0: expected real"),
        (lambda: graph_with(fc_0=nir.Affine(np.ones((3, 2)), np.ones(3))), "fc_0: an Affine with a bias"),
        (lambda: graph_with(late=nir.Delay(np.full(3, -1.0))), "late: delays must be >= 0"),
        (lambda: graph_with(more=nir.Linear(np.full((3, 3), 0.5))), "weights without neurons after"),
        (lambda: graph_with(lif_0=None), "output must follow the last neurons alone"),
        (lambda: graph_with(fc_0=nir.Linear(np.full((3, 2), np.inf))), "fc_0 has values that are not finite"),
        (lambda: graph_with(fc_0=nir.Linear(np.ones((4, 2)))), "type mismatch"),
        (lambda: graph_with(more=nir.Input({"input": np.array([3])})), "expected a graph with one Input, got 2"),
    ],
    ids=[
        "kind",
        "tau",
        "nan",
        "leak",
        "threshold",
        "gain",
        "difference",
        "weight",
        "complex",
        "reset",
        "structured",
        "affine",
        "negative",
        "weights",
        "neurons",
        "inf",
        "shape",
        "inputs",
    ],
)
def test_graphs_without_counterpart(graph, message):
    with pytest.raises(ValueError, match=message):
        fs.from_nir(graph())


def test_graphs_that_are_no_row():
    graph = fs.to_nir(fs.Network(lif(2, 3), lif(3, 2)))
    graph.nodes["back"] = nir.Linear(np.ones((3, 2)))
    graph.edges += [("lif_1", "back"), ("back", "lif_0")]
    with pytest.raises(ValueError, match=r"the graph has a loop \(lif_0, lif_1\)"):
        fs.from_nir(graph)
    graph = fs.to_nir(fs.Network(lif(2, 3), lif(3, 2)))
    graph.edges.remove(("fc_1", "lif_1"))
    graph.nodes["past"] = nir.Linear(np.ones((2, 2)))
    graph.edges += [("input", "past"), ("past", "lif_1")]
    with pytest.raises(ValueError, match=r"lif_1 gets spikes of input; the layers must be a row, in which it follows"):
        fs.from_nir(graph)


def test_a_readout_with_a_loop():
    graph = fs.to_nir(fs.Network(lif(2, 3), fs.IntegralReadout(3, 2)))
    (name,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.CubaLI))
    graph.nodes["back"] = nir.Linear(np.ones((2, 2)))
    graph.edges += [(name, "back"), ("back", name)]
    with pytest.raises(ValueError, match=f"{name} is a readout with a loop"):
        fs.from_nir(graph)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.nir: no such file"):
        fs.from_nir(tmp_path / "none.nir")
    file = tmp_path / "model.nir"
    file.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"model\.nir: cannot be read as NIR"):
        fs.from_nir(file)
    with h5py.File(file, "w") as empty:
        empty["version"] = "1.0"
    with pytest.raises(ValueError, match="cannot be read as NIR"):
        fs.from_nir(file)
    nir.write(file, fs.to_nir(fs.Network(lif(2, 3))))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as NIR"):
        fs.from_nir(file)
    graph = fs.to_nir(fs.Network(lif(2, 3)))
    graph.metadata["time_unit"] = "long"
    with pytest.raises(ValueError, match="the metadata of the graph cannot be read"):
        fs.from_nir(graph)


def test_a_file_cannot_point_to_another(tmp_path):
    for name, point in (("link", h5py.ExternalLink), ("soft", None)):
        file = tmp_path / f"{name}.nir"
        nir.write(file, fs.to_nir(fs.Network(lif(2, 3))))
        with h5py.File(file, "a") as opened:
            del opened["node/nodes/fc_0/weight"]
            opened["node/nodes/fc_0/weight"] = point("other.h5", "weight") if point else h5py.SoftLink("/version")
        with pytest.raises(ValueError, match="weight is a link"):
            fs.from_nir(file)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    for call in (lambda: fs.to_nir(fs.Network(lif(2, 3))), lambda: fs.from_nir("model.nir")):
        with pytest.raises(ImportError, match=r'NIR is missing. Install it: pip install "\.\[nir\]"'):
            call()
