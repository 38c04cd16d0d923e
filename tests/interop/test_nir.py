import itertools
import json
import subprocess
import sys

import h5py
import nir
import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.cli import main
from firstspike.interop.nir.conventions import Convention
from firstspike.training.config import load_config
from firstspike.training.session import start

DOUBLE = {"dtype": torch.float64}
TARGETS = [{}, {"target": "norse", "dt": 0.001, "time_unit": 0.006}, {"target": "snntorch", "time_unit": 0.005}]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


def lif(inputs, outputs, tau_mem=2.0, **options):
    return fs.LIFLinear(inputs, outputs, fs.LIF(tau_mem, 1.0, 1.3), **options, **DOUBLE)


def per_neuron(inputs, outputs):
    """Neurons that differ."""
    options = {"trainable": ["tau_mem", "tau_syn", "threshold"], "per_neuron": True}
    layer = lif(inputs, outputs, **options)
    with torch.no_grad():
        for name in options["trainable"]:
            getattr(layer, f"log_{name}").add_(0.3 * torch.randn(outputs, **DOUBLE))
    return layer


CLIP = fs.DelayRule("clip", scale=3.0, mean=0.5, std=0.5)
# how the layers of the graph's network are called
NETWORKS = {
    "plain": ([lambda: lif(4, 9), lambda: lif(9, 3)], "LIFLinear LIFLinear"),
    "neurons that differ": ([lambda: per_neuron(4, 9), lambda: lif(9, 3, 1.0)], "LIFLinear LIFLinear"),
    "bias": (
        [lambda: fs.BiasSpikes([0.9, 0.2]), lambda: lif(6, 9), lambda: fs.BiasSpikes([1.4]), lambda: lif(10, 3)],
        "BiasSpikes LIFLinear BiasSpikes LIFLinear",
    ),
    "copies": ([lambda: fs.Multiplex(3), lambda: lif(12, 9), lambda: lif(9, 3)], "LIFLinear LIFLinear"),
    "axonal": (
        [
            lambda: fs.Delay(4, CLIP, **DOUBLE),
            lambda: lif(4, 9),
            lambda: fs.Delay(9, CLIP, **DOUBLE),
            lambda: lif(9, 3),
        ],
        "Delay LIFLinear Delay LIFLinear",
    ),
    "dendritic": ([lambda: lif(4, 3), lambda: fs.Delay(3, CLIP, **DOUBLE)], "LIFLinear Delay"),
    "synaptic": (
        [lambda: lif(4, 9, delay=CLIP), lambda: fs.BiasSpikes([1.4]), lambda: lif(10, 3, delay=CLIP)],
        "LIFLinear BiasSpikes LIFLinear",
    ),
    "delays that copies share": (
        [
            lambda: fs.BiasSpikes([0.9]),
            lambda: fs.Multiplex(3),
            lambda: fs.Delay(15, CLIP, copies=3, **DOUBLE),
            lambda: lif(15, 3),
        ],
        "BiasSpikes Delay LIFLinear",
    ),
    "delays of copies": (
        [lambda: fs.Multiplex(3), lambda: fs.Delay(12, CLIP, **DOUBLE), lambda: lif(12, 3, delay=CLIP)],
        "Multiplex LIFLinear",
    ),
    "no delays": (
        [lambda: fs.Delay(4, fs.DelayRule("clip", mean=0.0, std=0.0), **DOUBLE), lambda: lif(4, 3)],
        "LIFLinear",
    ),
    "filters": (
        [lambda: fs.LIFConv2d((1, 2, 2), 3, 2, fs.LIF(2.0, 1.0, 0.8), padding=1, **DOUBLE), lambda: lif(27, 3)],
        "LIFLinear LIFLinear",
    ),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    layers, names = NETWORKS[request.param]
    return fs.Network(*(layer() for layer in layers)), names.split()


@pytest.fixture
def times():
    found = 2 * torch.rand(60, 4, generator=torch.Generator().manual_seed(1), **DOUBLE)
    found[3, 1] = torch.inf
    found[7] = torch.inf
    return found


def assert_same(found, wanted):
    spiked = torch.isfinite(wanted)
    assert torch.equal(spiked, torch.isfinite(found))
    assert float(spiked.double().mean()) > 0.2
    torch.testing.assert_close(found[spiked], wanted[spiked], rtol=0, atol=1e-11)


@pytest.mark.parametrize("target", TARGETS, ids=["nir", "norse", "snntorch"])
def test_there_and_back_through_a_file(case, target, times, tmp_path):
    network, names = case
    nir.write(tmp_path / "model.nir", fs.to_nir(network, **target))
    state = torch.get_rng_state()
    back = fs.from_nir(tmp_path / "model.nir", dtype=torch.float64)
    assert torch.equal(state, torch.get_rng_state())
    assert [type(layer).__name__ for layer in back] == names
    assert_same(back(times), network(times))
    again = fs.from_nir(fs.to_nir(back), dtype=torch.float64)
    assert_same(again(times), network(times))


def test_parameters_come_back():
    network = fs.Network(per_neuron(4, 9), fs.Delay(9, CLIP, **DOUBLE), lif(9, 3))
    back = fs.from_nir(fs.to_nir(network, time_unit=0.006), dtype=torch.float64)
    assert isinstance(back[2].neuron.tau_mem, float)
    pairs = [(back[1].delay, network[1].delay)]
    for one, other in ((back[0], network[0]), (back[2], network[2])):
        pairs.append((one.weight, other.weight))
        for name in ("tau_mem", "tau_syn", "threshold"):
            pairs.append([torch.as_tensor(getattr(x.neuron, name), **DOUBLE) for x in (one, other)])
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)
    assert all(
        not isinstance(x, torch.Tensor) or x.dtype == torch.float32
        for x in vars(fs.from_nir(fs.to_nir(network))[0].neuron).values()
    )


