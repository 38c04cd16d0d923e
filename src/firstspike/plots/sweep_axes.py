"""Axes whose values are numbers or names."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

_TICKS = 10  # values with a tick each are at least this fraction of the axis apart


def numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers that have a place on an axis."""
    return all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)


def in_order(values: Sequence[Any]) -> list[str]:
    """The different values as text; numbers by their size, others as they come."""
    ordered = sorted(values) if numeric(values) else values
    return list(dict.fromkeys(map(str, ordered)))


def short(name: str) -> str | None:
    """A number with few digits; None for an empty name, which a legend leaves out."""
    try:
        return f"{float(name):.4g}"
    except ValueError:
        return name or None


def places_of(values: Sequence[Any], ax: Axes, vertical: bool = False) -> np.ndarray:
    """The places of values on an axis, which gets its ticks."""
    if numeric(values):
        number_axis(ax, sorted(set(values)), vertical)
        return np.asarray(values, float)
    names = in_order(values)
    (ax.set_yticks if vertical else ax.set_xticks)(range(len(names)), names)
    return np.asarray([names.index(str(value)) for value in values], float)


def dodged(places: np.ndarray, group: np.ndarray, log: bool = False) -> np.ndarray:
    """Places where groups that share some stand side by side.

    Args:
        places: on the axis ``(trials,)``.
        group: numbers of groups from 0 on ``(trials,)``.
        log: whether the axis is logarithmic.
    """
    groups = int(group.max()) + 1
    if groups < 2 or len(np.unique(places)) == len(places):
        return places
    scaled = np.log(places) if log else places
    different = np.unique(scaled)
    gap = np.diff(different).min() if len(different) > 1 else 1.0
    step = max(0.3 * gap / (groups - 1), 0.012 * np.ptp(different))
    shifted = scaled + step * (group - (groups - 1) / 2)
    return np.exp(shifted) if log else shifted


def wide(values: Sequence[float]) -> bool:
    """Whether sorted numbers span so much that they need a logarithmic scale."""
    return values[0] > 0 and values[-1] / values[0] >= (8 if len(values) < 4 else 30)


def number_axis(ax: Axes, values: list[float], vertical: bool = False) -> None:
    """A tick at each value if they are few; logarithmic if they span much."""
    axis = ax.yaxis if vertical else ax.xaxis
    log = wide(values)
    if log:
        (ax.set_yscale if vertical else ax.set_xscale)("log")
    scaled = np.log(values) if log else np.asarray(values, float)
    near = len(values) > 1 and np.diff(scaled).min() < np.ptp(scaled) / _TICKS
    if not near:
        axis.set_major_locator(FixedLocator(values))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.4g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
