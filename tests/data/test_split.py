import math
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine

from firstspike.data import LatencyEncoder, split

TIMES = np.random.default_rng(0).uniform(0, 2, (100, 5))
LABELS = np.repeat([0, 1, 2], [50, 30, 20])


def rows(part):
    return sorted(map(tuple, part.times.tolist()))


@pytest.mark.parametrize("stratified", [True, False])
def test_parts_are_a_partition(stratified):
    parts = split(TIMES, LABELS, validation=0.2, test=10, stratified=stratified, dtype=torch.float64)
    assert [len(part) for part in parts] == [70, 20, 10]
    assert sorted(row for part in parts for row in rows(part)) == sorted(map(tuple, TIMES.tolist()))
    of_row = dict(zip(map(tuple, TIMES.tolist()), LABELS.tolist(), strict=True))
    for part in parts:
        assert [of_row[tuple(row)] for row in part.times.tolist()] == part.labels.tolist()
        assert part.class_names == ("0", "1", "2")
        assert part.encoder is None


def test_every_part_has_the_classes_in_proportion():
    parts = split(TIMES, LABELS, validation=0.2, test=0.1)
    assert [part.labels.bincount().tolist() for part in parts] == [[35, 21, 14], [10, 6, 4], [5, 3, 2]]
    assert parts.train.labels[:20].bincount().tolist() == [10, 6, 4]  # also at the start
    drawn = {tuple(split(TIMES, LABELS, stratified=False, seed=k).test.labels.bincount().tolist()) for k in range(5)}
    assert len(drawn) > 1


def test_rare_classes_stay_in_the_training_part():
    parts = split(TIMES, [*LABELS[:-1], 3])
    assert (parts.train.labels == 3).sum() == 1


def test_the_seed_chooses():
    one, same, other = (split(TIMES, LABELS, seed=seed) for seed in (1, 1, 2))
    for k in range(3):
        assert torch.equal(one[k].times, same[k].times)
        assert not torch.equal(one[k].times, other[k].times)


def test_the_global_generator_is_untouched():
    before = torch.get_rng_state()
    split(TIMES, LABELS)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("share", [None, 0, 0.0])
def test_parts_can_be_left_out(share):
    parts = split(TIMES, LABELS, validation=0.1, test=share)
    assert [len(part) for part in parts] == [90, 10, 0]
    assert parts.test.features == 5


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 1], ("0", "1")),
        (torch.tensor([0, 1, 1]), ("0", "1")),
        (np.array([3, 20, 20]), ("3", "20")),
        ([1.0, 2.0, 2.0], ("1", "2")),
        (["down", "up ", "up"], ("down", "up")),
        (np.array(["a", "b", "b"]), ("a", "b")),
        (np.array([b"a", b"b", b"b"]), ("a", "b")),
        (np.array(["a", "b", "b"], dtype=object), ("a", "b")),
        ([False, True, True], ("False", "True")),
    ],
)
def test_class_names_follow_from_the_labels(labels, names):
    data = split([[0.1], [0.2], [0.3]], labels, None, None, dtype=torch.float64).train
    assert data.class_names == names
    assert data.labels[data.times[:, 0].argsort()].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([1, 0, 1], ("up", "down"), [1, 0, 1]),
        (["down", "up", "1"], ("up", "down"), [1, 0, 1]),
        ([2, 1, 2], ("1", "2"), [1, 0, 1]),  # the names are numbers
        ([0, 0, 0], np.array(["up", "down"]), [0, 0, 0]),
    ],
)
def test_names_for_the_labels(labels, names, expected):
    data = split([[0.1], [0.2], [0.3]], labels, None, None, class_names=names).train
    assert data.class_names == tuple(names)
    assert data.labels[data.times[:, 0].argsort()].tolist() == expected


@pytest.mark.filterwarnings("ignore:there are spike times up to")
def test_an_encoder_is_fitted_to_the_training_part_alone():
    values = TIMES * 100
    parts = split(values, LABELS, encode={"late": 1.5}, dtype=torch.float64)
    encoder = parts.train.encoder
    assert encoder == parts.validation.encoder == parts.test.encoder
    plain = split(values, LABELS, dtype=torch.float64)
    assert encoder == LatencyEncoder(late=1.5).fit(plain.train.times)
    for part, raw in zip(parts, plain, strict=True):
        assert torch.equal(part.times, encoder(raw.times, torch.float64))
    assert (parts.train.times.amin(0) == 0.15).all()
    assert (parts.train.times.amax(0) == 1.5).all()
    fitted = LatencyEncoder().fit(values)
    assert split(values, LABELS, encode=fitted).test.encoder is fitted


