"""Tables of one's own, as training, validation and test data."""

import csv
import math
import random

import numpy as np
import pytest
import torch
from reading import read_labelled, read_times
from sklearn.datasets import load_wine

from firstspike.data import LatencyEncoder, file_splits, outline, split

WINE = load_wine()
NAMES = [str(name) for name in WINE.target_names]
ENCODE = {"early": 0.2, "late": 1.5}


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def write_wine(path, separator=",", header=True, label=-1, rows=slice(None)):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        lines = [WINE.feature_names] if header else []
        lines += WINE.data[rows].tolist()
        labels = (["cultivar"] if header else []) + [NAMES[k] for k in WINE.target[rows]]
        for line, text in zip(lines, labels, strict=True):
            at = len(line) + 1 + label if label < 0 else label
            writer.writerow([*line[:at], text, *line[at:]])
    return path


def same(one, other):
    for part, wanted in zip(one, other, strict=True):
        assert torch.equal(part.times, wanted.times)
        assert torch.equal(part.labels, wanted.labels)
        assert part.class_names == wanted.class_names
        assert (part.encoder, part.image, part.blank) == (wanted.encoder, wanted.image, wanted.blank)


@pytest.fixture(scope="module")
def wanted():
    return split(WINE.data, WINE.target, 0.1, 0.2, seed=3, class_names=NAMES, encode=ENCODE)


@pytest.mark.parametrize(
    ("layout", "labels"),
    [
        ({}, None),
        ({"separator": ";"}, None),
        ({"separator": "\t", "header": False}, None),
        ({"label": 0}, "cultivar"),
        ({"label": 4}, 4),
        ({"label": 0, "header": False}, 0),
    ],
)
def test_text(tmp_path, wanted, layout, labels):
    file = write_wine(tmp_path / "wine.csv", **layout)
    same(file_splits(file, 0.1, 0.2, labels=labels, encode=ENCODE, seed=3), wanted)


@pytest.mark.parametrize("labels", [WINE.target, np.array(NAMES)[WINE.target]])
def test_arrays(tmp_path, wanted, labels):
    np.savez(tmp_path / "a.npz", values=WINE.data, labels=labels, class_names=NAMES)
    np.savez(tmp_path / "b.npz", values=WINE.data, cultivar=labels)
    np.save(tmp_path / "c.npy", WINE.data)
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "labels.csv").write_text("\n".join(map(str, labels)))
    options = {"validation": 0.1, "test": 0.2, "seed": 3, "encode": ENCODE, "class_names": NAMES}
    same(file_splits(tmp_path / "a.npz", **options | {"class_names": None}), wanted)
    same(file_splits(str(tmp_path / "b.npz"), labels="cultivar", **options), wanted)
    for name in ("npy", "csv"):
        same(file_splits(tmp_path / "c.npy", labels=str(tmp_path / f"labels.{name}"), **options), wanted)


def test_spike_times(tmp_path):
    file = write(tmp_path / "a.csv", "a,b,label\n0.1,,0\n0.2,inf,1\n,0.3,0\n0.4,0.5,1\n")
    whole = file_splits(file, 0, 0, dtype=torch.float64).train
    order = whole.times[:, 0].argsort()
    assert whole.times[order].tolist() == [[0.1, math.inf], [0.2, math.inf], [0.4, 0.5], [math.inf, 0.3]]
    assert whole.labels[order].tolist() == [0, 1, 1, 0]
    assert (whole.class_names, whole.encoder) == (("0", "1"), None)


def test_parts_in_files_of_their_own(tmp_path):
    """Ranges and classes are those of the training part."""
    train = write(tmp_path / "train.csv", "a;b;label\n0;1;up\n4;NA;down\n2;3;up\n1;1;down\n")
    test = write(tmp_path / "test.csv", "a;b;label\n9;-9;down\n1;?;down\n")
    parts = file_splits(train, 1, test, encode={"early": 1.0, "late": 2.0}, seed=1)
    assert [len(part) for part in parts] == [3, 1, 2]
    assert parts.train.class_names == ("down", "up")
    assert parts.test.labels.tolist() == [0, 0]
    encoder = parts.train.encoder
    assert encoder.high[0] in (2.0, 4.0)  # without the validation sample
    assert parts.test.times.tolist() == encoder([[9, -9], [1, math.nan]]).tolist()
    assert parts.test.times[0].tolist() == [2.0, 1.0, 1.0, 2.0]
    both = file_splits(train, test, test, encode={})
    assert [len(part) for part in both] == [4, 2, 2]
    np.save(tmp_path / "x.npy", np.array([[0.1], [0.2]]))
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    np.save(tmp_path / "z.npy", np.array([1, 1]))
    labels = {"train": str(tmp_path / "y.npy"), "test": str(tmp_path / "z.npy")}
    parts = file_splits(tmp_path / "x.npy", 0, tmp_path / "x.npy", labels=labels)
    assert (parts.train.labels.sum(), parts.test.labels.tolist()) == (1, [1, 1])


