import math
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from firstspike.data import DATASETS, digits
from firstspike.data.images import encode_images


@pytest.fixture(scope="module")
def splits():
    return DATASETS["digits"](dtype=torch.float64)


def pixels(data):
    return ((2.0 - data.times) / (2.0 - 0.15) * 16).round()


def test_splits_are_a_partition_of_the_digits(splits):
    assert [len(part) for part in splits] == [1197, 300, 300]
    ours = torch.cat([torch.cat([pixels(part), part.labels[:, None].double()], dim=1) for part in splits])
    images, labels = load_digits(return_X_y=True)
    theirs = torch.cat([torch.from_numpy(images), torch.from_numpy(labels)[:, None].double()], dim=1)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_ink_is_early(splits):
    times = splits.train.times
    assert times.min() == 0.15
    assert (times[:, 0] == 2.0).all()  # the corner is blank in every image
    inverse = digits("train", invert=False, dtype=torch.float64)
    assert torch.allclose(inverse.times + times, torch.full_like(times, 2.15))


def test_silent_background(splits):
    silent = digits("test", silent_background=True, dtype=torch.float64)
    blank = pixels(splits.test) == 0
    assert torch.equal(torch.isinf(silent.times), blank)
    assert torch.equal(silent.times[~blank], splits.test.times[~blank])


def test_off_channel_follows_on_channel(splits):
    both = digits("test", on_off=True, dtype=torch.float64).times
    assert torch.equal(both[:, :64], splits.test.times)
    assert torch.equal(both[:, 64:], digits("test", invert=False, dtype=torch.float64).times)
    silent = digits("test", on_off=True, silent_background=True).times
    assert torch.equal(silent.isinf(), torch.cat([pixels(splits.test) == 0, pixels(splits.test) == 16], dim=1))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_digits_is_one_of_the_splits(splits, split):
    data = digits(split, dtype=torch.float64)
    assert torch.equal(data.times, getattr(splits, split).times)
    assert data.class_names == tuple("0123456789")


def test_too_many_images():
    with pytest.raises(ValueError, match="at most 1797 images in total, got 1798"):
        digits(train=1198)


def test_unknown_split():
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'valid'"):
        digits("valid")


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[digits\]"'):
        digits()


def one_image(**encoding):
    """Spike times of four pixels of rising brightness, channel after channel."""
    pixels = np.array([[[0, 51, 128, 255]]], dtype=np.uint8)
    data = encode_images(
        pixels, torch.zeros(1, dtype=torch.int64), ("one",), early=0.0, late=1.0, dtype=torch.float64, **encoding
    )
    assert data.blank == pytest.approx([channel[0] for channel in data.times.unflatten(1, (-1, 4))[0].tolist()])
    return data.times.unflatten(1, (-1, 4))[0]


def test_logarithmic_times():
    b = torch.tensor([0, 0.2, 128 / 255, 1], dtype=torch.float64)
    on, off = one_image(curvature=255, on_off=True)
    assert torch.allclose(on, 1 - torch.log1p(255 * b) / math.log(256))
    assert torch.allclose(off, 1 - torch.log1p(255 * (1 - b)) / math.log(256))
    pixels, labels = np.array([[[0, 1, 3, 7]]], dtype=np.uint8), torch.zeros(1).long()
    doubled = encode_images(pixels, labels, ("one",), curvature=255).times[0]
    assert torch.allclose(doubled.diff(), doubled.diff()[0])
    assert torch.allclose(one_image(curvature=1e-6), 1 - b)
