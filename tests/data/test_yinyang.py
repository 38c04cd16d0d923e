import numpy as np
import pytest
import torch

from firstspike.data import DATASETS, Splits, yin_yang
from firstspike.data.encoding import latency
from firstspike.data.yinyang import CLASS_NAMES, yin_yang_class


def sequential(size, seed, r_small=0.1, r_big=0.5):
    """The definition of the data set, one random number after the other."""
    rng = np.random.RandomState(seed)
    points, labels = [], []
    for _ in range(size):
        goal = rng.randint(3)
        while True:
            x, y = rng.rand(2) * 2 * r_big
            if np.hypot(x - r_big, y - r_big) > r_big:
                continue
            if scalar_class(x, y, r_small, r_big) == goal:
                break
        points.append([x, y, 1 - x, 1 - y])
        labels.append(goal)
    return torch.tensor(points, dtype=torch.float64), torch.tensor(labels)


def scalar_class(x, y, r_small, r_big):
    right, left = np.hypot(x - 1.5 * r_big, y - r_big), np.hypot(x - 0.5 * r_big, y - r_big)
    if right < r_small or left < r_small:
        return 2
    if right <= r_small or r_small < left <= 0.5 * r_big or (y > r_big and right > 0.5 * r_big):
        return 1
    return 0


@pytest.mark.parametrize(
    ("size", "seed", "counts"),
    [
        (5000, 42, [1681, 1702, 1617]),
        (1000, 41, [316, 336, 348]),
        (1000, 40, [350, 316, 334]),
    ],
)
def test_published_splits(size, seed, counts):
    data = yin_yang(size, seed, dtype=torch.float64)
    values, labels = sequential(size, seed)
    assert data.labels.bincount().tolist() == counts
    assert torch.equal(data.labels, labels)
    assert torch.equal(data.times, latency(values))


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1])
@pytest.mark.parametrize(("r_small", "r_big"), [(0.1, 0.5), (0.05, 0.5), (0.2, 0.5), (0.06, 0.3), (0.025, 0.5)])
def test_equals_sequential_generator(seed, r_small, r_big):
    size = 12
    data = yin_yang(size, seed, r_small, r_big, dtype=torch.float64)
    values, labels = sequential(size, seed, r_small, r_big)
    assert torch.equal(data.labels, labels)
    assert torch.equal(data.times, latency(values))


def test_a_longer_set_starts_with_the_shorter():
    long, short = yin_yang(300, 3), yin_yang(100, 3)
    assert torch.equal(long.times[:100], short.times)
    assert torch.equal(long.labels[:100], short.labels)


def test_encoding_of_coordinates():
    times = yin_yang(200, 5, early=1.0, late=3.0, dtype=torch.float64).times
    assert torch.allclose(times[:, :2] + times[:, 2:], torch.tensor(4.0, dtype=torch.float64))  # v and 1 - v
    value = (times - 1.0) / 2.0
    classes = yin_yang_class(value[:, 0].numpy(), value[:, 1].numpy())
    assert torch.equal(torch.from_numpy(classes), yin_yang(200, 5).labels)


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    yin_yang(10, 0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_class_names():
    assert yin_yang(10, 0).class_names == CLASS_NAMES == ("yin", "yang", "dot")


def test_class_of_a_grid():
    grid = np.linspace(-0.1, 1.1, 61)
    classes = yin_yang_class(grid[None, :], grid[:, None])
    assert classes.shape == (61, 61)
    for row, y in enumerate(grid):
        for column, x in enumerate(grid):
            outside = np.sqrt((x - 0.5) ** 2 + (y - 0.5) ** 2) > 0.5
            assert classes[row, column] == (-1 if outside else scalar_class(x, y, 0.1, 0.5))


def test_classes_of_known_points():
    x = [0.25, 0.75, 0.25, 0.75, 0.5, 0.0]
    y = [0.5, 0.5, 0.65, 0.65, 0.9, 0.0]
    assert yin_yang_class(x, y).tolist() == [2, 2, 1, 0, 1, -1]


def test_symmetry_swaps_the_halves():
    x, y = np.random.default_rng(0).random((2, 1000))
    classes, turned = yin_yang_class(x, y), yin_yang_class(1 - x, 1 - y)
    assert np.array_equal(turned, np.array([1, 0, 2, -1])[classes])


def test_splits_are_the_published_ones():
    splits = DATASETS["yin_yang"](train=50, validation=20, test=10)
    assert isinstance(splits, Splits)
    for part, size, seed in zip(splits, (50, 20, 10), (42, 41, 40), strict=True):
        assert torch.equal(part.times, yin_yang(size, seed).times)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples must be"),
        ({"seed": -1}, "seed must be"),
        ({"r_big": 0.6}, "r_big must be > 0 and <= 0.5"),
        ({"r_small": 0.25}, "r_small, r_big: expected"),
        ({"r_small": 0.02}, "r_small, r_big: expected"),
        ({"early": 2.0}, "early, late: expected"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        yin_yang(**({"samples": 5} | arguments))
