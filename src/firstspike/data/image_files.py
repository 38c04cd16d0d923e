"""MNIST and Fashion-MNIST as spike times, from local or downloaded files."""

import gzip
import logging
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Gt, Le
from jaxtyping import UInt8
from torch.nn.functional import interpolate

from firstspike.data.base import SpikeData, Splits
from firstspike.data.images import DIGITS, ImageSet, encode_images
from firstspike.data.paths import folder_of
from firstspike.ranges import Seed, Size
from firstspike.signature import parts_of_docstring, takes_arguments_of
from firstspike.text import first_line, installed_with

logger = logging.getLogger(__name__)

_SIDE = 28
_PART = 1 << 24  # bytes that are unpacked at once
_UNSIGNED = b"\0\0\x08"  # how an IDX file of bytes begins
_FILES = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))


class Source(NamedTuple):
    """Contents of a set of images, its name in torchvision, the system package's folder, and how they are processed."""

    text: str
    origin: str
    class_names: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    package: str | None = None
    crop: int = 0  # pixels that are cut off at each side. The rest is shrunk to the size ``side``
    side: int = _SIDE

    def image_set(self, learn: int = 60_000, fresh: int = 10_000) -> ImageSet:
        """Properties of the images. The files have ``learn`` for training and ``fresh`` for tests."""
        return ImageSet(self.side, self.class_names, {("train", "validation"): learn, ("test",): fresh})


SOURCES = {
    "mnist": Source(
        "MNIST: handwritten digits of 28x28 pixels (LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86, 2278, 1998).",
        "MNIST",
        DIGITS,
    ),
    "mnist_16x16": Source(
        "MNIST's inner 24x24 pixels, shrunk to 16x16, the size of Göltz et al. 2021, which fits a chip.",
        "MNIST",
        DIGITS,
        crop=2,
        side=16,
    ),
    "fashion_mnist": Source(
        "Fashion-MNIST: pieces of clothing of 28x28 pixels (Xiao, Rasul and Vollgraf, arXiv 1708.07747, 2017).",
        "FashionMNIST",
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
        (Path("/usr/share/datasets/fashion-mnist"),),
        "dataset-fashion-mnist",
    ),
}


@takes_arguments_of(encode_images, without=("pixels", "labels", "class_names", "levels"))
def image_splits(
    kind: str,
    train: Size = 50_000,
    validation: Size = 10_000,
    test: Annotated[int, Gt(0), Le(10_000)] = 10_000,
    seed: Seed = 42,
    folder: str | Path | None = None,
    **encoding: Any,
) -> Splits:
    """The three parts of a key of `SOURCES`.

    Training and validation images are the first ones of the 60000 that the data set has for learning, shuffled by
    `seed`. The test images are the first of its 10000 test images, in their order.

    Args:
        train: images in the training part.
        validation: images in the validation part; with the training part at most 60000.
        test: images in the test part, at most 10000.
        seed: seed of the shuffle that divides the images.
        folder: where the four IDX files are, plain or gzipped, or the folder that torchvision put them into. By
            default they are searched in the folder of the system's package and in the user's cache, and otherwise
            downloaded into the cache by torchvision.

    Returns:
        Times `(images, pixels)`, row by row, twice as many with `on_off`, and labels `(images,)`.

    Raises:
        ValueError: sizes out of range, a window that violates `0 <= early < late`, or files that do not fit.
        FileNotFoundError: the files are not there and cannot be downloaded. The message says how to get them.
    """
    source = SOURCES[kind]
    source.image_set().outline(train, validation, test, **encoding)  # wrong arguments are refused before files are read
    paths = _paths(source, kind, folder)
    (learn, targets), (fresh, truth) = _read(*paths[:2]), _read(*paths[2:])
    source.image_set(len(learn), len(fresh)).outline(train, validation, test)
    order = torch.randperm(len(learn), generator=torch.Generator().manual_seed(seed))[: train + validation].numpy()

    def make(pixels: UInt8[np.ndarray, "images height width"], labels: UInt8[np.ndarray, " images"]) -> SpikeData:
        classes = torch.from_numpy(labels.astype(np.int64))
        return encode_images(_shrunk(pixels, source), classes, source.class_names, **encoding)

    learning, rest = order[:train], order[train:]
    return Splits(
        make(learn[learning], targets[learning]), make(learn[rest], targets[rest]), make(fresh[:test], truth[:test])
    )


