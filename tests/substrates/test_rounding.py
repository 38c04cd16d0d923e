"""Times in milliseconds that simulators have in whole steps: kept, refused or warned about."""

import warnings

import pytest
import torch

from firstspike.layers import DelayRule, Network, SpikeTrains, SpikingRecurrent
from firstspike.neurons import LIF
from firstspike.substrates import Brian2, Nest, Neuron

DOUBLE = {"dtype": torch.float64}
END = 100.0


def layer_of(source, tau_syn=5.0, inputs=6, refractory=2.0, **options):
    """Neurons in ms and mV; with a ``window`` they are connected to each other."""
    neuron = LIF(10.0, tau_syn, 15.0, refractory=refractory, bias=options.pop("bias", 0.0))
    kind, more = (SpikingRecurrent, (END,)) if "window" in options else (SpikeTrains, ())
    if isinstance(tau_syn, tuple):
        options["receptor"] = "sign"
    options |= {"recurrent_std": 3.0, "overflow": "drop"} if more else {}
    given = {"weight_mean": 8.0, "weight_std": 6.0, "generator": source} | DOUBLE | options
    return kind(inputs, 5, 90, *more, neuron, **given)


@pytest.mark.nest
@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_networks_in_milliseconds(source, shift):
    """Layers of several time constants, and inputs before time 0."""
    network = Network(
        layer_of(source, 2.2, bias=3.0),
        layer_of(source, (5.0, 10.0), 5, window=1.5),
        layer_of(source, torch.linspace(1.3, 2.9, 5, **DOUBLE), 5, refractory=0.7),
    ).requires_grad_(False)
    times = (0.8 * END * torch.rand(3, 6, 9, generator=source, **DOUBLE)).sort(-1).values - shift
    with warnings.catch_warnings(), Nest(0.1, 1000.0, unit="times").open(network) as nest:
        found = nest.run(network, times)
    for one, other in zip(found.layers, network.record(times).layers, strict=True):
        assert int(torch.isfinite(other).sum()) > 60
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_syn": 2.2}, "times of whole steps of 0.022, at least 1, got a refractory of 2: set the neuron's "
         "refractory, or a substrate.step of 0.00909090909"),
        ({"refractory": 0.0}, "of 0.05, at least 1, got a refractory of 0: set the neuron's refractory"),
        ({"window": 1.52}, "delays of whole steps of 0.05, at least 1, got a window of 1.52: set the layer's window, "
         "or a substrate.step of 0.008"),
    ],
)  # fmt: skip
def test_nest_refuses_what_it_would_round(source, options, message):
    with pytest.raises(ValueError, match=r"^layer 1: NEST has ") as error:
        Nest().open(Network(layer_of(source), layer_of(source, inputs=5, **options)))
    assert str(error.value).endswith(message)


@pytest.mark.nest
@pytest.mark.parametrize("step", [1 / 110, 0.008])
def test_steps_that_are_proposed_fit(source, step):
    Nest(step).open(Network(layer_of(source, 2.2) if step > 0.008 else layer_of(source, window=1.52)))


@pytest.mark.parametrize(
    ("simulator", "options", "message"),
    [
        (Nest, {"window": 1.5, "recurrent_delay": DelayRule("clip", 3.0, mean=1.0)},
         r"NEST has delays of .* of 0\.05, and rounds a recurrent_delay of 2\.\d+ by 0\.0[12]\d*: smaller steps"),
        (Nest, {"window": 1.5, "recurrent_delay": DelayRule("clip", 3.0, mean=0.52, std=0.0)},
         r"NEST has delays .* a recurrent_delay of 2\.02 by 0\.02: a substrate\.step of 0\.004 does not$"),
        (Neuron, {"refractory": 2.02}, r"NEURON has refractory times .* by 0\.02: a substrate\.step of 0\.00985365854"),
        (Brian2, {"window": 1.52}, r"Brian2 has delays of .* of 0\.05, and rounds a window of 1\.52 by 0\.02: a subs"),
    ],
)  # fmt: skip
def test_rounding_is_warned_of(source, monkeypatch, simulator, options, message):
    monkeypatch.setattr(simulator, "_load", lambda self: None)
    with pytest.warns(UserWarning, match=f"^layer 0: {message}"):
        simulator().open(Network(layer_of(source, **options)))


@pytest.mark.nest
@pytest.mark.parametrize("kind", ["window", "bias", "plain"])
def test_nothing_is_left_out_by_default(source, kind):
    """Spikes come for 120 time constants, and neurons that spike for ever end with their layer."""
    options = {"window": {"window": 1.5}, "bias": {"window": 1.5, "bias": 16.0}, "plain": {}}[kind]
    layer = layer_of(source, 2.0, **options)
    layer.duration, layer.max_spikes = 240.0, 200
    times = (240 * torch.rand(2, 6, 12, generator=source, **DOUBLE)).sort(-1).values
    network = Network(layer).requires_grad_(False)
    with Nest(0.1, unit="times").open(network) as nest:
        found, wanted = nest.run(network, times).output, network(times)
    assert float(wanted[wanted.isfinite()].max()) > 210
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)
