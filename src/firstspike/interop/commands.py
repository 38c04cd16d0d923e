"""The commands ``firstspike import-fastanddeep`` and ``firstspike export``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def import_fastanddeep(
    source: Annotated[
        Path,
        typer.Argument(metavar="DIR|FILE", help="A result folder of fastAndDeep, or a YAML file: config or sweep."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="By default runs/NAME for a folder, sweeps/NAME.yaml for a sweep, stdout for a config."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The config that a sweep file varies.")] = None,
) -> None:
    """Import an experiment of the original code of Göltz et al.: config, network and saved spike times, or a sweep."""
    from firstspike.interop.fast_and_deep.sweep import import_sweep, is_sweep
    from firstspike.interop.fast_and_deep.translate import import_config, read_yaml
    from firstspike.runs.files import write_whole

    name, sweep = source.resolve().stem, source
    if (source / "sweep_config.yaml").is_file():  # the result folder of a sweep
        name, sweep, config = source.resolve().name, source / "sweep_config.yaml", source / "initial_config.yaml"
    if sweep.is_file() and is_sweep(read_yaml(sweep)):
        if config is None:
            raise ValueError(f"{source} is a sweep; name the config that it varies: --config FILE")
        out = out or Path("sweeps", f"{name}.yaml")
        files, no_counterpart = import_sweep(sweep, config, out.stem)
        paths = [out.parent / file for file in files]
        if existing := [path for path in paths if path.exists()]:
            raise FileExistsError(f"{existing[0]} exists; choose another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, files.values(), strict=True):
            write_whole(path, text)
        _echo_no_counterpart(no_counterpart)
        typer.echo(f"sweep: {paths[0]}, {len(files) - 1} config(s)")
    elif config is not None:
        raise ValueError(f"{source} is not a sweep file, and --config is for these only")
    elif source.is_file():
        translated, translation = import_config(source)
        if out is None:
            typer.echo(translated.to_yaml(), nl=False)
        else:
            write_whole(out, translated.to_yaml())
            typer.echo(f"config: {out}")
        _echo_no_counterpart(translation.no_counterpart, err=True)
    else:
        from firstspike.interop.fast_and_deep.run_folder import import_folder
        from firstspike.runs import run_folder

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
    file: Annotated[Path, typer.Argument(help="File to write, e.g. model.nir.")],
    target: Annotated[str, typer.Option(help="Reader: nir (also jaxsnn and hxtorch), norse or snntorch.")] = "nir",
    time_unit: Annotated[float, typer.Option(help="Length of the network's unit of time in the file's.")] = 1.0,
    dt: Annotated[float | None, typer.Option(help="Time step of the reader; Norse needs it.")] = None,
    keep_refractory: Annotated[
        bool, typer.Option("--keep-refractory", help="Put refractory times, which NIR lacks, into the metadata.")
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Its name in checkpoints/, or best; by default the newest.")
    ] = None,
) -> None:
    """Export a trained network as a NIR graph, for other simulators and chips; needs the extra nir."""
    from firstspike.interop.nir import to_nir
    from firstspike.runs import Run
    from firstspike.runs.files import whole_file

    loaded = Run(run, checkpoint)
    graph = to_nir(loaded.network, target=target, time_unit=time_unit, dt=dt, keep_refractory=keep_refractory)
    with whole_file(file) as temporary:
        import nir

        nir.write(temporary, graph)
    typer.echo(f"{file}: {len(graph.nodes)} nodes of {loaded.checkpoint.name}")
    if bias := [f"{time:g}" for time in graph.metadata.get("bias_times", ())]:
        typer.echo(f"the last {len(bias)} inputs are bias spikes, at {', '.join(bias)}")
