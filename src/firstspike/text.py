"""Text that people read: users' names, such as those of classes, and how extras are installed."""

import re
import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

_LONGEST = 400  # characters of another program's message
_MOST = 64  # values of a list that are printed
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and ends of lines


def printable(text: str) -> str:
    """The text with its control characters written out, such as ``\\x1b``: a terminal would obey them."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def encodable(text: str) -> str:
    """The text with characters that standard output cannot write escaped, such as ``\\u4e00`` on an old code page."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def counted(number: int, thing: str) -> str:
    """A number of things, such as ``1 epoch`` or ``2 epochs``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def shortened(values: Any) -> str:
    """Values as they are printed, of a long list only its ends, such as signs of very many neurons."""
    if not isinstance(values, list | tuple) or len(values) <= _MOST:
        return str(values)
    first, last = (", ".join(map(str, x)) for x in (values[:3], values[-3:]))
    return f"({first}, ..., {last})" if isinstance(values, tuple) else f"[{first}, ..., {last}]"


def no_decision(names: Collection[str]) -> str:
    """The name of samples without a decision among classes of these names: ``silent``, if no class has it."""
    name = "silent"
    while name in names:
        name = "no decision" if name == "silent" else f"({name})"
    return name


def first_line(error: BaseException) -> str:
    """The message of another program's error in one line."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def needed(module: str, extra: str, what: str) -> Any:
    """A module that an extra installs. The ImportError says ``what`` is missing, and the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} is missing. Install it: {installed_with(extra)}") from error


def installed_with(extra: str) -> str:
    """The command that installs an extra: from a copy of the repository, as long as no package index has firstspike."""
    return f'pip install ".[{extra}]" in a copy of the repository'
