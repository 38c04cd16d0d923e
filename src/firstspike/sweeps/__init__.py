"""Sweeps: many trainings of one study, on one machine or on many, with Optuna.

config.py     the keys of a sweep's file
plan.py       its trials and their configs, checked
study.py      the sweep as an Optuna study, and its storage
worker.py     processes that train trials, started and watched by ``launch``
table.py      results as a table
figures.py    figures of a study
command.py    ``firstspike sweep``, ``sweep-table`` and ``plot`` of a sweep
"""

from pathlib import Path

RUNS = Path("runs")


def sweep_folder(name: str | Path) -> Path | None:
    """The folder of a sweep, given its path or its name; None if there is none. Needs no Optuna."""
    return next((folder for folder in (Path(name), RUNS / name) if (folder / "sweep.json").is_file()), None)
