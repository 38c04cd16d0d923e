"""The flow of a linear neuron between two events, as factors of its state.

With the rate a of the membrane and the rates b of its components, all follows from convolutions of exponentials

    K(a, b, ...)(s) = exp(-a s) * exp(-b s) * ...

which are divided differences of ``exp(-r s)`` over the rates, up to the sign. Components that feed the membrane by
``drive`` change it by ``drive K(leak, rate)``; one that feeds the next component by ``rate K(next, rate)``, and the
membrane by ``drive rate K(leak, next, rate)``. A derivative with respect to a rate is a convolution with one
exponential more, ``dK(a, b)/da = -K(a, a, b)``. Rates may be equal, or 0.

A row has, for one interval, two numbers of the membrane and three of each component; a row of slopes their derivatives
with respect to the rates.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from firstspike.spiketime.cpu.runtime.compiling import jit

SYNAPSE, RISE, CURRENT, THRESHOLD, BIAS = range(5)
KINDS = {"synapse": SYNAPSE, "rise": RISE, "current": CURRENT, "threshold": THRESHOLD}

# of a row: what is left of the membrane, and (1 - that) / leak; then of each component
LEFT, HOW_LONG, FIRST = 0, 1, 2
OWN, MOVES, FEEDS, PER = 0, 1, 2, 3  # what is left of it, and what it adds to the membrane and to the next component
# of a row of slopes: of LEFT by the leak; then of each component OWN by its rate, MOVES by the leak, its own rate and
# the next one's, FEEDS by the last two
SLOPES = 6
LONG = 1e100  # in place of an infinite time


@jit
def convolved(s, a, b):
    """K(a, b)."""
    slow, x = min(a, b), s * abs(a - b)
    return math.exp(-s * slow) * (s if x == 0 else -math.expm1(-x) / abs(a - b))


@jit
def convolved3(s, a, b, c):
    """K(a, b, c)."""
    low, middle, high = min(a, min(b, c)), max(min(a, b), min(max(a, b), c)), max(a, max(b, c))
    if s * (high - low) > 0.5:
        return (convolved(s, low, middle) - convolved(s, middle, high)) / (high - low)
    x, y = s * (low - middle), s * (low - high)
    complete, power, factor, total = 1.0, 1.0, 0.5, 0.5
    for j in range(1, 16):
        power *= x
        complete = complete * y + power
        factor /= j + 2
        total += complete * factor
    return math.exp(-s * low) * s * s * total


@jit
def convolved4(s, a, b, c, d):
    """K(a, b, c, d)."""
    low, high = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
    one, other = max(min(a, b), min(c, d)), min(max(a, b), max(c, d))
    second, third = min(one, other), max(one, other)
    if s * (high - low) > 0.5:
        return (convolved3(s, low, second, third) - convolved3(s, second, third, high)) / (high - low)
    x, y, z = s * (low - second), s * (low - third), s * (low - high)
    of_two, of_three, power, factor, total = 1.0, 1.0, 1.0, 1 / 6, 1 / 6
    for j in range(1, 16):
        power *= x
        of_two = of_two * y + power
        of_three = of_three * z + of_two
        factor /= j + 3
        total += of_three * factor
    return math.exp(-s * low) * s * s * s * total


@jit
def drive_of(kind, leak, rate):
    """The change of the membrane by a component, per unit of it and of time."""
    if kind == SYNAPSE:
        return rate
    if kind == CURRENT:
        return -rate
    return leak if kind == BIAS else 0.0


@jit
def fill_row(row, step, wait, kinds, leak, rates):
    """Fill in the numbers of an interval, each ``step`` after the one before. ``wait`` is its length."""
    s, slowest = min(wait, LONG), math.inf
    row[LEFT * step] = math.exp(-s * leak)
    for k in range(kinds.size):
        place, kind, rate = (FIRST + k * PER) * step, kinds[k], rates[k]
        row[place + OWN * step] = math.exp(-s * rate)
        row[place + FEEDS * step] = 0.0
        if kind == RISE:
            following = rates[k + 1]
            row[place + FEEDS * step] = rate * convolved(s, following, rate)
            row[place + MOVES * step] = following * rate * convolved3(s, leak, following, rate)
        elif kind == BIAS:
            row[place + MOVES * step] = -math.expm1(-s * leak)
        else:
            drive = drive_of(kind, leak, rate)
            row[place + MOVES * step] = drive * convolved(s, leak, rate) if drive != 0 else 0.0
            slowest = min(slowest, rate)
    row[HOW_LONG * step] = (-math.expm1(-s * leak) / leak) if leak > 0 else min(s, 1 / slowest) if wait > LONG else s


@jit
def fill_slopes(row, step, wait, kinds, leak, rates):
    """Fill in the derivatives of these numbers with respect to the rates, likewise."""
    s = min(wait, LONG)
    row[0] = -s * math.exp(-s * leak)
    for k in range(kinds.size):
        place, kind, b = (1 + k * SLOPES) * step, kinds[k], rates[k]
        for n in range(SLOPES):
            row[place + n * step] = 0.0
        row[place] = -s * math.exp(-s * b)
        if kind == RISE:
            a = rates[k + 1]
            three = convolved3(s, leak, a, b)
            row[place + step] = -a * b * convolved4(s, leak, leak, a, b)
            row[place + 2 * step] = a * three - a * b * convolved4(s, leak, a, b, b)
            row[place + 3 * step] = b * three - a * b * convolved4(s, leak, a, a, b)
            row[place + 4 * step] = convolved(s, a, b) - b * convolved3(s, a, b, b)
            row[place + 5 * step] = -b * convolved3(s, a, a, b)
        elif kind == BIAS:
            row[place + step] = s * math.exp(-s * leak)
        elif kind != THRESHOLD:
            drive = drive_of(kind, leak, b)
            row[place + step] = -drive * convolved3(s, leak, leak, b)
            row[place + 2 * step] = drive / b * convolved(s, leak, b) - drive * convolved3(s, leak, b, b)


@jit
def pass_time(v, y, s, holds, kinds, leak, rates):
    """Let time pass for the components, in place, and for the membrane unless that is held. Returns the membrane."""
    if s <= 0:
        return v
    if not holds:
        v *= math.exp(-s * leak)
    fed = 0.0
    for k in range(kinds.size):
        kind, rate = kinds[k], rates[k]
        into = 0.0
        if kind == RISE:
            following = rates[k + 1]
            into = y[k] * rate * convolved(s, following, rate)
            if not holds:
                v += y[k] * following * rate * convolved3(s, leak, following, rate)
        elif kind == BIAS:
            v -= 0.0 if holds else y[k] * math.expm1(-s * leak)
        elif kind != THRESHOLD and not holds:
            v += y[k] * drive_of(kind, leak, rate) * convolved(s, leak, rate)
        y[k] = y[k] * math.exp(-s * rate) + fed
        fed = into
    return v
