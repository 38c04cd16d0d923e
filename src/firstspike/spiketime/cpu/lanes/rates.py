"""What follows from the time constants of 32 neurons, for ``membrane``: one vector each, in an array of its own."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.constants import ANY, DOUBLE, EQUAL
from firstspike.spiketime.cpu.membrane import BRIEF, Rates
from firstspike.spiketime.cpu.runtime.compiling import inlined, jit
from firstspike.spiketime.cpu.vectors.simd import load32, maximum, minimum

LANES = 32
PER_MEM, PER_SYN, DELTA, PER_RISE, RATIO, X, TOP, HEIGHT = range(0, 8 * LANES, LANES)  # fields of ``Rates``
REST_MEM, REST_SYN = 8 * LANES, 9 * LANES  # what rounding leaves of the first two
KIND, UNIT, SHORT = range(10 * LANES, 10 * LANES + 3)  # numbers of the group, see ``fill_rates``
N_RATES = 11 * LANES
BY_THRESHOLD, BY_MEM, BY_SYN = range(0, 3 * LANES, LANES)  # sums of a group's gradients, see ``kernels``


@jit
def fill_rates(mem, syn, start, first, outputs, c):
    """Fill the rates ``c`` of the neurons from ``first`` on of the network whose constants begin at ``start``.

    Times count in a unit of the group's own: UNIT is how many of them are 1, a power of two that is larger than all
    rates. Intervals up to SHORT are ``brief``. Lanes without a neuron are like the last one; a single pair of time
    constants is that of all neurons.
    """
    tiny = 1e-10 if c.itemsize == 4 else 1e-20
    fastest, last = 0.0, min(start + outputs, mem.size) - 1
    for lane in range(LANES):
        j = min(start + first + lane, last)
        fastest = max(fastest, 1 / np.float64(mem[j]), 1 / np.float64(syn[j]))
    unit = math.ldexp(1.0, math.frexp(fastest)[1])
    equal = double = True
    for lane in range(LANES):
        j = min(start + first + lane, last)
        ratio = np.float64(syn[j]) / np.float64(mem[j])
        a, b, x = 1 / np.float64(mem[j]) / unit, 1 / np.float64(syn[j]) / unit, 1 - ratio
        wide = abs(x) if abs(x) > tiny else tiny
        top = math.inf if ratio == 0 else 1.0 if x == 0 else -math.log(ratio) / x
        c[PER_MEM + lane], c[PER_SYN + lane] = a, b
        c[REST_MEM + lane], c[REST_SYN + lane] = a - np.float64(c[PER_MEM + lane]), b - np.float64(c[PER_SYN + lane])
        c[DELTA + lane], c[PER_RISE + lane] = wide * b, 1 / wide
        c[RATIO + lane], c[X + lane], c[TOP + lane] = ratio, x, top
        c[HEIGHT + lane] = 1.0 if ratio == 0 else math.exp(-top * ratio)
        equal &= abs(x) <= tiny
        double &= c[DELTA + lane] == min(c[PER_MEM + lane], c[PER_SYN + lane])
    # only of a whole layer's, so that the digits of a neuron do not depend on its neighbours
    c[KIND] = ANY if mem.size > 1 else EQUAL if equal else DOUBLE if double else ANY
    c[UNIT], c[SHORT] = unit, BRIEF / (fastest / unit)


@inlined
def rates_in(c):
    """The rates that ``fill_rates`` left there."""
    a, b = load32(c, PER_MEM), load32(c, PER_SYN)
    return Rates(
        a, b, minimum(a, b), maximum(a, b), load32(c, DELTA), load32(c, PER_RISE), load32(c, RATIO), load32(c, X),
        load32(c, TOP), load32(c, HEIGHT), c[KIND],
    )  # fmt: skip
