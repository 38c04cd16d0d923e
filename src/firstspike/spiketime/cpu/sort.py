"""Sorting one sample's spike times: a radix sort over the bits of the floats, insertion sort for a few."""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types
from numba.extending import overload

from firstspike.spiketime.cpu.simd import jit

_FEW = 24
_DIGIT, _VALUES = 8, 256


def _unsigned(array, shape):
    """Scratch of unsigned integers as wide as the array's floats."""
    raise NotImplementedError


@overload(_unsigned)
def _overload_unsigned(array, shape):
    dtype = np.uint32 if array.dtype == types.float32 else np.uint64
    return lambda array, shape: np.empty(shape, dtype)


@jit
def sort_scratch(times, inputs):
    """What ``sort_row`` needs for rows of that length and dtype, any number of times."""
    return _unsigned(times, (2, inputs)), np.empty(inputs, np.int32), np.empty((times.itemsize, _VALUES), np.int32)


@jit
def sort_row(times, order, arrival, scratch):
    """Order and sorted values of the finite ``times``; returns how many there are. Equal times keep their order."""
    n = 0
    for i in range(times.size):
        order[n] = i
        n += times[i] < math.inf
    if n <= _FEW:
        for k in range(n):
            i, t = order[k], times[order[k]]
            j = k
            while j > 0 and arrival[j - 1] > t:
                arrival[j], order[j] = arrival[j - 1], order[j - 1]
                j -= 1
            arrival[j], order[j] = t, i
        return n
    keys, spare_order, count = scratch
    for k in range(n):
        arrival[k] = times[order[k]]
    bits = arrival.view(keys.dtype)
    top = np.uint64(1) << np.uint64(8 * keys.itemsize - 1)
    for k in range(n):
        key = np.uint64(bits[k])
        keys[0, k] = ~key if key & top else key | top  # now the integers are ordered as the numbers are
    _radix_sort(keys, order, spare_order, count, n)
    for k in range(n):
        arrival[k] = times[order[k]]
    return n


@jit
def _radix_sort(keys, order, spare_order, count, n):
    count[:] = 0
    for k in range(n):
        key = np.uint64(keys[0, k])
        for digit in range(count.shape[0]):
            count[digit, np.intp((key >> np.uint64(_DIGIT * digit)) & np.uint64(_VALUES - 1))] += 1
    source, target = keys[0], keys[1]
    source_order, target_order = order, spare_order
    swapped = False
    for digit in range(count.shape[0]):
        shift = np.uint64(_DIGIT * digit)
        starts = count[digit]
        if starts[np.intp((np.uint64(source[0]) >> shift) & np.uint64(_VALUES - 1))] == n:
            continue  # the same in all
        start = 0
        for value in range(_VALUES):
            size = starts[value]
            starts[value] = start
            start += size
        for k in range(n):
            key = source[k]
            value = np.intp((np.uint64(key) >> shift) & np.uint64(_VALUES - 1))
            place = starts[value]
            starts[value] = place + 1
            target[place], target_order[place] = key, source_order[k]
        source, target = target, source
        source_order, target_order = target_order, source_order
        swapped = not swapped
    if swapped:
        order[:n] = spare_order[:n]
