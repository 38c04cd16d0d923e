"""Linear neurons: both backends agree in random problems, with closed solutions, and with themselves in pieces."""

import math

import pytest
import torch

from agreement import DOUBLE, Drawn, learnt, results, same
from firstspike import LIF, first_spike_time, spike_trains
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window

INF = math.inf


def neuron_of(draw, outputs):
    """Of any kind, with its number of receptors."""

    def some(low, high):
        return draw.parameter(outputs, low, high)

    receptors = draw.whole(1, 3)
    given = {"tau_mem": some(0.5, 3.0), "tau_syn": tuple(some(0.3, 2.0) for _ in range(receptors))}
    given["threshold"] = some(0.6, 1.2)
    if draw.chance(0.2):
        given["tau_mem"] = INF
    if draw.chance(0.7):
        given["reset"] = some(-0.5, 0.3)
    if draw.chance(0.5):
        given["refractory"] = draw.uniform(high=0.4).requires_grad_()
    if draw.chance(0.3):
        given["tau_rise"] = tuple(some(0.2, 1.0) if draw.chance(0.7) else 0.0 for _ in range(receptors))
    if draw.chance(0.2):
        given["tau_rise"] = given["tau_syn"]
    if draw.chance(0.4) and given["tau_mem"] is not INF:
        given["bias"] = some(-0.5, 1.3)
    if draw.chance(0.5):
        return LIF(**given), receptors
    given["adaptation"] = [(some(0.5, 5.0), some(-0.1, 0.5)) for _ in range(draw.whole(0, 2))]
    given["threshold_adaptation"] = [(some(0.5, 5.0), some(0.0, 0.5)) for _ in range(draw.whole(0, 2))]
    if draw.chance(0.3):
        given |= {"reset": None, "refractory": draw.uniform(low=0.1, high=0.4).requires_grad_()}
    return AdaptiveLIF(**given), receptors


def problem_of(seed):
    """Leaves, whether first spikes are asked for, and a function of leaves, backend, and observed spikes."""
    draw = Drawn(seed)
    samples, inputs, copies, outputs = draw.whole(1, 4), draw.whole(1, 8), draw.whole(1, 3), draw.whole(1, 5)
    neuron, receptors = neuron_of(draw, outputs)
    times = draw.uniform(samples, inputs, copies, high=4.0)
    if draw.chance(0.3):
        times[draw.uniform(*times.shape) < 0.3] = INF
    if draw.chance(0.2):
        times = (2 * times).round() / 2
    leaves = {"times": times, "weight": 0.8 * draw.normal(outputs, inputs) + 0.5}
    by_sign = receptors == 2 and draw.chance(0.4)
    shared = {"receptor": "sign" if by_sign else [draw.whole(0, receptors - 1) for _ in range(inputs)]}
    if draw.chance(0.3):
        leaves["delay"] = draw.uniform(outputs, inputs, high=0.6)
    if draw.chance(0.3):
        shared["max_weight_grad"] = float(draw.uniform(low=0.05, high=1.5))
    options = {"max_spikes": 2 if draw.chance(0.2) else 40, "overflow": "drop"}
    if draw.chance(0.5) or isinstance(neuron.bias, torch.Tensor):
        options["until"] = float(draw.uniform(low=1.0, high=6.0))
    first = draw.chance(0.2)
    if draw.chance(0.3) and not first:
        current = 0.4 * draw.normal(samples, outputs, len(neuron.components))
        for k, component in enumerate(neuron.components):
            current[..., k] = current[..., k].abs() if component.kind == "threshold" else current[..., k]
        leaves |= {"voltage": draw.uniform(samples, outputs, high=0.4), "current": current}
        leaves["left"] = draw.uniform(samples, outputs, low=-0.5, high=0.5).clamp(min=0)

    def run(leaves, backend, observed):
        call = shared | {"delay": leaves.get("delay"), "observed": observed, "backend": backend}
        if first:
            return (first_spike_time(leaves["times"][..., 0], leaves["weight"], neuron, **call),)
        state = TrainState(leaves["voltage"], leaves["current"], leaves["left"], 0.2) if "left" in leaves else None
        found = spike_window(leaves["times"], leaves["weight"], neuron, state=state, **options, **call)
        return (found.trains, found.overflows.double(), *(found.state[:3] if found.state else ()))

    begin = 0.2 if "left" in leaves else 0.0 if isinstance(neuron.bias, torch.Tensor) else -9.0
    window = (begin, INF if first else options.get("until", INF)) if draw.chance(0.25) else None
    return leaves, learnt(neuron), run, window, draw


