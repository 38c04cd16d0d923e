"""A sweep as an Optuna study, which has all trials of the sweep in its queue from the start.

Each trial has its number in the sweep as the attribute ``TRIAL``. When Optuna puts the trial of a worker without
heartbeats back into the queue, as another trial with the same values, it keeps that number, which tables show and run
folders are called by.
"""

import json
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from firstspike.sweeps import RUNS, sweep_folder
from firstspike.sweeps.config import Choice, Halving, Median, Range, Sweep, choices
from firstspike.sweeps.plan import Params, Plan
from firstspike.sweeps.table import NUMBERS, SweepTable, Value, existing

TRIAL, STARTED, FOLDER, WORKER, ERROR = "trial", "started", "folder", "worker", "error"
"""Attributes of trials, besides their ``NUMBERS``. Without ``trial``: Optuna made it as the queue was empty."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
ACTIVE = (TrialState.RUNNING, TrialState.WAITING)

_DEFINITION = "firstspike"  # attribute of a study: what all workers must agree on
_NOT_A_SWEEP = "is not of a sweep, or of an earlier version"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}


def storage_url(where: str) -> URL:
    """The URL of a storage: of a file that ends in ``.db``, ``sqlite:///FILE``, ``postgresql://...``, ``mysql://...``."""
    if "://" not in where and Path(where).suffix in (".db", ".sqlite", ".sqlite3"):
        return URL.create("sqlite", database=str(Path(where).resolve()))
    try:
        url = make_url(where)
    except (ValueError, sqlalchemy.exc.ArgumentError):  # not shown: it may hold a password
        kinds = "FILE.db, postgresql://USER@HOST:PORT/NAME or mysql://..., with a number as PORT"
        raise ValueError(f"--storage: expected {kinds}") from None
    if url.drivername == "sqlite":
        return url.set(database=str(Path(url.database or "study.db").resolve()))
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def file_of(url: URL) -> Path | None:
    """The file of a storage; None for a server."""
    return Path(str(url.database)) if url.drivername == "sqlite" else None


def without_password(url: URL) -> str:
    """A storage, for people."""
    secret = [key for key in url.query if "passw" in key.lower()]
    return str(file_of(url) or url.difference_update_query(secret))


