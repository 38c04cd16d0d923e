"""Ranges of numbers, for annotations: ``float`` and ``int`` to a type checker, bounds to a config and to readers.

``checks_ranges`` makes a function or class refuse arguments outside their ranges.
"""

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import InitVar
from functools import cache, wraps
from math import inf
from numbers import Integral, Real
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

Finite = Annotated[float, Gt(-inf), Lt(inf)]
Positive = Annotated[float, Gt(0), Lt(inf)]
PositiveOrInf = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0), Lt(inf)]
Fraction = Annotated[float, Ge(0), Le(1)]
Probability = Annotated[float, Ge(0), Lt(1)]
PositiveFraction = Annotated[float, Gt(0), Le(1)]
InnerFraction = Annotated[float, Gt(0), Lt(1)]
Infinite = Annotated[float, Ge(inf)]
PositiveInt = Annotated[int, Gt(0)]
NotNegativeInt = Annotated[int, Ge(0)]
# far above realistic sizes, and far below those that hang a machine
Count = Annotated[int, Gt(0), Le(10**9)]
Size = Annotated[int, Gt(0), Le(10**6)]
Bits = Annotated[int, Ge(2), Le(32)]
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
Retries = Annotated[int, Gt(0), Le(1000)]
Border = Annotated[int, Ge(0), Le(1000)]
Distance = Annotated[float, Ge(0), Le(1000)]

_Target = TypeVar("_Target", bound=Callable[..., Any])


def plain(annotation: Any) -> Any:
    """An annotation without ranges, as people write it."""
    if isinstance(annotation, InitVar):
        annotation = annotation.type
    if isinstance(annotation, str):
        return annotation
    return get_type_hints(SimpleNamespace(__annotations__={"": annotation}))[""]


def typed_signature(target: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function or class with the ranges that readers do not see."""
    typed: inspect.Signature | None = getattr(target.__init__ if inspect.isclass(target) else target, "__typed__", None)
    if typed is None or not inspect.isclass(target):
        return typed or inspect.signature(target)
    return typed.replace(parameters=[*typed.parameters.values()][1:])


def reads_plainly(target: _Target) -> _Target:
    """A decorator for a function or class: editors and ``help`` show its arguments without their ranges."""
    function: Any = target.__init__ if inspect.isclass(target) else target
    typed = typed_signature(function)
    shown = [p.replace(annotation=plain(p.annotation)) for p in typed.parameters.values()]
    function.__typed__, function.__signature__ = typed, typed.replace(parameters=shown)
    return target


def checks_ranges(target: _Target) -> _Target:
    """A decorator for a function or class: arguments outside the ranges of their annotations raise a ValueError.

    For a ``Literal`` these are its values. Arguments without a range are not checked.
    """
    function: Any = target.__init__ if inspect.isclass(target) else target
    signature = typed_signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_ranges(function, signature.bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    if not inspect.isclass(target):
        return reads_plainly(checked)  # type: ignore[return-value]
    setattr(target, "__init__", reads_plainly(checked))  # noqa: B010  (a type checker lets nobody assign to a method)
    return target


def check_ranges(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an argument outside the range of its annotation in a function."""
    for name, options in _ranges(function).items():
        classes_first = sorted(options, key=lambda option: not isinstance(option, type))  # a tensor is not looked into
        if name in given and not any(_allows(option, given[name]) for option in classes_first):
            expected = " or ".join(filter(None, (_described(option, given[name]) for option in options)))
            raise ValueError(f"{name} must be {expected}, got {given[name]!r}")


@cache
def _ranges(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """Annotations of the arguments that have ranges; of a union each of its options."""
    hints = {name: parameter.annotation for name, parameter in typed_signature(function).parameters.items()}
    options = {name: get_args(x) if get_origin(x) in (Union, UnionType) else (x,) for name, x in hints.items()}
    return {name: x for name, x in options.items() if any(get_origin(y) in (Annotated, Literal) for y in x)}


def _allows(option: Any, value: Any) -> bool:
    """Whether a value fits. Without bounds in the annotation, any value does."""
    if isinstance(option, type):
        return isinstance(value, option)
    if get_origin(option) is Literal:
        return isinstance(value, str) and value in get_args(option)
    if getattr(value, "ndim", None) == 0:  # an array or tensor of one number
        value = value.item()
    if get_origin(option) is not Annotated:
        return not isinstance(value, Real)
    kind, *bounds = get_args(option)
    number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if number and kind is not int and math.isinf(as_float(value)) and isinstance(value, Integral):
        return False
    return number and all(getattr(operator, name)(value, limit) for name, limit in map(_parts, bounds))


def as_float(value: Any) -> float:
    """A real number, ``inf`` where that is beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _parts(bound: Any) -> tuple[str, float]:
    """Name and limit: ``gt``, ``ge``, ``lt`` or ``le``."""
    name = type(bound).__name__.lower()
    return name, getattr(bound, name)


def _described(option: Any, value: Any) -> str:
    """The allowed values, in words, for one that is not allowed."""
    if isinstance(option, type):
        return "" if option is NoneType else "True, False" if option is bool else f"a {option.__name__}"
    if get_origin(option) is Literal:
        values = get_args(option)
        return repr(values[0]) if len(values) == 1 else f"one of {', '.join(values)}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    kind, *bounds = get_args(option) if get_origin(option) is Annotated else (None,)
    found = map(_parts, bounds)
    of_inf = {"gt": "finite", "ge": "inf", "lt": "finite"}
    texts = {of_inf[name] if abs(limit) == inf else f"{signs[name]} {limit}": None for name, limit in found}
    whole = "a whole number " if kind is int and not isinstance(value, Integral) else ""
    return whole + " and ".join(texts)
