"""What must hold for any input, searched by hypothesis; what leaves results as they are is in tests/invariances."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from firstspike import LIF, first_spike_time

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf
RATIOS = st.sampled_from([1.0, 2.0, 0.5, INF, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3])


class Case(NamedTuple):
    times: torch.Tensor
    weight: torch.Tensor
    ratio: float
    threshold: float

    def spikes(self, backend, scale=1.0):
        return first_spike_time(self.times, self.weight, LIF(self.ratio, 1.0, self.threshold * scale), backend=backend)

    def stable(self, backend):
        """Which spikes do not hang on rounding: a threshold a little lower or higher gives about the same."""
        low, high = self.spikes(backend, 1 - 1e-9), self.spikes(backend, 1 + 1e-9)
        return torch.where(low.isfinite() & high.isfinite(), (high - low).abs() < 1e-6, low == high)


@st.composite
def cases(draw):
    """Times and weights on grids, so that ties, zeros and equal weights are common."""
    inputs, samples, outputs = draw(st.integers(1, 7)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    time = st.one_of(st.integers(0, 32).map(lambda k: k / 16), st.just(INF), st.sampled_from([60.0, 800.0]))
    weight = st.integers(-12, 20).map(lambda k: k / 4)
    times = draw(st.lists(time, min_size=samples * inputs, max_size=samples * inputs))
    weights = draw(st.lists(weight, min_size=outputs * inputs, max_size=outputs * inputs))
    return Case(
        torch.tensor(times, dtype=torch.float64).reshape(samples, inputs),
        torch.tensor(weights, dtype=torch.float64).reshape(outputs, inputs),
        draw(RATIOS),
        draw(st.sampled_from([0.25, 0.9, 1.0, 2.0])),
    )


def gradients(case, backend):
    times, weight = case.times.clone().requires_grad_(), case.weight.clone().requires_grad_()
    out = case._replace(times=times, weight=weight).spikes(backend)
    torch.where(out.isfinite(), out, torch.zeros_like(out)).sum().backward()
    return out.detach(), times.grad, weight.grad


def membrane(t, times, weight, ratio):
    """Membrane (batch, out, k) at the times t (batch, out, k): sums of two exponentials."""
    arrives = times.isfinite()
    s = (t[..., None] - torch.where(arrives, times, torch.zeros_like(times))[:, None, None]).clamp(min=0)
    if math.isinf(ratio):
        response = -torch.expm1(-s)
    elif abs(ratio - 1) < 1e-6:
        response = s * torch.exp(-s)
    else:
        response = ratio / (ratio - 1) * (torch.exp(-s / ratio) - torch.exp(-s))
    return (response * weight[None, :, None] * arrives[:, None, None]).sum(-1)


@given(cases())
@example(Case(torch.tensor([[0.0, 800.0]]).double(), torch.tensor([[8.0, 0.0]]).double(), 1.0, 1.0))
def test_first_time_at_the_threshold(backend, case):
    """V(T) is the threshold, V was below it before, and always is where the neuron is silent."""
    spikes = case.spikes(backend)
    assert not spikes.isnan().any()
    fires = spikes.isfinite()
    end = torch.where(fires, spikes, torch.full_like(spikes, 830.0))
    short = torch.where(fires, spikes, torch.full_like(spikes, 12.0)).clamp(max=12.0)
    tolerance = 2e-8 * (1 + case.weight.abs().sum())  # the approximation at a ratio of 1 + 1e-9
    at = membrane(end[..., None], case.times, case.weight, case.ratio)[..., 0]
    assert ((at - case.threshold).abs()[fires] < tolerance).all()
    part = torch.linspace(0, 1, 60, dtype=torch.float64)
    for until in (end, short):
        before = membrane(until[..., None] * part, case.times, case.weight, case.ratio)
        assert (before < case.threshold + tolerance).all()


@given(cases(), st.sampled_from([1 / 16, 1.0, 900.0]), st.integers(-20, 20))
def test_input_after_the_spike(backend, case, late, weight):
    """It changes nothing, and all its derivatives are exactly zero."""
    spikes, by_times, by_weight = gradients(case, backend)
    if not spikes.isfinite().all():
        return
    last = spikes.max(dim=1, keepdim=True).values
    times = torch.cat([case.times, last + late], dim=1)
    extended = torch.cat([case.weight, torch.full((len(case.weight), 1), float(weight)).double()], dim=1)
    found, found_by_times, found_by_weight = gradients(case._replace(times=times, weight=extended), backend)
    assert not found_by_times[:, -1].any()
    assert not found_by_weight[:, -1].any()
    stable = case.stable(backend)
    torch.testing.assert_close(found[stable], spikes[stable], rtol=0, atol=1e-8)
    if stable.all():
        torch.testing.assert_close(found_by_times[:, :-1], by_times, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found_by_weight[:, :-1], by_weight, rtol=1e-6, atol=1e-6)


@given(cases())
def test_more_weight_is_never_later(backend, case):
    spikes = case.spikes(backend)
    earlier = case._replace(weight=case.weight + 0.25).spikes(backend)
    assert (earlier <= spikes + 1e-9).all()


@pytest.mark.slow
@given(cases())
def test_a_higher_threshold_is_never_earlier(backend, case):
    assert (case.spikes(backend, 1.5) >= case.spikes(backend)).all()


@given(cases())
def test_delay_is_a_later_input(backend, case):
    """An axonal delay, the same for all neurons, does what later input times do."""
    shift = torch.arange(case.times.shape[1], dtype=torch.float64) / 8
    delay = shift.expand_as(case.weight).contiguous()
    lif = LIF(case.ratio, 1.0, case.threshold)
    other = case._replace(times=case.times + shift)
    stable = other.stable(backend)
    delayed = first_spike_time(case.times, case.weight, lif, delay=delay, backend=backend)
    torch.testing.assert_close(delayed[stable], other.spikes(backend)[stable], rtol=0, atol=1e-7)
