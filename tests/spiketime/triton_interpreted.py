"""The Triton kernels on CPU tensors, by Triton's interpreter: run in a process of its own by ``test_triton``.

The interpreter takes milliseconds for each input of a sample, so that problems are small.
"""

import itertools
import math
import os
from functools import partial

import pytest
import torch
from test_train_kernels import run as run_trains

from firstspike import LIF, deferred, first_spike_time, spike_trains
from firstspike.spiketime.triton import spikes as host

assert os.environ.get("TRITON_INTERPRET") == "1", "these tests are run by test_triton.py"

INF = math.inf
RATIOS = [1.0, 2.0, 0.5, INF, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3, "own"]
DTYPES = {"float64": torch.float64, "float32": torch.float32}
MORE = pytest.mark.exhaustive  # than each value once
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(ratio, samples=3, inputs=9, outputs=5, dtype=torch.float64, seed=0):
    """Tensors and a neuron; with ties, inputs that never arrive, zero weights and silent neurons."""
    times = 2 * draw(samples, inputs, seed=seed)
    times[:, ::3] = (4 * times[:, ::3]).round() / 4
    times[draw(samples, inputs, seed=seed + 1) < 0.15] = INF
    weight = (3 * draw(outputs, inputs, seed=seed + 2) - 1) * 4 / inputs**0.75
    weight[draw(outputs, inputs, seed=seed + 3) < 0.1] = 0
    threshold = 0.3 + draw(outputs, seed=seed + 4)
    taus = (ratio, 1.0)
    if ratio == "own":
        taus = (0.5 + 2 * draw(outputs, seed=seed + 5), 0.5 + draw(outputs, seed=seed + 6))
    given = {"times": times, "weight": weight, "threshold": threshold}
    return {name: x.to(dtype) for name, x in given.items()}, [x.to(dtype) if ratio == "own" else x for x in taus]


def spikes_and_gradients(given, taus, backend, grad=None, **options):
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    tensors = {name: leaves[name] for name in ("times", "weight")}
    lif = LIF(
        *(leaves.get(name, tau) for name, tau in zip(("tau_mem", "tau_syn"), taus, strict=True)), leaves["threshold"]
    )
    spikes = first_spike_time(**tensors, neuron=lif, delay=leaves.get("delay"), backend=backend, **options)
    spikes.backward(torch.where(spikes.isfinite(), spikes.detach(), math.nan) if grad is None else grad)
    return spikes.detach(), {name: x.grad for name, x in leaves.items()}


def agree(found, expected, tolerance):
    for name, x in expected.items():
        torch.testing.assert_close(
            found[name], x, rtol=tolerance, atol=tolerance * (1 + float(x.abs().max())), msg=name
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [INF, 1.37, "own"])
def test_spikes_and_gradients(ratio, dtype):
    """Without gradients by time constants, which other kernels compute; all ratios follow below."""
    dtype = DTYPES[dtype]
    given, taus = problem(ratio, dtype=dtype)
    expected, by = spikes_and_gradients(given, taus, "reference")
    spikes, found = spikes_and_gradients(given, taus, "triton")
    assert torch.equal(spikes.isinf(), expected.isinf())
    assert expected.isfinite().any()
    fires = expected.isfinite()
    torch.testing.assert_close(spikes[fires], expected[fires], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if dtype == torch.float64:  # otherwise rounding of the spikes counts where the membrane is flat
        agree(found, by, 1e-10)
    for bound in (None, 0.5):
        at = {"observed": expected + 0.01, "max_weight_grad": bound}
        agree(
            spikes_and_gradients(given, taus, "triton", **at)[1],
            spikes_and_gradients(given, taus, "reference", **at)[1],
            TOLERANCE[dtype],
        )


@pytest.mark.parametrize(
    ("ratio", "delayed"),
    [
        (1.37, False),
        pytest.param(INF, False, marks=MORE),
        pytest.param("own", False, marks=MORE),
        pytest.param(0.3, True, marks=MORE),
        ("own", True),
    ],
)
def test_in_blocks_of_inputs(ratio, delayed):
    """Blocks in which nobody spikes, in which some do, and what is left of a block at the end."""
    given, taus = problem(ratio, samples=2, inputs=40, outputs=5)
    given["weight"][1] *= 0.2
    given["weight"][2] += 0.2
    given |= {"delay": draw(5, 40, seed=8)} if delayed else {}
    expected, by = spikes_and_gradients(given, taus, "reference")
    for observed in (None, expected + 0.01):
        spikes, found = spikes_and_gradients(given, taus, "triton", observed=observed)
        by = spikes_and_gradients(given, taus, "reference", observed=observed)[1]
        torch.testing.assert_close(spikes, expected if observed is None else observed, rtol=1e-12, atol=1e-12)
        agree(found, by, 1e-12)


# samples, inputs, times of each, neurons, span, largest weight; a ratio; what else
TRAINS = {
    "blocks of windows": ((1, 20, 2, 5, 3.0, 0.8), 2.0, {"windows": True, "refractory": 0.3}),
    "bound": ((1, 6, 3, 3, 4.0, 2.5), 0.5, {"windows": True, "refractory": 0.4, "bound": 0.2}),
    "no leak": ((1, 6, 3, 3, 4.0, 2.5), INF, {"windows": True}),
    "burst": ((1, 1, 5, 1, 3.0, 8.0), 1.37, {}),
}


@pytest.mark.parametrize("kind", TRAINS)
def test_trains(kind):
    shape, ratio, options = TRAINS[kind]
    expected, by = run_trains(shape, LIF(ratio), "reference", **options)
    found, gradients = run_trains(shape, LIF(ratio), "triton", **options)
    assert (expected < INF).sum() > len(expected)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients, by, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11 * other.abs().max().item())


