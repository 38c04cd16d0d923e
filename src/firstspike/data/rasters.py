"""Spike times from rasters, the tensors of zeros and ones that libraries with time steps use."""

import math

import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import as_tensor
from firstspike.data.events import padded_trains
from firstspike.ranges import Positive, checks_ranges


@checks_ranges
def first_spikes(
    raster: Tensor | ArrayLike, dt: Positive, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, " batch *inputs"]:
    """First spike times of a raster, the tensor of zeros and ones that libraries with time steps use.

    Steps are counted from 0, and a spike in step `k` has the time `k * dt`. Later spikes of the same input are ignored.
    The result has no gradient.

    Args:
        raster: `(steps, batch, inputs)` or, for images, `(steps, batch, channels, height, width)`: time first, as in
            snnTorch, Norse and SpikingJelly. 0 and 1, or bool; a tensor, an array or a list.
        dt: length of a time step, in units of `tau_syn`.
        dtype: of the times.

    Returns:
        Times `(batch, inputs)` or `(batch, channels, height, width)`; `inf` for no spike in any step.

    Raises:
        ValueError: a raster of another shape, without steps, or with other values than 0 and 1; `dt` that is not a
            positive, finite number.
    """
    spikes = _checked(raster)
    times = spikes.to(torch.uint8).argmax(dim=0).double() * dt
    return torch.where(spikes.any(dim=0), times, math.inf).to(dtype)


@checks_ranges
def trains_from_raster(
    raster: Tensor | ArrayLike, dt: Positive, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch inputs spikes"]:
    """All spike times of a raster. `first_spikes` keeps the first spike of each input only.

    Args:
        raster: `(steps, batch, inputs)`, time first; 0 and 1, or bool; a tensor, an array or a list.
        dt: length of a time step, in units of `tau_syn`. A spike in step `k`, counted from 0, has the time `k * dt`.
        dtype: of the times.

    Returns:
        Times `(batch, inputs, spikes)`, sorted along the last dimension, `inf` after the last spike.

    Raises:
        ValueError: as `first_spikes`; more than three dimensions.
    """
    spikes = _checked(raster)
    if spikes.ndim != 3:
        raise ValueError(f"raster: expected (steps, batch, inputs), got {tuple(spikes.shape)}; flatten the inputs")
    _, batch, inputs = spikes.shape
    step, sample, source = spikes.nonzero(as_tuple=True)
    trains = padded_trains((sample * inputs + source).cpu(), step.cpu().double() * dt, batch * inputs)
    return trains.unflatten(0, (batch, inputs)).to(spikes.device, dtype)


def _checked(raster: Tensor | ArrayLike) -> Bool[Tensor, "steps batch *inputs"]:
    raster = as_tensor("raster", raster)
    if raster.ndim < 3 or not len(raster):
        one = "; for a single sample pass raster[:, None]" if raster.ndim == 2 else ""
        raise ValueError(
            f"raster: expected (steps, batch, inputs) with at least one step, got {tuple(raster.shape)}{one}"
        )
    spikes = raster != 0
    if not bool((spikes == raster).all()):
        other = raster[spikes & (raster != 1)][0].item()
        raise ValueError(f"raster: expected 0 and 1 only, got {other:g}; if these are spike counts, pass raster > 0")
    return spikes
