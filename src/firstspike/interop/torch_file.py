"""Read files that ``torch.save`` wrote, whole modules included, without executing anything.

Both formats: the zip archive of today, and the sequence of pickles that torch wrote before version 1.6. The result is
the pickled object, with a ``StandIn`` for everything that has a class.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from firstspike.interop.pickles import UnsafePickleError
from firstspike.interop.safe_pickle import SafeUnpickler, StandIn
from firstspike.runs.files import read_regular

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format starts
_TYPES = {"Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1"}
_TYPES |= {"Byte": "u1", "Bool": "?"}

Storage = Callable[[str, np.dtype[Any], int], Tensor]
"""Makes a block of numbers from its key in the file, its type and its size."""


class TorchFileError(ValueError):
    """A file that cannot be read as one of ``torch.save``; the message says why."""


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote to a file, as plain data and tensors.

    Raises:
        UnsafePickleError: the file wants to call something that is not harmless.
        TorchFileError: not a file of ``torch.save``, or a damaged one.
        OSError: it cannot be read.
    """
    file = io.BytesIO(read_regular(path))
    try:
        read = _read_archive if zipfile.is_zipfile(file) else _read_pickles
        file.seek(0)
        return read(file)
    except (UnsafePickleError, TorchFileError) as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise TorchFileError(f"{path}: is not a file of torch.save, or damaged ({error})") from None


def _tensor(storage: Tensor, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
    # a tuple, or torch.Size of one
    shape, stride = (x.arguments[0] if isinstance(x, StandIn) else x for x in (shape, stride))
    return storage.as_strided(shape, stride, offset)  # checks that it stays inside the block


class _Unpickler(SafeUnpickler):
    """Puts tensors together from blocks of numbers, each of which is made once."""

    functions: ClassVar[Mapping[str, Callable[..., Any]]] = {
        **SafeUnpickler.functions,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    }

    def __init__(self, file: io.BytesIO, make: Storage) -> None:
        super().__init__(file)
        self.storages: dict[str, Tensor] = {}
        self._make = make

    def persistent_load(self, pid: Any) -> Any:
        """The block of numbers that a persistent id names; in the older format also a class, with its source text."""
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, size, *view = pid
        if any(view):
            raise TorchFileError("holds views of views, which only torch below 0.4 wrote")
        name = getattr(kind, "qualified", type(kind).__name__).rpartition(".")[2].removesuffix("Storage")
        if name not in _TYPES:
            raise TorchFileError(f"holds numbers of the type {name}, which is not supported")
        if key not in self.storages:
            self.storages[key] = self._make(key, np.dtype(_TYPES[name]), size)
        return self.storages[key]


def _numbers(raw: bytes, dtype: np.dtype[Any], size: int, order: str) -> Tensor:
    stored = np.frombuffer(raw, dtype.newbyteorder("<" if order == "little" else ">"), size)
    return torch.from_numpy(stored.astype(dtype))


def _read_archive(file: io.BytesIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):  # no zip bombs
            raise TorchFileError("has compressed parts, which torch.save never writes")
        names = archive.namelist()
        found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise TorchFileError("is a zip archive, but not of torch.save")
        root = found[0].removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder").decode("ascii") if f"{root}byteorder" in names else "little"

        def stored(key: str, dtype: np.dtype[Any], size: int) -> Tensor:
            return _numbers(archive.read(f"{root}data/{key}"), dtype, size, order)

        return _Unpickler(io.BytesIO(archive.read(found[0])), stored).load()


def _read_pickles(file: io.BytesIO) -> Any:
    if [SafeUnpickler(file).load() for _ in range(2)] != [_MAGIC, _PROTOCOL]:
        raise TorchFileError("is not a file of torch.save")
    order = "little" if SafeUnpickler(file).load().get("little_endian", True) else "big"

    def empty(key: str, dtype: np.dtype[Any], size: int) -> Tensor:  # its numbers come after the pickle
        if size * dtype.itemsize > file.getbuffer().nbytes:
            raise TorchFileError("is truncated: a tensor is larger than the file")
        return torch.from_numpy(np.empty(size, dtype))

    unpickler = _Unpickler(file, empty)
    loaded = unpickler.load()
    storages, keys = unpickler.storages, SafeUnpickler(file).load()
    if set(keys) != set(storages):
        raise TorchFileError("is damaged: the numbers of a tensor are missing")
    for key in keys:
        storage = storages[key]
        size = int(_numbers(file.read(8), np.dtype("i8"), 1, order))
        if size != len(storage):
            raise TorchFileError(f"is damaged: a tensor has {size} numbers instead of {len(storage)}")
        storage.copy_(_numbers(file.read(storage.nbytes), storage.numpy().dtype, size, order))
    return loaded
