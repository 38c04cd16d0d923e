"""Read files that ``torch.save`` wrote, whole modules included, without torch and without executing anything.

Both formats: the zip archive of today, and the sequence of pickles that torch wrote before version 1.6. The result is
the pickled object with ``StoredTensor`` for tensors and ``StandIn`` for everything that has a class.
"""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstspike.interop.safe_pickle import SafeUnpickler, StandIn, UnsafePickleError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format starts
_TYPES = {"Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1"}
_TYPES |= {"Byte": "u1", "Bool": "?"}


class TorchFileError(ValueError):
    """A file that cannot be read as one of ``torch.save``; the message says why."""


@dataclass
class _Storage:
    """A block of numbers of one type; ``data`` is None until they are read."""

    type: str
    size: int
    data: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.type not in _TYPES:
            raise TorchFileError(f"holds numbers of the type {self.type}, which is not supported")
        return np.dtype(_TYPES[self.type])

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def fill(self, raw: bytes, order: str) -> None:
        """Set the numbers; ``order`` is little or big."""
        if len(raw) < self.nbytes:
            raise TorchFileError(f"is truncated: a tensor has {len(raw)} of {self.nbytes} bytes")
        dtype = self.dtype.newbyteorder("<" if order == "little" else ">")
        self.data = np.frombuffer(raw, dtype, self.size).astype(self.dtype)


@dataclass
class StoredTensor:
    """A tensor of the file: a view of a block of numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise TorchFileError(f"holds a tensor of impossible shape {self.shape} and stride {self.stride}")
        if 0 not in self.shape:
            last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
            if last >= self.storage.size:
                raise TorchFileError(f"holds a tensor of shape {self.shape} that is larger than its data")

    def array(self) -> np.ndarray:
        """The numbers, as a read-only view."""
        assert self.storage.data is not None
        strides = tuple(self.storage.data.itemsize * n for n in self.stride)
        return np.lib.stride_tricks.as_strided(self.storage.data[self.offset :], self.shape, strides, writeable=False)


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote to a file, as plain data.

    Raises:
        UnsafePickleError: the file wants to call something that is not harmless.
        TorchFileError: not a file of ``torch.save``, or a damaged one.
        OSError: it cannot be read.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        archive = zipfile.is_zipfile(file)
        file.seek(0)
        return _read_archive(file) if archive else _read_pickles(file)
    except (UnsafePickleError, TorchFileError) as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise TorchFileError(f"{path}: is not a file of torch.save, or damaged ({error})") from None


def _read_archive(file: io.BytesIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise TorchFileError("is a zip archive, but not of torch.save")
        root = found[0].removesuffix("data.pkl")

        def read(name: str) -> bytes:
            if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # torch never compresses: no zip bombs
                raise TorchFileError(f"has the compressed part {name}, which torch.save never writes")
            return archive.read(name)

        order = read(f"{root}byteorder").decode("ascii") if f"{root}byteorder" in names else "little"
        storages: dict[str, _Storage] = {}

        def persistent(pid: Any) -> Any:
            key, storage = _storage(pid, storages)
            if storage.data is None:
                storage.fill(read(f"{root}data/{key}"), order)
            return storage

        return _unpickler(io.BytesIO(read(found[0])), persistent).load()


def _read_pickles(file: io.BytesIO) -> Any:
    if [SafeUnpickler(file).load() for _ in range(2)] != [_MAGIC, _PROTOCOL]:
        raise TorchFileError("is not a file of torch.save")
    order = "little" if SafeUnpickler(file).load().get("little_endian", True) else "big"
    storages: dict[str, _Storage] = {}

    def persistent(pid: Any) -> Any:
        if pid[0] == "module":  # a class, with its source text
            return pid[1]
        _, storage = _storage(pid, storages)
        if len(pid) > 5 and pid[5] is not None:
            raise TorchFileError("holds views of views, which only torch below 0.4 wrote")
        if storage.nbytes > file.getbuffer().nbytes:
            raise TorchFileError("is truncated: a tensor is larger than the file")
        return storage

    loaded = _unpickler(file, persistent).load()
    for key in SafeUnpickler(file).load():
        storage = storages[str(key)]
        size = int.from_bytes(file.read(8), "little" if order == "little" else "big")
        if size != storage.size:
            raise TorchFileError(f"is damaged: a tensor has {size} numbers instead of {storage.size}")
        storage.fill(file.read(storage.nbytes), order)
    if any(storage.data is None for storage in storages.values()):
        raise TorchFileError("is truncated: the numbers of a tensor are missing")
    return loaded


def _storage(pid: Any, storages: dict[str, _Storage]) -> tuple[str, _Storage]:
    """The key of the block that a persistent id names, and the block."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        raise TorchFileError(f"refers to {pid!r}, which is not known")
    _, kind, key, _, size = pid[:5]
    if not isinstance(size, int) or size < 0:
        raise TorchFileError(f"holds a tensor of {size!r} numbers")
    name = kind.qualified if isinstance(kind, type) and issubclass(kind, StandIn) else str(kind)
    return str(key), storages.setdefault(str(key), _Storage(name.rpartition(".")[2].removesuffix("Storage"), size))


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
    # a tuple, or torch.Size of one
    sizes = [tuple(x.arguments[0] if isinstance(x, StandIn) else x) for x in (shape, stride)]
    return StoredTensor(storage, offset, *sizes)
