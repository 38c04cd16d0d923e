"""Other programs read exported graphs, and find the same first spikes within their resolution.

They are large and in no other extra: ``pip install -e ".[nir-readers]"``, then ``pytest -m nir_readers``, which fails
where one is missing.
"""

import importlib
import warnings
from importlib.metadata import version

import nir
import numpy as np
import pytest
import torch

import firstspike as fs

pytestmark = [pytest.mark.nir_readers, pytest.mark.filterwarnings("ignore")]

UNIT = 1e-2  # seconds in a unit of the network's time, of readers that count in them


@pytest.fixture
def reader():
    """A module of another program."""

    def get(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)

    return get


@pytest.fixture
def network():
    torch.manual_seed(2)
    lif = fs.LIF(tau_mem=2.0, tau_syn=1.0, threshold=1.0)
    options = {"dtype": torch.float64}
    found = fs.Network(
        fs.BiasSpikes([0.5], **options), fs.LIFLinear(5, 12, lif, **options), fs.LIFLinear(12, 3, lif, **options)
    )
    with torch.no_grad():
        found[1].weight[0] = -0.1  # always silent
    return found


@pytest.fixture
def times():
    found = torch.rand(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    found[3, 1] = torch.inf
    return found


def stepped(module, inputs, dt, duration, state=False):
    """First spikes of a module that takes one step at a time."""
    at = torch.round(inputs / dt)
    first, memory = None, None
    with torch.no_grad():
        for step in range(int(duration / dt)):
            spikes = (at == step).float()
            out, memory = module(spikes, memory) if state else (module(spikes), None)
            out = out[0] if isinstance(out, tuple) else out
            if first is None:
                first = torch.full_like(out, torch.inf, dtype=torch.float64)
            first = torch.where((out > 0) & torch.isinf(first), step * dt, first)
    return first


def errors_of(found, wanted):
    """Median and largest difference of first spikes; the same neurons are silent."""
    assert torch.equal(torch.isinf(found), torch.isinf(wanted))
    spiked = torch.isfinite(wanted)
    assert 0.2 < float(spiked.double().mean()) <= 1
    differences = (found - wanted)[spiked].detach().abs()
    return float(differences.median()), float(differences.max())


def check_steps(name, dt, errors):
    """Of a program that goes in steps. Where a membrane only just reaches the threshold, a step moves it far."""
    print(f"{name} {version(name)}, dt {dt}: median {errors[0]:.4f}, largest {errors[1]:.4f}")  # noqa: T201
    assert errors[0] < 2.5 * dt
    assert errors[1] < 10 * dt


def once(spikes, voltage, reset, threshold):
    """Norse does not read ``v_reset``; neurons that spike again would disturb the layers behind."""
    return voltage - 1000.0 * spikes


@pytest.mark.parametrize("dt", [0.02, 0.004])
def test_norse(reader, network, times, dt):
    norse = reader("norse.torch")
    wanted = network.record(times)
    graph = fs.to_nir(network, target="norse", time_unit=UNIT, dt=dt * UNIT)
    module = norse.from_nir(graph, dt=dt * UNIT, reset_method=once)
    found = stepped(module, wanted.layers[0], dt, 8.0, state=True)
    check_steps("norse", dt, errors_of(found, wanted.output))


def test_snntorch(reader, network, times):
    snntorch = reader("snntorch.import_nir")
    before, *wanted = network.record(times).layers
    for index, after in enumerate(wanted, 1):  # layer by layer: it always resets to 0, and neurons spike again
        for dt in (0.02, 0.004):
            graph = fs.to_nir(fs.Network(network[index]), target="snntorch", time_unit=1e-4 / dt)
            found = stepped(snntorch.import_from_nir(graph), before, dt, 8.0)
            check_steps("snntorch", dt, errors_of(found, after))
        before = after


def test_jaxsnn(reader, network, times):
    event = reader("jaxsnn.event")
    jax = reader("jax")
    types = reader("jaxsnn.event.types")
    wanted = network.record(times)
    graph = fs.to_nir(network, time_unit=1e3 * UNIT)  # milliseconds
    if version("jaxsnn") == "0.3.0":  # it takes weights as (inputs, outputs), which NIR has not
        turned = {
            name: nir.Linear(weight=node.weight.T) if isinstance(node, nir.Linear) else node
            for name, node in graph.nodes.items()
        }
        graph = nir.NIRGraph(nodes=turned, edges=graph.edges, type_check=False)
    given = wanted.layers[0].numpy()
    order = np.argsort(given, axis=1)
    longest = 20 * UNIT
    at = np.minimum(np.take_along_axis(given, order, axis=1) * UNIT, 2 * longest)  # how it has no spike
    jax.config.update("jax_enable_x64", True)
    steps = {"lif_0": 5 + 12, "lif_1": 12 + 3}
    init, apply = event.from_nir(graph, event.ConversionConfig(t_max=longest, n_steps=steps)).done()
    spikes = types.Spike(at, order, np.zeros_like(at), np.zeros_like(order), np.ones_like(order, dtype=bool))
    events = apply({"input": spikes}, init(jax.random.PRNGKey(0)))
    errors = []
    for index, name in ((1, "lif_0"), (2, "lif_1")):
        found = torch.full_like(wanted.layers[index], torch.inf)
        time, neuron, own = (np.asarray(getattr(events[name], x)) for x in ("time", "idx", "internal"))
        for sample, k in zip(*np.nonzero(own & (time < longest)), strict=True):
            place = sample, neuron[sample, k]
            found[place] = min(float(found[place]), time[sample, k] / UNIT)
        errors.append(errors_of(found, wanted.layers[index])[1])
    print(f"jaxsnn {version('jaxsnn')}: {errors}")  # noqa: T201
    assert max(errors) < 1e-9
