"""Where sweeps are. Needs no Optuna."""

from pathlib import Path

RUNS = Path("runs")


def sweep_folder(name: str | Path, runs: Path = RUNS) -> Path | None:
    """The folder of a sweep, given by itself or by the sweep's name; None if there is none."""
    return next((folder for folder in (Path(name), runs / name) if (folder / "sweep.json").is_file()), None)
