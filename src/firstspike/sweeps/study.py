"""A sweep as an Optuna study, which has all trials of the sweep in its queue from the start.

Each trial has its number in the sweep as the attribute ``TRIAL``. When Optuna puts the trial of a worker without
heartbeats back into the queue, as another trial with the same values, it keeps that number, which tables show and run
folders are called by.
"""

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import NopPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from firstspike.runs.forms import JsonForm, read_json
from firstspike.sweeps import RUNS, sweep_folder
from firstspike.sweeps.config import Params, Sweep
from firstspike.sweeps.plan import Plan
from firstspike.sweeps.table import NUMBERS, SweepTable, Value
from firstspike.text import first_line

TRIAL, WORKER, ERROR = "trial", "worker", "error"
"""Attributes of trials, besides their ``NUMBERS``. Without ``trial``: Optuna made it as the queue was empty."""
ACTIVE = (TrialState.RUNNING, TrialState.WAITING)

_DEFINITION = "firstspike"  # attribute of a study: the definition that all workers must share
_NOT_A_SWEEP = "is not of a sweep, or of an earlier version"


def storage_url(storage: str | None, folder: Path) -> URL:
    """The URL of a storage, by default of a file in the folder of a sweep."""
    if storage is None:
        return URL.create("sqlite", database=str((folder / "study.db").resolve()))
    try:
        return make_url(storage)
    except (ValueError, sqlalchemy.exc.ArgumentError):  # not shown: it may hold a password
        kinds = "sqlite:///FILE or postgresql://USER@HOST:PORT/NAME, with a number as PORT"
        raise ValueError(f"--storage: expected a URL such as {kinds}") from None


