"""The forward pass against an independent solution in 50 digits, in well-behaved and in hard cases."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.fx.experimental.proxy_tensor import make_fx

from firstspike import LIF, first_spike_time
from firstspike.spiketime.backends import BACKENDS, resolve_backend

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

INF = math.inf


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def one(times, weights, lif, backend, **options):
    """Spike time of one neuron for one sample."""
    return first_spike_time(tensor([times]), tensor([weights]), lif, backend=backend, **options).item()


def sample(seed, samples=3, inputs=6, outputs=4, mean=1.6, std=1.5):
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(samples, inputs, generator=generator, dtype=torch.float64) * 2
    weight = mean + std * torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    return times, weight


def well_conditioned(times, weight, lif, spikes, exact):
    """Which spikes come from a membrane that rises through the threshold, not one that touches it."""
    flat = torch.zeros_like(spikes, dtype=torch.bool)
    for b, o in spikes.isfinite().nonzero().tolist():
        known = (times[b].tolist(), weight[o].tolist(), lif.tau_mem, lif.tau_syn)
        flat[b, o] = float(exact.slope(mp.mpf(spikes[b, o].item()), *known)) * lif.tau_syn > 0.05
    return flat


def test_all_backends_are_here(backends_under_test):
    assert sorted(BACKENDS) == sorted([*backends_under_test, "triton"])  # which has tests of its own


@pytest.mark.parametrize("seed", [0, 1])
def test_random_cases(ratio, seed, backend, exact):
    lif = LIF(ratio)
    times, weight = sample(seed, outputs=5)
    weight[-1] *= 0.01  # stays silent
    truth = exact.spikes(times, weight, lif)
    found = first_spike_time(times, weight, lif, backend=backend)
    assert found.dtype == torch.float64
    assert torch.equal(found.isinf(), truth.isinf())
    assert 0 < truth.isfinite().sum() < truth.numel()
    clear = well_conditioned(times, weight, lif, truth, exact)
    assert clear.sum() >= 5
    torch.testing.assert_close(found[clear], truth[clear], rtol=1e-12, atol=0)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_random_cases_in_float32(ratio, backend, exact):
    lif = LIF(ratio)
    times, weight = sample(3, samples=40, inputs=20, outputs=10, mean=0.3)
    times, weight = times.float(), weight.float()
    truth = first_spike_time(times.double(), weight.double(), lif, backend="reference")
    found = first_spike_time(times, weight, lif, backend=backend)
    assert found.dtype == torch.float32
    clear = well_conditioned(times.double(), weight.double(), lif, truth, exact)
    assert clear.sum() > 100
    torch.testing.assert_close(found[clear].double(), truth[clear], rtol=1e-4, atol=1e-5)
    assert (found.isinf() != truth.isinf()).sum() <= 1


@pytest.mark.parametrize("ratio", [1.0, 2.0, 1.37, INF])
def test_against_an_integrator(ratio, backend):
    """Integrates the differential equations from input to input and stops at the threshold."""
    times, weight = sample(7, samples=2, outputs=3)
    found = first_spike_time(times, weight, LIF(ratio), backend=backend)

    def flow(_, state):
        voltage, current = state
        return [-voltage / ratio + current, -current]

    def reaches(_, state):
        return state[0] - 1.0

    reaches.terminal, reaches.direction = True, 1
    for b in range(len(times)):
        order = times[b].argsort()
        arrival = times[b][order].tolist()
        for o in range(len(weight)):
            state, spike = np.zeros(2), INF
            for start, end, w in zip(arrival, [*arrival[1:], 60.0], weight[o][order].tolist(), strict=True):
                state[1] += w
                run = solve_ivp(flow, (start, end), state, events=reaches, rtol=1e-11, atol=1e-13, max_step=0.1)
                if run.t_events[0].size:
                    spike = run.t_events[0][0]
                    break
                state = run.y[:, -1]
            assert found[b, o].item() == pytest.approx(spike, rel=1e-9)


# times, weights, threshold; in a comment what is hard about it
HARD = {
    "single input": ([0.3], [4.5], 1.0),
    "single input too weak": ([0.3], [0.9], 1.0),
    "spike after the last input": ([0.0, 0.1, 0.2], [1.2, 1.2, 1.2], 1.0),
    "long after the last input": ([0.0, 0.1], [-30.0, 36.0], 0.1),
    "ties": ([0.5, 0.5, 0.5, 1.0, 1.0], [0.7, 0.8, 1.0, 2.0, -9.0], 1.0),
    "ties that cancel": ([0.5, 0.5, 0.5, 1.0], [50.0, -25.0, -25.0, 5.0], 1.0),
    "all at once": ([0.25] * 6, [1.0, -1.0, 2.0, 3.0, -2.0, 1.5], 1.0),
    "between two inhibitory inputs": ([0.0, 0.6, 0.62, 0.9, 1.1], [3.0, -0.5, 2.5, -50.0, -50.0], 1.0),
    "just before inhibition": ([0.0, 0.31], [4.0, -1e3], 1.0),
    "inhibition comes first": ([0.0, 0.2], [4.0, -1e3], 1.0),
    "excitation after deep inhibition": ([0.0, 1.0, 1.2], [-40.0, 10.0, 90.0], 1.0),
    "never out of deep inhibition": ([0.0, 1.0], [-400.0, 10.0], 1.0),
    "peak inside, then inhibited": ([0.0, 3.0, 3.5], [3.5, -20.0, 1.0], 1.0),
    "second rise": ([0.0, 0.5, 4.0, 4.1], [2.0, -3.0, 4.0, 4.0], 1.0),
    "zero weights around": ([0.0, 0.2, 0.4, 0.6, 0.8], [0.0, 4.5, 0.0, 0.0, 0.0], 1.0),
    "all zero": ([0.0, 0.2, 0.4], [0.0, 0.0, 0.0], 1.0),
    "all negative": ([0.0, 0.2, 0.4], [-1.0, -2.0, -0.5], 1.0),
    "no finite input": ([INF, INF, INF], [5.0, 5.0, 5.0], 1.0),
    "some inputs never arrive": ([INF, 0.3, INF, 0.1], [99.0, 2.0, -99.0, 2.0], 1.0),
    "one input arrives": ([INF, 0.3, INF], [99.0, 4.5, 99.0], 1.0),
    "unsorted": ([1.9, 0.1, 1.0, 0.5], [3.0, -1.0, 2.0, 1.0], 1.0),
    "negative times": ([-3.0, -2.5, -2.0], [1.5, 1.5, 1.5], 1.0),
    "zero is in the middle": ([-0.5, 0.0, 0.5], [1.0, 1.0, 1.0], 1.0),
    "far apart": ([0.0, 1e4, 1.0001e4], [0.5, 0.5, 5.0], 1.0),
    "fires in a long gap": ([0.0, 1e4], [8.0, 0.1], 1.0),
    "fires in a long gap, then inhibited": ([0.0, 0.1, 1e4], [2.0, 2.0, -9.0], 1.0),
    "silent in a long gap, fires later": ([0.0, 1e4, 1e4 + 0.1], [0.9, 3.0, 3.0], 1.0),
    "gap of 50": ([0.0, 50.0, 50.5], [0.9, 3.0, 3.0], 1.0),
    "gap of 746": ([0.0, 746.0, 746.5], [4.5, 3.0, 3.0], 1.0),
    "strong": ([0.0, 0.5], [1e6, -1e6], 1.0),
    "weak and low": ([0.0, 0.5], [3e-6, 2e-6], 1e-6),
    "strong and high": ([0.0, 0.5], [3e6, 2e6], 1e6),
    "almost at once": ([0.5, 0.5 + 1e-15, 0.5 + 1e-12], [1.0, 2.0, 2.0], 1.0),
}


def test_hard_cases(ratio, backend, exact):
    wrong = {}
    for name, (times, weights, threshold) in HARD.items():
        truth = float(exact.first_spike(tuple(times), tuple(weights), ratio, 1.0, threshold))
        found = one(times, weights, LIF(ratio, 1.0, threshold), backend)
        if found != pytest.approx(truth, rel=1e-12, abs=1e-15):
            wrong[name] = found, truth
    assert not wrong


@pytest.mark.parametrize("threshold", sorted({threshold for _, _, threshold in HARD.values()}))
def test_hard_cases_in_one_batch(threshold, backend):
    """Whatever else is in the batch and the layer, a neuron fires at its own time."""
    ratio = 1.37
    cases = [case for case in HARD.values() if case[2] == threshold]
    size = max(len(times) for times, _, _ in cases)
    times = tensor([[*times, *[INF] * (size - len(times))] for times, _, _ in cases])
    weight = tensor([[*weights, *[7.0] * (size - len(weights))] for _, weights, _ in cases])
    together = first_spike_time(times, weight, LIF(ratio, 1.0, threshold), backend=backend)
    assert not together.isnan().any()
    for k, case in enumerate(cases):
        alone = one(case[0], case[1], LIF(ratio, 1.0, threshold), backend)
        assert together[k, k].item() == pytest.approx(alone, rel=1e-13)


def peak_of_one_input(ratio, exact):
    with mp.workdps(exact.digits):
        if ratio == 1:
            at = mp.mpf(1)
        else:
            r = mp.mpf(ratio)
            at = r / (r - 1) * mp.log(r)
        return at, exact.response(at, ratio, 1.0)


@pytest.mark.parametrize("offset", [1e-9, 1e-12])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3])
@pytest.mark.parametrize("followed", [[], [4.0]], ids=["to the end", "then inhibited"])
def test_peak_that_just_reaches_or_misses(ratio, offset, followed, backend, exact):
    at, height = peak_of_one_input(ratio, exact)
    weight = 3.0
    times = [0.0, *(float(at) + x for x in followed)]
    weights = [weight, *(-1.0 for _ in followed)]
    missed = one(times, weights, LIF(ratio, 1.0, float(weight * height) * (1 + offset)), backend)
    reached = one(times, weights, LIF(ratio, 1.0, float(weight * height) * (1 - offset)), backend)
    assert missed == INF
    # T is a distance sqrt(offset) from the peak, and has as much less precision
    assert 0 < float(at) - reached < 20 * math.sqrt(offset * (1 + ratio))
    threshold = float(weight * height) * (1 - offset)
    truth = float(exact.first_spike(tuple(times), tuple(weights), ratio, 1.0, threshold))
    assert reached == pytest.approx(truth, abs=1e-14 / math.sqrt(offset) * (1 + ratio))


@pytest.mark.parametrize("offset", [1e-9, 1e-12])
def test_asymptote_that_just_reaches_or_misses(offset, backend):
    """Without leak the membrane rises towards the sum of weights and never gets there."""
    for times, weights in ([[0.0], [1.0]], [[0.0, 0.5, 0.7], [2.0, -3.0, 2.0]]):
        assert one(times, weights, LIF(INF, 1.0, 1 + offset), backend) == INF
        late = one(times, weights, LIF(INF, 1.0, 1 - offset), backend)
        assert late == pytest.approx(-math.log(offset), rel=0.1)
    assert one([0.0], [1.0], LIF(INF, 1.0, 1.0), backend) == INF
    # nor in a finite time, though it comes closer than the numbers tell
    assert one([0.0, 800.0], [1.0, 0.0], LIF(INF, 1.0, 1.0), backend) == INF
    assert one([0.0, 800.0], [1.0, 1.0], LIF(INF, 1.0, 1.0), backend) == pytest.approx(800.0, abs=1e-12)


@pytest.mark.parametrize("later", [-50.0, 0.0, 50.0])
def test_threshold_at_an_input(later, ratio, backend, exact):
    """The membrane is at the threshold, up to rounding, just when the second input comes."""
    times, weights = [0.0, 0.25], [5.0, later]
    with mp.workdps(exact.digits):
        level = float(exact.membrane(mp.mpf(0.25), [0.0], [5.0], ratio, 1.0))
    below = one(times, weights, LIF(ratio, 1.0, level * (1 - 1e-12)), backend)
    above = one(times, weights, LIF(ratio, 1.0, level * (1 + 1e-12)), backend)
    at = one(times, weights, LIF(ratio, 1.0, level), backend)
    assert below == pytest.approx(0.25, abs=1e-11)
    assert above == (INF if later < 0 else pytest.approx(0.25, abs=1e-11))
    assert at == pytest.approx(0.25, abs=1e-14) or (at == INF and later < 0)


@pytest.mark.parametrize("seed", [1, 3])
def test_threshold_where_the_membrane_is_rounded(seed, ratio, backend):
    """Thresholds equal to the membrane at an input, one bit more and less, with ties of large weights."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.randint(0, 3, (1, 4), generator=generator).double() / 2
    weight = torch.randint(-6, 7, (256, 4), generator=generator).double()
    at = times[0, torch.randint(0, 4, (256,), generator=generator)]
    level = direct_membrane(at[None], times, weight, ratio, 1.0)[0]
    useful = level > 1e-3
    times, weight, at, level = times, weight[useful], at[useful], level[useful]
    lower = level * (1 - 1e-12)
    for threshold in (level, torch.nextafter(level, level + 1), torch.nextafter(level, level - 1), lower):
        spikes = first_spike_time(times, weight, LIF(ratio, 1.0, threshold), backend=backend)[0]
        fires = spikes.isfinite()
        assert not spikes.isnan().any()
        reached = direct_membrane(spikes[None, fires], times, weight[fires], ratio, 1.0)[0]
        torch.testing.assert_close(reached, threshold[fires], rtol=1e-11, atol=1e-13)
    assert (spikes <= at).all()  # the last threshold is reached before, or there


