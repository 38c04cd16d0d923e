"""Start, continue and evaluate a run: what the command calls, and a script may."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from firstspike.substrates import SubstrateError
from firstspike.training.build import Experiment, build
from firstspike.training.checkpoint import CheckpointError, checkpoints, newest_first, remove_checkpoint
from firstspike.training.config import Config
from firstspike.training.divergence import DivergedError, signs_of_failure
from firstspike.training.evaluation import Evaluation
from firstspike.training.lock import locked
from firstspike.training.loop import train
from firstspike.training.parallel import Ranks, joined
from firstspike.training.progress import Progress
from firstspike.training.run import Run, check_free
from firstspike.training.saving import State, restore
from firstspike.training.seeds import (
    MeanTable,
    create_members,
    joint_results,
    member_configs,
    newest_of_all,
    open_members,
    write_table,
)
from firstspike.training.signals import stop_on_signals
from firstspike.training.split import OverRanks
from firstspike.training.threads import threads_worth_starting
from firstspike.training.torchrun import rank
from firstspike.training.trainers import trainer_for
from firstspike.training.watchers import Watcher, Watchers

logger = logging.getLogger(__name__)


def start(
    folder: Path,
    config: Config,
    *,
    show: bool = True,
    watch: Sequence[str] = (),
    watchers: Sequence[Watcher] = (),
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a config in a new folder.

    Processes that ``torchrun`` started train it together. The first one writes; all return the results.

    Args:
        folder: where the run lives; it must not exist, or be empty.
        config: what to train.
        show: whether to draw a progress bar.
        watch: keys of ``firstspike.plots.watchers.WATCHERS``: what else looks on.
        watchers: others who look on.
        stop: asked before every batch, as well as the signals; when it says so, the training saves and stops.

    Returns:
        What ``results.json`` says.

    Raises:
        FileExistsError: the folder is not empty.
        RunLockedError: another process trains in the folder.
        ImportError: a watcher whose extra is not installed.
        ValueError: a training that processes cannot share.
        SubstrateError: a substrate that cannot be reached, or does not answer: then the state after the last whole
            epoch is saved.
        DivergedError: weights that are not finite any more; likewise.
        ProcessLostError: another process has ended.
        Interrupted: Ctrl-C, SIGTERM or ``stop``; the state is saved.
    """
    _check(watch)
    if not rank():
        check_free(folder)
    with _lock(folder), joined(config) as ranks:
        members = _build(config)
        with _open_substrates(members), ExitStack() as locks:  # what cannot be built or opened leaves no folder behind
            identity = members[0].substrate.identity()
            top = Run.create(folder, config, identity) if ranks.first else Run(folder)
            runs = create_members(top, members)
            _lock_members(locks, top, runs)
            states = [State() for _ in members]
            return _train(members, top, runs, states, show, watch, watchers, stop, ranks)


