"""Functions and classes that pass arguments on: their signature and docstring follow from the receivers."""

import inspect
import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

from firstspike.ranges import reads_plainly, typed_signature
from firstspike.text import shortened

_Function = TypeVar("_Function", bound=Callable[..., Any])


def takes_arguments_of(source: Callable[..., Any], without: Collection[str] = ()) -> Callable[[_Function], _Function]:
    """A decorator for a function or class whose ``**`` arguments are keyword arguments of another one.

    ``inspect.signature`` and the docstring then list the arguments of both. Those of the source keep the annotation,
    default and description that they have there. Arguments that are declared, or described, by the function itself
    take precedence. Without a ``Raises:`` section it has that of the source. Arguments ``without`` it does not take.
    """

    def decorate(function: _Function) -> _Function:
        called: Any = function.__init__ if inspect.isclass(function) else function
        own = typed_signature(called)
        declared = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hidden = {p.name for p in declared}.union(without)
        passed = [p for p in typed_signature(source).parameters.values() if p.name not in hidden]
        passed = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in passed]
        signature = own.replace(parameters=[*declared, *passed])

        before, texts, after = parts_of_docstring(function)
        _, source_texts, source_after = parts_of_docstring(source)
        texts = source_texts | texts
        if not any(paragraph.startswith("Raises:") for paragraph in after):
            after += [paragraph for paragraph in source_after if paragraph.startswith("Raises:")]
        listed = "".join(f"    {name}: {texts[name]}\n" for name in signature.parameters if name in texts)
        called.__typed__ = signature
        reads_plainly(called)
        function.__doc__ = "\n\n".join([*before, f"Args:\n{listed}".rstrip(), *after])
        return function

    return decorate


def shown_arguments(built: object, value: Callable[[str], Any] | None = None, bare: int = 0) -> str:
    """How an object is printed: its arguments that are not the default, by its attributes of the same names.

    The first ``bare`` ones and the neuron are always shown, by their values alone. ``value`` may give others.
    """
    value = value or partial(getattr, built)
    # arguments of a class of your own are not known to be attributes, those of the class that it extends are
    kind = next(kind for kind in type(built).__mro__ if kind.__module__.startswith("firstspike."))
    shown = []
    for place, (name, argument) in enumerate(inspect.signature(kind).parameters.items()):
        given = value(name)
        if place < bare or name == "neuron":
            shown.append(f"{given}")
        elif given != argument.default:
            shown.append(f"{name}={shortened(given)}")
    return ", ".join(shown)


def parts_of_docstring(function: Callable[..., Any]) -> tuple[list[str], dict[str, str], list[str]]:
    """Paragraphs of a docstring before ``Args:``, the description of each argument, and the paragraphs after it."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    headings = [paragraph.partition("\n")[0] for paragraph in paragraphs]
    place = next((k for k, x in enumerate(headings) if x in ("Args:", "Returns:", "Raises:")), len(headings))
    if place == len(headings) or headings[place] != "Args:":
        return paragraphs[:place], {}, paragraphs[place:]
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", paragraphs[place], re.MULTILINE)
    return paragraphs[:place], dict(entries), paragraphs[place + 1 :]
