"""A sweep as an Optuna study.

Each point waits in Optuna's own queue as an enqueued trial with its number, from the first moment on. Workers take
trials off the queue and never make others. A trial whose worker died or was stopped leaves its point open, and whoever
looks next puts a trial for it into the queue again. Trials are created whole and numbered one by one, so that of
several for one point the first counts: none is lost, none is twice.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from firstspike.sweeps.config import Halving, Range, Values
from firstspike.sweeps.plan import Plan, Point, shown

POINT, FOLDER, ERROR, SURPLUS, STOPPED, RESULTS, WORKER = (
    "point",
    "folder",
    "error",
    "surplus",
    "stopped",
    "results",
    "worker",
)
"""What a trial says of itself. ``error``: why the point failed. ``surplus``: another trial has the point. ``stopped``:
its worker was asked to stop. A failed trial with none of these is that of a worker that died."""

LIVES = 3
"""So many workers may die of one point."""

_CONTENT = "sweep"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_LIVE = (TrialState.RUNNING, TrialState.WAITING)


@dataclass
class Attempts:
    """All trials of one point, in the order of their numbers."""

    number: int
    trials: list[FrozenTrial] = field(default_factory=list)

    @property
    def done(self) -> FrozenTrial | None:
        """The one that counts, complete or pruned."""
        return next((trial for trial in self.trials if trial.state in _DONE), None)

    @property
    def live(self) -> FrozenTrial | None:
        """The one that runs or waits, if none is done."""
        return None if self.done else next((trial for trial in self.trials if trial.state in _LIVE), None)

    @property
    def error(self) -> str | None:
        """Why the point failed for good, if it did."""
        if self.done or self.live or not self.trials:
            return None
        died = [t for t in self.trials if not t.user_attrs.keys() & {ERROR, STOPPED}]
        if len(died) >= LIVES:
            return f"its worker died {len(died)} times"
        return self.trials[-1].user_attrs.get(ERROR)

    @property
    def open(self) -> bool:
        """Whether somebody has to take it up."""
        return not (self.done or self.live or self.error)

    @property
    def last(self) -> FrozenTrial | None:
        """What says most of the point: the trial that counts, else the one that is on, else the last one."""
        return self.done or self.live or (self.trials[-1] if self.trials else None)


def survey(study: optuna.Study, size: int) -> list[Attempts]:
    """All points of a study with their trials."""
    points = [Attempts(number) for number in range(size)]
    for trial in study.get_trials(deepcopy=False):
        number = trial.user_attrs.get(POINT)
        if number is not None and number < size and SURPLUS not in trial.user_attrs:
            points[number].trials.append(trial)
    return points


def owns(study: optuna.Study, number: int, point: int) -> bool:
    """Whether the running trial of that number has its point for itself: no other is done, none before it is on."""
    others = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(POINT) == point and t.number != number]
    return not any(t.state in _DONE or (t.state in _LIVE and t.number < number) for t in others)


def open_study(plan: Plan, storage: BaseStorage) -> optuna.Study:
    """The study of a sweep, made or joined.

    Raises:
        ValueError: there is a study of this name that is of another sweep.
    """
    with _quiet():
        study = optuna.create_study(
            study_name=plan.name,
            storage=storage,
            direction="maximize" if plan.sweep.upwards else "minimize",
            sampler=_sampler(plan),
            pruner=_pruner(plan),
            load_if_exists=True,
        )
    mine, theirs = json.loads(json.dumps(plan.content())), study.user_attrs.get(_CONTENT)
    if theirs is None:
        study.set_user_attr(_CONTENT, mine)
    elif theirs != mine:
        differ = sorted(_differences(theirs, mine))
        raise ValueError(
            f"the study {plan.name} in this storage is of another sweep; they differ in {', '.join(differ)}. "
            "Give this one another --name, or mend its file"
        )
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna, which prints by itself, from announcing the study; its verbosity is the caller's again after it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def give_back_stale(study: optuna.Study) -> None:
    """Close the trials of workers that gave no sign of life for too long, so that their points are open again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def enqueue_open(study: optuna.Study, plan: Plan, again: bool = False) -> list[Attempts]:
    """Put into the queue what nobody has; returns the survey after it.

    Args:
        study: of the sweep.
        plan: the sweep.
        again: points that failed, too.
    """
    points = survey(study, plan.size)
    opened = [point for point in points if point.open or (again and point.error)]
    if not opened:
        return points
    fresh = first_points(plan, study)
    for point in opened:
        params = fresh[point.number] or (point.last.params if point.last else {})
        study.enqueue_trial(params, user_attrs={POINT: point.number})
    return survey(study, plan.size)