def open_storage(url: URL, sweep: Sweep | None = None) -> RDBStorage:
    """A storage, with heartbeats for a sweep that is trained; errors name a missing driver, or what does not answer."""
    options: dict[str, Any] = {"engine_kwargs": {"pool_pre_ping": True}}
    name, file = url.render_as_string(hide_password=False), file_of(url)
    if sweep is not None:
        options |= {"heartbeat_interval": sweep.heartbeat, "grace_period": sweep.grace}
        options["heartbeat_stale_trial_callback"] = partial(queue_again, max_retry=3)
    if file is not None:  # opened here, as its path may hold characters with a meaning in a URL
        file.parent.mkdir(parents=True, exist_ok=True)
        connect = partial(sqlite3.connect, file, timeout=60, isolation_level=None, check_same_thread=False)
        name, options["engine_kwargs"] = "sqlite:///study.db", {"creator": connect}
    for attempt in range(3):
        try:
            with warnings.catch_warnings(action="ignore"):  # heartbeats are experimental
                storage = RDBStorage(name, **options)
            break
        except ImportError as error:
            kind = url.get_backend_name()
            raise ImportError(f'the {kind} driver is missing. Install it: pip install "firstspike[{kind}]"') from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            if attempt == 2:
                raise ConnectionError(f"{without_password(url)}: {cause(error)}") from error
            time.sleep(0.5)  # another process may have created the tables at the same moment
    if file is not None:  # SQLite cannot lock a row, and two workers could take one trial
        sqlalchemy.event.listen(storage.engine, "begin", lambda x: x.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


@contextmanager
def one_line_errors(url: URL) -> Iterator[None]:
    """Turn the error of a database that does not answer into a ``ConnectionError`` of one line."""
    try:
        yield
    except StorageInternalError as error:
        raise ConnectionError(f"{without_password(url)}: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """The first line of the message of whatever caused a storage's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]


def open_study(plan: Plan, storage: RDBStorage) -> optuna.Study:
    """The study of a sweep, created or joined; a ValueError if the one of this name is of another sweep."""
    # constant_liar keeps apart what workers sample at the same time
    sampler = TPESampler(constant_liar=True) if plan.sweep.sampler == "tpe" else None
    direction = StudyDirection.MINIMIZE if plan.sweep.loss else StudyDirection.MAXIMIZE
    options: dict[str, Any] = {"study_name": plan.name, "sampler": sampler, "pruner": _pruner(plan)}
    study = optuna.create_study(storage=storage, direction=direction, load_if_exists=True, **options)
    mine, stored = json.loads(json.dumps(plan.definition())), study.user_attrs.get(_DEFINITION)
    if stored is None and study.get_trials(deepcopy=False):
        raise ValueError(f"the study {plan.name} {_NOT_A_SWEEP}; choose another --name")
    if stored is None:
        study.set_user_attr(_DEFINITION, stored := mine)
    if differ := sorted(key for key in mine.keys() | stored.keys() if mine.get(key) != stored.get(key)):
        what = f"is of another sweep; they differ in {', '.join(differ)}"
        raise ValueError(f"the study {plan.name} in this storage {what}. Choose another --name, or change the file")
    there = trials_of(study)
    for number, params in enumerate(planned(plan)):
        if number not in there:
            study.enqueue_trial(dict(params), user_attrs={TRIAL: number})
    return study


def _pruner(plan: Plan) -> BasePruner:
    match plan.sweep.pruning:
        case Halving(first=first, factor=factor):
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        case Median(startup=startup, warmup=warmup, every=every):
            return MedianPruner(startup, warmup, every)
    return NopPruner()


def planned(plan: Plan) -> list[Params]:
    """The values of each trial as far as they are known from the start: all of them, or for TPE none."""
    if plan.sweep.sampler == "grid":
        return plan.grid()
    if plan.sweep.sampler == "tpe":
        return [{}] * plan.n_trials
    study = optuna.create_study(sampler=RandomSampler(seed=plan.sweep.seed))
    return [suggest(study.ask(), plan.sweep) for _ in range(plan.n_trials)]


def suggest(trial: optuna.Trial, sweep: Sweep) -> Params:
    """The values of a trial, by Optuna."""
    found: dict[str, Choice] = {}
    for key, axis in sweep.axes.items():
        with warnings.catch_warnings(action="ignore"):  # of a range whose end is between two steps
            if sweep.sampler == "grid" or not isinstance(axis, Range):
                found[key] = trial.suggest_categorical(key, choices(axis))
            elif axis.integer:
                ends = int(axis.start), int(axis.to)
                found[key] = trial.suggest_int(key, *ends, step=int(axis.step or 1), log=axis.log)
            else:
                found[key] = trial.suggest_float(key, axis.start, axis.to, step=axis.step, log=axis.log)
    return found


def trials_of(study: optuna.Study) -> dict[int, FrozenTrial]:
    """What counts of each trial, by its number: its first result, otherwise what is active, otherwise its failure."""
    order = (*DONE, *ACTIVE, TrialState.FAIL)
    found: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if (number := trial.user_attrs.get(TRIAL)) is not None:
            found[number] = min(found.get(number, trial), trial, key=lambda x: order.index(x.state))
    return dict(sorted(found.items()))


def queue_again(study: optuna.Study, trial: FrozenTrial, max_retry: int | None = None) -> None:
    """Queue a trial again that ended without a result."""
    with warnings.catch_warnings(action="ignore"):  # experimental
        RetryHeartbeatStaleTrialCallback(max_retry, inherit_intermediate_values=True)(study, trial)


def queue_stopped(study: optuna.Study, trial: FrozenTrial) -> None:
    """After a trial: queue it again if its worker was asked to stop."""
    if trial.state is TrialState.FAIL and TRIAL in trial.user_attrs and not trial.user_attrs.get(ERROR):
        queue_again(study, trial)


def queue_lost(study: optuna.Study, grace: int, all_failed: bool = False) -> None:
    """At the start: queue trials again whose workers died, also before their first heartbeat; or all that failed."""
    limit = datetime.now() - timedelta(seconds=grace)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(STARTED) != trial.number and (trial.datetime_start or limit) < limit:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    for trial in trials_of(study).values():
        if trial.state is TrialState.FAIL and (all_failed or not trial.user_attrs.get(ERROR)):
            queue_again(study, trial)


def read_study(name: str, storage: str | None = None) -> tuple[optuna.Study, Path]:
    """The study of a sweep, and the sweep's folder, by the name of the study or by the folder.

    ``storage`` is where it is kept, by default what the folder says. Errors say what is not there or does not answer.
    """
    folder = sweep_folder(name)
    if folder is not None:
        try:
            said = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            name, kept = str(said["name"]), said["storage"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'sweep.json'} is damaged ({type(error).__name__}: {error})") from None
        storage = storage or (str(folder / kept) if kept == "study.db" else kept)
        if storage is None:
            raise ValueError(f"{folder} does not name the storage, whose URL has a password; give --storage")
    if storage is None:
        raise FileNotFoundError(
            f"{name}: there is no sweep of this name in {RUNS}, and no --storage is given. A sweep that was "
            "interrupted before its first trial leaves nothing: start it again with firstspike sweep SWEEP.yaml"
        )
    url = storage_url(storage)
    if (file := file_of(url)) is not None and not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        with one_line_errors(url):
            study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        raise FileNotFoundError(f"{without_password(url)} has no study {name}") from None
    if _DEFINITION not in study.user_attrs:
        raise FileNotFoundError(f"the study {name} {_NOT_A_SWEEP}")
    return study, folder or RUNS / name


def table_of(study: optuna.Study, folder: Path) -> SweepTable:
    """A row for each trial of a study; ``folder`` is where run folders are if the sweep was moved."""
    axes, rows = study.user_attrs[_DEFINITION]["axes"], []
    for number, trial in trials_of(study).items():
        said, failed = trial.user_attrs, trial.state is TrialState.FAIL
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        row: dict[str, Value] = {"trial": number, "state": "failed" if failed else trial.state.name.lower()}
        # tables leave None empty; in a sweep's file it is null
        row |= {key: "null" if (value := params.get(key, "")) is None else value for key in axes}
        row |= {key: said.get(key) for key in NUMBERS} | {"worker": said.get(WORKER, "")}
        row |= {"folder": existing(said.get(FOLDER, ""), folder)}
        rows.append(row | {"reason": said.get(ERROR) or "its worker died" if failed else ""})
    return SweepTable(rows)
