"""Spike trains from lists of events and from rasters; the form that they have in tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import as_tensor
from firstspike.data.encoding import checked_raster

MOST_TIMES = 2**31
"""Most times of one tensor of trains, with padding: 8 GiB in float32."""


def trains_from_events(
    events: Sequence[tuple[ArrayLike | Tensor, ArrayLike | Tensor]], inputs: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "samples inputs spikes"]:
    """Spike trains from events: what event cameras, artificial cochleas and simulators record.

    Args:
        events: for each sample the times of its spikes, in units of `tau_syn`, and the number of the input that each
            spike belongs to; both `(spikes,)`, in any order.
        inputs: number of inputs.
        dtype: of the times.

    Returns:
        Times `(samples, inputs, spikes)`, sorted along the last dimension, `inf` after the last spike of an input. That
        dimension is as long as the busiest input needs, at least 1.

    Raises:
        ValueError: samples that are not pairs of times and inputs, times and inputs of different lengths, times that
            are not finite, inputs that are not whole numbers or do not exist, trains that would not fit into memory.
    """
    rows, times, _ = sorted_events(events, inputs)
    trains = padded_trains(rows, times.to(dtype), len(events) * inputs, in_order=True)
    return trains.unflatten(0, (len(events), inputs))


def sorted_events(
    events: Sequence[tuple[ArrayLike | Tensor, ArrayLike | Tensor]], inputs: int
) -> tuple[Int64[Tensor, " events"], Float64[Tensor, " events"], list[int]]:
    """Checked events of all samples, sorted by sample, input and time.

    Returns:
        The train of each, ``sample * inputs + input``, their times, and how many each sample has.

    Raises:
        ValueError: see `trains_from_events`.
    """
    if not isinstance(inputs, int | np.integer) or not 1 <= inputs <= MOST_TIMES:
        raise ValueError(f"inputs: expected their number, from 1 to {MOST_TIMES}, got {inputs!r}")
    rows, times = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.float64)]
    for sample, pair in enumerate(events):
        time, source = _pair(pair, sample)
        if time.ndim != 1 or time.shape != source.shape:
            raise ValueError(
                f"events: expected as many times as inputs, got {tuple(time.shape)} and {tuple(source.shape)} for "
                f"sample {sample}"
            )
        if not bool(torch.isfinite(time).all()):
            raise ValueError(f"events: expected finite times, got NaN or inf for sample {sample}; leave them out")
        check_whole("inputs", source, f" for sample {sample}")
        if len(source) and not 0 <= int(source.min()) <= int(source.max()) < inputs:
            raise ValueError(
                f"events: expected inputs from 0 to {inputs - 1}, got {int(source.min())} ... {int(source.max())} for "
                f"sample {sample}"
            )
        row = sample * inputs + source.long()
        order = time.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]
        rows.append(row[order])
        times.append(time[order])
    return torch.cat(rows), torch.cat(times), [len(x) for x in rows[1:]]


def _pair(pair: Any, sample: int) -> tuple[Float64[Tensor, " events"], Tensor]:
    """Times and inputs of the events of a sample."""
    try:
        when, where = [] if isinstance(pair, Mapping | str) else pair
    except (TypeError, ValueError):
        size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise ValueError(
            f"events: expected a pair (times, inputs) for each sample, got a {type(pair).__name__}{size} for sample "
            f"{sample}; a single sample is [(times, inputs)]"
        ) from None
    return as_tensor("times", when, torch.float64).double(), as_tensor("inputs", where, torch.float64)


def check_whole(name: str, numbers: Tensor, place: str = "") -> None:
    """Raise a ValueError that names the first of these numbers that is not whole."""
    if numbers.is_floating_point() and len(wrong := numbers[numbers != numbers.floor()]):
        raise ValueError(f"{name}: expected whole numbers, got {float(wrong[0]):g}{place}; round or renumber them")


def padded_trains(
    rows: Int64[Tensor, " events"], times: Float[Tensor, " events"], count: int, in_order: bool = False
) -> Float[Tensor, "rows spikes"]:
    """Sorted trains, padded with `inf`.

    Args:
        rows: the train of each event.
        times: of the events.
        count: number of trains.
        in_order: whether events are sorted by train and time; otherwise they are in any order.

    Raises:
        ValueError: trains that would not fit into memory.
    """
    if not in_order:
        order = times.argsort(stable=True)
        order = order[rows[order].argsort(stable=True)]
        rows, times = rows[order], times[order]
    spikes = rows.unique_consecutive(return_counts=True)[1]  # of the inputs that have any
    most = int(spikes.max()) if len(spikes) else 1
    if count * most > MOST_TIMES:
        raise ValueError(
            f"trains: {count} inputs of all samples, of which the busiest has {most} spikes, are {count * most} times "
            f"with padding; the most are {MOST_TIMES}: keep them as fs.data.event_lists, or take fewer samples"
        )
    place = torch.arange(len(rows)) - (spikes.cumsum(0) - spikes).repeat_interleave(spikes)
    trains = torch.full((count, most), math.inf, dtype=times.dtype)
    trains[rows, place] = times
    return trains


def trains_from_raster(
    raster: Tensor | ArrayLike, dt: float, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch inputs spikes"]:
    """All spike times of a raster, the tensor of zeros and ones that libraries with time steps use.

    As `first_spikes`, which keeps the first spike of each input only.

    Args:
        raster: `(steps, batch, inputs)`, time first; 0 and 1, or bool; a tensor, an array or a list.
        dt: length of a time step, in units of `tau_syn`; a spike in step `k`, counted from 0, has the time `k * dt`.
        dtype: of the times.

    Returns:
        Times `(batch, inputs, spikes)`, sorted along the last dimension, `inf` after the last spike.

    Raises:
        ValueError: as `first_spikes`; more than three dimensions.
    """
    spikes = checked_raster(raster, dt)
    if spikes.ndim != 3:
        raise ValueError(f"raster: expected (steps, batch, inputs), got {tuple(spikes.shape)}; flatten the inputs")
    _, batch, inputs = spikes.shape
    step, sample, source = spikes.nonzero(as_tuple=True)
    trains = padded_trains((sample * inputs + source).cpu(), step.cpu().double() * dt, batch * inputs)
    return trains.unflatten(0, (batch, inputs)).to(spikes.device, dtype)
