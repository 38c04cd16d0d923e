"""Which line of a text names the columns, and which columns are inputs."""

import numpy as np
import pytest
import torch
from reading import read_labelled, read_times

from firstspike.data import LatencyEncoder, SpikeData, file_splits, files

SPECTRA = ["350,350.5,351,class", "0.1,0.2,0.3,a", "0.4,0.5,0.6,b", "0.7,0.8,0.9,a"]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("lines", "samples", "columns"),
    [
        (["0,1,2,kind", "0.1,0.2,0.3,a", "0.4,0.5,0.6,b"], 2, ("0", "1", "2")),  # as pandas names columns
        (["0,1,2,a", "0.1,0.2,0.3,a", "0.4,0.5,0.6,b"], 3, ()),
        (["x,y,z,kind", "0.1,0.2,0.3,a", "0.4,0.5,0.6,b"], 2, ("x", "y", "z")),
        (['"x","y, z",w,kind\r', "0.1,0.2,0.3,a\r", "\r", "0.4,0.5,0.6,b\r"], 2, ("x", "y, z", "w")),
        (["0.1,0.2,0.3,a", "0.4,0.5,0.6,b"], 2, ()),
        (SPECTRA, 3, ("350", "350.5", "351")),
        (["2001,2002,area,class", *SPECTRA[1:]], 3, ("2001", "2002", "area")),
        (["0.7,0.7,0.2,b", "0.1,0.2,0.3,a", "0.4,0.5,0.6,a"], 3, ()),  # no names: two are the same
        (["2001,2002,class", "0.1,0.2,0", "0.3,0.4,1"], 2, ("2001", "2002")),
        (["2001,2002,1", "0.1,0.2,2", "0.3,0.4,2"], 3, ()),
    ],
)
@pytest.mark.filterwarnings("ignore:there are spike times up to")
def test_headers(tmp_path, lines, samples, columns):
    data = file_splits(write(tmp_path / "a.csv", lines), 0, 0).train
    assert (len(data), data.columns) == (samples, columns)
    assert "class" not in data.class_names


@pytest.mark.parametrize("line", ["0.1,0.2,", "0.1,0.2,NA"])
def test_a_label_that_is_missing_is_no_name(tmp_path, line):
    file = write(tmp_path / "a.csv", [line, "0.3,0.4,a", "0.5,0.6,a"])
    if line.endswith(","):
        with pytest.raises(ValueError, match="got '' for line 1"):
            file_splits(file)
    else:
        assert file_splits(file, 0, 0).train.class_names == ("NA", "a")


def test_numbers_that_are_the_known_names_are_names(tmp_path):
    train = file_splits(write(tmp_path / "a.csv", SPECTRA), 0, 0).train
    new = write(tmp_path / "b.csv", ["351,350,350.5", "0.3,0.1,0.2", "0.6,0.4,0.5"])
    assert files.read_times(new, train, torch.float64).tolist() == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    labelled = write(tmp_path / "c.csv", ["351,350,350.5,class", "0.3,0.1,0.2,b"])
    data = files.read_labelled(labelled, train, torch.float64)
    assert (data.times.tolist(), data.labels.tolist()) == ([[0.1, 0.2, 0.3]], [1])


def test_a_regression_on_columns_with_numbers_for_names(tmp_path):
    file = write(tmp_path / "a.csv", ["350,351,price", "0.1,0.2,7.5", "0.3,0.4,8.5"])
    data = file_splits(file, 0, 0, regression=True).train
    assert (sorted(data.labels.squeeze(1).tolist()), data.columns) == ([7.5, 8.5], ("350", "351"))


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ([",a,b,label", "7,0.1,0.2,x", "3,0.3,0.4,y"], None),
        (["label,,a", "x,7,0.1", "y,3,0.3"], "label"),
        ([",label", "0.1,x", "0.2,y"], None),
    ],
)
def test_the_column_of_an_index_is_no_input(tmp_path, lines, labels):
    if labels is None:
        with pytest.raises(ValueError, match=r"a\.csv, column 1: expected inputs, got a column without a name"):
            file_splits(write(tmp_path / "a.csv", lines))
    else:
        assert file_splits(write(tmp_path / "a.csv", lines), 0, 0, labels=labels).train.columns == ("", "a")


def test_columns_of_which_none_has_a_name_are_inputs(tmp_path):
    data = file_splits(write(tmp_path / "a.csv", [",,label", "0.1,0.2,x", "0.3,0.4,y"]), 0, 0).train
    assert data.features == 2


def test_new_samples_may_have_an_index(tmp_path):
    file = write(tmp_path / "a.csv", [",b,a", "7,0.2,0.1", "3,0.4,0.3"])
    assert read_times(file, 2, torch.float64, columns=("a", "b")).tolist() == [[0.1, 0.2], [0.3, 0.4]]
    with pytest.raises(ValueError, match=r"a\.csv, column 1: expected inputs, got a column without a name"):
        read_times(file, 2)


