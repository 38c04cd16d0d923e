"""A trained network as CSV files, evaluations with other settings of the substrate, of all seeds, at a checkpoint."""

import numpy as np
import pytest
import torch

import firstspike as fs
from trained import start

SHORT = ["data.train=60", "data.validation=30", "data.test=30", "training.epochs=2"]


@pytest.mark.slow
def test_export_and_evaluate_by_command(tmp_path, command_here):
    config = fs.config.load_config("yin_yang_synaptic_h5", [*SHORT, "substrate.weight_bits=3"])  # of the kind exact
    start(tmp_path / "run", config, progress_bar=False)
    shown = command_here("export", tmp_path / "run", tmp_path / "tables", "--csv")
    assert shown.returncode == 0, shown.stderr
    run = fs.Run(tmp_path / "run")
    tables = list((tmp_path / "tables").iterdir())
    written = {path.name: np.loadtxt(path, delimiter=",", ndmin=2) for path in tables}
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder in (tmp_path, tmp_path / "run", tmp_path / "tables"):
        assert command_here("export", tmp_path / "run", folder, "--csv").returncode == 0
        assert {path.name for path in folder.iterdir()} >= {path.name for path in tables}
    assert all(path.read_bytes() == content for path, content in before.items())
    layer = next(name for name, x in run.network.named_modules() if isinstance(x, fs.LIFLinear))
    stored = run.stored_network.get_submodule(layer)
    np.testing.assert_allclose(written[f"{layer}_weight.csv"], stored.weight, rtol=1e-6)
    np.testing.assert_allclose(written[f"{layer}_delay.csv"], stored.delay, rtol=1e-6)
    steps = stored.weight / (stored.weight.abs().max() / 3)
    torch.testing.assert_close(steps, steps.round())
    assert written["spikes_inputs.csv"].shape == (30, 4)
    np.testing.assert_allclose(written["spikes_output.csv"], run.evaluate("test").times, rtol=1e-6)

    shown = command_here("evaluate", tmp_path / "run", "--set", "substrate.weight_bits=8")
    assert (tmp_path / "run" / "evaluation" / "test_on_exact_weight_bits=8.json").is_file(), shown.stderr
    assert fs.Run(tmp_path / "run", settings=["substrate.weight_bits=8"]).evaluate().loss != run.evaluate().loss
    shown = command_here("evaluate", tmp_path / "run", "--set", "training.epochs=8")
    assert "--set: 1 error\n  training.epochs=8: expected a key of the substrate" in shown.stderr
    assert command_here("plot", tmp_path / "run", "weight_matrices", "--checkpoint", "epoch_0001").returncode == 0


def test_evaluation_of_all_seeds(tmp_path, command_here):
    start(tmp_path / "run", fs.config.load_config("yin_yang", [*SHORT, "training.n_seeds=2"]), progress_bar=False)
    lines = command_here("evaluate", tmp_path / "run").stdout.splitlines()
    runs = fs.Run(tmp_path / "run").seeds
    first, second = (run.results["test"]["accuracy"] for run in runs)
    assert lines[0].startswith(f"{runs[0].folder.name}: test accuracy {100 * first:.2f} % (")
    assert f"mean of 2 seeds: accuracy {100 * (first + second) / 2:.2f} ± " in lines[2]
    assert lines[-1].endswith("spikes/test.npz")
