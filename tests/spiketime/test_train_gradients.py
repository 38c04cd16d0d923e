"""Gradients of spike trains: central differences, and the adjoint as one loop over the events, backwards in time."""

import math

import pytest
import torch

from fifty_digits import RATIOS
from firstspike import LIF, first_spike_time, spike_trains
from firstspike.neurons import QIF, AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf


def draw(seed=4, samples=2, inputs=5, copies=2, outputs=3):
    """All spikes are well above a tangent; one input inhibits, one time never comes."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(samples, inputs, copies, generator=generator, dtype=torch.float64) * 3
    times[0, -1, -1] = INF
    weight = 1 + 2 * torch.rand(outputs, inputs, generator=generator, dtype=torch.float64)
    weight[:, 1] = -0.5
    return times, weight


def finite(x):
    return torch.where(x < INF, x, 0.0)


def mixed(x, seed=0):
    """Two random sums of all spikes: as hard to get right as all spikes, and quicker to check."""
    factors = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (factors * finite(x)).flatten(1).sum(1)


@pytest.mark.slow
@pytest.mark.parametrize(("delayed", "refractory", "reset"), [(False, 0.15, -0.3), (True, 0.0, 0.0)])
def test_gradcheck(delayed, refractory, reset, ratio, backend):
    times, weight = draw()
    threshold = torch.linspace(0.5, 0.7, 3, dtype=torch.float64)
    delay = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1

    def spikes(times, weight, threshold, delay):
        arrival = torch.where(draw()[0] < INF, times, INF)
        options = {"max_spikes": 60, "backend": backend, "delay": delay if delayed else None}
        found = spike_trains(arrival, weight, LIF(ratio, 1.0, threshold, reset, refractory), **options)
        assert (found < INF).sum(-1).min() >= 3
        return mixed(found)

    inputs = [x.detach().requires_grad_() for x in (finite(times), weight, threshold, delay)]
    assert torch.autograd.gradcheck(spikes, inputs, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "each", "refractory"),
    [(x, each, (0.0, 0.15)[(k + each) % 2]) for k, x in enumerate([1.0, 2.0, 0.5, 1.37, 100.0]) for each in (0, 1)],
)
def test_time_constants(ratio, refractory, each, backend):
    times, weight = draw()
    size = (3,) if each else ()

    def spikes(tau_mem, tau_syn):
        neuron = LIF(tau_mem, tau_syn, 0.6, refractory=refractory, reset=0.1)
        found = spike_trains(times, weight, neuron, max_spikes=60, backend=backend)
        assert (found < INF).sum(-1).min() >= 3
        return mixed(found)

    spread = torch.linspace(0.9, 1.1, 3, dtype=torch.float64) if each else torch.ones((), dtype=torch.float64)
    inputs = [(x * spread).expand(size).clone().requires_grad_() for x in (ratio, 1.0)]
    assert torch.autograd.gradcheck(spikes, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "refractory"), [(x, (0.0, 0.4)[k % 2]) for k, x in enumerate(RATIOS)])
def test_windows(refractory, ratio, backend):
    """Through the state: the gradients of two windows are those of one long call, and right by the state itself."""
    times, weight = draw()
    options = {"max_spikes": 60, "backend": backend}
    neuron = LIF(ratio, 1.0, 0.5, refractory=refractory, reset=-0.1)
    results = []
    for windows in (False, True):
        x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
        delay = torch.full_like(weight, 0.3).requires_grad_()
        state, parts = None, []
        for until in (0.9, 1.2, 2.2, INF) if windows else (INF,):
            part, state, _ = spike_window(x, w, neuron, delay=delay, state=state, until=until, **options)
            parts.append(part)
        finite(torch.cat(parts, -1)).square().sum().backward()
        results.append((x.grad, w.grad, delay.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)

    before = spike_window(times, weight, neuron, until=1.2, **options).state

    def later(times, weight, voltage, current, left):
        arrival = torch.where(draw()[0] < INF, times, INF)
        left = torch.where(before.refractory > 0, left, 0.0)
        start = TrainState(voltage, current, left, 1.2)
        trains, after, _ = spike_window(arrival, weight, neuron, state=start, until=2.2, **options)
        left = torch.where(after.refractory > 0, after.refractory, 0.0)
        voltage = torch.where(after.refractory > 0, 0.0, after.voltage)
        return mixed(trains), mixed(voltage), mixed(after.current), mixed(left)

    values = (finite(times), weight, before.voltage, before.current, before.refractory)
    inputs = [x.detach().clone().requires_grad_() for x in values]
    if refractory:
        assert 0 < (before.refractory > 0).sum() < 6
    assert torch.autograd.gradcheck(later, inputs, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("refractory", [0.0, 0.15])
def test_time_constants_through_states(refractory, backend):
    times, weight = draw()

    def spikes(tau_mem, tau_syn):
        neuron, options = LIF(tau_mem, tau_syn, 0.5, refractory=refractory), {"max_spikes": 60, "backend": backend}
        one, state, _ = spike_window(times, weight, neuron, until=1.2, **options)
        return mixed(one), mixed(spike_trains(times, weight, neuron, state=state, **options))

    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.7, 0.9)]
    assert torch.autograd.gradcheck(spikes, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


def neuron_of(kind, refractory):
    """A neuron that spikes several times for ``draw``, and what its synapses have."""
    delay = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=refractory.dtype) + 0.1
    options = {"delay": delay} if "delays" in kind else {}
    if "adaptation" in kind:
        more = {"adaptation": [(2.0, 0.2)], "threshold_adaptation": [(1.0, 0.3)]}
        reset = None if "no reset" in kind else -0.2
        neuron = AdaptiveLIF(1.7, (1.0, 0.6), 0.6, reset, refractory, bias=0.2, **more)
        return neuron, options | {"receptor": [0, 1, 0, 0, 1]}
    return LIF(1.7, 1.0, 0.6, -0.2, refractory), options


KINDS = ["LIF", "LIF, delays", "adaptation", "adaptation, delays", "adaptation, no reset"]
SLOW = pytest.mark.slow  # there are kernels of their own for delays of linear neurons, and for float32


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("LIF", "reference"),
        ("adaptation", "reference"),
        *((kind, "cpu") if kind != "adaptation, delays" else pytest.param(kind, "cpu", marks=SLOW) for kind in KINDS),
    ],
)
def test_refractory_times(kind, backend):
    """Of all trains and the state at the end, in one window or two; some neurons are held where these meet."""
    times, weight = draw()
    held = []

    def found(refractory):
        neuron, options = neuron_of(kind, refractory)
        results = []
        for ends in ((2.3,), (2.1, 2.3)):
            state, parts = None, []
            for until in ends:
                part, state, _ = spike_window(
                    times, weight, neuron, max_spikes=40, until=until, state=state, backend=backend, **options
                )
                parts.append(part)
                held.append(bool((state.refractory > 0).any()))
            results += [mixed(torch.cat(parts, -1).sort(-1).values[..., :40]), *map(mixed, state[:3])]
        return torch.stack(results).flatten()

    refractory = torch.tensor([0.05, 0.15, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(found, [refractory], atol=1e-5, rtol=1e-5)
    assert all(held)
    whole, pieces = torch.autograd.functional.jacobian(found, refractory).view(2, -1, 3)
    assert whole[[0, 2, 6]].any(1).all()  # trains, voltages, rests of refractory times
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float64) for kind in KINDS if kind != "adaptation, delays"),
        pytest.param("LIF", torch.float32, marks=SLOW),
        pytest.param("adaptation, delays", torch.float32, marks=SLOW),
    ],
)
def test_refractory_times_of_observed_trains(kind, dtype):
    """Spikes that are moved, some into refractory times; all other neurons share a time that is 0, without gradient."""
    times, weight = (x.to(dtype) for x in draw())
    moved = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    found = []
    for name in ("cpu", "reference"):
        refractory = torch.tensor([0.05, 0.15, 0.4], dtype=dtype, requires_grad=True)
        neuron, options = neuron_of(kind, refractory)
        options |= {"max_spikes": 40, "backend": name}
        ideal = spike_trains(times, weight, neuron, **options | {"backend": "reference"}).detach()
        out = spike_trains(times, weight, neuron, observed=(ideal + 0.2 * moved).sort(-1).values, **options)
        (mixed(spike_trains(times, weight, neuron, **options)) + mixed(out)).sum().backward()
        found.append(refractory.grad)
    assert found[1].all()
    torch.testing.assert_close(*found, rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=0.0)


def test_a_refractory_time_of_0_holds_nothing(backend):
    times, weight = draw()
    gradients = []
    for refractory in (0.0, 1e-9):
        r = torch.tensor([refractory, 0.1, 0.2], dtype=torch.float64, requires_grad=True)
        out = spike_trains(times, weight, LIF(2.0, 1.0, 0.6, -0.1, r), max_spikes=60, backend=backend)
        gradients.append(torch.autograd.grad(mixed(out).sum(), r)[0])
    assert gradients[0][0] == 0
    assert gradients[1].all()
    assert torch.equal(gradients[0][1:], gradients[1][1:])


def test_a_refractory_time_without_a_second_spike(backend):
    """Autograd gets zeros; equations have their refractory time among their parameters."""
    times, weight = draw()
    r = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    out = spike_trains(times[..., :1], weight, LIF(refractory=r), max_spikes=1, overflow="drop", backend=backend)
    (none,) = torch.autograd.grad(finite(out).sum(), r)
    assert none == 0

    def spikes(r):
        given = {"max_spikes": 40, "until": 3.0, "backend": "auto"}
        return mixed(spike_trains(times, weight, QIF(refractory=r, bias=0.5), **given))

    assert torch.autograd.gradcheck(spikes, [r], atol=1e-5, rtol=1e-5)


def adjoint(trains, asked, events, weights, neuron, refractory, reset):
    """The adjoint of one neuron, from event to event backwards: gradients by weights, times and threshold."""
    mem, syn, threshold = neuron.tau_mem, neuron.tau_syn, neuron.threshold

    def kappa(s):
        return mem / (mem - syn) * (math.exp(-s / mem) - math.exp(-s / syn))

    def current(t):
        return sum(w * math.exp(-(t - x) / syn) for x, w in zip(events, weights, strict=True) if x < t)

    by_weight, by_time, by_threshold = [0.0] * len(events), [0.0] * len(events), 0.0
    # at equal times the input is the later event, and a release is later than its spike
    steps = [(t, 0, k) for k, t in enumerate(trains)] + [(t + refractory, 1, k) for k, t in enumerate(trains)]
    steps = sorted(steps + [(t, 2, i) for i, t in enumerate(events) if t < INF], reverse=True)
    p_v = p_i = 0.0
    released = [0.0] * len(trains)
    now = steps[0][0]
    for t, kind, k in steps:
        s, now = now - t, t
        p_v, p_i = p_v * math.exp(-s / mem), p_i * math.exp(-s / syn) + p_v * kappa(s)
        if kind == 2:
            by_weight[k] += p_i
            by_time[k] += weights[k] / syn * (p_i - p_v)
        elif kind == 1:
            released[k], p_v = p_v, 0.0
        else:
            rise = current(t) / syn - threshold / mem
            again = current(t + refractory) / syn - reset / mem
            possible = rise > 0 and not (k and t <= trains[k - 1] + refractory)
            p_v = (again * released[k] - asked[k]) / rise if possible else 0.0
            by_threshold -= p_v
    return by_weight, by_time, by_threshold


@pytest.mark.parametrize("refractory", [0.0, 0.2])
def test_observed(refractory, backend):
    """Anywhere, also where the membrane falls, or too soon after the spike before."""
    generator = torch.Generator().manual_seed(3)
    times, weight = draw(outputs=4)
    weight[3] = torch.tensor([0.3, -2.0, 0.3, -1.0, 0.5])
    observed = (torch.rand(2, 4, 6, generator=generator, dtype=torch.float64) * 4).sort(-1).values
    observed[..., 4:] = INF
    observed[0, 0, 2:] = INF
    asked = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    neuron, reset = LIF(2.0, 0.9, 0.7), 0.2
    x, w, threshold = (y.clone().requires_grad_() for y in (times, weight, torch.full((4,), 0.7, dtype=torch.float64)))
    options = {"max_spikes": 6, "backend": backend, "observed": observed}
    out = spike_trains(x, w, LIF(2.0, 0.9, threshold, refractory=refractory, reset=reset), **options)
    assert torch.equal(out, observed)
    (finite(out) * asked).sum().backward()
    by_times, by_weight, by_threshold = (torch.zeros_like(y) for y in (times, weight, threshold))
    zeros = 0
    for b in range(2):
        for o in range(4):
            train = observed[b, o][observed[b, o] < INF].tolist()
            given = (times[b].flatten().tolist(), weight[o].repeat_interleave(2).tolist(), neuron, refractory, reset)
            of_weight, of_time, of_threshold = adjoint(train, asked[b, o].tolist(), *given)
            by_weight[o] += torch.tensor(of_weight, dtype=torch.float64).view(5, 2).sum(1)
            by_times[b] += torch.tensor(of_time, dtype=torch.float64).view(5, 2)
            by_threshold[o] += of_threshold
            zeros += of_threshold == 0
    assert zeros < 5
    torch.testing.assert_close(w.grad, by_weight, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(x.grad, by_times, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(threshold.grad, by_threshold, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_max_weight_grad(backend):
    """A bound between two spikes' parts drops the larger ones for the weights, and nothing else."""
    times, weight = draw(samples=1, outputs=1)
    neuron = LIF(2.0, 1.0, 0.5)
    count = int((spike_trains(times, weight, neuron, max_spikes=60, backend=backend) < INF).sum())

    def gradients(asked, bound):
        x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
        out = spike_trains(x, w, neuron, max_spikes=60, backend=backend, max_weight_grad=bound)
        out[0, 0, :count].backward(asked)
        return x.grad, w.grad

    each = torch.eye(count, dtype=torch.float64)
    last = each[-1]
    free_times, free = gradients(last, None)
    # through the first spike alone, at most 2 times what a single input spike gives
    _, first = gradients(each[0], None)
    largest = first.abs().max().item() * (1 + 1e-14)  # which of two equal numbers is larger is a matter of rounding
    assert torch.equal(gradients(each[0], largest)[1], first)
    assert not gradients(each[0], 1e-3)[1].any()
    assert torch.equal(gradients(each[0], 1e-3)[0], gradients(each[0], None)[0])
    bounds = torch.logspace(-2, 3, 15, dtype=torch.float64)
    found = [gradients(last, bound.item()) for bound in bounds]
    assert all(torch.equal(x, free_times) for x, _ in found)
    assert not found[0][1].any()
    assert torch.equal(found[-1][1], free)
    kinds = {tuple(w.flatten().tolist()) for _, w in found}
    assert len(kinds) > 2