def test_wine():
    wine = load_wine()
    parts = split(wine.data, wine.target, class_names=wine.target_names, encode=LatencyEncoder())
    assert [len(part) for part in parts] == [142, 18, 18]
    assert parts.train.class_names == ("class_0", "class_1", "class_2")
    assert parts.train.features == 26


@pytest.mark.filterwarnings("ignore:there are spike times up to")
def test_images():
    pixels = np.random.default_rng(1).integers(0, 256, (20, 4, 3))
    data = split(pixels, [0, 1] * 10, encode={"per_feature": False, "invert": True, "on_off": True}).train
    assert (data.image, data.blank, data.features) == ((2, 4, 3), (2.0, 0.15), 24)
    times = split(pixels[:, None].repeat(2, axis=1), [0, 1] * 10).train
    assert (times.image, times.blank, times.features) == ((2, 4, 3), None, 24)


class Missing:
    """As pandas writes missing values: no number."""

    def __repr__(self):
        return "<NA>"


class Frame(np.ndarray):
    """A table with names of columns, as those of pandas."""

    columns = ("age", "sex")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("n", r"values: expected numbers, got 'n' at \[3, 1\](.*); encode names by numbers, or leave the column out"),
        (Missing(), r"values: expected numbers, got <NA> at \[3, 1\](.*); .*to_numpy\(float, na_value=numpy.nan\)"),
    ],
)
def test_cells_that_are_no_numbers_are_named(cell, message):
    cells = np.array([[1.0, 2.0], [None, "3"]] * 5, dtype=object)
    assert split(cells, [0, 1] * 5, encode={}).train.features == 4
    cells[3, 1] = cell
    for table, column in ((cells, ""), (cells.view(Frame), " (column 'sex')")):
        with pytest.raises(ValueError, match=message) as error:
            split(table, [0, 1] * 5, encode={})
        assert re.search(message, str(error.value))[1] == column


def test_nothing_given_is_changed():
    times, labels = TIMES.copy(), LABELS.copy()
    split(times, labels, encode={}).train.times.zero_()
    assert np.array_equal(times, TIMES)
    assert np.array_equal(labels, LABELS)
    given = torch.from_numpy(times)
    split(given, labels, dtype=torch.float64).train.times.zero_()
    assert np.array_equal(given, TIMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": LABELS[:-1]}, "labels: expected as many as samples, got 99 for 100"),
        ({"labels": TIMES}, r"labels: expected one per sample, got an array of shape \(100, 5\)"),
        ({"labels": TIMES[:, 0]}, "labels: expected whole numbers or names, got '1.2739"),
        ({"labels": [None] * 100}, "labels: expected whole numbers or names, got '' for sample 0"),
        ({"class_names": ("a", "b")}, r"labels: expected 0 \.\.\. 1 or a, b, got '2' for sample 80"),
        ({"class_names": ("1", "2", "3")}, r"labels: expected 1, 2, 3, got '0' for sample 0"),
        ({"validation": 0.5, "test": 50}, "validation, test: expected fewer than all of 100 samples, got 100"),
        ({"validation": -0.1}, "validation: expected a fraction below 1 or a number of samples, got -0.1"),
        ({"test": 1.5}, "test: expected a fraction below 1 or a number of samples, got 1.5"),
        ({"test": math.inf}, "test: expected a fraction"),
        ({"test": math.nan}, "test: expected a fraction"),
        ({"times": TIMES[0]}, r"times: expected the shape \(samples, inputs\), or of images"),
        ({"times": [["a"]] * 100}, "times: expected numbers"),
        ({"times": np.full((100, 2), math.nan)}, "times: expected numbers or inf"),
        ({"encode": {"earliest": 1}}, "encode: unknown key 'earliest'"),
        ({"encode": {"late": 0.0}}, "early, late: expected"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        split(**({"times": TIMES, "labels": LABELS} | arguments))
    assert "\n" not in str(error.value)


def test_values_without_an_encoding_are_pointed_out():
    with pytest.warns(UserWarning, match=r"spike times up to 1680, in units of tau_syn; values .* need encode="):
        split(load_wine().data, load_wine().target)
