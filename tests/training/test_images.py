"""Shipped configs of images, and deep networks on them."""

import csv

import pytest

from firstspike.config import load_config
from firstspike.configs import shipped_configs
from trained import start

SETTINGS = ["training.epochs=12", "training.optimizer.lr=0.004", "training.augment={}", "loss.xi=0.2"]
SETTINGS += ["data={kind: digits}", "loss.label_smoothing=0.0", "training.weight_average=null"]
FROM_FILES = ["mnist", "mnist_deep", "mnist_16x16", "fashion_mnist", "fashion_mnist_conv"]


@pytest.mark.draws
@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_FILES)
def test_shipped_configs_train(tmp_path, image_folder, name):
    """A few steps on a few images; the whole recipes take hours."""
    small = ["train=100", "validation=60", "test=40", f"folder={image_folder}"]
    config = load_config(name, [*(f"data.{x}" for x in small), "training.epochs=1", "training.batch_size=50"])
    results = start(tmp_path / "run", config, progress_bar=False)
    assert results["test"]["samples"] == 40
    assert (tmp_path / "run" / "figures" / "output_times.png").is_file()


def test_all_shipped_configs_say_what_they_are():
    for name, file in shipped_configs().items():
        first, second, *_ = file.read_text(encoding="utf-8").splitlines()
        assert first.startswith("# ")
        assert second == f"#   firstspike train {name}"
        load_config(name)


@pytest.mark.slow
def test_digits_are_learned(tmp_path):
    results = start(tmp_path / "run", load_config("digits"), progress_bar=False)
    assert results["best_validation_accuracy"] > 0.97
    assert results["test"]["accuracy"] > 0.96


@pytest.mark.slow
@pytest.mark.parametrize("recovery", ["bump", "silent_peak"])
def test_eight_hidden_layers_learn_and_none_falls_silent(tmp_path, recovery):
    raw = load_config("digits", SETTINGS).model_dump()
    by_bumps = recovery == "bump"
    raw["network"] = [{"kind": "lif", "out_features": 100}] * 8 + [{"kind": "lif", "out_features": 10}]
    raw["training"]["silent"]["limits"] = [0.5] * 8 + [0.1] if by_bumps else 1.0
    if not by_bumps:
        raw["loss"]["regularizers"] = [{"kind": "silent_peak", "alpha": 0.1}]
    results = start(tmp_path / "run", load_config(raw), progress_bar=False)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    silent = [float(value) for row in rows for name, value in row.items() if name.startswith("silent_")]
    assert len(silent) == 12 * 9
    assert max(silent) < 0.5
    assert max(results["test"]["silent"]) < (0.5 if by_bumps else 0.1)
    assert results["test"]["accuracy"] > 0.4