@pytest.mark.filterwarnings("ignore:.* the training data have no names of columns")
@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
@pytest.mark.parametrize("header", [["a,b,label"], []])
def test_truth_values_are_1_and_0(tmp_path, words, header):
    yes, no = words
    file = write(tmp_path / "a.csv", [*header, f"{yes},{no},x", f"{no},{yes},y"])
    data = file_splits(file, 0, 0, encode={"on_off": False}, dtype=torch.float64).train
    expected = {0: [2.0, 0.15], 1: [0.15, 2.0]}
    assert {label: row for row, label in zip(data.times.tolist(), data.labels.tolist(), strict=True)} == expected
    encoder = LatencyEncoder(on_off=False).fit([[0.0, 0.0], [1.0, 1.0]])
    numbers = write(tmp_path / "b.csv", ["1,0,x", "0,1,y"])
    given = [read_labelled(x, 2, ("x", "y"), encoder=encoder).times for x in (file, numbers)]
    assert torch.equal(*given)
    with pytest.raises(ValueError, match=f"expected a time, inf or nothing, got '{yes}'"):
        file_splits(file)


def test_all_columns_of_words_are_named(tmp_path):
    lines = ["a,sex,b,city,label", "1,m,2,Ulm,x", "3,f,x,,y", "5,m,6,Bonn,x"]
    names = r"column 2 \(sex\), column 4 \(city\)"
    message = (
        rf"column 2 \(sex\), line 2: expected a number or nothing, got 'm'; columns without numbers: {names}: write"
    )
    with pytest.raises(ValueError, match=rf"{message} .*; labels are taken from column 5 \(label\), unless"):
        file_splits(write(tmp_path / "a.csv", lines), encode={})
    encoder = LatencyEncoder().fit(np.zeros((1, 5)))
    new = write(tmp_path / "b.csv", lines)
    with pytest.raises(ValueError, match=r"got 'm'; columns without numbers: .*column 5 \(label\): write .* out$"):
        files.read_times(new, SpikeData(torch.empty(0, 10), [], encoder=encoder))
    lines = [line.replace(",m,", ",1,").replace(",f,x", ",2,4") for line in lines]
    with pytest.raises(
        ValueError, match=r"column 4 \(city\), line 2: .* 'Ulm'; columns without numbers: column 4 \(city\): w"
    ):
        file_splits(write(tmp_path / "a.csv", lines), encode={})


@pytest.mark.parametrize(
    ("lines", "columns", "classes"),
    [
        (["0,1,2", "0.1,0.2,x", "0.3,0.4,y"], ("0", "1"), ("x", "y")),  # of pandas, without names
        (["2001,2002,2003", "0.1,0.2,x", "0.3,0.4,x"], ("2001", "2002"), ("x",)),
        (["0,1,2", "0.1,0.2,x", "0.3,0.4,7"], (), ("2", "7", "x")),
        (['"a;1","b\t2",label', "0.1,0.2,x", "0.3,0.4,y"], ("a;1", "b 2"), ("x", "y")),
        (['a, "b", label', '0.1, "0.2", "x"', "0.3, 0.4, y"], ("a", "b"), ("x", "y")),
        (["   ", "a,b,label", "  ", "0.1,0.2,x", "0.3,0.4,y", "  "], ("a", "b"), ("x", "y")),
    ],
)
def test_forms_that_other_programs_write(tmp_path, lines, columns, classes):
    data = file_splits(write(tmp_path / "a.csv", lines), 0, 0).train
    assert (data.columns, data.class_names) == (columns, classes)
    assert bool(data.times.isfinite().all())


def test_a_cell_of_blanks_is_no_blank_line(tmp_path):
    (tmp_path / "a.csv").write_text('0.5\n""\n \n0.7\n')
    assert read_times(tmp_path / "a.csv", 1, torch.float64).tolist() == [[0.5], [np.inf], [0.7]]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400, "9" * 5000])
def test_numbers_beyond_all_are_no_missing_spikes(tmp_path, number):
    file = write(tmp_path / "a.csv", ["a,b,label", f"0.1,{number},x", "0.3,0.4,y"])
    for encode, expected in ((None, "a time, inf or nothing"), ({}, "a number or nothing")):
        with pytest.raises(ValueError, match=rf"column 2 \(b\), line 2: expected {expected}, got '") as error:
            file_splits(file, encode=encode)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32"])
def test_texts_with_nul_are_refused(tmp_path, encoding):
    file = tmp_path / "a.csv"
    file.write_bytes("\n".join(SPECTRA).encode(encoding))
    with pytest.raises(ValueError, match=r"a\.csv: is not a text file of UTF-8 or UTF-16: line 1 has characters NUL"):
        file_splits(file)


def test_one_column_is_shown(tmp_path):
    for line in ("0.1|0.2|x", "# of a spreadsheet", "0.1 0.2 x"):
        with pytest.raises(ValueError, match=r"got one column: .*; columns are separated by commas, sem") as error:
            file_splits(write(tmp_path / "a.csv", [line, "0.3|0.4|y"]))
        assert repr(line) in str(error.value)


def test_two_columns_of_labels_with_one_name_are_refused(tmp_path):
    file = write(tmp_path / "a.csv", ["a,label,b,label", "0.1,x,0.2,y", "0.3,y,0.4,x"])
    with pytest.raises(ValueError, match=r"line 1: expected one column named 'label', got 2"):
        file_splits(file, labels="label")
    many = write(tmp_path / "b.csv", [",".join(f"c{k}" for k in range(3000)) + ",label"])
    with pytest.raises(ValueError, match=r"expected a column named 'kind', got c0, c1") as error:
        file_splits(many, labels="kind")
    assert len(str(error.value)) < 300


def test_rows_of_empty_cells_between_tabs_are_samples(tmp_path):
    file = write(tmp_path / "a.csv", ["0.1\t0.2", "\t", "0.3\t0.4"])
    assert read_times(file, 2, torch.float64).tolist() == [[0.1, 0.2], [np.inf, np.inf], [0.3, 0.4]]
