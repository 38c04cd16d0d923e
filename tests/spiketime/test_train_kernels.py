"""The CPU kernels of spike trains against ``reference``: shapes that meet all their paths, states, bounds, threads."""

import math
import os
import subprocess
import sys

import pytest
import torch

from firstspike import LIF, spike_trains
from firstspike.spiketime import TrainState, cpu, spike_window
from firstspike.spiketime.cpu.rows import host as rows_host

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf
# samples, inputs, times of each, neurons, span, largest weight: few and long intervals, many short ones, segments,
# and last bursts, also within intervals
SHAPES = [
    (3, 6, 3, 5, 4.0, 2.5),
    (2, 60, 2, 70, 3.0, 0.3),
    (1, 400, 1, 130, 2.0, 0.06),
    (17, 70, 1, 63, 40.0, 2.5),
    (1, 1, 5, 1, 3.0, 8.0),
    (1, 90, 1, 66, 2.0, 2.5),
]


def draw(shape, dtype=torch.float64, delays=False):
    """Times and weights, and delays: with ties, inputs that never arrive, inhibition, and a neuron without."""
    samples, inputs, copies, outputs, span, size = shape
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(samples, inputs, copies, generator=generator, dtype=torch.float64) * span
    times[0, 0, 0] = INF
    times[-1, -1] = times[-1, 0]
    weight = (torch.rand(outputs, inputs, generator=generator, dtype=torch.float64) - 0.25) * size
    weight[0] = weight[0].abs()
    delay = torch.rand(outputs, inputs, generator=generator, dtype=torch.float64)
    delay[:, -1] = delay[:, 0]
    return [x.to(dtype) for x in ((times, weight, delay) if delays else (times, weight))]


def finite(x):
    return torch.where(x < INF, x, 0.0)


def run(shape, neuron, backend, windows=False, bound=None, dtype=torch.float64, refractory=0.0, observed=None):
    """Trains and gradients; ``refractory`` is up to that, other for each neuron."""
    times, weight = (x.requires_grad_() for x in draw(shape, dtype))
    threshold = torch.linspace(0.8, 1.2, len(weight), dtype=dtype).requires_grad_()
    refractory = torch.linspace(0.0, refractory, len(weight), dtype=dtype)
    reset = torch.full((len(weight),), -0.1, dtype=dtype).requires_grad_()
    neuron = LIF(neuron.tau_mem, neuron.tau_syn, threshold, reset, refractory)
    state, leaves, ends = None, [times, weight, threshold, reset], (INF,)
    if windows:
        generator = torch.Generator().manual_seed(1)
        shape = (len(times), len(weight))
        start = [torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) * 0.7 for _ in range(2)]
        leaves += [x.requires_grad_() for x in start]
        state, ends = TrainState(*start, torch.zeros(shape, dtype=dtype), 0.1), (0.8, 1.7, INF)
    parts = []
    for until in ends:
        seen = None
        if observed is not None:
            seen = torch.where((observed > (parts[-1][1] if parts else 0.1)) & (observed <= until), observed, INF)
            seen = seen.sort(-1).values if windows else observed
        part, state, overflows = spike_window(
            times, weight, neuron, max_spikes=130 if seen is None else seen.shape[-1], state=state,
            until=until, max_weight_grad=bound, observed=seen, backend=backend,
        )  # fmt: skip
        assert not overflows.any()
        parts.append((part, until))
    trains = torch.cat([part for part, _ in parts], -1)
    grads = torch.autograd.grad(finite(trains).sin().sum(), leaves)
    return trains.detach(), grads


def covering(*values):
    """Combinations that have each value of the first two together, and the others in turn."""
    first, second, *rest = values
    pairs = [(k, x, n, y) for k, x in enumerate(first) for n, y in enumerate(second)]
    return [(x, y, *(of[(k + (n >> place)) % len(of)] for place, of in enumerate(rest))) for k, x, n, y in pairs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "ratio", "windows", "refractory"),
    [
        *covering(SHAPES[::4], [1.0, 2.0, 0.5, 30.0, INF], [False, True], [0.0, 0.6]),
        *covering(SHAPES[1:4:2], [30.0, 0.5], [False, True], [0.0, 0.6]),
        *covering(SHAPES[2::3], [INF, 2.0], [True, False], [0.0, 0.6]),
    ],
    ids=str,
)
def test_equals_the_reference(shape, ratio, windows, refractory):
    wanted, by = run(shape, LIF(ratio), "reference", windows, refractory=refractory)
    found, gradients = run(shape, LIF(ratio), "cpu", windows, refractory=refractory)
    assert (wanted < INF).sum() > len(wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients, by, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * other.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "windows", "refractory"), covering(SHAPES[:4], [False, True], [0.0, 0.3]), ids=str)