def test_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", values=pixels, labels=[0, 1] * 6)
    options = {"encode": {"invert": True, "on_off": True, "per_feature": False}}
    parts = file_splits(tmp_path / "a.npz", 2, tmp_path / "a.npz", **options)
    for part in parts:
        assert (part.image, part.blank) == ((2, 4, 3), (2.0, 0.15))
    found = outline("files", train=tmp_path / "a.npz", **options)
    assert (found.image, found.features, found.class_names, len(found)) == ((2, 4, 3), 24, ("0", "1"), 0)


@pytest.mark.filterwarnings("ignore:.* the training data have no names of columns")
def test_values_for_a_trained_network(tmp_path):
    encoder = LatencyEncoder(on_off=False).fit([[0.0, 0.0], [1.0, 2.0]])
    values, wanted = [[0.5, 3.0], [math.nan, 1.0]], encoder([[0.5, 3.0], [math.nan, 1.0]], torch.float64)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", values=values, labels=[1, 0])
    write(tmp_path / "c.csv", "0.5,3\nnan,1\n")
    for name in ("a.npy", "b.npz", "c.csv"):
        assert torch.equal(read_times(tmp_path / name, 2, torch.float64, encoder), wanted)
    np.savez(tmp_path / "d.npz", times=wanted)
    assert torch.equal(read_times(tmp_path / "d.npz", 2, torch.float64, encoder), wanted)
    write(tmp_path / "e.csv", "kind,x,y\ndown,0.5,3\nup,,1\n")
    for name, labels in (("b.npz", None), ("e.csv", "kind")):
        data = read_labelled(tmp_path / name, 2, ("up", "down"), torch.float64, encoder, labels)
        assert torch.equal(data.times, wanted)
        assert data.labels.tolist() == [1, 0]
        assert data.encoder is encoder
    both = LatencyEncoder().fit([[0.0, 0.0], [1.0, 2.0]])
    assert read_times(tmp_path / "a.npy", 4, encoder=both).shape == (2, 4)
    with pytest.raises(ValueError, match=r"values: expected the shape \(samples, 3\), got \(2, 2\)"):
        read_times(tmp_path / "a.npy", 3, encoder=LatencyEncoder().fit([[0, 0, 0]]))


