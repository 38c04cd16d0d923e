"""The order of arrival: the kernels' sort against numpy's."""

import math

import numba
import numpy as np
import pytest

from firstspike.spiketime.cpu.sort import sort_row, sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import columns16, pack16, rows_for, sort_lanes
from firstspike.spiketime.cpu.vectors.simd import load16


@numba.njit
def sort_rows(times, order, arrival, count, keys, labels):
    for b in range(len(times)):
        count[b] = sort_row(times[b], -math.inf, math.inf, order[b], arrival[b], keys, labels)


def crowded(random, samples, size):
    return 1.0 + random.random((samples, size)) * 1e-3 + 100.0 * (random.random((samples, size)) < 0.01)


SAMPLES_TO_SORT = {
    "uniform": lambda random, *shape: random.random(shape) * 2 - 0.5,
    "equal": lambda random, *shape: random.integers(0, 5, shape) / 4,
    "all the same": lambda random, *shape: np.full(shape, 0.5),
    "silent": lambda random, *shape: np.where(random.random(shape) < 0.5, math.inf, random.random(shape)),
    "descending": lambda random, *shape: np.broadcast_to(-np.arange(shape[1]) / 8, shape),
    "crowded": crowded,
    "agreeing in all but the last bits of float32": lambda random, *shape: 1 + random.integers(0, 64, shape) * 2.0**-23,
    "agreeing in all but the last bits": lambda random, *shape: 1 + random.integers(0, 64, shape) * 2.0**-52,
    "within subnormal numbers": lambda random, *shape: random.random(shape) * 1e-38,
    "mostly silent": lambda random, *shape: np.where(random.random(shape) < 0.93, math.inf, random.random(shape)),
    "negative": lambda random, *shape: -(10.0 ** random.uniform(-40, 38, shape)),
    "zeros of both signs": lambda random, *shape: np.where(random.random(shape) < 0.5, -0.0, 0.0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", SAMPLES_TO_SORT)
def test_times_are_sorted_and_equal_ones_keep_their_order(kind, dtype):
    for size in (1, 10, 11, 16, 63, 64, 65, 127, 128, 129, 200, 256, 257, 784):
        times = SAMPLES_TO_SORT[kind](np.random.default_rng(size), 4, size).astype(dtype, order="C")
        order, arrival, count = np.empty(times.shape, np.int32), np.empty_like(times), np.empty(4, np.int32)
        room = sorting_for(size)["sorting"]
        keys, labels = np.empty((2, room), dtype), np.empty((4, room), np.int32)
        sort_rows(times, order, arrival, count, keys, labels)
        for b, n in enumerate(np.isfinite(times).sum(axis=1)):
            expected = np.argsort(times[b], kind="stable")[:n]
            assert count[b] == n
            assert order[b, :n].tolist() == expected.tolist(), size
            assert arrival[b, :n].tolist() == times[b, expected].tolist()


@numba.njit
def sort_columns(keys, values, n):
    sort_lanes(keys, values, n)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 17, 31, 33, 64, 65, 70, 100, 130, 200, 257])
def test_lanes_are_sorted_each_by_its_own_keys(rows):
    random, room = np.random.default_rng(rows), rows_for.py_func(rows)
    keys, values = random.random((room, 32)), random.random((room, 32))
    keys[random.random((room, 32)) < 0.2] = math.inf
    values[:rows] = keys[:rows]
    expected = np.sort(keys[:rows], axis=0)
    flat = keys.ravel(), values.ravel()
    sort_columns(*flat, rows)
    np.testing.assert_array_equal(keys[:rows], expected)
    np.testing.assert_array_equal(values[:rows], expected)
    assert (keys[rows:] == math.inf).all()


@numba.njit
def packed(source, places, bits, tile, target):
    columns16(source, places, 0, 20, 2, tile, 0)
    at = 0
    for lane in range(16):
        at = pack16(bits[lane], target, at, load16(tile, 16 * lane))
    return at


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_of_chosen_rows_are_packed(dtype):
    random = np.random.default_rng(0)
    source, places = random.random((9, 20)).astype(dtype), random.integers(0, 9, 16).astype(np.int32)
    bits, target = random.integers(0, 2**16, 16).astype(np.uint64), np.zeros(16 * 17, dtype)
    found = packed(source.ravel(), places, bits, np.zeros(256, dtype), target)
    columns = source[places, 2:18].T
    chosen = (bits[:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1) != 0
    np.testing.assert_array_equal(target[:found], columns[chosen])
