"""Spike trains as lists of events: the same as padded ones, wherever data are taken."""

import math

import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.data import EventLists, SpikeData, event_lists, split, trains_from_events
from firstspike.runs.stored import load_splits, save_splits
from firstspike.training.evaluation import record_in_parts


@pytest.fixture
def events():
    random = np.random.default_rng(3)
    found = [(4 * random.random(n), random.integers(0, 5, n)) for n in random.integers(2, 25, 30)]
    found[4] = (np.empty(0), np.empty(0, dtype=int))
    return found


@pytest.fixture
def lists(events):
    return event_lists(events, 5)


@pytest.fixture
def padded(events):
    return trains_from_events(events, 5)


def same(one, other):
    """The same trains, however long their padding is."""
    most = max(one.shape[-1], other.shape[-1])
    one, other = (torch.nn.functional.pad(x, (0, most - x.shape[-1]), value=torch.inf) for x in (one, other))
    return torch.equal(one, other)


INDICES = [
    3,
    -1,
    slice(2, 9),
    slice(None),
    torch.tensor([4, 4, 0]),
    torch.tensor([[1, 2], [7, 4]]),
    torch.arange(30) % 3 == 0,
    [5, 6],
    torch.empty(0, dtype=torch.int64),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_gives_padded_trains(lists, padded, index):
    found, wanted = lists[index], padded[index]
    assert found.shape[:-1] == wanted.shape[:-1]
    assert same(found, wanted)
    assert found.shape[-1] == max(1, int(torch.isfinite(wanted).sum(-1).max()) if wanted.numel() else 1)


def test_it_looks_like_a_tensor(lists, padded):
    assert (lists.shape, lists.ndim, len(lists)) == (padded.shape, 3, 30)
    assert (lists.dtype, lists.device) == (padded.dtype, padded.device)
    assert lists.nbytes < padded.nbytes
    assert torch.equal(lists.padded(), padded)
    assert torch.equal(lists.first(), padded[..., 0])
    assert same(lists.select(torch.tensor([2, 9])).padded(), padded[[2, 9]])
    assert lists.to(dtype=torch.float64)[3].dtype == torch.float64
    assert [len(x) for x in lists.split(12)] == [12, 12, 6]
    assert len(event_lists([], 5)) == 0
    assert event_lists([], 5).shape == (0, 5, 1)


def test_bad_events():
    with pytest.raises(ValueError, match=r"events: expected inputs from 0 to 1, got 2 ... 2 for sample 0"):
        event_lists([([0.1], [2])], 2)


def test_many_inputs():
    lists = event_lists([([0.1, 0.2], [40_000, 3])], 50_000)
    assert float(lists[0][40_000, 0]) == pytest.approx(0.1)


def test_data(lists, padded):
    labels = torch.arange(30) % 2
    data, other = (SpikeData(x, labels, ("a", "b")) for x in (lists, padded))
    assert (data.features, data.trains, len(data)) == (5, True, 30)
    assert torch.equal(data.first_spikes().times, other.first_spikes().times)
    assert data.empty().features == 5
    assert data.to(dtype=torch.float64)[2][0].dtype == torch.float64
    changed = event_lists([([0.1], [0])] * 30, 5)
    assert data.checksum["times"] != SpikeData(changed, labels, ("a", "b")).checksum["times"]
    with pytest.raises(ValueError, match=r"labels: expected int64 of shape \(30,\)"):
        SpikeData(lists, labels[:3], ("a", "b"))
    with pytest.raises(ValueError, match="got NaN or -inf"):
        SpikeData(EventLists(lists.when * torch.nan, lists.source, lists.starts, 5), labels, ("a", "b"))


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: torch.utils.data.Subset(data, range(3, 29))])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_stacks_lists(lists, padded, wrap, workers):
    labels = torch.arange(30) % 2
    made = [wrap(SpikeData(x, labels, ("a", "b"))) for x in (lists, padded)]
    loaders = [torch.utils.data.DataLoader(x, batch_size=8, num_workers=workers) for x in made]
    for (times, found), (wanted, expected) in zip(*loaders, strict=True):
        assert same(times, wanted)
        assert times.shape[-1] == max(1, int(torch.isfinite(times).sum(-1).max()))
        assert torch.equal(found, expected)
    network = fs.Network(fs.LIFSpikeTrains(5, 8, 20, overflow="drop"), fs.IntegralReadout(8, 2))
    trainer = fs.Trainer(network, fs.losses.ReadoutCrossEntropy(), torch.optim.Adam(network.parameters()))
    assert len(trainer.fit(loaders[0], epochs=1, progress_bar=False).metrics["train_loss"]) == 1


def test_data_in_place_of_times_says_where_the_times_are(lists):
    network, data = fs.Network(fs.IntegralReadout(5, 2)), SpikeData(lists, torch.arange(30) % 2, ("a", "b"))
    with pytest.raises(ValueError, match=r"got SpikeData of shape \(30,\); write data\.dense"):
        network(data)
    with pytest.raises(ValueError, match=r"got EventLists of shape .*; write data\.times\.padded\(\)"):
        network(data.times)
    assert torch.equal(network(data.dense), network(data.times.padded()))