def direct_membrane(t, times, weight, tau_mem, tau_syn):
    """Membrane (batch, out) at t (batch, out), as a sum over inputs."""
    s = (t[..., None] - times[:, None]).clamp(min=0)
    if math.isinf(tau_mem):
        response = 1 - torch.exp(-s / tau_syn)
    elif abs(tau_mem - tau_syn) < 1e-6 * tau_syn:
        delta = 1 / tau_syn - 1 / tau_mem
        response = torch.exp(-s / tau_mem) * (s if delta == 0 else -torch.expm1(-s * delta) / delta) / tau_syn
    else:
        response = tau_mem / (tau_mem - tau_syn) * (torch.exp(-s / tau_mem) - torch.exp(-s / tau_syn))
    return (response * weight).sum(-1)


def test_late_times_in_float32(ratio, backend):
    """The response to times at 1e4 is as exact as the times are."""
    times, weight = sample(2, samples=8, mean=1.5, std=0.5)
    times, weight = (times + 1e4).float(), weight.float()
    truth = first_spike_time(times.double(), weight.double(), LIF(ratio), backend="reference")
    found = first_spike_time(times, weight, LIF(ratio), backend=backend)
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=2e-3)


@pytest.mark.parametrize("gap", [60.0, 95.0, 110.0, 500.0])
def test_long_gaps_in_float32(gap, ratio, backend):
    """exp(-gap) underflows early in float32; the peak in the gap must be seen nevertheless."""
    times, weight = tensor([[0.0, gap]], torch.float32), tensor([[8.0, 0.1]], torch.float32)
    alone = one([0.0], [8.0], LIF(ratio), "reference")
    assert first_spike_time(times, weight, LIF(ratio), backend=backend).item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("threshold", [torch.tensor(0.7), torch.tensor([0.7]), torch.tensor(0.7, dtype=torch.float64)])