@contextmanager
def one_line_errors(url: URL) -> Iterator[None]:
    """Turn the error of a database that does not answer into a ``ConnectionError`` of one line."""
    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise ConnectionError(f"{url.set(query={})}: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """The first line of the message of whatever caused a storage's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def open_storage(url: URL, heartbeat: int | None = None) -> RDBStorage:
    """A storage, with a heartbeat interval in seconds if trials are trained."""
    sqlite = url.drivername.startswith("sqlite")
    options = {"connect_args": {"timeout": 60, "isolation_level": None}} if sqlite else {"pool_pre_ping": True}
    with warnings.catch_warnings(action="ignore"):  # heartbeats are experimental
        retry = None if heartbeat is None else RetryHeartbeatStaleTrialCallback(3, inherit_intermediate_values=True)
        beats: dict[str, Any] = {"heartbeat_interval": heartbeat, "heartbeat_stale_trial_callback": retry}
        make = partial(RDBStorage, url.render_as_string(hide_password=False), options, **beats)
        try:
            storage = make()
        except sqlalchemy.exc.SQLAlchemyError:  # another process may have created the tables at the same moment
            time.sleep(1)
            storage = make()
    if sqlite:  # it cannot lock a row, and two workers could take one trial
        sqlalchemy.event.listen(storage.engine, "begin", lambda x: x.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


@contextmanager
def _alone(storage: RDBStorage, name: str) -> Iterator[None]:
    """Keep all others from queueing trials of a study, so that this thread's changes are one transaction."""
    storage.remove_session()
    with storage.engine.begin() as connection, ExitStack() as end:  # SQLite is locked from here on
        lock = sqlalchemy.text("UPDATE studies SET study_name = study_name WHERE study_name = :name")
        connection.execute(lock, {"name": name})
        storage.scoped_session(bind=connection, join_transaction_mode="create_savepoint")
        end.callback(storage.remove_session)
        yield


def open_study(plan: Plan, storage: RDBStorage) -> optuna.Study:
    """The study of a sweep, created or joined; a ValueError if the one of this name is of another sweep."""
    sweep = plan.sweep
    study = optuna.create_study(
        storage=storage,
        sampler=TPESampler(constant_liar=True) if sweep.sampler == "tpe" else None,  # for several workers
        pruner=NopPruner() if sweep.pruning is None else sweep.pruning.build(),
        study_name=plan.name,
        direction="minimize" if sweep.loss else "maximize",
        load_if_exists=True,
    )
    mine = json.loads(json.dumps(plan.definition()))
    with _alone(storage, plan.name):
        if (stored := study.user_attrs.get(_DEFINITION)) is None:
            if study.get_trials(deepcopy=False):
                raise ValueError(f"the study {plan.name} {_NOT_A_SWEEP}; choose another --name")
            study.set_user_attr(_DEFINITION, stored := mine)
        if differ := sorted(key for key in mine.keys() | stored.keys() if mine.get(key) != stored.get(key)):
            what = f"is of another sweep; they differ in {', '.join(differ)}"
            raise ValueError(f"the study {plan.name} in this storage {what}. Choose another --name, or change the file")
    trials = plan.trials()
    for first in range(0, len(trials), 1000):  # in parts: workers wait meanwhile
        with _alone(storage, plan.name):
            there = trials_of(study)
            for number, params in enumerate(trials[first : first + 1000], first):
                if number not in there:
                    study.enqueue_trial(dict(params), user_attrs={TRIAL: number})
    return study


def suggest(trial: optuna.Trial, sweep: Sweep) -> Params:
    """The values of a trial, by Optuna."""
    for key, axis in sweep.distributions().items():
        if isinstance(axis, CategoricalDistribution):
            trial.suggest_categorical(key, axis.choices)
        elif isinstance(axis, IntDistribution):
            trial.suggest_int(key, axis.low, axis.high, step=axis.step, log=axis.log)
        elif isinstance(axis, FloatDistribution):
            trial.suggest_float(key, axis.low, axis.high, step=axis.step, log=axis.log)
    return trial.params


def trials_of(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The relevant entry of each trial, by its number: its first result, else the active one, else its failure."""
    order = (TrialState.COMPLETE, TrialState.PRUNED, *ACTIVE, TrialState.FAIL)
    found: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if (number := trial.user_attrs.get(TRIAL)) is not None:
            found[number] = min(found.get(number, trial), trial, key=lambda x: order.index(x.state))
    return dict(sorted(found.items()))


def active(study: optuna.Study) -> set[TrialState]:
    """The states of unfinished trials, waiting and running; empty if all are done."""
    return {trial.state for trial in trials_of(study).values()} & set(ACTIVE)


def queue_again(study: optuna.Study, storage: RDBStorage, failed: bool = False) -> None:
    """Queue trials again whose workers were stopped or died; with ``failed`` also those that failed or got stuck."""
    with _alone(storage, study.study_name), warnings.catch_warnings(action="ignore"):  # experimental
        for trial in trials_of(study).values() if failed else ():
            if trial.state is TrialState.RUNNING:  # trained twice if its worker is alive, and counted once
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        for trial in trials_of(study).values():
            if trial.state is TrialState.FAIL and (failed or not trial.user_attrs.get(ERROR)):
                RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(study, trial)


class Where(JsonForm):
    """``sweep.json``: the name of the study and its storage, None for a file in the folder, or for a secret."""

    name: str
    storage: str | None


def read_study(name: str, storage: str | None = None) -> tuple[optuna.Study, Path]:
    """The study of a sweep, and the sweep's folder, by the name of the study or by the folder.

    ``storage`` is its storage, by default that of the folder. Errors name the part that is missing or does not answer.
    """
    folder = sweep_folder(name) or RUNS / name
    if (file := folder / "sweep.json").is_file():
        said = read_json(file, Where)
        name, storage = said["name"], storage or said["storage"]
    url = storage_url(storage, folder)
    if url.drivername == "sqlite" and not Path(str(url.database)).is_file():
        raise FileNotFoundError(
            f"{name}: there is no {url.database}. A sweep of a database whose URL has a password needs --storage; a "
            "sweep that was interrupted before its first trial is started again with firstspike sweep SWEEP.yaml"
        )
    try:
        with one_line_errors(url):
            study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        raise FileNotFoundError(f"{url.set(query={})} has no study {name}") from None
    if _DEFINITION not in study.user_attrs:
        raise FileNotFoundError(f"the study {name} {_NOT_A_SWEEP}")
    return study, folder


def table_of(study: optuna.Study, folder: Path) -> SweepTable:
    """A row for each trial of a study whose run folders are in ``folder``."""
    axes, rows = study.user_attrs[_DEFINITION]["axes"], []
    for number, trial in trials_of(study).items():
        said, failed = trial.user_attrs, trial.state is TrialState.FAIL
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        row: dict[str, Value] = {"trial": number, "state": "failed" if failed else trial.state.name.lower()}
        # tables leave None empty. In a sweep's file it is null
        row |= {key: "null" if (value := params.get(key, "")) is None else value for key in axes}
        row |= {key: said.get(key) for key in NUMBERS}
        row |= {"folder": str(folder / f"{number:04d}"), "worker": said.get(WORKER, "")}
        rows.append(row | {"reason": said.get(ERROR) or "its worker died" if failed else ""})
    return SweepTable(list(axes), rows)
