"""How linear neurons move between events, in closed form, and where a value of theirs rises or falls.

The state of a neuron is its membrane, its ``components`` and the number 1. Between events ``dx/dt = A x``, with
eigenvalues <= 0: the rates of the membrane's leak and of the components, and 0 for the constant input. Equal rates cost
no digits, as nothing here is a sum of eigenmodes.

A value that is linear in x, such as the excess g over the threshold, is a sum of exponentials (times powers of t where
rates are equal). For any rate r

    (d/dt + r) f = exp(-r t) d/dt (exp(r t) f),

so that f has one zero at most between two zeros of ``(d/dt + r) f``, which has one exponential less. Rate by rate, this
leads from g' to two exponentials, whose zero is known, and from there back to all zeros of g'. Between two of these g
rises or falls throughout.

Shapes: L states, B borders of pieces of time.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from firstspike.neurons.base import ROLES, Kind
from firstspike.spiketime.response import ReceptorTaus, differentiable_kappa, response

_STEPS = 300  # of a search. Every fourth halves the number of floats in the bracket, of which 64 suffice
_EPS, _NEAR = 4e-16, 1e-12
_UNDERFLOW = 1e-290  # below, a number may have lost its digits

Columns = list[Tensor]
"""One tensor for each number of a state, of shapes that broadcast with those of times."""


class Flow(NamedTuple):
    """The constants of some neurons, which say how their states move between events."""

    kinds: tuple[Kind, ...]
    mem: Tensor
    syn: Columns
    bias: Tensor

    def each(self, index: object) -> "Flow":
        """Those of some of the neurons, or with another dimension."""
        return Flow(self.kinds, self.mem[index], [x[index] for x in self.syn], self.bias[index])  # type: ignore[index]

    def fed(self, k: int) -> bool:
        """Whether component k is fed by the one before."""
        return k > 0 and ROLES[self.kinds[k - 1]].feeds

    def moved(self, x: Columns, s: Tensor) -> Columns:
        """States after a time, differentiable."""
        voltage, *parts, one = x
        decay = -s / self.mem
        voltage = voltage * torch.exp(decay) - self.bias * torch.expm1(decay) * one
        after = []
        for k, (kind, y, tau) in enumerate(zip(self.kinds, parts, self.syn, strict=True)):
            sign, feeds, _ = ROLES[kind]
            if feeds:
                voltage = voltage + sign * y * response(s, self.mem, ReceptorTaus(self.syn[k + 1], tau))
            elif sign:
                voltage = voltage + sign * y * differentiable_kappa(s, self.mem, tau, arrived=True)
            rest = y * torch.exp(-s / tau)
            if self.fed(k):
                rest = rest + parts[k - 1] * differentiable_kappa(s, tau, self.syn[k - 1], arrived=True)
            after.append(rest)
        return [voltage, *after, one]

    def rates(self, x: Columns) -> Columns:
        """Derivatives of states with respect to time."""
        voltage, *parts, one = x
        change, after = (self.bias * one - voltage) / self.mem, []
        for k, (kind, y, tau) in enumerate(zip(self.kinds, parts, self.syn, strict=True)):
            if not ROLES[kind].feeds:
                change = change + ROLES[kind].sign * y / tau
            after.append((parts[k - 1] / self.syn[k - 1] if self.fed(k) else 0.0) - y / tau)
        return [change, *after, torch.zeros_like(one)]

    def excess(self, x: Sequence[Tensor], threshold: Tensor) -> Tensor:
        """g: the membrane without all parts of the threshold."""
        for kind, y in zip(self.kinds, x[1:-1], strict=True):
            threshold = threshold if ROLES[kind].sign else threshold + y
        return x[0] - threshold

    def at_last(self, x: Columns) -> Columns:
        """States after a time without end."""
        voltage, *parts, one = x
        for kind, y in zip(self.kinds, parts, strict=True):
            voltage = voltage + ROLES[kind].sign * y
        return [torch.where(self.mem.isinf(), voltage, self.bias), *(torch.zeros_like(y) for y in parts), one]

    def may_cross(self, x: Columns, excess: Tensor, s: Tensor) -> Bool[Tensor, " L"]:
        """False only where g surely stays below 0, as each component lifts the membrane by so much at most."""
        voltage, *parts, _ = x
        lift = (self.bias - voltage).clamp(min=0) * (s / self.mem).nan_to_num(nan=0.0).clamp(max=1)
        for k, (kind, y, tau) in enumerate(zip(self.kinds, parts, self.syn, strict=True)):
            sign, feeds, _ = ROLES[kind]
            tau = self.syn[k + 1] if feeds else tau
            most = ((torch.minimum(s, self.mem) if sign else s) / tau).clamp(max=1)
            lift = lift + (y if sign >= 0 else -y).clamp(min=0) * most
        return excess + lift >= 0

    def pieces(self, x: Columns, length: Tensor) -> Float64[Tensor, "L B"]:
        """Borders of pieces of time from 0 to a length in which g is monotone. Some may be empty."""
        (*rows, last), rates = self._rows()
        start = torch.zeros_like(length)
        # relative to the membrane's rest, so that late slopes are no differences of equal terms
        x = [x[0] - self.bias, *x[1:-1]]
        other = self._raised(rows[-1], rates[-1])
        value, less, left = (_value(row, x) for row in (rows[-1], last, other))
        apart, ratio = rates[-2] - rates[-1], -value / less
        log = torch.where(apart * ratio < -0.5, torch.log(left / less), torch.log1p(apart * ratio))
        zero = torch.where(apart * ratio == 0, ratio, log / apart)
        zero = torch.where((rates[-2] > 0) & (zero > 0), torch.minimum(zero, length), start)
        borders = torch.stack([start, zero, length], 1)
        none, flow = start.unsqueeze(1), self._replace(bias=start).each((..., None))
        x = [*(y.unsqueeze(1) for y in x), none]
        for row in reversed(rows[:-1]):
            row = [c.unsqueeze(1) for c in row]
            value = _value(row, flow.moved(x, borders))
            signs = torch.where(value.abs() < _UNDERFLOW, 0.0, value.sign())
            before, after = signs[:, :-1], signs[:, 1:]
            # a sum of exponentials of which next to nothing is left may have had another sign before
            high = torch.where((before * after <= 0) & (before != 0), borders[:, 1:], borders[:, :-1])

            def of(s: Tensor, row: Columns = row, before: Tensor = before) -> tuple[Tensor, Tensor]:
                now = flow.moved(x, s)
                return -before * _value(row, now), -before * _value(row, flow.rates(now))

            borders = torch.cat([borders[:, :1], root_within(of, borders[:, :-1], high), borders[:, -1:]], 1)
        return borders

    def _rows(self) -> tuple[list[Columns], Columns]:
        """g' by a state without the 1, and what is left of it without one exponential after the other; their rates.

        In the last but one there are two, and the rate before the last one goes.
        """
        roles, leak, rates = [ROLES[kind] for kind in self.kinds], 1 / self.mem, [1 / tau for tau in self.syn]
        none, parts = torch.zeros_like(leak), range(len(roles))
        first = [none if feeds else (sign or 1) * r for (sign, feeds, _), r in zip(roles, rates, strict=True)]
        rows = [[-leak, *first]]
        # without the leak
        row = [-r * c if role.sign else r * (leak - r) for role, r, c in zip(roles, rates, first, strict=True)]
        for k in parts:
            if self.fed(k):
                row[k - 1] = roles[k].sign * rates[k] * rates[k - 1]
        rows.append([none, *row])
        order = sorted(parts, key=lambda k: (not self.fed(k), roles[k].feeds))
        for n, gone in enumerate(order[:-1]):
            r = rates[gone]
            following = [c * (r - own) for c, own in zip(row, rates, strict=True)]
            for k in parts:
                if self.fed(k) and k != gone:
                    following[k - 1] = following[k - 1] + row[k] * rates[k - 1]
                elif self.fed(k):  # the same without a difference of equal terms
                    following[k - 1] = -roles[k].sign * rates[k] * rates[k - 1] ** 2
                    for before in order[:n]:
                        following[k - 1] = following[k - 1] * (rates[before] - rates[k - 1])
            row = following
            rows.append([none, *row])
        return rows, [leak, *(rates[k] for k in order)]

    def _raised(self, row: Columns, r: Tensor) -> Columns:
        """The row of ``(d/dt + r) f``."""
        first, *parts = row
        after = []
        for k, (kind, c, tau) in enumerate(zip(self.kinds, parts, self.syn, strict=True)):
            more, (sign, feeds, _) = c * (r - 1 / tau), ROLES[kind]
            after.append(more + (parts[k + 1] if feeds else sign * first) / tau)
        return [first * (r - 1 / self.mem), *after]


def _value(row: Columns, x: Columns) -> Tensor:
    return torch.as_tensor(sum(c * y for c, y in zip(row, x, strict=False)))  # without the number 1


def root_within(
    of: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, guess: Tensor | None = None
) -> Tensor:
    """Where a value that is below 0 at ``low >= 0``, and 0 or more at ``high``, passes 0.

    ``of`` gives value and derivative. Where both ends are the same, that is the result.
    """
    s, size = low if guess is None else guess, torch.full_like(low, math.inf)
    for n in range(_STEPS):
        value, slope = of(s)
        low, high = torch.where(value < 0, s, low), torch.where(value < 0, high, s)
        first, last = low.view(torch.int64), high.view(torch.int64)  # in the same order as the numbers
        step, before = s - value / slope, size
        size = (step - s).abs()
        # the steps are as small as rounding lets them be
        found = (size <= _EPS * s) | ((size < _NEAR * s) & (size >= before / 2)) | (last - first <= 1)
        if bool(found.all()):
            break
        inside = (step > low) & (step < high) & ((n % 4 < 3) | (size < 0.6 * before))
        s = torch.where(found, s, torch.where(inside, step, (first + (last - first) // 2).view(torch.float64)))
    return s
