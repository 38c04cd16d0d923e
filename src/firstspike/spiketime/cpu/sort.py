"""Sorting one sample's spike times.

A few by insertion. Up to 128 by a network of exchanges in vector registers, whose numbers have the place of a time as
their last bits. More go into buckets of equal width. Then neighbours in the wrong order change places, all pairs at
once, until there are none. Where times crowd into few buckets, 128 at a time are sorted by the network, and merged.
"""

# mypy: disable-error-code="no-untyped-def"
import math

import numpy as np

from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.vectors.shuffles import order_of, sort_pairs16
from firstspike.spiketime.cpu.vectors.simd import highest, load16, lowest, store_whole16

_FEW = 10
_NETWORK = 128  # times for which there is a network of exchanges
_order_16, _order_32, _order_64, _order_128 = (order_of(count) for count in (16, 32, 64, _NETWORK))
_CROWDED = 24  # passes over all pairs that cost more than merging

SORTING = {"sort_keys": "real threads 2 sorting", "sort_labels": "int32 threads 4 sorting"}
"""Arrays in which ``sort_row`` works, for a ``Layout`` with the size ``sorting``."""


def sorting_for(times: int) -> dict[str, int]:
    """The size for rows of up to so many times."""
    return {"sorting": max(2 * times, _NETWORK) + _NETWORK}


@jit
def sort_row(times, begin, end, order, arrival, keys, labels):
    """Places and sorted values of the ``times`` in ``[begin, end)``. Returns how many. Equal ones keep their order."""
    n = 0
    for i in range(times.size):
        keys[0, n], labels[0, n] = times[i] + 0.0, i  # which makes -0 the same number as 0
        n += begin <= times[i] < end
    if n <= _FEW:
        for k in range(n):
            arrival[k], order[k] = keys[0, k], labels[0, k]
        _insertion_sort(arrival, order, n)
    elif n <= _NETWORK:
        _network_sort(keys[0], labels[0], labels[1], order, arrival, n)
    elif not _bucket_sort(order, arrival, keys, labels, n):
        _merge_sort(order, arrival, keys, labels, n)
    return n


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
    """The first of the places from ``begin`` on whose sorted number is not below t, or ``end``."""
    while begin < end:
        middle = (begin + end) >> 1
        if times[np.uintp(middle)] < t:
            begin = middle + 1
        else:
            end = middle
    return begin


@jit
def _insertion_sort(keys, labels, n):
    """Sort n keys and their labels in place."""
    for k in range(1, n):
        t, label, j = keys[k], labels[k], k
        while j > 0 and keys[j - 1] > t:
            keys[j], labels[j] = keys[j - 1], labels[j - 1]
            j -= 1
        keys[j], labels[j] = t, label


@jit
def _network_sort(keys, labels, where, order, arrival, n):
    """Sort up to 128 keys and their labels by the smallest network for them, after infinite ones are added.

    Times that agree but for the last bits may be left in the wrong order, which is rare and mended by insertion.
    """
    size = 16
    while size < n:
        size *= 2
    for k in range(n, size):
        keys[k] = math.inf
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
        _insertion_sort(arrival, order, n)


@jit
def _merge_sort(order, arrival, keys, labels, n):
    """Sort any number of places: the network's runs become runs twice as long, until one is left."""
    for begin in range(0, n, _NETWORK):
        here = slice(begin, begin + _NETWORK)
        _network_sort(
            keys[0, here], labels[0, here], labels[1], labels[2, here], keys[1, here], min(_NETWORK, n - begin)
        )
    source, target, run = 1, 0, _NETWORK
    while run < n:
        for begin in range(0, n, 2 * run):
            middle, end = min(begin + run, n), min(begin + 2 * run, n)
            i, j = begin, middle
            for k in range(begin, end):
                later = i == middle or (j < end and keys[source, j] < keys[source, i])
                place = j if later else i
                keys[target, k], labels[2 * target, k] = keys[source, place], labels[2 * source, place]
                j += later
                i += not later
        source, target, run = target, source, 2 * run
    for k in range(n):
        arrival[k], order[k] = keys[source, k], labels[2 * source, k]


@jit
def _bucket_sort(order, arrival, keys, labels, n):
    """Sort any number of places by buckets; false, with the first row of both as it was, if they crowd into few."""
    times, found, where, kept, starts = keys[0], keys[1], labels[1], labels[2], labels[3]
    whole = (n + 15) // 16 * 16
    for k in range(n, whole):
        times[k] = times[0]
    least = most = load16(times, 0)
    for k in range(16, whole, 16):
        t = load16(times, k)
        least, most = min(least, t), max(most, t)
    low, high = lowest(least), highest(most)
    buckets = 2 * _NETWORK
    while 2 * buckets <= 2 * n:
        buckets *= 2
    scale = keys.dtype.type((buckets - 1) / (high - low))  # may be finite in float64 only
    if not 0 < scale < math.inf:
        return False
    for bucket in range(buckets):
        starts[bucket] = 0
    for k in range(0, whole, 16):
        store_whole16(np.uint64(0xFFFF), where, k, (load16(times, k) - low) * scale)
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
        found[place], kept[place] = times[k], labels[0, k]
    for k in range(n, whole + 16):
        found[k] = math.inf
    if not _exchange_neighbours(found, kept, n):
        return False
    for k in range(n):
        arrival[k], order[k] = found[k], kept[k]
    return True


@jit
def _exchange_neighbours(numbers, labels, n):
    """Sort nearly sorted numbers, with infinite ones up to the end of a vector; false if it takes long."""
    for _ in range(_CROWDED):
        wrong = False
        for start in range(2):  # pairs that begin at even places, then at odd ones
            for k in range(start, n, 16):
                wrong |= sort_pairs16(numbers, labels, k)
        if not wrong:
            return True
    return False
