"""Files of the IDX format, in which MNIST and its relatives come: read as numbers, plain or gzipped."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

_BYTES = 0x08  # the format's code for unsigned bytes
_MAX_BYTES = 1 << 31


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in a file.

    Args:
        path: the file, plain or gzipped, as its first bytes tell.

    Raises:
        ValueError: another format, another type of numbers, or another length than its header says.
        OSError: it cannot be read.
    """
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _BYTES or not head[3]:
                raise ValueError(
                    f"{path}: is not an IDX file of unsigned bytes: it begins with {head.hex() or 'nothing'}"
                )
            sizes = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
            count = math.prod(sizes)
            if count > _MAX_BYTES:
                raise ValueError(f"{path}: claims to hold {count} numbers, which exceeds the limit of {_MAX_BYTES}")
            content = file.read(count + 1)
    except (EOFError, zlib.error, struct.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: is corrupt: {error}; download it again") from None
    if len(content) != count:
        more = "more" if len(content) > count else f"{len(content)}"
        raise ValueError(f"{path}: expected {count} numbers of shape {sizes}, got {more}; download it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(sizes)


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder: as such, with a dot in it, or gzipped; None where there is none.

    Args:
        folder: where to look.
        name: such as ``train-images-idx3-ubyte``.
    """
    dotted = name.replace("-idx", ".idx")
    candidates = (folder / f"{stem}{end}" for stem in (name, dotted) for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)
