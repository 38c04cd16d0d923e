"""Arrays that kernels read: numbers derived from time constants, packed weights, and values saved by a forward pass.

``x = 1 - tau_syn/tau_mem`` and ``DELTA = 1/tau_syn - 1/tau_mem``. Next to equal constants DELTA is kept off 0, so that
``expm1(s DELTA) / DELTA`` is right without a separate case.

Weights are packed for each tile of neurons, ``(inputs, TILE)``, in a unit for each neuron. Forward it is the threshold.
Backward it is a power of two about as large as the threshold, or as the largest weight if that is larger, so that
neither a slope nor its inverse overflows. A tile's rows stay in the second-level cache while its samples pass. Lanes
without a neuron have weight 0.

A forward pass of first spikes saves whole numbers and real ones of each sample, where neurons share the order of
arrival. Of the inputs these are their order of arrival and sorted times, and how many arrive; of each neuron dV/dt at
the spike in units of the threshold, and in ``rows`` the place of its last causal input (-1: silent).
"""

# mypy: disable-error-code="no-untyped-def"
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from firstspike.spiketime.cpu.runtime.compiling import HAS_MASKS, inlined, jit
from firstspike.spiketime.cpu.vectors.rows import named_rows
from firstspike.spiketime.cpu.vectors.shuffles import transpose16
from firstspike.spiketime.cpu.vectors.simd import fill16, highest, load16, prefetch32, store
from firstspike.spiketime.shared import LARGEST_32, LARGEST_64

if TYPE_CHECKING:
    import torch
    from torch import Tensor


LANES = 32  # neurons with constants or an order of arrival of their own that are worked on together
# mem and syn are 1/tau_mem and 1/tau_syn, per_rise is 1/(DELTA tau_syn), ratio tau_syn/tau_mem; summit and height are
# time and value of kappa's maximum, top is -log(1 - x)/x, the same time in units of tau_syn; span is the longest time
# after which states keep their scale (see ``rows.intervals``); kind tells which of the short cuts below the constants
# allow, and rest_mem and rest_syn what rounding to the dtype leaves of the two rates
_CONSTANTS = "mem syn delta per_rise ratio summit height x top span kind rest_mem rest_syn"
CONSTANTS = f"{_CONSTANTS} bound"  # max_weight_grad
RATES = f"{_CONSTANTS} unit brief_end"  # the unit of time, and the end of what is ``brief`` (see ``membrane``)
N_CONSTANTS, N_RATES = len(CONSTANTS.split()), len(RATES.split())
ANY, EQUAL, DOUBLE = range(3)  # EQUAL: kappa is s exp(-s); DOUBLE: DELTA is the slower constant's rate

BRIEF = 2.0**-5  # longest time for ``membrane.brief``, in units of the faster constant
FLAT = 2.5e-3  # square of the slope, times both constants, at a spike whose peak is 1/800 above the threshold
_SPAN = 8.0  # in units of the faster constant: exp(8) times 1e5 of the largest weights is a number of float32
_TINY = {"float32": 1e-10, "float64": 1e-20}  # smallest |DELTA| tau_syn


@lru_cache(maxsize=256)
def constants_array(tau_mem: float, tau_syn: float, dtype: str, bound: float | None = None) -> "Tensor":
    """The array for kernels of that dtype. ``bound`` is ``max_weight_grad``."""
    from torch import from_numpy  # which compiling does not need

    x = 1 - tau_syn / tau_mem
    delta = x / tau_syn if abs(x) > _TINY[dtype] else _TINY[dtype] / tau_syn
    top = math.inf if math.isinf(tau_mem) else 1.0 if x == 0 else -math.log(tau_syn / tau_mem) / x
    height = 1.0 if math.isinf(tau_mem) else math.exp(-top * tau_syn / tau_mem)
    kind = ANY
    if abs(x) <= _TINY[dtype]:
        kind = EQUAL
    elif abs(abs(delta) - min(1 / tau_mem, 1 / tau_syn)) < np.finfo(dtype).eps * abs(delta):
        kind = DOUBLE
    named = {
        "mem": 1 / tau_mem, "syn": 1 / tau_syn, "delta": delta, "per_rise": 1 / (delta * tau_syn),
        "ratio": tau_syn / tau_mem, "x": x, "top": top, "summit": top * tau_syn, "height": height,
        "span": _SPAN * min(tau_mem, tau_syn), "kind": kind, "bound": math.inf if bound is None else bound,
    }  # fmt: skip
    named |= {f"rest_{name}": named[name] - float(np.dtype(dtype).type(named[name])) for name in ("mem", "syn")}
    rounded = np.array([named[name] for name in CONSTANTS.split()], dtype)
    return from_numpy(rounded)


