"""Sequences window by window: starts of the windows, and the spikes in them."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from firstspike.spiketime.values import MOST_WINDOWS, values_of


def window_bounds(
    begin: float | None, until: float, window: float, dtype: torch.dtype, *trains: Tensor | None
) -> list[float]:
    """Starts of the windows of a piece of a sequence, and its end.

    Without a beginning the first window begins at ``-inf``, and ends so early that none of its spikes, which are later
    than all ``trains``, arrives in it. Bounds are numbers of the dtype, rounded like arrivals: a spike that is after
    one bound arrives at the next or later.
    """
    if not -math.inf < until < math.inf:
        raise ValueError(f"until must be finite, got {until}")
    start = earliest = 0.0
    if begin is not None:
        start = begin
        if not start < until:
            raise ValueError(f"until must be after {start:g}, the time of the state, got {until}")
    else:
        earliest = min((-largest(-x) for x in trains if x is not None and x.numel()), default=0.0)
        if -math.inf < earliest < 0:  # a whole number of windows, so that few batches differ in the last digits
            start = math.floor(earliest / window) * window
    if not (until - start) / window <= MOST_WINDOWS:
        raise ValueError(
            f"from {start:g} to {until:g} there are {(until - start) / window:.3g} windows, at most "
            f"{MOST_WINDOWS}: take a longer window than window={window:g}, or shorter pieces"
        )
    number = np.float32 if dtype == torch.float32 else np.float64
    step, end, bounds = number(window), number(until), [number(start)]
    if begin is None and bounds[0] > earliest:
        bounds[0] -= step
    while (following := bounds[-1] + step) < end:
        if not following > bounds[-1]:
            raise ValueError(
                f"window={window:g} is too short for times near {until:g} in {dtype}; take float64, or times that "
                "begin near 0"
            )
        bounds.append(following)
    return [-math.inf if begin is None else begin, *(float(x) for x in bounds[1:]), until]


def columns_within(trains: Tensor, start: float, end: float) -> Float[Tensor, "*batch sources spikes"]:
    """A part of sorted trains that has all spikes in a window, so that few others are sorted again."""
    before, inside = (values_of((trains < x).sum(dim=-1)) for x in (start, end))
    if not before.numel():
        return trains
    first, last = int(before.min()), int(inside.max())
    return trains[..., min(first, trains.shape[-1] - 1) : max(last, first + 1)]


def only_within(trains: Tensor, start: float, end: float) -> Float[Tensor, "*batch sources spikes"]:
    """The spikes after the start, up to the end, in trains of the same length."""
    return torch.where((trains > start) & (trains <= end), trains, math.inf).sort(dim=-1, stable=True).values


def joined_trains(inputs: Tensor, own: Tensor) -> Float[Tensor, "*batch sources spikes"]:
    """Trains of inputs and of the layer itself, the shorter ones filled up."""
    most = max(inputs.shape[-1], own.shape[-1])
    return torch.cat([functional.pad(x, (0, most - x.shape[-1]), value=math.inf) for x in (inputs, own)], dim=-2)


def largest(x: Tensor) -> float:
    """The largest number in a tensor, NaN if there is any."""
    return float(values_of(x).max())
