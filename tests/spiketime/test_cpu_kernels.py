"""The CPU kernels against the reference, and what only kernels can get wrong: memory, threads, strides."""

import math
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from firstspike.spiketime import reference
from firstspike.spiketime.backends import BACKENDS
from firstspike.spiketime.contract import QUANTITIES, Arguments, Backend, Constants, Grads, Needs, Result
from firstspike.spiketime.cpu import backward, forward, supports
from firstspike.spiketime.cpu.runtime import parallel
from firstspike.spiketime.function import Options, Spikes

RATIOS = [1.0, 2.0, 0.5, 1.37, 0.3, 10.0, 100.0, 1 + 1e-9, math.inf]
ALL = Needs(("times", "weight", "threshold", "delay", "tau_mem", "tau_syn"))
DTYPES = [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64]
TIGHT = {torch.float32: 1e-4, torch.float64: 1e-9}


@dataclass
class Problem:
    times: Tensor
    weight: Tensor
    threshold: Tensor
    delay: Tensor | None
    constants: Constants

    def doubled(self) -> "Problem":
        tensors = (self.times, self.weight, self.threshold)
        return Problem(
            *(x.double() for x in tensors), None if self.delay is None else self.delay.double(), self.constants
        )

    def reference(self, factor=1.0):
        exact = self.doubled()
        return reference.forward(exact.arguments()._replace(threshold=exact.threshold * factor)).spikes

    def arguments(self):
        return Arguments(self.times, self.weight, self.delay, *self.constants, self.threshold)

    def forward(self):
        return forward(self.arguments())[:2]

    def backward(self, grad, spikes, saved, bound=None, needs=ALL):
        return backward(Grads(grad), Result(spikes, saved), self.arguments(), bound, needs)

    def sound(self):
        """Neurons whose spike is neither almost missed nor almost there, and moves little with the threshold."""
        margin = 1e-3 if self.times.dtype == torch.float32 else 1e-6
        early, late = self.reference(1 - margin), self.reference(1 + margin)
        steady = (late - early).abs() <= 100 * margin * self.constants.tau_syn
        return (early.isinf() & late.isinf()) | steady


def problem(
    seed=0,
    shape=(6, 20, 5),
    ratio=1.0,
    dtype=torch.float64,
    span=2.0,
    tau=1.0,
    scale=1.0,
    delayed=False,
    ties=False,
    silent=0.1,
    ensemble=1,
    offset=0.0,
    drive=4.0,
):
    batch, inputs, outputs = shape
    gen = torch.Generator().manual_seed(seed)

    def rand(*size):
        return torch.rand(size, generator=gen, dtype=torch.float64)

    times = rand(ensemble, batch, inputs) * span * tau
    if ties:
        times = (times / (span * tau) * 4).round() / 4 * span * tau
    times = torch.where(rand(*times.shape) < silent, torch.tensor(math.inf, dtype=torch.float64), times + offset)
    weight = (rand(ensemble, outputs, inputs) * 3 - 1) * drive / max(inputs, 1) ** 0.75 * scale
    weight = torch.where(rand(*weight.shape) < 0.1, torch.zeros_like(weight), weight)
    threshold = (rand(ensemble, outputs) + 0.5) * scale
    delay = rand(ensemble, outputs, inputs) * tau if delayed else None
    if delay is not None and ties:
        delay = (delay / tau * 2).round() / 2 * tau
    tensors = (x if x is None else x.to(dtype) for x in (times, weight, threshold, delay))
    return Problem(*tensors, Constants(ratio * tau, tau))


