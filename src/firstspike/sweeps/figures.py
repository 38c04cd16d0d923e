"""Figures of a sweep, as files in its folder."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from firstspike.plots.save import save_all
from firstspike.plots.sweep import SWEEP_PLOTS, SweepPoints
from firstspike.sweeps.config import Values
from firstspike.sweeps.table import Table, read_study, table_of, worded

logger = logging.getLogger(__name__)


def save_sweep_figures(
    name: str, names: Sequence[str] | None = None, formats: Sequence[str] = ("png",), storage: str | None = None
) -> list[Path]:
    """Draw figures of a sweep and write them to its folder ``figures/``.

    Args:
        name: of the sweep, or its folder.
        names: keys of ``SWEEP_PLOTS``; by default all that apply.
        formats: file formats.
        storage: where its study lives; by default what the folder says.

    Raises:
        FileNotFoundError: there is no such sweep.
        ValueError: a name or format that there is not, a figure that makes no sense for this sweep.
    """
    study, folder = read_study(name, storage)
    return save_all(SWEEP_PLOTS, sweep_points(study), folder / "figures", names, formats)


def sweep_points(study: optuna.Study) -> SweepPoints:
    """What figures draw of a study.

    Raises:
        ValueError: it has no complete point yet.
    """
    table = table_of(study)
    rows = [row for row in table.rows if row.state == "complete"]
    if not rows:
        raise ValueError(f"the sweep {table.name} has no complete point yet")
    numbers = {
        key: np.asarray([np.nan if (x := row.results[key]) is None else x for row in rows])
        for key in ("test_accuracy", "test_std", "validation_accuracy", "parameters")
    }
    begun = {trial.number: trial.value for trial in study.get_trials(deepcopy=False) if trial.value is not None}
    counted = sorted(row.started for row in table.rows if row.state in ("complete", "pruned"))
    return SweepPoints(
        axes={key: [_shown(table, key, row.values[key]) for row in rows] for key in table.axes},
        accuracy=numbers["test_accuracy"],
        spread=numbers["test_std"],
        validation=numbers["validation_accuracy"],
        parameters=numbers["parameters"],
        seeds=rows[0].results["seeds"],
        metric=table.sweep.metric,
        upwards=table.sweep.upwards,
        history=[begun[number] for number in counted if number in begun],
        importance=_importance(study),
        grid=table.sweep.sampler == "grid",
    )


def _shown(table: Table, key: str, value: object) -> object:
    axis = table.sweep.axes[key]
    return value if not isinstance(axis, Values) or isinstance(value, int | float) else str(worded(value))


def _importance(study: optuna.Study) -> dict[str, float]:
    """Optuna's importances; empty where it cannot say."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ImportError) as error:
        logger.warning("no importances: %s", error)
        return {}
    return dict(found) if len(found) > 1 else {}
