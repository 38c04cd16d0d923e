"""Spike trains in as few columns as their values need."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor


def within(trains: Tensor, start: float, end: float) -> Float[Tensor, "*batch sources spikes"]:
    """A part of sorted trains that has all spikes in a window, so that few others are sorted again."""
    before, inside = (values_of((trains < x).sum(dim=-1)) for x in (start, end))
    if not before.numel():
        return trains
    first, last = int(before.min()), int(inside.max())
    return trains[..., min(first, trains.shape[-1] - 1) : max(last, first + 1)]


def values_of(x: Tensor) -> Tensor:
    """The values of a tensor, also within torch.func.vmap: there those of all calls side by side, in any dimension."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.detach()


def largest(x: Tensor) -> float:
    """The largest number in a tensor, NaN if there is any."""
    return float(values_of(x).max())


def first_columns(trains: Tensor, most: int, overflow: str) -> Tensor:
    """The first ``most`` columns of trains; where some are longer, an error or a warning, as ``overflow`` says."""
    more = values_of(torch.isfinite(trains[..., most]))
    if overflow != "drop" and bool(more.any()):
        message = (
            f"{int(more.sum())} of {more.numel()} neurons (counted in each sample) spike more than "
            f"max_spikes={most} times; raise max_spikes or lower the weights"
        )
        if overflow == "error":
            raise ValueError(f"{message}, or drop the later spikes with overflow='warn' or 'drop'")
        warnings.warn(f"{message}. Their later spikes are dropped", stacklevel=2)
    return trains[..., :most]
