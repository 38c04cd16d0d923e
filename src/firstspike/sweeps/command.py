"""The commands of sweeps. What takes time to import waits until it is needed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from firstspike.sweeps.folder import RUNS

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="FILE.db (SQLite), FILE.journal (for a shared file system), postgresql://... or mysql://...; by default "
        "runs/NAME/study.db.",
    ),
]


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="A base config and axes over its keys.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    storage: Storage = None,
    name: Annotated[str | None, typer.Option(help="Of the study; by default the file's.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up failed points once more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train all points of a sweep; the same command elsewhere joins in, and later goes on."""
    _needs_optuna()
    from firstspike.sweeps.plan import load_plan

    plan = load_plan(file, name)
    folder = RUNS / plan.name

    from firstspike.sweeps.launch import Incomplete, launch
    from firstspike.sweeps.table import failures, table_of

    try:
        points, study = launch(plan, folder, workers, storage, retry_failed, not quiet)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; all points are kept in {folder}. The same command goes on.", err=True)
        raise typer.Exit(130) from None
    except Incomplete as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    table = table_of(study)
    typer.echo(f"{table.text()}\n\n{table.write(folder)}")
    if failures(points):
        raise typer.Exit(1)


def sweep_table(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A sweep, by its name or its folder.")],
    storage: Storage = None,
) -> None:
    """Print a sweep's points with their accuracies, and write them to table.csv in its folder."""
    _needs_optuna()
    from firstspike.sweeps.table import read_study, table_of

    study, folder = read_study(name, storage)
    table = table_of(study)
    typer.echo(f"{table.text()}\n\n{table.write(folder)}")


def plot_sweep(name: Path, figures: list[str] | None, formats: list[str] | None) -> list[Path]:
    """Draw figures of a sweep into its folder figures/."""
    _needs_optuna()
    from firstspike.sweeps.figures import save_sweep_figures

    return save_sweep_figures(str(name), figures, formats or ("png",))


def _needs_optuna() -> None:
    if find_spec("optuna") is None:
        raise ImportError('Optuna is missing. Install it: pip install "firstspike[sweep]"')
