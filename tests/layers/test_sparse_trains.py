"""Layers for spike trains with sparse synapses and without recurrence compute as those with a matrix do."""

import math
import pickle
from itertools import pairwise

import pytest
import torch

from firstspike import LIF, DelayRule, SpikeTrains, connect
from firstspike.layers import rows
from firstspike.neurons import AdaptiveLIF

NEURONS = {
    "one": LIF(10.0, 2.0, refractory=2.0),
    "bias": LIF(10.0, 2.0, bias=1.5),
    "two": LIF(10.0, (2.0, 4.0)),
    "adaptive": AdaptiveLIF(10.0, 2.0, adaptation=((20.0, 0.3),)),
    "rise": LIF(10.0, 2.0, tau_rise=1.0),
}
INPUTS, NEURONS_EACH = 60, 40
pytestmark = pytest.mark.slow  # there are kernels of their own for layers without delays, and for linear neurons


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def layer_of(neuron, delays=False, signs=False, **options):
    draw = seeded()
    found = connect.fixed_indegree(
        INPUTS, NEURONS_EACH, 30, generator=draw, weight=lambda n: 0.1 + 0.2 * torch.randn(n, generator=draw).double()
    )
    if delays:
        found = found.with_values(delay=5 * torch.rand(len(found), generator=draw).double())
        options["delay"] = DelayRule("clip", 10.0)
    if len(neuron.receptors) > 1:
        options["receptor"] = "sign" if signs else [0, 1] * (INPUTS // 2)
    options = {"overflow": "drop", "synapses": found, "dtype": torch.float64} | options
    return SpikeTrains(INPUTS, NEURONS_EACH, options.pop("max_spikes", 20), neuron, **options)


def trains(samples=3, spikes=3, dtype=torch.float64):
    times = 40 * torch.rand(samples, INPUTS, spikes, generator=seeded(1), dtype=dtype) - 5
    times[:1, :, 1:] = math.inf
    return times.sort(-1).values


def result(layer, times, observed=None):
    times = times.clone().requires_grad_()
    found = layer(times, observed=observed)
    learns = [x for x in layer.parameters() if x.requires_grad]
    gradients = torch.autograd.grad(torch.where(found.isfinite(), found, 0.0).square().sum(), [times, *learns])
    return found.detach(), gradients


@pytest.fixture
def by_rows(monkeypatch):
    """Synapses compute one by one in small layers, too."""

    def switch():
        for name, x in (("MANY", 1), ("FEW", 1.0), ("FEWER", 1.0)):
            monkeypatch.setattr(rows, name, x)

    return switch


def compare(layer, times, switch):
    expected, gradients = result(layer, times)
    _, of_observed = result(layer, times, expected)
    assert layer._structure() is None
    switch()
    layer = pickle.loads(pickle.dumps(layer))  # which keeps no structure
    found, others = result(layer, times)
    assert layer._structure() is not None
    assert torch.isfinite(found).sum() > 50
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    _, again = result(layer, times, expected)
    for one, other in zip((*others, *again), (*gradients, *of_observed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8 * float(other.abs().max()))


QUICK = ("one", "two")


@pytest.mark.parametrize("until", [math.inf, pytest.param(25.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("delays", [False, True])
@pytest.mark.parametrize("kind", [pytest.param(x, marks=[pytest.mark.slow] * (x not in QUICK)) for x in NEURONS])
def test_the_same_spikes_and_gradients_as_by_a_matrix(by_rows, kind, delays, until):
    compare(layer_of(NEURONS[kind], delays, until=until), trains(), by_rows)


@pytest.mark.slow
def test_receptors_by_sign_and_few_spikes_of_many(by_rows):
    compare(layer_of(NEURONS["two"], signs=True, max_spikes=2), trains(), by_rows)


@pytest.mark.slow
def test_a_mask_computes_as_synapses(by_rows):
    layer = layer_of(NEURONS["one"], synapses=None, mask=0.4, generator=seeded(2), weight_mean=0.1, weight_std=0.2)
    compare(layer, trains(), by_rows)


def test_many_arrivals_are_cut_into_windows_that_few_batches_change(by_rows):
    by_rows()
    layer = layer_of(NEURONS["one"])
    structure = layer._structure()
    bounds = rows.windows_for(trains(8, 20), structure, 0.0, -math.inf, math.inf)
    assert (bounds[0], bounds[-1]) == (-math.inf, math.inf)
    assert len(bounds) > 10
    assert len({y - x for x, y in pairwise(bounds[1:-1])}) == 1
    parts = [rows.windows_for(x, structure, 0.0, -math.inf, math.inf) for x in trains(8, 20).split(4)]
    assert parts == [bounds, bounds]
    assert rows.windows_for(trains(2, 1), structure, 0.0, -math.inf, 30.0) == (-math.inf, 30.0)
    assert all(0 <= x <= 20 for x in rows.windows_for(trains(8, 20), structure, 9.0, 0.0, 20.0))
    late = 1e8 + trains(8, 20, torch.float32)  # of which float32 tells few apart
    found = rows.windows_for(late, structure, 0.0, -math.inf, math.inf)
    assert list(found) == sorted(set(found))


def test_nothing_arrives_or_nobody_is_connected(by_rows):
    by_rows()
    layer = layer_of(NEURONS["one"])
    for times in (torch.full_like(trains(), math.inf), trains()[:0], trains()[..., :0]):
        found = layer(times)
        assert found.shape == (len(times), NEURONS_EACH, 20)
        assert found.isinf().all()
        found.sum().backward()
    nobody = layer_of(NEURONS["one"], synapses=connect.pairs(torch.empty(2, 0).long(), INPUTS, NEURONS_EACH))
    assert nobody(trains()).isinf().all()


def test_more_spikes_than_there_is_room_for(by_rows):
    by_rows()
    with pytest.raises(ValueError, match=r"^\d+ of 120 neurons .* max_spikes=1 times; raise max_spikes or"):
        layer_of(NEURONS["one"], overflow="error", max_spikes=1)(trains())


def test_which_layers_take_a_matrix():
    """A bound on gradients, transforms and other backends do, and what is small or dense."""
    size = 5000
    found = connect.fixed_indegree(size, size, 2, weight=2.5, generator=seeded())
    options = {"synapses": found, "dtype": torch.float64, "overflow": "drop"}
    large = SpikeTrains(size, size, 2, LIF(10.0, 2.0), **options)
    times = torch.rand(1, size, dtype=torch.float64).requires_grad_()
    large(times).min(-1).values.nan_to_num(posinf=0.0).sum().backward()
    assert times.grad.count_nonzero() > 0
    assert large.weight.grad.count_nonzero() > 0
    for more, why in ({"max_weight_grad": 1.0}, " because of max_weight_grad"), ({"backend": "reference"}, ""):
        with pytest.raises(ValueError, match=f"compute as a matrix here{why}, of at most"):
            SpikeTrains(size, size, 2, LIF(10.0, 2.0), **options, **more)(times)
    assert layer_of(NEURONS["one"])._structure() is None
