"""Evaluation in parts: how large they are, and that they change nothing."""

import pytest
import torch

from firstspike.data import SpikeData
from firstspike.layers import BiasSpikes, Delay, EarliestPool2d, LIFConv2d, LIFLinear, Network
from firstspike.layers.ensembles import Ensemble
from firstspike.losses import TimeCrossEntropy
from firstspike.substrates import Exact, Noisy
from firstspike.training import evaluation
from firstspike.training.evaluation import evaluate, evaluate_record, outputs_of, record_in_parts, samples_at_once
from firstspike.training.objective import Objective

pytestmark = pytest.mark.usefixtures("on_device")

GIB = 2**30


def times(inputs, device="cpu", dtype=torch.float32):
    return torch.empty(3, inputs, device=device, dtype=dtype)


def test_small_networks_take_what_keeps_the_cores_busy():
    network = Network(LIFLinear(784, 350), LIFLinear(350, 10))
    assert evaluation.PART_MEMORY == GIB
    assert samples_at_once(network, times(784)) == 1000
    assert samples_at_once(network, times(784), Exact()) == 1000
    assert samples_at_once(network, times(784), Noisy()) == 1000


@pytest.mark.parametrize(
    ("network", "inputs", "numbers"),
    [
        # ten numbers for each input and output of the widest layer
        (Network(LIFLinear(100, 50_000), LIFLinear(50_000, 10)), 100, 10 * 50_100),
        (Network(BiasSpikes([0.0]), Delay(50_001), LIFLinear(50_001, 2)), 50_000, 10 * 2 * 50_001),
        # of a convolution for each place; of pooling for each output
        (Network(LIFConv2d((1, 28, 28), 64, 5), EarliestPool2d((64, 24, 24), 3, 1)), 784, 10 * 64 * 22**2 * 10),
        (Network(LIFConv2d((2, 28, 28), 64, 9)), 1568, 10 * 400 * (162 + 64)),
        # the reference bounds its own memory
        (Network(LIFLinear(784, 30_000, backend="reference")), 784, 10 * 30_784),
    ],
)
def test_wide_networks_take_as_many_as_fit(network, inputs, numbers):
    assert samples_at_once(network, times(inputs)) == GIB // (4 * numbers)
    assert samples_at_once(network, times(inputs, dtype=torch.float64)) == GIB // (8 * numbers)
    twins = Ensemble([network, Network(*network)])
    assert samples_at_once(twins, times(inputs)) == GIB // (2 * 4 * numbers)


def test_other_devices_take_as_many_as_fit():
    """They have no cores that few samples keep busy."""
    network = Network(LIFLinear(4, 30), LIFLinear(30, 3))
    assert samples_at_once(network, times(4, "meta")) == GIB // (4 * 10 * 34)
    assert samples_at_once(network, times(4, "meta"), Noisy()) == 1000  # noise of a batch does not depend on the device
    wide = Network(LIFLinear(784, 350), LIFLinear(350, 10))
    assert samples_at_once(wide, times(784, "meta")) == GIB // (4 * 10 * 1134)


def test_one_sample_is_the_least():
    assert samples_at_once(Network(LIFLinear(20_000_000, 10_000_000, device="meta")), times(20_000_000, "meta")) == 1


@pytest.fixture
def source():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def networks(source):
    def make():
        hidden = LIFLinear(5, 20, weight_mean=0.8, weight_std=0.5, generator=source)
        return Network(hidden, LIFLinear(20, 3, generator=source))

    return [make() for _ in range(3)]


@pytest.fixture
def data(source):
    labels = torch.randint(3, (50,), generator=source)
    return SpikeData(2 * torch.rand(50, 5, generator=source), labels, ("a", "b", "c"))


@pytest.mark.parametrize("at_once", [1, 7, 49, 50])
def test_parts_change_nothing(networks, data, at_once, monkeypatch):
    objective, network = Objective(TimeCrossEntropy()), networks[0]
    whole, record = evaluate(network, objective, data), record_in_parts(network, data.times)
    monkeypatch.setattr(evaluation, "PART_MEMORY", at_once * 4 * 10 * 25)
    assert samples_at_once(network, data.times) == at_once
    found = evaluate(network, objective, data)
    assert torch.equal(found.times, whole.times)
    assert (found.silent, found.loss, found.accuracy) == (whole.silent, whole.loss, whole.accuracy)
    assert 0 < found.silent[0] < 1
    parts = record_in_parts(network, data.times)
    assert all(torch.equal(one, other) for one, other in zip(parts.layers, record.layers, strict=True))
    assert evaluate_record(network, parts, objective, data.labels).silent == whole.silent


def test_members_have_what_each_has_alone(networks, data, monkeypatch):
    alone = [outputs_of(network, data.times) for network in networks]
    monkeypatch.setattr(evaluation, "PART_MEMORY", 3 * 7 * 4 * 10 * 25)
    together = Ensemble(networks)
    assert samples_at_once(together, data.times) == 7
    times, silent = outputs_of(together, data.times)
    for member, (mine, fractions) in enumerate(alone):
        assert torch.equal(times[member], mine)
        assert torch.equal(silent[member], fractions)
