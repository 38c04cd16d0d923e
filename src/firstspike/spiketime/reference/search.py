"""Bounds of a value in a piece of time, and the root of one that rises."""

from collections.abc import Callable

import torch

from firstspike.spiketime.reference.loop import Some, Values

_STEPS = 200  # of a search, which halves its brackets at least


def course_of(
    value: Values, slope: Values, bend: Values, change: Values, slope_at_end: Values, time: Values | float
) -> tuple[Values, Some, Some, Some]:
    """A bound of a value in some time, and whether it falls, rises, or bends: is concave, with one maximum at most.

    From the value and two derivatives at the start, a bound of the third, and the first at the end. If none of the
    three holds, the time has to be cut.
    """
    most = value + slope.clamp(min=0) * time + bend.clamp(min=0) * time**2 / 2 + change * time**3 / 6
    bends = bend + change * time < 0
    falls = slope + bend.clamp(min=0) * time + change * time**2 / 2 <= 0
    rises = slope + bend.clamp(max=0) * time - change * time**2 / 2 >= 0
    return most, falls, rises | (bends & (slope_at_end >= 0)), bends


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
