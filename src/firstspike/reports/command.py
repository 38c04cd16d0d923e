"""The command ``firstspike report``."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|SWEEP", help="A run folder, a sweep (its folder or name), or a folder of runs."),
    ],
    out: Annotated[Path | None, typer.Option(help="The file. By default report.html in the folder.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="For a run: a name in checkpoints/, or best. By default the newest."),
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Of a sweep: first write the report of each run.")] = False,
) -> None:
    """Write an interactive page, one self-contained HTML file. Needs the extra report."""
    from firstspike.reports.write import write_report
    from firstspike.sweeps import sweep_folder

    place = source if source.exists() else sweep_folder(source) or source
    typer.echo(write_report(place, out, checkpoint, runs))
