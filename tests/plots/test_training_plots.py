import numpy as np
import pytest
import torch

from firstspike import plots
from firstspike.plots.look import log_axis
from firstspike.plots.matrices import weight_matrix
from firstspike.plots.training import parameter_history, running_median

METRICS = {
    "epoch": [1.0, 2.0, 3.0, 4.0],
    "train_loss": [1.0, 0.1, 0.01, 0.001],
    "validation_loss": [1.0, 0.2, 0.02, 0.002],
    "train_accuracy": [0.5, 0.9, 0.99, 1.0],
    "validation_accuracy": [0.4, 0.8, 1.0, 1.0],
}


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.lines}


def test_loss_and_error_draws_both(axes):
    loss, error = plots.loss_and_error(METRICS, axes)
    assert (loss, error) == (axes[0], axes[1])
    loss.figure.draw_without_rendering()
    assert loss.get_yscale() == "log"
    np.testing.assert_allclose(lines(loss)["train"], METRICS["train_loss"])
    np.testing.assert_allclose(lines(error)["validation"], [60, 20, 0, 0], atol=1e-12)


def test_an_error_of_zero_is_on_the_axis(axes):
    _, error = plots.loss_and_error(METRICS, axes)
    error.figure.draw_without_rendering()
    assert error.get_yscale() == "symlog"
    assert 0 in error.get_yticks()
    bottom, top = error.get_ylim()
    assert bottom < 0 < top
    heights = error.transData.transform([(1, 0), (1, 1), (1, 10)])[:, 1]
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize("accuracy", [1.0, 0.5])
def test_one_epoch_and_no_error_at_all(axes, accuracy):
    metrics = {name: [accuracy if "accuracy" in name else 1.0] for name in METRICS}
    loss, error = plots.loss_and_error(metrics, axes)
    loss.figure.draw_without_rendering()
    assert len(loss.get_yticks()) > 0
    assert error.lines[0].get_marker() == "o"


@pytest.mark.parametrize("span", [(0.30, 0.31), (0.2, 1.3), (1e-6, 3e4), (5.0, 5.0), (70, 90), (9, 11), (0, 27, 28)])
def test_log_axis_has_three_ticks_or_more_for_any_span(ax, span):
    log_axis(ax, span)
    ax.figure.draw_without_rendering()
    low, high = ax.get_ylim()
    assert low < span[0] <= span[-1] < high
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert 3 <= len(ticks) <= 12
    assert (
        np.diff(ax.transAxes.inverted().transform(ax.transData.transform([(0, t) for t in ticks]))[:, 1]).min() > 0.05
    )


def test_a_spike_of_a_few_epochs_is_no_plateau():
    values = np.array([1.0] * 10 + [50.0] * 3 + [1.0] * 10)
    np.testing.assert_allclose(running_median(values, 10), 1.0)
    np.testing.assert_allclose(running_median(np.array([1.0, 2.0, 3.0, 7.0]), 3), [1.5, 2, 3, 5])
    np.testing.assert_allclose(running_median(np.array([1.0, 3.0]), 10), [2, 2])


def test_lines_are_named_beside_them(axes):
    loss, error = plots.loss_and_error(METRICS, axes)
    for ax, column in ((loss, "loss"), (error, "accuracy")):
        height = {text.get_text(): text.get_position()[1] for text in ax.texts}
        assert set(height) == {"train", "validation"}
        assert 0 <= min(height.values()) < max(height.values()) <= 1.05
        if column == "loss":
            assert height["validation"] > height["train"]  # the order in which the lines end


def test_metrics_without_validation_data(axes, ax):
    metrics = {name: values for name, values in METRICS.items() if "validation" not in name}
    for drawn in (*plots.loss_and_error(metrics, axes), plots.accuracy(metrics, ax)):
        drawn.figure.draw_without_rendering()
        assert [text.get_text() for text in drawn.texts] == ["train"]


def test_epochs_that_raised_weights_are_marked(axes):
    loss, _ = plots.loss_and_error(METRICS | {"raised": [0.5, 0.0, 0.1, 0.0]}, axes)
    marks = next(line for line in loss.lines if line.get_marker() == "|")
    assert marks.get_xdata().tolist() == [1, 3]
    assert "ticks: weights raised" in loss.get_title("left")


def test_seeds_are_a_band(axes):
    others = [METRICS | {"train_loss": [factor * x for x in METRICS["train_loss"]]} for factor in (0.5, 2.0)]
    loss, _ = plots.loss_and_error(METRICS, axes, seeds=others)
    low, high = np.array(METRICS["train_loss"]) * 0.5, np.array(METRICS["train_loss"]) * 2
    band = loss.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((low.min(), high.max()))
    assert loss.get_title("left") == "band: 2 seeds; line: mean"


@pytest.mark.parametrize("parameters", [3, 200])
def test_parameter_history(ax, parameters):
    values = np.random.default_rng(0).normal(size=(5, parameters)).cumsum(axis=0)
    assert parameter_history(np.arange(5.0), values, ax) is ax
    ax.figure.draw_without_rendering()
    if parameters > 30:
        median = next(line for line in ax.lines if line.get_label() == "median")
        np.testing.assert_allclose(median.get_ydata(), np.median(values, axis=1))
    else:
        np.testing.assert_allclose([line.get_ydata() for line in ax.lines], values.T)


def test_matrix_is_the_weight_with_zero_in_the_middle(ax):
    weight = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    assert weight_matrix(weight, ax) is ax
    ax.figure.draw_without_rendering()
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), weight.double())
    low, high = image.get_clim()
    assert low == -high == -float(weight.abs().max())


def test_matrix_of_zeros(ax):
    weight_matrix(torch.zeros(1, 1), ax).figure.draw_without_rendering()


def test_receptive_fields_share_a_scale_around_zero(axes):
    weight = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert plots.receptive_fields(weight, axes, ["a", "b", "c"]) == list(axes)
    axes[0].figure.draw_without_rendering()
    for ax, field in zip(axes, weight.double(), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), field)
        assert ax.images[0].get_clim() == (-float(weight.abs().max()), float(weight.abs().max()))


@pytest.mark.parametrize("full", [0.0, 0.1])
def test_spike_counts_need_no_second_panel_where_no_neuron_is_silent_or_full(ax, full):
    metrics = {"epoch": [1, 2], "spikes_0": [2.0, 3.0], "silent_0": [0.0, 0.0], "full_0": [0.0, full]}
    if full:
        with pytest.raises(ValueError, match="expected 2"):
            plots.spike_counts(metrics, ax, {0: "hidden"})
    else:
        plots.spike_counts(metrics, ax, {0: "hidden"})
        assert ax.get_title() == "no neuron is ever silent or full"
