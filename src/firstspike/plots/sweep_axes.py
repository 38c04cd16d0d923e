"""Axes whose values are numbers or names."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from firstspike.plots.style import as_text

_TICKS = 10  # values with a tick each are at least this fraction of the axis apart


def numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers that have a place on an axis."""
    return all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)


def in_order(values: Sequence[Any]) -> list[str]:
    """The different values as text; numbers by their size, others as they come."""
    ordered = sorted(values) if numeric(values) else values
    return list(dict.fromkeys(map(str, ordered)))


def short(name: str) -> str:
    """A name, to be drawn; a number with few digits."""
    try:
        return f"{float(name):.4g}"
    except ValueError:
        return as_text(name)


def places_of(values: Sequence[Any], ax: Axes, vertical: bool = False) -> np.ndarray:
    """The places of values on an axis, which gets its ticks."""
    if numeric(values):
        number_axis(ax, sorted(set(values)), vertical)
        return np.asarray(values, float)
    names = in_order(values)
    long = not vertical and sum(map(len, names)) > 30  # letters
    turned: dict[str, Any] = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if long else {}
    (ax.set_yticks if vertical else ax.set_xticks)(range(len(names)), [as_text(name) for name in names], **turned)
    return np.asarray([names.index(str(value)) for value in values], float)


def side_by_side(places: np.ndarray, order: np.ndarray, log: bool = False, near: float = 0.0) -> np.ndarray:
    """Places on an axis ``(trials,)``, moved apart in the given order where they are up to ``near`` axes apart."""
    scaled = np.log(places) if log else np.array(places, float)
    width = np.ptp(scaled) or 1.0
    ranked = np.lexsort((order, scaled))
    groups = np.split(ranked, np.flatnonzero(np.diff(scaled[ranked]) > near * width) + 1)
    most = max(map(len, groups))
    if most == 1:
        return places
    centres = [scaled[group].mean() for group in groups]
    gap = np.diff(centres).min() if len(centres) > 1 else 1.0
    step = max(0.2 * gap / (most - 1), 0.012 * width)
    for group, centre in zip(groups, centres, strict=True):
        offsets = step * (np.arange(len(group)) - (len(group) - 1) / 2)
        scaled[group[np.argsort(order[group], kind="stable")]] = centre + offsets
    return np.exp(scaled) if log else scaled


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
    if len(values) == 1 or np.diff(scaled).min() >= np.ptp(scaled) / _TICKS:
        axis.set_major_locator(FixedLocator(values))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.4g}"))
        axis.set_minor_locator(NullLocator())
