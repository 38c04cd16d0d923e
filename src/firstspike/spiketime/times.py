"""What spike times are, and how to convert what is not.

The checks here read shapes and types only, and the values of rare tensors: they cost a training step nothing.
"""

import warnings
from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor

from firstspike.devices import read_at_once

FROM_RASTER = (
    "a raster of 0 and 1 with the shape (steps, batch, inputs) becomes spike times by "
    "firstspike.data.first_spikes(raster, dt)"
)
"""How to convert what other libraries for spiking networks take; ``dt`` is the length of a time step."""


def check_tensor(name: str, value: Any) -> None:
    """Raise a ValueError that says how to convert the value, unless it is a tensor."""
    if not isinstance(value, Tensor):
        shape = getattr(value, "shape", (len(value),) if isinstance(value, Sized) else None)
        form = "" if shape is None else f" of shape {tuple(shape)}"
        raise ValueError(
            f"{name} must be a torch tensor, got {type(value).__name__}{form}; "
            f"write torch.as_tensor({name}, dtype=torch.float32)"
        )


def check_times(times: Any) -> None:
    """Raise a ValueError unless these may be spike times ``(..., inputs)``; warn of what looks like a raster."""
    check_tensor("times", times)
    if not times.is_floating_point():
        raise ValueError(f"times must be float32 or float64, got {times.dtype}: {not_floating(times)}")
    if times.ndim > 2 and _is_raster(times):
        warnings.warn(
            f"times of shape {tuple(times.shape)} are 0 and 1 only. Layers take the time of each input's first spike, "
            f"(batch, inputs): {FROM_RASTER}",
            stacklevel=2,
        )


def not_floating(times: Tensor) -> str:
    """What to do with times that are no floating-point numbers."""
    if times.ndim > 2 or times.dtype == torch.bool:
        return FROM_RASTER
    return "spike times are real numbers in the unit of tau_syn; numbers of steps become times by times * step"


def _is_raster(times: Tensor) -> bool:
    """Whether all values are 0 or 1, and both occur. Of most other tensors a single value is read, on a GPU none."""
    if torch.compiler.is_compiling() or not times.numel() or not read_at_once(times.device):
        return False
    values = times.detach()
    try:
        if float(values[(0,) * values.ndim]) not in (0.0, 1.0):
            return False
        ones = values == 1
        return bool((ones | (values == 0)).all()) and bool(ones.any()) and not bool(ones.all())
    except RuntimeError:  # values cannot be read in torch.func.vmap and on the device meta
        return False
