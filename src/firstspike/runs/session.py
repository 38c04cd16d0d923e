"""Start and resume a run: what the command calls, and a script may."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstspike.config import Config, Parts, build, build_data
from firstspike.config.builder import callbacks_of, fit_arguments
from firstspike.data import Splits
from firstspike.runs.folder import RunFolder, check_free
from firstspike.runs.loaded import stored_data
from firstspike.runs.writer import RunWriter
from firstspike.torchrun import rank
from firstspike.training import Callback
from firstspike.training.callbacks import Stop


def start(
    folder: Path | str,
    config: Config,
    *,
    progress_bar: bool = True,
    callbacks: Sequence[Callback] = (),
    stop: Stop = lambda: False,
) -> dict[str, Any]:
    """Train a config in a new folder.

    Processes that ``torchrun`` started train it together. The first one writes; all return the results.

    Args:
        folder: the run folder; it must not exist, or be empty.
        config: what to train.
        progress_bar: whether to show one.
        callbacks: what else receives the events of the training.
        stop: polled before every batch, beside the signals; return True to save and stop.

    Returns:
        The contents of ``results.json``.

    Raises:
        FileExistsError: the folder is not empty.
        RunLockedError: another process trains in the folder.
        ValueError: a config that cannot be built, a training that processes cannot share.
        SubstrateError: a substrate that cannot be reached, or does not answer: then the last whole epoch is saved.
        DivergedError: weights that are not finite any more; likewise.
        ProcessLostError: another process has ended.
        Interrupted: Ctrl-C, SIGTERM or ``stop``; the state is saved.
    """
    if not rank():
        check_free(Path(folder))
    writer = RunWriter(folder, config)
    return _train(writer, config, build_data(config), Parts(), progress_bar, callbacks, stop)


def resume(
    folder: Path | str,
    *,
    epochs: int | None = None,
    progress_bar: bool = True,
    callbacks: Sequence[Callback] = (),
    allow_other_chip: bool = False,
    from_scratch: bool = False,
    stop: Stop = lambda: False,
    data: Splits | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped.

    A damaged checkpoint is reported (logging) and the one before it is taken. The run starts over where no checkpoint
    was saved yet, but not where none of the saved ones can be read.

    Args:
        folder: the run folder.
        epochs: a new total number of epochs; by default the config's.
        progress_bar: whether to show one.
        callbacks: what else receives the events of the training.
        allow_other_chip: resume even if the run used another chip.
        from_scratch: remove all checkpoints and tables and start over.
        stop: see ``start``.
        data: the data of the run, where they were made in Python and the folder has no copy.
        parts: objects of your own that the folder's config only names: ``network``, ``loss``, ``optimizer``,
            ``schedule``, ``regularizers``, ``substrate``. An optimiser belongs to the network that is handed over.

    Returns:
        The contents of ``results.json``.

    Raises:
        FileNotFoundError: the folder does not hold a run.
        RunLockedError: another process trains the run.
        CheckpointError: no checkpoint can be read, or the newest one belongs to another config; a ``ValueError``.
        DivergedError: see ``start``.
        ValueError: fewer epochs than are done, another chip, a training that processes cannot share, a part that the
            config only names and that is missing.
        ProcessLostError: another process has ended.
        Interrupted: Ctrl-C, SIGTERM or ``stop``; the state is saved.
    """
    run = RunFolder.open(Path(folder))
    writer = RunWriter(folder, resume=True, allow_other_chip=allow_other_chip, from_scratch=from_scratch)
    try:
        writer.lock()  # nobody changes the config from here on
        writer.config = config = run.config if epochs is None else run.config.with_training(epochs=epochs)
        found = data if data is not None else stored_data(run.path, config)
        return _train(writer, config, found, Parts(**parts), progress_bar, callbacks, stop)
    finally:
        writer.close()


def _train(
    writer: RunWriter,
    config: Config,
    data: Splits,
    parts: Parts,
    progress_bar: bool,
    callbacks: Sequence[Callback],
    stop: Stop,
) -> dict[str, Any]:
    trainer = build(config, data, parts)
    trainer.fit(
        data.train,
        data.validation,
        test=data.test,
        callbacks=[*callbacks_of(config), writer, *callbacks],
        progress_bar=progress_bar,
        stop=stop,
        **fit_arguments(config),
    )
    return writer.results
