"""A worker: takes trials from a study's queue and trains them, until none is left."""

import contextlib
import itertools
import logging
import math
import os
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from firstspike.runs import RunFolder, resume, start
from firstspike.runs.files import write_whole
from firstspike.sweeps import study as names
from firstspike.sweeps.config import Params
from firstspike.sweeps.plan import Plan
from firstspike.sweeps.storage import UNREACHABLE, cause
from firstspike.sweeps.study import StaleAttempts, distributions, enqueue_open, number_of, open_study, owns, trials_of
from firstspike.sweeps.table import digest
from firstspike.training import Callback, Fit, Interrupted, Row
from firstspike.training.state import CheckpointError

logger = logging.getLogger(__name__)

_POLL = 2.0  # seconds between looks at trials that others train
_REASON = 2000  # characters of a reason at most
_PATIENCE = 10  # times in a row that the storage may be out of reach

T = TypeVar("T")
Outcome = tuple[float | None, TrialState, dict[str, Any]]  # of an attempt: its value, its state, its attributes


class Worker:
    """Trains trials of a sweep in run folders inside ``folder``.

    ``stop`` is polled before every batch; True asks the worker to save and stop.
    """

    def __init__(
        self, plan: Plan, storage: BaseStorage, folder: Path, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.plan, self.folder, self.stop = plan, folder, stop
        self.study = open_study(plan, storage)
        self.lease: Lease | None = None
        self._stale = StaleAttempts(plan.sweep.grace)

    def work(self) -> bool:
        """Train until no trial is left; those that run elsewhere are waited for, as their workers may die.

        Returns whether all trials are settled; False if the worker was asked to stop. One of the errors ``UNREACHABLE``
        means that the storage was out of reach for long.
        """
        while not self.stop():
            if (settled := self._patiently(self._step)) is not None:
                return settled
        return False

    def _step(self) -> bool | None:
        """Train one trial, or wait for others; returns what ``work`` does once that is known."""
        self._stale.fail(self.study)
        active = [trial.active for trial in enqueue_open(self.study, self.plan) if trial.active]
        if not active:
            return True
        if any(attempt.state is TrialState.WAITING for attempt in active):
            return None if self.train_next() else False
        self._wait(min(_POLL, self.plan.sweep.heartbeat))
        return None

    def _patiently(self, action: Callable[[], T]) -> T:
        """The result of an action that is repeated while the storage is out of reach."""
        failures = 0
        while True:
            try:
                return action()
            except UNREACHABLE as error:
                failures += 1
                if failures > _PATIENCE or self.stop():
                    raise
                logger.warning("the storage of the study is out of reach (%s); trying again", cause(error))
                self._wait(failures)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stop():
            time.sleep(0.1)

    def train_next(self) -> bool:
        """Train the next trial of the queue; returns False if the worker was asked to stop."""
        attempt = self.study.ask(distributions(self.plan))
        number = number_of(attempt)
        if number is None or not owns(self.study, attempt):
            attempt.set_user_attr(names.DUPLICATE, True)
            self.study.tell(attempt, state=TrialState.FAIL)
            return True
        earlier = [x for x in trials_of(self.study, number + 1)[number].attempts if x.number < attempt.number]
        run = self.folder / (f"{number:04d}-{len(earlier) + 1}" if earlier else f"{number:04d}")
        attempt.set_user_attr(names.WORKER, f"{socket.gethostname()}:{os.getpid()}")
        attempt.set_user_attr(names.FOLDER, str(run.resolve()))
        previous = [Path(folder) for x in reversed(earlier) if (folder := x.user_attrs.get(names.FOLDER))]
        with contextlib.closing(Lease(attempt, self.plan, run, self.stop)) as lease:
            self.lease = lease
            value, state, notes = self._outcome(attempt.params, run, previous, lease)
            stopped = names.STOPPED in notes and not lease.lost
            if self._patiently(lambda: self._finish(attempt, value, state, notes)) and state is TrialState.COMPLETE:
                for folder in previous:  # the run continued in its new folder
                    shutil.rmtree(folder, ignore_errors=True)
        return not stopped

    def _outcome(self, params: Params, run: Path, previous: Sequence[Path], lease: "Lease") -> Outcome:
        """Train a trial, continued from an earlier attempt if its folder can be reached from here."""
        try:
            config = self.plan.config(params)
            any(copy_run(folder, run) for folder in previous)
            options: dict[str, Any] = {"progress_bar": False, "callbacks": [lease], "stop": lease.ended}
            if not (run / "config.yaml").is_file():
                found = start(run, config, **options)
            elif not (found := RunFolder.open(run).results):
                try:
                    found = resume(run, **options)
                except CheckpointError as error:
                    logger.warning("%s; the trial starts over", error)
                    found = resume(run, from_scratch=True, **options)
            results = digest(found)
            value = results[self.plan.sweep.metric]
            if value is None or not math.isfinite(value):
                raise ValueError(f"{self.plan.sweep.metric} is {value}")
            return value, TrialState.COMPLETE, {names.RESULTS: results}
        except Interrupted:
            return (None, TrialState.PRUNED, {}) if lease.pruned else (None, TrialState.FAIL, {names.STOPPED: True})
        except Exception as error:
            if run.is_dir():
                with contextlib.suppress(OSError):
                    write_whole(run / "error.txt", traceback.format_exc())
            return None, TrialState.FAIL, {names.ERROR: f"{type(error).__name__}: {error}"[:_REASON]}

    def _finish(self, attempt: optuna.Trial, value: float | None, state: TrialState, notes: dict[str, Any]) -> bool:
        """Record the outcome of an attempt; returns False if the trial was given to another worker meanwhile."""
        try:
            for key, note in notes.items():
                attempt.set_user_attr(key, note)
            self.study.tell(attempt, value, state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            logger.warning("a trial was given to another worker, as this one sent no heartbeat for too long")
            return False
        return True


class Lease(Callback):
    """A worker's claim to an attempt: sends heartbeats, reports epochs to the pruner, notices when it is lost.

    The run folder ``run`` may hold epochs of an earlier attempt. ``stop`` is that of the worker.
    """

    def __init__(self, attempt: optuna.Trial, plan: Plan, run: Path, stop: Callable[[], bool]) -> None:
        self.attempt, self.sweep, self.run, self.stop = attempt, plan.sweep, run, stop
        self.column = "validation_loss" if plan.sweep.loss else "validation_accuracy"
        self.pruned = self.lost = False
        self._first = True
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send no more heartbeats."""
        self._closed.set()
        self._thread.join()

    def _beat(self) -> None:
        for count in itertools.count(1):
            try:
                self.attempt.set_user_attr(names.HEARTBEAT, count)
            except UpdateFinishedTrialError:
                self.lost = True
                return
            except Exception as error:  # the next one may succeed
                logger.warning("no heartbeat could be sent: %s", cause(error))
            if self._closed.wait(self.sweep.heartbeat):
                return

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Report the mean over the seeds, and at first the epochs of an earlier attempt."""
        if self.sweep.pruning is None:
            return
        try:
            if self._first:
                table = RunFolder(self.run).table("metrics")
                for epoch, value in zip(table.get("epoch", ()), table.get(self.column, ()), strict=True):
                    if epoch < int(row["epoch"]):
                        self.attempt.report(value, int(epoch))
            self._first = False
            self.attempt.report(float(row[self.column]), int(row["epoch"]))
            self.pruned = self.attempt.should_prune()
        except UpdateFinishedTrialError:
            self.lost = True
        except UNREACHABLE as error:
            logger.warning("an epoch could not be reported: %s", cause(error))

    def ended(self) -> bool:
        """Whether the training should stop."""
        return self.pruned or self.lost or self.stop()


def copy_run(old: Path, new: Path) -> bool:
    """Copy the run of an earlier attempt, whole or not at all; its worker may still be writing to the old folder."""
    if not (old / "config.yaml").is_file():
        return False
    partial = new.with_name(f".{new.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(old, partial, ignore=shutil.ignore_patterns(".*"))
        partial.rename(new)
    except OSError as error:  # shutil.Error is one, too
        logger.warning("%s could not be copied (%s); the trial starts over", old, error)
        shutil.rmtree(partial, ignore_errors=True)
        return False
    return True