def source_splits(kind: str) -> Callable[..., Splits]:
    """`image_splits` of one kind."""

    def build(**options: Any) -> Splits:
        return image_splits(kind, **options)

    build.__doc__ = "\n\n".join([SOURCES[kind].text, *parts_of_docstring(image_splits)[2]])
    return takes_arguments_of(image_splits, without=("kind",))(build)


def _shrunk(pixels: UInt8[np.ndarray, "images height width"], source: Source) -> UInt8[np.ndarray, "images side side"]:
    """Images without the border that is cut off, shrunk to the size that they have in the data set."""
    if not source.crop:
        return pixels
    inner = pixels[:, source.crop : -source.crop, source.crop : -source.crop].astype(np.float32)
    small = interpolate(torch.from_numpy(inner)[:, None], (source.side, source.side), mode="bilinear", antialias=True)
    return small[:, 0].round().clamp(0, 255).byte().numpy()


def _paths(source: Source, kind: str, given: str | Path | None) -> list[Path]:
    """The four files, as in ``_FILES``. They may have to be downloaded first."""
    cache = folder_of(given)
    roots = (*source.folders, cache) if given is None else (cache,)
    for root in roots:
        if (found := _complete(source, root)) is not None:
            return found
    reason = f"expected {', '.join(_FILES)}, plain or .gz"
    if given is None:
        try:
            from torchvision import datasets

            logger.info("downloading %s into %s", kind, cache)
            getattr(datasets, source.origin)(str(cache), download=True)
            if (found := _complete(source, cache)) is not None:
                return found
            reason = f"torchvision did not put them into {cache}"
        except ImportError:
            reason = "torchvision, which downloads them, is not installed"
        except (OSError, RuntimeError) as error:
            reason = f"torchvision could not download them ({first_line(error).rstrip('.:')})"
    system = f"; on Debian: apt install {source.package}" if source.package else ""
    raise FileNotFoundError(
        f"{kind}: the files are not in {' or '.join(map(str, roots))}: {reason}. With network access: "
        f"{installed_with('images')}, which downloads them{system}; or set data.folder to a folder that has them"
    )


def _complete(source: Source, root: Path) -> list[Path] | None:
    """The four files at or under ``root``, where torchvision puts them into a subfolder; None unless all are there."""
    for place in (root, root / source.origin / "raw", root / "raw"):
        found = [path for name in _FILES if (path := _find_idx(place, name)) is not None]
        if len(found) == len(_FILES):
            return found
    return None


def _find_idx(folder: Path, name: str) -> Path | None:
    """The file such as ``train-images-idx3-ubyte`` in a folder: as such, with a dot in its name, or gzipped."""
    dotted = name.replace("-idx", ".idx")
    candidates = (folder / f"{stem}{end}" for stem in (name, dotted) for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read(images: Path, names: Path) -> tuple[UInt8[np.ndarray, "images height width"], UInt8[np.ndarray, " images"]]:
    """Images and labels of one part."""
    pixels = _read_idx(images, (_SIDE, _SIDE), f"images of {_SIDE}x{_SIDE} pixels")
    labels = _read_idx(names, (), f"one label for each of {len(pixels)} images")
    if len(labels) != len(pixels):
        raise ValueError(f"{names}: expected one label for each of {len(pixels)} images, got {labels.shape}")
    return pixels, labels


def _read_idx(path: Path, each: tuple[int, ...] | None = None, what: str = "") -> UInt8[np.ndarray, "..."]:
    """The unsigned bytes in a file, plain or gzipped (recognised by its first bytes).

    A file of another shape of ``each`` sample than expected is refused before it is unpacked, and of others no more is
    unpacked than they announce: a few MB of gzip may hold all of the memory.
    """
    content = bytearray()
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            head = file.read(4)
            if not head.startswith(_UNSIGNED) or len(head) < 4:
                start = head.hex() or "nothing"
                raise ValueError(f"{path}: is not an IDX file of unsigned bytes: it begins with {start}")
            sizes = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
            if each is not None and (not sizes or sizes[1:] != each):
                raise ValueError(f"{path}: expected {what}, got the shape {sizes[:9]}")
            total = math.prod(sizes)
            while len(content) <= total and (part := file.read(min(_PART, total + 1 - len(content)))):
                content += part
        except (EOFError, zlib.error, struct.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: is corrupt: {error}; download it again") from None
    if len(content) != total:
        got = f"{len(content)}{' or more' if len(content) > total else ''}"
        raise ValueError(f"{path}: expected {total} numbers of shape {sizes[:9]}, got {got}; download it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(sizes)
