"""Networks in what torch makes of them: forward-mode derivatives, compiled and exported programs, autocast."""

import copy
import io
import os
import shutil

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacfwd, jacrev, jvp, linearize

import forked
from firstspike import (
    LIF,
    BiasSpikes,
    Concatenate,
    Delay,
    DelayRule,
    Earliest,
    EarliestPool2d,
    IntegralReadout,
    LIFConv2d,
    LIFLinear,
    LIFRecurrent,
    LIFSpikeTrains,
    MaximumReadout,
    MembraneReadout,
    Multiplex,
    Network,
    export,
)
from firstspike.layers.ensembles import Ensemble
from firstspike.neurons import QIF, AdaptiveLIF

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own parts

OWN_TAUS = {"trainable": ("tau_mem", "tau_syn"), "per_neuron": True}
OWN = {"trainable": ("tau_mem", "tau_syn", "threshold"), "per_neuron": True}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(kind, seed=0, backend="auto"):
    given = {"dtype": torch.float64, "generator": seeded(seed)}
    lif = {**given, "backend": backend}
    if kind == "delays":
        return Network(
            Multiplex(2),
            BiasSpikes([0.9], dtype=torch.float64),
            LIFLinear(9, 8, LIF(2.0), delay=DelayRule(scale=0.5), **lif),
            Delay(8, DelayRule("clip", scale=0.5, mean=0.2, std=0.1), **given),
            LIFLinear(8, 3, LIF(float("inf")), max_weight_grad=2.0, **lif),
        )
    if kind == "own neurons":
        return Network(LIFLinear(4, 6, LIF(1.5), **OWN, **lif), LIFLinear(6, 3, trainable=["threshold"], **lif))
    if kind == "connections":
        rule = DelayRule("clip", scale=2.0, mean=0.5, std=0.1)
        layers = LIFLinear(4, 6, LIF(2.0), **lif), LIFLinear(6, 6, LIF(2.0), **lif), Earliest(6, 1, delay=rule, **given)
        return Network(*layers, Concatenate(6, 3, skipped=4, delay=rule, **given), LIFLinear(10, 3, **lif))
    if kind == "trains":
        lif |= {"overflow": "drop"}
        one, other = LIF(2.0, refractory=0.1), LIF(1.5, refractory=0.1)
        return Network(LIFSpikeTrains(4, 6, 5, one, **lif), LIFSpikeTrains(6, 3, 4, other, **OWN, **lif))
    if kind == "recurrent":
        lif |= {"overflow": "drop", "window": 0.5, "recurrent_std": 0.5}
        return Network(LIFRecurrent(4, 6, 5, 6.0, LIF(2.0, refractory=0.1), **lif), IntegralReadout(6, 2, **given))
    if kind == "recurrent delays":
        rule = DelayRule("clip", scale=2.0, mean=0.5, std=0.1)
        lif |= {"recurrent_delay": rule, "delay": DelayRule(), "max_weight_grad": 2.0}
        return Network(LIFRecurrent(4, 6, 20, 6.0, LIF(2.0, threshold=torch.rand(6, **given) + 0.5), **lif))
    if kind == "recurrent own":
        tau = nn.Parameter(torch.full((6,), 0.8, dtype=torch.float64))
        more = {"trainable": ["tau_mem", "threshold"], "per_neuron": True}
        return Network(LIFRecurrent(4, 6, 20, 6.0, LIF(2.0, tau), **more, **lif), MaximumReadout(6, 3, **given))
    if kind == "maximum":
        lif |= {"overflow": "drop"}
        spikes = LIFSpikeTrains(4, 6, 5, LIF(2.0), **lif)
        return Network(spikes, MaximumReadout(6, 3, LIF(torch.tensor([0.5, 1.0, 2.0]).double()), **given))
    if kind.startswith("linear"):
        lif |= {"backend": "reference", "overflow": "drop", "receptor": "sign", **OWN}
        neuron = AdaptiveLIF(2.0, (1.0, 1.5), adaptation=[(3.0, 0.2)], threshold=torch.full((3,), 1.1).double())
        if kind == "linear recurrent":
            lif |= {"recurrent_signs": [1, -1, 0], "trainable": ["adaptation_jump", "tau_syn", "bias"]}
            return Network(LIFRecurrent(4, 3, 20, 3.0, neuron, window=0.7, **lif))
        lif |= {"trainable": ["tau_syn", "bias"]}
        first = {name: x for name, x in lif.items() if name != "overflow"} | {"receptor": [0, 1, 1, 0]}
        return Network(LIFLinear(4, 3, LIF(2.0, (1.0, 1.5)), **first), LIFSpikeTrains(3, 3, 9, neuron, **lif))
    if kind == "equations":
        return Network(LIFSpikeTrains(4, 3, 9, QIF(), until=4.0, trainable=["tau_mem"], overflow="drop", **lif))
    conv = LIFConv2d((1, 6, 6), 3, 3, **lif)
    return Network(conv, EarliestPool2d((3, 4, 4), 2), LIFLinear(12, 3, **lif))


