"""XOR in spike times: the smallest problem that needs a hidden layer."""

import torch

from firstspike.data.base import SpikeData, balanced_labels, check_at_least, seeded_generator
from firstspike.data.encoding import latency
from firstspike.data.splits import independent_splits
from firstspike.ranges import Finite, NotNegative, Seed, Size

CLASS_NAMES = ("equal", "different")


def xor(
    samples: Size = 200,
    seed: Seed = 42,
    noise: NotNegative = 0.0,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Two inputs, each early or late: do they spike together?

    Both early and both late differ only by a shift in time, which a network sees only against a bias spike.

    Args:
        samples: number of samples; the four combinations are balanced.
        seed: of their order and of the noise.
        noise: standard deviation of Gaussian noise on the spike times, in units of `tau_syn`;
            times never fall below 0.
        early: spike time of logical 0, in units of `tau_syn`.
        late: spike time of logical 1.
        dtype: of the times.

    Returns:
        Times `(samples, 2)`, all finite, and labels `(samples,)`: 0 = equal, 1 = different.

    Raises:
        ValueError: `samples` below 1, `noise` below 0, a window that violates `0 <= early < late`.
    """
    check_at_least("noise", noise, 0)
    generator = seeded_generator(seed)
    combination = balanced_labels(samples, 4, generator)
    bits = torch.stack([combination // 2, combination % 2], dim=1)
    times = latency(bits.double(), early, late)
    times = (times + noise * torch.randn(times.shape, generator=generator, dtype=torch.float64)).clamp(min=0)
    return SpikeData(times.to(dtype), (bits[:, 0] != bits[:, 1]).long(), CLASS_NAMES)


xor_splits = independent_splits(xor, train=200, validation=100, test=100)
