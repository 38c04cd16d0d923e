"""Layers whose neurons are connected to each other, in slices of half a window.

A spike arrives at other neurons after a delay of at least the window of its layer. So what arrives in a slice left its
neuron before the slice, even if it was moved ahead by up to half a window.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import LIFRecurrent
from firstspike.layers.windows import columns_within, joined_trains

Trains = Float[Tensor, "batch sources spikes"]


def looped(
    inputs: Trains,
    neurons: int,
    duration: float,
    window: float,
    reach: float,
    fire: Callable[[Trains, float, Any], tuple[Trains, Trains, Any]],
) -> Trains:
    """All spikes of such neurons up to ``duration``, sorted.

    ``fire(trains, end, state)`` takes the inputs and, after them, the neurons' own spikes: those that have returned by
    ``end``, with whatever delay ``fire`` has given them or, up to ``reach``, adds now. It gives the spikes of the slice
    up to ``end``, the same as they return, and the state then, which is None at first.
    """
    spikes = own = inputs.new_full((len(inputs), neurons, 1), math.inf)
    start, state = -math.inf, None
    for end in _slices(inputs, duration, window):
        fired, back, state = fire(joined_trains(inputs, own), end, state)
        spikes, own = joined(spikes, fired), joined(own, back, since=start - reach)
        start = end
    return torch.where(spikes <= duration, spikes, math.inf)


def all_delays(layer: LIFRecurrent, delay: Tensor | None, own_delay: Tensor) -> tuple[Tensor | None, float]:
    """Delays of all synapses and, in addition, of all own spikes: without those of synapses kernels are faster."""
    if delay is None and layer.recurrent_delays is None:
        return None, layer.window
    return torch.cat([torch.zeros_like(layer.weight) if delay is None else delay, own_delay], dim=1), 0.0


def _slices(inputs: Trains, duration: float, window: float) -> list[float]:
    """Ends of slices of half a window, the first within one after the earliest input, or after 0 if all are later."""
    half = window / 2
    count = max(1, math.ceil(duration / half - 1e-9))
    earliest = min(0.0, float(inputs.amin())) if inputs.numel() else 0.0
    return [*(k * half for k in range(math.floor(earliest / half) + 1, count)), duration]


def joined(*trains: Trains, since: float = -math.inf) -> Trains:
    """Trains of the same neurons as one, sorted and as long as the longest; only spikes after ``since``."""
    both = torch.cat(trains, dim=-1)
    both = torch.where(both > since, both, math.inf).sort(dim=-1).values
    return columns_within(both, -math.inf, math.inf)
