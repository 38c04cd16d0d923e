"""Sorting one sample's spike times.

A few by insertion. Some dozens by rank: each is compared with all others, many at once in a vector. More go into
buckets of equal width, then insertion within the buckets. Where times crowd into few buckets, a radix sort over the
bits of the floats.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types
from numba.extending import overload

from firstspike.spiketime.cpu.cache import jit
from firstspike.spiketime.cpu.simd import (
    fill16,
    fill64,
    highest,
    load16,
    load64,
    lowest,
    maximum,
    minimum,
    select,
    store,
    unowned,
)

_FEW = 10
_RANKED = 512  # bytes of times whose ranks cost less than buckets
_CROWDED = 4  # moves per time in the buckets that cost more than the radix sort
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
    """Memory that ``sort_row`` needs for rows of that length and dtype, any number of times."""
    buckets = 32
    while buckets < 2 * inputs:
        buckets *= 2
    count = np.empty((times.itemsize, _VALUES), np.int32)
    ranks, ranked = np.empty((2, 128), times.dtype), np.empty((2, 128), np.int32)
    keys, spare = _unsigned(times, (2, inputs)), np.empty((2, inputs), np.int32)
    return keys, spare, count, np.empty(buckets, np.int32), ranks, ranked


@jit
def unowned_scratch(memory):
    """The scratch to give to ``sort_row``."""
    keys, spare, count, starts, ranks, ranked = memory
    return unowned(keys), unowned(spare), unowned(count), unowned(starts), unowned(ranks), unowned(ranked)


@jit
def sort_row(times, order, arrival, scratch):
    """Order and sorted values of the finite ``times``; returns how many there are. Equal times keep their order."""
    n = 0
    for i in range(times.size):
        order[n] = i
        n += times[i] < math.inf
    if n <= _FEW:
        for k in range(n):
            arrival[k] = times[order[k]]
        _insertion_sort(order, arrival, n, n * n)
        return n
    keys, spare, count, starts, ranks, ranked = scratch
    if n * times.itemsize <= _RANKED:
        _rank_sort(times, order, arrival, ranks, ranked, n)
        return n
    if _bucket_sort(times, order, arrival, spare, starts, n):
        return n
    for k in range(n):
        arrival[k] = times[order[k]]
    bits = arrival.view(keys.dtype)
    top = np.uint64(1) << np.uint64(8 * keys.itemsize - 1)
    for k in range(n):
        key = np.uint64(bits[k])
        keys[0, k] = ~key if key & top else key | top  # now the integers are ordered as the numbers are
    _radix_sort(keys, order, spare[0], count, n)
    for k in range(n):
        arrival[k] = times[order[k]]
    return n


@jit
def _insertion_sort(order, arrival, n, patience):
    """Sort both by ``arrival``; false, and unsorted, where that takes more moves than ``patience``."""
    for k in range(1, n):
        t, i = arrival[k], order[k]
        j = k
        while j > 0 and arrival[j - 1] > t:
            arrival[j], order[j] = arrival[j - 1], order[j - 1]
            j -= 1
        arrival[j], order[j] = t, i
        patience -= k - j
        if patience < 0:
            return False
    return True


@jit
def _rank_sort(times, order, arrival, ranks, ranked, n):
    """Sort the at most 128 in ``order`` and their times into ``arrival``."""
    for k in range(n):
        ranks[0, k], ranked[0, k], ranked[1, k] = times[order[k]], order[k], k
    for k in range(n, (n + 63) // 64 * 64):
        ranks[0, k] = math.inf
    for begin in range(0, n, 64):
        these, rank = load64(ranks, begin), fill64(ranks, 0.0)
        for k in range(n):
            rank = select(these > ranks[0, k], rank + 1.0, rank)
        store(ranks, 128 + begin, rank)
    for k in range(n):
        rank = np.intp(ranks[1, k])
        place = ranked[1, rank]
        ranked[1, rank] = place + 1  # for the next one of the same time
        order[place], arrival[place] = ranked[0, k], ranks[0, k]


@jit
def _range(times):
    """The smallest and the largest of the finite times."""
    never, whole = fill16(times, math.inf), times.size // 16 * 16
    least, most = never, never * -1.0
    for i in range(0, whole, 16):
        t = load16(times, i)
        least, most = minimum(least, t), maximum(most, select(never > t, t, most))
    low, high = lowest(least), highest(most)
    for i in range(whole, times.size):
        if times[i] < math.inf:
            low, high = min(low, times[i]), max(high, times[i])
    return low, high


@jit
def _bucket_sort(times, order, arrival, spare, starts, n):
    """Sort the ``n`` in ``order`` and their times into ``arrival``; false, with ``order`` as it was, if crowded."""
    low, high = _range(times)
    buckets = starts.size
    while buckets > 2 * n:
        buckets //= 2
    scale = (buckets - 1) / (high - low)
    if not 0 < scale < math.inf:
        return False
    where, kept = spare[0], spare[1]
    for bucket in range(buckets):
        starts[bucket] = 0
    for k in range(n):
        bucket = np.int32((times[order[k]] - low) * scale)
        where[k], kept[k] = bucket, order[k]
        starts[bucket] += 1
    total = np.int32(0)
    for bucket in range(buckets):
        size = starts[bucket]
        starts[bucket] = total
        total += size
    for k in range(n):
        i, place = kept[k], starts[where[k]]
        starts[where[k]] = place + 1
        order[place], arrival[place] = i, times[i]
    if _insertion_sort(order, arrival, n, _CROWDED * n):
        return True
    for k in range(n):
        order[k] = kept[k]
    return False


@jit
def _radix_sort(keys, order, spare_order, count, n):
    for digit in range(count.shape[0]):
        for value in range(_VALUES):
            count[digit, value] = 0
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
        for k in range(n):
            order[k] = spare_order[k]