def test_what_the_numbers_mean():
    """A neuron by the text of NIR, in steps so small that its first spike is right."""
    graph = fs.to_nir(fs.Network(lif(1, 1)), time_unit=6.0)
    with torch.no_grad():
        network = fs.Network(lif(1, 1))
        network[0].weight.fill_(4.0)
    graph = fs.to_nir(network, time_unit=6.0)
    node, weight = graph.nodes["lif_0"], graph.nodes["fc_0"].weight
    current, voltage, step, time = 0.0, 0.0, 1e-4, 0.0
    current += float(node.w_in[0] * weight[0, 0] / node.tau_syn[0])
    while voltage <= node.v_threshold[0]:
        voltage += step * float((node.v_leak[0] - voltage + node.r[0] * current) / node.tau_mem[0])
        current -= step * current / float(node.tau_syn[0])
        time += step
    assert time / 6.0 == pytest.approx(float(network(torch.zeros(1, 1, **DOUBLE)).detach()), abs=1e-4)
    assert float(node.v_reset[0]) < -100 * float(node.v_threshold[0])


def test_metadata():
    network = fs.Network(fs.BiasSpikes([0.5]), lif(3, 2))
    graph = fs.to_nir(network, target="norse", dt=0.1, time_unit=2.0)
    assert graph.metadata["target"] == "norse"
    assert graph.metadata["bias_times"].tolist() == [1.0]
    assert graph.nodes["input"].input_type["input"].tolist() == [3]
    open_inputs = fs.from_nir(graph, bias_times=(), dtype=torch.float64)
    times = torch.tensor([[0.1, 0.3, 0.5]], **DOUBLE)
    assert_same(open_inputs(times), network(times[:, :2]))
    later = fs.from_nir(graph, bias_times=[0.7], dtype=torch.float64)
    assert later[0].times.tolist() == [0.7]
    graph.metadata.clear()  # a graph is whole without
    bare = fs.from_nir(graph, target="norse", dt=0.1, time_unit=2.0, dtype=torch.float64)
    assert_same(bare(times), network(times[:, :2]))


