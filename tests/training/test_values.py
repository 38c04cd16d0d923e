"""Modules of values behind a readout: trained, evaluated, resumed and refused like a network without them."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.layers import start_firing_
from firstspike.layers.cost import layer_costs
from firstspike.substrates import SUBSTRATES
from firstspike.training import Interrupted, distributed
from firstspike.training.averaging import WeightAverage

DATA = [fs.data.bars(samples=n, seed=seed).to("cpu", torch.float64) for n, seed in ((48, 1), (30, 2))]


def spiking(seed=0):
    torch.manual_seed(seed)
    hidden = fs.LIFSpikeTrains(9, 12, 4, overflow="drop", dtype=torch.float64)
    return hidden, fs.IntegralReadout(12, 8, dtype=torch.float64)


def of_values():
    return nn.BatchNorm1d(8), nn.ReLU(), nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 3)).double()


def network(seed=0):
    return fs.Network(*spiking(seed), *of_values()).double()


def trainer_of(net, **options):
    return fs.Trainer(net, fs.losses.ReadoutCrossEntropy(), torch.optim.Adam(net.parameters(), lr=0.02), **options)


def fit(net, epochs=2, options=None, **settings):
    trainer = trainer_of(net, **(options or {}))
    settings = {"batch_size": 16, "seed": 5, "progress_bar": False, **settings}
    return trainer, trainer.fit(*DATA, epochs=epochs, **settings)


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(values_in(one), values_in(other), strict=True))


def values_in(net):
    return [x for x in net.state_dict().values() if isinstance(x, torch.Tensor)]


def test_trains_like_the_same_modules_around_a_network():
    net = network()
    assert (net.gives, net.inputs, net[:2].gives) == ("values", 9, "values")
    around = nn.Sequential(net[:2], *list(net)[2:])
    before = net.state_dict()["2.running_mean"].clone()
    evaluated = trainer_of(net).evaluate(DATA[1])
    assert torch.equal(net[2].running_mean, before)
    assert torch.equal(evaluated.times, around.eval()(DATA[1].times))
    net.train()
    assert torch.equal(evaluated.predictions, evaluated.times.argmax(dim=1))
    assert evaluated.readout
    trainer, result = fit(net, epochs=30)
    assert not torch.equal(net[2].running_mean, before)
    assert result.validation.accuracy > 0.6
    assert torch.equal(trainer.record(DATA[1].times).output, net.eval()(DATA[1].times))


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "weight_average": 0.8}], ids=["plain", "averaged"])
def test_a_stopped_training_continues_bit_for_bit(tmp_path, options):
    whole, expected = fit(network(), 3, options)
    batches = iter(range(4))
    with pytest.raises(Interrupted):
        fit(network(), 3, options, folder=tmp_path / "run", stop=lambda: next(batches, None) is None)
    again, _ = fit(network(1), 3, options, folder=tmp_path / "run", resume=True)
    assert same(again.network, whole.network)
    run = fs.Run(tmp_path / "run", network=network(1))
    assert torch.equal(run.evaluate("validation").times, expected.validation.times)
    assert "synaptic events" in run.evaluate("validation").text()
    with pytest.raises(ValueError, match=r"'BatchNorm1d' is not in the registries; hand the network over in Python"):
        _ = fs.Run(tmp_path / "run").network


def test_networks_are_trained_one_after_the_other_as_if_alone():
    nets, others = ([network(seed) for seed in range(2)] for _ in range(2))
    for net in (*nets, *others):
        net[4][0].p = 0.0  # its numbers are those of the batch, not of the network
    alone = [fit(net, seed=5 + k)[0] for k, net in enumerate(others)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.02) for net in nets]
    trainer = fs.Trainer(nets, fs.losses.ReadoutCrossEntropy(), optimizers)
    trainer.fit(*DATA, epochs=2, batch_size=16, seed=5, progress_bar=False)
    assert all(same(net, one.network) for net, one in zip(nets, alone, strict=True))


def test_dead_outputs_and_costs_are_those_of_the_readout():
    net = network()
    with torch.no_grad():
        net[1].weight[:2] = 0
    found = trainer_of(net).evaluate(DATA[1])
    assert found.idle[:2] == (1.0, 1.0)
    assert found.dead_outputs == sum(x > 0.5 for x in found.idle) / 8
    assert (found.times != 0).all()
    assert len(found.silent) == 1
    record = net.record(DATA[1].times)
    assert layer_costs(net, record) == layer_costs(net[:2], net[:2].record(DATA[1].times))


def test_start_firing_leaves_them_alone():
    net, before = network(), network()
    start_firing_(net, DATA[0].times)
    assert all(torch.equal(x, y) for x, y in zip(values_in(net)[2:], values_in(before)[2:], strict=True))
    assert not torch.equal(net[0].weight, before[0].weight)


def test_running_statistics_are_averaged_like_weights():
    net = network()
    average = WeightAverage(net, 0.8)
    average.update()
    first = net[2].running_mean.clone()
    net(DATA[0].times)
    average.update()
    assert not torch.equal(net[2].running_mean, first)
    decay = 2 / 11
    torch.testing.assert_close(average.averages["2.running_mean"], decay * first + (1 - decay) * net[2].running_mean)


def test_only_exact_runs_them():
    net = network().eval()
    rounded = SUBSTRATES["exact"](weight_bits=4)
    assert set(rounded.parameters(net)) == {"0.weight", "1.weight"}
    with rounded.open(net), torch.no_grad():
        assert rounded.run(net, DATA[1].times).output.shape == (30, 3)
    record = net.record(DATA[1].times)
    assert torch.equal(net.record(DATA[1].times, record.layers).output, record.output)
    with pytest.raises(
        ValueError, match="layer 2: the substrate noisy ends with the readout, and takes no BatchNorm1d"
    ):
        SUBSTRATES["noisy"]().open(net)


def test_batches_that_batchnorm_cannot_take_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="batch_size=47 leaves one sample for the last batch of 48"):
        fit(network(), batch_size=47)
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(ValueError, match=r"BatchNorm1d \(2\) takes means over a batch, of which 2 processes"):
        fit(network())


@pytest.mark.slow
def test_export(tmp_path):
    net = network().eval()
    fs.export(net, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    trains = DATA[1].times.unsqueeze(-1)
    assert torch.equal(program(trains), net(trains))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([fs.LIFSpikeTrains(9, 4, 3), nn.Linear(4, 3)], r"layer 1 \(Linear\) is not a .*come after a readout"),
        ([fs.IntegralReadout(9, 4), nn.Linear(5, 3)], "Linear expects 5 values, and gets 4"),
        (
            [fs.IntegralReadout(9, 4), nn.BatchNorm1d(4), nn.Linear(3, 2)],
            "layer 2 .*Linear expects 3 values, and gets 4",
        ),
        ([fs.IntegralReadout(9, 4), nn.ReLU(), fs.LIFLinear(4, 3)], "LIFLinear expects spikes, and gets the values"),
        ([fs.IntegralReadout(9, 4), fs.Network(fs.LIFLinear(4, 3))], "Network expects spikes, and gets the values"),
    ],
)
def test_what_does_not_fit(layers, message):
    with pytest.raises(ValueError, match=message):
        fs.Network(*layers)
