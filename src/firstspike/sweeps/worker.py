"""Workers, which take trials from a study's queue and train them, and the command that starts them on this machine."""

import json
import logging
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock
from optuna.exceptions import OptunaError, TrialPruned
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from tqdm import tqdm

from firstspike.config import Config
from firstspike.runs import Run
from firstspike.runs.files import write_whole
from firstspike.runs.lock import LOCK, RunLockedError
from firstspike.runs.seeds import digest
from firstspike.sweeps import study as studies
from firstspike.sweeps.plan import Plan
from firstspike.training import Callback, Fit, Interrupted
from firstspike.training.callbacks import Stop
from firstspike.training.fit import Row
from firstspike.training.state import CheckpointError

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between polls of the study


@dataclass(eq=False)
class Worker:
    """Trains trials of a sweep in run folders inside ``folder``.

    ``stop`` is polled before every batch. True asks the worker to save and stop.
    """

    plan: Plan
    storage: RDBStorage
    folder: Path
    stop: Stop = lambda: False

    def __post_init__(self) -> None:
        self.study = studies.open_study(self.plan, self.storage)

    def work(self) -> None:
        """Train until no trial is left, or until asked to stop; waits for trials elsewhere, whose workers may die."""
        while not self.stop() and (states := studies.active(self.study)):
            if TrialState.WAITING in states:
                self.train_next()
            else:
                time.sleep(_POLL)
                with warnings.catch_warnings(action="ignore"):  # experimental
                    fail_stale_trials(self.study)

    def train_next(self) -> None:
        """Train the next trial of the queue."""
        try:
            self.study.optimize(self._train, n_trials=1, catch=(Exception,), callbacks=[self._stopped])
        except (AssertionError, ValueError):  # Optuna's, if the trial has ended meanwhile
            logger.warning("a trial was given to another worker, as this one sent no heartbeat for too long")
        except UnboundLocalError:  # Optuna's, if the storage is gone: the next access reports it
            pass

    def _stopped(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """After a trial: back into the queue with it, if this worker was asked to stop."""
        if trial.state is TrialState.FAIL and self.stop():
            studies.queue_again(study, self.storage)

    def _train(self, trial: optuna.Trial) -> float:
        """The metric of a trial."""
        if studies.TRIAL not in trial.user_attrs:
            raise LookupError("another worker has emptied the queue")
        trial.set_user_attr(studies.WORKER, f"{socket.gethostname()}:{os.getpid()}")
        trial.set_user_attr(studies.ERROR, "")  # of an earlier attempt
        params = studies.suggest(trial, self.plan.sweep)
        try:
            results = digest(self._results(trial, self.plan.config(params)))
            value = results[self.plan.sweep.metric]
            if value is None or not math.isfinite(value):
                raise ValueError(f"{self.plan.sweep.metric} is {value}")
        except (Interrupted, OptunaError):
            raise
        except Exception as error:
            trial.set_user_attr(studies.ERROR, f"{type(error).__name__}: {error}")
            trial.set_user_attr("traceback", traceback.format_exc())
            raise
        for key, number in results.items():
            trial.set_user_attr(key, number)
        return float(value)

    def _results(self, trial: optuna.Trial, config: Config) -> dict[str, Any]:
        """Train in a run folder, continued if a worker that died or stopped has begun."""
        folder = self.folder / f"{trial.user_attrs[studies.TRIAL]:04d}"
        epochs = Epochs(trial, "validation_loss" if self.plan.sweep.loss else "validation_accuracy")
        options: dict[str, Any] = {"progress_bar": False, "callbacks": [epochs] if self.plan.sweep.pruning else []}
        options["stop"] = lambda: epochs.pruned or self.stop()
        while True:
            try:
                if not (folder / "config.yaml").is_file():
                    return Run.start(folder, config, **options).results
                run = Run(folder)
                return run.results or run.resume(**options).results
            except CheckpointError as error:
                logger.warning("%s; the trial starts over", error)
                return Run(folder).resume(from_scratch=True, **options).results
            except RunLockedError:  # by a worker that was taken for dead: its results are waited for
                if self.stop():
                    raise Interrupted from None
                time.sleep(_POLL)
            except Interrupted:
                if epochs.pruned:
                    raise TrialPruned from None
                self.stop = lambda: True  # a signal that the training has caught
                raise


@dataclass(eq=False)
class Epochs(Callback):
    """Reports the epochs of a trial to the pruner, as means over the seeds."""

    trial: optuna.Trial
    column: str
    pruned: bool = False

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Report an epoch."""
        with warnings.catch_warnings(action="ignore"):  # a worker that died may have reported it
            self.trial.report(float(row[self.column]), int(row["epoch"]))
        self.pruned = self.trial.should_prune()


def launch(
    plan: Plan,
    folder: Path,
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    show: bool = True,
) -> optuna.Study:
    """Train a sweep until all its trials are done, together with other workers on it; returns its study.

    Its run folders are in ``folder``, and by default its ``storage`` as well. ``retry_failed`` trains trials once more
    that failed, ``show`` draws a progress bar. Ctrl-C and SIGTERM raise KeyboardInterrupt once the workers have saved.
    """
    url = studies.storage_url(storage, folder)
    if (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is the folder of a run; choose another --name for the sweep")
    used = (folder / "0000").exists()
    folder.mkdir(parents=True, exist_ok=True)
    with studies.one_line_errors(url):
        opened = studies.open_storage(url, plan.sweep.heartbeat)
        if used and plan.name not in optuna.get_all_study_names(opened):
            raise ValueError(f"{folder} has runs of another study; choose another --name, or the --storage of that one")
        study = studies.open_study(plan, opened)
        studies.queue_again(study, opened, retry_failed)
        secret = url.password or any("passw" in key.lower() for key in url.query)  # is never written
        said: dict[str, Any] = {"name": plan.name, "storage": None if secret else storage}
        said |= {"sweep": plan.sweep.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
        with FileLock(folder / LOCK):
            write_whole(folder / "sweep.json", json.dumps(said, indent=1) + "\n")
        if studies.active(study):
            with _processes(plan, url, folder, workers) as processes:
                _follow(plan, study, processes, show)
        if studies.active(study):
            raise ChildProcessError("all workers have died; run the same command again to resume")
    return study


@contextmanager
def _processes(plan: Plan, url: URL, folder: Path, workers: int) -> Iterator[list[BaseProcess]]:
    """The workers, which have ended after the block. Ctrl-C and SIGTERM let them save."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = None if workers == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores // workers)
    spawn, arguments = multiprocessing.get_context("spawn"), (plan, url, folder, threads)
    processes: list[BaseProcess] = [spawn.Process(target=_work, args=arguments) for _ in range(workers)]
    ends = signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt, as Ctrl-C does
    try:
        interrupts = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which workers inherit
        try:
            for process in processes:
                process.start()
        finally:
            signal.signal(signal.SIGINT, interrupts)
        yield list(processes)
    finally:
        signal.signal(signal.SIGTERM, ends)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(plan: Plan, url: URL, folder: Path, threads: int | None) -> None:
    """The process of a worker: SIGTERM stops it, and so does the end of the process that started it."""
    asked, parent = threading.Event(), multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.excepthook = lambda hook: logger.warning("no heartbeat: %s", studies.cause(hook.exc_value or OSError()))
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    tqdm.set_lock(threading.RLock())  # the default one is shared between processes, and outlives one that is killed
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with studies.one_line_errors(url):
            storage = studies.open_storage(url, plan.sweep.heartbeat)
            Worker(plan, storage, folder, lambda: asked.is_set() or not parent.is_alive()).work()
    except OSError as error:
        logger.warning("%s", error)
        raise SystemExit(1) from None


def _follow(plan: Plan, study: optuna.Study, processes: list[BaseProcess], show: bool) -> None:
    """Show the progress of the study until the workers end."""
    with tqdm(total=len(plan.trials()), unit="trial", disable=not show, dynamic_ncols=True) as bar:
        while processes:
            processes[0].join(_POLL)
            for process in [process for process in processes if not process.is_alive()]:
                processes.remove(process)
                if code := process.exitcode:
                    what = f"of signal {-code}" if code < 0 else "of an error"
                    logger.warning("a worker died %s; its trial will be given to another one", what)
            trials = studies.trials_of(study).values()
            values = [trial.value for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
            failed = sum(trial.state is TrialState.FAIL for trial in trials)
            best = {"best": f"{(min if plan.sweep.loss else max)(values):.4f}"} if values else {}
            bar.set_postfix({"failed": failed, **best}, refresh=False)
            bar.update(sum(trial.state not in studies.ACTIVE for trial in trials) - bar.n)
