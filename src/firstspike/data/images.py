"""Images as spike times: one input per pixel, ink first."""

from typing import Literal

import torch

from firstspike.data.base import SpikeData, Splits, check_at_least, seeded_generator
from firstspike.data.encoding import latency


def digits(
    split: Literal["train", "validation", "test"] = "train",
    train: int = 1197,
    validation: int = 300,
    test: int = 300,
    seed: int = 42,
    early: float = 0.15,
    late: float = 2.0,
    invert: bool = True,
    silent_background: bool = False,
    mirrored: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """The 1797 handwritten digits of 8x8 pixels that come with scikit-learn; nothing is downloaded.

    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998. The images are shuffled by
    `seed`; train, validation and test are the next so many of them and share none.

    Args:
        split: which part.
        train: images in the training part.
        validation: images in the validation part.
        test: images in the test part; at most 1797 in the three together.
        seed: of the shuffle; the same for the three parts.
        early: time of the earliest spikes, in units of `tau_syn`.
        late: time of the latest spikes.
        invert: full ink spikes at `early` and blank paper at `late`; False is the other way round.
        silent_background: pixels whose spike would come at `late` never spike: `inf`.
        mirrored: all pixels once more behind, encoded the other way round.
        dtype: of the times.

    Returns:
        Times `(images, 64)`, mirrored `(images, 128)`, pixels row by row, and labels `(images,)`, the digits.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: an unknown split, sizes below 1 or of more than 1797 in all, no `0 <= early < late`.
    """
    parts = digits_splits(train, validation, test, seed, early, late, invert, silent_background, mirrored, dtype)
    if split not in Splits._fields:
        raise ValueError(f"split: expected one of {', '.join(Splits._fields)}, got {split!r}. Choose one of them.")
    chosen: SpikeData = getattr(parts, split)
    return chosen


def digits_splits(
    train: int = 1197,
    validation: int = 300,
    test: int = 300,
    seed: int = 42,
    early: float = 0.15,
    late: float = 2.0,
    invert: bool = True,
    silent_background: bool = False,
    mirrored: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """The three parts of `digits`, whose arguments these are; one seed, because they share one shuffle."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'The digits come with scikit-learn, which is missing. Install it: pip install "firstspike[digits]"'
        ) from error
    sizes = [train, validation, test]
    for name, size in zip(Splits._fields, sizes, strict=True):
        check_at_least(name, size, 1)
    pixels, targets = load_digits(return_X_y=True)
    if sum(sizes) > len(pixels):
        raise ValueError(
            f"train, validation, test: expected at most {len(pixels)} images in all, got {sum(sizes)}. Take fewer."
        )
    values = torch.from_numpy(pixels).double() / 16  # a pixel counts the inked ones of 4x4 scanned dots
    ways = (invert, not invert) if mirrored else (invert,)
    times = torch.cat([latency(values, early, late, way, silent_background) for way in ways], dim=1).to(dtype)
    labels = torch.from_numpy(targets).long()
    order = torch.randperm(len(times), generator=seeded_generator(seed))[: sum(sizes)]
    names = tuple(str(digit) for digit in range(10))
    return Splits(*(SpikeData(times[part], labels[part], names) for part in order.split(sizes)))
