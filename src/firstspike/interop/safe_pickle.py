"""Read pickles without executing anything that they say.

A pickle is a small program that names classes and functions and calls them. Here it reaches a short list of harmless
functions, which only put data together. Every other name becomes an empty stand-in, a type that keeps its name and the
state that the pickle gives it. Calling one, as a malicious pickle has to, is an error with that name.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar, NamedTuple

from firstspike.interop.pickles import UnsafePickleError, check_operations

# what Python 2 and the older pickle protocols call these modules
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


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

    def __repr__(self) -> str:
        return f"<stand-in for {self.qualified}>"

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.qualified.rpartition(".")[2]

    @property
    def attributes(self) -> dict[str, Any]:
        """The state, if it is a dict of attributes; else an empty dict."""
        return self.state if isinstance(self.state, dict) else {}


class _Allowed(NamedTuple):
    """A function that pickles may call but, as its fields are read-only, not change."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError("the pickle wants to encode text in another way than latin1, which alone is read")
    if not isinstance(text, str):
        raise ValueError("expected text to encode as bytes")
    return text.encode("latin1")


def _object(kind: Any, base: Any, state: Any = None) -> Any:
    """How protocols 0 and 1 make an object."""
    if not (isinstance(kind, type) and issubclass(kind, StandIn)):
        raise UnsafePickleError(f"the pickle wants to make an object of a {type(kind).__name__}: not read")
    return kind.__new__(kind)


_PLAIN: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _bytes,
    "builtins.bytearray": lambda *args: bytes(*args) if args and isinstance(args[0], bytes) else b"",
    "builtins.complex": lambda real, imag: complex(float(real), float(imag)),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "builtins.set": lambda items=(): set(items),
    "collections.OrderedDict": lambda items=(): OrderedDict(items),
    "copyreg._reconstructor": _object,
}
# calls that are only recorded; ``getattr`` is how methods are pickled
_RECORDED = {"builtins.getattr", "numpy.dtype", "torch.Size", "torch.device"}
_RECORDED |= {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}


class SafeUnpickler(pickle.Unpickler):
    """Reads one pickle from a seekable file; ``functions`` is what is called by the names that a pickle may call."""

    functions: ClassVar[Mapping[str, Callable[..., Any]]] = _PLAIN

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self._file = file
        self._kinds: dict[str, type[StandIn]] = {}

    def load(self) -> Any:
        """The pickled object.

        Raises:
            UnsafePickleError: the pickle wants to call something that is not on the list.
            ValueError: it is damaged; so are many other errors of the pickle module.
        """
        start = self._file.tell()
        check_operations(self._file)
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """A harmless function or a stand-in. Nothing is imported."""
        qualified = f"{_OLD_NAMES.get(module, module)}.{name}"
        if qualified in self.functions:
            return _Allowed(self.functions[qualified])
        if qualified not in self._kinds:
            self._kinds[qualified] = type(qualified.rpartition(".")[2], (StandIn,), {"qualified": qualified})
        kind = self._kinds[qualified]
        return _Allowed(lambda *args: kind.__new__(kind, *args)) if qualified in _RECORDED else kind
