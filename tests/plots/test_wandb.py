"""The log for Weights & Biases, offline."""

import os
import subprocess
import sys

import pytest


@pytest.mark.wandb
def test_a_resumed_training_continues_the_same_log(tmp_path):
    run, environment = tmp_path / "run", os.environ | {"WANDB_MODE": "offline"}
    found = []
    for arguments in (["train", "bars", "--set", "training.epochs=3", "--out", run], ["resume", run, "--epochs", "5"]):
        command = [sys.executable, "-m", "firstspike", *map(str, arguments), "-q", "--wandb"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stderr
        found.append((run / "wandb.txt").read_text())
    assert found[0] == found[1]
    logs = list((run / "wandb").glob(f"offline-run-*-{found[0].strip()}"))
    assert len(logs) == 2
