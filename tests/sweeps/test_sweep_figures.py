import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution

from firstspike.plots.run_data import NotApplicable
from firstspike.sweeps.figures import SWEEP_PLOTS, accuracy_over


@pytest.fixture
def ax():
    return Figure().add_subplot()


def study_of(axes, accuracy, parameters, spread=None, validation=None, seeds=1, sampler="grid"):
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("firstspike", {"metric": "validation_accuracy", "sampler": sampler, "axes": axes})
    distributions = {name: CategoricalDistribution(list(dict.fromkeys(values))) for name, values in axes.items()}
    for k, values in enumerate(zip(*axes.values(), strict=True)):
        numbers = {"test_accuracy": accuracy[k], "test_std": spread, "validation_accuracy": (validation or accuracy)[k]}
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(axes, values, strict=True)),
                distributions=distributions,
                value=numbers["validation_accuracy"],
                user_attrs=numbers | {"trial": k, "parameters": parameters[k], "seeds": seeds},
            )
        )
    return study


def grid(kinds=("plain", "delays"), sizes=(5, 10, 20), lrs=None):
    rows = [(kind, size, lr) for lr in lrs or [0] for kind in kinds for size in sizes]
    base, size, lr = map(list, zip(*rows, strict=True))
    axes = {"base": base, "size": size} | ({"lr": lr} if lrs else {})
    accuracy = np.linspace(0.8, 0.95, len(rows)).tolist()
    return study_of(axes, accuracy, [7 * x for x in size], spread=0.01, seeds=5)


def curves(ax):
    """Label, places and heights of each line with spread."""
    return [(c.get_label(), *map(list, c[0].get_data())) for c in ax.containers]


def test_accuracy_over_an_axis_with_spread(ax):
    accuracy_over([20, 5, 10], [0.9, 0.7, 0.8], [0.01, np.nan, 0.03], ax)
    (_, x, y), *others = curves(ax)
    assert (x, pytest.approx(y), others) == ([5, 10, 20], [70, 80, 90], [])
    segments = [np.ptp(segment[:, 1]) for segment in ax.containers[0][2][0].get_segments()]
    assert segments == pytest.approx([0, 6, 2])
    accuracy_over([1, 2], [0.9, 0.8], [0.2, 0.1], ax)
    assert max(segment[:, 1].max() for segment in ax.containers[1][2][0].get_segments()) == pytest.approx(100)


def test_lines_and_names(ax):
    accuracy_over(["b", "a", "b", "a"], [0.1, 0.2, 0.3, 0.4], [0.0] * 4, ax, [1, 1, 2, 2])
    found = curves(ax)
    assert [label for label, *_ in found] == ["1", "2"]
    assert found[1][1:] == (pytest.approx([0.04, 1.04]), pytest.approx([30, 40]))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]
    assert ax.containers[0][0].get_linestyle() == "None"  # names are not connected


def test_without_spread_there_are_no_error_bars(ax):
    accuracy_over([1, 2], [0.1, 0.2], [np.nan] * 2, ax)
    assert not ax.containers[0].has_yerr


def test_infinity_is_a_name(ax):
    accuracy_over([1.0, np.inf], [0.1, 0.2], [0.0] * 2, ax)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1.0", "inf"]


def test_values_that_span_much_are_on_a_logarithmic_axis(ax):
    accuracy_over([0.001, 0.01, 0.1], [0.1, 0.2, 0.3], [0.0] * 3, ax)
    assert ax.get_xscale() == "log"


def test_an_axis_of_a_sweep_may_be_logarithmic_whatever_its_values(ax):
    accuracy_over([0.004, 0.005, 0.008], [0.1, 0.2, 0.3], [0.0] * 3, ax)
    assert ax.get_xscale() == "linear"
    accuracy_over([0.004, 0.005, 0.008], [0.1, 0.2, 0.3], [0.0] * 3, ax, log=True)
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.003, 0.00948683, 0.03], "log"),
        ([0.001, 0.003, 0.01], "log"),
        ([5, 10, 20, 30], "linear"),
        ([0, 1, 100], "linear"),
        ([5, 10, 15, 20], "linear"),
        ([2, 4], "linear"),
    ],
)
def test_values_that_are_multiples_are_on_a_logarithmic_axis(values, scale):
    study = study_of({"a": values, "b": values[::-1]}, np.linspace(0.5, 0.9, len(values)).tolist(), values)
    assert {ax.get_xscale() for ax in SWEEP_PLOTS["over"](study).axes if ax.get_xlabel() == "a"} == {scale}


def test_spreads_of_several_lines_do_not_cover_each_other():
    for ax in SWEEP_PLOTS["over"](grid()).axes:
        (_, one, _), (_, other, _) = curves(ax)
        assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", SWEEP_PLOTS)
def test_figures(name, tmp_path):
    figure = SWEEP_PLOTS[name](grid())
    figure.savefig(tmp_path / "figure.png")
    assert all(ax.get_xlabel() or ax.get_ylabel() or ax.get_xticks().size for ax in figure.axes)


def test_what_holds_for_all_panels_is_said_once():
    figure = SWEEP_PLOTS["over"](grid(lrs=[0.1, 0.2]))
    assert figure.get_suptitle() == (
        "mean and standard deviation of 5 seeds; on the other axes: the best on validation data"
    )
    assert [ax.get_title() for ax in figure.axes] == [""] * len(figure.axes)


def test_over_has_a_panel_for_numbers_and_lines_for_names():
    figure = SWEEP_PLOTS["over"](grid())
    ax, parameters = figure.axes
    assert [ax.get_xlabel(), parameters.get_xlabel()] == ["size", "parameters"]
    assert [label for label, *_ in curves(ax)] == ["plain", "delays"]
    assert ax.get_ylabel() == "test accuracy [%]"


def test_of_trials_that_cannot_be_told_apart_the_best_on_validation_data_is_shown():
    axes = {"size": [5, 5, 10], "lr": [0.1, 0.2, 0.1]}
    figure = SWEEP_PLOTS["over"](study_of(axes, [0.9, 0.5, 0.7], [1, 1, 2], validation=[0.6, 0.8, 0.7]))
    assert curves(figure.axes[0])[0][2] == pytest.approx([50, 70])
    assert "the best on validation data" in figure.get_suptitle()


def test_random_numbers_are_not_connected():
    axes = {name: np.random.default_rng(0).uniform(1, 100, 20).tolist() for name in ("a", "b")}
    figure = SWEEP_PLOTS["over"](study_of(axes, np.linspace(0.5, 1, 20).tolist(), [5] * 20, sampler="random"))
    assert [ax.get_xlabel() for ax in figure.axes] == ["a", "b"]
    assert all(ax.containers[0][0].get_linestyle() == "None" for ax in figure.axes)


@pytest.mark.parametrize("name", SWEEP_PLOTS)
def test_what_makes_no_sense_says_why(name):
    with pytest.raises(NotApplicable):
        SWEEP_PLOTS[name](study_of({"size": [5]}, [0.9], [35]))
