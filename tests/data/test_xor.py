import pytest
import torch

from firstspike.data import xor


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
    with pytest.raises(ValueError, match="noise: expected"):
        xor(10, noise=-1.0)
