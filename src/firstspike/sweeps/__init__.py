"""Sweeps: many trainings of one study, on one machine or on many, with Optuna."""

from pathlib import Path

RUNS = Path("runs")


def sweep_folder(name: str | Path) -> Path | None:
    """The folder of a sweep, given its path or its name; None if there is none. Needs no Optuna."""
    return next((folder for folder in (Path(name), RUNS / name) if (folder / "sweep.json").is_file()), None)
