"""The command ``firstspike import-fastanddeep``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def import_fastanddeep(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder of fastAndDeep, or one YAML config.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder, by default runs/NAME; for a YAML config a file, by default stdout.")
    ] = None,
) -> None:
    """Take over an experiment of the original code of Göltz et al.: config, network, saved spike times."""
    if source.is_file():
        from firstspike.interop.fast_and_deep.translate import import_config

        config, translation = import_config(source)
        if out is None:
            typer.echo(config.to_yaml(), nl=False)
        else:
            from firstspike.training.files import write_whole

            write_whole(out, config.to_yaml())
            typer.echo(f"config: {out}")
        _no_counterpart(translation.remarks.lacking, err=True)
        return

    from firstspike.interop.fast_and_deep.run_folder import import_folder
    from firstspike.training.run import run_folder

    with run_folder(out, source.resolve().name) as run:
        imported = import_folder(source, run)
    where = (
        "no network found" if imported.network is None else f"{imported.parameters} parameters of {imported.network}"
    )
    typer.echo(f"network: {where}, {imported.epoch} epochs")
    typer.echo(f"check: {imported.verdict}")
    _no_counterpart(imported.lacking)
    typer.echo(f"run folder: {run}")


def _no_counterpart(lines: Sequence[str], err: bool = False) -> None:
    if lines:
        typer.echo("\n  ".join(["no counterpart here:", *lines]), err=err)
