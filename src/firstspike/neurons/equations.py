"""A neuron as differential equations, a threshold and a reset, read from text in the notation of Brian2."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from keyword import iskeyword
from typing import Any

from firstspike.neurons.expressions import FUNCTIONS, RESERVED, Expression, degree_in, limited, names_in, read

_LINES, _CHARACTERS, _STATES = 100, 20_000, 16
_RATE = re.compile(r"d\s*(\w+)\s*/\s*dt")
_CHANGE = re.compile(r"(\w+)\s*([-+*/]?)=(?!=)(.*)", re.DOTALL)
_FLAG = re.compile(r"(?::[^()]*)?(\(unless refractory\))?(?:\((?:event|clock)-driven\))?\s*$")


@dataclass(frozen=True)
class Equations:
    """The equations of a neuron between events, its threshold, and its reset."""

    text: str
    threshold: str
    reset: str
    receptors: tuple[str, ...]
    states: tuple[str, ...]
    flow: tuple[Expression, ...]
    """The derivative of each state with respect to time."""
    excess: Expression
    """The neuron spikes where this rises to 0."""
    after: tuple[Expression, ...]
    """The states after a spike."""
    held: tuple[str, ...]
    """States that stand still for the refractory time."""
    parameters: tuple[str, ...]
    """The names of the parameters, in the order in which they occur."""
    turned: str = ""
    """A state that counts with the other sign: inputs that add to it lower what it stands for."""
    key: str = field(init=False, repr=False, compare=False)
    """A text from which ``equations_of`` makes the same equations again."""

    def __post_init__(self) -> None:  # once, and outside of programs that are compiled
        key = json.dumps([self.text, self.threshold, self.reset, self.receptors, self.held, self.turned])
        object.__setattr__(self, "key", key)

    def turning(self, name: str) -> "Equations":
        """The same with the other sign of a state."""
        inside: dict[str, Expression] = {name: ("-", 0.0, name)}

        def turned(formulas: tuple[Expression, ...]) -> tuple[Expression, ...]:
            found = zip(self.states, (_substituted(x, inside) for x in formulas), strict=True)
            return tuple(("-", 0.0, x) if state == name else x for state, x in found)

        excess = _substituted(self.excess, inside)
        return replace(self, flow=turned(self.flow), excess=excess, after=turned(self.after), turned=name)

    def with_input(self, name: str) -> "Equations":
        """The same with one more state and receptor, the last, which stays as it is and adds to a parameter."""
        state = name
        while re.search(rf"\b{state}\b", self.text):
            state += "_"
        text = re.sub(rf"\b{name}\b", f"({name} + {state})", self.text) + f"\nd{state}/dt = 0"
        key = json.dumps([text, self.threshold, self.reset, (*self.receptors, state), self.held, ""])
        return equations_of(key)

    @property
    def keeps(self) -> bool:
        """Whether a spike leaves all states that the threshold compares as they are."""
        compared = set(names_in(self.excess)).intersection(self.states)
        return bool(compared) and compared.issubset(self.after)

    @property
    def runs_away(self) -> bool:
        """Whether the membrane changes faster the higher it is, more than in proportion, so that it can be infinite."""
        return degree_in(self.flow[0], self.states[0]) > 1

    def __str__(self) -> str:
        return f"{self.text}\nspike where {self.threshold}" + (f"\nthen {self.reset}" if self.reset else "")


@lru_cache(maxsize=256)
def equations_of(key: str) -> Equations:
    """The equations of a ``key``."""
    *given, turned = json.loads(key)
    found = read_equations(*given)
    return found.turning(turned) if turned else found


def read_equations(text: str, threshold: str, reset: str, receptors: Sequence[str], held: Sequence[str]) -> Equations:
    """Read equations.

    Args:
        text: lines ``dx/dt = ...`` and, for names of parts that they use, ``name = ...``. A line may end with a comment
            after ``#`` or, as in Brian2, with ``: 1`` and ``(unless refractory)`` or ``(event-driven)``.
        threshold: a comparison ``left > right``.
        reset: assignments ``x = ...``, ``x += ...``, separated by ``;`` or lines. All see the states before the spike.
        receptors: states to which inputs add their weights.
        held: states that stand still for the refractory time.

    Raises:
        ValueError: text that cannot be read, with its place.
    """
    for name, value in (("equations", text), ("threshold", threshold), ("reset", reset)):
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, got {value!r}")
        if len(value) > _CHARACTERS:
            raise ValueError(f"{name} must have at most {_CHARACTERS} characters, got {len(value)}")
    rates: dict[str, Expression] = {}
    parts: dict[str, tuple[str, Expression]] = {}
    flagged, kept = [], []
    text, reset = ("\n".join(line.partition("#")[0] for line in x.splitlines()) for x in (text, reset))
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        if not (line := line.strip()):
            continue
        place = f"equations, line {number}"
        left, equals, right = line.partition("=")
        if not equals:
            raise ValueError(f"{place}: expected dx/dt = ... or name = ..., got {line[:60]!r}")
        flag = _FLAG.search(right)
        before, right = len(left) + 1, right[: flag.start()] if flag else right
        rate, left = _RATE.fullmatch(left.strip()), left.strip()
        name = rate[1] if rate else left
        allowed = name.isascii() and name.isidentifier() and not iskeyword(name) and not name.startswith("_")
        if not allowed or name in FUNCTIONS or name in RESERVED:
            raise ValueError(f"{place}: expected dx/dt = ... or name = ..., got {left[:60]!r} on the left")
        if name in rates or name in parts:
            raise ValueError(f"{place}: {name} has an equation already")
        kept.append(line)
        if rate:
            rates[name] = read(right, place, before)
            flagged += [name] if flag and flag[1] else []
        else:
            parts[name] = place, read(right, place, before)
    if len(kept) > _LINES or not 1 <= len(rates) <= _STATES:
        raise ValueError(
            f"equations must have 1 to {_STATES} lines dx/dt = ... of at most {_LINES}, got {len(rates)} of {len(kept)}"
        )
    states = tuple(rates)
    inside: dict[str, Expression] = {}
    for name in parts:
        if name not in inside:
            _fill(name, parts, inside)
    flow = tuple(limited(_substituted(x, inside), f"equations, {name}") for name, x in rates.items())
    sides = re.split(r">=|>", threshold)
    if len(sides) != 2:
        raise ValueError(f"threshold must be a comparison such as 'v > 1', got {threshold!r}")
    above, below = (limited(_substituted(read(side, "threshold"), inside), "threshold") for side in sides)
    after = _after(reset, states, inside)
    chosen = some("receptors", receptors, states)
    if not chosen:
        raise ValueError(f"receptors must name the states that inputs add to, among {', '.join(states)}, got none")
    held = some("held", held, states)
    all_held = (*held, *(x for x in flagged if x not in held))
    every = [name for x in (*flow, above, below, *after) for name in names_in(x)]
    parameters = tuple(dict.fromkeys(name for name in every if name not in states))
    excess: Expression = ("-", above, below)
    made = Equations(
        "\n".join(kept), threshold.strip(), reset.strip(), chosen, states, flow, excess, after, all_held, parameters
    )
    if made.keeps and set(names_in(excess)).intersection(states).issubset(all_held):
        raise ValueError(f"held must not be {', '.join(all_held)}: a spike leaves it at the threshold; reset it")
    return made


def _after(reset: str, states: tuple[str, ...], inside: dict[str, Expression]) -> tuple[Expression, ...]:
    found: dict[str, Expression] = {}
    for part in filter(None, (x.strip() for x in re.split(r"[;\n]", reset))):
        change = _CHANGE.fullmatch(part)
        if change is None or change[1] not in states:
            raise ValueError(f"reset must set states ({', '.join(states)}), such as 'v = 0; u += 1', got {part[:60]!r}")
        name, operation, value = change[1], change[2], _substituted(read(change[3], "reset", change.start(3)), inside)
        if name in found:
            raise ValueError(f"reset: {name} is set twice")
        found[name] = limited((operation, name, value) if operation else value, f"reset of {name}")
    return tuple(found.get(name, name) for name in states)


def some(name: str, given: Any, among: Iterable[str], what: str = "states") -> tuple[str, ...]:
    """Some of these names, each once, as they were given: one or several."""
    chosen = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(x in tuple(among) for x in chosen) or len(set(chosen)) != len(chosen):
        raise ValueError(f"{name} must be some of the {what} {', '.join(among)}, got {', '.join(map(str, chosen))}")
    return chosen


def _fill(
    name: str, parts: dict[str, tuple[str, Expression]], inside: dict[str, Expression], above: tuple[str, ...] = ()
) -> None:
    """Note a named part without names of other parts in ``inside``."""
    place, expression = parts[name]
    if name in above:
        raise ValueError(f"{place}: {name} is defined by itself")
    for used in dict.fromkeys(names_in(expression)):
        if used in parts and used not in inside:
            _fill(used, parts, inside, (*above, name))
    inside[name] = limited(_substituted(expression, inside), place)


def _substituted(expression: Expression, inside: dict[str, Expression]) -> Expression:
    if isinstance(expression, str):
        return inside.get(expression, expression)
    if not isinstance(expression, tuple) or not inside:
        return expression
    operation, *operands = expression
    return (operation, *(_substituted(x, inside) for x in operands))  # type: ignore[arg-type]
