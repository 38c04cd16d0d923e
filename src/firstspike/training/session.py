"""Start, continue and evaluate a run: what the command calls, and a script may."""

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from firstspike.training.build import Experiment, build
from firstspike.training.checkpoint import load_newest
from firstspike.training.config import Config
from firstspike.training.evaluation import Evaluation, evaluate
from firstspike.training.loop import train
from firstspike.training.progress import Progress
from firstspike.training.run import Run
from firstspike.training.saving import State, restore
from firstspike.training.threads import threads_worth_starting
from firstspike.training.watchers import Watchers

logger = logging.getLogger(__name__)


def start(folder: Path, config: Config, *, show: bool = True, watch: Sequence[str] = ()) -> dict[str, Any]:
    """Train a config in a new folder.

    Args:
        folder: where the run lives; it must not exist, or be empty.
        config: what to train.
        show: whether to draw a progress bar.
        watch: keys of ``firstspike.plots.watchers.WATCHERS``: what else looks on.

    Returns:
        What ``results.json`` says.

    Raises:
        FileExistsError: the folder is not empty.
        ImportError: a watcher whose extra is not installed.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    _check(watch)
    experiment = build(config)  # whatever cannot be built leaves no folder behind
    return _train(experiment, Run.create(folder, config), State(), show, watch)


def resume(folder: Path, *, epochs: int | None = None, show: bool = True, watch: Sequence[str] = ()) -> dict[str, Any]:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped.

    A damaged checkpoint is reported (logging) and the one before it taken; without any, the run starts over.

    Args:
        folder: the run.
        epochs: a new number of epochs in all; by default the config's.
        show: whether to draw a progress bar.
        watch: see ``start``.

    Returns:
        What ``results.json`` says.

    Raises:
        FileNotFoundError: no run lives in the folder.
        ValueError: fewer epochs than are done.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    _check(watch)
    run = Run.open(folder)
    config = run.config
    if epochs is not None:
        training = config.training.model_copy(update={"epochs": epochs})
        config = config.model_copy(update={"training": training})
    experiment = build(config)
    checkpoint = load_newest(run.checkpoints)
    state = State() if checkpoint is None else restore(experiment, checkpoint)
    if state.epoch > config.training.epochs:
        raise ValueError(f"{folder} has {state.epoch} epochs already; give a larger --epochs than that")
    if epochs is not None:
        run.write_config(config)
    run.forget_after(state.epoch)
    return _train(experiment, run, state, show, watch)


def _check(watch: Sequence[str]) -> None:
    """Before anything is done, that all watchers can be had."""
    if watch:
        from firstspike.plots.watchers import check_watchers

        check_watchers(watch)


def _watchers(watch: Sequence[str], run: Run, state: State, progress: Progress) -> Watchers:
    watchers = Watchers([progress])
    if watch:
        from firstspike.plots.watchers import WATCHERS

        for name in watch:
            watchers.add(partial(WATCHERS[name], run, state.epoch))
    return watchers


def _train(experiment: Experiment, run: Run, state: State, show: bool, watch: Sequence[str]) -> dict[str, Any]:
    config = experiment.config.training
    batches = math.ceil(len(experiment.data.train) / config.batch_size)
    progress = Progress(config.epochs, batches, state.epoch * batches + state.batch, show)
    with (
        _watchers(watch, run, state, progress) as watchers,
        _stop_on_signals() as stop,
        threads_worth_starting(experiment.network, config.batch_size),
    ):
        test = train(experiment, run, state, watchers, stop)
    validation = evaluate(experiment.network, experiment.loss, experiment.data.validation, experiment.spiking)
    results = {
        "epochs": state.epoch,
        "parameters": sum(p.numel() for p in experiment.network.parameters() if p.requires_grad),
        "seconds": round(state.seconds, 2),
        "best_validation_accuracy": state.best,
        "validation": summary(validation),
        "test": summary(test),
    }
    run.write_results(results)
    _draw(run)
    return results


def _draw(run: Run) -> None:
    """The two figures that need the tables alone. A training is not lost to a figure that cannot be drawn."""
    from firstspike.plots import AFTER_TRAINING, save_figures

    try:
        save_figures(run.path, AFTER_TRAINING)
    except (OSError, ValueError) as error:
        logger.warning("no figures: %s", error)


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation."""
    return {
        "samples": len(evaluation.labels),
        "accuracy": evaluation.accuracy,
        "accuracy_error": evaluation.accuracy_error,
        "loss": evaluation.loss,
        "silent": list(evaluation.silent),
    }


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C or SIGTERM came; a second Ctrl-C interrupts at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
