"""A mapping of theirs from which every key is asked for once, so that nothing is dropped in silence."""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 1_000_000
"""The largest size or number of epochs that is believed."""

_MISSING: Any = object()


@dataclass
class Remarks:
    """What becomes of their keys beside those that are translated.

    Args:
        lacking: what has no counterpart here, one line each.
        unused: keys that change nothing in what a network computes or learns, one line each.
    """

    lacking: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


class Table:
    """A mapping of a config.

    Args:
        raw: its keys and values.
        place: where it stands, for messages.
        remarks: where is told what is not translated.

    Raises:
        ValueError: ``raw`` is no mapping.
    """

    def __init__(self, raw: Any, place: str, remarks: Remarks) -> None:
        if not isinstance(raw, dict):
            raise ValueError(f"{place}: expected a mapping of names to values, got {_short(raw)}")
        self.raw = {str(key): value for key, value in raw.items()}
        self.place = place
        self.remarks = remarks
        self._rest = set(self.raw)

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def take(self, key: str, default: Any = _MISSING) -> Any:
        """The value of a key.

        Raises:
            ValueError: it is not there, and there is no default.
        """
        self._rest.discard(key)
        if key in self.raw:
            return self.raw[key]
        if default is _MISSING:
            raise ValueError(f"{self._name(key)} is missing")
        return default

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A number; where it is not there, the default.

        Raises:
            ValueError: it is something else.
        """
        value = self.take(key, default)
        return value if key not in self.raw else _number(value, self._name(key))

    def integer(self, key: str, default: Any = _MISSING, most: int = MOST) -> int:
        """A whole number from 0 to ``most``."""
        value: Any = self.number(key, default)
        return value if key not in self.raw else _integer(value, self._name(key), most)

    def integers(self, key: str, count: int | None = None) -> list[int]:
        """A list of whole numbers from 0 to ``MOST``, see ``numbers``."""
        return [_integer(value, self._name(key), MOST) for value in self.numbers(key, count)]

    def numbers(self, key: str, count: int | None = None) -> list[float]:
        """A list of numbers; with ``count`` of so many, or one number for all."""
        value = self.take(key)
        if count is not None and not isinstance(value, list):
            value = [value] * count
        if not isinstance(value, list) or count not in (None, len(value)):
            expected = "a list" if count is None else f"{count} numbers"
            raise ValueError(f"{self._name(key)}: expected {expected}, got {_short(value)}")
        return [_number(entry, f"{self._name(key)}[{i}]") for i, entry in enumerate(value)]

    def table(self, key: str, default: Any = _MISSING) -> "Table":
        """A mapping inside this one."""
        return Table(self.take(key, default), self._name(key), self.remarks)

    def tables(self, key: str, default: Any = _MISSING) -> list["Table"]:
        """A list of mappings."""
        value = self.take(key, default)
        if not isinstance(value, list):
            raise ValueError(f"{self._name(key)}: expected a list, got {_short(value)}")
        return [Table(entry, f"{self._name(key)}[{i}]", self.remarks) for i, entry in enumerate(value)]

    def lacks(self, key: str, why: str, harmless: Sequence[Any] = (None, False, 0)) -> None:
        """A key without a counterpart, told unless it is not there or has a value that does nothing."""
        value = self.take(key, None)
        if value is not None and value not in harmless:
            self.remarks.lacking.append(f"{self._name(key)} = {_short(value)}: {why}")

    def without_effect(self, *keys: str) -> None:
        """Keys that change nothing in what a network computes or learns."""
        for key in keys:
            if key in self._rest:
                self.remarks.unused.append(f"{self._name(key)} = {_short(self.take(key))}")

    def close(self) -> None:
        """All is asked for: the other keys are not known."""
        for key in sorted(self._rest):
            self.remarks.lacking.append(f"{self._name(key)} = {_short(self.raw[key])}: this key is not known here")

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def _number(value: Any, name: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = value if isinstance(value, int) else float(value)  # YAML reads 1e-3 as text
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number, got {_short(value)}") from None
    return number


def _integer(value: float, name: str, most: int) -> int:
    if value != int(value) or not 0 <= value <= most:
        raise ValueError(f"{name}: expected a whole number from 0 to {most}, got {value}")
    return int(value)


def _short(value: Any) -> str:
    return reprlib.repr(value)
