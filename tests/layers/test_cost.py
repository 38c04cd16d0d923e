"""Spikes and synaptic events, counted one by one."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.layers.cost import ENERGIES, LayerCost, energy_estimates, fan_out, layer_costs

INF = math.inf


def test_each_pixel_reaches_the_patches_it_is_in():
    conv = fs.LIFConv2d((2, 4, 5), 3, kernel_size=(2, 3), stride=(1, 2), padding=1)
    expected = torch.zeros(2, 6, 7, dtype=torch.int64)
    for row in range(0, 6 - 1, 1):
        for column in range(0, 7 - 2, 2):
            expected[:, row : row + 2, column : column + 3] += 3
    assert torch.equal(fan_out(conv), expected[:, 1:-1, 1:-1].flatten())
    assert fan_out(fs.LIFLinear(4, 7)).tolist() == [7] * 4


def test_means_over_the_samples():
    net = fs.Network(fs.LIFLinear(3, 2), fs.EarliestPool2d((1, 1, 2), (1, 2)), fs.LIFLinear(1, 2))
    inputs = torch.tensor([[0.1, INF, 0.5], [0.2, 0.3, 0.4]])
    layers = (
        torch.tensor([[0.7, 0.9], [INF, 1.1]]),
        torch.tensor([[0.7], [1.1]]),
        torch.tensor([[1.5, 0.8], [INF, INF]]),
    )
    record = fs.Record(inputs, layers)
    found = layer_costs(net, record)
    assert found == [("input", 2.5, 0.0), ("hidden", 1.5, 5.0), ("output", 1.0, 2.0)]
    until = torch.tensor([0.8, INF])
    assert layer_costs(net, record, until) == [("input", 2.5, 0.0), ("hidden", 1.0, 5.0), ("output", 0.5, 2.0)]
    assert layer_costs(net, record, torch.tensor([0.3, 0.3]))[1] == ("hidden", 0.0, 3.0)


def test_trains_and_recurrence_count_every_spike():
    net = fs.Network(fs.LIFRecurrent(2, 3, max_spikes=2, duration=4.0, window=1.0), fs.IntegralReadout(3, 2))
    inputs = torch.tensor([[[0.1, 0.2], [0.3, INF]]])
    spikes = torch.tensor([[[0.5, 0.9], [INF, INF], [1.0, INF]]])
    found = layer_costs(net, fs.Record(inputs, (spikes, torch.zeros(1, 2))))
    assert found == [("input", 3.0, 0.0), ("hidden", 3.0, 3 * 3 + 3 * 3), ("output", 0.0, 3 * 2)]


@pytest.mark.parametrize("readout", [fs.IntegralReadout, fs.MaximumReadout])
def test_synapses_of_a_readout_after_first_spikes(readout):
    net = fs.Network(fs.LIFLinear(3, 4), readout(4, 5))
    inputs, spikes = torch.tensor([[0.1, INF, 0.5]] * 2), torch.tensor([[0.7, 0.9, INF, INF], [INF, 1.1, INF, 0.2]])
    record = fs.Record(inputs, (spikes, torch.zeros(2, 5)))
    assert layer_costs(net, record) == [("input", 2.0, 0.0), ("hidden", 2.0, 8.0), ("output", 0.0, 10.0)]
    until = torch.tensor([0.8, 1.0])
    assert layer_costs(net, record, until)[1:] == [("hidden", 1.0, 8.0), ("output", 0.0, 5.0)]
    alone = fs.Record(inputs, (torch.zeros(2, 5),))
    assert layer_costs(fs.Network(readout(3, 5)), alone) == [("input", 2.0, 0.0), ("output", 0.0, 10.0)]
    assert fan_out(readout(4, 7)).tolist() == [7] * 4


def test_other_modules_have_no_known_cost():
    assert layer_costs(torch.nn.Identity(), fs.Record(torch.zeros(1, 2), (torch.zeros(1, 2),))) == []


@pytest.mark.parametrize("until", [False, True])
def test_costs_of_a_run(bars_folder, until):
    result = fs.Run(bars_folder).evaluate("test")
    found = result.numbers["cost_until_decision" if until else "cost"]
    assert list(found) == ["input", "hidden", "output"]
    assert found["hidden"]["synaptic_events"] == pytest.approx(11 * found["input"]["spikes"])
    assert ("until the decision: " if until else "per sample: ") in result.text()


def test_energies_are_events_times_a_published_number():
    costs = [LayerCost("input", 4.0, 0.0), LayerCost("hidden", 2.0, 800.0), LayerCost("output", 0.0, 200.0)]
    found = energy_estimates(costs)
    assert found.keys() == ENERGIES.keys()
    assert found["loihi"] == pytest.approx(23.6e-9)
    assert found["spinnaker2"] == pytest.approx(10e-9)
    assert found["brainscales2"] == pytest.approx(8.4e-6)  # the chip's power, whatever happens on it
    assert all(energy.source and energy.without for energy in ENERGIES.values())
