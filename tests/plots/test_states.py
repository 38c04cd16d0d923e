"""States of neurons from equations at given times."""

import matplotlib.pyplot as plt
import pytest
import torch

from firstspike import LIF, Neuron
from firstspike.layers import SpikeTrains, SpikingLinear
from firstspike.neurons import QIF
from firstspike.plots.membranes import membrane, traces


@pytest.mark.parametrize("trains", [False, True])
def test_membranes_are_those_of_lif_neurons(trains):
    text = "dv/dt = -v/tau_mem + i/tau_syn; di/dt = -i/tau_syn"
    described = Neuron(text, threshold="v > 1", reset="v = 0", receptors=["i"], tau_mem=2.0, tau_syn=1.0)
    torch.manual_seed(0)
    options = {"until": 8.0, "dtype": torch.float64, "weight_mean": 0.8, "weight_std": 0.4}
    kind, more = (SpikeTrains, {"max_spikes": 9}) if trains else (SpikingLinear, {})
    layers = [kind(6, 3, neuron=x, **options, **more) for x in (LIF(2.0), described)]
    layers[1].weight.data.copy_(layers[0].weight.data)
    times = 2 * torch.rand(6, dtype=torch.float64)
    spikes = layers[0](times[None])[0].detach()
    one, other = (traces(layer, times, spikes, range(3), until=7.0) for layer in layers)
    mine, theirs = torch.isin(one.at, other.at), torch.isin(other.at, one.at)  # points at spikes are others
    at = one.at[mine]
    assert len(at) >= 1000
    for k in range(3):  # a neuron that spikes once is followed without a reset, others from equations spike on
        known = (at < one.spikes[k].min()) if not trains and len(one.spikes[k]) else at < 7.0
        known &= ~torch.isin(at, torch.nextafter(one.spikes[k], at.new_tensor(torch.inf)))
        torch.testing.assert_close(one.voltage[k][mine][known], other.voltage[k][theirs][known], rtol=1e-9, atol=1e-9)
    for k in range(3):  # just before a spike the membrane is at the threshold
        before = [other.voltage[k][(other.at < t) & (other.at > t - 1e-7)].max() for t in other.spikes[k]]
        assert before == pytest.approx([1.0] * len(before), abs=1e-6)
    assert set(other.currents) == {"i"}
    assert not one.currents


def test_a_figure_of_quadratic_neurons():
    torch.manual_seed(0)
    layer = SpikeTrains(6, 3, 20, QIF(), until=8.0, overflow="drop")
    figure, ax = plt.subplots()
    membrane(layer, 2 * torch.rand(6), ax)
    heights = [line.get_ydata() for line in ax.lines]
    assert all(torch.as_tensor(y).isfinite().all() for y in heights)
    plt.close(figure)
