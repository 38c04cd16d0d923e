"""Images as spike times, one spike per pixel; and scikit-learn's digits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from firstspike.data.base import SpikeData, Splits, check_at_least, seeded_generator
from firstspike.data.encoding import latency
from firstspike.data.signature import takes_arguments_of
from firstspike.data.splits import Part, one_part
from firstspike.ranges import Finite, NotNegative, Seed, Size

CHUNK = 5000
"""Images at once, of what is needed only in between."""
DIGITS = tuple("0123456789")
DIGITS_SIDE = 8
DIGITS_SAMPLES = 1797
_LEVELS = 16  # a pixel of the digits counts the dark ones of 4x4 scanned dots


def images(
    pixels: UInt8[np.ndarray, "images height width"],
    labels: Int64[Tensor, " images"],
    class_names: tuple[str, ...],
    levels: int = 255,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    invert: bool = True,
    silent_background: bool = False,
    on_off: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Images whose bright pixels spike early.

    Args:
        pixels: brightness `0 ... levels`.
        labels: class of each image.
        class_names: one name per class.
        levels: brightness of a white pixel.
        early: time of the earliest spikes, in units of `tau_syn`.
        late: time of the latest spikes.
        invert: bright pixels (or ink) spike at `early`, dark ones at `late`; otherwise the other way round.
        silent_background: pixels whose spike would come at `late` never spike: `inf`.
        on_off: two inputs for each pixel: an "on" channel as described above, and after all of them an "off" channel
            encoded the other way round, so that dark pixels spike early, too.
        dtype: of the times.

    Returns:
        Times `(images, pixels)`, row by row, twice as many with `on_off`.

    Raises:
        ValueError: a window that violates `0 <= early < late`.
    """
    brightness = torch.arange(levels + 1, dtype=torch.float64) / levels
    ways = (invert, not invert) if on_off else (invert,)
    tables = [latency(brightness, early, late, way, silent_background) for way in ways]
    height, width = pixels.shape[1:]
    times = torch.empty(len(pixels), len(tables), height, width, dtype=dtype)
    for start in range(0, len(pixels), CHUNK):
        part = torch.from_numpy(pixels[start : start + CHUNK].astype(np.int32))
        for channel, table in enumerate(tables):
            times[start : start + CHUNK, channel] = table.to(dtype)[part]
    blank = tuple(float(table[0]) for table in tables)
    return SpikeData(times.flatten(1), labels, class_names, (len(tables), height, width), blank)


@takes_arguments_of(images, without=("pixels", "labels", "class_names", "levels"))
def no_images(side: int, class_names: tuple[str, ...], **encoding: Any) -> SpikeData:
    """Data without samples: what is known of a data set of square images before they are read."""
    pixels, labels = np.empty((0, side, side), np.uint8), torch.empty(0, dtype=torch.int64)
    return images(pixels, labels, class_names, **encoding)


@takes_arguments_of(images, without=("pixels", "labels", "class_names", "levels"))
def digits_splits(
    train: Size = 1197, validation: Size = 300, test: Size = 300, seed: Seed = 42, **encoding: Any
) -> Splits:
    """The 1797 handwritten digits of 8x8 pixels that come with scikit-learn; nothing is downloaded.

    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998. The images are shuffled; the three parts
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
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'The digits come with scikit-learn, which is missing. Install it: pip install "firstspike[digits]"'
        ) from error
    sizes = [train, validation, test]
    for name, size in zip(Splits._fields, sizes, strict=True):
        check_at_least(name, size, 1)
    data = load_digits()
    check_total(Splits._fields, sizes, len(data.target))
    pixels, labels = data.images.astype(np.uint8), torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=seeded_generator(seed))[: sum(sizes)]
    return Splits(
        *(images(pixels[part.numpy()], labels[part], DIGITS, _LEVELS, **encoding) for part in order.split(sizes))
    )


def check_total(names: Sequence[str], sizes: Sequence[int], most: int) -> None:
    """Raise a ValueError that names the parts of a data set if they have more images than it has."""
    if sum(sizes) > most:
        raise ValueError(f"{', '.join(names)}: expected at most {most} images in total, got {sum(sizes)}")


@takes_arguments_of(digits_splits)
def digits(split: Part = "train", **options: Any) -> SpikeData:
    """One part of scikit-learn's handwritten digits, see `digits_splits`.

    Args:
        split: which part.

    Raises:
        ValueError: an unknown split, and as in `digits_splits`.
    """
    return one_part(digits_splits, split, options)
