import math

import pytest
import torch

from firstspike.data import DATASETS, bars
from firstspike.data.generated import delayed_xor, pattern, poisson, xor


def dark(data, size):
    return (data.times == data.times.min()).reshape(-1, size, size)


def direction(image):
    if image.all(dim=1).sum() == 1:
        return 0
    if image.all(dim=0).sum() == 1:
        return 1
    return 2 if image.diagonal().all() or image.flip(1).diagonal().all() else -1


@pytest.mark.parametrize("size", [3, 5])
def test_labels_are_the_directions(size):
    data = bars(size, samples=120)
    images = dark(data, size)
    assert data.features == size**2
    assert (images.sum((1, 2)) == size).all()
    assert [direction(image) for image in images] == data.labels.tolist()


def test_classes_balanced_and_every_bar_drawn():
    data = bars(3, samples=300)
    assert data.labels.bincount().tolist() == [100, 100, 100]
    different, counts = data.times.unique(dim=0, return_counts=True)
    assert len(different) == 3 + 3 + 2
    assert counts.min() > 20


def test_bars_are_early():
    assert bars(samples=3, dtype=torch.float64).times.unique().tolist() == [0.15, 2.0]


def test_silent_background():
    data, loud = bars(samples=30, silent_background=True), bars(samples=30)
    assert torch.equal(torch.isinf(data.times), loud.times == 2.0)


def test_noise_of_bars():
    clean, noisy = bars(samples=900), bars(samples=900, noise=0.1)
    assert torch.equal(clean.labels, noisy.labels)
    assert noisy.times.min() >= 0.15
    assert noisy.times.max() <= 2.0
    shift = (noisy.times - clean.times).abs() / (2.0 - 0.15)
    moved = shift[shift > 0]  # the other half of a Gaussian is clipped away
    assert 0.4 < len(moved) / shift.numel() < 0.6
    assert moved.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("arguments", [{"size": 1}, {"samples": 0}, {"noise": -0.1}])
def test_wrong_arguments_of_bars(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} must be"):
        bars(**arguments)


def test_truth_table():
    data = xor(40, dtype=torch.float64)
    early = data.times == 0.15
    assert torch.equal(data.labels, (early[:, 0] != early[:, 1]).long())
    assert data.class_names == ("equal", "different")
    combinations, counts = data.times.unique(dim=0, return_counts=True)
    assert combinations.tolist() == [[0.15, 0.15], [0.15, 2.0], [2.0, 0.15], [2.0, 2.0]]
    assert counts.tolist() == [10, 10, 10, 10]


def test_noise_moves_times_and_keeps_labels():
    clean, noisy = xor(2000), xor(2000, noise=0.05)
    assert torch.equal(clean.labels, noisy.labels)
    late = clean.times == 2.0
    assert (noisy.times - clean.times)[late].std().item() == pytest.approx(0.05, rel=0.1)


def test_times_never_fall_below_zero():
    times = xor(500, noise=1.0).times
    assert times.min() == 0.0
    assert torch.isfinite(times).all()


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="noise must be"):
        xor(10, noise=-1.0)


def test_cues_tell_the_class_and_first_spikes_do_not():
    data = delayed_xor(samples=40, early=0.5, late=4.5, dtype=torch.float64)
    assert data.times.shape == (40, 2, 3)
    for times, label in zip(data.times, data.labels, strict=True):
        assert times[:, 0].tolist() == [0.5, 0.5]
        cues = {time: source for source in range(2) for time in times[source, 1:].tolist()}
        assert (cues[2.5] != cues[4.5]) == bool(label)
    assert data.labels.bincount().tolist() == [20, 20]
    assert len(data.first_spikes().times.unique(dim=0)) == 1


def test_noise_jitters_every_spike():
    data = delayed_xor(samples=40, noise=0.05, dtype=torch.float64)
    clean = delayed_xor(samples=40, dtype=torch.float64)
    moved = torch.isfinite(clean.times)
    assert torch.equal(torch.isfinite(data.times), moved)
    assert 0 < (data.times - clean.times)[moved].abs().max() < 0.3
    with pytest.raises(ValueError, match="noise must be"):
        delayed_xor(noise=-1.0)


def test_parts_are_drawn_independently():
    train, validation, _ = DATASETS["delayed_xor"](train=40, validation=40, noise=0.1)
    assert not torch.equal(train.times, validation.times)


def test_without_jitter_one_pattern_per_class():
    data = pattern(60, classes=4, inputs=7)
    assert data.times.shape == (60, 7)
    assert data.labels.bincount().tolist() == [15, 15, 15, 15]
    assert data.class_names == ("pattern 0", "pattern 1", "pattern 2", "pattern 3")
    for k in range(4):
        assert len(data.times[data.labels == k].unique(dim=0)) == 1
    assert len(data.times.unique(dim=0)) == 4


