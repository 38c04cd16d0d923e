import numpy as np
import pytest
from matplotlib.figure import Figure

from firstspike.plots import NotApplicable
from firstspike.plots.sweep import (
    SWEEP_PLOTS,
    SweepResults,
    accuracy_map,
    accuracy_over,
    parameter_importance,
    sweep_history,
)


@pytest.fixture
def ax():
    return Figure().add_subplot()


def grid(kinds=("plain", "delays"), sizes=(5, 10, 20), **others):
    axes = {"base": [k for k in kinds for _ in sizes], "size": [s for _ in kinds for s in sizes]}
    accuracy = np.linspace(0.8, 0.95, len(axes["size"]))
    return SweepResults(
        axes=axes,
        accuracy=accuracy,
        spread=np.full(len(accuracy), 0.01),
        validation=accuracy + 0.01,
        parameters=7 * np.asarray(axes["size"]),
        seeds=5,
        history=[(0.8, False), (0.9, False), (0.85, True)],
        importance={"base": 0.25, "size": 0.75},
        **others,
    )


def curves(ax):
    """Label, places and heights of each line with spread."""
    return [(c.get_label(), *map(list, c[0].get_data())) for c in ax.containers]


def test_accuracy_over_an_axis_with_spread(ax):
    accuracy_over([20, 5, 10], [0.9, 0.7, 0.8], [0.01, np.nan, 0.03], ax)
    (_, x, y), *others = curves(ax)
    assert (x, pytest.approx(y), others) == ([5, 10, 20], [70, 80, 90], [])
    segments = [np.ptp(segment[:, 1]) for segment in ax.containers[0][2][0].get_segments()]
    assert segments == pytest.approx([0, 6, 2])
    assert list(ax.get_xticks()) == [5, 10, 20]


def test_lines_and_names(ax):
    accuracy_over(["b", "a", "b", "a"], [0.1, 0.2, 0.3, 0.4], [0.0] * 4, ax, [2, 2, 1, 1])
    found = curves(ax)
    assert [label for label, *_ in found] == ["1", "2"]
    assert found[0][1:] == (pytest.approx([-0.1, 0.9]), pytest.approx([30, 40]))  # side by side
    assert found[1][1] == pytest.approx([0.1, 1.1])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]


def test_names_are_not_connected(ax):
    accuracy_over(["b", "a"], [0.1, 0.2], [0.0] * 2, ax)
    assert ax.containers[0][0].get_linestyle() == "None"


def test_lines_share_no_place_on_a_logarithmic_axis(ax):
    accuracy_over([1, 1, 100, 100], [0.1, 0.2, 0.3, 0.4], [0.0] * 4, ax, ["a", "b"] * 2)
    assert ax.get_xscale() == "log"
    (_, first, _), (_, second, _) = curves(ax)
    assert np.log10(np.divide(second, first)) == pytest.approx([0.4, 0.4])  # a fifth of the distance of neighbours


def test_without_spread_there_are_no_error_bars(ax):
    accuracy_over([1, 2], [0.1, 0.2], [np.nan] * 2, ax)
    assert not ax.containers[0].has_yerr


def test_infinity_is_a_name(ax):
    accuracy_over([1.0, np.inf], [0.1, 0.2], [0.0] * 2, ax)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1.0", "inf"]


def test_values_that_span_much_are_on_a_logarithmic_axis(ax):
    accuracy_over([0.001, 0.01, 0.1], [0.1, 0.2, 0.3], [0.0] * 3, ax)
    assert ax.get_xscale() == "log"
    assert [ax.xaxis.get_major_formatter()(x, 0) for x in ax.get_xticks()] == ["0.001", "0.01", "0.1"]


def test_points_drawn_at_random_are_dots_without_a_curve(ax):
    x = np.random.default_rng(0).uniform(1, 2, 40).tolist()
    accuracy_over(x, x, [0.0] * 40, ax, curve=False)
    assert ax.containers[0][0].get_linestyle() == "None"


def test_values_that_are_close_do_not_have_a_tick_each(ax):
    accuracy_over([0.001, 0.05, 0.051, 0.052, 0.1], [0.1] * 5, [0.0] * 5, ax)
    ax.figure.draw_without_rendering()
    assert ax.get_xscale() == "log"
    assert 0.051 not in ax.get_xticks()


def test_map(ax):
    accuracy_map([1, 2, 1, 2], ["a", "a", "b", "b"], [0.1, 0.2, 0.3, 0.4], ax)
    np.testing.assert_allclose(ax.images[0].get_array(), [[10, 20], [30, 40]])
    assert [text.get_text() for text in ax.texts] == ["10.0", "20.0", "30.0", "40.0"]


def test_map_of_a_grid_with_a_hole(ax):
    accuracy_map([1, 2, 1], ["a", "a", "b"], [0.1, 0.2, 0.3], ax)
    assert np.isnan(np.ma.filled(ax.images[0].get_array(), np.nan)[1, 1])
    assert len(ax.texts) == 3


