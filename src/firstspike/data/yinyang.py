"""The Yin-Yang data set (Kriener, Göltz, Petrovici, 2022, arXiv 2102.08211), sample for sample.

The published generator draws from one `numpy.random.RandomState`: for every sample a goal class by `randint(3)`, then
points by `rand(2)` until one lies in the disc and has that class. How many random words a sample takes is known only
after it has been drawn, so the definition is sequential. Its costly part is not: here all words are drawn at once,
the class of the point that would start at *each* word is found in one sweep, and a loop goes from point to point.
"""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64, Int64, UInt32
from numpy.typing import ArrayLike

from firstspike.data.base import SpikeData
from firstspike.data.encoding import latency
from firstspike.ranges import Finite, NotNegative, Positive, Size, checks_ranges

CLASS_NAMES = ("yin", "yang", "dot")
"""The published names of the classes 0, 1, 2. The generator's own code calls the region of class 1 'yin'."""

_WORDS_PER_POINT = 4  # two coordinates, each a double made of two 32-bit words


@checks_ranges
def yin_yang(
    samples: Size = 5000,
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 42,
    r_small: Positive = 0.1,
    r_big: Annotated[float, Gt(0), Le(0.5)] = 0.5,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Points in the Yin-Yang symbol, three classes, as four spike times.

    A point is the input `(x, y, 1 - x, 1 - y)`, a value `v` spikes at `early + v (late - early)`.
    Samples equal those of the published generator for the same `samples`, `seed` and radii. The published
    splits are train (5000, seed 42), validation (1000, seed 41), test (1000, seed 40).

    Args:
        samples: number of samples.
        seed: seed of `numpy.random.RandomState`, 0 ... 2**32 - 1.
        r_small: radius of the two dots, from `r_big/20` to below `r_big/2`.
        r_big: radius of the symbol, at most 0.5.
        early: spike time of value 0, in units of `tau_syn`.
        late: spike time of value 1.
        dtype: of the times. They are computed in float64 first.

    Returns:
        Times `(samples, 4)`, all finite, and labels `(samples,)`. `yin_yang_class` explains the labels.

    Raises:
        ValueError: `samples` below 1, a seed or radius out of range, a window that violates `0 <= early < late`.
    """
    if not r_big / 20 <= r_small < r_big / 2:
        raise ValueError(
            f"r_small, r_big: expected r_small from r_big/20 to below r_big/2, got {r_small} and {r_big}. Smaller dots "
            "are too rare to be found by rejection."
        )
    points, labels = _sample(samples, seed, r_small, r_big)
    values = torch.from_numpy(np.concatenate([points, 1 - points], axis=1))
    return SpikeData(latency(values, early, late).to(dtype), torch.from_numpy(labels), CLASS_NAMES)


def yin_yang_class(x: ArrayLike, y: ArrayLike, r_small: float = 0.1, r_big: float = 0.5) -> Int64[np.ndarray, "*shape"]:
    """Class of the points `(x, y)`: 2 in a dot, 1 and 0 in the two halves, -1 outside the symbol.

    With `d_r`, `d_l` the distances to the right and left dot's centre, a point of the disc is of class 2 if
    `d_r < r_small` or `d_l < r_small`; otherwise of class 1 if `d_r <= r_small`, or
    `r_small < d_l <= r_big/2`, or `y > r_big` and `d_r > r_big/2`; otherwise of class 0. The symbol spans
    `[0, 2 r_big]`.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)

    def distance(centre: float) -> Float64[np.ndarray, "*shape"]:
        return np.sqrt((x - centre) ** 2 + (y - r_big) ** 2)

    d_l, d_r = distance(0.5 * r_big), distance(1.5 * r_big)
    dot = (d_r < r_small) | (d_l < r_small)
    one = (d_r <= r_small) | ((d_l > r_small) & (d_l <= r_big / 2)) | ((y > r_big) & (d_r > r_big / 2))
    classes = np.where(dot, 2, one.astype(np.int64))
    return np.where(distance(r_big) <= r_big, classes, -1)


def _sample(
    size: int, seed: int, r_small: float, r_big: float
) -> tuple[Float64[np.ndarray, "size 2"], Int64[np.ndarray, " size"]]:
    """Points and labels of the published generator; longer stretches of random words until they suffice."""
    count = 40 * size + 1000  # a sample takes 30 words on average
    while True:
        words = np.random.RandomState(seed).randint(2**32, size=count, dtype=np.uint32)
        points = _points(words) * 2 * r_big
        classes = yin_yang_class(points[:, 0], points[:, 1], r_small, r_big)
        chosen = _walk(words, classes, size)
        if len(chosen) == size:
            return points[chosen], classes[chosen]
        count *= 2


def _points(words: UInt32[np.ndarray, " words"]) -> Float64[np.ndarray, "points 2"]:
    """The results of `RandomState.rand(2)` whose first word is number i, for every i."""
    high, low = (words[:-1] >> 5).astype(np.float64), (words[1:] >> 6).astype(np.float64)
    uniform = (high * 2.0**26 + low) / 2.0**53
    return np.stack([uniform[:-2], uniform[2:]], axis=1)


def _walk(words: UInt32[np.ndarray, " words"], classes: Int64[np.ndarray, " points"], size: int) -> list[int]:
    """Word numbers at which the accepted points start; fewer than `size` if the words run out."""
    goals, found, chosen = (words & 3).tolist(), classes.tolist(), list[int]()
    position = 0
    try:
        while len(chosen) < size:
            while (goal := goals[position]) == 3:  # randint(3) takes two bits of a word, and draws again
                position += 1
            position += 1
            while found[position] != goal:
                position += _WORDS_PER_POINT
            chosen.append(position)
            position += _WORDS_PER_POINT
    except IndexError:
        pass
    return chosen
