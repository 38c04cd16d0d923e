"""Events of the synthetic camera: where, when, of which polarity."""

import pytest
import torch

from firstspike.data import DATASETS, camera

SIZE = 12


def events(data, sample):
    """Polarity, row, column and time of all events of a sample, in order of time."""
    trains = data.times[sample].view(2, SIZE, SIZE, -1)
    found = trains.isfinite().nonzero()
    time = trains[trains.isfinite()]
    order = time.argsort()
    return *found[order, :3].unbind(1), time[order]


@pytest.mark.parametrize(("motion", "classes"), [("bars", 4), ("rotations", 2)])
def test_classes_inputs_and_seeds(motion, classes):
    data = camera(motion, SIZE, samples=40, seed=3)
    assert data.labels.bincount().tolist() == [40 // classes] * classes
    assert (data.features, data.image, len(data.class_names)) == (2 * SIZE**2, (2, SIZE, SIZE), classes)
    assert data.times.when.min() >= 0
    assert data.times.when.max() <= 10
    again, other = (camera(motion, SIZE, samples=40, seed=seed) for seed in (3, 4))
    assert torch.equal(again.times.when, data.times.when)
    assert not torch.equal(other.labels, data.labels)


def test_bars_move_in_their_direction():
    data = camera("bars", SIZE, samples=80, noise=0.0)
    for sample in range(80):
        polarity, row, column, time = events(data, sample)
        assert polarity[:5].all()  # what is bright has become so before
        assert not polarity[-5:].any()
        early, late = time < time.median(), time > time.median()
        right, down = (float(x[late].double().mean() - x[early].double().mean()) for x in (column, row))
        moved = {"right": right, "left": -right, "up": -down, "down": down}
        assert max(moved, key=moved.get) == data.class_names[data.labels[sample]]


def test_bars_turn_in_their_direction():
    data = camera("rotations", 40, samples=30, noise=0.0)
    for sample in range(30):
        trains = data.times[sample].view(2, 40, 40, -1)[1]  # the leading edges, which brighten pixels
        row, column, _ = trains.isfinite().nonzero().unbind(1)
        time = trains[trains.isfinite()].double()
        y, x = -(row - row.double().mean()), column - column.double().mean()
        chosen = time > time.min() + 0.05  # the bar appears all at once
        turned = torch.stack([(2 * torch.atan2(y, x)).cos(), (2 * torch.atan2(y, x)).sin()])[:, chosen]
        steps = [turned[:, (time[chosen] - t).abs() < 0.3].mean(dim=1) for t in torch.linspace(2.5, 5.5, 13)]
        angle = torch.stack([torch.atan2(s[1], s[0]) for s in steps]).diff()
        angle = (angle + torch.pi) % (2 * torch.pi) - torch.pi
        assert (float(angle.nanmedian()) > 0) == (data.class_names[data.labels[sample]] == "counterclockwise")


def test_pixels_are_as_often_bright_as_dark():
    data = camera("bars", SIZE, samples=5, noise=0.0)
    on, off = data.dense.isfinite().sum(dim=-1).view(5, 2, -1).unbind(1)[::-1]
    assert torch.equal(on, off)
    assert on.any()


def test_noise_is_its_mean_number():
    quiet, noisy = (camera(size=SIZE, samples=50, noise=x) for x in (0.0, 2.0))
    more = (len(noisy.times.when) - len(quiet.times.when)) / (50 * 2 * SIZE**2)
    assert more == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("wrong", [{"motion": "waves"}, {"size": 3}, {"noise": -1.0}, {"duration": 0.0}])
def test_wrong_arguments(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        camera(**wrong)


def test_splits_are_independent():
    train, validation, test = DATASETS["camera"](train=20, validation=10, test=10)
    assert [len(x) for x in (train, validation, test)] == [20, 10, 10]
    assert not torch.equal(validation.times.when[:50], test.times.when[:50])
