import math

import numpy as np
import torch

from firstspike import data, plots
from firstspike.data import generated
from firstspike.plots.dataset import example_samples, input_raster
from firstspike.runs import Run


def points(ax):
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_label()[0] != "_"])


def test_yin_yang_points(ax):
    samples = data.yin_yang(60)
    plane = plots.YinYangPlane()
    assert plots.yin_yang_points(samples, ax, plane) is ax
    ax.figure.draw_without_rendering()
    expected = plane.coordinates(samples.times)
    np.testing.assert_allclose(np.sort(points(ax), axis=0), np.sort(expected, axis=0))


def test_two_inputs_are_points(tmp_path):
    layers = "network: [{kind: lif, out_features: 2}]\nloss: {kind: cross_entropy}"
    training = "training: {epochs: 1, batch_size: 2}"
    (tmp_path / "config.yaml").write_text(
        f"data: {{kind: xor, train: 20, validation: 4, test: 4}}\n{layers}\n{training}"
    )
    run = Run(tmp_path)
    (ax,) = plots.PLOTS["dataset"](run).axes
    np.testing.assert_allclose(np.sort(points(ax), axis=0), np.sort(run.data.train.times.double(), axis=0))


def test_images_are_the_times_and_silent_pixels_are_masked(axes):
    samples = data.bars(3, samples=3, silent_background=True)
    drawn = plots.spike_images(samples.times, axes, (3, 3), ["a", "b", "c"])
    assert drawn == list(axes)
    axes[0].figure.draw_without_rendering()
    for ax, times in zip(axes, samples.times, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array().filled(math.inf).ravel(), times)


def test_raster_shows_the_spikes_of_one_class(ax):
    samples = generated.pattern(samples=30, inputs=5, jitter=0.1)
    assert input_raster(samples, ax, label=1) is ax
    assert len(ax.lines[0].get_xdata()) == 50
    assert ax.get_title() == "pattern 1"


def test_examples_are_different_and_of_all_classes():
    samples = data.bars(3, samples=200)
    chosen = example_samples(samples.times, samples.labels, 12)
    assert len(chosen) == 8
    assert len({tuple(row) for row in samples.times[chosen].tolist()}) == 8
    assert samples.labels[chosen].tolist() == sorted(samples.labels[chosen].tolist())
    assert set(samples.labels[example_samples(samples.times, samples.labels, 3)].tolist()) == {0, 1, 2}
    assert example_samples(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), 3) == [0]
