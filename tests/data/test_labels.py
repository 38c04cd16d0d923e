"""Labels as people write them: what is one class, and by which name."""

import numpy as np
import pytest
import torch

from firstspike.data import file_splits
from firstspike.data.labels import class_indices, targets


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["01", "1", "10"], ("01", "1", "10")),
        (["1_0", "10"], ("10", "1_0")),
        (["٣", "3"], ("3", "٣")),
        (["007", "7"], ("007", "7")),
        (["10", "9", "+1", "-1"], ("-1", "1", "9", "10")),
        (["1.0", "2", "1e0", "2.000e+00"], ("1", "2")),  # as pandas and numpy.savetxt write whole numbers
    ],
)
def test_labels_that_are_written_differently_are_different_unless_they_are_numbers(labels, names):
    index, found = class_indices(labels, len(labels))
    assert found == names
    if len(names) == len(labels):
        assert [found[k] for k in index] == [label.removeprefix("+") for label in labels]


def test_numbers_with_zeros_before_them_are_names():
    assert class_indices(["02", "01"], 2, ("01", "02"))[0].tolist() == [1, 0]
    with pytest.raises(ValueError, match="labels: expected 01, 02, got '1' for sample 0"):
        class_indices(["1"], 1, ("01", "02"))


@pytest.mark.parametrize(
    ("labels", "own", "expected"),
    [
        ([0, 1, 2], ("c", "a", "b"), [2, 0, 1]),
        (["c", "a", "1"], ("c", "a", "b"), [2, 0, 0]),
        ([0, 0], ("b",), [1, 1]),
        ([2, 1], ("1", "2"), [2, 1]),
        ([0, 1], ("b", "other"), None),
        ([0, 0], ("b", "other"), [1, 1]),
    ],
)
def test_labels_are_found_by_their_own_names(labels, own, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r"labels: expected 0 \.\.\. 2 or a, b, c, got 'other' for sample 1"):
            class_indices(labels, len(labels), ("a", "b", "c"), own=own)
    else:
        index, names = class_indices(labels, len(labels), ("a", "b", "c"), own=own)
        assert (index.tolist(), names) == (expected, ("a", "b", "c"))


def test_targets_are_found_by_their_own_names():
    numbers, names = targets([[1.0, 2.0], [3.0, 4.0]], 2, ("x", "y"), own=("y", "x"))
    assert (numbers.tolist(), names) == ([[2.0, 1.0], [4.0, 3.0]], ("x", "y"))
    assert targets([1.0, 2.0], 2, ("target",), own=("price",))[1] == ("target",)
    with pytest.raises(ValueError, match="labels: expected the targets x, y, got y, z"):
        targets([[1.0, 2.0]], 1, ("x", "y"), own=("y", "z"))


def test_an_npz_with_the_classes_in_another_order(tmp_path):
    times, labels = np.random.default_rng(0).random((30, 2)), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", times=times, labels=labels, class_names=["x", "y", "z"])
    turned = np.array([2, 1, 0])
    np.savez(tmp_path / "b.npz", times=times, labels=turned[labels], class_names=["z", "y", "x"])
    np.savez(tmp_path / "c.npz", times=times, labels=labels, class_names=["x", "y", "other"])
    parts = file_splits(tmp_path / "a.npz", 0, tmp_path / "b.npz")
    assert parts.test.class_names == ("x", "y", "z")
    assert parts.test.labels.tolist() == labels.tolist()
    named = file_splits(tmp_path / "a.npz", 0, 0, class_names=["z", "x", "y"]).train
    order = named.times[:, 0].argsort()
    expected = torch.tensor([1, 2, 0])[torch.from_numpy(labels[times[:, 0].argsort()])]
    assert (named.labels[order].tolist(), named.class_names) == (expected.tolist(), ("z", "x", "y"))
    with pytest.raises(ValueError, match=r"c\.npz: labels: expected 0 \.\.\. 2 or x, y, z, got 'other' for sample 2"):
        file_splits(tmp_path / "a.npz", 0, tmp_path / "c.npz")


@pytest.mark.parametrize("labels", [np.array([0, 1, 7]), np.array([0.0, 1.0, 7.0]), np.array(["0", "1", "x"])])
def test_hidden_labels_are_missing(labels):
    hidden = np.ma.masked_array(labels, [False, False, True])
    with pytest.raises(ValueError, match=r"labels: expected whole numbers or names, got '(nan)?' for sample 2; "):
        class_indices(hidden, 3)
    assert class_indices(hidden[:2], 2)[0].tolist() == [0, 1]


def test_two_classes_of_one_name_are_refused():
    """Labels that are found by their names would all be of one of them."""
    for given, own in ((("a", "a", "b"), None), (None, ("a", "a", "b"))):
        with pytest.raises(ValueError, match="class_names: expected a name for each class, got 'a' twice"):
            class_indices([0, 1, 2], 3, given, own=own)


def test_bytes_that_are_no_text_are_different_classes():
    index, names = class_indices(np.array([b"\xff", b"\xfe", b"a"]), 3)
    assert (index.tolist(), names) == ([1, 0, 2], ("\\xfe", "\\xff", "a"))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400"])
def test_labels_that_are_missing_are_named(text):
    for message, read in (("whole numbers or names", class_indices), ("a finite number", targets)):
        with pytest.raises(ValueError, match=rf"labels: expected {message}, got '{text}' for sample 1; leave out"):
            read(["1", text], 2)
