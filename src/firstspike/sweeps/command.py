"""The commands of sweeps. Slow imports wait until they are needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.sweeps import RUNS, sweep_folder
from firstspike.text import needed

if TYPE_CHECKING:
    from firstspike.sweeps.table import SweepTable

_URLS = "sqlite:///FILE, postgresql://... or mysql+pymysql://... By default runs/NAME/study.db."
Storage = Annotated[str | None, typer.Option(metavar="URL", help=_URLS)]


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="A base config and axes over its keys.")],
    workers: Annotated[int, typer.Option(min=1, help="Number of processes on this machine.")] = 1,
    storage: Storage = None,
    name: Annotated[str | None, typer.Option(help="Name of the study. By default the file's.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train failed trials once more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train all trials of a sweep. Run the same command elsewhere to join, and again to resume."""
    _check_optuna()
    from firstspike.sweeps.plan import load_plan
    from firstspike.sweeps.study import table_of
    from firstspike.sweeps.worker import launch

    plan = load_plan(file, name)
    folder = RUNS / plan.name
    try:
        table = table_of(launch(plan, folder, workers, storage, retry_failed, not quiet), folder)
    except KeyboardInterrupt:
        kept = f"all trials are kept in {folder}. Run the same command again to resume."
        if sweep_folder(folder) is None:
            kept = "no trial had begun. Run the same command again to start."
        typer.echo(f"interrupted; {kept}", err=True)
        raise typer.Exit(130) from None
    _show(table, folder)
    if any(row["state"] == "failed" for row in table.rows):
        raise typer.Exit(1)


def sweep_table(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A sweep, by its name or its folder.")],
    storage: Storage = None,
) -> None:
    """Print the trials of a sweep with their accuracies, and write them to table.csv in its folder."""
    _check_optuna()
    from firstspike.sweeps.study import read_study, table_of

    study, folder = read_study(name, storage)
    _show(table_of(study, folder), folder)


def _show(table: "SweepTable", folder: Path) -> None:
    typer.echo(f"{table.text()}\n\n{table.write(folder)}")


def plot_sweep(name: Path, figures: list[str] | None, formats: list[str] | None) -> list[Path]:
    """Draw figures of a sweep into its folder figures/."""
    _check_optuna()
    from firstspike.plots.save import save_all
    from firstspike.sweeps.figures import SWEEP_PLOTS
    from firstspike.sweeps.study import read_study

    study, folder = read_study(str(name))
    return save_all(SWEEP_PLOTS, study, folder / "figures", figures or list(SWEEP_PLOTS), formats or ("png",))


def _check_optuna() -> None:
    optuna = needed("optuna", "sweep", "Optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
