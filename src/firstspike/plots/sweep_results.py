"""The trials of a sweep, as its figures need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from firstspike.plots.sweep_axes import numeric

LINES = 8  # more cannot be told apart


@dataclass(frozen=True)
class SweepResults:
    """The complete trials of a sweep.

    Args:
        axes: values of each axis, one per trial: numbers, or anything that is shown as text.
        accuracy: accuracy on the split as a fraction, mean over the seeds.
        spread: its standard deviation over the seeds, NaN for a single one.
        validation: validation accuracy; of trials that share a place in a figure the best by this one is shown.
        parameters: number of trained parameters.
        seeds: of each trial.
        metric: what the study optimised.
        maximize: whether it was maximised.
        history: the metric in the order in which trials started, and whether the trial was pruned.
        importance: share of each axis in the variance of the metric; empty if there are too few trials to tell.
        grid: whether the sweep is a grid.
        split: ``test``, or ``validation`` where there are no test data.
    """

    axes: Mapping[str, Sequence[Any]]
    accuracy: Float[np.ndarray, " trials"]
    spread: Float[np.ndarray, " trials"]
    validation: Float[np.ndarray, " trials"]
    parameters: Int[np.ndarray, " trials"]
    seeds: int = 1
    metric: str = "validation_accuracy"
    maximize: bool = True
    history: Sequence[tuple[float, bool]] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    grid: bool = True
    split: str = "test"

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], axes: Sequence[str], **others: Any) -> "SweepResults":
        """From the rows of a table of complete trials, at least one; ``others`` are further fields."""
        split = "test" if any(row["test_accuracy"] is not None for row in rows) else "validation"
        accuracy, spread, validation = (
            np.asarray([row[key] for row in rows], float)  # None becomes NaN
            for key in (f"{split}_accuracy", f"{split}_std", "validation_accuracy")
        )
        parameters = np.asarray([row["parameters"] for row in rows])
        columns = {key: [row[key] for row in rows] for key in axes}
        return cls(columns, accuracy, spread, validation, parameters, seeds=rows[0]["seeds"], split=split, **others)

    @property
    def label(self) -> str:
        """The accuracy, for an axis."""
        return f"{self.split} accuracy [%]" + (f", {self.seeds} seeds" if self.seeds > 1 else "")

    @property
    def varied(self) -> dict[str, int]:
        """Axes with more than one value, and their number of values."""
        return {name: count for name, values in self.axes.items() if (count := len(set(map(str, values)))) > 1}

    def best_of(self, *axes: str) -> list[int]:
        """Of the trials with the same values on these axes the best on the validation data each."""
        found: dict[tuple[str, ...], int] = {}
        for trial in range(len(self.accuracy)):
            key = tuple(str(self.axes[name][trial]) for name in axes)
            if key not in found or self.validation[trial] > self.validation[found[key]]:
                found[key] = trial
        return list(found.values())

    def second_axis(self, *taken: str) -> str | None:
        """The most important axis besides those ``taken``: of few names, otherwise of few numbers, otherwise of any."""

        def rank(name: str) -> tuple[bool, bool, float, int]:
            many, numbers = self.varied[name] > LINES, numeric(self.axes[name])
            return many, numbers, -self.importance.get(name, 0.0), self.varied[name]

        usable = [name for name in self.varied if self.varied[name] <= LINES or numeric(self.axes[name])]
        return min((name for name in usable if name not in taken), key=rank, default=None)
