"""The form of what is read from JSON files: a file that was damaged, or is another's, ends in one message."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Leaf(NamedTuple):
    """A plain value: what it is called in messages, and whether one is that."""

    name: str
    fits: Callable[[Any], bool]


Form = Leaf | dict[str, Any]
"""Of a mapping the forms by key; a key that ends in ``?`` may be missing, ``*`` is any other one."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NOTHING = Leaf("null", lambda x: x is None)
TEXT = Leaf("a text", lambda x: isinstance(x, str))
COUNT = Leaf("a number >= 0 without a fraction", lambda x: type(x) is int and x >= 0)
NUMBER = Leaf("a number", _is_number)
FINITE = Leaf("a finite number", lambda x: _is_number(x) and math.isfinite(x))
NUMBERS = Leaf("a list of numbers", lambda x: isinstance(x, list) and all(map(_is_number, x)))
TEXTS = Leaf("a list of texts", lambda x: isinstance(x, list) and all(isinstance(y, str) for y in x))


def read_json(path: Path, form: Form | Callable[[dict[str, Any]], Form]) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        form: what it should have; or how that follows from the mapping in the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or has another form.
    """
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(form, Leaf | dict):
            check_form(found, {})
            form = form(found)
        check_form(found, form)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return found


def check_form(found: Any, form: Form, place: str = "") -> None:
    """Whether something read has a form.

    Args:
        found: what was read.
        form: what it should be.
        place: where it was read, for the message.

    Raises:
        ValueError: it has another one; the message names the place.
    """
    here = place or "it"
    if isinstance(form, Leaf):
        if not form.fits(found):
            raise ValueError(f"{here} should be {form.name}, it is {_short(found)}")
        return
    if not isinstance(found, dict):
        raise ValueError(f"{here} should be a mapping, it is {_short(found)}")
    for key, inner in form.items():
        name = key.removesuffix("?")
        if name in found:
            check_form(found[name], inner, f"{place}.{name}".lstrip("."))
        elif key == "*":
            for other in found.keys() - form.keys():
                check_form(found[other], inner, f"{place}.{other}".lstrip("."))
        elif name == key:
            raise ValueError(f"{here} lacks {name!r}")


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


_PART: dict[str, Any] = {"samples": COUNT, "accuracy": NUMBER, "loss": NUMBER, "silent": NUMBERS}
_SHARED: dict[str, Any] = {"epochs": COUNT, "parameters": COUNT, "seconds": FINITE}
_SPLITS = ("validation", "test")

_IDENTITY = Leaf("a mapping", lambda x: isinstance(x, dict | str))  # early runs name the kind of the substrate alone
ENVIRONMENT: Form = {
    "command?": TEXTS,
    "packages?": {"*": TEXT},
    "substrate?": _IDENTITY,
    "earlier_substrates?": Leaf("a list", lambda x: isinstance(x, list) and all(map(_IDENTITY.fits, x))),
}

MANIFEST: Form = {"format": COUNT, "epoch": COUNT, "batch": COUNT, "sha256": {"*": TEXT}}


def results_form(found: dict[str, Any]) -> Form:
    """The form of ``results.json``, of one training or of several seeds; a split that was not given is null."""
    spread = "accuracy_std" if "seeds" in found else "accuracy_error"
    form: dict[str, Any] = _SHARED | {
        split: NOTHING if found.get(split) is None else _PART | {spread: NUMBER} for split in _SPLITS
    }
    form["best_validation_accuracy"] = NOTHING if found.get("validation") is None else NUMBER
    if isinstance(seeds := found.get("seeds"), dict):
        form["seeds"] = {seed: results_form(own) if isinstance(own, dict) else {} for seed, own in seeds.items()}
    elif "seeds" in found:
        form["seeds"] = {}
    return form
