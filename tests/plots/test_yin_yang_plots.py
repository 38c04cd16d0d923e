import math

import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike import plots
from firstspike.data import yin_yang
from firstspike.data.yinyang import yin_yang_class
from firstspike.losses import TimeCrossEntropy
from firstspike.plots.yin_yang import difference_map

PLANE = plots.YinYangPlane(early=0.2, late=1.8, resolution=31)


@pytest.fixture
def record(source):
    net = fs.Network(fs.LIFLinear(4, 6, generator=source), fs.LIFLinear(6, 3, generator=source))
    return PLANE.record(net)


def test_grid_and_coordinates_are_inverse():
    points = PLANE.coordinates(PLANE.times(torch.float64)).reshape(31, 31, 2)
    np.testing.assert_allclose(points[..., 0], PLANE.grid()[0])
    np.testing.assert_allclose(points[..., 1], PLANE.grid()[1])


def test_coordinates_are_those_of_the_data_set():
    data = yin_yang(50, early=0.2, late=1.8, dtype=torch.float64)
    x, y = PLANE.coordinates(data.times).T
    np.testing.assert_array_equal(yin_yang_class(x, y), data.labels)


def test_classes_change_across_the_outline_and_only_there():
    near = 1e-6
    for line in PLANE.outline():
        tangent = np.gradient(line, axis=0)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.linalg.norm(tangent, axis=1, keepdims=True)
        one, other = (yin_yang_class(*(line + side * near * normal)[5:-5].T) for side in (-1, 1))
        assert (one != other).all()
    inside = np.random.default_rng(0).random((20000, 2))
    gap = np.min([np.linalg.norm(inside[:, None] - line, axis=2).min(axis=1) for line in PLANE.outline()], axis=0)
    far = inside[gap > 0.02]
    moved = far + np.random.default_rng(1).uniform(-0.005, 0.005, far.shape)
    np.testing.assert_array_equal(yin_yang_class(*far.T), yin_yang_class(*moved.T))


def test_record_on_the_grid_is_the_networks(source):
    net = fs.Network(fs.BiasSpikes([0.5]), fs.LIFLinear(5, 3, generator=source, dtype=torch.float64))
    times = PLANE.times(torch.float64)
    torch.testing.assert_close(PLANE.record(net).output, net(times).detach())


def test_decision_map_shows_the_losss_decisions(ax, record):
    loss = TimeCrossEntropy()
    assert plots.decision_map(record.output, loss, ax, PLANE) is ax
    ax.figure.draw_without_rendering()
    shown = ax.images[0].get_array().filled(-1)
    np.testing.assert_array_equal(shown.ravel(), loss.predict(record.output))
    assert ax.images[0].origin == "lower"


def test_silent_regions_are_named(ax, record):
    times = record.output.clone()
    times[: 10 * 31] = math.inf
    plots.decision_map(times, TimeCrossEntropy(), ax, PLANE, names=["a", "b", "c"])
    ax.figure.draw_without_rendering()
    assert ax.images[0].get_array().mask[:10].all()
    assert not ax.images[0].get_array().mask[10:].any()
    assert "silent" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_test_points_with_a_wrong_decision_are_crossed(ax, record):
    loss = TimeCrossEntropy()
    x, y = PLANE.grid().reshape(2, -1)
    inside = yin_yang_class(x, y) >= 0
    labels = torch.from_numpy(yin_yang_class(x, y)[inside])
    points = fs.data.SpikeData(PLANE.times()[torch.from_numpy(inside)], labels, ("yin", "yang", "dot"))
    plots.decision_map(record.output, loss, ax, PLANE, points)
    ax.figure.draw_without_rendering()
    crosses = next(line for line in ax.lines if line.get_marker() == "x")
    wrong = loss.predict(record.output)[torch.from_numpy(inside)] != labels
    assert len(crosses.get_xdata()) == int(wrong.sum())


def test_time_map_shows_times_and_hides_silence(ax, record):
    times = record.layers[0][:, 2].clone()
    times[:31] = math.inf
    assert plots.time_map(times, ax, PLANE) is ax
    ax.figure.draw_without_rendering()
    shown = ax.images[0].get_array()
    assert shown.mask[0].all()
    finite = times[torch.isfinite(times)].double()
    np.testing.assert_allclose(shown.compressed(), finite)
    assert ax.images[0].get_clim() == (float(finite.min()), float(finite.max()))


def test_difference_map(ax, record):
    first, second = record.output[:, 0].clone(), record.output[:, 1].clone()
    first[:31], second[31:62] = math.inf, math.inf
    first[0] = second[0] = math.inf
    assert difference_map(first - second, ax, PLANE) is ax
    ax.figure.draw_without_rendering()
    shown = ax.images[0].get_array()
    assert shown.mask[:2].all()
    both = torch.isfinite(first) & torch.isfinite(second)
    np.testing.assert_allclose(shown.compressed(), (first - second)[both])


def test_maps_of_silent_neurons(axes):
    silent = torch.full((31 * 31,), math.inf)
    plots.time_map(silent, axes[0], PLANE)
    difference_map(silent - silent, axes[1], PLANE)
    plots.decision_map(torch.stack([silent] * 3, dim=1), TimeCrossEntropy(), axes[2], PLANE)
    axes[0].figure.draw_without_rendering()
