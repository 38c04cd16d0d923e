"""Long kernels of neurons from equations stop: at a signal, and at the first neuron that has no spike times."""

import signal

import pytest
import torch

from agreement import DOUBLE
from firstspike import Neuron, spike_trains
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.series import host

OUTPUTS, UNTIL = 400, 200.0


@pytest.fixture
def done(monkeypatch):
    """How many neurons were done after each call of a kernel."""
    found, call = [], host.call

    def counted(kernel, layout, phases, sizes, arrays):
        left = call(kernel, layout, phases, sizes, arrays)
        found.append(int(arrays["progress"].sum()))
        return left

    monkeypatch.setattr(host, "call", counted)
    return found


def fast(rate):
    """A neuron whose own rate decides how many steps it takes."""
    text = "dv/dt = rate*(i - v); di/dt = -i / 5"
    return Neuron(text, threshold="v > 0.5", reset="v = 0", receptors=["i"], rate=rate)


def problem():
    draw = torch.Generator().manual_seed(0)
    times = 20 * torch.rand(1, 3, 1, generator=draw, **DOUBLE)
    return times, torch.rand(OUTPUTS, 3, generator=draw, **DOUBLE, requires_grad=True)


def test_nothing_is_computed_after_a_neuron_without_spike_times(done):
    with pytest.raises(ValueError, match="has no spike times: the steps of its series become too small"):
        spike_trains(*problem(), fast(1e5), max_spikes=2, overflow="drop", until=UNTIL)
    assert done[-1] < OUTPUTS / 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_signal_is_looked_at_within_a_long_call(backward, done):
    """As Ctrl-C is."""

    def sound(*_):
        raise KeyboardInterrupt

    def run():
        return spike_trains(*problem(), fast(2e3), max_spikes=2, overflow="drop", until=UNTIL)

    if backward:
        trains = run()
        assert done[-1] == OUTPUTS
        assert len(done) > 2
        run = trains[trains.isfinite()].sum().backward
        done.clear()
    before = signal.signal(signal.SIGALRM, sound)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        with pytest.raises(KeyboardInterrupt):
            run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not done or done[-1] < OUTPUTS


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bound", [None, 3.0])
def test_calls_of_a_few_steps_each_add_up(threads, bound, done, monkeypatch):
    """To the same numbers, whichever thread continues a task."""
    given = {"max_spikes": 4, "overflow": "drop", "until": 40.0, "max_weight_grad": bound}
    found = []
    shared.use_threads(threads)
    for turns in (1 << 14, 1):
        done.clear()
        monkeypatch.setattr(host, "TURNS", turns)
        times, weight = problem()
        trains = spike_trains(times.expand(5, -1, -1) + torch.arange(5.0)[:, None, None], weight, fast(3.0), **given)
        (by,) = torch.autograd.grad(trains[trains.isfinite()].sum(), weight)
        found.append((trains, by))
        assert (len(done) > 8) == (turns == 1)
    shared.use_threads(None)
    for x, y in zip(*found, strict=True):
        assert torch.equal(x, y)
    assert found[0][1].any()