def test_one_threshold_as_a_tensor(threshold, backend):
    times, weight = sample(0)
    found = first_spike_time(times, weight, LIF(threshold=threshold), backend=backend)
    truth = first_spike_time(times, weight, LIF(threshold=threshold.item()), backend=backend)
    torch.testing.assert_close(found, truth, rtol=1e-14, atol=0)


def test_delays(ratio, backend, exact):
    times, weight = sample(4, outputs=3)
    delay = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times[0, 2] = INF
    found = first_spike_time(times, weight, LIF(ratio), delay=delay, backend=backend)
    for o in range(len(weight)):
        truth = exact.spikes(times + delay[o], weight[o : o + 1], LIF(ratio))
        torch.testing.assert_close(found[:, o : o + 1], truth, rtol=1e-11, atol=0)
    none = first_spike_time(times, weight, LIF(ratio), delay=torch.zeros_like(weight), backend=backend)
    torch.testing.assert_close(none, first_spike_time(times, weight, LIF(ratio), backend=backend), rtol=1e-14, atol=0)


@pytest.mark.parametrize("delayed", [False, True])
def test_spike_times_may_be_changed_in_place(delayed, backend):
    times, weight = sample(3)
    weight[-1] *= 0.01  # stays silent
    delay = torch.rand(weight.shape, dtype=torch.float64) if delayed else None
    spikes = first_spike_time(times, weight.requires_grad_(), LIF(), delay=delay, backend=backend)
    silent = spikes.isinf()
    spikes[silent] = 10.0
    assert silent.any()
    assert bool((spikes[silent] == 10).all())


