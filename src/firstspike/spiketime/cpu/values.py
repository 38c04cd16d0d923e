"""Whether values are such that a kernel can work with them; if not, ``check_values`` says what is wrong."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.pack import TILE
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.limits import LARGEST_32, LARGEST_64

_MARGIN = 1 + 1e-9  # against rounding: what is refused here, ``check_values`` has to refuse
_FLOAT, _DOUBLE = LARGEST_32 * _MARGIN, LARGEST_64 * _MARGIN


@jit
def are_times(times, first, stop):
    """Whether the samples from ``first`` to ``stop`` are times: numbers or ``inf``."""
    wrong = 0
    for b in range(first, stop):
        for i in range(times.shape[1]):
            wrong += not times[b, i] > -math.inf
    return wrong == 0


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
