"""The command ``firstspike export``."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    file: Annotated[Path, typer.Argument(help="Where to, e.g. model.nir.")],
    target: Annotated[str, typer.Option(help="Reader: nir (also jaxsnn and hxtorch), norse or snntorch.")] = "nir",
    time_unit: Annotated[float, typer.Option(help="Length of the network's unit of time in the file's.")] = 1.0,
    dt: Annotated[float | None, typer.Option(help="The reader's step of time; Norse needs it.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Its name in checkpoints/, or best; by default the newest.")
    ] = None,
) -> None:
    """Write a trained network as a graph of NIR, for other simulators and chips; needs the extra nir."""
    from firstspike.interop.nir import export_run

    for line in export_run(run, file, checkpoint, target=target, time_unit=time_unit, dt=dt):
        typer.echo(line)
