"""The command. It parses, calls and prints. Slow imports wait until they are needed."""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from firstspike._version import __version__
from firstspike.interop.commands import export, import_fastanddeep
from firstspike.reports.command import report
from firstspike.sweeps import command as sweeps
from firstspike.sweeps import sweep_folder
from firstspike.text import counted, encodable, printable
from firstspike.torchrun import check_command, only_first_reports

if TYPE_CHECKING:
    from firstspike.runs import Run

app = typer.Typer(
    help="Train spiking neural networks with exact gradients of spike times.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a config value, e.g. training.epochs=10.")
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Live = Annotated[bool, typer.Option("--live", help="Redraw figures/loss_and_error.png during the training.")]
Log = Annotated[bool, typer.Option("--tensorboard", help="Log to the run's tensorboard/. Needs the extra tensorboard.")]
Wandb = Annotated[bool, typer.Option("--wandb", help="Log to Weights & Biases. Needs the extra wandb.")]
Chosen = Annotated[
    str | None, typer.Option("--checkpoint", help="A name in checkpoints/, or best. By default the newest.")
]
On = Annotated[
    str | None, typer.Option("--substrate", help="Use this substrate (with default settings) instead of the run's.")
]


def main() -> None:
    """Entry point: errors that a user can mend are one message, without a traceback, and so are warnings."""
    try:
        try:
            with only_first_reports(), warnings.catch_warnings():
                if not os.environ.get("FIRSTSPIKE_TRACEBACK"):
                    warnings.showwarning = partial(_warn, set())
                app()
        finally:  # from here on Ctrl-C ends the process at once: Python would print a traceback while it shuts down
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except (ValueError, FileExistsError, FileNotFoundError, ImportError) as error:
        _fail(_reason(error), BAD_INPUT)
    except RecursionError:
        _fail("a path or a file is nested too deeply", BAD_INPUT)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error):  # torch has no class for it on CPUs
            raise
        _fail(f"out of memory; smaller layers or a smaller batch_size need less ({error})".replace("\n", " "), FAILED)
    except (OSError, FloatingPointError) as error:  # a training that diverged is the latter
        _fail(_reason(error), FAILED)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)


def _warn(shown: set[str], message: Warning | str, *origin: Any, **file: Any) -> None:
    """Show a warning once; Python forgets that it was shown wherever filters change."""
    if (text := printable(str(message))) not in shown:
        shown.add(text)
        typer.echo(f"warning: {text}", err=True)


def _fail(message: str, code: int) -> None:
    if os.environ.get("FIRSTSPIKE_TRACEBACK"):  # shows the origin of an error
        raise
    typer.echo(f"error: {printable(message)}", err=True)
    sys.exit(code)


def _reason(error: Exception) -> str:
    """The message of an error, for the system's own with the file first."""
    if isinstance(error, OSError) and error.strerror:
        try:
            place = error.filename
            sys.stdout.flush()
        except OSError:  # output that could not be written is still there
            place = place or "standard output"
        return f"{place}: {error.strerror}" if place else str(error)
    return str(error)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"firstspike {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    check_command(context.invoked_subcommand)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A config file, or the name of a shipped one.")],
    out: Annotated[Path | None, typer.Option(help="Run folder. By default runs/NAME, numbered.")] = None,
    settings: Setting = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... By default the config's.")] = None,
    seed: Annotated[int | None, typer.Option(help="By default the config's.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Train N networks in parallel, with consecutive seeds.")] = None,
    substrate: Annotated[
        str | None,
        typer.Option(help="Train on this kind, e.g. noisy, with default settings if the config has another."),
    ] = None,
    quiet: Quiet = False,
    live: Live = False,
    tensorboard: Log = False,
    wandb: Wandb = False,
) -> None:
    """Train a network and evaluate it."""
    from firstspike.config import load_config
    from firstspike.runs import Run
    from firstspike.runs.folder import run_folder

    named = {"device": device, "seed": seed, "n_seeds": seeds}
    overrides = [f"training.{name}={value}" for name, value in named.items() if value is not None]
    checked = load_config(config, [*(settings or ()), *overrides], substrate)
    with run_folder(out, Path(config).stem) as folder, _interruptible(folder):
        callbacks = _callbacks(folder, live, tensorboard, wandb)
        trained = Run.start(folder, checked, progress_bar=not quiet, callbacks=callbacks)
    _report(trained)


@app.command()
def resume(
    run: RunFolder,
    epochs: Annotated[int | None, typer.Option(min=1, help="A new total number of epochs.")] = None,
    allow_other_chip: Annotated[
        bool, typer.Option("--allow-other-chip", help="Resume even if the run used another chip.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Delete all checkpoints and tables, and train from the beginning.")
    ] = False,
    quiet: Quiet = False,
    live: Live = False,
    tensorboard: Log = False,
    wandb: Wandb = False,
) -> None:
    """Continue a run from its newest checkpoint, as if it had never stopped."""
    from firstspike.runs import Run

    callbacks = _callbacks(run, live, tensorboard, wandb)
    options: dict[str, Any] = {"allow_other_chip": allow_other_chip, "from_scratch": from_scratch}
    with _interruptible(run):
        opened, done = Run(run), None
        with contextlib.suppress(ValueError):  # damaged results; the training writes them again
            done = None if from_scratch else opened.results.get("epochs")
        opened = opened.resume(epochs, progress_bar=not quiet, callbacks=callbacks, **options)
    _report(opened)
    if (epochs := opened.results["epochs"]) == done:
        early = epochs < (asked := opened.config.training.epochs)
        hint = f"after {epochs} of {asked} epochs" if early else "--epochs N continues it up to N epochs"
        typer.echo(f"the training was finished already; {hint}")


