"""Readouts of neurons that are linear between events: against the operator, and their gradients."""

import math
from dataclasses import replace

import pytest
import torch
from test_readouts import KINDS, seeded, trains

from firstspike import LIF, IntegralReadout, MaximumReadout, SpikeTrains
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import spike_window

INF = math.inf


TWO = LIF(2.0, (0.6, 3.0), tau_rise=(0.3, 3.0), bias=0.2)
LINEAR = {
    "receptors": (LIF(2.0, (0.6, 3.0)), [0, 1, 0]),
    "sign": (LIF(2.0, (0.6, 3.0)), "sign"),
    "rise": (LIF(2.0, 1.0, tau_rise=0.5), None),
    "bias": (TWO, [1, 0, 1]),
}


def linear(kind, name, **options):
    neuron, receptor = LINEAR[name]
    return KINDS[kind](3, 2, neuron, receptor=receptor, dtype=torch.float64, generator=seeded(), **options)


def course(readout, times, at):
    """The membranes of a sample at times, from one spike train that is read in steps of a window."""
    one, state, found = replace(readout.neuron, threshold=1e9), None, []
    given = {"receptor": readout.reached, "backend": "reference"}
    for end in at.tolist():
        window = spike_window(times, readout.weight.detach(), one, max_spikes=1, state=state, until=end, **given)
        state = window.state
        found.append(state.voltage)
    return torch.stack(found)


@pytest.mark.parametrize("name", LINEAR)
def test_readouts_of_linear_neurons_against_the_operator(name):
    times, at = trains(), torch.linspace(0.5, 30, 60, dtype=torch.float64)
    voltage = course(linear("membrane", name), times, at)
    torch.testing.assert_close(linear("membrane", name)(times), voltage[4], rtol=1e-10, atol=1e-12)
    maximum = linear("maximum", name)
    maximum.load_state_dict(linear("membrane", name).state_dict())
    found = maximum(times).detach()
    assert bool((found >= voltage.amax(0).clamp(min=0) - 1e-12).all())
    assert float((found - voltage.amax(0).clamp(min=0)).max()) < 0.1
    fine = torch.linspace(0.05, 30, 600, dtype=torch.float64)
    if name == "rise":
        discounted = torch.exp(-fine / 3)[:, None, None] * course(linear("integral", name), times, fine)
        sums = torch.trapezoid(discounted, fine, dim=0)
        torch.testing.assert_close(linear("integral", name)(times), sums, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_linear_readouts(kind, name):
    times = trains(samples=3, spikes=3, seed=3)
    arrives, readout = times.isfinite(), linear(kind, name)

    def values(finite, weight):
        return torch.func.functional_call(readout, {"weight": weight}, (times.masked_scatter(arrives, finite),))

    assert torch.autograd.gradcheck(values, (times[arrives].requires_grad_(), readout.weight), atol=1e-7)


@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("kind", ["integral", "membrane"])
def test_linear_readouts_learn_their_constants(kind, per_neuron):
    readout = linear(kind, "bias", trainable=["tau_mem", "tau_syn", "tau_rise", "bias"], per_neuron=per_neuron)
    names = ["log_tau_mem", "log_tau_syn", "log_tau_rise", "bias"]

    def values(*constants):
        return torch.func.functional_call(readout, dict(zip(names, constants, strict=True)), (trains(),))

    assert torch.autograd.gradcheck(values, [getattr(readout, name) for name in names])
    torch.testing.assert_close(readout(trains()), linear(kind, "bias")(trains()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_receptors_of_a_readout(kind):
    several = KINDS[kind](3, 2, LIF(2.0, (1.0, 1.0)), receptor=[0, 1, 0], dtype=torch.float64, generator=seeded())
    one = KINDS[kind](3, 2, LIF(2.0), dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(several(trains()), one(trains()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [*KINDS, "trains"])
def test_a_rise_that_is_a_tensor_beside_none(kind):
    """A current that jumps and one whose rise is a tensor give what two numbers do."""
    found = []
    for rise in (0.3, torch.tensor(0.3, dtype=torch.float64)):
        neuron, options = LIF(2.0, (0.6, 3.0), tau_rise=(rise, 0.0)), {"dtype": torch.float64, "generator": seeded()}
        if kind == "trains":
            layer = SpikeTrains(
                3, 2, 30, neuron, receptor=[0, 1, 0], until=9.0, weight_mean=3.0, weight_std=1.0, **options
            )
        else:
            layer = KINDS[kind](3, 2, neuron, receptor=[0, 1, 0], **options)
        found.append(layer(trains()))
    assert found[0].isfinite().any()
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "tau_rise"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_time_constants_that_no_membrane_has(kind, name, value):
    given = {"tau_rise": 0.5} | {name: torch.tensor(value)}
    with pytest.raises(ValueError, match=rf"^{name} must be > 0 in a tensor, got {value}$"):
        KINDS[kind](3, 2, LIF(**given))


def test_linear_readouts_that_do_not_fit():
    with pytest.raises(
        ValueError, match="readouts do not spike: nothing of them adapts, give a LIF instead of Adaptive"
    ):
        MaximumReadout(3, 2, AdaptiveLIF(2.0, adaptation=[(3.0, 0.5)]))
    with pytest.raises(ValueError, match="the integral diverges for a bias with tau=inf; give a finite tau"):
        IntegralReadout(3, 2, LIF(2.0, bias=0.1), tau=INF)
    with pytest.raises(ValueError, match=r"has 2 receptors: say which one each input reaches"):
        MaximumReadout(3, 2, LIF(2.0, (0.6, 3.0)))
    tau = torch.tensor(0.6).requires_grad_()
    with pytest.raises(ValueError, match="MaximumReadout has no gradient of time constants"):
        MaximumReadout(3, 2, LIF(2.0, (tau, 3.0)), receptor="sign")
