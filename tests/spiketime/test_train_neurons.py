"""Spike trains with delays, constants of each neuron, gradients by time constants: kernels against ``reference``."""

import math

import pytest
import torch
from test_train_kernels import covering, draw, finite

from firstspike import LIF, first_spike_time, spike_trains
from firstspike.spiketime import TrainState, cpu, spike_window
from firstspike.spiketime.cpu.lanes import sizes as neuron_sizes

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf
# samples, inputs, times of each, neurons, span, largest weight: few and long intervals, many short ones, full groups
SHAPES = [(3, 6, 3, 5, 4.0, 2.5), (2, 60, 2, 70, 3.0, 0.3), (5, 20, 1, 63, 40.0, 2.5), (1, 1, 5, 1, 3.0, 8.0)]
MODES = ["delays", "constants", "both", "learning"]
DEFAULTS = {"windows": False, "refractory": 0.0, "reset": -0.1, "bound": None, "dtype": torch.float64, "observed": None}
STARTS = 0.1


def neurons(mode, ratio, outputs, dtype):
    """Time constants, and those of them that learn. The first neuron has the ratio that is given."""
    spread = 0.3 if mode in ("constants", "both") else 0.0
    syn = torch.linspace(1.0, 1.0 - spread, outputs, dtype=dtype).requires_grad_()
    if ratio == INF:
        return INF, syn, [syn]
    mem = torch.linspace(ratio, ratio * (1 + spread), outputs, dtype=dtype).requires_grad_()
    return (ratio, 1.0, []) if mode == "delays" else (mem, syn, [mem, syn])


def run(shape, mode, ratio, backend, **options):
    """Trains and gradients; ``refractory`` is up to that, other for each neuron, and zero for the first."""
    windows, refractory, reset, bound, dtype, observed = (DEFAULTS | options).values()
    times, weight, delay = (x.requires_grad_() for x in draw(shape, dtype, delays=True))
    threshold = torch.linspace(0.8, 1.2, len(weight), dtype=dtype).requires_grad_()
    mem, syn, learn = neurons(mode, ratio, len(weight), dtype)
    delayed = mode in ("delays", "both")
    reset = torch.full((len(weight),), reset, dtype=dtype).requires_grad_()
    leaves = [times, weight, threshold, reset, *([delay] if delayed else []), *learn]
    refractory = torch.linspace(0.0, refractory, len(weight), dtype=dtype)
    state, ends = None, (INF,)
    if windows:
        generator = torch.Generator().manual_seed(1)
        start = [torch.rand(len(times), len(weight), generator=generator, dtype=torch.float64) for _ in range(3)]
        start[2] = torch.where(start[2] > 0.5, start[2], 0.0) * (refractory.max() > 0)
        start = [(x * 0.7).to(dtype).requires_grad_() for x in start]
        leaves += start
        state, ends = TrainState(*start, STARTS), (0.8, 1.7, 2.0)
    parts, begin = [], STARTS
    for until in ends:
        seen = None
        if observed is not None:
            inside = (observed > begin) & (observed <= until)
            seen = torch.where(inside, observed, INF).sort(-1).values if windows else observed
        found = spike_window(
            times, weight, LIF(mem, syn, threshold, reset, refractory),
            max_spikes=130 if seen is None else seen.shape[-1], delay=delay if delayed else None, state=state,
            until=until, max_weight_grad=bound, observed=seen, backend=backend,
        )  # fmt: skip
        assert not found.overflows.any()
        parts.append(found.trains)
        state, begin = found.state, until
    trains = torch.cat(parts, -1)
    total = finite(trains).sin().sum()
    if state is not None:
        total = total + state.voltage.sin().sum() + state.current.sum() + state.refractory.square().sum()
    return trains.detach(), torch.autograd.grad(total, leaves)


