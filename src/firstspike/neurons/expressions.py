"""Formulas as text: read with Python's own grammar, of which a few kinds of nodes are allowed. Nothing is executed.

An expression is a number, a name, or a tuple of an operation and its operands, such as ``("*", "v", ("-", "v", 1.0))``.
"""

import ast
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Expression = float | str | tuple[object, ...]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh")
}
"""What expressions may call, by name; each has one argument, and is analytic where it is defined."""

_LONGEST, _DEEPEST = 10_000, 200
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_REFUSED = {
    ast.IfExp: "`if` is not allowed: what a spike does is said by threshold and reset",
    ast.Compare: "a comparison is not allowed here: what a spike does is said by threshold and reset",
    ast.BoolOp: "and, or are not allowed: equations are smooth",
    ast.Attribute: "a dot is not allowed: names have none",
    ast.Subscript: "an index is not allowed: a parameter is one number for each neuron",
}


def read(text: str, place: str) -> Expression:
    """The expression of a text; a ValueError says what is not allowed in it, and where: ``place`` and the column."""
    if len(text) > _LONGEST:
        raise ValueError(f"{place}: a formula has at most {_LONGEST} characters, got {len(text)}")
    source = text.strip()
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        column = getattr(error, "offset", None)
        raise ValueError(_at(place, column, f"is not a formula: {_short(source)}")) from None
    return _read(tree, place, 0)


def _read(node: ast.AST, place: str, depth: int) -> Expression:
    column = getattr(node, "col_offset", 0) + 1
    if depth > _DEEPEST:
        raise ValueError(
            _at(place, column, f"formulas are nested at most {_DEEPEST} deep; name a part in a line above")
        )
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        number = _finite(node.value)
        if number is None:
            raise ValueError(_at(place, column, "numbers must be finite"))
        return number
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _read(node.operand, place, depth + 1)
        return inner if isinstance(node.op, ast.UAdd) else ("-", 0.0, inner)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return (_OPERATORS[type(node.op)], _read(node.left, place, depth + 1), _read(node.right, place, depth + 1))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in FUNCTIONS:
            raise ValueError(_at(place, column, f"{node.func.id} is not one of {', '.join(FUNCTIONS)}"))
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise ValueError(_at(place, column, f"{node.func.id} takes one argument"))
        return (node.func.id, _read(node.args[0], place, depth + 1))
    message = _REFUSED.get(type(node), "only numbers, names, + - * / **, brackets and functions are allowed")
    raise ValueError(_at(place, column, message))


def _finite(value: int | float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _at(place: str, column: int | None, message: str) -> str:
    return f"{place}{'' if column is None else f', column {column}'}: {message}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def names_in(expression: Expression) -> Iterator[str]:
    """All names, each as often as it occurs."""
    if isinstance(expression, str):
        yield expression
    elif isinstance(expression, tuple):
        for operand in expression[1:]:
            yield from names_in(operand)  # type: ignore[arg-type]


def value_of(expression: Expression, values: Mapping[str, Tensor]) -> Tensor | float:
    """The value of an expression, differentiable with respect to those of its names."""
    if isinstance(expression, str):
        return values[expression]
    if not isinstance(expression, tuple):
        return expression
    operation, *operands = expression
    given = [value_of(x, values) for x in operands]  # type: ignore[arg-type]
    if operation in FUNCTIONS:
        return FUNCTIONS[operation](torch.as_tensor(given[0], dtype=torch.float64))
    one, other = given
    if operation == "+":
        return one + other
    if operation == "-":
        return one - other
    if operation == "*":
        return one * other
    if operation == "/":
        if not isinstance(other, Tensor) and other == 0:
            return one * math.inf
        return one / other
    if not isinstance(one, Tensor) and not isinstance(other, Tensor):
        one = torch.tensor(one, dtype=torch.float64)
    return one**other
