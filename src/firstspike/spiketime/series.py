"""Equations of a neuron as programs whose steps have Taylor series: of its flow, its adjoint, and its spikes.

Each step gives the n-th coefficients of a quantity from coefficients up to the n-th of quantities before it: a product
is a sum over products, an exponential follows from its own derivative, and so on (Moore 1966, "Interval analysis",
chapter 11; Jorba and Zou 2005, "A software package for the numerical integration of ODEs by means of high-order Taylor
methods"). The n-th coefficients of the states' derivatives give the next ones of the states. So one walk
through a program for each order expands a flow to any order.

Adjoints are the same programs backwards (reverse mode): each step passes what the loss owes to it on to its operands.
Numbers and expressions of parameters are ``slots``, which are evaluated once for each neuron.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from firstspike.neurons.equations import Equations, equations_of
from firstspike.neurons.expressions import Expression, value_of

SUM, PRODUCT, SQUARE, INVERSE, EXP, LOG, POWER, SIN, COS, TANH, HELD = range(11)
"""Kinds of steps. ``HELD`` is 0 in a refractory time, and otherwise its operand."""
_MOST_POWER = 64


class Step(NamedTuple):
    """One step. Operands are rows, those of the inputs first and then one for each step."""

    kind: int
    operands: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()
    """Factors of a sum's operands, perhaps followed by a constant, or the exponent of a power."""


