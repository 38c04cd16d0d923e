"""Parts of pages that come from the package itself: the command's options and the keys of a config.

A page has a line ``<!-- generated: NAME -->``; the Markdown of ``GENERATED[NAME]`` takes its place.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import firstspike
from firstspike import layers
from firstspike.config import Config
from firstspike.config.section import argument_texts
from firstspike.configs import shipped_configs
from firstspike.substrates import simulators
from firstspike.training import OPTIMIZERS
from firstspike.training.schedules import SCHEDULES

IN_PYTHON = ("custom", "given")
"""Kinds of parts that were made in Python."""
HEAD = ("key", "value", "default", "description")


def commands() -> str:
    """Every command with its arguments and options, as typer documents them; without the page's title."""
    command = [sys.executable, "-m", "typer", "firstspike.cli", "utils", "docs", "--name", "firstspike"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return text.partition("\n")[2]


def config_keys(section: str) -> str:
    """The keys of a section of the config, a table for each kind it can be, then those of the sections inside it."""
    field = Config.model_fields[section]
    parts = [_section(section, model, titled=_kind(model) is not None) for model in _from_yaml(field.annotation)]
    top = {model for other in Config.model_fields.values() for model in _models(other.annotation)}
    inside: dict[type[BaseModel], list[str]] = {}  # a section may be in several places
    for path, model in _inner(section, field.annotation):
        if model not in top and path not in inside.setdefault(model, []):
            inside[model].append(path)
    labelled: set[str] = set()
    for model, paths in inside.items():
        labels = [f"({_label(path)})=\n" for path in paths if path not in labelled]
        labelled.update(paths)
        parts.append("".join(labels) + _section(paths[0], model, titled=True))
    return "\n\n".join(parts)


def descriptions() -> dict[str, str]:
    """What is said about every key that a config may have, by its place, such as ``training.optimizer (sgd).lr``."""
    found = {}
    for section, top in Config.model_fields.items():
        models = [(section, model) for model in _from_yaml(top.annotation)]
        for path, model in [*models, *_inner(section, top.annotation)]:
            kind = f" ({_kind(model)})" if _kind(model) else ""
            for name, field in model.model_fields.items():
                if name != "kind" or _kind(model) is None:
                    found[f"{path}{kind}.{name}"] = _description(model, name, field)
    return found


def shipped() -> str:
    """The configs that come with the package, with the first line of each."""
    rows = []
    for name, file in sorted(shipped_configs().items()):
        rows.append((f"`{name}`", file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")))
    return _table(("config", "what it is"), rows)


GENERATED = {
    "commands": commands,
    "shipped configs": shipped,
    **{f"config {section}": partial(config_keys, section) for section in Config.model_fields},
}


def _section(path: str, model: type[BaseModel], titled: bool) -> str:
    """A title, what the section configures, and its keys."""
    kind = _kind(model)
    names = [f"`{path}`"] if path else []
    title = ", ".join([*names, f"`kind: {kind}`"] if kind else names)
    rows = [_key(path, model, name, x) for name, x in model.model_fields.items() if name != "kind" or kind is None]
    text = _plain(inspect.cleandoc(model.__doc__ or "")).removeprefix("Implements ")  # as torch begins
    text = text[:1].upper() + text[1:]
    parts = (f"### {title}" if titled else "", text, _table(HEAD, rows) if rows else "It has no keys.")
    return "\n\n".join(part for part in parts if part)


def _key(path: str, model: type[BaseModel], name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    if field.is_required():
        default = "required"
    elif isinstance(field.default, BaseModel):
        set_here = field.default.model_dump(exclude_defaults=True)
        default = f"`{_yaml(set_here)}`" if set_here else "its defaults"
    else:
        default = "none" if field.default is None else f"`{_yaml(field.default)}`"
    value = _value(field.annotation, tuple(field.metadata), f"{path}.{name}")
    return f"`{name}`", value, default, _description(model, name, field)


def _description(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """What a key means; ``see X`` is replaced by what X says about an argument of this name."""
    text = field.description or _of_torch(model, name)
    if reference := re.fullmatch(r"see ``(\w+)``\.?", text):
        places = (firstspike, layers, simulators)
        found = next((getattr(place, reference[1], None) for place in places if hasattr(place, reference[1])), None)
        text = argument_texts(found).get(name, text) if found is not None else text
    return _plain(text).removesuffix(".")


def _of_torch(model: type[BaseModel], name: str) -> str:
    """The first sentence that torch has on an argument of an optimiser or a schedule."""
    target: Any = {**OPTIMIZERS, **SCHEDULES}.get(_kind(model))
    entry = re.search(rf"^    {name} \(.*?\):(.*?)(?:\(default|Default:|\.\s|$(?!\n     ))", *_docstring(target))
    if entry is None:
        raise ValueError(f"the key {name} of {model.__name__} has no description")
    text = re.sub(r"`([^`]*)`_", r"\1", " ".join(entry[1].split()))
    return text[0].lower() + text[1:]


def _docstring(target: Callable[..., Any] | None) -> tuple[str, re.RegexFlag]:
    return inspect.getdoc(target) or "", re.MULTILINE | re.DOTALL


def _plain(text: str) -> str:
    """Markdown from a docstring."""
    return text.replace("``", "`")


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_yaml(entry) for entry in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(annotation: Any, metadata: tuple[Any, ...] = (), path: str = "") -> str:
    """What a key may hold, in words."""
    if sections := _from_yaml(annotation):
        several = get_origin(_bare(annotation)) in (list, tuple)
        kinds = [f"`{kind}`" for kind in map(_kind, sections) if kind]
        what = ("list of sections" if several else "section") + (f" of kind {_either(kinds)}" if kinds else "")
        top = next((name for name, field in Config.model_fields.items() if sections == _models(field.annotation)), None)
        link = f"[{what}](#{top or _label(path + ('[]' if several else ''))})"
        return " or ".join([*map(_value, _without_sections(annotation)), link])
    if get_origin(annotation) is Annotated:
        annotation, *own = get_args(annotation)
        return _value(annotation, (*own, *metadata))
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        options = [x for x in inside if x is not NoneType and not (x is str and Path in inside)]
        return " or ".join(dict.fromkeys(_value(x, metadata) for x in options))
    if origin is Literal:
        return _either([f"`{x}`" for x in inside])
    if origin in (list, tuple):
        entries = [x for x in inside if x is not Ellipsis]
        if origin is tuple and Ellipsis not in inside and len(inside) > 1:
            return f"list of {len(inside)}: {_value(entries[0])}"
        return f"list of: {_value(entries[0])}"
    names = {
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        str: "text",
        Path: "path",
        dict: "mapping",
    }
    return f"{names.get(origin or annotation, str(annotation))} {_limits(metadata)}".strip()


def _either(options: list[str]) -> str:
    return " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)


def _limits(metadata: tuple[Any, ...]) -> str:
    """Bounds on a number, of the annotations that pydantic keeps; that it is finite goes without saying."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    entries = [x for entry in metadata for x in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    bounds = (annotated_types.Gt, annotated_types.Ge, annotated_types.Lt, annotated_types.Le)
    named = [(type(x).__name__.lower(), x) for x in entries if isinstance(x, bounds)]
    return ", ".join(f"{signs[n]}\N{NO-BREAK SPACE}{getattr(x, n):g}" for n, x in named if abs(getattr(x, n)) < 1e6)


def _without_sections(annotation: Any) -> list[Any]:
    """What may be there in place of a section, such as a number."""
    inside = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return [x for option in inside for x in _without_sections(option)]
    if get_origin(annotation) is Annotated and get_origin(inside[0]) in (Union, UnionType, Annotated):
        return _without_sections(inside[0])
    return [] if annotation is NoneType or _models(annotation) else [annotation]


def _bare(annotation: Any) -> Any:
    """``X`` of ``Annotated[X, ...]`` and of ``X | None``, and of ``X | Y`` where only ``X`` has sections."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    inside = [x for x in get_args(annotation) if x is not NoneType]
    inside = [x for x in inside if _models(x)] or inside
    return _bare(inside[0]) if get_origin(annotation) in (Union, UnionType) and len(inside) == 1 else annotation


def _kind(model: type[BaseModel]) -> str | None:
    """The value of the key ``kind`` where it tells sections apart, and so has to be given."""
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field and field.is_required() else None


def _label(path: str) -> str:
    return "config-" + re.sub(r"\W+", "-", path).strip("-")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is Annotated:
        return _models(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inside in get_args(annotation) for model in _models(inside)]


def _from_yaml(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a person may write."""
    return [model for model in _models(annotation) if _kind(model) not in IN_PYTHON]


def _inner(path: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections inside a section, with their places."""
    start = f"{path}[]" if get_origin(_bare(annotation)) in (list, tuple) else path
    for model in _from_yaml(annotation):
        for name, field in model.model_fields.items():
            place = f"{start}.{name}"
            several = get_origin(_bare(field.annotation)) in (list, tuple)
            for inside in _from_yaml(field.annotation):
                yield f"{place}[]" if several else place, inside
            yield from _inner(place, field.annotation)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fill(app: Any, page: str, source: list[str]) -> None:
    """Put what is generated in its place."""
    mark = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)
    source[0] = mark.sub(lambda found: GENERATED[found[1]](), source[0])


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
