import numpy as np
import pytest
from matplotlib.figure import Figure

from firstspike.plots import NotApplicable
from firstspike.plots.sweep import (
    SWEEP_PLOTS,
    SweepResults,
    accuracy_map,
    accuracy_over,
)


@pytest.fixture
def ax():
    return Figure().add_subplot()


def results(axes, accuracy, parameters, spread=None, validation=None, seeds=1, **others):
    rows = [
        {
            **dict(zip(axes, values, strict=True)),
            "test_accuracy": accuracy[k],
            "test_std": None if spread is None else spread[k],
            "validation_accuracy": (validation or accuracy)[k],
            "parameters": parameters[k],
            "seeds": seeds,
        }
        for k, values in enumerate(zip(*axes.values(), strict=True))
    ]
    return SweepResults(rows, list(axes), **others)


def grid(kinds=("plain", "delays"), sizes=(5, 10, 20), lrs=None):
    rows = [(kind, size, lr) for lr in lrs or [0] for kind in kinds for size in sizes]
    base, size, lr = map(list, zip(*rows, strict=True))
    return results(
        {"base": base, "size": size} | ({"lr": lr} if lrs else {}),
        np.linspace(0.8, 0.95, len(rows)).tolist(),
        [7 * x for x in size],
        spread=[0.01] * len(rows),
        seeds=5,
        history=[(0.8, False), (0.9, False), (0.85, True)],
        importance={"base": 0.25, "size": 0.75},
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
    assert found[0][1:] == ([0, 1], pytest.approx([30, 40]))
    left, right = (c[0].get_transform().transform((0, 30))[0] for c in ax.containers)
    assert right - left == pytest.approx(4 * ax.figure.dpi / 72)  # side by side
    low, high = ax.get_ylim()
    assert low < 10 < 40 < high
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]


def test_names_are_not_connected(ax):
    accuracy_over(["b", "a"], [0.1, 0.2], [0.0] * 2, ax)
    assert ax.containers[0][0].get_linestyle() == "None"


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


def test_the_best_so_far_is_complete_and_in_percent():
    figure = SWEEP_PLOTS["history"](grid())
    (ax,) = figure.axes
    trials, pruned, best = ax.lines
    assert trials.get_ydata() == pytest.approx([80, 90, np.nan], nan_ok=True)
    assert (list(pruned.get_xdata()), pruned.get_ydata()) == ([3], pytest.approx([85]))
    assert best.get_ydata() == pytest.approx([80, 90, 90])
    assert ax.get_ylabel() == "validation accuracy [%]"


def test_losses_are_minimised():
    figure = SWEEP_PLOTS["history"](
        SweepResults([], [], "test_loss", False, [(0.3, False), (0.1, False), (0.2, False)])
    )
    (ax,) = figure.axes
    assert list(ax.lines[1].get_ydata()) == [0.3, 0.1, 0.1]
    assert ax.get_ylabel() == "test loss"


def test_importance():
    (ax,) = SWEEP_PLOTS["importance"](SweepResults([], [], importance={"a": 0.2, "b": 0.7, "c": 0.1})).axes
    assert [patch.get_width() for patch in ax.patches] == pytest.approx([10, 20, 70])
    assert [text.get_text() for text in ax.texts] == ["10 %", "20 %", "70 %"]


def test_of_points_that_cannot_be_told_apart_the_best_on_validation_data_is_shown():
    axes = {"size": [5, 5, 10], "lr": [0.1, 0.2, 0.1]}
    points = results(axes, [0.9, 0.5, 0.7], [1, 1, 2], validation=[0.6, 0.8, 0.7])
    assert points.best_of("size").rows == points.rows[1:]


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


def test_over_shows_dots_where_all_are_numbers_drawn_at_random():
    random = np.random.default_rng(0)
    axes = {name: random.uniform(1, 100, 20).tolist() for name in ("a", "b", "c")}
    figure = SWEEP_PLOTS["over"](results(axes, random.uniform(0.5, 1, 20).tolist(), [5] * 20, grid=False))
    assert [ax.get_xlabel() for ax in figure.axes] == ["a", "b", "c"]
    assert all(ax.containers[0][0].get_linestyle() == "None" for ax in figure.axes)


def test_parameters_tell_apart_what_does_not_follow_from_them():
    figure = SWEEP_PLOTS["parameters"](grid(kinds=(0.1, 0.2)))
    (ax,) = figure.axes
    assert ax.get_legend().get_title().get_text() == "base"  # "size" follows from the number of parameters


def test_a_figure_says_what_it_leaves_out():
    figure = SWEEP_PLOTS["map"](grid(lrs=[0.1, 0.2]))
    assert figure.axes[0].get_title() == "test accuracy\nbest on validation data over lr"


@pytest.mark.parametrize("name", SWEEP_PLOTS)
def test_what_makes_no_sense_says_why(name):
    with pytest.raises(NotApplicable):
        SWEEP_PLOTS[name](results({"size": [5]}, [0.9], [35]))