@lru_cache(maxsize=256)
def numbers(dtype: "torch.dtype", *values: float) -> "Tensor":
    """A tensor of a few numbers, for kernels that do not change it."""
    import torch

    return torch.tensor(values, dtype=dtype, device="cpu")


class Rates(NamedTuple):
    """Values derived from the time constants of a neuron, or of many in the lanes of vectors."""

    mem: Any  # 1/tau_mem
    syn: Any  # 1/tau_syn
    slower: Any  # the smaller of both
    faster: Any
    delta: Any  # DELTA
    per_rise: Any  # 1/(DELTA tau_syn)
    ratio: Any  # tau_syn/tau_mem
    x: Any  # 1 - ratio
    top: Any  # time of kappa's maximum in units of tau_syn: -log(1 - x)/x
    height: Any  # value of kappa there
    kind: Any  # which short cuts the constants of all lanes allow


_constants_in, _rates_in = named_rows("Constants", CONSTANTS, 1, 1), named_rows("Rates", RATES, LANES, LANES)


@inlined
def constants(g):
    """What ``constants_array`` has."""
    return _constants_in(g.c, 0)


@inlined
def named_rates(c):
    """What ``lanes.state.fill_rates`` has of 32 neurons."""
    return _rates_in(c, 0)


@inlined
def rates_of(c):
    """The rates that all neurons share."""
    a, b = c.mem, c.syn
    return Rates(a, b, min(a, b), max(a, b), abs(c.delta), abs(c.per_rise), c.ratio, c.x, c.top, c.height, c.kind)


@inlined
def rates_in(c):
    """The rates of neurons with different time constants."""
    r = named_rates(c)
    a, b = r.mem, r.syn
    return Rates(a, b, min(a, b), max(a, b), r.delta, r.per_rise, r.ratio, r.x, r.top, r.height, r[0].kind)


NARROW = 16, 32  # lanes that are worked on where a layer has no more neurons. The functions' ``zero`` says how many
TILE = 64 if HAS_MASKS else 32  # neurons that are scanned together. 64 need the 32 registers of AVX-512
AHEAD = 6  # rows that are walked before one that ``fetch_row`` asks for

_MARGIN = 1 + 1e-9  # against rounding: what is refused here, ``check_values`` has to refuse
_FLOAT, _DOUBLE = LARGEST_32 * _MARGIN, LARGEST_64 * _MARGIN


def lanes_for(outputs: int) -> int:
    """How many lanes of a tile a kernel works on."""
    return next((lanes for lanes in NARROW if outputs <= lanes), TILE)


@jit
def every_lane(size):
    """The first lanes of a tile as bits."""
    return ~np.uint64(0) >> np.uint64(64 - size)


@inlined
def fetch_row(packed, order, row):
    """Have a processor without mask registers read a row of a tile ahead.

    On an AMD Zen 3, weights and gradients of a tile nearly fill the second-level cache, and rows were waited for.
    """
    if not HAS_MASKS:
        prefetch32(packed, np.intp(order[np.uintp(row)]) * TILE)


@jit
def are_weights(weight, threshold, first, count):
    """Whether the weights of ``count`` neurons, from ``first`` on, and their thresholds are within the limits."""
    wrong, most = 0, np.finfo(weight.dtype).max
    for j in range(first, min(first + count, weight.shape[0])):
        wrong += not 0 < threshold[j] <= most
        limit = min(threshold[j] * (_FLOAT if weight.itemsize == 4 else _DOUBLE), most)
        for i in range(weight.shape[1]):
            wrong += not abs(weight[j, i]) <= limit
    return wrong == 0


@jit
def unit_of_row(weight, j, threshold):
    """The power of two for neuron ``j``, see the module. Its inverse is a normal number, too."""
    inputs = weight.shape[1]
    whole = inputs // 16 * 16
    most = fill16(weight, threshold)
    for i in range(0, whole, 16):
        most = max(most, abs(load16(weight, j * inputs + i)))
    size = highest(most)
    for i in range(whole, inputs):
        size = max(size, abs(weight[j, i]))
    limit = 126 if weight.itemsize == 4 else 1022
    return weight.dtype.type(math.ldexp(1.0, min(max(math.frexp(size)[1], -limit), limit)))