def compare(shape, mode, ratio, least=1.0, **options):
    """Kernels against the reference; more than ``least`` spikes a sample on average."""
    wanted, by = run(shape, mode, ratio, "reference", **options)
    found, gradients = run(shape, mode, ratio, "cpu", **options)
    assert (wanted < INF).sum() > least * len(wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients, by, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-11 * other.abs().max().item())
    return gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "ratio", "refractory", "windows"),
    covering(MODES, [1.0, 2.0, 0.5, 1.37, 100.0, INF], [0.0, 0.6], [False, True]),
)
def test_equals_the_reference(mode, ratio, refractory, windows):
    compare(SHAPES[0], mode, ratio, refractory=refractory, windows=windows)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "mode", "windows"), covering(SHAPES[1:], MODES, [False, True]), ids=str)
def test_shapes(shape, mode, windows):
    compare(shape, mode, 1.37, refractory=0.2, windows=windows, least=0)


@pytest.mark.parametrize("mode", ["delays", "constants"])
def test_many_spikes(mode):
    """More than 100 of a neuron, most of them in one interval."""
    found, _ = run((1, 6, 1, 2, 3.0, 80.0), mode, 20.0, "cpu", reset=0.3)
    assert (found < INF).sum(-1).max() > 100
    compare((1, 6, 1, 2, 3.0, 80.0), mode, 20.0, reset=0.3)


@pytest.mark.parametrize("refractory", [0.0, 0.3])
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("mode", ["both", "learning"])
def test_observed_trains(mode, windows, refractory):
    """Ideal ones with some moved, some of them to where the membrane falls or the neuron is refractory."""
    ideal, _ = run(SHAPES[0], mode, 2.0, "cpu", refractory=refractory)
    generator = torch.Generator().manual_seed(2)
    moved = ideal + 0.05 * torch.rand(ideal.shape, generator=generator, dtype=torch.float64)
    observed = torch.cat([moved[..., ::3], moved[..., 1:4]], -1).sort(-1).values
    observed[0, 0, 0] = 0.11  # maybe before any input
    observed[0, 1, 1] = observed[0, 1, 0]
    compare(SHAPES[0], mode, 2.0, refractory=refractory, windows=windows, observed=observed.sort(-1).values)


@pytest.mark.parametrize("refractory", [0.0, 0.3])
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("mode", ["delays", "constants"])
def test_bounded_weight_gradients(mode, windows, refractory):
    bounded = compare(SHAPES[0], mode, 2.0, refractory=refractory, windows=windows, bound=0.2)
    _, without = run(SHAPES[0], mode, 2.0, "cpu", refractory=refractory, windows=windows)
    assert not torch.equal(bounded[1], without[1])
    for k, (one, other) in enumerate(zip(bounded, without, strict=True)):
        if k != 1:
            assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_float32(mode):
    """Spikes as near to float64 as rounding lets them be; gradients at given spikes nearly the same."""
    wanted, _ = run(SHAPES[1], mode, 1.37, "cpu", refractory=0.2)
    found, _ = run(SHAPES[1], mode, 1.37, "cpu", refractory=0.2, dtype=torch.float32)
    assert torch.equal(found < INF, wanted < INF)
    error = (finite(found.double()) - finite(wanted)).abs().flatten()
    assert error.median() < 1e-6
    assert error.max() < 1e-2
    by = [
        run(SHAPES[1], mode, 1.37, "cpu", refractory=0.2, dtype=dtype, observed=found.to(dtype))[1]
        for dtype in (torch.float32, torch.float64)
    ]
    for one, other in zip(*by, strict=True):
        assert torch.nn.functional.cosine_similarity(one.double().flatten(), other.flatten(), 0) > 1 - 1e-7
        assert (one - other).norm() < 2e-4 * other.norm()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["both", "constants"])
def test_threads_and_other_samples_do_not_matter(mode, monkeypatch):
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(neuron_sizes, "threads_for", lambda work, threads=threads: threads)
        neuron_sizes.sizes_of.cache_clear()
        trains, gradients = run(SHAPES[2], mode, 2.0, "cpu", windows=True, dtype=torch.float32, refractory=0.3)
        results.append((trains, *gradients))
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
    times, weight, delay = draw(SHAPES[1], torch.float32, delays=True)
    neuron = LIF(torch.linspace(1.0, 3.0, len(weight)), 1.0)
    options = {"max_spikes": 130, "delay": delay if mode == "both" else None, "backend": "cpu"}
    alone = torch.stack([spike_trains(x, weight, neuron, **options) for x in times])
    assert torch.equal(spike_trains(times, weight, neuron, **options), alone)


