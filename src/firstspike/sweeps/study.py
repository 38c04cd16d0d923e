"""A sweep as an Optuna study.

Every trial of a sweep is in Optuna's own queue from the start, as an enqueued Optuna trial that carries its number.
Workers take from the queue and add nothing else. An Optuna trial is one *attempt*: where its worker died or was
stopped, the next worker that looks queues another one. Attempts are numbered one by one, so that of several for one
trial the first counts: none is lost, none counts twice.

Heartbeats are attributes of attempts. Optuna has some as well, but for databases only, and they miss a worker that died
before its first one.
"""

import contextlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from firstspike.sweeps import RUNS, sweep_folder
from firstspike.sweeps.config import Axis, Halving, Params, Range, Sweep, choices
from firstspike.sweeps.plan import Plan
from firstspike.sweeps.storage import file_of, one_line_errors, open_storage, storage_url, without_password
from firstspike.sweeps.table import NUMBERS, SweepTable, Value, existing

logger = logging.getLogger(__name__)

NUMBER, PARAMS, HEARTBEAT, FOLDER, WORKER, RESULTS = "trial", "params", "heartbeat", "folder", "worker", "results"
ERROR, STOPPED, DUPLICATE = "error", "stopped", "duplicate"
"""Attributes of attempts. ``error``: why training failed. ``stopped``: its worker was asked to stop. ``duplicate``:
another attempt has the trial. The worker of a failed attempt with none of these died."""

MAX_DEATHS = 3
"""A trial fails once this many of its workers have died."""

_DEFINITION = "sweep"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_ACTIVE = (TrialState.RUNNING, TrialState.WAITING)


@dataclass
class Trial:
    """One combination of values with all attempts to train it, in their order."""

    number: int
    attempts: list[FrozenTrial] = field(default_factory=list)

    @property
    def done(self) -> FrozenTrial | None:
        """The attempt that counts, complete or pruned."""
        return next((attempt for attempt in self.attempts if attempt.state in _DONE), None)

    @property
    def active(self) -> FrozenTrial | None:
        """The attempt that runs or waits, if none is done."""
        return None if self.done else next((x for x in self.attempts if x.state in _ACTIVE), None)

    @property
    def error(self) -> str | None:
        """Why the trial failed for good, if it did."""
        if self.done or self.active or not self.attempts:
            return None
        deaths = sum(not x.user_attrs.keys() & {ERROR, STOPPED} for x in self.attempts)
        if deaths >= MAX_DEATHS:
            return f"its worker died {deaths} times"
        return self.attempts[-1].user_attrs.get(ERROR)

    @property
    def open(self) -> bool:
        """Whether it has to be queued."""
        return not (self.done or self.active or self.error)

    @property
    def current(self) -> FrozenTrial | None:
        """The attempt that says most: the one that counts, otherwise the active one, otherwise the last one."""
        return self.done or self.active or (self.attempts[-1] if self.attempts else None)


def number_of(attempt: FrozenTrial | optuna.Trial) -> int | None:
    """The number of the trial that an attempt is for; None for one that Optuna made by itself."""
    return attempt.user_attrs.get(NUMBER, attempt.user_attrs.get("point"))  # "point" in studies of older versions


def trials_of(study: optuna.Study, count: int | None = None) -> list[Trial]:
    """The trials of a study; ``count`` of them, by default those that have attempts."""
    numbered = [(number_of(x), x) for x in study.get_trials(deepcopy=False) if DUPLICATE not in x.user_attrs]
    if count is None:
        count = max((number for number, _ in numbered if number is not None), default=-1) + 1
    trials = [Trial(number) for number in range(count)]
    for number, attempt in numbered:
        if number is not None and number < count:
            trials[number].attempts.append(attempt)
    return trials


def owns(study: optuna.Study, attempt: optuna.Trial) -> bool:
    """Whether a running attempt has its trial for itself: no other one is done, no earlier one is active."""
    number = number_of(attempt)
    active = None if number is None else trials_of(study, number + 1)[number].active
    return active is not None and active.number == attempt.number


def open_study(plan: Plan, storage: BaseStorage) -> optuna.Study:
    """The study of a sweep, created or joined; a ValueError if the one of this name is of another sweep."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))  # Optuna prints that it created a study
    try:
        study = optuna.create_study(
            study_name=plan.name,
            storage=storage,
            direction="maximize" if plan.sweep.maximize else "minimize",
            sampler=_sampler(plan),
            pruner=_pruner(plan),
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    mine, stored = json.loads(json.dumps(plan.definition())), study.user_attrs.get(_DEFINITION)
    if stored is None:
        study.set_user_attr(_DEFINITION, mine)
    elif stored != mine:
        what = f"is of another sweep; they differ in {', '.join(sorted(_differences(stored, mine)))}"
        raise ValueError(f"the study {plan.name} in this storage {what}. Choose another --name, or change the file")
    return study


def _differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Places where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [x for key in keys for x in _differences(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))]
    return [] if one == other else [place]


def _sampler(plan: Plan) -> BaseSampler:
    # constant_liar keeps apart what workers sample at the same time
    return TPESampler(constant_liar=True) if plan.sweep.sampler == "tpe" else RandomSampler(seed=plan.sweep.seed)


def _pruner(plan: Plan) -> BasePruner:
    pruning = plan.sweep.pruning
    if pruning is None:
        return NopPruner()
    if isinstance(pruning, Halving):
        return SuccessiveHalvingPruner(min_resource=pruning.first, reduction_factor=pruning.factor)
    return MedianPruner(pruning.startup, pruning.warmup, pruning.every)


def enqueue_open(study: optuna.Study, plan: Plan, retry_failed: bool = False) -> list[Trial]:
    """Queue every trial that needs an attempt, failed ones only on request; returns all trials afterwards."""
    trials = trials_of(study, plan.n_trials)
    opened = [trial for trial in trials if trial.open or (retry_failed and trial.error)]
    if not opened:
        return trials
    fixed = fixed_params(plan, study)
    for trial in opened:
        params = fixed[trial.number] or (trial.current.params if trial.current else {})
        study.enqueue_trial(params, user_attrs={NUMBER: trial.number, PARAMS: params})
    return trials_of(study, plan.n_trials)


def fixed_params(plan: Plan, study: optuna.Study) -> Sequence[Params]:
    """The values of each trial that are known from the start: all of them, or for TPE none."""
    if plan.sweep.sampler == "grid":
        return plan.grid()
    if plan.sweep.sampler == "tpe":
        return [{}] * plan.n_trials
    sampler, axes = RandomSampler(seed=plan.sweep.seed), distributions(plan)
    unused = optuna.trial.create_trial(state=TrialState.RUNNING)  # an argument that this sampler ignores
    return [
        {key: sampler.sample_independent(study, unused, key, axis) for key, axis in axes.items()}
        for _ in range(plan.n_trials)
    ]


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """The axes as Optuna's distributions; those of a grid are categorical."""
    return {key: _distribution(axis, plan.sweep.sampler == "grid") for key, axis in plan.sweep.axes.items()}


