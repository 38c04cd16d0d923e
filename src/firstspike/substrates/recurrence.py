"""Layers whose neurons are connected to each other, on substrates that move or lose single spikes.

A spike arrives at other neurons after a delay of at least the window of its layer. In slices of half a window, what
arrives in a slice left its neuron before the slice, even if it was moved ahead by up to half a window.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import LIFRecurrent


def slices(inputs: Float[Tensor, "batch inputs spikes"], duration: float, window: float) -> list[tuple[float, float]]:
    """Starts and ends of slices of half a window.

    The first one ends within half a window after the earliest input, or after 0 if all inputs are later.
    """
    half = window / 2
    count = max(1, math.ceil(duration / half - 1e-9))
    earliest = min(0.0, float(inputs.amin())) if inputs.numel() else 0.0
    return list(pairwise([-math.inf, *(k * half for k in range(math.floor(earliest / half) + 1, count)), duration]))


def no_spikes(layer: LIFRecurrent, like: Tensor) -> Float[Tensor, "batch neurons 1"]:
    """Trains of a layer before its first spike."""
    return like.new_full((len(like), layer.out_features, 1), math.inf)


def joined(
    *trains: Float[Tensor, "batch neurons spikes"], since: float = -math.inf
) -> Float[Tensor, "batch neurons all"]:
    """Trains of the same neurons as one, sorted and as long as the longest; only spikes after ``since``."""
    both = torch.cat(trains, dim=-1)
    both = torch.where(both > since, both, math.inf).sort(dim=-1).values
    counts = torch.isfinite(both).sum(dim=-1)
    return both[..., : max(1, int(counts.max()) if counts.numel() else 0)]
