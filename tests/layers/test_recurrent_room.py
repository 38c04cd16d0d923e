"""Recurrent layers with more spikes than there seems to be room for, and sizes that no machine has room for."""

import math

import pytest
import torch

import forked
from firstspike import LIF, LIFLinear, LIFRecurrent, LIFSpikeTrains, spike_trains
from firstspike.spiketime import TrainState, spike_window
from firstspike.spiketime.contract import Recurrence

INF = math.inf


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(samples=4, dtype=torch.float64):
    return (torch.rand(samples, 6, 5, generator=seeded(), dtype=torch.float64) * 10).sort(-1).values.to(dtype)


@pytest.mark.parametrize("refractory", [0.0, 0.05])
@pytest.mark.parametrize("outputs", [3, 20, 70])
def test_all_spikes_arrive_however_few_are_returned(outputs, refractory):
    """Neurons that spike far more often than ``max_spikes``, against a layer that has room for all from the start."""
    times, results = inputs().requires_grad_(), []
    for most in (2, 120):
        lif = LIFRecurrent(
            6, outputs, most, 6.0, LIF(2.0, refractory=refractory), window=1.0, window_spikes=20, weight_mean=3.0,
            weight_std=0.5, overflow="drop", recurrent_mean=20.0 / outputs**2, recurrent_std=0.0,
            dtype=torch.float64, generator=seeded(1),
        )  # fmt: skip
        found = lif(times)[..., :2]
        total = torch.where(found.isfinite(), found, 0.0).sin().sum()
        _, state = lif.proceed(times, 6.0)
        total = total + state.neurons.voltage.sin().sum() + state.neurons.current.sin().sum()
        results.append((found, *torch.autograd.grad(total, [times, *lif.parameters()])))
    assert int(state.pending.isfinite().sum(-1).min()) > 4
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_neighbouring_memory_is_left_alone():
    """In a process of its own, as it may die."""
    program = """
        import torch, firstspike as fs
        torch.manual_seed(0)
        times = (torch.rand(60, 6, 5) * 10).sort(-1).values
        for outputs in (10, 70):  # both kernels; more neurons than lanes would compile another
            layer = fs.LIFRecurrent(
                6, outputs, max_spikes=100, duration=12, window=1, window_spikes=20, weight_mean=3.0, weight_std=0.5,
                recurrent_mean=1.0, recurrent_std=0.5, overflow="drop",
            )
            whole = layer(times)
            alone = torch.cat([layer(x) for x in times.split(1)])
            assert torch.equal(whole, alone)
            grads = []
            for parts in (1, 60):
                total = sum((torch.where(y.isfinite(), y, 0).sum() for y in map(layer, times.chunk(parts))))
                grads.append(torch.autograd.grad(total, layer.recurrent_weight)[0])
            assert torch.nn.functional.cosine_similarity(*(x.flatten() for x in grads), 0) > 0.999
        print("lived")
    """
    done = forked.run_code(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "lived"


@pytest.mark.parametrize("own", [None, pytest.param("constants", marks=pytest.mark.slow), "delays"])
@pytest.mark.parametrize("outputs", [5, 70])
def test_windows_far_shorter_than_the_lag(outputs, own):
    """Spikes of many windows are on their way at the same time."""
    generator, bounds = seeded(2), [0.0, 0.02, 0.1, 0.15, 0.2, 0.21, 0.4, 0.9, 1.5, 2.0, 3.0]
    times = torch.rand(3, 6, 5, generator=generator, dtype=torch.float64) * 0.4
    weight = torch.rand(outputs, 6 + outputs, generator=generator, dtype=torch.float64) + 0.5
    weight[:, 6:] *= 2.0 / outputs
    state = TrainState(*(torch.zeros(3, outputs, dtype=torch.float64) for _ in range(3)), 0.0)
    tau_mem = 2.0 if own is None else torch.linspace(1.8, 2.2, outputs, dtype=torch.float64)
    delay = None if own != "delays" else torch.rand(outputs, 6 + outputs, generator=generator, dtype=torch.float64)
    if delay is not None:
        delay[:, 6:] += 1.0
    results = []
    for cuts in (bounds, [0.0, 1.0, 2.0, 3.0]):
        windows = Recurrence(tuple(cuts), 1.0, 100 if len(cuts) < 5 else 40)
        found = spike_window(times, weight, LIF(tau_mem), windows=windows, max_spikes=200, state=state, delay=delay)
        results.append(found.trains)
    assert results[0].isfinite().sum(-1).min() > 10
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_far_too_many_spikes():
    times, weight = torch.rand(2, 3, 2), torch.rand(4, 3)
    with pytest.raises(ValueError, match=r"max_spikes must be at most 1000000, got 1000000000000"):
        spike_trains(times, weight, LIF(), max_spikes=10**12)
    for make in (lambda n: LIFSpikeTrains(3, 4, n), lambda n: LIFRecurrent(3, 4, n, 5.0)):
        with pytest.raises(ValueError, match=r"max_spikes must be > 0 and <= 1000000, got 1000000000000"):
            make(10**12)
    with pytest.raises(ValueError, match=r"window_spikes must be > 0 and <= 1000000, got 1000000000000"):
        LIFRecurrent(3, 4, 5, 5.0, window_spikes=10**12)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_more_memory_than_there_is(backend):
    times, weight = torch.rand(1000, 3, 2), torch.rand(1000, 3)
    with pytest.raises(ValueError, match=r"1000 samples and 1000 neurons with max_spikes=1000000 .* GB .* lower"):
        spike_trains(times, weight, LIF(), max_spikes=10**6, backend=backend, overflow="drop")
    lif = LIFRecurrent(3, 1000, 10**6, 2.0, backend=backend, overflow="drop")
    with pytest.raises(ValueError, match=r"1000 samples and 1000 neurons .* GB .* lower"):
        lif(times)
    long = LIFRecurrent(3, 1000, 10, 2.0, backend=backend, window_spikes=1000)
    with pytest.raises(ValueError, match=r"1000 samples and 1000 neurons .* GB .* lower"):
        long.proceed(times, 1e5)


def test_more_weights_than_there_is_memory():
    many = 10**6
    with pytest.raises(ValueError, match=r"^weights \(1000000, 1000000\) take about 4e\+03 GB, more than"):
        LIFLinear(many, many)
    with pytest.raises(ValueError, match=r"^weights of 1000000 neurons take about 4e\+03 GB, .* of fs\.connect"):
        LIFRecurrent(3, many, 10, 2.0)
    assert LIFLinear(many, many, device="meta").weight.is_meta


@pytest.mark.parametrize(("duration", "window"), [(1e5, 1e-3), (1e12, 1.0), (1.0, 1e-30)])
def test_far_too_many_windows(duration, window):
    with pytest.raises(ValueError, match=r"duration=\S+ and window=\S+ make \S+ windows, at most 1000000: .*window"):
        LIFRecurrent(2, 3, 4, duration, window=window)
    lif = LIFRecurrent(2, 3, 4, 10.0)
    times = torch.rand(1, 2, 1)
    with pytest.raises(ValueError, match=r"from 0 to 1e\+07 .* windows, at most 1000000: .*pieces"):
        lif.proceed(times, 1e7)
    with pytest.raises(ValueError, match=r"from -1e\+10 to 10 .* windows"):
        lif(times - 1e10)


def test_windows_below_the_resolution_of_times():
    lif = LIFRecurrent(2, 3, 4, 10.0, window=0.01, dtype=torch.float32)
    _, state = lif.proceed(torch.rand(1, 2, 1), 1.0)
    far = state._replace(neurons=state.neurons._replace(time=1e7))
    with pytest.raises(ValueError, match=r"window=0\.01 is too short for times near 1\.0001e\+07 in torch\.float32"):
        lif.proceed(torch.rand(1, 2, 1) + 1e7, 1e7 + 1000, far)
