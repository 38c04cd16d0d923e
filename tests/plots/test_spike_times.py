import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

import firstspike as fs
from firstspike import plots
from firstspike.layers.named import named_spikes
from firstspike.plots.look import COLOURS, GREY
from firstspike.plots.spike_times import spike_histogram


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


@pytest.mark.slow
def test_output_times_that_never_come(axes):
    table = rows(4, 3, 3, spiked=0.0) | {"mean": [math.nan] * 36, "std": [math.nan] * 36}
    plots.output_times(table, axes)[0].figure.draw_without_rendering()


def test_a_few_epochs_with_other_samples_leave_no_comb(axes):
    table = {name: np.array(column) for name, column in rows(80, 3, 3).items()}
    seldom = (table["label"] == 0) & (table["neuron"] == 2)
    table["spiked"][seldom] = 0.3
    table["mean"][seldom] = 5.0
    jumps = seldom & np.isin(table["epoch"], (20, 40, 41, 60))
    table["spiked"][jumps] = 0.6
    table["mean"][jumps] = 9.0
    ax = plots.output_times(table, axes)[0]
    faint, strong = ax.lines[4:]
    np.testing.assert_array_equal(faint.get_ydata(), 5.0)
    assert np.isnan(strong.get_ydata()).all()


def test_only_lines_that_reach_the_last_epoch_are_named(axes):
    table = {name: np.array(column) for name, column in rows(20, 3, 3).items()}
    gone = (table["label"] == 1) & (table["neuron"] == 2) & (table["epoch"] > 10)
    table["spiked"][gone], table["mean"][gone] = 0.0, math.nan
    drawn = plots.output_times(table, axes, ["a", "b", "c"])
    assert [[text.get_text() for text in ax.texts] for ax in drawn] == [["a", "b", "c"], ["a", "b"], ["a", "b", "c"]]


def test_output_times_of_one_epoch_are_points(axes):
    assert plots.output_times(rows(1, 3, 3), axes)[0].lines[1].get_marker() == "o"


def test_of_many_outputs_the_true_class_is_drawn_and_the_range_of_the_others(axes):
    drawn = plots.output_times(rows(4, 3, 6), axes)
    for label, ax in enumerate(drawn):
        shown = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_allclose(shown["true class"], 10.0 * label + label + np.arange(1, 5) / 10)
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        others = [neuron for neuron in range(6) if neuron != label]
        low, high = 10.0 * label + min(others) + 0.1, 10.0 * label + max(others) + 0.4
        assert (band.min(), band.max()) == pytest.approx((low, high))
    assert drawn[-1].get_legend() is not None


def test_rows_may_come_in_any_order(axes):
    table = rows(4, 3, 3)
    order = np.random.default_rng(0).permutation(36)
    shuffled = {name: np.asarray(column)[order] for name, column in table.items()}
    expected = [line.get_ydata() for ax in plots.output_times(table, axes) for line in ax.lines]
    for ax in axes:
        ax.clear()
    found = [line.get_ydata() for ax in plots.output_times(shuffled, axes) for line in ax.lines]
    np.testing.assert_array_equal(found, expected)


def test_wrong_number_of_names(axes):
    with pytest.raises(ValueError, match="class_names: expected 3, got 2"):
        plots.output_times(rows(4, 3, 3), axes, ["a", "b"])


def test_histogram_counts_spikes_and_names_the_silent(ax):
    times = torch.tensor([[1.0, 2.0], [1.0, math.inf]])
    assert spike_histogram(times, ax, "hidden") is ax
    assert ax.get_title() == "hidden, 25.0 % silent"
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(75)


def test_histogram_of_silent_neurons(ax):
    spike_histogram(torch.full((2, 3), math.inf), ax)
    assert ax.get_title() == "100.0 % silent"
    assert ax.texts[0].get_text() == "no spikes"


def network():
    source = torch.Generator().manual_seed(0)
    return fs.Network(
        fs.BiasSpikes([0.9, 1.1]),
        fs.Delay(4, generator=source),
        fs.Multiplex(2),
        fs.LIFLinear(8, 50, generator=source),
        fs.LIFLinear(50, 3, generator=source),
    )


def test_spikes_are_named_after_what_each_layer_adds():
    net = network()
    record = net.record(torch.tensor([[0.1, math.inf]]))
    found = named_spikes(net, record)
    assert [(spikes.name, spikes.times.shape[1]) for spikes in found] == [
        ("input", 2),
        ("bias", 2),
        ("delayed", 4),
        ("hidden", 50),
        ("output", 3),
    ]
    torch.testing.assert_close(found[1].times, torch.tensor([[0.9, 1.1]]))


