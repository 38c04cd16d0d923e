"""Runs: the folder of a training, the callback that writes it, and what reads it."""

from firstspike.runs.checkpoint import Checkpoint
from firstspike.runs.folder import RunFolder, next_folder, run_folder
from firstspike.runs.lock import RunLockedError
from firstspike.runs.run import Run
from firstspike.runs.writer import RunWriter, output_time_rows
from firstspike.training.state import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Run",
    "RunFolder",
    "RunLockedError",
    "RunWriter",
    "next_folder",
    "output_time_rows",
    "run_folder",
]
