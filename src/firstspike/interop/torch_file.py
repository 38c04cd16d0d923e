"""Reads files that ``torch.save`` wrote, whole modules included, without torch and without executing anything.

Both forms of the file: the zip archive of today, and the row of pickles that torch wrote before version 1.6. What comes
back is the pickled object with ``StoredTensor`` for tensors and ``StandIn`` for everything that has a class.
"""

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstspike.interop.safe_pickle import SafeUnpickler, StandIn, UnsafePickleError

_MAGIC = 0x1950A86A20F9469CFC6C  # how the older form starts
_TYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class TorchFileError(ValueError):
    """A file that cannot be read as one of ``torch.save``; the message says why."""


@dataclass
class _Storage:
    """A block of numbers of one type; ``data`` comes once it is read."""

    type: str
    numbers: int
    data: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.type not in _TYPES:
            raise TorchFileError(f"holds numbers of the type {self.type}, which is not read")
        return np.dtype(_TYPES[self.type])

    def fill(self, raw: bytes, order: str) -> None:
        """Take up the numbers; ``order`` is little or big."""
        dtype = self.dtype.newbyteorder("<" if order == "little" else ">")
        if len(raw) < self.numbers * dtype.itemsize:
            raise TorchFileError(f"is cut off: {len(raw)} bytes of {self.numbers * dtype.itemsize} are there")
        self.data = np.frombuffer(raw, dtype, self.numbers).astype(self.dtype)


@dataclass
class StoredTensor:
    """A tensor of the file: a view on a block of numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise TorchFileError(f"holds a tensor of shape {self.shape} and stride {self.stride}, which cannot be")
        if 0 not in self.shape:
            last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
            if last >= self.storage.numbers:
                raise TorchFileError(f"holds a tensor of shape {self.shape} that is larger than its data")

    def array(self) -> np.ndarray:
        """The numbers, as a view that cannot be written to."""
        assert self.storage.data is not None
        step = self.storage.data.itemsize
        strides = tuple(step * n for n in self.stride)
        start = self.storage.data[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides, writeable=False)


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` put into a file, as plain data.

    Raises:
        UnsafePickleError: the file wants to call something that is not harmless.
        TorchFileError: no file of ``torch.save``, or a damaged one.
        OSError: it cannot be read.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        archive = zipfile.is_zipfile(file)
        file.seek(0)
        return _read_archive(file) if archive else _read_row(file)
    except (UnsafePickleError, TorchFileError) as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # whatever a damaged pickle makes Python say
        raise TorchFileError(f"{path}: is no file of torch.save, or damaged ({error})") from None


def _read_archive(file: io.BytesIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise TorchFileError("is a zip archive, but none of torch.save")
        root = found[0].removesuffix("data.pkl")

        def read(name: str) -> bytes:
            if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # torch never compresses: no zip bombs
                raise TorchFileError(f"has the compressed part {name}, which torch.save never writes")
            return archive.read(name)

        order = read(f"{root}byteorder").decode("ascii") if f"{root}byteorder" in names else "little"
        storages: dict[str, _Storage] = {}

        def storage(pid: Any) -> Any:
            made, key = _storage(pid, storages)
            if made.data is None:
                made.fill(read(f"{root}data/{key}"), order)
            return made

        return _unpickler(io.BytesIO(read(found[0])), storage).load()


def _read_row(file: io.BytesIO) -> Any:
    if _number(file) != _MAGIC or _number(file) != 1001:
        raise TorchFileError("is no file of torch.save")
    system = SafeUnpickler(file).load()
    order = "little" if system.get("little_endian", True) else "big"
    storages: dict[str, _Storage] = {}

    def persistent(pid: Any) -> Any:
        if pid[0] == "module":  # a class, with its source text
            return pid[1]
        made, _ = _storage(pid, storages)
        if len(pid) > 5 and pid[5] is not None:
            raise TorchFileError("holds views of views, which only torch below 0.4 wrote")
        if made.numbers * made.dtype.itemsize > file.getbuffer().nbytes:
            raise TorchFileError("is cut off: a tensor is larger than the file")
        return made

    loaded = _unpickler(file, persistent).load()
    for key in SafeUnpickler(file).load():
        made = storages[str(key)]
        count = int.from_bytes(file.read(8), "little" if order == "little" else "big")
        if count != made.numbers:
            raise TorchFileError(f"is damaged: a tensor has {count} numbers instead of {made.numbers}")
        made.fill(file.read(count * made.dtype.itemsize), order)
    if any(made.data is None for made in storages.values()):
        raise TorchFileError("is cut off: the numbers of a tensor are missing")
    return loaded


def _number(file: io.BytesIO) -> Any:
    """A pickled number; None where the file has something else."""
    try:
        return SafeUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def _storage(pid: Any, storages: dict[str, _Storage]) -> tuple[_Storage, str]:
    """The block that a persistent id names."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        raise TorchFileError(f"refers to {pid!r}, which is not known")
    _, kind, key, _, numbers = pid[:5]
    name = kind.qualified if isinstance(kind, type) and issubclass(kind, StandIn) else str(kind)
    if not isinstance(numbers, int) or numbers < 0:
        raise TorchFileError(f"holds a tensor of {numbers!r} numbers")
    key = str(key)
    if key not in storages:
        storages[key] = _Storage(name.rpartition(".")[2], numbers)
    return storages[key], key


def _unpickler(file: io.BytesIO, persistent: Callable[[Any], Any]) -> SafeUnpickler:
    functions: dict[str, Callable[..., Any]] = {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    }
    return SafeUnpickler(file, functions, persistent)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, _Storage):
        raise TorchFileError(f"holds a tensor made of {storage!r}")
    return StoredTensor(storage, offset, _sizes(shape), _sizes(stride))


def _sizes(value: Any) -> tuple[int, ...]:
    """A shape: a tuple, or ``torch.Size`` of one."""
    return tuple(value.arguments[0] if hasattr(value, "arguments") else value)
