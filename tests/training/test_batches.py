"""Training on a loader of one's own."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
)

import firstspike as fs
from firstspike.training import batches

DATA, VALIDATION = fs.data.yin_yang(60, seed=1), fs.data.yin_yang(30, seed=2)


def trainer(inputs=DATA.features):
    network = fs.Network(fs.LIFLinear(inputs, 3, generator=torch.Generator().manual_seed(2)))
    return fs.Trainer(network, fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters(), lr=0.01))


def fit(data, *, epochs=3, using=None, validation=VALIDATION, **options):
    using = using or trainer()
    found = using.fit(data, validation, epochs=epochs, batch_size=20, progress_bar=False, **options)
    return using.network[0].weight.detach().clone(), found


def shuffled(data=DATA, **options):
    return DataLoader(data, batch_size=20, shuffle=True, **options)


def stop_after(batches):
    left = iter(range(batches))
    return lambda: next(left, None) is None


def test_a_loader_in_order_is_a_list_of_batches():
    batches = [(DATA.times[k : k + 20], DATA.labels[k : k + 20]) for k in (0, 20, 40)]
    found, _ = fit(batches)
    assert torch.equal(found, fit(DataLoader(DATA, batch_size=20))[0])
    assert not torch.equal(found, fit(DATA)[0])  # its order is random


def test_a_loader_of_all_samples_is_the_data():
    """Up to the order of samples in the sum."""
    using = trainer()
    using.fit(DATA, VALIDATION, epochs=3, batch_size=60, progress_bar=False)
    found, _ = fit(DataLoader(DATA, batch_size=60))
    torch.testing.assert_close(found, using.network[0].weight.detach(), rtol=0, atol=1e-5)


def test_records_of_data_and_loaders():
    using = trainer()
    expected = using.record(DATA.times)
    for source in (DATA, DataLoader(DATA, batch_size=7)):
        assert torch.equal(using.record(source).output, expected.output)


def test_metrics_count_the_samples_of_the_loader():
    _, result = fit(DataLoader(DATA, batch_size=25), validation=None, epochs=1)
    assert 0 <= result.metrics["train_accuracy"][0] <= 1
    correct = 60 * result.metrics["train_accuracy"][0]
    assert correct == pytest.approx(round(correct), abs=1e-3)


EVENTS = fs.data.SpikeData(
    fs.data.event_lists([([0.1] * k, [0] * k) for k in range(1, 8)], 2), torch.arange(7) % 2, ("0", "1")
)


@pytest.mark.parametrize("data", [DATA, EVENTS], ids=["times", "events"])
@pytest.mark.parametrize("done", [0, 2, 3])
def test_batches_are_the_same_however_many_are_picked_together(data, done, monkeypatch):
    network, size = fs.Network(fs.LIFSpikeTrains(data.features, 3, 2)), -(-len(data) // 3)
    found = []
    for numbers in (1, 2 * size * data.features * 2, 1 << 20):
        monkeypatch.setattr(batches, "_AT_ONCE", numbers)
        given = batches.Batches(data, size, network, None).epoch(4, (1, 2), done)
        found.append([(*pair, torch.rand(1), random.random()) for pair in given])
    assert len(found[0]) == 3 - done
    torch.testing.assert_close(found[1:], found[:1] * 2, rtol=0, atol=0)


@pytest.mark.parametrize("generator", [None, torch.Generator()], ids=["global", "own"])
def test_shuffled_batches_follow_from_the_seed(generator):
    first, _ = fit(shuffled(generator=generator))
    torch.rand(3)  # what happened before does not matter
    second, _ = fit(shuffled(generator=generator))
    assert torch.equal(first, second)
    other, _ = fit(shuffled(generator=generator), seed=5)
    assert not torch.equal(first, other)


def test_resuming_inside_an_epoch_is_exact(tmp_path, caplog):
    wanted, _ = fit(shuffled(), folder=tmp_path / "whole")
    with pytest.raises(fs.training.Interrupted):
        fit(shuffled(), folder=tmp_path / "run", stop=stop_after(4))
    found, run = fit(shuffled(), folder=tmp_path / "run", resume=True)
    assert torch.equal(found, wanted)
    assert "continues exactly only if" not in caplog.text
    assert list(run.metrics["train_loss"]) == list(fs.Run(tmp_path / "whole").metrics["train_loss"])
    assert fs.Run(tmp_path / "run").class_names == DATA.class_names
    assert fs.Run(tmp_path / "run").evaluate("validation").accuracy == run.validation.accuracy
    with pytest.raises(ValueError, match=r"a training on a loader continues with Trainer\.fit\(loader"):
        fs.Run(tmp_path / "run").resume(epochs=5, progress_bar=False)


class Noisy(Dataset):
    """Samples with noise that a function draws."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return DATA.times[index] + 0.1 * float(self.draw()), DATA.labels[index]


