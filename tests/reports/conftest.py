import base64
import gzip
import json
import re

import pytest

from firstspike.config import load_config
from firstspike.runs import Run
from trained import start

YIN_YANG = {
    "data": {"kind": "yin_yang", "train": 90, "validation": 40, "test": 50},
    "network": [
        {"kind": "bias", "times": [0.9]},
        {"kind": "lif", "out_features": 15},
        {"kind": "lif", "out_features": 3},
    ],
    "loss": {"kind": "cross_entropy"},
    "training": {
        "epochs": 4,
        "silent": {"limits": 0.9},
        "batch_size": 30,
        "seed": 3,
        "checkpoint_every": 1,
        "optimizer": {"kind": "adam", "lr": 0.02},
    },
}
BARS = {
    "data": {"kind": "bars", "train": 30, "validation": 9, "test": 12},
    "network": [
        {"kind": "lif", "out_features": 8},
        {"kind": "lif", "out_features": 3},
    ],
    "loss": {"kind": "cross_entropy"},
    "training": {"silent": {"limits": 0.9}, "epochs": 3, "batch_size": 10, "seed": 5, "checkpoint_every": 1},
}


def changed(raw, **sections):
    return raw | {name: raw.get(name, {}) | values for name, values in sections.items()}


def train(path, raw):
    start(path, load_config(raw), progress_bar=False)
    return path


def unpacked(html):
    """The data in a page."""
    letters = re.search(r'id="data">([^<]*)<', html)[1]
    return json.loads(gzip.decompress(base64.b64decode(letters)))


@pytest.fixture(scope="session")
def data_in():
    return unpacked


@pytest.fixture(scope="session")
def train_run():
    return train


@pytest.fixture(scope="session")
def bars_config():
    return BARS


@pytest.fixture(scope="session")
def report_runs(tmp_path_factory):
    """A folder with runs: yin_yang, bars, seeds, and the folder of a sweep."""
    top = tmp_path_factory.mktemp("reports")
    train(top / "yin_yang", YIN_YANG)
    train(top / "bars", BARS)
    train(top / "seeds", changed(YIN_YANG, training={"n_seeds": 2}))
    for number, (rate, size) in enumerate([(0.001, 5), (0.1, 5), (0.01, 12)]):
        layers = [BARS["network"][0] | {"out_features": size}, BARS["network"][1]]
        raw = changed(BARS, training={"n_seeds": 2, "optimizer": {"kind": "adam", "lr": rate}}) | {"network": layers}
        train(top / "sweep" / f"{number:04d}", raw)
    return top


@pytest.fixture(scope="session")
def yin_yang_data(report_runs):
    return Run(report_runs / "yin_yang")