@app.command()
def evaluate(
    run: RunFolder,
    checkpoint: Chosen = None,
    substrate: On = None,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Split of the run's data. By default test, otherwise validation or train."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Other data: .npz with times and labels, or .csv with the label in the last column."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the substrate, e.g. substrate.weight_bits=4."),
    ] = None,
) -> None:
    """Evaluate a trained network, or those of all seeds. Writes evaluation/NAME.json and spikes/NAME.npz into the run.

    With the networks of several seeds, mean and standard deviation come last.
    """
    if split is not None and data is not None:
        raise ValueError("--split and --data exclude each other: --data is all of a file")

    from firstspike.runs import Run
    from firstspike.runs.seeds import mean_of
    from firstspike.runs.writer import summary
    from firstspike.training.evaluation import success_text

    whole = Run(run)
    folders = [each.folder for each in whole.seeds] or [run]
    found, files = [], []
    for folder in folders:
        result = Run(folder, checkpoint, substrate, settings=settings or ()).evaluate(data or split)
        found.append(summary(result))
        try:
            files += result.save()  # first: printing the text may fail, at a closed pipe or an old code page
        finally:
            text = result.text()
            typer.echo(encodable(text if len(folders) == 1 else f"{folder.name}: {text.splitlines()[0]}"))
    if len(folders) > 1:
        typer.echo(f"mean of {len(folders)} seeds: {success_text(mean_of(found))}")
    if published := whole.config.published:
        typer.echo(f"published: {published}")
    typer.echo("\n" + "\n".join(map(str, files)))


@app.command()
def predict(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="Inputs without labels: .npy, .npz or .csv, a row per sample.")],
    out: Annotated[Path | None, typer.Option(help="A CSV file. By default the terminal.")] = None,
    checkpoint: Chosen = None,
    substrate: On = None,
) -> None:
    """Classify samples. Prints classes and output spike times.

    Inputs are spike times in units of tau_syn (inf or an empty cell means no spike). A run whose config encodes values
    takes values instead.
    """
    if out is None and sys.stdout is None:
        raise ValueError("standard output is closed; choose a file with --out")
    from firstspike.runs import Run
    from firstspike.runs.evaluate import prediction_table
    from firstspike.runs.files import write_whole

    text = prediction_table(Run(run, checkpoint, substrate), file)
    if out is None:
        typer.echo(printable(text) if sys.stdout.isatty() else text, nl=False)
    else:
        write_whole(out, text, file)


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="A run folder, or a sweep, by its folder or name.")],
    names: Annotated[list[str] | None, typer.Argument(help="Figures. By default all that apply.")] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="png, pdf or svg. May be repeated.")] = None,
    sample: Annotated[int | None, typer.Option(help="Only figures of one sample, of the one with this number.")] = None,
    checkpoint: Chosen = None,
    substrate: On = None,
) -> None:
    """Draw figures of a run, or of a sweep, into its folder figures/."""
    if sweep_folder(run):
        typer.echo("\n".join(map(str, sweeps.plot_sweep(run, names, formats))))
        return
    from firstspike.runs import Run

    files = Run(run, checkpoint, substrate).plot(names or None, formats or ("png",), sample)
    typer.echo("\n".join(map(str, files)))


app.command()(report)
app.command()(sweeps.sweep)
app.command()(sweeps.sweep_table)
app.command()(export)
app.command("import-fastanddeep")(import_fastanddeep)


@app.command()
def configs(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """List the shipped configs, or print one."""
    from firstspike.configs import shipped_configs

    shipped = shipped_configs()
    if name is None:
        for key in sorted(shipped):
            first = shipped[key].read_text(encoding="utf-8").splitlines()[0]
            typer.echo(f"{key:24} {first.removeprefix('# ')}")
    elif name in shipped:
        typer.echo(shipped[name].read_text(encoding="utf-8"), nl=False)
    else:
        raise ValueError(f"{name}: no such config; shipped: {', '.join(sorted(shipped))}")


@contextlib.contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    from firstspike.training import Interrupted

    try:
        yield
    except Interrupted:
        typer.echo(f"interrupted; saved in {folder}. Continue with: firstspike resume {folder}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.errno is None or not (folder / "config.yaml").is_file():
            raise
        again = "Everything saved so far is kept. Once there is room and permission:"
        raise OSError(f"{_reason(error)}. {again} firstspike resume {folder}") from error


def _callbacks(folder: Path, live: bool, tensorboard: bool, wandb: bool) -> list[Any]:
    chosen = {"live": live, "tensorboard": tensorboard, "wandb": wandb}
    if not any(chosen.values()):
        return []
    from firstspike.plots.callbacks import CALLBACKS

    return [CALLBACKS[name](folder) for name, wanted in chosen.items() if wanted]


def _report(run: "Run") -> None:
    from firstspike.training.evaluation import success_text

    def accuracies(found: dict[str, Any]) -> str:
        parts = [f"{name} {success_text(found[name])}" for name in ("validation", "test") if found[name]]
        return ", ".join(parts) or "no validation or test data"

    results, seeds = run.results, run.results.get("seeds", {})
    for seed, found in seeds.items():
        typer.echo(f"seed {seed}: {accuracies(found)}")
    mean = f"mean of {len(seeds)} seeds: " if seeds else ""
    typer.echo(f"{mean}{accuracies(results)}, {counted(results['epochs'], 'epoch')} in {results['seconds']:.1f} s")
    if run.config.published:
        typer.echo(f"published: {run.config.published}")
    if drawn := sorted((run.folder / "figures").glob("*.png")):
        typer.echo(f"figures: {drawn[0].parent} ({', '.join(file.stem for file in drawn)})")
    typer.echo(f"run folder: {run.folder}")
