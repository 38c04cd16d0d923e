import inspect

import pytest

import firstspike
from firstspike import connect, data, losses, substrates, training
from firstspike.data import DATASETS
from firstspike.layers import LAYERS
from firstspike.ranges import typed_signature
from firstspike.signature import takes_arguments_of


def source(a: int, b: float = 1.0, c: str = "c") -> str:
    """A source.

    Args:
        a: first.
        b: second, described
            in two lines.
        c: third.

    Returns:
        All of them.
    """
    return f"{a} {b} {c}"


@takes_arguments_of(source, without=("a",))
def function(x: int, c: str = "other", **options: float) -> str:
    """A function.

    With more about it.

    Args:
        x: its own.
        c: its own third.

    Raises:
        ValueError: never.
    """
    return source(x, c=c, **options)


@takes_arguments_of(source)
def bare(**options):
    """Nothing of its own."""
    return source(**options)


def test_signature():
    assert str(inspect.signature(function)) == "(x: int, c: str = 'other', *, b: float = 1.0) -> str"
    assert str(inspect.signature(bare)) == "(*, a: int, b: float = 1.0, c: str = 'c')"
    assert function(3, b=2.0) == "3 2.0 other"
    assert bare(a=1) == "1 1.0 c"
    with pytest.raises(TypeError, match="unexpected keyword argument 'd'"):
        bare(a=1, d=2)


def test_docstring():
    assert function.__doc__ == (
        "A function.\n\nWith more about it.\n\n"
        "Args:\n    x: its own.\n    c: its own third.\n    b: second, described\n        in two lines.\n\n"
        "Raises:\n    ValueError: never."
    )
    assert bare.__doc__.startswith("Nothing of its own.\n\nArgs:\n    a: first.\n")


class Base:
    """What others share.

    Args:
        a: first.
        b: second.
    """

    def __init__(self, a: int, *, b: float = 1.0) -> None:
        self.values = a, b


@takes_arguments_of(Base, without=("a",))
class Derived(Base):
    """A class.

    Args:
        c: its own.
    """

    def __init__(self, c: int, **options: float) -> None:
        super().__init__(c, **options)


def test_classes():
    assert str(inspect.signature(Derived)) == "(c: int, *, b: float = 1.0) -> None"
    assert Derived.__doc__ == "A class.\n\nArgs:\n    c: its own.\n    b: second."
    assert Derived(3, b=2.0).values == (3, 2.0)
    assert str(inspect.signature(Base)) == "(a: int, *, b: float = 1.0) -> None"


PUBLIC = {name: getattr(data, name) for name in data.__all__ if inspect.isfunction(getattr(data, name))}


SHOWN = DATASETS | PUBLIC | LAYERS


@pytest.mark.parametrize("function", SHOWN.values(), ids=SHOWN)
def test_every_argument_has_a_type_and_a_description(function):
    for name, parameter in inspect.signature(function).parameters.items():
        assert parameter.annotation is not parameter.empty
        assert f"\n    {name}: " in inspect.getdoc(function)


MODULES = [firstspike, data, firstspike.layers, losses, substrates, training, firstspike.neurons, connect]


def _is_error(part):
    return inspect.isclass(part) and issubclass(part, BaseException)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_signatures_read_as_people_write_them(module):
    parts = {name: getattr(module, name) for name in module.__all__}
    for part in list(parts.values()):
        if inspect.isclass(part):
            parts |= {f"{part.__name__}.{x}": y for x, y in vars(part).items() if inspect.isfunction(y) and x[0] != "_"}
    signatures = {name: str(inspect.signature(x)) for name, x in parts.items() if callable(x) and not _is_error(x)}
    assert not [name for name, text in signatures.items() if "Annotated" in text]


def test_ranges_are_kept():
    assert "scale: float = 1.0" in str(inspect.signature(firstspike.DelayRule))
    assert "Gt" in str(typed_signature(firstspike.DelayRule).parameters["scale"])
    assert list(typed_signature(firstspike.Delay).parameters)[:2] == ["features", "rule"]
    with pytest.raises(ValueError, match="scale must be > 0"):
        firstspike.DelayRule(scale=-1.0)