def compare(given: Problem, *, bound=None, observed=False, seed=0):
    """Forward and all gradients against the reference in float64."""
    inputs = tuple(x for x in (given.times, given.weight, given.threshold, given.delay) if x is not None)
    copies = tuple(x.clone() for x in inputs)
    tolerance = TIGHT[given.times.dtype]
    sound = given.sound()
    spikes, saved = given.forward()
    truth = given.reference()
    assert spikes.dtype == given.times.dtype
    assert not spikes.isnan().any()
    assert torch.equal(spikes.isinf()[sound], truth.isinf()[sound])
    fires = sound & ~truth.isinf()
    unit = given.constants.tau_syn + truth[fires].abs()
    assert ((spikes.double()[fires] - truth[fires]).abs() <= 100 * tolerance * unit).all()
    if observed:
        gen = torch.Generator().manual_seed(seed)
        spikes, saved = spikes + torch.rand(spikes.shape, generator=gen, dtype=spikes.dtype) * 0.3, ()
    grad = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=spikes.dtype)
    slope = slopes_at(given.doubled(), spikes.double())
    # a slope next to 0 has no digits left, and its sign decides
    grad = torch.where(sound & ((slope.abs() > 1e-2) | slope.isnan()), grad, torch.zeros_like(grad))
    if observed:
        saved = ()
    found = given.backward(grad, spikes, saved, bound)
    needs = ALL if given.delay is not None else ALL - {"delay"}
    wanted = reference.backward(
        Grads(grad.double()), Result(spikes.double()), given.doubled().arguments(), bound, needs
    )
    assert wanted.keys() == needs
    assert wanted.keys() <= found.keys()
    for name, theirs in wanted.items():
        mine = found[name]
        assert mine.shape == theirs.shape
        assert mine.dtype == given.times.dtype
        top = theirs.abs().max().item() if theirs.numel() else 0.0
        limit = (1000 if given.times.dtype == torch.float32 else 100) * tolerance
        assert (mine.double() - theirs).abs().max().item() <= limit * top if theirs.numel() else True
    assert all(torch.equal(x, y) for x, y in zip(inputs, copies, strict=True))


def slopes_at(given: Problem, spikes: Tensor) -> Tensor:
    """``V'(T)`` in units of threshold / tau_syn; NaN where the neuron is silent."""
    arrival = given.times[:, :, None] + (0 if given.delay is None else given.delay[:, None])
    elapsed = spikes[..., None] - arrival
    decay = torch.where(elapsed > 0, torch.exp(-elapsed / given.constants.tau_syn), torch.zeros_like(elapsed))
    drive = (torch.nan_to_num(decay) * given.weight[:, None]).sum(-1) / given.threshold[:, None]
    return torch.where(
        spikes.isinf(), torch.full_like(drive, math.nan), drive - given.constants.tau_syn / given.constants.tau_mem
    )


@pytest.mark.slow
@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 20),
    inputs=st.sampled_from([1, 2, 5, 16, 17, 33, 60, 130]),
    outputs=st.sampled_from([1, 3, 63, 64, 65, 130]),
    ratio=st.sampled_from(RATIOS),
    double=st.booleans(),
    span=st.sampled_from([0.1, 2.0, 50.0]),
    tau=st.sampled_from([1e-3, 1.0, 100.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    ties=st.booleans(),
    silent=st.sampled_from([0.0, 0.3, 1.0]),
    delayed=st.booleans(),
    observed=st.booleans(),
    bound=st.sampled_from([None, 0.2]),
    ensemble=st.integers(1, 3),
)
def test_forward_backward_random_problems_agree_with_reference(
    seed, batch, inputs, outputs, ratio, double, span, tau, scale, ties, silent, delayed, observed, bound, ensemble
):
    shape = (batch, inputs, outputs) if not delayed else (min(batch, 4), min(inputs, 33), min(outputs, 65))
    dtype = torch.float64 if double else torch.float32
    made = problem(seed, shape, ratio, dtype, span, tau, scale, delayed, ties, silent, ensemble)
    # a gradient right at the bound may fall on either side of it: take one that lies between two
    compare(made, bound=None if bound is None else bound * 1.2345 / scale * tau, observed=observed, seed=seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_forward_backward_every_ratio_dense_inputs(ratio, dtype):
    compare(problem(3, (2, 130, 66), ratio, dtype, drive=6.0))


@pytest.mark.slow
@pytest.mark.parametrize(("ties", "span"), [(False, 0.2), (False, 1.5), (True, 1.5), (False, 20.0)])
@pytest.mark.parametrize("inputs", [63, 64, 65, 129, 130, 161, 300])
def test_forward_backward_numbers_of_inputs_at_which_the_scan_changes(inputs, ties, span):
    compare(problem(inputs, (2, inputs, 40), 1.37, torch.float32, span, silent=0.0, ties=ties, drive=2.0 / span + 2))


@pytest.mark.slow
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("inputs", [20, 130])
def test_backward_samples_and_networks_without_a_gradient_have_none(inputs, delayed, observed):
    given = problem(8, (40, inputs, 70), 2.0, ensemble=3, delayed=delayed)
    spikes, saved = given.forward()
    if observed:
        spikes, saved = spikes + 0.1, ()
    gen = torch.Generator().manual_seed(1)
    asks = torch.rand((3, 40, 1), generator=gen) < 0.5
    asks[1] = False
    grad = torch.where(asks, torch.randn(spikes.shape, generator=gen, dtype=spikes.dtype), 0.0)
    found = given.backward(grad, spikes, saved)
    needs = ALL if delayed else ALL - {"delay"}
    wanted = reference.backward(Grads(grad), Result(spikes), given.arguments(), None, needs)
    for name, theirs in wanted.items():
        torch.testing.assert_close(found[name], theirs, rtol=1e-7, atol=1e-9 * theirs.abs().max().item())
    assert not found["times"][~asks.expand_as(given.times)].any()
    assert not found["weight"][1].any()
    assert found["weight"][0].any()


@pytest.mark.parametrize("ratio", [1.0, 1.37, math.inf])
@pytest.mark.parametrize("delayed", [False, True])
def test_forward_backward_late_times(ratio, delayed):
    compare(problem(4, (5, 30, 20), ratio, offset=1e4, delayed=delayed))


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)])
@pytest.mark.parametrize("delayed", [False, True])
def test_forward_backward_empty_shapes(shape, delayed):
    made = problem(0, shape, delayed=delayed)
    spikes, saved = made.forward()
    assert spikes.isinf().all()
    found = made.backward(torch.zeros_like(spikes), spikes, saved, needs=ALL)
    for name in ("times", "weight", "threshold", *["delay"] * delayed):
        assert found[name].shape == getattr(made, name).shape
        assert not found[name].any()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_crossing_between_inhibitory_inputs(ratio, dtype):
    """V peaks above the threshold between two inputs and is below it at both."""
    time, weight, threshold = (torch.tensor(x, dtype=torch.float64) for x in ([[[0.0]]], [[[1.0]]], [[0.1]]))
    reach = reference.forward(Arguments(time, weight, None, ratio, 1.0, threshold)).spikes.item()
    assert math.isfinite(reach)
    for filler in (0, 130):  # few inputs, and many that take the fast scan
        times = torch.tensor([[[0.0, reach * 1.05, reach * 1.06, *torch.linspace(0, reach, filler).tolist()]]])
        weight = torch.tensor([[[1.0, -30.0, -30.0, *[0.0] * filler]]])
        threshold = torch.tensor([[0.1]], dtype=dtype)
        made = Problem(times.to(dtype), weight.to(dtype), threshold, None, Constants(ratio, 1.0))
        compare(made)
        assert made.forward()[0].item() == pytest.approx(reach, rel=1e-5)