@pytest.mark.parametrize("lead", [(), (1,), (5,), (0,), (2, 3), (2, 0, 3), (1, 2, 2, 1)])
def test_leading_dimensions(lead, backend):
    times = torch.rand(*lead, 4, dtype=torch.float64)
    weight = torch.rand(3, 4, dtype=torch.float64) + 0.5
    found = first_spike_time(times, weight, LIF(), backend=backend)
    assert found.shape == (*lead, 3)
    flat = first_spike_time(times.reshape(-1, 4), weight, LIF(), backend=backend)
    assert torch.equal(found, flat.reshape(*lead, 3))


@pytest.mark.parametrize(("lead", "inputs", "outputs"), [((3,), 0, 2), ((), 0, 2), ((3,), 4, 0), ((0,), 0, 0)])
def test_nothing_to_do(lead, inputs, outputs, backend):
    times = torch.rand(*lead, inputs, requires_grad=True)
    weight = torch.rand(outputs, inputs, requires_grad=True)
    found = first_spike_time(times, weight, LIF(), backend=backend)
    assert found.shape == (*lead, outputs)
    assert found.isinf().all()
    found.backward(torch.ones_like(found))
    assert times.grad.shape == times.shape
    assert weight.grad.shape == weight.shape
    assert not times.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize(("samples", "inputs", "outputs"), [(1, 1, 1), (7, 63, 65), (2, 130, 17), (33, 3, 129)])
