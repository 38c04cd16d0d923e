"""Sections of a config, derived from the classes and functions that they configure.

A section's fields are the arguments of its target, with their types, bounds, defaults and descriptions (the ``Args:``
of the docstring), so that no list of arguments is written twice. ``build`` calls the target, ``describe`` reads the
arguments back from an object, which keeps each of them in an attribute of the same name.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import InitVar
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

import torch
from jaxtyping import AbstractArray
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from torch import Tensor

from firstspike.ranges import typed_signature
from firstspike.signature import parts_of_docstring

_RUNTIME = {"self", "device", "dtype", "generator", "backend"}
"""Arguments that a config never gives."""


class Section(BaseModel):
    """A part of a config: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False, ser_json_inf_nan="constants")

    _target: ClassVar[Callable[..., Any]]

    def arguments(self, *omit: str) -> dict[str, Any]:
        """The fields other than ``kind``: the arguments of the section's target. Sections inside are built."""
        return {
            name: value.build() if isinstance(value := getattr(self, name), Built) else value
            for name in type(self).model_fields
            if name not in ("kind", *omit)
        }

    def build(self, **more: Any) -> Any:
        """The object that the section describes, made with its fields and further arguments."""
        takes = inspect.signature(type(self)._target).parameters
        return type(self)._target(**{name: value for name, value in self.arguments().items() if name in takes}, **more)


class Built(Section):
    """A section whose target is called with its fields alone; also when a config is checked, for its ValueErrors."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.build()
        return self


def derive(
    target: Callable[..., Any],
    kind: str | None = None,
    *,
    omit: Collection[str] = (),
    types: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    base: type[Section] = Built,
    name: str | None = None,
) -> type[Section]:
    """The section of a class or function, whose arguments become the fields, except those to ``omit``.

    ``kind`` is the value of the key ``kind``, if it has one. ``types`` take the place of those in the signature,
    ``extra`` are further fields ``(type, Field(...))``. ``name`` is for readers, by default that of the target.
    """
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except NameError:  # names that exist for type checkers only. ``types`` has the needed ones
        hints = {}
    texts = argument_texts(target)
    fields: dict[str, Any] = {}
    for parameter in typed_signature(target).parameters.values():
        if parameter.name in _RUNTIME or parameter.name in omit:
            continue
        annotation = (types or {}).get(parameter.name, _plain(hints.get(parameter.name, parameter.annotation)))
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (annotation, Field(default, description=texts.get(parameter.name)))
    fields |= dict(extra or {})
    if kind is not None:
        fields = {"kind": (Literal[kind], Field(..., description="what this is"))} | fields
    first = " ".join((inspect.getdoc(target) or "").split("\n\n")[0].split()).removesuffix("::")
    model: Any = create_model(name or target.__name__, __base__=base, __doc__=first, **fields)
    model._target = target
    return model


def union(sections: Collection[type[Section]]) -> Any:
    """Any of these sections, distinguished by ``kind``."""
    return Annotated[Union[tuple(sections)], Field(discriminator="kind")]  # noqa: UP007


def argument_texts(target: Callable[..., Any]) -> dict[str, str]:
    """The descriptions in the ``Args:`` of a docstring, by argument."""
    return {name: " ".join(text.split()) for name, text in parts_of_docstring(target)[1].items()}


def _plain(annotation: Any) -> Any:
    """The annotation without tensors, which a config cannot hold."""
    annotation = annotation.type if isinstance(annotation, InitVar) else annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return tuple[tuple(map(_plain, arguments))]  # type: ignore[misc]
    if origin in (Sequence, Collection):
        return tuple[(*map(_plain, arguments), ...)]  # type: ignore[misc]  # so that a section reads back as it was written
    if origin in (Union, UnionType):
        return Union[tuple(_plain(x) for x in arguments if not _is_tensor(x))]  # noqa: UP007
    return annotation


def _is_tensor(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Tensor | AbstractArray | torch.Generator)