def random_batches():
    sampler = RandomSampler(DATA, generator=torch.Generator().manual_seed(7))
    return DataLoader(DATA, batch_sampler=BatchSampler(sampler, 20, False))


def noisy(draw, **options):
    return DataLoader(Noisy(draw), batch_size=20, **options)


@pytest.mark.parametrize(
    "loader",
    [random_batches, *(partial(noisy, draw) for draw in (np.random.random, random.random, partial(torch.rand, ())))],
    ids=["batch sampler", "numpy", "python", "torch"],
)
@pytest.mark.parametrize("batches", [4, 6])
def test_what_is_drawn_at_random_is_drawn_again(tmp_path, loader, batches, caplog):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    wanted, _ = fit(loader())
    with pytest.raises(fs.training.Interrupted):
        fit(loader(), folder=tmp_path / "run", stop=stop_after(batches))
    found, _ = fit(loader(), folder=tmp_path / "run", resume=True)
    assert torch.equal(found, wanted)
    assert "continues exactly" not in caplog.text
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


class Dying:
    """A loader whose workers end after some batches, as by a signal that all processes got."""

    def __init__(self, batches, asked):
        self.left, self.asked, self.source = batches, asked, shuffled()
        self.dataset, self.batch_size = DATA, 20

    def __len__(self):
        return len(self.source)

    def __iter__(self):
        for batch in self.source:
            if not self.left:
                self.asked.append(1)
                raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
            self.left -= 1
            yield batch


@pytest.mark.parametrize("batches", [0, 4])
def test_a_signal_that_ends_the_workers_of_a_loader_too_is_a_stop(tmp_path, batches):
    wanted, _ = fit(Dying(99, []))
    asked = []
    with pytest.raises(fs.training.Interrupted):
        fit(Dying(batches, asked), folder=tmp_path / "run", stop=lambda: bool(asked))
    assert fs.Run(tmp_path / "run").checkpoint.batch == batches % 3
    found, _ = fit(Dying(99, []), folder=tmp_path / "run", resume=True)
    assert torch.equal(found, wanted)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        fit(Dying(1, []), folder=tmp_path / "other")


class Own(Sampler):
    """Samples in an order that nothing tells."""

    def __iter__(self):
        return iter(np.random.default_rng().permutation(len(DATA)).tolist())

    def __len__(self):
        return len(DATA)


class Stream(IterableDataset):
    """Samples in their order, without an index."""

    def __iter__(self):
        return iter(zip(DATA.times, DATA.labels, strict=True))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Stream(), batch_size=20),
        DataLoader(DATA, batch_size=20, sampler=Own()),
        DataLoader(DATA, batch_sampler=BatchSampler(Own(), 20, False)),
        noisy(np.random.random, num_workers=1, persistent_workers=True),
    ],
    ids=["stream", "sampler", "batch sampler", "persistent workers"],
)
def test_what_cannot_be_repeated_is_said(tmp_path, caplog, loader):
    fit(loader, folder=tmp_path / "run", epochs=1)
    assert "continues exactly" not in caplog.text
    fit(loader, folder=tmp_path / "run", resume=True)
    assert "continues exactly only if its loader gives the same batches again" in caplog.text