def inputs(kind, samples=5):
    times = torch.rand(samples, 36 if kind == "images" else 4, generator=seeded(1), dtype=torch.float64)
    times[0, 1] = torch.inf
    return times


KINDS = ["delays", "own neurons", "connections", "images", "trains", "linear"]
BY_VALUES = ["recurrent", "recurrent delays", "recurrent own", "maximum"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def gradients(network, out):
    """The gradients by what is trained, in order of the names: a program may have its own."""
    names, leaves = zip(*sorted((n, p) for n, p in network.named_parameters() if p.requires_grad), strict=True)
    found = torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).square().sum(), leaves)
    return dict(zip(names, found, strict=True))


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert x.any(), name
        torch.testing.assert_close(found[name], x, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_forward_mode(kind, backend):
    """The Jacobian by all parameters and the input times, column by column and row by row."""
    network, times = make(kind, backend=backend), inputs(kind)[1:3]
    parameters = dict(network.named_parameters())

    def out(parameters, times):
        return functional_call(network, parameters, (times,))

    forward, backward = (jac(out, argnums=(0, 1))(parameters, times) for jac in (jacfwd, jacrev))
    close(forward[0], backward[0])
    torch.testing.assert_close(forward[1], backward[1], rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_forward_mode_of_an_ensemble():
    together = Ensemble([make("own neurons", seed) for seed in range(3)])
    names, values = zip(*together.named_parameters(), strict=True)

    def out(*values):
        return functional_call(together, dict(zip(names, values, strict=True)), (inputs("own neurons"),))

    tangents = tuple(torch.randn(x.shape, generator=seeded(7), dtype=x.dtype) for x in values)
    found, moved = jvp(out, values, tangents)
    rows = jacrev(out, argnums=tuple(range(len(values))))(*values)
    expected = sum((row * x).flatten(3).sum(3) for row, x in zip(rows, tangents, strict=True))
    assert torch.equal(found, together(inputs("own neurons")))
    torch.testing.assert_close(moved, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("raw", "direction", "expected"),
    [(1.5, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (2.0, 1.0, 0.0), (2.0, -1.0, -1.0), (3.0, 2.0, 0.0)],
)
def test_tangent_of_a_clipped_delay(raw, direction, expected):
    """At a bound the delay moves inwards only."""
    rule = DelayRule("clip", scale=1.0, shift=1.0)
    _, moved = jvp(rule, (torch.tensor([raw]),), (torch.tensor([direction]),))
    assert moved.item() == expected


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda module, backend="aot_eager": torch.compile(module, fullgraph=True, backend=backend)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *BY_VALUES, "equations"])
def test_compiled(kind, compiled):
    network, times = make(kind), inputs(kind)
    run = compiled(network)
    out = run(times)
    assert torch.equal(out, network(times))
    close(gradients(network, out), gradients(network, network(times)))
    more = inputs(kind, samples=9)
    assert torch.equal(run(more), network(more))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="inductor needs a C++ compiler")
def test_inductor(compiled):
    network, times = make("delays"), inputs("delays")
    out = compiled(network, "inductor")(times)
    torch.testing.assert_close(out, network(times), rtol=1e-12, atol=0)  # inductor's own sigmoid
    close(gradients(network, out), gradients(network, network(times)))


