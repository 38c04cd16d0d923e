"""Spikes and gradients of layers in PyTorch, given a function from times and weights to spikes."""

from collections.abc import Callable
from typing import Any

import torch
from systems.base import Array, Found
from torch import Tensor

Call = Callable[[Tensor, Tensor], Tensor]


def first_of(
    call: Call, layer: Any, factors: Array | None, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Found:
    """``call`` makes first spikes (B, O), inf where there are none, from times (B, n) and weights (O, n).

    Its weights are ``scale`` times those of the layer.
    """
    times, weight = (torch.tensor(x, dtype=dtype) for x in (layer.times, layer.weights))
    if factors is None:
        with torch.no_grad():
            return Found(call(times, scale * weight).numpy())
    leaves = times.requires_grad_(), weight.requires_grad_()
    spikes = call(times, weight if scale == 1 else scale * weight)
    found = spikes.detach().clone().numpy()  # one system changes what it has returned in its backward pass
    total = (torch.where(spikes.isfinite(), spikes, 0.0) * torch.tensor(factors, dtype=dtype)).sum()
    by_time, by_weight = torch.autograd.grad(total, leaves, allow_unused=True)
    return Found(found, *(None if x is None else x.numpy() for x in (by_weight, by_time)))


def trains_of(call: Call, layer: Any, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Found:
    """``call`` makes trains (B, O, K), inf after the last spike."""
    times, weight = (torch.tensor(x, dtype=dtype) for x in (layer.times, layer.weights))
    leaves = times.requires_grad_(), weight.requires_grad_()
    spikes = call(times, weight if scale == 1 else scale * weight)
    trains = [[[t for t in train if t < torch.inf] for train in row] for row in spikes.tolist()]
    factors = torch.zeros(spikes.shape, dtype=dtype)
    for b, row in enumerate(layer.upstream):
        for o, upstream in enumerate(row):
            if len(upstream) == len(trains[b][o]):
                factors[b, o, : len(upstream)] = torch.tensor(upstream, dtype=dtype)
    total = (torch.where(spikes.isfinite(), spikes, 0.0) * factors).sum()
    by_time, by_weight = torch.autograd.grad(total, leaves, allow_unused=True)
    return Found(trains, *(None if x is None else x.numpy() for x in (by_weight, by_time)))