# the slow ones also have delays and first spikes, for which there are kernels of their own
SLOW = {6, 8, 14, 15, 16, 18, *range(20, 30)}
SEEDS = [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in range(30)]
SEEDS += [pytest.param(k, marks=pytest.mark.exhaustive) for k in range(30, 330)]


@pytest.mark.parametrize("seed", SEEDS)
def test_backends_agree(seed):
    leaves, own, run, window, draw = problem_of(seed)
    if seed % 2:  # kernels go other ways where no constant learns
        for x in own.values():
            x.requires_grad_(False)
        own = {}
    expected = results(leaves, own, run, "reference")
    same(results(leaves, own, run, "cpu"), expected)
    if window is None:
        return
    trains = expected[0][0]
    seen = trains + 0.03 * draw.normal(*trains.shape)
    seen = torch.where((seen <= window[0]) | (seen > window[1]), INF, seen)
    seen = seen.sort(-1).values if trains.ndim == 3 else seen
    same(*(results(leaves, own, run, backend, seen) for backend in ("cpu", "reference")))


@pytest.mark.parametrize("each", [False, True], ids=["shared", "each"])
@pytest.mark.parametrize(
    "ratio", [1.0, 1.37, *(pytest.param(x, marks=pytest.mark.slow) for x in (2.0, 0.5, 1 + 1e-9, INF))]
)
def test_one_receptor_or_two_alike_are_the_closed_solution(ratio, each, backend):
    draw = Drawn(3)
    times, weight = draw.uniform(4, 7, 2, high=3.0), 0.9 + draw.normal(5, 7)
    times[0, :, 1] = INF
    grow = 1 + 0.2 * draw.uniform(5) if each else torch.ones(()).double()

    def derived(receptors):
        taus = [(0.8 * grow).requires_grad_() for _ in range(max(1, receptors))]
        mem = (0.8 * ratio * grow).requires_grad_() if ratio < INF else INF
        reset, w, t = ((x * 1.0).requires_grad_() for x in (-0.1 * grow, weight, times))
        neuron = LIF(mem, tuple(taus) if receptors else taus[0], 1.0, reset, 0.15)
        receptor = [i % receptors for i in range(7)] if receptors else None
        out = spike_trains(t, w, neuron, max_spikes=30, receptor=receptor, backend=backend)
        factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), **DOUBLE)
        leaves = [t, w, reset, *taus, *([mem] if ratio < INF else [])]
        found = torch.autograd.grad(torch.where(out.isfinite(), out * factors, 0.0).sum(), leaves)
        return out, [*found[:3], sum(found[3 : 3 + len(taus)]), *found[3 + len(taus) :]]

    plain, wanted = derived(0)
    assert plain.isfinite().sum() > 20
    for receptors in (1, 2):
        trains, grads = derived(receptors)
        torch.testing.assert_close(trains, plain, rtol=0, atol=1e-12)
        for x, y in zip(grads, wanted, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9 * y.abs().max().item())