def test_observed_trains(shape, windows, refractory):
    """Ideal ones with some moved, some of them to where the membrane falls or the neuron is refractory."""
    ideal, _ = run(shape, LIF(2.0), "cpu", refractory=refractory)
    generator = torch.Generator().manual_seed(2)
    moved = ideal + 0.05 * torch.rand(ideal.shape, generator=generator, dtype=torch.float64)
    observed = torch.cat([moved[..., ::3], moved[..., 1:4]], -1).sort(-1).values
    observed[0, 0, 0] = 0.11  # maybe before any input
    observed = observed.sort(-1).values
    results = [run(shape, LIF(2.0), x, windows, observed=observed, refractory=refractory) for x in ("cpu", "reference")]
    assert torch.equal(results[0][0], results[1][0])
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * other.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "windows", "refractory"),
    [(SHAPES[0], False, 0.0), (SHAPES[0], True, 0.3), (SHAPES[1], True, 0.0), (SHAPES[2], False, 0.3)],
    ids=str,
)
def test_bounded_weight_gradients(shape, windows, refractory):
    _, wanted = run(shape, LIF(2.0), "reference", windows, bound=0.2, refractory=refractory)
    _, found = run(shape, LIF(2.0), "cpu", windows, bound=0.2, refractory=refractory)
    _, without = run(shape, LIF(2.0), "cpu", windows, refractory=refractory)
    assert not torch.equal(found[1], without[1])
    for k, (one, other, third) in enumerate(zip(found, wanted, without, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * other.abs().max().item())
        if k != 1:
            assert torch.equal(one, third)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1.0, 2.0, INF])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_float32(shape, ratio):
    """As near to float64 as rounding lets single spikes be; gradients of spikes near a tangent differ more."""
    wanted, by = run(shape, LIF(ratio), "cpu")
    found, gradients = run(shape, LIF(ratio), "cpu", dtype=torch.float32)
    assert torch.equal(found < INF, wanted < INF)
    error = (finite(found.double()) - finite(wanted)).abs().flatten()
    assert error.median() < 1e-6
    assert error.max() < 1e-2
    for one, other in zip(gradients, by, strict=True):
        assert torch.nn.functional.cosine_similarity(one.double().flatten(), other.flatten(), 0) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("refractory", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_threads_do_not_matter(shape, refractory, monkeypatch):
    monkeypatch.setattr(rows_host, "is_small", lambda work: False)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(rows_host, "threads_for", lambda work, threads=threads: threads)
        trains, gradients = run(shape, LIF(2.0), "cpu", windows=True, dtype=torch.float32, refractory=refractory)
        results.append((trains, *gradients))
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@pytest.mark.parametrize("windows", [False, True])
def test_in_parts(windows, monkeypatch):
    """Little memory: some samples after the others, with the same gradients up to the order of sums."""
    trains, whole = run(SHAPES[3], LIF(2.0), "cpu", windows)
    monkeypatch.setattr(cpu, "_TRAIN_MEMORY", 1 << 15)
    again, parts = run(SHAPES[3], LIF(2.0), "cpu", windows)
    assert torch.equal(again, trains)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11 * other.abs().max().item())


@pytest.mark.slow
def test_samples_do_not_know_of_each_other():
    times, weight = draw(SHAPES[1], torch.float32)
    whole = spike_trains(times, weight, LIF(2.0), max_spikes=130, backend="cpu")
    alone = torch.stack([spike_trains(x, weight, LIF(2.0), max_spikes=130, backend="cpu") for x in times])
    assert torch.equal(whole, alone)


def test_extreme_weights():
    """A burst after one huge input, and neurons that any input silences."""
    times = torch.tensor([[[0.5], [1.0]]], dtype=torch.float64)
    weight = torch.tensor([[1e4, 0.0], [-1e6, 1e4], [1e3, -1e9], [3.0, 3.0]], dtype=torch.float64)
    for ratio in (1.0, 20.0):
        found, wanted = (
            spike_window(times, weight, LIF(ratio), max_spikes=50, overflow="drop", backend=backend)
            for backend in ("cpu", "reference")
        )
        torch.testing.assert_close(found.trains, wanted.trains, rtol=1e-9, atol=1e-9)
        assert torch.equal(found.overflows, wanted.overflows)
        assert found.overflows[0].tolist() == [True, False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_all_observed_spikes_are_before_the_inputs(backend):
    times, weight = torch.tensor([[[0.5]]], requires_grad=True), torch.ones(1, 1, requires_grad=True)
    observed = torch.tensor([[[0.1, INF]]])
    found = spike_trains(times, weight, LIF(), max_spikes=2, observed=observed, backend=backend)
    for x in torch.autograd.grad(finite(found).sum(), (times, weight)):
        assert torch.equal(x, torch.zeros_like(x))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64])
def test_spikes_that_come_together_stay_in_order(dtype, backend):
    """Weights so large that no float lies between an input and the next spikes."""
    times, weight = torch.tensor([[[0.1], [0.3]]], dtype=dtype), torch.full((1, 2), 1e9, dtype=dtype)
    found = spike_trains(times, weight, LIF(2.0), max_spikes=3, overflow="drop", backend=backend)[0, 0]
    assert bool((found > times[0, 0, 0]).all())
    assert bool((found.diff() > 0).all())


@pytest.mark.exhaustive
def test_without_mask_registers():
    """These tests on kernels for processors without AVX-512, whose tiles have other sizes."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "slow", "-k", "not without_mask_registers", __file__],
        env=os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-2000:]
