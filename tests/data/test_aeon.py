"""Time series through aeon; a stand-in takes its place but in the test marked timeseries."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from firstspike.data import DATASETS, LevelCrossingEncoder, outline

series_of = DATASETS["time_series"]


@pytest.fixture
def aeon(monkeypatch):
    """A module that loads made-up series: two classes, two channels, different lengths."""

    def load_classification(name, split=None, extract_path=None):
        if name != "Waves":
            raise ValueError(f"dataset name ={name} is not available on extract path ={extract_path}.")
        random = np.random.default_rng(0 if split == "train" else 1)
        labels = np.array(["up", "down"] * 10)
        return [random.normal(size=(2, n)) for n in random.integers(5, 9, 20)], labels

    datasets = ModuleType("aeon.datasets")
    datasets.load_classification = load_classification
    monkeypatch.setitem(sys.modules, "aeon", ModuleType("aeon"))
    monkeypatch.setitem(sys.modules, "aeon.datasets", datasets)


@pytest.mark.usefixtures("aeon")
def test_parts_are_encoded_alike():
    train, validation, test = series_of("Waves", validation=0.25, encode={"kind": "threshold", "levels": 3})
    assert [len(part) for part in (train, validation, test)] == [15, 5, 20]
    assert train.class_names == ("down", "up")
    assert test.labels.tolist() == [1, 0] * 10
    assert train.encoder == test.encoder
    assert train.encoder.levels == 3
    assert all(part.trains and part.features == 6 for part in (train, validation, test))
    assert outline("time_series", name="Waves").features == 4
    assert len(series_of("Waves", validation=0).validation) == 0


@pytest.mark.usefixtures("aeon")
def test_unknown_sets():
    with pytest.raises(FileNotFoundError, match=r"Nothing: aeon cannot load it .*choose a set of its package"):
        series_of("Nothing")


def test_a_known_set_has_an_outline_without_aeon(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    found = outline("time_series")
    assert (found.features, found.class_names, len(found)) == (24, tuple("123456789"), 0)
    assert outline("time_series", encode={"kind": "threshold", "levels": 5}).features == 60
    with pytest.raises(ImportError, match=r'pip install "\.\[timeseries\]"'):
        series_of()


@pytest.mark.timeseries
def test_japanese_vowels():
    parts = series_of()
    assert [len(part) for part in parts] == [216, 54, 370]
    found = outline("time_series")
    assert (found.features, found.class_names) == (parts.train.features, parts.train.class_names)
    assert isinstance(parts.train.encoder, LevelCrossingEncoder)
    assert float(torch.isfinite(parts.train.times).sum(-1).double().mean()) > 1
