"""``firstspike.sklearn.SpikingClassifier``: what scikit-learn asks of a classifier, and what is our own."""

import importlib
import math
import pickle
import sys

import numpy as np
import pandas
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import firstspike as fs
from firstspike.sklearn import SpikingClassifier

# Checks of scikit-learn that are excused, with the reason.
EXCUSED: dict[str, str] = {}


def small(**settings):
    return SpikingClassifier(
        **{
            "hidden_layer_sizes": (15,),
            "max_iter": 20,
            "batch_size": 30,
            "learning_rate_init": 0.01,
            "random_state": 0,
            **settings,
        }
    )


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def fitted(wine):
    return small().fit(*wine)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_scikit_learn_accepts_it():
    found = check_estimator(
        SpikingClassifier((10,), max_iter=20), expected_failed_checks=EXCUSED, on_skip=None, on_fail=None
    )
    assert len(found) > 40
    assert {check["check_name"]: check["exception"] for check in found if check["status"] == "failed"} == {}
    assert {check["check_name"] for check in found if check["status"] == "xfail"} == set(EXCUSED)


@pytest.mark.slow
def test_tables_are_learnt_by_default():
    for load in (load_iris, load_wine):
        x, y = load(return_X_y=True)
        train, test, train_labels, test_labels = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
        assert SpikingClassifier(random_state=0).fit(train, train_labels).score(test, test_labels) > 0.9


def test_what_a_fitted_one_has(fitted, wine):
    x, y = wine
    assert fitted.score(x, y) > 0.9
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.n_features_in_ == 13
    assert not hasattr(fitted, "feature_names_in_")
    assert len(fitted.loss_curve_) == fitted.n_iter_ <= 20
    assert fitted.loss_curve_[-1] == fitted.loss_
    assert fitted.best_loss_ == min(fitted.loss_curve_) < fitted.loss_curve_[0]
    assert fitted.validation_scores_ is fitted.best_validation_score_ is None
    assert fitted.class_prior_.tolist() == (np.bincount(y) / len(y)).tolist()


def test_probabilities_are_the_softmax_of_the_loss(fitted, wine):
    x, _ = wine
    times = fitted.network_(fitted.encoder_(x)).detach().double()
    found = fitted.predict_proba(x)
    expected = torch.softmax(-times / 0.1, dim=1).numpy()
    assert np.allclose(found, expected, atol=1e-12)
    assert (found[times == math.inf] == 0).all()
    assert (fitted.predict(x) == times.argmin(dim=1).numpy()).all()
    assert np.allclose(np.exp(fitted.predict_log_proba(x)), found)


def test_where_no_output_spikes_the_frequencies_of_the_classes_answer(fitted):
    nothing = np.full((2, 13), np.nan)
    assert (fitted.predict_proba(nothing) == fitted.class_prior_).all()
    assert fitted.predict(nothing).tolist() == [1, 1]


def test_the_same_seed_gives_the_same_classifier_and_global_randomness_stays(wine):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (small(max_iter=3, random_state=seed).fit(*wine) for seed in (0, 0, 1))
    assert first.loss_curve_ == second.loss_curve_ != other.loss_curve_
    assert (first.predict_proba(wine[0]) == second.predict_proba(wine[0])).all()
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_noise_keeps_it_from_learning_samples_by_heart():
    noise = np.random.default_rng(0).normal(size=(40, 30)), np.arange(40) % 2
    exact, jittered = (small(max_iter=60, jitter=jitter).fit(*noise) for jitter in (0.0, 0.6))
    assert exact.loss_ < jittered.loss_ / 2
    assert exact.score(*noise) == 1
    assert (jittered.predict_proba(noise[0]) == jittered.predict_proba(noise[0])).all()


def test_missing_values_need_no_imputer(wine):
    x, y = wine[0].copy(), wine[1]
    x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    x[:5] = np.nan  # without any spike
    assert small().fit(x, y).score(x, y) > 0.85


def test_classes_have_names(wine):
    names = np.array(["barolo", "grignolino", "barbera"])
    x, y = wine
    fitted = small(max_iter=15).fit(x, names[y])
    assert fitted.classes_.tolist() == sorted(names)
    assert (fitted.predict(x) == names[y]).mean() > 0.8


def test_frames(wine):
    frame = pandas.DataFrame(wine[0], columns=load_wine().feature_names)
    frame.iloc[3, 4] = None
    fitted = small(max_iter=3).fit(frame, pandas.Series(wine[1]).map({0: "a", 1: "b", 2: "c"}))
    assert fitted.feature_names_in_.tolist() == list(frame.columns)
    assert set(fitted.predict(frame)) <= {"a", "b", "c"}
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[frame.columns[::-1]])


