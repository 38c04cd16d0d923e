"""MNIST and Fashion-MNIST as spike times, from files that are there or are fetched."""

import logging
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from firstspike.data.base import SpikeData, Splits, check_at_least, seeded_generator
from firstspike.data.encoding import latency
from firstspike.data.idx import find_idx, read_idx

logger = logging.getLogger(__name__)

_SIDE = 28
_FILES = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
_CHUNK = 5000  # images at once, of what is needed only on the way
_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


class _Images(NamedTuple):
    """Where images come from, and what is done with them.

    Args:
        origin: torchvision's name.
        names: of the classes.
        folders: where a package of the system puts the files.
        package: that package.
        crop: pixels cut off at each side.
        side: of the images then, to which they are shrunk.
    """

    origin: str
    names: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    package: str | None = None
    crop: int = 0
    side: int = _SIDE


_KINDS = {
    "mnist": _Images("MNIST", _DIGITS),
    "mnist_16x16": _Images("MNIST", _DIGITS, crop=2, side=16),
    "fashion_mnist": _Images(
        "FashionMNIST",
        _CLOTHES,
        (Path("/usr/share/datasets/fashion-mnist"),),
        "dataset-fashion-mnist",
    ),
}


def mnist(split: Literal["train", "validation", "test"] = "train", **options: Any) -> SpikeData:
    """MNIST: handwritten digits of 28x28 pixels (LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86, 2278, 1998).

    Args:
        split: which part.
        options: ``train``, ``validation``, ``test``, ``seed``, ``early``, ``late``, ``invert``, ``silent_background``,
            ``mirrored``, ``folder``, ``dtype``; see ``image_splits``.

    Returns:
        Times `(images, 784)`, mirrored `(images, 1568)`, pixels row by row, and labels `(images,)`.

    Raises:
        ValueError: an unknown split, or as in `image_splits`.
        FileNotFoundError: the files are not there and cannot be fetched.
    """
    return _part("mnist", split, options)


def fashion_mnist(split: Literal["train", "validation", "test"] = "train", **options: Any) -> SpikeData:
    """Fashion-MNIST: pieces of clothing of 28x28 pixels (Xiao, Rasul and Vollgraf, arXiv 1708.07747, 2017).

    Arguments, results and errors are those of `mnist`.
    """
    return _part("fashion_mnist", split, options)


def mnist_16x16(split: Literal["train", "validation", "test"] = "train", **options: Any) -> SpikeData:
    """MNIST's inner 24x24 pixels, shrunk to 16x16: times `(images, 256)`.

    Arguments, results and errors are those of `mnist`. The size is that of Göltz et al. 2021, where it fits a chip.
    """
    return _part("mnist_16x16", split, options)


def _part(kind: str, split: str, options: dict[str, Any]) -> SpikeData:
    if split not in Splits._fields:
        raise ValueError(f"split: expected one of {', '.join(Splits._fields)}, got {split!r}. Choose one of them.")
    chosen: SpikeData = getattr(image_splits(kind, **options), split)
    return chosen


