"""Sorting one sample's spike times: a radix sort over the bits of the floats, insertion sort for a few."""

# mypy: disable-error-code="no-untyped-def"
import math

import numba
import numpy as np

_FEW = 24


@numba.njit(cache=True)
def sort_row(times, order, arrival, keys, spare_keys, spare_order):
    """Order and sorted values of the finite ``times``; returns how many there are. Equal times keep their order.

    ``keys`` is a view of scratch as unsigned integers of the times' size.
    """
    n = 0
    for i in range(times.size):
        if times[i] < math.inf:
            order[n] = i
            n += 1
    if n <= _FEW:
        for k in range(n):
            i, t = order[k], times[order[k]]
            j = k
            while j > 0 and arrival[j - 1] > t:
                arrival[j], order[j] = arrival[j - 1], order[j - 1]
                j -= 1
            arrival[j], order[j] = t, i
        return n
    bits = arrival.view(keys.dtype)
    top = keys.dtype.type(1) << keys.dtype.type(8 * keys.itemsize - 1)
    for k in range(n):
        arrival[k] = times[order[k]]
        key = bits[k]
        keys[k] = ~key if key & top else key | top  # now the integers are ordered as the numbers are
    _radix_sort(keys, order, spare_keys, spare_order, n)
    for k in range(n):
        arrival[k] = times[order[k]]
    return n


@numba.njit(cache=True)
def _radix_sort(keys, order, spare_keys, spare_order, n):
    digits = keys.itemsize
    count = np.zeros((digits, 256), np.int32)
    for k in range(n):
        key = keys[k]
        for digit in range(digits):
            count[digit, np.intp((key >> keys.dtype.type(8 * digit)) & keys.dtype.type(255))] += 1
    swapped = False
    for digit in range(digits):
        shift = keys.dtype.type(8 * digit)
        if count[digit, np.intp((keys[0] >> shift) & keys.dtype.type(255))] == n:
            continue  # the same in all
        start = 0
        for value in range(256):
            start, count[digit, value] = start + count[digit, value], start
        for k in range(n):
            key = keys[k]
            value = np.intp((key >> shift) & keys.dtype.type(255))
            place = count[digit, value]
            count[digit, value] = place + 1
            spare_keys[place], spare_order[place] = key, order[k]
        keys, spare_keys = spare_keys, keys
        order, spare_order = spare_order, order
        swapped = not swapped
    if swapped:
        for k in range(n):
            spare_order[k] = order[k]
