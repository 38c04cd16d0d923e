"""Gradients by weight, times, delay and threshold: against finite differences, and against 50 digits."""

import math

import pytest
import torch

from firstspike import LIF, first_spike_time

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

INF = math.inf
SOME = [1.0, 1.37, INF]  # ratios: where time constants only choose the form of the response, which others test


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def firing_case(seed=0, samples=3, inputs=5, outputs=4):
    """All neurons fire well above a tangent; one input is inhibitory, one never arrives."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(samples, inputs, generator=generator, dtype=torch.float64) * 1.5
    weight = 2.5 + torch.rand(outputs, inputs, generator=generator, dtype=torch.float64)
    weight[:, 1] = -0.5
    times[0, -1] = INF
    return times, weight


@pytest.mark.slow
@pytest.mark.parametrize("delayed", [False, True])
def test_gradcheck(delayed, ratio, backend):
    times, weight = firing_case()
    threshold = torch.linspace(0.8, 1.2, 4, dtype=torch.float64)
    delay = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    arrives = times.isfinite()
    finite = torch.where(arrives, times, 0.0)

    def spikes(finite, weight, threshold, delay):
        arrival = torch.where(arrives, finite, INF)
        lif = LIF(ratio, 1.0, threshold)
        return first_spike_time(arrival, weight, lif, delay=delay if delayed else None, backend=backend)

    inputs = [x.detach().requires_grad_() for x in (finite, weight, threshold, delay)]
    assert spikes(*inputs).isfinite().all()
    assert torch.autograd.gradcheck(spikes, inputs, atol=1e-8, rtol=1e-5, fast_mode=True)


def formula(observed, times, weight, threshold, ratio):
    """Derivatives of one neuron at an observed time, one number after the other."""
    causal = [t < observed < INF for t in times]
    elapsed = [observed - t if c else 0.0 for t, c in zip(times, causal, strict=True)]

    def kappa(s):
        if math.isinf(ratio):
            return 1 - math.exp(-s)
        return s * math.exp(-s) if ratio == 1 else ratio / (ratio - 1) * (math.exp(-s / ratio) - math.exp(-s))

    current = sum(w * math.exp(-s) for w, s, c in zip(weight, elapsed, causal, strict=True) if c)
    slope = current - threshold / ratio
    if not slope > 0 or observed == INF:
        return [0.0] * len(times), [0.0] * len(times), 0.0
    by_weight = [-kappa(s) / slope if c else 0.0 for s, c in zip(elapsed, causal, strict=True)]
    by_times = [
        w * (math.exp(-s) - kappa(s) / ratio) / slope if c else 0.0
        for w, s, c in zip(weight, elapsed, causal, strict=True)
    ]
    return by_weight, by_times, 1 / slope


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64])
@pytest.mark.parametrize("span", [1.0, 35.0, 45.0, 290.0, 700.0])
def test_delays_with_equal_time_constants_from_any_time_on(span, dtype):
    gen = torch.Generator().manual_seed(0)
    times = span * (torch.rand(3, 20, generator=gen) - 0.5)
    times[:, 0], times[:, 1] = INF, 3 * span
    delay = span * torch.rand(40, 20, generator=gen) / 2
    delay[:, 2] = 1e4
    weight = torch.randn(40, 20, generator=gen) / 10
    observed = span * torch.rand(3, 40, generator=gen) + 1.0
    times[:, 3], delay[:, 3], weight[:, 3] = 0.0, observed.amin(0) - 0.1, 3.0  # the membrane rises in one sample
    given = [x.to(dtype).requires_grad_() for x in (times, weight, delay)]
    found = torch.autograd.grad(
        first_spike_time(*given[:2], LIF(), delay=given[2], observed=observed.to(dtype), backend="cpu").sum(), given
    )

    arrival = (given[0].unsqueeze(1) + given[2]).double().detach()
    s = observed.to(dtype).double().unsqueeze(-1) - arrival
    causal, w = s > 0, given[1].double().detach()
    decay, kappa, slope = (torch.where(causal, x * torch.exp(-s), 0.0) for x in (torch.ones_like(s), s, 1 - s))
    rises = (w * decay).sum(-1) - 1
    scale = torch.where(rises > 0, 1 / rises, 0.0).unsqueeze(-1)
    by_delay = w * slope * scale
    assert (rises > 0).any()
    tolerance = 16 * (1 + span) * torch.finfo(dtype).eps
    for x, exact in zip(found, (by_delay.sum(1), -(kappa * scale).sum(0), by_delay.sum(0)), strict=True):
        torch.testing.assert_close(x.double(), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))


@pytest.mark.parametrize("unit", [0.1, 1e-3, 100.0])
def test_delays_with_equal_time_constants_next_to_silent_neurons(unit, backend):
    """Also where their inverse is large: what a silent neuron does not have is 0, not inf times 0."""
    times, weight = firing_case()
    weight[1] = 0.0
    delay = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for scale in (1.0, unit):
        leaves = [x.clone().requires_grad_() for x in (times * scale, weight, delay * scale)]
        spikes = first_spike_time(leaves[0], leaves[1], LIF(scale, scale), delay=leaves[2], backend=backend)
        torch.where(spikes < INF, spikes / scale, 0.0).sum().backward()
        found.append((leaves[0].grad * scale, leaves[1].grad, leaves[2].grad * scale))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, INF, 1.37, 10.0])
@pytest.mark.parametrize("delayed", [False, True])
def test_observed(delayed, ratio, backend):
    generator = torch.Generator().manual_seed(4)
    times = torch.rand(6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64).requires_grad_()
    threshold = tensor([0.2, 0.5, 1.0])
    delay = torch.rand(3, 5, generator=generator, dtype=torch.float64).requires_grad_() if delayed else None
    observed = torch.rand(6, 3, generator=generator, dtype=torch.float64) * 3 - 0.2
    observed[0, 0] = INF
    observed[1, 1] = times[1, 2].item()  # exactly at an input: that one is not causal
    given = observed.clone()
    out = first_spike_time(times, weight, LIF(ratio, 1.0, threshold), delay=delay, observed=observed, backend=backend)
    assert torch.equal(out, given)
    grad = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    out.backward(grad)
    assert torch.equal(observed, given)
    assert torch.equal(out, given)

    by_times, by_weight, by_threshold, by_delay = (torch.zeros_like(x) for x in (times, weight, threshold, weight))
    zeros = 0
    for b in range(6):
        for o in range(3):
            arrival = times[b] + delay[o] if delayed else times[b]
            known = (given[b, o].item(), arrival.tolist(), weight[o].tolist(), threshold[o].item(), ratio)
            of_weight, of_times, of_threshold = formula(*known)
            zeros += of_threshold == 0
            by_weight[o] += grad[b, o] * torch.tensor(of_weight, dtype=torch.float64)
            by_times[b] += grad[b, o] * torch.tensor(of_times, dtype=torch.float64)
            by_delay[o] += grad[b, o] * torch.tensor(of_times, dtype=torch.float64)
            by_threshold[o] += grad[b, o] * of_threshold
    assert 2 < zeros < 17
    torch.testing.assert_close(times.grad, by_times, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(weight.grad, by_weight, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(threshold.grad, by_threshold, rtol=1e-11, atol=1e-12)
    if delayed:
        torch.testing.assert_close(delay.grad, by_delay, rtol=1e-11, atol=1e-12)


def test_observed_where_the_neuron_could_not_spike(ratio, backend):
    """Before all inputs, while the membrane falls, never: no gradient."""
    x, w = tensor([[0.0, 0.5]]), tensor([[2.0, -9.0]] * 4)
    observed = torch.tensor([[-1.0, 0.0, 0.8, INF]], dtype=torch.float64)
    out = first_spike_time(x, w, LIF(ratio), observed=observed, backend=backend)
    out.backward(torch.ones_like(out))
    assert not x.grad.any()
    assert not w.grad.any()


def test_silent_and_late_inputs_have_exactly_none(ratio, backend):
    x = tensor([[0.0, 0.1, 3.0, INF], [INF, INF, INF, INF], [0.2, INF, 0.2, INF]])
    w = tensor([[4.0, 4.0, 4.0, 4.0], [-1.0, 0.0, -2.0, 4.0], [0.1, 0.1, 0.1, 99.0]])
    threshold = tensor([1.0, 1.0, 1.0])
    out = first_spike_time(x, w, LIF(ratio, 1.0, threshold), backend=backend)
    assert out.isfinite().tolist() == [[True, False, False], [False, False, False], [True, False, False]]
    out.backward(torch.ones_like(out))
    assert (x.grad != 0).tolist() == [[True, True, False, False], [False] * 4, [True, False, True, False]]
    assert (w.grad != 0).tolist() == [[True, True, True, False], [False] * 4, [False] * 4]
    assert (threshold.grad != 0).tolist() == [True, False, False]


@pytest.mark.parametrize("ratio", SOME)
def test_incoming_gradient_at_silent_outputs_does_no_harm(ratio, backend):
    times, weight = firing_case()
    weight = torch.cat([weight, -weight.abs()])  # the second half is silent
    expected = None
    for harmful in (0.0, math.nan, INF, -INF, 1e300):
        inputs = [times.clone(), weight.clone(), torch.ones(8, dtype=torch.float64), torch.full_like(weight, 0.1)]
        x, w, threshold, delay = (t.requires_grad_() for t in inputs)
        out = first_spike_time(x, w, LIF(ratio, 1.0, threshold), delay=delay, backend=backend)
        assert out.isfinite().tolist() == [[True] * 4 + [False] * 4] * 3
        out.backward(torch.where(out.isfinite(), torch.ones_like(out), torch.full_like(out, harmful)))
        found = [t.grad for t in (x, w, threshold, delay)]
        expected = expected or found
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a, b)
            assert b.isfinite().all()


@pytest.mark.parametrize("ratio", SOME)
def test_nothing_is_changed_in_place(ratio, backend):
    times, weight = firing_case()
    times[1] = INF
    threshold, delay = torch.ones(4, dtype=torch.float64), torch.rand(weight.shape, dtype=torch.float64)
    tensors = [times, weight, threshold, delay]
    copies = [x.clone() for x in tensors]
    for x in tensors:
        x.requires_grad_()
    out = first_spike_time(
        times, weight, LIF(ratio, 1.0, threshold), delay=delay, max_weight_grad=0.01, backend=backend
    )
    grad = torch.randn(out.shape, dtype=torch.float64)
    before, grad_before = out.detach().clone(), grad.clone()
    out.backward(grad)
    assert torch.equal(out, before)
    assert out[1].isinf().all()
    assert torch.equal(grad, grad_before)
    for x, copy in zip(tensors, copies, strict=True):
        assert torch.equal(x, copy)
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("ratio", SOME)
@pytest.mark.parametrize("delayed", [False, True])
def test_max_weight_grad(delayed, ratio, backend):
    """Zeroes the weight gradient of exactly the pairs above the bound, and no other gradient."""
    times, weight = firing_case(5, samples=8)
    delay = torch.full_like(weight, 0.1) if delayed else None
    grad = torch.linspace(-2, 2, 32, dtype=torch.float64).reshape(8, 4)
    pairs = torch.zeros(8, *weight.shape, dtype=torch.float64)
    for b in range(8):
        w = weight.clone().requires_grad_()
        first_spike_time(times[b], w, LIF(ratio), delay=delay, backend=backend).backward(grad[b])
        pairs[b] = w.grad
    sizes = pairs.abs().amax(-1)
    bound = sizes.median().item() * (1 + 1e-6)
    kept = sizes <= bound
    assert 5 < kept.sum() < 27

    def run(limit):
        inputs = [times.clone(), weight.clone(), torch.ones(4, dtype=torch.float64), torch.full_like(weight, 0.1)]
        x, w, threshold, d = (t.requires_grad_() for t in inputs)
        lif = LIF(ratio, 1.0, threshold)
        out = first_spike_time(x, w, lif, delay=d if delayed else None, max_weight_grad=limit, backend=backend)
        out.backward(grad)
        return w.grad, x.grad, threshold.grad, *([d.grad] if delayed else [])

    bounded, free = run(bound), run(None)
    torch.testing.assert_close(bounded[0], (pairs * kept[..., None]).sum(0), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(free[0], pairs.sum(0), rtol=1e-11, atol=1e-13)
    for limited, unlimited in zip(bounded[1:], free[1:], strict=True):
        assert torch.equal(limited, unlimited)
    for a, b in zip(run(sizes.max().item() * 2), free, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)
    assert not run(1e-30)[0].any()


def test_observed_long_after_everything(backend):
    """Without leak the slope underflows at last; the bound on weight gradients removes what overflows."""
    for late in (30.0, 700.0, 742.0, 1e4):
        x, w = tensor([[0.0, INF, 2 * late]]), tensor([[2.0, 1.0, 1.0]])
        observed = torch.tensor([[late]], dtype=torch.float64)
        out = first_spike_time(x, w, LIF(INF), observed=observed, max_weight_grad=1.0, backend=backend)
        out.backward(torch.ones_like(out))
        assert not w.grad.any()
        assert not x.grad[0, 1:].any()


def test_close_to_a_tangent_gradients_stay_finite(ratio, backend):
    if math.isinf(ratio):
        height = 1.0
    else:
        at = 1.0 if ratio == 1 else ratio / (ratio - 1) * math.log(ratio)
        height = ratio * math.exp(-at)  # dV/dt = 0 there
    for offset in (1e-3, 1e-6, 1e-9, 1e-12):
        x, w = tensor([[0.0]]), tensor([[2.0]])
        out = first_spike_time(x, w, LIF(ratio, 1.0, 2 * height * (1 - offset)), backend=backend)
        assert out.isfinite().all()
        out.sum().backward()
        assert x.grad.isfinite().all()
        assert w.grad.isfinite().all()
        assert w.grad.item() <= 0


def test_second_derivatives_say_that_there_are_none(backend):
    times, weight = firing_case()
    weight.requires_grad_()
    loss = first_spike_time(times, weight, LIF(), backend=backend).sum()
    (first,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"first derivatives only.*without create_graph"):
        first.square().sum().backward()


def test_accumulates_over_uses(backend):
    """A weight used twice gets both gradients; a graph can be walked twice."""
    times, weight = firing_case()
    weight.requires_grad_()
    once = first_spike_time(times, weight, LIF(), backend=backend).sum()
    once.backward(retain_graph=True)
    single = weight.grad.clone()
    once.backward()
    torch.testing.assert_close(weight.grad, 2 * single)
    weight.grad = None
    (first_spike_time(times, weight, LIF(), backend=backend) * 2).sum().backward()
    torch.testing.assert_close(weight.grad, 2 * single)


def test_no_graph_without_need(backend):
    times, weight = firing_case()
    assert not first_spike_time(times, weight, LIF(), backend=backend).requires_grad
    with torch.no_grad():
        assert not first_spike_time(times, weight.requires_grad_(), LIF(), backend=backend).requires_grad


@pytest.mark.parametrize("ratio", SOME)
def test_two_layers(ratio, backend):
    """Gradients go through hidden spike times to the first weights, silent hidden neurons included."""
    times, weight = firing_case()
    first = torch.cat([weight, -weight[:1].abs()]).requires_grad_()
    second = torch.full((2, 5), 1.5, dtype=torch.float64).requires_grad_()

    def network(first, second):
        hidden = first_spike_time(times, first, LIF(ratio), backend=backend)
        return first_spike_time(hidden, second, LIF(ratio), backend=backend)

    assert network(first, second).isfinite().all()
    assert torch.autograd.gradcheck(network, (first, second), atol=1e-8, rtol=1e-5, fast_mode=True)


@pytest.mark.usefixtures("wide_kernels")
def test_float32(ratio, backend):
    times, weight = firing_case(3, samples=10, inputs=20, outputs=6)
    weight = weight / 5
    results = []
    for dtype in (torch.float32, torch.float64):
        x, w = times.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()
        threshold = torch.ones(6, dtype=dtype, requires_grad=True)
        out = first_spike_time(x, w, LIF(ratio, 1.0, threshold), backend=backend)
        assert out.isfinite().all()
        out.square().sum().backward()
        results.append((x.grad, w.grad, threshold.grad))
    for single, double in zip(*results, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)
