import numpy as np
import pytest

from firstspike.substrates.windows import Windows

INF = np.inf


@pytest.fixture
def windows():
    """Windows of 5 units, from -1 on; a unit takes 10 ms."""
    return Windows(samples=3, start=-1.0, length=5.0, unit_ms=10.0, lead_ms=2.0)


def test_a_batch_is_one_train_for_each_source(windows):
    one, other = windows.trains(np.array([[0.0, INF], [-1.0, 3.0], [INF, INF]]))
    np.testing.assert_allclose(one, [2 + 10, 2 + 50])
    np.testing.assert_allclose(other, [2 + 90])
    assert windows.run_ms == 152


def test_samples_need_not_come_in_order(windows):
    (train,) = Windows(2, 0.0, 1.0, 1.0).trains(np.array([[1.75], [0.5]]))  # the first one is late for its window
    np.testing.assert_allclose(train, [1.5, 1.75])


def test_there_and_back(windows):
    times = np.random.default_rng(0).uniform(-1, 4, (3, 4))
    times[0, 1] = times[2] = INF
    trains = windows.trains(times)
    index = np.concatenate([[source] * len(train) for source, train in enumerate(trains)])
    shuffled = np.random.default_rng(1).permutation(len(index))
    found = windows.each(4, index[shuffled], np.concatenate(trains)[shuffled])[..., 0]
    np.testing.assert_allclose(found, times, atol=1e-12)


def test_first_spikes_are_kept_and_those_outside_left_out(windows):
    at = 2 + 10 * np.array([-0.5, 1.5, 1.0, 4.9, 5.0, 14.9, 15.0])
    found = windows.each(2, [0, 0, 0, 1, 1, 1, 1], at)[..., 0]
    np.testing.assert_allclose(found, [[0.0, 3.9], [INF, -1.0], [INF, 3.9]])


def test_no_spikes(windows):
    assert np.isinf(windows.each(2, [], np.empty(0))).all()
