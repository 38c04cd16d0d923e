"""What every substrate must do: with ideal settings it is the exact one, within its resolution."""

import math

import pytest
import torch

from firstspike.layers import LIFConv2d, LIFLinear, Network
from firstspike.substrates import SUBSTRATES, Exact

# For each substrate: settings without imperfections, and how far a time may be off, per layer and in the unit of the
# times. A neuron whose membrane only just reaches its threshold may differ more; so many of 1000 may.
IDEAL = {
    "exact": ({}, 0.0, 0),
    "integrator": ({"step": 0.002, "duration": 15.0}, 0.003, 5),
    "noisy": ({}, 0.0, 0),
    # times are in steps of 8 ns of 6 us
    "mock_bss2": (
        {"threshold_offset": 0, "threshold_spread": 0, "threshold_batch_noise": 0, "delay_jitter": 0, "refractory": 99},
        0.002,
        5,
    ),
    "nest": ({}, 1e-10, 0),
    "neuron": ({}, 0.03, 10),
    "brian2": ({"step": 0.02}, 0.04, 5),
    "brainscales2": ({"calibration": "ideal.pbin"}, 0.002, 5),
}
# Simulators that are slow, or not in the extra dev: see tests/conftest.py. They get fewer samples.
OPTIONAL = {"neuron": 20, "brian2": 8}


def test_every_substrate_is_tested():
    assert IDEAL.keys() == SUBSTRATES.keys()


MARKED = {"nest", *OPTIONAL}
KINDS = [pytest.param(x, marks=[getattr(pytest.mark, x)] if x in MARKED else []) for x in SUBSTRATES]


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "brainscales2":
        request.getfixturevalue("machine")
    return request.param


@pytest.fixture
def times(times, kind):
    return times[: OPTIONAL.get(kind)]


@pytest.fixture
def ideal(kind):
    return SUBSTRATES[kind](**IDEAL[kind][0])


def compare(found, wanted, kind, rounding=0.0):
    _, tolerance, allowed = IDEAL[kind]
    for layer, (one, other) in enumerate(zip(found.layers, wanted.layers, strict=True)):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        same = (one == other) | ((one - other).abs() <= tolerance * (layer + 1) + rounding)
        assert int((~same).sum()) <= math.ceil(allowed * same.numel() / 1000), layer


@pytest.mark.slow
def test_ideal_settings_are_exact(kind, ideal, network, times):
    wanted = Exact().run(network, times)
    spikes = wanted.layers[3]
    assert bool(torch.isinf(spikes[:, 0]).all())  # silent
    assert 0.3 < float(torch.isfinite(spikes).double().mean()) < 0.97
    assert float(torch.isfinite(wanted.output).double().mean()) > 0.2
    with ideal.open(network) as substrate:
        found = substrate.run(network, times)
        assert not any(layer.requires_grad for layer in found.layers)
        compare(found, wanted, kind)
        compare(substrate.record(network, times), wanted, kind)


def test_float32(kind, ideal, network, times):
    network, times = network.float(), times.float()
    with ideal.open(network) as substrate:
        # those that compute in float64 differ by what the exact one loses
        rounding = 2e-5 if kind in {"nest", "neuron", "brian2"} else 0.0
        compare(substrate.run(network, times), Exact().run(network, times), kind, rounding)


def test_nothing_is_changed(kind, ideal, network, times):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given, state = times.clone(), torch.get_rng_state()
    with ideal.open(network) as substrate:
        substrate.record(network, times)
    assert torch.equal(given, times)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.slow
def test_gradient_is_the_exact_one_at_the_observed_times(kind, ideal, network, times):
    with ideal.open(network) as substrate:
        state = substrate.state_dict()
        seen = substrate.run(network, times)
        substrate.load_state_dict(state)
        loss(substrate.record(network, times)).backward()
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    loss(network.record(seen.inputs, seen.layers)).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
        assert float(parameter.grad.abs().max()) > 0


def loss(record):
    return torch.where(torch.isfinite(record.output), record.output, 0.0).square().sum()


@pytest.mark.slow
def test_later_batches_have_the_weights_of_then(kind, ideal, network, times):
    with ideal.open(network) as substrate:
        substrate.run(network, times)
        with torch.no_grad():
            network[3].weight += 0.2  # six digits
        compare(substrate.run(network, times), Exact().run(network, times), kind)


def test_a_layer_without_any_input_is_silent(kind, ideal):
    network = Network(LIFLinear(2, 3, dtype=torch.float64))
    nothing = torch.full((5, 2), torch.inf, dtype=torch.float64)
    with ideal.open(network) as substrate:
        assert bool(torch.isinf(substrate.run(network, nothing).output).all())


def test_identity_is_plain(kind, ideal, network):
    with ideal.open(network) as substrate:
        identity = substrate.identity()
    assert identity["kind"] == kind
    assert plain(identity)


def plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(x) for key, x in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def test_close_twice(ideal, network):
    with ideal.open(network):
        pass
    ideal.close()


def test_layers_that_only_exact_has_are_refused(kind, ideal):
    network = Network(LIFConv2d((1, 4, 4), 2, 3), LIFLinear(8, 3))
    if kind == "exact":
        assert ideal.open(network).run(network, torch.rand(2, 16)).output.shape == (2, 3)
        return
    with pytest.raises(ValueError, match=r"layer 0: the .* does not support LIFConv2d"):
        ideal.open(network)
