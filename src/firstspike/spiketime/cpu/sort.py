"""Sorting one sample's spike times.

A few by insertion. Some dozens by rank: each is compared with all others, many at once in a vector. More go into
buckets of equal width; then neighbours in the wrong order change places, all pairs at once, until there are none.
Where times crowd into few buckets, a radix sort over the bits of the floats.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, jit
from firstspike.spiketime.cpu.vectors.lanes import sort_pairs16
from firstspike.spiketime.cpu.vectors.masks import has_mask_registers
from firstspike.spiketime.cpu.vectors.simd import (
    highest,
    load,
    load16,
    lowest,
    maximum,
    minimum,
    select,
    splat,
    store,
    store_whole16,
    unowned,
    zeros,
)

_FEW = 10
_COMPARED = 64 if has_mask_registers() else 32  # times that are compared with another one at once
_RANKED = 512  # bytes of times whose ranks cost less than buckets
_CROWDED = 24  # passes over all pairs that cost more than the radix sort
_DIGIT, _VALUES = 8, 256


def _unsigned(array, shape):
    """Scratch of unsigned integers as wide as the array's floats."""
    raise NotImplementedError


@chosen_by_type(_unsigned)
def _overload_unsigned(array, shape):
    dtype = np.uint32 if array.dtype == types.float32 else np.uint64
    return lambda array, shape: np.empty(shape, dtype)


@jit
def sort_scratch(times, inputs):
    """Memory that ``sort_row`` needs for rows of that length and dtype, any number of times."""
    buckets = 32
    while buckets < 2 * inputs:
        buckets *= 2
    count, room = np.empty((times.itemsize, _VALUES), np.int32), max(128, inputs // 16 * 16 + 32)
    keys, starts = _unsigned(times, (2, inputs)), np.empty(buckets, np.int32)
    return keys, count, starts, np.empty((2, room), times.dtype), np.empty((2, room), np.int32)


@jit
def unowned_scratch(memory):
    """The scratch to give to ``sort_row``."""
    keys, count, starts, numbers, places = memory
    return unowned(keys), unowned(count), unowned(starts), unowned(numbers), unowned(places)


@jit
def sort_row(times, order, arrival, scratch):
    """Order and sorted values of the finite ``times``; returns how many there are. Equal times keep their order."""
    n = 0
    for i in range(times.size):
        n += times[i] < math.inf
    if n == times.size:
        for i in range(n):
            order[i] = i
    else:
        n = 0
        for i in range(times.size):
            order[n] = i
            n += times[i] < math.inf
    if n <= _FEW:
        _insertion_sort(times, order, arrival, n)
        return n
    keys, count, starts, numbers, places = scratch
    if n * times.itemsize <= _RANKED:
        _rank_sort(times, order, arrival, numbers, places, n)
        return n
    if _bucket_sort(times, order, arrival, numbers, places, starts, n):
        return n
    for k in range(n):
        arrival[k] = times[order[k]] + 0.0  # which makes -0 the same number as 0
    bits = arrival.view(keys.dtype)
    top = np.uint64(1) << np.uint64(8 * keys.itemsize - 1)
    for k in range(n):
        key = np.uint64(bits[k])
        keys[0, k] = ~key if key & top else key | top  # now the integers are ordered as the numbers are
    _radix_sort(keys, order, places[0], count, n)
    for k in range(n):
        arrival[k] = times[order[k]]
    return n


@jit
def first_from(times, begin, end, t):
    """The first of the places from ``begin`` on whose sorted time is not before t, or ``end``."""
    while begin < end:
        middle = (begin + end) >> 1
        if times[np.uintp(middle)] < t:
            begin = middle + 1
        else:
            end = middle
    return begin


@jit
def _insertion_sort(times, order, arrival, n):
    """Sort ``order`` and its times into ``arrival``."""
    for k in range(n):
        i = order[k]
        t, j = times[i], k
        while j > 0 and arrival[j - 1] > t:
            arrival[j], order[j] = arrival[j - 1], order[j - 1]
            j -= 1
        arrival[j], order[j] = t, i


@jit
def _rank_sort(times, order, arrival, numbers, places, n):
    """The same of at most 128."""
    zero = zeros(times, _COMPARED)
    keys, ranks, kept, free = numbers[0], numbers[1], places[0], places[1]
    for k in range(n):
        keys[k], kept[k] = times[order[k]], order[k]
    for k in range(n, (n + _COMPARED - 1) // _COMPARED * _COMPARED):
        keys[k] = math.inf
    for begin in range(0, n, _COMPARED):
        these, rank = load(zero, keys, begin), zero
        for k in range(n):
            rank = select(these > splat(zero, keys[k]), rank + 1.0, rank)
        store(ranks, begin, rank)
    total = 0
    for k in range(n):
        free[k] = np.int32(ranks[k])
        total += free[k]
    if 2 * total == n * (n - 1):  # all different
        for k in range(n):
            place = np.uintp(free[k])
            order[place], arrival[place] = kept[k], keys[k]
        return
    for k in range(n):
        free[k] = k
    for k in range(n):
        rank = np.intp(ranks[k])
        place = free[rank]
        free[rank] = place + 1  # for the next one of the same time
        order[place], arrival[place] = kept[k], keys[k]


@jit
def _bucket_sort(times, order, arrival, numbers, places, starts, n):
    """The same of any number; false, with ``order`` as it was, where they crowd into few buckets."""
    keys, found, where, kept = numbers[0], numbers[1], places[0], places[1]
    for k in range(n):
        keys[k] = times[order[k]]
    whole = (n + 15) // 16 * 16
    for k in range(n, whole):
        keys[k] = keys[0]
    least = most = load16(keys, 0)
    for k in range(16, whole, 16):
        t = load16(keys, k)
        least, most = minimum(least, t), maximum(most, t)
    low, high = lowest(least), highest(most)
    buckets = starts.size
    while buckets > 2 * n:
        buckets //= 2
    scale = (buckets - 1) / (high - low)
    if not 0 < scale < math.inf:
        return False
    for bucket in range(buckets):
        starts[bucket] = 0
    for k in range(0, whole, 16):
        store_whole16(np.uint64(0xFFFF), where, k, (load16(keys, k) - low) * scale)
    for k in range(n):
        starts[where[k]] += 1
    total = np.int32(0)
    for bucket in range(buckets):
        size = starts[bucket]
        starts[bucket] = total
        total += size
    for k in range(n):
        place = starts[where[k]]
        starts[where[k]] = place + 1
        found[place], kept[place] = keys[k], order[k]
    for k in range(n, whole + 16):
        found[k] = math.inf
    if not _exchange_neighbours(found, kept, n):
        return False
    for k in range(n):
        arrival[k], order[k] = found[k], kept[k]
    return True


@jit
def _exchange_neighbours(numbers, labels, n):
    """Sort what is nearly sorted, then infinite numbers up to the end of a vector; false where it takes long."""
    for _ in range(_CROWDED):
        wrong = False
        for start in range(2):  # pairs that begin at even places, then at odd ones
            for k in range(start, n, 16):
                wrong |= sort_pairs16(numbers, labels, k)
        if not wrong:
            return True
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