def test_one_time_of_an_input_is_bounded_like_a_first_spike(backend):
    times, weight = draw(copies=1)
    results = []
    for trains in (False, True):
        x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
        if trains:
            out = spike_trains(x, w, LIF(2.0, 1.0, 0.5), max_spikes=60, backend=backend, max_weight_grad=0.3)[..., 0]
        else:
            out = first_spike_time(x[..., 0], w, LIF(2.0, 1.0, 0.5), max_weight_grad=0.3, backend=backend)
        out.square().sum().backward()
        results.append((x.grad, w.grad))
    assert (results[0][1] == 0).any()
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch, where compiled code calls what is not
def test_compiled_code_calls_it(backend):
    times, weight = draw()

    def loss(weight):
        return 2 * finite(spike_trains(times, 1.5 * weight, LIF(2.0), max_spikes=60, backend=backend)).square().sum()

    compiled = torch.compile(loss, backend="eager")
    for outputs in (len(weight), len(weight) - 1):
        results = []
        for function in (loss, compiled):
            w = weight[:outputs].clone().requires_grad_()
            value = function(w)
            value.backward()
            results.append((value.detach(), w.grad))
        assert results[0][0] > 0
        assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_no_second_derivatives(backend):
    times, weight = draw()
    w = weight.requires_grad_()
    (first,) = torch.autograd.grad(
        finite(spike_trains(times, w, LIF(), max_spikes=60, backend=backend)).square().sum(), w, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="spike times have first derivatives only"):
        first.sum().backward()


