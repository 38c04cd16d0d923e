"""Where version 0.3 had its layers, which what it pickled asks for."""

from pickle import UnpicklingError


def __getattr__(name: str) -> None:
    cure = "load it there and keep network_.state_dict(), which holds across versions, or fit again"
    raise (AttributeError if name.startswith("__") else UnpicklingError)(f"{name} was pickled by version 0.3: {cure}")
