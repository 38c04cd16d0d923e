"""Steps of series do not overlook what grows from next to nothing, or from nothing, while all else stands still."""

import math

import pytest
import torch

from firstspike import Neuron, spike_trains
from firstspike.neurons import EIF

LEVEL, SPEED = 0.05, 20.0
# dv/dt by x, which grows by SPEED in a unit of time, and x when v is at LEVEL
HIDDEN = {
    "exp": ("exp(x - 90)", 90 + math.log(SPEED * LEVEL)),
    "exp of a line": ("2*exp(3*x/2 - 200)", (200 + math.log(0.75 * SPEED * LEVEL)) / 1.5),
    "tanh": ("tanh(x - 50) + 1", 50 + math.log(math.expm1(SPEED * LEVEL)) / 2),
    "logistic": ("1 / (1 + exp(50 - x))", 50 + math.log(math.expm1(SPEED * LEVEL))),
    "sin": ("x - sin(x)", 1.2302967564),
} | {f"power {p}": (f"x**{p}", ((p + 1) * SPEED * LEVEL) ** (1 / (p + 1))) for p in (3, 4, 7, 16)}


@pytest.mark.parametrize(("rate", "reached"), HIDDEN.values(), ids=HIDDEN)
def test_growth_from_nothing(rate, reached):
    if rate == "x - sin(x)":  # x^2 / 2 + cos(x) - 1 = SPEED LEVEL has no closed form
        for _ in range(50):
            reached -= (reached**2 / 2 + math.cos(reached) - 1 - SPEED * LEVEL) / (reached - math.sin(reached))
    neuron = Neuron(
        f"dv/dt = {rate}; dx/dt = i; di/dt = 0", threshold="v > level", receptors=["i"], reset="v = 0; x = 0; i = 0",
        level=LEVEL,
    )  # fmt: skip
    times, weight = torch.ones(1, 1, 1, dtype=torch.float64), torch.full((1, 1), SPEED, dtype=torch.float64)
    weight.requires_grad_()
    spike = spike_trains(times, weight, neuron, max_spikes=4, until=20.0)[0, 0]
    assert spike[1:].isinf().all()
    torch.testing.assert_close(spike[0].item(), 1 + reached / SPEED, rtol=0, atol=1e-12)
    spike[0].backward()
    # v at a fixed time is a function of SPEED t, divided by SPEED
    slope = weight.grad.item() * SPEED
    eps = 1e-4
    faster, slower = (
        spike_trains(times, torch.full_like(weight, SPEED * (1 + x)), neuron, max_spikes=4, until=20.0)[0, 0, 0].item()
        for x in (eps, -eps)
    )
    assert slope == pytest.approx((faster - slower) / (2 * eps), abs=1e-6)


@pytest.mark.parametrize("unit", [5000.0, 1e7, 1e-6])
def test_nothing_left_after_a_long_gap(unit):
    """Coefficients of a state that has decayed are below all numbers where time constants are large."""

    def spikes(unit):
        times = torch.tensor([[[0.3], [400.0]]], dtype=torch.float64) * unit
        weight = torch.full((1, 2), 3.0, dtype=torch.float64)
        neuron = EIF(unit, 0.5 * unit)
        return spike_trains(times, weight, neuron, max_spikes=2, until=405 * unit, backend="cpu") / unit

    assert spikes(1.0)[0, 0] == pytest.approx([0.7766, 400.4762], abs=1e-4)
    torch.testing.assert_close(spikes(unit), spikes(1.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gap", [1000.0, 1500.0, 2300.0, 1e5, 1e9])
def test_gradients_pass_a_long_gap(gap):
    """A current of which the steps forward have left nothing is not made of rounding on the way back."""
    neuron = Neuron(
        "dv/dt = i / tau; di/dt = -i / tau", threshold="v > 1", reset="v = 0", receptors=["i"],
        tau=torch.tensor(1.0, dtype=torch.float64, requires_grad=True),
    )  # fmt: skip
    times = torch.tensor([[[0.0], [gap]]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    spike = spike_trains(times, weight, neuron, max_spikes=1, overflow="drop", until=gap + 5, backend="cpu")[0, 0, 0]
    found = torch.autograd.grad(spike, [times, weight, neuron.tau])
    delay = math.log(6 / 5)  # until 3 (1 - exp(-delay / tau)) is 1 / 2
    for x, expected in zip(found, ([0.0, 1.0], [-0.4, -1 / 15], [delay]), strict=True):
        assert x.flatten().tolist() == pytest.approx(expected, abs=4e-16 * gap + 1e-13)
