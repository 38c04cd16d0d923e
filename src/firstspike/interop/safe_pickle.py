"""Reads pickles without executing anything that they say.

A pickle is a little program: it names classes and functions and calls them. Here it reaches a short list of harmless
ones, which only put data together. Every other name becomes an empty stand-in, a type that remembers its name and the
state that the pickle gives it. To call one, as a malicious pickle has to, is an error that says the name.
"""

import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar, NoReturn

# what Python 2 and the older pickle protocols call these modules
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class UnsafePickleError(ValueError):
    """A pickle that asks for more than data; the message names what it wants to call."""


class _NotCallable(type):
    """Type of the stand-ins: calling one is refused."""

    qualified: str

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnsafePickleError(
            f"the pickle wants to call {cls.qualified}, which is not on the list of harmless names: not read"
        )


class StandIn(metaclass=_NotCallable):
    """An object of a class that is not loaded: its class's name, what it was made with, and its state.

    ``state`` is what the pickle gave, mostly the dict of the attributes; None if it gave nothing.
    """

    qualified: ClassVar[str] = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
        """An object without calling its class."""
        made = object.__new__(cls)
        made.arguments = args
        made.state = None
        return made

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


class Note:
    """What a harmless call was, instead of its result: its name, its arguments and the state of its result."""

    def __init__(self, qualified: str, arguments: tuple[Any, ...]) -> None:
        self.qualified = qualified
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.qualified}>"


class _Allowed:
    """A function that pickles may call, and not change."""

    __slots__ = ("_function", "_name")
    _name: str
    _function: Callable[..., Any]

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise UnsafePickleError(f"the pickle wants to change {self._name}: not read")

    def __setstate__(self, state: Any) -> NoReturn:
        raise UnsafePickleError(f"the pickle wants to change {self._name}: not read")

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"the pickle wants to encode text as {encoding!r}, only latin1 is read")
    return str(text).encode("latin1")


def _object(kind: Any, base: Any, state: Any = None) -> Any:
    """How protocols 0 and 1 make an object."""
    if not (isinstance(kind, type) and issubclass(kind, StandIn)):
        raise UnsafePickleError(f"the pickle wants to make {kind!r}: not read")
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
# calls that are only written down; ``getattr`` is how methods are pickled
_NOTED = (
    "builtins.getattr",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
)


class SafeUnpickler(pickle.Unpickler):
    """Reads one pickle from a file.

    Args:
        file: where the pickle starts; it is read twice, so it must be seekable.
        functions: further names that the pickle may call, and what is called instead.
        persistent: makes an object of a persistent id, a tuple that the pickle gives; by default there are none.
    """

    def __init__(
        self,
        file: IO[bytes],
        functions: Mapping[str, Callable[..., Any]] | None = None,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._file = file
        self._functions = _PLAIN | dict(functions or {})
        self._persistent = persistent
        self._stand_ins: dict[str, type[StandIn]] = {}

    def load(self) -> Any:
        """The pickled object.

        Raises:
            UnsafePickleError: the pickle wants to call something that is not on the list.
            ValueError: it is damaged. So are other errors of the pickle module, which has many for that.
        """
        start = self._file.tell()
        _check_operations(self._file)
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """A harmless function or a stand-in. Nothing is imported."""
        qualified = f"{_OLD_NAMES.get(module, module)}.{name}"
        if qualified in self._functions:
            return _Allowed(qualified, self._functions[qualified])
        if qualified in _NOTED:
            return _Allowed(qualified, lambda *args: Note(qualified, args))
        if qualified not in self._stand_ins:
            self._stand_ins[qualified] = _stand_in(qualified)
        return self._stand_ins[qualified]

    def persistent_load(self, pid: Any) -> Any:
        """The object of a persistent id."""
        if self._persistent is None:
            raise UnsafePickleError(f"the pickle refers to something outside of it ({pid!r}): not read")
        return self._persistent(pid)


def _check_operations(file: IO[bytes]) -> None:
    """Look through a pickle for what only a damaged or hostile one does: the fast reader takes memory on its word."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name.startswith("EXT"):
            raise UnsafePickleError("the pickle wants something from the registry of extensions: not read")
        if operation.name.endswith("PUT") and (
            argument is None or argument > count
        ):  # places in the memo are given out one by one
            raise ValueError("its memo has holes")


def _stand_in(qualified: str) -> type[StandIn]:
    kind: Any = _NotCallable(qualified.rpartition(".")[2], (StandIn,), {"qualified": qualified})
    made: type[StandIn] = kind
    return made
