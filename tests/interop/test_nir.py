import json
import subprocess
import sys

import nir
import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.cli import main
from firstspike.config import load_config
from trained import start

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
    "connections past layers": (
        [
            lambda: fs.BiasSpikes([0.9]),
            lambda: lif(5, 4),
            lambda: lif(4, 3),
            lambda: fs.Concatenate(3, 2, skipped=5, delay=0.0, **DOUBLE),
            lambda: fs.SpikeDropout(0.5),
            lambda: lif(8, 6),
            lambda: fs.Concatenate(6, 4, skipped=4, delay=CLIP, **DOUBLE),
            lambda: lif(10, 3),
        ],
        "BiasSpikes LIFLinear LIFLinear Concatenate BiasSpikes LIFLinear Concatenate Delay LIFLinear",
    ),
    "filters": (
        [lambda: fs.LIFConv2d((1, 2, 2), 3, 2, fs.LIF(2.0, 1.0, 0.8), padding=1, **DOUBLE), lambda: lif(27, 3)],
        "LIFLinear LIFLinear",
    ),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    layers, names = NETWORKS[request.param]
    return fs.Network(*(layer() for layer in layers)).eval(), names.split()


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
    assert [layer._get_name() for layer in back] == names
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
    graph.metadata["target"] = "norse"  # without its time step, which the arguments give
    assert_same(fs.from_nir(graph, dt=0.1, time_unit=2.0, dtype=torch.float64)(times), network(times[:, :2]))


def test_other_nodes_that_are_understood(times):
    network = fs.Network(lif(4, 3))
    graph = fs.to_nir(network)
    weight = graph.nodes["fc_0"].weight
    graph.nodes["fc_0"] = nir.Affine(weight / 2, np.zeros(3))
    graph.nodes["twice"] = nir.Scale(np.full(3, 2.0))
    graph.edges = [("input", "fc_0"), ("fc_0", "twice"), ("twice", "lif_0"), ("lif_0", "output")]
    assert_same(fs.from_nir(graph, dtype=torch.float64)(times), network(times))


def test_matrices_in_a_row_are_multiplied():
    """Not path by path, which for two of this size are 27 million."""
    graph = fs.to_nir(fs.Network(lif(300, 300), lif(300, 2)))
    gain = np.random.default_rng(0).normal(size=(300, 300))
    found = fs.from_nir(graph, dtype=torch.float64)[0].weight.detach().numpy()
    graph.nodes["before"] = nir.Linear(gain)
    graph.edges.remove(("input", "fc_0"))
    graph.edges += [("input", "before"), ("before", "fc_0")]
    both = fs.from_nir(graph, dtype=torch.float64)[0].weight.detach().numpy()
    assert np.allclose(both, found @ gain)


def test_neurons_that_spike_once_have_any_reset(times):
    graph = fs.to_nir(network := fs.Network(lif(4, 3)))
    graph.nodes["lif_0"].v_reset = np.full(3, -np.inf)
    assert_same(fs.from_nir(graph, dtype=torch.float64)(times), network(times))
    with pytest.raises(ValueError, match="reset"):
        fs.from_nir(graph, max_spikes=3)


@pytest.mark.slow
def test_names_cost_nothing_before_they_are_called():
    code = "import sys, firstspike as fs; fs.to_nir, fs.from_nir; print('nir' in sys.modules, 'h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "yin_yang"
    small = ["data.train=100", "data.validation=50", "data.test=50", "training.epochs=1"]
    start(folder, load_config("yin_yang", small), progress_bar=False)
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
    loaded = fs.Run(run)
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
        (["nowhere", "model.nir"], 2, "error: nowhere is not a run folder"),
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_export_on_a_full_disk(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("firstspike.runs.files.token_hex", lambda _: "0")
    (tmp_path / ".model.nir.0.partial").symlink_to("/dev/full")
    found, _, shown = command(monkeypatch, capsys, "export", run, tmp_path / "model.nir")
    assert (found, shown) == (1, f"error: {tmp_path / 'model.nir'}: No space left on device\n")


def test_what_readers_do_otherwise_is_said():
    first, readout = fs.LIFLinear(4, 5), fs.IntegralReadout(5, 2)
    assert "approximate" not in fs.to_nir(fs.Network(first)).metadata
    assert fs.to_nir(fs.Network(first), target="norse", dt=0.01).metadata["approximate"] == (
        "norse moves spikes to a grid of 0.01; norse ignores v_reset, so that neurons may spike again after their "
        "first spike"
    )
    trains = fs.Network(fs.LIFSpikeTrains(4, 5, max_spikes=3, neuron=fs.LIF(refractory=0.5)), readout)
    assert fs.to_nir(trains, keep_refractory=True).metadata["approximate"] == (
        "readers ignore max_spikes: neurons may spike more than 3 times; readers ignore refractory times; "
        "readers return the membrane, of which the network takes the integral"
    )
    delayed = fs.Network(fs.Delay(4, fs.DelayRule("clip", mean=1.0)), first)
    assert "approximate" not in fs.to_nir(delayed).metadata
    assert (
        fs.to_nir(delayed, target="snntorch").metadata["approximate"].endswith("snntorch has no counterpart of delays")
    )
