"""Silent neurons in a loop of one's own."""

import math
from itertools import pairwise

import pytest
import torch

import firstspike as fs
from firstspike import (
    FirstSpike,
    IntegralReadout,
    LIFConv2d,
    LIFLinear,
    LIFSpikeTrains,
    Network,
    SilentNeurons,
    SmoothCount,
)
from firstspike.config import build, build_data, load_config
from firstspike.layers import BiasSpikes, Record
from firstspike.layers.ensembles import Ensemble
from firstspike.losses import TimeCrossEntropy
from firstspike.training.engines import Sequential

pytestmark = pytest.mark.usefixtures("on_device")


def experiment(skip_step):
    settings = ["training.silent.limits=[0.05, 1.0]", "network[1].weight_mean=0.7", "network[1].out_features=12"]
    more = [f"training.silent.skip_step={skip_step}", "training.silent.increment=0.01", "training.dtype=float64"]
    config = load_config("yin_yang", [*settings, *more])
    return build(config), build_data(config).train


def batches(data):
    return [(data.times[k : k + 20], data.labels[k : k + 20]) for k in range(0, 200, 20)]


@pytest.mark.parametrize("order", ["raise first", "step first"])
@pytest.mark.parametrize("instead", [True, False])
def test_a_loop_of_ones_own_is_the_training(instead, order):
    (one, data), (other, _) = experiment(instead), experiment(instead)
    ours, mine = one.members[0], other.members[0]
    engine, policy = Sequential([ours], one.objective), mine.silent
    raised, stepped = 0, 0
    for times, labels in batches(data):
        engine.step(times[None], labels[None])
        _, loss, record = other.objective(mine.network, times, labels, mine.substrate)
        if order == "step first" and not instead:
            mine.optimizer.zero_grad()
            loss.backward()
            mine.optimizer.step()
        skip = policy.raise_weights_(mine.network, record)
        raised += policy.last_layer is not None
        if not skip and not (order == "step first" and not instead):
            mine.optimizer.zero_grad()
            loss.backward()
            mine.optimizer.step()
        stepped += not skip
        for x, y in zip(ours.network.parameters(), mine.network.parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
    assert raised > 2
    assert stepped == (10 - raised if instead else 10)


@pytest.mark.parametrize("hidden", [0, 1])
def test_the_gradient_is_that_of_the_weights_of_the_forward_pass(hidden):
    generator = torch.Generator().manual_seed(0)
    sizes = [3, *[3] * hidden, 2]
    layers = [LIFLinear(*pair, weight_mean=2.0, weight_std=0.5, generator=generator) for pair in pairwise(sizes)]
    network, weights = Network(*layers), [layer.weight for layer in layers]
    times = torch.rand(8, 3, generator=torch.Generator().manual_seed(1))
    times[:4] = math.inf

    def loss():
        record = network.record(times)
        return record, TimeCrossEntropy(silent_cost=1.0)(record.output, torch.tensor([0, 1] * 4))

    expected = torch.autograd.grad(loss()[1], weights)
    before = weights[-1].clone()
    record, value = loss()
    assert not SilentNeurons([*[1.0] * hidden, 0.1], 0.5, skip_step=False).raise_weights_(network, record)
    assert bool((weights[-1] == before + 0.5).all())
    value.backward()
    for weight, gradient in zip(weights, expected, strict=True):
        assert torch.equal(weight.grad, gradient)
        assert bool(gradient.any())


@pytest.mark.parametrize("members", [1, 2])
def test_a_member_of_an_ensemble_is_raised_in_its_memory(members):
    together = Ensemble([Network(LIFLinear(2, 3, weight_mean=0.0, weight_std=0.0)) for _ in range(members)])
    record = Record(torch.zeros(2, 2), (torch.full((2, 3), math.inf),))
    assert not SilentNeurons([0.5], 0.1, skip_step=False).raise_weights_(together.members[0], record, shared=True)
    torch.testing.assert_close(together.stacked[0][0].detach(), torch.full((3, 2), 0.1))


def test_another_number_of_limits_than_layers():
    silent = {"weight_mean": 0.0, "weight_std": 0.0}
    network = Network(BiasSpikes([0.1]), LIFLinear(4, 3, **silent), LIFLinear(3, 2, **silent))
    before = [x.clone() for x in network.parameters()]
    record = network.record(torch.full((2, 3), math.inf))
    with pytest.raises(ValueError, match="SilentNeurons has 3 limits, the network has 2 LIF layers"):
        SilentNeurons([0.3, 0.3, 0.3]).raise_weights_(network, record)
    assert all(torch.equal(x, y) for x, y in zip(network.parameters(), before, strict=True))
    assert SilentNeurons([1.0, 0.3]).raise_weights_(network, record)
    assert SilentNeurons(0.3).raise_weights_(network, record)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({0: 0.3},), r"limits must be a fraction from 0 to 1, or a list .* such as \[0\.5, 0\.3\], got \{0: 0\.3\}"),
        ((1.5,), "limits must be .*, got 1.5"),
        (([1.5],), r"got \[1\.5\]"),
        (([math.nan],), r"got \[nan\]"),
        (([0.3], 0.0), "increment must be > 0 and finite, got 0.0"),
        (([0.3], math.nan), "increment must be > 0 and finite, got nan"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SilentNeurons(*arguments)


@pytest.mark.parametrize(
    ("network", "limits"),
    [
        (Network(LIFLinear(4, 3), LIFLinear(3, 3), LIFLinear(3, 2)), (0.5, 0.5, 0.1)),
        (Network(LIFLinear(4, 3), IntegralReadout(3, 2)), (0.5,)),
        (Network(LIFSpikeTrains(4, 3, max_spikes=2), FirstSpike(), LIFLinear(3, 2)), (0.9, 0.1)),
        (Network(LIFSpikeTrains(4, 3, max_spikes=2), IntegralReadout(3, 2)), (0.9,)),
        (Network(LIFSpikeTrains(4, 3, max_spikes=2), LIFSpikeTrains(3, 2, max_spikes=2)), (0.9, 1.0)),
        (Network(LIFSpikeTrains(4, 3, max_spikes=2), SmoothCount(2.0, 0.1)), (1.0,)),
        (Network(LIFConv2d((1, 2, 2), 3, 1, max_spikes=2), IntegralReadout(12, 2)), (1.0,)),
        (torch.nn.Linear(4, 2), (1.0,)),
    ],
)
def test_limits_follow_from_the_network_unless_they_are_given(network, limits):
    assert SilentNeurons().limits_of(network) == limits
    assert SilentNeurons(0.3).limits_of(network) == (0.3,) * len(limits)


def test_one_rule_serves_networks_of_different_depth():
    policy = SilentNeurons(increment=0.1)
    for sizes in ((4, 3, 2), (4, 3, 3, 2)):
        silent = [LIFLinear(i, o, weight_mean=0.0, weight_std=0.0) for i, o in pairwise(sizes)]
        network = Network(*silent)
        assert policy.raise_weights_(network, network.record(torch.rand(5, 4)))
        assert policy.limits is None
    trainers = [
        fs.Trainer(x, fs.losses.TimeCrossEntropy(), torch.optim.SGD(x.parameters(), lr=0.1), silent=policy)
        for x in (network, Network(LIFLinear(4, 2)))
    ]
    assert [x.members[0].silent.limits for x in trainers] == [(0.5, 0.5, 0.1), (0.1,)]
