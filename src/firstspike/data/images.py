"""Images as spike times, one spike per pixel; and scikit-learn's digits."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from firstspike.data.base import SpikeData, Splits
from firstspike.data.encoding import latency
from firstspike.ranges import Finite, NotNegative, Seed, Size
from firstspike.signature import takes_arguments_of
from firstspike.text import needed

DIGITS = tuple("0123456789")
_CHUNK = 5000  # images at once: their brightness as an index takes as much memory as their times
_LEVELS = 16  # a pixel of the digits counts the dark ones of 4x4 scanned dots


def encode_images(
    pixels: UInt8[np.ndarray, "images height width"],
    labels: Int64[Tensor, " images"],
    class_names: tuple[str, ...],
    levels: int = 255,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    invert: bool = True,
    silent_background: bool = False,
    on_off: bool = False,
    curvature: NotNegative = 0.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Images of brightness `0 ... levels` whose bright pixels spike early.

    Args:
        early: time of the earliest spikes, in units of `tau_syn`.
        late: time of the latest spikes.
        invert: bright pixels (or ink) spike at `early`, dark ones at `late`; otherwise the other way round.
        silent_background: pixels whose spike would come at `late` never spike: `inf`.
        on_off: two inputs for each pixel: an "on" channel as described above, and after all of them an "off" channel
            encoded the other way round, so that dark pixels also spike early.
        curvature: 0 for times that are linear in brightness. Above 0 they are logarithmic, which spreads dark levels
            over more of the window: `late - (late - early) * log(1 + curvature * b) / log(1 + curvature)` for a
            brightness `b` in [0, 1]. 255 gives each doubling of the level the same step.
        dtype: of the times.
    """
    brightness = torch.arange(levels + 1, dtype=torch.float64) / levels
    ways = (invert, not invert) if on_off else (invert,)
    tables = [latency(_curved(brightness, way, curvature), early, late, way, silent_background) for way in ways]
    height, width = pixels.shape[1:]
    times = torch.empty(len(pixels), len(tables), height, width, dtype=dtype)
    for start in range(0, len(pixels), _CHUNK):
        index = torch.from_numpy(pixels[start : start + _CHUNK].astype(np.int32))
        for channel, table in enumerate(tables):
            times[start : start + _CHUNK, channel] = table.to(dtype)[index]
    blank = tuple(float(table[0]) for table in tables)
    return SpikeData(times.flatten(1), labels, class_names, (len(tables), height, width), blank)


def _curved(brightness: Float64[Tensor, " levels"], invert: bool, curvature: float) -> Float64[Tensor, " levels"]:
    """The curved brightness, which is then encoded linearly."""
    if not curvature:
        return brightness
    curved = torch.log1p(curvature * (brightness if invert else 1 - brightness)) / math.log1p(curvature)
    return curved if invert else 1 - curved


class ImageSet(NamedTuple):
    """Properties of square images before they are read. `totals` has their numbers by part."""

    side: int
    class_names: tuple[str, ...]
    totals: dict[tuple[str, ...], int]

    def outline(
        self, train: int, validation: int, test: int, seed: int = 0, folder: Any = None, **encoding: Any
    ) -> SpikeData:
        """The data without samples; a ValueError for parts of these sizes that are empty or too large."""
        size = {"train": train, "validation": validation, "test": test}
        for parts, most in self.totals.items():
            for part in parts:
                if size[part] < 1:
                    raise ValueError(f"{part} must be > 0 and <= {most}, got {size[part]}")
            if (total := sum(size[part] for part in parts)) > most:
                raise ValueError(f"{', '.join(parts)}: expected at most {most} images in total, got {total}")
        pixels, labels = np.empty((0, self.side, self.side), np.uint8), torch.empty(0, dtype=torch.int64)
        return encode_images(pixels, labels, self.class_names, **encoding)


DIGIT_IMAGES = ImageSet(8, DIGITS, {Splits._fields: 1797})


@takes_arguments_of(encode_images, without=("pixels", "labels", "class_names", "levels"))
def digits_splits(
    train: Size = 1197, validation: Size = 300, test: Size = 300, seed: Seed = 42, **encoding: Any
) -> Splits:
    """The 1797 handwritten digits of 8x8 pixels that come with scikit-learn. Nothing is downloaded.

    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998. The images are shuffled. The three parts
    share none.

    Args:
        train: images in the training part.
        validation: images in the validation part.
        test: images in the test part; at most 1797 in the three together.
        seed: seed of the shuffle that divides the images.

    Returns:
        Times `(images, 64)`, with `on_off` `(images, 128)`, row by row, and labels `(images,)`, the digits.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: sizes below 1 or above 1797 in total, a window that violates `0 <= early < late`.
    """
    datasets = needed("sklearn.datasets", "digits", "scikit-learn, which has the digits,")
    DIGIT_IMAGES.outline(train, validation, test, **encoding)
    data = datasets.load_digits()
    pixels, labels = data.images.astype(np.uint8), torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[: train + validation + test]
    parts = order.split([train, validation, test])
    return Splits(*(encode_images(pixels[part.numpy()], labels[part], DIGITS, _LEVELS, **encoding) for part in parts))