def first_points(plan: Plan, study: optuna.Study) -> Sequence[Point]:
    """The parameters of each point that are known from the start: all, or for TPE none."""
    if plan.sweep.sampler == "grid":
        return plan.grid()
    if plan.sweep.sampler == "tpe":
        return [{}] * plan.size
    sampler, known = RandomSampler(seed=plan.sweep.seed), distributions(plan)
    trial = optuna.trial.create_trial(state=TrialState.RUNNING)  # the sampler looks at neither it nor the study
    return [
        {key: sampler.sample_independent(study, trial, key, choices) for key, choices in known.items()}
        for _ in range(plan.size)
    ]


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """The axes as Optuna sees them; those of a grid are choices."""
    return {key: _distribution(axis, plan.sweep.sampler == "grid") for key, axis in plan.sweep.axes.items()}


def _distribution(axis: Values | Range, grid: bool) -> BaseDistribution:
    if grid or isinstance(axis, Values):
        return CategoricalDistribution(axis.values())
    stepped = axis.step is not None
    last: Any = axis.values()[-1] if stepped else axis.to  # it may not be a whole number of steps away
    if axis.whole:
        return IntDistribution(int(axis.start), int(last), log=axis.log, step=int(axis.step or 1))
    step = float(axis.step) if axis.step is not None else None
    return FloatDistribution(float(axis.start), float(last), log=axis.log, step=step)


def suggest(trial: optuna.Trial, plan: Plan) -> Point:
    """The parameters of a trial."""
    return {key: _suggest(trial, key, choices) for key, choices in distributions(plan).items()}


def _suggest(trial: optuna.Trial, key: str, choices: BaseDistribution) -> Any:
    match choices:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, choices.choices)
        case IntDistribution():
            return trial.suggest_int(key, choices.low, choices.high, step=choices.step, log=choices.log)
        case FloatDistribution():
            return trial.suggest_float(key, choices.low, choices.high, step=choices.step, log=choices.log)
    raise TypeError(f"no distribution of an axis: {choices}")


def _sampler(plan: Plan) -> BaseSampler:
    # workers that guess at the same time keep apart
    return TPESampler(constant_liar=True) if plan.sweep.sampler == "tpe" else RandomSampler(seed=plan.sweep.seed)


def _pruner(plan: Plan) -> BasePruner:
    pruning = plan.sweep.pruning
    if pruning is None:
        return NopPruner()
    if isinstance(pruning, Halving):
        return SuccessiveHalvingPruner(min_resource=pruning.first, reduction_factor=pruning.factor)
    return MedianPruner(pruning.startup, pruning.warmup, pruning.every)


def _differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Places where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [x for key in keys for x in _differences(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))]
    return [] if one == other else [place]


def best(points: Sequence[Attempts], upwards: bool) -> FrozenTrial | None:
    """The complete trial with the best value."""
    found = [t for p in points if (t := p.done) and t.state is TrialState.COMPLETE and t.value is not None]
    key: Callable[[FrozenTrial], float] = lambda trial: trial.value or 0.0  # noqa: E731
    return (max if upwards else min)(found, key=key, default=None)


def described(points: Sequence[Attempts], plan: Plan) -> Mapping[str, str]:
    """For a progress bar: what runs, what failed, the best so far."""
    running = sum(p.live is not None and p.live.state is TrialState.RUNNING for p in points)
    failed = sum(p.error is not None for p in points)
    found = {"running": str(running)} | ({"failed": str(failed)} if failed else {})
    if (top := best(points, plan.sweep.upwards)) is not None:
        found["best"] = f"{top.value:.4f} ({shown(top.params)})"
    return found