@pytest.mark.parametrize("many", [False, True])
def test_forward_grazing_peaks(many):
    """A threshold just below and just above the peak of V, found to float64's digits."""
    times = torch.linspace(0, 1, 200 if many else 3, dtype=torch.float64)[None, None]
    weight = torch.full((1, 1, times.shape[-1]), 1 / times.shape[-1], dtype=torch.float64)
    center, width = 2.0, 2.0
    for _ in range(4):  # closer and closer around the peak
        grid = torch.linspace(center - width, center + width, 2001, dtype=torch.float64)
        elapsed = (grid[:, None] - times[0, 0]).clamp(min=0)
        height, place = (weight[0, 0] * elapsed * torch.exp(-elapsed)).sum(-1).max(0)
        center, width = grid[place].item(), width / 500
    for factor, fires in ((1 - 1e-11, True), (1 + 1e-11, False)):
        given = Arguments(times, weight, None, 1.0, 1.0, (height * factor).reshape(1, 1))
        found = forward(given)
        assert math.isfinite(found.spikes.item()) is fires
        gradient = backward(Grads(torch.ones_like(found.spikes)), found, given, None, ALL)
        assert torch.isfinite(gradient["weight"]).all()
        assert bool(gradient["weight"].any()) is fires


@pytest.mark.slow
def test_forward_spike_is_after_its_last_causal_input():
    """A huge weight fires at once: still T > t, so that the input counts as causal, and the gradient knows it."""
    times = torch.tensor([[[1e4, 2e4]]])
    weight, threshold = torch.tensor([[[1e6, 1.0]]]), torch.tensor([[1e-6]])
    given = Arguments(times, weight, None, 1.0, 1.0, threshold)
    found = forward(given)
    spikes = found.spikes
    assert spikes.item() == np.nextafter(np.float32(1e4), np.float32(math.inf))
    gradient = backward(Grads(spikes), found, given, None, ALL)
    assert gradient["times"].tolist() == [[[pytest.approx(spikes.item(), rel=1e-2), 0.0]]]


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("observed", [False, True])
def test_backward_needs_only_what_is_asked_for(delayed, observed):
    made = problem(5, (10, 70, 70), delayed=delayed)
    spikes, saved = made.forward()
    saved = () if observed else saved
    grad = torch.ones_like(spikes)
    everything = made.backward(grad, spikes, saved, 0.3)
    for name in ALL if delayed else ALL - {"delay"}:
        mine, full = made.backward(grad, spikes, saved, 0.3, Needs((name,)))[name], everything[name]
        # sums over neurons, whose slopes next to a peak differ in their last digits
        torch.testing.assert_close(mine, full, rtol=1e-12, atol=1e-13 * float(full.abs().max()))


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_backward_same_bits_for_any_number_of_threads(dtype, delayed):
    made = problem(6, (100, 90, 200) if not delayed else (40, 40, 70), 1.37, dtype, delayed=delayed)
    runs, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            spikes, saved = made.forward()
            runs.append({"spikes": spikes} | made.backward(torch.ones_like(spikes), spikes, saved, 0.3))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert run.keys() == runs[0].keys()
        assert all(torch.equal(x, run[name]) for name, x in runs[0].items())


