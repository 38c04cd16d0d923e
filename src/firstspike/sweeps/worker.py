"""A worker: takes trials from a study's queue and trains them, until none is left."""

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
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, TrialPruned
from optuna.trial import TrialState
from tqdm import tqdm

from firstspike.config import Config
from firstspike.runs import RunFolder, RunLockedError, resume, start
from firstspike.sweeps import study as studies
from firstspike.sweeps.plan import Plan
from firstspike.sweeps.table import digest
from firstspike.training import Callback, Fit, Interrupted, Row
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
            with warnings.catch_warnings(action="ignore"):  # experimental
                optuna.storages.fail_stale_trials(self.study)
            states = {trial.state for trial in studies.trials_of(self.study).values()}
            if TrialState.WAITING in states:
                self.train_next()
            elif TrialState.RUNNING in states:
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
        if studies.TRIAL not in trial.user_attrs:
            raise LookupError("another worker has emptied the queue")
        run = self.folder / f"{trial.user_attrs[studies.TRIAL]:04d}"
        for key, said in {
            studies.STARTED: trial.number,
            studies.ERROR: "",  # of an earlier attempt
            studies.FOLDER: str(run.resolve()),
            studies.WORKER: f"{socket.gethostname()}:{os.getpid()}",
        }.items():
            trial.set_user_attr(key, said)
        try:
            config = self.plan.config(studies.suggest(trial, self.plan.sweep))
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
            with suppress(OSError):  # there may be no folder yet
                (run / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            trial.set_user_attr(studies.ERROR, f"{type(error).__name__}: {error}"[:_REASON])
            raise

    def _results(self, run: Path, config: Config, trial: optuna.Trial) -> dict[str, Any]:
        """Train in a run folder, continued if a worker that died or stopped has begun."""
        epochs = Epochs(trial, "validation_loss" if self.plan.sweep.loss else "validation_accuracy")
        options: dict[str, Any] = {"progress_bar": False, "callbacks": [epochs] if self.plan.sweep.pruning else []}
        options["stop"] = lambda: epochs.pruned or self.stop()
        while True:
            try:
                if not (run / "config.yaml").is_file():
                    return start(run, config, **options)
                return RunFolder.open(run).results or resume(run, **options)
            except CheckpointError as error:
                logger.warning("%s; the trial starts over", error)
                return resume(run, from_scratch=True, **options)
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

    def __init__(self, trial: optuna.Trial, column: str) -> None:
        self.trial, self.column, self.pruned = trial, column, False

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Report an epoch."""
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
