"""The order of arrival: the kernels' sort against numpy's."""

import math

import numba
import numpy as np
import pytest

from firstspike.spiketime.cpu.sort import sort_row, sorting_for


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
