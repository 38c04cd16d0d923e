import math

import pytest
import torch

from firstspike.data import DATASETS, pattern


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


def test_jitter():
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
        ({"jitter": -0.1}, "jitter: expected"),
        ({"classes": 1}, "classes: expected"),
        ({"inputs": 0}, "inputs: expected"),
        ({"patterns": [0.1, 0.2]}, "patterns: expected"),
        ({"patterns": [[0.1, -0.2]]}, "patterns: expected"),
        ({"patterns": [[0.1, math.nan]]}, "patterns: expected"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        pattern(**arguments)
