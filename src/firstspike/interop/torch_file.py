"""Read files that ``torch.save`` wrote, whole modules included, without executing anything in them.

Both formats: the zip archive of today, and the sequence of pickles that torch wrote before version 1.6. A pickle is a
small program that names classes and functions and calls them. Here it reaches only those that put tensors and
containers together. Every other name becomes an empty stand-in, a type that keeps its name and the state that the
pickle gives it; calling one, as a malicious pickle has to, is an error with that name. ``torch.load`` with
``weights_only=True`` is not an alternative: it refuses whole modules in the older format.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstspike.runs.files import read_regular

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format starts
_TYPES = {"Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1"}
_TYPES |= {"Byte": "u1", "Bool": "?"}
# calls that are only recorded; ``getattr`` is how methods are pickled
_RECORDED = {"builtins.getattr", "_codecs.encode", "numpy.dtype", "torch.Size", "torch.device"}
_RECORDED |= {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}


class UnsafePickleError(ValueError):
    """A pickle that contains more than data; the message names the rest."""


class TorchFileError(ValueError):
    """A file that cannot be read as one of ``torch.save``; the message gives the reason."""


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote to a file: plain data, tensors, and a ``StandIn`` for everything that has a class.

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


class StandIn:
    """An object whose class is not imported, or a recorded call.

    ``qualified`` is the full name of the class or function, ``arguments`` are those it was given, ``state`` is what the
    pickle set, usually the dict of attributes, or None.
    """

    qualified: ClassVar[str] = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "StandIn":
        """An object; pickles make most of them without calling their class."""
        made = object.__new__(cls)
        made.arguments, made.state = args, None
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # pickle's way to make objects does not come here
        raise UnsafePickleError(
            f"the pickle wants to call {self.qualified}, which is not known to be harmless: not read"
        )

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.qualified.rpartition(".")[2]

    @property
    def attributes(self) -> dict[str, Any]:
        """The state, if it is a dict of attributes; otherwise an empty dict."""
        return self.state if isinstance(self.state, dict) else {}


class _Allowed(NamedTuple):
    """A function that pickles may call but, as its fields are read-only, not change."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _tensor(storage: Tensor, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
    # a tuple, or torch.Size of one
    shape, stride = (x.arguments[0] if isinstance(x, StandIn) else x for x in (shape, stride))
    return storage.as_strided(shape, stride, offset)  # checks that it stays inside the block


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "builtins.set": lambda items=(): set(items),
    "collections.OrderedDict": lambda items=(): OrderedDict(items),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}


class _Unpickler(pickle.Unpickler):
    """Reads one pickle; ``make`` makes a block of numbers from its key in the file, its type and its size."""

    def __init__(self, file: io.BytesIO, make: Callable[[str, np.dtype[Any], int], Tensor] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Tensor] = {}
        self._make = make
        self._kinds: dict[str, type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A harmless function or a stand-in. Nothing is imported."""
        qualified = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if qualified in _FUNCTIONS:
            return _Allowed(_FUNCTIONS[qualified])
        if qualified not in self._kinds:
            self._kinds[qualified] = type(qualified.rpartition(".")[2], (StandIn,), {"qualified": qualified})
        kind = self._kinds[qualified]
        return _Allowed(lambda *args: kind.__new__(kind, *args)) if qualified in _RECORDED else kind

    def persistent_load(self, pid: Any) -> Any:
        """The block of numbers that a persistent id names; in the older format also a class, with its source text."""
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, size, *view = pid
        if any(view):
            raise TorchFileError("holds views of views, which only torch below 0.4 wrote")
        name = getattr(kind, "qualified", type(kind).__name__).rpartition(".")[2].removesuffix("Storage")
        if name not in _TYPES or self._make is None:
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
    if [_Unpickler(file).load() for _ in range(2)] != [_MAGIC, _PROTOCOL]:
        raise TorchFileError("is not a file of torch.save")
    order = "little" if _Unpickler(file).load().get("little_endian", True) else "big"

    def empty(key: str, dtype: np.dtype[Any], size: int) -> Tensor:  # its numbers come after the pickle
        if size * dtype.itemsize > file.getbuffer().nbytes:
            raise TorchFileError("is truncated: a tensor is larger than the file")
        return torch.from_numpy(np.empty(size, dtype))

    unpickler = _Unpickler(file, empty)
    loaded = unpickler.load()
    storages, keys = unpickler.storages, _Unpickler(file).load()
    if set(keys) != set(storages):
        raise TorchFileError("is damaged: the numbers of a tensor are missing")
    for key in keys:
        storage = storages[key]
        size = int(_numbers(file.read(8), np.dtype("i8"), 1, order))
        if size != len(storage):
            raise TorchFileError(f"is damaged: a tensor has {size} numbers instead of {len(storage)}")
        storage.copy_(_numbers(file.read(storage.nbytes), storage.numpy().dtype, size, order))
    return loaded
