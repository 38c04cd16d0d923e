"""A worker: takes trials from a study's queue and trains them, until none is left."""

import contextlib
import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, TrialPruned
from tqdm import tqdm

from firstspike.config import Config
from firstspike.runs import Run, RunLockedError
from firstspike.runs.folder import RunFolder
from firstspike.sweeps import study as studies
from firstspike.sweeps.plan import Plan
from firstspike.sweeps.table import digest
from firstspike.training import Callback, Fit, Interrupted
from firstspike.training.fitting import Row
from firstspike.training.state import CheckpointError

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between looks at what others train
_REASON = 2000  # characters of a reason at most


class Worker:
    """Trains trials of a sweep in run folders inside ``folder``.

    ``stop`` is polled before every batch; True asks the worker to save and stop.
    """

    def __init__(
        self, plan: Plan, storage: optuna.storages.RDBStorage, folder: Path, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.plan, self.folder, self.stop = plan, folder, stop
        self.study = studies.open_study(plan, storage)

    def work(self) -> None:
        """Train until no trial is left, or until asked to stop; waits for trials elsewhere, whose workers may die."""
        while not self.stop():
            studies.queue_stale(self.study, self.plan.sweep.grace)
            states = {trial.state for trial in studies.trials_of(self.study).values()}
            if optuna.trial.TrialState.WAITING in states:
                self.train_next()
            elif optuna.trial.TrialState.RUNNING in states:
                time.sleep(_POLL)
            else:
                break

    def train_next(self) -> None:
        """Train the next trial of the queue."""
        try:
            self.study.optimize(self._train, n_trials=1, catch=(Exception,), callbacks=[studies.queue_stopped])
        except (AssertionError, ValueError):  # Optuna's, where the trial has ended meanwhile
            logger.warning("a trial was given to another worker, as this one sent no heartbeat for too long")
        except UnboundLocalError:  # Optuna's, where the storage is gone: the next look at it says so
            pass

    def _train(self, trial: optuna.Trial) -> float:
        """The metric of a trial."""
        own = self.study.get_trials(deepcopy=False)[trial.number]
        if studies.QUEUED not in own.user_attrs:
            raise LookupError("another worker has emptied the queue")
        run = self.folder / f"{studies.number_of(own):04d}"
        try:
            config = self.plan.config(studies.suggest(trial, self.plan.sweep))
            trial.set_user_attr(studies.FOLDER, str(run.resolve()))
            trial.set_user_attr(studies.WORKER, f"{socket.gethostname()}:{os.getpid()}")
            results = digest(self._results(run, config, trial))
            value = results[self.plan.sweep.metric]
            if value is None or not math.isfinite(value):
                raise ValueError(f"{self.plan.sweep.metric} is {value}")
            (run / "error.txt").unlink(missing_ok=True)  # of an earlier failure
            for key, number in results.items():
                trial.set_user_attr(key, number)
            return value
        except (Interrupted, OptunaError):
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # there may be no folder yet
                (run / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            trial.set_user_attr(studies.ERROR, f"{type(error).__name__}: {error}"[:_REASON])
            raise

    def _results(self, run: Path, config: Config, trial: optuna.Trial) -> dict[str, Any]:
        """Train in a run folder, continued if a worker that died or stopped has begun."""
        column = "validation_loss" if self.plan.sweep.loss else "validation_accuracy"
        epochs = Epochs(trial, column, self.plan.sweep.pruning is not None)
        options: dict[str, Any] = {"progress_bar": False, "callbacks": [epochs]}
        options["stop"] = lambda: epochs.pruned or self.stop()
        while True:
            try:
                if not (run / "config.yaml").is_file():
                    return Run.start(run, config, **options).results
                return RunFolder.open(run).results or Run(run).resume(**options).results
            except CheckpointError as error:
                logger.warning("%s; the trial starts over", error)
                return Run(run).resume(from_scratch=True, **options).results
            except RunLockedError:  # by a worker that was taken for dead: its results are waited for
                if self.stop():
                    raise Interrupted from None
                time.sleep(_POLL)
            except Interrupted:
                if epochs.pruned:
                    raise TrialPruned from None
                self.stop = lambda: True  # a signal that the training has caught
                raise


class Epochs(Callback):
    """Reports the epochs of a trial to the pruner, as means over the seeds."""

    def __init__(self, trial: optuna.Trial, column: str, pruning: bool) -> None:
        self.trial, self.column, self.pruning, self.pruned = trial, column, pruning, False

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Report an epoch."""
        if self.pruning:
            with warnings.catch_warnings(action="ignore"):  # a worker that died may have reported it
                self.trial.report(float(row[self.column]), int(row["epoch"]))
            self.pruned = self.trial.should_prune()


def main() -> None:
    """The process of a worker: SIGTERM stops it, and so does the end of the process that started it."""
    plan, url, folder, parent = pickle.load(sys.stdin.buffer)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    threading.excepthook = lambda hook: logger.warning("no heartbeat: %s", studies.cause(hook.exc_value or OSError()))
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    tqdm.set_lock(threading.RLock())  # the default one is shared between processes, and outlives one that is killed
    try:
        with studies.one_line_errors(url):
            storage = studies.open_storage(url, plan.sweep)
            Worker(plan, storage, folder, lambda: asked.is_set() or os.getppid() != parent).work()
    except OSError as error:
        logger.warning("%s", error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
