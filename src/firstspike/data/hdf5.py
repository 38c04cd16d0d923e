"""Arrays and lists of numbers from HDF5 files. Damaged ones are refused before the HDF5 library would hang on them."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_MOST_BYTES = 2**31
"""Most bytes of an array."""
_LIST = struct.Struct("<IQI")  # length, address of the heap, number of the object there
_HEAP, _OBJECT = struct.Struct("<4s4xQ"), struct.Struct("<HH4xQ")  # magic, size; number, references, size


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
    if lists:
        _check_lists(file, node, np.dtype(kind).itemsize)
    found: np.ndarray = node[:]
    return found


def _check_lists(file: Any, node: Any, size: int) -> None:
    """Check that all lists are as long as what the file has of them; the library would allocate or search for ever.

    Args:
        file: the file.
        node: its lists, of which each is a length and a place in a heap.
        size: bytes of an element.
    """
    layout = node.id
    if layout.get_type().get_size() != _LIST.size or layout.get_create_plist().get_nfilters() or file.userblock_size:
        return
    if node.chunks is None:
        places = [(layout.get_offset(), len(node) * _LIST.size)]
    else:
        places = [(x.byte_offset, x.size) for x in map(layout.get_chunk_info, range(layout.get_num_chunks()))]
    heaps: dict[int, dict[int, int]] = {}
    with Path(file.filename).open("rb") as plain, mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start, length in places:
            if start is None:  # nothing was written
                continue
            for count, heap, number in _LIST.iter_unpack(content[start : start + length]):
                if count and heap not in heaps:
                    heaps[heap] = _objects(content, heap)
                if count and count * size > heaps[heap].get(number, 0):
                    raise ValueError(f"{node.name[1:]}: a list of {count} numbers is longer than its place in the file")


def _objects(content: mmap.mmap, heap: int) -> dict[int, int]:
    """Numbers and sizes of the objects in a heap."""
    magic, size = _HEAP.unpack_from(content, heap)
    if magic != b"GCOL":
        raise ValueError(f"expected a heap at byte {heap}, got {magic!r}; download the file again")
    found, place, end = {}, heap + _HEAP.size, heap + size
    while place + _OBJECT.size <= end:
        number, _, size = _OBJECT.unpack_from(content, place)
        found[number] = size
        step = _OBJECT.size + -(-size // 8) * 8 if number else size
        if not step:
            raise ValueError(f"expected an object in the heap at byte {place}, got none; download the file again")
        place += step
    return found
