"""Workers of a sweep on this machine, and the progress of its study."""

import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import yaml
from optuna.trial import TrialState
from tqdm import tqdm

from firstspike.runs.files import write_whole
from firstspike.sweeps.plan import Plan, describe
from firstspike.sweeps.storage import UNREACHABLE, cause, one_line_errors, open_storage, storage_url, without_password
from firstspike.sweeps.study import Trial, enqueue_open, open_study, trials_of
from firstspike.sweeps.worker import Worker

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between looks at the study
_STOPPED = 130  # exit code of a worker that was asked to stop


def launch(
    plan: Plan,
    folder: Path,
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    show: bool = True,
) -> optuna.Study:
    """Train a sweep until all its trials are settled, together with whoever else works on it; returns its study.

    Args:
        plan: the sweep.
        folder: of its run folders.
        workers: processes on this machine.
        storage: see ``open_storage``; by default ``study.db`` in the folder.
        retry_failed: train trials that failed once more.
        show: whether to draw a progress bar.

    Raises:
        ValueError: the study is of another sweep, or the folder is a run's or has runs of another study.
        ConnectionError: the storage does not answer.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the workers have saved.
        ChildProcessError: all workers have died.
    """
    url = storage_url(storage or str(folder / "study.db"))
    if (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is the folder of a run; choose another --name for the sweep")
    used = folder.is_dir() and any(re.fullmatch(r"\d{4,}(-\d+)?", path.name) for path in folder.iterdir())
    with one_line_errors(url):
        study = open_study(plan, open_storage(url))
        if used and not study.get_trials(deepcopy=False):
            raise ValueError(f"{folder} has runs of another study; choose another --name, or the --storage of that one")
        folder.mkdir(parents=True, exist_ok=True)
        _describe(plan, folder, url)
        trials = enqueue_open(study, plan, retry_failed)
        if any(trial.active for trial in trials):
            with _processes(plan, url, folder, workers) as processes:
                trials = _follow(plan, study, processes, show)
    if any(trial.active or trial.open for trial in trials):
        raise ChildProcessError("all workers have died; run the same command again to resume")
    return study


def _describe(plan: Plan, folder: Path, url: str) -> None:
    """Write the sweep, and where its study is kept, to the folder; never a password."""
    sweep = plan.sweep.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_whole(folder / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False))
    place = url if without_password(url) == url else None
    if url == storage_url(str(folder / "study.db")):
        place = "study.db"  # the folder may move
    write_whole(folder / "sweep.json", json.dumps({"name": plan.name, "storage": place}, indent=1) + "\n")


@contextmanager
def _processes(plan: Plan, url: str, folder: Path, workers: int) -> Iterator[list[BaseProcess]]:
    """The workers, which have ended after the block. Ctrl-C and SIGTERM let them save, a second Ctrl-C does not."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = None if workers == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores // workers)
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_work, args=(plan, url, folder, threads), name=f"worker {k + 1}") for k in range(workers)
    ]
    # both raise KeyboardInterrupt
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _without_ctrl_c():
            for process in processes:
                process.start()
        yield processes
    finally:
        started = [process for process in processes if process.pid is not None]
        try:
            for process in started:
                process.terminate()
            for process in started:
                process.join()
        finally:
            for process in started:
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start in this block never get Ctrl-C, not even while they import; here it waits for the end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_ctrl_c_to_the_command() -> None:
    """Ctrl-C reaches the command alone, which stops its workers."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    else:  # Windows has no groups of processes
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(plan: Plan, url: str, folder: Path, threads: int | None) -> None:
    """A worker's process; SIGTERM stops it, and so does the end of the process that started it."""
    _leave_ctrl_c_to_the_command()
    asked, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    tqdm.set_lock(threading.RLock())  # the default one is shared between processes, and outlives one that is killed
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        with one_line_errors(url):
            done = Worker(plan, open_storage(url), folder, lambda: asked.is_set() or os.getppid() != parent).work()
    except OSError as error:
        logger.warning("%s", error)
        raise SystemExit(1) from None
    raise SystemExit(0 if done else _STOPPED)


def _follow(plan: Plan, study: optuna.Study, processes: Sequence[BaseProcess], show: bool) -> list[Trial]:
    """Show the progress of the study until the workers end; returns its trials."""
    terminal = sys.stderr.isatty()
    left = list(processes)
    with tqdm(
        total=plan.n_trials, unit="trial", disable=not show, dynamic_ncols=True, mininterval=0 if terminal else 30
    ) as bar:
        while True:
            wait([process.sentinel for process in left], timeout=_POLL)
            for process in [process for process in left if not process.is_alive()]:
                left.remove(process)
                code = process.exitcode or 0
                if code not in (0, _STOPPED):
                    what = f"of signal {-code}" if code < 0 else "of an error"
                    logger.warning("%s died %s; its trial will be given to another worker", process.name, what)
            try:
                trials = trials_of(study, plan.n_trials)
            except UNREACHABLE as error:
                if not left:
                    raise
                logger.warning("the storage of the study is out of reach: %s", cause(error))
                continue
            settled = sum(bool(trial.done or trial.error) for trial in trials)
            bar.set_postfix(_status(trials, plan), refresh=False)
            if settled != bar.n:
                bar.update(settled - bar.n)
            elif terminal:
                bar.refresh()
            if not left:
                return trials


def _status(trials: Sequence[Trial], plan: Plan) -> dict[str, str]:
    """For a progress bar: what runs, what failed, the best so far."""
    failed = sum(trial.error is not None for trial in trials)
    running = sum(trial.active is not None and trial.active.state is TrialState.RUNNING for trial in trials)
    found = {"running": str(running)} | ({"failed": str(failed)} if failed else {})
    complete = [x for trial in trials if (x := trial.done) and x.state is TrialState.COMPLETE]
    if complete:
        best = (max if plan.sweep.maximize else min)(complete, key=lambda attempt: attempt.value or 0)
        value = best.value or 0
        shown = f"{value:.4f}" if plan.sweep.loss else f"{100 * value:.2f} %"
        found["best"] = f"{shown} ({describe(best.params)})"
    return found