def test_map_of_points_drawn_at_random_has_dots(ax):
    values = np.random.default_rng(0).uniform(1, 2, (2, 9))
    accuracy_map(*values.tolist(), np.linspace(0, 1, 9), ax)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), values.T)
    assert not ax.images


def test_history_and_best_so_far(ax):
    sweep_history([0.3, 0.1, 0.2], ax, maximize=False)
    assert list(ax.lines[1].get_ydata()) == [0.3, 0.1, 0.1]
    assert list(ax.lines[0].get_ydata()) == [0.3, 0.1, 0.2]


def test_the_best_so_far_is_complete_and_in_percent():
    figure = SWEEP_PLOTS["history"](grid())
    (ax,) = figure.axes
    trials, pruned, best = ax.lines
    assert trials.get_ydata() == pytest.approx([80, 90, np.nan], nan_ok=True)
    assert (list(pruned.get_xdata()), pruned.get_ydata()) == ([3], pytest.approx([85]))
    assert best.get_ydata() == pytest.approx([80, 90, 90])
    assert ax.get_ylabel() == "validation accuracy [%]"


def test_importance_and_parameters(ax):
    parameter_importance({"a": 0.2, "b": 0.7, "c": 0.1}, ax)
    assert [patch.get_width() for patch in ax.patches] == pytest.approx([10, 20, 70])
    other = Figure().add_subplot()
    accuracy_over([70, 140], [0.5, 0.6], [0.1, 0.1], other, ["a", "b"], curve=False)
    assert [(label, x) for label, x, _ in curves(other)] == [("a", [70]), ("b", [140])]


def test_of_points_that_cannot_be_told_apart_the_best_on_validation_data_is_shown():
    points = SweepResults(
        axes={"size": [5, 5, 10], "lr": [0.1, 0.2, 0.1]},
        accuracy=np.array([0.9, 0.5, 0.7]),
        spread=np.zeros(3),
        validation=np.array([0.6, 0.8, 0.7]),
        parameters=np.array([1, 1, 2]),
    )
    assert points.best_of("size") == [1, 2]


@pytest.mark.parametrize("name", SWEEP_PLOTS)
def test_figures(name, tmp_path):
    figure = SWEEP_PLOTS[name](grid())
    figure.savefig(tmp_path / "figure.png")
    assert all(ax.get_xlabel() or ax.get_ylabel() for ax in figure.axes)


def test_over_has_a_panel_for_numbers_and_lines_for_names():
    figure = SWEEP_PLOTS["over"](grid())
    (ax,) = figure.axes
    assert ax.get_xlabel() == "size"
    assert [label for label, *_ in curves(ax)] == ["plain", "delays"]
    assert ax.get_ylabel() == "test accuracy [%], 5 seeds"


def test_over_shows_a_second_axis_where_all_are_numbers_drawn_at_random():
    random = np.random.default_rng(0)
    axes = {name: random.uniform(1, 100, 20).tolist() for name in ("a", "b", "c")}
    accuracy, parameters = random.uniform(0.5, 1, 20), np.repeat([5, 7, 9, 11], 5)
    spread = np.full(20, np.nan)
    results = SweepResults(
        axes, accuracy, spread, accuracy, parameters, importance={"a": 0.6, "b": 0.1, "c": 0.3}, grid=False
    )
    figure = SWEEP_PLOTS["over"](results)
    shown = {ax.get_xlabel(): bar.get_ylabel() for ax, bar in zip(figure.axes[::2], figure.axes[1::2], strict=True)}
    assert shown == {"a": "c", "b": "a", "c": "a"}
    assert [ax.get_ylabel() for ax in SWEEP_PLOTS["parameters"](results).axes] == ["test accuracy [%]", "a"]


def test_parameters_tell_apart_what_does_not_follow_from_them():
    figure = SWEEP_PLOTS["parameters"](grid(kinds=(0.1, 0.2)))
    (ax,) = figure.axes
    assert ax.get_legend().get_title().get_text() == "base"  # "size" follows from the number of parameters
    (_, first, _), (_, second, _) = curves(ax)
    assert all(a < b for a, b in zip(first, second, strict=True))


def test_a_figure_says_what_it_leaves_out():
    results = grid()
    axes = {name: [*values, *values] for name, values in results.axes.items()} | {"lr": [0.1] * 6 + [0.2] * 6}
    twice = (np.tile(getattr(results, name), 2) for name in ("accuracy", "spread", "validation", "parameters"))
    figure = SWEEP_PLOTS["map"](SweepResults(axes, *twice))
    assert figure.axes[0].get_title() == "test accuracy\nbest on validation data over lr"


@pytest.mark.parametrize("name", SWEEP_PLOTS)
def test_what_makes_no_sense_says_why(name):
    alone = SweepResults(
        axes={"size": [5]},
        accuracy=np.array([0.9]),
        spread=np.array([np.nan]),
        validation=np.array([0.9]),
        parameters=np.array([35]),
    )
    with pytest.raises(NotApplicable):
        SWEEP_PLOTS[name](alone)