def typical(outputs, draw, bias=0.0, reset=-0.1):
    """A neuron with a bit of everything, each neuron with constants of its own."""
    syn = tuple(draw.uniform(outputs, low=0.5, high=1.5).requires_grad_() for _ in range(2))
    return AdaptiveLIF(
        draw.uniform(outputs, low=1.0, high=2.0).requires_grad_(), syn, 1.0, reset, 0.2, (0.3, 0.0), bias,
        adaptation=[(2.0, draw.uniform(outputs, high=0.3).requires_grad_())], threshold_adaptation=[(1.5, 0.2)],
    )  # fmt: skip


SHAPES = [(1, 1, 1), (2, 2, 33), (2, 0, 3), (0, 3, 3), (2, 3, 0)]
SHAPES += [pytest.param(x, marks=pytest.mark.slow) for x in [(3, 4, 63), (1, 70, 64), (70, 2, 2), (2, 5, 31)]]


@pytest.mark.parametrize("constants", ["shared", "each"])
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_shapes(sizes, constants):
    samples, inputs, outputs = sizes
    draw = Drawn(sum(sizes))
    neuron = typical(outputs, draw, bias=0.3) if constants == "each" else typical(1, draw)
    leaves = {"times": draw.uniform(samples, inputs, 2, high=3.0), "weight": draw.normal(outputs, inputs)}
    leaves["weight"] += 4.0 / max(1, inputs)
    receptor = [i % 2 for i in range(inputs)]

    def run(leaves, backend, observed):
        found = spike_window(
            leaves["times"], leaves["weight"], neuron, receptor=receptor, max_spikes=9, until=4.0, overflow="drop",
            backend=backend, observed=observed,
        )  # fmt: skip
        assert found.trains.shape == (samples, outputs, 9)
        assert found.state.current.shape == (samples, outputs, len(neuron.components))
        return found.trains, *found.state[:3], found.overflows.double()

    found, expected = (results(leaves, learnt(neuron), run, backend) for backend in ("cpu", "reference"))
    same(found, expected)
    if 0 in sizes:
        assert not found[1]["times"].any()
        assert not found[1]["weight"].any()


def test_ties_zero_weights_and_silence(backend):
    """Inputs at equal times are one with the sum of their weights; a weight of 0 changes nothing."""
    draw, receptor = Drawn(5), [0, 0, 1, 1, 0]
    neuron = typical(4, draw)
    weight = draw.uniform(4, 5, low=0.5, high=2.5)
    times = torch.tensor([[0.5, 0.5, 1.0, 1.0, 2.0]], **DOUBLE).unsqueeze(-1)
    both = torch.stack([weight[:, :2].sum(1), weight[:, 2:4].sum(1), weight[:, 4]], 1)
    options = {"max_spikes": 20, "backend": backend}
    found = spike_trains(times, weight, neuron, receptor=receptor, **options)
    assert found.isfinite().any()
    torch.testing.assert_close(
        found, spike_trains(times[:, ::2], both, neuron, receptor=[0, 1, 0], **options), rtol=0, atol=1e-13
    )
    more = torch.cat([weight, torch.zeros(4, 2, **DOUBLE)], 1)
    late = torch.cat([times, torch.tensor([[[0.7], [INF]]], **DOUBLE)], 1)
    torch.testing.assert_close(
        found, spike_trains(late, more, neuron, receptor=[*receptor, 1, 0], **options), rtol=0, atol=1e-13
    )
    leaf = (0.01 * weight).requires_grad_()
    silent = spike_trains(times, leaf, neuron, receptor=receptor, **options)
    assert silent.isinf().all()
    silent[silent.isfinite()].sum().backward()
    assert not leaf.grad.any()


def test_a_weight_that_passes_zero(backend):
    """With receptors by sign spikes are continuous there."""
    draw = Drawn(6)
    neuron, times = typical(1, draw), draw.uniform(1, 4, 1)
    weight = torch.tensor([[3.0, 2.0, 0.0, -0.5]], **DOUBLE)
    shared = {"max_spikes": 20, "receptor": "sign", "backend": backend}
    less, none, more = (
        spike_trains(times, weight + x * torch.tensor([0, 0, 1.0, 0], **DOUBLE), neuron, **shared)
        for x in (-1e-10, 0, 1e-10)
    )
    assert none.isfinite().any()
    torch.testing.assert_close(less, none, rtol=0, atol=1e-8)
    torch.testing.assert_close(more, none, rtol=0, atol=1e-8)