GOOD = "a,b,label\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b,label\n1,2,x\n1,two,x\n", {}, r"column 2 \(b\), line 3: expected a time, inf or nothing, got 'two'"),
        ("1;2;x\n1,5;2;y\n", {}, "column 1, line 2: expected a time, inf or nothing, got '1,5'; decimals have"),
        ("1,2,x\n1,-inf,x\n", {}, r"column 2, line 2: expected a time, inf or nothing, got '-inf'"),
        ("1,2,x\n1,two,x\n", {"encode": {}}, "column 2, line 2: expected a number or nothing, got 'two'"),
        ("1,2,x\n1,inf,x\n", {"encode": {}}, r"column 2, line 2: expected a number or nothing, got 'inf'"),
        ("k,b\nx,2\ny,two\n", {"labels": "k"}, r"column 2 \(b\), line 3: expected a time"),
        ("kind,a\nx,1\ny,2\n", {"encode": {}}, r"column 1 \(kind\), line 2: .* 'x'; .* set labels: 'kind'"),
        ("x,1\ny,2\n", {}, "column 1, line 1: .* 'x'; .* set labels: 0"),
        (
            GOOD,
            {"labels": 0},
            r"column 3 \(label\), line 2: .* 'x'; .* from column 1 \(a\), unless you set labels: 'label'",
        ),
        ("a,b,label\n1,2,x\n\n1,2\n", {}, "line 4: expected 2 inputs and a label, got 1 too few"),
        ("a,b,c,label\n1,2,x\n", {}, "line 2: expected 3 inputs and a label, got 1 too few"),
        ("1,2,x\n1,2,3,x\n", {}, "line 2: expected 2 inputs and a label, got 1 too many"),
        (GOOD, {"labels": "class"}, "line 1: expected a column named 'class', got a, b, label"),
        (GOOD, {"labels": 7}, r": .* column with the labels, 0 \(the first\) \.\.\. 2, got 7"),
        ("a,b,label\n1,2,0.5\n3,4,1\n", {}, "labels: expected whole numbers or names, got '0.5' for line 2"),
        ("a,b,label\n1,2,x\n3,4,\n", {}, "labels: expected whole numbers or names, got '' for line 3"),
        (GOOD, {"class_names": ["x", "z"]}, r"labels: expected 0 \.\.\. 1 or x, z, got 'y' for line 3"),
        (GOOD, {"validation": 2, "test": 2}, "validation, test: expected fewer than all of 4 samples, got 4"),
        (GOOD, {"encode": {"lat": 1.0}}, "encode: unknown key 'lat'; valid keys: early, late"),
        (",a,label\n0,0.1,x\n1,0.2,y\n", {}, r"column 1: expected inputs, got a column without a name, .*pandas"),
        ("a,a,label\n1,2,x\n3,4,y\n", {}, "line 1: two columns are called 'a'"),
        ("a,b,label\n", {}, "has no samples"),
        ("", {}, "has no samples"),
        ("x\ny\n", {}, ": expected columns of inputs and one of labels, got one column"),
    ],
)
def test_text_that_does_not_fit(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=rf"a\.csv.*{message}") as error:
        file_splits(write(tmp_path / "a.csv", text), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,c,label\n1,2,x\n",
            r"b\.csv, line 1: expected the columns of the training data, .* it lacks b and has also c",
        ),
        ("a,label\n1,x\n", r"b\.csv, line 1: .* in any order: it lacks b$"),
        ("a,b,label\n1,2,z\n", r"b\.csv: labels: expected 0 \.\.\. 1 or x, y, got 'z' for line 2"),
        ("1,x\n", r"b\.csv, line 1: expected 2 inputs and a label, got 1 too few"),
    ],
)
def test_another_file_that_does_not_fit_the_training_data(tmp_path, text, message):
    train, other = write(tmp_path / "a.csv", GOOD), write(tmp_path / "b.csv", text)
    for parts in ({"test": other}, {"validation": other}):
        with pytest.raises(ValueError, match=message):
            file_splits(train, **parts)


def test_columns_are_found_by_their_names(tmp_path):
    train = write(tmp_path / "a.csv", "a,b,c,label\n1,2,3,x\n4,5,6,y\n7,8,9,x\n")
    other = write(tmp_path / "b.csv", "label,c,a,b\nx,3,1,2\n")
    parts = file_splits(train, validation=0, test=other, labels="label")
    assert parts.train.columns == parts.test.columns == ("a", "b", "c")
    assert parts.test.times.tolist() == [[1.0, 2.0, 3.0]]
    new = write(tmp_path / "c.csv", "c,b,a\n3,2,1\n")
    assert read_times(new, 3, columns=parts.train.columns).tolist() == [[1.0, 2.0, 3.0]]
    with pytest.warns(
        UserWarning, match=r"c\.csv: the training data have no names of columns: these are taken in their"
    ):
        assert read_times(new, 3).tolist() == [[3.0, 2.0, 1.0]]
    assert read_times(write(new, "3,2,1\n"), 3, columns=("a", "b", "c")).tolist() == [[3.0, 2.0, 1.0]]  # no names
    with pytest.raises(ValueError, match=r"c\.csv, column 1 \(c\), line 2: expected a time, inf or nothing, got 'x'"):
        read_times(write(new, "c,b,a\nx,2,1\n"), 3, columns=("a", "b", "c"))
    more = write(new, "c,b,a,label\n3,2,1,x\n")  # other columns of new samples play no part
    assert read_times(more, 3, columns=("a", "b", "c")).tolist() == [[1.0, 2.0, 3.0]]
    same = ("a", "a", "b")
    assert read_times(write(new, "a,a,b\n3,2,1\n"), 3, columns=same).tolist() == [[3.0, 2.0, 1.0]]
    with pytest.raises(ValueError, match=r"c\.csv, line 1: .* it lacks a and has also b$"):
        read_times(write(new, "a,b,b\n3,2,1\n"), 3, columns=same)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"values": np.ones((4, 2)), "labels": [0, 1, 0, 1]}, {}, "expected an array 'times', got values, labels"),
        ({"times": np.ones((4, 2)), "labels": [0, 1, 0, 1]}, {"encode": {}}, "expected an array 'values', got times"),
        ({"times": np.ones((4, 2))}, {}, "expected an array 'labels', got times"),
        ({"times": np.ones((4, 2)), "labels": [0, 1]}, {}, "labels: expected as many as samples, got 2 for 4"),
        ({"times": np.ones((4, 2)), "labels": np.ones((4, 2))}, {}, "labels: expected one per sample"),
        ({"times": np.ones(4), "labels": [0, 1, 0, 1]}, {}, r"times: expected the shape \(samples, inputs\)"),
        ({"values": np.full((2, 2), np.inf), "labels": [0, 1]}, {"encode": {}}, "values: expected finite .* at"),
        ({"times": np.full((4, 2), np.nan), "labels": [0, 1, 0, 1]}, {}, "times: expected numbers or inf .* got nan"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, options, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}") as error:
        file_splits(tmp_path / "a.npz", **options)
    assert "\n" not in str(error.value)


