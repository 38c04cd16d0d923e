import math

import numpy as np
import pytest
import torch
from reading import read_labelled, read_times

TIMES = [[0.1, math.inf, 2.0], [1.5, 0.25, math.inf]]
NAMES = ("up", "down")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.filterwarnings("ignore:.* the training data have no names of columns")
@pytest.mark.parametrize(
    "text",
    [
        "0.1,inf,2\n1.5,0.25,inf\n",
        "0.1,,2.0\n1.5,.25,\n",
        "a,b,c\n0.1, ,2.0\n 1.5 ,0.25,Infinity",
        "\ufeff0.1,,2.0\r\n\r\n1.5,0.25,\r\n",
    ],
    ids=["inf", "empty", "named columns", "as Excel writes"],
)
def test_text(tmp_path, text):
    assert read_times(write(tmp_path / "a.csv", text), 3, torch.float64).tolist() == TIMES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_text_of_wide_characters(tmp_path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    file = tmp_path / "a.csv"
    file.write_text(f"{mark}a\tb\tgröße\n0.1\t\t2.0\n1.5\t0.25\t\n", encoding=encoding)
    assert read_times(file, 3, torch.float64, columns=("a", "b", "größe")).tolist() == TIMES
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a\.csv: is not a text file of UTF-8 or UTF-16: ") as error:
        read_times(file, 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy_files(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array(TIMES))
    np.savez(tmp_path / "b.npz", other=np.zeros(3), times=np.array(TIMES, dtype=np.float32))
    np.save(tmp_path / "c.npy", np.array([[1, 2, 3]]))
    for name, expected in (("a.npy", TIMES), ("b.npz", np.float32(TIMES).tolist()), ("c.npy", [[1, 2, 3]])):
        times = read_times(tmp_path / name, 3, dtype)
        assert times.dtype == dtype
        torch.testing.assert_close(times, torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1,x,2\n", r"line 1: expected a time, inf or nothing, got 'x'"),
        ("1,2,3\n1,2\n", r"line 2: expected 3 inputs, got 1 too few"),
        ("1,2,3\n1,2,3,4,5\n", r"line 2: expected 3 inputs, got 2 too many"),
        ("1,2,3,x\n", r"line 1: expected 3 inputs, got 1 too many; is it the label\? Leave it out"),
        ("1,2,3\n\n1,nan,3\n", r"column 2, line 3: expected a time, inf or nothing, got 'nan'"),
        ("1,-inf,3\n", r"column 2, line 1: expected a time, inf or nothing, got '-inf'"),
        pytest.param("1,2," + 200_000 * "3", "is not a table: field larger than field limit", id="long cell"),
        ("", "has no samples"),
        ("hello\n", "has no samples"),
    ],
)
def test_text_that_does_not_fit(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"a\.csv.*{message}"):
        read_times(write(tmp_path / "a.csv", text), 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 4)), r"expected the shape \(samples, 3\), got \(2, 4\)"),
        (np.zeros((5, 2, 3)), r"got \(5, 2, 3\); a raster of 0 and 1 .* becomes spike times by"),
        (np.zeros(3), r"expected the shape \(samples, 3\), got \(3,\)"),
        (np.zeros((0, 3)), r"got \(0, 3\)"),
        (np.array([["a", "b", "c"]]), r"expected numbers, got 'a' at \[0, 0\]"),
        (np.zeros((1, 3), dtype=complex), "expected numbers, got complex128"),
        (np.array([[0, np.nan, 1]]), r"times: expected numbers or inf \(no spike\), got nan at \[0, 1\]"),
        (np.array([[{}, 1, 2]], dtype=object), "cannot be read as NumPy arrays of numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=message):
        read_times(tmp_path / "a.npy", 3)


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_other_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\xff\x00junk")
    with pytest.raises(ValueError, match=r"cannot be read as NumPy|is not a text file"):
        read_times(path, 3)
    path.write_bytes(b"PK\x03\x04junk")
    with pytest.raises(ValueError, match=r"cannot be read as NumPy|has no samples"):
        read_times(path, 3)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_times(tmp_path / f"b.{suffix}", 3)


def test_times_before_0_are_legal_and_pointed_out(tmp_path):
    path = write(tmp_path / "a.csv", "-0.5,1,2,up\n")
    with pytest.warns(UserWarning, match=r"spike times before 0, the earliest is -0\.5") as found:
        times = read_labelled(path, 3, NAMES).times
    assert len(found) == 1
    assert times.tolist() == [[-0.5, 1.0, 2.0]]


def test_a_pickle_is_not_executed(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    (tmp_path / "a.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="cannot be read"):
        read_times(tmp_path / "a.npy", 3)
    assert not (tmp_path / "executed").exists()


def test_unknown_kinds_and_missing_arrays(tmp_path):
    with pytest.raises(ValueError, match=r"expected \.npy, \.npz, \.csv or a folder of \.npy, got \.txt"):
        read_times(write(tmp_path / "a.txt", "1,2,3"), 3)
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="expected an array 'times', got x"):
        read_times(tmp_path / "a.npz", 3)
    np.savez(tmp_path / "a.npz", times=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="expected an array 'labels', got times"):
        read_labelled(tmp_path / "a.npz", 3, NAMES)
    np.save(tmp_path / "a.npy", np.zeros((1, 3)))
    with pytest.raises(ValueError, match="labels are missing"):
        read_labelled(tmp_path / "a.npy", 3, NAMES)


@pytest.mark.filterwarnings("ignore:.* the training data have no names of columns")
def test_labels(tmp_path):
    files = [write(tmp_path / "a.csv", "a,b,c,label\n0.1,,2,down\n1.5,.25,,0\n")]
    for name, labels in (("b", np.array([1, 0])), ("c", np.array([1.0, 0.0])), ("d", np.array(["down", "up"]))):
        files.append(tmp_path / f"{name}.npz")
        np.savez(files[-1], times=np.array(TIMES), labels=labels)
    for file in files:
        data = read_labelled(file, 3, NAMES, torch.float64)
        assert data.times.tolist() == TIMES
        assert data.labels.tolist() == [1, 0]
        assert data.class_names == NAMES


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], r"labels: expected 0 \.\.\. 1 or up, down, got '2'"),
        ([0, -1], "got '-1'"),
        ([0, 0.5], "got '0.5'"),
        (["up", "left"], "got 'left'"),
        ([0.0, math.nan], "got 'nan'"),
        ([0], "expected as many as samples, got 1 for 2"),
        ([[0], [1]], r"expected one per sample, got an array of shape \(2, 1\)"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", times=np.array(TIMES), labels=np.array(labels))
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / "a.npz", 3, NAMES)
