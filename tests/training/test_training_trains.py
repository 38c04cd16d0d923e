"""Trainings on spike trains with readouts: what they learn, count, resume and refuse."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.data import DATASETS
from firstspike.layers import start_firing_
from firstspike.layers.trains import spike_counts
from firstspike.losses import EarlyOutput, ReadoutCrossEntropy, SilentPeak, SpikeCount, TimeCrossEntropy
from firstspike.training import Interrupted
from firstspike.training.silent import activity, activity_names


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def splits(train=80, noise=0.05):
    return DATASETS["delayed_xor"](train=train, validation=40, test=40, noise=noise, late=4.0)


def network(seed=0, times=None, hidden=20, **options):
    make = {"generator": seeded(seed)}
    net = fs.Network(
        fs.LIFSpikeTrains(2, hidden, 10, fs.LIF(4.0), max_weight_grad=1.0, **make | options),
        fs.IntegralReadout(hidden, 2, **make),
    )
    if times is not None:
        start_firing_(net, times, seeded(seed))
    return net


def trainer(net, **options):
    nets = net if isinstance(net, list) else [net]
    adams = [torch.optim.Adam(x.parameters(), lr=0.02) for x in nets]
    return fs.Trainer(net, ReadoutCrossEntropy(), adams, **options)


def fit(trained, data, epochs, **options):
    part = {"epochs": epochs, "batch_size": 40, "progress_bar": False} | options
    return trained.fit(*data[:2], **part)


@pytest.mark.slow
def test_several_spikes_solve_what_first_spikes_cannot():
    data = splits(train=200)
    several = trainer(network(times=data.train.times))
    result = fit(several, data, 60)
    assert result.validation.accuracy == several.evaluate(data.test).accuracy == 1.0
    assert result.metrics["spikes_0"][-1] > 1.5
    assert result.metrics["full_0"][-1] == 0.0
    assert result.validation.readout
    assert math.isnan(result.validation.decision_time)
    once = type(data)(*(part.first_spikes() for part in data))
    first = trainer(network(times=once.train.times))
    assert fit(first, once, 10).validation.accuracy <= 0.6


@pytest.mark.parametrize("lists", [False, True])
def test_input_spikes_after_the_end_of_a_layer_are_pointed_out(lists):
    net = fs.Network(fs.LIFRecurrent(2, 5, 20, 3.0, fs.LIF(4.0)), fs.IntegralReadout(5, 2))
    trained = trainer(net)
    events = [([0.5, 2.0, 3.5], [0, 1, 0]), ([1.0, 3.0, 4.5], [0, 0, 1])]
    times = (fs.data.event_lists if lists else fs.data.trains_from_events)(events, 2)
    data = fs.data.SpikeData(times, torch.tensor([0, 1]), ("a", "b"))
    message = "2 of 6 input spikes come after duration=3 of a layer, the last at 4.5; .* raise duration"
    for call in (lambda: fit(trained, (data, None), 1), lambda: trained.evaluate(data), lambda: trained.record(times)):
        with pytest.warns(UserWarning, match=message) as found:
            call()
        assert len(found) == 1
    soon = [([0.5, 2.0], [0, 1]), ([1.0, 3.0], [0, 0])]
    trained.evaluate(fs.data.SpikeData(fs.data.trains_from_events(soon, 2), torch.tensor([0, 1]), ("a", "b")))


def test_records_and_predictions():
    data = splits()
    trained = trainer(network(times=data.train.times))
    record = trained.record(data.test.times)
    assert [tuple(x.shape) for x in record.layers] == [(40, 20, 10), (40, 2)]
    decisions = trained.objective.predict(trained.record(data.test.times).output)
    assert torch.equal(decisions, trained.evaluate(data.test).predictions)


def test_what_is_counted():
    data = splits()
    net = network(times=data.train.times)
    layers = net.record(data.train.times).layers
    assert activity_names(net) == ["silent_0", "spikes_0", "full_0"]
    spikes = layers[0].isfinite().sum(-1)
    expected = [spikes == 0, spikes, spikes == 10]
    torch.testing.assert_close(torch.stack(activity(net, layers)), torch.stack([x.float().mean() for x in expected]))
    net[0].max_spikes, net[0].overflow = 2, "drop"
    row = fit(trainer(net), data, 1).metrics
    assert row["full_0"][0] > 0.5
    assert row["spikes_0"][0] <= 2


def test_side_by_side_is_as_one_after_the_other():
    data = splits()
    nets = [network(seed, data.train.times) for seed in range(2)]
    together = fit(trainer(nets), data, 3, seed=5)
    for index, alone in enumerate(network(seed, data.train.times) for seed in range(2)):
        single = fit(trainer(alone), data, 3, seed=5 + index)
        torch.testing.assert_close(together.validations[index].times, single.validation.times, rtol=1e-3, atol=1e-4)
        assert together.validations[index].silent == pytest.approx(single.validation.silent, abs=0.02)


def test_silent_neurons_wake():
    data = splits()
    net = network(weight_mean=0.0, weight_std=0.01)
    silent = fs.SilentNeurons(limits=0.2, increment=0.01)
    result = fit(trainer(net, silent=silent), data, 8)
    assert result.metrics["silent_0"][0] > 0.5
    assert result.metrics["silent_0"][-1] < 0.4


def test_regularizers_on_trains():
    data = splits()
    net = network(weight_mean=0.0, weight_std=0.01)
    terms = [SpikeCount(1.0, least=1.0, most=3.0), SilentPeak(0.1)]
    result = fit(trainer(net, regularizers=terms), data, 25)
    assert result.metrics["silent_0"][0] > 0.9
    assert result.metrics["silent_0"][-1] < 0.3


@pytest.mark.parametrize("stop_after", [3, 5])
def test_resumed_bit_for_bit(tmp_path, stop_after):
    data = splits()
    whole = network(times=data.train.times)
    fit(trainer(whole, augment=fs.Augment(jitter=0.02)), data, 4)

    batches = 0

    def stop():
        nonlocal batches
        batches += 1
        return batches > stop_after

    net = network(times=data.train.times)
    options = {"folder": tmp_path / "run", "resume": True}
    with pytest.raises(Interrupted):
        fit(trainer(net, augment=fs.Augment(jitter=0.02)), data, 4, stop=stop, **options)
    again = network(seed=3)
    fit(trainer(again, augment=fs.Augment(jitter=0.02)), data, 4, **options)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_jitter_and_dropout_of_trains():
    data = splits()
    times = data.train.times[None, :8]
    moved = fs.Augment(jitter=0.1, dropout=0.5)(times, data.train, [seeded()])
    dropped = moved.isinf().all(-1)
    assert 0 < int(dropped.sum()) < 16
    assert torch.equal(moved.isfinite()[~dropped], times.isfinite()[~dropped])
    assert bool((moved[..., :-1] <= moved[..., 1:]).all())


def test_losses_and_data_that_do_not_fit():
    data = splits()
    net = network()
    adam = torch.optim.Adam(net.parameters())
    with pytest.raises(ValueError, match="TimeCrossEntropy takes first spike times, and the network gives values"):
        fs.Trainer(net, TimeCrossEntropy(), adam)
    with pytest.raises(ValueError, match="EarlyOutput takes first spike times, and the network gives values"):
        fs.Trainer(net, ReadoutCrossEntropy(), adam, regularizers=[EarlyOutput(0.1)])
    with pytest.raises(ValueError, match="ReadoutCrossEntropy takes values of a readout, and the network gives spike"):
        fs.Trainer(fs.Network(net[0]), ReadoutCrossEntropy(), adam)
    first = fs.Network(fs.LIFLinear(2, 2))
    trained = fs.Trainer(first, TimeCrossEntropy(), torch.optim.Adam(first.parameters()))
    with pytest.raises(ValueError, match="the data has spike trains, and the first layer, LIFLinear, takes first"):
        fit(trained, data, 1)


def numbers_of_spikes(trains, labels):
    return torch.nn.functional.cross_entropy(spike_counts(trains), labels)


class Decides(torch.nn.Module):
    """A loss of one's own on trains, which may be any function; the neuron that spikes most wins."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, trains, labels):
        return self.loss(trains, labels)

    def predict(self, trains):
        return spike_counts(trains).argmax(-1)


