"""YAML as configs use it: text becomes plain data with line numbers. Their meaning is decided elsewhere.

Plain data are mappings whose keys are text, lists, text, numbers, booleans and None. Whatever could be more is an error
with its line: tags (``!!bool x``), aliases, merge keys, duplicate keys. Dates are text.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader

Place = tuple[str | int, ...]
"""Where a value is: keys and indices from the top, e.g. ``("network", 0, "size")``."""

_DEPTH = 50
_DIGITS = 100
_LONGEST = 100
# as in YAML 1.1, but without its numbers to the base of 60, and 1e-3 is a number, too
_INTEGER = re.compile(r"[-+]?(?:0b[01][01_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0[0-7_]*|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))\Z"
)
_KEY = r"[A-Za-z_]\w*(?:\[(?:[a-z]\w*:)?\d{1,9}\])*"
_SETTING = re.compile(rf"({_KEY}(?:\.{_KEY})*)=(.*)", re.ASCII | re.DOTALL)


class YamlError(ValueError):
    """Text that is not plain data. Line and column count from 1, without them it has no place."""

    def __init__(self, problem: str, line: int | None = None, column: int = 1) -> None:
        self.problem = problem
        super().__init__(problem if line is None else f"line {line}, column {column}: {problem}")


@dataclass
class Document:
    """Plain data, and the line of each key and of each entry of a list, from 1; None for values that were set."""

    data: Any
    lines: dict[Place, int | None] = field(default_factory=dict)

    def line(self, place: Place) -> int | None:
        """Line of a value or, if there is none, of its parent; None for values that were set."""
        inner = (place[:end] for end in range(len(place), 0, -1))
        return next((self.lines[part] for part in inner if part in self.lines), None)

    def with_setting(self, setting: str) -> "Document":
        """The document with one value changed or added, or a YamlError for a place that cannot be in it.

        A setting is ``training.epochs=10`` or ``network[1].size=30``, or ``network[lif:0].size=30`` for the first of
        its kind. The value is YAML.
        """
        found = _SETTING.fullmatch(setting)
        if found is None:
            raise YamlError("expected a.b=value or a[0].b=value")
        steps = re.findall(r"[\w:]+", found[1])
        if len(steps) > _DEPTH:
            raise YamlError("is nested too deeply for a config")
        place: Place = ()
        for step in steps:
            place = (*place, self._index(place, step) if step[0].isdigit() or ":" in step else step)
        return self.with_value(place, parse_yaml(found[2]).data)

    def _index(self, place: Place, step: str) -> int:
        """An index in the list at a place: as it is, or of the n-th entry of a kind, ``lif:0``."""
        if ":" not in step:
            return int(step)
        kind, number = step.split(":")
        data = self.data.get(place[0]) if len(place) == 1 and isinstance(self.data, dict) else None
        entries = enumerate(data if isinstance(data, list) else [])
        found = [index for index, entry in entries if isinstance(entry, dict) and entry.get("kind") == kind]
        if int(number) >= len(found):
            raise YamlError(f"there is no [{step}]; {shown_place(place)} has {len(found)} of kind {kind}")
        return found[int(number)]

    def with_value(self, place: Place, value: Any) -> "Document":
        """The document with one value changed or added; a YamlError for a place that cannot be in it."""
        data = _replaced(self.data, place, value)
        kept = {where: line for where, line in self.lines.items() if where[: len(place)] != place}
        return Document(data, {**kept, place: None})


def parse_yaml(text: str) -> Document:
    """Plain data from YAML, of an empty text None. The YamlError for other text names line and column."""
    if wrong := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, wrong.start()) + 1
        column = wrong.start() - text.rfind("\n", 0, wrong.start())
        raise YamlError(f"the character {wrong[0]!r} is not allowed", line, column)
    document, loader = Document(None), _Loader(text)
    try:
        if loader.check_node():
            document.data = _plain(loader.get_node(), (), document, loader)
        if loader.check_node():
            raise _error("expected one document, got another one after ---", loader.peek_event())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = (getattr(error, "problem", None) or str(error)).replace("\n", " ")
        raise YamlError(problem, *((mark.line + 1, mark.column + 1) if mark else ())) from None
    return document


def decode_yaml(content: bytes) -> str:
    """The text of a file. A YamlError names the line that is not UTF-8."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError(f"expected text in UTF-8, got the byte {content[error.start]:#04x}", line) from None


def shown_place(place: Place) -> str:
    """A place for people: ``network[0].size``."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{shown_text(step)}" for step in place)
    return "".join(parts).removeprefix(".")


def shown_text(text: str) -> str:
    """Text for people, in one line that is not too long. Control characters are escaped."""
    return text if text.isprintable() and 0 < len(text) <= _LONGEST else shown_value(text)


def shown_value(value: Any) -> str:
    """A value for people, in one line that is not too long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]}... ({len(text)} characters)"


class _Loader(yaml.SafeLoader):
    """Rejects aliases, tags and deep nesting. Text without quotes may also be None, a bool or a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (the library's name)
        first: [(tag, rule) for tag, rule in rules if tag.endswith((":bool", ":null"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node."""
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _error("aliases (*name) are not allowed", event)
        if event.tag is not None:
            raise _error(f"tags are not allowed, got {shown_value(event.tag)}; put text in quotes", event)
        if self.depth >= _DEPTH and isinstance(event, yaml.CollectionStartEvent):
            raise _error("is nested too deeply for a config", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _plain(node: Any, place: Place, document: Document, loader: _Loader) -> Any:
    """The data of a node. The lines of its parts are added."""

    def part(step: str | int, begin: Any, entry: Any) -> Any:
        document.lines[*place, step] = begin.start_mark.line + 1
        return _plain(entry, (*place, step), document, loader)

    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, loader)
    if isinstance(node, yaml.SequenceNode):
        return [part(index, entry, entry) for index, entry in enumerate(node.value)]
    values: dict[str, Any] = {}
    for key, entry in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error("expected text as a key, got a list or mapping", key)
        if key.value == "<<" and key.style is None:
            raise _error("merge keys (<<) are not allowed", key)
        if key.value in values:
            raise _error(f"duplicate key {shown_value(key.value)}", key)
        values[key.value] = part(key.value, key, entry)
    return values


def _error(problem: str, at: Any) -> YamlError:
    return YamlError(problem, at.start_mark.line + 1, at.start_mark.column + 1)


def _scalar(node: yaml.ScalarNode, loader: _Loader) -> Any:
    number = node.tag.endswith((":int", ":float"))
    if number and len(node.value) > _DIGITS:
        raise _error(f"expected a number of at most {_DIGITS} characters, got {len(node.value)}", node)
    value = loader.construct_object(node)
    if number and math.isinf(value) and node.value[-1].isdigit():
        raise _error(f"{shown_value(node.value)} is beyond the largest number; write .inf for infinity", node)
    return value


def _replaced(data: Any, place: Place, value: Any) -> Any:
    """The data with another value at a place. Missing mappings on the way there are created."""
    if not place:
        return value
    key, rest = place[0], place[1:]
    if isinstance(key, int):
        if not isinstance(data, list):
            raise YamlError(f"there is no [{key}]; {shown_value(data)} is not a list")
        if key >= len(data):
            raise YamlError(f"there is no [{key}]; the list has {len(data)} entries")
        return [*data[:key], _replaced(data[key], rest, value), *data[key + 1 :]]
    if not isinstance(data, dict | None):
        raise YamlError(f"{key} cannot be set inside {shown_value(data)}")
    data = data or {}
    return {**data, key: _replaced(data.get(key), rest, value)}