def image_splits(
    kind: str,
    train: int = 50_000,
    validation: int = 10_000,
    test: int = 10_000,
    seed: int = 42,
    early: float = 0.15,
    late: float = 2.0,
    invert: bool = True,
    silent_background: bool = False,
    mirrored: bool = False,
    folder: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """The three parts of a data set of images.

    Training and validation images are the first ones of the 60000 that the data set has for learning, shuffled by
    `seed`; the test images are the first of its 10000 test images, in their order.

    Args:
        kind: `mnist`, `mnist_16x16` or `fashion_mnist`.
        train: images in the training part.
        validation: images in the validation part; with the training part at most 60000.
        test: images in the test part, at most 10000.
        seed: of the shuffle.
        early: time of the earliest spikes, in units of `tau_syn`.
        late: time of the latest spikes.
        invert: bright pixels spike at `early`, black ones at `late`; False is the other way round.
        silent_background: pixels whose spike would come at `late` never spike: `inf`.
        mirrored: all pixels once more behind, encoded the other way round, so that each has an early spike if it
            is bright and another one if it is dark. It is for images what the mirrored coordinates of Yin-Yang are.
        folder: where the four IDX files are, plain or gzipped, or the folder that torchvision put them into. By
            default they are searched in the folder of the system's package and in the user's cache, and else fetched
            into the cache by torchvision.
        dtype: of the times.

    Returns:
        Times `(images, pixels)`, row by row, twice as many if mirrored, and labels `(images,)`.

    Raises:
        ValueError: an unknown kind, sizes out of range, no `0 <= early < late`, files that do not fit.
        FileNotFoundError: the files are not there and cannot be fetched; the message says how to get them.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}. Choose one of them.")
    images = _KINDS[kind]
    for name, size in zip(Splits._fields, (train, validation, test), strict=True):
        check_at_least(name, size, 1)
    levels = torch.arange(256, dtype=torch.float64) / 255
    ways = (invert, not invert) if mirrored else (invert,)
    tables = [latency(levels, early, late, way, silent_background).to(dtype) for way in ways]
    place = _folder(images, kind, folder)
    (learn, targets), (fresh, truth) = (_read(place, part) for part in ("train", "t10k"))
    for names, size, most in (("train, validation", train + validation, len(learn)), ("test", test, len(fresh))):
        if size > most:
            raise ValueError(f"{names}: expected at most {most} images in all, got {size}. Take fewer.")
    order = torch.randperm(len(learn), generator=seeded_generator(seed))[: train + validation].numpy()

    def make(pixels: UInt8[np.ndarray, "images height width"], labels: UInt8[np.ndarray, " images"]) -> SpikeData:
        return SpikeData(_times(pixels, tables, images), torch.from_numpy(labels.astype(np.int64)), images.names)

    learning, rest = order[:train], order[train:]
    return Splits(
        make(learn[learning], targets[learning]), make(learn[rest], targets[rest]), make(fresh[:test], truth[:test])
    )


def _times(pixels: UInt8[np.ndarray, "images height width"], tables: list[Tensor], images: _Images) -> Tensor:
    """Times of the pixels by their brightness, as each table has them, a part of the images at a time."""
    times = torch.empty(len(pixels), len(tables), images.side**2, dtype=tables[0].dtype)
    for start in range(0, len(pixels), _CHUNK):
        part = torch.from_numpy(pixels[start : start + _CHUNK].copy())
        if images.crop:
            inner = part[:, images.crop : -images.crop, images.crop : -images.crop].float()
            size = (images.side, images.side)
            part = interpolate(inner[:, None], size, mode="bilinear", antialias=True).round().clamp(0, 255)
        brightness = part.flatten(1).int()
        for channel, table in enumerate(tables):
            times[start : start + _CHUNK, channel] = table[brightness]
    return times.flatten(1)


def _folder(images: _Images, kind: str, given: str | Path | None) -> Path:
    """The folder that has all files; they may have to be fetched first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstspike"
    roots = (*images.folders, cache) if given is None else (Path(given).expanduser(),)
    for root in roots:
        if (found := _complete(images, root)) is not None:
            return found
    if given is None:
        try:
            from torchvision import datasets

            logger.info("fetching %s into %s", kind, cache)
            getattr(datasets, images.origin)(str(cache), download=True)
        except ImportError:
            reason = "torchvision, which fetches them, is not installed"
        except (OSError, RuntimeError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".:")
            reason = f"torchvision could not fetch them ({said})"
        else:
            if (found := _complete(images, cache)) is not None:
                return found
            reason = f"torchvision did not put them into {cache}"
    else:
        reason = f"expected {', '.join(name for pair in _FILES.values() for name in pair)}, plain or .gz"
    system = f"; on Debian: apt install {images.package}" if images.package else ""
    raise FileNotFoundError(
        f"{kind}: the files are not in {' or '.join(map(str, roots))}: {reason}. Where there is a network: "
        f'pip install "firstspike[images]", which fetches them{system}; or set data.folder to a folder that has them'
    )


def _complete(images: _Images, root: Path) -> Path | None:
    """A folder at or under ``root`` with all four files; torchvision puts them into one of its own."""
    names = [name for pair in _FILES.values() for name in pair]
    folders = (root, root / images.origin / "raw", root / "raw")
    return next((place for place in folders if all(find_idx(place, name) for name in names)), None)


def _read(folder: Path, part: str) -> tuple[UInt8[np.ndarray, "images height width"], UInt8[np.ndarray, " images"]]:
    """Images and labels of one part."""
    paths = [find_idx(folder, name) for name in _FILES[part]]
    pixels, labels = (read_idx(path) for path in paths if path is not None)
    if pixels.ndim != 3 or pixels.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(f"{paths[0]}: expected images of {_SIDE}x{_SIDE} pixels, got the shape {pixels.shape}")
    if labels.shape != pixels.shape[:1]:
        raise ValueError(f"{paths[1]}: expected one label for each of {len(pixels)} images, got {labels.shape}")
    return pixels, labels