def test_arguments_stay_and_unused_gradients_are_zero(backend):
    times, weight = draw()
    x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
    out = spike_trains(x, w, LIF(2.0), max_spikes=60, backend=backend)
    (0 * finite(out)).sum().backward()
    assert torch.equal(x, times)
    assert torch.equal(w, weight)
    assert not x.grad.any()
    assert not w.grad.any()


@pytest.mark.parametrize("refractory", [0.0, 0.3])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("delayed", [False, True])
def test_gradient_by_the_reset(delayed, own, refractory, backend):
    """Central differences, with states at both ends, neurons that are held there, and spikes beyond the budget."""
    times, weight = draw(seed=7, samples=3, inputs=6, copies=3, outputs=4)
    mem = torch.tensor([2.0, 1.5, 0.8, 3.0], dtype=torch.float64) if own else 2.0
    delay = torch.linspace(0.0, 0.5, weight.numel(), dtype=torch.float64).view_as(weight) if delayed else None
    start = torch.linspace(-0.3, 0.3, 12, dtype=torch.float64).view(3, 4)
    state = TrainState(start, start.flip(0) + 0.5, (start - 0.1).clamp(min=0), 0.2)
    factors = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(reset):
        found = spike_window(
            times, weight, LIF(mem, 1.0, 0.6, reset, refractory), max_spikes=6, delay=delay, overflow="drop",
            state=state, until=2.9, backend=backend,
        )  # fmt: skip
        seen.append(found)
        ends = (factors * torch.stack(found.state[:3])).sum()
        return mixed(found.trains)[0] + ends

    seen: list = []
    reset = torch.tensor([-0.2, 0.1, -0.5, 0.3], dtype=torch.float64, requires_grad=True)
    loss(reset).backward()
    assert seen[0].overflows.any()
    if refractory:
        assert (seen[0].state.refractory > 0).any()
    for neuron in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[neuron] = 1e-6
        with torch.no_grad():
            slope = (loss(reset + step) - loss(reset - step)) / 2e-6
        assert float(reset.grad[neuron]) == pytest.approx(float(slope), rel=1e-6, abs=1e-7)


def test_gradient_by_the_reset_of_all_neurons(backend):
    """A number for all of them gets the sum, whatever bounds the gradient by weights."""
    times, weight = draw(seed=8, outputs=70)
    found = []
    for shape, bound in (((70,), None), ((), None), ((70,), 1e-3)):
        reset = torch.full(shape, -0.2, dtype=torch.float64, requires_grad=True)
        neuron = LIF(1.3, 1.0, 0.6, reset, 0.05)
        out = spike_trains(times, weight, neuron, max_spikes=60, max_weight_grad=bound, backend=backend)
        mixed(out)[0].backward()
        found.append(reset.grad)
    each, shared, bounded = found
    assert each.abs().min() > 0
    assert float(shared) == pytest.approx(float(each.sum()), rel=1e-12)
    assert torch.equal(bounded, each)
