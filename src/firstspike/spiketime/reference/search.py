"""Bounds of a value in a piece of time, and the root of one that rises."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

_STEPS = 200  # of a search, which halves its brackets at least

Values = Float64[Tensor, " P"]


class Course(NamedTuple):
    """The course of a value in some time. If none of the last three holds, the time has to be cut."""

    most: Values
    """An upper bound."""
    falls: Bool[Tensor, " P"]
    rises: Bool[Tensor, " P"]
    bends: Bool[Tensor, " P"]
    """Whether it is concave, and so has one maximum at most."""


def course_of(
    value: Values, slope: Values, bend: Values, change: Values, slope_at_end: Values, time: Values | float
) -> Course:
    """The course from the value and two derivatives at the start, a bound of the third, and the first at the end."""
    most = value + slope.clamp(min=0) * time + bend.clamp(min=0) * time**2 / 2 + change * time**3 / 6
    bends = bend + change * time < 0
    falls = slope + bend.clamp(min=0) * time + change * time**2 / 2 <= 0
    rises = slope + bend.clamp(max=0) * time - change * time**2 / 2 >= 0
    return Course(most, falls, rises | (bends & (slope_at_end >= 0)), bends)


def root_within(of: Callable[[Values], tuple[Values, Values]], high: Values) -> Values:
    """Where a value that rises from below 0 at 0 to 0 or more at ``high`` is 0: Newton's method within brackets.

    ``of`` gives value and derivative.
    """
    low, s = torch.zeros_like(high), high / 2
    for _ in range(_STEPS):
        value, slope = of(s)
        low, high = torch.where(value < 0, s, low), torch.where(value < 0, high, s)
        step = s - value / slope
        step = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        moves, s = (step - s).abs() > 2e-16 * s, step
        if not bool((moves & (high - low > 2e-16 * high)).any()):
            break
    return s