def test_classes_without_other_data():
    loader = DataLoader(TensorDataset(DATA.times, DATA.labels), batch_size=20)
    using = trainer()
    found = using.fit(loader, epochs=1, progress_bar=False)
    assert found.epochs == 1


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (iter([(DATA.times, DATA.labels)]), ValueError, "expected batches for every epoch, got a list_iterator, which"),
        ([DATA.times], ValueError, r"expected batches \(times, labels\) from the loader, got a Tensor"),
        ([], ValueError, "the loader gave none"),
        ([(DATA.times, DATA.labels.double())], ValueError, "labels: expected int64"),
        (DATA.empty(), ValueError, "train: expected samples, got none"),
        (DATA.times, TypeError, "expected fs.data.SpikeData, got Tensor"),
        ((DATA.times, DATA.labels), TypeError, "expected fs.data.SpikeData, got tuple"),
    ],
)
def test_what_is_refused(train, error, message):
    with pytest.raises(error, match=message):
        fit(train)


def test_one_network_in_one_process():
    networks = [trainer().network for _ in range(2)]
    both = fs.Trainer(
        networks, fs.losses.TimeCrossEntropy(), [torch.optim.Adam(network.parameters()) for network in networks]
    )
    with pytest.raises(ValueError, match="a loader trains one network in one process"):
        fit(shuffled(), using=both)


def test_loaders_validate_and_test():
    wanted, known = fit(DATA, test=VALIDATION)
    for data in (VALIDATION, TensorDataset(VALIDATION.times, VALIDATION.labels)):
        found, given = fit(DATA, validation=DataLoader(data, batch_size=7), test=DataLoader(data, batch_size=8))
        assert torch.equal(wanted, found)
        assert given.metrics == known.metrics
        assert given.test.accuracy == known.test.accuracy
    using = trainer()
    loader = shuffled(VALIDATION)  # in one order, whatever was drawn before
    first, second = using.evaluate(loader), using.evaluate(loader)
    assert torch.equal(first.times, second.times)
    assert first.accuracy == using.evaluate(VALIDATION).accuracy
    with pytest.raises(ValueError, match="the loader gave none"):
        using.evaluate([])


class Events(Dataset):
    """A user's data set, whose samples are events as they were recorded."""

    def __len__(self):
        return 6

    def __getitem__(self, sample):
        return ([0.3, 0.1, 0.2 * sample], [1, 0, 1]), sample % 2


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_samples_of_different_lengths_are_collated(workers):
    loader = DataLoader(Events(), batch_size=4, collate_fn=partial(fs.data.collate, inputs=2), num_workers=workers)
    events = fs.data.event_lists([Events()[k][0] for k in range(6)], inputs=2)
    ragged = [(events[k], k % 2) for k in range(6)]  # some have one spike, others two
    for times, labels in (next(iter(loader)), next(iter(DataLoader(ragged, 4, collate_fn=fs.data.collate)))):
        assert torch.equal(times, events[:4])
        assert torch.equal(labels, torch.tensor([0, 1, 0, 1]))
    data = fs.data.SpikeData(events, torch.arange(6) % 2, ("0", "1"))
    network = fs.Network(fs.LIFSpikeTrains(2, 4, max_spikes=40), fs.IntegralReadout(4, 2))
    train = fs.Trainer(network, fs.losses.ReadoutCrossEntropy(), torch.optim.Adam(network.parameters()))
    assert torch.equal(train.evaluate(loader).times, train.evaluate(data).times)


def test_what_cannot_be_collated_is_refused():
    with pytest.raises(ValueError, match=r"partial\(fs\.data\.collate, inputs=\.\.\.\), got samples like tuple"):
        fs.data.collate([Events()[0]])
    with pytest.raises(ValueError, match=r"samples of as many inputs, got \[\(2, 1\), \(3, 1\)\]"):
        fs.data.collate([(torch.ones(2, 1), 0), (torch.ones(3, 1), 1)])