def test_forward_backward_without_openmp(monkeypatch):
    made = problem(6, (100, 90, 200))
    wanted = made.forward()[0]
    monkeypatch.setattr(parallel, "_openmp", lambda: None)
    assert torch.equal(made.forward()[0], wanted)


@pytest.mark.parametrize("delayed", [False, True])
def test_forward_backward_any_strides(delayed):
    made = problem(7, (8, 24, 70), delayed=delayed, ensemble=2)
    spikes, saved = made.forward()
    grad = torch.randn(spikes.shape, dtype=spikes.dtype)
    wanted = made.backward(grad, spikes, saved)

    def twisted(x):
        return x if x is None else x.movedim(0, -1).contiguous().movedim(-1, 0)

    other = Problem(*(twisted(x) for x in (made.times, made.weight, made.threshold, made.delay)), made.constants)
    assert not other.times.is_contiguous()
    found, saved = other.forward()
    assert torch.equal(found, spikes)
    again = other.backward(twisted(grad), twisted(spikes), saved)
    assert again.keys() == wanted.keys()
    assert all(torch.equal(x, wanted[name]) for name, x in again.items())
    expanded = made.backward(torch.ones((), dtype=spikes.dtype).expand_as(spikes), spikes, saved)
    assert torch.equal(expanded["weight"], made.backward(torch.ones_like(spikes), spikes, saved)["weight"])


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silent", [0.1, 1.0])
def test_forward_backward_never_read_uninitialised_memory(dtype, delayed, silent):
    made = problem(8, (10, 70, 70), 2.0, dtype, delayed=delayed, silent=silent)
    compare(made)


def test_forward_backward_from_several_python_threads():
    made = [problem(seed, (60, 90, 100)) for seed in range(4)]

    def both(one):
        spikes, saved = one.forward()
        found = made[0].backward(torch.ones_like(spikes), spikes, saved)
        return (spikes, *(found[name] for name in ("times", "weight", "threshold")))

    wanted, found = [both(one) for one in made], [[] for _ in made]

    def work(index):
        for _ in range(5):
            found[index].append(both(made[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, results in zip(wanted, found, strict=True):
        assert len(results) == 5
        assert all(torch.equal(x, y) for result in results for x, y in zip(mine, result, strict=True))


def test_backward_vmap_over_networks(monkeypatch):
    made = problem(9, (6, 20, 30), ensemble=3)
    monkeypatch.setitem(BACKENDS, "unchecked", lambda: Backend(forward, backward, supports))
    options = Options("unchecked", *made.constants, None)

    def loss(weight, times, threshold):
        given = {"times": times[None], "weight": weight[None], "threshold": threshold[None]}
        spikes = Spikes.apply(*(given.get(name) for name in QUANTITIES), options)[0]
        return torch.where(spikes.isinf(), torch.zeros_like(spikes), spikes).sum()

    found = torch.func.vmap(torch.func.grad(loss))(made.weight, made.times, made.threshold)
    for e in range(3):
        one = torch.func.grad(loss)(made.weight[e], made.times[e], made.threshold[e])
        assert torch.allclose(found[e], one, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_import_compiles_nothing():
    code = (
        "import sys, firstspike; assert 'numba' not in sys.modules\n"
        "import firstspike.spiketime.cpu, firstspike.spiketime.cpu.rows.forward as scan\n"
        "assert not scan.scan_tile.signatures and not scan.forward_kernel.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
