"""Read files that ``torch.save`` wrote, whole modules included, without executing anything in them.

A pickle is a small program that names classes and functions and calls them. Here it reaches only those that put tensors
and containers together. Every other name becomes an empty stand-in, a type that keeps its name and the state that the
pickle gives it. Calling one, as a malicious pickle has to, is an error with that name. ``torch.load`` with
``weights_only=True`` is not an alternative: it refuses whole modules in the format of torch before version 1.6.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch

from firstspike.runs.files import read_regular

# calls that are only recorded. ``getattr`` is how methods are pickled
_RECORDED = {"builtins.getattr", "_codecs.encode", "numpy.dtype", "torch.device"}
_RECORDED |= {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}


class UnsafePickleError(ValueError):
    """A pickle that contains more than data. The message names the rest."""


class TorchFileError(ValueError):
    """A file that cannot be read as one of ``torch.save``. The message gives the reason."""


def read_torch_file(path: Path) -> Any:
    """The contents of a file from ``torch.save``: plain data, tensors, and a ``StandIn`` for each object of a class."""
    raw = read_regular(path)
    try:
        if raw.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):  # no zip bombs
                raise TorchFileError("has compressed parts, which torch.save never writes")
            if any(part.filename.endswith("constants.pkl") for part in parts):
                raise TorchFileError("is a program of TorchScript")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about classes whose source is not known
            return torch.load(io.BytesIO(raw), "cpu", _PICKLE, weights_only=False, encoding="latin1")
    except (UnsafePickleError, TorchFileError) as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise TorchFileError(f"{path}: is not a file of torch.save, or damaged ({error})") from None


class StandIn:
    """An object whose class is not imported, or a recorded call."""

    qualified: ClassVar[str] = ""  # full name of the class or function
    state: Any = None  # set by the pickle: usually the dict of attributes

    def __new__(cls, *args: Any) -> "StandIn":
        """An object. Pickles make most of them without calling their class."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # pickle's way to make objects does not come here
        raise UnsafePickleError(
            f"the pickle wants to call {self.qualified}, which is not known to be harmless: not read"
        )

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def attributes(self) -> dict[str, Any]:
        """The state, if it is a dict of attributes; otherwise an empty dict."""
        return self.state if isinstance(self.state, dict) else {}


class _Allowed(NamedTuple):
    """A function that pickles may call but, as its fields are read-only, not change."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _tensor(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> torch.Tensor:
    whole = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
    return whole.as_strided(shape, stride, offset)  # checks that it stays inside the block


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "builtins.set": lambda items=(): set(items),
    "collections.OrderedDict": lambda items=(): OrderedDict(items),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}


class _Unpickler(pickle.Unpickler):
    """Reads one pickle."""

    def __init__(self, file: io.BytesIO, **options: Any) -> None:
        """The pickle that begins here. Lengths and memo indices are checked first: memory is reserved on their word."""
        start = file.tell()
        index: Any
        for count, (operation, index, place) in enumerate(pickletools.genops(file)):
            if operation.name.endswith("PUT") and index > count:  # they are given from 0 on
                raise ValueError(f"memo index {index} at byte {place}, beyond what is stored by then")
        file.seek(start)
        super().__init__(file, **options)

    def find_class(self, module: str, name: str) -> Any:
        """A harmless function or a stand-in. Nothing is imported."""
        qualified = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if qualified in _FUNCTIONS:
            return _Allowed(_FUNCTIONS[qualified])
        kind = type(qualified.rpartition(".")[2], (StandIn,), {"qualified": qualified})
        return _Allowed(lambda *args: kind.__new__(kind, *args)) if qualified in _RECORDED else kind


_PICKLE: Any = SimpleNamespace(
    __name__=__name__, Unpickler=_Unpickler, load=lambda file, **options: _Unpickler(file, **options).load()
)
