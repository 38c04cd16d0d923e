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
    with pytest.raises(ValueError, match=r"units_per_input: expected a whole number from 1 to 700, got 0"):
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
    with pytest.raises(ValueError, match=r"shd_test\.h5: expected spikes/times, spikes/units and labels"):
        shd_splits(folder=folder)
    with h5py.File(folder / "shd_test.h5", "w") as file:
        file["other"] = [0]
    with pytest.raises(ValueError, match=r"shd_test\.h5: expected labels, got other"):
        shd_splits(folder=folder)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'pip install "firstspike\[h5py\]"'):
        shd_splits(folder=folder)