@pytest.mark.slow
def test_training_in_compiled_code(compiled):
    """Ten steps are those of the network itself."""
    network = make("own neurons")
    twin = copy.deepcopy(network)
    for net, run in ((network, network), (twin, compiled(twin))):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(10):
            optimizer.zero_grad()
            out = run(inputs("own neurons"))
            torch.where(out.isfinite(), out - 1, 0.0).square().sum().backward()
            optimizer.step()
    for own, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_compiled_record_and_observed(compiled):
    network, times = make("delays"), inputs("delays")
    seen = network(times).detach() + 0.01
    record = compiled(lambda t, o: network.record(t, [None, None, None, None, o]).layers)(times, seen)
    for found, expected in zip(record, network.record(times, [None, None, None, None, seen]).layers, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_compiled_ensemble(compiled):
    together, times = Ensemble([make("own neurons", seed) for seed in range(3)]), inputs("own neurons")
    out = compiled(together)(times)
    assert torch.equal(out, together(times))
    close(gradients(together, out), gradients(together, together(times)))


@pytest.mark.slow
def test_compiled_autocast(compiled):
    network = nn.Sequential(nn.Linear(6, 5), LIFLinear(5, 4, LIF(2.0)))

    def run(values):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(values)

    values = torch.rand(7, 6, generator=seeded(2))
    assert torch.equal(compiled(run)(values), run(values))


@pytest.mark.slow
def test_compiled_jitter(compiled):
    """The noise of delays is drawn from the same stream."""
    rule = DelayRule(jitter=0.1)
    network = Network(Delay(4, rule, generator=seeded()), LIFLinear(4, 3, delay=rule, generator=seeded()))
    run, times = compiled(network), inputs("delays").float()
    for samples in (3, 5):
        found = []
        for module in (network, run):
            torch.manual_seed(3)
            found.append(module(times[:samples]))
        assert torch.equal(*found)


# each kind in one of torch's ways to record programs; the other one then finds the same calls
EXPORTED = [
    pytest.param(kind, strict, marks=[pytest.mark.exhaustive] * (strict != k % 2), id=f"{kind}-{strict}")
    for k, kind in enumerate([*KINDS, *BY_VALUES, "linear recurrent"])
    for strict in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strict"), EXPORTED)
def test_exported(kind, strict):
    """For any number of samples, from a file."""
    network = make(kind).eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (inputs(kind),), dynamic_shapes=({0: batch},), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    run, more = torch.export.load(file).module(), inputs(kind, samples=9)
    assert torch.equal(program.module()(more), network(more))
    assert torch.equal(run(more), network(more))
    assert torch.equal(run(more - 3), network(more - 3))  # recurrent layers have more windows then
    assert not kind.startswith("recurrent") or len(network.record(more).layers[0].isfinite().sum(-1).unique()) > 2


@pytest.mark.slow
def test_programs_that_call_a_layer_by_its_earlier_name():
    network, times = make("recurrent").eval(), inputs("recurrent")
    program = torch.export.export(network, (times,))
    (node,) = program.graph.find_nodes(op="call_function", target=torch.ops.firstspike.layer.default)
    assert node.args[2] == "SpikingRecurrent"
    node.update_arg(2, "LIFRecurrent")
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(times), network(times))


def test_what_cannot_be_exported():
    layer, times = LIFRecurrent(4, 3, 5, 3.0, overflow="drop"), torch.rand(2, 4)
    with pytest.raises(
        NotImplementedError, match=r"^torch\.export does not know a OwnRecurrent, only the layer that it extends$"
    ):
        torch.export.export(OwnRecurrent(4, 3, 5, 3.0, overflow="drop"), (times,))
    with pytest.raises(NotImplementedError, match=r"^LIFRecurrent\.forward can be exported with times alone$"):
        torch.export.export(layer, (times, layer(times).detach()))


class OwnRecurrent(LIFRecurrent):
    pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # by torch, where compiled code is left
@pytest.mark.parametrize("kind", ["jitter", "own class"])
def test_what_compiled_code_calls_as_it_is(kind):
    """Recurrent layers of which it cannot record one call."""
    torch._dynamo.reset()
    given = {"overflow": "drop", "generator": seeded(), "dtype": torch.float64}
    if kind == "jitter":
        module = LIFRecurrent(4, 3, 5, 3.0, delay=DelayRule(jitter=0.1), **given)
    else:
        module = OwnRecurrent(4, 3, 5, 3.0, **given)
    times = inputs("recurrent")
    found = []
    for run in (module, torch.compile(module, backend="aot_eager")):
        torch.manual_seed(3)
        found.append(run(times))
    assert torch.equal(*found)
    assert kind != "jitter" or not torch.equal(module(times), found[0])
    close(gradients(module, found[1]), gradients(module, found[0]))
    torch._dynamo.reset()


@pytest.mark.slow
def test_full_trains_are_reported_once_by_compiled_code(compiled):
    layer = LIFRecurrent(4, 6, 1, 6.0, overflow="warn", generator=seeded(), dtype=torch.float64)
    with pytest.warns(UserWarning, match="spike more than max_spikes=1 times") as warned:
        compiled(layer)(torch.rand(5, 4, 3, dtype=torch.float64)).sum().backward()
    assert len([x for x in warned if "max_spikes" in str(x.message)]) == 1


READOUTS = {
    "integral": IntegralReadout(4, 3, LIF(2.0), **OWN_TAUS),
    "membrane": MembraneReadout(4, 3, LIF(2.0), time=0.7),
}


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr")  # by torch
@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
def test_linearized_readouts(readout):
    times = torch.rand(5, 4, 3, generator=seeded())
    _, moves = linearize(readout, times)
    torch.testing.assert_close(moves(times), jvp(readout, (times,), (times,))[1])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (MaximumReadout(4, 3), "MaximumReadout has no forward mode; take "),
        (
            MembraneReadout(4, 3, time=1.0, **OWN_TAUS),
            "MembraneReadout with trained time constants has no forward mode",
        ),
    ],
    ids=["maximum", "membrane"],
)
def test_no_forward_mode(layer, message):
    with pytest.raises(NotImplementedError, match=f"^{message}"):
        jvp(layer, (torch.rand(5, 4),), (torch.rand(5, 4),))


