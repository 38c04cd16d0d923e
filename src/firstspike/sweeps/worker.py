"""A worker: takes points off a study's queue, trains them, and says how it went, until none is left."""

import logging
import math
import os
import shutil
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from tqdm import tqdm

from firstspike.sweeps import study as names
from firstspike.sweeps.plan import Plan, Point
from firstspike.sweeps.storage import answering, open_storage
from firstspike.sweeps.study import enqueue_open, give_back_stale, open_study, owns, suggest, survey
from firstspike.training.checkpoint import CheckpointError
from firstspike.training.files import write_whole
from firstspike.training.loop import Interrupted
from firstspike.training.run import Row, Run
from firstspike.training.session import resume, start
from firstspike.training.watchers import Watcher

logger = logging.getLogger(__name__)

_POLL = 2.0  # seconds between looks at the points that others train
_LONGEST = 2000  # characters of a reason
_PATIENCE = 10  # times in a row that the storage may fail


class Surplus(Exception):  # noqa: N818  (no error: the point is another trial's)
    """The trial has no point of its own."""


class Failed(Exception):  # noqa: N818  (the point's, not the worker's)
    """The point cannot be trained; the reason is recorded."""


class Stopped(Exception):  # noqa: N818  (a request)
    """The worker was asked to stop; its point is saved and open."""


class Lost(Exception):  # noqa: N818  (no error: another one has the point)
    """The worker gave no sign of life for too long, and its point was given to another."""


class Worker:
    """Trains points of a sweep.

    Args:
        plan: the sweep.
        storage: where its study lives.
        folder: of the run folders.
        stopped: asked often; when it says so, the worker saves and stops.
    """

    def __init__(
        self, plan: Plan, storage: BaseStorage, folder: Path, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.plan, self.storage, self.folder, self.stopped = plan, storage, folder, stopped
        self.study = open_study(plan, storage)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._hold: Hold | None = None

    def work(self) -> bool:
        """Train points until none is left; those that run elsewhere are waited for, as their workers may die.

        Returns:
            Whether all is done; False when the worker was asked to stop.

        Raises:
            StorageInternalError: the storage cannot be reached for long.
        """
        troubles = 0
        while not self.stopped():
            try:
                give_back_stale(self.study)
                live = [p.live for p in enqueue_open(self.study, self.plan) if p.live]
                if not live:
                    return True
                if any(trial.state is TrialState.WAITING for trial in live):
                    self._next()
                else:
                    self._wait(min(_POLL, self.plan.sweep.heartbeat))
                troubles = 0
            except Stopped:
                return False
            except StorageInternalError as error:
                troubles += 1
                if troubles > _PATIENCE:
                    raise
                logger.warning("the storage of the study fails (%s); trying again", error.__cause__ or error)
                self._wait(troubles)
        return False

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stopped():
            time.sleep(0.1)

    def _next(self) -> None:
        """Take a trial off the queue and train its point."""
        self._hold = None
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(Surplus, Failed))
        except (Lost, UpdateFinishedTrialError, ValueError):
            # a trial that another one has closed cannot be told how it ended
            if self._hold is None or not self._hold.lost():
                raise
            logger.warning("a point was given to another worker: this one gave no sign of life for too long")

    def _objective(self, trial: optuna.Trial) -> float:
        number = trial.user_attrs.get(names.POINT)
        if number is None or not owns(self.study, trial.number, number):
            trial.set_user_attr(names.SURPLUS, True)
            raise Surplus
        hold = self._hold = Hold(trial, self.storage, self.plan, self.stopped)
        point = suggest(trial, self.plan)
        earlier = [t for t in survey(self.study, self.plan.size)[number].trials if t.number < trial.number]
        again = f"-{len(earlier) + 1}" if earlier else ""
        run = self.folder / f"{number:04d}{again}"
        trial.set_user_attr(names.WORKER, self.name)
        trial.set_user_attr(names.FOLDER, str(run.resolve()))
        before = [Path(folder) for t in reversed(earlier) if (folder := t.user_attrs.get(names.FOLDER))]
        try:
            results = _digest(self._train(run, before, point, hold))
            value = results[self.plan.sweep.metric]
            if not math.isfinite(value):
                raise ValueError(f"{self.plan.sweep.metric} is {value}")
        except Interrupted:
            self._interrupted(trial, hold)
            raise Stopped from None
        except StorageInternalError:
            raise
        except Exception as error:
            if hold.lost():
                raise Lost from None
            _note(run)
            trial.set_user_attr(names.ERROR, f"{type(error).__name__}: {error}"[:_LONGEST])
            raise Failed from error
        trial.set_user_attr(names.RESULTS, results)
        for folder in before:  # the run goes on in its new folder
            shutil.rmtree(folder, ignore_errors=True)
        return float(value)

    def _interrupted(self, trial: optuna.Trial, hold: "Hold") -> None:
        if hold.lost():
            raise Lost
        if hold.pruned:
            raise optuna.TrialPruned
        trial.set_user_attr(names.STOPPED, True)

    def _train(self, run: Path, before: Sequence[Path], point: Point, hold: "Hold") -> dict[str, Any]:
        """The results of a point, from where an earlier attempt of it is, if its folder can be seen from here."""
        config = self.plan.config(point)
        for folder in before:
            if take_over(folder, run):
                break
        if not (run / "config.yaml").is_file():
            hold.watch(run)
            return start(run, config, show=False, watchers=[hold], stop=hold.ended)
        if found := Run.open(run).results:
            return found
        hold.watch(run)
        try:
            return resume(run, show=False, watchers=[hold], stop=hold.ended)
        except CheckpointError as error:  # the run is a copy, and a point can be trained again
            logger.warning("%s; the point starts anew", error)
            return resume(run, show=False, watchers=[hold], stop=hold.ended, from_scratch=True)


