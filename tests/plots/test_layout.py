"""Nothing in a figure is cut off or lies on top of something else."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from test_confusion import evaluation
from test_membrane import trains_layer

import firstspike as fs
from firstspike import plots
from firstspike.plots.run_data import NotApplicable
from firstspike.plots.spike_times import spike_histogram
from firstspike.plots.training import parameter_history


def written(ax):
    """Titles, names of axes and lines, and legends: all text of a panel but the numbers at its ticks."""
    ticks = [label for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels(which="both")]
    found = ax.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip())
    return [text for text in found if text not in ticks and ax.get_visible()]


@pytest.mark.slow
@pytest.mark.parametrize("name", plots.PLOTS)
@pytest.mark.parametrize("of", ["yin_yang_run", "bars_run"])
def test_text_is_whole_and_does_not_overlap(name, of, request):
    try:
        figure = plots.PLOTS[name](request.getfixturevalue(of))
    except NotApplicable:
        pytest.skip("does not apply to this run")
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > -0.01
    texts = [(text, text.get_window_extent().shrunk(0.95, 0.9)) for ax in figure.axes for text in written(ax)]
    covered = [
        (one.get_text(), other.get_text()) for (one, a), (other, b) in itertools.combinations(texts, 2) if a.overlaps(b)
    ]
    assert covered == []


def test_the_label_of_a_colour_bar_is_apart_from_the_next_panel():
    with plots.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
        plots.confusion(evaluation([0, 0, 1, 2], [0, 1, 1, 2]), left)
        right.set_ylabel("membrane [threshold]")
        figure.draw_without_rendering()
        bar = next(ax for ax in figure.axes if ax not in (left, right))
        gap = right.get_tightbbox().x0 - bar.get_tightbbox().x1
        assert gap > 0.15 * figure.dpi
        assert bar.yaxis.label.get_window_extent().height <= bar.get_window_extent().height
        plt.close(figure)


def test_membranes_of_trains_are_in_rows(ax, source):
    layer = trains_layer(source, fs.LIFSpikeTrains)
    times = 3 * torch.rand(6, 2, generator=source, dtype=torch.float64).sort(-1).values
    plots.membrane(layer, times, ax, names=list("abcd"))
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abcd")
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]  # thresholds are dashed
    traces = [line.get_ydata() for line in solid if len(line.get_xdata()) > 900]
    assert all(np.max(lower) < np.min(upper) for upper, lower in itertools.pairwise(traces))


def test_an_axis_starts_shortly_before_the_first_input(ax):
    plots.membrane(fs.LIFLinear(2, 1, weight_mean=3.0, weight_std=0.0), torch.tensor([5.0, 6.0]), ax)
    assert 4.5 < ax.get_xlim()[0] < 5.0


def test_bars_of_trains_are_numbers_of_spikes(ax):
    times = torch.tensor([[[1.0, 1.1, 1.2], [1.0, torch.inf, torch.inf]]])
    spike_histogram(times, ax, "hidden", bins=1)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([2])
    assert (ax.get_title(), ax.get_ylabel()) == (
        "hidden, 0.0 % silent\n2 spikes per neuron",
        "spikes per neuron and sample",
    )


def test_fractions_of_zero_are_above_the_axis(axes):
    metrics = {"epoch": [1, 2], "spikes_0": [2.0, 2.1], "silent_0": [0.0, 0.0], "full_0": [0.0, 0.0]}
    assert all(ax.get_ylim()[0] < 0 for ax in plots.spike_counts(metrics, axes, {0: "hidden"}))


@pytest.mark.parametrize("parameters", [3, 40])
def test_what_lies_between_two_checkpoints_is_no_epoch(ax, parameters):
    values = np.random.default_rng(0).normal(size=(2, parameters))
    parameter_history(np.array([0.0, 50.0]), values, ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["before training", "epoch 50"]
    assert {line.get_marker() for line in ax.lines} == {"o"}


def test_names_in_legends_have_a_heading(yin_yang_run):
    for name in ("membrane", "summary"):
        headings = [
            legend.get_title().get_text() for ax in plots.PLOTS[name](yin_yang_run).axes if (legend := ax.get_legend())
        ]
        assert "output" in headings
        assert "" not in headings