@pytest.mark.slow  # it has kernels of its own to compile
def test_membranes_that_end_below_rest_spike_no_more():
    """A first current ends early and a second pulls V below rest, so slowly that a search may leave the numbers."""
    gen = torch.Generator().manual_seed(0)
    times = torch.tensor([0.0, 1.0, 1.5, 1.5, 1.6, 1.6], dtype=torch.float64)[:, None]
    weight = torch.randn(20_000, 6, dtype=torch.float64, generator=gen) * torch.tensor([1.5, 1.5, 3.0, 3.0, 6.0, 6.0])
    neuron, sides = LIF(2.0, (1.0, 4.0)), [0, 1, 0, 1, 0, 1]
    spikes, expected = (
        spike_trains(times, weight, neuron, max_spikes=4, overflow="drop", receptor=sides, backend=backend)
        for backend in ("cpu", "reference")
    )
    torch.testing.assert_close(spikes, expected, rtol=0, atol=1e-11)


def first(times, weight, neuron, **shared):
    return first_spike_time(times, weight, neuron, **shared)


def first_of_trains(times, weight, neuron, **shared):
    more = {"max_spikes": 1, "overflow": "drop"}
    return spike_trains(times.unsqueeze(-1), weight, neuron, **more, **shared).squeeze(-1)


def first_of_window(times, weight, neuron, **shared):
    more = {"max_spikes": 1, "overflow": "drop"}
    return spike_window(times.unsqueeze(-1), weight, neuron, **more, **shared).trains.squeeze(-1)


@pytest.mark.slow  # it has kernels of its own to compile
@pytest.mark.parametrize(("outputs", "bias"), [(5, 0.0), (33, 0.4), (3, 1.2)])
def test_first_spikes_are_the_first_of_trains(outputs, bias, backend):
    draw = Drawn(8)
    neuron = typical(outputs, draw, bias=bias)
    times, weight = draw.uniform(2, 6, high=3.0), (draw.normal(outputs, 6) + 0.8).requires_grad_()
    found = []
    for call in (first, first_of_trains, first_of_window):
        out = call(times, weight, neuron, receptor="sign", backend=backend)
        grads = torch.autograd.grad(out[out.isfinite()].square().sum(), [weight, *learnt(neuron).values()])
        found.append((out.detach(), *grads))
    assert found[0][0].isfinite().any()
    for other in found[1:]:
        for x, y in zip(found[0], other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-14)


@pytest.mark.slow  # it has kernels of its own to compile
def test_sizes_that_do_not_fit_lanes_in_float32(backend):
    """Padding stays out of results, and float32 is float64 up to rounding."""
    draw = Drawn(10)
    times, weight = draw.uniform(1, 9, high=3.0).unsqueeze(-1), draw.normal(33, 9) * 0.5 + 0.6
    neuron = AdaptiveLIF(
        1.7, (1.0, 0.6), 1.0, refractory=0.2, adaptation=[(3.0, 0.2)], threshold_adaptation=[(1.0, 0.1)]
    )
    options = {"receptor": "sign", "max_spikes": 30, "backend": backend}
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [times.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()]
        out = spike_trains(*leaves, neuron, **options)
        assert out.dtype == dtype
        grads = torch.autograd.grad(out[..., 0][out[..., 0].isfinite()].sum(), leaves)
        found.append((out.detach()[..., :2].double(), *(x.double() for x in grads)))
    for x, y in zip(*found, strict=True):
        y = torch.where(y.isfinite(), y, 0.0)
        x = torch.where(x.isfinite(), x, 0.0)
        assert ((x - y).abs() > 1e-3 * y.abs().max()).sum() <= 0.002 * y.numel()
