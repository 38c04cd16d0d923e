"""Where version 0.3 had its layers: what it pickled asks for them here."""

from pickle import UnpicklingError
from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    raise (AttributeError if name.startswith("__") else UnpicklingError)(
        f"{name} was pickled by firstspike 0.3: whole networks and classifiers load in the version that pickled them "
        "only; fit again, or load them there and keep network_.state_dict(), which holds across versions"
    )
