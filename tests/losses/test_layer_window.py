"""The window of spikes after a layer's inputs: its value by hand, its gradient, what it leaves out, its effect."""

import math

import pytest
import torch

from firstspike import LIF, Concatenate, LIFConv2d, LIFLinear, LIFSpikeTrains, Network, Record
from firstspike.layers.ensembles import Ensemble
from firstspike.losses import LayerWindow

INF = math.inf
DOUBLE = {"dtype": torch.float64}
LABELS = torch.zeros(2, dtype=torch.int64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lif(inputs, outputs, seed=0):
    return LIFLinear(inputs, outputs, LIF(2.0), generator=seeded(seed), **DOUBLE)


def test_by_hand():
    network = Network(lif(3, 2), lif(2, 2))
    times = torch.tensor([[0.0, 2.0, INF], [INF, INF, INF]], **DOUBLE)  # mean 1, and none
    hidden = torch.tensor([[0.5, 5.0], [INF, INF]], **DOUBLE)  # lags -0.5 and 4; mean 2.75
    output = torch.tensor([[3.25, INF], [INF, INF]], **DOUBLE)  # lag 0.5
    record = Record(times, (hidden, output))
    found = LayerWindow(2.0, 0.0, 2.0, tau_syn=1.0)(output, LABELS, network, record)
    assert found.item() == pytest.approx(2.0 * (0.5**2 + 2.0**2) / 4)
    later = LayerWindow(1.0, 1.0, 2.0, tau_syn=1.0)(output, LABELS, network, record)
    assert later.item() == pytest.approx((1.5**2 + 2.0**2 + 0.5**2) / 4)
    scaled = LayerWindow(2.0, 0.0, 2.0, tau_syn=5.0)(
        5 * output, LABELS, network, Record(5 * times, (5 * hidden, 5 * output))
    )
    assert scaled.item() == pytest.approx(found.item())


def test_gradient():
    network = Network(LIFConv2d((1, 4, 4), 2, 3, LIF(2.0), generator=seeded(), **DOUBLE), lif(8, 5, 1), lif(5, 3, 2))
    times = torch.rand(6, 16, generator=seeded(3), **DOUBLE)
    times[0, :3] = INF
    window, labels = LayerWindow(1.0, 0.6, 0.8), torch.zeros(6, dtype=torch.int64)
    weight = network[0].weight

    def value():
        record = network.record(times)
        return window(record.output, labels, network, record)

    (gradient,) = torch.autograd.grad(value(), [weight])
    direction = torch.randn(weight.shape, generator=seeded(4), **DOUBLE)
    sides = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            weight += step * direction
        sides.append(value().item())
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
    assert bool(gradient.any())


def test_it_draws_spikes_into_the_window():
    network = Network(lif(4, 12), lif(12, 12, 1), lif(12, 3, 2))
    times, labels = torch.rand(20, 4, generator=seeded(5), **DOUBLE), torch.zeros(20, dtype=torch.int64)
    window = LayerWindow(1.0, 0.4, 0.7)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    values = []
    for _ in range(60):
        record = network.record(times)
        total = window(record.output, labels, network, record)
        values.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert values[-1] < 0.4 * values[0]


def test_trains_connections_and_ensembles():
    times = torch.rand(2, 4, generator=seeded(6), **DOUBLE)
    trains = Network(LIFSpikeTrains(4, 3, 4, LIF(2.0), overflow="drop", generator=seeded(), **DOUBLE))
    record = trains.record(times)
    first = Record(times, (record.output[..., 0],))
    window = LayerWindow(1.0, 1.0, 1.1)
    alone = window(first.output, LABELS, Network(lif(4, 3)), first)
    assert window(record.output, LABELS, trains, record).item() == pytest.approx(alone.item())
    again = torch.stack([times + 2, times], dim=-1)  # as trains in any order
    found = window(record.output, LABELS, trains, Record(again, record.layers))
    assert found.item() == pytest.approx(alone.item())
    members = [
        Network(lif(4, 4, seed), Concatenate(4, 1, delay=0.5, **DOUBLE), lif(8, 3, seed + 1)) for seed in (0, 10)
    ]

    def term(network):
        record = network.record(times)
        return window(record.output, LABELS, network, record)

    together = Ensemble(members).map(term)
    torch.testing.assert_close(together, torch.stack([term(member) for member in members]))


def test_refused():
    with pytest.raises(ValueError, match=r"stop: expected a number above start, which is 1, got 0\.5"):
        LayerWindow(1.0, 1, 0.5)
    with pytest.raises(ValueError, match="LayerWindow needs a Network and its record"):
        LayerWindow(1.0)(torch.rand(2, 3), LABELS, Network(lif(4, 3)))
