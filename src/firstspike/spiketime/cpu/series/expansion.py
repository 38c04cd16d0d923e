"""Programs of a neuron, see ``spiketime.series``, carried out for 16 neurons at once.

The coefficients of a row lie one order after the other, ``WIDTH`` orders of ``LANES`` numbers. A program is a row of
whole numbers that kernels read, so that they are compiled once for all neurons.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.mathfun import exp, log
from firstspike.spiketime.cpu.vectors.simd import fill16, fma, load16, select, store
from firstspike.spiketime.series import (
    COS,
    EXP,
    HELD,
    INVERSE,
    LOG,
    POWER,
    PRODUCT,
    SIN,
    SQUARE,
    SUM,
    TANH,
    Program,
)

LANES = 16
MOST = 24
"""Orders of a step at most; twelve or so are the rule."""
WIDTH = MOST + 2
ROW = WIDTH * LANES
GAP = 16
"""Orders that may have no terms between others that have, at most."""
TOLERANCE = 1e-16
"""Size of a term, relative to the largest, that is left out."""
_HEADER = 4  # numbers of inputs, steps, outputs and slots; then the latter two, and a degree for each input
_TINY = 1e-300


def code_of(program: Program) -> list[int]:
    """A program as whole numbers."""
    found = [program.inputs, len(program.steps), len(program.outputs), len(program.by_slot), *program.outputs]
    for pair in program.by_slot:
        found += pair
    found += program.degrees
    for step in program.steps:
        found += [step.kind, len(step.operands), len(step.slots), *step.operands, *step.slots]
    return found


@inlined
def output_of(code, k):
    """The row of an output."""
    return code[_HEADER + k]


@inlined
def slots_of(code):
    """How many slots a program has gradients by, and where their pairs of slot and row begin."""
    return code[3], _HEADER + code[2]


@inlined
def degrees_of(code):
    """Where the degrees of the inputs begin."""
    return _HEADER + code[2] + 2 * code[3]


@jit
def convolved(s, a, b, n):
    """The n-th coefficients of a product of two rows."""
    x, y = load16(s, a) * load16(s, b + n * LANES), fill16(s, 0.0)
    if n > 0:
        y = load16(s, a + LANES) * load16(s, b + (n - 1) * LANES)
    for j in range(2, n, 2):
        x = fma(load16(s, a + j * LANES), load16(s, b + (n - j) * LANES), x)
        y = fma(load16(s, a + (j + 1) * LANES), load16(s, b + (n - j - 1) * LANES), y)
    if n > 0 and n % 2 == 0:
        x = fma(load16(s, a + n * LANES), load16(s, b), x)
    return x + y


@jit
def weighted(s, a, b, n):
    """``sum_j j a_j b_(n-j) / n`` for j from 1 to n."""
    x = fill16(s, 0.0)
    for j in range(1, n + 1):
        x = fma(load16(s, a + j * LANES) * (j / n), load16(s, b + (n - j) * LANES), x)
    return x


@jit
def first_of(kind, s, place, a, exponent):
    """The value of a function; what has no short cut is called for one lane after the other."""
    if kind == EXP:
        return exp(load16(s, a))
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
    return load16(s, place)


@jit
def expand(code, s, slots, n, free):
    """The n-th coefficients of all steps, from those of the inputs; ``free`` are lanes without a refractory time."""
    inputs, steps = code[0], code[1]
    p = degrees_of(code) + inputs
    for k in range(steps):
        kind, operands, many = code[p], code[p + 1], code[p + 2]
        p += 3
        place = (inputs + k) * ROW
        at = place + n * LANES
        if kind == SUM:
            x = fill16(s, 0.0)
            for j in range(operands):
                factor = load16(slots, code[p + operands + j] * LANES)
                x = fma(load16(s, code[p + j] * ROW + n * LANES), factor, x)
            if many > operands and n == 0:
                x = x + load16(slots, code[p + 2 * operands] * LANES)
        elif kind == PRODUCT:
            x = convolved(s, code[p] * ROW, code[p + 1] * ROW, n)
        elif kind == HELD:
            x = select(free, load16(s, code[p] * ROW + n * LANES), 0.0)
        else:
            a = code[p] * ROW
            if kind == SQUARE:
                x = convolved(s, a, a, n)
            elif kind == INVERSE:
                if n == 0:
                    x = 1.0 / load16(s, a)
                else:
                    store(s, at, fill16(s, 0.0))
                    x = convolved(s, a, place, n) * load16(s, place) * -1.0
            elif n == 0:
                x = first_of(kind, s, place, a, slots[code[p + 1] * LANES :] if kind == POWER else slots)
            elif kind == EXP:
                x = weighted(s, a, place, n)
            elif kind == LOG:
                x = fill16(s, 0.0)
                for j in range(1, n):
                    x = fma(load16(s, place + j * LANES) * (j / n), load16(s, a + (n - j) * LANES), x)
                x = (load16(s, a + n * LANES) - x) / load16(s, a)
            elif kind == POWER:
                power, x = load16(slots, code[p + 1] * LANES), fill16(s, 0.0)
                for j in range(n):
                    factor = power * ((n - j) / n) - j / n
                    x = fma(load16(s, a + (n - j) * LANES) * factor, load16(s, place + j * LANES), x)
                x = x / load16(s, a)
            elif kind == SIN:
                x = weighted(s, a, place + ROW, n)
            elif kind == COS:
                x = weighted(s, a, place - ROW, n) * -1.0
            else:  # TANH, whose square comes next
                x = load16(s, a + n * LANES) - weighted(s, a, place + ROW, n)
        store(s, at, x)
        p += operands + many


@jit
def derive(code, s, n, held, free):
    """The coefficients n + 1 of all inputs, from their derivatives; ``held`` says which stand still in some lanes."""
    for k in range(code[0]):
        x = load16(s, output_of(code, k) * ROW + n * LANES) * (1.0 / (n + 1))
        if k < held.size and held[k] != 0:
            x = select(free, x, 0.0)
        store(s, k * ROW + (n + 1) * LANES, x)


@jit
def gapped(code, s, order, many):
    """Lanes in which more than so many terms in a row may be 0, before powers of inputs without further terms."""
    far, degrees = np.uint64(0), degrees_of(code)
    for k in range(code[0]):
        degree, none = code[degrees + k], load16(s, k * ROW + order * LANES) == 0.0
        if degree > 0 and none:
            end = fill16(s, 0.0)
            for n in range(1, order):
                end = select(load16(s, k * ROW + n * LANES) == 0.0, end, n * 1.0)
            far |= none & (end * degree > many + 0.5)
    return far


@jit
def expand_for(code, s, slots, held, free, wait, busy, first, level, tops):
    """Expand until what is left out over the time ``wait`` is negligible in all inputs from the ``first`` on.

    So it is in the row ``level``, if that is not negative, which follows from the inputs and is an order behind.
    Two terms in a row that are negligible do. Where an input has no terms beyond an order, such as a state that grows
    with the time, its powers have terms at multiples of that order alone, and more are needed, at most ``GAP``.

    Returns the order, and the time up to which it holds, which is shorter where ``MOST`` orders do not do. ``busy`` are
    lanes that count, ``tops`` room for a vector of each of these rows.
    """
    power, before, small, inputs = wait, fill16(s, 1.0), 0, code[0]
    last = inputs + (1 if level >= 0 else 0)
    for k in range(first, last):
        store(tops, k * LANES, abs(load16(s, k * ROW)) if k < inputs else fill16(s, 0.0))
    for n in range(MOST):
        expand(code, s, slots, n, free)
        derive(code, s, n, held, free)
        good = ~np.uint64(0)
        for k in range(first, last):
            if k < inputs:
                term = abs(load16(s, k * ROW + (n + 1) * LANES)) * power
            else:
                term = abs(load16(s, level * ROW + n * LANES)) * before
            top = max(load16(tops, k * LANES), term)
            store(tops, k * LANES, top)
            good &= (term < top * TOLERANCE) | (top == 0.0)
        small = small + 1 if not busy & ~good else 0
        if small >= GAP or (small >= 2 and not busy & gapped(code, s, n + 1, small)):
            return n + 1, wait
        before = power
        power = power * wait
    least, gap = wait, GAP if busy & gapped(code, s, MOST, 2) else 2
    for k in range(first, last):
        row, behind = (k * ROW, 0) if k < inputs else (level * ROW, 1)
        for n in range(MOST + 1 - gap - behind, MOST + 1 - behind):
            term = max(abs(load16(s, row + n * LANES)), _TINY)
            value = max(abs(load16(s, row)) * TOLERANCE, _TINY)
            slope = max(abs(load16(s, row + LANES)) * TOLERANCE, _TINY)
            time = exp(log(value / term) * (1.0 / n))
            least = min(least, max(time, exp(log(slope / term) * (1.0 / (n - 1)))))
    return MOST, least


@jit
def value_at(s, row, order, time):
    """The polynomial of a row at some time."""
    x = load16(s, row * ROW + order * LANES)
    for n in range(order - 1, -1, -1):
        x = fma(x, time, load16(s, row * ROW + n * LANES))
    return x


@jit
def integral_to(s, row, order, time):
    """Its integral from 0 on."""
    x = load16(s, row * ROW + order * LANES) * (1.0 / (order + 1))
    for n in range(order - 1, -1, -1):
        x = fma(x, time, load16(s, row * ROW + n * LANES) * (1.0 / (n + 1)))
    return x * time


@jit
def upper_bound(s, row, order, time):
    """A bound of the polynomial of a row up to some time."""
    x, power = load16(s, row * ROW), time
    for n in range(1, order + 1):
        x = x + max(load16(s, row * ROW + n * LANES) * power, 0.0)
        power = power * time
    return x
