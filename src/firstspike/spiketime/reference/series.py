"""Neurons from equations in plain PyTorch, in float64: the Taylor series of ``spiketime.series``, over tensors.

A step is as long as the terms that are left out are negligible, and ``loop`` goes from event to event by such steps.
Autograd goes through the coefficients, so that nothing of the adjoint equations of the kernels is used here. The first
crossing in a step is that of the polynomial of the excess g: bounds from its coefficients tell whether it stays below
0, rises or falls throughout, or is concave, with one maximum. Otherwise the piece is halved.

Shapes: P (sample, neuron) pairs of all networks, D states, K coefficients.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.neurons.expressions import FUNCTIONS, names_in
from firstspike.spiketime import series as steps
from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.reference.neurons import Make, Neurons, Some, State, Values
from firstspike.spiketime.reference.polynomials import Row, first_zero, part_of, powers, take_off
from firstspike.spiketime.statuses import FINE, NOT_FINITE, STUCK_STEP

_MOST = 24  # orders of a step
_SMALL = 1e-16  # size of a term, relative to the largest, that is left out
_GAP = 16  # orders without terms between others that have some, at most
_HALVINGS = 64  # of a step, after which it is stuck

Slot = float | Values


class _Series(Neurons):
    """Neurons from equations, whose flow is a Taylor series."""

    goes_on = True

    def __init__(self, given: Arguments, pairs: Int64[Tensor, " P"], dtype: torch.dtype) -> None:
        assert given.parameters is not None
        assert given.state is not None
        self.programs = steps.programs_of(given.equations)
        self.degrees = torch.tensor(self.programs.flow.degrees, device=given.weight.device).unsqueeze(-1)
        equations = self.programs.equations
        places, reads = map(equations.states.index, equations.receptors), set(names_in(equations.excess))
        super().__init__(given, pairs, dtype, list(places), [name in reads for name in equations.states])
        self.parts = len(equations.states) - 1
        self.holds = torch.tensor([[name in equations.held] for name in equations.states], device=given.weight.device)
        values = self.of_neurons(steps.slot_values(self.programs, given.parameters)).unbind(-1)
        numbers = zip(self.programs.slots, values, strict=True)
        self.slots: list[Slot] = [number if isinstance(number, float) else x for number, x in numbers]
        self.keeps = equations.keeps
        self.waits = not self.keeps and (given.observed is not None or torch.is_grad_enabled())
        """Whether spikes are given, up to which neurons that take off are held."""
        self.rest = self.of_pairs(torch.cat([given.state.voltage.unsqueeze(-1), given.state.current], -1))
        self.seen = self.excess(self.rest.detach())
        """The latest g of neurons without a reset, ``inf`` at a spike."""

    def moved(self, x: State, time: Values, held: Some) -> State:
        every, held = torch.arange(len(x), device=x.device), held | self.waiting
        while True:
            states, level, reach = self._expanded(x, self.slots, held, time, self.waits)
            off = take_off(level.detach(), reach).where(~held, math.inf) if self.waits else reach
            takes = off < reach
            step = torch.minimum(off, reach)
            x = _at(states, step)
            time = torch.where(self._goes_on(every, x, reach, time) | takes, time - step, 0.0)
            held, self.waiting = held | takes, self.waiting | takes
            if not bool((time > 0).any()):
                break
        if self.keeps:
            self.seen = torch.where(held, self.excess(x.detach()), self.seen)
        return x

    def first_crossing(self, x: State, length: Values, looks: Int64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        found, begin = torch.full_like(length, math.inf), torch.zeros_like(length)
        some, free = torch.arange(len(looks), device=x.device), torch.zeros_like(length, dtype=torch.bool)
        while len(some):
            rest, which = length[some] - begin[some], looks[some]
            slots = [slot if isinstance(slot, float) else slot[which] for slot in self.slots]
            states, level, reach = self._expanded(x[some], slots, free[some], rest, searches=True)
            level = level * powers(reach, len(level))
            wait = self._from_below(level, which) if self.keeps else first_zero(level)
            found[some] = begin[some] + wait * reach
            x[some], begin[some] = _at(states, reach), begin[some] + reach
            none = found[some].isinf()
            more = torch.zeros_like(none)
            more[none] = self._goes_on(looks[some[none]], x[some[none]], reach[none], rest[none])
            some = some[more]
        return found

    def _from_below(self, level: Row, which: Int64[Tensor, " L"]) -> Values:
        """Where these polynomials on [0, 1] come from below 0, ``inf`` if nowhere."""
        seen = self.seen[which]
        above = (seen >= 0) & ((level[0] >= 0) | seen.isinf())
        fell = first_zero(-level, above).where(above, 0.0)
        at = fell.clamp(max=1 - _SMALL)
        wait = at + (1 - at) * first_zero(part_of(level, at, 1 - at), above).where(fell.isfinite(), math.inf)
        self.seen[which] = torch.where(wait.isinf(), 2.0 * fell.isinf() - torch.ones_like(seen), math.inf)
        return wait

    def excess(self, x: State) -> Values:
        return self._terms(self.programs.flow, x)[0][:, -1]

    def slope(self, x: State) -> Values:
        now = torch.zeros_like(x[:, 0])
        with torch.enable_grad():
            states, level, _ = self._expanded(x.requires_grad_(), self.slots, now > 0, now, searches=True)
            (top,) = torch.autograd.grad(level[0].sum(), x, retain_graph=True)
            (by,) = torch.autograd.grad((states[1].T * top).sum(), x)
        (value, slope), leak = level[:2].detach(), -(by * top).sum(1)
        least = (-value).clamp(min=0) * leak / top.square().sum(1)  # as the leak would take the rest of the rise
        return slope.maximum(least).where(slope > 0, slope)

    def reset(self, x: State) -> State:
        return self._terms(self.programs.reset, x)[0]

    def kicked(self, x: State, kicks: State, held: Some) -> State:
        (before, change, bend), (after, _, other) = (
            self._terms(self.programs.flow, y, kicks, 3) for y in (x, x + kicks)
        )
        linear = (bend == 0) & (other == 0)  # as most are in what an input adds to: no difference then
        change = torch.where(linear, change, after - before)[:, :-1]
        return change.masked_fill((held | self.waiting).unsqueeze(1) & self.holds.T, 0.0)

    def turned(self, x: State, after: State, held: Some) -> State:
        change = self._rates(after).masked_fill(held.unsqueeze(1) & self.holds.T, 0.0)
        return change - self._terms(self.programs.reset, x, self._rates(x), 2)[1]

    def freed(self, x: State) -> State:
        return torch.where(self.holds.T, self._rates(x), 0.0)

    def _rates(self, x: State) -> State:
        return self._terms(self.programs.flow, x)[0][:, :-1]

    def _terms(self, program: steps.Program, x: State, direction: State | None = None, number: int = 1) -> list[State]:
        """The outputs of a program at ``x + s * direction``, as the first terms of a series in s."""
        none = torch.zeros_like(x.T)
        states = torch.stack([x.T, none if direction is None else direction.T, none][:number])
        rows, before, found = list[Values](states[0].unbind(0)), dict[int, Row](), list[State]()
        for n in range(number):
            rows[: program.inputs] = states[n].unbind(0)
            before |= enumerate(states[: n + 1].unbind(1))
            _expand(program, self.slots, rows, before, n)
            found.append(torch.stack([rows[place] for place in program.outputs], 1))
        return found

    def _expanded(
        self, x: State, slots: Sequence[Slot], held: Some, wait: Values, searches: bool = False
    ) -> tuple[Float64[Tensor, "K D P"], Row, Values]:
        """Coefficients of the states and of g, and the time up to which they do; that of g only for searches."""
        program, states, wait = self.programs.flow, x.T.unsqueeze(0), wait.detach()
        rows, before, levels = list(states[0].unbind(0)), dict[int, Row](), list[Values]()
        still = held & self.holds if bool(held.any()) else None
        tops, power, small = pad(states[0].detach().abs(), (0, 0, 0, int(searches))), torch.ones_like(wait), 0
        for n in range(_MOST):
            before |= enumerate(states.unbind(1))
            _expand(program, slots, rows, before, n)
            *rates, level = (rows[place] for place in program.outputs)
            following = torch.stack(rates) / (n + 1)
            following = following if still is None else torch.where(still, 0.0, following)
            states = torch.cat([states, following.unsqueeze(0)])
            rows[: program.inputs] = following.unbind(0)
            levels.append(level)
            terms = following.detach().abs() * (power * wait)
            terms = torch.cat([terms, (level.detach().abs() * power).unsqueeze(0)]) if searches else terms
            tops, power = torch.maximum(tops, terms), power * wait
            small = small + 1 if bool((terms <= tops * _SMALL).all()) else 0
            if small < 2 and n < _MOST - 1:
                continue
            least, gap = self._orders(states.detach())
            if small >= gap and n >= least:
                return states, torch.stack(levels), wait
        excess = torch.stack(levels)
        parts = torch.cat([states[:-1], excess.unsqueeze(1)], 1) if searches else states
        wait = _reach(parts.detach().abs(), wait, gap)
        return states, excess, wait

    def _orders(self, states: Float64[Tensor, "K D P"]) -> tuple[int, int]:
        """Largest order of a product's terms, and how many terms in a row must be negligible.

        That is 0 and 2, unless states have no terms beyond an order, such as one that grows with the time.
        """
        orders, there = torch.arange(len(states), device=states.device), states != 0
        ends = (there * orders[:, None, None]).amax(0) * ~there[-1]
        if not ends.numel():
            return 0, 2
        of_products, of_functions = self.degrees
        gap = int((of_functions * ends).max())
        return min(int((of_products * ends).sum(0).max()), _MOST - 3), min(max(gap, 2), _GAP)

    def _goes_on(self, some: Int64[Tensor, " L"], x: State, reach: Values, rest: Values) -> Some:
        """Which of these pairs need another step; notes those that cannot go on."""
        finite = x.detach().isfinite().all(1)
        stuck = (reach < rest) & (reach <= rest * 2.0 ** (1 - _HALVINGS))
        wrong = torch.where(stuck, STUCK_STEP, self.status[some])
        self.status[some] = torch.where(finite, wrong, NOT_FINITE)
        return (reach < rest) & (self.status[some] == FINE)


def _at(states: Float64[Tensor, "K D P"], time: Values) -> State:
    """States after a time."""
    return (states * powers(time, len(states)).unsqueeze(1)).sum(0).T


def _reach(sizes: Float64[Tensor, "K D P"], wait: Values, gap: int) -> Values:
    """Half of that time, or half of that, and so on, until so many of the last terms are negligible."""
    for _ in range(_HALVINGS):
        terms = sizes * powers(wait, len(sizes)).unsqueeze(1)
        good = (terms[-gap:] <= terms.amax(0) * _SMALL).all(0).all(0)
        if bool(good.all()):
            break
        wait = torch.where(good, wait, wait / 2)
    return wait


def _expand(program: steps.Program, slots: Sequence[Slot], rows: list[Values], before: dict[int, Row], n: int) -> None:
    """Put the n-th coefficients of all steps into ``rows``, from those of the inputs.

    ``before`` has all coefficients so far of rows that are not only added to others.
    """
    kept = _kept(program)
    for place, (kind, operands, used) in enumerate(program.steps, program.inputs):
        if kind == steps.SUM:
            x = _sum([rows[row] for row in operands], [slots[k] for k in used], rows[0], n)
        else:
            a = before[operands[0]]
            if kind in (steps.PRODUCT, steps.SQUARE):
                x = (a * before[operands[-1]].flip(0)).sum(0)
            elif n == 0:
                x = _first(kind, a[0], slots[used[0]] if used else 1.0)
            else:
                x = _following(kind, a, slots[used[0]] if used else 1.0, before, place, n)
        if n == 0:
            rows.append(x)
        else:
            rows[place] = x
        if place in kept:
            before[place] = torch.cat([before[place], x.unsqueeze(0)]) if n else x.unsqueeze(0)


@lru_cache(maxsize=64)
def _kept(program: steps.Program) -> frozenset[int]:
    """Rows whose earlier coefficients a step needs."""
    found: set[int] = set()
    for place, (kind, operands, _) in enumerate(program.steps, program.inputs):
        if kind != steps.SUM:
            found |= {*operands} if kind in (steps.PRODUCT, steps.SQUARE) else {*operands, place}
        found |= {place + 1} if kind in (steps.SIN, steps.TANH) else set()
    return frozenset(found)


def _sum(terms: Sequence[Values], slots: Sequence[Slot], like: Values, n: int) -> Values:
    """A sum of rows with factors, and of a constant."""
    x: Values | None = None
    for term, slot in zip(terms, slots, strict=False):
        if x is None:
            x = term if isinstance(slot, float) and slot == 1.0 else term * slot
        else:
            x = torch.addcmul(x, term, slot) if isinstance(slot, Tensor) else torch.add(x, term, alpha=slot)
    x = torch.zeros_like(like) if x is None else x
    return x + slots[-1] if len(slots) > len(terms) and n == 0 else x


def _following(kind: int, a: Row, exponent: Slot, before: dict[int, Row], place: int, n: int) -> Values:
    """The n-th coefficients of a function, from its own equation for its derivative."""
    y, part = before[place], torch.arange(n + 1, device=a.device).to(a).unsqueeze(1) / n
    back = a[1 : n + 1].flip(0)
    if kind == steps.INVERSE:
        return -y[0] * (back * y).sum(0)
    if kind == steps.LOG:
        return (a[n] - (part[1:n] * y[1:] * back[1:]).sum(0)) / a[0]
    if kind == steps.POWER:
        return ((exponent * (1 - part[:n]) - part[:n]) * y * back).sum(0) / a[0]
    other = before[{steps.EXP: place, steps.COS: place - 1}.get(kind, place + 1)]
    x = (part[1:] * a[1:] * other[:n].flip(0)).sum(0)
    return -x if kind == steps.COS else a[n] - x if kind == steps.TANH else x


_CALLED = {steps.EXP: "exp", steps.LOG: "log", steps.SIN: "sin", steps.COS: "cos", steps.TANH: "tanh"}


def _first(kind: int, a: Values, exponent: Slot) -> Values:
    if kind == steps.INVERSE:
        return 1 / a
    if kind in (steps.LOG, steps.POWER):
        a = torch.where(a > 0, a, math.nan)
    return a**exponent if kind == steps.POWER else FUNCTIONS[_CALLED[kind]](a)


SERIES: Make = _Series