def test_files_that_are_missing(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    with pytest.raises(ValueError, match="labels are missing; give"):
        file_splits(tmp_path / "a.npy")
    for labels in ("b.npy", "b.csv"):
        with pytest.raises(FileNotFoundError, match=rf"{labels}: there is no such file"):
            file_splits(tmp_path / "a.npy", labels=str(tmp_path / labels))
    with pytest.raises(FileNotFoundError, match=r"b\.csv: there is no such file"):
        file_splits(tmp_path / "b.csv")


@pytest.mark.filterwarnings("ignore:there are spike times up to")
@pytest.mark.parametrize("kind", ["csv", "npy", "npz"])
def test_damaged_tables_are_refused_in_one_line(tmp_path, kind):
    """Bytes of good tables are changed, left out and put in at random."""
    source, file = random.Random(0), tmp_path / f"a.{kind}"
    values = np.random.default_rng(0).uniform(size=(6, 3)).round(3)
    np.save(tmp_path / "labels.npy", np.arange(6) % 2)
    np.save(tmp_path / "good.npy", values)
    np.savez_compressed(tmp_path / "good.npz", times=values, labels=np.array(list("ababab")))
    lines = ["a;b;c;label", *(";".join(map(str, [*row, "x"])) for row in values.tolist())]
    write(tmp_path / "good.csv", "\n".join(lines))
    good, messages = (tmp_path / f"good.{kind}").read_bytes(), []
    junk = [b"", b"nan", b";", b"\n", b'"', b"\xff"]
    for _ in range(300):
        content = bytearray(good)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(content))
            content[at : at + source.choice([0, 1, 1, 1, 30])] = source.choice(junk)
        file.write_bytes(content)
        try:
            file_splits(file, 1, 1, labels=str(tmp_path / "labels.npy") if kind == "npy" else None)
        except ValueError as error:
            messages.append(str(error))
    assert 50 < len(messages) < 300
    assert all(message.startswith(str(file)) and "\n" not in message for message in messages)


def test_arrays_name_their_inputs_too(tmp_path):
    random = np.random.default_rng(1)
    arrays = {"values": random.random((20, 3)), "labels": np.arange(20) % 2, "columns": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "table.npz", **arrays)
    parts = file_splits(tmp_path / "table.npz", encode={})
    assert parts.train.columns == ("a", "b", "c")
    assert parts.train.input_names == ("a", "b", "c", "a (off)", "b (off)", "c (off)")
    np.savez(tmp_path / "other.npz", **{**arrays, "values": arrays["values"][:, ::-1], "columns": ["c", "b", "a"]})
    other = file_splits(tmp_path / "table.npz", test=tmp_path / "other.npz", validation=0, encode={})
    assert torch.equal(other.train.times.sort(dim=0).values, other.test.times.sort(dim=0).values)
    np.savez(tmp_path / "short.npz", **{**arrays, "columns": ["a"]})
    with pytest.raises(ValueError, match=r"short\.npz: columns: expected a name for each of 3 inputs, got 1"):
        file_splits(tmp_path / "short.npz", encode={})


def test_a_folder_of_arrays(tmp_path):
    times, labels = np.random.default_rng(1).random((20, 3)), np.arange(20) % 2
    np.savez(tmp_path / "table.npz", times=times, labels=labels)
    folder = tmp_path / "table"
    folder.mkdir()
    np.save(folder / "times.npy", times)
    with pytest.raises(ValueError, match="table: expected an array 'labels', got times"):
        file_splits(folder)
    np.save(folder / "labels.npy", labels)
    found, wanted = file_splits(folder), file_splits(tmp_path / "table.npz")
    assert found.checksum == wanted.checksum


def test_channels_that_come_last_are_pointed_out():
    images = np.random.default_rng(1).random((20, 5, 6, 3))
    with pytest.warns(UserWarning, match=r"if the channels come last, write numpy\.moveaxis\(images, -1, 1\)"):
        split(images, np.arange(20) % 2)
    assert split(np.moveaxis(images, -1, 1), np.arange(20) % 2).train.image == (3, 5, 6)
