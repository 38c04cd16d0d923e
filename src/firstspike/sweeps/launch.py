"""Workers of a sweep on this machine, and the progress of its study."""

import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from tqdm import tqdm

from firstspike.runs.files import write_whole
from firstspike.sweeps import study as studies
from firstspike.sweeps.plan import Plan, describe

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between looks at the study
_WORKER = (sys.executable, "-m", "firstspike.sweeps.worker")
_NEW_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows


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
                _WORKER, stdin=subprocess.PIPE, env=env, start_new_session=True, creationflags=_NEW_GROUP
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