def of_first(trains, labels):
    return TimeCrossEntropy()(trains[..., 0], labels)


@pytest.mark.parametrize(
    ("loss", "wrap", "message"),
    [
        (
            of_first,
            list,
            r"the loss has no predict\(trains\), which decides: write one, or end the network with a readout",
        ),
        (numbers_of_spikes, list, r"the loss has no predict\(trains\), which decides"),
        (Decides(numbers_of_spikes), list, "the loss depends on no parameter that learns. A number of spikes has no"),
        (TimeCrossEntropy(), torch.nn.Sequential, r"expected first spike times of the last layer, got spike trains \("),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_functions_of_ones_own_on_trains_say_what_they_need(loss, wrap, message, count):
    layers = [network(overflow="drop", hidden=3)[0] for _ in range(count)]
    nets = [fs.Network(layer) if wrap is list else wrap(layer) for layer in layers]

    def train():
        fit(fs.Trainer(nets, loss, [torch.optim.Adam(net.parameters()) for net in nets]), splits(), 1)

    with pytest.raises(ValueError, match=message) as error:
        train()
    assert "\n" not in str(error.value)


def test_a_loss_of_ones_own_on_trains():
    net = network(times=splits().train.times, overflow="drop")[:1]
    trained = fs.Trainer(net, Decides(of_first), torch.optim.Adam(net.parameters(), lr=0.01))
    losses = fit(trained, splits(), 2).metrics["train_loss"]
    assert losses[1] < losses[0]


def test_first_spike_losses_on_trains():
    data = splits(train=200)
    net = fs.Network(
        fs.LIFSpikeTrains(2, 30, 10, fs.LIF(4.0), generator=seeded(), overflow="drop"),
        fs.LIFSpikeTrains(30, 2, 1, fs.LIF(4.0), generator=seeded(), overflow="drop"),
        fs.FirstSpike(),
    )
    start_firing_(net, data.train.times, seeded())
    trained = fs.Trainer(net, TimeCrossEntropy(), torch.optim.Adam(net.parameters(), lr=0.01))
    result = fit(trained, data, 3)
    assert result.metrics["train_loss"][-1] < result.metrics["train_loss"][0] < 5
    assert not result.validation.readout


def test_a_function_on_the_values_of_a_readout_decides_by_the_largest(tmp_path):
    data, accuracies = splits(), []
    for loss in (ReadoutCrossEntropy(), lambda values, labels: torch.nn.functional.cross_entropy(values, labels)):
        net = network(times=data.train.times)
        trained = fs.Trainer(net, loss, torch.optim.Adam(net.parameters(), lr=0.02))
        run = trained.fit(
            data.train, data.validation, epochs=2, batch_size=20, folder=tmp_path / str(len(accuracies)),
            progress_bar=False,
        )  # fmt: skip
        accuracies.append((trained.evaluate(data.test).accuracy, run.evaluate("validation").accuracy))
    assert accuracies[0] == accuracies[1]
