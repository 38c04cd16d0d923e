"""Runs: the folder of a training, the callback that writes it, and functions that read it."""

from firstspike.runs.run import Run

__all__ = ["Run"]
