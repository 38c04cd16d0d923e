"""Programs of a neuron, see ``spiketime.series``, carried out for 32 neurons at once.

The coefficients of a row lie one order after the other, ``WIDTH`` orders of ``LANES`` numbers. A program is a row of
whole numbers that kernels read, so that they are compiled once for all neurons.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp, log
from firstspike.spiketime.cpu.vectors.simd import fill32, fma, highest, load32, select, store
from firstspike.spiketime.series import COS, EXP, HELD, INVERSE, LOG, POWER, PRODUCT, SIN, SQUARE, SUM, TANH, Program

MOST = 24
"""Orders of a step at most. Twelve or so are the rule."""
WIDTH = MOST + 2
ROW = WIDTH * LANES
TOLERANCE = 1e-16
"""Size of a term, relative to the largest, that is left out."""
GAP = 16
"""Orders without terms between others that have some, at most."""
PARTS_TOLERANCE = 1e-12
"""The tolerance of values that are not carried on to the next step."""
_HEADER = 5  # numbers of inputs, steps, outputs, slots and outputs to watch; then outputs, slots and degrees of inputs
_FAR_EXP, _FAR_TANH = 8.0, 1.0  # what arguments move by in a step at most: else growth from next to nothing is missed
_TINY, _NEVER = 1e-300, 1e300
_LEAST = 1e-100  # what a state may fade to: the terms of less would lack the last orders, which tell how far they reach


def code_of(program: Program) -> list[int]:
    """A program as whole numbers."""
    inputs, steps, outputs, by_slot = program

    def plain(row: int) -> bool:
        """Whether a row converges as the inputs do."""
        step = steps[row - inputs] if row >= inputs else None
        return step is None or (step.kind == SUM and max(step.operands, default=0) < inputs)

    watched = sum(not plain(row) for row in outputs[inputs:])
    found = [inputs, len(steps), len(outputs), len(by_slot), watched, *outputs]
    for pair in program.by_slot:
        found += pair
    for degrees in program.degrees:
        found += degrees
    for step in program.steps:
        found += [step.kind, len(step.operands), len(step.slots), *(ROW * x for x in step.operands)]
        found += [LANES * x for x in step.slots]
    return found


@inlined
def output_of(code, k):
    """The row of an output."""
    return code[_HEADER + k]


@inlined
def slots_of(code):
    """How many slots of a program have gradients, and where their pairs of slot and row begin."""
    return code[3], _HEADER + code[2]


@inlined
def degrees_of(code):
    """Where both degrees of all inputs begin."""
    return _HEADER + code[2] + 2 * code[3]


@inlined
def watched_rows(code):
    """How many rows have to converge that are no inputs: the excess, unless it does with them, and parts of slots."""
    return code[3] + code[4]


@inlined
def watched_row(code, k):
    """The k-th of the watched rows."""
    return code[_HEADER + code[2] - code[4] + k] if k < code[4] else code[_HEADER + code[2] + 2 * (k - code[4]) + 1]


@jit
def convolved(s, a, b, n):
    """The n-th coefficients of a product of two rows."""
    x, y = load32(s, a) * load32(s, b + n * LANES), fill32(s, 0.0)
    if n > 0:
        y = load32(s, a + LANES) * load32(s, b + (n - 1) * LANES)
    for j in range(2, n, 2):
        x = fma(load32(s, a + j * LANES), load32(s, b + (n - j) * LANES), x)
        y = fma(load32(s, a + (j + 1) * LANES), load32(s, b + (n - j - 1) * LANES), y)
    if n > 0 and n % 2 == 0:
        x = fma(load32(s, a + n * LANES), load32(s, b), x)
    return x + y


@jit
def weighted(s, a, b, n):
    """``sum_j j a_j b_(n-j) / n`` for j from 1 to n."""
    x = fill32(s, 0.0)
    for j in range(1, n + 1):
        x = fma(load32(s, a + j * LANES) * (j / n), load32(s, b + (n - j) * LANES), x)
    return x


@jit
def first_of(kind, s, place, a, exponent):
    """The value of a function. Functions without a short cut are called for one lane after the other."""
    if kind == EXP:
        return exp(load32(s, a))
    for lane in range(LANES):
        x = s[a + lane]
        if kind == LOG:
            y = math.log(x) if x > 0 else math.nan
        elif kind == SIN:
            y = math.sin(x)
        elif kind == COS:
            y = math.cos(x)
        elif kind == TANH:
            y = math.tanh(x)
        else:
            y = x ** exponent[lane] if x > 0 else math.nan
        s[place + lane] = y
    return load32(s, place)


@jit
def expand(code, s, slots, n, free):
    """The n-th coefficients of all steps, from those of the inputs. ``free`` are lanes without a refractory time."""
    inputs, steps = code[0], code[1]
    p = degrees_of(code) + 2 * inputs
    for k in range(steps):
        kind, operands, many = code[p], code[p + 1], code[p + 2]
        p += 3
        place = (inputs + k) * ROW
        at = place + n * LANES
        if kind == SUM:
            x = fill32(s, 0.0)
            for j in range(operands):
                x = fma(load32(s, code[p + j] + n * LANES), load32(slots, code[p + operands + j]), x)
            if many > operands and n == 0:
                x = x + load32(slots, code[p + 2 * operands])
        elif kind == PRODUCT:
            x = convolved(s, code[p], code[p + 1], n)
        elif kind == HELD:
            x = select(free, load32(s, code[p] + n * LANES), 0.0)
        else:
            a = code[p]
            if kind == SQUARE:
                x = convolved(s, a, a, n)
            elif kind == INVERSE:
                if n == 0:
                    x = 1.0 / load32(s, a)
                else:
                    store(s, at, fill32(s, 0.0))
                    x = convolved(s, a, place, n) * load32(s, place) * -1.0
            elif n == 0:
                x = first_of(kind, s, place, a, slots[code[p + 1] :] if kind == POWER else slots)
            elif kind == EXP:
                x = weighted(s, a, place, n)
            elif kind == LOG:
                x = fill32(s, 0.0)
                for j in range(1, n):
                    x = fma(load32(s, place + j * LANES) * (j / n), load32(s, a + (n - j) * LANES), x)
                x = (load32(s, a + n * LANES) - x) / load32(s, a)
            elif kind == POWER:
                power, x = load32(slots, code[p + 1]), fill32(s, 0.0)
                for j in range(n):
                    factor = power * ((n - j) / n) - j / n
                    x = fma(load32(s, a + (n - j) * LANES) * factor, load32(s, place + j * LANES), x)
                x = x / load32(s, a)
            elif kind == SIN:
                x = weighted(s, a, place + ROW, n)
            elif kind == COS:
                x = weighted(s, a, place - ROW, n) * -1.0
            else:  # TANH, whose square comes next
                x = load32(s, a + n * LANES) - weighted(s, a, place + ROW, n)
        store(s, at, x)
        p += operands + many


@jit
def derive(code, s, n, held, free):
    """The coefficients n + 1 of all inputs, from their derivatives. ``held`` says which stand still in some lanes."""
    for k in range(code[0]):
        x = load32(s, output_of(code, k) * ROW + n * LANES) * (1.0 / (n + 1))
        if k < held.size and held[k] != 0:
            x = select(free, x, 0.0)
        store(s, k * ROW + (n + 1) * LANES, x)


@inlined
def negligible(s, place, power, tops, k, tolerance):
    """Lanes in which a term is small beside the largest one of its row so far, which is noted."""
    term = abs(load32(s, place)) * power
    top = max(load32(tops, k * LANES), term)
    store(tops, k * LANES, top)
    return (term < top * tolerance) | (top == 0.0)


@inlined
def reach(s, place, n, tolerance):
    """Time up to which the n-th term of a row is negligible."""
    size = abs(load32(s, place + n * LANES))
    term = max(size, _TINY)
    value = max(abs(load32(s, place)) * tolerance, _TINY)
    slope = max(abs(load32(s, place + LANES)) * tolerance, _TINY)
    time = max(exp(log(value / term) * (1.0 / n)), exp(log(slope / term) * (1.0 / (n - 1))))
    return select(size > _TINY, time, _NEVER)  # a state of which nothing is left has no unit of time


@jit
def expand_for(code, s, slots, held, free, wait, busy, first, tops):
    """Expand until the remainder over the time ``wait`` is negligible in all that counts.

    These are inputs from the ``first`` on, and ``watched_rows``, which may converge more slowly. Two terms in a row
    that are negligible do. Where inputs have no terms beyond an order, as a state that grows with the time, a product
    of them may still have one where their orders add up to, up to which none is left out, and a function of them one
    after a gap, so that more in a row are needed, at most ``GAP``.

    Returns the order, and the time up to which it holds, which is shorter where ``MOST`` orders do not do. ``busy`` are
    lanes that count, ``tops`` room for a vector of each of these rows.
    """
    power, before, small, inputs, watched = wait, fill32(s, 1.0), 0, code[0], watched_rows(code)
    loose, gap = TOLERANCE if first == 0 else PARTS_TOLERANCE, 2
    for k in range(first, inputs):
        store(tops, k * LANES, abs(load32(s, k * ROW)))
    for k in range(inputs, inputs + watched):
        store(tops, k * LANES, fill32(s, 0.0))
    for n in range(MOST):
        expand(code, s, slots, n, free)
        derive(code, s, n, held, free)
        good = ~np.uint64(0)
        for k in range(first, inputs):
            good &= negligible(s, k * ROW + (n + 1) * LANES, power, tops, k, TOLERANCE)
        for k in range(watched):
            good &= negligible(s, watched_row(code, k) * ROW + n * LANES, before, tops, inputs + k, loose)
        small = small + 1 if not busy & ~good else 0
        if small >= 2:
            least, gap = ends_of(code, s, n + 1, busy)
            if small >= gap and n >= least:
                return n + 1, nearer(code, s, n, wait)
        before = power
        power = power * wait
    least = wait
    for n in range(MOST - gap, MOST):
        for k in range(inputs):
            least = min(least, reach(s, k * ROW, n + 1, TOLERANCE if k >= first else loose))
        for k in range(watched):
            least = min(least, reach(s, watched_row(code, k) * ROW, n, loose))
    return MOST, nearer(code, s, MOST - 1, least)


@jit
def ends_of(code, s, order, busy):
    """The least order, and how many terms in a row must be negligible, for inputs without terms beyond some order."""
    furthest, widest, degrees = fill32(s, 0.0), fill32(s, 0.0), degrees_of(code)
    for k in range(code[0]):
        none = load32(s, k * ROW + order * LANES) == 0.0
        if none & busy:
            end = fill32(s, 0.0)
            for n in range(1, order):
                end = select(load32(s, k * ROW + n * LANES) == 0.0, end, n * 1.0)
            end = select(none & busy, end, 0.0)
            furthest = fma(end, code[degrees + k], furthest)
            widest = max(widest, end * code[degrees + code[0] + k])
    return min(highest(furthest), MOST - 3.0), int(min(max(highest(widest), 2.0), GAP))


@jit
def nearer(code, s, order, time):
    """The time, or less of it where the argument of an exponential moves too far in one step."""
    p, least = degrees_of(code) + 2 * code[0], time
    for _ in range(code[1]):
        kind, operands, many = code[p], code[p + 1], code[p + 2]
        p += 3
        if kind in (EXP, TANH):
            moves, power = fill32(s, _TINY), time
            for n in range(1, order + 1):
                moves = fma(abs(load32(s, code[p] + n * LANES)), power, moves)
                power = power * time
            # of a shorter time every term is smaller by this factor at least
            least = min(least, time * ((_FAR_EXP if kind == EXP else _FAR_TANH) / moves))
        p += operands + many
    return least


@jit
def value_at(s, row, order, time):
    """The polynomial of a row at some time."""
    x = load32(s, row * ROW + order * LANES)
    for n in range(order - 1, -1, -1):
        x = fma(x, time, load32(s, row * ROW + n * LANES))
    return x


@jit
def state_at(s, row, order, time):
    """A state, or its adjoint, after a step. Of one that fades nothing is left in the end."""
    x = value_at(s, row, order, time)
    return select((abs(x) < _LEAST) & (abs(x) < abs(load32(s, row * ROW))), 0.0, x)


@jit
def integral_to(s, row, order, time):
    """The integral of a polynomial from 0 on."""
    x = load32(s, row * ROW + order * LANES) * (1.0 / (order + 1))
    for n in range(order - 1, -1, -1):
        x = fma(x, time, load32(s, row * ROW + n * LANES) * (1.0 / (n + 1)))
    return x * time


@jit
def upper_bound(s, row, order, time):
    """A bound of the polynomial of a row up to some time."""
    x, power = load32(s, row * ROW), time
    for n in range(1, order + 1):
        x = x + max(load32(s, row * ROW + n * LANES) * power, 0.0)
        power = power * time
    return x
