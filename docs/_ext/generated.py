"""Parts of pages that come from the package itself: the command's options and the keys of a config.

A page has a line ``% generated: NAME``; the Markdown of ``GENERATED[NAME]`` takes its place.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from firstspike.plots import PLOTS
from firstspike.plots.sweep import SWEEP_PLOTS
from firstspike.config import Config, shipped_configs


def commands() -> str:
    """Every command with its arguments and options, as typer documents them; without the page's title."""
    command = [sys.executable, "-m", "typer", "firstspike.cli", "utils", "docs", "--name", "firstspike"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return text.partition("\n")[2]


def config_keys(section: str) -> str:
    """The keys of a section of the config, a table for each kind it can be."""
    annotation = Config.model_fields[section].annotation
    parts = []
    for model in _models(annotation):
        kind = model.model_fields.get("kind")
        title = f"`kind: {get_args(kind.annotation)[0]}`" if kind else ""
        text = _text(model)
        rows = [_key(name, field) for name, field in model.model_fields.items() if name != "kind"]
        table = _table(("key", "value", "default"), rows) if rows else "No keys."
        parts.append("\n\n".join(part for part in (f"**{title}**" if title else "", text, table) if part))
    return "\n\n".join(parts)


def parts_of_config() -> str:
    """The sections inside of others."""
    seen = list(dict.fromkeys(_inner(Config)))
    top = {model for field in Config.model_fields.values() for model in _models(field.annotation)}
    parts = []
    for model in seen:
        if model in top:
            continue
        kind = model.model_fields.get("kind")
        title = f"`{model.__name__}`" + (f", `kind: {get_args(kind.annotation)[0]}`" if kind else "")
        rows = [_key(name, field) for name, field in model.model_fields.items() if name != "kind"]
        parts.append(f"**{title}**\n\n{_text(model)}\n\n{_table(('key', 'value', 'default'), rows)}")
    return "\n\n".join(parts)


def shipped() -> str:
    """The configs that come with the package, with the first line of each."""
    rows = []
    for name, file in sorted(shipped_configs().items()):
        rows.append((f"`{name}`", file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")))
    return _table(("config", "what it is"), rows)


def plots(figures: dict[str, Any]) -> str:
    """Figures with the first line of each."""
    rows = [(f"`{name}`", inspect.getdoc(draw).splitlines()[0]) for name, draw in figures.items()]
    return _table(("figure", "what it shows"), rows)


GENERATED = {
    "commands": commands,
    "plots": partial(plots, PLOTS),
    "sweep plots": partial(plots, SWEEP_PLOTS),
    "shipped configs": shipped,
    "config parts": parts_of_config,
    **{f"config {section}": partial(config_keys, section) for section in Config.model_fields},
}


def _text(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").replace("``", "`")


def _key(name: str, field: FieldInfo) -> tuple[str, str, str]:
    if field.is_required():
        default = "required"
    elif isinstance(field.default, BaseModel):
        default = "all defaults"
    else:
        default = "none" if field.default is None else f"`{_yaml(field.default)}`"
    return f"`{name}`", _value(field.annotation, tuple(field.metadata)), default


def _yaml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(_yaml(entry) for entry in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What may stand for a key, in words."""
    if get_origin(annotation) is Annotated:
        annotation, *own = get_args(annotation)
        return _value(annotation, (*own, *metadata))
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_value(x, metadata) for x in inside if x is not NoneType))
    if origin is Literal:
        return " or ".join(f"`{x}`" for x in inside)
    if origin in (list, tuple):
        entries = [x for x in inside if x is not Ellipsis]
        if origin is tuple and Ellipsis not in inside and len(inside) > 1:
            return f"{len(inside)} of: {_value(entries[0])}"
        return f"list of: {_value(entries[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        return f"`{annotation.__name__}`" + (f" (`kind: {get_args(kind.annotation)[0]}`)" if kind else "")
    names = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}
    return f"{names.get(annotation, str(annotation))} {_limits(metadata)}".strip()


def _limits(metadata: tuple[Any, ...]) -> str:
    """Bounds on a number, of the annotations that pydantic keeps."""
    signs = {
        annotated_types.Gt: ("gt", ">"),
        annotated_types.Ge: ("ge", "≥"),
        annotated_types.Lt: ("lt", "<"),
        annotated_types.Le: ("le", "≤"),
    }
    entries = [x for entry in metadata for x in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    return ", ".join(f"{signs[type(x)][1]} {getattr(x, signs[type(x)][0])}" for x in entries if type(x) in signs)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is Annotated:
        return _models(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inside in get_args(annotation) for model in _models(inside)]


def _inner(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for inside in _models(field.annotation):
            yield inside
            yield from _inner(inside)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fill(app: Any, page: str, source: list[str]) -> None:
    """Put what is generated in its place."""
    source[0] = re.sub(r"^% generated: (.+)$", lambda found: GENERATED[found[1]](), source[0], flags=re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