@jit
def pack_tile(weight, unit, first, packed):
    """Fill ``packed (inputs * width,)`` with the weights ``(outputs, inputs)`` of the neurons from ``first`` on."""
    outputs, inputs = weight.shape
    width = packed.size // inputs
    for begin in range(0, width, 16):
        lanes = min(16, outputs - first - begin)
        whole = inputs // 16 * 16 if lanes == 16 else 0
        for i in range(0, whole, 16):
            transpose16(weight, (first + begin) * inputs + i, inputs, packed, i * width + begin, width)
            for place in range(i * width + begin, (i + 16) * width + begin, width):
                store(packed, place, load16(packed, place) / load16(unit, first + begin))
        for lane in range(16):
            for i in range(whole, inputs):
                packed[i * width + begin + lane] = (
                    weight[first + begin + lane, i] / unit[first + begin + lane] if lane < lanes else 0
                )


@jit
def pack_row(weight, unit, first, packed):
    """``pack_tile`` of TILE neurons. The rest of the row has no weight."""
    size = weight.shape[1] * TILE
    pack_tile(weight, unit, first, packed[:size])
    for i in range(size, packed.size):
        packed[i] = 0


@jit
def sum_parts(parts, begin, n):
    """Add the rows of ``parts``, n numbers of each from ``begin`` on, to the first."""
    total = parts[0]
    for part in range(1, parts.shape[0]):
        for place in range(begin, begin + n, 16):
            store(total, place, load16(total, place) + load16(parts[part], place))


@jit
def unpack_tile(packed, unit, first, by_weight):
    """Write the sum of packed gradients ``(parts, inputs * width)`` into ``by_weight (outputs, inputs)``."""
    (outputs, inputs), total = by_weight.shape, packed[0]
    width = total.size // inputs
    sum_parts(packed, 0, total.size)
    for begin in range(0, width, 16):
        lanes = min(16, outputs - first - begin)
        whole = inputs // 16 * 16 if lanes == 16 else 0
        for i in range(0, whole, 16):
            for place in range(i * width + begin, (i + 16) * width + begin, width):
                store(total, place, load16(total, place) * -1.0 / load16(unit, first + begin))
            transpose16(total, i * width + begin, width, by_weight, (first + begin) * inputs + i, inputs)
        for lane in range(lanes):
            for i in range(whole, inputs):
                by_weight[first + begin + lane, i] = -total[i * width + begin + lane] / unit[first + begin + lane]


PAD = 16  # numbers that vectors may reach past the last input
SAVED = {"ints": "int32 ensemble batch n_saved", "reals": "real ensemble batch n_saved"}
"""The arrays saved by a forward pass of first spikes, for a ``Layout``."""


class Saved(NamedTuple):
    """The saved arrays of a sample, as the module describes them."""

    last: Any  # of each neuron; then how many inputs arrive
    slope: Any
    order: Any
    arrival: Any


@inlined
def padded(n):
    """Room for whole vectors of ``n`` numbers, and one to spare."""
    return (n + 15) // 16 * 16 + PAD


@inlined
def saved_of(g, *sample):
    """The saved arrays of a sample."""
    ints, reals, inputs = g.ints[sample], g.reals[sample], padded(g.outputs)
    return Saved(ints, reals, ints[inputs:], reals[inputs:])


def saved_size(inputs: int, outputs: int) -> int:
    """How many numbers of each kind a sample has: whole vectors, which are faster where they begin at 64 bytes."""
    return padded.py_func(inputs) + padded.py_func(outputs)


def saved_for(times: "Tensor", outputs: int) -> "tuple[Tensor, Tensor]":
    """Memory for both kinds of numbers."""
    import torch  # which compiling does not need

    size = *times.shape[:-1], saved_size(times.shape[-1], outputs)
    return times.new_empty(size, dtype=torch.int32), times.new_empty(size)


def states(prefix: str, shape: str = "samples outputs", parts: str = "variables") -> dict[str, str]:
    """The arrays of a ``contract.Held``, for a ``Layout``."""
    one = f"real {shape}"
    return {f"{prefix}voltage": one, f"{prefix}current": f"{one} {parts}", f"{prefix}left": one}