@pytest.mark.parametrize("windows", [False, True])
def test_observed_trains(windows):
    """Ideal ones with some moved, some of them to where the membrane falls, or the neuron is refractory."""
    shape, neuron = (2, 6, 3, 3, 4.0, 2.5), LIF(2.0)
    ideal, _ = run_trains(shape, neuron, "cpu", refractory=0.3)
    moved = ideal + 0.05 * draw(*ideal.shape, seed=2)
    observed = torch.cat([moved[..., ::3], moved[..., 1:4]], -1).sort(-1).values
    observed[0, 0, 0] = 0.11  # maybe before any input
    observed = observed.sort(-1).values[..., : int((observed < INF).sum(-1).max())]
    results = [
        run_trains(shape, neuron, backend, windows, observed=observed, refractory=0.3)
        for backend in ("triton", "reference")
    ]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11 * other.abs().max().item())


@pytest.mark.parametrize("size", [2, 40])
def test_trains_of_neurons_with_constants_of_their_own(size):
    """And those that would spike more often than there is room for."""
    generator = torch.Generator().manual_seed(3)
    times = 3 * torch.rand(1, 9, 2, generator=generator, dtype=torch.float64)
    weight = (torch.rand(4, 9, generator=generator, dtype=torch.float64) - 0.2).requires_grad_()
    neuron = LIF(1 + draw(4, seed=1), 0.5 + draw(4, seed=2), 0.4 + draw(4, seed=3))
    options = {"max_spikes": size, "overflow": "drop"}
    results = []
    for backend, learns in itertools.product(("triton", "reference"), (False, True)):
        rest = torch.tensor(0.05, dtype=torch.float64, requires_grad=learns)
        leaves = times.clone().requires_grad_(), weight, *([rest] if learns else [])
        trains = spike_trains(leaves[0], weight, neuron.with_values(refractory=rest), backend=backend, **options)
        results.append((trains, *torch.autograd.grad(torch.where(trains < INF, trains, 0.0).sin().sum(), leaves)))
    for k in range(2):
        for one, other in zip(results[k], results[2 + k], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("refractory", [0.0, 0.3])
def test_trains_against_the_exact_times(refractory, exact):
    times, weight = 3 * draw(1, 6, 3, seed=4), 2.5 * (draw(2, 6, seed=5) - 0.25)
    times[0, 1] = times[0, 0]
    found = spike_trains(times, weight, LIF(2.0, 1.0, 0.6, refractory=refractory), max_spikes=40, backend="triton")
    for row, train in zip(weight, found[0], strict=True):
        events = times.flatten().tolist(), row.repeat_interleave(3).tolist()
        spikes, _ = exact.spike_train(*events, 2.0, 1.0, 0.6, refractory=refractory, reset=0.0)
        truth = torch.tensor([float(x) for x in spikes], dtype=torch.float64)
        torch.testing.assert_close(train[train < INF], truth, rtol=1e-12, atol=1e-12)


SHAPES = [(1, 1, 1), (1, 63, 1), (2, 2, 65), (1, 3, 130), (0, 3, 2), (3, 0, 2), (3, 2, 0)]


@pytest.mark.parametrize(
    ("shape", "delayed"),
    [
        pytest.param(shape, delayed, marks=[MORE] * (delayed != k % 2))
        for k, shape in enumerate(SHAPES)
        for delayed in (False, True)
    ],
)
def test_awkward_shapes(shape, delayed):
    given, taus = problem(1.37, *shape)
    given["weight"] = given["weight"] + 1
    given |= {"delay": draw(*given["weight"].shape, seed=8)} if delayed else {}
    expected, by = spikes_and_gradients(given, taus, "reference")
    spikes, found = spikes_and_gradients(given, taus, "triton")
    torch.testing.assert_close(spikes, expected, rtol=1e-12, atol=1e-12)
    agree({n: x for n, x in found.items() if x.numel()}, {n: x for n, x in by.items() if x.numel()}, 1e-10)


TAUS = [(1.0, False), (2.0, True), (INF, False), (INF, True), ("own", False)]


@pytest.mark.parametrize(
    ("kind", "ratio", "delayed"),
    [
        pytest.param(kind, *taus, marks=[MORE] * ((j + k) % 3 > 0))
        for j, kind in enumerate(["silent inputs", "no weights", "all at once", "late"])
        for k, taus in enumerate(TAUS)
    ],
)
def test_silence_and_ties(kind, ratio, delayed):
    given, taus = problem(ratio, samples=2)
    given |= {"delay": torch.full_like(given["weight"], 0.25)} if delayed else {}
    if kind == "silent inputs":
        given["times"][:] = INF
    elif kind == "no weights":
        given["weight"][:] = 0
    elif kind == "all at once":
        given["times"][:], given["weight"][:] = 0.5, 0.4
    else:
        given["times"] += 1e4
    expected, by = spikes_and_gradients(given, taus, "reference")
    spikes, found = spikes_and_gradients(given, taus, "triton")
    assert expected.isfinite().any() == (kind in ("all at once", "late"))
    torch.testing.assert_close(spikes, expected, rtol=1e-12, atol=1e-12)
    agree(found, by, 1e-7 if kind == "late" else 1e-10)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, INF, 1.37, 100.0])