class Program(NamedTuple):
    """Steps, and the rows of their results."""

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    by_slot: tuple[tuple[int, int], ...] = ()
    """In adjoints, the row of a slot's gradient, for slots that depend on parameters."""

    @property
    def degrees(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How often each input is a factor of a step, at most; and the same of steps that are no polynomials in it.

        Of an input that is t, a polynomial has no terms beyond that order. A function of one has terms at multiples of
        it alone, perhaps at every other one, and may begin with the third, as ``x - sin(x)``.
        """
        found = [[int(k == x) for k in range(self.inputs)] for x in range(self.inputs)]
        curved = [[0] * self.inputs for _ in range(self.inputs)]
        for kind, operands, _ in self.steps:
            used = operands[:1] if kind == COS else operands
            own = [[found[x][k] for x in used] or [0] for k in range(self.inputs)]
            bent = [max([curved[x][k] for x in used] or [0]) for k in range(self.inputs)]
            plain = kind in (SUM, PRODUCT, HELD, SQUARE)
            factor = 2 if kind == SQUARE else 1 if plain else 3
            found.append([factor * (sum(x) if kind == PRODUCT else max(x)) for x in own])
            curved.append([x if (y or not plain) and x else 0 for x, y in zip(found[-1], bent, strict=True)])
        return tuple(map(max, zip(*found, strict=True))), tuple(map(max, zip(*curved, strict=True)))


class Programs(NamedTuple):
    """The programs of a neuron with D states."""

    equations: Equations
    slots: tuple[Expression, ...]
    flow: Program
    """From the states: their derivatives with respect to time, and then the distance above the threshold."""
    adjoint: Program
    """From states and adjoints, the derivatives of both, and the part of a slot's gradient at a time."""
    plain_adjoint: Program
    """The adjoint without slots."""
    reset: Program
    """From the states before a spike: those after it."""
    reset_adjoint: Program
    """From the states before a spike and adjoints after it: the adjoints before it."""
    excess_adjoint: Program
    """From the states: the derivatives of the flow's last output with respect to them."""


@lru_cache(maxsize=64)
def programs_of(key: str) -> Programs:
    """The programs of the equations with that key."""
    equations = equations_of(key)
    slots: dict[Expression, int] = {}
    states, held = len(equations.states), [name in equations.held for name in equations.states]

    flow = _Graph(equations.states, states, slots)
    rates = [flow.row(flow.form(x)) for x in equations.flow]
    forward = flow.program([*rates, flow.row(flow.form(equations.excess))])

    both = _Graph(equations.states, 2 * states, slots)
    rates = [both.row(both.form(x)) for x in equations.flow]
    owed = [both.step(Step(HELD, (states + k,))) if x else states + k for k, x in enumerate(held)]
    adjoints, by_slot = both.pulled_back([(row, _only(k)) for row, k in zip(rates, owed, strict=True)])
    rates += [both.row(_scaled(x, -1.0)) for x in adjoints[:states]]
    adjoint, plain_adjoint = both.program(rates, by_slot), both.program(rates)

    after = _Graph(equations.states, states, slots)
    reset = after.program([after.row(after.form(x)) for x in equations.after])

    before = _Graph(equations.states, 2 * states, slots)
    outputs = [before.row(before.form(x)) for x in equations.after]
    adjoints, by_slot = before.pulled_back([(row, _only(states + k)) for k, row in enumerate(outputs)])
    reset_adjoint = before.program([before.row(x) for x in adjoints[:states]], by_slot)

    top = _Graph(equations.states, states, slots)
    adjoints, by_slot = top.pulled_back([(top.row(top.form(equations.excess)), _Form({}, 1.0))])
    excess_adjoint = top.program([top.row(x) for x in adjoints], by_slot)
    return Programs(equations, tuple(slots), forward, adjoint, plain_adjoint, reset, reset_adjoint, excess_adjoint)


def slot_values(programs: Programs, parameters: Tensor) -> Tensor:
    """The numbers of all slots, for each neuron; differentiable."""
    names = {name: parameters[..., k] for k, name in enumerate(programs.equations.parameters)}
    like = parameters[..., 0]
    found = (torch.as_tensor(value_of(x, names), dtype=like.dtype).expand(like.shape) for x in programs.slots)
    return torch.stack(list(found), -1)


class _Form(NamedTuple):
    """A sum of rows with factors, and a constant."""

    terms: dict[int, Expression]
    constant: Expression


def _only(row: int) -> _Form:
    return _Form({row: 1.0}, 0.0)


def _plus(one: Expression, other: Expression) -> Expression:
    if isinstance(one, float) and isinstance(other, float):
        return one + other
    return other if one == 0.0 else one if other == 0.0 else ("+", one, other)


def _times(one: Expression, other: Expression) -> Expression:
    if isinstance(one, float) and isinstance(other, float):
        return one * other
    if one == 0.0 or other == 0.0:
        return 0.0
    return other if one == 1.0 else one if other == 1.0 else ("*", one, other)


def _scaled(form: _Form, factor: Expression) -> _Form:
    terms = {row: _times(x, factor) for row, x in form.terms.items()}
    return _Form({row: x for row, x in terms.items() if x != 0.0}, _times(form.constant, factor))


def _added(one: _Form, other: _Form) -> _Form:
    terms = dict(one.terms)
    for row, x in other.terms.items():
        terms[row] = _plus(terms.get(row, 0.0), x)
    return _Form({row: x for row, x in terms.items() if x != 0.0}, _plus(one.constant, other.constant))


class _Graph:
    """Steps that grow. Equal ones are made once."""

    def __init__(self, states: Sequence[str], inputs: int, slots: dict[Expression, int]) -> None:
        self.states, self.inputs, self.slots = {name: row for row, name in enumerate(states)}, inputs, slots
        self.steps: list[Step] = []
        self.rows: dict[Step, int] = {}

    def program(self, outputs: Sequence[int], by_slot: Sequence[tuple[int, int]] = ()) -> Program:
        """The steps that these rows need."""
        kept = {*outputs, *(row for _, row in by_slot)}
        for place in range(len(self.steps) - 1, -1, -1):
            row, step = self.inputs + place, self.steps[place]
            rows = {row, row + 1} if step.kind in (SIN, TANH) else {row}  # which come together
            if kept & rows:
                kept |= rows | set(step.operands)
        steps = [(self.inputs + place, step) for place, step in enumerate(self.steps) if self.inputs + place in kept]
        to = {row: row for row in range(self.inputs)} | {row: self.inputs + k for k, (row, _) in enumerate(steps)}
        moved = [step._replace(operands=tuple(to[x] for x in step.operands)) for _, step in steps]
        return Program(
            self.inputs, tuple(moved), tuple(to[x] for x in outputs), tuple((slot, to[x]) for slot, x in by_slot)
        )

    def step(self, step: Step) -> int:
        """The row of a step."""
        if step not in self.rows:
            self.rows[step] = self.inputs + len(self.steps)
            self.steps.append(step)
        return self.rows[step]

    def slot(self, value: Expression) -> int:
        return self.slots.setdefault(value, len(self.slots))

    def row(self, form: _Form) -> int:
        """The row of a sum."""
        if form.constant == 0.0 and list(form.terms.values()) == [1.0]:
            return next(iter(form.terms))
        slots = [self.slot(x) for x in form.terms.values()]
        if form.constant != 0.0 or not slots:
            slots.append(self.slot(form.constant))
        return self.step(Step(SUM, tuple(form.terms), tuple(slots)))

    def form(self, expression: Expression) -> _Form:
        """An expression as a sum of rows."""
        if isinstance(expression, str) and expression in self.states:
            return _only(self.states[expression])
        if not isinstance(expression, tuple):
            return _Form({}, expression)
        operation, *operands = expression
        given = [self.form(x) for x in operands]  # type: ignore[arg-type]
        if operation == "+":
            return _added(*given)
        if operation == "-":
            return _added(given[0], _scaled(given[1], -1.0))
        if operation == "*":
            return self.product(*given)
        if all(not x.terms for x in given):
            return _Form({}, (operation, *(x.constant for x in given)))
        if operation == "**":
            return self._power(*given)
        if operation == "/":
            return self.product(given[0], self._inverse(given[1]))
        if operation == "sqrt":
            return self._power(given[0], _Form({}, 0.5))
        return self._called(str(operation), self.row(given[0]))

    def product(self, one: _Form, other: _Form) -> _Form:
        """A product of sums."""
        if not one.terms or not other.terms:
            constant, rest = (other, one) if not other.terms else (one, other)
            return _scaled(rest, constant.constant)
        rows = sorted((self.row(one), self.row(other)))
        if rows[0] == rows[1]:
            return _only(self.step(Step(SQUARE, (rows[0],))))
        return _only(self.step(Step(PRODUCT, tuple(rows))))

    def _inverse(self, form: _Form) -> _Form:
        if not form.terms:
            return _Form({}, ("/", 1.0, form.constant))
        return _only(self.step(Step(INVERSE, (self.row(form),))))

    def _power(self, base: _Form, exponent: _Form) -> _Form:
        if exponent.terms:
            log = _Form({}, ("log", base.constant)) if not base.terms else self._called("log", self.row(base))
            return self._called("exp", self.row(self.product(log, exponent)))
        number = exponent.constant
        if isinstance(number, float) and number.is_integer() and abs(number) <= _MOST_POWER:
            whole = self._whole(base, int(abs(number)))
            return whole if number >= 0 else self._inverse(whole)
        return _only(self.step(Step(POWER, (self.row(base),), (self.slot(number),))))

    def _whole(self, base: _Form, number: int) -> _Form:
        if number == 0:
            return _Form({}, 1.0)
        half = self._whole(base, number // 2)
        square = self.product(half, half)
        return self.product(square, base) if number % 2 else square

    def _called(self, name: str, row: int) -> _Form:
        if name in ("sin", "cos"):  # each follows from the other
            sine = self.step(Step(SIN, (row,)))
            return _only(sine if self.step(Step(COS, (row, sine))) and name == "sin" else sine + 1)
        if name == "tanh":
            tanh = self.step(Step(TANH, (row,)))
            self.step(Step(SQUARE, (tanh,)))  # it needs its own square, in the row that follows
            return _only(tanh)
        return _only(self.step(Step(EXP if name == "exp" else LOG, (row,))))

    def pulled_back(self, outputs: Sequence[tuple[int, _Form]]) -> tuple[list[_Form], list[tuple[int, int]]]:
        """The gradient of each input and slot, from the gradients of some rows."""
        owed: dict[int, _Form] = {}
        parts: dict[int, _Form] = {}

        def owes(into: dict[int, _Form], place: int, form: _Form) -> None:
            into[place] = _added(into.get(place, _Form({}, 0.0)), form)

        for row, form in outputs:
            owes(owed, row, form)
        values = list(self.slots)
        for place in range(len(self.steps) - 1, -1, -1):
            row, (kind, operands, slots) = self.inputs + place, self.steps[place]
            if row not in owed:
                continue
            mine, x = owed[row], _only(operands[0]) if operands else _Form({}, 0.0)
            if kind == SUM:
                for slot, operand in zip(slots, operands, strict=False):
                    owes(owed, operand, _scaled(mine, values[slot]))
                    owes(parts, slot, self.product(mine, _only(operand)))
                if len(slots) > len(operands):
                    owes(parts, slots[-1], mine)
            elif kind == PRODUCT:
                owes(owed, operands[0], self.product(mine, _only(operands[1])))
                owes(owed, operands[1], self.product(mine, x))
            elif kind == SQUARE:
                owes(owed, operands[0], self.product(_scaled(mine, 2.0), x))
            elif kind == INVERSE:
                owes(owed, operands[0], self.product(_scaled(mine, -1.0), self.product(_only(row), _only(row))))
            elif kind == EXP:
                owes(owed, operands[0], self.product(mine, _only(row)))
            elif kind == LOG:
                owes(owed, operands[0], self.product(mine, self._inverse(x)))
            elif kind == POWER:
                part = self.product(_scaled(mine, values[slots[0]]), _only(row))
                owes(owed, operands[0], self.product(part, self._inverse(x)))
                owes(parts, slots[0], self.product(self.product(mine, _only(row)), self._called("log", operands[0])))
            elif kind == SIN:
                owes(owed, operands[0], self.product(mine, _only(row + 1)))
            elif kind == COS:
                owes(owed, operands[0], self.product(_scaled(mine, -1.0), _only(row - 1)))
            elif kind == TANH:
                rest = _added(_Form({}, 1.0), _scaled(_only(row + 1), -1.0))
                owes(owed, operands[0], self.product(mine, rest))
            else:
                raise AssertionError(f"no step {kind} has an adjoint")
        learnt = {slot: form for slot, form in parts.items() if not isinstance(values[slot], float)}
        found = [owed.get(row, _Form({}, 0.0)) for row in range(self.inputs)]
        return found, [(slot, self.row(form)) for slot, form in learnt.items()]
