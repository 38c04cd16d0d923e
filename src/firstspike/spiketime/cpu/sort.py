"""Sorting one sample's spike times.

A few by insertion. Up to 128 by a network of exchanges in vector registers, whose numbers have the place of a time as
their last bits. More go into buckets of equal width; then neighbours in the wrong order change places, all pairs at
once, until there are none. Where times crowd into few buckets, a radix sort over the bits of the floats.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np
from numba.core import types

from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type, jit
from firstspike.spiketime.cpu.vectors.lanes import order_of, sort_pairs16
from firstspike.spiketime.cpu.vectors.simd import (
    count_bits,
    fill16,
    highest,
    keep,
    load16,
    load_some16,
    lowest,
    maximum,
    minimum,
    select,
    store,
    store_whole16,
    unowned,
)

_FEW = 10
_WHOLE = np.uint64(0xFFFF)
_NETWORK = 128  # times for which there is a network of exchanges
_order_16, _order_32, _order_64, _order_128 = (order_of(count) for count in (16, 32, 64, _NETWORK))
_CROWDED = 24  # passes over all pairs that cost more than the radix sort
_DIGIT, _VALUES = 8, 256


@chosen_by_type
def _unsigned(array, shape):
    """Scratch of unsigned integers as wide as the array's floats."""
    dtype = np.uint32 if array.dtype == types.float32 else np.uint64
    return lambda array, shape: np.empty(shape, dtype)


@jit
def sort_scratch(times, inputs):
    """Memory that ``sort_row`` needs for rows of that length and dtype, any number of times."""
    buckets = 32
    while buckets < 2 * inputs:
        buckets *= 2
    count, room = np.empty((times.itemsize, _VALUES), np.int32), max(_NETWORK, inputs // 16 * 16) + 32
    keys, starts = _unsigned(times, (2, inputs)), np.empty(buckets, np.int32)
    numbers, places = np.empty((2, room), times.dtype), np.empty((3, room), np.int32)
    for i in range(_NETWORK):
        places[2, i] = i  # labels of times that are all there
    return keys, count, starts, numbers, places


@jit
def unowned_scratch(memory):
    """The scratch to give to ``sort_row``."""
    keys, count, starts, numbers, places = memory
    return unowned(keys), unowned(count), unowned(starts), unowned(numbers), unowned(places)


@jit
def sort_row(times, order, arrival, scratch):
    """Order and sorted values of the finite ``times``; returns how many there are. Equal times keep their order."""
    keys, count, starts, numbers, places = scratch
    if _FEW < times.size <= _NETWORK:
        size = _network_of(times.size)
        n = _load_times(times, numbers[0], size)
        _network_sort(times, numbers[0], places[2], places[0], order, arrival, n, size)
        return n
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
    if n <= _NETWORK:
        for k in range(n):
            numbers[0, k], places[1, k] = times[order[k]] + 0.0, order[k]
        size = _network_of(n)
        for k in range(n, size):
            numbers[0, k] = math.inf
        _network_sort(times, numbers[0], places[1], places[0], order, arrival, n, size)
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
def sort_samples(times, order, arrival, count, first, stop):
    """``sort_row`` of the samples from ``first`` to ``stop``; after the times of each comes an infinite one."""
    memory = sort_scratch(times, times.shape[1])
    scratch = unowned_scratch(memory)
    for b in range(first, stop):
        count[b] = sort_row(times[b], order[b], arrival[b], scratch)
        arrival[b, count[b]] = math.inf
    keep(memory)


@jit
def are_times(times, first, stop):
    """Whether the samples from ``first`` to ``stop`` are times: numbers or ``inf``."""
    wrong = 0
    for b in range(first, stop):
        for i in range(times.shape[1]):
            wrong += not times[b, i] > -math.inf
    return wrong == 0


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
def _load_times(times, keys, size):
    """Fill ``size`` numbers of ``keys`` with the times and infinite ones; returns how many are finite."""
    n, never = 0, fill16(keys, math.inf)
    for k in range(0, size, 16):
        left = times.size - k
        bits = _WHOLE if left >= 16 else ~(_WHOLE << np.uint64(max(left, 0))) & _WHOLE
        t = (load16(times, k) if left >= 16 else load_some16(bits, times, k)) + 0.0  # makes -0 the same number as 0
        finite = (t < math.inf) & bits
        n += count_bits(finite)
        store(keys, k, select(finite, t, never))
    return n


@jit
def _network_sort(times, keys, labels, where, order, arrival, n, size):
    """Sort n of the times by a network for ``size`` numbers.

    ``keys`` has the times and then infinite numbers, ``labels`` the place in ``times`` of each. Times that agree but
    for the last bits may be left in the wrong order, which is rare and mended by insertion.
    """
    if size == 16:
        _order_16(keys, where)
    elif size == 32:
        _order_32(keys, where)
    elif size == 64:
        _order_64(keys, where)
    else:
        _order_128(keys, where)
    wrong, before = False, keys[np.uintp(where[0])]
    for k in range(n):
        place = np.uintp(where[k])
        t = keys[place]
        arrival[k], order[k] = t, labels[place]
        wrong |= t < before
        before = t
    if wrong:
        _insertion_sort(times, order, arrival, n)


@jit
def _network_of(n):
    """How many numbers the smallest network for n of them takes."""
    return 16 if n <= 16 else 32 if n <= 32 else 64 if n <= 64 else _NETWORK


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
    scale = numbers.dtype.type((buckets - 1) / (high - low))  # may be finite in float64 only
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
