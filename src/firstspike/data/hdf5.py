"""Arrays and lists of numbers from HDF5 files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_MOST_BYTES = 2**31
"""Most bytes of an array."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors inside as a ValueError of one line that names the file, whatever a damaged one leads the parsers to."""
    try:
        yield
    except Exception as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        if not isinstance(error, ValueError):
            said = f"cannot be read as HDF5: {said}; download it again"
        raise ValueError(f"{path}: {said}") from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open for reading; errors inside as in ``reading``.

    Raises:
        ImportError: h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f'{path.name} is read by h5py, which is missing. Install it: pip install "firstspike[h5py]"'
        ) from error
    with reading(path), h5py.File(path, "r") as file:
        yield file


def array(file: Any, name: str, kinds: str = "fiu", lists: bool = False) -> np.ndarray:
    """A one-dimensional array of a file.

    Args:
        file: from ``opened``.
        name: of the data set.
        kinds: NumPy's letters for the kinds of its elements that are allowed.
        lists: its elements are lists of such elements.

    Raises:
        ValueError: there is none of that name, or it holds something else.
    """
    import h5py

    node = file.get(name)
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"expected an array {name}, got {'none' if node is None else f'a {type(node).__name__}'}")
    kind = h5py.check_vlen_dtype(node.dtype) if lists else node.dtype
    if node.ndim != 1 or kind is None or np.dtype(kind).kind not in kinds or node.nbytes > _MOST_BYTES:
        what = "numbers" if kinds == "fiu" else "names"
        form = f"lists of {what}" if lists else what
        raise ValueError(f"{name}: expected {form}, one per sample, got {node.dtype} of shape {node.shape}")
    found: np.ndarray = node[:]
    return found
