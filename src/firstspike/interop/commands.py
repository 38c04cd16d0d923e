"""The commands ``firstspike import-fastanddeep`` and ``firstspike export``."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated

import typer


def import_fastanddeep(
    source: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="A result folder of fastAndDeep, or a YAML file with a config.")
    ],
    out: Annotated[Path | None, typer.Option(help="By default runs/NAME for a folder, stdout for a config.")] = None,
) -> None:
    """Import an experiment of the original code of Göltz et al.: config, network and saved spike times."""
    if source.is_file():
        from firstspike.interop.fast_and_deep.translate import import_config
        from firstspike.runs.files import write_whole

        config, translation = import_config(source)
        if out is None:
            typer.echo(config.to_yaml(), nl=False)
        else:
            write_whole(out, config.to_yaml(), source)
            typer.echo(f"config: {out}")
        _echo_no_counterpart(translation.no_counterpart, err=True)
    else:
        from firstspike.interop.fast_and_deep.run_folder import import_folder
        from firstspike.runs.folder import run_folder

        with run_folder(out, source.resolve().name) as run:
            found = import_folder(source, run)
        what = f"{found.parameters} parameters of {found.network}" if found.network else "no network found"
        typer.echo(f"network: {what}, {found.epoch} epochs")
        typer.echo(f"check: {found.verdict}")
        _echo_no_counterpart(found.no_counterpart)
        typer.echo(f"run folder: {run}")


def _echo_no_counterpart(lines: Sequence[str], err: bool = False) -> None:
    if lines:
        typer.echo("\n  ".join(["no counterpart here:", *lines]), err=err)


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    file: Annotated[Path, typer.Argument(help="File to write, e.g. model.nir, or with --csv a folder.")],
    target: Annotated[str, typer.Option(help="Reader: nir (also jaxsnn and hxtorch), norse or snntorch.")] = "nir",
    time_unit: Annotated[float, typer.Option(help="Length of the network's unit of time in the file's.")] = 1.0,
    dt: Annotated[float | None, typer.Option(help="Time step of the reader. Norse needs it.")] = None,
    keep_refractory: Annotated[
        bool, typer.Option("--keep-refractory", help="Put refractory times, which NIR lacks, into the metadata.")
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="A name in checkpoints/, or best. By default the newest.")
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write a folder of .csv instead: weights, delays, spikes of held-out data.")
    ] = False,
) -> None:
    """Export a trained network as a NIR graph, which needs the extra nir, or as CSV files."""
    from firstspike.runs import Run
    from firstspike.runs.files import whole_file

    loaded = Run(run, checkpoint)
    if csv:
        from firstspike.runs.csv_files import write_csv_files

        typer.echo("\n".join(map(str, write_csv_files(loaded, file))))
        return
    from firstspike.interop.nir import to_nir

    graph = to_nir(loaded.stored_network, target=target, time_unit=time_unit, dt=dt, keep_refractory=keep_refractory)
    import nir

    written = BytesIO()  # HDF5 does not say in a line that a disk is full
    nir.write(written, graph)
    with whole_file(file) as temporary:
        temporary.write_bytes(written.getbuffer())
    typer.echo(f"{file}: {len(graph.nodes)} nodes of {loaded.checkpoint.name}")
    reasons = graph.metadata.get("approximate")
    typer.echo(f"approximate: {reasons}" if reasons else "faithful: readers that follow NIR find the same spikes")
    if bias := [f"{time:g}" for time in graph.metadata.get("bias_times", ())]:
        typer.echo(f"the last {len(bias)} inputs are bias spikes, at {', '.join(bias)}")