def test_a_peak_between_inhibitory_inputs(ratio):
    """V peaks above the threshold between two inputs and is below it at both."""
    alone = first_spike_time(
        torch.zeros(1, 1).double(), torch.ones(1, 1).double(), LIF(ratio, 1.0, 0.1), backend="reference"
    )
    reach = alone.item()
    given = {"times": [[0.0, reach * 1.05, reach * 1.06]], "weight": [[1.0, -30.0, -30.0]], "threshold": [0.1]}
    given = {name: torch.tensor(x, dtype=torch.float64) for name, x in given.items()}
    spikes, found = spikes_and_gradients(given, (ratio, 1.0), "triton")
    assert spikes.item() == pytest.approx(reach, rel=1e-12)
    assert found["weight"][0, 0] < 0
    assert not found["weight"][0, 1:].any()
    assert not found["times"][0, 1:].any()


@pytest.mark.parametrize(
    ("ratio", "delayed"), [(1.0, True), (2.0, False), (0.5, True), (INF, False), (1.37, True), (10.0, False)]
)
def test_against_the_exact_times(ratio, delayed, exact):
    given, taus = problem(ratio, samples=2, inputs=6, outputs=4, seed=20)
    times, weight, lif = given["times"], given["weight"], LIF(*taus, 0.5)
    delay = draw(4, 6, seed=21) * delayed
    spikes = first_spike_time(times, weight, lif, delay=delay if delayed else None, backend="triton")
    rows = zip(delay, weight.split(1), strict=True)
    truth = torch.cat([exact.spikes(times + own, w, lif) for own, w in rows], dim=1)
    assert truth.isfinite().any()
    torch.testing.assert_close(spikes, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("margin", [1e-9, -1e-9])
def test_grazing(margin):
    """The height of the only peak is e**-1 for equal time constants."""
    lif = LIF(1.0, 1.0, math.exp(-1) * (1 - margin))
    spike = first_spike_time(torch.zeros(1, 1).double(), torch.ones(1, 1).double(), lif, backend="triton")
    assert bool(spike.isfinite()) is (margin > 0)
    if margin > 0:
        assert spike.item() == pytest.approx(1, abs=2 * math.sqrt(2 * margin))


def test_a_spike_is_after_its_last_causal_input():
    times, weight = torch.tensor([[1e4, 2e4]]), torch.tensor([[1e6, 1.0]], requires_grad=True)
    spike = first_spike_time(times, weight, LIF(1.0, 1.0, 1e-6), backend="triton")
    assert spike.item() == torch.nextafter(torch.tensor(1e4), torch.tensor(INF)).item()


@pytest.mark.parametrize("taus", ["shared", "of networks", "own"])
def test_ensembles(taus):
    given, _ = problem(1.37, samples=2, inputs=5, outputs=3)
    weight = torch.stack([given["weight"] + 1, 1.1 * given["weight"] + 1])
    mem = {"shared": None, "of networks": torch.tensor([[1.5], [2.5]]).double(), "own": 1 + draw(2, 3, seed=9)}[taus]

    def run(backend):
        def loss(weight, mem):
            lif = LIF(1.5 if mem is None else mem, 1.0, 0.6)
            spikes = first_spike_time(given["times"], weight, lif, backend=backend)
            return torch.where(spikes.isfinite(), spikes, 0.0).square().sum()

        if mem is None:
            return (torch.func.vmap(torch.func.grad(lambda w: loss(w, None)))(weight),)
        return torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(weight, mem)

    for found, expected in zip(run("triton"), run("reference"), strict=True):
        assert expected.any()
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# each ratio in both dtypes, with and without delays; with few of them all four
PAIRS = [
    (ratio, delayed, list(DTYPES)[(k + delayed) % 2]) for k, ratio in enumerate(RATIOS) for delayed in (False, True)
]
ALL = [(ratio, delayed, dtype) for ratio in (INF, "own") for delayed in (False, True) for dtype in DTYPES]


@pytest.mark.parametrize(("ratio", "delayed", "dtype"), dict.fromkeys(PAIRS + ALL))
def test_delays_and_time_constants(ratio, delayed, dtype):
    """Gradients by all parameters, with time constants that all neurons share and with those of each."""
    dtype = DTYPES[dtype]
    given, taus = problem(ratio, samples=2, outputs=4, dtype=dtype)
    shape = (4,) if ratio == "own" else ()
    given |= {
        name: torch.as_tensor(tau, dtype=dtype).expand(shape).clone()
        for name, tau in zip(("tau_mem", "tau_syn"), taus, strict=True)
        if ratio != INF or name == "tau_syn"
    }
    if delayed:
        given["delay"] = (4 * draw(4, 9, seed=7).to(dtype)).round() / 4
    expected, by = spikes_and_gradients(given, taus, "reference")
    spikes, found = spikes_and_gradients(given, taus, "triton")
    fires = expected.isfinite()
    assert fires.any()
    assert torch.equal(spikes.isfinite(), fires)
    torch.testing.assert_close(spikes[fires], expected[fires], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if dtype == torch.float64:
        agree(found, by, 1e-10)
    for bound in (None, 0.5):
        at = {"observed": expected + 0.01, "max_weight_grad": bound}
        agree(
            spikes_and_gradients(given, taus, "triton", **at)[1],
            spikes_and_gradients(given, taus, "reference", **at)[1],
            TOLERANCE[dtype],
        )


@pytest.mark.parametrize(
    ("kind", "delayed", "unit"),
    [
        pytest.param(kind, delayed, unit, marks=[MORE] * ((delayed, unit > 1) != (k % 2, k // 2)))
        for k, kind in enumerate(["shared", "of networks", "own", "no leak"])
        for delayed in (False, True)
        for unit in (1.0, 1e6)
    ],
)
def test_time_constants_that_are_not_read(kind, delayed, unit, monkeypatch):
    """As on a GPU, where tensors stay tensors, also of networks side by side."""
    given, _ = problem(1.37, samples=2, inputs=5, outputs=3)
    weight = torch.stack([given["weight"] + 1, 1.1 * given["weight"] + 1])
    delay = unit * draw(3, 5, seed=7) if delayed else None
    shape = {"shared": (1,), "of networks": (2, 1), "own": (2, 3), "no leak": (2, 1)}[kind]
    taus = unit * (1 + draw(*shape, seed=9)), unit * (0.5 + draw(*shape, seed=10))
    taus = taus[1:] if kind == "no leak" else taus
    dims = (0, *(0 if len(tau) == 2 else None for tau in taus))

    def run(backend):
        def loss(weight, *taus):
            lif = LIF(*(INF, *taus)[-2:], 0.6)
            spikes = first_spike_time(unit * given["times"], weight, lif, delay=delay, backend=backend)
            return torch.where(spikes.isfinite(), spikes / unit, 0.0).square().sum()

        return torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(len(dims)))), in_dims=dims)(weight, *taus)

    expected = run("reference")
    monkeypatch.setattr(deferred, "_HOSTS", frozenset())
    found = run("triton")
    deferred.raise_deferred_errors()
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11 * float(other.abs().max()))


def test_inputs_with_delays_are_sorted_in_parts(monkeypatch):
    """For some samples at a time, with the same bits as all at once."""
    given, taus = problem(1.37)
    weight, delay = torch.stack([given["weight"], 1.1 * given["weight"]]), draw(2, 5, 9, seed=7)
    run = torch.func.vmap(lambda w, d: first_spike_time(given["times"], w, LIF(*taus, 0.4), delay=d, backend="triton"))
    whole = run(weight, delay)
    sizes = []
    monkeypatch.setattr(host, "_MEMORY", 1)
    monkeypatch.setattr(
        host, "Problem", partial(lambda of, given: sizes.append(given.weight.shape) or of(given), host.Problem)
    )
    assert torch.equal(run(weight, delay), whole)
    assert whole.isfinite().any()
    assert len(sizes) > 2


def test_the_same_bits_again():
    given, taus = problem(1.37)
    once, again = (spikes_and_gradients(given, taus, "triton") for _ in range(2))
    assert torch.equal(once[0], again[0])
    assert all(torch.equal(x, again[1][name]) for name, x in once[1].items())