def test_parts(lists, padded, tmp_path):
    labels = torch.arange(30) % 2
    parts, other = split(lists, labels, 0.2, 0.2), split(padded, labels, 0.2, 0.2, trains=True)
    for one, two in zip(parts, other, strict=True):
        assert isinstance(one.times, EventLists)
        assert torch.equal(one.labels, two.labels)
        assert same(one.times.padded(), two.times)
    save_splits(tmp_path / "data", parts)
    again = load_splits(tmp_path / "data")
    assert again.checksum == parts.checksum
    with pytest.raises(ValueError, match="encode: spike trains from events are not encoded again"):
        split(lists, labels, encode={"late": 1.0})


def trained(data, folder=None):
    torch.manual_seed(2)
    network = fs.Network(fs.LIFSpikeTrains(5, 8, 20, overflow="drop"), fs.IntegralReadout(8, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    trainer = fs.Trainer(network, fs.losses.ReadoutCrossEntropy(), optimizer)
    parts = split(data, torch.arange(30) % 2, 0.2, 0.2, trains=True)
    options = {} if folder is None else {"folder": folder}
    trainer.fit(parts.train, parts.validation, test=parts.test, epochs=3, batch_size=7, progress_bar=False, **options)
    return trainer, network, parts


def test_a_training_is_that_on_padded_trains(lists, padded):
    (one, network, parts), (two, other, wanted) = trained(lists), trained(padded)
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.evaluate(parts.test).loss == two.evaluate(wanted.test).loss
    records = (record_in_parts(network, x.train.times) for x in (parts, wanted))
    assert all(same(*pair) for pair in zip(*((x.inputs, *x.layers[:1]) for x in records), strict=True))


def test_a_run(lists, tmp_path):
    trainer, _, parts = trained(lists, tmp_path / "run")
    run = fs.Run(tmp_path / "run")
    assert isinstance(run.data.test.times, EventLists)
    assert run.evaluation.accuracy == trainer.evaluate(parts.test).accuracy
    fs.plots.PLOTS["raster"](run)
    fs.plots.PLOTS["dataset"](run)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_times_keep_their_precision(kind):
    when = [1.0, 1.0 + 1e-12, 2.0]
    given = torch.tensor(when, dtype=torch.float64) if kind is torch.tensor else kind(when)
    lists = event_lists([(given, [0, 0, 1])], 2, dtype=torch.float64)
    found = trains_from_events([(given, [0, 0, 1])], 2, dtype=torch.float64)
    assert found[0].tolist() == lists[0].tolist() == [when[:2], [2.0, torch.inf]]
    nested = [[when[:2], [2.0, float("inf")]]] * 3
    assert split(nested, [0, 1, 0], None, None, trains=True, dtype=torch.float64).train.times[0].tolist() == nested[0]


def test_lists_print_as_numbers_of_samples_and_events():
    assert repr(event_lists([([1.0, 2.0], [0, 1]), ([], [])], 3)) == "EventLists(2 samples, 3 inputs, 2 events)"


@pytest.mark.parametrize("make", [event_lists, trains_from_events])
@pytest.mark.parametrize(
    ("events", "message"),
    [
        (5, r"expected a list with a pair \(times, inputs\) for each sample, got 5"),
        (None, "expected a list with a pair"),
        ([([1.0, -1e39], [0, 0])], "expected times that torch.float32 can hold, got 1e[+]39"),
        ([([1.0], [math.inf])], "inputs: expected whole numbers, got inf for sample 0"),
    ],
)
def test_what_is_no_list_of_events(make, events, message):
    with pytest.raises(ValueError, match=message):
        make(events, 3)


@pytest.mark.parametrize("make", [fs.data.event_lists, fs.data.trains_from_events])
def test_microseconds_are_noticed(make):
    events, labels = [([0.0, 2e3, 99e3], [0, 1, 0])] * 8, torch.arange(8) % 2
    with pytest.warns(UserWarning, match=r"come 2e\+03 apart in the median, .* divide the times, .* LIF\(tau_mem="):
        fs.data.split(make(events, inputs=2), labels, trains=True)
    fs.data.split(make([([0.0, 2.0, 99.0], [0, 1, 0])] * 8, inputs=2), labels, trains=True)  # warnings are errors


def test_arrays_of_a_camera_have_small_integers_without_sign() -> None:
    camera = np.zeros(2, dtype=[("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
    camera["x"], camera["y"], camera["t"], camera["p"] = [3, 1], [2, 0], [5000, 7000], [1, 0]
    trains = event_lists([(camera["t"] / 1000, (camera["p"] * 4 + camera["y"]) * 4 + camera["x"])], inputs=32)
    assert trains.source.tolist() == [1, 27]
    assert trains.when.tolist() == [7.0, 5.0]
    with pytest.raises(ValueError, match=r'\(array\["t"\] / 1000, \(array\["p"\].astype\(int\) \* height'):
        event_lists([camera], inputs=32)
