"""A sweep as an Optuna study, which has all trials of the sweep in its queue from the start.

Optuna puts the trial of a worker without heartbeats back into the queue, as a trial that refers to the first one for
the same values. The number of that first one is the trial's number here, in tables and for its run folder.
"""

import copy
import json
import logging
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
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from firstspike.sweeps import RUNS, sweep_folder
from firstspike.sweeps.config import Choice, Halving, Median, Range, Sweep, choices
from firstspike.sweeps.plan import Params, Plan
from firstspike.sweeps.table import NUMBERS, SweepTable, Value, existing

logger = logging.getLogger(__name__)

QUEUED, FOLDER, WORKER, ERROR = "queued", "folder", "worker", "error"
"""Attributes of trials, besides their ``NUMBERS``. Without ``queued``: Optuna made it as the queue was empty."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
ACTIVE = (TrialState.RUNNING, TrialState.WAITING)

_DEFINITION = "firstspike"  # attribute of a study: what all workers must agree on; set once all trials are queued
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
    options: dict[str, Any] = {"study_name": plan.name, "storage": storage, "pruner": _pruner(plan)}
    options["sampler"] = TPESampler(constant_liar=True) if plan.sweep.sampler == "tpe" else None
    mine = json.loads(json.dumps(plan.definition()))
    try:
        study = optuna.create_study(direction="maximize" if plan.sweep.maximize else "minimize", **options)
        try:
            _enqueue(study, plan)
            study.set_user_attr(_DEFINITION, mine)
        except BaseException:
            optuna.delete_study(study_name=plan.name, storage=storage)
            raise
    except DuplicatedStudyError:
        study = optuna.load_study(**options)
    for _ in range(600 if trials_of(study) else 20):  # whoever has just created it fills its queue first
        if (stored := study.user_attrs.get(_DEFINITION)) is not None:
            break
        time.sleep(0.1)
    else:
        raise ValueError(f"the study {plan.name} is not of a sweep, or of an earlier version; choose another --name")
    if differ := sorted(key for key in mine.keys() | stored.keys() if mine.get(key) != stored.get(key)):
        what = f"is of another sweep; they differ in {', '.join(differ)}"
        raise ValueError(f"the study {plan.name} in this storage {what}. Choose another --name, or change the file")
    _enqueue(study, plan)  # more trials than before
    return study


def _pruner(plan: Plan) -> BasePruner:
    match plan.sweep.pruning:
        case Halving(first=first, factor=factor):
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        case Median(startup=startup, warmup=warmup, every=every):
            return MedianPruner(startup, warmup, every)
    return NopPruner()


def _enqueue(study: optuna.Study, plan: Plan) -> None:
    """Queue the trials of a sweep that its study does not have yet."""
    for params in planned(plan)[len(trials_of(study)) :]:
        study.enqueue_trial(dict(params), user_attrs={QUEUED: True})


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
        if sweep.sampler == "grid" or not isinstance(axis, Range):
            found[key] = trial.suggest_categorical(key, choices(axis))
        elif axis.integer:
            found[key] = trial.suggest_int(key, int(axis.start), int(axis.last), step=int(axis.step or 1), log=axis.log)
        else:
            found[key] = trial.suggest_float(key, axis.start, axis.last, step=axis.step, log=axis.log)
    return found


def number_of(trial: FrozenTrial) -> int:
    """The number of a trial; of one that was queued again that of the first one."""
    with warnings.catch_warnings(action="ignore"):  # experimental
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def trials_of(study: optuna.Study) -> dict[int, FrozenTrial]:
    """What counts of each trial, by its number: its first result, otherwise what is active, otherwise its failure."""
    order = (*DONE, *ACTIVE, TrialState.FAIL)
    found: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if QUEUED in trial.user_attrs:
            number = number_of(trial)
            found[number] = min(found.get(number, trial), trial, key=lambda x: order.index(x.state))
    return found


def queue_again(study: optuna.Study, trial: FrozenTrial, max_retry: int | None = None) -> None:
    """Queue a trial again that ended without a result."""
    again = copy.deepcopy(trial)
    again.user_attrs = {QUEUED: True}
    with warnings.catch_warnings(action="ignore"):  # experimental
        RetryHeartbeatStaleTrialCallback(max_retry, inherit_intermediate_values=True)(study, again)


def queue_stopped(study: optuna.Study, trial: FrozenTrial) -> None:
    """After a trial: queue it again if its worker was asked to stop."""
    if trial.state is TrialState.FAIL and QUEUED in trial.user_attrs and ERROR not in trial.user_attrs:
        queue_again(study, trial)


def queue_stale(study: optuna.Study, grace: int) -> None:
    """Queue the trials of dead workers again: by Optuna's heartbeat, and of those that died before their first one."""
    with warnings.catch_warnings(action="ignore"):  # experimental
        optuna.storages.fail_stale_trials(study)
    limit = datetime.now() - timedelta(seconds=grace)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if WORKER not in trial.user_attrs and trial.datetime_start is not None and trial.datetime_start < limit:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            queue_again(study, trial)


def queue_failed(study: optuna.Study, all_failed: bool = False) -> None:
    """Queue trials again that have only failed because a worker died; or all that failed."""
    for trial in trials_of(study).values():
        if trial.state is TrialState.FAIL and (all_failed or ERROR not in trial.user_attrs):
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
        raise FileNotFoundError(f"{name}: there is no sweep of this name in {RUNS}, and no --storage is given")
    url = storage_url(storage)
    if (file := file_of(url)) is not None and not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        with one_line_errors(url):
            study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        raise FileNotFoundError(f"{without_password(url)} has no study {name}") from None
    if _DEFINITION not in study.user_attrs:
        raise FileNotFoundError(f"the study {name} is not of a sweep, or of an earlier version")
    return study, folder or RUNS / name


def sweep_of(study: optuna.Study) -> Sweep:
    """The sweep that a study was created by."""
    said = study.user_attrs[_DEFINITION].items()
    return Sweep.model_validate({key: value for key, value in said if not key.startswith("config ")})


def table_of(study: optuna.Study, folder: Path) -> SweepTable:
    """A row for each trial of a study; ``folder`` is where run folders are if the sweep was moved."""
    axes, rows = list(sweep_of(study).axes), []
    for number, trial in sorted(trials_of(study).items()):
        said, failed = trial.user_attrs, trial.state is TrialState.FAIL
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        row: dict[str, Value] = {"trial": number, "state": "failed" if failed else trial.state.name.lower()}
        # tables leave None empty; in a sweep's file it is null
        row |= {key: "null" if (value := params.get(key, "")) is None else value for key in axes}
        row |= {key: said.get(key) for key in NUMBERS} | {"worker": said.get(WORKER, "")}
        row |= {"folder": existing(said.get(FOLDER, ""), folder)}
        rows.append(row | {"reason": said.get(ERROR, "its worker died") if failed else ""})
    return SweepTable(rows)


def history(study: optuna.Study) -> list[tuple[float, bool]]:
    """The metric of each trial that is done, in the order in which they started, and whether it was pruned."""
    done = [trial for trial in trials_of(study).values() if trial.state in DONE and trial.value is not None]
    done.sort(key=lambda trial: str(trial.datetime_start))
    return [(trial.value or 0.0, trial.state is TrialState.PRUNED) for trial in done]


def importance(study: optuna.Study) -> dict[str, float]:
    """The share of each axis in the variance of the metric; empty where there is too little to tell."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    try:
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (ValueError, RuntimeError, ImportError) as error:
        logger.warning("no importances: %s", error)
        return {}
    return dict(shares) if len(shares) > 1 else {}
