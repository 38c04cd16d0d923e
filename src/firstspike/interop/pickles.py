"""What the operations of a pickle would do, without doing it."""

import pickletools
from typing import IO, Any

_CONTAINERS = {"LIST", "EMPTY_LIST", "APPEND", "APPENDS", "DICT", "EMPTY_DICT", "SETITEM", "SETITEMS"}
_CONTAINERS |= {"EMPTY_SET", "ADDITEMS"}


class UnsafePickleError(ValueError):
    """A pickle that asks for more than data; the message names what it wants."""


def check_operations(file: IO[bytes]) -> None:
    """Refuse what only a damaged or hostile pickle contains; the file is read up to the end of the pickle.

    The fast reader allocates whatever memory a pickle asks for. And a few operations describe a tuple of tuples that
    are all the same one: a key of a dict in this form is hashed part by part, as often as it is in there. So the work
    of handing values from one operation to the next is followed, where a tuple weighs as much as all that is in it.

    Raises:
        UnsafePickleError: it wants something from the registry of extensions.
        ValueError: it is damaged, or has tuples in tuples without end.
    """
    stack: list[int] = []  # weights
    marks: list[int] = []
    memo: dict[int, int] = {}
    work = 0
    argument: Any
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        name, takes = operation.name, [kind.name for kind in operation.stack_before]
        if name.startswith("EXT"):
            raise UnsafePickleError("the pickle wants something from the registry of extensions: not read")
        # places in the memo are given out one by one
        if name.endswith("PUT") and (not isinstance(argument, int) or argument > count):
            raise ValueError("its memo has holes")
        if name == "MARK":
            marks.append(len(stack))
            continue
        if name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
            continue
        try:
            if name.endswith("PUT") or name == "MEMOIZE":
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
                continue
            if name.endswith("GET"):
                stack.append(memo[argument])
                continue
            bottom = marks.pop() - takes.index("mark") if "mark" in takes else len(stack) - len(takes)
            if bottom < 0:
                raise IndexError
        except (IndexError, KeyError):
            raise ValueError(f"its operation {name} has nothing to work on") from None
        weight = sum(stack[bottom:])
        del stack[bottom:]
        work += weight
        if work > 100 * count + 10_000:
            raise ValueError("it has tuples in tuples without end")
        if name == "DUP":
            stack += [weight, weight]
        elif operation.stack_after:
            digits = argument.bit_length() // 64 if name.startswith("LONG") else 0
            stack.append(1 if name in _CONTAINERS else 1 + weight + digits)