@pytest.mark.parametrize("mode", ["both", "learning"])
def test_in_parts(mode, monkeypatch):
    """Little memory: some samples after the others, with the same gradients up to the order of sums."""
    trains, whole = run(SHAPES[2], mode, 2.0, "cpu", windows=True)
    monkeypatch.setattr(cpu, "_TRAIN_MEMORY", 1 << 12)
    again, parts = run(SHAPES[2], mode, 2.0, "cpu", windows=True)
    assert torch.equal(again, trains)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11 * other.abs().max().item())


@pytest.mark.parametrize("mode", ["delays", "constants"])
def test_the_first_of_several_is_the_first(mode):
    times, weight, delay = draw(SHAPES[1], delays=True)
    mem, syn, _ = neurons(mode, 2.0, len(weight), torch.float64)
    delay = delay if mode == "delays" else None
    repeated = None if delay is None else delay.repeat_interleave(2, 1)
    first = first_spike_time(times.flatten(1), weight.repeat_interleave(2, 1), LIF(mem, syn), delay=repeated)
    found = spike_trains(times, weight, LIF(mem, syn), max_spikes=130, delay=delay)
    torch.testing.assert_close(found[..., 0], first, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("delayed", [False, True])
def test_extreme_weights(delayed):
    """A burst after one huge input, more spikes than there is room for, and neurons that any input silences."""
    times = torch.tensor([[[0.5], [1.0]]], dtype=torch.float64)
    weight = torch.tensor([[1e4, 0.0], [-1e6, 1e4], [1e3, -1e9], [3.0, 3.0]], dtype=torch.float64)
    delay = torch.full_like(weight, 0.25) if delayed else None
    mem = torch.tensor([1.0, 20.0, 3.0, 1.5], dtype=torch.float64)
    for refractory in (0.0, 0.01):
        found, wanted = (
            spike_window(
                times, weight, LIF(mem, refractory=refractory), max_spikes=50, overflow="drop", delay=delay,
                until=4.0, backend=backend,
            )
            for backend in ("cpu", "reference")
        )  # fmt: skip
        torch.testing.assert_close(found.trains, wanted.trains, rtol=1e-9, atol=1e-9)
        assert torch.equal(found.overflows, wanted.overflows)
        assert found.overflows.any()
        for one, other in zip(found.state[:3], wanted.state[:3], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_nothing_arrives():
    times = torch.full((2, 3, 2), INF, dtype=torch.float64)
    weight = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    for delay, mem in ((torch.ones_like(weight), 2.0), (None, torch.linspace(1.0, 2.0, 4, dtype=torch.float64))):
        found = spike_window(times, weight, LIF(mem), max_spikes=3, delay=delay, until=2.0)
        assert found.trains.isinf().all()
        assert not any(x.any() for x in found.state[:3])
        assert not torch.autograd.grad(finite(found.trains).sum() + found.state.voltage.sum(), weight)[0].any()


def test_parts_of_a_batch_with_fewer_inputs(monkeypatch):
    """What is saved for the whole batch is as long as its busiest sample needs, in every part."""
    times, weight = draw(SHAPES[2])
    times[:4, 5:] = INF
    results = []
    for memory in (cpu._TRAIN_MEMORY, 2560):  # then two samples at a time
        monkeypatch.setattr(cpu, "_TRAIN_MEMORY", memory)
        mem = torch.linspace(1.5, 2.5, len(weight), dtype=torch.float64).requires_grad_()
        leaves = [weight.clone().requires_grad_(), mem]
        found = spike_trains(times, leaves[0], LIF(mem, 1.0), max_spikes=130)
        results.append(torch.autograd.grad(finite(found).sum(), leaves))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