class Foreign(torch.nn.Module):
    def output_size(self, inputs):
        return inputs

    def forward(self, times, observed=None):
        return times


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([lif(2, 3, float("inf"))], r"layer 0: NIR has no neurons with synapses and without leak"),
        ([fs.EarliestPool2d((1, 4, 4), 2), lif(4, 3)], r"layer 0: NIR has nothing for a EarliestPool2d"),
        ([lif(2, 3), fs.Multiplex(2)], r"layer 1: behind the last LIF layer NIR has delays only, no Multiplex"),
        ([lif(2, 3), fs.BiasSpikes([1.0])], r"layer 1: behind the last LIF layer"),
        ([fs.Multiplex(2)], "the network has no LIF layer"),
        ([lif(2, 3), Foreign()], "layer 1: NIR has nothing for a Foreign"),
        ([lif(500, 300, delay=fs.DelayRule())], r"layer 0: 150000 synaptic delays are too many.*axonal or dendritic"),
    ],
    ids=["leak", "pool", "copies", "bias", "none", "foreign", "many"],
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
        ({"target": "snntorch", "dt": 0.1}, "snnTorch's step is 0.0001 s whatever dt says"),
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
        (lambda: graph_with(fc_0=nir.Affine(np.ones((3, 2)), np.ones(3))), "fc_0: an Affine with a bias"),
        (lambda: graph_with(late=nir.Delay(np.full(3, -1.0))), "late: delays must be >= 0"),
        (lambda: graph_with(more=nir.Linear(np.full((3, 3), 0.5))), "weights without neurons behind"),
        (lambda: graph_with(lif_0=None), "output must follow the last neurons alone"),
        (lambda: graph_with(fc_0=nir.Linear(np.full((3, 2), np.inf))), "fc_0: has values that are not finite"),
        (lambda: graph_with(fc_0=nir.Linear(np.ones((4, 2)))), "type mismatch"),
        (lambda: graph_with(more=nir.Input({"input": np.array([3])})), "expected a graph with one Input, got 2"),
    ],
    ids=["kind", "tau", "nan", "leak", "affine", "negative", "weights", "neurons", "inf", "shape", "inputs"],
)
def test_graphs_without_counterpart(graph, message):
    with pytest.raises(ValueError, match=message):
        fs.from_nir(graph())


def test_graphs_that_are_no_row():
    graph = fs.to_nir(fs.Network(lif(2, 3), lif(3, 2)))
    graph.nodes["back"] = nir.Linear(np.ones((3, 2)))
    graph.edges += [("lif_1", "back"), ("back", "lif_0")]
    with pytest.raises(ValueError, match=r"the graph has a loop \(back, fc_1, lif_0, lif_1, output\)"):
        fs.from_nir(graph)
    graph = fs.to_nir(fs.Network(lif(2, 3), lif(3, 2)))
    graph.nodes["past"] = nir.Linear(np.ones((2, 2)))
    graph.edges += [("input", "past"), ("past", "lif_1")]
    with pytest.raises(ValueError, match=r"lif_1 gets spikes of the input past lif_0; that needs bias_times"):
        fs.from_nir(graph)


def test_other_nodes_that_are_understood(times):
    network = fs.Network(lif(4, 3))
    graph = fs.to_nir(network)
    weight = graph.nodes["fc_0"].weight
    graph.nodes["fc_0"] = nir.Affine(weight / 2, np.zeros(3))
    graph.nodes["twice"] = nir.Scale(np.full(3, 2.0))
    graph.edges = [("input", "fc_0"), ("fc_0", "twice"), ("twice", "lif_0"), ("lif_0", "output")]
    assert_same(fs.from_nir(graph, dtype=torch.float64)(times), network(times))


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
        with pytest.raises(ImportError, match=r'NIR is missing. Install it: pip install "firstspike\[nir\]"'):
            call()


def test_names_cost_nothing_before_they_are_called():
    code = "import sys, firstspike as fs; fs.to_nir, fs.from_nir; print('nir' in sys.modules, 'h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "yin_yang"
    small = ["data.train=100", "data.validation=50", "data.test=50", "training.epochs=1"]
    start(folder, load_config("yin_yang", small), show=False)
    return folder


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["firstspike", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_export(run, tmp_path, monkeypatch, capsys):
    file = tmp_path / "model.nir"
    code, shown, _ = command(monkeypatch, capsys, "export", run, file, "--time-unit", 0.006)
    assert code == 0
    loaded = fs.load_run(run)
    assert shown.splitlines()[0] == f"{file}: 7 nodes of {loaded.checkpoint.name}"
    times = loaded.data.test.times
    found = fs.from_nir(file)(times)
    torch.testing.assert_close(found, loaded.network(times), rtol=0, atol=1e-4)
    assert json.loads((run / "environment.json").read_text())  # untouched
    assert [path.name for path in tmp_path.iterdir()] == ["model.nir"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["RUN", "model.nir", "--target", "norse"], 2, "error: target norse needs dt"),
        (["RUN", "model.nir", "--checkpoint", "epoch_9"], 2, "error: "),
        (["nowhere", "model.nir"], 2, "error: nowhere is no run"),
        (["RUN", "missing/model.nir"], 2, "missing/model.nir"),
    ],
)
def test_export_says_what_is_wrong(run, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    found, _, shown = command(monkeypatch, capsys, "export", *(run if x == "RUN" else x for x in arguments))
    assert found == code
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert not list(tmp_path.iterdir())
