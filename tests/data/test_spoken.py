"""SHD and SSC from small files in the format of the published ones."""

import sys

import numpy as np
import pytest
import torch

from firstspike.data import DATASETS, outline
from firstspike.data.spoken import shd_splits, ssc_splits

h5py = pytest.importorskip("h5py")
WORDS = ("zero", "one", "null")


def write(path, samples, seed):
    """A file with the groups and types of the published ones: times in half precision, units as unsigned integers."""
    random = np.random.default_rng(seed)
    events = [
        (np.sort(random.random(n)).astype("f2"), random.integers(0, 700, n)) for n in random.integers(3, 30, samples)
    ]
    labels = np.arange(samples) % len(WORDS)
    with h5py.File(path, "w") as file:
        for name, kind, column in (("times", "f2", 0), ("units", "u2", 1)):
            rows = file.create_dataset(f"spikes/{name}", (samples,), dtype=h5py.vlen_dtype(np.dtype(kind)))
            for row, event in enumerate(events):
                rows[row] = event[column]
        file["labels"] = labels.astype("u2")
        file["extra/speaker"] = np.zeros(samples, "u2")
        file["extra/keys"] = np.array(WORDS, "S")
        file["extra/meta_info/gender"] = np.array([b"female"])
    return events, labels


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("shd_train", "shd_test", "ssc_train", "ssc_valid", "ssc_test")):
        write(tmp_path / f"{name}.h5", 12, seed)
    return tmp_path


def test_every_spike_of_a_file_is_there(tmp_path, folder):
    events, labels = write(tmp_path / "shd_test.h5", 6, 7)
    test = shd_splits(folder=folder, time_unit=0.02, dtype=torch.float64).test
    assert test.labels.tolist() == labels.tolist()
    assert test.class_names == WORDS
    for trains, (times, units) in zip(test.times, events, strict=True):
        assert trains.shape[0] == 700
        assert int(torch.isfinite(trains).sum()) == len(times)
        for unit in np.unique(units):
            train = trains[unit]
            expected = np.sort(times[units == unit].astype(float) / 0.02)
            np.testing.assert_allclose(train[torch.isfinite(train)].numpy(), expected, rtol=1e-12)


def test_shd_holds_out_validation_data(folder):
    parts = shd_splits(validation=0.25, folder=folder)
    assert [len(part) for part in parts] == [9, 3, 12]
    other = shd_splits(validation=0.25, seed=1, folder=folder)
    assert not torch.equal(parts.validation.first_spikes().times, other.validation.first_spikes().times)


def test_ssc_has_validation_data(folder):
    assert [len(part) for part in ssc_splits(folder=folder)] == [12, 12, 12]


@pytest.mark.parametrize("kind", ["shd", "ssc"])
def test_neighbouring_units_are_joined(kind, folder):
    whole = DATASETS[kind](folder=folder).test
    joined = DATASETS[kind](folder=folder, units_per_input=9).test
    assert joined.features == 78
    assert int(torch.isfinite(joined.times.padded()).sum()) == len(whole.times.when)
    assert outline(kind, folder=folder, units_per_input=9).features == 78
    assert outline(kind, folder=folder).class_names == WORDS
    with pytest.raises(ValueError, match=r"units_per_input must be > 0 and <= 700, got 0"):
        DATASETS[kind](folder=folder, units_per_input=0)


