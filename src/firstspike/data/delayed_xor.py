"""Delayed exclusive or: a task that first spikes cannot solve, as every input spikes first at the same time."""

import math

import torch

from firstspike.data.base import SpikeData, balanced_labels, check_at_least, seeded_generator
from firstspike.data.encoding import check_window
from firstspike.data.splits import independent_splits
from firstspike.data.xor import CLASS_NAMES
from firstspike.ranges import Finite, NotNegative, Seed, Size


def delayed_xor(
    samples: Size = 200,
    seed: Seed = 42,
    noise: NotNegative = 0.0,
    early: NotNegative = 0.15,
    late: Finite = 6.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Two cues, one after the other, each on one of two inputs: were both on the same one?

    Both inputs spike at the start. The first cue, halfway, and the second one, at the end, are each a spike of input 0
    or of input 1. First spikes are the same in all samples: with these alone no network is better than guessing. With
    all spikes it has to remember the first cue until the second one comes.

    Args:
        samples: number of samples; the four combinations are balanced.
        seed: of their order and of the noise.
        noise: standard deviation of Gaussian noise on the spike times, in units of `tau_syn`; times never fall below 0.
        early: time of the start, in units of `tau_syn`.
        late: time of the second cue.
        dtype: of the times.

    Returns:
        Spike trains `(samples, 2, 3)`, padded with `inf`, and labels `(samples,)`: 0 = equal, 1 = different.

    Raises:
        ValueError: `samples` below 1, `noise` below 0, a window that violates `0 <= early < late`.
    """
    check_at_least("noise", noise, 0)
    check_window(early, late)
    generator = seeded_generator(seed)
    combination = balanced_labels(samples, 4, generator)
    cues = torch.stack([combination // 2, combination % 2], dim=1)
    times = torch.full((samples, 2, 3), math.inf, dtype=torch.float64)
    times[..., 0] = early
    for place, time in enumerate(((early + late) / 2, late)):
        times[torch.arange(samples), cues[:, place], 1 + place] = time
    times = (times + noise * torch.randn(times.shape, generator=generator, dtype=torch.float64)).clamp(min=0)
    return SpikeData(times.sort(dim=-1).values.to(dtype), (cues[:, 0] != cues[:, 1]).long(), CLASS_NAMES)


delayed_xor_splits = independent_splits(delayed_xor, train=200, validation=100, test=100)
