"""Weights in the kernels' order: for each tile of neurons ``(inputs, TILE)``, in a unit for each neuron.

Forward it is the threshold. Backward it is a power of two about as large as the threshold, or as the largest weight if
that is larger, so that neither a slope nor its inverse overflows. A tile's rows stay in the second-level cache while
its samples pass. Lanes without a neuron have weight 0.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.lanes import transpose16
from firstspike.spiketime.cpu.vectors.masks import has_mask_registers
from firstspike.spiketime.cpu.vectors.simd import fill16, highest, load16, store
from firstspike.spiketime.kernels import LARGEST_32, LARGEST_64

NARROW = 16, 32  # lanes that are worked on where a layer has no more neurons; the functions' ``zero`` says how many
TILE = 64 if has_mask_registers() else 32  # neurons that are scanned together; 64 need the 32 registers of AVX-512

_MARGIN = 1 + 1e-9  # against rounding: what is refused here, ``check_values`` has to refuse
_FLOAT, _DOUBLE = LARGEST_32 * _MARGIN, LARGEST_64 * _MARGIN


def lanes_for(outputs: int) -> int:
    """How many lanes of a tile a kernel works on."""
    return next((lanes for lanes in NARROW if outputs <= lanes), TILE)


@jit
def every_lane(size):
    """The first lanes of a tile as bits."""
    return ~np.uint64(0) >> np.uint64(64 - size)


@jit
def are_weights(weight, threshold, first):
    """Whether the weights of a tile's neurons, from ``first`` on, and their thresholds are within the limits."""
    wrong, most = 0, np.finfo(weight.dtype).max
    for j in range(first, min(first + TILE, weight.shape[0])):
        wrong += not 0 < threshold[j] <= most
        limit = min(threshold[j] * (_FLOAT if weight.itemsize == 4 else _DOUBLE), most)
        for i in range(weight.shape[1]):
            wrong += not abs(weight[j, i]) <= limit
    return wrong == 0


@jit
def unit_of_row(weight, j, threshold):
    """The power of two for neuron ``j``, see the module; its inverse is a normal number, too."""
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
    """``pack_tile`` of TILE neurons; what is left of the row has no weight."""
    size = weight.shape[1] * TILE
    pack_tile(weight, unit, first, packed[:size])
    for i in range(size, packed.size):
        packed[i] = 0


@jit
def unpack_tile(packed, unit, first, by_weight):
    """Write the sum of packed gradients ``(parts, inputs * width)`` into ``by_weight (outputs, inputs)``."""
    outputs, inputs = by_weight.shape
    width = packed.shape[1] // inputs
    for begin in range(0, width, 16):
        lanes = min(16, outputs - first - begin)
        whole = inputs // 16 * 16 if lanes == 16 else 0
        for i in range(0, whole, 16):
            for place in range(i * width + begin, (i + 16) * width + begin, width):
                total = load16(packed[0], place)
                for part in range(1, packed.shape[0]):
                    total = total + load16(packed[part], place)
                store(packed[0], place, total * -1.0 / load16(unit, first + begin))
            transpose16(packed[0], i * width + begin, width, by_weight, (first + begin) * inputs + i, inputs)
        for lane in range(lanes):
            for i in range(whole, inputs):
                total_here = packed[0, i * width + begin + lane]
                for part in range(1, packed.shape[0]):
                    total_here += packed[part, i * width + begin + lane]
                by_weight[first + begin + lane, i] = -total_here / unit[first + begin + lane]
