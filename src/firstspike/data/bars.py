"""Bars: small square images with one line, the classic first test of a spiking classifier."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from jaxtyping import Float64
from torch import Tensor

from firstspike.data.base import MOST_INPUTS, SpikeData, balanced_labels, check_at_least, seeded_generator
from firstspike.data.encoding import latency
from firstspike.data.splits import independent_splits
from firstspike.ranges import Finite, NotNegative, Seed, Size

CLASS_NAMES = ("horizontal", "vertical", "diagonal")


def bars(
    size: Annotated[int, Ge(2), Le(200)] = 3,
    samples: Size = 300,
    noise: NotNegative = 0.0,
    multiply: Size = 1,
    seed: Seed = 42,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    silent_background: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Square images with one dark bar, whose pixels spike early; the class is the bar's direction.

    The data set of Göltz et al., Nat. Mach. Intell. 3, 823 (2021), at any size. A class has `size`
    horizontal or vertical bars, or the two diagonals. Classes are balanced; the bar is drawn at random.

    Args:
        size: side of the image, at least 2.
        samples: number of samples.
        noise: standard deviation of Gaussian noise on the pixel values (bar 1, background 0), which are
            then clipped to [0, 1].
        multiply: copies of each input, side by side.
        seed: of the order, the choice of bars and the noise.
        early: spike time of a dark pixel, in units of `tau_syn`.
        late: spike time of the background.
        silent_background: background pixels (after noise: those of value 0) never spike: `inf`.
        dtype: of the times.

    Returns:
        Times `(samples, multiply size**2)`, pixels row by row, and labels `(samples,)`.

    Raises:
        ValueError: a size, number or noise below its minimum, a window that violates `0 <= early < late`.
    """
    check_at_least("size", size, 2)
    check_at_least("noise", noise, 0)
    check_at_least("multiply", multiply, 1)
    if size**2 * multiply > MOST_INPUTS:
        raise ValueError(f"size, multiply: expected at most {MOST_INPUTS} inputs, got {size**2 * multiply}")
    generator = seeded_generator(seed)
    labels = balanced_labels(samples, len(CLASS_NAMES), generator)
    bars_of_class = torch.tensor([size, size, 2])
    first_of_class = torch.tensor([0, size, 2 * size])
    draw = torch.rand(samples, generator=generator, dtype=torch.float64)
    chosen = first_of_class[labels] + (draw * bars_of_class[labels]).long()
    pixels = _images(size)[chosen].flatten(1)
    disturbance = noise * torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    pixels = (pixels + disturbance).clamp(0, 1)
    times = latency(pixels, early, late, invert=True, silent_background=silent_background)
    times = times.repeat_interleave(multiply, dim=1).to(dtype)
    if multiply > 1:
        return SpikeData(times, labels, CLASS_NAMES)
    return SpikeData(times, labels, CLASS_NAMES, (1, size, size), (math.inf if silent_background else late,))


bars_splits = independent_splits(bars, train=300, validation=90, test=90)


def _images(size: int) -> Float64[Tensor, "bars size size"]:
    """All horizontal bars, all vertical bars, the main and the anti-diagonal; 1 on the bar."""
    eye = torch.eye(size, dtype=torch.float64)
    horizontal = eye[:, :, None].expand(size, size, size)
    vertical = eye[:, None, :].expand(size, size, size)
    return torch.cat([horizontal, vertical, torch.stack([eye, eye.flip(1)])])
