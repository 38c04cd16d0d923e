"""NEST against the exact times, and networks that learn through it."""

import importlib.util
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from firstspike.config import load_config
from firstspike.layers import BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network
from firstspike.layers.named import named_layers
from firstspike.neurons import LIF
from firstspike.runs import Run
from firstspike.spiketime import first_spike_time
from firstspike.substrates import SUBSTRATES, Brian2, Exact, Nest, Neuron, SubstrateError
from trained import start

DOUBLE = {"dtype": torch.float64}
GRAZING = 1e-4  # relative distance of a peak from the threshold


def differing(layer, inputs, found, tolerance):
    """Where a layer's spikes are not the exact ones of the same inputs, and whether a spike there is a near miss.

    A near miss hangs on the last digits of the threshold: with one a little lower or higher it comes, goes or jumps.
    """
    lif, rows = layer.neuron, []
    exact, low, high = (
        first_spike_time(inputs, layer.weight, replace(lif, threshold=lif.threshold * scale), delay=layer.delay)
        for scale in (1, 1 - GRAZING, 1 + GRAZING)
    )
    for sample, neuron in ((found != exact) & ~((found - exact).abs() <= tolerance)).nonzero().tolist():
        one, other = float(low[sample, neuron]), float(high[sample, neuron])
        rows.append((sample, neuron, not abs(one - other) < 0.01))
    return rows


def compare(network, record, tolerance=1e-10):
    """Every LIF layer on the times that it got; near misses are counted."""
    near = 0
    for lif in named_layers(network):
        rows = differing(lif.layer, lif.inputs(record), record.layers[lif.index], tolerance)
        assert all(grazes for _, _, grazes in rows), rows
        near += len(rows)
    return near


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(2.0, 1.0, 1.0),
        LIF(0.04, 0.02, 1.0),
        LIF(1 + 1e-7, 1.0, 0.8),
        LIF(0.7, 1.3, torch.tensor([0.5, 0.8, 1.0])),
        LIF(torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.7]), 0.6),
        LIF(torch.tensor(1.5), 1.0, 0.6),
    ],
    ids=["two", "seconds", "nearly equal", "thresholds", "taus", "one tau"],
)
@pytest.mark.parametrize("delay", [None, DelayRule("softplus")], ids=["undelayed", "synaptic"])
@pytest.mark.nest
def test_time_constants_and_delays(source, neuron, delay):
    layer = LIFLinear(6, 3, neuron, weight_mean=0.8, weight_std=0.8, delay=delay, generator=source, **DOUBLE).double()
    unit = 0.02 if isinstance(neuron.tau_mem, float) and neuron.tau_mem < 0.1 else 1.0
    if delay is not None and unit < 1:
        with torch.no_grad():
            layer.delay_raw -= 4  # softplus of about -4 is 0.02
    network = Network(layer).requires_grad_(False)
    times = unit * (2 * torch.rand(60, 6, generator=source, **DOUBLE) - 0.5)
    with Nest().open(network) as nest:
        record = nest.run(network, times)
    assert float(torch.isfinite(record.output).double().mean()) > 0.2
    assert compare(network, record) <= 1


@pytest.mark.nest
def test_parameters_that_learn(source, times):
    learns = {"trainable": ["tau_mem", "tau_syn", "threshold"], "per_neuron": True}
    hidden = LIFLinear(4, 8, LIF(1.5, 1.0, 0.5), **learns, generator=source, **DOUBLE)
    with torch.no_grad():
        for parameter in (hidden.log_tau_mem, hidden.log_tau_syn, hidden.log_threshold):
            parameter += 0.2 * torch.randn(8, generator=source, **DOUBLE)
    network = Network(hidden)
    with Nest().open(network) as nest:
        record = nest.record(network, times)
    torch.testing.assert_close(record.output, Exact().run(network, times).output, atol=1e-9, rtol=0)
    torch.where(torch.isfinite(record.output), record.output, 0.0).sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in network.parameters())


@pytest.mark.parametrize("step", [0.1, 0.0123])
@pytest.mark.nest
def test_delays_are_not_rounded_to_steps(source, times, step):
    network = Network(
        BiasSpikes([0.3], **DOUBLE),
        Multiplex(2),
        Delay(10, DelayRule("softplus"), generator=source, **DOUBLE),
        LIFLinear(10, 6, LIF(), weight_mean=0.5, weight_std=0.2, generator=source, **DOUBLE),
        Delay(6, DelayRule("softplus"), generator=source, **DOUBLE),
        LIFLinear(6, 3, LIF(), weight_mean=0.8, weight_std=0.3, generator=source, **DOUBLE),
        Delay(3, DelayRule("softplus"), generator=source, **DOUBLE),
    )
    with Nest(step).open(network) as nest:
        record = nest.run(network, times)
    torch.testing.assert_close(record.output, Exact().run(network, times).output, atol=1e-10, rtol=0)


@pytest.mark.nest
def test_samples_know_nothing_of_one_another(source):
    """Nor does a neuron spike twice, however strong its inputs are."""
    layer = LIFLinear(5, 4, LIF(3.0, 1.0, 1.0), weight_mean=6.0, weight_std=4.0, generator=source, **DOUBLE)
    network = Network(layer).requires_grad_(False)
    times = 12 * torch.rand(30, 5, generator=source, **DOUBLE)
    with Nest().open(network) as nest:
        together = nest.run(network, times).output
        backwards = nest.run(network, times.flip(0)).output.flip(0)
        alone = torch.cat([nest.run(network, row.unsqueeze(0)).output for row in times[:5]])
        again = nest.run(network, times).output
    assert torch.equal(again, together)
    torch.testing.assert_close(backwards, together, atol=1e-10, rtol=0)
    torch.testing.assert_close(alone, together[:5], atol=1e-10, rtol=0)
    torch.testing.assert_close(together, network(times), atol=1e-10, rtol=0)


