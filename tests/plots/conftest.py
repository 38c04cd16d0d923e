import pytest
import torch
from matplotlib.figure import Figure

from firstspike.config import load_config
from firstspike.runs import Run
from trained import start

NETWORK = [
    {"kind": "bias", "times": [0.9]},
    {"kind": "lif", "out_features": 8, "trainable": ["threshold"]},
    {"kind": "lif", "out_features": 3},
]
YIN_YANG = {
    "data": {"kind": "yin_yang", "train": 60, "validation": 30, "test": 40},
    "network": NETWORK,
    "loss": {"kind": "cross_entropy"},
    "training": {"silent": {"limits": 0.9}, "epochs": 4, "batch_size": 30, "seed": 3, "checkpoint_every": 1},
}
BARS = {
    "data": {"kind": "bars", "train": 30, "validation": 9, "test": 9},
    "network": [
        {"kind": "delay"},
        {"kind": "lif", "out_features": 5, "delay": {"bound": "softplus"}},
        {"kind": "multiplex", "copies": 2},
        {"kind": "delay", "copies": 2, "rule": {"bound": "clip", "mean": 0.5, "jitter": 0.01}},
        {"kind": "lif", "out_features": 3, "trainable": ["tau_mem", "tau_syn"], "per_neuron": True},
        {"kind": "delay"},
    ],
    "loss": {"kind": "mse", "correct": 1.0, "wrong": 2.0},
    "training": {"silent": {"limits": 0.9}, "epochs": 2, "batch_size": 10, "seed": 3, "dtype": "float64"},
}


def make_run(path, raw):
    start(path, load_config(raw), progress_bar=False)
    return Run(path)


@pytest.fixture(scope="session")
def yin_yang_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "yin_yang", YIN_YANG)


@pytest.fixture(scope="session")
def bars_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "bars", BARS)


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


@pytest.fixture
def axes():
    return Figure(layout="constrained").subplots(1, 3)


@pytest.fixture
def source():
    return torch.Generator().manual_seed(0)
