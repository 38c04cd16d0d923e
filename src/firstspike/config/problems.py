"""Pydantic's errors in a config as messages: the place, the error, and how to mend it."""

import difflib
from math import inf
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from firstspike.config.network import Problem
from firstspike.config.yaml_file import Place, shown_value


def problems_of(error: ValidationError, raw: Any, root: type[BaseModel]) -> list[Problem]:
    """The errors in a section, and how to mend them. A "wrong type" counts only if no type of a union fits."""
    details: list[Any] = error.errors(include_url=False)
    found = [(x, _walk(x["loc"], raw, root)[0], x["type"].endswith("_type")) for x in details]
    fitting = {place for _, place, wrong in found if not wrong}
    return [_explain(detail, raw, root) for detail, place, wrong in found if not wrong or place not in fitting]


def _explain(detail: Any, raw: Any, root: type[BaseModel]) -> Problem:
    """One pydantic error: its place, the problem, and how to fix it."""
    place, value, sections = _walk(detail["loc"], raw, root)
    *_, parents = _walk(detail["loc"][:-1], raw, root)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        key, valid = str(place[-1]), _keys(parents[0])
        near = difflib.get_close_matches(key, valid, 1)
        hint = f", did you mean {near[0]}?" if near else ";"
        return place, f"unknown key{hint} valid keys: {', '.join(valid)}"
    if kind == "missing":
        return place, "is missing"
    if kind == "union_tag_invalid":
        tag = shown_value(value.get("kind") if isinstance(value, dict) else context["tag"])
        return (*place, "kind"), f"expected one of {context['expected_tags']}, got {tag}"
    if kind == "union_tag_not_found":
        return place, "needs a kind"
    if context.get("lt") == inf:
        return place, f"should be a finite number, got {shown_value(value)}"
    if kind in ("model_type", "dataclass_type", "model_attributes_type"):
        keys = _keys(sections[0]) if len(sections) == 1 else ["kind"]
        shown = f"the key{'s' if len(keys) > 1 else ''} {', '.join(keys)}"
        name = str(place[-1]) if place else ""
        optional = any(name in x.model_fields and not x.model_fields[name].is_required() for x in parents)
        hint = "; leave it out for the defaults" if optional else ""
        return place, f"expected a section with {shown}, got {shown_value(value)}{hint}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    shown = "" if isinstance(value, dict | list) else f", got {shown_value(value)}"
    return place, f"{message}{shown}"


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _walk(loc: tuple[int | str, ...], raw: Any, root: type[BaseModel]) -> tuple[Place, Any, list[type[BaseModel]]]:
    """The place of an error without pydantic's additions for unions, the value there, and the possible sections."""
    place: Place = ()
    value, sections, tagged = raw, [root], True
    for part in loc:
        if isinstance(part, int):
            if isinstance(value, list | tuple):
                place, value, tagged = (*place, part), value[part] if part < len(value) else None, False
        elif isinstance(value, dict):
            if not tagged and part == value.get("kind"):
                sections, tagged = [s for s in sections if part in get_args(s.model_fields["kind"].annotation)], True
            elif part in value or any(part in section.model_fields for section in sections):
                fields = [section.model_fields[part] for section in sections if part in section.model_fields]
                if fields:  # otherwise a key of a mapping from names to sections
                    sections = [section for field in fields for section in _sections(field.annotation)]
                place, value, tagged = (*place, part), value.get(part), False
    return place, value, sections


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for option in get_args(annotation) for section in _sections(option)]