@pytest.mark.parametrize(
    "layer", [MaximumReadout(4, 3), LIFRecurrent(4, 3, 5, 3.0, overflow="drop")], ids=["maximum", "recurrent"]
)
def test_what_is_not_linearized(layer):
    with pytest.raises(NotImplementedError, match="depends on values, which linearize does not know"):
        linearize(layer, torch.rand(5, 4))


@pytest.mark.parametrize(
    "module",
    [LIFLinear(4, 3), Network(LIFLinear(4, 3)), LIFRecurrent(4, 3, 5, 3.0)],
    ids=["layer", "network", "recurrent"],
)
def test_other_formats_name_the_one_that_works(module, monkeypatch):
    with pytest.raises(NotImplementedError, match=r"^torch\.jit\.script cannot record .* with fs\.export$"):
        torch.jit.script(module)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(NotImplementedError, match=r"^ONNX has no operator for spike times; .* with fs\.export$"):
        torch.export.export(module, (torch.rand(5, 4),))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("layer", [LIFLinear(3, 2), LIFSpikeTrains(3, 2, 5), LIFRecurrent(3, 2, 5, 3.0)], ids=repr)
def test_traces_are_refused(layer):
    """In one line: the recorded program would end the process."""
    with pytest.raises(NotImplementedError, match=r"cannot record spike times; .* with fs\.export$"):
        torch.jit.trace(layer, torch.rand(4, 3))


@pytest.mark.parametrize("name", ["network.onnx", "network"])
def test_other_formats_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"^path must end in .pt2, got .*{name}; .* not ONNX"):
        export(make("recurrent"), tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_programs_in_files_for_another_process(tmp_path):
    """Any number of samples and of spikes, bit for bit; and a process that begins with writing one."""
    network, times = make("recurrent"), torch.rand(5, 4, 3, generator=seeded(1), dtype=torch.float64)
    export(network, tmp_path / "program.pt2")
    assert network.training
    padded = torch.nn.functional.pad(times[:1], (0, 4), value=torch.inf)
    torch.save([(x, network(x).detach()) for x in (times, padded)], tmp_path / "expected.pt")
    code = (
        "import sys, torch, firstspike as fs\n"
        "program, expected, other = sys.argv[1:]\n"
        "fs.export(fs.Network(fs.Multiplex(2), fs.LIFLinear(6, 2)), other)\n"
        "run = torch.export.load(program).module()\n"
        "assert all(torch.equal(run(times), outputs) for times, outputs in torch.load(expected))\n"
        "assert torch.export.load(other).module()(torch.rand(1, 3)).shape == (1, 2)\n"
    )
    files = (tmp_path / name for name in ("program.pt2", "expected.pt", "other.pt2"))
    done = forked.run_code(code, *files)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "sequential"])
def test_written_for_inputs_like_an_example(kind, tmp_path):
    network, times = make("images"), inputs("images").unflatten(1, (1, 6, 6))
    if kind == "sequential":
        network = nn.Sequential(LIFSpikeTrains(36, 4, 3, overflow="drop", dtype=torch.float64), nn.Flatten())
        times = times.reshape(5, 36, 1)
        with pytest.raises(ValueError, match=r"^export needs times, example inputs of the network: no layer fixes "):
            export(network, tmp_path / "program.pt2")
    export(network, tmp_path / "program.pt2", times[:1])
    run = torch.export.load(tmp_path / "program.pt2").module()
    for x in (times, times[:1]):
        assert torch.equal(run(x), network(x))