def resume(
    folder: Path,
    *,
    epochs: int | None = None,
    show: bool = True,
    watch: Sequence[str] = (),
    allow_other_chip: bool = False,
    from_scratch: bool = False,
    watchers: Sequence[Watcher] = (),
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped.

    A damaged checkpoint is reported (logging) and the one before it taken. The run starts over where no checkpoint was
    saved yet, not where there are some and none of them can be read.

    Args:
        folder: the run.
        epochs: a new number of epochs in all; by default the config's.
        show: whether to draw a progress bar.
        watch: see ``start``.
        allow_other_chip: go on where the run was trained on another chip than the one that is there now.
        from_scratch: remove all checkpoints and start over.
        watchers: see ``start``.
        stop: see ``start``.

    Returns:
        What ``results.json`` says.

    Raises:
        FileNotFoundError: no run lives in the folder.
        RunLockedError: another process trains the run.
        CheckpointError: no checkpoint can be read, or the newest one belongs to another config; a ``ValueError``.
        DivergedError: see ``start``.
        ValueError: fewer epochs than are done, another chip, a training that processes cannot share.
        ProcessLostError: another process has ended.
        Interrupted: Ctrl-C, SIGTERM or ``stop``; the state is saved.
    """
    _check(watch)
    run = Run.open(folder)
    with _lock(folder), ExitStack() as stack:
        config = run.config
        if epochs is not None:
            training = config.training.model_copy(update={"epochs": epochs})
            config = config.model_copy(update={"training": training})
        ranks = stack.enter_context(joined(config))
        members = _build(config)
        with _open_substrates(members):
            runs = open_members(run, members)
            _lock_members(stack, run, runs)
            states = [State() for _ in members]
            if not from_scratch:
                try:
                    newest = newest_of_all(runs)
                except CheckpointError as error:
                    raise CheckpointError(
                        f"{error}. Nothing was changed. To drop all checkpoints and train anew: firstspike resume "
                        f"{folder} --from-scratch"
                    ) from None
                if newest is not None:
                    states = [restore(x, found, allow_other_chip) for x, found in zip(members, newest, strict=True)]
            if states[0].epoch > config.training.epochs:
                raise ValueError(f"{folder} has {states[0].epoch} epochs already; give a larger --epochs than that")
            if ranks.first:
                done = None if from_scratch else states[0].epoch
                _go_on(run, config, members, runs, done, epochs is not None)
            return _train(members, run, runs, states, show, watch, watchers, stop, ranks)


def _lock(folder: Path) -> AbstractContextManager[None]:
    """The lock of a run; of processes that train together the first one has it."""
    return nullcontext() if rank() else locked(folder)


def _lock_members(stack: ExitStack, top: Run, runs: list[Run]) -> None:
    """Lock the run of each seed as well: it can be resumed by itself."""
    for run in runs:
        if run.path != top.path:
            stack.enter_context(_lock(run.path))


def _go_on(
    run: Run, config: Config, members: list[Experiment], runs: list[Run], epoch: int | None, longer: bool
) -> None:
    """The folder of a training that goes on after that epoch, or from scratch if it is None."""
    for each, member in zip([run, *runs], [members[0], *members], strict=True):
        each.note_substrate(member.substrate.identity())
    for each in {run.path: run, **{x.path: x for x in runs}}.values():
        if epoch is None:
            for checkpoint in newest_first(each.checkpoints):
                remove_checkpoint(checkpoint)
            each.remove_tables()
        else:
            each.forget_after(epoch)
    if longer:
        for each, member in zip(runs, members, strict=True):
            each.write_config(member.config)
        run.write_config(config)


def _build(config: Config) -> list[Experiment]:
    """An experiment for each seed, on the same data."""
    first, *others = member_configs(config)
    experiment = build(first)
    shared = experiment.substrate if experiment.substrate.exclusive else None
    return [experiment, *(build(other, experiment.data, shared) for other in others)]


@contextmanager
def _open_substrates(members: list[Experiment]) -> Iterator[None]:
    """All substrates open, for a while."""
    with ExitStack() as stack:
        for member in {id(member.substrate): member for member in members}.values():
            stack.enter_context(member.substrate.open(member.network))
        yield


def _check(watch: Sequence[str]) -> None:
    """Before anything is done, that all watchers can be had."""
    if watch:
        from firstspike.plots.watchers import check_watchers

        check_watchers(watch)


def _watchers(
    watch: Sequence[str], others: Sequence[Watcher], top: Run, several: bool, state: State, progress: Progress
) -> Watchers:
    watchers = Watchers([progress, *([MeanTable(top)] if several else []), *others])
    if watch:
        from firstspike.plots.watchers import WATCHERS

        for name in watch:
            watchers.add(partial(WATCHERS[name], top, state.epoch))
    return watchers


def _train(
    members: list[Experiment],
    top: Run,
    runs: list[Run],
    states: list[State],
    show: bool,
    watch: Sequence[str],
    others: Sequence[Watcher],
    stop: Callable[[], bool],
    ranks: Ranks,
) -> dict[str, Any]:
    config, state = members[0].config.training, states[0]
    batches = math.ceil(len(members[0].data.train) / config.batch_size)
    progress = Progress(config.epochs, batches, state.epoch * batches + state.batch, show and ranks.first)
    if not ranks.first:
        watch, others = (), ()
    with (
        _watchers(watch, others, top, len(members) > 1, state, progress) as watchers,
        stop_on_signals() as signalled,
        threads_worth_starting(members[0].network, math.ceil(config.batch_size * len(members) / ranks.size)),
    ):
        trainer, asked = trainer_for(members), _either(signalled, stop)
        if ranks.size > 1:
            ranks.check_same([state.epoch, state.batch, batches], members[0].device)
            trainer = split = OverRanks(members[0], ranks, asked)
            asked = split.stop
        try:
            tests = train(trainer, runs, states, watchers, asked, ranks.first)
            validations = trainer.evaluate(members[0].data.validation)
        except SubstrateError as error:
            saved = checkpoints(runs[0].checkpoints)[-1].name
            raise SubstrateError(f"{error}. {saved} is saved; go on with: firstspike resume {top.path}") from error
        except DivergedError as error:
            saved = " ".join(path.name for path in checkpoints(runs[0].checkpoints)[-1:])
            raise DivergedError(f"{error}. The state before that is saved in {top.path}, as {saved}") from error
    results = [
        {
            "epochs": state.epoch,
            "parameters": sum(p.numel() for p in member.network.parameters() if p.requires_grad),
            "seconds": round(state.seconds, 2),
            "best_validation_accuracy": state.best,
            "validation": summary(validation),
            "test": summary(test),
        }
        for member, state, validation, test in zip(members, states, validations, tests, strict=True)
    ]
    together = results[0]
    if not ranks.first:
        return together
    for member, validation in zip(members, validations, strict=True):
        for sign in signs_of_failure(member.network, validation):
            seed = f" (seed {member.config.training.seed})" if len(members) > 1 else ""
            logger.warning("%s%s: %s", top.path, seed, sign)
    for run, found in zip(runs, results, strict=True):
        run.write_results(found)
    if len(members) > 1:
        together = joint_results([member.config for member in members], results)
        top.write_results(together)
        write_table(top, together)
    _draw(top, len(members) > 1)
    return together


def _either(one: Callable[[], bool], other: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: one() or other()


def _draw(run: Run, several: bool) -> None:
    """The figures that need the tables alone. A training is not lost to a figure that cannot be drawn."""
    from firstspike.plots import AFTER_TRAINING, AFTER_TRAINING_OF_SEVERAL, save_figures

    try:
        save_figures(run.path, AFTER_TRAINING_OF_SEVERAL if several else AFTER_TRAINING)
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