def _distribution(axis: Axis, grid: bool) -> BaseDistribution:
    if grid or not isinstance(axis, Range):
        return CategoricalDistribution(choices(axis))
    if axis.integer:
        return IntDistribution(int(axis.start), int(axis.last), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(float(axis.start), float(axis.last), log=axis.log, step=axis.step)


class StaleAttempts:
    """Fails running attempts whose heartbeat has not changed for ``grace`` seconds, so that they are queued again.

    The time is measured by the clock of the machine that looks, from its first look on: clocks of machines may differ.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._since: dict[tuple[int, int | None], float] = {}

    def fail(self, study: optuna.Study) -> None:
        """Look, and fail what is stale."""
        now = time.monotonic()
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        beats = [(attempt.number, attempt.user_attrs.get(HEARTBEAT)) for attempt in running]
        self._since = {beat: self._since.get(beat, now) for beat in beats}
        for (number, _), since in self._since.items():
            if now - since > self.grace:
                with contextlib.suppress(UpdateFinishedTrialError):
                    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def read_study(name: str, storage: str | None = None) -> tuple[optuna.Study, Path]:
    """The study of a sweep, and the sweep's folder, by the name of the study or by the folder.

    ``storage``: where it is kept; by default what the folder says.

    Raises:
        FileNotFoundError: no such folder or study.
        ValueError: the folder does not say where the study is kept.
        ConnectionError: the storage does not answer.
    """
    folder, where = sweep_folder(name), storage
    if folder is not None:
        try:
            found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            name, kept = str(found["name"]), found["storage"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'sweep.json'} is damaged ({type(error).__name__}: {error})") from None
        where = storage or (str(folder / kept) if kept == "study.db" else kept)
        if where is None:
            raise ValueError(f"{folder} does not name the storage, whose URL has a password; give --storage")
    if where is None:
        raise FileNotFoundError(f"{name}: there is no sweep of this name in {RUNS}, and no --storage is given")
    url = storage_url(where)
    if (file := file_of(url)) is not None and not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        with one_line_errors(url):
            study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        raise FileNotFoundError(f"{without_password(url)} has no study {name}") from None
    if _DEFINITION not in study.user_attrs:
        raise FileNotFoundError(f"the study {name} was not created by a sweep")
    return study, folder or RUNS / name


def sweep_of(study: optuna.Study) -> Sweep:
    """The sweep that a study was created by."""
    return Sweep.model_validate(study.user_attrs[_DEFINITION]["sweep"])


def table_of(study: optuna.Study, folder: Path) -> SweepTable:
    """A row for each trial of a study; ``folder`` is where run folders are if the sweep was moved."""
    axes = list(sweep_of(study).axes)
    return SweepTable([_row(trial, axes, folder) for trial in trials_of(study) if trial.attempts])


def _row(trial: Trial, axes: Sequence[str], near: Path) -> dict[str, Value]:
    attempt = trial.current
    assert attempt is not None, "a trial in the table has an attempt"
    error, found = trial.error, attempt.user_attrs
    state = "failed" if error else "open" if trial.open else attempt.state.name.lower()
    params = attempt.params or found.get(PARAMS, {})
    results = found.get(RESULTS, {}) if state == "complete" else {}
    return {
        "trial": trial.number,
        "state": state,
        # tables leave None empty; in a sweep's file it is null
        **{key: "null" if (value := params.get(key, "")) is None else value for key in axes},
        **{key: results.get(key) for key in NUMBERS},
        "folder": existing(found.get(FOLDER, ""), near),
        "worker": found.get(WORKER, ""),
        "reason": error or "",
    }


def history(study: optuna.Study) -> list[tuple[float, bool]]:
    """The metric of each trial that is done, in the order in which they started, and whether it was pruned."""
    done = sorted((x for trial in trials_of(study) if (x := trial.done)), key=lambda attempt: attempt.number)
    return [(x.value, x.state is TrialState.PRUNED) for x in done if x.value is not None]


def importance(study: optuna.Study) -> dict[str, float]:
    """The share of each axis in the variance of the metric; empty where there is too little to tell."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({attempt.value for attempt in complete}) < 2:
        return {}
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ImportError) as error:
        logger.warning("no importances: %s", error)
        return {}
    return dict(found) if len(found) > 1 else {}
