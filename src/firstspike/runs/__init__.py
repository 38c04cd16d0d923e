"""Runs: the folder of a training, the callback that writes it, and functions that read it."""

from firstspike.runs.lock import RunLockedError
from firstspike.runs.run import Run
from firstspike.training.state import CheckpointError

__all__ = ["CheckpointError", "Run", "RunLockedError"]
