import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import firstspike as fs


def test_a_run_in_python(bars_folder):
    run = fs.Run(str(bars_folder))
    assert run.folder == bars_folder
    assert run.config.training.epochs == 12
    assert run.metrics["epoch"].tolist() == list(range(1, 13))
    assert all(isinstance(column, np.ndarray) and column.shape == (12,) for column in run.metrics.values())
    assert run.results["epochs"] == 12
    assert run.class_names == ("horizontal", "vertical", "diagonal")
    assert len(run.data.test) == run.results["test"]["samples"] == 90
    decisions = run.loss.predict(run.network(run.data.test.times))
    assert (decisions == run.data.test.labels).double().mean().item() == run.results["test"]["accuracy"]
    assert run.evaluation.accuracy == run.results["test"]["accuracy"]
    assert run.evaluation.loss == pytest.approx(run.results["test"]["loss"])
    assert list(run.evaluation.silent) == pytest.approx(run.results["test"]["silent"])


def test_the_network_only_answers(bars_folder):
    network = fs.Run(bars_folder).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_any_checkpoint_by_its_name(bars_folder):
    run = fs.Run(bars_folder)
    assert [name for name in run.checkpoints if name.startswith("epoch")] == ["epoch_0004", "epoch_0008", "epoch_0012"]
    for name in run.checkpoints:
        loaded = fs.Run(bars_folder, name)
        saved = load_file(bars_folder / "checkpoints" / name / "weights.safetensors")
        assert loaded.checkpoint.name == name
        torch.testing.assert_close(loaded.network[0].weight, saved["0.weight"], rtol=0, atol=0)
    best = fs.Run(bars_folder, "best").checkpoint
    assert best.name.startswith("best_")
    assert run.metrics["validation_accuracy"][best.epoch - 1] == run.metrics["validation_accuracy"].max()
    assert run.checkpoint.epoch == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch_08", r"has no 'epoch_08'; did you mean epoch_0008\?"),
        ("epoch_0013", r"did you mean epoch_0012"),
        ("beste", r"did you mean best"),
        ("xyz", r"it has (best_00..|epoch_0012), .*\.\.\.$"),
        ("../checkpoints/epoch_0004", "has no "),
        ("", "has no ''"),
    ],
)
def test_a_checkpoint_that_is_not_there(bars_folder, name, message):
    with pytest.raises(ValueError, match=message):
        fs.Run(bars_folder, name)


def test_a_damaged_checkpoint_that_was_asked_for_is_no_other(bars_folder, tmp_path):
    shutil.copytree(bars_folder, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "epoch_0008" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        _ = fs.Run(tmp_path / "run", "epoch_0008").network
    assert fs.Run(tmp_path / "run").checkpoint.epoch == 12


def test_a_run_before_its_first_epoch(bars_folder, tmp_path):
    shutil.copy(bars_folder / "config.yaml", tmp_path)
    run = fs.Run(tmp_path)
    assert (run.metrics, run.results, run.checkpoints) == ({}, {}, ())
    assert run.initial[0].weight.shape == (11, 9)
    with pytest.raises(ValueError, match=r"has no checkpoint that can be read"):
        _ = run.network
    with pytest.raises(ValueError, match=r"has no 'best'; it has nothing yet"):
        fs.Run(tmp_path, "best")


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: config.yaml is missing"):
        fs.Run(tmp_path)
    for name in ("second", "first"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it holds runs, .*first and so on"):
        fs.Run(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it is a sweep, whose runs are .*0000 and so on"):
        fs.Run(tmp_path)


def test_figures_of_a_loaded_run(bars_folder, tmp_path):
    shutil.copytree(bars_folder, tmp_path / "run")
    run = fs.Run(tmp_path / "run", "epoch_0004")
    (early,), (late,) = run.plot(["confusion"]), fs.Run(tmp_path / "run", "epoch_0012").plot(["confusion"])
    assert early.read_bytes() != late.read_bytes() or run.evaluation.accuracy == 1.0


def test_weights_of_another_neuron_than_the_config_says(bars_folder, tmp_path):
    folder = shutil.copytree(bars_folder, tmp_path / "run")
    config = (folder / "config.yaml").read_text()
    assert "threshold: 1.0" in config
    (folder / "config.yaml").write_text(config.replace("threshold: 1.0", "threshold: 2.6"))
    message = r"0\.weight was trained with threshold=1, but this LIFLinear has threshold=2\.6; build it with"
    with pytest.raises(ValueError, match=message):
        fs.Run(folder).network  # noqa: B018
    saved = load_file(bars_folder / "checkpoints" / "epoch_0012" / "weights.safetensors")
    assert saved["0._extra_state"].tolist() == [1.0, 1.0, 1.0]
