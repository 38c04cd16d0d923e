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
"""Functions that expressions may call, by name. Each has one argument, and is analytic where it is defined."""

RESERVED = {
    "t": "neurons do not depend on the time itself; write what changes as a state with its own equation",
    "dt": "there are no time steps",
    "xi": "there is no noise: spike times are functions of inputs and parameters",
}
"""Names with a meaning in Brian2 that is not there."""
_LONGEST, _DEEPEST, _LARGEST = 10_000, 200, 5000
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_REFUSED = {
    ast.IfExp: "`if` is not allowed: what a spike does is said by threshold and reset",
    ast.Compare: "a comparison is not allowed here: what a spike does is said by threshold and reset",
    ast.BoolOp: "and, or are not allowed: equations are smooth",
    ast.Attribute: "a dot is not allowed: names have none",
    ast.Subscript: "an index is not allowed: a parameter is one number for each neuron",
}


def read(text: str, place: str, before: int = 0) -> Expression:
    """The expression of a text. A ValueError names a part that is not allowed, its ``place`` and its column.

    ``before`` is how many characters of a line come before the text.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{place}: a formula has at most {_LONGEST} characters, got {len(text)}")
    if (strange := next((k for k, x in enumerate(text) if not x.isascii()), None)) is not None:
        raise ValueError(_at(place, before + strange + 1, f"{text[strange]!r} is not a letter from a to z"))
    source, indent = text.strip(), before + len(text) - len(text.lstrip())
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(_at(place, None, f"is not a formula: {short(source)}")) from None
    return _read(tree, place, indent, 0)


def _read(node: ast.AST, place: str, before: int, depth: int) -> Expression:
    column = before + getattr(node, "col_offset", 0) + 1
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
        if node.id.startswith("_") or node.id in FUNCTIONS:
            raise ValueError(_at(place, column, f"{node.id} is no name for a state or parameter"))
        if node.id in RESERVED:
            raise ValueError(_at(place, column, f"{node.id} is not allowed: {RESERVED[node.id]}"))
        return node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _read(node.operand, place, before, depth + 1)
        return inner if isinstance(node.op, ast.UAdd) else ("-", 0.0, inner)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_read(x, place, before, depth + 1) for x in (node.left, node.right))
        return (_OPERATORS[type(node.op)], left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in FUNCTIONS:
            raise ValueError(_at(place, column, f"{node.func.id} is not one of {', '.join(FUNCTIONS)}"))
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise ValueError(_at(place, column, f"{node.func.id} takes one argument"))
        return (node.func.id, _read(node.args[0], place, before, depth + 1))
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


def short(text: str) -> str:
    """A text that fits on a line."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown(expression: Expression) -> str:
    """A text of an expression, with all digits."""
    if not isinstance(expression, tuple):
        return str(expression).removesuffix(".0")
    operation, *operands = map(shown, expression)  # type: ignore[arg-type]
    return f"{operation}({operands[0]})" if operation in FUNCTIONS else f"({f' {operation} '.join(operands)})"


def limited(expression: Expression, place: str) -> Expression:
    """The expression as it is; a ValueError if it is too large or too deep to be traversed."""
    rest, count = [(expression, 0)], 0
    while rest:
        part, depth = rest.pop()
        count += 1
        if count > _LARGEST or depth > _DEEPEST:
            raise ValueError(
                f"{place}: more than {_LARGEST} numbers, names and operations, or nested more than {_DEEPEST} deep, "
                "counting those of each part wherever it is used"
            )
        if isinstance(part, tuple):
            rest += [(x, depth + 1) for x in part[1:]]  # type: ignore[misc]
    return expression


def names_in(expression: Expression) -> Iterator[str]:
    """The names in an expression, each as often as it occurs."""
    if isinstance(expression, str):
        yield expression
    elif isinstance(expression, tuple):
        for operand in expression[1:]:
            yield from names_in(operand)  # type: ignore[arg-type]


def degree_in(expression: Expression, name: str) -> float:
    """The degree of a polynomial in one of its names, ``inf`` for what is none."""
    if not isinstance(expression, tuple):
        return float(expression == name)
    operation, *operands = expression
    degrees = [degree_in(x, name) for x in operands]  # type: ignore[arg-type]
    if operation in ("+", "-"):
        return max(degrees)
    if operation == "*":
        return sum(degrees)
    if operation == "/" and not degrees[1]:
        return degrees[0]
    return math.inf if any(degrees) else 0.0


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
