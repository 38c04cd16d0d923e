import pytest
import torch

from firstspike.data import bars


def dark(data, size):
    return (data.times == data.times.min()).reshape(-1, size, size)


def kind(image):
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
    assert [kind(image) for image in images] == data.labels.tolist()


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


def test_multiply_puts_copies_next_to_each_other():
    data, once = bars(samples=30, multiply=4, noise=0.1), bars(samples=30, noise=0.1)
    assert data.features == 36
    for copy in range(4):
        assert torch.equal(data.times[:, copy::4], once.times)


def test_noise():
    clean, noisy = bars(samples=900), bars(samples=900, noise=0.1)
    assert torch.equal(clean.labels, noisy.labels)
    assert noisy.times.min() >= 0.15
    assert noisy.times.max() <= 2.0
    shift = (noisy.times - clean.times).abs() / (2.0 - 0.15)
    moved = shift[shift > 0]  # the other half of a Gaussian is clipped away
    assert 0.4 < len(moved) / shift.numel() < 0.6
    assert moved.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("arguments", [{"size": 1}, {"samples": 0}, {"noise": -0.1}, {"multiply": 0}])
def test_wrong_arguments(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}: expected"):
        bars(**arguments)