def test_raster_shows_every_spike_once(ax):
    net = network()
    record = net.record(torch.tensor([[0.1, math.inf], [0.5, 0.7]]))
    assert plots.raster(net, record, ax, sample=0) is ax
    ax.figure.draw_without_rendering()
    ticks = [path.vertices[0, 0] for lines in ax.collections for path in lines.get_paths()]
    dots = [x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()]
    expected = torch.cat([spikes.times[0] for spikes in named_spikes(net, record)])
    np.testing.assert_allclose(sorted(ticks + dots), expected[expected.isfinite()].detach().double().sort().values)
    assert "input 1/2" in [label.get_text() for label in ax.get_yticklabels()]


def test_outputs_have_the_colours_of_their_classes_and_all_else_is_grey(ax):
    net = network()
    record = net.record(torch.tensor([[0.1, 0.3]]))
    plots.raster(net, record, ax)
    ticks = {path.vertices[0, 0]: to_hex(c.get_color()[0]).upper() for c in ax.collections for path in c.get_paths()}
    for spikes in named_spikes(net, record):
        for neuron, time in enumerate(spikes.times[0].tolist()):
            if time in ticks:
                assert ticks[time] == (COLOURS[neuron] if spikes.name == "output" else GREY)
    assert any(line.get_color() == GREY and len(line.get_xdata()) for line in ax.lines if line.get_marker() == "o")
    assert set(ticks.values()) > {GREY}


def test_raster_without_any_spike(ax):
    net = fs.Network(fs.LIFLinear(2, 3))
    plots.raster(net, net.record(torch.full((1, 2), math.inf)), ax).figure.draw_without_rendering()


def populations_drawn(ax):
    """Colours of times, as ticks or dots, and the labels of populations with theirs."""
    dots = {x: line.get_color() for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()}
    ticks = {path.vertices[0, 0]: to_hex(c.get_color()[0]).upper() for c in ax.collections for path in c.get_paths()}
    return dots | ticks, {label.get_text(): label.get_color() for label in ax.get_yticklabels()}


RED, BLUE = COLOURS[-1], COLOURS[0]


@pytest.mark.parametrize("neurons", [5, 30])
def test_raster_of_trains_has_a_colour_for_each_population(ax, neurons):
    layer = fs.SpikingRecurrent(
        1, neurons, 2, 10.0, fs.LIF(unit="ms"), recurrent_signs=[1, -1, 1, -1] + [0] * (neurons - 4)
    )
    trains = torch.full((2, neurons, 2), math.inf)
    trains[1, :5, 0] = torch.tensor([1.0, 2.0, 3.0, math.inf, 5.0])
    assert plots.raster(layer, trains, ax, sample=1) is ax
    colours, labels = populations_drawn(ax)
    assert colours == {1.0: RED, 2.0: BLUE, 3.0: RED, 5.0: GREY}
    names = ["E 2/2, 2 spikes", "I 1/2, 1 spikes", f"neurons 1/{neurons - 4}, 1 spikes"]
    assert list(labels) == names
    assert list(labels.values())[:2] == [RED, BLUE]
    assert ax.get_xlabel() == "time [ms]"


def test_raster_of_populations_with_names(ax):
    trains = torch.arange(6.0).reshape(1, 6, 1)
    given = {"Exc": slice(0, 2), "inhibitory": [2], "extra": slice(2, 4), "$a": slice(4, 5)}
    plots.raster(None, trains, ax, unit="s", populations=given | {"none": []})
    assert ax.get_xlabel() == "time [s]"
    colours, labels = populations_drawn(ax)
    assert [colours[float(k)] for k in range(6)] == [RED, RED, BLUE, COLOURS[1], COLOURS[2], GREY]
    assert list(labels) == ["Exc 2/2", "inhibitory 1/1", "extra 1/1", r"\$a 1/1", "neurons 1/1"]
    ax.figure.draw_without_rendering()


def test_populations_are_those_of_the_last_layer(ax):
    net = network()
    record = net.record(torch.tensor([[0.1, 0.3]]))
    plots.raster(net, record, ax, populations={"E": slice(0, 2), "I": slice(2, 3)})
    _, labels = populations_drawn(ax)
    assert [label.split()[0] for label in labels] == ["input", "bias", "delayed", "hidden", "E", "I"]
    assert set(labels.values()) > {RED, BLUE}