@pytest.mark.parametrize("ratio", [1.0, 2.0, INF, 1.37])
def test_odd_sizes(samples, inputs, outputs, ratio, backend):
    """Sizes that fill no tile, against neurons computed one by one in another way."""
    times, weight = sample(9, samples, inputs, outputs, mean=4 / inputs, std=1.0)
    times[times > 1.9] = INF
    times[times < 0.3] = 0.3
    found = first_spike_time(times, weight, LIF(ratio), backend=backend)
    fires = found.isfinite()
    reached = direct_membrane(torch.where(fires, found, 0.0), times, weight, ratio, 1.0)
    torch.testing.assert_close(reached[fires], torch.ones_like(reached[fires]), rtol=0, atol=1e-8)
    # nothing reached the threshold earlier, and nothing at all where the neuron is silent
    for part in torch.linspace(0, 1, 21, dtype=torch.float64)[:-1]:
        earlier = direct_membrane(torch.where(fires, found, 12.0) * part, times, weight, ratio, 1.0)
        assert (earlier < 1 + 1e-8).all()


def test_deterministic(ratio, backend):
    times, weight = sample(8, samples=3, inputs=30, outputs=40, mean=0.2)
    first = first_spike_time(times, weight, LIF(ratio), backend=backend)
    assert torch.equal(first, first_spike_time(times, weight, LIF(ratio), backend=backend))


@pytest.mark.host
def test_auto_backend(backends_under_test):
    times, weight = sample(0)
    auto = first_spike_time(times, weight, LIF())
    torch.testing.assert_close(auto, first_spike_time(times, weight, LIF(), backend="reference"), rtol=1e-12, atol=0)
    assert resolve_backend("auto", times.device) in [
        resolve_backend(name, times.device) for name in backends_under_test
    ]


def in_inference_mode(call, weight):
    with torch.inference_mode():
        call(weight)


def refused(call, weight):
    with pytest.raises(ValueError, match="silent must be one of"):
        call(weight, silent="loud")


FIRST_CALLS = {
    "inference": in_inference_mode,
    "vmap": lambda call, weight: torch.func.vmap(call)(weight[None]),
    "grad": lambda call, weight: torch.func.grad(lambda x: call(x).sum())(weight),
    "make_fx": lambda call, weight: make_fx(call)(weight),
    "refused": refused,
}


@pytest.mark.host
@pytest.mark.parametrize("first", FIRST_CALLS)
def test_how_a_neuron_is_called_first_changes_no_later_call(first, backend):
    neuron = LIF(threshold=0.5 + 0.01 * len(first))  # one that no other call has settled

    def call(weight, **options):
        return first_spike_time(torch.tensor([[0.0, 0.3]]), weight, neuron, backend=backend, **options)

    weight = torch.tensor([[2.0, 1.0]], requires_grad=True)
    FIRST_CALLS[first](call, weight.detach())
    call(weight).sum().backward()
    expected = torch.func.grad(lambda x: call(x).sum())(weight.detach())
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=0)
