"""Workers of a sweep on this machine, and how far the study is meanwhile."""

import json
import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import optuna
import yaml
from optuna.exceptions import StorageInternalError
from tqdm import tqdm

from firstspike.sweeps import worker
from firstspike.sweeps.plan import Plan
from firstspike.sweeps.storage import answering, has_password, open_storage, storage_url
from firstspike.sweeps.study import Attempts, described, enqueue_open, open_study, survey
from firstspike.training.files import write_whole

logger = logging.getLogger(__name__)

_LOOK = 1.0  # seconds between looks at the study


class Incomplete(Exception):  # noqa: N818  (the points say why)
    """Points are left and nobody here works on them."""


def launch(
    plan: Plan, folder: Path, workers: int = 1, storage: str | None = None, again: bool = False, show: bool = True
) -> tuple[list[Attempts], optuna.Study]:
    """Work on a sweep until all its points are settled, here and wherever else somebody works on it.

    Args:
        plan: the sweep.
        folder: of its run folders.
        workers: processes on this machine.
        storage: see ``open_storage``; by default ``study.db`` in the folder.
        again: take up points that failed, once more.
        show: a progress bar.

    Returns:
        The points, and the study.

    Raises:
        ValueError: the study is of another sweep, or the folder is a run's or has runs of another study.
        ConnectionError: the storage does not answer.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the workers have saved.
        Incomplete: all workers have died.
    """
    url = storage_url(storage or str(folder / "study.db"))
    if (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is the folder of a run; choose another --name for the sweep")
    used = folder.is_dir() and any(re.fullmatch(r"\d{4,}(-\d+)?", path.name) for path in folder.iterdir())
    with answering(url):
        base = open_storage(url, plan.sweep.heartbeat, plan.sweep.grace)
        study = open_study(plan, base)
        if used and not study.get_trials(deepcopy=False):
            raise ValueError(
                f"{folder} has runs of another study; choose another --name, or the --storage of that study"
            )
        folder.mkdir(parents=True, exist_ok=True)
        _describe(plan, folder, url)
        points = enqueue_open(study, plan, again)
        if not any(point.live for point in points):
            return points, study
        with _processes(plan, url, folder, workers) as processes:
            points = _follow(plan, study, points, processes, show)
    if any(point.live or point.open for point in points):
        raise Incomplete("all workers have died; the same command goes on")
    return points, study


def _describe(plan: Plan, folder: Path, url: str) -> None:
    """What the folder says of itself: the sweep, and where its study lives (a password is not written)."""
    sweep = plan.sweep.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_whole(folder / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False))
    place = None if has_password(url) else url
    if url == storage_url(str(folder / "study.db")):
        place = "study.db"  # the folder may move
    write_whole(folder / "sweep.json", json.dumps({"name": plan.name, "storage": place}, indent=1) + "\n")


@contextmanager
def _processes(plan: Plan, url: str, folder: Path, workers: int) -> Iterator[list[BaseProcess]]:
    """The workers; at the end of the block none is left."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = None if workers == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores // workers)
    context = multiprocessing.get_context("spawn")
    found: list[BaseProcess] = [
        context.Process(target=worker.main, args=(plan, url, folder, threads), name=f"worker {k + 1}")
        for k in range(workers)
    ]
    started: list[BaseProcess] = []
    try:
        for process in found:
            process.start()
            started.append(process)
        yield found
    finally:
        for process in started:
            process.terminate()  # to a worker: save and stop
        for process in started:
            process.join()


def _follow(
    plan: Plan, study: optuna.Study, points: list[Attempts], processes: Sequence[BaseProcess], show: bool
) -> list[Attempts]:
    """Show how far the study is until the workers end."""
    with (
        tqdm(
            total=plan.size, unit="point", disable=not show, dynamic_ncols=True, mininterval=0 if _terminal() else 30
        ) as bar,
        _interrupts(processes) as asked,
    ):
        left = list(processes)
        while left:
            wait([process.sentinel for process in left], timeout=_LOOK)
            for process in [p for p in left if not p.is_alive()]:
                left.remove(process)
                code = process.exitcode or 0
                if code not in (0, 130):
                    what = f"of signal {-code}" if code < 0 else "of an error"
                    logger.warning("%s died %s; its point is given to another", process.name, what)
            try:
                points = survey(study, plan.size)
            except StorageInternalError as error:
                logger.warning("the storage of the study fails: %s", error.__cause__ or error)
            settled = sum(bool(point.done or point.error) for point in points)
            bar.set_postfix(described(points, plan), refresh=False)
            bar.update(settled - bar.n) if settled != bar.n else bar.refresh() if _terminal() else None
        points = survey(study, plan.size)
        bar.update(sum(bool(point.done or point.error) for point in points) - bar.n)
    if asked and any(point.live or point.open for point in points):
        raise KeyboardInterrupt
    return points


def _terminal() -> bool:
    return sys.stderr.isatty()


@contextmanager
def _interrupts(processes: Sequence[BaseProcess]) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask the workers to save and stop, a second Ctrl-C ends them; gives what came."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        kill = signal.SIGINT in asked and number == signal.SIGINT
        asked.append(number)
        for process in processes:
            if process.is_alive():
                process.kill() if kill else process.terminate()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