def test_splits_share_the_patterns():
    train, validation, test = DATASETS["pattern"](train=9, validation=6, test=6, jitter=0.0)
    patterns = train.times.unique(dim=0)
    assert torch.equal(validation.times.unique(dim=0), patterns)
    assert torch.equal(test.times.unique(dim=0), patterns)


def test_pattern_seed_changes_the_patterns():
    assert not torch.equal(pattern(9).times.unique(dim=0), pattern(9, pattern_seed=1).times.unique(dim=0))


@pytest.mark.parametrize("given", [list, torch.tensor])
def test_given_patterns(given):
    table = [[0.5, math.inf, 1.0], [1.5, 0.25, math.inf]]
    data = pattern(10, patterns=given(table), dtype=torch.float64)
    assert torch.equal(data.times, torch.tensor(table, dtype=torch.float64)[data.labels])


def test_jitter_of_patterns():
    table = [[1.0, math.inf], [2.0, 3.0]]
    data = pattern(2000, patterns=table, jitter=0.1, dtype=torch.float64)
    centre = torch.tensor(table, dtype=torch.float64)[data.labels]
    spiking = torch.isfinite(centre)
    assert torch.equal(torch.isfinite(data.times), spiking)
    assert (data.times - centre)[spiking].std().item() == pytest.approx(0.1, rel=0.1)
    assert pattern(500, jitter=1.0).times.min() == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jitter": -0.1}, "jitter must be"),
        ({"classes": 1}, "classes must be"),
        ({"inputs": 0}, "inputs must be"),
        ({"patterns": [0.1, 0.2]}, "patterns: expected"),
        ({"patterns": [[0.1, -0.2]]}, "patterns: expected"),
        ({"patterns": [[0.1, math.nan]]}, "patterns: expected"),
    ],
)
def test_wrong_arguments_of_patterns(arguments, message):
    with pytest.raises(ValueError, match=message):
        pattern(**arguments)


def test_poisson_trains():
    """Counts and intervals are those of a Poisson process, for each rate."""
    rates = [0.0, 0.02, 1.0]
    trains = poisson(rates, 50.0, 3, samples=4000, dtype=torch.float64)
    assert trains.shape[:2] == (4000, 3)
    assert trains[..., -1].isfinite().any(), "no longer than the longest"
    assert torch.equal(trains, trains.sort(dim=-1).values)
    assert trains[trains.isfinite()].max() < 50
    counts = trains.isfinite().sum(dim=-1).double()
    for rate, count in zip(rates, counts.unbind(-1), strict=True):
        assert count.mean().item() == pytest.approx(50 * rate, rel=0.05)
        assert count.var().item() == pytest.approx(50 * rate, rel=0.1)
    assert (counts[:, 1] == 0).double().mean().item() == pytest.approx(math.exp(-1), abs=0.03)
    first = trains[:, 2, 0]
    assert (first > 1.0).double().mean().item() == pytest.approx(math.exp(-1), abs=0.03)
    inside = trains[:, 2][trains[:, 2].isfinite()] / 50
    assert inside.mean().item() == pytest.approx(0.5, abs=0.01)
    assert inside.var().item() == pytest.approx(1 / 12, rel=0.02)


def test_poisson_trains_follow_their_seed():
    one = poisson(0.2, 20.0, 5, samples=3)
    assert one.dtype == torch.float32
    assert torch.equal(one, poisson(0.2, 20.0, 5, samples=3))
    assert not torch.equal(one[..., 0], poisson(0.2, 20.0, 5, samples=3, seed=1)[..., 0])
    source = torch.Generator().manual_seed(42)
    assert torch.equal(one, poisson(0.2, 20.0, 5, samples=3, seed=source))
    assert not torch.equal(one[..., 0], poisson(0.2, 20.0, 5, samples=3, seed=source)[..., 0])
    assert poisson(0.0, 20.0, 5).shape == (1, 5, 1)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ([0.1, 0.2], "rate must be finite and >= 0, a number or one for each of 3 inputs, got"),
        ([0.1, -0.2, 0.1], "rate must be finite and >= 0, a number or one for each of 3 inputs, got"),
        (math.inf, "rate must be >= 0 and finite or a "),
        (1e12, "spike trains of 1 samples and 3 neurons with room for .* spikes take about"),
    ],
)
def test_wrong_rates(rate, message):
    with pytest.raises(ValueError, match=message):
        poisson(rate, 20.0, 3)