def test_files_that_are_missing(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"shd_train.h5, shd_test.h5 not in .*: get them from https://compneuro.net"
    ):
        shd_splits(folder=tmp_path)
    (tmp_path / "shd_train.h5.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"unpack shd_train.h5 there, or set data.folder"):
        shd_splits(folder=tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"ssc_train.h5, .* not in {tmp_path}/firstspike"):
        ssc_splits()


def test_other_files(folder, monkeypatch):
    (folder / "shd_test.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"shd_test\.h5: cannot be read as HDF5: "):
        shd_splits(folder=folder)
    with h5py.File(folder / "shd_test.h5", "w") as file:
        file["labels"] = [0]
    with pytest.raises(ValueError, match=r"shd_test\.h5: expected an array spikes/times, got none"):
        shd_splits(folder=folder)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[h5py\]"'):
        shd_splits(folder=folder)


def damaged(path, change):
    """A small file in which ``change`` has replaced something."""
    write(path, 4, 3)
    with h5py.File(path, "r+") as file:
        change(file)


def lists(kind, *rows):
    """An array of lists, as h5py writes them."""
    found = np.empty(len(rows), dtype=h5py.vlen_dtype(np.dtype(kind)))
    for k, row in enumerate(rows):
        found[k] = np.asarray(row, kind)
    return found


def put(name, value):
    def change(file):
        if name in file:
            del file[name]
        if isinstance(value, np.ndarray) and value.dtype.kind == "O":
            file.create_dataset(name, data=value, dtype=value.dtype)
        elif value is not None:
            file[name] = value

    return change


def both(times, units):
    def change(file):
        put("spikes/times", lists("f4", *times))(file)
        put("spikes/units", lists("i8", *units))(file)

    return change


FOUR = [[0.1, 0.2]] * 4


def a_group(file):
    put("spikes/times", None)(file)
    file.create_group("spikes/times")


TEXT, MANY = np.array([b"a", b"b", b"c", b"d"]), np.array([0, 1, 2, 10**9])
HALF = lists("f4", *[[1.0, 0.5]] * 4)
NODES = [
    (a_group, "expected an array spikes/times, got a Group"),
    (put("spikes/times", None), "expected an array spikes/times, got none"),
    (put("spikes/times", "text"), r"times: expected lists of numbers, one per sample, got object of shape \(\)"),
    (put("spikes/times", TEXT), "spikes/times: expected lists of numbers"),
    (put("spikes/times", np.zeros(4)), "spikes/times: expected lists of numbers, one per sample, got float64"),
    (put("spikes/units", np.zeros((4, 2))), r"spikes/units: .* got float64 of shape \(4, 2\)"),
    (put("spikes/units", HALF), r"spikes/units: expected whole numbers, got 0\.5 for sample 0"),
    (both(FOUR, [[1, 700]] * 4), r"expected inputs from 0 to 699, got 1 \.\.\. 700 for sample 0"),
    (both([[0.1, np.nan]] * 4, [[1, 2]] * 4), "expected finite times"),
    (put("labels", np.zeros((4, 1), "i4")), r"labels: expected numbers, .* got int32 of shape \(4, 1\)"),
    (put("labels", np.array([0.0, 0.5, 1.0, 2.0])), r"labels: expected whole numbers, got 0\.5"),
    (put("labels", TEXT), "labels: expected numbers"),
    (put("labels", None), "expected an array labels, got none"),
    (put("labels", np.zeros(3, "i4")), "expected as many spikes/times as spikes/units and labels, got 4, 4 and 3"),
    (put("labels", MANY), r"labels: expected 0 \.\.\. 2 for 3 class names, got 0 \.\.\. 1000000000"),
    (put("extra/keys", None), "expected an array extra/keys, got none"),
    (put("extra/keys", b"a"), "extra/keys: expected names, one per sample, got"),
]


@pytest.mark.parametrize(("change", "message"), NODES)
def test_nodes_of_another_kind(folder, change, message):
    damaged(folder / "shd_test.h5", change)
    with pytest.raises(ValueError, match=message) as error:
        shd_splits(folder=folder)
    assert str(error.value).startswith(f"{folder / 'shd_test.h5'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_files_that_were_cut_short_are_refused_in_one_line(folder, keep):
    path = folder / "shd_test.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"cannot be read as HDF5: .*; download it again") as error:
        shd_splits(folder=folder)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", [{"chunks": (5,)}, {"chunks": (5,), "compression": "gzip"}])
def test_other_layouts_of_lists(folder, layout):
    expected = shd_splits(folder=folder).test.checksum
    with h5py.File(folder / "shd_test.h5", "r+") as file:
        for name in ("spikes/times", "spikes/units"):
            kind, rows = file[name].dtype, file[name][:]
            del file[name]
            file.create_dataset(name, data=rows, dtype=kind, **layout)
    assert shd_splits(folder=folder).test.checksum == expected