@pytest.mark.nest
def test_duration():
    layer = LIFLinear(1, 1, **DOUBLE)
    with torch.no_grad():
        layer.weight.fill_(5.0)
    times = torch.tensor([[0.0], [7.9], [8.1], [-3.0]], **DOUBLE)
    with Nest(duration=8.0).open(network := Network(layer)) as nest:
        found = nest.run(network, times).output.flatten()
    assert torch.isfinite(found).tolist() == [True, False, False, True]
    assert float(found[3]) == pytest.approx(float(found[0]) - 3)


@pytest.mark.slow
@pytest.mark.nest
def test_a_trained_network(tmp_path):
    """Decisions differ only where a membrane touches its threshold; times do not differ."""
    settings = ["network[1].out_features=40", "data={kind: yin_yang, train: 1000, validation: 100, test: 300}"]
    faster = ["training.epochs=30", "training.batch_size=50", "training.optimizer.lr=0.01"]
    config = load_config("yin_yang", [*settings, *faster, "training.dtype=float64"])
    start(tmp_path / "run", config, progress_bar=False)
    run, there = Run(tmp_path / "run"), Run(tmp_path / "run", substrate="nest")
    assert compare(run.network, there.record) <= 3
    assert there.evaluation.accuracy == run.evaluation.accuracy
    assert run.evaluation.accuracy > 0.8


@pytest.mark.slow
@pytest.mark.nest
def test_bars_are_learnt_through_nest(tmp_path):
    start(tmp_path / "run", load_config("bars", ["training.epochs=9"], "nest"), progress_bar=False)
    run = Run(tmp_path / "run")
    assert run.substrate == "nest"
    assert run.results["test"]["accuracy"] == run.evaluation.accuracy == 1.0


@pytest.mark.parametrize(
    "simulator",
    [
        pytest.param(Nest, marks=pytest.mark.nest),
        pytest.param(Neuron, marks=pytest.mark.neuron),
        pytest.param(Brian2, marks=pytest.mark.brian2),
    ],
)
def test_nothing_is_said(simulator, capfd):
    """By simulators, which may speak past Python's own output, or PyNN; all warnings are errors here."""
    layer = LIFLinear(2, 2, **DOUBLE)
    with simulator(step=0.1).open(network := Network(layer)) as opened:
        opened.run(network, torch.rand(3, 2, **DOUBLE))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["nest", "neuron", "brian2"])
def test_missing_software_is_one_line(kind, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = rf'pip install "\.\[{kind}\]" in a copy of the repository$'
    with pytest.raises(ImportError, match=wanted):
        SUBSTRATES[kind]().open(Network(LIFLinear(2, 2)))


def test_software_that_does_not_start(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "pyNN.neuron", None)
    with pytest.raises(SubstrateError, match=r"^NEURON does not start: .*pyNN.neuron"):
        Neuron().open(Network(LIFLinear(2, 2)))


@pytest.mark.nest
def test_a_failure_is_one_line(monkeypatch):
    network = Network(LIFLinear(2, 2))
    with Nest().open(network) as nest:
        monkeypatch.setattr(nest._sim, "run", lambda duration: 1 / 0)
        with pytest.raises(SubstrateError, match=r"^NEST failed: division by zero$"):
            nest.run(network, torch.rand(3, 2))
        monkeypatch.undo()
        assert nest.run(network, torch.rand(3, 2)).output.shape == (3, 2)


@pytest.mark.nest
def test_what_nest_says_of_itself_is_compared(monkeypatch):
    network = Network(LIFLinear(2, 2))
    with Nest().open(network) as nest:
        monkeypatch.setattr(nest._sim, "get_time_step", lambda: 0.099)
        with pytest.raises(SubstrateError, match=r"^NEST failed: it has a step of 0\.099 in place of 0\.1$"):
            nest.run(network, torch.rand(3, 2))


@pytest.mark.parametrize("simulator", [Nest, Neuron, Brian2])
def test_refused(simulator):
    """Before any software is looked for."""
    with pytest.raises(ValueError, match=r"layer 0: .* has no neurons without leak"):
        simulator().open(Network(LIFLinear(2, 2, LIF(tau_mem=math.inf))))
    with pytest.raises(ValueError, match=r"not open: call open\(network\) first"):
        simulator().run(Network(LIFLinear(2, 2)), torch.rand(3, 2))


@pytest.mark.parametrize(("step", "duration"), [(0, 1), (2, 10), (0.1, 0.05), (0.1, math.inf), (math.nan, 1)])
def test_bad_settings(step, duration):
    with pytest.raises(ValueError, match=r"(step|duration) must be"):
        Nest(step, duration)


@pytest.mark.slow
@pytest.mark.nest
def test_symbols_of_later_extension_modules_stay_their_own():
    """The import of NEST asks for global symbols; kernels of ``torch.compile`` would then call each other's code."""
    command = (
        "import sys; from firstspike.substrates import Nest; before = sys.getdlopenflags(); Nest()._load();"
        "assert 'nest' in sys.modules; assert sys.getdlopenflags() == before"
    )
    subprocess.run([sys.executable, "-c", command], check=True)
