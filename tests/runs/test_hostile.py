"""Checkpoints whose reading would never end, with the right checksums."""

import copy
import os
import sys

import pytest
import torch

from damage import write_state
from firstspike.interop.torch_file import read_torch_file
from firstspike.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from firstspike.training.state import CheckpointError


@pytest.fixture
def checkpoint(tmp_path):
    place = tmp_path / "epoch_0001"
    save_checkpoint(place, Checkpoint(1, 0, {"weight": torch.ones(2)}, {"progress": {"epoch": 1}}))
    return place


def test_what_trainings_save_is_read(checkpoint):
    shared = (1.5, 2)
    state = {"a": [shared] * 100, "b": {k: {"x": [], "betas": shared} for k in range(100)}, "t": torch.ones(3)}
    write_state(checkpoint, state)
    found = load_checkpoint(checkpoint).state
    assert torch.equal(found.pop("t"), state.pop("t"))
    assert found == copy.deepcopy(state)


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes in folders")
def test_pipes_are_not_waited_for(checkpoint, tmp_path):
    for name in ("state.pt", "weights.safetensors", "manifest.json"):
        (checkpoint / name).unlink()
        os.mkfifo(checkpoint / name)
        with pytest.raises(CheckpointError, match=f"cannot be read: .*expected a regular file.*{name}"):
            load_checkpoint(checkpoint)
    with pytest.raises(OSError, match="expected a regular file"):
        read_torch_file(checkpoint / "state.pt")
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "none.pt")