class Hold(Watcher):
    """A worker's hold on its trial: reports epochs to the pruner, and sees when the trial is no more its own."""

    def __init__(self, trial: optuna.Trial, storage: BaseStorage, plan: Plan, stopped: Callable[[], bool]) -> None:
        self.trial, self.storage, self.stopped = trial, storage, stopped
        self.column = "validation_loss" if plan.sweep.loss else "validation_accuracy"
        self.prunes, self.every = plan.sweep.pruning is not None, plan.sweep.heartbeat
        self.pruned = self._lost = False
        self._asked = time.monotonic()
        self._run: Path | None = None

    def watch(self, run: Path) -> None:
        """The run that is trained."""
        self._run = run

    def epoch(self, row: Row) -> None:
        """Report the mean over the seeds, at first also of the epochs that an earlier attempt made."""
        if not self.prunes:
            return
        try:
            if self._run is not None:
                table = Run(self._run).table("metrics")
                for epoch, value in zip(table.get("epoch", ()), table.get(self.column, ()), strict=True):
                    if epoch < int(row["epoch"]):
                        self.trial.report(value, int(epoch))
                self._run = None
            self.trial.report(float(row[self.column]), int(row["epoch"]))
            self.pruned = self.trial.should_prune()
        except UpdateFinishedTrialError:
            self._lost = True
        except StorageInternalError as error:
            logger.warning("an epoch could not be reported: %s", error.__cause__ or error)

    def ended(self) -> bool:
        """Whether the training shall stop; looks at the trial about as often as there are signs of life."""
        if time.monotonic() - self._asked > self.every:
            self.lost()
        return self.pruned or self._lost or self.stopped()

    def lost(self) -> bool:
        """Whether another one has closed the trial."""
        self._asked = time.monotonic()
        if not self._lost:
            try:
                self._lost = self.storage.get_trial(self.trial._trial_id).state is not TrialState.RUNNING
            except StorageInternalError as error:
                logger.warning("the storage of the study fails: %s", error.__cause__ or error)
        return self._lost


def take_over(old: Path, new: Path) -> bool:
    """Copy a run of a worker that is gone, whole or not at all; it may not be gone, and write on in the old folder."""
    if not (old / "config.yaml").is_file():
        return False
    partial = new.with_name(f".{new.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(old, partial, ignore=shutil.ignore_patterns(".*"))
        partial.rename(new)
    except OSError as error:  # shutil's own is one, too
        logger.warning("%s could not be taken over (%s); the point starts anew", old, error)
        shutil.rmtree(partial, ignore_errors=True)
        return False
    return True


def _digest(results: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of a run's results."""
    found = {key: results[key] for key in ("parameters", "epochs", "seconds", "best_validation_accuracy")}
    for split in ("validation", "test"):
        part = results[split]
        found |= {f"{split}_accuracy": part["accuracy"], f"{split}_loss": part["loss"]}
        found[f"{split}_std"] = part.get("accuracy_std")
    return found | {"seeds": len(results.get("seeds", [0]))}


def _note(run: Path) -> None:
    """Leave the traceback in the run folder, if there is one."""
    if run.is_dir():
        try:
            write_whole(run / "error.txt", traceback.format_exc())
        except OSError as error:
            logger.warning("%s", error)


def _leave_ctrl_c_to_the_command() -> None:
    """It tells its workers."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    else:  # Windows has no groups of processes
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(plan: Plan, url: str, folder: Path, threads: int | None) -> None:
    """A worker's process; SIGTERM stops it, and so does the end of the process that started it."""
    _leave_ctrl_c_to_the_command()
    asked, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and outlives one that is killed
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        with answering(url):
            storage = open_storage(url, plan.sweep.heartbeat, plan.sweep.grace)
            done = Worker(plan, storage, folder, lambda: asked.is_set() or os.getppid() != parent).work()
    except ConnectionError as error:
        logger.warning("%s", error)
        raise SystemExit(1) from None
    if not done:
        raise SystemExit(130)
