import pytest
import torch

from firstspike.data import DATASETS, delayed_xor


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
    with pytest.raises(ValueError, match="noise: expected"):
        delayed_xor(noise=-1.0)


def test_parts_are_drawn_independently():
    train, validation, _ = DATASETS["delayed_xor"](train=40, validation=40, noise=0.1)
    assert not torch.equal(train.times, validation.times)
