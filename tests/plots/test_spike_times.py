import math

import numpy as np
import pytest
import torch

from firstspike import plots


def rows(epochs, classes, neurons, spiked=1.0):
    keys = [(e, c, n) for e in range(1, epochs + 1) for c in range(classes) for n in range(neurons)]
    table = dict(zip(("epoch", "label", "neuron"), np.array(keys, dtype=float).T.tolist(), strict=True))
    mean = [10.0 * c + n + e / 10 for e, c, n in keys]
    return table | {"mean": mean, "std": [0.1] * len(keys), "spiked": [spiked] * len(keys)}


def test_output_times_has_a_panel_per_class(axes):
    drawn = plots.output_times(rows(4, 3, 3), axes, ["a", "b", "c"])
    assert drawn == list(axes)
    drawn[0].figure.draw_without_rendering()
    for label, ax in enumerate(drawn):
        shown = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_allclose(shown["b"], 10.0 * label + 1 + np.arange(1, 5) / 10)
        assert "abc"[label] in ax.get_title()


def test_output_times_are_faint_where_few_samples_spike(axes):
    for ax in plots.output_times(rows(4, 3, 3, spiked=0.4), axes):
        faint, strong = ax.lines[:2]
        assert np.isfinite(faint.get_ydata()).all()
        assert np.isnan(strong.get_ydata()).all()


def test_output_times_that_never_come(axes):
    table = rows(4, 3, 3, spiked=0.0) | {"mean": [math.nan] * 36, "std": [math.nan] * 36}
    plots.output_times(table, axes)[0].figure.draw_without_rendering()


def test_output_times_of_one_epoch_are_points(axes):
    assert plots.output_times(rows(1, 3, 3), axes)[0].lines[1].get_marker() == "o"


def test_wrong_number_of_names(axes):
    with pytest.raises(ValueError, match="class_names: expected 3, got 2"):
        plots.output_times(rows(4, 3, 3), axes, ["a", "b"])


def test_histogram_counts_spikes_and_names_the_silent(ax):
    times = torch.tensor([[1.0, 2.0], [1.0, math.inf]])
    assert plots.spike_histogram(times, ax, "hidden") is ax
    assert ax.get_title() == "hidden, 25.0 % silent"
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(75)


def test_histogram_of_silent_neurons(ax):
    plots.spike_histogram(torch.full((2, 3), math.inf), ax)
    assert ax.get_title() == "100.0 % silent"
    assert ax.texts[0].get_text() == "no spikes"
