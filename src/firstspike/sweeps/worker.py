"""Workers, which take trials from a study's queue and train them, and the command that starts them on this machine."""

import json
import logging
import math
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.exceptions import OptunaError, TrialPruned
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from tqdm import tqdm

from firstspike.config import Config
from firstspike.runs import Run, RunLockedError
from firstspike.runs.files import write_whole
from firstspike.runs.folder import RunFolder
from firstspike.sweeps import study as studies
from firstspike.sweeps.plan import Plan, describe
from firstspike.sweeps.table import digest
from firstspike.training import Callback, Fit, Interrupted
from firstspike.training.fitting import Row
from firstspike.training.state import CheckpointError

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between looks at the study
_PROGRAM = (sys.executable, "-m", "firstspike.sweeps.worker")
_NEW_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows
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


def launch(
    plan: Plan,
    folder: Path,
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    show: bool = True,
) -> optuna.Study:
    """Train a sweep until all its trials are settled, together with whoever else works on it; returns its study.

    Its run folders are in ``folder``, and by default its ``storage`` as well. ``retry_failed`` trains trials once more
    that failed, ``show`` draws a progress bar. Ctrl-C and SIGTERM raise KeyboardInterrupt once the workers have saved.
    """
    url = studies.storage_url(storage or str(folder / "study.db"))
    if (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is the folder of a run; choose another --name for the sweep")
    used = folder.is_dir() and any(re.fullmatch(r"\d{4,}", path.name) for path in folder.iterdir())
    with studies.one_line_errors(url):
        opened = studies.open_storage(url, plan.sweep)
        if used and plan.name not in optuna.get_all_study_names(opened):
            raise ValueError(f"{folder} has runs of another study; choose another --name, or the --storage of that one")
        study = studies.open_study(plan, opened)
        studies.queue_lost(study, plan.sweep.grace, retry_failed)
        _describe(plan, folder, url)
        if _active(study):
            with _processes(plan, url, folder, workers) as processes:
                _follow(plan, study, processes, show)
        if _active(study):
            raise ChildProcessError("all workers have died; run the same command again to resume")
    return study


def _active(study: optuna.Study) -> bool:
    return any(trial.state in studies.ACTIVE for trial in studies.trials_of(study).values())


def _describe(plan: Plan, folder: Path, url: URL) -> None:
    """Write the sweep, and where its study is kept, to the folder; never a password."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = plan.sweep.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_whole(folder / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False))
    shown = studies.without_password(url)
    place = shown if studies.file_of(url) or shown == url.render_as_string(hide_password=False) else None
    if url == studies.storage_url(str(folder / "study.db")):
        place = "study.db"  # the folder may move
    write_whole(folder / "sweep.json", json.dumps({"name": plan.name, "storage": place}, indent=1) + "\n")


@contextmanager
def _processes(plan: Plan, url: URL, folder: Path, workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The workers, which have ended after the block. Ctrl-C and SIGTERM let them save, a second Ctrl-C does not."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    env = ({} if workers == 1 else {"OMP_NUM_THREADS": str(max(1, cores // workers))}) | dict(os.environ)
    processes: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt, as Ctrl-C does
    try:
        for _ in range(workers):
            # in a group of its own: Ctrl-C reaches the command alone
            process = subprocess.Popen(
                _PROGRAM, stdin=subprocess.PIPE, env=env, start_new_session=True, creationflags=_NEW_GROUP
            )
            processes.append(process)
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as task:
                pickle.dump((plan, url, folder, os.getpid()), task)
        yield processes
    finally:
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
        finally:
            for process in processes:
                process.kill()
            signal.signal(signal.SIGTERM, before)


def _follow(plan: Plan, study: optuna.Study, processes: list[subprocess.Popen[bytes]], show: bool) -> None:
    """Show the progress of the study until the workers end."""
    terminal = sys.stderr.isatty()
    with tqdm(
        total=plan.n_trials, unit="trial", disable=not show, dynamic_ncols=True, mininterval=0 if terminal else 30
    ) as bar:
        while processes:
            with suppress(subprocess.TimeoutExpired):
                processes[0].wait(_POLL)
            for process in [process for process in processes if process.poll() is not None]:
                processes.remove(process)
                if code := process.returncode:
                    what = f"of signal {-code}" if code < 0 else "of an error"
                    logger.warning("a worker died %s; its trial will be given to another one", what)
            trials = list(studies.trials_of(study).values())
            bar.set_postfix(_status(trials, plan), refresh=False)
            bar.update(sum(trial.state not in studies.ACTIVE for trial in trials) - bar.n)
            if terminal:
                bar.refresh()


def _status(trials: list[FrozenTrial], plan: Plan) -> dict[str, str]:
    """For a progress bar: what runs, what failed, the best so far."""
    states = [trial.state for trial in trials]
    found = {"running": str(states.count(TrialState.RUNNING)), "failed": str(states.count(TrialState.FAIL))}
    values = {trial.value or 0: trial.params for trial in trials if trial.state is TrialState.COMPLETE}
    if values:
        best = (min if plan.sweep.loss else max)(values)
        found["best"] = (f"{best:.4f}" if plan.sweep.loss else f"{100 * best:.2f} %") + f" ({describe(values[best])})"
    return found


if __name__ == "__main__":
    main()
