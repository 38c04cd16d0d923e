"""Weights in the kernels' order: for each tile of neurons ``(inputs, TILE)``, in units of the threshold.

A tile's rows stay in the second-level cache while its samples pass. Lanes without a neuron have weight 0.
"""

# mypy: disable-error-code="no-untyped-def"

from firstspike.spiketime.cpu.crossing import TILE
from firstspike.spiketime.cpu.lanes import transpose16
from firstspike.spiketime.cpu.simd import fill16, jit, load16, store


@jit
def tiles_of(outputs):
    """Number of tiles."""
    return (outputs + TILE - 1) // TILE


@jit
def pack_tile(weight, threshold, first, packed):
    """Fill ``packed (inputs * TILE,)`` with the weights ``(outputs, inputs)`` of the neurons from ``first`` on."""
    outputs, inputs = weight.shape
    for begin in range(0, TILE, 16):
        lanes = min(16, outputs - first - begin)
        whole = inputs // 16 * 16 if lanes == 16 else 0
        if whole:
            scale = fill16(packed, 1.0) / load16(threshold, first + begin)
            for i in range(0, whole, 16):
                transpose16(weight, (first + begin) * inputs + i, inputs, packed, i * TILE + begin, TILE, scale)
        for lane in range(16):
            for i in range(whole, inputs):
                packed[i * TILE + begin + lane] = (
                    weight[first + begin + lane, i] / threshold[first + begin + lane] if lane < lanes else 0
                )


@jit
def unpack_tile(packed, threshold, first, by_weight):
    """Write the sum of packed gradients ``(parts, inputs * TILE)`` into ``by_weight (outputs, inputs)``."""
    outputs, inputs = by_weight.shape
    one = fill16(threshold, 1.0)
    for begin in range(0, TILE, 16):
        lanes = min(16, outputs - first - begin)
        whole = inputs // 16 * 16 if lanes == 16 else 0
        if whole:
            scale = fill16(threshold, -1.0) / load16(threshold, first + begin)
            for i in range(0, whole, 16):
                for row in range(i, i + 16):
                    place = row * TILE + begin
                    total = load16(packed[0], place)
                    for part in range(1, packed.shape[0]):
                        total = total + load16(packed[part], place)
                    store(packed[0], place, total * scale)
                transpose16(packed[0], i * TILE + begin, TILE, by_weight, (first + begin) * inputs + i, inputs, one)
        for lane in range(lanes):
            for i in range(whole, inputs):
                total_here = packed[0, i * TILE + begin + lane]
                for part in range(1, packed.shape[0]):
                    total_here += packed[part, i * TILE + begin + lane]
                by_weight[first + begin + lane, i] = -total_here / threshold[first + begin + lane]