def test_pickles_and_clones(fitted, wine):
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(wine[0]) == fitted.predict_proba(wine[0])).all()
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(wine[0])


def test_pipelines_searches_and_cross_validation(wine):
    x, y = wine
    pipeline = make_pipeline(StandardScaler(), small(max_iter=5))
    assert len(cross_val_score(pipeline, x[::3], y[::3], cv=2, error_score="raise")) == 2
    search = GridSearchCV(small(max_iter=5), {"hidden_layer_sizes": [(), 5, (6, 4)]}, cv=2, error_score="raise")
    search.fit(x[::3], y[::3])
    assert search.best_estimator_.network_[0].out_features in (3, 5, 6)


def test_early_stopping_keeps_the_best_weights(wine):
    x, y = wine
    fitted = small(early_stopping=True, n_iter_no_change=4, validation_fraction=0.3, max_iter=60).fit(x, y)
    assert fitted.n_iter_ == len(fitted.validation_scores_) < 60
    assert fitted.best_validation_score_ == max(fitted.validation_scores_)
    assert fitted.best_loss_ is None
    seed = np.random.RandomState(0)
    seed.randint(2**31 - 1)
    _, held, _, labels = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
    assert fitted.score(held, labels) == fitted.best_validation_score_


def test_training_ends_where_the_loss_no_longer_falls(wine):
    fitted = small(max_iter=60, tol=0.05, n_iter_no_change=3).fit(*wine)
    assert fitted.n_iter_ < 60
    assert min(fitted.loss_curve_[-3:]) > min(fitted.loss_curve_[:-3]) - 0.05


def test_warm_start_goes_on(wine):
    fitted = small(max_iter=3, warm_start=True).fit(*wine)
    network, first = fitted.network_, list(fitted.loss_curve_)
    fitted.fit(*wine)
    assert fitted.network_ is network
    assert fitted.loss_curve_[:3] == first
    assert fitted.n_iter_ == 6
    assert fitted.loss_curve_[3] < first[0]
    with pytest.raises(ValueError, match=r"warm_start: expected the classes \[0 1 2\], got \[0 1\]"):
        fitted.fit(wine[0][:100], wine[1][:100])


def test_it_is_quiet_unless_asked(wine, capfd):
    small(max_iter=2).fit(*wine)
    assert capfd.readouterr() == ("", "")
    small(max_iter=2, verbose=True).fit(*wine)
    assert "epoch 2/2" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": (0,)}, r"hidden_layer_sizes must be numbers >= 1, got \(0,\)"),
        ({"batch_size": "all"}, "batch_size must be a whole number > 0 or 'auto', got 'all'"),
        ({"xi": 0}, "xi must be > 0 and finite, got 0"),
        ({"jitter": -0.1}, r"jitter must be >= 0 and finite or .auto., got -0\.1"),
        ({"late": 0.1}, "early, late: expected finite times with 0 <= early < late"),
        ({"max_iter": 2.5}, "max_iter must be a whole number > 0, got 2.5"),
        ({"n_iter_no_change": 2.5}, "n_iter_no_change must be a whole number > 0 or inf, got 2.5"),
        ({"validation_fraction": 0.0}, r"validation_fraction must be > 0 and < 1, got 0\.0"),
    ],
)
def test_wrong_arguments_are_named(wine, settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(*wine)


def test_wrong_data_are_named(wine):
    with pytest.raises(ValueError, match=r"X: expected numbers, got missing values \(NaN\) only"):
        small().fit(np.full((3, 2), np.nan), [0, 1, 1])
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        small().fit(wine[0], wine[0][:, 0])
    with pytest.raises(ValueError, match=r"X: expected numbers, .*'red'; encode names by numbers"):
        SpikingClassifier().fit([[1.0, "red"], [2.0, "blue"]], [0, 1])
    with pytest.raises(ValueError, match=r"X: .* got \(3, 2, 5\): .* time series .* by fs.data.split"):
        SpikingClassifier().fit(np.zeros((3, 2, 5)), [0, 1, 1])
    with pytest.raises(ValueError, match="infinity"):
        small().fit(np.where(wine[0] > 100, np.inf, wine[0]), wine[1])


def test_ctrl_c_reaches_the_caller(wine, monkeypatch):
    def stopped(*_, **__):
        raise fs.training.Interrupted

    monkeypatch.setattr(fs.Trainer, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        small().fit(*wine)


def test_without_scikit_learn_one_line_says_so(monkeypatch):
    monkeypatch.delitem(sys.modules, "firstspike.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[sklearn\]"'):
        importlib.import_module("firstspike.sklearn")
