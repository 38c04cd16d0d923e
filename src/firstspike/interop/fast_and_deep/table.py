"""Read a mapping of the original's config key by key, so that no key is dropped silently."""

import math
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

LIMIT = 1_000_000  # largest size, count or number of epochs that is accepted

_REQUIRED: Any = object()


class Settings:
    """A mapping in the original's config. Each key has to be read once. ``close`` notes the others.

    ``no_counterpart`` has settings without a counterpart in firstspike, one line each, together with those of the
    mapping around it. All methods raise a ValueError for a missing key and for a value of another kind.
    """

    def __init__(self, raw: Any, place: str = "", parent: "Settings | None" = None) -> None:
        if not isinstance(raw, dict):
            where = place or "not a config of fastAndDeep"
            raise ValueError(f"{where}: expected a mapping of names to values, got {reprlib.repr(raw)}")
        self.raw = {str(key): value for key, value in raw.items()}
        self.place = place
        self.no_counterpart: list[str] = [] if parent is None else parent.no_counterpart
        self._unread = set(self.raw)

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value of a key, of any type."""
        self._unread.discard(key)
        if key not in self.raw and default is _REQUIRED:
            raise ValueError(f"{self._name(key)} is missing")
        return self.raw.get(key, default)

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A number; without the key the default."""
        value = self.take(key, default)
        return _number(value, self._name(key)) if key in self.raw else value

    def optional(self, key: str) -> float | None:
        """A number; None if the key is missing, null or false."""
        value = self.take(key, None)
        return None if value is None or value is False else self.number(key)

    def integer(self, key: str, default: Any = _REQUIRED, most: int = LIMIT) -> int:
        """An integer from 0 to ``most``; without the key the default."""
        value: Any = self.number(key, default)
        return _integer(value, self._name(key), most) if key in self.raw else value

    def numbers(self, key: str, count: int | None = None) -> list[float]:
        """A list of numbers, of length ``count`` if that is given. A single number stands for ``count`` equal ones."""
        value = self.take(key)
        if count is not None and not isinstance(value, list):
            value = [value] * count
        if not isinstance(value, list) or count not in (None, len(value)):
            expected = "a list" if count is None else f"{count} numbers"
            raise ValueError(f"{self._name(key)}: expected {expected}, got {reprlib.repr(value)}")
        return [_number(entry, f"{self._name(key)}[{i}]") for i, entry in enumerate(value)]

    def integers(self, key: str, count: int | None = None) -> list[int]:
        """A list of integers from 0 to ``LIMIT``, or one number for all, as ``numbers`` takes them."""
        return [_integer(value, self._name(key), LIMIT) for value in self.numbers(key, count)]

    def choice(self, key: str, known: Iterable[str], default: str | None = None) -> str:
        """One of several names; without the key the default."""
        value = self.take(key, default)
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{self._name(key)}: {value!r} has no counterpart here; known: {', '.join(known)}")
        return value

    def table(self, key: str, default: Any = _REQUIRED) -> "Settings":
        """A nested mapping."""
        return Settings(self.take(key, default), self._name(key), self)

    def tables(self, key: str, default: Any = _REQUIRED) -> list["Settings"]:
        """A list of mappings."""
        value = self.take(key, default)
        if not isinstance(value, list):
            raise ValueError(f"{self._name(key)}: expected a list, got {reprlib.repr(value)}")
        return [Settings(entry, f"{self._name(key)}[{i}]", self) for i, entry in enumerate(value)]

    def note(self, key: str, text: str) -> None:
        """Note that a key has no counterpart."""
        self.no_counterpart.append(f"{self._name(key)}{text}")

    def note_value(self, key: str, why: str, harmless: tuple[Any, ...] = (None, False, 0)) -> None:
        """Read a key that has no counterpart, and note its value if that has an effect."""
        value = self.take(key, None)
        if value is not None and value not in harmless:
            self.note(key, f" = {reprlib.repr(value)}: {why}")

    def note_differing(self, key: str, values: Sequence[Any], chosen: Any) -> None:
        """Note values of layers that are the same for all of them here."""
        if len(set(values)) > 1:
            self.no_counterpart.append(f"{key} differs between layers ({values}); here all layers have {chosen}")

    def skip(self, *keys: str) -> None:
        """Skip keys that affect neither the results nor the training of a network."""
        self._unread.difference_update(keys)

    def close(self) -> None:
        """Note the unread keys."""
        for key in sorted(self._unread):
            self.note(key, f" = {reprlib.repr(self.raw[key])}: unknown key")

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def _number(value: Any, name: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = value if isinstance(value, int) else float(value)  # YAML 1.1 reads 1e-3 as text
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number, got {reprlib.repr(value)}") from None
    return number


def _integer(value: float, name: str, most: int) -> int:
    if value != int(value) or not 0 <= value <= most:
        raise ValueError(f"{name}: expected an integer from 0 to {most}, got {value}")
    return int(value)
